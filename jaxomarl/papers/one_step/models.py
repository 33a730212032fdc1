"""Small one-step and many-step models of a team's actions, trained side by side on drawn data.

A field is a network of all agents' columns ("joint") or one for each agent ("own"). From fields
come a diffusion, its consistency student, a flow, and a mean velocity. Students are perceptrons of
noise that regress the flow's ends, kept in a pool of pairs (z, g(z)). Agents that a law does not
have are masked, so that one compiled program serves every number of agents.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import Denoise
from jaxomarl.diffusion import flows
from jaxomarl.diffusion.consistency import consistency, consistency_loss, consistent
from jaxomarl.diffusion.guidance import clipped, masked
from jaxomarl.diffusion.losses import eps_loss
from jaxomarl.diffusion.parameterise import from_eps
from jaxomarl.diffusion.samplers import ddim
from jaxomarl.networks.agents import separate
from jaxomarl.networks.inputs import flat
from jaxomarl.networks.mlp import Network, mish, mlp
from jaxomarl.papers.dof.models import BATCH, BOUND, RATE, SCHEDULE, descended, time_features
from jaxomarl.policies.flows import ordered_times, shared_noise

CALLS = (1, 2, 4, 8, 16)
"""Calls of the models that take several."""
TAUGHT_BY = 16
"""Euler steps of the flow that students regress."""
POOL = 8192
"""Pairs that a student learns from."""
GRID = 24
"""Neighbouring times of the consistency student's pairs."""
NAMES = {
    "joint": (
        "joint diffusion", "joint consistency", "joint flow", "joint mean flow", "joint distillate",
        "shared noise", "partly shared noise",
    ),
    "own": (
        "own diffusion", "own consistency", "own flow", "own mean flow", "own distillate",
        "in turn",
    ),
}  # fmt: skip
"""Kind -> its models. Samples are named by them and by calls."""
PART = 0.5
"""Part of the noise's variance that partly shared noise shares."""
STD = 0.8
"""Standard deviation of the data, about."""

Params = Any
"""The parameters of a network."""
Draw = Callable[[Key[Array, ""], int], Float[Array, "B N D"]]
"""(key, rows) -> rows of the data."""
Loss = Callable[[Params, Key[Array, ""]], Array]


class Sizes(NamedTuple):
    """What all models of a game have in common."""

    agents: int
    columns: int
    width: int
    steps: int
    """Updates of each model."""
    rows: int
    """Samples of each model."""


class Game(NamedTuple):
    """A law of joint actions."""

    draw: Draw
    mask: Float[Array, "N D"]
    """1.0 on the columns of agents that the law has."""


# --- fields ---


def field(kind: str, sizes: Sizes, features: int, prefix: int = 0) -> Network:
    """(params, x [B, N, D], features [B, N, F], prefix [B, N, P]) -> [B, N, D].

    `kind` is "joint", twice as wide and without a prefix, or "own".
    """
    n = sizes.agents
    width = sizes.width
    if kind == "own":
        inputs = sizes.columns + features + prefix
        return separate(mlp(inputs, (width, width), sizes.columns, mish), n)

    net = mlp(n * sizes.columns + features, (2 * width, 2 * width), n * sizes.columns, mish)

    def apply(params: Params, x: Float[Array, "B N W"]) -> Array:
        action = x[..., : sizes.columns]
        inputs = jnp.concatenate([flat(action), x[..., 0, sizes.columns :]], axis=-1)
        return net.apply(params, inputs).reshape(action.shape)

    return Network(net.init, apply)


def told(x: Float[Array, "B N D"], *features: Array) -> Float[Array, "B N W"]:
    """The inputs of a field: each agent's columns, and features [B, N, F] or of all agents."""
    return jnp.concatenate([x, *features], axis=-1)


def two_times(x: Float[Array, "B N D"], r: Array, t: Array) -> Float[Array, "B N 2"]:
    """The times t and t - r for each agent of x; they have the leading axis of x, or none."""
    both = jnp.stack([t, t - r], axis=-1)
    both = both.reshape(both.shape[:-1] + (1,) * (x.ndim - both.ndim) + (2,))
    return jnp.broadcast_to(both, (*x.shape[:-1], 2))


