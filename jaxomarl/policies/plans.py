"""How plans are sampled from a trained planner (stages/planner.py), and how agents act on them.

- Before every denoising step, C rows of history and the present overwrite the plan's first rows.
- Guidance is classifier-free: eps = eps(d = 1) + w (eps(d = 0) - eps(d = 1)), towards the return of
  data/return_targets.py.
- Each clean estimate is clipped to [-1, 1]. The chain starts at N(0, temperature^2).
- The action is D(o, the plan's next row). A new plan is sampled every `replan` steps.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxomarl.base import Denoise, Observation, Past, Spec
from jaxomarl.data.ranges import Quantiles, ranged
from jaxomarl.data.return_targets import first_goal, wanted
from jaxomarl.diffusion.guidance import classifier_free, clipped, inpaint, masked
from jaxomarl.diffusion.parameterise import from_eps
from jaxomarl.diffusion.samplers import Sampler, ddim, ddpm
from jaxomarl.diffusion.schedules import cosine
from jaxomarl.networks.actors import action_of_output
from jaxomarl.networks.mlp import Network
from jaxomarl.optim import Net, Params

SAMPLERS = {"ddpm": ddpm, "ddim": ddim}

Predict = Callable[[Params, Array, Array, Array], Array]
"""(params, x [..., N, W, O], t, told [..., N, 2]) -> noise or plan, shaped like x.

The condition `told` is [y (1 - d), d], where d = 1 drops the return y.
"""


class Codes(NamedTuple):
    """The codes that plans consist of in place of observations."""

    width: int
    encode: Callable[[Past, Float[Array, "*B N O"]], Float[Array, "*B N L"]]
    """It takes observations in the planner's units."""


class Planner(NamedTuple):
    """A team's model of its plans."""

    init: Callable[[Key[Array, ""]], Params]
    trained: Predict
    executed: Predict
    """The prediction of acting agents: `trained`, except for dec-atten."""
    inverse: Network
    """(params, obs, then) -> action."""
    centralised: bool
    """Whether acting needs other agents' observations."""
    each: bool = False
    """Whether every agent samples a full joint plan from its own rows alone."""
    mix: Predict | None = None
    """h: (params, x, t, told) -> x; None leaves x as it is."""
    codes: Codes | None = None
    """What plans consist of; None means observations."""


class Plans(NamedTuple):
    """The trained networks, and the units of observations."""

    net: Net
    """Its params are {"plan", "inverse"}."""
    knots: Quantiles
    goals: Any = ()
    """`return_targets.Goals`, where the target return depends on the step."""


class Memory(NamedTuple):
    """What the agents of one environment remember."""

    history: Float[Array, "N C O"]
    """Raw observations."""
    plan: Float[Array, "N P O"]
    """The rows of the current plan."""
    step: Int[Array, ""]
    """Steps so far."""
    goal: Any = ()
    """The last target [N], where rewards are subtracted from it."""


# --- the settings ---


@runtime_checkable
class Planning(Protocol):
    """The fields that plans depend on."""

    @property
    def history(self) -> int:
        """Rows of history before the present."""
        ...

    @property
    def horizon(self) -> int:
        """Rows of a plan after the present."""
        ...

    @property
    def replan(self) -> int:
        """Steps for which a plan is followed."""
        ...

    @property
    def levels(self) -> int:
        """Noise levels in training."""
        ...

    @property
    def predict(self) -> str:
        """Whether the network predicts the "noise" or the plan."""
        ...

    @property
    def normaliser(self) -> str:
        """How observations are brought to [-1, 1]."""
        ...


@runtime_checkable
class Sampling(Planning, Protocol):
    """The fields that sampled plans depend on besides."""

    @property
    def sampler(self) -> str:
        """Name of the sampler, one of SAMPLERS."""
        ...

    @property
    def calls(self) -> int:
        """Steps of the sampler."""
        ...

    @property
    def temperature(self) -> float:
        """Standard deviation of the chain's start."""
        ...

    @property
    def returns(self) -> str:
        """The returns that plans are conditioned on, or "none"."""
        ...

    @property
    def guidance(self) -> float:
        """Weight of the classifier-free guidance."""
        ...

    @property
    def target(self) -> float:
        """The return that is asked for, in the units of the planner."""
        ...

    @property
    def target_kind(self) -> str:
        """How the target return depends on the step."""
        ...

    @property
    def reward(self) -> str:
        """Whose rewards the returns sum: "own" or "team"."""
        ...

    @property
    def gamma(self) -> float:
        """Discount factor of the returns."""
        ...

    @property
    def acting(self) -> str:
        """The parameters that act: the "target" network's or the trained ones."""
        ...


