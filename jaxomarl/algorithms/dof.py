"""DoF-Policy: one diffusion of the team's actions, factorised so that each agent samples its own, driven up a critic.

**Paper**. "DoF: A Diffusion Factorization Framework for Offline Multi-Agent Decision Making", Algorithms 1, 2 and 4,
its policy agent (appendix C.4).

**Pseudo-code**. For all agents at once, f and h as in diffusion/factorise.py:

    1   for each gradient step on a batch of transitions:              stage "policy" (stages/diffusion_team.py)
    2       a' ~ pibar(o'): K ancestral steps with the noise f(eps_1, .., eps_n), then h, clipped
    3       each Q^k: step down mean (Q^k(s, a) - r - gamma (1 - d) min_k Qbar^k(s', a'))^2
    4       x = alpha_k a + sigma_k z, one k for all agents; a^0 ~ pi(o) as in line 2
    5       theta: step down mean |f(eps_1(x_1, k, o_1), ..) - z|^2 / D + mean |h(sg x0) - a|^2 / D
                - eta mean Q^1(s, a^0) / sg[ mean |Q^1(s, a^0)| ],        x0 the last step's
    6       targets of critics and policies follow with polyak
    7   act: agent i runs line 2 on row i alone; of several candidates, it plays the one with the largest min_k Qbar_i^k

**Differs**.

- The released code cuts the gradient of line 5's value, builds a chain of another schedule than its settings name, and
  trains weights that it does not sample with: it clones the behaviour, and its flag for f does nothing. Here the
  gradient is alive, and one function of f serves the loss and the chain.
- The divisor is |Q| and held constant; the printed one is signed and turns the objective over for negative returns.
- Algorithm 1 prints x^(k-1) where x^0 belongs, and eq. 4 weighs the forward noise, from which no chain that starts at
  N(0, I) could return.
- No schedule is printed: with K = 10, linear betas leave alpha^2 = 0.90 at the chain's start and are refused.
- Steps have the posterior's variance, not beta_k, and hold each clean estimate in the box.
- h has no printed loss; line 5 pairs it as stages/generator.py says. For dec-atten line 5 is atten's, and the agents
  act with their own terms.
- `critic="own"` is the released code's. With f and h of concat it is `diffusion-ql`'s, whose value has another head in
  its divisor. Of 50 candidates the code plays one at random, which is as good as one draw.
- K, eta and rates are Table 8's; gamma (0.99), batch and clip are the code's.

**Checked**. tests/diffusion/test_factorise.py (f and h), tests/probes/test_dof.py (Q's gradient reaches networks and
weights; the divisor; eta = 0 clones and eta > 0 takes the better mode; total variations), tests/contract.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxomarl.base import Algorithm, Dataset, Environment, Spec, Stage, System, refuse
from jaxomarl.config import config, flag, static
from jaxomarl.diffusion.factorise import ALONE, DATA, NOISE, composed, factorisation
from jaxomarl.diffusion.samplers import ddpm
from jaxomarl.networks.denoisers import plain_mlp
from jaxomarl.networks.mlp import Network
from jaxomarl.stages import diffusion_team
from jaxomarl.stages.diffusion_policy import Diffuser
from jaxomarl.stages.diffusion_team import SCHEDULES, learner
from jaxomarl.stages.generator import Team, separate, shared

CHOICES = {
    "noise_mixer": NOISE,
    "data_mixer": DATA,
    "networks": ("separate", "shared"),
    "execution": ("decentralised", "central"),
}


@config
class Config(diffusion_team.Config):
    """DoF-Policy's settings."""

    noise_mixer: str = static(default="wconcat")
    """f: concat, wconcat and dec-atten let agents act alone; atten and qmix do not."""
    data_mixer: str = static(default="wconcat")
    """h: concat (none) and wconcat let agents act alone; atten and qmix do not."""
    networks: str = static(default="separate")
    """separate: each agent's own. shared: one that is told whose noise it predicts."""
    execution: str = static(default="decentralised")
    """decentralised: mixers that need other agents are refused. central: they are let through."""


def team(spec: Spec, cfg: Any) -> Team:
    """The factorised team. Only f, h, `networks`, width, levels and schedule are read: a density needs no more."""
    n, width, mask = spec.agents, spec.act_width, jnp.asarray(spec.act_mask)
    net = lambda told: plain_mlp(width, told, (cfg.policy_width,) * 3)
    parts = shared(net, spec.obs_width, n) if cfg.networks == "shared" else separate(net(spec.obs_width), n)
    f = factorisation(cfg.noise_mixer, n, width, width + 1 + spec.obs_width)
    h = factorisation(cfg.data_mixer, n, width, spec.obs_width)

    def init(key):
        k_parts, k_noise, k_data = jax.random.split(key, 3)
        return {"parts": parts.init(k_parts), "noise": f.init(k_noise), "data": h.init(k_data)}

    def diffuser(executed: bool) -> Diffuser:
        noise = Network(init, composed(parts.apply, f, mask, executed))
        return Diffuser(noise, SCHEDULES[cfg.schedule](cfg.levels), ddpm, cfg.levels)

    mix = None if cfg.data_mixer == "concat" else lambda params, x, obs: h.train(params["data"], x, obs)
    return Team(init, diffuser(False), diffuser(True), mix, not (f.decentralised and h.decentralised))


def policy(spec: Spec, cfg: Any) -> Algorithm:
    """The algorithm."""
    return learner(spec, cfg, team(spec, cfg))


def check(spec: Spec, cfg: Any, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings, tasks or data that it cannot train on."""
    diffusion_team.check(spec, cfg, data, CHOICES)
    for field, kinds in (("noise_mixer", NOISE), ("data_mixer", DATA)):
        alone = [kind for kind in kinds if kind in ALONE]
        if cfg.execution == "decentralised" and getattr(cfg, field) not in alone:
            way = "It needs the other agents at every step: take one of these, or --cfg.execution central."
            raise refuse(flag(field), f"one of {', '.join(alone)} for decentralised agents", getattr(cfg, field), way)


def pipeline(spec: Spec, cfg: Any, env: Environment | None = None) -> tuple[Stage, ...]:
    """One stage."""
    return (Stage("policy", policy(spec, cfg), cfg.policy_steps, cfg.chunk, cfg.every, owner="dof-p"),)


DOF_P = System(Config, check, lambda spec, cfg, data: data, pipeline)
