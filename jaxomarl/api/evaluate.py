"""Finished runs scored again from their policies alone: in their own task, or in a variant with the same spec.

The starts are those of the final evaluation, so that the same task and episodes give the numbers of `final.csv`. What
is found is kept next to what is there: `final.csv` for the task of the training, `final-VARIANT.csv` for another.
A file that holds more episodes than are asked for is read and left as it is; one that holds fewer is replaced by one
whose first episodes have the same starts, and that is said.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxomarl.api import policy, register
from jaxomarl.api.plan import find_system
from jaxomarl.base import JaxomarlError, Stage, Task, check_count, refuse
from jaxomarl.config import digest, static_fields
from jaxomarl.envs.catalog import make
from jaxomarl.paths import folder_name, user_path
from jaxomarl.results import store, tables
from jaxomarl.results.store import Row, Run
from jaxomarl.training.final import MOST, default_episodes, roll_out
from jaxomarl.training.program import last_step

Say = Callable[[str], None]


class Batch(NamedTuple):
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
    """Score every finished run at or below the given folders; the records of a table.

    `task` is a variant of the runs' task, "" their own; `episodes` 0 takes as many as each run's final evaluation.
    Raises JaxomarlError where there is no run, where none is finished, or where the variant's observations, actions or
    rules are others.
    """
    check_count("--episodes", episodes, MOST)
    found = store.find_runs([user_path(path) for path in paths])
    if not found:
        way = "Give the --out folder of a sweep, or a run's folder: one that holds a run.json."
        raise refuse("RUN", "a folder with runs", ", ".join(map(str, paths)), way)
    finished = [run for run in found if (run.path / policy.FILE).exists()]
    for run in found:
        if run not in finished:
            say(f"  {run.path} is not finished: it has no {policy.FILE}")
    if not finished:
        way = "Give the --out folder of a sweep, or a run's folder; --resume finishes one that was stopped."
        raise refuse("RUN", "at least one finished run", f"{len(found)} unfinished", way)

    shown: list[Run] = []
    final: list[Row] = []
    for batch in batches(finished):
        other = make(task) if task else batch.task
        check_variant(batch, other)
        runs = [renamed(run, batch.task, other) for run in batch.runs]
        final += score(batch, runs, other, episodes, say)
        shown += runs
    return records(finished, shown, final)


def batches(runs: Sequence[Run]) -> list[Batch]:
    """Runs by system, task and static fields, in the order given."""
    out: dict[str, Batch] = {}
    for run in runs:
        info = run.info
        register.check_system(info)
        register.check_task(info)
        system, task = find_system(info["system"]), make(info["task"])
        cfg = system.Config(**info["cfg"])
        key = digest(info["system"], task.name, static_fields(cfg))
        last = system.pipeline(task.env.spec, cfg, None)[-1]
        batch = out.setdefault(key, Batch([], [], task, last))
        batch.runs.append(run)
        batch.cfgs.append(cfg)
    return list(out.values())


def check_variant(batch: Batch, other: Task) -> None:
    """Raise JaxomarlError where a task's spec is not that of the training."""
    held = batch.runs[0].info.get("spec", {})
    now = {
        k: list(v) if isinstance(v, tuple) else v
        for k, v in dataclasses.asdict(batch.task.env.spec).items()
    }
    changed = {k: v for k, v in held.items() if k in now and now[k] != v}
    if changed:
        way = "Install the version that trained it, or train again."
        raise refuse(
            f"task {batch.task.name}",
            f"the spec of the run: {changed}",
            {k: now[k] for k in changed},
            way,
        )
    if other.env.spec != batch.task.env.spec:
        way = "Take a variant of the same task, like mpe/spread:speed_min=0.3."
        raise refuse(
            "--task", f"the spec of {batch.task.name}: {batch.task.env.spec}", other.env.spec, way
        )


def renamed(run: Run, own: Task, other: Task) -> Run:
    """The run as a table of another task shows it."""
    if other.name == own.name:
        return run
    scale = other.scale._asdict() if other.scale else None
    theirs = {"task": other.name, "normaliser": scale, "optimum": other.optimum}
    return Run(
        run.path, {**run.info, **theirs, "data_return": None}
    )  # the data are of the task that is not shifted


def file_name(own: Task, other: Task) -> str:
    """What the scores in a task are kept as in the run's folder."""
    return store.FINAL if own.name == other.name else f"final-{folder_name(other.name)}.csv"


def score(batch: Batch, runs: Sequence[Run], other: Task, episodes: int, say: Say) -> list[Row]:
    """Rows of each run's episodes in a task: those that are kept, the others rolled out in one program."""
    usual = default_episodes(other.final_episodes, batch.last.episodes)
    counts = [episodes or int(run.info.get("final_episodes") or usual) for run in runs]
    files = [run.path / file_name(batch.task, other) for run in runs]
    kept = [first_episodes(file, count, say) for file, count in zip(files, counts, strict=True)]
    missing = [r for r, rows in enumerate(kept) if rows is None]
    for count in sorted({counts[r] for r in missing}):
        rows = [r for r in missing if counts[r] == count]
        say(f"  {batch.system} in {other.name}: {len(rows)} runs, {count} fresh episodes each")
        for r, values in zip(rows, rolled_out(batch, rows, other, count), strict=True):
            kept[r] = store.returns_rows(
                runs[r].info, batch.last.name, np.array([last_step(batch.last)]), values
            )
            store.write_table(files[r], kept[r] or (), store.COLUMNS)
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
    held = sum(row.metric == "return" for row in rows)
    if held < count:
        say(f"  {file} has {held} episodes: it is made again with {count}, the same starts first")
        return None
    return [row for row in rows if isinstance(row.episode, int) and row.episode < count]


def rolled_out(
    batch: Batch, rows: Sequence[int], other: Task, count: int
) -> list[dict[str, np.ndarray]]:
    """Metric -> [1, E] of each of a batch's runs."""
    policies = [policy.load(batch.runs[r].path) for r in rows]
    trees = [(one.state, one.past) for one in policies]
    state, past = jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
    cfgs, seeds = [batch.cfgs[r] for r in rows], [int(batch.runs[r].info["seed"]) for r in rows]
    system = find_system(batch.system)
    shown = roll_out(other.env, system.pipeline, other.env.spec, cfgs, seeds, state, past, count)
    return [{name: values[k : k + 1] for name, values in shown.items()} for k in range(len(rows))]


def records(
    trained: Sequence[Run], shown: Sequence[Run], final: Sequence[Row]
) -> list[tables.Record]:
    """The table's records. Whether a policy has converged is what its training's last two evaluations say.

    `shown` are the trained runs under the name of the task in which they were scored.
    """
    curves = store.load_returns(trained)
    if [run.info["task"] for run in trained] == [run.info["task"] for run in shown]:
        return tables.summary(curves, shown, final)
    settled = {(r.system, r.data, r.config): r.converged for r in tables.summary(curves, trained)}
    made = tables.summary([], shown, final)
    return [r._replace(converged=settled.get((r.system, r.data, r.config))) for r in made]
