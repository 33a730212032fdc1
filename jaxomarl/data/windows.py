"""Windows of neighbouring rows, drawn on the device: what planners and models of trajectories are trained on."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxomarl.base import Dataset, Window, refuse, team_reward


def sample_windows(
    key: Key[Array, ""],
    data: Dataset,
    size: int,
    horizon: int,
    history: int = 0,
    full: bool = False,
) -> Window:
    """`size` windows around starts drawn uniformly with replacement from `data.starts`: one gather of packed rows.

    Row `history` is the start, `horizon` rows follow it. No window leaves its episode: rows past its ends repeat the
    first row, or the last one (the successor row), and are not `valid`; nor is a successor row that the data lack.
    `full` draws only starts with `history` rows before them in the episode and `horizon` after; that there are any is
    for `check_windows` to say, on the host. Source: the padding is MADiff's (Zhu et al. 2024).
    """
    start = full_starts(key, data, size, horizon, history) if full else _any_start(key, data, size)
    offset = jnp.arange(-history, horizon + 1)
    before, after = data.step[start, None], data.left[start, None]
    index = start[:, None] + jnp.clip(offset, -before, after)
    inside = ((offset >= -before) & (offset <= after)).astype(jnp.float32)
    row = data.layout.unpack(data.rows[index])
    held = lambda x: x * inside.reshape(*inside.shape, *(1,) * (x.ndim - 2))
    reward, shape = held(row["reward"]), (size, len(offset), data.layout.agents, data.layout.action)
    return Window(
        obs=row["obs"],
        state=row["state"],
        action=held(row["action"]),
        reward=reward,
        team_reward=team_reward(data.layout.team, reward),
        done=held(row["done"]),
        last=held(row["last"]),
        alive=data.extra["alive"][index] if "alive" in data.extra else jnp.ones(shape[:3]),
        available=data.extra["available"][index] if "available" in data.extra else jnp.ones(shape),
        valid=inside * _real(row["known"], data.left[index] == 0),
        extra={name: x[index] for name, x in data.extra.items()},
    )


def full_starts(
    key: Key[Array, ""], data: Dataset, size: int, horizon: int, history: int
) -> Int[Array, " B"]:
    """Rows drawn uniformly from those starts with room for a whole window.

    The count of such starts is a running sum over all of them, which a scan of updates makes once.
    """
    fits = jnp.cumsum(_fits(data, horizon, history).astype(jnp.int32))
    drawn = jax.random.randint(key, (size,), 0, fits[-1])
    return data.starts[jnp.searchsorted(fits, drawn, side="right")]


def check_windows(
    data: Dataset | None,
    horizon: int,
    history: int = 0,
    least: int = 1,
    field: str = "--cfg.horizon",
) -> None:
    """Raise JaxomarlError where fewer than `least` starts have a whole window around them; names episode lengths."""
    if data is None:
        return
    found = int(np.asarray(_fits(data, horizon, history)).sum())
    if found >= least:
        return
    lengths = np.asarray(data.left)[np.asarray(data.step) == 0]
    short, middle, long = (
        int(x) for x in np.quantile(lengths if lengths.size else [0], (0.0, 0.5, 1.0))
    )
    spread = f"{long} steps" if short == long else f"{short} to {long} steps (median {middle})"
    wanted = f"{horizon} steps ahead" + (f" and {history} of history" if history else "")
    way = f"Take horizon + history of at most {long}, or data of longer episodes."
    expected = f"at least {least} windows of {wanted} within episodes of {spread}"
    raise refuse(field, expected, f"{found} windows", way)


def _any_start(key: Key[Array, ""], data: Dataset, size: int) -> Int[Array, " B"]:
    return data.starts[jax.random.randint(key, (size,), 0, data.starts.shape[0])]


def _fits(data: Dataset, horizon: int, history: int) -> Bool[Array, " M1"]:
    return (data.left[data.starts] >= horizon) & (data.step[data.starts] >= history)


def _real(known: Float[Array, "B W"], successor: Bool[Array, "B W"]) -> Float[Array, "B W"]:
    """0.0 on a successor row that is a dummy copy: the row before says so."""
    before = jnp.concatenate([jnp.ones_like(known[:, :1]), known[:, :-1]], axis=1)
    return jnp.where(successor, before, 1.0)
