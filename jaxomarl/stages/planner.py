"""Planning by diffusion: the stage of DoF-Trajectory, MADiff and Decision Diffuser.

A plan x [N, W, O] is all agents' observations over W = C + 1 + H rows: C of history, the present,
and H ahead, in the units of data/ranges.py. A `Planner` predicts the noise in it, or the plan
itself; the systems differ in their `Planner`. One update on windows of the data (data/windows.py),
with t from {1/K .. 1}, agent i's return as a share y_i, and d_i ~ Bernoulli(drop):

    x = known rows as they are (plans.known_to), elsewhere alpha_t x_0 + sigma_t z
    L = 1/2 L_plan + 1/2 L_action + L_h
    L_plan = mean |f(x, t, y, d) - z|^2 over unknown rows of the episode
    L_action = mean |a - D(o, o')|^2 over pairs of rows
    L_h = mean |h(sg x0) - x_0|^2

d_i = 1 zeroes the embedding of y_i. Where actions are discrete, D's error is the cross-entropy of
its logits. L_h is for planners that factorise the data (DoF). Its x0 is what the chain's last step
makes of the plan itself, noised to the level of that step: full samples of the chain belong to no
row. policies/plans.py acts.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Key

from jaxomarl.base import (
    Algorithm,
    Dataset,
    Denoise,
    Health,
    Past,
    Spec,
    State,
    Window,
    refuse,
)
from jaxomarl.config import check_fields, config, flag, static, traced
from jaxomarl.data import ranges, return_targets
from jaxomarl.data.dataset import check_batch, check_transitions
from jaxomarl.data.ranges import fit_quantiles
from jaxomarl.data.return_targets import goals
from jaxomarl.data.returns import KINDS, returns, with_returns
from jaxomarl.data.windows import check_windows, sample_windows
from jaxomarl.diffusion.guidance import clipped, inpaint
from jaxomarl.diffusion.parameterise import noised
from jaxomarl.diffusion.schedules import cosine
from jaxomarl.health import plans as plan_figures
from jaxomarl.health.held import joined
from jaxomarl.losses.imitation import action_error
from jaxomarl.masking import weighted_mean
from jaxomarl.networks.actors import action_of_output
from jaxomarl.networks.mlp import Network
from jaxomarl.networks.temporal import temporal_unet
from jaxomarl.optim import Params, create, descend, polyak
from jaxomarl.policies.plans import (
    SAMPLERS,
    Known,
    Planner,
    Plans,
    actor,
    clean,
    known_to,
    plan_normaliser,
    planning_weights,
    real_columns,
    return_condition,
)

MULTIPLIERS = (1, 4, 8)

HELD_WINDOWS = 256
"""Held-out windows whose plans are denoised."""
HELD_TIME = 0.5
"""Diffusion time of the plans, at which half of a plan's variance is noise."""
RAISE_PLAN = ("policy_steps", "policy_batch", "policy_width")
"""What to raise where plans have not learned."""
RAISE_INVERSE = ("policy_steps", "inverse_width")
"""What to raise where the inverse dynamics model has not learned."""
RAISE_STUDENT = ("student_steps", "policy_batch")
"""What to raise where the student has not learned."""

Estimate = Callable[[Plans, Float[Array, "B N"]], Denoise]
"""(the stage's state, returns) -> the denoiser of one call, clipped to the box of plans."""

CHOICES = {
    "normaliser": ranges.KINDS,
    "returns": (*KINDS, "none"),
    "reward": ("own", "team"),
    "predict": ("noise", "clean"),
    "sampler": (*SAMPLERS, "consistency"),
    "acting": ("target", "online"),
    "target_kind": return_targets.KINDS,
}


