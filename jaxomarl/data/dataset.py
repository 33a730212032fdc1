"""Whole episodes packed into rows, and transitions drawn from them on the device."""

import hashlib
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxomarl.base import Batch, Dataset, Episodes, Layout, Spec, refuse, team_reward


def pack(episodes: Episodes, spec: Spec, known: Float[Array, " M"] | None = None) -> Dataset:
    """Pack the blocks of each row next to each other, and list where transitions start.

    `known` is 0.0 where a row's successor is a dummy copy; by default all successors are known.
    `available` and `alive` become extra blocks of whole numbers, where the episodes have them.
    Raises JaxomarlError where a width differs from the spec's or a value is not finite.
    """
    layout = Layout(spec.agents, spec.obs_width, spec.state_dim, spec.act_width, spec.team)
    count = len(episodes.step)
    left = np.asarray(episodes.left, np.int32)
    if known is None:
        known = jnp.ones(count)
    values = {
        "obs": episodes.obs,
        "state": episodes.state,
        "action": episodes.action,
        "reward": episodes.reward,
        "done": episodes.done,
        "known": known,
        "last": (left == 1).astype(np.float32),
    }

    total_width = sum(math.prod(shape) for shape in layout.blocks.values())
    rows = np.zeros((count, total_width), np.float32)
    column = 0
    for name, shape in layout.blocks.items():
        block = np.asarray(values[name], np.float32)
        _check_block(f"data.{name}", block, (count, *shape))
        width = math.prod(shape)
        rows[:, column : column + width] = block.reshape(count, width)
        column += width

    extra = {}
    for name, shape in {"available": layout.blocks["action"], "alive": (spec.agents,)}.items():
        block = getattr(episodes, name)
        if block is not None:
            _check_block(f"data.{name}", np.asarray(block, np.float32), (count, *shape))
            extra[name] = jnp.asarray(block, jnp.uint8)

    return Dataset(
        rows=jnp.asarray(rows),
        step=jnp.asarray(episodes.step, jnp.int32),
        left=jnp.asarray(left),
        starts=jnp.asarray(np.flatnonzero(left > 0), jnp.int32),
        behaviour=jnp.asarray(episodes.behaviour, jnp.int32),
        extra=extra,
        layout=layout,
    )


def _check_block(field: str, block: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raise JaxomarlError for another shape, or for values that are not finite."""
    if block.shape != shape:
        way = "Pad it to the task's widest agent."
        raise refuse(field, f"shape {shape}", block.shape, way)
    broken = int((~np.isfinite(block)).sum())
    if broken:
        raise refuse(field, "finite numbers", f"{broken} that are not", "Clean it.")


# --- checks before training ---


def check_transitions(data: Dataset | None) -> None:
    """Raise JaxomarlError where no transition starts."""
    if data is not None and data.starts.shape[0] == 0:
        raise refuse("--data", "at least one transition", 0, "The set has no row with a successor.")


def check_batch(data: Dataset | None, batch: int, flag: str = "--cfg.policy-batch") -> None:
    """Raise JaxomarlError for a batch that is larger than the number of transitions."""
    if data is not None and batch > data.starts.shape[0]:
        rows = data.starts.shape[0]
        expected = f"at most the data's {rows} transitions"
        raise refuse(flag, expected, batch, f"Take {rows}, or --rows.")


# --- preparing ---


def as_is(spec: Spec, cfg: Any, data: Dataset) -> Dataset:
    """The `prepare` of systems that add nothing to the data."""
    return data


# --- drawing ---


def sample_transitions(key: Key[Array, ""], data: Dataset, size: int) -> Batch:
    """`size` transitions, drawn uniformly with replacement from `data.starts`.

    Two neighbouring rows are gathered for each. `next_action` is what the second row holds. Where a
    transition is the `last` of its episode, by termination or by time-out, the second row is a
    successor row, in which no action was taken: its zeros must not be learned from.
    """
    start = data.starts[jax.random.randint(key, (size,), 0, data.starts.shape[0])]
    pair = start[:, None] + jnp.arange(2)
    row = data.layout.unpack(data.rows[pair][:, 0])
    next_row = data.layout.unpack(data.rows[pair][:, 1])

    agents = data.layout.agents
    available = extra_or_ones(data, "available", pair, (size, 2, agents, data.layout.action))
    team = team_reward(data.layout.team, row["reward"])
    alive = extra_or_ones(data, "alive", start, (size, agents))
    return transitions_of(
        row,
        next_row,
        team_reward=team,
        alive=alive,
        available=available[:, 0],
        next_available=available[:, 1],
    )


def transitions_of(row: dict[str, Array], next_row: dict[str, Array], **others: Array) -> Batch:
    """Transitions from the blocks of two neighbouring rows; `others` are all that no row has."""
    return Batch(
        obs=row["obs"],
        state=row["state"],
        action=row["action"],
        reward=row["reward"],
        next_obs=next_row["obs"],
        next_state=next_row["state"],
        next_action=next_row["action"],
        done=row["done"],
        last=row["last"],
        known=row["known"],
        **others,
    )


def extra_or_ones(
    data: Dataset, name: str, index: Int[Array, "..."], shape: tuple[int, ...]
) -> Array:
    """Rows `index` of an extra block, as floats; ones where the data have no such block."""
    if name in data.extra:
        return data.extra[name][index].astype(jnp.float32)
    return jnp.ones(shape)


# --- identity ---


def content_hash(data: Dataset) -> str:
    """SHA-256 of the arrays and the layout, which tells two data sets apart."""
    arrays = {name: getattr(data, name) for name in ("rows", "step", "left", "starts", "behaviour")}
    for name in sorted(data.extra):
        arrays[f"extra.{name}"] = data.extra[name]

    digest = hashlib.sha256(repr(data.layout).encode())
    for name, values in arrays.items():
        array = np.ascontiguousarray(values)
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def pads_are_zero(data: Dataset, spec: Spec) -> bool:
    """Whether every padded column of observations and actions is exactly zero."""
    padded_obs = np.abs(np.asarray(data.obs)) * (1 - spec.obs_mask)
    padded_action = np.abs(np.asarray(data.action)) * (1 - spec.act_mask)
    return bool(padded_obs.sum() + padded_action.sum() == 0)


# --- all rows ---

BLOCK = 512
"""Rows that `every_row` computes at once."""


def every_row(
    value: Callable[[Any], Array], rows: Any, idle: Bool[Array, ""]
) -> Float[Array, "M N"]:
    """Compute `value` of all rows, BLOCK at a time.

    Where `idle` the result is zeros, and no work is done if all runs of a program are idle.
    """
    count = jax.tree.leaves(rows)[0].shape[0]
    size = min(BLOCK, count)
    blocks = -(-count // size)

    def next_block(carry):
        k, values = carry
        start = jnp.minimum(k * size, count - size)  # the last block overlaps the one before
        block = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, size), rows)
        return k + 1, jax.lax.dynamic_update_slice_in_dim(values, value(block), start, 0)

    shape = jax.eval_shape(value, jax.tree.map(lambda x: x[:size], rows)).shape
    first = jnp.where(idle, blocks, 0)
    zeros = jnp.zeros((count, *shape[1:]))
    return jax.lax.while_loop(lambda carry: carry[0] < blocks, next_block, (first, zeros))[1]
