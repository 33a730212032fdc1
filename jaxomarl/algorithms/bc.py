"""BC: each agent imitates its own actions in the data.

**Paper**. Pomerleau 1991, "Efficient Training of Artificial Neural Networks for Autonomous Navigation"; the behaviour
cloning row of every table of this field.

**Pseudo-code**.

    1   for each gradient step on a batch of transitions:                       stage "policy", `update`
    2       theta_i <- step down mean_batch sum_dims (pi_i(o_i) - a_i)^2        for all agents i at once

**Differs**. Deterministic policies under a squared loss, so the optimum is E[a_i | o_i]: where the data's behaviours
disagree it plays their mean, which may be an action that none of them takes. One network per agent, no parameters
shared; OG-MARL's recurrent clone is another system.

**Checked**. tests/probes/test_bc_iql.py (the mean on two-mode data; a linear policy recovered), tests/contract.
"""

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
from jaxomarl.networks.actors import actor
from jaxomarl.networks.agents import separate
from jaxomarl.networks.inputs import observed
from jaxomarl.optim import OPTIMISERS, create, descend
from jaxomarl.stages import clone
from jaxomarl.stages.clone import Policies, policy_optimiser

FIELDS = (
    "policy_steps", "policy_batch", "policy_width", "policy_lr", "policy_anneal", "policy_optimiser", "normalise",
    "chunk",
)  # fmt: skip


@config
class Config(clone.Config):
    """BC's settings."""

    policy_optimiser: str = static(default="adam")
    """Optimiser of the policy: adam, or sgd."""


def policy(spec: Spec, cfg: Config) -> Algorithm:
    """The algorithm."""
    actors = separate(actor(spec.obs_width, (cfg.policy_width,) * 2, spec.act_width), spec.agents)
    tx = policy_optimiser(cfg)
    mask = jnp.asarray(spec.act_mask)
    see = observed(spec, cfg)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Policies:
        return Policies(create(tx, actors.init(key)))

    def batch(key: Key[Array, ""], state: State, data: Dataset) -> Batch:
        return sample_transitions(key, data, cfg.policy_batch)

    # line 1
    def update(
        key: Key[Array, ""], state: Policies, past: Past, batch: Batch
    ) -> tuple[Policies, dict]:
        def loss(params):  # line 2
            error = actors.apply(params, see(past, batch.obs)) - batch.action
            return jnp.mean(jnp.sum(mask * error**2, axis=(1, 2)))

        value, grads = jax.value_and_grad(loss)(state.actor.params)
        return Policies(descend(tx, state.actor, grads)), {"policy_loss": value / spec.agents}

    def act(key, state, past, memory, observation):
        return mask * actors.apply(state.actor.params, see(past, observation.obs)), memory

    return Algorithm(init, batch, update, act)


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for tasks that it cannot train on."""
    if spec.discrete:
        raise refuse(
            "--task", "continuous actions", "a discrete task", "This clone regresses real actions."
        )
    check_fields(cfg, {"policy_optimiser": OPTIMISERS})
    check_transitions(data)


def pipeline(spec: Spec, cfg: Config, env: Environment | None = None) -> tuple[Stage, ...]:
    """One stage."""
    return (
        Stage(
            "policy", policy(spec, cfg), cfg.policy_steps, cfg.chunk, cfg.every, FIELDS, owner="bc"
        ),
    )


BC = System(Config, check, lambda spec, cfg, data: data, pipeline)
