"""Score-regularised policies, the last stage of OMSD and its ablations.

Here are the family's settings, actors, and the terms of its loss. Every member minimises, for agent
i, with e and g held constant,

    L_i = mean_batch [ w(t) <e_i, a_i> - beta <g_i, a_i> ],   a_i = pi_i(o_i)

where e_i is a behaviour model's noise prediction at x = alpha a + sigma z, and g_i is the critic's
gradient at the joint action. Members differ in the behaviour model, in the critic, and in the order
in which agents move. Their files hold that and the update; `score_regularised_learner` turns it
into a stage.

beta has one internal meaning, that of the authors' code: it multiplies the Q gradient, so **larger
beta is weaker regularisation**. `beta_convention` converts to it:

- "code": as it is.
- "paper": 1/beta multiplies the score. The gradient has the same direction, so beta is the same
  number. The overall factor 1/beta is dropped, because Adam does not see it.
- "normalised": weights are scaled to E[w] = 1, so beta is multiplied by E[w].
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Past, Spec, refuse
from jaxomarl.config import check_continuous, check_fields, config, static, traced
from jaxomarl.data.dataset import check_transitions, sample_transitions
from jaxomarl.diffusion.schedules import vp
from jaxomarl.losses.td import REWARDS, TIME_LIMITS
from jaxomarl.networks.actors import actor, start_at, uniform_start
from jaxomarl.networks.agents import separate
from jaxomarl.networks.inputs import flat, observation_normaliser
from jaxomarl.networks.mlp import Network
from jaxomarl.optim import OPTIMISERS, Net, Params
from jaxomarl.stages import clone, critic, exact_scores, scores
from jaxomarl.stages.clone import Policies
from jaxomarl.stages.scores import agent_order

WEIGHTS = ("vds", "stable", "score", "delta")
DELTA_T = 0.02
"""The only diffusion time of the weighting "delta": omega(t) = delta(t - 0.02) alpha/sigma."""
CHOICES = {
    "reward": REWARDS,
    "time_limit": TIME_LIMITS,
    "condition": ("obs", "state"),
    "score_model": ("diffusion", "mixture", *exact_scores.MODELS),
    "score_predict": scores.PREDICTIONS,
    "weighting": WEIGHTS,
    "beta_convention": ("code", "paper", "normalised"),
    "policy_optimiser": OPTIMISERS,
    "play": ("greedy", "sample"),
}
FIELDS = (
    "policy_steps", "policy_batch", "policy_width", "policy_lr", "policy_optimiser",
    "policy_anneal", "start", "chunk", "beta", "beta_convention", "weighting", "t_min", "t_max",
    "control_variate", "normalise_gradient",
)  # fmt: skip


@config
class Config(scores.Config, critic.Config, clone.Config):
    """Settings of OMSD and its ablations; the defaults are the authors' for the particle tasks."""

    policy_width: int = static(default=256, within="[0, inf)", scaled="width")
    """Width of the policy's two hidden layers; 0: a linear policy before its tanh."""
    policy_optimiser: str = static(default="adam")
    """Optimiser of the policy. adam. sgd: plain gradient flow, to study its fixed points."""
    start: str = static(default="network")
    """First actions of policies. network: the network's own.

    uniform:0.9: drawn uniformly in +-0.9. 0.5,-0.48: one number for each agent.
    Discrete policies start as `warm` says.
    """
    beta: float = traced(default=0.005, within="[0, inf)")
    """Weight of the Q gradient; larger is weaker regularisation."""
    beta_convention: str = static(default="code")
    """Convention of beta. code: it multiplies Q. paper: 1/beta multiplies the score.

    normalised: beta is multiplied by the mean weight E[w].
    """
    weighting: str = static(default="vds")
    """Weight w(t) of the score. vds: sigma^2. stable: 1. score: alpha/sigma.

    delta: alpha/sigma with every t = 0.02, as in the paper.
    """
    t_min: float = traced(default=0.02, within="(0, 1]")
    """Smallest diffusion time at which scores are read."""
    t_max: float = traced(default=0.98, within="(0, 1]")
    """Largest diffusion time at which scores are read."""
    control_variate: bool = static(default=False)
    """Whether z is subtracted from the noise prediction.

    The mean stays the same; the variance is lower where sigma > alpha s.
    """
    normalise_gradient: bool = static(default=False)
    """Whether each agent's Q gradient is divided by its root mean square over action columns.

    Discrete actions: whether its values are divided by their standard deviation over actions."""
    floor: float = traced(default=0.02, within="[0, 1)")
    """Discrete actions: share of uniform actions that is mixed into the behaviour model."""
    draws: int = static(default=8)
    """Discrete actions: samples of the others' actions; few joint actions are all taken."""
    warm: bool = static(default=True)
    """Discrete actions: whether policies start as clones of the data, and not at random."""
    play: str = static(default="greedy")
    """Discrete actions: what policies play. greedy: the likeliest action. sample: a draw."""


