"""BRPO: OMSD's ablations, in which all agents move at once and the score is not sequential.

**Paper**. "Offline Multi-agent Reinforcement Learning with Sequential Score Decomposition", 2025,
appendix F and Table 1: behaviour-regularised policy optimisation, factorised in the usual ways.

**Pseudo-code**.

    1   train the critic by IQL: joint, or each agent's own
                                         stage "critic" or "critic-own" (stages/critic.py)
    2   train the behaviour model: marginal or joint
                                         stage "scores-marginal", "-joint" (stages/scores.py)
    3   for each policy gradient step:                        stage "policy", `update`
    4       a = (pi_1(o_1), .., pi_n(o_n)), or pi(o_1..o_n) for JAL
    5       Adam step down sum_i mean[ w(t) <e_i, a_i> - beta <g_i, a_i> ]

                        e_i                      g_i                    policies
        brpo-ind        eps_i(x_i, t | o_i)      dQ_i(o_i, a_i)/da_i    one each
        brpo-ctde       eps_i(x_i, t | o_i)      dQ_tot(s, a)/da_i      one each
        brpo-jal        [eps(x, t | s)]_i        dQ_tot(s, a)/da_i      one for all (centralised)
        joint-score     [eps(x, t | s)]_i        dQ_tot(s, a)/da_i      one each

**Differs**.

- `joint-score` is not in the paper. It follows the exact gradient of log mu(a | s). OMSD's sequence
  of best responses does not: it drops the sum over j > i of d log mu_j(a_j | s, a_<j) / d a_i.
- IND trains each agent's critic on that agent's own reward.
- Discrete actions are ours (stages/kl_regularised.py). `joint-score` then has the autoregressive
  clone for its joint model, and JAL is refused.
- JAL's policy needs all observations to act, so it declares itself centralised.

**Checked**. tests/probes/test_bandit_exact.py (end points with exact scores),
tests/probes/test_scores.py (on independent agents all four regularisers agree),
tests/probes/test_cms.py (on correlated agents they do not), tests/reference/test_extraction.py.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Environment, Past, Spec, Stage, System, refuse
from jaxomarl.config import config, is_zero, static
from jaxomarl.data.dataset import as_is
from jaxomarl.networks.inputs import observation_normaliser
from jaxomarl.optim import create, descend
from jaxomarl.stages import critic, kl_regularised, score_regularised, scores
from jaxomarl.stages.clone import Policies, policy_optimiser
from jaxomarl.stages.score_regularised import (
    diffused,
    q_gradient,
    score_times_and_noise,
    surrogate,
    weight,
)


@config
class OwnConfig(score_regularised.Config):
    """The family's settings with each agent's own reward."""

    reward: str = static(default="own")
    """Reward that is learned: each agent's own."""


class Variant(NamedTuple):
    """One row of the table above."""

    name: str
    scores: str
    """The behaviour model: marginal or joint."""
    own: bool = False
    """Each agent has a critic of its own, trained on its own reward."""
    joint_policy: bool = False
    """One policy maps all observations to all actions."""


def policy(
    spec: Spec,
    cfg: score_regularised.Config,
    variant: Variant,
    eps: Callable[..., Array],
    q: Callable[..., Array],
) -> Algorithm:
    """Build the policies' stage from a trained behaviour model and a trained critic.

    `eps(past, x, t, obs, state, action)` is the noise prediction of all agents, and
    `q(past, obs, state, action)` is the value of a joint action.
    """
    if variant.joint_policy:
        actors = score_regularised.joint_actor(spec, cfg)
    else:
        actors = score_regularised.actors(spec, cfg)
    optimiser = policy_optimiser(cfg)
    action_mask = jnp.asarray(spec.act_mask)
    normalise_obs = observation_normaliser(spec, cfg)

    # line 3
    def update(
        key: Key[Array, ""], state: Policies, past: Past, batch: Batch
    ) -> tuple[Policies, dict]:
        t, z = score_times_and_noise(key, cfg, batch.action.shape, action_mask)
        if variant.scores == "joint":
            t = t[:, :1] + jnp.zeros_like(t)  # a joint sample has one time for all agents

        # --- the joint action: line 4 ---
        obs = normalise_obs(past, batch.obs)
        a = actors.every(state.actor.params, obs)

        # --- the score of the behaviour, the gradient of the critic, the weight of the score ---
        x = diffused(cfg, a, t, z)
        noise = eps(past, x, t, batch.obs, batch.state, a)
        e = noise - cfg.control_variate * z
        g = q_gradient(cfg, q, past, batch, a, action_mask)
        w = weight(cfg, t)

        # --- one step of all policies: line 5 ---
        def loss(params):
            actions = actors.every(params, obs)
            return surrogate(cfg, w, e, g, actions).sum(axis=1).mean()

        value, grads = jax.value_and_grad(loss)(state.actor.params)
        actor = descend(optimiser, state.actor, grads)
        return Policies(actor), score_regularised.score_regularised_metrics(a, e, g, w, value)

    first_state = partial(create, optimiser)
    return score_regularised.score_regularised_learner(
        spec, cfg, actors, first_state, update, variant.joint_policy
    )


def check(
    spec: Spec, cfg: score_regularised.Config, data: Dataset | None, variant: Variant
) -> None:
    """Raise JaxomarlError for settings that the variant cannot train with."""
    rewards = ("own",) if variant.own else ("team", "first")
    if not spec.discrete:
        score_regularised.check(spec, cfg, data, reward=rewards)
        return
    if variant.joint_policy:
        way = "Take continuous actions here, or joint-score, whose regulariser is joint too."
        raise refuse("--task", "continuous actions", "a discrete task", way)
    kl_regularised.check(spec, cfg, data, reward=rewards)


def pipeline(
    spec: Spec, cfg: score_regularised.Config, env: Environment | None, variant: Variant
) -> tuple[Stage, ...]:
    """Three stages: critic -> scores -> policy; discrete actions have clones in place of scores."""
    if spec.discrete:
        return kl_regularised.pipeline(spec, cfg, variant.scores, variant.name, variant.own)

    # line 1
    trained_critic = critic.iql(spec, cfg, variant.own)
    critic_stage = critic.critic_stage(cfg, trained_critic, variant.own, is_zero(cfg.beta))

    # line 2
    score_model = scores.behaviour_model(spec, cfg, variant.scores)
    score_fields = scores.score_fields(variant.scores)
    _, last_time = score_regularised.time_range(cfg)
    score_stage = scores.score_stage(spec, cfg, score_model, variant.scores, last_time)

    # lines 3-5
    final = policy(spec, cfg, variant, score_model.every, trained_critic.q)
    fields = (*score_fields, *score_regularised.FIELDS)
    policy_stage = critic.policy_stage(spec, cfg, final, fields, variant.name)
    return critic_stage, score_stage, policy_stage


def system(variant: Variant) -> System:
    """The registry row of a variant."""
    return System(
        OwnConfig if variant.own else score_regularised.Config,
        partial(check, variant=variant),
        as_is,
        partial(pipeline, variant=variant),
    )


IND = Variant("brpo-ind", "marginal", own=True)
CTDE = Variant("brpo-ctde", "marginal")
JAL = Variant("brpo-jal", "joint", joint_policy=True)
JOINT_SCORE = Variant("joint-score", "joint")
