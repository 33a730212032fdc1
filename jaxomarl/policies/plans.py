"""How plans are drawn from a trained planner (stages/planner.py), and how agents act on them.

C rows of history and the present are written over the plan before every denoising step,
eps = eps(d = 1) + w (eps(d = 0) - eps(d = 1)), each clean estimate is held in [-1, 1], the chain starts at
N(0, temperature^2), for the return of data/return_targets.py. The action is D(o, plan's next row), of a plan that is
made anew every `replan` steps.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

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
from jaxomarl.networks.actors import played
from jaxomarl.networks.mlp import Network
from jaxomarl.optim import Net, Params

SAMPLERS = {"ddpm": ddpm, "ddim": ddim}

Predict = Callable[[Params, Array, Array, Array], Array]
"""(params, x [..., N, W, O], t, told [..., N, 2]) -> noise or plan like x; told is [y (1 - d), d]."""


class Codes(NamedTuple):
    """What plans are made of in place of observations."""

    width: int
    encode: Callable[
        [Past, Float[Array, "*B N O"]], Float[Array, "*B N L"]
    ]  # of observations in the planner's units


class Planner(NamedTuple):
    """A team's model of its plans; its params are `init`'s."""

    init: Callable[[Key[Array, ""]], Params]
    trained: Predict
    executed: Predict  # as agents act; `trained` but for dec-atten
    mix: Predict | None  # h: (params, x, t, told) -> x; None leaves x as it is
    inverse: Network  # (params, obs, then) -> action
    each: bool  # every agent draws a whole joint plan from its own rows alone
    centralised: bool
    codes: Codes | None = None  # None: plans are of observations


class Plans(NamedTuple):
    """What is trained, and the units of observations."""

    net: Net  # params {"plan", "inverse"}
    knots: Quantiles
    goals: Any = ()  # return_targets.Goals, where the return that is asked for depends on the step


class Memory(NamedTuple):
    """One environment's: raw rows of history, the rows of the plan that is followed, steps so far, the last target."""

    history: Float[Array, "N C O"]
    plan: Float[Array, "N P O"]
    step: Int[Array, ""]
    goal: Any = ()  # [N], where rewards are taken from it


def columns(spec: Spec, model: Planner) -> Float[Array, "N 1 O"]:
    """1.0 on the real columns of a plan's rows."""
    return (
        jnp.ones((spec.agents, 1, model.codes.width))
        if model.codes
        else jnp.asarray(spec.obs_mask)[:, None]
    )


def seen_by(spec: Spec, cfg: Any, model: Planner) -> Callable[[Past, Quantiles, Array], Array]:
    """(finished stages, quantiles, raw observations [..., N, O]) -> rows of plans [..., N, O or L]."""
    see, codes = ranged(cfg.normaliser, spec), model.codes
    return lambda past, table, obs: (
        codes.encode(past, see(table, obs)) if codes else see(table, obs)
    )


def given(cfg: Any) -> Float[Array, "W 1"]:
    """1.0 on history and present, 0.0 on what is planned."""
    return (jnp.arange(cfg.history + 1 + cfg.horizon) <= cfg.history).astype(jnp.float32)[:, None]


class Known(NamedTuple):
    """Which rows of a plan are written over before every step: as they are where `shown`, with zeros elsewhere."""

    known: Float[Array, "*B N W 1"]
    shown: Float[Array, "*B N W 1"]


def known_to(cfg: Any, who: Float[Array, "*B N"]) -> Known:
    """What those agents know whose `who` is 1.0: their own history and present; of the others zeros as history.

    Their team-mates' present is planned with the rows ahead. Source: MADiff's code (its CTDE data and its mask
    generator), in training and in acting, in the plans' units.
    """
    whose = who[..., None, None]
    shown = whose * given(cfg)
    past = (jnp.arange(cfg.history + 1 + cfg.horizon) < cfg.history).astype(jnp.float32)[:, None]
    return Known(jnp.maximum(shown, past), shown)


def told(y: Float[Array, "*B N"], drop: Float[Array, "*B N"]) -> Float[Array, "*B N 2"]:
    """[y (1 - d), d]: where d = 1 nothing of y is left."""
    return jnp.stack([jnp.where(drop > 0, 0.0, y), drop], axis=-1)


def clean(cfg: Any, predict: Predict, params: Params, tell: Array, mask: Array) -> Denoise:
    """The denoiser of a prediction, without its box; `mask` as by `columns`."""
    out = lambda x, t: predict(params, x, t, tell)
    return masked(from_eps(out, cosine(cfg.levels)) if cfg.predict == "noise" else out, mask)


def denoiser(
    spec: Spec, cfg: Any, model: Planner, params: Params, y: Float[Array, "*B N"]
) -> Denoise:
    """Guided towards returns y, held in [-1, 1]; the pass without the condition is told that there is none."""
    mask = columns(spec, model)
    free = lambda drop: clean(cfg, model.executed, params, told(y, jnp.full(y.shape, drop)), mask)
    towards = (
        free(1.0) if cfg.returns == "none" else classifier_free(free(0.0), free(1.0), cfg.guidance)
    )
    return clipped(towards, -1.0, 1.0)


