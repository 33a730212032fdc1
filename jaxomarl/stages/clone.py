"""Behaviour cloning: each agent fits a model to its own actions in the data.

The model may fit the behaviour, or the part of it that is worth copying. What the model is, and the
loss that fits it, come in as arguments: a diffusion policy's denoising loss (SfBC), or a squared
error with weights of finished critics (IQL with a critic for each agent).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Health, Past, Spec, State
from jaxomarl.config import Pacing, config, static, traced
from jaxomarl.data.dataset import sample_transitions
from jaxomarl.health import behaviour
from jaxomarl.losses.categorical import cross_entropy, greedy, log_policy
from jaxomarl.losses.gaussian import log_density
from jaxomarl.masking import weighted_mean
from jaxomarl.networks.inputs import observation_normaliser
from jaxomarl.networks.mlp import Network, mlp
from jaxomarl.optim import Net, Params, adam_or_sgd, clipped_adam, create, descend
from jaxomarl.policies import gaussian as gaussian_policy
from jaxomarl.policies.diffusion import (
    Diffuser,
    agent_times_and_noise,
    denoising_loss,
    sample,
)

FIELDS = (
    "policy_steps", "policy_batch", "policy_width", "policy_lr", "clip", "chunk", "normalise",
)  # fmt: skip
"""The settings that reach the stage of `cloning_learner`."""
RAISE = ("policy_steps", "policy_batch", "policy_width")
"""What to raise where a clone has not learned."""
POLICY_FIELDS = (
    "policy_steps",
    "policy_batch",
    "policy_width",
    "policy_lr",
    "policy_anneal",
    "policy_optimiser",
)
"""The settings of a network that `policy_optimiser` trains."""


@config
class Config(Pacing):
    """Settings of a stage of policies that are fitted to data."""

    normalise: bool = static(default=False)
    """Whether the networks' observations and states are normalised to mean 0 and deviation 1."""
    policy_steps: int = static(default=100_000, scaled="steps")
    """Gradient steps of the policy."""
    policy_batch: int = static(default=512)
    """Transitions in a batch of the policy's updates."""
    policy_width: int = static(default=256, scaled="width")
    """Width of the policy's hidden layers: two, or three of a noise network."""
    policy_lr: float = traced(default=3e-4, within="(0, inf)")
    """Learning rate of the policy."""
    policy_anneal: bool = static(default=True)
    """Whether the policy's learning rate falls to zero along a cosine."""


@runtime_checkable
class CloningSettings(Protocol):
    """The settings that `cloning_learner` and `gaussian_cloning_learner` read."""

    @property
    def normalise(self) -> bool:
        """Whether observations are normalised."""
        ...

    @property
    def policy_batch(self) -> int:
        """Transitions in a batch."""
        ...

    @property
    def policy_width(self) -> int:
        """Width of the hidden layers."""
        ...

    @property
    def policy_lr(self) -> float:
        """Learning rate."""
        ...

    @property
    def clip(self) -> float:
        """Largest norm of a gradient."""
        ...


@runtime_checkable
class OptimiserSettings(Protocol):
    """The settings that `policy_optimiser` reads."""

    @property
    def policy_optimiser(self) -> str:
        """Either adam or sgd."""
        ...

    @property
    def policy_lr(self) -> float:
        """Learning rate."""
        ...

    @property
    def policy_steps(self) -> int:
        """Gradient steps, over which the rate is annealed."""
        ...

    @property
    def policy_anneal(self) -> bool:
        """Whether the rate falls to zero."""
        ...


def policy_optimiser(cfg: OptimiserSettings) -> optax.GradientTransformation:
    """Adam or plain descent, annealed or not, by the settings `policy_*`."""
    return adam_or_sgd(cfg.policy_optimiser, cfg.policy_lr, cfg.policy_steps, cfg.policy_anneal)


class Policies(NamedTuple):
    """State of a stage that trains policies alone; separate parameters lead with N."""

    actor: Net


