"""MA-TD3+BC: each agent's TD3, whose policy also imitates the actions in the data.

**Paper**. Fujimoto and Gu 2021, "A Minimalist Approach to Offline Reinforcement Learning", its
equations 3-5, run by every agent alone as in Pan et al. 2022 (OMAR) and DOM2's tables.

**Pseudo-code**. For every agent i, on its own observation, action and reward:

    1   for each gradient step on a batch of transitions:     stage "policy", `update`
    2       a' = clip(pibar(o') + clip(N(0, 0.2^2), +-0.5))
    3       each Q^k: step down mean (Q^k(o, a) - r - gamma (1 - d) min_k Qbar^k(o', a'))^2
    4       every second step (`policy_delay`):
    5           pi: step down -alpha mean Q^1(o, pi(o)) / sg[ mean |Q^1(o, pi(o))| ]
                    + mean (pi(o) - a)^2
    6           targets follow with polyak

**Differs**.

- We hold the divisor constant (sg). The normaliser of OG-MARL, on which others build, does not:
  wherever the batch's values share a sign, its policy gradient of Q vanishes.
- A larger `alpha` is more reinforcement learning. Some codes call it the coefficient of cloning.
- The delayed step is computed each time, and dropped every second time. Under vmap, a branch on a
  counter would run both ways.
- One batch serves all agents, whose networks are separate.

**Checked**. tests/probes/test_td3_bc.py (the gradient under values of one sign and scaled values;
delay and targets; better than a clone), tests/contract.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jaxomarl.base import Algorithm, Dataset, Spec, System, one_stage
from jaxomarl.config import config, static, traced
from jaxomarl.data.dataset import as_is
from jaxomarl.losses.weighting import normalised_value
from jaxomarl.stages import decentralised
from jaxomarl.stages.decentralised import ActorCritic, AgentBatch, Stepped, critic_step, policy_step


@config
class Config(decentralised.Config):
    """MA-TD3+BC's settings."""

    alpha: float = traced(default=2.5, within="[0, inf)")
    """Weight of the normalised value; larger follows the critic more and the data less."""
    policy_delay: int = static(default=2)
    """Critic updates for one update of the policies and the targets."""
    target_noise: float = traced(default=0.2, within="[0, inf)")
    """Standard deviation of the noise on the target policies' actions."""
    target_clip: float = traced(default=0.5, within="[0, inf)")
    """Largest absolute value of the noise on the target policies' actions."""


def policy(spec: Spec, cfg: Config) -> Algorithm:
    """Build the learner: each agent's policy and twin critics."""
    nets = decentralised.agent_networks(spec, cfg)

    # line 1, for one agent
    def step(key: Key[Array, ""], state: ActorCritic, batch: AgentBatch) -> Stepped:
        def play(params, obs):
            return batch.mask * nets.actor.apply(params, obs)

        # --- critics: lines 2 and 3 ---
        noise = cfg.target_noise * batch.mask * jax.random.normal(key, batch.action.shape)
        noise = jnp.clip(noise, -cfg.target_clip, cfg.target_clip)
        next_action = jnp.clip(play(state.actor.target, batch.next_obs) + noise, -1.0, 1.0)
        state, critic_metrics = critic_step(cfg, nets, state, batch, next_action)

        # --- policy: line 5 ---
        def loss(params):
            action = play(params, batch.obs)
            q = nets.q.apply(state.critic.params, batch.obs, action)[0]
            error = decentralised.effort(action - batch.action, batch.mask)
            value = normalised_value(q, cfg.alpha, q)
            return value + error, {"q_played": q.mean(), "cloning_loss": error}

        # lines 5 and 6
        moved, metrics = policy_step(cfg, nets, state, loss, critic_metrics)

        # --- the delay: line 4 ---
        due = decentralised.due(cfg.policy_delay, state.critic)
        return decentralised.moved_where(due, moved, state), metrics

    return decentralised.actor_critic_learner(spec, cfg, nets, step, nets.play)


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings, tasks or data that MA-TD3+BC cannot train on."""
    decentralised.check(spec, cfg, data, decentralised.CHOICES)


health = partial(decentralised.actor_critic_health, weight="alpha")
pipeline = one_stage("td3-bc", policy, health=health)
TD3_BC = System(Config, check, as_is, pipeline)
