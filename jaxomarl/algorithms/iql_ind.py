"""MA-IQL: each agent's implicit Q-learning on its own observation, action and reward, with a critic of its own.

**Paper**. Kostrikov et al. 2022, "Offline Reinforcement Learning with Implicit Q-Learning", Algorithm 1, run by every
agent alone as in the tables of the field.

**Pseudo-code**. For every agent i:

    1   train Q_i(o_i, a_i) and V_i(o_i) by expectile regression                stage "critic-own" (stages/critic.py)
    2   for each gradient step on a batch of transitions:                       stage "policy" (stages/clone.py)
    3       w_i = min(exp(T (min_k Qbar_i^k(o_i, a_i) - V_i(o_i))), 100)
    4       theta_i <- step down mean w_i sum_dims (pi_i(o_i) - a_i)^2

**Differs**. The system `iql` has one critic of the joint action, and so one weight for all agents' actions: an agent is
then copied for what the team did. Here it answers for its own action, as seen from its own observation, where the
others are part of the weather; the name is formed as `brpo-ind`'s, with which it shares the critics' stage. Tables
that print "MA-IQL" mean either; ours has both, by name. Gradients are clipped, and the rate is held.
The policies are extracted after the critics and not beside them, which changes nothing for the critics.

**Checked**. tests/probes/test_iql_ind.py (weights of each agent's own; an agent is not copied for the other's luck),
tests/contract.
"""

import jax.numpy as jnp
from jaxtyping import Array

from jaxomarl.base import Algorithm, Batch, Dataset, Environment, Past, Spec, Stage, System
from jaxomarl.config import config, static, traced
from jaxomarl.networks.actors import actor
from jaxomarl.stages import clone, critic, decentralised


@config
class Config(decentralised.Base):
    """MA-IQL's settings."""

    normalise: bool = static(default=False)
    """z-score observations inside the networks."""
    gamma: float = traced(default=0.99, within="[0, 1]")
    chunk: int = static(default=1000)
    policy_steps: int = static(default=100_000, scaled="steps")
    """Gradient steps of the policies, which begin when the critics are finished."""
    policy_batch: int = static(default=512)
    policy_width: int = static(default=256, scaled="width")
    policy_lr: float = traced(default=3e-4, within="(0, inf)")
    critic_steps: int = static(default=500_000, scaled="steps")
    """Gradient steps of the critics."""
    critic_batch: int = static(default=512)
    """Transitions in a batch of the critics' updates."""
    critic_width: int = static(default=256, scaled="width")
    critic_lr: float = traced(default=3e-4, within="(0, inf)")
    critic_polyak: float = traced(default=0.005, within="(0, 1]")
    """Rate at which the critics' targets follow the critics."""
    critic_policy: bool = static(default=False)
    """Whether a policy is fitted next to each critic, to watch it; no later stage reads it."""
    expectile: float = traced(default=0.7, within="(0, 1)")
    """tau of the values' expectile regression: 0.5 is the mean, near 1 the maximum."""
    temperature: float = traced(default=3.0, within="[0, inf)")
    """T of the advantage weights min(exp(T u), 100); larger follows the critics more."""


def policy(spec: Spec, cfg: Config, own: critic.Critic) -> Algorithm:
    """The policies' stage."""
    net, mask = (
        actor(spec.obs_width, (cfg.policy_width,) * 2, spec.act_width),
        jnp.asarray(spec.act_mask),
    )

    def weigh(past: Past, batch: Batch) -> Array:  # line 3
        u = own.advantage(past, batch.obs, batch.state, batch.action * mask)
        return jnp.minimum(jnp.exp(cfg.temperature * u), 100.0)

    def loss(key, params, seen, w):  # line 4
        error = seen.mask * (net.apply(params, seen.obs) - seen.action)
        return jnp.mean(w * jnp.sum(error**2, axis=-1))

    play = lambda key, params, obs, mask: mask * net.apply(params, obs)
    return clone.behaviour(spec, cfg, net, loss, weigh, play)


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings, tasks or data that it cannot train on."""
    decentralised.check(spec, cfg, data, {**decentralised.CHOICES, "reward": ("own",)})


def pipeline(spec: Spec, cfg: Config, env: Environment | None = None) -> tuple[Stage, ...]:
    """Own critics -> policies."""
    own = critic.iql(spec, cfg, own=True)
    fields = (*critic.FIELDS, *(f for f in clone.FIELDS if f not in critic.FIELDS))
    return (
        Stage("critic-own", own.algorithm, cfg.critic_steps, cfg.chunk, cfg.every, critic.FIELDS),
        Stage(
            "policy",
            policy(spec, cfg, own),
            cfg.policy_steps,
            cfg.chunk,
            cfg.every,
            fields,
            owner="iql-ind",
        ),
    )


IQL_IND = System(Config, check, lambda spec, cfg, data: data, pipeline)
