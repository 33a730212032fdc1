"""Whole episodes packed into rows, and transitions drawn from them on the device."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxomarl.base import Batch, Dataset, Episodes, Layout, Spec, refuse, team_reward


def pack(episodes: Episodes, spec: Spec, known: Float[Array, " M"] | None = None) -> Dataset:
    """Pack rows side by side and list where transitions start.

    `known` is 0.0 where a row's successor is a dummy copy (default: all known). Raises JaxomarlError where a width
    differs from the spec's or a value is not finite.
    """
    layout = Layout(spec.agents, spec.obs_width, spec.state_dim, spec.act_width, spec.team)
    rows = len(episodes.step)
    last = (np.asarray(episodes.left) == 1).astype(np.float32)
    found = {
        **{k: getattr(episodes, k) for k in ("obs", "state", "action", "reward", "done")},
        "known": np.ones(rows, np.float32) if known is None else known,
        "last": last,
    }
    packed = np.zeros(
        (rows, sum(int(np.prod(shape)) for shape in layout.blocks.values())), np.float32
    )
    at = 0
    for name, shape in layout.blocks.items():
        block = np.asarray(found.pop(name), np.float32)
        if block.shape != (rows, *shape):
            raise refuse(
                f"data.{name}",
                f"shape {(rows, *shape)}",
                block.shape,
                "Pad it to the task's widest agent.",
            )
        if not np.isfinite(block).all():
            raise refuse(
                f"data.{name}",
                "finite numbers",
                f"{int((~np.isfinite(block)).sum())} that are not",
                "Clean it.",
            )
        width = int(np.prod(shape))
        packed[:, at : at + width] = block.reshape(rows, width)
        at += width
    left = np.asarray(episodes.left, np.int32)
    return Dataset(
        rows=jnp.asarray(packed),
        step=jnp.asarray(episodes.step, jnp.int32),
        left=jnp.asarray(left),
        starts=jnp.asarray(np.flatnonzero(left > 0), jnp.int32),
        behaviour=jnp.asarray(episodes.behaviour, jnp.int32),
        extra={},
        layout=layout,
    )


def check_transitions(data: Dataset | None) -> None:
    """Raise JaxomarlError where no transition starts."""
    if data is not None and data.starts.shape[0] == 0:
        raise refuse("--data", "at least one transition", 0, "The set has no row with a successor.")


def check_batch(data: Dataset | None, batch: int) -> None:
    """Raise JaxomarlError for a policy's batch of more rows than there are transitions."""
    if data is not None and batch > data.starts.shape[0]:
        rows = data.starts.shape[0]
        raise refuse(
            "--cfg.policy-batch",
            f"at most the data's {rows} transitions",
            batch,
            f"Take {rows}, or --rows.",
        )


def sample_transitions(key: Key[Array, ""], data: Dataset, size: int) -> Batch:
    """`size` transitions drawn uniformly with replacement from `data.starts`: one gather of two neighbouring rows.

    `next_action` is what the next row holds. In a transition that is its episode's `last`, by termination or by
    time-out, that row is a successor, in which no action was taken: what it holds (zeros) is not to be learned from.
    """
    start = data.starts[jax.random.randint(key, (size,), 0, data.starts.shape[0])]
    pair = start[:, None] + jnp.arange(2)
    row, after = (data.layout.unpack(data.rows[pair][:, k]) for k in range(2))
    shape = (size, data.layout.agents, data.layout.action)
    available = (
        data.extra["available"][pair]
        if "available" in data.extra
        else jnp.ones((size, 2, *shape[1:]))
    )
    return Batch(
        obs=row["obs"],
        state=row["state"],
        action=row["action"],
        reward=row["reward"],
        team_reward=team_reward(data.layout.team, row["reward"]),
        next_obs=after["obs"],
        next_state=after["state"],
        next_action=after["action"],
        done=row["done"],
        last=row["last"],
        known=row["known"],
        alive=data.extra["alive"][start] if "alive" in data.extra else jnp.ones(shape[:2]),
        available=available[:, 0],
        next_available=available[:, 1],
    )


def content_hash(data: Dataset) -> str:
    """SHA-256 of the arrays and the layout: what tells two data sets apart."""
    h = hashlib.sha256(repr(data.layout).encode())
    fields = {k: getattr(data, k) for k in ("rows", "step", "left", "starts", "behaviour")}
    for name, x in {**fields, **{f"extra.{k}": data.extra[k] for k in sorted(data.extra)}}.items():
        array = np.ascontiguousarray(x)
        h.update(f"{name}{array.dtype}{array.shape}".encode())
        h.update(array.tobytes())
    return h.hexdigest()


def pads_are_zero(data: Dataset, spec: Spec) -> bool:
    """True when every padded column of observations and actions is exactly zero."""
    padded = np.abs(np.asarray(data.obs)) * (1 - spec.obs_mask)
    return bool(padded.sum() + (np.abs(np.asarray(data.action)) * (1 - spec.act_mask)).sum() == 0)
