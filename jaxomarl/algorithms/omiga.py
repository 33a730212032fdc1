"""OMIGA: agents' values add up to the team's, so its regularised optimum is each agent's own.

**Paper**. Wang et al. 2023, "Offline Multi-Agent Reinforcement Learning with Implicit
Global-to-Local Value Regularization".

**Pseudo-code**. For N agents, with w(s) >= 0 and b(s) of one mixing network:

    1   for each gradient step on a batch of transitions:     stage "values", `update`
    2       y = r + gamma (1 - d) [ sum_i wbar_i(s') Vbar_i(o'_i) + bbar(s') ]
    3       Q_i, w, b: step down mean (sum_i w_i(s) Q_i(o_i, a_i) + b(s) - y)^2
    4       z_i = wbar_i(s) (Qbar_i(o_i, a_i) - V_i(o_i)) / alpha
    5       V_i: step down mean [ exp(z_i) + wbar_i(s) V_i(o_i) / alpha ]
    6       targets of Q_i, V_i, w and b follow with polyak
    7   for each gradient step on a batch of transitions:     stage "policy" (stages/clone.py)
    8       pi_i: step down -mean exp(clip(z_i, -10, 10)) log pi_i(a_i | o_i)

Line 5 is least where E exp(z_i) = 1 over the behaviour: w_i V_i = alpha log E exp(w_i Q_i/alpha).
Where the agents' behaviours are independent, these values sum to the team's:
sum_i w_i V_i + b = alpha log E exp((sum_i w_i Q_i + b) / alpha).

**Differs**.

- The released code clips z at -10 and at 10, in line 5 as in line 8. Beyond the clip the
  exponential has no slope. Where z is too large, V is too low, and the rest of line 5 pushes it
  further down. Here line 5 continues as a straight line on either side (losses/gumbel.py), so its
  slope is the weight of line 8 everywhere.
- The released code divides line 5 by its batch's largest exponential. That changes the length of a
  step alone.
- Agents have networks of their own. The released code has one network for all, conditioned on the
  agent.
- The value is joint and the reward is the team's (`reward="first"` for agent 1's).
- Actions at the edge of the box count as if at 0.999, and not at 1 - 1e-7, whose arctanh is far
  from all others.
- The values are finished before the policies begin. The values do not depend on the policies, so
  this changes nothing for them.

**Checked**. tests/probes/test_omiga.py (local and global values agree on the closed form, one step
against a separate implementation, the slope beyond the clip, no weight below zero), tests/contract.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Environment, Health, Past, Spec, Stage, System
from jaxomarl.config import config, static, traced
from jaxomarl.data.dataset import as_is, sample_transitions
from jaxomarl.health import behaviour, critics
from jaxomarl.losses.gumbel import CAP, gumbel
from jaxomarl.losses.td import joint_target
from jaxomarl.networks.critics import twin, value
from jaxomarl.networks.inputs import observation_normaliser, state_normaliser
from jaxomarl.networks.mixers import linear_mixer, mixed
from jaxomarl.networks.mlp import Network
from jaxomarl.optim import Net, Params, clipped_adam, create, descend, polyak
from jaxomarl.stages import clone, critic, decentralised

VALUES = (*decentralised.IN_SAMPLE_FIELDS, "mixer_width", "alpha")
"""The settings that reach the values' stage."""


@config
class Config(decentralised.InSample):
    """OMIGA's settings."""

    reward: str = static(default="team")
    """Reward that is learned. team: the team's. first: agent 1's."""
    alpha: float = traced(default=10.0, within="(0, inf)")
    """Weight of the regularisation, in units of reward; larger is nearer to a clone."""
    mixer_width: int = static(default=64, scaled="width")
    """Width of the mixing network's hidden layer."""


class Mixed(NamedTuple):
    """The parameters of line 3: action values, which lead with N, and the mixing network."""

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


def mixed_networks(spec: Spec, cfg: Config) -> MixedNets:
    """Build Q_i(o_i, a_i), V_i(o_i), and [w(s), b(s)]."""
    hidden = (cfg.critic_width,) * 2
    q = twin(spec.obs_width, spec.act_width, hidden, members=1)
    v = value(spec.obs_width, hidden)
    return MixedNets(q, v, linear_mixer(spec.state_dim, cfg.mixer_width, spec.agents))


