"""DOM2: each agent's diffusion policy, sampled in few steps, climbs its conservative critics and stays near the data.

**Paper**. Li et al. 2023, "Beyond Conservatism: Diffusion Policies in Offline Multi-agent Reinforcement Learning",
Algorithm 1 (its equations 1 and 3-5).

**Pseudo-code**. Beside Algorithm 1's line numbers, for every agent j, on its own observation, action and reward:

    2-4   a trajectory starts 1 + #{thresholds <= its return} times                `prepare`
    7     a batch of transitions                                  stage "policy" (stages/decentralised.py, `batch`)
    8     a' ~ pibar(o'), a_m uniform; each Q^k: step down mean (Q^k(o, a) - r - gamma (1 - d) min_k Qbar^k(o', a'))^2
              + penalty mean [ log mean_m exp(Q^k(o, a_m) - log p) - Q^k(o, a) ]
    9     a^0 ~ pi(o); theta: step down mean |eps(alpha_t a + sigma_t z, o, t) - z|^2
              - eta mean Q^1(o, a^0) / sg[ mean |Q^1(o, a)| ],     t from {1/N .. 1}
    10    targets of critics and policy follow with polyak

where a ~ pi(o) starts at N(0, I) and takes N steps a <- (alpha'/alpha) a - (alpha' sigma/alpha - sigma') eps(a, o, t);
gradients flow through all of them.

**Differs**. The printed step (eq. 4) swaps two alphas; this is DPM-Solver's of the first order, which it names. The
printed alpha = 1 - beta_i (eq. 13) is one step's and is used as a whole chain's: that biases samples for large N, so
the default multiplies steps up (`schedule="printed"` has the paper's). With N = 5 the chain draws modes at +-0.6 into
one hump even where the noise is exact; 16 levels keep them. t excludes 0, where there is only noise to fit.
The divisor is mean |Q| and held constant: the signed mean turns the objective over for negative returns. Dropout acts
in the denoising loss, not while sampling. Critics have no tanh at their end, and fixed standardisation stands for batch
normalisation. Trajectories are weighed by the team's return, one batch serves all agents, and what the paper does not
print (penalty, gamma, polyak, batch, gradient clip) is OMAR's, on which its authors built.

**Checked**. tests/probes/test_dom2.py (eta = 0 clones both modes, eta > 0 takes the better one; the divisor; the
multiset of starts), tests/diffusion/test_dom2_sampling.py (the chain with exact noise), tests/contract.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Dataset, Environment, Spec, Stage, System, refuse
from jaxomarl.config import config, static, traced
from jaxomarl.data.reweight import reweighted, trajectories
from jaxomarl.diffusion.guidance import clipped, masked
from jaxomarl.diffusion.losses import eps_loss
from jaxomarl.diffusion.parameterise import from_eps
from jaxomarl.diffusion.samplers import dpm_solver
from jaxomarl.diffusion.schedules import vp_dom2
from jaxomarl.losses.weighting import normalised_value
from jaxomarl.networks.denoisers import plain_mlp, residual_unet
from jaxomarl.networks.mlp import Network, mish
from jaxomarl.stages import decentralised
from jaxomarl.stages.decentralised import (
    AgentBatch,
    Learner,
    critic_step,
    networks,
    policy_step,
    proposals,
)

CHOICES = {
    **decentralised.CHOICES,
    "schedule": ("cumulative", "printed"),
    "network": ("unet", "mlp"),
    "acting": ("online", "target"),
}


@config
class Config(decentralised.Conservative):
    """DOM2's settings; the defaults are for the particle tasks."""

    policy_width: int = static(default=512, scaled="width")
    """Width of the noise network's widest blocks, or of the perceptron's two hidden layers."""
    policy_lr: float = traced(default=5e-3, within="(0, inf)")
    critic_width: int = static(default=256, scaled="width")
    critic_lr: float = traced(default=3e-4, within="(0, inf)")
    eta: float = traced(default=2.5, within="[0, inf)")
    """Weight of the normalised value in the policy's loss; 0 clones the behaviour."""
    levels: int = static(default=5)
    """N: steps of the sampler, and noise levels that are trained."""
    schedule: str = static(default="cumulative")
    """Noise schedule. cumulative: alpha is of the full chain. printed: the paper's 1 - beta_i."""
    clip_denoised: bool = static(default=False)
    """Whether each step's estimate of the clean action is clipped to the box, and not the last action alone."""
    network: str = static(default="unet")
    """Noise network. unet: residual blocks with skips. mlp: a plain perceptron (ablation)."""
    embedding: int = static(default=128)
    """Width of the embedding of time and observation."""
    dropout: float = static(default=0.1, within="[0, 1)")
    """Dropout rate of the noise network."""
    improvement: bool = static(default=True)
    """Whether the policy's loss has its value term (False: ablation)."""
    denoising: bool = static(default=True)
    """Whether the policy's loss has its diffusion term (False: ablation)."""
    thresholds: str = static(default="")
    """Returns, separated by commas; a trajectory counts once more for each that it reaches. Empty: no reweighting."""
    acting: str = static(default="online")
    """Networks that act in evaluations. online: the trained ones. target: their slow averages."""


