"""CODA's polynomial games: four ways to learn from one data set, and where they end: `reproduce coda-games`.

Agents are two numbers, theta_x and theta_y. Each climbs the reward with its team-mate's action taken from a batch of
joint actions: the data's, or a diffusion model's, which is told nothing, a high reward, or the present joint policy.
One model is trained per game and told these by its condition; all seeds share it.
"""

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
from jaxomarl.envs.polynomial import ascend, brud_gradient, polynomial, twin_peaks_optimum
from jaxomarl.networks.temporal import temporal_unet
from jaxomarl.optim import annealed, create, descend, polyak
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.comparison import markdown
from jaxomarl.results.figures import score_fields

GAMES = {"multiplication": (0.0, 0.0, 1.0), "twin peaks": (1.0, 4.0, 5.0)}
METHODS = ("no augmentation (BRUD)", "unconditional", "Q-conditioned", "CODA")
START = (-0.64, 0.65)
ROWS, BATCH = 4000, 64  # of the data, and of a learner's step
LONG, SHORT = (
    4000,
    100,
)  # the learner's steps on rows that stay as they are, and on ones drawn for each step
STEPS, ROWS_STEP, WIDTH, LR = 1000, 512, 32, 1e-2  # of the model
LEVELS, WEIGHT, HIGH = (
    18,
    1.0,
    0.95,
)  # of the sampler; w of CODA's (1 + w); the quantile of rewards asked for
KNOWN, RICH, BLIND = range(3)  # what the model is told: the joint policy, a reward, nothing
SHARES = (0.4, 0.3, 0.3)  # of its training batches
CONDITION = 5  # theta_x, theta_y, reward, and which of the two is told
GRID, TOGETHER = (
    9,
    256,
)  # points of a vector field along one axis, and joint actions that make each arrow


class Made(NamedTuple):
    """A trained model and the distributions of its columns x, y, reward."""

    params: Any
    columns: cdf.Cdf
    scale: Float[Array, " 2"]  # mean and deviation of the data's rewards


NET = temporal_unet(3, CONDITION, WIDTH, (1,), kernel=3)


def coda_games(asked: Asked) -> str:
    """Both games: a table, and a picture of each with the data, the fields and the paths of all seeds."""
    asked.check_unused("coda-games", "its games are fixed.")
    steps, rows, pictures = asked.updates(STEPS), [], []
    trained, walk, drawn = (
        jax.jit(fitted, static_argnums=2),
        jax.jit(learn),
        jax.jit(sampled, static_argnums=3),
    )
    for number, (name, weights) in enumerate(GAMES.items()):
        asked.say(f"{name}: one model, {steps} updates of {ROWS_STEP} rows")
        data = uniform(jax.random.fold_in(jax.random.key(0), number))
        rewards = polynomial(data, *weights)
        model = trained(jax.random.key(1), jnp.concatenate([data, rewards[:, None]], axis=1), steps)
        told = told_of(model, jnp.zeros((ROWS, 2)), jnp.quantile(rewards, HIGH))
        pools = jnp.stack(
            [data, *(drawn(jax.random.key(2 + k), model, told[k], 0) for k in (BLIND, RICH))]
        )
        asked.say(f"{name}: {len(METHODS)} methods, {len(asked.seeds)} seeds")
        keys = jax.vmap(jax.random.key)(jnp.asarray(asked.seeds))
        paths = dict(
            zip(METHODS, np.asarray(walk(keys, model, pools, jnp.asarray(weights))), strict=True)
        )
        paths = {k: path[:, : (SHORT if k == "CODA" else LONG) + 1] for k, path in paths.items()}
        rows += [row(name, method, path[:, -1], weights) for method, path in paths.items()]
        points, arrows = fields(drawn, model, np.asarray(pools), weights)
        picture = f"{name.replace(' ', '-')}.png"
        held = {method: (points, arrow) for method, arrow in arrows.items()}
        asked.draw(
            score_fields,
            picture,
            np.asarray(data[:1500]),
            held,
            {k: p[:, ::5] for k, p in paths.items()},
        )
        pictures.append(f"![]({picture})")
    return text(asked, steps, rows) + "\n" + "\n\n".join(pictures) + "\n"


