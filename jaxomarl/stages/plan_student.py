"""A consistency model of plans, distilled from a trained planner: one network call gives a plan.

It is the stage after the planner's, where `sampler` is consistency. One update on windows of the
data, with k from {1 .. G}:

    x = known rows as they are, elsewhere alpha x_0 + sigma z at k/G;  y the windows' own returns
    x' = one step of DDIM from x to (k - 1)/G, by the planner under its guidance
    L = mean over unknown rows of the episode of |f(x, k/G, y) - sg f'(x', (k - 1)/G, y)|^2

f is consistent by its form (diffusion/consistency.py): f(x, 0) = x. It starts from the planner's
weights, and f' has their slow copy. On the squared-cosine schedule neighbours are equally far apart
in angle, so pairs weigh the same. Guidance is learned with the rest: acting asks f for the wanted
return, without a second call.

Sources: Song et al. 2023, "Consistency models", algorithm 2; the call under guidance is as in Luo
et al. 2023, eq. 14, with one weight.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Dataset, Denoise, Health, Past, Spec, Stage, Window
from jaxomarl.diffusion.consistency import consistency, consistency_loss, consistent
from jaxomarl.diffusion.guidance import clipped, inpaint, masked
from jaxomarl.diffusion.schedules import cosine
from jaxomarl.optim import Params, create, descend, polyak
from jaxomarl.policies.plans import (
    Planner,
    Plans,
    PlanSampler,
    actor,
    denoiser,
    plan_normaliser,
    planning_weights,
    real_columns,
    return_condition,
)
from jaxomarl.stages.planner import (
    RAISE_STUDENT,
    Config,
    batch_returns,
    plan_health,
    plan_randomness,
    planner_health,
    planner_stage,
)

PLAN_STD = 0.5
"""Standard deviation of a plan's rows, about: they lie in [-1, 1]."""


def plan_stages(name: str, spec: Spec, cfg: Config, model: Planner) -> tuple[Stage, ...]:
    """A system's pipeline: its planner and, where plans come from one, a consistency model."""
    plans = planner_stage(spec, cfg, model)
    timing = {"chunk": cfg.chunk, "every": cfg.every, "owner": name, "episodes": cfg.episodes}
    planner = Stage("planner", plans, cfg.policy_steps, **timing)
    planner = planner._replace(health=planner_health(spec, cfg, model))
    if cfg.sampler != "consistency":
        return (planner,)
    teacher = plans._replace(act=None, memory=())
    learner = student(spec, cfg, model)
    compared = student_health(spec, cfg, model)
    return (
        planner._replace(algorithm=teacher, kept=without_optimiser),
        Stage("student", learner, cfg.student_steps, **timing, health=compared),
    )


def without_optimiser(plans: Plans) -> Plans:
    """What is kept of a finished planner: all but its optimiser's state."""
    return plans._replace(net=plans.net._replace(opt=()))


def student(spec: Spec, cfg: Config, model: Planner) -> Algorithm:
    """The algorithm, as at the head of this file."""
    optimiser = optax.adam(cfg.policy_lr)
    normalise_obs = plan_normaliser(spec, cfg, model)
    schedule = cosine(cfg.levels)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Plans:
        plans = past["planner"]
        net = create(optimiser, planning_weights(cfg, plans), target=True)
        return plans._replace(net=net)

    def update(key: Key[Array, ""], state: Plans, past: Past, batch: Window) -> tuple[Plans, dict]:
        # --- plans, their returns, and the randomness ---
        x0 = jnp.swapaxes(normalise_obs(past, state.knots, batch.obs), 1, 2)
        y = batch_returns(cfg, batch)
        k_noise, k_time = jax.random.split(key)
        drawn = plan_randomness(k_noise, spec, cfg, len(x0), model)
        k = jax.random.randint(k_time, (len(x0),), 1, cfg.grid + 1)
        unknown = 1.0 - drawn.rows.known
        mask = unknown * batch.valid[:, None, :, None] * real_columns(spec, model)

        # --- the teacher's step, and the slow copy ---
        def given(denoise: Denoise) -> Denoise:
            return inpaint(denoise, x0 * drawn.rows.shown, drawn.rows.known)

        planner_params = planning_weights(cfg, past["planner"])["plan"]
        teacher = given(denoiser(spec, cfg, model, planner_params, y))
        slow = given(plan_ends(spec, cfg, model, state.net.target["plan"], y))
        weight = 1.0 / jnp.maximum(mask.sum(axis=(1, 2, 3)), 1.0)

        # --- the step ---
        def loss(params: Params) -> Float[Array, ""]:
            f = given(plan_ends(spec, cfg, model, params["plan"], y))
            t = k / cfg.grid
            s = (k - 1) / cfg.grid
            return consistency_loss(f, slow, schedule, x0, t, s, drawn.z, teacher, weight, mask)

        value, grads = jax.value_and_grad(loss)(state.net.params)
        net = polyak(descend(optimiser, state.net, grads), cfg.polyak)
        return state._replace(net=net), {"consistency_loss": value}

    batch = planner_stage(spec, cfg, model).batch
    act, memory = actor(spec, cfg, model, drawn_by_student(spec, cfg, model))
    return Algorithm(init, batch, update, act, memory, model.centralised)


def student_health(spec: Spec, cfg: Config, model: Planner) -> Health:
    """Health of the plans that one call of f gives; the inverse dynamics are the planner's."""

    def estimate(state: Plans, y: Float[Array, "B N"]) -> Denoise:
        params = planning_weights(cfg, state)["plan"]
        return clipped(plan_ends(spec, cfg, model, params, y), -1.0, 1.0)

    return plan_health(spec, cfg, model, estimate, RAISE_STUDENT)


def drawn_by_student(spec: Spec, cfg: Config, model: Planner) -> PlanSampler:
    """How plans are drawn: a few calls of f, from noise of the deviation `temperature`."""
    mask = real_columns(spec, model)
    chain = consistency(cosine(cfg.levels), cfg.calls, start=cfg.temperature, mask=mask)

    def denoise(params: Params, y: Float[Array, "*B N"]) -> Denoise:
        return clipped(plan_ends(spec, cfg, model, params, y), -1.0, 1.0)

    return PlanSampler(chain, denoise)


def plan_ends(
    spec: Spec,
    cfg: Config,
    model: Planner,
    params: Params,
    y: Float[Array, "*B N"],
) -> Denoise:
    """f: the end of the guided path through x at t, for returns y, without its box."""

    def raw(x: Array, t: Array) -> Array:
        condition = return_condition(y, jnp.zeros(y.shape))
        return model.executed(params, x, t, condition)

    return masked(consistent(raw, cosine(cfg.levels), PLAN_STD), real_columns(spec, model))
