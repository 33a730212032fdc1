"""DOM2: each agent's diffusion policy climbs conservative critics and stays near the data.

**Paper**. Li et al. 2023, "Beyond Conservatism: Diffusion Policies in Offline Multi-agent
Reinforcement Learning", Algorithm 1 (its equations 1 and 3-5).

**Pseudo-code**. The numbers are those of Algorithm 1. For every agent j, on its own observation,
action and reward:

    2-4   a trajectory starts 1 + #{thresholds <= its return} times      `prepare`
    7     draw a batch of transitions         stage "policy" (stages/decentralised.py, `batch`)
    8     a' ~ pibar(o'), a_m uniform
          each Q^k: step down mean (Q^k(o, a) - r - gamma (1 - d) min_k Qbar^k(o', a'))^2
              + penalty mean [ log mean_m exp(Q^k(o, a_m) - log p) - Q^k(o, a) ]
    9     a^0 ~ pi(o);  theta: step down mean |eps(alpha_t a + sigma_t z, o, t) - z|^2
              - eta mean Q^1(o, a^0) / sg[ mean |Q^1(o, a)| ],     t from {1/N .. 1}
    10    targets of critics and policy follow with polyak

where a ~ pi(o) starts at N(0, I) and takes N steps
a <- (alpha'/alpha) a - (alpha' sigma/alpha - sigma') eps(a, o, t). Gradients flow through them.

**Differs**.

- The printed step (equation 4) swaps two alphas. We take the first-order step of DPM-Solver, the
  sampler that the paper names.
- The printed alpha = 1 - beta_i (equation 13) belongs to one step, and the paper uses it for the
  whole chain. That biases samples for large N, so our default is the product over steps.
  `schedule="printed"` has the paper's.
- With the paper's N = 5, the chain merges modes at +-0.6 into one, even with the exact noise. 16
  levels keep them apart.
- t excludes 0, where the sample has no noise to learn.
- The paper divides by the signed mean of Q, which turns the objective over for negative returns. We
  divide by mean |Q| and hold the divisor constant.
- Dropout acts in the denoising loss, and not while sampling.
- Critics have no tanh at their output. Standardised observations take the place of batch
  normalisation.
- Trajectories are weighted by the team's return, because one batch serves all agents.
- The paper does not print the penalty, gamma, polyak, the batch and the gradient clip. We take
  OMAR's, on which its authors built.

**Checked**. tests/probes/test_dom2.py (eta = 0 clones both modes, eta > 0 takes the better one; the
divisor; the multiset of starts), tests/diffusion/test_dom2_sampling.py (the chain with exact
noise), tests/contract.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Dataset, Spec, System, one_stage, refuse
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
from jaxomarl.optim import Params
from jaxomarl.stages import decentralised
from jaxomarl.stages.decentralised import (
    ActorCritic,
    AgentBatch,
    Stepped,
    agent_networks,
    critic_step,
    policy_step,
    proposals,
)

CHOICES = {
    **decentralised.CHOICES,
    "schedule": ("cumulative", "printed"),
    "network": ("unet", "mlp"),
    "acting": ("online", "target"),
}
SHOWN_QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
"""Quantiles of the data's returns that the refusal of a threshold prints."""


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
    """Whether every step clips its clean action to the box, and not the last one alone."""
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
    """Returns, separated by commas. A trajectory counts once more for each that it reaches.
    Empty: no reweighting."""
    acting: str = static(default="online")
    """Networks that act in evaluations. online: the trained ones. target: their slow averages."""


def noise_network(spec: Spec, cfg: Config) -> Network:
    """Build the noise prediction `apply(params, x, t, obs, dropout)`."""
    if cfg.network == "mlp":
        return plain_mlp(spec.act_width, spec.obs_width, (cfg.policy_width,) * 2)
    return residual_unet(
        spec.act_width, spec.obs_width, cfg.policy_width, cfg.embedding, cfg.dropout
    )


def sample_action(
    cfg: Config,
    net: Network,
    key: Key[Array, ""],
    params: Params,
    obs: Float[Array, "*B O"],
    mask: Float[Array, " A"],
) -> Float[Array, "*B A"]:
    """Sample an action in the box for each observation by N deterministic steps; differentiable."""
    schedule = vp_dom2(cfg.levels, cfg.schedule == "printed")

    def eps(x, t):
        return net.apply(params, x, t, obs)

    denoise = from_eps(eps, schedule)
    if cfg.clip_denoised:
        denoise = clipped(denoise, -1.0, 1.0)
    sampler = dpm_solver(schedule, cfg.levels, mask=mask)
    action = sampler(key, masked(denoise, mask), (*obs.shape[:-1], mask.shape[0]))
    return jnp.clip(action, -1.0, 1.0)


