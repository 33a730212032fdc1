"""Clones of what all others do, given one agent's action: for AlberDICE.

    H_i(a_-i | s, a_i) = product over j != i of h_ij(a_j | s, a_i, a_<j)

N x N networks in one parameter tree, trained by cross-entropy over the legal actions. A network's
preceding actions are the joint action times a mask, so that all have one shape. Those with i = j
are there for the shape alone, and count for nothing. Neither do rows of dead agents.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Health, Past, Spec, State
from jaxomarl.data.dataset import sample_transitions
from jaxomarl.health import behaviour
from jaxomarl.health.held import transitions
from jaxomarl.losses.categorical import cross_entropy, greedy, log_policy
from jaxomarl.masking import weighted_mean
from jaxomarl.networks.inputs import flat, state_normaliser
from jaxomarl.networks.mlp import Network, mlp
from jaxomarl.optim import Net, clipped_adam, create, descend

LogClone = Callable[[Past, Batch], Float[Array, "B N A"]]
"""(past, batch) -> log G_i of every action."""
LogOthers = Callable[..., Float[Array, "*K B N A"]]
"""(past, i, batch, joint [*K, B, N, A]) -> log h_ij of every action of each agent j.

The actions of agent i and of those before j are those of `joint`. What it says of agent i itself
has no meaning.
"""


class OthersNets(NamedTuple):
    """All h_ij, as one network whose parameters lead with [N, N]."""

    one: Network
    known: Float[np.ndarray, "N N N"]
    normalise_state: Callable[[Past, Array], Array]

    def init(self, key: Key[Array, ""]) -> Any:
        """First parameters."""
        agents = len(self.known)
        return jax.vmap(jax.vmap(self.one.init))(jax.random.split(key, (agents, agents)))

    def inputs(
        self, past: Past, state: Float[Array, "B S"], joint: Float[Array, "*K B N A"]
    ) -> Float[Array, "*K B N N C"]:
        """What each h_ij sees."""
        seen = flat(jnp.asarray(self.known)[..., None] * joint[..., None, None, :, :])
        cond = self.normalise_state(past, state)[:, None, None]
        cond = jnp.broadcast_to(cond, (*seen.shape[:-1], cond.shape[-1]))
        return jnp.concatenate([cond, seen], axis=-1)

    def of_agent(self, params: Any, x: Float[Array, "*K B N C"]) -> Float[Array, "*K B N A"]:
        """Logits of every h_ij of one i."""
        return jax.vmap(self.one.apply, in_axes=(0, -2), out_axes=-2)(params, x)

    def of_all(self, params: Any, x: Float[Array, "B N N C"]) -> Float[Array, "B N N A"]:
        """Logits of every h_ij."""
        return jax.vmap(self.of_agent, in_axes=(0, 1), out_axes=1)(params, x)


class OthersClone(NamedTuple):
    """The learner of all h_ij, their log-probabilities and their health."""

    algorithm: Algorithm
    log_h: LogOthers
    health: Health


def others_nets(spec: Spec, cfg: Any) -> OthersNets:
    """Build the networks."""
    columns = spec.state_dim + spec.agents * spec.act_width
    one = mlp(columns, (cfg.policy_width,) * 2, spec.act_width)
    return OthersNets(one, known_actions(spec.agents), state_normaliser(cfg))


def known_actions(agents: int) -> Float[np.ndarray, "N N N"]:
    """Entry (i, j, k) is 1.0 where h_ij sees agent k's action: agent i's, and those before j."""
    i, j, k = np.indices((agents,) * 3)
    return ((k != j) & ((k == i) | (k < j))).astype(np.float32)


def others_clone(spec: Spec, cfg: Any) -> OthersClone:
    """Build the clones; `cfg` has the fields policy_width, policy_batch, policy_lr and clip."""
    nets = others_nets(spec, cfg)
    mask = jnp.asarray(spec.act_mask)
    optimiser = clipped_adam(cfg.policy_lr, cfg.clip)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Net:
        return create(optimiser, nets.init(key))

    def batch(key: Key[Array, ""], state: State, data: Dataset) -> Batch:
        return sample_transitions(key, data, cfg.policy_batch)

    def update(key: Key[Array, ""], state: Net, past: Past, batch: Batch) -> tuple[Net, dict]:
        action = batch.action * mask
        legal = batch.available * mask
        x = nets.inputs(past, batch.state, action)
        counted = batch.alive[:, None] * (1.0 - jnp.eye(spec.agents))

        def loss(params):
            error = lambda logits: cross_entropy(logits, action, legal)
            errors = jax.vmap(error, in_axes=1, out_axes=1)(nets.of_all(params, x))
            return weighted_mean(errors, counted)

        value, grads = jax.value_and_grad(loss)(state.params)
        return descend(optimiser, state, grads), {"clone_loss": value}

    def log_h(past: Past, i: Any, batch: Batch, joint: Array) -> Float[Array, "*K B N A"]:
        params = jax.tree.map(lambda leaf: leaf[i], past["others"].params)
        x = nets.inputs(past, batch.state, joint)[..., i, :, :]
        return log_policy(nets.of_agent(params, x), batch.available * mask)

    return OthersClone(Algorithm(init, batch, update), log_h, others_health(spec, nets))


def others_health(spec: Spec, nets: OthersNets) -> Health:
    """The share of the others' actions that the clones get wrong, beside the commonest ones."""
    mask = jnp.asarray(spec.act_mask)

    def measure(
        key: Key[Array, ""], state: State, past: Past, held: Dataset
    ) -> dict[str, Float[Array, ""]]:
        rows = transitions(held)
        logits = nets.of_all(state.params, nets.inputs(past, rows.state, rows.action))
        played = greedy(logits, (rows.available * mask)[:, None])
        commonest = behaviour.commonest_action(rows.action, rows.alive)

        def wrong(i: int) -> Float[Array, ""]:
            is_other = np.arange(spec.agents) != i
            return behaviour.wrong_share(played[:, i], rows.action, rows.alive * is_other)

        return {
            "wrong_share": jnp.stack([wrong(i) for i in range(spec.agents)]).mean(),
            "commonest_wrong_share": behaviour.wrong_share(commonest, rows.action, rows.alive),
        }

    return Health(measure, behaviour.ONE_HOT_GATES, ("clone_steps",))
