"""Models of the behaviour policy whose scores regularise the learned ones (OMSD, stage 2).

    conditional   eps_i(x_i, t | c_i, a_<i)    the sequential decomposition; data actions of earlier agents
    marginal      eps_i(x_i, t | c_i)          the product of marginals
    joint         eps(x, t | s)                all agents at once

Loss, per agent: mean over the batch of sum_dims (eps_i(alpha a_i + sigma z, t | ...) - z)^2, t ~ U(1e-3, 1). All
agents train in one vmapped update: the prefix is the joint action times a lower-triangular agent mask, so every network
has one shape. With `score_predict = "edm"` the network's input and target have unit variance at every t, and its own
squared error is the loss (Karras et al. 2022, their table 1, for this schedule): a loss in eps hardly counts what a
network says of the action at large t, where x_t tells nothing and weights w(t) such as sigma^2 ask for it most.
With `score_model = "mixture"` the model is a conditional Gaussian mixture fitted by likelihood, and
-score takes the place of eps (t-free; it is eps / sigma in the limit t -> 0).

What a conditional model is given of the preceding agents, its prefix, is `score_prefix`:

    clean      a_<i: the paper's. Data actions lie on a thin shell around the behaviours; policies' actions do not, and
               what a network says there is arbitrary.
    noised     a_<i + s n and s, n ~ N(0, 1), s ~ U(0, prefix_noise): conditioned on the preceding actions as known to
               within s. At s = 0 it is the clean conditional, for large s the marginal. Policies' actions are read at
               the level `prefix_level`.
    diffused   alpha a_<i + sigma z_<i, at the time t of x_i: the conditionals of the diffused joint distribution, whose
               product over i is that distribution at every t.
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
from jaxomarl.diffusion import edm
from jaxomarl.diffusion.losses import eps_loss
from jaxomarl.diffusion.schedules import at, vp
from jaxomarl.networks.denoisers import mixture, residual_mlp
from jaxomarl.networks.inputs import conditions, flat, stated
from jaxomarl.networks.mlp import Network
from jaxomarl.optim import Net, annealed, create, descend
from jaxomarl.stages import exact_scores

FIELDS = (
    "score_model", "score_steps", "score_batch", "score_width", "score_blocks", "score_embedding", "score_dropout",
    "score_components", "score_predict", "score_lr", "score_decay", "chunk", "condition", "normalise",
)  # fmt: skip
PREFIXES = ("clean", "noised", "diffused")
PREDICTIONS = ("noise", "edm")
SIGMA_DATA = 0.5
"""The deviation of data that EDM's preconditioning takes for granted: its default, and near that of actions."""


class Scores(NamedTuple):
    """A behaviour model's learner and its noise predictions.

    `agent(past, i, x_i [B,A], t [B], obs, state, prefix) -> [B,A]`: eps_i given the `prefix` [B,N,A] of the agents
    before i, as `policy_prefix` makes it of their actions. `every(past, x [B,N,A], t [B] or [B,N], obs, state, prefix)
    -> [B,N,A]`: all agents at once.
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
    """The config fields that reach the stage; agents' order and prefix matter to conditional models alone."""
    return (*FIELDS, "order", "score_prefix", "prefix_noise") if kind == "conditional" else FIELDS


def policy_prefix(
    cfg: Any, action: Float[Array, "B N A"], t: Float[Array, " B"], z: Float[Array, "B N A"]
) -> Float[Array, "B N A"]:
    """What the model of an agent whose sample has time t is given of the policies' joint action."""
    if cfg.score_prefix != "diffused":
        return action
    alpha, sigma = vp()
    return alpha(t)[:, None, None] * action + sigma(t)[:, None, None] * z


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
    level = cfg.prefix_level if kind == "conditional" else 0.0

    def split(x: Float[Array, "B N A"]) -> Float[Array, "B models D"]:
        return x.reshape(len(x), models, -1)

    def every(
        past: Past, x: Array, t: Array, obs: Array, state: Array, action: Array
    ) -> Float[Array, "B N A"]:
        times = jnp.broadcast_to(t[:, None] if t.ndim == 1 else t[:, :models], (len(x), models))
        run = jax.vmap(lambda *own: predict(net, cfg, *own), in_axes=(0, 1, 1, 1, 0), out_axes=1)
        cond = given(past, obs, state, action, level)
        return run(past[name].params, split(x), times, cond, mask).reshape(x.shape)

    def agent(
        past: Past, i: Any, x: Array, t: Array, obs: Array, state: Array, prefix: Array
    ) -> Float[Array, "B A"]:
        params = jax.tree.map(lambda p: p[i], past[name].params)
        cond = given(past, obs, state, prefix, level)
        return predict(net, cfg, params, x, t, cond[:, i], mask[i])

    return Scores(learner(cfg, kind, models, net, given, split, mask), agent, every)


def model(spec: Spec, cfg: Any, kind: str) -> Network:
    """The network of one model: a noise prediction, or a mixture's log-density."""
    columns = spec.act_width * (spec.agents if kind == "joint" else 1)
    cond = spec.obs_width if cfg.condition == "obs" and kind != "joint" else spec.state_dim
    if kind == "conditional":
        cond += spec.agents * spec.act_width + (cfg.score_prefix == "noised")
    if cfg.score_model == "mixture":
        return mixture(cond, (cfg.score_width,) * 2, columns, cfg.score_components)
    return residual_mlp(
        columns, cond, cfg.score_width, cfg.score_blocks, cfg.score_dropout, cfg.score_embedding
    )