def policies_learner(
    actors: Network,
    optimiser: optax.GradientTransformation,
    size: int,
    update: Callable[..., tuple[Policies, dict]],
    act: Callable[..., tuple[Array, Any]],
    centralised: bool = False,
) -> Algorithm:
    """The learner of `Policies` on batches of `size` transitions."""

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Policies:
        return Policies(create(optimiser, actors.init(key)))

    def batch(key: Key[Array, ""], state: State, data: Dataset) -> Batch:
        return sample_transitions(key, data, size)

    return Algorithm(init, batch, update, act, centralised=centralised)


class AgentSamples(NamedTuple):
    """One agent's normalised observations and actions; padded columns are zero."""

    obs: Float[Array, "B O"]
    action: Float[Array, "B A"]
    mask: Float[Array, " A"]
    legal: Float[Array, "B A"]
    """1.0 on legal actions, where actions are discrete."""
    alive: Float[Array, " B"]
    """1.0 where the agent still acts."""


Weigh = Callable[[Past, Batch], Float[Array, "B N"]]
"""(finished stages, batch) -> a weight for each agent's action."""
Play = Callable[
    [Key[Array, ""], Params, Float[Array, " O"], Float[Array, " A"]], Float[Array, " A"]
]
"""(key, params, obs, mask) -> one agent's action; the mask of discrete actions is of legal ones."""


def cloning_learner(
    spec: Spec,
    cfg: CloningSettings,
    net: Network,
    loss: Callable[[Key[Array, ""], Params, AgentSamples, Array | None], Array],
    weigh: Weigh | None = None,
    play: Play | None = None,
    lr: optax.ScalarOrSchedule | None = None,
) -> Algorithm:
    """One model for each agent; all step down `loss(key, params, samples, weight)` in one vmap.

    - `weigh` gives a weight [B, N] for each action; without it the weight is None.
    - With `play` the models act.
    - `lr` replaces the setting policy_lr.
    """
    if lr is None:
        lr = cfg.policy_lr
    optimiser = clipped_adam(lr, cfg.clip)
    mask = jnp.asarray(spec.act_mask)
    normalise_obs = observation_normaliser(spec, cfg)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Net:
        start = lambda key: create(optimiser, net.init(key))
        return jax.vmap(start)(jax.random.split(key, spec.agents))

    def batch(key: Key[Array, ""], state: State, data: Dataset) -> Batch:
        return sample_transitions(key, data, cfg.policy_batch)

    def fit(key, one, samples, w):
        of_params = lambda params: loss(key, params, samples, w)
        value, grads = jax.value_and_grad(of_params)(one.params)
        return descend(optimiser, one, grads), value

    def update(key: Key[Array, ""], state: Net, past: Past, batch: Batch) -> tuple[Net, dict]:
        keys = jax.random.split(key, spec.agents)
        obs = normalise_obs(past, batch.obs)
        legal = batch.available * mask
        samples = AgentSamples(obs, batch.action * mask, mask, legal, batch.alive)
        w = None
        if weigh is not None:
            w = weigh(past, batch)

        axes = AgentSamples(1, 1, 0, 1, 1)  # pyright: ignore[reportArgumentType]
        state, value = jax.vmap(fit, in_axes=(0, 0, axes, 1))(keys, state, samples, w)
        metrics = {"cloning_loss": jnp.mean(value)}
        if w is not None:
            metrics["weight"] = w.mean()
        return state, metrics

    def act(key, state, past, memory, observation):
        assert play is not None
        keys = jax.random.split(key, spec.agents)
        obs = normalise_obs(past, observation.obs)
        allowed = mask * observation.available if spec.discrete else mask
        return jax.vmap(play)(keys, state.params, obs, allowed), memory

    return Algorithm(init, batch, update, act if play else None)


def likelihood_cloning_learner(
    spec: Spec, cfg: CloningSettings, weigh: Weigh | None = None
) -> Algorithm:
    """Stochastic policies of all agents, down -mean w log pi(a | o): Gaussian, or categorical."""
    if spec.discrete:
        return categorical_cloning_learner(spec, cfg, weigh)
    return gaussian_cloning_learner(spec, cfg, weigh)


