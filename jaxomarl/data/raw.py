"""What a reader finds in a file of some format, before it is compared with a task.

A packed data set can be seen the same way: see `seen`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxomarl.base import Dataset, Spec, refuse

BLOCK_ROWS = 1 << 16
"""Rows that are compared at a time, so that no temporary array is as large as the set."""


class Raw(NamedTuple):
    """Rows of whole episodes, back to back, each episode followed by its successor row.

    There are N agents and M rows, in the format's own units. Agents are a tuple, so that each keeps
    its true width. Nothing is padded, clipped or checked against a task yet.
    """

    format: str
    """The format that was read: a key of `formats.FORMATS`, or "jaxomarl"."""
    obs: tuple[np.ndarray, ...]
    """Each agent's observations [M, o_i], float32."""
    action: tuple[np.ndarray, ...]
    """Each agent's actions [M, a_i], float32: one-hot if discrete, zeros in the successor row."""
    reward: np.ndarray
    """Rewards [M, N], float32; they are zero in an episode's successor row."""
    done: np.ndarray
    """Flags [M]: 1.0 where the transition that starts here terminates. See also `distinct`."""
    step: np.ndarray
    """Position in the episode [M], int32."""
    left: np.ndarray
    """Rows after this one in the episode [M], int32; 0 marks the successor row."""
    known: np.ndarray
    """Flags [M]: 0.0 where the successor is a dummy copy, because the format lost it."""
    behaviour: np.ndarray
    """The behaviour (or seed folder, or vault index) of each row [M], int32; zeros if unknown."""
    state: np.ndarray | None = None
    """States [M, S], float32; None where the format has none."""
    available: np.ndarray | None = None
    """Legal actions [M, N, A], float32; None where the format has none."""
    discrete: bool = False
    """Whether the actions are discrete."""
    quality: str = ""
    """The set's quality, guessed from the path; "" where the path names none."""
    dialects: tuple[str, ...] = ()
    """Names of the rules that may have made the set, likeliest first; () where nothing tells."""
    evidence: tuple[str, ...] = ()
    """One sentence for each hint that the dialects and repairs were inferred from."""
    repairs: tuple[str, ...] = ()
    """What was changed in reading, with counts. It is copied into the manifest."""
    distinct: bool = True
    """Whether the format tells a time-out from a termination.

    Where it does not, `fit`, which knows the horizon, separates them.
    """
    cut: np.ndarray | None = None
    """Flags [M]: 1.0 where the format says that time cut the transition that starts here.

    None where the format has no such flag. A row may have both flags: `fit` decides.
    """
    sliced: bool = False
    """Whether tools of this format cut slices that begin with the last row of another episode."""

    @property
    def agents(self) -> int:
        """Number of agents N."""
        return len(self.obs)


def from_dataset(data: Dataset, spec: Spec, quality: str = "") -> Raw:
    """A packed data set as a reader would have found it, with the padding cut off."""
    packed = blocks(data)
    obs = packed["obs"]
    action = packed["action"]
    available = data.extra.get("available")
    if available is not None:
        available = np.asarray(available)

    return Raw(
        format="jaxomarl",
        obs=tuple(obs[:, i, :width] for i, width in enumerate(spec.obs_dims)),
        action=tuple(action[:, i, :width] for i, width in enumerate(spec.act_dims)),
        reward=packed["reward"],
        done=packed["done"],
        step=np.asarray(data.step),
        left=np.asarray(data.left),
        known=packed["known"],
        behaviour=np.asarray(data.behaviour),
        state=packed["state"],
        available=available,
        discrete=spec.discrete,
        quality=quality,
        dialects=(spec.dialect,),
    )


def blocks(data: Dataset) -> dict[str, np.ndarray]:
    """The blocks of a packed set by name, [M, ...]: views, on the host."""
    rows = np.asarray(data.rows)
    named = {}
    column = 0
    for name, shape in data.layout.blocks.items():
        width = math.prod(shape)
        named[name] = rows[:, column : column + width].reshape(len(rows), *shape)
        column += width
    return named


