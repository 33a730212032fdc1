"""IQL: implicit Q-learning with one joint critic, and policies by advantage-weighted regression.

**Paper**. Kostrikov et al. 2022, "Offline Reinforcement Learning with Implicit Q-Learning",
Algorithm 1; as the OMSD authors pretrain with it (their appendix D.4).

**Pseudo-code**.

    1   train Q_tot(s, a) and V(s) by expectile regression    stage "critic" (stages/critic.py)
    2   for each gradient step on a batch of transitions:     stage "policy", `update`
    3       w = min(exp(T (min_k Qbar^k(s, a) - V(s))), 100)
    4       theta_i <- step down mean w sum_dims (pi_i(o_i) - a_i)^2, for all agents i at once
                discrete actions: down -mean w log pi_i(a_i | o_i), over the legal actions

**Differs**.

- The paper trains policies and critic side by side. Here the policies follow the finished critic:
  the critic does not depend on them, and it is shared with OMSD.
- Each agent acts on its own observation (`execution="separate"`). The authors' monitoring policy
  sees the state and commands all agents: `execution="joint"`, which is centralised.
- Discrete policies play their likeliest legal action, and rows of dead agents do not count for
  them. The critic takes one-hot actions as its input.
- The advantage is the team's. `iql-ind` has one for each agent.

**Checked**. tests/reference/test_iql.py (the critic), tests/probes/test_bc_iql.py (weights and
their cap; large T prefers the better mode), tests/contract.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Environment, Past, Spec, Stage, System
from jaxomarl.config import check_fields, config, static
from jaxomarl.data.dataset import as_is, check_transitions
from jaxomarl.losses.imitation import imitation_loss
from jaxomarl.losses.td import TIME_LIMITS
from jaxomarl.networks.actors import acting_network, action_of_output
from jaxomarl.networks.agents import separate
from jaxomarl.networks.inputs import flat, observation_normaliser
from jaxomarl.networks.mlp import Network
from jaxomarl.optim import OPTIMISERS, descend
from jaxomarl.stages import clone, critic
from jaxomarl.stages.clone import Policies, policies_learner, policy_optimiser

CHOICES = {
    "execution": ("separate", "joint"),
    "reward": ("team", "first"),
    "time_limit": TIME_LIMITS,
    "policy_optimiser": OPTIMISERS,
}
FIELDS = (*clone.POLICY_FIELDS, "execution")
"""The settings that reach the policies' stage, next to those of the critic."""
LARGEST_WEIGHT = 100.0


@config
class Config(critic.Config, clone.Config):
    """IQL's settings; the critic's have OMSD's names and defaults, so that both share one."""

    execution: str = static(default="separate")
    """Inputs of the policy. separate: each agent's own observation. joint: all observations, for
    one joint policy."""
    policy_optimiser: str = static(default="adam")
    """Optimiser of the policy: adam, or sgd."""


def team_actor(spec: Spec, cfg: Config) -> Network:
    """Build the policies of all agents [..., N, O] -> [..., N, A], or one joint policy."""
    hidden = (cfg.policy_width,) * 2
    if cfg.execution == "separate":
        one = acting_network(spec, spec.obs_width, hidden, spec.act_width)
        return separate(one, spec.agents)
    columns = spec.agents * spec.act_width
    joint = acting_network(spec, spec.agents * spec.obs_width, hidden, columns)

    def apply(params, obs):
        return joint.apply(params, flat(obs)).reshape(*obs.shape[:-1], spec.act_width)

    return Network(joint.init, apply)


def policy(spec: Spec, cfg: Config, joint_critic: critic.Critic) -> Algorithm:
    """Build the policies' stage from a trained critic."""
    actors = team_actor(spec, cfg)
    optimiser = policy_optimiser(cfg)
    action_mask = jnp.asarray(spec.act_mask)
    normalise_obs = observation_normaliser(spec, cfg)

    def outputs(params, past: Past, obs: Array) -> Array:
        return actors.apply(params, normalise_obs(past, obs))

    # line 2
    def update(
        key: Key[Array, ""], state: Policies, past: Past, batch: Batch
    ) -> tuple[Policies, dict]:
        # line 3
        action = batch.action * action_mask
        advantage = joint_critic.advantage(past, batch.obs, batch.state, action)
        w = jnp.minimum(jnp.exp(cfg.temperature * advantage), LARGEST_WEIGHT)

        # line 4
        def loss(params):
            return imitation_loss(spec, outputs(params, past, batch.obs), batch, w)

        value, grads = jax.value_and_grad(loss)(state.actor.params)
        metrics = {"policy_loss": value, "weight": w.mean()}
        metrics["capped"] = jnp.mean(w >= LARGEST_WEIGHT)
        return Policies(descend(optimiser, state.actor, grads)), metrics

    def act(key, state, past, memory, observation):
        out = outputs(state.actor.params, past, observation.obs)
        return action_of_output(spec, out, observation.available), memory

    joint = cfg.execution == "joint"
    return policies_learner(actors, optimiser, cfg.policy_batch, update, act, centralised=joint)


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings or data that IQL cannot train on."""
    check_fields(cfg, CHOICES)
    critic.check_unwatched(spec, cfg)
    check_transitions(data)


def pipeline(spec: Spec, cfg: Config, env: Environment | None = None) -> tuple[Stage, ...]:
    """Two stages: critic -> policies."""
    # line 1
    joint_critic = critic.iql(spec, cfg)
    critic_stage = critic.critic_stage(cfg, joint_critic)
    final = policy(spec, cfg, joint_critic)
    return critic_stage, critic.policy_stage(spec, cfg, final, FIELDS, "iql")


IQL = System(Config, check, as_is, pipeline)
