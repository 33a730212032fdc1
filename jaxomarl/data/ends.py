"""How episodes end: a format's flags, compared with what the task's rules allow.

This is the one place that decides what is a termination and what is a time-out.
"""

from typing import NamedTuple

import numpy as np

from jaxomarl.base import JaxomarlError, Spec, refuse
from jaxomarl.data.raw import Raw, describe_row, how_to_inspect, select_rows


class Flags(NamedTuple):
    """Terminations of a set's rows, and the rows at which flags have to be judged."""

    done: np.ndarray
    """[M] float32, 1.0 where the format marks a termination."""
    both: np.ndarray
    """[M] bool: the format marks a termination and a time-out."""
    at_limit: np.ndarray
    """[M] bool: the last transition of an episode as long as the task's horizon."""


def without_stubs(raw: Raw, spec: Spec, repairs: list[str]) -> Raw:
    """The rows without stubs: episodes of one step that a format's slicing tool is known to make.

    OG-MARL's tool for smaller vaults begins each slice with the last row of the episode before. A
    stub is an episode of one step, which the rules do not allow, followed by a longer episode. What
    looks otherwise is left to `decide`.
    """
    if not raw.sliced or spec.horizon < 2:
        return raw
    first = np.flatnonzero(raw.step == 0)
    length = raw.left[first]
    behaviour = raw.behaviour[first]
    next_is_longer = np.append((length[1:] > 1) & (behaviour[1:] == behaviour[:-1]), False)
    not_terminated = raw.done[first] == 0
    impossible = not_terminated | (spec.terminates == "never") | (spec.earliest > 1)
    stub = (length == 1) & next_is_longer & impossible
    if not stub.any():
        return raw

    repairs.append(
        f"{int(stub.sum())} rows at the start of a slice are dropped: each is the end of another "
        f"episode, as no episode of one step can end; "
        f"the first is {describe_row(raw, int(first[stub][0]))}"
    )
    return select_rows(raw, ~np.repeat(stub, length + 1))


def decide(
    raw: Raw, spec: Spec, name: str, repairs: list[str]
) -> tuple[np.ndarray, dict[str, int]]:
    """Terminations [M], and counts of how episodes end.

    What was changed is appended to `repairs`. Raises JaxomarlError, naming the row, for ends that
    the rules of the task `name` do not allow.
    """
    last = raw.left == 1
    length = raw.step[last] + 1
    _check_flags(raw, last)
    _check_lengths(length, spec)

    done = by_rules(raw, spec, name, repairs)
    terminated = done[last] > 0
    timed_out = ~terminated & (length == spec.horizon)
    stopped = ~terminated & ~timed_out

    # only the last episode of a file may stop in the middle
    behaviour = raw.behaviour[last]
    end_of_file = np.append(behaviour[1:] != behaviour[:-1], True)
    unexplained = stopped & ~end_of_file
    if unexplained.any():
        raise _stops_early(raw, spec, unexplained)
    if stopped.any():
        repairs.append(
            f"{int(stopped.sum())} episodes at the end of a file stop in the middle: "
            "taken for time-outs"
        )
    counts = {
        "terminations": int(terminated.sum()),
        "time_outs": int(timed_out.sum()),
        "cut": int(stopped.sum()),
    }
    return done, counts


def by_rules(raw: Raw, spec: Spec, name: str, repairs: list[str]) -> np.ndarray:
    """Terminations [M], where the task's rules overrule the format's flags.

    What was overruled is appended to `repairs`. Raises JaxomarlError for a termination before the
    rules allow one.
    """
    name = name.partition(":")[0]
    last = raw.left == 1
    done = np.asarray(raw.done, np.float32)
    timed = np.zeros(len(done)) if raw.cut is None else raw.cut
    flags = Flags(
        done=done,
        both=(done > 0) & (timed > 0),
        at_limit=last & (raw.step + 1 == spec.horizon),
    )

    soonest = spec.earliest
    if spec.terminates == "never":
        soonest = spec.horizon
    early = last & (done > 0) & (raw.step + 1 < soonest)
    if early.any():
        raise _too_early(raw, early, spec, name)

    if spec.terminates == "always":
        return _always_terminations(flags, spec, name, repairs)
    if spec.terminates == "never":
        return _never_terminations(flags, spec, name, repairs)
    return _possible_terminations(flags, raw.distinct, spec, repairs)


