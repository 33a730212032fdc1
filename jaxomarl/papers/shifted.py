"""Finished policies in other settings than their training's.

These are shifted tasks, the best of K attempts, and other values of the fields they act by.

A policy is trained and evaluated in the environment of its data. Here it is rolled out, as training
left it, in any task of the same spec, from the fresh starts of its final evaluation. In its own
task it has the same episodes and gets the same returns. A planner can be asked to act by other
settings (steps of its sampler, guidance) than those it was trained with.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxomarl.api.plan import Group
from jaxomarl.api.session import Results
from jaxomarl.base import Task, refuse
from jaxomarl.papers import keep, measured
from jaxomarl.papers.measured import Measure
from jaxomarl.paths import folder_name
from jaxomarl.results import store, tables
from jaxomarl.training.final import roll_out
from jaxomarl.training.program import last_step

Outcome = dict[str, Float[np.ndarray, "R E K"]]
"""Metric -> value of each run, start and attempt."""


class EvaluationSetting(NamedTuple):
    """The task in which finished policies are rolled out, and how often."""

    task: Task
    starts: int
    """Fresh starts of each seed, those of its final evaluation."""
    attempts: int = 1
    """K: episodes from each start, by other draws of the policy; the best counts."""
    changed: tuple[tuple[str, Any], ...] = ()
    """Config fields, with the values that policies act by in place of their own."""

    @property
    def evaluated(self) -> str:
        """The task's name, and of how many attempts the best counts."""
        if self.attempts > 1:
            return f"{self.task.name} best of {self.attempts}"
        return self.task.name

    @property
    def name(self) -> str:
        """The task's name in records."""
        return " ".join([self.evaluated, *self._changes()])

    @property
    def file(self) -> str:
        """The file's name in each run's folder."""
        folder = folder_name(self.task.name, *self._changes())
        return f"final-{folder}-{self.starts}x{self.attempts}.csv"

    def _changes(self) -> list[str]:
        return [f"{field}={value}" for field, value in self.changed]


def with_parameter(name: str, parameter: str) -> str:
    """The task `name` with one more parameter, `parameter=value`."""
    separator = "," if ":" in name else ":"
    return f"{name}{separator}{parameter}"


def outcomes(
    results: Results, setting: EvaluationSetting
) -> Iterator[tuple[Group, list[store.Run], Outcome]]:
    """Each group's runs and their outcome in a setting.

    An outcome is kept in the runs' folders, and is read from there the next time. Raises
    JaxomarlError where the task's observations, actions or rules are not those of the training.
    """
    first = 0
    for group, _ in results.past:
        runs = results.runs[first : first + len(group.seeds)]
        first += len(group.seeds)
        files = [run.path / setting.file for run in runs]
        if results.out and all(file.exists() for file in files):
            yield group, runs, _read(files, setting)
            continue
        outcome = roll_out_group(results, group, setting)
        if results.out:
            for r, file in enumerate(files):
                columns = {metric: values[r].ravel() for metric, values in outcome.items()}
                store.write_table(file, zip(*columns.values(), strict=True), list(columns))
        yield group, runs, outcome


def _read(files: Sequence[Path], setting: EvaluationSetting) -> Outcome:
    tables_of_runs = [store.read_table(file) for file in files]
    shape = (len(files), setting.starts, setting.attempts)
    outcome = {}
    for metric in tables_of_runs[0][0]:
        values = [[float(row[metric]) for row in table] for table in tables_of_runs]
        outcome[metric] = np.array(values).reshape(shape)
    return outcome


def roll_out_group(results: Results, group: Group, setting: EvaluationSetting) -> Outcome:
    """Roll out a group's finished runs."""
    spec = group.task.env.spec
    env = setting.task.env
    system = group.system
    if env.spec != spec:
        wanted = f"the spec of {group.task.name}: {spec}"
        raise refuse(f"task {setting.task.name}", wanted, env.spec, "Shift that one.")
    cfgs = [dataclasses.replace(cfg, **dict(setting.changed)) for cfg in group.cfgs]
    for cfg in cfgs:
        system.check(spec, cfg, None)
    final = system.pipeline(spec, cfgs[0], None)[-1].name
    (past,) = (past for own, past in results.past if own is group)
    before = {name: state for name, state in past.items() if name != final}
    values = roll_out(
        env,
        system.pipeline,
        spec,
        cfgs,
        group.seeds,
        past[final],
        before,
        setting.starts,
        setting.attempts,
    )
    shape = (len(group.seeds), setting.starts, setting.attempts)
    return {metric: value.reshape(shape) for metric, value in values.items()}


def final_episodes(results: Results) -> int:
    """Episodes of these runs' final evaluations; the fewest, where systems differ."""
    return min(group.final_episodes for group, _ in results.past)


def setting_records(results: Results, setting: EvaluationSetting) -> list[tables.Record]:
    """The records of a setting, of the best attempt from each start.

    A shift has no normalised score.

    Whether a policy has converged is what its training's last two evaluations say.
    """
    rows = []
    runs = []
    scale = None
    if setting.task.scale and setting.attempts == 1:
        scale = setting.task.scale._asdict()
    for group, own_runs, outcome in outcomes(results, setting):
        stage = group.system.pipeline(group.task.env.spec, group.cfgs[0], None)[-1]
        steps = np.array([last_step(stage)])
        best = outcome["return"].max(axis=2)
        for run, values in zip(own_runs, best, strict=True):
            info = {**run.info, "task": setting.name, "normaliser": scale}
            # the data are of the task that is not shifted
            if setting.name != run.info["task"]:
                info["data_return"] = None
            runs.append(store.Run(run.path, info))
            evaluations = {"return": np.asarray(values, np.float32)[None]}
            rows += store.returns_rows(info, info["final_stage"], steps, evaluations)
    converged = {(r.system, r.data, r.config): r.converged for r in results.records}
    return [
        r._replace(converged=converged[r.system, r.data, r.config])
        for r in tables.summary([], runs, rows)
    ]


def setting_measures(
    results: Results, setting: EvaluationSetting, fields: Sequence[str] = ()
) -> list[Measure]:
    """Each run's mean return in a setting, of the best attempt from each start, as evidence.

    The game is the setting's task with the training's data. In the setting stand, next to what was
    swept, the config `fields` of the training and those that acting changes.
    """
    rows = []
    for _, runs, outcome in outcomes(results, setting):
        means = outcome["return"].max(axis=2).mean(axis=1)
        for run, mean in zip(runs, means, strict=True):
            info = run.info
            swept = {**info["swept"], **dict(setting.changed)}
            changed = store.Run(run.path, {**info, "swept": swept})
            name = f"{setting.evaluated} {info['data']}"
            words = keep.setting(changed, fields)
            seed = int(info["seed"])
            rows += measured.of_seeds(
                name, info["system"], words, [seed], {keep.RETURN: [float(mean)]}
            )
    return rows