# --- rows of plans ---


def real_columns(spec: Spec, model: Planner) -> Float[Array, "N 1 O"]:
    """1.0 on the real columns of a plan's rows."""
    if model.codes:
        return jnp.ones((spec.agents, 1, model.codes.width))
    return jnp.asarray(spec.obs_mask)[:, None]


def plan_normaliser(
    spec: Spec, cfg: Planning, model: Planner
) -> Callable[[Past, Quantiles, Array], Array]:
    """(finished stages, quantiles, raw obs [..., N, O]) -> rows of plans [..., N, O or L]."""
    normalise = ranged(cfg.normaliser, spec)

    def see(past: Past, table: Quantiles, obs: Array) -> Array:
        rows = normalise(table, obs)
        if model.codes:
            rows = model.codes.encode(past, rows)
        return rows

    return see


def given(cfg: Planning) -> Float[Array, "W 1"]:
    """1.0 on history and present, 0.0 on the planned rows."""
    rows = jnp.arange(cfg.history + 1 + cfg.horizon)
    return (rows <= cfg.history).astype(jnp.float32)[:, None]


class Known(NamedTuple):
    """The rows of a plan that are overwritten before every step."""

    known: Float[Array, "*B N W 1"]
    """1.0 on every row that is overwritten."""
    shown: Float[Array, "*B N W 1"]
    """1.0 on those that are overwritten with what happened; the others with zeros."""


def known_to(cfg: Planning, who: Float[Array, "*B N"]) -> Known:
    """The rows that agents know whose `who` is 1.0.

    They know their own history and present. The history of the others is zeros, and the present
    of the others is planned with the rows ahead. Source: MADiff's code (its CTDE data and its mask
    generator), in training and in acting, in the plans' units.
    """
    whose = who[..., None, None]
    shown = whose * given(cfg)
    rows = jnp.arange(cfg.history + 1 + cfg.horizon)
    history = (rows < cfg.history).astype(jnp.float32)[:, None]
    return Known(jnp.maximum(shown, history), shown)


def return_condition(y: Float[Array, "*B N"], drop: Float[Array, "*B N"]) -> Float[Array, "*B N 2"]:
    """The condition [y (1 - d), d]; d = 1 drops y entirely."""
    return jnp.stack([jnp.where(drop > 0, 0.0, y), drop], axis=-1)


def planning_weights(cfg: Sampling, plans: Plans) -> Params:
    """The weights that plan: the slow averages, or the trained ones."""
    if cfg.acting == "target":
        return plans.net.target
    return plans.net.params


# --- sampling ---


def clean(cfg: Planning, predict: Predict, params: Params, tell: Array, mask: Array) -> Denoise:
    """The denoiser of a prediction, before it is clipped; `mask` is that of `columns`."""

    def out(x, t):
        return predict(params, x, t, tell)

    if cfg.predict == "noise":
        return masked(from_eps(out, cosine(cfg.levels)), mask)
    return masked(out, mask)


def denoiser(
    spec: Spec, cfg: Sampling, model: Planner, params: Params, y: Float[Array, "*B N"]
) -> Denoise:
    """The denoiser that is guided towards returns y, clipped to [-1, 1].

    The unconditional pass gets a condition that says so.
    """
    mask = real_columns(spec, model)

    def conditioned(drop: float) -> Denoise:
        condition = return_condition(y, jnp.full(y.shape, drop))
        return clean(cfg, model.executed, params, condition, mask)

    if cfg.returns == "none":
        return clipped(conditioned(1.0), -1.0, 1.0)
    guided = classifier_free(conditioned(0.0), conditioned(1.0), cfg.guidance)
    return clipped(guided, -1.0, 1.0)


class PlanSampler(NamedTuple):
    """How plans are sampled: a chain, and its denoiser as a function (params, returns [..., N])."""

    chain: Sampler
    denoise: Callable[[Params, Array], Denoise]


def plan_sampler(spec: Spec, cfg: Sampling, model: Planner) -> PlanSampler:
    """The sampler of the settings, with the guided planner as its denoiser."""
    mask = real_columns(spec, model)
    chain = SAMPLERS[cfg.sampler](cosine(cfg.levels), cfg.calls, start=cfg.temperature, mask=mask)
    return PlanSampler(chain, partial(denoiser, spec, cfg, model))


