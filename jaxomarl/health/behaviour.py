"""What models of the behaviour know: their actions at held-out observations.

    action_error       root mean square distance of the model's action from the data's
    mean_error         the same of the data's mean action
    linear_error       the same of a linear regression on each agent's observation, or of the mean
                       action where that is nearer
    energy_score       mean distance of a drawn action from the data's,
                       less half the distance of two draws from each other
    shuffled_score     the same of actions drawn from other rows
    nearest_distance   distance of the model's action from the nearest one that the data's agent
                       takes in similar rows: is there data where the policy acts?
    nearest_data_distance, nearest_random_distance
                       the same of the data's own actions, and of uniform ones
    at_bounds          share of the model's action columns at -1 or 1
    wrong_share        where actions are one-hot: share of actions that are not the data's
    commonest_wrong_share
                       the same of always playing the commonest action of each agent

Similar rows are those at the NEIGHBOURS smallest distances of the agent's own observation, each
column in its standard deviations; the row itself is left out. Where data have two modes,
an action of the other mode than the row's has a large `action_error`, and is near to data.

A clone that plays the mean is judged by its error, one that draws by its energy score: a draw from
the right distribution has a larger error than its mean has, and the best energy score that there
is.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxomarl.base import Algorithm, Dataset, Gate, Health, Observation, Past, Spec, State
from jaxomarl.health.figures import linear_error, rmse
from jaxomarl.health.held import Transitions, transitions

TOLERANCE = 1.05
"""Factor within which a model counts as level with its reference: on random data there is
nothing to learn.
"""
BOUND = 0.999
DRAWN = 512
"""Largest number of rows at which policies act, which may cost a whole reverse process each."""
NEIGHBOURS = 10
"""Number of similar rows whose actions a policy's action is compared with."""
TIED = 1e-6
"""Difference of two squared distances that is rounding."""
POOL = 1024
"""Largest number of rows among which similar ones are looked for."""
MEAN_GATES = (Gate("action_error", at_most=TOLERANCE, times="linear_error"),)
DRAW_GATES = (Gate("energy_score", at_most=TOLERANCE, times="shuffled_score"),)
ONE_HOT_GATES = (Gate("wrong_share", at_most=TOLERANCE, times="commonest_wrong_share"),)


class Predicted(NamedTuple):
    """A model's actions in rows of held-out windows, and the data's."""

    action: Float[Array, "K N A"]
    true: Float[Array, "K N A"]
    counted: Float[Array, "K N"]
    """1.0 where the agent still acts."""


Predict = Callable[[Key[Array, ""], State, Past, Dataset], Predicted]
"""(key, state, past, held-out episodes) -> actions, from what came before them in the data."""


def clone(spec: Spec, algorithm: Algorithm, draws: bool, raise_fields: tuple[str, ...]) -> Health:
    """Health of a stage whose policies imitate the data; `draws` says whether they act at
    random.
    """
    if spec.discrete:
        return Health(choices_of(spec, algorithm), ONE_HOT_GATES, raise_fields)
    if draws:
        return Health(draws_of(spec, algorithm), DRAW_GATES, raise_fields)
    mask = jnp.asarray(spec.act_mask)

    def measure(
        key: Key[Array, ""], state: State, past: Past, held: Dataset
    ) -> dict[str, Float[Array, ""]]:
        rows = transitions(held, DRAWN)
        played = actions(algorithm, spec, key, state, past, rows)
        every = transitions(held)
        return {
            **distances(spec, rows, played),
            **nearest(spec, held, rows, played),
            "linear_error": linear_error(every.obs, every.action, mask),
        }

    return Health(measure, MEAN_GATES, raise_fields)


def policy(spec: Spec, algorithm: Algorithm) -> Health:
    """Figures of policies that may leave the data for good reasons: nothing is asked of them."""
    if spec.discrete:
        return Health(choices_of(spec, algorithm))

    def measure(
        key: Key[Array, ""], state: State, past: Past, held: Dataset
    ) -> dict[str, Float[Array, ""]]:
        rows = transitions(held, DRAWN)
        played = actions(algorithm, spec, key, state, past, rows)
        near = nearest(spec, held, rows, played)
        return {**distances(spec, rows, played), **near}

    return Health(measure)