def select_rows(raw: Raw, keep: np.ndarray) -> Raw:
    """The rows where `keep` [M] is true. They must be whole episodes."""
    changed = {}
    for name in ("reward", "done", "step", "left", "known", "behaviour"):
        changed[name] = getattr(raw, name)[keep]
    for name in ("state", "available", "cut"):
        if getattr(raw, name) is not None:
            changed[name] = getattr(raw, name)[keep]
    for name in ("obs", "action"):
        changed[name] = tuple(x[keep] for x in getattr(raw, name))
    return raw._replace(**changed)


# --- words for messages ---


def how_to_inspect(raw: Raw) -> str:
    """A sentence that tells a person how to see what a set should hold."""
    if raw.format == "arrays":
        return "help(jaxomarl.from_arrays) says which arrays an episode has."
    return "`python -m experiments.data describe PATH` shows what the set holds."


def describe_row(raw: Raw, row: int) -> str:
    """Where a row of [M] stands for a person: its row in the file, its episode and its step."""
    episode = int((raw.step[: row + 1] == 0).sum()) - 1
    step = int(raw.step[row])

    # OMIGA's files have successor rows of their own; the others have transitions alone.
    keeps_successors = raw.format == "omiga"
    row_in_file = int((raw.left[:row] > 0).sum())
    if keeps_successors:
        row_in_file = row

    if raw.left[row] == 0:
        transition = row_in_file - (not keeps_successors)
        return f"the successor of row {transition} (end of episode {episode})"
    return f"row {row_in_file} (episode {episode}, step {step})"


def describe_padding(x: np.ndarray, width: int) -> str:
    """What fills the columns of `x` [M, C] from `width` on, where these are padding.

    Padding is the same in every row, numbers that are not finite included, or it repeats a column
    before `width` in every row. The result is "" where the columns are no padding, or there are
    none.
    """
    surplus = x[:, width:]
    if not surplus.size:
        return ""
    fills: list[str] = []
    for column in surplus.T:
        if (column == column[0]).all() or np.isnan(column).all():
            fills.append(f"{float(column[0]):g}")
            continue
        copied = next((k for k in range(width) if _equal_columns(column, x[:, k])), None)
        if copied is None:
            return ""
        fills.append(f"column {copied} again")
    return ", ".join(dict.fromkeys(fills))


