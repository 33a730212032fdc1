"""MA-EDP: each agent's diffusion policy, improved through one call of its network and played by a few steps of ODE.

**Paper**. Kang et al. 2023, "Efficient Diffusion Policies for Offline Reinforcement Learning", its action
approximation under TD3's critics, run by every agent alone as in DOM2's tables.

**Pseudo-code**. For every agent i, on its own observation, action and reward:

    1   for each gradient step on a batch of transitions:                       stage "policy", `update`
    2       a' ~ pibar(o') by the sampler
    3       each Q^k: step down mean (Q^k(o, a) - r - gamma (1 - d) min_k Qbar^k(o', a'))^2
    4       x = alpha_t a + sigma_t z, t ~ U(1e-3, 1), e = eps(x, t, o)
    5       ahat = clip((x - sigma_t e) / alpha_t)                               one call, not a chain
    6       pi: step down mean |e - z|^2 - eta mean Q^1(o, ahat) / sg[ mean |Q^1(o, ahat)| ]
    7       targets of critics and policy follow with polyak
    8   act: candidates a_j by the sampler, one of them with chance softmax_j(min_k Qbar^k(o, a_j))

The sampler is DPM-Solver, or with `sampler="ddpm"` the ancestral chain: the two rows of the multi-agent tables.

**Differs**. Where diffusion-ql runs its chain, line 5 makes the action of the loss from the data's own, noised. Near
t = 1 it is noise over alpha, which the clip holds in the box; `t_max` leaves the value out beyond a time. DPM-Solver is
of the first order here and the paper's of the second. Times are continuous, so that the 15 steps of the sampler need
not divide the levels trained; the paper counts 1000 of them. The divisor is Q^1's own, and which head the authors draw
is not printed for many agents. What else those tables do not print (gamma, batch, clip) is OMAR's.

**Checked**. tests/probes/test_edp.py (line 5 against the sampler under an exact score; Q's gradient by one call; clones
and the better mode), tests/contract.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Dataset, Environment, Schedule, Spec, Stage, System
from jaxomarl.config import config, static, traced
from jaxomarl.diffusion.losses import eps_loss
from jaxomarl.diffusion.parameterise import noised, x0_from_eps
from jaxomarl.diffusion.samplers import ddpm, dpm_solver
from jaxomarl.diffusion.schedules import vp
from jaxomarl.losses.weighting import normalised_value
from jaxomarl.networks.mlp import mish
from jaxomarl.policies.diffusion import Diffuser, noise_network, player, sample, times_and_noise
from jaxomarl.stages import decentralised
from jaxomarl.stages.decentralised import AgentBatch, Learner, critic_step, networks, policy_step

SAMPLERS = {"dpm": dpm_solver, "ddpm": ddpm}


@config
class Config(decentralised.Diffusion, decentralised.Config):
    """MA-EDP's settings."""

    eta: float = traced(default=2.0, within="[0, inf)")
    """Weight of the normalised value in the policy's loss; 0 clones the behaviour."""
    sampler: str = static(default="dpm")
    """How actions are sampled. dpm: DPM-Solver, a few deterministic steps. ddpm: ancestral steps, for more levels."""
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
    """Line 5: the clean action that noise `e` in `x` speaks of, held in the box."""
    return mask * jnp.clip(x0_from_eps(schedule, x, t, e), -1.0, 1.0)


def policy(spec: Spec, cfg: Config) -> Algorithm:
    """The algorithm."""
    diffuser = Diffuser(
        noise_network(spec, cfg.policy_width), vp(), SAMPLERS[cfg.sampler], cfg.levels
    )
    nets = networks(spec, cfg, diffuser.net, activation=mish)

    # line 1, for one agent
    def step(
        key: Key[Array, ""], state: Learner, batch: AgentBatch
    ) -> tuple[Learner, dict[str, Array]]:
        k_after, k_noise = jax.random.split(key)
        after = sample(diffuser, k_after, state.actor.target, batch.next_obs, batch.mask)  # line 2
        state, judged = critic_step(cfg, nets, state, batch, after)  # line 3
        t, z = times_and_noise(k_noise, batch)

        x = noised(diffuser.schedule, batch.action, t, z)

        def loss(params):  # lines 4-6
            e = diffuser.net.apply(params, x, t, batch.obs)
            clone = eps_loss(lambda *_: e, diffuser.schedule, batch.action, t, z, batch.mask)
            ahat = one_step(diffuser.schedule, x, t, e, batch.mask)
            q = jnp.where(
                t <= cfg.t_max, nets.q.apply(state.critic.params, batch.obs, ahat)[0], 0.0
            )
            return clone + normalised_value(q, cfg.eta, q), {
                "denoising_loss": clone,
                "q_played": q.mean(),
            }

        state, metrics = policy_step(cfg, nets, state, loss)  # lines 6 and 7
        return state, judged | metrics

    return decentralised.learner(
        spec, cfg, nets, step, player(diffuser, nets.q, cfg.candidates)
    )  # line 8


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings, tasks or data that it cannot train on."""
    decentralised.check(spec, cfg, data, {**decentralised.CHOICES, "sampler": tuple(SAMPLERS)})


def pipeline(spec: Spec, cfg: Config, env: Environment | None = None) -> tuple[Stage, ...]:
    """One stage."""
    return (
        Stage("policy", policy(spec, cfg), cfg.policy_steps, cfg.chunk, cfg.every, owner="edp"),
    )


EDP = System(Config, check, lambda spec, cfg, data: data, pipeline)