@config
class Config:
    """Settings of planners.

    The defaults are those of DoF-Trajectory's Table 7, and of MADiff's code where it is silent.
    """

    horizon: int = static(default=20)
    """H: steps that a plan looks ahead."""
    history: int = static(default=8, within="[0, inf)")
    """C: past observations that a plan begins with, before the present one."""
    replan: int = static(default=1)
    """Steps for which a plan is followed before the next one is sampled."""
    normaliser: str = static(default="cdf")
    """How observations are normalised. cdf: to their ranks. limits: by the data's extremes."""
    returns: str = static(default="togo")
    """Condition of a plan. togo: discounted return from now on. episode: of the episode. none."""
    reward: str = static(default="own")
    """Reward that is learned. own: each agent's. team: the team's, for every agent."""
    gamma: float = static(default=0.99, within="[0, 1]")
    """Discount factor of the returns that plans are conditioned on."""
    return_scale: float = static(default=0.0, within="[0, inf)")
    """Return that counts as 1; 0 maps the data's range of returns to 0 .. 1."""
    target: float = traced(default=0.9, within="(-inf, inf)")
    """Return that acting asks for, in units of return-scale.

    With target-kind quantile it is a quantile of the data's returns.
    """
    target_kind: str = static(default="constant")
    """Return asked for at a step. constant. remaining: less what was received.

    quantile: of the data's returns at that step.
    """
    guidance: float = traced(default=1.2, within="[0, inf)")
    """w: 1 follows the condition, more exaggerates it, 0 ignores it."""
    drop: float = traced(default=0.25, within="[0, 1]")
    """Probability that an agent's condition is left out of a training step."""
    levels: int = static(default=200)
    """K: noise levels of the squared-cosine schedule that are trained."""
    sampler: str = static(default="ddpm")
    """How plans are sampled. ddpm. ddim. consistency: a distilled model, for a few --cfg.calls."""
    calls: int = static(default=200)
    """Steps of the sampler; each calls the network with the condition and without it."""
    grid: int = static(default=40)
    """G: times of the grid on which a consistency model is distilled."""
    temperature: float = traced(default=0.5, within="[0, inf)")
    """Standard deviation of the noise that sampling starts from."""
    predict: str = static(default="noise")
    """What the network predicts. noise. clean: the plan itself, better with few sampling steps."""
    polyak: float = traced(default=0.005, within="(0, 1]")
    """Rate at which the averaged weights follow the trained ones."""
    acting: str = static(default="target")
    """Networks that plan in evaluations. target: the slow averages. online: the trained ones."""
    depth: int = static(default=3)
    """Levels of the U-Net, which are 1, 4 and 8 times as wide as the first."""
    reach: int = static(default=2)
    """Neighbouring rows on either side that a convolution reads: its kernel is 2 reach + 1 wide."""
    blocks: int = static(default=2)
    """Residual blocks in each level of the U-Net, on the way down and on the way up."""
    chunk: int = static(default=1000)
    """Updates of one compiled scan; reports and checkpoints fall between two scans."""
    every: int = static(default=100)
    """Chunks between two evaluations, which plan at every step of every episode."""
    episodes: int = static(default=0, within="[0, inf)")
    """Episodes of each evaluation; 0: as many as other systems roll out (--episodes)."""
    policy_steps: int = static(default=100_000, scaled="steps")
    """Gradient steps of the planner."""
    student_steps: int = static(default=50_000, scaled="steps")
    """Gradient steps of the consistency model."""
    policy_batch: int = static(default=64)
    """Windows in a batch of the planner's updates."""
    policy_width: int = static(default=128, scaled="width")
    """Width of the U-Net's first level."""
    inverse_width: int = static(default=256, scaled="width")
    """Width of the inverse dynamics model's two hidden layers."""
    policy_lr: float = traced(default=2e-4, within="(0, inf)")
    """Learning rate of the planner."""


def unet(cfg: Config, channels: int, agents: int = 0) -> Network:
    """One temporal U-Net of these settings: (params, x [..., W, D], t, condition) -> like x.

    `condition` [..., 2] is the return, and 1.0 where the return is dropped. A network of plans
    without returns does not use it.
    """
    net = temporal_unet(
        channels,
        int(cfg.returns != "none"),
        cfg.policy_width,
        MULTIPLIERS[: cfg.depth],
        2 * cfg.reach + 1,
        agents=agents,
        blocks=cfg.blocks,
    )

    def apply(params, x, t, condition):
        return net.apply(params, x, t, condition[..., :1], condition[..., 1])

    return Network(net.init, apply)


# --- the update ---


