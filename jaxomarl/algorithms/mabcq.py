"""MABCQ: QMIX that chooses among the actions that a clone of the data finds likely enough.

**Paper**. Fujimoto et al. 2019, "Benchmarking Batch Deep Reinforcement Learning Algorithms"
(discrete BCQ), on QMIX, as in OG-MARL (Formanek et al. 2023) and DoF's Tables 2, 10 and 12.

**Pseudo-code**. For discrete actions:

    1   clone G_i(a_i | o_i) of each agent's actions          stage "clone" (stages/clone.py)
    2   M_i(o_i) = legal a with G_i(a | o_i) / max_b G_i(b | o_i) >= threshold
    3   for each gradient step on a batch of transitions:     stage "policy"
    4       the step of QMIX, where a'_i is the best of M_i(o'_i)         (stages/decomposition.py)
    5   execution: the best of M_i(o_i)                                   (stages/decomposition.py)

**Differs**.

- The clone is finished before the values begin, which then have one set M_i throughout. OG-MARL
  trains both side by side.
- OG-MARL's networks are recurrent. Ours see the current observation alone.
- The threshold 1 plays the clone's own best action, and 0 is QMIX.

**Checked**. tests/probes/test_decomposition.py (a rare action is never chosen, whatever its value;
both ends of the threshold), tests/contract/test_discrete.py.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxomarl.base import Algorithm, Dataset, Environment, Past, Spec, Stage, System
from jaxomarl.config import config, static, traced
from jaxomarl.data.dataset import as_is
from jaxomarl.health import behaviour
from jaxomarl.losses.categorical import masked
from jaxomarl.networks.mlp import mlp
from jaxomarl.optim import clipped_adam
from jaxomarl.stages import clone, decomposition

CLONE = ("clone_steps", "policy_batch", "policy_width", "policy_lr", "clip", "chunk", "normalise")
"""The settings that reach the clone's stage."""


@config
class Config(decomposition.Config):
    """MABCQ's settings."""

    clone_steps: int = static(default=20_000, scaled="steps")
    """Gradient steps of the clone."""
    threshold: float = traced(default=0.4, within="[0, 1]")
    """Least probability of an action, relative to the clone's likeliest one, to be chosen."""


def networks(spec: Spec, cfg: Config) -> decomposition.TeamNets:
    """Build the utilities and the mixer."""
    return decomposition.team_networks(
        spec, cfg.policy_width, cfg.mixer, cfg.mixer_width, cfg.share
    )


def likely(
    logits: Float[Array, "*B A"], legal: Float[Array, "*B A"], threshold: float | Array
) -> Float[Array, "*B A"]:
    """Line 2: 1.0 on the legal actions whose probability is near enough to the largest one."""
    legal_logits = masked(logits, legal)
    ratio = jnp.exp(legal_logits - legal_logits.max(axis=-1, keepdims=True))
    return legal * (ratio >= threshold)


def policy(spec: Spec, cfg: Config) -> Algorithm:
    """Build the second stage: QMIX within the clone's likely actions (lines 2 to 5)."""
    net = mlp(spec.obs_width, (cfg.policy_width,) * 2, spec.act_width)

    # line 2
    def allow(past: Past, obs: Array, legal: Array) -> Array:
        each = jax.vmap(net.apply, in_axes=(0, -2), out_axes=-2)
        return likely(each(past["clone"].params, obs), legal, cfg.threshold)

    optimiser = clipped_adam(cfg.policy_lr, cfg.clip)
    nets = networks(spec, cfg)
    return decomposition.decomposition_learner(spec, cfg, nets, optimiser, allow=allow)


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings, tasks or data that MABCQ cannot train on."""
    decomposition.check(spec, cfg, data, decomposition.CHOICES, "Take sfbc or td3-bc.")


def pipeline(spec: Spec, cfg: Config, env: Environment | None = None) -> tuple[Stage, ...]:
    """Two stages: clone -> policy."""
    # line 1
    cloned = clone.categorical_cloning_learner(spec, cfg)
    compared = behaviour.clone(spec, cloned, draws=False, raise_fields=("clone_steps",))
    clone_stage = Stage.from_config(
        cfg, "clone", cloned, cfg.clone_steps, (*CLONE, "every"), "mabcq", compared
    )
    # line 3
    final = policy(spec, cfg)
    health = decomposition.decomposition_health(spec, cfg, networks(spec, cfg), final)
    policy_stage = Stage.from_config(
        cfg, "policy", final, cfg.policy_steps, owner="mabcq", health=health
    )
    return clone_stage, policy_stage


MABCQ = System(Config, check, as_is, pipeline)
