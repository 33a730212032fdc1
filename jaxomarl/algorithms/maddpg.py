"""MADDPG+BC: one recurrent policy for all agents climbs central critics and stays near the data.

**Paper**. Lowe et al. 2017 (MADDPG) with the cloning term of Fujimoto and Gu 2021 (TD3+BC),
recurrent and with shared networks as in OG-MARL's systems (Formanek et al. 2023); CODA's base
learner (its Table 5).

**Pseudo-code**. On windows of H steps, each from an empty memory; every mean is over real steps,
agents and columns:

    1   for each gradient step on a batch of windows:         stage "policy", `update`
    2       a = pi(o_0..o_H), a' = pibar(o_0..o_H), unrolled
    3       y_i,t = r_i,t + gamma (1 - d_t) min_k Qbar^k(s_t+1, a'_t+1, i)
    4       Q^k: step down sum_k 1/2 mean (Q^k(s, a_data, i) - y_i)^2
    5       q_i = min_k Q^k(s, (a_i, others), i)       others: the data's actions, or sg pi's
    6       pi: step down -c_q mean q / sg[ mean |q| ] + c_a mean (a - a_data)^2 + 1e-3 mean a^2
    7       targets follow with polyak

(c_q, c_a) = (alpha, 1) with `coefficient_on="value"`, (1, alpha) with "clone".

**Differs**.

- We hold the divisor constant (sg). OG-MARL's code does not: wherever a batch's values share a
  sign, its gradient of q is exactly zero, and cloning alone is left.
- The "BC coefficient" 2.5 of OG-MARL multiplies the value, not the clone. `coefficient_on` has both
  readings. With alpha = 0, the first reading is a clone.
- A window never leaves its episode. A transition that the time limit cuts bootstraps from its own
  successor, or does not count where the data lack it. OG-MARL's sequences run into the next
  episode.
- With the data's actions as `others`, an agent responds to the data, not to its team-mates (BRUD).

**Checked**. tests/probes/test_maddpg.py (both losses against a separate implementation; the
divisor; the cut transition; what each agent's action depends on; memory), tests/contract.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Dataset, Health, Past, Spec, State, System, Window, one_stage
from jaxomarl.config import check_continuous, check_fields, config, static, traced
from jaxomarl.data.dataset import as_is, check_transitions
from jaxomarl.data.windows import sample_windows, transitions_known
from jaxomarl.health import critics
from jaxomarl.losses.td import window_target
from jaxomarl.masking import column_mean, mean_over_last
from jaxomarl.networks.agents import with_agent_number
from jaxomarl.networks.critics import value
from jaxomarl.networks.inputs import flat, observation_normaliser, state_normaliser
from jaxomarl.networks.mlp import Network, ensemble
from jaxomarl.networks.recurrent import Recurrent, recurrent
from jaxomarl.optim import Net, Params, create, descend, polyak
from jaxomarl.stages import decentralised

CHOICES = {
    **decentralised.CHOICES,
    "others": ("data", "policy"),
    "coefficient_on": ("value", "clone"),
}


@config
class Config(decentralised.Valued):
    """MADDPG+BC's settings; the defaults are CODA's Table 5 and OG-MARL's code."""

    reward: str = static(default="team")
    normalise: bool = static(default=False)
    """Whether the networks' inputs are normalised to mean 0 and standard deviation 1."""
    others: str = static(default="data")
    """Team-mates' actions in the policy's loss. data: the batch's. policy: the current policy's."""
    alpha: float = traced(default=2.5, within="[0, inf)")
    """Weight of the term that --cfg.coefficient-on names, the papers' BC coefficient."""
    coefficient_on: str = static(default="value")
    """Term that alpha multiplies. value: the normalised value, as in the codes. clone: cloning."""
    gamma: float = traced(default=0.99, within="[0, 1]")
    """Discount factor of future rewards."""
    horizon: int = static(default=20)
    """Steps of a training window, which is padded where the episode ends."""
    policy_steps: int = static(default=500_000, scaled="steps")
    """Gradient steps of the critics and the policy, which train together."""
    policy_batch: int = static(default=32)
    """Windows in a batch."""
    policy_width: int = static(default=64, scaled="width")
    """Width of the policy's hidden layer and of its recurrent memory."""
    policy_lr: float = traced(default=3e-4, within="(0, inf)")
    """Learning rate of the policy."""
    critic_width: int = static(default=128, scaled="width")
    """Width of the critics' two hidden layers."""
    critic_lr: float = traced(default=3e-4, within="(0, inf)")
    """Learning rate of the critics."""
    polyak: float = traced(default=0.005, within="(0, 1]")
    """Rate at which target networks follow the trained ones."""
    action_penalty: float = traced(default=1e-3, within="[0, inf)")
    """Weight of the mean square of the policy's actions in its loss."""


