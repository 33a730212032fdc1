"""Evaluate finished runs again, from their policies alone.

They are rolled out in their own task, or in a variant of it with the same spec. The starts are
those of the final evaluation, so the same task and number of episodes give the numbers of
`final.csv`.

The returns are kept in the run's folder: in `final.csv` for the task of the training, in
`final-VARIANT.csv` for another. A file with more episodes than are asked for is read and left as it
is. A file with fewer is replaced, and a line says so; its first episodes have the same starts.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxomarl.api import policy, register
from jaxomarl.api.plan import find_system, read_config
from jaxomarl.base import JaxomarlError, Stage, Task, check_count, refuse
from jaxomarl.config import digest, static_fields
from jaxomarl.envs.catalog import make
from jaxomarl.paths import folder_name, user_path
from jaxomarl.results import store, tables
from jaxomarl.results.store import Row, Run
from jaxomarl.training.final import MOST, default_episodes, roll_out
from jaxomarl.training.program import last_step

Say = Callable[[str], None]
VARIANT_WAY = "Take a variant of the same task, like mpe/spread:speed_min=0.3."


class RunBatch(NamedTuple):
    """Runs whose policies are one program: the same system, static fields and task."""

    runs: list[Run]
    cfgs: list[Any]
    task: Task
    last: Stage

    @property
    def system(self) -> str:
        """Name of the runs' system."""
        return self.runs[0].info["system"]


def evaluate(
    paths: Sequence[Path], task: str = "", episodes: int = 0, say: Say = print
) -> list[tables.Record]:
    """Evaluate every finished run at or below the given folders; return the records of a table.

    `task` is a variant of the runs' task, "" their own. `episodes` 0 takes as many as each run's
    final evaluation has. Raises JaxomarlError where there is no run, where none is finished, and
    where the task is no variant, or has other observations, actions or rules.
    """
    check_count("--episodes", episodes, MOST)
    finished = _finished(paths, say)

    shown: list[Run] = []
    final: list[Row] = []
    for batch in batches(finished):
        variant = make(task) if task else batch.task
        check_variant(batch, variant)
        runs = [renamed(run, batch.task, variant) for run in batch.runs]
        final += score(batch, runs, variant, episodes, say)
        shown += runs
    return records(finished, shown, final)


def found_runs(paths: Sequence[Path]) -> list[Run]:
    """The runs at or below the folders; JaxomarlError where there is none."""
    found = store.find_runs([user_path(path) for path in paths])
    if not found:
        way = "Give the --out folder of a sweep, or a run's folder: one that holds a run.json."
        raise refuse("RUN", "a folder with runs", ", ".join(map(str, paths)) or "none", way)
    return found


def _finished(paths: Sequence[Path], say: Say) -> list[Run]:
    """The finished runs below the folders; a line names each of the others."""
    found = found_runs(paths)
    finished = [run for run in found if (run.path / policy.FILE).exists()]
    for run in found:
        if run not in finished:
            say(f"  {run.path} is not finished: it has no {policy.FILE}")
    if not finished:
        way = (
            "Give the --out folder of a sweep, or a run's folder; "
            "--resume finishes one that was stopped."
        )
        raise refuse("RUN", "at least one finished run", f"{len(found)} unfinished", way)
    return finished


def batches(runs: Sequence[Run]) -> list[RunBatch]:
    """Runs by system, task and static fields, in the order given."""
    found: dict[str, RunBatch] = {}
    for run in runs:
        info = run.info
        register.check_system(info)
        register.check_task(info)
        system = find_system(info["system"])
        task = make(info["task"])
        cfg = read_config(system, info["cfg"], f"{run.path / 'run.json'}, cfg")
        last = system.pipeline(task.env.spec, cfg, None)[-1]

        key = digest(info["system"], task.name, static_fields(cfg))
        batch = found.setdefault(key, RunBatch([], [], task, last))
        batch.runs.append(run)
        batch.cfgs.append(cfg)
    return list(found.values())


def check_variant(batch: RunBatch, variant: Task) -> None:
    """Raise JaxomarlError for another task, and where a spec is not that of the training."""
    own = batch.task
    trained = batch.runs[0].info.get("spec", {})
    now = _as_json(dataclasses.asdict(own.env.spec))
    changed = {name: x for name, x in trained.items() if name in now and now[name] != x}
    if changed:
        expected = f"the spec of the run: {changed}"
        found = {name: now[name] for name in changed}
        way = "Install the version that trained it, or train again."
        raise refuse(f"task {own.name}", expected, found, way)
    if variant.name.partition(":")[0] != own.name.partition(":")[0]:
        expected = f"{own.name}, or a variant of it"
        way = f"{VARIANT_WAY} Equal shapes make no equal task."
        raise refuse("--task", expected, variant.name, way)
    if variant.env.spec != own.env.spec:
        expected = f"the spec of {own.name}: {own.env.spec}"
        raise refuse("--task", expected, variant.env.spec, VARIANT_WAY)