def text(asked: Asked, steps: int, rows: list[tuple[str, ...]]) -> str:
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
        f"CODA's polynomial games (its section 6.1, Figures 1 and 2), {len(asked.seeds)} seeds from {START}. "
        f"{ROWS} uniform joint actions; one model for each game and all seeds ({steps} updates of {ROWS_STEP} rows, "
        f"{LEVELS} levels of Heun's sampler, w = {WEIGHT:g}; the paper's are 10,000 of 1000, and 40). Batches of "
        f"{BATCH}, rate 0.1, gradients clipped at 1, steps projected on the square. CODA draws a batch under the "
        f"present joint policy for each of {SHORT} steps; the others draw from {ROWS} rows that stay, for {LONG}.\n\n"
        f"{markdown(head, rows)}\n"
        "Without the policy in it, the gradient of x y is the constant (mean of y, mean of x) of the rows: agents go "
        "straight to the edge and slide along it, and a corner reached that way is the edge's doing. In twin peaks it "
        "vanishes at C m / (2A + 2B (m^2 + s^2)) of the rows' moments: near the saddle at 0 for centred ones. The "
        "start lies next to the line x + y = 0 that parts the two optima, so small errors of the model decide "
        "which one CODA's seeds go to.\n"
    )


def uniform(key: Key[Array, ""]) -> Float[Array, "M 2"]:
    """The data: joint actions all over the square."""
    return jax.random.uniform(key, (ROWS, 2), minval=-1.0, maxval=1.0)


def row(
    game: str, method: str, ends: np.ndarray, weights: tuple[float, float, float]
) -> tuple[str, ...]:
    """Where the seeds of a method end."""
    (best, _), top = twin_peaks_optimum(*weights)
    reward = np.asarray(polynomial(jnp.asarray(ends), *weights))
    near = np.abs(np.abs(ends) - best).max(axis=1) < 0.1
    sides = [int((near & (np.sign(ends) == s).all(axis=1)).sum()) for s in (1, -1)]
    edge = (np.abs(ends).max(axis=1) > 0.999).mean()
    return (
        game,
        method,
        f"({ends[:, 0].mean():.2f}, {ends[:, 1].mean():.2f})",
        f"{reward.mean():.2f} ± {reward.std(ddof=1) if len(reward) > 1 else 0.0:.2f} of {top:.2f}",
        f"{sum(sides) / len(ends):.0%}",
        f"{sides[0]} at (+, +), {sides[1]} at (-, -)",
        f"{edge:.0%}",
    )


# --- the model ---


def told_of(model: Made, theta: Float[Array, "B 2"], reward: Array) -> Float[Array, "3 B 5"]:
    """Conditions by KNOWN, RICH, BLIND."""
    q = jnp.broadcast_to((reward - model.scale[0]) / model.scale[1], theta.shape[:1])[:, None]
    ones, none = jnp.ones_like(q), jnp.zeros_like(q)
    known = jnp.concatenate([theta, none, ones, none], axis=1)
    rich = jnp.concatenate([0 * theta, q, none, ones], axis=1)
    return jnp.stack([known, rich, jnp.zeros_like(known)])


def denoiser(params: Any, told: Float[Array, "B 5"]) -> Callable[[Array, Array], Array]:
    """(x [B, 1, 3], t) -> x_0, under conditions of which those that are all zero are none."""
    drop = (told[:, 3:].sum(axis=1) == 0).astype(jnp.float32)
    return edm.preconditioned(lambda x, t: NET.apply(params, x, t, told, drop))


def fitted(key: Key[Array, ""], data: Float[Array, "M 3"], steps: int) -> Made:
    """A model of the rows x, y, reward, whose descriptor of a joint policy is the row's own joint action."""
    columns, tx = (
        cdf.fit(data),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(annealed(LR, steps))),
    )
    scale = jnp.stack([data[:, 2].mean(), data[:, 2].std()])
    made = Made((), columns, scale)
    k_init, k_steps = jax.random.split(key)

    def step(net, key):
        k_rows, k_kind, k_t, k_z = jax.random.split(key, 4)
        rows = data[jax.random.randint(k_rows, (ROWS_STEP,), 0, len(data))]
        kind = jax.random.choice(k_kind, 3, (ROWS_STEP,), p=jnp.asarray(SHARES))
        told = told_of(made, rows[:, :2], rows[:, 2])[kind, jnp.arange(ROWS_STEP)]
        x0 = columns.forward(rows)[:, None]
        t, z = edm.KARRAS.draw(k_t, (ROWS_STEP,)), jax.random.normal(k_z, x0.shape)
        weight = edm.weight(edm.KARRAS.schedule.sigma(t))
        loss = lambda params: denoising_loss(
            denoiser(params, told), edm.KARRAS.schedule, x0, t, z, weight
        )
        return polyak(descend(tx, net, jax.grad(loss)(net.params)), 0.01), None

    net = jax.lax.scan(
        step, create(tx, NET.init(k_init), target=True), jax.random.split(k_steps, steps)
    )[0]
    return made._replace(params=net.target)


