"""Each agent fits a model to its own actions in the data: of its behaviour, or of the part of it that is worth copying.

What the model is, and the loss that fits it, come in: a diffusion policy's denoising (SfBC), or a squared error with
weights of finished critics (IQL of each agent's own).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Past, Spec, State
from jaxomarl.data.dataset import sample_transitions
from jaxomarl.networks.mlp import Network
from jaxomarl.optim import Net, Params, create, descend
from jaxomarl.stages.decentralised import Case, cases, optimiser
from jaxomarl.stages.inputs import observed

FIELDS = (
    "policy_steps", "policy_batch", "policy_width", "policy_lr", "clip", "chunk", "normalise",
)  # fmt: skip


def behaviour(
    spec: Spec,
    cfg: Any,
    net: Network,
    loss: Callable[[Key[Array, ""], Params, Case, Any], Array],
    weigh: Callable[[Past, Batch], Float[Array, "B N"]] | None = None,
    play: Callable[[Params, Float[Array, " O"], Float[Array, " A"]], Float[Array, " A"]] | None = None,
) -> Algorithm:
    """One model for each agent, all in one vmapped update down `loss(key, params, case, weight)`.

    `weigh` gives a weight [B, N] for each action, else it is None. With `play(params, obs, mask)` the models act.
    """
    tx = optimiser(cfg, cfg.policy_lr)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Net:
        return jax.vmap(lambda k: create(tx, net.init(k)))(jax.random.split(key, spec.agents))

    def batch(key: Key[Array, ""], state: State, data: Dataset) -> Batch:
        return sample_transitions(key, data, cfg.policy_batch)

    def update(key: Key[Array, ""], state: Net, past: Past, batch: Batch) -> tuple[Net, dict]:
        def fit(key, one, case, w):
            value, grads = jax.value_and_grad(lambda params: loss(key, params, case, w))(one.params)
            return descend(tx, one, grads), value

        keys, (case, axes) = jax.random.split(key, spec.agents), cases(spec, cfg, past, batch)
        w = None if weigh is None else weigh(past, batch)
        state, value = jax.vmap(fit, in_axes=(0, 0, axes, 1))(keys, state, case, w)
        metrics = {"clone_loss": jnp.mean(value)}
        return state, metrics if w is None else {**metrics, "weight": w.mean()}

    def act(key, state, past, memory, observation):
        assert play is not None
        obs = observed(spec, cfg)(past, observation.obs)
        return jax.vmap(play)(state.params, obs, jnp.asarray(spec.act_mask)), memory

    return Algorithm(init, batch, update, act if play else None)
