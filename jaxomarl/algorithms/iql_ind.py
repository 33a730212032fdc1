"""MA-IQL: each agent's implicit Q-learning on its own observation, action and reward.

**Paper**. Kostrikov et al. 2022, "Offline Reinforcement Learning with Implicit Q-Learning",
Algorithm 1, run by every agent alone as in the tables of the field.

**Pseudo-code**. For every agent i:

    1   train Q_i(o_i, a_i) and V_i(o_i) by expectile regression
                                                              stage "critic-own" (stages/critic.py)
    2   for each gradient step on a batch of transitions:     stage "policy" (stages/clone.py)
    3       w_i = min(exp(T (min_k Qbar_i^k(o_i, a_i) - V_i(o_i))), 100)
    4       theta_i <- step down mean w_i sum_dims (pi_i(o_i) - a_i)^2
                discrete actions: down -mean w_i log pi_i(a_i | o_i), over the legal actions

**Differs**.

- The system `iql` has one critic of the joint action and so one weight for all agents' actions: an
  agent is copied for what the team did. Here each agent answers for its own action, and the others
  are part of its environment.
- Tables that print "MA-IQL" mean either system. The name `iql-ind` is formed as `brpo-ind`, with
  which it shares the critics' stage.
- Discrete policies play their likeliest legal action, and rows of dead agents do not count for
  them.
- Gradients are clipped, and the learning rate is constant.
- The policies follow the finished critics, which do not depend on them.

**Checked**. tests/probes/test_iql_ind.py (weights of each agent's own; an agent is not copied for
the others' luck), tests/contract.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxomarl.base import Algorithm, Batch, Dataset, Environment, Past, Spec, Stage, System
from jaxomarl.config import config, static, traced
from jaxomarl.data.dataset import as_is
from jaxomarl.networks.actors import actor
from jaxomarl.stages import clone, critic, decentralised

LARGEST_WEIGHT = 100.0


@config
class Config(decentralised.Wide):
    """MA-IQL's settings."""

    normalise: bool = static(default=False)
    """Whether the networks' observations are normalised to mean 0 and standard deviation 1."""
    gamma: float = traced(default=0.99, within="[0, 1]")
    chunk: int = static(default=1000)
    policy_steps: int = static(default=100_000, scaled="steps")
    """Gradient steps of the policies, which begin when the critics are finished."""
    policy_batch: int = static(default=512)
    critic_steps: int = static(default=500_000, scaled="steps")
    """Gradient steps of the critics."""
    critic_batch: int = static(default=512)
    """Transitions in a batch of the critics' updates."""
    critic_polyak: float = traced(default=0.005, within="(0, 1]")
    """Rate at which the critics' targets follow the critics."""
    critic_policy: bool = static(default=False)
    """Whether a policy is fitted next to each critic, to watch it; no later stage reads it."""
    expectile: float = traced(default=0.7, within="(0, 1)")
    """tau of the values' expectile regression: 0.5 is the mean, near 1 the maximum."""
    temperature: float = traced(default=3.0, within="[0, inf)")
    """T of the advantage weights min(exp(T u), 100); larger follows the critics more."""


def policy(spec: Spec, cfg: Config, own_critics: critic.Critic) -> Algorithm:
    """Build the policies' stage from trained critics."""
    net = actor(spec.obs_width, (cfg.policy_width,) * 2, spec.act_width)
    action_mask = jnp.asarray(spec.act_mask)

    # line 3
    def weigh(past: Past, batch: Batch) -> Float[Array, "B N"]:
        action = batch.action * action_mask
        advantage = own_critics.advantage(past, batch.obs, batch.state, action)
        return jnp.minimum(jnp.exp(cfg.temperature * advantage), LARGEST_WEIGHT)

    # line 4, for one agent
    def loss(key, params, batch, w):
        error = batch.mask * (net.apply(params, batch.obs) - batch.action)
        return jnp.mean(w * jnp.sum(error**2, axis=-1))

    def play(key, params, obs, mask):
        return mask * net.apply(params, obs)

    if spec.discrete:
        return clone.categorical_cloning_learner(spec, cfg, weigh)
    return clone.cloning_learner(spec, cfg, net, loss, weigh, play)


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings, tasks or data that MA-IQL cannot train on."""
    choices = {**decentralised.CHOICES, "reward": ("own",)}
    decentralised.check(spec, cfg, data, choices, discrete=True)
    critic.check_unwatched(spec, cfg)


def pipeline(spec: Spec, cfg: Config, env: Environment | None = None) -> tuple[Stage, ...]:
    """Two stages: own critics -> policies."""
    # line 1
    own_critics = critic.iql(spec, cfg, own=True)
    critic_stage = critic.critic_stage(cfg, own_critics, own=True)
    final = policy(spec, cfg, own_critics)
    fields = tuple(name for name in clone.FIELDS if name not in critic.FIELDS)
    return critic_stage, critic.policy_stage(spec, cfg, final, fields, "iql-ind")


IQL_IND = System(Config, check, as_is, pipeline)