def trained(net: Network, loss: Loss, key: Key[Array, ""], steps: int) -> Params:
    """The parameters after `steps` of Adam with a cosine rate."""
    k_init, k_steps = jax.random.split(key)
    return descended(loss, net.init(k_init), k_steps, steps, RATE)


def batch_of(
    key: Key[Array, ""], game: Game
) -> tuple[Float[Array, "B N D"], Float[Array, " B"], Float[Array, "B N D"]]:
    """Rows, times and noise of an update."""
    k_rows, k_time, k_noise = jax.random.split(key, 3)
    x0 = game.draw(k_rows, BATCH)
    t = jax.random.uniform(k_time, (BATCH,), minval=1e-3)
    return x0, t, game.mask * jax.random.normal(k_noise, x0.shape)


# --- models ---


def diffusion(kind: str, sizes: Sizes, game: Game, key: Key[Array, ""]) -> Denoise:
    """A trained denoiser, clipped near the data's range."""
    net = field(kind, sizes, 5)

    def eps(params: Params) -> Denoise:
        return lambda x, t: net.apply(params, told(x, time_features(t, x)))

    def loss(params: Params, key: Key[Array, ""]) -> Array:
        x0, t, z = batch_of(key, game)
        return eps_loss(eps(params), SCHEDULE, x0, t, z, game.mask)

    params = trained(net, loss, key, sizes.steps)
    return masked(clipped(from_eps(eps(params), SCHEDULE), -BOUND, BOUND), game.mask)


def consistency_student(
    kind: str, sizes: Sizes, game: Game, teacher: Denoise, key: Key[Array, ""]
) -> Denoise:
    """The consistency function that is distilled from a denoiser."""
    net = field(kind, sizes, 5)

    def end(params: Params) -> Denoise:
        raw = lambda x, t: net.apply(params, told(x, time_features(t, x)))
        return masked(consistent(raw, SCHEDULE, STD), game.mask)

    def loss(params: Params, key: Key[Array, ""]) -> Array:
        x0, t, z = batch_of(key, game)
        k = jnp.ceil(t * GRID)
        pair = (k / GRID, (k - 1.0) / GRID)
        f = end(params)
        return consistency_loss(f, f, SCHEDULE, x0, *pair, z, teacher, mask=game.mask, huber=0.03)

    params = trained(net, loss, key, sizes.steps)
    return clipped(end(params), -BOUND, BOUND)


def flow(kind: str, sizes: Sizes, game: Game, key: Key[Array, ""]) -> flows.Velocity:
    """A trained velocity."""
    net = field(kind, sizes, 5)

    def velocity(params: Params) -> flows.Velocity:
        return lambda x, t: net.apply(params, told(x, time_features(t, x)))

    def loss(params: Params, key: Key[Array, ""]) -> Array:
        x0, t, z = batch_of(key, game)
        return flows.flow_loss(velocity(params), x0, t, z, game.mask)

    return velocity(trained(net, loss, key, sizes.steps))


def mean_flow(kind: str, sizes: Sizes, game: Game, key: Key[Array, ""]) -> flows.MeanVelocity:
    """A trained mean velocity."""
    net = field(kind, sizes, 2)

    def mean_velocity(params: Params) -> flows.MeanVelocity:
        return lambda x, r, t: net.apply(params, told(x, two_times(x, r, t)))

    def loss(params: Params, key: Key[Array, ""]) -> Array:
        k_times, k_rows = jax.random.split(key)
        x0, _, z = batch_of(k_rows, game)
        r, t = ordered_times(k_times, BATCH)
        return flows.mean_flow_loss(mean_velocity(params), x0, r, t, z, game.mask)

    return mean_velocity(trained(net, loss, key, sizes.steps))


# --- students ---


class Pool(NamedTuple):
    """Noise, and what a flow makes of it."""

    z: Float[Array, "P N D"]
    end: Float[Array, "P N D"]


