"""Models of the behaviour policy whose scores regularise the learned ones (OMSD, stage 2).

    conditional   eps_i(x_i, t | c_i, a_<i)    the sequential decomposition; clean data actions of earlier agents
    marginal      eps_i(x_i, t | c_i)          the product of marginals
    joint         eps(x, t | s)                all agents at once

Loss, per agent: mean over the batch of sum_dims (eps_i(alpha a_i + sigma z, t | ...) - z)^2, t ~ U(1e-3, 1). All
agents train in one vmapped update: the prefix is the joint action times a lower-triangular agent mask, so every network
has one shape. With `score_model = "mixture"` the model is a conditional Gaussian mixture fitted by likelihood, and
-score takes the place of eps (t-free; it is eps / sigma in the limit t -> 0).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Past, Spec, State
from jaxomarl.data.dataset import sample_transitions
from jaxomarl.diffusion.losses import eps_loss
from jaxomarl.diffusion.schedules import vp
from jaxomarl.networks.denoisers import mixture, residual_mlp
from jaxomarl.networks.mlp import Network
from jaxomarl.optim import Net, annealed, create, descend
from jaxomarl.stages import exact_scores
from jaxomarl.stages.inputs import conditions, flat, stated

FIELDS = (
    "score_model", "score_steps", "score_batch", "score_width", "score_blocks", "score_embedding", "score_dropout",
    "score_components", "score_lr", "score_decay", "chunk", "condition", "normalise",
)  # fmt: skip


class Scores(NamedTuple):
    """A behaviour model's learner and its noise predictions.

    `agent(past, i, x_i [B,A], t [B], obs, state, action) -> [B,A]`: eps_i given the clean `action` [B,N,A] of the
    agents before i. `every(past, x [B,N,A], t [B] or [B,N], obs, state, action) -> [B,N,A]`: all agents at once.
    """

    algorithm: Algorithm
    agent: Callable[..., Float[Array, "B A"]]
    every: Callable[..., Float[Array, "B N A"]]


def agent_order(order: str, agents: int) -> tuple[int, ...]:
    """The agents in turn: "2-1-0" is (2, 1, 0), "" the natural order. ValueError where it is no permutation."""
    found = tuple(int(i) for i in order.split("-")) if order else tuple(range(agents))
    if sorted(found) != list(range(agents)):
        raise ValueError(order)
    return found


def prefix_mask(order: tuple[int, ...]) -> Float[np.ndarray, "N N"]:
    """Entry (i, j) is 1.0 where agent j acts before agent i."""
    place = np.argsort(np.array(order))
    return (place[None, :] < place[:, None]).astype(np.float32)


def fields(kind: str) -> tuple[str, ...]:
    """The config fields that reach the stage; the order of agents matters to conditional models alone."""
    return (*FIELDS, "order") if kind == "conditional" else FIELDS


def steps(cfg: Any) -> int:
    """Updates of the stage."""
    return exact_scores.steps(cfg) if cfg.score_model in exact_scores.MODELS else cfg.score_steps


def scores(spec: Spec, cfg: Any, kind: str) -> Scores:
    """The behaviour model of a kind; stage `scores-<kind>`. The joint one is a single model with N A columns."""
    if cfg.score_model in exact_scores.MODELS:
        order = agent_order(cfg.order if kind == "conditional" else "", spec.agents)
        return Scores(*exact_scores.scores(spec, cfg, kind, prefix_mask(order)))
    models, name = 1 if kind == "joint" else spec.agents, f"scores-{kind}"
    net, given = model(spec, cfg, kind), conditioned(spec, cfg, kind)
    mask = jnp.asarray(spec.act_mask).reshape(models, -1)

    def split(x: Float[Array, "B N A"]) -> Float[Array, "B models D"]:
        return x.reshape(len(x), models, -1)

    def every(past: Past, x: Array, t: Array, obs: Array, state: Array, action: Array) -> Float[Array, "B N A"]:
        times = jnp.broadcast_to(t[:, None] if t.ndim == 1 else t[:, :models], (len(x), models))
        run = jax.vmap(lambda *own: predict(net, cfg, *own), in_axes=(0, 1, 1, 1, 0), out_axes=1)
        return run(past[name].params, split(x), times, given(past, obs, state, action), mask).reshape(x.shape)

    def agent(past: Past, i: Any, x: Array, t: Array, obs: Array, state: Array, action: Array) -> Float[Array, "B A"]:
        params = jax.tree.map(lambda p: p[i], past[name].params)
        return predict(net, cfg, params, x, t, given(past, obs, state, action)[:, i], mask[i])

    return Scores(learner(cfg, models, net, given, split, mask), agent, every)


def model(spec: Spec, cfg: Any, kind: str) -> Network:
    """The network of one model: a noise prediction, or a mixture's log-density."""
    columns = spec.act_width * (spec.agents if kind == "joint" else 1)
    cond = spec.obs_width if cfg.condition == "obs" and kind != "joint" else spec.state_dim
    cond += spec.agents * spec.act_width if kind == "conditional" else 0
    if cfg.score_model == "mixture":
        return mixture(cond, (cfg.score_width,) * 2, columns, cfg.score_components)
    return residual_mlp(columns, cond, cfg.score_width, cfg.score_blocks, cfg.score_dropout, cfg.score_embedding)


