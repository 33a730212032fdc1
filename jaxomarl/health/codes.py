"""What an autoencoder of observations keeps: rows that are decoded from their own codes.

    code_error    root mean square error of the decoded rows, in the units that they are coded in
    pca_error     the same of the principal components of each agent's rows, as many as a code has
                  numbers, but fewer than a row has columns
    mean_error    the same of the mean row

An autoencoder that has learned keeps at least what principal components keep.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import Dataset, Gate, Health, Past, State
from jaxomarl.health.behaviour import TOLERANCE
from jaxomarl.health.figures import rmse
from jaxomarl.health.held import transitions

GATES = (Gate("code_error", at_most=TOLERANCE, times="pca_error"),)


class Decoded(NamedTuple):
    """Rows, and what their codes keep of them; both in the units of the autoencoder."""

    rows: Float[Array, "K N O"]
    decoded: Float[Array, "K N O"]


Decode = Callable[[State, Past, Array], Decoded]
"""(state, past, observations) -> rows, encoded and decoded."""


def autoencoder(
    decode: Decode, columns: Float[Array, "N O"], width: int, raise_fields: tuple[str, ...]
) -> Health:
    """Health of a stage whose codes have `width` numbers; `columns` is 1.0 on real columns."""

    def measure(
        key: Key[Array, ""], state: State, past: Past, held: Dataset
    ) -> dict[str, Float[Array, ""]]:
        rows, decoded = decode(state, past, transitions(held).obs)
        half = len(rows) // 2
        kept = jax.vmap(principal_components, in_axes=(1, 1, None), out_axes=1)
        by_components = kept(rows[:half], rows[half:], width)
        mean = jnp.broadcast_to(rows.mean(axis=0), rows.shape)
        return {
            "code_error": rmse(decoded, rows, columns),
            "pca_error": rmse(by_components, rows[half:], columns),
            "mean_error": rmse(mean, rows, columns),
        }

    return Health(measure, GATES, raise_fields)


def principal_components(
    fitted: Float[Array, "B O"], rows: Float[Array, "K O"], count: int
) -> Float[Array, "K O"]:
    """What the first `count` principal components of `fitted` keep of `rows`.

    They are fewer than the columns: all of them would keep everything.
    """
    centre = fitted.mean(axis=0)
    centred = fitted - centre
    _, directions = jnp.linalg.eigh(centred.T @ centred / len(fitted))
    # eigenvalues rise, and the last directions have the largest
    columns = rows.shape[1]
    kept = directions[:, columns - min(count, columns - 1) :]
    return centre + (rows - centre) @ kept @ kept.T
