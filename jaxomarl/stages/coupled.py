"""Agents' values that add up to the team's by one mixing network, for OMIGA and OMAC.

With w(s) >= 0 and b(s) of the network, one step is:

    y = r + gamma (1 - d) [ sum_i wbar_i(s') Vbar_i(o'_i) + bbar(s') ]
    Q_i, w, b: step down mean (sum_i w_i(s) Q_i(o_i, a_i) + b(s) - y)^2
    V_i: step down the system's own loss of the gap u_i = Qbar_i(o_i, a_i) - V_i(o_i)
    targets of Q_i, V_i, w and b follow with polyak

The same w and b mix the Q_i and the V_i, so the team's advantage is sum_i w_i u_i. The rows of dead
agents count: their values are part of the team's.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Health, Past, Spec, Stage
from jaxomarl.config import config, static
from jaxomarl.data.dataset import sample_transitions
from jaxomarl.health import behaviour, critics
from jaxomarl.losses.td import joint_target
from jaxomarl.networks.critics import twin, value
from jaxomarl.networks.inputs import observation_normaliser, state_normaliser
from jaxomarl.networks.mixers import linear_mixer, mixed
from jaxomarl.networks.mlp import Network
from jaxomarl.optim import Net, Params, clipped_adam, create, descend, polyak
from jaxomarl.stages import clone, critic, decentralised

FIELDS = (*decentralised.IN_SAMPLE_FIELDS, "mixer_width")
"""The settings that reach the values' stage, besides those of the system's own loss."""

ValueLoss = Callable[
    [Float[Array, "B N"], Float[Array, "B N"], Float[Array, "B N"]],
    tuple[Float[Array, ""], dict[str, Float[Array, ""]]],
]
"""(gap u, weights wbar, values v) -> the loss of the V_i, and metrics."""
Weigh = Callable[[Float[Array, "B N"], Float[Array, "B N"]], Float[Array, "B N"]]
"""(gap u, weights wbar) -> weights of the data's actions."""


@config
class Config(decentralised.InSample):
    """Settings of values with one mixing network."""

    reward: str = static(default="team")
    """Reward that is learned. team: the team's. first: agent 1's."""
    mixer_width: int = static(default=64, scaled="width")
    """Width of the mixing network's hidden layer."""


class Mixed(NamedTuple):
    """The parameters of Q_tot: action values, which lead with N, and the mixing network."""

    q: Params
    mixer: Params


class MixedValues(NamedTuple):
    """The team's action value, whose params are `Mixed`, and the agents' state values."""

    critic: Net
    v: Net


class NormalisedBatch(NamedTuple):
    """The networks' inputs at the start of each transition."""

    state: Float[Array, "B S"]
    obs: Float[Array, "B N O"]
    action: Float[Array, "B N A"]


class MixedNets(NamedTuple):
    """One agent's networks and the mixing network, and how all agents' values are computed."""

    one_q: Network
    one_v: Network
    mixer: Network

    def q(self, params: Params, inputs: NormalisedBatch) -> Float[Array, "B N"]:
        """Q_i(o_i, a_i)."""
        of_all = jax.vmap(self.one_q.apply, in_axes=(0, 1, 1), out_axes=-1)
        return of_all(params, inputs.obs, inputs.action)[0]

    def v(self, params: Params, obs: Float[Array, "B N O"]) -> Float[Array, "B N"]:
        """V_i(o_i)."""
        return jax.vmap(self.one_v.apply, in_axes=(0, 1), out_axes=-1)(params, obs)


def mixed_networks(spec: Spec, cfg: Any) -> MixedNets:
    """Build Q_i(o_i, a_i), V_i(o_i), and [w(s), b(s)]."""
    hidden = (cfg.critic_width,) * 2
    q = twin(spec.obs_width, spec.act_width, hidden, members=1)
    v = value(spec.obs_width, hidden)
    return MixedNets(q, v, linear_mixer(spec.state_dim, cfg.mixer_width, spec.agents))


def normalised(spec: Spec, cfg: Any, past: Past, batch: Batch) -> NormalisedBatch:
    """The networks' inputs at the start of each transition."""
    state = state_normaliser(cfg)(past, batch.state)
    obs = observation_normaliser(spec, cfg)(past, batch.obs)
    return NormalisedBatch(state, obs, batch.action * spec.act_mask)


def gaps(
    nets: MixedNets, state: MixedValues, v: Float[Array, "B N"], inputs: NormalisedBatch
) -> tuple[Float[Array, "B N"], Float[Array, "B N"]]:
    """(u, wbar): the gaps of the data's actions to the values v, and the weights."""
    target = state.critic.target
    w = nets.mixer.apply(target.mixer, inputs.state)[..., :-1]
    return nets.q(target.q, inputs) - v, w


