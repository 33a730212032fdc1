"""Models of the behaviour policy whose scores regularise the learned policies (OMSD, stage 2).

    conditional   eps_i(x_i, t | c_i, a_<i)    the sequential decomposition; data actions of a_<i
    marginal      eps_i(x_i, t | c_i)          the product of marginals
    joint         eps(x, t | s)                all agents at once

The loss of each agent is the mean over the batch of
sum_dims (eps_i(alpha a_i + sigma z, t | ...) - z)^2, with t ~ U(1e-3, 1). All agents train in one
vmapped update: the prefix is the joint action times a lower-triangular agent mask, so every network
has one shape.

`score_predict = "edm"` gives the network's input and target unit variance at every t, and its own
squared error is the loss (Karras et al. 2022, their table 1, for this schedule). A loss in eps
hardly counts what a network says of the action at large t. There x_t tells nothing, and weights
w(t) such as sigma^2 ask for it most.

`score_model = "mixture"` is a conditional Gaussian mixture fitted by likelihood, and -score takes
the place of eps. It is t-free: the limit of eps / sigma for t -> 0.

A conditional model is conditioned on the preceding agents' actions, its prefix. `score_prefix` is
one of:

    clean      a_<i, as in the paper. Data actions lie on a thin shell around the behaviours;
               policies' actions do not, and what a network says there is arbitrary.
    noised     a_<i + s n and s, with n ~ N(0, 1) and s ~ U(0, prefix_noise): the preceding actions
               are known to within s. At s = 0 it is the clean conditional, for large s the
               marginal. Policies' actions are read at the level `prefix_level`.
    diffused   alpha a_<i + sigma z_<i, at the time t of x_i: the conditionals of the diffused joint
               distribution, whose product over i is that distribution at every t.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Health, Past, Spec, Stage, State
from jaxomarl.config import config, static
from jaxomarl.data.dataset import sample_transitions
from jaxomarl.diffusion import edm
from jaxomarl.diffusion.losses import eps_loss
from jaxomarl.diffusion.schedules import alpha_sigma_at, vp
from jaxomarl.health import scores as score_figures
from jaxomarl.networks.denoisers import mixture, residual_mlp
from jaxomarl.networks.inputs import conditions, flat, state_normaliser
from jaxomarl.networks.mlp import Network
from jaxomarl.optim import Net, Params, annealed, create, descend
from jaxomarl.stages import exact_scores

FIELDS = (
    "score_model", "score_steps", "score_batch", "score_width", "score_blocks",
    "score_embedding", "score_dropout", "score_components", "score_predict", "score_lr",
    "score_decay", "chunk", "condition", "normalise",
)  # fmt: skip
RAISE = ("score_steps", "score_batch", "score_width", "score_predict")
"""What to raise where a score model has not learned."""
PREFIXES = ("clean", "noised", "diffused")
PREDICTIONS = ("noise", "edm")
SIGMA_DATA = 0.5
"""Standard deviation of data that EDM's preconditioning assumes: EDM's default, near actions'."""


@config
class Config(exact_scores.Config):
    """Settings of behaviour models; conditional ones need OMSD's order and prefix too."""

    score_blocks: int = static(default=2)
    """Residual blocks of a score model."""
    score_embedding: int = static(default=64)
    """Width of the embedding of the diffusion time."""
    score_dropout: float = static(default=0.1, within="[0, 1)")
    """Dropout rate of the score models."""
    score_components: int = static(default=8)
    """Components of a Gaussian mixture as score model."""
    score_predict: str = static(default="noise")
    """What score models predict. noise: the paper. edm: noise and sample at unit variance."""


class Scores(NamedTuple):
    """A behaviour model's learner and its noise predictions."""

    algorithm: Algorithm
    agent: Callable[..., Float[Array, "B A"]]
    """`agent(past, i, x_i [B, A], t [B], obs, state, prefix) -> [B, A]` is eps_i.

    `prefix` [B, N, A] is what `policy_prefix` makes of the joint action; the agents before i count.
    """
    every: Callable[..., Float[Array, "B N A"]]
    """`every(past, x [B, N, A], t [B] or [B, N], obs, state, prefix) -> [B, N, A]`: all agents."""