def conditioned(spec: Spec, cfg: Any, kind: str) -> Callable[..., Float[Array, "B models C"]]:
    """What each model is conditioned on: (past, obs, state, prefix, level) -> [c_i, masked joint prefix, level].

    `prefix` is [B, N, A] or, where models differ in it, [B, models, N, A]; `level` a number or [B, models].
    """
    if kind != "conditional":
        return lambda past, obs, state, prefix, level: independent(
            spec, cfg, kind, past, obs, state
        )
    before = jnp.asarray(prefix_mask(agent_order(cfg.order, spec.agents)))[:, :, None]  # [N, N, 1]

    def given(past, obs, state, prefix, level):
        own = conditions(spec, cfg, past, obs, state)
        prefix = prefix[:, None] if prefix.ndim == 3 else prefix
        preceding = before * (prefix * spec.act_mask)  # [B, N, N, A]: in row i, the agents before i
        parts = [own, flat(preceding)]
        if cfg.score_prefix == "noised":
            parts.append(jnp.broadcast_to(level, own.shape[:2])[..., None])
        return jnp.concatenate(parts, axis=-1)

    return given


def independent(
    spec: Spec, cfg: Any, kind: str, past: Past, obs: Array, state: Array
) -> Float[Array, "B models C"]:
    """What models are conditioned on that know no other agent's action."""
    if kind == "joint":
        return stated(cfg)(past, state)[:, None]
    return conditions(spec, cfg, past, obs, state)


def training_prefix(
    key: Key[Array, ""],
    cfg: Any,
    kind: str,
    action: Float[Array, "B N A"],
    t: Float[Array, "B models"],
) -> tuple[Array, Any]:
    """(prefix, level) of data actions by `score_prefix`; each model has noise of its own: [B, N, N, A]."""
    if kind != "conditional" or cfg.score_prefix == "clean":
        return action, 0.0
    k_noise, k_level = jax.random.split(key)
    noise = jax.random.normal(k_noise, (*t.shape, *action.shape[1:]))
    if cfg.score_prefix == "noised":
        level = cfg.prefix_noise * jax.random.uniform(k_level, t.shape)
        return action[:, None] + level[..., None, None] * noise, level
    alpha, sigma = (f(t)[..., None, None] for f in vp())
    return alpha * action[:, None] + sigma * noise, 0.0


def predict(
    net: Network,
    cfg: Any,
    params: Any,
    x: Array,
    t: Array,
    cond: Array,
    mask: Array,
    key: Any = None,
) -> Array:
    """One model's eps [B, D], or -score of the mixture; `key` is for dropout, in training alone."""
    if cfg.score_model == "mixture":
        return -mask * jax.grad(lambda y: net.apply(params, y, cond, mask).sum())(x)
    if cfg.score_predict == "noise":
        return mask * net.apply(params, x, t, cond, key)
    alpha, sigma = at(vp(), t, x)
    std = jnp.sqrt(alpha**2 * SIGMA_DATA**2 + sigma**2)  # of x_t, if the data's is SIGMA_DATA
    raw = net.apply(params, x / std, t, cond, key)
    return mask * (sigma * x / std**2 - alpha * SIGMA_DATA / std * raw)


def loss_weight(cfg: Any, t: Float[Array, "*B"]) -> Float[Array, "*B"] | None:
    """Weight of the squared error of eps; under EDM's preconditioning, the network's own error counts."""
    if cfg.score_predict == "noise":
        return None
    noise = vp().sigma(t) / vp().alpha(t)  # EDM's sigma: eps is the error of x_0 divided by it
    return edm.weight(noise, SIGMA_DATA) * noise**2


def learner(
    cfg: Any, kind: str, models: int, net: Network, given: Callable, split: Callable, mask: Array
) -> Algorithm:
    """All models' steps as one vmapped update."""
    schedule = vp()
    tx = optax.adamw(
        annealed(cfg.score_lr, cfg.score_steps, end=1e-5), weight_decay=cfg.score_decay
    )

    def fit(
        one: Net, x0: Array, cond: Array, mask: Array, t: Array, z: Array, key: Any
    ) -> tuple[Net, Array]:
        def loss(params):
            if cfg.score_model == "mixture":
                return -net.apply(params, x0, cond, mask).mean()
            eps = lambda x, t: predict(net, cfg, params, x, t, cond, mask, key)
            return eps_loss(eps, schedule, x0, t, z, mask, loss_weight(cfg, t))

        value, grads = jax.value_and_grad(loss)(one.params)
        return descend(tx, one, grads), value

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Net:
        return jax.vmap(lambda k: create(tx, net.init(k)))(jax.random.split(key, models))

    def batch(key: Key[Array, ""], state: State, data: Dataset) -> Batch:
        return sample_transitions(key, data, cfg.score_batch)

    def update(key: Key[Array, ""], state: Net, past: Past, batch: Batch) -> tuple[Net, dict]:
        k_t, k_z, k_drop = jax.random.split(key, 3)
        x0 = mask * split(batch.action)
        t = jax.random.uniform(k_t, x0.shape[:2], minval=1e-3, maxval=1.0)
        z = mask * jax.random.normal(k_z, x0.shape)
        prefix, level = training_prefix(jax.random.fold_in(key, 3), cfg, kind, batch.action, t)
        cond = given(past, batch.obs, batch.state, prefix, level)
        keys = jax.random.split(k_drop, models) if cfg.score_dropout else None
        each = jax.vmap(fit, in_axes=(0, 1, 1, 0, 1, 1, None if keys is None else 0))
        state, loss = each(state, x0, cond, mask, t, z, keys)
        return state, {"score_loss": loss.mean()}

    return Algorithm(init, batch, update)
