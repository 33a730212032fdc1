"""`reproduce coda-games`: CODA's polynomial games, by four methods on one data set.

Agents are two numbers, theta_x and theta_y. Each climbs the reward with its team-mate's action
taken from a batch of joint actions. The batch is of the data, or of a diffusion model that is
conditioned on nothing, on a high reward, or on the present joint policy. One model is trained per
game, with all three conditions, and all seeds share it.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from jaxomarl.data import cdf
from jaxomarl.diffusion import edm
from jaxomarl.diffusion.guidance import classifier_free
from jaxomarl.diffusion.losses import denoising_loss
from jaxomarl.envs.polynomial import (
    ascend,
    brud_gradient,
    polynomial,
    twin_peaks_brud_fixed_point,
    twin_peaks_optimum,
)
from jaxomarl.networks.temporal import temporal_unet
from jaxomarl.optim import annealed, create, descend, polyak
from jaxomarl.papers import measured
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.comparison import markdown_table
from jaxomarl.papers.measured import Measure
from jaxomarl.results.figures import score_fields

GAMES = {"multiplication": (0.0, 0.0, 1.0), "twin peaks": (1.0, 4.0, 5.0)}
METHODS = ("no augmentation (BRUD)", "unconditional", "Q-conditioned", "CODA")
CENTRED = "twin peaks, data centred on an optimum"
START = (-0.64, 0.65)

# --- the data and the learners ---
ROWS = 4000
BATCH = 64
"""Rows of a learner's step."""
LONG = 4000
"""A learner's steps on rows that stay as they are."""
SHORT = 100
"""A learner's steps on rows that are sampled for each step."""

# --- what the games do not say ---
WIDE = 2.0
"""Bound of the learner's actions where they may leave the data's square."""
WIDER = f"actions in +-{WIDE:g}"
CENTRED_STDS = (0.0, 0.3, 0.6)
"""Standard deviations of data that are centred on an optimum of twin peaks."""

# --- the model and its sampler ---
STEPS = 1000
ROWS_STEP = 512
WIDTH = 32
LR = 1e-2
LEVELS = 18
WEIGHT = 1.0
"""The w of CODA's guidance (1 + w)."""
HIGH = 0.95
"""Quantile of the data's rewards that the high reward is."""
SHARES = (0.4, 0.3, 0.3)
"""Shares of the conditions in training batches."""
CONDITION = 5
"""Width of a condition: theta_x, theta_y, reward, and which of the two is given."""
NET = temporal_unet(3, CONDITION, WIDTH, (1,), kernel=3)

# --- conditions, by index: the joint policy, a reward, nothing ---
BY_POLICY = 0
BY_REWARD = 1
UNCONDITIONAL = 2

# --- the vector fields of the picture ---
GRID = 9
"""Points of a vector field along one axis."""
ARROW_BATCH = 256
"""Joint actions that make each arrow."""


class RowModel(NamedTuple):
    """A trained model and the distributions of its columns x, y, reward."""

    params: Any
    columns: cdf.Cdf
    scale: Float[Array, " 2"]
    """Mean and deviation of the data's rewards."""