def pool(velocity: flows.Velocity, sizes: Sizes, game: Game, key: Key[Array, ""]) -> Pool:
    """Pairs of a flow, whose ends are clipped to the box."""
    z = game.mask * jax.random.normal(key, (POOL, sizes.agents, sizes.columns))
    end = jnp.clip(flows.euler(velocity, z, TAUGHT_BY, game.mask), -1.0, 1.0)
    return Pool(z, end)


class Student(NamedTuple):
    """A perceptron for each agent, and what it is given."""

    net: Network
    given: Callable[[Array], Array]
    """Noise [B, N, D] -> inputs of the agents [B, N, Z]."""


def own_student(sizes: Sizes) -> Student:
    """Students that see their own noise."""
    return Student(perceptrons(sizes, sizes.columns), lambda z: z)


def shared_student(sizes: Sizes) -> Student:
    """Students that all see the team's noise."""
    return Student(perceptrons(sizes, sizes.agents * sizes.columns), shared_noise)


def perceptrons(sizes: Sizes, inputs: int) -> Network:
    """One perceptron for each agent."""
    width = 2 * sizes.width
    return separate(mlp(inputs, (width, width), sizes.columns, mish), sizes.agents)


def distilled(
    student: Student,
    pairs: Pool,
    sizes: Sizes,
    mask: Float[Array, "N D"],
    key: Key[Array, ""],
    value: Callable[[Array], Array] | None = None,
    alpha: Array | float = 1.0,
) -> Callable[[Array], Array]:
    """The trained student, noise -> action in the box.

    It steps down alpha mean |f - g|^2, and minus `value` of the clipped actions where there is one.
    """

    def loss(params: Params, key: Key[Array, ""]) -> Array:
        rows = jax.random.randint(key, (BATCH,), 0, POOL)
        out = student.net.apply(params, student.given(pairs.z[rows]))
        square = (mask * jnp.square(out - pairs.end[rows])).sum() / (BATCH * mask.sum())
        if value is None:
            return square
        return alpha * square - value(mask * jnp.clip(out, -1.0, 1.0))

    params = trained(student.net, loss, key, sizes.steps)

    def play(z: Array) -> Array:
        out = student.net.apply(params, student.given(mask * z))
        return mask * jnp.clip(out, -1.0, 1.0)

    return play


# --- in turn ---


def preceding(x: Float[Array, "B N D"]) -> Float[Array, "B N P"]:
    """The actions of the agents before each agent, the others' zero."""
    agents = x.shape[1]
    before = jnp.tril(jnp.ones((agents, agents)), -1)
    return (before[None, :, :, None] * x[:, None]).reshape(*x.shape[:2], -1)


def in_turn(sizes: Sizes, game: Game, key: Key[Array, ""]) -> Callable[[Array], Array]:
    """One-step students of each agent's flow given the actions before it, noise -> action.

    Agents act one after the other, so a decision takes as many calls as there are agents.
    """
    k_flow, k_pairs, k_rows, k_student = jax.random.split(key, 4)
    before = sizes.agents * sizes.columns
    net = field("own", sizes, 5, before)

    def velocity(params: Params, prefix: Array) -> flows.Velocity:
        return lambda x, t: net.apply(params, told(x, time_features(t, x), prefix))

    def loss(params: Params, key: Key[Array, ""]) -> Array:
        x0, t, z = batch_of(key, game)
        return flows.flow_loss(velocity(params, preceding(x0)), x0, t, z, game.mask)

    params = trained(net, loss, k_flow, sizes.steps)

    # --- students, of pairs whose prefixes are the data's ---
    prefix = preceding(game.draw(k_rows, POOL))
    pairs = pool(velocity(params, prefix), sizes, game, k_pairs)
    student = perceptrons(sizes, sizes.columns + before)

    def distil(params: Params, key: Key[Array, ""]) -> Array:
        rows = jax.random.randint(key, (BATCH,), 0, POOL)
        out = student.apply(params, told(pairs.z[rows], prefix[rows]))
        return (game.mask * jnp.square(out - pairs.end[rows])).sum() / BATCH

    learned = trained(student, distil, k_student, sizes.steps)

    def play(z: Array) -> Array:
        action = jnp.zeros_like(z)
        for i in range(sizes.agents):
            out = student.apply(learned, told(z, preceding(action)))
            action = action.at[:, i].set(jnp.clip(out[:, i], -1.0, 1.0))
        return game.mask * action

    return play