def planner_stage(spec: Spec, cfg: Config, model: Planner) -> Algorithm:
    """The algorithm, as at the head of this file."""
    optimiser = optax.adam(cfg.policy_lr)
    normalise_obs = plan_normaliser(spec, cfg, model)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Plans:
        k_plan, k_inverse = jax.random.split(key)
        params = {"plan": model.init(k_plan), "inverse": model.inverse.init(k_inverse)}
        net = create(optimiser, params, target=True)
        return Plans(net, fit_quantiles(cfg.normaliser, spec, data), goals(spec, cfg, data))

    def batch(key: Key[Array, ""], state: State, data: Dataset) -> Window:
        return sample_windows(key, data, cfg.policy_batch, cfg.horizon, cfg.history)

    def update(key: Key[Array, ""], state: Plans, past: Past, batch: Window) -> tuple[Plans, dict]:
        obs = normalise_obs(past, state.knots, batch.obs)
        drawn = plan_randomness(key, spec, cfg, len(obs), model)
        y = batch_returns(cfg, batch)

        def loss(params):
            plan_loss, metrics = planning_loss(
                spec, cfg, model, params["plan"], obs, batch.valid, y, drawn
            )
            action_loss = inverse_loss(spec, model, params["inverse"], obs, batch)
            return 0.5 * action_loss + plan_loss, {**metrics, "inverse_loss": action_loss}

        grads, metrics = jax.grad(loss, has_aux=True)(state.net.params)
        net = polyak(descend(optimiser, state.net, grads), cfg.polyak)
        return state._replace(net=net), metrics

    act, memory = actor(spec, cfg, model)
    return Algorithm(init, batch, update, act, memory, model.centralised)


class PlanRandomness(NamedTuple):
    """The randomness of one update."""

    t: Float[Array, " B"]
    z: Float[Array, "B N W O"]
    drop: Float[Array, "B N"]
    """1.0 where an agent's return is dropped."""
    rows: Known
    """Which rows the model is given."""


def plan_randomness(
    key: Key[Array, ""],
    spec: Spec,
    cfg: Config,
    size: int,
    model: Planner,
) -> PlanRandomness:
    """Times, noise without padded columns, whose returns are dropped, and which rows are given.

    With `model.each`, the given rows are the history and present of one agent alone, as an agent
    has them when it acts. The agent is drawn for each sample.
    """
    k_t, k_z, k_drop, k_who = jax.random.split(key, 4)
    n = spec.agents
    rows = cfg.history + 1 + cfg.horizon
    mask = real_columns(spec, model)
    t = jax.random.randint(k_t, (size,), 1, cfg.levels + 1) / cfg.levels
    z = jax.random.normal(k_z, (size, n, rows, mask.shape[-1])) * mask
    drop = (jax.random.uniform(k_drop, (size, n)) < cfg.drop).astype(jnp.float32)
    if model.each:
        who = jax.nn.one_hot(jax.random.randint(k_who, (size,), 0, n), n)
    else:
        who = jnp.ones((size, n))
    return PlanRandomness(t, z, drop, known_to(cfg, who))


def batch_returns(cfg: Config, batch: Window) -> Float[Array, "B N"]:
    """A batch's returns from the present on, as shares; 0 where plans have no condition."""
    if cfg.returns == "none":
        return jnp.zeros(batch.obs.shape[::2])
    return batch.extra["returns"][:, cfg.history]


def inverse_loss(
    spec: Spec,
    model: Planner,
    params: Params,
    obs: Float[Array, "B W N O"],
    batch: Window,
) -> Float[Array, ""]:
    """L_action: the error of the inverse dynamics model, over pairs of rows of the episode."""
    pairs = batch.valid[:, :-1] * batch.valid[:, 1:]
    weight = pairs[..., None] * batch.alive[:, :-1]
    out = model.inverse.apply(params, obs[:, :-1], obs[:, 1:])
    error = action_error(spec, out, batch.action[:, :-1], batch.available[:, :-1])
    return weighted_mean(error, weight)