# --- the order of agents, and their prefixes ---


def agent_order(order: str, agents: int) -> tuple[int, ...]:
    """The agents in turn: "2-1-0" is (2, 1, 0), and "" is the natural order.

    Raises ValueError where it is no permutation.
    """
    turns = tuple(range(agents))
    if order:
        turns = tuple(int(i) for i in order.split("-"))
    if sorted(turns) != list(range(agents)):
        raise ValueError(order)
    return turns


def prefix_mask(order: tuple[int, ...]) -> Float[np.ndarray, "N N"]:
    """Entry (i, j) is 1.0 where agent j acts before agent i."""
    place = np.argsort(np.array(order))
    return (place[None, :] < place[:, None]).astype(np.float32)


def policy_prefix(
    cfg: Any, action: Float[Array, "B N A"], t: Float[Array, " B"], z: Float[Array, "B N A"]
) -> Float[Array, "B N A"]:
    """The policies' joint action as the prefix of a model whose agent's sample has time t."""
    if cfg.score_prefix != "diffused":
        return action
    alpha, sigma = vp()
    return alpha(t)[:, None, None] * action + sigma(t)[:, None, None] * z


def training_prefix(
    key: Key[Array, ""],
    cfg: Any,
    kind: str,
    action: Float[Array, "B N A"],
    t: Float[Array, "B models"],
) -> tuple[Array, Any]:
    """(prefix, level) of data actions by `score_prefix`.

    A noised prefix is [B, N, N, A], because each model has noise of its own.
    """
    if kind != "conditional" or cfg.score_prefix == "clean":
        return action, 0.0
    k_noise, k_level = jax.random.split(key)
    noise = jax.random.normal(k_noise, (*t.shape, *action.shape[1:]))
    if cfg.score_prefix == "noised":
        level = cfg.prefix_noise * jax.random.uniform(k_level, t.shape)
        return action[:, None] + level[..., None, None] * noise, level
    schedule = vp()
    alpha = schedule.alpha(t)[..., None, None]
    sigma = schedule.sigma(t)[..., None, None]
    return alpha * action[:, None] + sigma * noise, 0.0


# --- the models ---


def score_fields(kind: str) -> tuple[str, ...]:
    """The config fields that reach the stage; order and prefix reach conditional models alone."""
    if kind == "conditional":
        return (*FIELDS, "order", "score_prefix", "prefix_noise")
    return FIELDS


def score_steps(cfg: Config) -> int:
    """Updates of the stage."""
    if cfg.score_model in exact_scores.MODELS:
        return exact_scores.exact_steps(cfg)
    return cfg.score_steps


def score_stage(spec: Spec, cfg: Any, model: Scores, kind: str, last_time: float | Array) -> Stage:
    """The stage that trains the behaviour model of a kind; all systems share it.

    `last_time` is the largest diffusion time at which the policies ask for scores.
    """
    return Stage.from_config(
        cfg,
        f"scores-{kind}",
        model.algorithm,
        score_steps(cfg),
        score_fields(kind),
        health=score_health(spec, cfg, model, kind, last_time),
    )


def level_of_prefix(cfg: Any, kind: str) -> ArrayLike:
    """The noise level at which policies ask for a prefix; models without a prefix have none."""
    if kind == "conditional":
        return cfg.prefix_level
    return 0.0


def score_health(
    spec: Spec, cfg: Any, model: Scores, kind: str, last_time: float | Array
) -> Health | None:
    """What a noise network is compared with.

    Exact scores learn nothing, and a mixture has no prediction at a diffusion time: both are None.
    """
    if cfg.score_model != "diffusion":
        return None
    conditions_of = model_conditions(spec, cfg, kind)
    level = level_of_prefix(cfg, kind)

    def eps(
        state: State,
        past: Past,
        x: Array,
        t: Array,
        z: Array,
        obs: Array,
        env_state: Array,
        action: Array,
    ) -> Array:
        prefix = action
        if kind == "conditional":
            prefix = policy_prefix(cfg, action, t, z)
        return model.every({**past, f"scores-{kind}": state}, x, t, obs, env_state, prefix)

    def condition(past: Past, obs: Array, env_state: Array, action: Array) -> Array:
        return conditions_of(past, obs, env_state, action, level)

    return score_figures.score_model(spec, vp(), eps, condition, last_time, RAISE)