def categorical_cloning_learner(
    spec: Spec, cfg: CloningSettings, weigh: Weigh | None = None
) -> Algorithm:
    """Categorical policies of all agents over their legal actions, down -mean w log pi(a | o).

    Rows of dead agents do not count. The policies play their likeliest legal action. `weigh` is as
    in `cloning_learner`; without it w = 1.
    """
    net = mlp(spec.obs_width, (cfg.policy_width,) * 2, spec.act_width)

    def loss(key, params, samples, w):
        error = cross_entropy(net.apply(params, samples.obs), samples.action, samples.legal)
        if w is not None:
            error = w * error
        return weighted_mean(error, samples.alive)

    def play(key, params, obs, legal):
        return greedy(net.apply(params, obs), legal)

    return cloning_learner(spec, cfg, net, loss, weigh, play)


def log_clone(
    spec: Spec, cfg: CloningSettings, stage: str
) -> Callable[[Past, Batch], Float[Array, "B N A"]]:
    """(past, batch) -> the log-probabilities of a finished stage of categorical clones."""
    net = mlp(spec.obs_width, (cfg.policy_width,) * 2, spec.act_width)
    normalise = observation_normaliser(spec, cfg)

    def of(past: Past, batch: Batch) -> Float[Array, "B N A"]:
        each = jax.vmap(net.apply, in_axes=(0, 1), out_axes=1)
        logits = each(past[stage].params, normalise(past, batch.obs))
        return log_policy(logits, batch.available * spec.act_mask)

    return of


def gaussian_cloning_learner(
    spec: Spec,
    cfg: CloningSettings,
    weigh: Weigh | None = None,
    acts: bool = True,
) -> Algorithm:
    """Gaussian policies of all agents, down -mean w log pi(a | o).

    `weigh` is as in `cloning_learner`; without it w = 1.
    """
    net = gaussian_policy.gaussian_network(spec, cfg)

    def loss(key, params, samples, w):
        normal = gaussian_policy.policy_normal(net, params, samples.obs)
        log_pi = log_density(normal, samples.action, samples.mask)
        if w is not None:
            log_pi = w * log_pi
        return -jnp.mean(log_pi)

    def play(key, params, obs, mask):
        return gaussian_policy.deterministic_action(net, params, obs, mask)

    return cloning_learner(spec, cfg, net, loss, weigh, play if acts else None)


def diffusion_cloning_learner(
    spec: Spec,
    cfg: CloningSettings,
    diffuser: Diffuser,
    acts: bool = True,
    lr: optax.ScalarOrSchedule | None = None,
) -> Algorithm:
    """Diffusion models of all agents, down mean |eps(alpha_t a + sigma_t z, t, o) - z|^2.

    t is uniform on [1e-3, 1], and `lr` is as in `cloning_learner`.
    """

    def loss(key, params, samples, w):
        t, z = agent_times_and_noise(key, samples)
        return denoising_loss(diffuser, params, samples, t, z)

    play = partial(sample, diffuser) if acts else None
    return cloning_learner(spec, cfg, diffuser.net, loss, play=play, lr=lr)


# --- what they are compared with ---


def mean_health(spec: Spec, cfg: Any, algorithm: Algorithm) -> Health:
    """Of a clone that plays the behaviour's mean."""
    return behaviour.clone(spec, algorithm, draws=False, raise_fields=RAISE)


def drawn_health(spec: Spec, cfg: Any, algorithm: Algorithm) -> Health:
    """Of a clone that draws its actions."""
    return behaviour.clone(spec, algorithm, draws=True, raise_fields=RAISE)


def gaussian_health(spec: Spec, cfg: CloningSettings, raise_fields: tuple[str, ...]) -> Health:
    """Of Gaussian clones, at their means; the stage itself need not act."""
    acting = gaussian_cloning_learner(spec, cfg)
    return behaviour.clone(spec, acting, draws=False, raise_fields=raise_fields)
