"""Models of the behaviour where actions are discrete: clones, one after the other.

    conditional   mu_i(a_i | c_i, a_<i)    the sequential decomposition; data actions of a_<i
    marginal      mu_i(a_i | c_i)          the product of marginals

One network an agent, trained by cross-entropy over the legal actions. The prefix a_<i is the joint
action times a lower-triangular agent mask, so every network has one shape; it is never dropped.
Dead agents stop in the data, and their stop stands in the prefix; as targets their rows do not
count. Where a model is used it is mixed with the uniform legal policy,

    mu_i <- (1 - kappa) mu_i + kappa m_i / |m_i|,      kappa = `floor`

which bounds log mu_i for actions, and after prefixes, that the data never show.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Health, Past, Spec, Stage, State
from jaxomarl.data.dataset import sample_transitions
from jaxomarl.health import behaviour
from jaxomarl.health.held import transitions
from jaxomarl.losses.categorical import ILLEGAL, cross_entropy, greedy, log_policy
from jaxomarl.masking import weighted_mean
from jaxomarl.networks.inputs import conditions, flat
from jaxomarl.networks.mlp import mlp
from jaxomarl.optim import Net, annealed, create, descend
from jaxomarl.stages.scores import RAISE, agent_order, prefix_mask

KINDS = ("conditional", "marginal")
FIELDS = ("score_steps", "score_batch", "score_lr", "score_decay", "chunk", "normalise")
"""The settings of training that reach every such stage."""
TINY = 1e-30
"""Least probability whose logarithm is taken, where there is no floor."""


class BehaviourModel(NamedTuple):
    """A behaviour model's learner, its health and its log-probabilities."""

    algorithm: Algorithm
    agent: Callable[..., Float[Array, "*K B A"]]
    """`agent(past, i, obs, state, joint [*K, B, N, A], legal [B, N, A]) -> [*K, B, A]`.

    It is log mu_i of every action of agent i with the floor; of illegal ones about ILLEGAL. The
    actions of the agents before i count in `joint`.
    """
    health: Health


def behaviour_model(
    spec: Spec, cfg: Any, kind: str, name: str, width: int, order: str = ""
) -> BehaviourModel:
    """The behaviour model of a kind, for the stage `name`, with two hidden layers of `width`."""
    inputs = model_inputs(spec, cfg, kind, order)
    columns = spec.obs_width if cfg.condition == "obs" else spec.state_dim
    if kind == "conditional":
        columns += spec.agents * spec.act_width
    hidden = (width,) * 2 if width else ()
    net = mlp(columns, hidden, spec.act_width)
    mask = jnp.asarray(spec.act_mask)
    rate = annealed(cfg.score_lr, cfg.score_steps, end=1e-5)
    optimiser = optax.adamw(rate, weight_decay=cfg.score_decay)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Net:
        start = lambda key: create(optimiser, net.init(key))
        return jax.vmap(start)(jax.random.split(key, spec.agents))

    def batch(key: Key[Array, ""], state: State, data: Dataset) -> Batch:
        return sample_transitions(key, data, cfg.score_batch)

    def fit(one, x, action, legal, alive):
        def loss(params):
            return weighted_mean(cross_entropy(net.apply(params, x), action, legal), alive)

        value, grads = jax.value_and_grad(loss)(one.params)
        return descend(optimiser, one, grads), value

    def update(key: Key[Array, ""], state: Net, past: Past, batch: Batch) -> tuple[Net, dict]:
        action = batch.action * mask
        x = inputs(past, batch.obs, batch.state, action)
        each = jax.vmap(fit, in_axes=(0, 1, 1, 1, 1))
        state, loss = each(state, x, action, batch.available * mask, batch.alive)
        return state, {"score_loss": loss.mean()}

    def agent(
        past: Past, i: ArrayLike, obs: Array, state: Array, joint: Array, legal: Array
    ) -> Float[Array, "*K B A"]:
        params = jax.tree.map(lambda leaf: leaf[i], past[name].params)
        x = inputs(past, obs, state, joint)[..., i, :]
        return floored(net.apply(params, x), legal[:, i] * mask[i], cfg.floor)

    def measure(
        key: Key[Array, ""], state: State, past: Past, held: Dataset
    ) -> dict[str, Float[Array, ""]]:
        rows = transitions(held)
        x = inputs(past, rows.obs, rows.state, rows.action)
        logits = jax.vmap(net.apply, in_axes=(0, 1), out_axes=1)(state.params, x)
        legal = rows.available * mask
        error = cross_entropy(logits, rows.action, legal)
        commonest = behaviour.commonest_action(rows.action, rows.alive)
        return {
            "cross_entropy": weighted_mean(error, rows.alive),
            "wrong_share": behaviour.wrong_share(greedy(logits, legal), rows.action, rows.alive),
            "commonest_wrong_share": behaviour.wrong_share(commonest, rows.action, rows.alive),
        }

    health = Health(measure, behaviour.ONE_HOT_GATES, RAISE)
    return BehaviourModel(Algorithm(init, batch, update), agent, health)


def model_inputs(
    spec: Spec, cfg: Any, kind: str, order: str
) -> Callable[[Past, Array, Array, Array], Float[Array, "*K B N C"]]:
    """The networks' inputs (past, obs, state, joint [*K, B, N, A]) -> [*K, B, N, C].

    Each agent has its condition c_i, and a conditional model the actions before it.
    """
    before = jnp.asarray(prefix_mask(agent_order(order, spec.agents)))[:, :, None]

    def of(past: Past, obs: Array, state: Array, joint: Array) -> Float[Array, "*K B N C"]:
        own = conditions(spec, cfg, past, obs, state)
        if kind == "marginal":
            return jnp.broadcast_to(own, (*joint.shape[:-1], own.shape[-1]))
        preceding = flat(before * joint[..., None, :, :])
        repeated = jnp.broadcast_to(own, (*preceding.shape[:-1], own.shape[-1]))
        return jnp.concatenate([repeated, preceding], axis=-1)

    return of


def floored(
    logits: Float[Array, "*K B A"], legal: Float[Array, "B A"], floor: float | Array
) -> Float[Array, "*K B A"]:
    """log of (1 - floor) softmax(logits) + floor / |legal|; of illegal actions ILLEGAL."""
    probability = jnp.exp(log_policy(logits, legal))
    uniform = legal / jnp.maximum(legal.sum(axis=-1, keepdims=True), 1.0)
    mixture = (1.0 - floor) * probability + floor * uniform
    return jnp.where(legal > 0, jnp.log(jnp.maximum(mixture, TINY)), ILLEGAL)


def model_stage(
    cfg: Any, name: str, model: BehaviourModel, more: tuple[str, ...], owner: str = ""
) -> Stage:
    """The stage that trains a behaviour model; `more` are the settings beside those of training."""
    return Stage.from_config(
        cfg, name, model.algorithm, cfg.score_steps, (*FIELDS, *more), owner, model.health
    )
