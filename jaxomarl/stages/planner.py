"""Planning by diffusion, under DoF-Trajectory, MADiff and Decision Diffuser.

A plan x [N, W, O] is all agents' observations over W = C + 1 + H rows: C of history, the present, H ahead, in the units
of stages/ranges.py. A `Planner` predicts the noise in it (or the plan itself); the systems make theirs. One update on
windows of the data (data/windows.py), with t from {1/K .. 1}, y_i agent i's return as a share, d_i ~ Bernoulli(drop):

    x = known rows as they are, elsewhere alpha_t x_0 + sigma_t z
    L = 1/2 ( mean |f(x, t, y, d) - z|^2 over unknown rows of the episode + mean |a - D(o, o')|^2 over its pairs ) + L_h

where d_i = 1 zeroes the embedding of y_i, and L_h pairs data factorisation with the chain's last step, as in
stages/generator.py. Acting: C rows of history and the present are written over the plan before every denoising step,
eps = eps(d = 1) + w (eps(d = 0) - eps(d = 1)), each clean estimate is held in [-1, 1], the chain starts at
N(0, temperature^2). The action is D(o, plan's next row), of a plan that is made anew every `replan` steps.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from jaxomarl.base import Algorithm, Dataset, Denoise, Observation, Past, Spec, State, Window
from jaxomarl.data.windows import sample_windows
from jaxomarl.diffusion.guidance import classifier_free, clipped, inpaint, masked
from jaxomarl.diffusion.parameterise import from_eps, noised
from jaxomarl.diffusion.samplers import ddim, ddpm
from jaxomarl.diffusion.schedules import cosine
from jaxomarl.networks.mlp import Network
from jaxomarl.optim import Net, Params, create, descend, polyak
from jaxomarl.stages.inverse_dynamics import inverse_loss, played
from jaxomarl.stages.ranges import Knots, knots, ranged

SAMPLERS = {"ddpm": ddpm, "ddim": ddim}

Predict = Callable[[Params, Array, Array, Array], Array]
"""(params, x [..., N, W, O], t, told [..., N, 2]) -> noise or plan like x; told is [y (1 - d), d]."""


class Planner(NamedTuple):
    """A team's model of its plans; its params are `init`'s."""

    init: Callable[[Key[Array, ""]], Params]
    trained: Predict
    executed: Predict  # as agents act; `trained` but for dec-atten
    mix: Predict | None  # h: (params, x, t, told) -> x; None leaves x as it is
    inverse: Network  # (params, obs, then) -> action
    each: bool  # every agent draws a whole joint plan from its own rows alone
    centralised: bool


class Plans(NamedTuple):
    """What is trained, and the units of observations."""

    net: Net  # params {"plan", "inverse"}
    knots: Knots


class Memory(NamedTuple):
    """One environment's: raw rows of history, the rows of the plan that is followed, and steps so far."""

    history: Float[Array, "N C O"]
    plan: Float[Array, "N P O"]
    step: Int[Array, ""]


