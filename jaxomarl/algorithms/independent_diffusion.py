"""Independent Diffusion: diffusion policies without a factorisation, each agent's for itself.

**Paper**. The baseline "ID" of "DoF: A Diffusion Factorization Framework for Offline Multi-Agent Decision Making",
section 5.1 and appendix A.2: DoF's agent without noise and data factorisation.

**Pseudo-code**. As `dof-p` (stages/diffusion_team.py), with own critics, without h, and with the noise

    pooled     eps(x_i, k, o_i)             one network for the rows of all agents, which is not told whose they are
    separate   eps_i(x_i, k, o_i)           each agent's own network
    joint      eps(x_1..x_n, k, o_1..o_n)   one network of the joint action; its agents cannot act apart

    1   for each gradient step on a batch of transitions:                       stage "policy", `update`
    2       each Q_i^k: step down mean (Q_i^k(o_i, a_i) - r_i - gamma (1 - d) min_k Qbar_i^k(o'_i, a'_i))^2, a' ~ pibar
    3       theta: step down mean |eps - z|^2 / D - eta mean_i mean Q_i^1(o_i, a_i^0) / sg[ mean |Q_i^1(o_i, a_i^0)| ]
    4       targets of critics and policies follow with polyak
    5   act: a sample, or of several candidates the one with the largest min_k Qbar_i^k

**Differs**. The paper's ID is weak because it is pooled: where observations do not tell the agents apart, all of them
draw from the mean of their marginals. Truly separate models are mathematically `dof-p` with concat, and meet it in
distribution; neither holds what agents share beyond their observations. `joint` is no baseline of the paper: it is what
a factorised model is measured against. With own rewards, a separate model is `diffusion-ql` with one head for the value
and its divisor; with eta = 0 it is a clone. The paper prints no settings for it: they are DoF-Policy's.

**Checked**. tests/probes/test_dof.py (total variation on two modes of separate, joint and factorised models; pooled
agents draw alike), tests/contract.
"""

from typing import Any

from jaxomarl.base import Algorithm, Dataset, Environment, Spec, Stage, System
from jaxomarl.config import config, static
from jaxomarl.diffusion.samplers import ddpm
from jaxomarl.networks.denoisers import plain_mlp
from jaxomarl.stages import diffusion_team
from jaxomarl.stages.diffusion_policy import Diffuser
from jaxomarl.stages.diffusion_team import SCHEDULES, learner
from jaxomarl.stages.generator import Team, joint, pooled, separate

CHOICES = {"model": ("pooled", "separate", "joint")}


@config
class Config(diffusion_team.Config):
    """Independent Diffusion's settings."""

    model: str = static(default="separate")
    """pooled: one network on all agents' rows, the paper's baseline. separate: one each. joint: one of all actions."""
    critic: str = static(default="own")


def team(spec: Spec, cfg: Any) -> Team:
    """The team. Only `model`, width, levels and schedule are read: a density needs no more."""
    n, hidden = spec.agents, (cfg.policy_width,) * 3
    own = plain_mlp(spec.act_width, spec.obs_width, hidden)
    if cfg.model == "joint":
        net = joint(plain_mlp(n * spec.act_width, n * spec.obs_width, hidden))
    else:
        net = separate(own, n) if cfg.model == "separate" else pooled(own)
    diffuser = Diffuser(net, SCHEDULES[cfg.schedule](cfg.levels), ddpm, cfg.levels)
    return Team(net.init, diffuser, diffuser, None, centralised=cfg.model == "joint")


def policy(spec: Spec, cfg: Any) -> Algorithm:
    """The algorithm."""
    return learner(spec, cfg, team(spec, cfg))


def check(spec: Spec, cfg: Any, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings, tasks or data that it cannot train on."""
    diffusion_team.check(spec, cfg, data, CHOICES)


def pipeline(spec: Spec, cfg: Any, env: Environment | None = None) -> tuple[Stage, ...]:
    """One stage."""
    return (Stage("policy", policy(spec, cfg), cfg.policy_steps, cfg.chunk, cfg.every, owner="ind-diffusion"),)


IND_DIFFUSION = System(Config, check, lambda spec, cfg, data: data, pipeline)
