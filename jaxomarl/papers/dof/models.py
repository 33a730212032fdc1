"""Small diffusions of a team that DoF's illustrative games compare.

    concat, wconcat, atten, qmix   one noise network per agent, combined by f, trained as one (DoF)
    dec-atten                      atten, executed with each agent's own term
    joint                          one network of all agents' columns
    separate                       one network per agent, each trained on rows of its own
    pooled                         one network for all agents, without the agent as an input

"separate" is independent diffusion; DoF's weak independent diffusion is "pooled".
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from jaxomarl.base import Denoise
from jaxomarl.diffusion.factorise import Noise, composed, factorisation
from jaxomarl.diffusion.guidance import clipped
from jaxomarl.diffusion.losses import eps_loss
from jaxomarl.diffusion.parameterise import from_eps
from jaxomarl.diffusion.samplers import ddpm
from jaxomarl.diffusion.schedules import vp
from jaxomarl.networks.agents import separate
from jaxomarl.networks.mlp import mish, mlp
from jaxomarl.optim import annealed

SCHEDULE = vp()
LEVELS = 50
BOUND = 1.5
"""Bound of what is sampled: the data reach a little less far."""
TIME_FEATURES = 5
"""Features of the diffusion time that a network has as inputs."""
RATE = 1e-2
BATCH = 128
UPDATES = 1200

MODEL_NAMES = {
    "data": "data",
    "joint": "one network of all",
    "concat": "DoF, f = concat",
    "wconcat": "DoF, f = wconcat",
    "atten": "DoF, f = atten",
    "dec-atten": "DoF, f = dec-atten",
    "separate": "agents apart",
    "pooled": "pooled (the paper's ID)",
}
"""Kind of model -> its name in tables and pictures."""

Params = Any
"""The parameters of a model: trees of arrays, by the kind of model."""
Law = Any
"""The arrays that a data set is drawn from."""
Rows = tuple[Array, Array]
"""Clean data [B, N, D], and each agent's condition [B, N, C]."""
Draw = Callable[[Key[Array, ""], int, Law], Rows]
"""(key, rows, law) -> rows of a data set."""


class TeamModel(NamedTuple):
    """The networks of a team's noise prediction."""

    init: Callable[[Key[Array, ""]], Params]
    noise: Noise
    """Prediction in training."""
    executed: Noise
    """Prediction in execution."""
    training_rows: Callable[[Key[Array, ""], Draw, int, Law], Rows]
    """(key, draw, rows, law) -> the rows that the model is trained on."""


# --- models ---


def team_model(
    kind: str, agents: int, columns: int = 1, known: int = 0, width: int = 32
) -> TeamModel:
    """A model by its name, of perceptrons with two hidden layers.

    Raises JaxomarlError for an unknown name.
    """
    if kind == "joint":
        return _joint_model(agents, columns, known, width)
    net = mlp(columns + known + TIME_FEATURES, (width, width), columns, mish)
    own = net if kind == "pooled" else separate(net, agents)

    def own_noise(params: Params, x: Array, t: Array, y: Array) -> Array:
        return own.apply(params, jnp.concatenate([x, y, time_features(t, x)], axis=-1))

    if kind == "pooled":
        return TeamModel(own.init, own_noise, own_noise, _pooled_rows)
    if kind == "separate":
        return TeamModel(own.init, own_noise, own_noise, _rows_apart)

    # --- DoF: the agents' predictions, combined by f ---
    f = factorisation(kind, agents, columns, columns + 1 + known)
    mask = jnp.ones((agents, columns))

    def init(key: Key[Array, ""]) -> Params:
        return {"parts": own.init(key), "noise": f.init(jax.random.fold_in(key, 1))}

    noise = composed(own_noise, f, mask)
    executed = noise
    if f.execute is not f.train:
        executed = composed(own_noise, f, mask, executed=True)
    return TeamModel(init, noise, executed, _joint_rows)


def _joint_model(agents: int, columns: int, known: int, width: int) -> TeamModel:
    """One network of all agents' columns, twice as wide."""
    inputs = agents * (columns + known) + TIME_FEATURES
    net = mlp(inputs, (2 * width, 2 * width), agents * columns, mish)

    def noise(params: Params, x: Array, t: Array, y: Array) -> Array:
        flat = jnp.concatenate([x, y], axis=-1).reshape(*x.shape[:-2], -1)
        out = net.apply(params, jnp.concatenate([flat, time_features(t, flat)], axis=-1))
        return out.reshape(x.shape)

    return TeamModel(net.init, noise, noise, _joint_rows)


def time_features(t: Array, x: Array) -> Array:
    """Features of the diffusion time for the rows of x: cos(pi k t) and log sigma.

    t has leading axes of x, or none.
    """
    t = t.reshape(t.shape + (1,) * (x.ndim - t.ndim))
    t = jnp.broadcast_to(t, (*x.shape[:-1], 1))
    waves = jnp.cos(jnp.pi * jnp.arange(1, TIME_FEATURES) * t)
    # the logarithm tells the last levels apart
    log_sigma = jnp.log(SCHEDULE.sigma(t) + 1e-2)
    return jnp.concatenate([waves, log_sigma], axis=-1)


def team_denoiser(model: TeamModel, params: Params, y: Array, executed: bool = True) -> Denoise:
    """The trained model given y [B, N, C], as it is executed.

    Without `executed`, it is as it was trained.
    """
    noise = model.executed if executed else model.noise
    denoise = from_eps(lambda x, t: noise(params, x, t, y), SCHEDULE)
    return clipped(denoise, -BOUND, BOUND)


# --- training ---