def mixed_values(spec: Spec, cfg: Any, value_loss: ValueLoss) -> Algorithm:
    """Build the stage of values; `cfg` has the fields of `Config`."""
    nets = mixed_networks(spec, cfg)
    optimiser = clipped_adam(cfg.critic_lr, cfg.clip)
    normalise_obs = observation_normaliser(spec, cfg)
    normalise_state = state_normaliser(cfg)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> MixedValues:
        k_q, k_v, k_mixer = jax.random.split(key, 3)
        of_all = lambda net, key: jax.vmap(net.init)(jax.random.split(key, spec.agents))
        params = Mixed(of_all(nets.one_q, k_q), nets.mixer.init(k_mixer))
        critic = create(optimiser, params, target=True)
        return MixedValues(critic, create(optimiser, of_all(nets.one_v, k_v), target=True))

    def batch(key: Key[Array, ""], state: MixedValues, data: Dataset) -> Batch:
        return sample_transitions(key, data, cfg.critic_batch)

    def update(
        key: Key[Array, ""], state: MixedValues, past: Past, batch: Batch
    ) -> tuple[MixedValues, dict]:
        inputs = normalised(spec, cfg, past, batch)

        # --- the target ---
        next_state = normalise_state(past, batch.next_state)
        next_weights = nets.mixer.apply(state.critic.target.mixer, next_state)
        next_v = nets.v(state.v.target, normalise_obs(past, batch.next_obs))
        next_value = mixed(next_weights, next_v)
        y = joint_target(batch, next_value, cfg.gamma, cfg.reward, cfg.time_limit)

        # --- action values ---
        def q_loss(params):
            weights = nets.mixer.apply(params.mixer, inputs.state)
            q = mixed(weights, nets.q(params.q, inputs))
            return jnp.mean((q - y) ** 2), q.mean()

        (loss_q, q_mean), grad_q = jax.value_and_grad(q_loss, has_aux=True)(state.critic.params)

        # --- state values ---
        def v_loss(params):
            v = nets.v(params, inputs.obs)
            u, w = gaps(nets, state, v, inputs)
            return value_loss(u, w, v)

        (loss_v, metrics), grad_v = jax.value_and_grad(v_loss, has_aux=True)(state.v.params)

        # --- targets ---
        critic = descend(optimiser, state.critic, grad_q)
        v = descend(optimiser, state.v, grad_v)
        state = MixedValues(polyak(critic, cfg.polyak), polyak(v, cfg.polyak))
        return state, {"q_loss": loss_q, "q_mean": q_mean, "v_loss": loss_v, **metrics}

    return Algorithm(init, batch, update)


def health(spec: Spec, cfg: Any) -> Health:
    """The team's action value, against the returns of held-out episodes."""
    nets = mixed_networks(spec, cfg)
    normalise_obs = observation_normaliser(spec, cfg)
    normalise_state = state_normaliser(cfg)

    def q(state, past, obs, env_state, action):
        params = state.critic.params
        s = normalise_state(past, env_state)
        inputs = NormalisedBatch(s, normalise_obs(past, obs), action)
        return mixed(nets.mixer.apply(params.mixer, s), nets.q(params.q, inputs))

    return critics.critic(q, cfg.gamma, cfg.reward, critic.RAISE)


def copied(spec: Spec, cfg: Any, weigh: Weigh) -> Algorithm:
    """Build the stage of policies, which clone the data's actions with weights."""
    nets = mixed_networks(spec, cfg)

    def weights(past: Past, batch: Batch) -> Float[Array, "B N"]:
        inputs = normalised(spec, cfg, past, batch)
        values = past["values"]
        v = nets.v(values.v.params, inputs.obs)
        return weigh(*gaps(nets, values, v, inputs))

    return clone.likelihood_cloning_learner(spec, cfg, weights)


def check(spec: Spec, cfg: Any, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings, tasks or data that these systems cannot train on."""
    choices = {**decentralised.CHOICES, "reward": ("team", "first")}
    decentralised.check(spec, cfg, data, choices, discrete=True)


def stages(
    spec: Spec, cfg: Any, owner: str, values: Algorithm, own: tuple[str, ...], policy: Algorithm
) -> tuple[Stage, ...]:
    """Two stages of a system: values -> policies. `own` are the settings of its loss."""
    of_values = health(spec, cfg)
    of_policies = behaviour.policy(spec, policy)
    fields = (*FIELDS, *own)
    name = ("values", values, cfg.critic_steps)
    return (
        Stage.from_config(cfg, *name, fields=fields, owner=owner, health=of_values),
        Stage.from_config(cfg, "policy", policy, cfg.policy_steps, owner=owner, health=of_policies),
    )