class RecurrentLearner(NamedTuple):
    """The policy and the twin critics with their targets; all agents share both."""

    actor: Net
    critic: Net


class RecurrentNets(NamedTuple):
    """The networks and their optimisers."""

    actor: Recurrent
    play: Callable[..., Array]
    """(params, obs [B, T, N, O]) -> [B, T, N, A]."""
    critic: Network
    """(params, state [B, T, S], action [B, T, M, N, A]) -> [E, B, T, N]; M is N or 1."""
    tx_actor: optax.GradientTransformation
    tx_q: optax.GradientTransformation


def recurrent_networks(spec: Spec, cfg: Config) -> RecurrentNets:
    """Build one policy and two critics, all conditioned on the agent."""
    n = spec.agents
    actor = recurrent(spec.obs_width + n, cfg.policy_width, spec.act_width)
    inputs = (spec.state_dim, n, n * spec.act_width)
    critic = ensemble(value(inputs, (cfg.critic_width,) * 2), 2)
    action_mask = jnp.asarray(spec.act_mask)

    def play(params: Params, obs: Float[Array, "B T N O"]) -> Float[Array, "B T N A"]:
        sequences = jnp.swapaxes(with_agent_number(obs, n), 1, 2)
        return action_mask * jnp.swapaxes(actor.unrolled(params, sequences), 1, 2)

    def q(
        params: Params, state: Float[Array, "B T S"], action: Float[Array, "B T M N A"]
    ) -> Float[Array, "E B T N"]:
        """Values for agent i where all agents act as in `action[..., i]`, or in its only one."""
        return critic.apply(params, state[..., None, :], jnp.eye(n), flat(action))

    actor_optimiser = optax.adam(cfg.policy_lr)
    critic_optimiser = optax.adam(cfg.critic_lr)
    q_of_agents = Network(critic.init, q)
    return RecurrentNets(actor, play, q_of_agents, actor_optimiser, critic_optimiser)