def coda_games(asked: Asked) -> str:
    """Both games: a table, and a picture of each.

    A picture has the data, the fields and the paths of all seeds.
    """
    asked.check_unused("coda-games", "its games are fixed.")
    steps = asked.updates(STEPS)
    rows = []
    measures = []
    pictures = []
    fit = jax.jit(fit_row_model, static_argnums=2)
    walk = jax.jit(learn)
    sample = jax.jit(sample_actions, static_argnums=3)
    for number, (name, weights) in enumerate(GAMES.items()):
        # --- the model ---
        asked.say(f"{name}: one model, {steps} updates of {ROWS_STEP} rows")
        data = uniform_actions(jax.random.fold_in(jax.random.key(0), number))
        rewards = polynomial(data, *weights)
        columns = jnp.concatenate([data, rewards[:, None]], axis=1)
        model = fit(jax.random.key(1), columns, steps)

        # --- the learners ---
        asked.say(f"{name}: {len(METHODS)} methods, {len(asked.seeds)} seeds")
        conditions = conditions_of(model, jnp.zeros((ROWS, 2)), jnp.quantile(rewards, HIGH))
        free = sample(jax.random.key(4), model, conditions[UNCONDITIONAL], 0)
        high = sample(jax.random.key(3), model, conditions[BY_REWARD], 0)
        pools = jnp.stack([data, free, high])
        keys = jax.vmap(jax.random.key)(jnp.asarray(asked.seeds))
        all_paths = np.asarray(walk(keys, model, pools, jnp.asarray(weights)))
        paths = {}
        for method, path in zip(METHODS, all_paths, strict=True):
            length = SHORT if method == "CODA" else LONG
            paths[method] = path[:, : length + 1]
        for method, path in paths.items():
            rows.append(end_row(name, method, path[:, -1], weights))
            measures += ends_measures(name, method, "", asked.seeds, path[:, -1], weights)
        measures += marginal_measures(name, free, data)
        if name == "multiplication":
            measures += wide_measures(asked.seeds, keys, high)

        # --- the picture ---
        fields = gradient_fields(sample, model, np.asarray(pools), weights)
        picture = f"{name.replace(' ', '-')}.png"
        drawn_paths = {method: path[:, ::5] for method, path in paths.items()}
        asked.draw(score_fields, picture, np.asarray(data[:1500]), fields, drawn_paths)
        pictures.append(f"![]({picture})")
    centred = centred_measures(asked, GAMES["twin peaks"])
    measured.save_measures(asked.out, [*measures, *centred])
    report = games_report(asked, steps, rows)
    moved = moved_report([*measures, *centred])
    return f"{report}\n{moved}\n" + "\n\n".join(pictures) + "\n"


def games_report(asked: Asked, steps: int, rows: list[tuple[str, ...]]) -> str:
    """The table and what has to be known to read it."""
    head = (
        "game",
        "joint actions from",
        "mean end",
        "reward, mean ± std",
        "at an optimum",
        "which",
        "ends at the edge",
    )
    return (
        "CODA's polynomial games (its section 6.1, Figures 1 and 2), "
        f"{len(asked.seeds)} seeds from {START}. {ROWS} uniform joint actions; one model for each "
        f"game and all seeds ({steps} updates of {ROWS_STEP} rows, {LEVELS} levels of Heun's "
        f"sampler, w = {WEIGHT:g}; the paper's are 10,000 of 1000, and 40). Batches of {BATCH}, "
        "rate 0.1, gradients clipped at 1, steps projected on the square. CODA draws a batch "
        f"under the present joint policy for each of {SHORT} steps; the others draw from {ROWS} "
        f"rows that stay, for {LONG}.\n\n"
        f"{markdown_table(head, rows)}\n"
        "Without the policy in it, the gradient of x y is the constant (mean of y, mean of x) of "
        "the rows: agents go straight to the edge and slide along it, and a corner reached that "
        "way is the edge's doing. In twin peaks it vanishes at C m / (2A + 2B (m^2 + s^2)) of the "
        "rows' moments: near the saddle at 0 for centred ones. The start lies next to the line x + "
        "y = 0 that parts the two optima, so small errors of the model decide which one CODA's "
        "seeds go to.\n"
    )


def ends_measures(
    game: str,
    method: str,
    setting: str,
    seeds: list[int],
    ends: np.ndarray,
    weights: tuple[float, float, float],
) -> list[Measure]:
    """Where each seed ends, and its reward there."""
    reward = np.asarray(polynomial(jnp.asarray(ends), *weights))
    values = {"x": ends[:, 0], "y": ends[:, 1], "reward": reward}
    return measured.of_seeds(game, method, setting, seeds, values)


def marginal_measures(game: str, free: Array, data: Array) -> list[Measure]:
    """The error of each column's distribution, of the model without a condition."""
    measures = []
    for i, column in enumerate("xy"):
        error = distribution_error(np.asarray(free)[:, i], np.asarray(data)[:, i])
        measures.append(Measure(game, "unconditional", "", "", f"error of {column}", error))
    return measures


