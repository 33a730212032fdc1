"""MA-ICQ: each agent learns the values of the data's actions, and copies the better ones.

**Paper**. Yang et al. 2021, "Believe What You See: Implicit Constraint Approach for Offline
Multi-Agent Reinforcement Learning", its implicit constraint, run by every agent alone as in Pan et
al. 2022 (OMAR).

**Pseudo-code**. For every agent i, on its own observation, action and reward; a' is the action that
the data took next:

    1   for each gradient step on a batch of transitions:     stage "values", `step`
    2       rho = n softmax_batch(min_k Qbar^k(o', a') / beta_T), over n transitions that continue
    3       each Q^k: step down mean (Q^k(o, a) - r - gamma (1 - d) rho min_k Qbar^k(o', a'))^2
    4       V: step down mean (V(o) - min_k Qbar^k(o, a))^2
    5       targets follow with polyak
    6   for each gradient step on a batch of transitions:     stage "policy" (stages/clone.py)
    7       w = B softmax_batch((min_k Qbar^k(o, a) - V(o)) / beta_A)
    8       pi: step down -mean w log pi(a | o)

**Differs**.

- Three systems are called MA-ICQ. The paper's mixes critics of discrete actions through the state,
  and OG-MARL's is recurrent. The particle tables have independent critics in all their rows. Ours
  is the last one: own critic, own reward (`reward="team"` for the team's).
- No action outside the data is ever valued. The paper's code asks Q of the policy's own actions,
  and its single-agent code uses the TD error, which is noise once Q is learned. Line 7 subtracts a
  V that is fitted on the data instead.
- The softmax is over the batch, in place of the normaliser of each state. So it is in the released
  codes.
- Temperatures count standard deviations in the batch, so one number serves rewards of any size, and
  rho cannot grow with Q. The released 0.1 and 1000 belong to returns of up to 20.
- An episode that a time limit cuts has no a'. `prepare` leaves those transitions out. With
  `time_limit="terminal"` they end at r.
- The values are finished before the policies begin. The values do not depend on the policies, so
  this changes nothing for them.

**Checked**. tests/probes/test_icq.py (weights sum to one and vanish off the data, limits of both
temperatures, steps against a separate implementation, the better of two modes), tests/contract.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Environment, Past, Spec, Stage, System, refuse
from jaxomarl.config import config, traced
from jaxomarl.health import behaviour
from jaxomarl.losses.weighting import importance
from jaxomarl.networks.critics import value
from jaxomarl.networks.inputs import observation_normaliser
from jaxomarl.optim import Net, create, descend, polyak
from jaxomarl.stages import clone, critic, decentralised
from jaxomarl.stages.decentralised import AgentBatch, agent_networks, critic_step

VALUES = (*decentralised.IN_SAMPLE_FIELDS, "target_temperature")
"""The settings that reach the values' stage."""


@config
class Config(decentralised.InSample):
    """MA-ICQ's settings."""

    temperature: float = traced(default=1.0, within="(0, inf)")
    """beta_A: temperature of the policies' weights, in deviations of the advantage; larger is
    nearer to a clone."""
    target_temperature: float = traced(default=100.0, within="(0, inf)")
    """beta_T: temperature of the targets' weights, in deviations of the next values; larger is
    nearer to SARSA."""


class Valued(NamedTuple):
    """Twin action values with their targets, and state values of the data; both lead with N."""

    critic: Net
    v: Net


