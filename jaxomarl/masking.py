"""Padding and masked reductions: padded columns are exactly zero at every boundary and never counted."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def masked_sum(x: Float[Array, "*B A"], mask: Float[Array, "*b A"]) -> Float[Array, "*B"]:
    """Sum over the last axis, real columns only."""
    return jnp.sum(x * mask, axis=-1)


def masked_mean(x: Float[Array, "*B N A"], mask: Float[Array, "N A"]) -> Float[Array, "*B"]:
    """Mean over each agent's real columns, then over agents, so that no agent counts more for being wide."""
    return jnp.mean(jnp.sum(x * mask, axis=-1) / jnp.sum(mask, axis=-1), axis=-1)


def pad(x: np.ndarray, width: int, axis: int = -1) -> np.ndarray:
    """Zeros appended on `axis` up to `width`; ValueError where it is wider already."""
    missing = width - x.shape[axis]
    if missing < 0:
        raise ValueError(f"pad: axis {axis} is {x.shape[axis]} wide, more than {width}")
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, missing)
    return np.pad(x, widths)


def unpad(x: Array, dims: tuple[int, ...]) -> list[Array]:
    """[..., N, A] -> one array [..., dims[i]] per agent: the real columns."""
    return [x[..., i, :d] for i, d in enumerate(dims)]