class Draw(NamedTuple):
    """How plans are drawn: a chain, and what it calls, made of (params, returns [..., N])."""

    chain: Sampler
    denoise: Callable[[Params, Array], Denoise]


def drawn_by(spec: Spec, cfg: Any, model: Planner) -> Draw:
    """The settings' sampler over the guided planner."""
    mask = columns(spec, model)
    chain = SAMPLERS[cfg.sampler](cosine(cfg.levels), cfg.calls, start=cfg.temperature, mask=mask)
    return Draw(chain, partial(denoiser, spec, cfg, model))


def sample(
    key: Key[Array, ""],
    spec: Spec,
    cfg: Any,
    model: Planner,
    params: Params,
    seen: Float[Array, "*B N P O"],
    known: Float[Array, "*B N W 1"],
    drawn: Draw | None = None,
    y: Float[Array, "*B N"] | None = None,
) -> Float[Array, "*B N W O"]:
    """Plans [..., N, W, O] whose known entries are those of `seen` (history and present), bit for bit.

    `drawn` is `drawn_by`'s where nothing else is given; `y`, the returns that are asked for, the settings' target.
    """
    chain, denoise = drawn or drawn_by(spec, cfg, model)
    mask = columns(spec, model)
    y = jnp.full(seen.shape[:-2], cfg.target) if y is None else y
    rows = jnp.pad(seen, [(0, 0)] * (seen.ndim - 2) + [(0, cfg.horizon), (0, 0)])
    x = chain(key, inpaint(denoise(params, y), rows, known), rows.shape)
    if model.mix is not None:
        x = mask * jnp.clip(
            model.mix(params, x, jnp.zeros(()), told(y, jnp.zeros(y.shape))), -1.0, 1.0
        )
    return jnp.where(known > 0, rows, x)


def ahead(
    key: Key[Array, ""],
    spec: Spec,
    cfg: Any,
    model: Planner,
    params: Params,
    seen: Float[Array, "N P O"],
    drawn: Draw | None = None,
    y: Float[Array, " N"] | None = None,
) -> Float[Array, "N R O"]:
    """The rows after the present that are followed until the next plan; `drawn` and `y` as in `sample`.

    An agent that plans for all asks for its team-mates what it asks for itself.
    """
    y = jnp.full(spec.agents, cfg.target) if y is None else y
    n, kept = spec.agents, slice(cfg.history + 1, cfg.history + 1 + cfg.replan)

    def plan(key, who, y):
        known, shown = known_to(cfg, who)
        rows = seen * shown[:, : cfg.history + 1]
        return sample(key, spec, cfg, model, params, rows, known, drawn, y)

    if not model.each:
        return plan(key, jnp.ones(n), y)[:, kept]

    def own(key, i, who):
        return plan(key, who, jnp.full(n, y[i]))[i, kept]

    return jax.vmap(own)(jax.random.split(key, n), jnp.arange(n), jnp.eye(n))


def actor(
    spec: Spec, cfg: Any, model: Planner, drawn: Draw | None = None
) -> tuple[Callable, Memory]:
    """(act, its memory) of a state `Plans`; plans are drawn as `sample` does."""
    see = seen_by(spec, cfg, model)

    def act(key, state, past, memory, observation: Observation):
        params = state.net.target if cfg.acting == "target" else state.net.params
        obs = observation.obs * spec.obs_mask
        first = jnp.broadcast_to(
            obs[:, None], memory.history.shape
        )  # as windows repeat an episode's first row
        history = jnp.where(memory.step == 0, first, memory.history)
        rows = jnp.concatenate([history, obs[:, None]], axis=1)
        seen = jnp.swapaxes(see(past, state.knots, jnp.swapaxes(rows, 0, 1)), 0, 1)
        y = wanted(spec, cfg, state.goals, memory.step, memory.goal, observation.reward)
        fresh = lambda: ahead(key, spec, cfg, model, params["plan"], seen, drawn, y)
        age = memory.step % cfg.replan
        # the counter is the same in all episodes, so that under vmap this stays a branch and plans are saved
        plan = fresh() if cfg.replan == 1 else jax.lax.cond(age == 0, fresh, lambda: memory.plan)
        out = model.inverse.apply(params["inverse"], seen[:, -1], plan[:, age])
        goal = y if cfg.target_kind == "remaining" else ()
        after = Memory(rows[:, 1:], plan, memory.step + 1, goal)
        return played(spec, out, observation.available), after

    rows = lambda count, width: jnp.zeros((spec.agents, count, width))
    plan = rows(cfg.replan, columns(spec, model).shape[-1])
    step, goal = jnp.zeros((), jnp.int32), first_goal(spec, cfg)
    return act, Memory(rows(cfg.history, spec.obs_width), plan, step, goal)