def in_sample_values(spec: Spec, cfg: Config) -> Algorithm:
    """Build the first stage: each agent's values of what the data did (lines 1 to 5)."""
    nets = agent_networks(spec, cfg)
    v_net = value(spec.obs_width, (cfg.critic_width,) * 2)

    def first_state(key: Key[Array, ""]) -> Valued:
        k_q, k_v = jax.random.split(key)
        critic = create(nets.tx_q, nets.q.init(k_q), target=True)
        return Valued(critic, create(nets.tx_q, v_net.init(k_v)))

    # line 1, for one agent
    def step(
        key: Key[Array, ""], state: Valued, batch: AgentBatch, next_action: Float[Array, "B A"]
    ) -> tuple[Valued, dict]:
        def target_q(obs, action):
            return nets.q.apply(state.critic.target, obs, action).min(axis=0)

        # --- critics: lines 2 and 3 ---
        next_q = target_q(batch.next_obs, next_action)
        rho = importance(next_q, cfg.target_temperature, jnp.sign(batch.go_on))
        weighted = batch._replace(go_on=rho * batch.go_on)
        moved, metrics = critic_step(cfg, nets, state, weighted, next_action)

        # --- state value: line 4 ---
        q = target_q(batch.obs, batch.action)

        def v_loss(params):
            return jnp.mean((v_net.apply(params, batch.obs) - q) ** 2)

        loss_v, grads = jax.value_and_grad(v_loss)(state.v.params)
        metrics |= {"v_loss": loss_v, "largest_rho": rho.max()}

        # --- targets: line 5 ---
        critic = polyak(moved.critic, cfg.polyak)
        return Valued(critic, descend(nets.tx_q, state.v, grads)), metrics

    def next_actions(past: Past, batch: Batch) -> Float[Array, "N B A"]:
        return jnp.moveaxis(batch.next_action * spec.act_mask, 1, 0)

    return decentralised.independent_learners(
        spec, cfg, first_state, step, None, next_actions, cfg.critic_batch
    )


def policy(spec: Spec, cfg: Config) -> Algorithm:
    """Build the second stage: each agent's weighted behaviour cloning (lines 6 to 8)."""
    q_net = agent_networks(spec, cfg).q
    v_net = value(spec.obs_width, (cfg.critic_width,) * 2)
    normalise_obs = observation_normaliser(spec, cfg)

    def advantage(
        values: Valued, obs: Float[Array, "B O"], action: Float[Array, "B A"]
    ) -> Float[Array, " B"]:
        q = q_net.apply(values.critic.target, obs, action).min(axis=0)
        return q - v_net.apply(values.v.params, obs)

    # line 7
    def weigh(past: Past, batch: Batch) -> Float[Array, "B N"]:
        of_all = jax.vmap(advantage, in_axes=(0, 1, 1), out_axes=1)
        obs = normalise_obs(past, batch.obs)
        advantages = of_all(past["values"], obs, batch.action * spec.act_mask)
        if spec.discrete:
            return importance(advantages, cfg.temperature, batch.alive)
        return importance(advantages, cfg.temperature)

    # line 8
    return clone.likelihood_cloning_learner(spec, cfg, weigh)


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings, tasks or data that MA-ICQ cannot train on."""
    decentralised.check(spec, cfg, data, decentralised.CHOICES, discrete=True)
    if data is not None and not len(prepare(spec, cfg, data).starts):
        way = "All episodes are one step and a time limit; "
        way += "--cfg.time-limit terminal learns from them."
        raise refuse("--data", "a transition with a next action", 0, way)


def prepare(spec: Spec, cfg: Config, data: Dataset) -> Dataset:
    """Leave out the transitions that a time limit cuts, unless a time limit ends the episode."""
    if cfg.time_limit == "terminal":
        return data
    starts = np.asarray(data.starts)
    last = np.asarray(data.last)[starts]
    done = np.asarray(data.done)[starts]
    usable = starts[(last == 0) | (done > 0)]
    return dataclasses.replace(data, starts=jnp.asarray(usable))


def pipeline(spec: Spec, cfg: Config, env: Environment | None = None) -> tuple[Stage, ...]:
    """Two stages: values -> policies."""
    learner = in_sample_values(spec, cfg)
    compared = decentralised.agent_critics_health(spec, cfg, critic.RAISE)
    values_stage = Stage.from_config(
        cfg, "values", learner, cfg.critic_steps, VALUES, "icq", compared
    )
    final = policy(spec, cfg)
    policy_stage = Stage.from_config(
        cfg, "policy", final, cfg.policy_steps, owner="icq", health=behaviour.policy(spec, final)
    )
    return values_stage, policy_stage


ICQ = System(Config, check, prepare, pipeline)
