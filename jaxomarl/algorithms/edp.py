"""MA-EDP: each agent's diffusion policy learns by one network call and acts by a few ODE steps.

**Paper**. Kang et al. 2023, "Efficient Diffusion Policies for Offline Reinforcement Learning", its
action approximation under TD3's critics, run by every agent alone as in DOM2's tables.

**Pseudo-code**. For every agent i, on its own observation, action and reward:

    1   for each gradient step on a batch of transitions:     stage "policy", `update`
    2       a' ~ pibar(o') by the sampler
    3       each Q^k: step down mean (Q^k(o, a) - r - gamma (1 - d) min_k Qbar^k(o', a'))^2
    4       x = alpha_t a + sigma_t z, t ~ U(1e-3, 1), e = eps(x, t, o)
    5       ahat = clip((x - sigma_t e) / alpha_t)            one call, not a chain
    6       pi: step down mean |e - z|^2 - eta mean Q^1(o, ahat) / sg[ mean |Q^1(o, ahat)| ]
    7       targets of critics and policy follow with polyak
    8   act: candidates a_j by the sampler, one of them with chance softmax_j(min_k Qbar^k(o, a_j))

The sampler is DPM-Solver, or with `sampler="ddpm"` the ancestral chain: the two rows of the
multi-agent tables.

**Differs**.

- Where diffusion-ql runs its chain, line 5 takes one step from the data's noised action. Near t = 1
  that action is noise divided by alpha, and the clip keeps it in the box. `t_max` leaves the value
  out beyond a time.
- DPM-Solver is of the first order here, of the second in the paper.
- Times are continuous, so the sampler may have any number of steps. The paper has 1000 levels.
- The divisor is that of Q^1 itself. The paper does not print which head is taken for many agents.
- The multi-agent tables do not print gamma, the batch and the gradient clip. We take OMAR's.

**Checked**. tests/probes/test_edp.py (line 5 against the sampler under an exact score; Q's gradient
by one call; clones and the better mode), tests/contract.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Dataset, Schedule, Spec, System, one_stage
from jaxomarl.config import config, static, traced
from jaxomarl.data.dataset import as_is
from jaxomarl.diffusion.losses import eps_loss
from jaxomarl.diffusion.parameterise import noised, x0_from_eps
from jaxomarl.diffusion.samplers import ddpm, dpm_solver
from jaxomarl.diffusion.schedules import vp
from jaxomarl.losses.weighting import normalised_value
from jaxomarl.networks.mlp import mish
from jaxomarl.policies.diffusion import (
    Diffuser,
    agent_times_and_noise,
    noise_network,
    player,
    sample,
)
from jaxomarl.stages import decentralised
from jaxomarl.stages.decentralised import ActorCritic, AgentBatch, Stepped, critic_step, policy_step

SAMPLERS = {"dpm": dpm_solver, "ddpm": ddpm}


@config
class Config(decentralised.Diffusion, decentralised.Config):
    """MA-EDP's settings."""

    eta: float = traced(default=2.0, within="[0, inf)")
    """Weight of the normalised value in the policy's loss; 0 clones the behaviour."""
    sampler: str = static(default="dpm")
    """How actions are sampled. dpm: DPM-Solver, a few deterministic steps. ddpm: ancestral steps,
    for more levels."""
    t_max: float = traced(default=1.0, within="(0, 1]")
    """Latest diffusion time whose one-step action is valued."""
    polyak: float = traced(default=0.005, within="(0, 1]")


def one_step(
    schedule: Schedule,
    x: Float[Array, "B A"],
    t: Float[Array, " B"],
    e: Float[Array, "B A"],
    mask: Float[Array, " A"],
) -> Float[Array, "B A"]:
    """Line 5: the clean action that belongs to the noise `e` in `x`, clipped to the box."""
    return mask * jnp.clip(x0_from_eps(schedule, x, t, e), -1.0, 1.0)


def policy(spec: Spec, cfg: Config) -> Algorithm:
    """Build the learner: each agent's diffusion policy and twin critics."""
    net = noise_network(spec, cfg.policy_width)
    diffuser = Diffuser(net, vp(), SAMPLERS[cfg.sampler], cfg.levels)
    nets = decentralised.agent_networks(spec, cfg, diffuser.net, activation=mish)
    schedule = diffuser.schedule

    # line 1, for one agent
    def step(key: Key[Array, ""], state: ActorCritic, batch: AgentBatch) -> Stepped:
        k_next, k_noise = jax.random.split(key)

        # --- critics: lines 2 and 3 ---
        next_action = sample(diffuser, k_next, state.actor.target, batch.next_obs, batch.mask)
        state, critic_metrics = critic_step(cfg, nets, state, batch, next_action)

        # --- policy: lines 4-6 ---
        t, z = agent_times_and_noise(k_noise, batch)
        x = noised(schedule, batch.action, t, z)

        def loss(params):
            e = diffuser.net.apply(params, x, t, batch.obs)
            fit = eps_loss(lambda *_: e, schedule, batch.action, t, z, batch.mask)
            action = one_step(schedule, x, t, e, batch.mask)
            valued = t <= cfg.t_max
            q = nets.q.apply(state.critic.params, batch.obs, action)[0]
            q = jnp.where(valued, q, 0.0)
            value = normalised_value(q, cfg.eta, q)
            return fit + value, {"denoising_loss": fit, "q_played": q.mean()}

        # lines 6 and 7
        return policy_step(cfg, nets, state, loss, critic_metrics)

    # line 8
    play = player(diffuser, nets.q, cfg.candidates)
    return decentralised.actor_critic_learner(spec, cfg, nets, step, play)


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings, tasks or data that MA-EDP cannot train on."""
    decentralised.check(spec, cfg, data, {**decentralised.CHOICES, "sampler": tuple(SAMPLERS)})


health = partial(decentralised.actor_critic_health, weight="eta", activation=mish)
pipeline = one_stage("edp", policy, health=health)
EDP = System(Config, check, as_is, pipeline)