def normalised(spec: Spec, cfg: Config, past: Past, batch: Batch) -> NormalisedBatch:
    """The networks' inputs at the start of each transition."""
    state = state_normaliser(cfg)(past, batch.state)
    obs = observation_normaliser(spec, cfg)(past, batch.obs)
    return NormalisedBatch(state, obs, batch.action * spec.act_mask)


def advantage(
    cfg: Config,
    nets: MixedNets,
    state: MixedValues,
    v: Float[Array, "B N"],
    inputs: NormalisedBatch,
) -> tuple[Float[Array, "B N"], Float[Array, "B N"]]:
    """Line 4: z for the values v, and the weights wbar."""
    target = state.critic.target
    w = nets.mixer.apply(target.mixer, inputs.state)[..., :-1]
    z = w * (nets.q(target.q, inputs) - v) / cfg.alpha
    return z, w


def mixed_values(spec: Spec, cfg: Config) -> Algorithm:
    """Build the first stage: the values of agents and team (lines 1 to 6)."""
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

    # line 1
    def update(
        key: Key[Array, ""], state: MixedValues, past: Past, batch: Batch
    ) -> tuple[MixedValues, dict]:
        inputs = normalised(spec, cfg, past, batch)

        # --- the target: line 2 ---
        next_state = normalise_state(past, batch.next_state)
        next_weights = nets.mixer.apply(state.critic.target.mixer, next_state)
        next_v = nets.v(state.v.target, normalise_obs(past, batch.next_obs))
        next_value = mixed(next_weights, next_v)
        y = joint_target(batch, next_value, cfg.gamma, cfg.reward, cfg.time_limit)

        # --- action values: line 3 ---
        def q_loss(params):
            weights = nets.mixer.apply(params.mixer, inputs.state)
            q = mixed(weights, nets.q(params.q, inputs))
            return jnp.mean((q - y) ** 2), q.mean()

        (loss_q, q_mean), grad_q = jax.value_and_grad(q_loss, has_aux=True)(state.critic.params)

        # --- state values: lines 4 and 5 ---
        def v_loss(params):
            v = nets.v(params, inputs.obs)
            z, w = advantage(cfg, nets, state, v, inputs)
            loss = jnp.mean(gumbel(z) + w * v / cfg.alpha)
            return loss, {"weight": w.mean(), "cut": jnp.mean(jnp.abs(z) > CAP)}

        (loss_v, metrics), grad_v = jax.value_and_grad(v_loss, has_aux=True)(state.v.params)

        # --- targets: line 6 ---
        critic = descend(optimiser, state.critic, grad_q)
        v = descend(optimiser, state.v, grad_v)
        state = MixedValues(polyak(critic, cfg.polyak), polyak(v, cfg.polyak))
        return state, {"q_loss": loss_q, "q_mean": q_mean, "v_loss": loss_v, **metrics}

    return Algorithm(init, batch, update)


def health(spec: Spec, cfg: Config) -> Health:
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


def policy(spec: Spec, cfg: Config) -> Algorithm:
    """Build the second stage: each agent's weighted behaviour cloning (lines 7 and 8)."""
    nets = mixed_networks(spec, cfg)

    def weigh(past: Past, batch: Batch) -> Float[Array, "B N"]:
        inputs = normalised(spec, cfg, past, batch)
        values = past["values"]
        v = nets.v(values.v.params, inputs.obs)
        z, _ = advantage(cfg, nets, values, v, inputs)
        return jnp.exp(jnp.clip(z, -CAP, CAP))

    # line 8
    return clone.likelihood_cloning_learner(spec, cfg, weigh)


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings, tasks or data that OMIGA cannot train on."""
    choices = {**decentralised.CHOICES, "reward": ("team", "first")}
    decentralised.check(spec, cfg, data, choices, discrete=True)


def pipeline(spec: Spec, cfg: Config, env: Environment | None = None) -> tuple[Stage, ...]:
    """Two stages: values -> policies."""
    values_stage = Stage.from_config(
        cfg,
        "values",
        mixed_values(spec, cfg),
        cfg.critic_steps,
        fields=VALUES,
        owner="omiga",
        health=health(spec, cfg),
    )
    final = policy(spec, cfg)
    policy_stage = Stage.from_config(
        cfg, "policy", final, cfg.policy_steps, owner="omiga", health=behaviour.policy(spec, final)
    )
    return values_stage, policy_stage


OMIGA = System(Config, check, as_is, pipeline)
