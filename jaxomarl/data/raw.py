"""What a reader finds in a file of some format, before it is compared with a task; and a data set seen the same way."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxomarl.base import Dataset, Spec, refuse


class Raw(NamedTuple):
    """Rows of whole episodes, back to back, each with its successor row, in the format's own units; N agents, M rows.

    Agents are a tuple, so that each keeps its true width; nothing is padded, clipped or checked against a task yet.
    """

    format: str
    """Which format was read: a key of `formats.FORMATS`, or "jaxomarl"."""
    obs: tuple[np.ndarray, ...]
    """Per agent [M, o_i], float32."""
    action: tuple[np.ndarray, ...]
    """Per agent [M, a_i], float32; one-hot where discrete; zeros in an episode's last row."""
    reward: np.ndarray
    """[M, N], float32; zeros in an episode's last row."""
    done: np.ndarray
    """[M], 1.0 where the transition that starts here terminates; see `distinct`."""
    step: np.ndarray
    """[M], int32: position in the episode."""
    left: np.ndarray
    """[M], int32: rows after this one in the episode; 0 marks the successor row."""
    known: np.ndarray
    """[M], 0.0 where the successor is a dummy copy, because the format lost it."""
    behaviour: np.ndarray
    """[M], int32: which behaviour (or seed folder, or vault index) made the row; zeros where unknown."""
    state: np.ndarray | None = None
    """[M, S], float32; None where the format has none."""
    available: np.ndarray | None = None
    """[M, N, A], float32: the legal actions, where the format has them."""
    discrete: bool = False
    quality: str = ""
    """Its name among the qualities, guessed from the path; "" where it has none."""
    dialects: tuple[str, ...] = ()
    """Names of the rules that it may have been made under, likeliest first; () where nothing tells."""
    evidence: tuple[str, ...] = ()
    """One sentence for each hint that the dialects and repairs were inferred from."""
    repairs: tuple[str, ...] = ()
    """What was changed in reading, with counts; it goes into the manifest."""
    distinct: bool = True
    """False where the format marks time-outs as it marks terminations: `fit`, which knows the horizon, tells them."""
    cut: np.ndarray | None = None
    """[M], 1.0 where the format flags that the transition which starts here is cut by time; None where it has no such
    flag. A row may have both flags: `fit` decides."""
    sliced: bool = False
    """Whether a tool of this format is known to cut slices that begin with the last row of the episode before."""

    @property
    def agents(self) -> int:
        """Number of agents N."""
        return len(self.obs)


def where_to_look(raw: Raw) -> str:
    """Return a sentence on how a person sees what a set should hold."""
    if raw.format == "arrays":
        return "help(jaxomarl.from_arrays) says which arrays an episode has."
    return "`python -m experiments.data describe PATH` shows what the set holds."


def blocks(data: Dataset) -> dict[str, np.ndarray]:
    """The blocks of a packed set by name, [M, ...]: views, on the host."""
    rows, out, at = np.asarray(data.rows), {}, 0
    for name, shape in data.layout.blocks.items():
        width = math.prod(shape)
        out[name] = rows[:, at : at + width].reshape(len(rows), *shape)
        at += width
    return out


def seen(data: Dataset, spec: Spec, quality: str = "") -> Raw:
    """A packed data set as a reader would have found it: padding cut off."""
    held = blocks(data)
    obs, action = held["obs"], held["action"]
    available = data.extra.get("available")
    return Raw(
        "jaxomarl",
        tuple(obs[:, i, :width] for i, width in enumerate(spec.obs_dims)),
        tuple(action[:, i, :width] for i, width in enumerate(spec.act_dims)),
        held["reward"],
        held["done"],
        np.asarray(data.step),
        np.asarray(data.left),
        held["known"],
        np.asarray(data.behaviour),
        held["state"],
        None if available is None else np.asarray(available),
        spec.discrete,
        quality,
        (spec.dialect,),
    )


def chosen(raw: Raw, keep: np.ndarray) -> Raw:
    """The rows [M] bool of `keep`, which are whole episodes."""
    one = {
        name: getattr(raw, name)[keep]
        for name in ("reward", "done", "step", "left", "known", "behaviour")
    }
    some = {name: getattr(raw, name) for name in ("state", "available", "cut")}
    some = {name: None if x is None else x[keep] for name, x in some.items()}
    many = {name: tuple(x[keep] for x in getattr(raw, name)) for name in ("obs", "action")}
    return raw._replace(**one, **some, **many)


def place(raw: Raw, row: int) -> str:
    """Where row `row` of [M] stands for a person: its row in the file, where that has rows, its episode and step."""
    episode, step = int((raw.step[: row + 1] == 0).sum()) - 1, int(raw.step[row])
    at = (
        row if raw.format == "omiga" else int((raw.left[:row] > 0).sum())
    )  # OMIGA keeps its successors as rows
    if raw.left[row] == 0:
        return f"the successor of row {at - (raw.format != 'omiga')} (end of episode {episode})"
    return f"row {at} (episode {episode}, step {step})"


def padding(x: np.ndarray, width: int) -> str:
    """What fills the columns from `width` on of [M, C], where that is padding; "" where it is not, or there are none.

    Padding is constant in every row, not finite ones included, or repeats a column before `width` in every row.
    """
    surplus = x[:, width:]
    if not surplus.size:
        return ""
    filled: list[str] = []
    for column in surplus.T:
        if (column == column[0]).all() or np.isnan(column).all():
            filled.append(f"{float(column[0]):g}")
            continue
        copied = next((k for k in range(width) if _same(column, x[:, k])), None)
        if copied is None:
            return ""
        filled.append(f"column {copied} again")
    return ", ".join(dict.fromkeys(filled))