def policy(spec: Spec, cfg: Config) -> Algorithm:
    """Build the learner: each agent's diffusion policy and twin critics."""
    net = noise_network(spec, cfg)
    nets = agent_networks(spec, cfg, net, activation=mish)

    def step(key: Key[Array, ""], state: ActorCritic, batch: AgentBatch) -> Stepped:
        k_next, k_penalty, k_t, k_z, k_dropout, k_action = jax.random.split(key, 6)

        # --- critics: line 8 ---
        next_action = sample_action(
            cfg, net, k_next, state.actor.target, batch.next_obs, batch.mask
        )
        unseen = proposals(k_penalty, cfg, batch)
        state, critic_metrics = critic_step(cfg, nets, state, batch, next_action, unseen)

        # --- policy: line 9 ---
        t = jax.random.randint(k_t, batch.reward.shape, 1, cfg.levels + 1) / cfg.levels
        z = jax.random.normal(k_z, batch.action.shape)

        def loss(params):
            total = jnp.zeros(())
            metrics = {}
            if cfg.denoising:
                schedule = vp_dom2(cfg.levels, cfg.schedule == "printed")
                eps = lambda x, t: net.apply(params, x, t, batch.obs, k_dropout)
                total = eps_loss(eps, schedule, batch.action, t, z, batch.mask)
                metrics["denoising_loss"] = total
            if cfg.improvement:
                action = sample_action(cfg, net, k_action, params, batch.obs, batch.mask)
                q = nets.q.apply(state.critic.params, batch.obs, action)[0]
                q_data = nets.q.apply(state.critic.params, batch.obs, batch.action)[0]
                total = total + normalised_value(q, cfg.eta, q_data)
                metrics["q_played"] = q.mean()
            return total, metrics

        # lines 9 and 10
        return policy_step(cfg, nets, state, loss, critic_metrics)

    def play(key: Key[Array, ""], state: ActorCritic, obs: Array, mask: Array) -> Array:
        params = state.actor.target if cfg.acting == "target" else state.actor.params
        return sample_action(cfg, net, key, params, obs, mask)

    return decentralised.actor_critic_learner(spec, cfg, nets, step, play)


def bounds(thresholds: str) -> tuple[float, ...]:
    """Read the setting `thresholds` as numbers. Raises JaxomarlError for anything else."""
    if not thresholds:
        return ()
    try:
        numbers = tuple(float(x) for x in thresholds.split(","))
    except ValueError:
        numbers = (math.nan,)
    if not all(math.isfinite(x) for x in numbers):
        way = 'Write returns with commas between, "200,250,300", or nothing for no reweighting.'
        raise refuse("--cfg.thresholds", "numbers", thresholds, way)
    return numbers


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings, tasks or data that DOM2 cannot train on."""
    decentralised.check(spec, cfg, data, CHOICES)
    if not (cfg.improvement or cfg.denoising):
        way = "Leave one of them on: a policy without a loss learns nothing."
        raise refuse("--cfg.improvement, --cfg.denoising", "one of them", "neither", way)
    thresholds = bounds(cfg.thresholds)
    if data is not None and thresholds:
        check_reached(data, max(thresholds))


def check_reached(data: Dataset, largest: float) -> None:
    """Raise JaxomarlError where no trajectory's return reaches the largest threshold."""
    _, returns = trajectories(data)
    best = returns.max()
    if largest <= best:
        return
    quantiles = zip(SHOWN_QUANTILES, np.quantile(returns, SHOWN_QUANTILES), strict=True)
    shown = ", ".join(f"{share:.0%} {value:.4g}" for share, value in quantiles)
    way = f"No trajectory would count more for it; quantiles of the data's returns: {shown}."
    raise refuse("--cfg.thresholds", f"returns of at most {best:.4g}", largest, way)


def prepare(spec: Spec, cfg: Config, data: Dataset) -> Dataset:
    """Repeat the starts of trajectories that reach thresholds; no row is copied."""
    # lines 2-4
    return reweighted(data, bounds(cfg.thresholds))


health = partial(decentralised.actor_critic_health, weight="eta", activation=mish)
pipeline = one_stage("dom2", policy, health=health)
DOM2 = System(Config, check, prepare, pipeline)