def conditioned(spec: Spec, cfg: Any, kind: str) -> Callable[[Past, Array, Array, Array], Float[Array, "B models C"]]:
    """What each model is told: (past, obs, state, action) -> c_i, followed by the masked joint action as the prefix."""
    before = jnp.asarray(prefix_mask(agent_order(cfg.order, spec.agents))) if kind == "conditional" else None

    def given(past, obs, state, action):
        if kind == "joint":
            return stated(cfg)(past, state)[:, None]
        own = conditions(spec, cfg, past, obs, state)
        if before is None:
            return own
        heard = before[None, :, :, None] * (action * spec.act_mask)[:, None]  # [B, N, N, A]: in row i, those before i
        return jnp.concatenate([own, flat(heard)], axis=-1)

    return given


def predict(
    net: Network, cfg: Any, params: Any, x: Array, t: Array, cond: Array, mask: Array, key: Any = None
) -> Array:
    """One model's eps [B, D], or -score of the mixture; `key` is for dropout, in training alone."""
    if cfg.score_model == "mixture":
        return -mask * jax.grad(lambda y: net.apply(params, y, cond, mask).sum())(x)
    return mask * net.apply(params, x, t, cond, key)


def learner(cfg: Any, models: int, net: Network, given: Callable, split: Callable, mask: Array) -> Algorithm:
    """All models' steps as one vmapped update."""
    schedule = vp()
    tx = optax.adamw(annealed(cfg.score_lr, cfg.score_steps, end=1e-5), weight_decay=cfg.score_decay)

    def fit(one: Net, x0: Array, cond: Array, mask: Array, t: Array, z: Array, key: Any) -> tuple[Net, Array]:
        def loss(params):
            if cfg.score_model == "mixture":
                return -net.apply(params, x0, cond, mask).mean()
            return eps_loss(lambda x, t: predict(net, cfg, params, x, t, cond, mask, key), schedule, x0, t, z, mask)

        value, grads = jax.value_and_grad(loss)(one.params)
        return descend(tx, one, grads), value

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Net:
        return jax.vmap(lambda k: create(tx, net.init(k)))(jax.random.split(key, models))

    def batch(key: Key[Array, ""], state: State, data: Dataset) -> Batch:
        return sample_transitions(key, data, cfg.score_batch)

    def update(key: Key[Array, ""], state: Net, past: Past, batch: Batch) -> tuple[Net, dict]:
        k_t, k_z, k_drop = jax.random.split(key, 3)
        x0, cond = mask * split(batch.action), given(past, batch.obs, batch.state, batch.action)
        t = jax.random.uniform(k_t, x0.shape[:2], minval=1e-3, maxval=1.0)
        z = mask * jax.random.normal(k_z, x0.shape)
        keys = jax.random.split(k_drop, models) if cfg.score_dropout else None
        each = jax.vmap(fit, in_axes=(0, 1, 1, 0, 1, 1, None if keys is None else 0))
        state, loss = each(state, x0, cond, mask, t, z, keys)
        return state, {"score_loss": loss.mean()}

    return Algorithm(init, batch, update)