def _same(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether two columns are equal, by their first rows first."""
    return np.array_equal(x[:64], y[:64], equal_nan=True) and np.array_equal(x, y, equal_nan=True)


def still_states(raw: Raw) -> tuple[int, int]:
    """Episodes in which observations move, and of these the ones in which the state stays as in their first row."""
    if raw.state is None or len(raw.step) < 2:
        return 0, 0
    episode = np.cumsum(raw.step == 0) - 1
    moves, changes = (np.zeros(int(episode[-1]) + 1, bool) for _ in range(2))
    for a in range(0, len(raw.step) - 1, _BLOCK):
        b = min(a + _BLOCK, len(raw.step) - 1)
        inner = raw.left[a:b] > 1  # this row and the next are transitions of one episode
        moved, changed = np.zeros(b - a, bool), _unlike(raw.state, a, b)
        for x in raw.obs:
            moved |= _unlike(x, a, b)
        moves[episode[a:b][inner & moved]] = True
        changes[episode[a:b][inner & changed]] = True
    return int(moves.sum()), int((moves & ~changes).sum())


_BLOCK = 1 << 16


def _unlike(x: np.ndarray, a: int, b: int) -> np.ndarray:
    """Whether each of the rows a to b differs from the next one; NaN is like NaN."""
    now, then = x[a:b], x[a + 1 : b + 1]
    return ((now != then) & ~(np.isnan(now) & np.isnan(then))).any(axis=1)


class Places(NamedTuple):
    """Where the rows of E episodes with T transitions lie when each episode is followed by its successor row."""

    step: np.ndarray
    """[M], int32."""
    left: np.ndarray
    """[M], int32."""
    rows: np.ndarray
    """[T]: row of each transition."""
    ends: np.ndarray
    """[E]: row of each episode's successor."""
    final: np.ndarray
    """[E]: each episode's last transition, counted among the transitions."""


def places(lengths: Sequence[int] | np.ndarray, where: str) -> Places:
    """Rows of episodes with so many transitions each; JaxomarlError where there is none."""
    lengths = np.asarray(lengths, np.int64)
    if not len(lengths) or lengths.min() < 1:
        raise refuse(where, "at least one transition", "none", "The set is empty.")
    first = np.cumsum(lengths + 1) - (lengths + 1)
    step = np.arange(int(lengths.sum()) + len(lengths)) - np.repeat(first, lengths + 1)
    left = np.repeat(lengths, lengths + 1) - step
    return Places(
        step.astype(np.int32),
        left.astype(np.int32),
        np.flatnonzero(left),
        first + lengths,
        np.cumsum(lengths) - 1,
    )


def lay(
    values: Sequence[np.ndarray],
    at: Places,
    last: np.ndarray | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Transitions' values (parts of [T, ...], back to back) and the successors' [E, ...] as float32 rows [M, ...].

    Without `last` the successor rows are zeros. `out`, zeros of that shape, is filled where it is given.
    """
    out = np.zeros((len(at.step), *values[0].shape[1:]), np.float32) if out is None else out
    done = 0
    for part in values:
        out[at.rows[done : done + len(part)]] = part
        done += len(part)
    if last is not None:
        out[at.ends] = last
    return out


def ends_to_lengths(ends: np.ndarray) -> np.ndarray:
    """Whether each of T transitions is an episode's last -> lengths [E]; the last one always is."""
    if not len(ends):
        return np.zeros(0, np.int64)
    at = np.flatnonzero(ends)
    if not len(at) or at[-1] != len(ends) - 1:
        at = np.append(at, len(ends) - 1)
    return np.diff(at, prepend=-1)


def one_hot(index: np.ndarray, actions: int, where: str) -> np.ndarray:
    """Whole numbers [...] below `actions` as float32 rows [..., A]; JaxomarlError for anything else."""
    good = (index >= 0) & (index < actions) & (index == np.floor(index))
    if not good.all():
        worst = index[~good].ravel()[0].item()
        raise refuse(
            where, f"whole numbers from 0 to {actions - 1}", worst, "These are no discrete actions."
        )
    out = np.zeros((*index.shape, actions), np.float32)
    np.put_along_axis(out, index.astype(np.int64)[..., None], 1.0, axis=-1)
    return out


def room(rows: int, widths: Sequence[int]) -> tuple[np.ndarray, ...]:
    """Zeros [M, width] for each agent; in one array where the widths are equal: see `side_by_side`."""
    if len(set(widths)) == 1:
        whole = np.zeros((rows, len(widths), widths[0]), np.float32)
        return tuple(whole[:, i] for i in range(len(widths)))
    return tuple(np.zeros((rows, w), np.float32) for w in widths)


def side_by_side(agents: Sequence[np.ndarray], width: int) -> np.ndarray:
    """[M, N, width], float32, zeros beyond an agent's own columns; no copy where the agents lie like that already."""
    whole = agents[0].base
    if (
        whole is not None
        and whole.shape == (len(agents[0]), len(agents), width)
        and whole.dtype == np.float32
    ):
        views = [whole[:, i] for i in range(len(agents))]
        if all(x.base is whole and x.shape == v.shape and x.ctypes.data == v.ctypes.data and x.strides == v.strides
               for x, v in zip(agents, views, strict=True)):  # fmt: skip
            return whole
    out = np.zeros((len(agents[0]), len(agents), width), np.float32)
    for i, x in enumerate(agents):
        out[:, i, : x.shape[1]] = x
    return out
