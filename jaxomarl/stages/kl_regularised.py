"""OMSD and its ablations where actions are discrete: the regulariser in closed form.

Scores do not exist on a finite set; log-probabilities do. For agent i, with the others' current
policies,

    q_i(a) = E_{a_-i ~ pi_-i} Q(c, a, a_-i)
    l_i(a) = E_{a_<i ~ pi_<i} log mu_i(a | c_i, a_<i)          conditional (OMSD)
           = log mu_i(a | c_i)                                 marginal (its ablations)
           = E_{a_-i} sum_{j >= i} log mu_j(a_j | c_j, a_<j)   joint: nothing is dropped
    F_i    = beta q_i + l_i
    L_i    = mean sum_a pi_i(a | o_i) [ log pi_i(a | o_i) - sg F_i(a) ]

over the legal actions of living agents. L_i is least where pi_i is in proportion to exp F_i. It
descends E KL(pi_i || mu_i(. | a_<i)) - beta E Q, as the Kullback-Leibler divergence to the
geometric mean of the conditionals differs from it by a constant.

The expectation over an agent's own actions is exact. The one over the others' is enumerated where
there are few joint actions, and else sampled: one set of draws serves q_i and l_i. Policies do not
follow what their actions do to other agents' samples.

Agents move in an order. In a sweep "gauss-seidel" each reacts to those that moved before it, and in
"jacobi" to all policies before the step.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Past, Spec, Stage, refuse
from jaxomarl.config import check_fields, is_zero
from jaxomarl.data.dataset import check_transitions, sample_transitions
from jaxomarl.losses.categorical import divergences, greedy, log_policy
from jaxomarl.masking import weighted_mean
from jaxomarl.networks.agents import separate
from jaxomarl.networks.inputs import observation_normaliser
from jaxomarl.networks.mlp import mlp
from jaxomarl.optim import create, descend
from jaxomarl.stages import critic, score_regularised, sequential_clone
from jaxomarl.stages.clone import Policies, policy_optimiser
from jaxomarl.stages.scores import agent_order
from jaxomarl.stages.sequential_clone import behaviour_model, model_stage

REGULARISERS = ("conditional", "marginal", "joint")
"""Which log-probability stands in F_i."""
ENUMERATED = 64
"""Most joint actions over which expectations are exact."""
FIELDS = (
    "policy_steps", "policy_batch", "policy_width", "policy_lr", "policy_optimiser",
    "policy_anneal", "chunk", "beta", "normalise_gradient", "floor", "draws", "warm", "play",
)  # fmt: skip

LogMu = Callable[..., Float[Array, "K B A"]]
"""`agent` of `sequential_clone.BehaviourModel`."""
Value = Callable[[Past, Array, Array, Array], Float[Array, "*M B"]]
"""(past, obs, state, joint action [*M, B, N, A]) -> [*M, B]."""


def check(
    spec: Spec,
    cfg: score_regularised.Config,
    data: Dataset | None,
    reward: tuple[str, ...] = ("team", "first"),
) -> None:
    """Raise JaxomarlError for settings or data that the family cannot train discrete actions on."""
    check_fields(cfg, {**score_regularised.CHOICES, "reward": reward})
    if cfg.score_model != "diffusion":
        way = "Discrete actions have clones for a behaviour model. Leave it out."
        raise refuse("--cfg.score-model", "its default", cfg.score_model, way)
    critic.check_unwatched(spec, cfg)
    check_transitions(data)


# --- expectations over the others' actions ---


def joint_actions(spec: Spec) -> Float[np.ndarray, "K N A"] | None:
    """All joint actions as one-hot rows, padded ones among them; None where there are many."""
    if spec.act_width**spec.agents > ENUMERATED:
        return None
    every = np.array([*itertools.product(range(spec.act_width), repeat=spec.agents)])
    return np.eye(spec.act_width, dtype=np.float32)[every]


def others_actions(
    key: Key[Array, ""],
    spec: Spec,
    draws: int,
    log_pi: Float[Array, "B N A"],
    i: int | Array,
) -> tuple[Float[Array, "K B N A"], Float[Array, "K B"]]:
    """Joint actions, and their weights in an expectation over all agents but i.

    The weights sum to 1. What agent i does in these actions has no meaning.
    """
    table = joint_actions(spec)
    if table is None:
        shape = (draws, *log_pi.shape[:-1])
        drawn = jax.random.categorical(key, log_pi, shape=shape)
        joint = jax.nn.one_hot(drawn, spec.act_width)
        return joint, jnp.full(joint.shape[:2], 1.0 / draws)

    probability = jnp.einsum("kna,bna->kbn", table, jnp.exp(log_pi))
    is_agent_i = jnp.arange(spec.agents) == i
    weight = jnp.where(is_agent_i, 1.0 / spec.act_width, probability).prod(axis=-1)
    joint = jnp.broadcast_to(table[:, None], (*weight.shape, *table.shape[1:]))
    return joint, weight


def with_own_actions(joint: Float[Array, "K B N A"], i: int | Array) -> Float[Array, "A K B N A"]:
    """The joint actions with each of agent i's own actions in turn."""
    agents, width = joint.shape[-2:]
    own = jnp.eye(width)[:, None, None, None, :]
    return jnp.where((jnp.arange(agents) == i)[:, None], own, joint)


