"""OMAC: OMIGA's coupled values with an expectile in place of its exponential.

**Paper**. Wang and Zhan 2023, "Offline Multi-Agent Reinforcement Learning with Coupled Value
Factorization". Its text and code were not at hand: this is its account by others.

**Pseudo-code**. For N agents, with w(s) >= 0 and b(s) of one mixing network:

    1   for each gradient step on a batch of transitions:     stage "values"
                                                              (stages/coupled.py)
    2       y = r + gamma (1 - d) [ sum_i wbar_i(s') Vbar_i(o'_i) + bbar(s') ]
    3       Q_i, w, b: step down mean (sum_i w_i(s) Q_i(o_i, a_i) + b(s) - y)^2
    4       u_i = Qbar_i(o_i, a_i) - V_i(o_i)
    5       V_i: step down mean |tau - 1[u_i < 0]| u_i^2
    6       targets of Q_i, V_i, w and b follow with polyak
    7   for each gradient step on a batch of transitions:     stage "policy" (stages/clone.py)
    8       pi_i: step down -mean min(exp(T wbar_i u_i), 100) log pi_i(a_i | o_i)

The same w and b mix both values, so that agents are credited alike by both: the team's advantage is
sum_i w_i u_i. Line 5 moves V_i from the mean of Q_i over the data's actions (tau = 0.5) to their
maximum (tau near 1), and asks no action outside the data.

**Differs**.

- Whether line 8 weighs by w_i u_i or by u_i is not known. The former does not depend on how credit
  is split among agents; `credit=False` is the latter.
- Advantages are not normalised. T multiplies them as in IQL.
- Agents have networks of their own, and the values are finished before the policies begin, as in
  OMIGA here.

**Checked**. tests/probes/test_omac.py (one step against a separate implementation; at tau = 0.5 the
gap has mean zero, near 1 the value is the largest of the data's; both on an additive game),
tests/contract.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxomarl.base import Algorithm, Environment, Spec, Stage, System
from jaxomarl.config import config, static, traced
from jaxomarl.data.dataset import as_is
from jaxomarl.losses.expectile import expectile
from jaxomarl.stages import coupled

MOST = 100.0
"""Largest weight of an action of the data."""


@config
class Config(coupled.Config):
    """OMAC's settings."""

    expectile: float = traced(default=0.7, within="(0, 1)")
    """tau of the values' expectile regression: 0.5 is the mean, near 1 the maximum."""
    temperature: float = traced(default=3.0, within="[0, inf)")
    """T of the weights min(exp(T w u), 100); larger follows the values more."""
    credit: bool = static(default=True)
    """Whether policies weigh by w u, an agent's share of the team's advantage. False: by u."""


def values(spec: Spec, cfg: Config) -> Algorithm:
    """Build the first stage: the values of agents and team (lines 1 to 6)."""

    # lines 4 and 5
    def value_loss(
        u: Float[Array, "B N"], w: Float[Array, "B N"], v: Float[Array, "B N"]
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        return expectile(u, cfg.expectile).mean(), {"weight": w.mean(), "v_mean": v.mean()}

    # lines 1-3 and 6
    return coupled.mixed_values(spec, cfg, value_loss)


def policy(spec: Spec, cfg: Config) -> Algorithm:
    """Build the second stage: each agent's weighted behaviour cloning (lines 7 and 8)."""

    # line 8
    def weigh(u: Float[Array, "B N"], w: Float[Array, "B N"]) -> Float[Array, "B N"]:
        advantage = w * u if cfg.credit else u
        return jnp.minimum(jnp.exp(cfg.temperature * advantage), MOST)

    return coupled.copied(spec, cfg, weigh)


def pipeline(spec: Spec, cfg: Config, env: Environment | None = None) -> tuple[Stage, ...]:
    """Two stages: values -> policies."""
    own = ("expectile",)
    return coupled.stages(spec, cfg, "omac", values(spec, cfg), own, policy(spec, cfg))


OMAC = System(Config, coupled.check, as_is, pipeline)