def sample(
    key: Key[Array, ""],
    spec: Spec,
    cfg: Sampling,
    model: Planner,
    params: Params,
    seen: Float[Array, "*B N P O"],
    known: Float[Array, "*B N W 1"],
    drawn: PlanSampler | None = None,
    y: Float[Array, "*B N"] | None = None,
) -> Float[Array, "*B N W O"]:
    """Plans [..., N, W, O] whose known entries are those of `seen`, bit for bit.

    `seen` is history and present. The default of `drawn` is `plan_sampler`'s. The default of `y`,
    the target returns, is the settings' target.
    """
    chain, denoise = drawn or plan_sampler(spec, cfg, model)
    mask = real_columns(spec, model)
    if y is None:
        y = jnp.full(seen.shape[:-2], cfg.target)
    rows = jnp.pad(seen, [(0, 0)] * (seen.ndim - 2) + [(0, cfg.horizon), (0, 0)])
    x = chain(key, inpaint(denoise(params, y), rows, known), rows.shape)
    if model.mix is not None:
        mixed = model.mix(params, x, jnp.zeros(()), return_condition(y, jnp.zeros(y.shape)))
        x = mask * jnp.clip(mixed, -1.0, 1.0)
    return jnp.where(known > 0, rows, x)


def ahead(
    key: Key[Array, ""],
    spec: Spec,
    cfg: Sampling,
    model: Planner,
    params: Params,
    seen: Float[Array, "N P O"],
    drawn: PlanSampler | None = None,
    y: Float[Array, " N"] | None = None,
) -> Float[Array, "N R O"]:
    """The rows after the present that are followed until the next plan.

    `drawn` and `y` are those of `sample`. An agent that plans for all agents takes its own target
    for all of them.
    """
    if y is None:
        y = jnp.full(spec.agents, cfg.target)
    n = spec.agents
    present = cfg.history + 1
    kept = slice(present, present + cfg.replan)

    def plan(key, who, y):
        known, shown = known_to(cfg, who)
        rows = seen * shown[:, :present]
        return sample(key, spec, cfg, model, params, rows, known, drawn, y)

    if not model.each:
        return plan(key, jnp.ones(n), y)[:, kept]

    def own(key, i, who):
        joint = plan(key, who, jnp.full(n, y[i]))
        return joint[i, kept]

    return jax.vmap(own)(jax.random.split(key, n), jnp.arange(n), jnp.eye(n))


# --- acting ---


def actor(
    spec: Spec, cfg: Sampling, model: Planner, drawn: PlanSampler | None = None
) -> tuple[Callable, Memory]:
    """(act, the first memory) for a state `Plans`; plans are sampled by `sample`."""
    see = plan_normaliser(spec, cfg, model)

    def act(key, state, past, memory, observation: Observation):
        params = planning_weights(cfg, state)

        # --- history and present ---
        obs = observation.obs * spec.obs_mask
        # an episode starts with copies of its first row, as windows do
        copies = jnp.broadcast_to(obs[:, None], memory.history.shape)
        history = jnp.where(memory.step == 0, copies, memory.history)
        rows = jnp.concatenate([history, obs[:, None]], axis=1)
        seen = jnp.swapaxes(see(past, state.knots, jnp.swapaxes(rows, 0, 1)), 0, 1)

        # --- a plan ---
        y = wanted(spec, cfg, state.goals, memory.step, memory.goal, observation.reward)

        def new_plan():
            return ahead(key, spec, cfg, model, params["plan"], seen, drawn, y)

        age = memory.step % cfg.replan
        if cfg.replan == 1:
            plan = new_plan()
        else:
            # all episodes have the same step, so under vmap this stays a branch and saves plans
            plan = jax.lax.cond(age == 0, new_plan, lambda: memory.plan)

        # --- its action ---
        out = model.inverse.apply(params["inverse"], seen[:, -1], plan[:, age])
        goal = y if cfg.target_kind == "remaining" else ()
        after = Memory(rows[:, 1:], plan, memory.step + 1, goal)
        return action_of_output(spec, out, observation.available), after

    plan_width = real_columns(spec, model).shape[-1]
    memory = Memory(
        history=jnp.zeros((spec.agents, cfg.history, spec.obs_width)),
        plan=jnp.zeros((spec.agents, cfg.replan, plan_width)),
        step=jnp.zeros((), jnp.int32),
        goal=first_goal(spec, cfg),
    )
    return act, memory
