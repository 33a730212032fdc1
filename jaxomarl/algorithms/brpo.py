"""BRPO: OMSD's ablations, in which all agents move at once and the behaviour model is not sequential.

**Paper**. "Offline Multi-agent Reinforcement Learning with Sequential Score Decomposition", 2025, appendix F and
Table 1: behaviour-regularised policy optimisation, factorised in the usual ways.

**Pseudo-code**.

    1   train the critic by IQL: joint, or each agent's own        stage "critic" or "critic-own" (stages/critic.py)
    2   train the behaviour model: marginal or joint               stage "scores-marginal", "-joint" (stages/scores.py)
    3   for each policy gradient step:                             stage "policy", `update`
    4       a = (pi_1(o_1), .., pi_n(o_n)), or pi(o_1..o_n) for JAL
    5       Adam step down sum_i mean[ w(t) <e_i, a_i> - beta <g_i, a_i> ]

                        e_i                      g_i                      policies
        brpo-ind        eps_i(x_i, t | o_i)      dQ_i(o_i, a_i)/da_i      one each
        brpo-ctde       eps_i(x_i, t | o_i)      dQ_tot(s, a)/da_i        one each
        brpo-jal        [eps(x, t | s)]_i        dQ_tot(s, a)/da_i        one for all (not decentralised)
        joint-score     [eps(x, t | s)]_i        dQ_tot(s, a)/da_i        one each

**Differs**. `joint-score` is not in the paper: it follows the exact gradient of log mu(a | s), which OMSD's sequence
of best responses is not (it drops the sum over j > i of d log mu_j(a_j | s, a_<j) / d a_i). IND learns each agent's
critic from that agent's own reward. JAL's policy sees all observations when it acts and so declares itself
centralised.

**Checked**. tests/probes/test_bandit_exact.py (end points with exact scores), tests/probes/test_scores.py (on
independent agents all four regularisers agree), tests/probes/test_cms.py (on correlated ones they do not),
tests/reference/test_extraction.py.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Environment, Past, Spec, Stage, System
from jaxomarl.config import config, static
from jaxomarl.networks.inputs import observed
from jaxomarl.optim import create, descend
from jaxomarl.stages import critic, score_regularised, scores
from jaxomarl.stages.clone import Policies, policy_optimiser
from jaxomarl.stages.score_regularised import (
    diffused,
    q_gradient,
    surrogate,
    times_and_noise,
    weight,
)


@config
class OwnConfig(score_regularised.Config):
    """The family's settings with each agent's own reward."""

    reward: str = static(default="own")
    """Reward that is learned: each agent's own."""


class Variant(NamedTuple):
    """One column of the table above."""

    name: str
    scores: str  # marginal or joint
    own: bool = False  # own critics and rewards
    joint_policy: bool = False


def policy(
    spec: Spec,
    cfg: score_regularised.Config,
    variant: Variant,
    eps: Callable[..., Array],
    q: Callable[..., Array],
) -> Algorithm:
    """Stage 3: behaviour model `eps(past, x, t, obs, state, action)` and critic `q(past, obs, state, action)`."""
    actors = (score_regularised.joint_actor if variant.joint_policy else score_regularised.actors)(
        spec, cfg
    )
    tx = policy_optimiser(cfg)
    mask = jnp.asarray(spec.act_mask)

    # line 3
    def update(
        key: Key[Array, ""], state: Policies, past: Past, batch: Batch
    ) -> tuple[Policies, dict]:
        t, z = times_and_noise(key, cfg, batch.action.shape, mask)
        t = (
            t[:, :1] + jnp.zeros_like(t) if variant.scores == "joint" else t
        )  # a joint sample has one time
        obs = observed(spec, cfg)(past, batch.obs)
        a = actors.every(state.actor.params, obs)  # line 4
        e = (
            eps(past, diffused(cfg, a, t, z), t, batch.obs, batch.state, a)
            - cfg.control_variate * z
        )
        g, w = q_gradient(cfg, q, past, batch, a, mask), weight(cfg, t)

        def loss(params):  # line 5
            return surrogate(cfg, w, e, g, actors.every(params, obs)).sum(axis=1).mean()

        value, grads = jax.value_and_grad(loss)(state.actor.params)
        return Policies(descend(tx, state.actor, grads)), score_regularised.report(
            a, e, g, w, value
        )

    return score_regularised.learner(
        spec, cfg, actors, partial(create, tx), update, variant.joint_policy
    )


def check(
    spec: Spec, cfg: score_regularised.Config, data: Dataset | None, variant: Variant
) -> None:
    """Raise JaxomarlError for settings that the variant cannot take."""
    score_regularised.check(spec, cfg, data, reward=("own",) if variant.own else ("team", "first"))


def pipeline(
    spec: Spec, cfg: score_regularised.Config, env: Environment | None, variant: Variant
) -> tuple[Stage, ...]:
    """Critic -> scores -> policy."""
    learner, model = critic.iql(spec, cfg, variant.own), scores.scores(spec, cfg, variant.scores)
    final = policy(spec, cfg, variant, model.every, learner.q)
    names = "critic-own" if variant.own else "critic", f"scores-{variant.scores}"
    kept = scores.fields(variant.scores)
    fields = (*critic.FIELDS, *kept, *score_regularised.FIELDS)
    return (
        Stage(names[0], learner.algorithm, cfg.critic_steps, cfg.chunk, cfg.every, critic.FIELDS),
        Stage(names[1], model.algorithm, scores.steps(cfg), cfg.chunk, cfg.every, kept),
        Stage("policy", final, cfg.policy_steps, cfg.chunk, cfg.every, fields, owner=variant.name),
    )


def system(variant: Variant) -> System:
    """The registry row of a variant."""
    return System(
        OwnConfig if variant.own else score_regularised.Config,
        partial(check, variant=variant),
        lambda spec, cfg, data: data,
        partial(pipeline, variant=variant),
    )


IND = Variant("brpo-ind", "marginal", own=True)
CTDE = Variant("brpo-ctde", "marginal")
JAL = Variant("brpo-jal", "joint", joint_policy=True)
JOINT_SCORE = Variant("joint-score", "joint")
