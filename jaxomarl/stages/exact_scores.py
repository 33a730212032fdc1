"""Exact behaviour scores in place of learned ones (OMSD, stage 2), for data of known behaviours.

A recipe's data are a mixture of K joint behaviours, and behaviour k draws agent i's action from
N(m_k,i(o_i), s^2 I). Diffused to time t, with v = alpha^2 s^2 + sigma^2, the noise prediction
-sigma grad log mu_t is

    eps_i(x_i, t) = sigma / v sum_k p_k (x_i - alpha m_k,i),    p_k ~ w_k,i N(x_i; alpha m_k,i, v I)

    marginal      w_k,i = pi_k
    conditional   w_k,i = pi_k prod_{j before i} N(a_j; m_k,j, s^2 I)
    joint         w_k,i = pi_k prod_{j other than i} N(x_j; alpha m_k,j, v I)

With `score_model = "exact"`, pi_k is the behaviour's share of the data. With `"exact-posterior"`,
pi_k is what a classifier of the behaviour predicts from c_i. Behaviours go to different places, so
an observation tells them apart.

**Differs** from the density of the data in two points.

- Actions of the data are clipped to [-1, 1]; the Gaussians here are not. So mass that lies on the
  faces of the box is spread over what is outside.
- A prefix is weighed by what the behaviours do at the observations of the agents before i. A
  learned model knows these observations only as far as c_i tells them.

**Checked**. tests/probes/test_exact_scores.py: against the gradient of the log density by automatic
differentiation, and against the bandit's own formula.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Key

from jaxomarl.base import Algorithm, Behaviours, Dataset, Past, Spec, refuse
from jaxomarl.config import config, static, traced
from jaxomarl.diffusion.schedules import vp
from jaxomarl.envs import catalog, stored
from jaxomarl.networks.inputs import Conditioned, conditions, state_normaliser
from jaxomarl.networks.mlp import Network, mlp
from jaxomarl.optim import Params, annealed, create, descend

MODELS = ("exact", "exact-posterior")
"""Values of `score_model` that ask for exact scores."""


@config
class Config:
    """Settings that learned and exact behaviour models share."""

    score_model: str = static(default="diffusion")
    """Model of the behaviour. diffusion. mixture: a conditional Gaussian mixture and its score.

    exact: no learning; the scores of the behaviours that generated the data, at their shares of it.
    exact-posterior: the same with a learned posterior of the behaviour given the condition.
    """
    condition: str = static(default="obs")
    """Condition of the score models next to actions. obs: the authors' code. state: the paper."""
    score_steps: int = static(default=2_000_000, scaled="steps")
    """Gradient steps of the score models."""
    score_batch: int = static(default=512)
    """Transitions in a batch of the score models' updates."""
    score_width: int = static(default=512, scaled="width")
    """Width of the score models' hidden layers."""
    score_lr: float = traced(default=3e-4, within="(0, inf)")
    """Learning rate of the score models."""
    score_decay: float = traced(default=0.01, within="[0, inf)")
    """Decoupled weight decay of the score models' AdamW."""


class Exact(NamedTuple):
    """State of the stage: the behaviours as arrays, and the classifier where there is one."""

    params: dict[str, Array]
    """Parameters of the behaviours; leaves lead with [K, N]."""
    numbers: Int[Array, " K"]
    """What the data call the behaviours."""
    log_shares: Float[Array, " K"]
    std: Float[Array, ""]
    posterior: Any
    """The classifiers, a `Net` whose leaves lead with the models; `()` without classifiers."""


class LabelledRows(NamedTuple):
    """What the classifier is fitted to."""

    obs: Float[Array, "B N O"]
    state: Float[Array, "B S"]
    behaviour: Int[Array, " B"]


def check(data: Dataset | None) -> None:
    """Raise JaxomarlError where the behaviours of the data are not known."""
    if data is not None:
        known_behaviours(data)


def known_behaviours(data: Dataset) -> Behaviours:
    """The behaviours that generated a data set; JaxomarlError where they are not known."""
    source = data.source
    found = "data from a file"
    way = "--cfg.score-model diffusion learns its scores from any data."
    if source is not None:
        known = catalog.make(source.task).behaviours
        if source.quality in known:
            return known[source.quality]()
        found = f"{source.task}, {source.quality}"
        if known:
            way = f"--data {' or '.join(known)} has known ones; {way}"
    expected = "data of Gaussian behaviours that are known, for exact scores"
    raise refuse("--cfg.score-model", expected, found, way)


def exact_steps(cfg: Config) -> int:
    """Updates of the stage: the classifier's, or a single one that changes nothing."""
    if cfg.score_model == "exact-posterior":
        return cfg.score_steps
    return 1