def distribution_error(x: np.ndarray, y: np.ndarray) -> float:
    """The largest distance of two samples' distribution functions (Kolmogorov and Smirnov)."""
    at = np.sort(np.concatenate([x, y]))
    below_x = np.searchsorted(np.sort(x), at, side="right") / len(x)
    below_y = np.searchsorted(np.sort(y), at, side="right") / len(y)
    return float(np.abs(below_x - below_y).max())


# --- what the games do not say ---


def wide_measures(
    seeds: list[int], keys: Key[Array, " S"], pool: Float[Array, "M 2"]
) -> list[Measure]:
    """Where learners of the multiplication game end that may leave the data's square.

    Their rows are those that were asked for high rewards.
    """
    weights = GAMES["multiplication"]
    walk = jax.jit(functools.partial(path_on_pool, bound=WIDE))
    ends = np.asarray(walk(keys, pool, jnp.asarray(weights)))[:, -1]
    return ends_measures("multiplication", "Q-conditioned", WIDER, seeds, ends, weights)


def centred_measures(asked: Asked, weights: tuple[float, float, float]) -> list[Measure]:
    """Where learners end on data that are centred on an optimum, by the data's spread.

    Rows are Gaussian and may leave the square, so that the formula of the gradient's zero has
    their mean and standard deviation. The measure "predicted" is that zero.
    """
    (centre, _), _ = twin_peaks_optimum(*weights)
    keys = jax.vmap(jax.random.key)(jnp.asarray(asked.seeds))
    noise = jax.random.normal(jax.random.key(5), (ROWS, 2))
    walk = jax.jit(path_on_pool)
    measures = []
    for std in CENTRED_STDS:
        asked.say(f"twin peaks: data centred on the optimum, std {std:g}")
        ends = np.asarray(walk(keys, centre + std * noise, jnp.asarray(weights)))[:, -1]
        setting = f"std={std:g}"
        measures += ends_measures(CENTRED, METHODS[0], setting, asked.seeds, ends, weights)
        zero = twin_peaks_brud_fixed_point(*weights, centre, std)
        measures.append(Measure(CENTRED, METHODS[0], setting, "", "predicted", float(zero)))
    return measures


def moved_report(measures: list[Measure]) -> str:
    """What the learners do with wider bounds, and on centred data."""
    rows = []
    for std in CENTRED_STDS:
        setting = f"std={std:g}"
        own = [m for m in measures if (m.game, m.setting) == (CENTRED, setting)]
        ends = np.array([m.value for m in own if m.metric in ("x", "y")])
        predicted = next(m.value for m in own if m.metric == "predicted")
        rows.append((f"{std:g}", f"{ends.mean():.3f}", f"{predicted:.3f}"))
    head = ("std of the data", "mean end of both agents", "zero of the expected gradient")
    wide = np.abs([m.value for m in measures if m.setting == WIDER and m.metric in ("x", "y")])
    return (
        f"Where actions may go to +-{WIDE:g}, agents of the multiplication game that ask for high "
        f"rewards end at {wide.min():.2f} or farther from 0.\n\n"
        "Twin peaks without augmentation, on data centred on an optimum:\n\n"
        f"{markdown_table(head, rows)}"
    )


# --- the data ---


def uniform_actions(key: Key[Array, ""]) -> Float[Array, "M 2"]:
    """The data: joint actions all over the square."""
    return jax.random.uniform(key, (ROWS, 2), minval=-1.0, maxval=1.0)


