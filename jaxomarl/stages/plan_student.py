"""A consistency model of plans, distilled from a trained planner: a plan for one call of the network.

The stage behind the planner's where `sampler` is consistency. One update on windows of the data, k from {1 .. G}:

    x = known rows as they are, elsewhere alpha x_0 + sigma z at k/G;  y the windows' own returns
    x' = one step of DDIM from x to (k - 1)/G, by the planner under its guidance
    L = mean over unknown rows of the episode of |f(x, k/G, y) - sg f'(x', (k - 1)/G, y)|^2

f is consistent by its form (diffusion/consistency.py): f(x, 0) = x; it starts from the planner's weights, and f' has
their slow copy. On the squared-cosine schedule neighbours are equally far apart in angle, so pairs weigh the same.
Guidance is learned with the rest: acting asks f for the wanted return, without a second pass.
Source: Song et al. 2023, "Consistency models", algorithm 2; the pass under guidance as in Luo et al. 2023, eq. 14,
with one weight.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Dataset, Denoise, Past, Spec, Stage, Window
from jaxomarl.diffusion.consistency import consistency, consistency_loss, consistent
from jaxomarl.diffusion.guidance import clipped, inpaint, masked
from jaxomarl.diffusion.schedules import cosine
from jaxomarl.optim import Params, create, descend, polyak
from jaxomarl.policies.plans import Draw, Planner, Plans, actor, columns, denoiser, seen_by, told
from jaxomarl.stages.planner import asked, planner_stage, times_and_noise

STD = 0.5
"""Of the rows of a plan, about: they lie in [-1, 1]."""


def plan_stages(name: str, spec: Spec, cfg: Any, model: Planner) -> tuple[Stage, ...]:
    """A system's pipeline: its planner, and behind it a consistency model where plans are drawn from one."""
    plans = planner_stage(spec, cfg, model)
    timing = {"chunk": cfg.chunk, "every": cfg.every, "owner": name, "episodes": cfg.episodes}
    if cfg.sampler != "consistency":
        return (Stage("planner", plans, cfg.policy_steps, **timing),)
    teacher = plans._replace(act=None, memory=())
    return (
        Stage("planner", teacher, cfg.policy_steps, **timing, kept=weights),
        Stage("student", student(spec, cfg, model), cfg.student_steps, **timing),
    )


def weights(plans: Plans) -> Plans:
    """What is left of a finished planner: all but its optimiser's state."""
    return plans._replace(net=plans.net._replace(opt=()))


def student(spec: Spec, cfg: Any, model: Planner) -> Algorithm:
    """The algorithm; as at the head of this file."""
    tx, see, schedule = optax.adam(cfg.policy_lr), seen_by(spec, cfg, model), cosine(cfg.levels)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Plans:
        plans = past["planner"]
        return plans._replace(net=create(tx, learned(cfg, plans), target=True))

    def update(key: Key[Array, ""], state: Plans, past: Past, batch: Window) -> tuple[Plans, dict]:
        x0, y = jnp.swapaxes(see(past, state.knots, batch.obs), 1, 2), asked(cfg, batch)
        k_noise, k_time = jax.random.split(key)
        drawn = times_and_noise(k_noise, spec, cfg, len(x0), model)
        k = jax.random.randint(k_time, (len(x0),), 1, cfg.grid + 1)
        mask = (1.0 - drawn.rows.known) * batch.valid[:, None, :, None] * columns(spec, model)
        given = lambda denoise: inpaint(denoise, x0 * drawn.rows.shown, drawn.rows.known)
        teacher = given(denoiser(spec, cfg, model, learned(cfg, past["planner"])["plan"], y))
        slow = given(ends(spec, cfg, model, state.net.target["plan"], y))
        weight = 1.0 / jnp.maximum(mask.sum(axis=(1, 2, 3)), 1.0)

        def loss(params: Params) -> Float[Array, ""]:
            f = given(ends(spec, cfg, model, params["plan"], y))
            t, s = k / cfg.grid, (k - 1) / cfg.grid
            return consistency_loss(f, slow, schedule, x0, t, s, drawn.z, teacher, weight, mask)

        found, grads = jax.value_and_grad(loss)(state.net.params)
        return state._replace(net=polyak(descend(tx, state.net, grads), cfg.polyak)), {
            "consistency_loss": found
        }

    acting = actor(spec, cfg, model, drawn_by_student(spec, cfg, model))
    return Algorithm(
        init, planner_stage(spec, cfg, model).batch, update, *acting, model.centralised
    )


def drawn_by_student(spec: Spec, cfg: Any, model: Planner) -> Draw:
    """A few calls of f, from where the settings start."""
    chain = consistency(
        cosine(cfg.levels), cfg.calls, start=cfg.temperature, mask=columns(spec, model)
    )
    return Draw(chain, lambda params, y: clipped(ends(spec, cfg, model, params, y), -1.0, 1.0))


def learned(cfg: Any, plans: Plans) -> Params:
    """The weights that plan."""
    return plans.net.target if cfg.acting == "target" else plans.net.params


def ends(spec: Spec, cfg: Any, model: Planner, params: Params, y: Float[Array, "*B N"]) -> Denoise:
    """f: the end of the guided path through x at t, for returns y; without its box."""
    raw = lambda x, t: model.executed(params, x, t, told(y, jnp.zeros(y.shape)))
    return masked(consistent(raw, cosine(cfg.levels), STD), columns(spec, model))