def behaviour_model(spec: Spec, cfg: Any, kind: str) -> Scores:
    """The behaviour model of a kind, for the stage `scores-<kind>`.

    The joint one is a single model with N A columns.
    """
    if cfg.score_model in exact_scores.MODELS:
        order = ""
        if kind == "conditional":
            order = cfg.order
        before = prefix_mask(agent_order(order, spec.agents))
        return Scores(*exact_scores.exact_behaviour_model(spec, cfg, kind, before))

    name = f"scores-{kind}"
    models = exact_scores.model_count(spec, kind)
    net = score_network(spec, cfg, kind)
    conditions_of = model_conditions(spec, cfg, kind)
    mask = jnp.asarray(spec.act_mask).reshape(models, -1)
    level = level_of_prefix(cfg, kind)

    def every(
        past: Past, x: Array, t: Array, obs: Array, state: Array, prefix: Array
    ) -> Float[Array, "B N A"]:
        t = t[:, None] if t.ndim == 1 else t[:, :models]
        times = jnp.broadcast_to(t, (len(x), models))
        cond = conditions_of(past, obs, state, prefix, level)
        each = jax.vmap(partial(predict, net, cfg), in_axes=(0, 1, 1, 1, 0), out_axes=1)
        eps = each(past[name].params, by_model(x, models), times, cond, mask)
        return eps.reshape(x.shape)

    def agent(
        past: Past, i: ArrayLike, x: Array, t: Array, obs: Array, state: Array, prefix: Array
    ) -> Float[Array, "B A"]:
        params = jax.tree.map(lambda p: p[i], past[name].params)
        cond = conditions_of(past, obs, state, prefix, level)
        return predict(net, cfg, params, x, t, cond[:, i], mask[i])

    return Scores(score_learner(cfg, kind, net, conditions_of, mask), agent, every)


def by_model(x: Float[Array, "B N A"], models: int) -> Float[Array, "B models D"]:
    """Joint actions as each model takes them: its own agent's, or all agents' side by side."""
    return x.reshape(len(x), models, -1)


def score_network(spec: Spec, cfg: Any, kind: str) -> Network:
    """The network of one model: a noise prediction, or a mixture's log-density."""
    columns = spec.act_width
    if kind == "joint":
        columns *= spec.agents
    cond = exact_scores.condition_width(spec, cfg, kind)
    if kind == "conditional":
        cond += spec.agents * spec.act_width + (cfg.score_prefix == "noised")
    if cfg.score_model == "mixture":
        return mixture(cond, (cfg.score_width,) * 2, columns, cfg.score_components)
    return residual_mlp(
        columns, cond, cfg.score_width, cfg.score_blocks, cfg.score_dropout, cfg.score_embedding
    )


def model_conditions(spec: Spec, cfg: Any, kind: str) -> Callable[..., Float[Array, "B models C"]]:
    """What each model is conditioned on: (past, obs, state, prefix, level) -> [B, models, C].

    A conditional model gets c_i, the masked joint prefix and, with a noised prefix, its level.
    `prefix` is [B, N, A] or, where models differ in it, [B, models, N, A]. `level` is a number or
    [B, models].
    """

    def unconditional(past, obs, state, prefix, level):
        if kind == "joint":
            return state_normaliser(cfg)(past, state)[:, None]
        return conditions(spec, cfg, past, obs, state)

    if kind != "conditional":
        return unconditional
    order = agent_order(cfg.order, spec.agents)
    before = jnp.asarray(prefix_mask(order))[:, :, None]  # [N, N, 1]

    def conditional(past, obs, state, prefix, level):
        own = conditions(spec, cfg, past, obs, state)
        if prefix.ndim == 3:
            prefix = prefix[:, None]
        # [B, N, N, A]: row i holds the agents before i
        preceding = before * (prefix * spec.act_mask)
        parts = [own, flat(preceding)]
        if cfg.score_prefix == "noised":
            parts.append(jnp.broadcast_to(level, own.shape[:2])[..., None])
        return jnp.concatenate(parts, axis=-1)

    return conditional


