"""Small diffusions of a team that DoF's illustrative games compare: factorised, joint, and of agents on their own.

    concat, wconcat, atten, qmix   one noise network per agent, put together by f, trained as one (DoF)
    dec-atten                      atten, executed with each agent's own term
    joint                          one network of all agents' columns
    separate                       one network per agent, each trained on its own column of rows of its own
    pooled                         one network for all agents, which is not told whose column it sees

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

SCHEDULE, LEVELS = vp(), 50
BOUND = 1.5  # of what is sampled: the data reach a little less far
WAVES = 5  # features of the diffusion time that a network is told
RATE, BATCH, UPDATES = 1e-2, 128, 1200

SAID = {
    "data": "data",
    "joint": "one network of all",
    "concat": "DoF, f = concat",
    "wconcat": "DoF, f = wconcat",
    "atten": "DoF, f = atten",
    "dec-atten": "DoF, f = dec-atten",
    "separate": "agents apart",
    "pooled": "pooled (the paper's ID)",
}

Law = Any
Draw = Callable[[Key[Array, ""], int, Law], tuple[Float[Array, "B N D"], Float[Array, "B N C"]]]
"""(key, rows, law) -> clean data and what each agent knows of them; the law's arrays are the data set."""


class Model(NamedTuple):
    """A way to make the team's noise prediction of networks."""

    init: Callable[[Key[Array, ""]], Any]
    noise: Noise  # in training
    executed: Noise
    rows: Callable[[Key[Array, ""], Draw, int, Law], tuple[Array, Array]]  # what it is trained on


def model(kind: str, agents: int, columns: int = 1, known: int = 0, width: int = 32) -> Model:
    """A model by its name; perceptrons of two hidden layers. Raises JaxomarlError for an unknown one."""
    net = mlp(columns + known + WAVES, (width, width), columns, mish)
    if kind == "joint":
        whole = mlp(
            agents * (columns + known) + WAVES, (2 * width, 2 * width), agents * columns, mish
        )

        def together(params: Any, x: Array, t: Array, y: Array) -> Array:
            flat = jnp.concatenate([x, y], axis=-1).reshape(*x.shape[:-2], -1)
            return whole.apply(params, jnp.concatenate([flat, waves(t, flat)], axis=-1)).reshape(
                x.shape
            )

        return Model(whole.init, together, together, _drawn)
    own = net if kind == "pooled" else separate(net, agents)

    def parts(params: Any, x: Array, t: Array, y: Array) -> Array:
        return own.apply(params, jnp.concatenate([x, y, waves(t, x)], axis=-1))

    if kind in ("pooled", "separate"):
        return Model(own.init, parts, parts, _pooled if kind == "pooled" else _apart)
    f = factorisation(kind, agents, columns, columns + 1 + known)
    mask = jnp.ones((agents, columns))
    init = lambda key: {"parts": own.init(key), "noise": f.init(jax.random.fold_in(key, 1))}
    noise = composed(parts, f, mask)
    return Model(
        init,
        noise,
        noise if f.execute is f.train else composed(parts, f, mask, executed=True),
        _drawn,
    )


def compiled(f: Callable[..., Any]) -> Callable[..., Any]:
    """A jitted program at LLVM's first level of optimisation: these run for seconds, and compile for longer."""
    return jax.jit(f, compiler_options={"xla_backend_optimization_level": 1})


def waves(t: Array, x: Array) -> Array:
    """Features of the diffusion time for the rows of x: cos(pi k t) and log sigma; t has leading axes of x, or none."""
    t = jnp.broadcast_to(t.reshape(t.shape + (1,) * (x.ndim - t.ndim)), (*x.shape[:-1], 1))
    near = jnp.log(SCHEDULE.sigma(t) + 1e-2)  # tells the last levels apart
    return jnp.concatenate([jnp.cos(jnp.pi * jnp.arange(1, WAVES) * t), near], axis=-1)


def fit(
    model: Model, draw: Draw, law: Law, key: Key[Array, ""], steps: int, batch: int = BATCH
) -> Any:
    """The model's parameters after `steps` updates on fresh rows: eps regression at t ~ U(0, 1), Adam, cosine rate."""
    k_init, k_steps = jax.random.split(key)

    def loss(params: Any, key: Key[Array, ""]) -> Array:
        k_rows, k_time, k_noise = jax.random.split(key, 3)
        x0, y = model.rows(k_rows, draw, batch, law)
        t = jax.random.uniform(k_time, (batch,), minval=1e-3)
        z = jax.random.normal(k_noise, x0.shape)
        return eps_loss(lambda x, t: model.noise(params, x, t, y), SCHEDULE, x0, t, z)

    return descended(loss, model.init(k_init), k_steps, steps, RATE)


