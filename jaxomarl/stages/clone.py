"""Each agent fits a model to its own actions in the data: of its behaviour, or of the part of it that is worth copying.

What the model is, and the loss that fits it, come in: a diffusion policy's denoising (SfBC), or a squared error with
weights of finished critics (IQL of each agent's own).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Past, Spec, State
from jaxomarl.config import config, static, traced
from jaxomarl.data.dataset import sample_transitions
from jaxomarl.losses.gaussian import log_density
from jaxomarl.networks.inputs import observed
from jaxomarl.networks.mlp import Network
from jaxomarl.optim import Net, Params, adam_or_sgd, clipped_adam, create, descend
from jaxomarl.policies import gaussian as gaussian_policy

FIELDS = (
    "policy_steps", "policy_batch", "policy_width", "policy_lr", "clip", "chunk", "normalise",
)  # fmt: skip


@config
class Config:
    """Settings of a stage of policies that are fitted to data."""

    normalise: bool = static(default=False)
    """Whether the networks' observations and states are normalised to mean 0 and standard deviation 1."""
    chunk: int = static(default=1000)
    """Updates of one compiled scan; reports and checkpoints fall between two scans."""
    every: int = static(default=10)
    """Chunks between two evaluations, at which checkpoints are written too."""
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


def policy_optimiser(cfg: Any) -> optax.GradientTransformation:
    """Adam or plain descent, annealed or not, by the settings `policy_*`."""
    return adam_or_sgd(cfg.policy_optimiser, cfg.policy_lr, cfg.policy_steps, cfg.policy_anneal)


class Policies(NamedTuple):
    """State of a stage that trains policies alone; parameters lead with N where they are separate."""

    actor: Net


class Seen(NamedTuple):
    """What one agent saw and did; padded columns are zero."""

    obs: Float[Array, "B O"]
    action: Float[Array, "B A"]
    mask: Float[Array, " A"]


def behaviour(
    spec: Spec,
    cfg: Any,
    net: Network,
    loss: Callable[[Key[Array, ""], Params, Seen, Any], Array],
    weigh: Callable[[Past, Batch], Float[Array, "B N"]] | None = None,
    play: Callable[
        [Key[Array, ""], Params, Float[Array, " O"], Float[Array, " A"]], Float[Array, " A"]
    ]
    | None = None,
    lr: optax.ScalarOrSchedule | None = None,
) -> Algorithm:
    """One model for each agent, all in one vmapped update down `loss(key, params, seen, weight)`.

    `weigh` gives a weight [B, N] for each action, else it is None. With `play(key, params, obs, mask)` the models act.
    `lr` stands in place of policy_lr.
    """
    tx = clipped_adam(cfg.policy_lr if lr is None else lr, cfg.clip)
    mask = jnp.asarray(spec.act_mask)
    see = observed(spec, cfg)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Net:
        return jax.vmap(lambda k: create(tx, net.init(k)))(jax.random.split(key, spec.agents))

    def batch(key: Key[Array, ""], state: State, data: Dataset) -> Batch:
        return sample_transitions(key, data, cfg.policy_batch)

    def update(key: Key[Array, ""], state: Net, past: Past, batch: Batch) -> tuple[Net, dict]:
        def fit(key, one, seen, w):
            value, grads = jax.value_and_grad(lambda params: loss(key, params, seen, w))(one.params)
            return descend(tx, one, grads), value

        keys, seen = (
            jax.random.split(key, spec.agents),
            Seen(see(past, batch.obs), batch.action * mask, mask),
        )
        w = None if weigh is None else weigh(past, batch)
        axes = Seen(1, 1, 0)  # pyright: ignore[reportArgumentType]
        state, value = jax.vmap(fit, in_axes=(0, 0, axes, 1))(keys, state, seen, w)
        metrics = {"clone_loss": jnp.mean(value)}
        return state, metrics if w is None else {**metrics, "weight": w.mean()}

    def act(key, state, past, memory, observation):
        assert play is not None
        keys = jax.random.split(key, spec.agents)
        return jax.vmap(play)(keys, state.params, see(past, observation.obs), mask), memory

    return Algorithm(init, batch, update, act if play else None)


def gaussian(
    spec: Spec,
    cfg: Any,
    weigh: Callable[[Past, Batch], Float[Array, "B N"]] | None = None,
    acts: bool = True,
) -> Algorithm:
    """Gaussian policies of all agents, down -mean w log pi(a | o); `weigh` as in `behaviour`, w = 1 without."""
    net = gaussian_policy.network(spec, cfg)

    def loss(key, params, seen, w):
        fit = log_density(gaussian_policy.normal(net, params, seen.obs), seen.action, seen.mask)
        return -jnp.mean(fit if w is None else w * fit)

    play = lambda key, params, obs, mask: gaussian_policy.mode(net, params, obs, mask)
    return behaviour(spec, cfg, net, loss, weigh, play if acts else None)