def predict(
    net: Network,
    cfg: Config,
    params: Params,
    x: Array,
    t: Array,
    cond: Array,
    mask: Array,
    key: Key[Array, ""] | None = None,
) -> Array:
    """One model's eps [B, D], or -score of the mixture; `key` is for dropout, in training alone."""
    if cfg.score_model == "mixture":
        log_density = lambda x: net.apply(params, x, cond, mask).sum()
        return -mask * jax.grad(log_density)(x)
    if cfg.score_predict == "noise":
        return mask * net.apply(params, x, t, cond, key)
    alpha, sigma = alpha_sigma_at(vp(), t, x)
    # the standard deviation of x_t, where the data's is SIGMA_DATA
    std = jnp.sqrt(alpha**2 * SIGMA_DATA**2 + sigma**2)
    raw = net.apply(params, x / std, t, cond, key)
    return mask * (sigma * x / std**2 - alpha * SIGMA_DATA / std * raw)


# --- training ---


def loss_weight(cfg: Config, t: Float[Array, "*B"]) -> Float[Array, "*B"] | None:
    """Weight of the squared error of eps.

    Under EDM's preconditioning it makes the loss the network's own squared error.
    """
    if cfg.score_predict == "noise":
        return None
    # EDM's sigma: the error of eps is that of x_0 divided by it
    noise = vp().sigma(t) / vp().alpha(t)
    return edm.edm_loss_weight(noise, SIGMA_DATA) * noise**2


def score_learner(
    cfg: Config,
    kind: str,
    net: Network,
    conditions_of: Callable[..., Array],
    mask: Float[Array, "models D"],
) -> Algorithm:
    """All models' steps as one vmapped update."""
    models = len(mask)
    rate = annealed(cfg.score_lr, cfg.score_steps, end=1e-5)
    optimiser = optax.adamw(rate, weight_decay=cfg.score_decay)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Net:
        start = lambda key: create(optimiser, net.init(key))
        return jax.vmap(start)(jax.random.split(key, models))

    def batch(key: Key[Array, ""], state: State, data: Dataset) -> Batch:
        return sample_transitions(key, data, cfg.score_batch)

    def fit(one, x0, cond, columns, t, z, dropout):
        """One step of one model: down the error of eps, or -log likelihood of the mixture."""

        def loss(params):
            if cfg.score_model == "mixture":
                return -net.apply(params, x0, cond, columns).mean()
            eps = lambda x, t: predict(net, cfg, params, x, t, cond, columns, dropout)
            return eps_loss(eps, vp(), x0, t, z, columns, loss_weight(cfg, t))

        value, grads = jax.value_and_grad(loss)(one.params)
        return descend(optimiser, one, grads), value

    def update(key: Key[Array, ""], state: Net, past: Past, batch: Batch) -> tuple[Net, dict]:
        # --- randomness ---
        k_t, k_z, k_drop = jax.random.split(key, 3)
        x0 = mask * by_model(batch.action, models)
        t = jax.random.uniform(k_t, x0.shape[:2], minval=1e-3, maxval=1.0)
        z = mask * jax.random.normal(k_z, x0.shape)

        # --- conditions ---
        k_prefix = jax.random.fold_in(key, 3)
        prefix, level = training_prefix(k_prefix, cfg, kind, batch.action, t)
        cond = conditions_of(past, batch.obs, batch.state, prefix, level)

        # --- one step of each model ---
        keys = None
        key_axis = None
        if cfg.score_dropout:
            keys = jax.random.split(k_drop, models)
            key_axis = 0
        each = jax.vmap(fit, in_axes=(0, 1, 1, 0, 1, 1, key_axis))
        state, loss = each(state, x0, cond, mask, t, z, keys)
        return state, {"score_loss": loss.mean()}

    return Algorithm(init, batch, update)
