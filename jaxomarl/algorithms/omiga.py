"""OMIGA: agents' values add up to the team's, so its regularised optimum is each agent's own.

**Paper**. Wang et al. 2023, "Offline Multi-Agent Reinforcement Learning with Implicit
Global-to-Local Value Regularization".

**Pseudo-code**. For N agents, with w(s) >= 0 and b(s) of one mixing network:

    1   for each gradient step on a batch of transitions:     stage "values"
                                                              (stages/coupled.py)
    2       y = r + gamma (1 - d) [ sum_i wbar_i(s') Vbar_i(o'_i) + bbar(s') ]
    3       Q_i, w, b: step down mean (sum_i w_i(s) Q_i(o_i, a_i) + b(s) - y)^2
    4       z_i = wbar_i(s) (Qbar_i(o_i, a_i) - V_i(o_i)) / alpha
    5       V_i: step down mean [ exp(z_i) + wbar_i(s) V_i(o_i) / alpha ]
    6       targets of Q_i, V_i, w and b follow with polyak
    7   for each gradient step on a batch of transitions:     stage "policy" (stages/clone.py)
    8       pi_i: step down -mean exp(clip(z_i, -10, 10)) log pi_i(a_i | o_i)

Line 5 is least where E exp(z_i) = 1 over the behaviour: w_i V_i = alpha log E exp(w_i Q_i/alpha).
Where the agents' behaviours are independent, these values sum to the team's:
sum_i w_i V_i + b = alpha log E exp((sum_i w_i Q_i + b) / alpha).

**Differs**.

- The released code clips z at -10 and at 10, in line 5 as in line 8. Beyond the clip the
  exponential has no slope. Where z is too large, V is too low, and the rest of line 5 pushes it
  further down. Here line 5 continues as a straight line on either side (losses/gumbel.py), so its
  slope is the weight of line 8 everywhere.
- The released code divides line 5 by its batch's largest exponential. That changes the length of a
  step alone.
- Agents have networks of their own. The released code has one network for all, conditioned on the
  agent.
- The value is joint and the reward is the team's (`reward="first"` for agent 1's).
- Actions at the edge of the box count as if at 0.999, and not at 1 - 1e-7, whose arctanh is far
  from all others.
- The values are finished before the policies begin. The values do not depend on the policies, so
  this changes nothing for them.

**Checked**. tests/probes/test_omiga.py (local and global values agree on the closed form, one step
against a separate implementation, the slope beyond the clip, no weight below zero), tests/contract.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxomarl.base import Algorithm, Environment, Spec, Stage, System
from jaxomarl.config import config, traced
from jaxomarl.data.dataset import as_is
from jaxomarl.losses.gumbel import CAP, gumbel
from jaxomarl.stages import coupled


@config
class Config(coupled.Config):
    """OMIGA's settings."""

    alpha: float = traced(default=10.0, within="(0, inf)")
    """Weight of the regularisation, in units of reward; larger is nearer to a clone."""


def values(spec: Spec, cfg: Config) -> Algorithm:
    """Build the first stage: the values of agents and team (lines 1 to 6)."""

    # lines 4 and 5
    def value_loss(
        u: Float[Array, "B N"], w: Float[Array, "B N"], v: Float[Array, "B N"]
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        z = w * u / cfg.alpha
        loss = jnp.mean(gumbel(z) + w * v / cfg.alpha)
        return loss, {"weight": w.mean(), "cut": jnp.mean(jnp.abs(z) > CAP)}

    # lines 1-3 and 6
    return coupled.mixed_values(spec, cfg, value_loss)


def policy(spec: Spec, cfg: Config) -> Algorithm:
    """Build the second stage: each agent's weighted behaviour cloning (lines 7 and 8)."""

    # line 8
    def weigh(u: Float[Array, "B N"], w: Float[Array, "B N"]) -> Float[Array, "B N"]:
        return jnp.exp(jnp.clip(w * u / cfg.alpha, -CAP, CAP))

    return coupled.copied(spec, cfg, weigh)


def pipeline(spec: Spec, cfg: Config, env: Environment | None = None) -> tuple[Stage, ...]:
    """Two stages: values -> policies."""
    return coupled.stages(spec, cfg, "omiga", values(spec, cfg), ("alpha",), policy(spec, cfg))


OMIGA = System(Config, coupled.check, as_is, pipeline)
