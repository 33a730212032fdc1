"""What generators of windows know: steps from one row to the next, by a regression on true steps.

    next_error           root mean square residual of synthetic next rows, in deviations of the
                         data's columns, from a linear regression on (row, action) that is fitted to
                         half of the held-out rows
    real_error           the same of the other half of the held-out rows: what no generator can beat
    still_error          the same of these rows if nothing moves: the row itself is expected
    shuffled_error       next_error of synthetic rows that are paired with other rows
    reward_error         root mean square residual of synthetic team rewards, in deviations
    real_reward_error    the same of the other half of the held-out rows
    marginal_distance    mean Kolmogorov-Smirnov distance of the synthetic columns from the data's

Windows are drawn without guidance. A generator that has learned the columns and not the steps has
a next_error as large as shuffled_error.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import Dataset, Gate, Health, Past, State, team_reward
from jaxomarl.health.figures import linear_prediction
from jaxomarl.health.held import successors, transitions

GATES = (Gate("next_error", at_most=0.5, times="shuffled_error"),)
TINY = 1e-6


class Steps(NamedTuple):
    """Steps side by side: columns of observation and state before and after, actions, rewards."""

    row: Float[Array, "K C"]
    action: Float[Array, "K D"]
    reward: Float[Array, "K 1"]
    after: Float[Array, "K C"]
    counted: Float[Array, " K"]
    """1.0 on steps that count."""


Draw = Callable[[Key[Array, ""], State], Steps]
"""(key, the generator's state) -> steps of windows that it draws."""


def generator(draw: Draw, raise_fields: tuple[str, ...]) -> Health:
    """Health of a stage that generates windows; it draws them, and is measured at the end alone."""

    def measure(
        key: Key[Array, ""], state: State, past: Past, held: Dataset
    ) -> dict[str, Float[Array, ""]]:
        k_draw, k_other = jax.random.split(key)
        synthetic = draw(k_draw, state)
        real = held_steps(held)
        return {
            **step_errors(k_other, synthetic, real),
            "marginal_distance": marginal_distance(synthetic, real),
        }

    return Health(measure, GATES, raise_fields, at_end=True)


def held_steps(held: Dataset) -> Steps:
    """The steps of held-out transitions."""
    rows = transitions(held)
    after = successors(held, rows)
    reward = held.layout.unpack(held.rows[rows.row])["reward"]
    return Steps(
        row=side_by_side(rows.obs, rows.state),
        action=side_by_side(rows.action),
        reward=team_reward(held.layout.team, reward)[:, None],
        after=side_by_side(after.obs, after.state),
        counted=after.known,
    )


def side_by_side(*blocks: Float[Array, "K ..."]) -> Float[Array, "K C"]:
    """Blocks of rows as columns."""
    return jnp.concatenate([x.reshape(len(x), -1) for x in blocks], axis=-1)


def step_errors(key: Key[Array, ""], synthetic: Steps, real: Steps) -> dict[str, Float[Array, ""]]:
    """The errors of synthetic steps and of real ones."""
    # --- the two regressions, on half of the real steps ---
    half = len(real.row) // 2
    fitted = jax.tree.map(lambda x: x[:half], real)
    other = jax.tree.map(lambda x: x[half:], real)
    known = lambda steps: side_by_side(steps.row, steps.action)
    after = lambda steps: linear_prediction(known(fitted), fitted.after, known(steps))
    reward = lambda steps: linear_prediction(known(fitted), fitted.reward, known(steps))

    # --- residuals in deviations ---
    spread = real.row.std(axis=0)
    reward_spread = real.reward.std(axis=0)
    expected = after(synthetic)
    # a step is never paired with itself
    place = jax.random.permutation(key, len(synthetic.row))
    strange = jnp.zeros_like(place).at[place].set(jnp.roll(place, 1))
    both = synthetic.counted * synthetic.counted[strange]
    return {
        "next_error": in_deviations(synthetic.after - expected, spread, synthetic.counted),
        "real_error": in_deviations(other.after - after(other), spread, other.counted),
        "still_error": in_deviations(other.after - other.row, spread, other.counted),
        "shuffled_error": in_deviations(synthetic.after[strange] - expected, spread, both),
        "reward_error": in_deviations(
            synthetic.reward - reward(synthetic), reward_spread, synthetic.counted
        ),
        "real_reward_error": in_deviations(
            other.reward - reward(other), reward_spread, other.counted
        ),
    }


def in_deviations(
    residual: Float[Array, "K C"], spread: Float[Array, " C"], counted: Float[Array, " K"]
) -> Float[Array, ""]:
    """Root mean square of residuals over deviations, in columns that vary; NaN without a step that
    counts, 0 without a column that varies.
    """
    varies = spread > TINY
    share = jnp.where(varies, residual / jnp.where(varies, spread, 1.0), 0.0)
    mean = jnp.square(share).sum(axis=-1) / jnp.maximum(varies.sum(), 1)
    return jnp.sqrt((counted * mean).sum() / counted.sum())


def marginal_distance(synthetic: Steps, real: Steps) -> Float[Array, ""]:
    """Mean over the columns of the data that vary of the distance of their distributions."""
    ours = side_by_side(synthetic.row, synthetic.action, synthetic.reward)
    theirs = side_by_side(real.row, real.action, real.reward)
    varies = theirs.std(axis=0) > TINY
    of_columns = jax.vmap(kolmogorov_smirnov, in_axes=(1, 1, None))
    distance = of_columns(ours, theirs, synthetic.counted)
    return (varies * distance).sum() / jnp.maximum(varies.sum(), 1)


def kolmogorov_smirnov(
    first: Float[Array, " K"], second: Float[Array, " B"], counted: Float[Array, " K"]
) -> Float[Array, ""]:
    """Largest difference of the distribution functions of the numbers of `first` that count and of
    all of `second`; NaN where none counts.
    """
    values = jnp.concatenate([first, second])
    minus = jnp.full(len(second), -1.0 / len(second))
    mass = jnp.concatenate([counted / counted.sum(), minus])
    order = jnp.argsort(values)
    in_order = values[order]
    gap = jnp.cumsum(mass[order])
    # both functions jump at a number that both have: the gap is that after the last of equals
    last_of_equals = jnp.append(in_order[1:] > in_order[:-1], True)
    return jnp.abs(jnp.where(last_of_equals, gap, 0.0)).max()