# --- what is sampled ---


def chain(
    denoise: Denoise, calls: int, key: Key[Array, ""], sizes: Sizes, mask: Array
) -> Float[Array, "B N D"]:
    """Samples of a diffusion by so many calls."""
    return ddim(SCHEDULE, calls, mask=mask)(key, denoise, (sizes.rows, *mask.shape))


def team_models(kind: str, sizes: Sizes, game: Game, key: Key[Array, ""]) -> dict[str, Array]:
    """Samples [B, N, D] of all models of one kind, by their name and calls."""
    keys = iter(jax.random.split(key, 12))
    mask = game.mask
    z = mask * jax.random.normal(next(keys), (sizes.rows, *mask.shape))
    drawn = {}

    # --- a diffusion, and its consistency student ---
    denoise = diffusion(kind, sizes, game, next(keys))
    k_chain = next(keys)
    for calls in CALLS:
        drawn[f"{kind} diffusion, {calls}"] = chain(denoise, calls, k_chain, sizes, mask)
    end = consistency_student(kind, sizes, game, denoise, next(keys))
    sample = consistency(SCHEDULE, 1, mask=mask)
    drawn[f"{kind} consistency, 1"] = sample(k_chain, end, z.shape)

    # --- a flow, a mean flow ---
    velocity = flow(kind, sizes, game, next(keys))
    for calls in CALLS:
        drawn[f"{kind} flow, {calls}"] = flows.euler(velocity, z, calls, mask)
    jump = flows.jump(mean_flow(kind, sizes, game, next(keys)))
    drawn[f"{kind} mean flow, 1"] = mask * jump(z, jnp.ones(()))

    # --- students of the flow ---
    pairs = pool(velocity, sizes, game, next(keys))
    own = own_student(sizes)
    drawn[f"{kind} distillate, 1"] = distilled(own, pairs, sizes, mask, next(keys))(z)
    if kind == "own":
        drawn["in turn, n"] = in_turn(sizes, game, next(keys))(z)
        return drawn
    shared = shared_student(sizes)
    drawn["shared noise, 1"] = distilled(shared, pairs, sizes, mask, next(keys))(z)
    drawn["partly shared noise, 1"] = partly(velocity, sizes, game, next(keys))
    return drawn


def chosen(drawn: Mapping[str, Array], names: Collection[str]) -> dict[str, Array]:
    """The samples of the models with these names, all where there are none.

    A program that returns no others trains no others, but for those that they learn from.
    """
    if not names:
        return dict(drawn)
    return {name: x for name, x in drawn.items() if name.rpartition(", ")[0] in names}


def partly(
    velocity: flows.Velocity, sizes: Sizes, game: Game, key: Key[Array, ""]
) -> Float[Array, "B N D"]:
    """Samples of students that share a part of the noise's variance.

    z = sqrt(q) c + sqrt(1 - q) e; agent i sees all of c, and of e its own part.
    """
    k_pairs, k_student, k_drawn = jax.random.split(key, 3)

    def noise(key: Key[Array, ""], rows: int) -> tuple[Array, Array]:
        """z, and what the agents see of it."""
        common, own = game.mask * jax.random.normal(key, (2, rows, *game.mask.shape))
        z = PART**0.5 * common + (1.0 - PART) ** 0.5 * own
        return z, told(own, shared_noise(common))

    z, seen = noise(k_pairs, POOL)
    end = jnp.clip(flows.euler(velocity, z, TAUGHT_BY, game.mask), -1.0, 1.0)
    net = perceptrons(sizes, (sizes.agents + 1) * sizes.columns)

    def loss(params: Params, key: Key[Array, ""]) -> Array:
        rows = jax.random.randint(key, (BATCH,), 0, POOL)
        out = net.apply(params, seen[rows])
        return (game.mask * jnp.square(out - end[rows])).sum() / BATCH

    params = trained(net, loss, k_student, sizes.steps)
    _, seen_then = noise(k_drawn, sizes.rows)
    return game.mask * jnp.clip(net.apply(params, seen_then), -1.0, 1.0)