def _always_terminations(flags: Flags, spec: Spec, name: str, repairs: list[str]) -> np.ndarray:
    """Terminations [M] of a task whose episodes all end by its rules."""
    unmarked = flags.at_limit & (flags.done == 0)
    if unmarked.any():
        repairs.append(
            f"{_ends(unmarked)} after {spec.horizon} steps are terminations, "
            f"as all ends in {name} are: done = 1"
        )
    return np.where(unmarked, np.float32(1), flags.done)


def _never_terminations(flags: Flags, spec: Spec, name: str, repairs: list[str]) -> np.ndarray:
    """Terminations [M], all zero, of a task whose episodes end by the time limit alone."""
    wrong = flags.at_limit & (flags.done > 0)
    with_both = wrong & flags.both
    remark = ""
    if with_both.any():
        remark = f" ({int(with_both.sum())} have both flags)"
    if wrong.any():
        repairs.append(
            f"{_ends(wrong)} {_at_limit(spec)} are time-outs: "
            f"done = 0{remark}; {name} never terminates"
        )
    return np.where(wrong, np.float32(0), flags.done)


def _possible_terminations(
    flags: Flags, distinct: bool, spec: Spec, repairs: list[str]
) -> np.ndarray:
    """Terminations [M] of a task whose episodes may end by its rules or by the time limit."""
    # a format that tells the two apart is believed at the limit too
    marked = flags.at_limit & (flags.done > 0) & ~flags.both & (not distinct)
    if marked.any():
        repairs.append(f"{_ends(marked)} {_at_limit(spec)} are time-outs: done = 0")

    unsure = flags.at_limit & flags.both
    if unsure.any():
        repairs.append(
            f"{_ends(unsure)} {_at_limit(spec)} have both flags and may be either: "
            "taken for time-outs, done = 0"
        )

    before_limit = flags.both & ~flags.at_limit
    if before_limit.any():
        repairs.append(
            f"{_ends(before_limit)} before the time limit have both flags: taken for terminations"
        )
    return np.where(marked | unsure, np.float32(0), flags.done)


# --- refusals ---


def _check_flags(raw: Raw, last: np.ndarray) -> None:
    """Raise JaxomarlError for flags other than 0 and 1, and for terminations inside an episode."""
    inside = ~last & (raw.done != 0)
    bad = inside | ~np.isin(raw.done, (0, 1))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        field = f"data, done, {describe_row(raw, row)}"
        way = "Contradictory: a termination must be its episode's last transition."
        raise refuse(field, "0 inside an episode", float(raw.done[row]), way)


def _check_lengths(length: np.ndarray, spec: Spec) -> None:
    """Raise JaxomarlError for episodes longer than the task's horizon."""
    longer = int((length > spec.horizon).sum())
    if longer:
        expected = f"at most {spec.horizon} steps"
        found = f"{longer} of {len(length)} are longer, up to {int(length.max())}"
        way = (
            "The set was made with another time limit (some wrappers take one step more): "
            "cut it or collect it again."
        )
        raise refuse("data, episode length", expected, found, way)


def _stops_early(raw: Raw, spec: Spec, unexplained: np.ndarray) -> JaxomarlError:
    """The refusal of episodes [E] that end neither by the rules nor by the time limit."""
    first = int(np.flatnonzero(unexplained)[0])
    row = int(np.flatnonzero(raw.left == 1)[first])
    expected = f"{spec.horizon} steps"
    if spec.terminates != "never":
        expected = f"a termination or {expected}"
    found = (
        f"{int(unexplained.sum())} that stop before, the first of {int(raw.step[row]) + 1} steps: "
        f"it ends at {describe_row(raw, row)}"
    )
    way = f"Rows are missing, or the time limit was another. {how_to_inspect(raw)}"
    return refuse("data, episodes", expected, found, way)


def _too_early(raw: Raw, early: np.ndarray, spec: Spec, name: str) -> JaxomarlError:
    """The refusal of terminations [M] that come before the rules allow one."""
    row = int(np.flatnonzero(early)[0])
    if spec.terminates == "never":
        expected = f"episodes of {spec.horizon} steps, as {name} never terminates"
    else:
        expected = f"no termination before step {spec.earliest}, as {name} allows none"
    found = (
        f"one after {int(raw.step[row]) + 1} of {spec.horizon} steps, "
        f"and {int(early.sum()) - 1} more"
    )
    way = f"Leave these episodes out, or name the task that the data are of. {how_to_inspect(raw)}"
    return refuse(f"data, done, {describe_row(raw, row)}", expected, found, way)


def _ends(mask: np.ndarray) -> str:
    return f"{int(mask.sum())} ends"


def _at_limit(spec: Spec) -> str:
    return f"at the time limit of {spec.horizon} steps"