# --- what is refused ---


def check(
    spec: Spec,
    cfg: Config,
    data: Dataset | None,
    reward: tuple[str, ...] = ("team", "first"),
) -> None:
    """Raise JaxomarlError for settings or data that the family cannot train on."""
    check_continuous(spec, "OMSD follows score fields of real actions.")
    check_fields(cfg, {**CHOICES, "reward": reward})
    if float(cfg.t_min) > float(cfg.t_max):
        range_of_t = (cfg.t_min, cfg.t_max)
        raise refuse(
            "--cfg.t-min, --cfg.t-max", "0 < t_min <= t_max <= 1", range_of_t, "Widen the range."
        )
    starting_actions(spec, cfg.start)
    check_transitions(data)
    if cfg.score_model in exact_scores.MODELS:
        exact_scores.check(data)


def check_order(spec: Spec, order: str) -> None:
    """Raise JaxomarlError unless `order` names each agent once."""
    try:
        agent_order(order, spec.agents)
    except ValueError:
        natural = "-".join(str(i) for i in range(spec.agents))
        way = f"For example {natural[::-1]}."
        raise refuse("--cfg.order", f"a permutation of {natural}", order, way) from None


def starting_actions(spec: Spec, start: str) -> float | tuple[float, ...] | None:
    """The setting `start`: None (the network's own), the reach of a draw, or a number per agent."""
    if start == "network":
        return None
    uniform = start.startswith("uniform:")
    way = 'Write "network", "uniform:0.9", or one number per agent: "0.5,-0.48".'
    try:
        values = tuple(float(x) for x in start.removeprefix("uniform:").split(","))
    except ValueError:
        raise refuse("--cfg.start", "a start", start, way) from None
    count = 1 if uniform else spec.agents
    if len(values) != count or not all(abs(v) <= 1 for v in values):
        raise refuse("--cfg.start", f"{count} number(s) in [-1, 1]", start, way)
    return values[0] if uniform else values


# --- the policies ---


class Actors(NamedTuple):
    """The policies of a team."""

    init: Callable[[Key[Array, ""]], Params]
    every: Callable[..., Array]
    """`every(params, obs [..., N, O]) -> [..., N, A]`: all agents."""
    one: Callable[..., Array]
    """`one(params, i, obs [..., O]) -> [..., A]`: agent i, from its own parameters."""


def hidden(cfg: Config) -> tuple[int, ...]:
    """Widths of a policy's hidden layers."""
    if not cfg.policy_width:
        return ()
    return (cfg.policy_width, cfg.policy_width)


def actors(spec: Spec, cfg: Config) -> Actors:
    """The policies pi_i(o_i), one network for each agent: params lead with N.

    Their first actions are those of the setting `start`.
    """
    net = actor(spec.obs_width, hidden(cfg), spec.act_width)
    mask = jnp.asarray(spec.act_mask)
    many = separate(net, spec.agents)
    return Actors(
        init=lambda key: started(key, many, spec, cfg, mask.shape),
        every=lambda params, obs: mask * many.apply(params, obs),
        one=lambda params, i, obs: mask[i] * net.apply(params, obs),
    )


def joint_actor(spec: Spec, cfg: Config) -> Actors:
    """One policy of all observations and all actions."""
    mask = jnp.asarray(spec.act_mask)
    net = actor(spec.agents * spec.obs_width, hidden(cfg), mask.size)

    def every(params, obs):
        action = net.apply(params, flat(obs))
        return mask * action.reshape(*obs.shape[:-2], *mask.shape)

    return Actors(
        init=lambda key: started(key, net, spec, cfg, (mask.size,)),
        every=every,
        one=lambda params, i, obs: every(params, obs)[..., i, :],
    )


def started(
    key: Key[Array, ""],
    net: Network,
    spec: Spec,
    cfg: Config,
    out: tuple[int, ...],
) -> Params:
    """Parameters whose first actions are those of `cfg.start`.

    `out` is the shape of the last layer's bias.
    """
    k_net, k_start = jax.random.split(key)
    params = net.init(k_net)
    chosen = starting_actions(spec, cfg.start)
    mask = jnp.asarray(spec.act_mask)
    if chosen is None:
        return params
    if isinstance(chosen, float):
        first = uniform_start(k_start, chosen, mask.shape)
    else:
        first = jnp.broadcast_to(jnp.asarray(chosen)[:, None], mask.shape)
    return start_at(params, (mask * first).reshape(out))