def _equal_columns(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether two columns are equal. The first rows are compared first, to be quick."""
    if not np.array_equal(x[:64], y[:64], equal_nan=True):
        return False
    return np.array_equal(x, y, equal_nan=True)


# --- states that never change ---


def count_constant_states(raw: Raw) -> tuple[int, int]:
    """Count the episodes in which observations move, and those of them whose state does not."""
    if raw.state is None or len(raw.step) < 2:
        return 0, 0
    episode = np.cumsum(raw.step == 0) - 1
    episodes = int(episode[-1]) + 1
    obs_moves = np.zeros(episodes, bool)
    state_moves = np.zeros(episodes, bool)

    for start in range(0, len(raw.step) - 1, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, len(raw.step) - 1)
        # this row and the next are transitions of one episode
        inner = raw.left[start:stop] > 1
        state_changed = _differs_from_next(raw.state, start, stop)
        obs_changed = np.zeros(stop - start, bool)
        for x in raw.obs:
            obs_changed |= _differs_from_next(x, start, stop)
        obs_moves[episode[start:stop][inner & obs_changed]] = True
        state_moves[episode[start:stop][inner & state_changed]] = True

    constant = obs_moves & ~state_moves
    return int(obs_moves.sum()), int(constant.sum())


def _differs_from_next(x: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Whether each row from `start` to `stop` differs from the row after it."""
    return rows_differ(x[start:stop], x[start + 1 : stop + 1])


def rows_differ(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether the rows [M, C] of two arrays differ; NaN equals NaN."""
    both_nan = np.isnan(x) & np.isnan(y)
    return ((x != y) & ~both_nan).any(axis=1)


# --- rows of transitions and successors ---


class RowIndex(NamedTuple):
    """Where the rows of E episodes with T transitions lie, a successor row after each episode."""

    step: np.ndarray
    """Position in the episode [M], int32."""
    left: np.ndarray
    """Rows after this one in the episode [M], int32."""
    transitions: np.ndarray
    """Row of each transition [T]."""
    successors: np.ndarray
    """Row of each episode's successor [E]."""
    final: np.ndarray
    """Each episode's last transition [E], counted among the transitions."""


def index_rows(lengths: Sequence[int] | np.ndarray, where: str) -> RowIndex:
    """The row index of episodes with so many transitions each.

    Raises JaxomarlError where there is no episode, or one without a transition.
    """
    lengths = np.asarray(lengths, np.int64)
    if not len(lengths) or lengths.min() < 1:
        raise refuse(where, "at least one transition", "none", "The set is empty.")
    rows = lengths + 1
    first = np.cumsum(rows) - rows
    step = np.arange(int(rows.sum())) - np.repeat(first, rows)
    left = np.repeat(lengths, rows) - step
    return RowIndex(
        step=step.astype(np.int32),
        left=left.astype(np.int32),
        transitions=np.flatnonzero(left),
        successors=first + lengths,
        final=np.cumsum(lengths) - 1,
    )


def interleave(
    parts: Sequence[np.ndarray],
    index: RowIndex,
    successors: np.ndarray | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Put transitions [T, ...] and successors [E, ...] into rows [M, ...], float32.

    `parts` are the transitions' values, back to back. Without `successors` those rows are zeros.
    `out` is filled where it is given; it must be zeros of that shape.
    """
    if out is None:
        out = np.zeros((len(index.step), *parts[0].shape[1:]), np.float32)
    start = 0
    for part in parts:
        out[index.transitions[start : start + len(part)]] = part
        start += len(part)
    if successors is not None:
        out[index.successors] = successors
    return out


def ends_to_lengths(ends: np.ndarray) -> np.ndarray:
    """Lengths [E] of episodes, from whether each of T transitions is an episode's last.

    The very last transition always ends its episode.
    """
    if not len(ends):
        return np.zeros(0, np.int64)
    final = np.flatnonzero(ends)
    if not len(final) or final[-1] != len(ends) - 1:
        final = np.append(final, len(ends) - 1)
    return np.diff(final, prepend=-1)


def one_hot(numbers: np.ndarray, actions: int, where: str) -> np.ndarray:
    """Whole numbers [...] below `actions` as float32 rows [..., A].

    Raises JaxomarlError for any other number.
    """
    good = (numbers >= 0) & (numbers < actions) & (numbers == np.floor(numbers))
    if not good.all():
        worst = numbers[~good].ravel()[0].item()
        expected = f"whole numbers from 0 to {actions - 1}"
        raise refuse(where, expected, worst, "These are no discrete actions.")
    out = np.zeros((*numbers.shape, actions), np.float32)
    np.put_along_axis(out, numbers.astype(np.int64)[..., None], 1.0, axis=-1)
    return out


# --- agents of different widths ---


def zeros_per_agent(rows: int, widths: Sequence[int]) -> tuple[np.ndarray, ...]:
    """Zeros [M, width] for each agent.

    Agents of equal width share one array, which `stack_agents` then need not copy.
    """
    if len(set(widths)) == 1:
        shared = np.zeros((rows, len(widths), widths[0]), np.float32)
        return tuple(shared[:, i] for i in range(len(widths)))
    return tuple(np.zeros((rows, width), np.float32) for width in widths)


def stack_agents(agents: Sequence[np.ndarray], width: int) -> np.ndarray:
    """The agents' arrays as one, [M, N, width], float32, with zeros beyond an agent's own columns.

    Nothing is copied where the agents are views of such an array already.
    """
    shared = _shared_array(agents, width)
    if shared is not None:
        return shared
    out = np.zeros((len(agents[0]), len(agents), width), np.float32)
    for i, x in enumerate(agents):
        out[:, i, : x.shape[1]] = x
    return out


def _shared_array(agents: Sequence[np.ndarray], width: int) -> np.ndarray | None:
    """The array [M, N, width] of which the agents' arrays are the views, in order; else None."""
    shared = agents[0].base
    shape = (len(agents[0]), len(agents), width)
    if shared is None or shared.shape != shape or shared.dtype != np.float32:
        return None
    for i, x in enumerate(agents):
        view = shared[:, i]
        same_memory = x.ctypes.data == view.ctypes.data and x.strides == view.strides
        if x.base is not shared or x.shape != view.shape or not same_memory:
            return None
    return shared