def planner_stage(spec: Spec, cfg: Any, model: Planner) -> Algorithm:
    """The algorithm; as at the head of this file."""
    tx, see = optax.adam(cfg.policy_lr), ranged(cfg.normaliser, spec)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Plans:
        k_plan, k_inverse = jax.random.split(key)
        params = {"plan": model.init(k_plan), "inverse": model.inverse.init(k_inverse)}
        return Plans(create(tx, params, target=True), knots(cfg.normaliser, spec, data))

    def batch(key: Key[Array, ""], state: State, data: Dataset) -> Window:
        return sample_windows(key, data, cfg.policy_batch, cfg.horizon, cfg.history)

    def update(key: Key[Array, ""], state: Plans, past: Past, batch: Window) -> tuple[Plans, dict]:
        obs = see(state.knots, batch.obs)
        drawn = noise(key, spec, cfg, len(obs), model.each)
        y = batch.extra["returns"][:, cfg.history] if cfg.returns != "none" else jnp.zeros(drawn.drop.shape)

        def loss(params):
            fit, metrics = planning_loss(spec, cfg, model, params["plan"], obs, batch.valid, y, drawn)
            weight = (batch.valid[:, :-1] * batch.valid[:, 1:])[..., None] * batch.alive[:, :-1]
            wrong = inverse_loss(spec, model.inverse, params["inverse"], obs, batch.action, weight)
            return 0.5 * wrong + fit, {**metrics, "inverse_loss": wrong}

        grads, metrics = jax.grad(loss, has_aux=True)(state.net.params)
        return state._replace(net=polyak(descend(tx, state.net, grads), cfg.polyak)), metrics

    def act(key, state, past, memory, observation: Observation):
        params = state.net.target if cfg.acting == "target" else state.net.params
        obs = observation.obs * spec.obs_mask
        first = jnp.broadcast_to(obs[:, None], memory.history.shape)  # as windows repeat an episode's first row
        history = jnp.where(memory.step == 0, first, memory.history)
        rows = jnp.concatenate([history, obs[:, None]], axis=1)
        seen = jnp.swapaxes(see(state.knots, jnp.swapaxes(rows, 0, 1)), 0, 1)
        fresh = lambda: ahead(key, spec, cfg, model, params["plan"], seen)
        age = memory.step % cfg.replan
        # the counter is the same in all episodes, so that under vmap this stays a branch and plans are saved
        plan = fresh() if cfg.replan == 1 else jax.lax.cond(age == 0, fresh, lambda: memory.plan)
        out = model.inverse.apply(params["inverse"], seen[:, -1], plan[:, age])
        after = Memory(rows[:, 1:], plan, memory.step + 1)
        return played(spec, out, observation.available), after

    rows = lambda count: jnp.zeros((spec.agents, count, spec.obs_width))
    memory = Memory(rows(cfg.history), rows(cfg.replan), jnp.zeros((), jnp.int32))
    return Algorithm(init, batch, update, act, memory, model.centralised)


# --- training ---


class Drawn(NamedTuple):
    """The randomness of one update."""

    t: Float[Array, " B"]
    z: Float[Array, "B N W O"]
    drop: Float[Array, "B N"]
    known: Float[Array, "B N W 1"]  # 1.0 on rows that the model is given


def noise(key: Key[Array, ""], spec: Spec, cfg: Any, size: int, each: bool) -> Drawn:
    """Times, noise without padded columns, which agents are not told their return, and which rows are given.

    `each`: of history and present one agent's rows alone, drawn for each sample, as an agent will find them.
    """
    k_t, k_z, k_drop, k_who = jax.random.split(key, 4)
    n, rows = spec.agents, cfg.history + 1 + cfg.horizon
    t = jax.random.randint(k_t, (size,), 1, cfg.levels + 1) / cfg.levels
    z = jax.random.normal(k_z, (size, n, rows, spec.obs_width)) * spec.obs_mask[:, None]
    drop = (jax.random.uniform(k_drop, (size, n)) < cfg.drop).astype(jnp.float32)
    who = jax.nn.one_hot(jax.random.randint(k_who, (size,), 0, n), n) if each else jnp.ones((size, n))
    return Drawn(t, z, drop, who[..., None, None] * given(cfg))


def given(cfg: Any) -> Float[Array, "W 1"]:
    """1.0 on history and present, 0.0 on what is planned."""
    return (jnp.arange(cfg.history + 1 + cfg.horizon) <= cfg.history).astype(jnp.float32)[:, None]


def told(y: Float[Array, "*B N"], drop: Float[Array, "*B N"]) -> Float[Array, "*B N 2"]:
    """[y (1 - d), d]: where d = 1 nothing of y is left."""
    return jnp.stack([jnp.where(drop > 0, 0.0, y), drop], axis=-1)