# --- what an agent follows ---


class Followed(NamedTuple):
    """F_i = beta q_i + l_i of every own action, as at the head of this file."""

    cfg: score_regularised.Config
    log_mu: LogMu
    q: Value
    regulariser: str
    place: Int[np.ndarray, " N"]
    """The place of each agent in the order."""

    def of(
        self,
        past: Past,
        batch: Batch,
        i: int | Array,
        team: tuple[Array, Array],
        legal: Float[Array, "B N A"],
    ) -> tuple[Float[Array, "B A"], Float[Array, "B A"]]:
        """(F_i, q_i), where `team` is what `others_actions` returns."""
        joint, weight = team
        value = self.values(past, batch, i, joint, weight)
        if self.cfg.normalise_gradient:
            value = value / spread(value, legal[:, i])
        if self.regulariser == "joint":
            prior = self.joint_prior(past, batch, i, joint, weight, legal)
        elif self.regulariser == "marginal":
            # the others' actions are not asked for: one draw has all
            (prior,) = self.log_mu(past, i, batch.obs, batch.state, joint[:1], legal)
        else:
            conditional = self.log_mu(past, i, batch.obs, batch.state, joint, legal)
            prior = jnp.sum(weight[..., None] * conditional, axis=0)
        return jax.lax.stop_gradient((self.cfg.beta * value + prior, value))

    def values(
        self, past: Past, batch: Batch, i: int | Array, joint: Array, weight: Array
    ) -> Float[Array, "B A"]:
        """q_i."""
        every = self.q(past, batch.obs, batch.state, with_own_actions(joint, i))
        return jnp.sum(weight * every, axis=1).T

    def joint_prior(
        self, past: Past, batch: Batch, i: int | Array, joint: Array, weight: Array, legal: Array
    ) -> Float[Array, "B A"]:
        """l_i where nothing is dropped: agent i's own term, and those of the agents after it."""
        every = with_own_actions(joint, i)
        place = jnp.asarray(self.place)
        total = jnp.zeros(every.shape[:3])
        for j in range(len(self.place)):
            of_all = self.log_mu(past, j, batch.obs, batch.state, every, legal)
            term = jnp.sum(every[..., j, :] * of_all, axis=-1)
            total = total + jnp.where(place[j] >= place[i], term, 0.0)
        return jnp.sum(weight * total, axis=1).T


# --- the policies ---


def policy(
    spec: Spec,
    cfg: score_regularised.Config,
    log_mu: LogMu,
    q: Value,
    regulariser: str,
    order: str = "",
    sweep: str = "jacobi",
) -> Algorithm:
    """Build the policies' stage from a trained behaviour model and a trained critic."""
    one = mlp(spec.obs_width, score_regularised.hidden(cfg), spec.act_width)
    many = separate(one, spec.agents)
    optimiser = policy_optimiser(cfg)
    mask = jnp.asarray(spec.act_mask)
    normalise_obs = observation_normaliser(spec, cfg)
    turns = agent_order(order, spec.agents)
    followed = Followed(cfg, log_mu, q, regulariser, np.argsort(np.array(turns)))

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Policies:
        params = past["start"].params if cfg.warm else many.init(key)
        return Policies(jax.vmap(lambda own: create(optimiser, own))(params))

    def batch(key: Key[Array, ""], state: Policies, data: Dataset) -> Batch:
        return sample_transitions(key, data, cfg.policy_batch)

    def update(key: Array, state: Policies, past: Past, batch: Batch) -> tuple[Policies, dict]:
        obs = normalise_obs(past, batch.obs)
        legal = batch.available * mask
        before = many.apply(state.actor.params, obs)

        def move(carry, turn):
            actor, now = carry
            i, k_others = turn
            log_pi = log_policy(now if sweep == "gauss-seidel" else before, legal)
            team = others_actions(k_others, spec, cfg.draws, log_pi, i)
            target, value = followed.of(past, batch, i, team, legal)

            # --- one step of its policy, which the next agent sees ---
            def loss(params):
                logits = one.apply(params, obs[:, i])
                return divergence(logits, target, legal[:, i], batch.alive[:, i])

            own = jax.tree.map(lambda leaf: leaf[i], actor)
            result, grads = jax.value_and_grad(loss)(own.params)
            own = descend(optimiser, own, grads)
            actor = jax.tree.map(lambda leaf, new: leaf.at[i].set(new), actor, own)
            after = one.apply(own.params, obs[:, i])
            metrics = figures(after, value, legal[:, i], batch.alive[:, i])
            return (actor, now.at[:, i].set(after)), {"policy_loss": result, **metrics}

        given = (jnp.asarray(turns), jax.random.split(key, spec.agents))
        (actor, _), metrics = jax.lax.scan(move, (state.actor, before), given)
        return Policies(actor), jax.tree.map(jnp.mean, metrics)

    def act(key, state, past, memory, observation):
        logits = many.apply(state.actor.params, normalise_obs(past, observation.obs))
        return played(key, cfg.play, logits, mask * observation.available), memory

    return Algorithm(init, batch, update, act)


