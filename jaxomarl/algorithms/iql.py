"""IQL: implicit Q-learning with one joint critic, and policies by advantage-weighted regression.

**Paper**. Kostrikov et al. 2022, "Offline Reinforcement Learning with Implicit Q-Learning", Algorithm 1; as the OMSD
authors pretrain with it (their appendix D.4).

**Pseudo-code**.

    1   train Q_tot(s, a) and V(s) by expectile regression                      stage "critic" (stages/critic.py)
    2   for each gradient step on a batch of transitions:                       stage "policy", `update`
    3       w = min(exp(T (min_k Qbar^k(s, a) - V(s))), 100)
    4       theta_i <- step down mean w sum_dims (pi_i(o_i) - a_i)^2            for all agents i at once

**Differs**. The policies are extracted after the critic has been trained, not beside it: the critic does not depend on
them, and is shared with OMSD's. Each agent acts on its own observation (`execution="separate"`); the authors'
monitoring policy sees the state and commands all agents (`execution="joint"`, which declares itself centralised). The
advantage is the team's; an IQL of each agent's own is another system.

**Checked**. tests/reference/test_iql.py (the critic), tests/probes/test_bc_iql.py (weights and their cap; large T
prefers the better mode), tests/contract.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jaxomarl.base import (
    Algorithm,
    Batch,
    Dataset,
    Environment,
    Past,
    Spec,
    Stage,
    State,
    System,
    refuse,
)
from jaxomarl.config import check_fields, config, static
from jaxomarl.data.dataset import check_transitions, sample_transitions
from jaxomarl.losses.td import TIME_LIMITS
from jaxomarl.networks.actors import actor
from jaxomarl.networks.agents import separate
from jaxomarl.networks.inputs import flat, observed
from jaxomarl.optim import OPTIMISERS, create, descend
from jaxomarl.stages import clone, critic
from jaxomarl.stages.clone import Policies, policy_optimiser

FIELDS = (
    "policy_steps", "policy_batch", "policy_width", "policy_lr", "policy_anneal", "policy_optimiser", "execution",
)  # fmt: skip


@config
class Config(critic.Config, clone.Config):
    """IQL's settings; those of the critic have OMSD's names and defaults, so that both share one."""

    execution: str = static(default="separate")
    """Inputs of the policy. separate: each agent's own observation. joint: the state, for one joint policy."""
    policy_optimiser: str = static(default="adam")
    """Optimiser of the policy: adam, or sgd."""


def policy(spec: Spec, cfg: Config, joint: critic.Critic) -> Algorithm:
    """The policies' stage."""
    n, a, hidden = spec.agents, spec.act_width, (cfg.policy_width,) * 2
    tx = policy_optimiser(cfg)
    mask = jnp.asarray(spec.act_mask)
    own = separate(actor(spec.obs_width, hidden, a), n)
    whole = actor(n * spec.obs_width, hidden, n * a)
    together = cfg.execution == "joint"

    def play(params: Any, past: Past, obs: Array) -> Array:
        seen = observed(spec, cfg)(past, obs)
        if together:
            return mask * whole.apply(params, flat(seen)).reshape(*obs.shape[:-1], a)
        return mask * own.apply(params, seen)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Policies:
        return Policies(create(tx, (whole if together else own).init(key)))

    def batch(key: Key[Array, ""], state: State, data: Dataset) -> Batch:
        return sample_transitions(key, data, cfg.policy_batch)

    # line 2
    def update(
        key: Key[Array, ""], state: Policies, past: Past, batch: Batch
    ) -> tuple[Policies, dict]:
        u = joint.advantage(past, batch.obs, batch.state, batch.action * mask)
        w = jnp.minimum(jnp.exp(cfg.temperature * u), 100.0)  # line 3

        def loss(params):  # line 4
            error = mask * (play(params, past, batch.obs) - batch.action)
            return jnp.mean(w * jnp.sum(error**2, axis=(1, 2)))

        value, grads = jax.value_and_grad(loss)(state.actor.params)
        metrics = {"policy_loss": value, "weight": w.mean(), "capped": jnp.mean(w >= 100.0)}
        return Policies(descend(tx, state.actor, grads)), metrics

    def act(key, state, past, memory, observation):
        return play(state.actor.params, past, observation.obs), memory

    return Algorithm(init, batch, update, act, centralised=together)


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings or tasks that it cannot train on."""
    if spec.discrete:
        raise refuse(
            "--task",
            "continuous actions",
            "a discrete task",
            "These policies regress real actions.",
        )
    choices = {
        "execution": ("separate", "joint"),
        "reward": ("team", "first"),
        "time_limit": TIME_LIMITS,
    }
    check_fields(cfg, {**choices, "policy_optimiser": OPTIMISERS})
    check_transitions(data)


def pipeline(spec: Spec, cfg: Config, env: Environment | None = None) -> tuple[Stage, ...]:
    """Critic -> policy."""
    joint = critic.iql(spec, cfg)
    fields = (*critic.FIELDS, *FIELDS)
    return (
        Stage("critic", joint.algorithm, cfg.critic_steps, cfg.chunk, cfg.every, critic.FIELDS),
        Stage(
            "policy",
            policy(spec, cfg, joint),
            cfg.policy_steps,
            cfg.chunk,
            cfg.every,
            fields,
            owner="iql",
        ),
    )


IQL = System(Config, check, lambda spec, cfg, data: data, pipeline)