def noise_network(spec: Spec, cfg: Config) -> Network:
    """The noise prediction `apply(params, x, t, obs, dropout)`."""
    if cfg.network == "mlp":
        return plain_mlp(spec.act_width, spec.obs_width, (cfg.policy_width,) * 2)
    return residual_unet(
        spec.act_width, spec.obs_width, cfg.policy_width, cfg.embedding, cfg.dropout
    )


def sample(
    cfg: Config,
    net: Network,
    key: Key[Array, ""],
    params: Any,
    obs: Float[Array, "*B O"],
    mask: Float[Array, " A"],
) -> Float[Array, "*B A"]:
    """An action in the box for each observation, by N deterministic steps from noise; differentiable."""
    schedule = vp_dom2(cfg.levels, cfg.schedule == "printed")
    denoise = from_eps(lambda x, t: net.apply(params, x, t, obs), schedule)
    denoise = masked(clipped(denoise, -1.0, 1.0) if cfg.clip_denoised else denoise, mask)
    drawn = dpm_solver(schedule, cfg.levels, mask=mask)(
        key, denoise, (*obs.shape[:-1], mask.shape[0])
    )
    return jnp.clip(drawn, -1.0, 1.0)


def denoising_loss(
    cfg: Config,
    net: Network,
    params: Any,
    batch: AgentBatch,
    t: Float[Array, " B"],
    z: Float[Array, "B A"],
    dropout: Any,
) -> Float[Array, ""]:
    """Mean over the batch of |eps(alpha_t a + sigma_t z, o, t) - z|^2 over real columns."""
    schedule = vp_dom2(cfg.levels, cfg.schedule == "printed")
    eps = lambda x, t: net.apply(params, x, t, batch.obs, dropout)
    return eps_loss(eps, schedule, batch.action, t, z, batch.mask)


def policy(spec: Spec, cfg: Config) -> Algorithm:
    """The algorithm."""
    net = noise_network(spec, cfg)
    nets = networks(spec, cfg, net, activation=mish)

    def step(
        key: Key[Array, ""], state: Learner, batch: AgentBatch
    ) -> tuple[Learner, dict[str, Array]]:
        k_after, k_penalty, k_t, k_z, k_drop, k_play = jax.random.split(key, 6)
        after = sample(cfg, net, k_after, state.actor.target, batch.next_obs, batch.mask)
        state, judged = critic_step(
            cfg, nets, state, batch, after, proposals(k_penalty, cfg, batch)
        )  # line 8
        t = jax.random.randint(k_t, batch.reward.shape, 1, cfg.levels + 1) / cfg.levels
        z = jax.random.normal(k_z, batch.action.shape)

        def loss(params):  # line 9
            total, metrics = jnp.zeros(()), {}
            if cfg.denoising:
                total = denoising_loss(cfg, net, params, batch, t, z, k_drop)
                metrics["denoising_loss"] = total
            if cfg.improvement:
                played = sample(cfg, net, k_play, params, batch.obs, batch.mask)
                q, q_data = (
                    nets.q.apply(state.critic.params, batch.obs, a)[0]
                    for a in (played, batch.action)
                )
                total = total + normalised_value(q, cfg.eta, q_data)
                metrics["q_played"] = q.mean()
            return total, metrics

        state, metrics = policy_step(cfg, nets, state, loss)  # lines 9 and 10
        return state, judged | metrics

    def play(key: Key[Array, ""], state: Learner, obs: Array, mask: Array) -> Array:
        params = state.actor.target if cfg.acting == "target" else state.actor.params
        return sample(cfg, net, key, params, obs, mask)

    return decentralised.learner(spec, cfg, nets, step, play)


def bounds(thresholds: str) -> tuple[float, ...]:
    """The setting `thresholds` as numbers. Raises JaxomarlError for anything else."""
    try:
        found = tuple(float(x) for x in thresholds.split(",")) if thresholds else ()
    except ValueError:
        found = (math.nan,)
    if not all(math.isfinite(x) for x in found):
        way = 'Write returns with commas between, "200,250,300", or nothing for no reweighting.'
        raise refuse("--cfg.thresholds", "numbers", thresholds, way)
    return found


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings, tasks or data that it cannot train on."""
    decentralised.check(spec, cfg, data, CHOICES)
    if not (cfg.improvement or cfg.denoising):
        way = "Leave one of them on: a policy without a loss learns nothing."
        raise refuse("--cfg.improvement, --cfg.denoising", "one of them", "neither", way)
    wanted = bounds(cfg.thresholds)
    if data is not None and wanted:
        returns = trajectories(data)[1]
        if max(wanted) > returns.max():
            shares = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
            spread = ", ".join(
                f"{q:.0%} {v:.4g}"
                for q, v in zip(shares, np.quantile(returns, shares), strict=True)
            )
            way = (
                f"No trajectory would count more for it; quantiles of the data's returns: {spread}."
            )
            raise refuse(
                "--cfg.thresholds", f"returns of at most {returns.max():.4g}", max(wanted), way
            )


def prepare(spec: Spec, cfg: Config, data: Dataset) -> Dataset:
    """Lines 2-4: the data with their starts as a multiset."""
    return reweighted(data, bounds(cfg.thresholds))  # lines 2-4


def pipeline(spec: Spec, cfg: Config, env: Environment | None = None) -> tuple[Stage, ...]:
    """One stage."""
    return (
        Stage("policy", policy(spec, cfg), cfg.policy_steps, cfg.chunk, cfg.every, owner="dom2"),
    )


DOM2 = System(Config, check, prepare, pipeline)