def exact_behaviour_model(
    spec: Spec,
    cfg: Config,
    kind: str,
    before: Float[np.ndarray, "N N"],
) -> tuple[Algorithm, Callable[..., Array], Callable[..., Array]]:
    """The stage's learner, and `agent` and `every` in the signatures of `stages.scores.Scores`.

    Entry (i, j) of `before` is 1.0 where agent j acts before agent i.
    """
    name = f"scores-{kind}"
    if kind != "conditional":
        before = np.zeros_like(before)
    preceding = jnp.asarray(before)
    mask = jnp.asarray(spec.act_mask)

    def mixture(past: Past, obs: Array, state: Array, action: Array) -> tuple[Array, Array]:
        """Means [B, K, N, A] and log weights [B, K, N] of the behaviours for each agent."""
        exact: Exact = past[name]
        means = mask * team_means(exact.params, obs)
        away = mask * (action[:, None] - means)
        log_density = -0.5 * jnp.sum(away**2, axis=-1) / exact.std**2
        log_prior = behaviour_log_prior(spec, cfg, kind, past, exact, obs, state)
        return means, log_prior + jnp.einsum("bkj,ij->bki", log_density, preceding)

    def every(
        past: Past, x: Array, t: Array, obs: Array, state: Array, action: Array
    ) -> Float[Array, "B N A"]:
        means, log_weights = mixture(past, obs, state, action)
        if t.ndim == 1:
            t = t[:, None]
        times = jnp.broadcast_to(t, x.shape[:2])
        std = past[name].std
        return mask * noise(x, times, means, log_weights, std, mask, together=kind == "joint")

    def agent(
        past: Past, i: ArrayLike, x: Array, t: Array, obs: Array, state: Array, action: Array
    ) -> Float[Array, "B A"]:
        means, log_weights = mixture(past, obs, state, action)
        own_means = means[:, :, i][:, :, None]
        own_weights = log_weights[:, :, i][:, :, None]
        std = past[name].std
        eps = noise(x[:, None], t[:, None], own_means, own_weights, std, mask[i])
        return (mask[i] * eps)[:, 0]

    return exact_learner(spec, cfg, kind), agent, every


def team_means(params: dict[str, Array], obs: Float[Array, "B N O"]) -> Float[Array, "B K N A"]:
    """The joint action of each behaviour, without its noise."""
    teams = jax.vmap(stored.behaviour_actions, in_axes=(0, None))
    return jax.vmap(teams, in_axes=(None, 0))(params, obs)


def noise(
    x: Float[Array, "B N A"],
    t: Float[Array, "B N"],
    means: Float[Array, "B K N A"],
    log_weights: Float[Array, "B K N"],
    std: Float[Array, ""] | float,
    mask: Float[Array, "*N A"] | float = 1.0,
    together: bool = False,
) -> Float[Array, "B N A"]:
    """The noise prediction of the diffused mixture of Gaussians.

    With `together`, all agents' columns are one variable.
    """
    schedule = vp()
    alpha = schedule.alpha(t)
    sigma = schedule.sigma(t)
    variance = alpha**2 * std**2 + sigma**2

    away = mask * (x[:, None] - alpha[:, None, :, None] * means)
    log_density = -0.5 * jnp.sum(away**2, axis=-1) / variance[:, None]
    if together:
        log_density = jnp.sum(log_density, axis=-1, keepdims=True)
    share = jax.nn.softmax(log_weights + log_density, axis=1)
    return (sigma / variance)[..., None] * jnp.sum(share[..., None] * away, axis=1)


# --- which behaviour it was ---


def behaviour_log_prior(
    spec: Spec,
    cfg: Config,
    kind: str,
    past: Past,
    exact: Exact,
    obs: Array,
    state: Array,
) -> Float[Array, "#B K #N"]:
    """The log prior log pi_k: the data's shares, or the posterior of each agent's classifier."""
    if cfg.score_model == "exact":
        return exact.log_shares[None, :, None]
    inputs = classifier_inputs(spec, cfg, kind, past, obs, state)
    logits = behaviour_logits(spec, cfg, kind)(exact.posterior.params, inputs)
    return jax.nn.log_softmax(logits, axis=-1).swapaxes(1, 2)


def classifier_inputs(
    spec: Spec,
    cfg: Config,
    kind: str,
    past: Past,
    obs: Array,
    state: Array,
) -> Float[Array, "B models C"]:
    """The classifiers' conditions: c_i of each agent, or the state for the joint model."""
    # a system's Config has `normalise` too, which these settings are not the place for
    settings = cast(Conditioned, cfg)
    if kind == "joint":
        return state_normaliser(settings)(past, state)[:, None]
    return conditions(spec, settings, past, obs, state)