def end_row(
    game: str, method: str, ends: np.ndarray, weights: tuple[float, float, float]
) -> tuple[str, ...]:
    """A row of where the seeds of a method end."""
    (best, _), top = twin_peaks_optimum(*weights)
    reward = np.asarray(polynomial(jnp.asarray(ends), *weights))
    std = reward.std(ddof=1) if len(reward) > 1 else 0.0
    near = np.abs(np.abs(ends) - best).max(axis=1) < 0.1
    at_plus = int((near & (np.sign(ends) == 1).all(axis=1)).sum())
    at_minus = int((near & (np.sign(ends) == -1).all(axis=1)).sum())
    at_edge = (np.abs(ends).max(axis=1) > 0.999).mean()
    return (
        game,
        method,
        f"({ends[:, 0].mean():.2f}, {ends[:, 1].mean():.2f})",
        f"{reward.mean():.2f} ± {std:.2f} of {top:.2f}",
        f"{(at_plus + at_minus) / len(ends):.0%}",
        f"{at_plus} at (+, +), {at_minus} at (-, -)",
        f"{at_edge:.0%}",
    )


# --- the model ---


def conditions_of(
    model: RowModel, theta: Float[Array, "B 2"], reward: Array
) -> Float[Array, "3 B 5"]:
    """Conditions on a joint policy, on a reward, and on nothing."""
    mean, deviation = model.scale
    scaled = jnp.broadcast_to((reward - mean) / deviation, theta.shape[:1])[:, None]
    one = jnp.ones_like(scaled)
    zero = jnp.zeros_like(scaled)
    by_policy = jnp.concatenate([theta, zero, one, zero], axis=1)
    by_reward = jnp.concatenate([0 * theta, scaled, zero, one], axis=1)
    return jnp.stack([by_policy, by_reward, jnp.zeros_like(by_policy)])


def row_denoiser(params: Any, condition: Float[Array, "B 5"]) -> Callable[[Array, Array], Array]:
    """(x [B, 1, 3], t) -> x_0, given conditions, of which those that are all zero are none."""
    drop = (condition[:, 3:].sum(axis=1) == 0).astype(jnp.float32)
    return edm.preconditioned(lambda x, t: NET.apply(params, x, t, condition, drop))


def fit_row_model(key: Key[Array, ""], data: Float[Array, "M 3"], steps: int) -> RowModel:
    """A model of the rows x, y, reward.

    Its descriptor of a joint policy is the row's own joint action.
    """
    columns = cdf.fit_cdf(data)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(annealed(LR, steps)))
    schedule = edm.KARRAS.schedule
    scale = jnp.stack([data[:, 2].mean(), data[:, 2].std()])
    model = RowModel((), columns, scale)
    k_init, k_steps = jax.random.split(key)

    def step(net, key):
        k_rows, k_kind, k_t, k_z = jax.random.split(key, 4)
        rows = data[jax.random.randint(k_rows, (ROWS_STEP,), 0, len(data))]
        kind = jax.random.choice(k_kind, 3, (ROWS_STEP,), p=jnp.asarray(SHARES))
        conditions = conditions_of(model, rows[:, :2], rows[:, 2])
        condition = conditions[kind, jnp.arange(ROWS_STEP)]
        x0 = columns.forward(rows)[:, None]
        t = edm.KARRAS.draw(k_t, (ROWS_STEP,))
        z = jax.random.normal(k_z, x0.shape)
        weight = edm.edm_loss_weight(schedule.sigma(t))

        def loss(params: Any) -> Array:
            return denoising_loss(row_denoiser(params, condition), schedule, x0, t, z, weight)

        return polyak(descend(tx, net, jax.grad(loss)(net.params)), 0.01), None

    net = create(tx, NET.init(k_init), target=True)
    net, _ = jax.lax.scan(step, net, jax.random.split(k_steps, steps))
    return model._replace(params=net.target)


def sample_actions(
    key: Key[Array, ""], model: RowModel, condition: Float[Array, "B 5"], each: int = 0
) -> Float[Array, "... 2"]:
    """One joint action for each condition, or `each` of them: [B, 2] or [B, each, 2]."""
    condition = jnp.repeat(condition, max(each, 1), axis=0)
    conditional = row_denoiser(model.params, condition)
    unconditional = row_denoiser(model.params, 0.0 * condition)
    guided = classifier_free(conditional, unconditional, 1.0 + WEIGHT)
    x = edm.heun(LEVELS)(key, guided, (len(condition), 1, 3))
    action = model.columns.inverse(x)[:, 0, :2]
    if not each:
        return action
    return action.reshape(-1, each, 2)