def compiled(f: Callable[..., Any]) -> Callable[..., Any]:
    """A jitted program at LLVM's first level of optimisation.

    These programs run for seconds, and compile for longer.
    """
    return jax.jit(f, compiler_options={"xla_backend_optimization_level": 1})


def fit_model(
    model: TeamModel, draw: Draw, law: Law, key: Key[Array, ""], steps: int, batch: int = BATCH
) -> Params:
    """The model's parameters after `steps` updates on fresh rows.

    It is eps regression at t ~ U(0, 1) by Adam, with a cosine rate.
    """
    k_init, k_steps = jax.random.split(key)

    def loss(params: Params, key: Key[Array, ""]) -> Array:
        k_rows, k_time, k_noise = jax.random.split(key, 3)
        x0, y = model.training_rows(k_rows, draw, batch, law)
        t = jax.random.uniform(k_time, (batch,), minval=1e-3)
        z = jax.random.normal(k_noise, x0.shape)
        return eps_loss(lambda x, t: model.noise(params, x, t, y), SCHEDULE, x0, t, z)

    return descended(loss, model.init(k_init), k_steps, steps, RATE)


def descended(
    loss: Callable[[Params, Key[Array, ""]], Array],
    params: Params,
    key: Key[Array, ""],
    steps: int,
    rate: float,
) -> Params:
    """The parameters after `steps` of Adam down loss(params, key), with a cosine rate.

    Each step has a key of its own.
    """
    tx = optax.adam(annealed(rate, steps))

    def step(carry: tuple[Params, Any], key: Key[Array, ""]) -> tuple[tuple[Params, Any], None]:
        params, opt = carry
        updates, opt = tx.update(jax.grad(loss)(params, key), opt, params)
        return (optax.apply_updates(params, updates), opt), None

    carry = (params, tx.init(params))
    (params, _), _ = jax.lax.scan(step, carry, jax.random.split(key, steps))
    return params


class Samples(NamedTuple):
    """Parameters and samples of each law L and seed R."""

    params: Params
    x: Float[np.ndarray, "L R B N D"]
    """Samples of the model as it is executed."""
    as_trained: Float[np.ndarray, "L R B N D"]
    """Samples of the model as it was trained; `x` itself where it is executed so."""


def train_and_sample(
    model: TeamModel,
    draw: Draw,
    laws: Law,
    y: Array,
    seeds: Sequence[int],
    steps: int,
    columns: int = 1,
) -> Samples:
    """Train a model on each law (stacked) for each seed, then sample `LEVELS` steps of DDPM.

    It is one compiled program.
    """
    n_laws = len(jax.tree.leaves(laws)[0])
    sample = ddpm(SCHEDULE, LEVELS)
    shape = (*y.shape[:-1], columns)

    def one_model(law_and_seed: tuple[Law, Array]) -> tuple[Params, Array, Array]:
        law, seed = law_and_seed
        key = jax.random.key(seed)
        params = fit_model(model, draw, law, key, steps)
        k_sample = jax.random.fold_in(key, 1)
        x = sample(k_sample, team_denoiser(model, params, y), shape)
        if model.noise is model.executed:
            return params, x, x
        as_trained = team_denoiser(model, params, y, executed=False)
        return params, x, sample(k_sample, as_trained, shape)

    law_of_each = jax.tree.map(lambda v: jnp.repeat(jnp.asarray(v), len(seeds), axis=0), laws)
    seed_of_each = jnp.tile(jnp.asarray(seeds, jnp.uint32), n_laws)
    program = compiled(lambda each: jax.lax.map(one_model, each))
    flat = program((law_of_each, seed_of_each))
    by_law = jax.tree.map(lambda v: v.reshape(n_laws, len(seeds), *v.shape[1:]), flat)
    params, x, as_trained = by_law
    return Samples(params, np.asarray(x), np.asarray(as_trained))


def spread_text(values: np.ndarray) -> tuple[str, str]:
    """Mean over seeds, and the largest distance of a seed from it."""
    mean = values.mean()
    return f"{mean:.3f}", f"{np.abs(values - mean).max():.3f}"


# --- training rows ---


def _joint_rows(key: Key[Array, ""], draw: Draw, rows: int, law: Law) -> Rows:
    """Rows of all agents, as the data have them."""
    return draw(key, rows, law)


def _rows_apart(key: Key[Array, ""], draw: Draw, rows: int, law: Law) -> Rows:
    """Each agent's column from rows of its own: no row shows two agents at once."""
    x, y = _rows_for_each_agent(key, draw, rows, law)
    own = lambda v: jnp.stack([v[i, :, i] for i in range(len(v))], axis=1)
    return own(x), own(y)


def _pooled_rows(key: Key[Array, ""], draw: Draw, rows: int, law: Law) -> Rows:
    """Each agent's column from rows of its own, replaced by that of a random agent."""
    k_rows, k_who = jax.random.split(key)
    x, y = _rows_for_each_agent(k_rows, draw, rows, law)
    who = jax.random.randint(k_who, x.shape[:2], 0, len(x))[..., None, None]

    def of_random_agent(v: Array) -> Array:
        return jnp.take_along_axis(v, who, axis=2)[:, :, 0].swapaxes(0, 1)

    return of_random_agent(x), of_random_agent(y)


def _rows_for_each_agent(key: Key[Array, ""], draw: Draw, rows: int, law: Law) -> Rows:
    """Rows [N, B, N, D] and [N, B, N, C], drawn for each agent anew."""
    agents = jax.eval_shape(lambda key: draw(key, rows, law)[0], key).shape[1]
    return jax.vmap(lambda key: draw(key, rows, law))(jax.random.split(key, agents))