def _as_json(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts as a JSON file gives them back, with lists for tuples."""
    return json.loads(json.dumps(facts))


def renamed(run: Run, own: Task, variant: Task) -> Run:
    """The run as a table of another task shows it."""
    if variant.name == own.name:
        return run
    changed = {
        "task": variant.name,
        "normaliser": variant.scale._asdict() if variant.scale else None,
        "optimum": variant.optimum,
        # the data are of the task without a shift
        "data_return": None,
    }
    return Run(run.path, {**run.info, **changed})


def file_name(own: Task, variant: Task) -> str:
    """Name of the file in the run's folder that keeps the returns of a task."""
    if own.name == variant.name:
        return store.FINAL
    return f"final-{folder_name(variant.name)}.csv"


def score(
    batch: RunBatch, runs: Sequence[Run], variant: Task, episodes: int, say: Say
) -> list[Row]:
    """Rows of each run's episodes in a task.

    Rows that are kept are read; the other runs are rolled out in one program.
    """
    last = batch.last
    usual = default_episodes(variant.final_episodes, last.episodes)
    counts = [episodes or run.info.get("final_episodes") or usual for run in runs]
    for run, count in zip(runs, counts, strict=True):
        check_count(f"{run.path / 'run.json'}, final_episodes", count, MOST)
    files = [run.path / file_name(batch.task, variant) for run in runs]
    kept = [first_episodes(file, count, say) for file, count in zip(files, counts, strict=True)]

    missing = [r for r, rows in enumerate(kept) if rows is None]
    step = np.array([last_step(last)])
    for count in sorted({counts[r] for r in missing}):
        chosen = [r for r in missing if counts[r] == count]
        say(f"  {batch.system} in {variant.name}: {len(chosen)} runs, {count} fresh episodes each")
        for r, values in zip(chosen, rolled_out(batch, chosen, variant, count), strict=True):
            rows = store.returns_rows(runs[r].info, last.name, step, values)
            store.unseal(files[r].parent)
            store.write_table(files[r], rows, store.COLUMNS)
            store.seal(files[r].parent)
            kept[r] = rows
    return [row for rows in kept for row in rows or ()]


def first_episodes(file: Path, count: int, say: Say) -> list[Row] | None:
    """The first `count` episodes of a file; None, and a line, where it is torn or holds fewer."""
    if not file.exists():
        return None
    try:
        rows = store.read_rows(file)
    except JaxomarlError as error:
        say(f"  {error} It is made again.")
        return None
    episodes = sum(row.metric == "return" for row in rows)
    if episodes < count:
        again = f"it is made again with {count}, the same starts first"
        say(f"  {file} has {episodes} episodes: {again}")
        return None
    return [row for row in rows if isinstance(row.episode, int) and row.episode < count]


def rolled_out(
    batch: RunBatch, chosen: Sequence[int], variant: Task, count: int
) -> list[dict[str, np.ndarray]]:
    """Metric -> [1, E], for each chosen run of a batch."""
    policies = [policy.load_policy(batch.runs[r].path) for r in chosen]
    trees = [(one.state, one.past) for one in policies]
    state, past = jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    env = variant.env
    cfgs = [batch.cfgs[r] for r in chosen]
    seeds = [int(batch.runs[r].info["seed"]) for r in chosen]
    pipeline = find_system(batch.system).pipeline
    metrics = roll_out(env, pipeline, env.spec, cfgs, seeds, state, past, count)
    return [
        {name: values[k : k + 1] for name, values in metrics.items()} for k in range(len(chosen))
    ]


def records(
    trained: Sequence[Run], shown: Sequence[Run], final: Sequence[Row]
) -> list[tables.Record]:
    """The table's records; the last two evaluations in training say whether a policy converged.

    `shown` are the trained runs under the name of the task in which they were evaluated.
    """
    curves = store.load_returns(trained)
    if [run.info["task"] for run in trained] == [run.info["task"] for run in shown]:
        return tables.summary(curves, shown, final)

    converged = {_setting(one): one.converged for one in tables.summary(curves, trained)}
    evaluated = tables.summary([], shown, final)
    return [one._replace(converged=converged.get(_setting(one))) for one in evaluated]


def _setting(record: tables.Record) -> tuple[str, str, str]:
    """The part of a record that stays the same in another task."""
    return record.system, record.data, record.config
