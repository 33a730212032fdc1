"""Planning by diffusion, under DoF-Trajectory, MADiff and Decision Diffuser.

A plan x [N, W, O] is all agents' observations over W = C + 1 + H rows: C of history, the present, H ahead, in the units
of stages/ranges.py. A `Planner` predicts the noise in it (or the plan itself); the systems make theirs. One update on
windows of the data (data/windows.py), with t from {1/K .. 1}, y_i agent i's return as a share, d_i ~ Bernoulli(drop):

    x = known rows as they are (planning.known_to), elsewhere alpha_t x_0 + sigma_t z
    L = 1/2 ( mean |f(x, t, y, d) - z|^2 over unknown rows of the episode + mean |a - D(o, o')|^2 over its pairs ) + L_h

where d_i = 1 zeroes the embedding of y_i, and L_h pairs data factorisation with the chain's last step, as in
stages/generator.py. Acting: C rows of history and the present are written over the plan before every denoising step,
eps = eps(d = 1) + w (eps(d = 0) - eps(d = 1)), each clean estimate is held in [-1, 1], the chain starts at
N(0, temperature^2), for the return of stages/targets.py. The action is D(o, plan's next row), of a plan that is made
anew every `replan` steps.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Dataset, Past, Spec, State, Window
from jaxomarl.data.windows import sample_windows
from jaxomarl.diffusion.guidance import inpaint
from jaxomarl.diffusion.parameterise import noised
from jaxomarl.diffusion.schedules import cosine
from jaxomarl.optim import Params, create, descend, polyak
from jaxomarl.stages.inverse_dynamics import inverse_loss
from jaxomarl.stages.planning import Known, Planner, Plans, actor, clean, columns, known_to, seen_by, told
from jaxomarl.stages.ranges import knots
from jaxomarl.stages.targets import goals


def planner_stage(spec: Spec, cfg: Any, model: Planner) -> Algorithm:
    """The algorithm; as at the head of this file."""
    tx, see = optax.adam(cfg.policy_lr), seen_by(spec, cfg, model)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Plans:
        k_plan, k_inverse = jax.random.split(key)
        params = {"plan": model.init(k_plan), "inverse": model.inverse.init(k_inverse)}
        net = create(tx, params, target=True)
        return Plans(net, knots(cfg.normaliser, spec, data), goals(spec, cfg, data))

    def batch(key: Key[Array, ""], state: State, data: Dataset) -> Window:
        return sample_windows(key, data, cfg.policy_batch, cfg.horizon, cfg.history)

    def update(key: Key[Array, ""], state: Plans, past: Past, batch: Window) -> tuple[Plans, dict]:
        obs = see(past, state.knots, batch.obs)
        drawn = noise(key, spec, cfg, len(obs), model)
        y = asked(cfg, batch)

        def loss(params):
            fit, metrics = planning_loss(spec, cfg, model, params["plan"], obs, batch.valid, y, drawn)
            weight = (batch.valid[:, :-1] * batch.valid[:, 1:])[..., None] * batch.alive[:, :-1]
            taken = batch.action, batch.available
            wrong = inverse_loss(spec, model.inverse, params["inverse"], obs, *taken, weight)
            return 0.5 * wrong + fit, {**metrics, "inverse_loss": wrong}

        grads, metrics = jax.grad(loss, has_aux=True)(state.net.params)
        return state._replace(net=polyak(descend(tx, state.net, grads), cfg.polyak)), metrics

    return Algorithm(init, batch, update, *actor(spec, cfg, model), model.centralised)


# --- training ---


class Drawn(NamedTuple):
    """The randomness of one update."""

    t: Float[Array, " B"]
    z: Float[Array, "B N W O"]
    drop: Float[Array, "B N"]
    rows: Known  # which rows the model is given


def noise(key: Key[Array, ""], spec: Spec, cfg: Any, size: int, model: Planner) -> Drawn:
    """Times, noise without padded columns, which agents are not told their return, and which rows are given.

    `model.each`: history and present of one agent alone, drawn for each sample, as an agent will find them.
    """
    k_t, k_z, k_drop, k_who = jax.random.split(key, 4)
    n, rows, mask = spec.agents, cfg.history + 1 + cfg.horizon, columns(spec, model)
    t = jax.random.randint(k_t, (size,), 1, cfg.levels + 1) / cfg.levels
    z = jax.random.normal(k_z, (size, n, rows, mask.shape[-1])) * mask
    drop = (jax.random.uniform(k_drop, (size, n)) < cfg.drop).astype(jnp.float32)
    who = jax.nn.one_hot(jax.random.randint(k_who, (size,), 0, n), n) if model.each else jnp.ones((size, n))
    return Drawn(t, z, drop, known_to(cfg, who))


def asked(cfg: Any, batch: Window) -> Float[Array, "B N"]:
    """The returns of a batch from the present on, as shares; 0 where plans are not conditioned on any."""
    return batch.extra["returns"][:, cfg.history] if cfg.returns != "none" else jnp.zeros(batch.obs.shape[::2])


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
    mask = columns(spec, model)
    x0, schedule, tell = jnp.swapaxes(obs, 1, 2), cosine(cfg.levels), told(y, drawn.drop)
    known, given = drawn.rows.known, x0 * drawn.rows.shown
    over = lambda x: jnp.where(known > 0, given, x)
    out = model.trained(params, over(noised(schedule, x0, drawn.t, drawn.z)), drawn.t, tell)
    wanted = drawn.z if cfg.predict == "noise" else x0
    weight = (1.0 - known) * valid[:, None, :, None] * mask
    square = lambda error: jnp.sum(weight * error**2) / jnp.maximum(weight.sum(), 1.0)
    fit = square(out - wanted)
    if model.mix is None:
        return 0.5 * fit, {"denoising_loss": fit}
    last = jnp.asarray(1.0 / cfg.levels)
    near = inpaint(clean(cfg, model.trained, params, tell, mask), given, known)
    rough = jax.lax.stop_gradient(near(noised(schedule, x0, last, drawn.z), last))
    mixed = square(model.mix(params, rough, last, tell) - x0)
    return 0.5 * fit + mixed, {"denoising_loss": fit, "mixer_loss": mixed}