# --- the terms of the loss ---


def weight(cfg: Config, t: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """The weight w(t): sigma^2, 1, or alpha/sigma; 1 for the t-free mixture."""
    alpha, sigma = vp()
    if cfg.score_model == "mixture" or cfg.weighting == "stable":
        return jnp.ones_like(t)
    if cfg.weighting == "vds":
        return sigma(t) ** 2
    return alpha(t) / sigma(t)


def time_range(cfg: Config) -> tuple[float | Array, float | Array]:
    """The smallest and the largest diffusion time."""
    if cfg.weighting == "delta":
        return DELTA_T, DELTA_T
    return cfg.t_min, cfg.t_max


def internal_beta(cfg: Config) -> float | Float[Array, ""]:
    """Beta in the code's convention."""
    if cfg.beta_convention != "normalised":
        return cfg.beta
    low, high = time_range(cfg)
    t = low + (high - low) * (jnp.arange(1024) + 0.5) / 1024
    return cfg.beta * weight(cfg, t).mean()


def score_times_and_noise(
    key: Key[Array, ""],
    cfg: Config,
    shape: tuple[int, ...],
    mask: Array,
) -> tuple[Array, Array]:
    """Times t [B, N] and masked z [B, N, A] for a batch: the only random numbers of a step."""
    k_t, k_z = jax.random.split(key)
    low, high = time_range(cfg)
    t = low + (high - low) * jax.random.uniform(k_t, shape[:2])
    return t, mask * jax.random.normal(k_z, shape)


def diffused(
    cfg: Config, a: Float[Array, "*B A"], t: Float[Array, "*B"], z: Float[Array, "*B A"]
) -> Float[Array, "*B A"]:
    """The sample x = alpha(t) a + sigma(t) z; the clean action for the t-free mixture."""
    if cfg.score_model == "mixture":
        return a
    alpha, sigma = vp()
    return alpha(t)[..., None] * a + sigma(t)[..., None] * z


def q_gradient(
    cfg: Config,
    q: Callable[[Past, Array, Array, Array], Array],
    past: Past,
    batch: Batch,
    action: Array,
    mask: Array,
) -> Float[Array, "B N A"]:
    """The gradient g = dQ/da of every agent at the joint action, from the target twins' mean."""
    total_q = lambda a: q(past, batch.obs, batch.state, a).sum()
    g = mask * jax.grad(total_q)(action)
    if not cfg.normalise_gradient:
        return g
    square = jnp.sum(g**2, axis=-1, keepdims=True)
    columns = mask.sum(-1, keepdims=True)
    return g / jnp.sqrt(square / columns + 1e-8)


def surrogate(
    cfg: Config,
    w: Float[Array, "*B"],
    e: Float[Array, "*B A"],
    g: Float[Array, "*B A"],
    a: Float[Array, "*B A"],
) -> Float[Array, "*B"]:
    """The loss w <e, a> - beta <g, a>: L_i before its mean; gradients flow through `a` alone."""
    e, g = jax.lax.stop_gradient((e, g))
    gradient = w[..., None] * e - internal_beta(cfg) * g
    return jnp.sum(gradient * a, axis=-1)


def score_regularised_metrics(
    a: Array, e: Array, g: Array, w: Array, value: Array
) -> dict[str, Array]:
    """The metrics of every member of the family."""
    return {
        "policy_loss": value,
        "score_term": jnp.abs(w[..., None] * e).mean(),
        "q_term": jnp.abs(g).mean(),
        "action_size": jnp.abs(a).mean(),
    }


# --- the stage ---


def score_regularised_learner(
    spec: Spec,
    cfg: Config,
    actors: Actors,
    fresh: Callable[[Params], Net],
    update: Callable[[Key[Array, ""], Policies, Past, Batch], tuple[Policies, dict]],
    centralised: bool = False,
) -> Algorithm:
    """The stage of a member.

    `fresh(params)` is its actors before their first step, and `update` is one step.
    """

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Policies:
        return Policies(fresh(actors.init(key)))

    def batch(key: Key[Array, ""], state: Policies, data: Dataset) -> Batch:
        return sample_transitions(key, data, cfg.policy_batch)

    def act(key, state, past, memory, observation):
        obs = observation_normaliser(spec, cfg)(past, observation.obs)
        return actors.every(state.actor.params, obs), memory

    return Algorithm(init, batch, update, act, centralised=centralised)