def planning_loss(
    spec: Spec,
    cfg: Any,
    model: Planner,
    params: Params,
    obs: Float[Array, "B W N O"],
    valid: Float[Array, "B W"],
    y: Float[Array, "B N"],
    drawn: Drawn,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Half the denoising loss of windows in the model's units, and all of L_h; and both as metrics."""
    x0, schedule, tell = jnp.swapaxes(obs, 1, 2), cosine(cfg.levels), told(y, drawn.drop)
    over = lambda x: jnp.where(drawn.known > 0, x0, x)
    out = model.trained(params, over(noised(schedule, x0, drawn.t, drawn.z)), drawn.t, tell)
    wanted = drawn.z if cfg.predict == "noise" else x0
    weight = (1.0 - drawn.known) * valid[:, None, :, None] * spec.obs_mask[:, None]
    square = lambda error: jnp.sum(weight * error**2) / jnp.maximum(weight.sum(), 1.0)
    fit = square(out - wanted)
    if model.mix is None:
        return 0.5 * fit, {"denoising_loss": fit}
    last = jnp.asarray(1.0 / cfg.levels)
    near = inpaint(clean(spec, cfg, model.trained, params, tell), x0, drawn.known)
    rough = jax.lax.stop_gradient(near(noised(schedule, x0, last, drawn.z), last))
    mixed = square(model.mix(params, rough, last, tell) - x0)
    return 0.5 * fit + mixed, {"denoising_loss": fit, "mixer_loss": mixed}


# --- planning ---


def clean(spec: Spec, cfg: Any, predict: Predict, params: Params, tell: Array) -> Denoise:
    """The denoiser of a prediction, without its box."""
    out = lambda x, t: predict(params, x, t, tell)
    free = from_eps(out, cosine(cfg.levels)) if cfg.predict == "noise" else out
    return masked(free, jnp.asarray(spec.obs_mask)[:, None])


def denoiser(spec: Spec, cfg: Any, model: Planner, params: Params, y: Float[Array, "*B N"]) -> Denoise:
    """Guided towards returns y, held in [-1, 1]; the pass without the condition is told that there is none."""
    free = lambda drop: clean(spec, cfg, model.executed, params, told(y, jnp.full(y.shape, drop)))
    towards = free(1.0) if cfg.returns == "none" else classifier_free(free(0.0), free(1.0), cfg.guidance)
    return clipped(towards, -1.0, 1.0)


def sample(
    key: Key[Array, ""],
    spec: Spec,
    cfg: Any,
    model: Planner,
    params: Params,
    seen: Float[Array, "*B N P O"],
    known: Float[Array, "*B N W 1"],
) -> Float[Array, "*B N W O"]:
    """Plans [..., N, W, O] whose known entries are those of `seen` (history and present), bit for bit."""
    y, mask = jnp.full(seen.shape[:-2], cfg.target), jnp.asarray(spec.obs_mask)[:, None]
    rows = jnp.pad(seen, [(0, 0)] * (seen.ndim - 2) + [(0, cfg.horizon), (0, 0)])
    chain = SAMPLERS[cfg.sampler](cosine(cfg.levels), cfg.calls, start=cfg.temperature, mask=mask)
    x = chain(key, inpaint(denoiser(spec, cfg, model, params, y), rows, known), rows.shape)
    if model.mix is not None:
        x = mask * jnp.clip(model.mix(params, x, jnp.zeros(()), told(y, jnp.zeros(y.shape))), -1.0, 1.0)
    return jnp.where(known > 0, rows, x)


def ahead(
    key: Key[Array, ""], spec: Spec, cfg: Any, model: Planner, params: Params, seen: Float[Array, "N P O"]
) -> Float[Array, "N R O"]:
    """The rows after the present that are followed until the next plan."""
    n, kept = spec.agents, slice(cfg.history + 1, cfg.history + 1 + cfg.replan)
    if not model.each:
        return sample(key, spec, cfg, model, params, seen, jnp.broadcast_to(given(cfg), (n, *given(cfg).shape)))[
            :, kept
        ]

    def own(key, i, who):
        return sample(key, spec, cfg, model, params, seen, who[:, None, None] * given(cfg))[i, kept]

    return jax.vmap(own)(jax.random.split(key, n), jnp.arange(n), jnp.eye(n))