def policy(spec: Spec, cfg: Config) -> Algorithm:
    """Build the learner: one recurrent policy and central critics, shared by all agents."""
    nets = recurrent_networks(spec, cfg)
    normalise_obs = observation_normaliser(spec, cfg)
    normalise_state = state_normaliser(cfg)
    action_mask = jnp.asarray(spec.act_mask)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> RecurrentLearner:
        k_actor, k_critic = jax.random.split(key)
        actor = create(nets.tx_actor, nets.actor.init(k_actor), target=True)
        critic = create(nets.tx_q, nets.critic.init(k_critic), target=True)
        return RecurrentLearner(actor, critic)

    def batch(key: Key[Array, ""], state: State, data: Dataset) -> Window:
        return sample_windows(key, data, cfg.policy_batch, cfg.horizon)._replace(extra={})

    # line 1
    def update(
        key: Key[Array, ""], state: RecurrentLearner, past: Past, batch: Window
    ) -> tuple[RecurrentLearner, dict]:
        obs = normalise_obs(past, batch.obs)
        states = normalise_state(past, batch.state)
        count = transitions_known(batch)
        s = states[:, :-1]
        data_action = batch.action[:, :-1] * action_mask

        # --- critics: lines 2-4 ---
        next_action = nets.play(state.actor.target, obs)[:, 1:]
        next_q = nets.critic.apply(state.critic.target, states[:, 1:], next_action[:, :, None])
        y = window_target(batch, next_q.min(axis=0), cfg.gamma, cfg.reward, cfg.time_limit)

        def critic_loss(params):
            q = nets.critic.apply(params, s, data_action[:, :, None])
            error = mean_over_last(jnp.square(q - y), count)
            loss = 0.5 * error.sum()
            return loss, {"q_loss": error.sum(), "q_mean": mean_over_last(q, count).mean()}

        grads, critic_metrics = jax.grad(critic_loss, has_aux=True)(state.critic.params)
        critic = descend(nets.tx_q, state.critic, grads)

        # --- policy: lines 2, 5 and 6 ---
        def loss(params):
            action = nets.play(params, obs)[:, :-1]
            return policy_loss(cfg, nets, action_mask, critic.params, s, action, data_action, count)

        grads, policy_metrics = jax.grad(loss, has_aux=True)(state.actor.params)
        actor = descend(nets.tx_actor, state.actor, grads)

        # --- targets: line 7 ---
        learner = RecurrentLearner(polyak(actor, cfg.polyak), polyak(critic, cfg.polyak))
        return learner, critic_metrics | policy_metrics

    def act(key, state, past, memory, observation):
        inputs = with_agent_number(normalise_obs(past, observation.obs), spec.agents)
        memory, action = nets.actor.step(state.actor.params, memory, inputs)
        return action_mask * action, memory

    memory = jnp.zeros((spec.agents, cfg.policy_width))
    return Algorithm(init, batch, update, act, memory)


def policy_loss(
    cfg: Config,
    nets: RecurrentNets,
    action_mask: Float[Array, "N A"],
    critic_params: Params,
    state: Float[Array, "B H S"],
    action: Float[Array, "B H N A"],
    data_action: Float[Array, "B H N A"],
    count: Float[Array, "B H N"],
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The loss of line 6 at the policy's actions, and its metrics."""
    value_weight, clone_weight = 1.0, cfg.alpha
    if cfg.coefficient_on == "value":
        value_weight, clone_weight = cfg.alpha, 1.0

    # line 5
    others = data_action if cfg.others == "data" else jax.lax.stop_gradient(action)
    is_agent_i = jnp.eye(len(action_mask))[..., None] > 0
    joint = jnp.where(is_agent_i, action[:, :, None], others[:, :, None])
    q = nets.critic.apply(critic_params, state, joint).min(axis=0)

    # line 6
    scale = jax.lax.stop_gradient(mean_over_last(jnp.abs(q), count)) + 1e-8
    clone = mean_over_last(column_mean(jnp.square(action - data_action), action_mask), count)
    effort = mean_over_last(column_mean(jnp.square(action), action_mask), count)
    clone_term = clone_weight * clone
    value_term = value_weight * mean_over_last(q, count) / scale
    loss = clone_term - value_term + cfg.action_penalty * effort
    return loss, {"policy_loss": loss, "q_played": mean_over_last(q, count), "cloning_loss": clone}


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings, tasks or data that MADDPG+BC cannot train on."""
    check_continuous(spec, "Its policy follows dQ/da.")
    check_fields(cfg, CHOICES)
    check_transitions(data)


def health(spec: Spec, cfg: Config, algorithm: Algorithm) -> Health:
    """The central critics, against the returns of held-out episodes."""
    q = recurrent_networks(spec, cfg).critic.apply
    normalise_state = state_normaliser(cfg)

    def values(state, past, obs, env_state, action):
        s = normalise_state(past, env_state)
        return q(state.critic.params, s[None], action[None, :, None]).mean(axis=0)[0]

    raise_fields = ("policy_steps", "policy_batch", "critic_width")
    return critics.critic(values, cfg.gamma, cfg.reward, raise_fields)


pipeline = one_stage("maddpg-bc", policy, health=health)
MADDPG_BC = System(Config, check, as_is, pipeline)
