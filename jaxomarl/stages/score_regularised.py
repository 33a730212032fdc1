"""Score-regularised policies, the last stage of OMSD and its ablations: settings, actors, and the terms of their loss.

Every member of the family minimises, for agent i, with e and g held constant,

    L_i = mean_batch [ w(t) <e_i, a_i> - beta <g_i, a_i> ],   a_i = pi_i(o_i)

where e_i is a behaviour model's noise prediction at x = alpha a + sigma z and g_i the critic's gradient at the joint
action. They differ in which behaviour model, which critic, and in which order agents move: their files hold that, the
update, and `learner` makes a stage of it.

beta has one internal meaning, the authors' code's: it multiplies the Q gradient, so **larger beta is weaker
regularisation**. `beta_convention` converts to it: "code" as it is; "paper" (1/beta multiplies the score; the same
direction of the gradient, so the same number, and its overall factor 1/beta is dropped: Adam does not see it);
"normalised" (weights scaled to E[w] = 1: beta times E[w]).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Past, Spec, refuse
from jaxomarl.config import check_fields, config, static, traced
from jaxomarl.data.dataset import check_transitions, sample_transitions
from jaxomarl.diffusion.schedules import vp
from jaxomarl.losses.td import REWARDS, TIME_LIMITS
from jaxomarl.networks.actors import actor, start_at, uniform_start
from jaxomarl.networks.agents import separate
from jaxomarl.networks.inputs import flat, observed
from jaxomarl.networks.mlp import Network
from jaxomarl.optim import OPTIMISERS, Net
from jaxomarl.stages import clone, critic, exact_scores, scores
from jaxomarl.stages.clone import Policies
from jaxomarl.stages.scores import agent_order

WEIGHTS = ("vds", "stable", "score", "delta")
DELTA_T = 0.02  # the paper's omega(t) = delta(t - 0.02) alpha/sigma
CHOICES = {
    "reward": REWARDS,
    "time_limit": TIME_LIMITS,
    "condition": ("obs", "state"),
    "score_model": ("diffusion", "mixture", *exact_scores.MODELS),
    "score_predict": scores.PREDICTIONS,
    "weighting": WEIGHTS,
    "beta_convention": ("code", "paper", "normalised"),
    "policy_optimiser": OPTIMISERS,
}
FIELDS = (
    "policy_steps", "policy_batch", "policy_width", "policy_lr", "policy_optimiser", "policy_anneal", "start", "chunk",
    "beta", "beta_convention", "weighting", "t_min", "t_max", "control_variate", "normalise_gradient",
)  # fmt: skip


@config
class Config(critic.Config, clone.Config):
    """Settings of OMSD and its ablations; the defaults are the authors' for the particle tasks."""

    # --- stage 2: behaviour scores ---
    score_model: str = static(default="diffusion")
    """Model of the behaviour. diffusion. mixture: a conditional Gaussian mixture with its exact score.

    exact: no learning; the scores of the behaviours that generated the data, at their shares of it.
    exact-posterior: the same with a learned posterior of the behaviour given the condition.
    """
    condition: str = static(default="obs")
    """Condition of the score models next to actions. obs: the authors' code. state: the paper."""
    score_steps: int = static(default=2_000_000, scaled="steps")
    """Gradient steps of the score models."""
    score_batch: int = static(default=512)
    """Transitions in a batch of the score models' updates."""
    score_width: int = static(default=512, scaled="width")
    """Width of the score models' hidden layers."""
    score_blocks: int = static(default=2)
    """Residual blocks of a score model."""
    score_embedding: int = static(default=64)
    """Width of the embedding of the diffusion time."""
    score_dropout: float = static(default=0.1, within="[0, 1)")
    """Dropout rate of the score models."""
    score_components: int = static(default=8)
    """Components of a Gaussian mixture as score model."""
    score_lr: float = traced(default=3e-4, within="(0, inf)")
    """Learning rate of the score models."""
    score_decay: float = traced(default=0.01, within="[0, inf)")
    """Decoupled weight decay of the score models' AdamW."""
    score_predict: str = static(default="noise")
    """What score models predict. noise: the paper. edm: sample and noise mixed to unit variance at every t."""

    # --- stage 3: policies ---
    policy_width: int = static(default=256, within="[0, inf)", scaled="width")
    """Width of the policy's two hidden layers; 0: a linear policy before its tanh."""
    policy_optimiser: str = static(default="adam")
    """Optimiser of the policy. adam. sgd: plain gradient flow, which the analysis of fixed points is about."""
    start: str = static(default="network")
    """First actions of policies. network: its own. uniform:0.9: drawn in +-0.9. Or one per agent: 0.5,-0.48."""
    beta: float = traced(default=0.005, within="[0, inf)")
    """Weight of the Q gradient; larger is weaker regularisation."""
    beta_convention: str = static(default="code")
    """Convention of beta. code: it multiplies Q. paper: 1/beta multiplies the score. normalised: beta E[w]."""
    weighting: str = static(default="vds")
    """w(t). vds: sigma^2. stable: 1. score: alpha/sigma. delta: alpha/sigma with every t = 0.02, as in the paper."""
    t_min: float = traced(default=0.02, within="(0, 1]")
    """Smallest diffusion time at which scores are read."""
    t_max: float = traced(default=0.98, within="(0, 1]")
    """Largest diffusion time at which scores are read."""
    control_variate: bool = static(default=False)
    """Whether z is subtracted from the noise prediction: the same mean, less variance where sigma > alpha s."""
    normalise_gradient: bool = static(default=False)
    """Whether each agent's Q gradient is divided by its root mean square over action columns."""


