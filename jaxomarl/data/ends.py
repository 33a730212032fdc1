"""How episodes end: what a format's flags say, against what the task's rules can give. The one place that decides."""

import numpy as np

from jaxomarl.base import JaxomarlError, Spec, refuse
from jaxomarl.data.raw import Raw, chosen, place, where_to_look


def without_stubs(raw: Raw, spec: Spec, repairs: list[str]) -> Raw:
    """The rows without episodes of one step that the rules cannot give, where the format is known to be cut so.

    OG-MARL's tool that makes smaller vaults begins each slice with the last row of the episode before it. Such a row
    is followed by an episode of more steps; what looks otherwise is left for `decide`.
    """
    if not raw.sliced or spec.horizon < 2:
        return raw
    first = np.flatnonzero(raw.step == 0)
    length, group = raw.left[first], raw.behaviour[first]
    followed = np.append((length[1:] > 1) & (group[1:] == group[:-1]), False)
    impossible = (raw.done[first] == 0) | (spec.terminates == "never") | (spec.earliest > 1)
    stub = (length == 1) & followed & impossible
    if not stub.any():
        return raw
    repairs.append(
        f"{int(stub.sum())} rows that are the end of another episode, at the start of a slice, are dropped: no episode"
        f" of one step can end; the first is {place(raw, int(first[stub][0]))}"
    )
    return chosen(raw, ~np.repeat(stub, length + 1))


def decide(
    raw: Raw, spec: Spec, name: str, repairs: list[str]
) -> tuple[np.ndarray, dict[str, int]]:
    """Terminations [M] and counts of how episodes end.

    Raises JaxomarlError, naming the row, for ends that the rules of the task `name` cannot give.
    """
    last = raw.left == 1
    _sound(raw, last)
    length = raw.step[last] + 1
    if (length > spec.horizon).any():
        many, longest = int((length > spec.horizon).sum()), int(length.max())
        way = "The set was made with another time limit (some wrappers take one step more): cut it or collect it again."
        found = f"{many} of {len(length)} are longer, up to {longest}"
        raise refuse("data, episode length", f"at most {spec.horizon} steps", found, way)
    done = by_rules(raw, spec, name, repairs)
    terminated, out = done[last] > 0, (raw.step[last] + 1 == spec.horizon) & (done[last] == 0)
    cut = ~terminated & ~out
    behaviour = raw.behaviour[last]
    tail = np.append(behaviour[1:] != behaviour[:-1], True)
    if (cut & ~tail).any():
        odd = np.flatnonzero(cut & ~tail)
        found = (
            f"{len(odd)} that stop before, the first of {int(length[odd[0]])} steps: it ends at "
        )
        found += place(raw, int(np.flatnonzero(last)[odd[0]]))
        expected = (
            f"{spec.horizon} steps"
            if spec.terminates == "never"
            else f"a termination or {spec.horizon} steps"
        )
        way = "Rows are missing, or the time limit was another. " + where_to_look(raw)
        raise refuse("data, episodes", expected, found, way)
    if cut.any():
        repairs.append(
            f"{int(cut.sum())} episodes at the end of a file stop in the middle: taken for time-outs"
        )
    return done, {
        "terminations": int(terminated.sum()),
        "time_outs": int(out.sum()),
        "cut": int(cut.sum()),
    }


def by_rules(raw: Raw, spec: Spec, name: str, repairs: list[str]) -> np.ndarray:
    """Terminations [M], where the rules overrule the flags; what was overruled is appended to `repairs`.

    Raises JaxomarlError for a termination before the rules can give one.
    """
    name = name.partition(":")[0]
    done, last = np.asarray(raw.done, np.float32), raw.left == 1
    limit = last & (raw.step + 1 == spec.horizon)
    soonest = spec.horizon if spec.terminates == "never" else spec.earliest
    early = last & (done > 0) & (raw.step + 1 < soonest)
    if early.any():
        raise _too_early(raw, early, spec, name)
    if spec.terminates == "always":
        missing = limit & (done == 0)
        if missing.any():
            what = f"{_ends(missing)} after {spec.horizon} steps are terminations"
            repairs.append(f"{what}, as all ends in {name} are: done = 1")
        return np.where(missing, np.float32(1), done)
    timed = np.zeros(len(done)) if raw.cut is None else raw.cut
    both = (done > 0) & (timed > 0)
    at_limit = f"at the time limit of {spec.horizon} steps"
    if spec.terminates == "never":
        wrong = limit & (done > 0)
        twice = f" ({int((wrong & both).sum())} have both flags)" if (wrong & both).any() else ""
        if wrong.any():
            repairs.append(
                f"{_ends(wrong)} {at_limit} are time-outs: done = 0{twice}; {name} never terminates"
            )
        return np.where(wrong, np.float32(0), done)
    marked, unsure = limit & (done > 0) & ~both, limit & both
    if raw.distinct:  # a termination at the limit is told from a time-out, and believed
        marked = np.zeros_like(marked)
    if marked.any():
        repairs.append(f"{_ends(marked)} {at_limit} are time-outs: done = 0")
    if unsure.any():
        repairs.append(
            f"{_ends(unsure)} {at_limit} have both flags and may be either: taken for time-outs, done = 0"
        )
    if (both & ~limit).any():
        repairs.append(
            f"{_ends(both & ~limit)} before the time limit have both flags: taken for terminations"
        )
    return np.where(marked | unsure, np.float32(0), done)


def _sound(raw: Raw, last: np.ndarray) -> None:
    """Refuse flags that are no flags, and terminations inside an episode."""
    bad = ~np.isin(raw.done, (0, 1)) | (~last & (raw.done != 0))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        way = "Contradictory: a termination must be its episode's last transition."
        raise refuse(
            f"data, done, {place(raw, row)}", "0 inside an episode", float(raw.done[row]), way
        )


def _too_early(raw: Raw, early: np.ndarray, spec: Spec, name: str) -> JaxomarlError:
    row = int(np.flatnonzero(early)[0])
    if spec.terminates == "never":
        expected = f"episodes of {spec.horizon} steps, as {name} never terminates"
    else:
        expected = f"no termination before step {spec.earliest}, as {name} can give none"
    found = f"one after {int(raw.step[row]) + 1} of {spec.horizon} steps, and {int(early.sum()) - 1} more"
    way = f"Leave these episodes out, or name the task that the data are of. {where_to_look(raw)}"
    return refuse(f"data, done, {place(raw, row)}", expected, found, way)


def _ends(mask: np.ndarray) -> str:
    return f"{int(mask.sum())} ends"