def planning_loss(
    spec: Spec,
    cfg: Config,
    model: Planner,
    params: Params,
    obs: Float[Array, "B W N O"],
    valid: Float[Array, "B W"],
    y: Float[Array, "B N"],
    drawn: PlanRandomness,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Half of L_plan, in the model's units, and all of L_h; both are metrics too."""
    mask = real_columns(spec, model)
    x0 = jnp.swapaxes(obs, 1, 2)
    schedule = cosine(cfg.levels)
    condition = return_condition(y, drawn.drop)
    known = drawn.rows.known
    given = x0 * drawn.rows.shown

    # --- L_plan ---
    noisy = noised(schedule, x0, drawn.t, drawn.z)
    x = jnp.where(known > 0, given, noisy)
    out = model.trained(params, x, drawn.t, condition)
    wanted = drawn.z if cfg.predict == "noise" else x0
    weight = (1.0 - known) * valid[:, None, :, None] * mask
    mean_square = lambda error: weighted_mean(error**2, weight)
    plan_loss = mean_square(out - wanted)
    if model.mix is None:
        return 0.5 * plan_loss, {"denoising_loss": plan_loss}

    # --- L_h ---
    last = jnp.asarray(1.0 / cfg.levels)
    denoise = inpaint(clean(cfg, model.trained, params, condition, mask), given, known)
    rough = jax.lax.stop_gradient(denoise(noised(schedule, x0, last, drawn.z), last))
    mixer_loss = mean_square(model.mix(params, rough, last, condition) - x0)
    return 0.5 * plan_loss + mixer_loss, {"denoising_loss": plan_loss, "mixer_loss": mixer_loss}


# --- what they are compared with ---

# A plan is denoised by one call of the network, for the return of the window's own rows. Sampling
# plans at every evaluation would cost more than training.


def planner_health(spec: Spec, cfg: Config, model: Planner) -> Health:
    """Health of a planner: its plans, its inverse dynamics model, and the return it asks for."""
    plan = plan_health(spec, cfg, model, trained_estimate(spec, cfg, model), RAISE_PLAN)
    infer = inferred_actions(spec, cfg, model)
    both = joined(plan, plan_figures.inverse_dynamics(spec, infer, RAISE_INVERSE))
    if cfg.returns == "none" or cfg.target_kind != "constant":
        return both
    return joined(both, plan_figures.asked_return(cfg.target))


def plan_health(
    spec: Spec, cfg: Config, model: Planner, estimate: Estimate, raise_fields: tuple[str, ...]
) -> Health:
    """Health of a network whose `estimate` is a plan."""
    normalise_obs = plan_normaliser(spec, cfg, model)
    schedule = cosine(cfg.levels)
    first = cfg.history + 1

    def ahead(
        key: Key[Array, ""], state: Plans, past: Past, held: Dataset
    ) -> plan_figures.FirstRows:
        k_windows, k_noise = jax.random.split(key)
        batch = sample_windows(k_windows, held, HELD_WINDOWS, cfg.horizon, cfg.history)
        x0 = jnp.swapaxes(normalise_obs(past, state.knots, batch.obs), 1, 2)
        drawn = plan_randomness(k_noise, spec, cfg, HELD_WINDOWS, model)
        known, shown = drawn.rows

        t = jnp.full(HELD_WINDOWS, HELD_TIME)
        denoise = inpaint(estimate(state, batch_returns(cfg, batch)), x0 * shown, known)
        plan = denoise(noised(schedule, x0, t, drawn.z), t)
        counted = shown[:, :, cfg.history, 0] * batch.valid[:, first, None]
        return plan_figures.FirstRows(plan[:, :, first], x0[:, :, first], counted)

    def units(state: Plans, past: Past, obs: Float[Array, "K N O"]) -> Float[Array, "K N D"]:
        return normalise_obs(past, state.knots, obs)

    columns = real_columns(spec, model)[:, 0]
    return plan_figures.plan(ahead, units, columns, raise_fields)


def trained_estimate(spec: Spec, cfg: Config, model: Planner) -> Estimate:
    """The planner's own estimate of a clean plan, with its condition and without guidance."""
    mask = real_columns(spec, model)
    drop = float(cfg.returns == "none")

    def estimate(state: Plans, y: Float[Array, "B N"]) -> Denoise:
        params = planning_weights(cfg, state)["plan"]
        condition = return_condition(y, jnp.full(y.shape, drop))
        unmixed = clipped(clean(cfg, model.executed, params, condition, mask), -1.0, 1.0)
        mix = model.mix
        if mix is None:
            return unmixed

        def mixed(x: Array, t: Array) -> Array:
            return mask * mix(params, unmixed(x, t), jnp.zeros(()), condition)

        return clipped(mixed, -1.0, 1.0)

    return estimate


def inferred_actions(spec: Spec, cfg: Config, model: Planner) -> plan_figures.Infer:
    """The actions that the inverse dynamics model plays between true rows."""
    normalise_obs = plan_normaliser(spec, cfg, model)

    def infer(
        state: Plans,
        past: Past,
        obs: Float[Array, "K N O"],
        then: Float[Array, "K N O"],
        available: Bool[Array, "K N A"],
    ) -> Float[Array, "K N A"]:
        params = planning_weights(cfg, state)["inverse"]
        now = normalise_obs(past, state.knots, obs)
        out = model.inverse.apply(params, now, normalise_obs(past, state.knots, then))
        return jax.vmap(partial(action_of_output, spec))(out, available)

    return infer


# --- the data, and what is refused ---


def prepare(spec: Spec, cfg: Config, data: Dataset) -> Dataset:
    """The data with returns as conditions, where the settings ask for them."""
    if cfg.returns == "none":
        return data
    unit = cfg.target_kind != "constant"
    return with_returns(data, cfg.gamma, cfg.returns, cfg.reward, cfg.return_scale, unit)


def check(
    spec: Spec,
    cfg: Config,
    data: Dataset | None,
    choices: dict[str, tuple[str, ...]],
) -> None:
    """Raise JaxomarlError for settings or data that a planner cannot learn on or plan with."""
    check_fields(cfg, {**CHOICES, **choices})
    check_transitions(data)
    check_windows(data, cfg.horizon, cfg.history)
    check_most(cfg, "depth", len(MULTIPLIERS), "the U's levels are 1, 4 and 8 times its width")
    check_most(cfg, "replan", cfg.horizon, "a plan is no longer than --cfg.horizon")
    check_most(cfg, "calls", most_calls(cfg), "a sampler visits noise levels that were trained")
    check_returns(cfg, data)
    check_target(cfg)
    check_batch(data, cfg.policy_batch)


def check_most(cfg: Config, field: str, most: int, why: str) -> None:
    """Raise JaxomarlError where a field's number is above `most`."""
    value = getattr(cfg, field)
    if value > most:
        raise refuse(flag(field), f"at most {most}", value, f"Take {most}: {why}.")


def most_calls(cfg: Config) -> int:
    """The number of noise levels that were trained."""
    if cfg.sampler == "consistency":
        return cfg.grid
    return cfg.levels


def check_target(cfg: Config) -> None:
    """Raise JaxomarlError for a target that the returns do not allow."""
    kind = cfg.target_kind
    if kind == "constant":
        return
    if cfg.returns != "togo":
        expected = f"constant with returns {cfg.returns}"
        way = "Take --cfg.returns togo, or --cfg.target-kind constant."
        raise refuse("--cfg.target-kind", expected, kind, way)
    if kind == "quantile" and not 0.0 <= cfg.target <= 1.0:
        way = "1 asks for the largest return that the data get from each step on."
        raise refuse("--cfg.target", "a quantile from 0 to 1", cfg.target, way)
    if kind == "remaining" and cfg.gamma == 0.0:
        way = (
            "A return without a future leaves nothing to ask for: take --cfg.target-kind quantile."
        )
        raise refuse("--cfg.gamma", "above 0 with --cfg.target-kind remaining", cfg.gamma, way)


def check_returns(cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError where guidance has no returns that it could follow."""
    if cfg.returns == "none":
        if cfg.guidance != 1.0:
            way = (
                "There is no condition to exaggerate: take --cfg.guidance 1, or --cfg.returns togo."
            )
            raise refuse("--cfg.guidance", "1 without returns", cfg.guidance, way)
        return
    if data is None:
        return
    of_rows = returns(data, cfg.gamma, cfg.returns, cfg.reward)
    of_transitions = of_rows[np.asarray(data.left) > 0]
    if np.ptp(of_transitions) == 0:
        raise refuse(
            "--data",
            f"returns that differ, to condition on and to guide by (--cfg.returns {cfg.returns})",
            f"{float(of_transitions.flat[0]):g} in every transition",
            "Take --cfg.returns none --cfg.guidance 1, or data with rewards.",
        )
