"""MA-Diffusion-QL: each agent's diffusion policy, sampled in full, climbs its critics.

**Paper**. Wang et al. 2023, "Diffusion Policies as an Expressive Policy Class for Offline
Reinforcement Learning", Algorithm 1, run by every agent alone as in DOM2's tables.

**Pseudo-code**. For every agent i, on its own observation, action and reward:

    1   for each gradient step on a batch of transitions:     stage "policy", `update`
    2       a' ~ pibar(o'): the whole chain of K = 5 ancestral steps
    3       each Q^k: step down mean (Q^k(o, a) - r - gamma (1 - d) min_k Qbar^k(o', a'))^2
    4       a^0 ~ pi(o); (k, l) = (1, 2) or (2, 1) by a fair coin
    5       pi: step down mean (eps(alpha_t a + sigma_t z, t, o) - z)^2 / dims
                - eta mean Q^k(o, a^0) / sg[ mean |Q^l(o, a^0)| ],     t from {1/K .. 1}
    6       targets of critics and policy follow with polyak
    7   act: 50 candidates a_j ~ pi(o), one of them with chance softmax_j(min_k Qbar^k(o, a_j))

**Differs**.

- DOM2 is this system with conservative critics, a deterministic chain and the data's values in the
  divisor. EDP is this system with one call of the network in place of line 4's chain.
- The authors' code moves the policy's average in every fifth step, and only after 1000 steps. Here
  it follows every step, as the critics' targets do.
- The authors report the better of two rules for choosing a checkpoint. We report the last one.
- The multi-agent tables do not print gamma, the batch and the gradient clip. We take OMAR's.

**Checked**. tests/probes/test_diffusion_ql.py (the gradient of Q reaches the policy, the other head
divides, eta = 0 clones both modes and eta > 0 takes the better), tests/contract.
"""

from functools import partial

import jax
from jaxtyping import Array, Key

from jaxomarl.base import Algorithm, Dataset, Spec, System, one_stage
from jaxomarl.config import config, static, traced
from jaxomarl.data.dataset import as_is
from jaxomarl.diffusion.samplers import ddpm
from jaxomarl.diffusion.schedules import vp_discrete
from jaxomarl.losses.weighting import normalised_value
from jaxomarl.networks.mlp import mish
from jaxomarl.policies.diffusion import (
    Diffuser,
    agent_times_and_noise,
    denoising_loss,
    noise_network,
    player,
    sample,
)
from jaxomarl.stages import decentralised
from jaxomarl.stages.decentralised import ActorCritic, AgentBatch, Stepped, critic_step, policy_step


@config
class Config(decentralised.Diffusion, decentralised.Config):
    """MA-Diffusion-QL's settings."""

    eta: float = traced(default=1.0, within="[0, inf)")
    """Weight of the normalised value in the policy's loss; 0 clones the behaviour."""
    levels: int = static(default=5)
    """K: steps of the sampler, and noise levels that are trained."""
    candidates: int = static(default=50)
    polyak: float = traced(default=0.005, within="(0, 1]")


def policy(spec: Spec, cfg: Config) -> Algorithm:
    """Build the learner: each agent's diffusion policy and twin critics."""
    diffuser = Diffuser(noise_network(spec, cfg.policy_width), vp_discrete(), ddpm, cfg.levels)
    nets = decentralised.agent_networks(spec, cfg, diffuser.net, activation=mish)

    # line 1, for one agent
    def step(key: Key[Array, ""], state: ActorCritic, batch: AgentBatch) -> Stepped:
        k_next, k_noise, k_action, k_coin = jax.random.split(key, 4)

        # --- critics: lines 2 and 3 ---
        next_action = sample(diffuser, k_next, state.actor.target, batch.next_obs, batch.mask)
        state, critic_metrics = critic_step(cfg, nets, state, batch, next_action)

        # --- policy: lines 4 and 5 ---
        t, z = agent_times_and_noise(k_noise, batch, cfg.levels)
        head = jax.random.bernoulli(k_coin).astype(int)

        def loss(params):
            fit = denoising_loss(diffuser, params, batch, t, z) / batch.mask.sum()
            action = sample(diffuser, k_action, params, batch.obs, batch.mask)
            q = nets.q.apply(state.critic.params, batch.obs, action)
            value = normalised_value(q[head], cfg.eta, q[1 - head])
            return fit + value, {"denoising_loss": fit, "q_played": q.mean()}

        # lines 5 and 6
        return policy_step(cfg, nets, state, loss, critic_metrics)

    # line 7
    play = player(diffuser, nets.q, cfg.candidates)
    return decentralised.actor_critic_learner(spec, cfg, nets, step, play)


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings, tasks or data that it cannot train on."""
    decentralised.check(spec, cfg, data, decentralised.CHOICES)


health = partial(decentralised.actor_critic_health, weight="eta", activation=mish)
pipeline = one_stage("diffusion-ql", policy, health=health)
DIFFUSION_QL = System(Config, check, as_is, pipeline)