def descended(
    loss: Callable[[Any, Key[Array, ""]], Array],
    params: Any,
    key: Key[Array, ""],
    steps: int,
    rate: float,
) -> Any:
    """The parameters after `steps` of Adam down loss(params, key), each under a key of its own; cosine rate."""
    tx = optax.adam(annealed(rate, steps))

    def step(carry: tuple[Any, Any], key: Key[Array, ""]) -> tuple[tuple[Any, Any], None]:
        params, opt = carry
        updates, opt = tx.update(jax.grad(loss)(params, key), opt, params)
        return (optax.apply_updates(params, updates), opt), None

    return jax.lax.scan(step, (params, tx.init(params)), jax.random.split(key, steps))[0][0]


def denoiser(model: Model, params: Any, y: Array, alone: bool = True) -> Denoise:
    """The trained model given y [B, N, C], as it is executed or, with `alone` off, as it was trained."""
    noise = model.executed if alone else model.noise
    return clipped(from_eps(lambda x, t: noise(params, x, t, y), SCHEDULE), -BOUND, BOUND)


class Made(NamedTuple):
    """Of each law L and seed R: parameters, and samples of the model as it is executed and as it was trained."""

    params: Any
    x: Float[np.ndarray, "L R B N D"]
    whole: Float[np.ndarray, "L R B N D"]  # x itself where execution is training's


def made(
    model: Model,
    draw: Draw,
    laws: Law,
    y: Array,
    seeds: Sequence[int],
    steps: int,
    columns: int = 1,
) -> Made:
    """Train a model on each law (stacked) for each seed, then sample `LEVELS` steps of DDPM: one compiled program."""
    lanes = len(jax.tree.leaves(laws)[0])
    chain, shape = ddpm(SCHEDULE, LEVELS), (*y.shape[:-1], columns)

    def one(lane: tuple[Law, Array]) -> tuple[Any, Array, Array]:
        law, seed = lane
        key = jax.random.key(seed)
        params, k_end = fit(model, draw, law, key, steps), jax.random.fold_in(key, 1)
        x = chain(k_end, denoiser(model, params, y), shape)
        if model.noise is model.executed:
            return params, x, x
        return params, x, chain(k_end, denoiser(model, params, y, alone=False), shape)

    each = jax.tree.map(lambda v: jnp.repeat(jnp.asarray(v), len(seeds), axis=0), laws)
    told = compiled(lambda lanes: jax.lax.map(one, lanes))(
        (each, jnp.tile(jnp.asarray(seeds, jnp.uint32), lanes))
    )
    told = jax.tree.map(lambda v: v.reshape(lanes, len(seeds), *v.shape[1:]), told)
    return Made(told[0], np.asarray(told[1]), np.asarray(told[2]))


def spread(values: np.ndarray) -> tuple[str, str]:
    """Mean over seeds, and the largest distance of a seed from it."""
    return f"{values.mean():.3f}", f"{np.abs(values - values.mean()).max():.3f}"


def _drawn(key: Key[Array, ""], draw: Draw, rows: int, law: Law) -> tuple[Array, Array]:
    return draw(key, rows, law)


def _apart(key: Key[Array, ""], draw: Draw, rows: int, law: Law) -> tuple[Array, Array]:
    """Each agent's column from rows of its own: no row shows two agents at once."""
    x, y = _rows_each(key, draw, rows, law)
    own = lambda v: jnp.stack([v[i, :, i] for i in range(len(v))], axis=1)
    return own(x), own(y)


def _pooled(key: Key[Array, ""], draw: Draw, rows: int, law: Law) -> tuple[Array, Array]:
    """The same with the column of whichever agent."""
    k_rows, k_who = jax.random.split(key)
    x, y = _rows_each(k_rows, draw, rows, law)
    who = jax.random.randint(k_who, x.shape[:2], 0, len(x))[..., None, None]
    anyone = lambda v: jnp.take_along_axis(v, who, axis=2)[:, :, 0].swapaxes(0, 1)
    return anyone(x), anyone(y)


def _rows_each(key: Key[Array, ""], draw: Draw, rows: int, law: Law) -> tuple[Array, Array]:
    """Rows [N, B, N, D] and [N, B, N, C], drawn for each agent anew."""
    agents = jax.eval_shape(lambda key: draw(key, rows, law)[0], key).shape[1]
    return jax.vmap(lambda key: draw(key, rows, law))(jax.random.split(key, agents))