def predictor(spec: Spec, predict: Predict, raise_fields: tuple[str, ...]) -> Health:
    """Health of a model that predicts the next action from the data's own rows before it."""
    mask = jnp.asarray(spec.act_mask)

    def measure(
        key: Key[Array, ""], state: State, past: Past, held: Dataset
    ) -> dict[str, Float[Array, ""]]:
        action, true, counted = predict(key, state, past, held)
        if spec.discrete:
            commonest = commonest_action(true, counted)
            return {
                "wrong_share": wrong_share(action, true, counted),
                "commonest_wrong_share": wrong_share(commonest, true, counted),
            }
        mean = jnp.broadcast_to(true.mean(axis=0), true.shape)
        rows = transitions(held)
        return {
            "action_error": rmse(action, true, mask * counted[..., None]),
            "mean_error": rmse(mean, true, mask * counted[..., None]),
            "linear_error": linear_error(rows.obs, rows.action, mask),
        }

    gates = ONE_HOT_GATES if spec.discrete else MEAN_GATES
    return Health(measure, gates, raise_fields)


def choices_of(spec: Spec, algorithm: Algorithm) -> Callable[..., dict[str, Float[Array, ""]]]:
    """Figures of policies of discrete actions, as `Health.measure` takes them."""

    def measure(
        key: Key[Array, ""], state: State, past: Past, held: Dataset
    ) -> dict[str, Float[Array, ""]]:
        rows = transitions(held, DRAWN)
        played = actions(algorithm, spec, key, state, past, rows)
        commonest = commonest_action(rows.action, rows.alive)
        return {
            "wrong_share": wrong_share(played, rows.action, rows.alive),
            "commonest_wrong_share": wrong_share(commonest, rows.action, rows.alive),
        }

    return measure


def draws_of(spec: Spec, algorithm: Algorithm) -> Callable[..., dict[str, Float[Array, ""]]]:
    """Figures of policies that draw their actions, as `Health.measure` takes them."""
    mask = jnp.asarray(spec.act_mask)

    def measure(
        key: Key[Array, ""], state: State, past: Past, held: Dataset
    ) -> dict[str, Float[Array, ""]]:
        rows = transitions(held, DRAWN)
        k_first, k_second, k_other = jax.random.split(key, 3)
        first = actions(algorithm, spec, k_first, state, past, rows)
        second = actions(algorithm, spec, k_second, state, past, rows)
        other = jax.random.permutation(k_other, rows.action)
        another = jnp.roll(other, 1, axis=0)
        return {
            **distances(spec, rows, first),
            **nearest(spec, held, rows, first),
            "energy_score": energy_score(first, second, rows.action, mask),
            "shuffled_score": energy_score(other, another, rows.action, mask),
        }

    return measure


def distances(
    spec: Spec, rows: Transitions, played: Float[Array, "K N A"]
) -> dict[str, Float[Array, ""]]:
    """How far played actions are from the data's, and how many columns are at the bounds."""
    mask = jnp.asarray(spec.act_mask)
    mean = jnp.broadcast_to(rows.action.mean(axis=0), rows.action.shape)
    at_bounds = (mask * (jnp.abs(played) >= BOUND)).sum() / (mask.sum() * len(played))
    return {
        "action_error": rmse(played, rows.action, mask),
        "mean_error": rmse(mean, rows.action, mask),
        "at_bounds": at_bounds,
    }


def nearest(
    spec: Spec,
    held: Dataset,
    rows: Transitions,
    played: Float[Array, "K N A"],
) -> dict[str, Float[Array, ""]]:
    """How far played, the data's own and uniform actions are from the data's in similar rows.

    `rows` are those at which the policies acted, at most DRAWN of the held-out ones.
    """
    every = transitions(held, POOL)
    # drawn by numpy: a program that draws them takes longer to compile than to run
    uniform = np.random.default_rng(0).uniform(-1.0, 1.0, played.shape)
    compared = jnp.stack([played, rows.action, jnp.asarray(uniform, played.dtype)])
    mask = jnp.asarray(spec.act_mask)
    itself = rows.row[:, None] == every.row[None]

    def of_agent(agent: tuple[Array, ...]) -> Float[Array, " 3"]:
        obs, every_obs, action, every_action, columns = agent
        similar = similar_rows(obs, every_obs, itself)
        width = jnp.maximum(columns.sum(), 1.0)

        gaps = squared_gaps(columns * action, columns * every_action) / width
        gap = jnp.where(similar, gaps, jnp.inf).min(axis=-1)
        return jnp.sqrt(gap).mean(axis=-1)

    by_agent = lambda x: jnp.moveaxis(x, -2, 0)
    agents = (by_agent(rows.obs), by_agent(every.obs), by_agent(compared), by_agent(every.action))
    # one agent after another: the gaps of a large team would fill the memory
    own, data, random = jax.lax.map(of_agent, (*agents, mask)).mean(axis=0)
    return {
        "nearest_distance": own,
        "nearest_data_distance": data,
        "nearest_random_distance": random,
    }