def check(
    spec: Spec, cfg: Any, data: Dataset | None, reward: tuple[str, ...] = ("team", "first")
) -> None:
    """Raise JaxomarlError for settings or data that the family cannot train on."""
    if spec.discrete:
        raise refuse(
            "--task",
            "continuous actions",
            "a discrete task",
            "OMSD follows score fields of real actions.",
        )
    check_fields(cfg, {**CHOICES, "reward": reward})
    if float(cfg.t_min) > float(cfg.t_max):
        raise refuse(
            "--cfg.t-min, --cfg.t-max",
            "0 < t_min <= t_max <= 1",
            (cfg.t_min, cfg.t_max),
            "Widen the range.",
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
        raise refuse(
            "--cfg.order", f"a permutation of {natural}", order, f"For example {natural[::-1]}."
        ) from None


def starting_actions(spec: Spec, start: str) -> float | tuple[float, ...] | None:
    """The setting `start` -> None (as the network is), the reach of a uniform draw, or one number per agent."""
    if start == "network":
        return None
    way = 'Write "network", "uniform:0.9", or one number per agent: "0.5,-0.48".'
    try:
        values = tuple(float(x) for x in start.removeprefix("uniform:").split(","))
    except ValueError:
        raise refuse("--cfg.start", "a start", start, way) from None
    count = 1 if start.startswith("uniform:") else spec.agents
    if len(values) != count or not all(abs(v) <= 1 for v in values):
        raise refuse("--cfg.start", f"{count} number(s) in [-1, 1]", start, way)
    return values[0] if start.startswith("uniform:") else values


class Actors(NamedTuple):
    """Policies: `init(key)`, all at once [..., N, O] -> [..., N, A], or agent i of its own [..., O] -> [..., A]."""

    init: Callable[..., Any]
    every: Callable[..., Array]
    one: Callable[..., Array]


def hidden(cfg: Any) -> tuple[int, ...]:
    """Widths of a policy's hidden layers."""
    return (cfg.policy_width,) * 2 if cfg.policy_width else ()


def actors(spec: Spec, cfg: Any) -> Actors:
    """pi_i(o_i), one network for each agent: params lead with N. They start as `cfg.start` says."""
    net, mask = actor(spec.obs_width, hidden(cfg), spec.act_width), jnp.asarray(spec.act_mask)
    many = separate(net, spec.agents)
    return Actors(
        lambda key: started(key, many, spec, cfg, mask.shape),
        lambda params, obs: mask * many.apply(params, obs),
        lambda params, i, obs: mask[i] * net.apply(params, obs),
    )


def joint_actor(spec: Spec, cfg: Any) -> Actors:
    """One policy of all observations and all actions."""
    n, mask = spec.agents, jnp.asarray(spec.act_mask)
    net = actor(n * spec.obs_width, hidden(cfg), mask.size)

    def every(params, obs):
        return mask * net.apply(params, flat(obs)).reshape(*obs.shape[:-2], *mask.shape)

    return Actors(
        lambda key: started(key, net, spec, cfg, (mask.size,)),
        every,
        lambda params, i, obs: every(params, obs)[..., i, :],
    )


def started(key: Key[Array, ""], net: Network, spec: Spec, cfg: Any, out: tuple[int, ...]) -> Any:
    """Parameters whose first actions are chosen (`out`: shape of the last layer's bias)."""
    k_net, k_start = jax.random.split(key)
    params, chosen, mask = (
        net.init(k_net),
        starting_actions(spec, cfg.start),
        jnp.asarray(spec.act_mask),
    )
    if chosen is None:
        return params
    if isinstance(chosen, float):
        first = uniform_start(k_start, chosen, mask.shape)
    else:
        first = jnp.broadcast_to(jnp.asarray(chosen)[:, None], mask.shape)
    return start_at(params, (mask * first).reshape(out))


def weight(cfg: Any, t: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """w(t): sigma^2, 1, or alpha/sigma; 1 for the t-free mixture."""
    alpha, sigma = vp()
    if cfg.score_model == "mixture" or cfg.weighting == "stable":
        return jnp.ones_like(t)
    return sigma(t) ** 2 if cfg.weighting == "vds" else alpha(t) / sigma(t)


def internal_beta(cfg: Any) -> float | Float[Array, ""]:
    """Beta in the code's convention."""
    if cfg.beta_convention != "normalised":
        return cfg.beta
    low, high = (DELTA_T, DELTA_T) if cfg.weighting == "delta" else (cfg.t_min, cfg.t_max)
    t = low + (high - low) * (jnp.arange(1024) + 0.5) / 1024
    return cfg.beta * weight(cfg, t).mean()


def times_and_noise(
    key: Key[Array, ""], cfg: Any, shape: tuple[int, ...], mask: Array
) -> tuple[Array, Array]:
    """Times t [B, N] and masked z [B, N, A] for a batch; the only random numbers of a step."""
    k_t, k_z = jax.random.split(key)
    low, high = (DELTA_T, DELTA_T) if cfg.weighting == "delta" else (cfg.t_min, cfg.t_max)
    t = low + (high - low) * jax.random.uniform(k_t, shape[:2])
    return t, mask * jax.random.normal(k_z, shape)


def diffused(
    cfg: Any, a: Float[Array, "*B A"], t: Float[Array, "*B"], z: Float[Array, "*B A"]
) -> Float[Array, "*B A"]:
    """The sample x = alpha(t) a + sigma(t) z; the clean action for the t-free mixture."""
    if cfg.score_model == "mixture":
        return a
    alpha, sigma = vp()
    return alpha(t)[..., None] * a + sigma(t)[..., None] * z


def q_gradient(
    cfg: Any,
    q: Callable[[Past, Array, Array, Array], Array],
    past: Past,
    batch: Batch,
    action: Array,
    mask: Array,
) -> Float[Array, "B N A"]:
    """The gradient g = dQ/da of every agent at the joint action, from the target twins' mean."""
    g = mask * jax.grad(lambda a: q(past, batch.obs, batch.state, a).sum())(action)
    if not cfg.normalise_gradient:
        return g
    return g / jnp.sqrt(jnp.sum(g**2, axis=-1, keepdims=True) / mask.sum(-1, keepdims=True) + 1e-8)


def surrogate(
    cfg: Any,
    w: Float[Array, "*B"],
    e: Float[Array, "*B A"],
    g: Float[Array, "*B A"],
    a: Float[Array, "*B A"],
) -> Float[Array, "*B"]:
    """The loss w <e, a> - beta <g, a>: L_i before its mean; gradients flow through `a` alone."""
    e, g = jax.lax.stop_gradient((e, g))
    return jnp.sum((w[..., None] * e - internal_beta(cfg) * g) * a, axis=-1)


def report(a: Array, e: Array, g: Array, w: Array, value: Array) -> dict[str, Array]:
    """The metrics that every member of the family prints."""
    return {
        "policy_loss": value,
        "pull": jnp.abs(w[..., None] * e).mean(),
        "push": jnp.abs(g).mean(),
        "action_size": jnp.abs(a).mean(),
    }


def learner(
    spec: Spec,
    cfg: Any,
    actors: Actors,
    fresh: Callable[[Any], Net],
    update: Callable[[Key[Array, ""], Policies, Past, Batch], tuple[Policies, dict]],
    centralised: bool = False,
) -> Algorithm:
    """The stage of a member: `fresh(params)` is its actors before their first step, `update` one step."""

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Policies:
        return Policies(fresh(actors.init(key)))

    def batch(key: Key[Array, ""], state: Policies, data: Dataset) -> Batch:
        return sample_transitions(key, data, cfg.policy_batch)

    def act(key, state, past, memory, observation):
        return actors.every(state.actor.params, observed(spec, cfg)(past, observation.obs)), memory

    return Algorithm(init, batch, update, act, centralised=centralised)
