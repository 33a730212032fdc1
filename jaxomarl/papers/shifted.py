"""Finished policies played otherwise than in their training: DOM2's shifted environments and best of K, acting fields.

A policy is trained and evaluated in the environment of its data. Here it is played, as it ended, in any task of the
same spec, from the fresh starts of its final evaluation: in its own task it meets the same episodes and gets the same
returns. A planner can be asked to act by other settings (steps of its sampler, guidance) than those it trained under.
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
from jaxomarl.paths import folder_name
from jaxomarl.results import store, tables
from jaxomarl.training.final import roll_out
from jaxomarl.training.program import last_step

Played = dict[str, Float[np.ndarray, "R E K"]]
"""Metric -> value of each run, start and attempt."""


class Meeting(NamedTuple):
    """Where and how often finished policies are played."""

    task: Task
    starts: int
    """Fresh starts of each seed, those of its final evaluation."""
    attempts: int = 1
    """K: episodes from each start, which differ in nothing but the policy's own draws; the best counts."""
    changed: tuple[tuple[str, Any], ...] = ()
    """Config fields, with the values that policies act by in place of their own."""

    @property
    def name(self) -> str:
        """As records call it."""
        best = f" best of {self.attempts}" if self.attempts > 1 else ""
        return self.task.name + best + "".join(f" {field}={value}" for field, value in self.changed)

    @property
    def file(self) -> str:
        """In each run's folder."""
        played = (self.task.name, *(f"{field}={value}" for field, value in self.changed))
        return f"final-{folder_name(*played)}-{self.starts}x{self.attempts}.csv"


def beside(name: str, shift: str) -> str:
    """The task `name` with one more parameter, `parameter=value`."""
    return f"{name}{',' if ':' in name else ':'}{shift}"


def played(results: Results, meeting: Meeting) -> Iterator[tuple[Group, list[store.Run], Played]]:
    """Each group's runs in a meeting. What was played is kept in the runs' folders and not played again.

    Raises JaxomarlError where the task's observations, actions or rules are not those of the training.
    """
    first = 0
    for group, _ in results.past:
        runs = results.runs[first : first + len(group.seeds)]
        first += len(group.seeds)
        files = [run.path / meeting.file for run in runs]
        if results.out and all(f.exists() for f in files):
            yield group, runs, _read(files, meeting)
            continue
        found = play(results, group, meeting)
        for r, file in enumerate(files if results.out else ()):
            flat = {k: v[r].ravel() for k, v in found.items()}
            store.write_table(file, zip(*flat.values(), strict=True), list(flat))
        yield group, runs, found


def _read(files: Sequence[Path], meeting: Meeting) -> Played:
    held = [store.read_table(file) for file in files]
    shape = (len(files), meeting.starts, meeting.attempts)
    return {
        k: np.array([[float(row[k]) for row in rows] for rows in held]).reshape(shape)
        for k in held[0][0]
    }


def play(results: Results, group: Group, meeting: Meeting) -> Played:
    """Play a group's finished runs."""
    spec, env, system = group.task.env.spec, meeting.task.env, group.system
    if env.spec != spec:
        raise refuse(
            f"task {meeting.task.name}",
            f"the spec of {group.task.name}: {spec}",
            env.spec,
            "Shift that one.",
        )
    cfgs = [dataclasses.replace(cfg, **dict(meeting.changed)) for cfg in group.cfgs]
    for cfg in cfgs:
        system.check(spec, cfg, None)
    last = system.pipeline(spec, cfgs[0], None)[-1].name
    (past,) = (p for g, p in results.past if g is group)
    before = {k: v for k, v in past.items() if k != last}
    shown = roll_out(
        env,
        system.pipeline,
        spec,
        cfgs,
        group.seeds,
        past[last],
        before,
        meeting.starts,
        meeting.attempts,
    )
    shape = (len(group.seeds), meeting.starts, meeting.attempts)
    return {k: v.reshape(shape) for k, v in shown.items()}


def final_episodes(results: Results) -> int:
    """Episodes of these runs' final evaluations; the fewest, where systems differ."""
    return min(group.final_episodes for group, _ in results.past)


def records(results: Results, meeting: Meeting) -> list[tables.Record]:
    """The records of a meeting, of the best attempt from each start; a shift has no normalised score.

    Whether a policy has converged is what its training's last two evaluations say.
    """
    rows, runs = [], []
    for group, mine, found in played(results, meeting):
        last = group.system.pipeline(group.task.env.spec, group.cfgs[0], None)[-1]
        scale = (
            meeting.task.scale._asdict() if meeting.task.scale and meeting.attempts == 1 else None
        )
        for run, values in zip(mine, found["return"].max(axis=2), strict=True):
            info = {**run.info, "task": meeting.name, "normaliser": scale}
            if meeting.name != run.info["task"]:
                info["data_return"] = None  # of the task that is not shifted
            runs.append(store.Run(run.path, info))
            shown = {"return": np.asarray(values, np.float32)[None]}
            rows += store.returns_rows(
                info, info["final_stage"], np.array([last_step(last)]), shown
            )
    settled = {(r.system, r.data, r.config): r.converged for r in results.records}
    return [
        r._replace(converged=settled[r.system, r.data, r.config])
        for r in tables.summary([], runs, rows)
    ]