def similar_rows(
    obs: Float[Array, "K O"], every: Float[Array, "M O"], itself: Bool[Array, "K M"]
) -> Bool[Array, "K M"]:
    """Which rows are at the NEIGHBOURS smallest distances from each of others, itself left out."""
    mean = every.mean(axis=0)
    std = every.std(axis=0)
    scale = jnp.where(std > 1e-6, std, 1.0)
    standardise = lambda x: (x - mean) / scale
    gaps = jnp.where(itself, jnp.inf, squared_gaps(standardise(obs), standardise(every)))

    # ten minima, one above the other: XLA makes a sort of top_k, which takes 30 times as long
    def next_farthest(_: Int[Array, ""], farthest: Float[Array, "K 1"]) -> Float[Array, "K 1"]:
        above = jnp.where(gaps > farthest + TIED, gaps, jnp.inf).min(axis=1, keepdims=True)
        return jnp.where(jnp.isfinite(above), above, farthest)

    none = jnp.full((len(obs), 1), -1.0)
    farthest = jax.lax.fori_loop(0, NEIGHBOURS, next_farthest, none)
    return gaps <= farthest + TIED


def squared_gaps(x: Float[Array, "*B K D"], y: Float[Array, "M D"]) -> Float[Array, "*B K M"]:
    """Squared distances of every row of x from every row of y."""
    squares = jnp.square(x).sum(axis=-1)[..., None] + jnp.square(y).sum(axis=-1)
    product = jnp.matmul(x, y.T, precision="highest")
    return jnp.maximum(squares - 2.0 * product, 0.0)


def actions(
    algorithm: Algorithm,
    spec: Spec,
    key: Key[Array, ""],
    state: State,
    past: Past,
    rows: Transitions,
) -> Float[Array, "K N A"]:
    """What the policies do at each row, from an empty memory."""
    act = algorithm.act
    assert act is not None

    def one(key: Key[Array, ""], seen: Observation) -> Float[Array, "N A"]:
        return act(key, state, past, algorithm.memory, seen)[0]

    keys = jax.random.split(key, len(rows.obs))
    return jax.vmap(one)(keys, Observation(rows.obs, rows.available))


def wrong_share(
    action: Float[Array, "K N A"], true: Float[Array, "K N A"], counted: Float[Array, "K N"]
) -> Float[Array, ""]:
    """Share of one-hot actions that differ from the true ones, where `counted` is 1.0."""
    wrong = jnp.argmax(action, axis=-1) != jnp.argmax(true, axis=-1)
    return (counted * wrong).sum() / jnp.maximum(counted.sum(), 1.0)


def commonest_action(
    action: Float[Array, "K N A"], counted: Float[Array, "K N"]
) -> Float[Array, "K N A"]:
    """The one-hot action that each agent takes most often, in every row."""
    count = (counted[..., None] * action).sum(axis=0)
    one_hot = jax.nn.one_hot(jnp.argmax(count, axis=-1), count.shape[-1])
    return jnp.broadcast_to(one_hot, action.shape)


def energy_score(
    first: Float[Array, "K N A"],
    second: Float[Array, "K N A"],
    true: Float[Array, "K N A"],
    mask: Float[Array, "N A"],
) -> Float[Array, ""]:
    """Mean over rows and agents of |first - true| - |first - second| / 2, two independent draws
    (Gneiting 2007).
    """
    distance = lambda a, b: jnp.sqrt(jnp.square(mask * (a - b)).sum(axis=-1) + 1e-12)
    return (distance(first, true) - 0.5 * distance(first, second)).mean()
