"""Windows of neighbouring rows, drawn on the device, for planners and models of trajectories."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxomarl.base import Dataset, Window, refuse, team_reward
from jaxomarl.data.dataset import extra_or_ones


def sample_windows(
    key: Key[Array, ""],
    data: Dataset,
    size: int,
    horizon: int,
    history: int = 0,
    full: bool = False,
) -> Window:
    """`size` windows around starts that are drawn uniformly with replacement from `data.starts`.

    A window is one gather of packed rows. Row `history` is the start, and `horizon` rows follow it.
    No window leaves its episode: rows beyond its ends repeat the first row, or the last one (the
    successor row), and are not `valid`. A successor row that the data lack is not valid either.

    `full` draws only starts with `history` rows before them in the episode and `horizon` after.
    `check_windows` says, on the host, whether there are any. Source: the padding is MADiff's (Zhu
    et al. 2024).
    """
    # --- rows ---
    start = _draw_starts(key, data, size, horizon, history, full)
    offset = jnp.arange(-history, horizon + 1)
    before = data.step[start, None]
    after = data.left[start, None]
    index = start[:, None] + jnp.clip(offset, -before, after)
    inside = ((offset >= -before) & (offset <= after)).astype(jnp.float32)
    row = data.layout.unpack(data.rows[index])

    def zero_outside(x: Float[Array, "B W *C"]) -> Float[Array, "B W *C"]:
        """The block with zeros in the rows that repeat an end of the episode."""
        return x * inside.reshape(*inside.shape, *(1,) * (x.ndim - 2))

    # --- blocks ---
    shape = (size, len(offset), data.layout.agents, data.layout.action)
    reward = zero_outside(row["reward"])
    return Window(
        obs=row["obs"],
        state=row["state"],
        action=zero_outside(row["action"]),
        reward=reward,
        team_reward=team_reward(data.layout.team, reward),
        done=zero_outside(row["done"]),
        last=zero_outside(row["last"]),
        alive=extra_or_ones(data, "alive", index, shape[:3]),
        available=extra_or_ones(data, "available", index, shape),
        valid=inside * _successor_known(row["known"], data.left[index] == 0),
        extra={name: x[index] for name, x in data.extra.items()},
    )


def full_starts(
    key: Key[Array, ""], data: Dataset, size: int, horizon: int, history: int
) -> Int[Array, " B"]:
    """Rows drawn uniformly from the starts that have room for a full window.

    The count of such starts is a running sum over all of them. A scan of updates computes it once.
    """
    fits = jnp.cumsum(_has_room(data, horizon, history).astype(jnp.int32))
    drawn = jax.random.randint(key, (size,), 0, fits[-1])
    return data.starts[jnp.searchsorted(fits, drawn, side="right")]


def transitions_known(window: Window) -> Float[Array, "B H N"]:
    """1.0 for transitions of agents that were there, whose successor is known or not needed."""
    started = window.valid[:, :-1]
    usable = started * jnp.maximum(window.valid[:, 1:], window.done[:, :-1])
    return usable[..., None] * window.alive[:, :-1]


def check_windows(
    data: Dataset | None,
    horizon: int,
    history: int = 0,
    least: int = 1,
    field: str = "--cfg.horizon",
) -> None:
    """Raise JaxomarlError where fewer than `least` starts have room for a full window.

    The message names the lengths of the episodes.
    """
    if data is None:
        return
    found = int(np.asarray(_has_room(data, horizon, history)).sum())
    if found >= least:
        return

    lengths = np.asarray(data.left)[np.asarray(data.step) == 0]
    if not lengths.size:
        lengths = np.zeros(1, int)
    shortest = int(lengths.min())
    longest = int(lengths.max())
    spread = f"{longest} steps"
    if shortest != longest:
        spread = f"{shortest} to {longest} steps (median {int(np.median(lengths))})"

    wanted = f"{horizon} steps ahead"
    if history:
        wanted += f" and {history} of history"
    expected = f"at least {least} windows of {wanted} within episodes of {spread}"
    way = f"Take horizon + history of at most {longest}, or data of longer episodes."
    raise refuse(field, expected, f"{found} windows", way)


def _draw_starts(
    key: Key[Array, ""], data: Dataset, size: int, horizon: int, history: int, full: bool
) -> Int[Array, " B"]:
    """Rows drawn uniformly from all starts, or from those with room for a full window."""
    if full:
        return full_starts(key, data, size, horizon, history)
    return data.starts[jax.random.randint(key, (size,), 0, data.starts.shape[0])]


def _has_room(data: Dataset, horizon: int, history: int) -> Bool[Array, " M1"]:
    """Whether each start has `history` rows before it in its episode, and `horizon` after."""
    return (data.left[data.starts] >= horizon) & (data.step[data.starts] >= history)


def _successor_known(
    known: Float[Array, "B W"], successor: Bool[Array, "B W"]
) -> Float[Array, "B W"]:
    """0.0 on a successor row that is a dummy copy, as `known` of the row before it says."""
    known_before = jnp.concatenate([jnp.ones_like(known[:, :1]), known[:, :-1]], axis=1)
    return jnp.where(successor, known_before, 1.0)