# --- the learners ---


def climb(
    theta: Float[Array, "*S 2"],
    batch: Float[Array, "*S B 2"],
    weights: Array,
    bound: float = 1.0,
) -> Float[Array, "*S 2"]:
    """One step of both agents at once, each on its team-mate's actions in the batch."""
    mean = batch.mean(axis=-2)
    std = batch.std(axis=-2)
    # the gradient is linear in the weights, which are traced: both games are one program
    parts = []
    for weight, unit in zip(weights, np.eye(3), strict=True):
        parts.append(weight * brud_gradient(theta, mean, std, *unit))
    return ascend(theta, parts[0] + parts[1] + parts[2], bound=bound)


def learn(
    keys: Key[Array, " S"],
    model: RowModel,
    pools: Float[Array, "3 M 2"],
    weights: Float[Array, " 3"],
) -> Float[Array, "4 S T 2"]:
    """Paths of all seeds: on each pool for LONG steps, and on fresh rows for SHORT.

    The paths on fresh rows then repeat their end.
    """
    start = _starts(keys)

    def step_on_fresh_rows(theta, k):
        # one key for all seeds, each with rows of its own
        key = jax.random.fold_in(keys[0], LONG + k)
        condition = conditions_of(model, theta, jnp.zeros(()))[BY_POLICY]
        theta = climb(theta, sample_actions(key, model, condition, BATCH), weights)
        return theta, theta

    _, after = jax.lax.scan(step_on_fresh_rows, start, jnp.arange(SHORT))
    coda = _with_start(start, after)
    rest = jnp.repeat(coda[:, -1:], LONG - SHORT, axis=1)
    coda = jnp.concatenate([coda, rest], axis=1)
    on_pools = jax.lax.map(lambda pool: path_on_pool(keys, pool, weights), pools)
    return jnp.concatenate([on_pools, coda[None]])


def path_on_pool(
    keys: Key[Array, " S"],
    pool: Float[Array, "M 2"],
    weights: Float[Array, " 3"],
    bound: float = 1.0,
) -> Float[Array, "S T 2"]:
    """Paths of all seeds for LONG steps on rows that stay, within [-bound, bound]."""
    start = _starts(keys)

    def step(theta, k):
        rows_of = lambda key: jax.random.randint(jax.random.fold_in(key, k), (BATCH,), 0, ROWS)
        theta = climb(theta, pool[jax.vmap(rows_of)(keys)], weights, bound)
        return theta, theta

    _, after = jax.lax.scan(step, start, jnp.arange(LONG))
    return _with_start(start, after)


def _starts(keys: Key[Array, " S"]) -> Float[Array, "S 2"]:
    return jnp.broadcast_to(jnp.asarray(START), (len(keys), 2))


def _with_start(start: Float[Array, "S 2"], after: Float[Array, "T S 2"]) -> Float[Array, "S T1 2"]:
    return jnp.swapaxes(jnp.concatenate([start[None], after]), 0, 1)


def gradient_fields(
    sample: Callable, model: RowModel, pools: np.ndarray, weights: tuple[float, float, float]
) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
    """Method -> (joint policies [G, 2], the gradients [G, 2] that it follows there)."""
    axis = np.linspace(-0.95, 0.95, GRID, dtype=np.float32)
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    theta = jnp.asarray(points)
    condition = conditions_of(model, theta, jnp.zeros(()))[BY_POLICY]
    batches = [np.broadcast_to(pool, (len(points), *pool.shape)) for pool in pools]
    batches.append(np.asarray(sample(jax.random.key(9), model, condition, ARROW_BATCH)))
    fields = {}
    for method, batch in zip(METHODS, batches, strict=True):
        mean = jnp.asarray(batch.mean(axis=1))
        std = jnp.asarray(batch.std(axis=1))
        fields[method] = (points, np.asarray(brud_gradient(theta, mean, std, *weights)))
    return fields