def sampled(
    key: Key[Array, ""], model: Made, told: Float[Array, "B 5"], each: int = 0
) -> Float[Array, "... 2"]:
    """One joint action for each condition, or `each` of them: [B, 2] or [B, each, 2]."""
    told = jnp.repeat(told, max(each, 1), axis=0)
    free = classifier_free(
        denoiser(model.params, told), denoiser(model.params, 0.0 * told), 1.0 + WEIGHT
    )
    x = edm.heun(LEVELS)(key, free, (len(told), 1, 3))
    action = model.columns.inverse(x)[:, 0, :2]
    return action.reshape(-1, each, 2) if each else action


# --- the learners ---


def climb(
    theta: Float[Array, "*S 2"], batch: Float[Array, "*S B 2"], weights: Array
) -> Float[Array, "*S 2"]:
    """One step of both agents at once, each on its team-mate's actions in the batch."""
    moments = batch.mean(axis=-2), batch.std(axis=-2)
    # the gradient is linear in the weights, which are traced: both games are one program
    parts = [
        w * brud_gradient(theta, *moments, *unit)
        for w, unit in zip(weights, np.eye(3), strict=True)
    ]
    return ascend(theta, parts[0] + parts[1] + parts[2])


def learn(
    keys: Key[Array, " S"], model: Made, pools: Float[Array, "3 M 2"], weights: Float[Array, " 3"]
) -> Float[Array, "4 S T 2"]:
    """Paths of all seeds: on each pool for LONG steps, and on fresh rows for SHORT, which then repeat their end."""
    start = jnp.broadcast_to(jnp.asarray(START), (len(keys), 2))

    def on(pool: Float[Array, "M 2"]) -> Float[Array, "S T 2"]:
        def step(theta, k):
            of = jax.vmap(
                lambda key: jax.random.randint(jax.random.fold_in(key, k), (BATCH,), 0, ROWS)
            )(keys)
            theta = climb(theta, pool[of], weights)
            return theta, theta

        return _path(start, jax.lax.scan(step, start, jnp.arange(LONG))[1])

    def fresh(theta, k):
        key = jax.random.fold_in(
            keys[0], LONG + k
        )  # one draw for all seeds, each with rows of its own
        told = told_of(model, theta, jnp.zeros(()))[KNOWN]
        theta = climb(theta, sampled(key, model, told, BATCH), weights)
        return theta, theta

    ours = _path(start, jax.lax.scan(fresh, start, jnp.arange(SHORT))[1])
    ours = jnp.concatenate([ours, jnp.repeat(ours[:, -1:], LONG - SHORT, axis=1)], axis=1)
    return jnp.concatenate([jax.lax.map(on, pools), ours[None]])


def _path(start: Float[Array, "S 2"], after: Float[Array, "T S 2"]) -> Float[Array, "S T1 2"]:
    return jnp.swapaxes(jnp.concatenate([start[None], after]), 0, 1)


def fields(
    drawn: Callable, model: Made, pools: np.ndarray, weights: tuple[float, float, float]
) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
    """(points [G, 2], directions [G, 2] by method): the gradient that each method follows at joint policies."""
    axis = np.linspace(-0.95, 0.95, GRID, dtype=np.float32)
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    told = told_of(model, jnp.asarray(points), jnp.zeros(()))[KNOWN]
    batches = [np.broadcast_to(pool, (len(points), *pool.shape)) for pool in pools]
    batches.append(np.asarray(drawn(jax.random.key(9), model, told, TOGETHER)))
    pull = lambda b: brud_gradient(
        jnp.asarray(points), jnp.asarray(b.mean(axis=1)), jnp.asarray(b.std(axis=1)), *weights
    )
    return points, {name: np.asarray(pull(b)) for name, b in zip(METHODS, batches, strict=True)}