def played(
    key: Key[Array, ""], how: str, logits: Float[Array, "N A"], legal: Float[Array, "N A"]
) -> Float[Array, "N A"]:
    """The likeliest legal action of each agent, or a draw."""
    if how == "greedy":
        return greedy(logits, legal)
    drawn = jax.random.categorical(key, log_policy(logits, legal))
    return jax.nn.one_hot(drawn, logits.shape[-1])


def figures(
    logits: Float[Array, "B A"],
    value: Float[Array, "B A"],
    legal: Float[Array, "B A"],
    alive: Float[Array, " B"],
) -> dict[str, Float[Array, ""]]:
    """The value that a policy plays, and the probability of its likeliest action."""
    pi = jnp.exp(log_policy(logits, legal))
    return {
        "q_played": weighted_mean(jnp.sum(pi * value, axis=-1), alive),
        "surest": weighted_mean(pi.max(axis=-1), alive),
    }


def divergence(
    logits: Float[Array, "B A"],
    target: Float[Array, "B A"],
    legal: Float[Array, "B A"],
    alive: Float[Array, " B"],
) -> Float[Array, ""]:
    """L_i: the mean over living rows of sum_a pi(a) (log pi(a) - F(a)) over the legal actions."""
    return weighted_mean(divergences(logits, target, legal), alive)


def spread(value: Float[Array, "B A"], legal: Float[Array, "B A"]) -> Float[Array, ""]:
    """The batch's mean standard deviation of values over legal actions."""
    count = jnp.maximum(legal.sum(axis=-1, keepdims=True), 1.0)
    mean = jnp.sum(legal * value, axis=-1, keepdims=True) / count
    variance = jnp.sum(legal * (value - mean) ** 2, axis=-1, keepdims=True) / count
    return jax.lax.stop_gradient(jnp.sqrt(variance + 1e-12).mean() + 1e-8)


# --- the stages ---


def pipeline(
    spec: Spec,
    cfg: Any,
    regulariser: str,
    owner: str,
    own: bool = False,
    order: str | None = None,
    sweep: str = "jacobi",
) -> tuple[Stage, ...]:
    """The stages: critic -> behaviour model -> policies' start, where it is warm -> policy.

    `own` gives each agent a critic of its own. `order` is the setting of systems that have one.
    """
    trained_critic = critic.iql(spec, cfg, own)
    critic_stage = critic.critic_stage(cfg, trained_critic, own, is_zero(cfg.beta))

    # --- the behaviour ---
    kind = "marginal" if regulariser == "marginal" else "conditional"
    name = f"clone-{regulariser}"
    model = behaviour_model(spec, cfg, kind, name, cfg.score_width, order or "")
    own_fields = ("condition", "score_width", *(("order",) if order is not None else ()))
    stages = [critic_stage, model_stage(cfg, name, model, own_fields)]
    fields = (*sequential_clone.FIELDS, *own_fields, *FIELDS)
    if cfg.warm:
        on_obs = dataclasses.replace(cfg, condition="obs")
        start = behaviour_model(spec, on_obs, "marginal", "start", cfg.policy_width)
        stages.append(model_stage(cfg, "start", start, ("policy_width", "warm")))

    # --- the policies ---
    sampled = cfg
    if own and regulariser == "marginal":
        # in a sum of own values the others' actions are a constant of q_i
        sampled = dataclasses.replace(cfg, draws=1)
    final = policy(spec, sampled, model.agent, trained_critic.q, regulariser, order or "", sweep)
    if order is not None:
        fields = (*fields, "sweep")
    return *stages, critic.policy_stage(spec, cfg, final, fields, owner)