def model_count(spec: Spec, kind: str) -> int:
    """How many behaviour models of a kind there are: one for each agent, or the joint one."""
    if kind == "joint":
        return 1
    return spec.agents


def condition_width(spec: Spec, cfg: Any, kind: str) -> int:
    """Columns of c_i: an agent's observation, or the state, which the joint model always takes."""
    if cfg.condition == "obs" and kind != "joint":
        return spec.obs_width
    return spec.state_dim


def classifier(spec: Spec, cfg: Config, kind: str, count: int) -> Network:
    """One model's network: c_i -> logits of the behaviours."""
    return mlp(condition_width(spec, cfg, kind), (cfg.score_width,) * 2, count)


def behaviour_logits(spec: Spec, cfg: Config, kind: str) -> Callable[[Params, Array], Array]:
    """(params, c [B, models, C]) -> logits [B, models, K]; K is the width of the last layer."""

    def apply(params: Params, inputs: Array) -> Array:
        net = classifier(spec, cfg, kind, params["out"]["bias"].shape[-1])
        return jax.vmap(net.apply, in_axes=(0, 1), out_axes=1)(params, inputs)

    return apply


# --- the stage ---


def exact_learner(spec: Spec, cfg: Config, kind: str) -> Algorithm:
    """The stage: it loads the known behaviours, and trains the classifier if there is one."""
    if cfg.score_model == "exact-posterior":
        return posterior_learner(spec, cfg, kind)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Exact:
        return exact_state(data, ())

    def batch(key: Key[Array, ""], state: Exact, data: Dataset) -> tuple[()]:
        return ()

    def update(
        key: Key[Array, ""],
        state: Exact,
        past: Past,
        batch: tuple[()],
    ) -> tuple[Exact, dict]:
        return state, {}

    return Algorithm(init, batch, update)


def exact_state(data: Dataset, posterior: Any) -> Exact:
    """The behaviours of a data set as arrays, and their classifiers."""
    known = known_behaviours(data)
    return Exact(
        params=jax.tree.map(jnp.asarray, known.params),
        numbers=jnp.asarray(known.numbers, jnp.int32),
        log_shares=jnp.log(jnp.asarray(known.shares, jnp.float32)),
        std=jnp.asarray(known.std, jnp.float32),
        posterior=posterior,
    )


def posterior_learner(spec: Spec, cfg: Config, kind: str) -> Algorithm:
    """The classifiers of all agents, in one vmapped update by cross-entropy.

    Their labels are the behaviours that generated the rows.
    """
    rate = annealed(cfg.score_lr, cfg.score_steps, end=1e-5)
    optimiser = optax.adamw(rate, weight_decay=cfg.score_decay)
    logits_of = behaviour_logits(spec, cfg, kind)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Exact:
        net = classifier(spec, cfg, kind, len(known_behaviours(data).numbers))
        start = lambda key: create(optimiser, net.init(key))
        return exact_state(data, jax.vmap(start)(jax.random.split(key, model_count(spec, kind))))

    def batch(key: Key[Array, ""], state: Exact, data: Dataset) -> LabelledRows:
        chosen = jax.random.randint(key, (cfg.score_batch,), 0, data.starts.shape[0])
        start = data.starts[chosen]
        row = data.layout.unpack(data.rows[start])
        label = jnp.argmax(data.behaviour[start][:, None] == state.numbers, axis=1)
        return LabelledRows(row["obs"], row["state"], label.astype(jnp.int32))

    def update(
        key: Key[Array, ""],
        state: Exact,
        past: Past,
        batch: LabelledRows,
    ) -> tuple[Exact, dict]:
        inputs = classifier_inputs(spec, cfg, kind, past, batch.obs, batch.state)
        label = jnp.broadcast_to(batch.behaviour[:, None], inputs.shape[:2])

        def loss(params: Params) -> tuple[Array, dict[str, Array]]:
            logits = logits_of(params, inputs)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, label).mean(axis=0)
            accuracy = (logits.argmax(axis=-1) == label).mean()
            metrics = {"posterior_loss": losses.mean(), "posterior_accuracy": accuracy}
            return losses.sum(), metrics

        grads, metrics = jax.grad(loss, has_aux=True)(state.posterior.params)
        step = lambda net, grads: descend(optimiser, net, grads)
        posterior = jax.vmap(step)(state.posterior, grads)
        return state._replace(posterior=posterior), metrics

    return Algorithm(init, batch, update)
