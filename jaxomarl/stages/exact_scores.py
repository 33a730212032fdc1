"""Exact scores where learned ones would stand (OMSD, stage 2): an oracle for data whose behaviours are known.

A recipe's data are a mixture of K joint behaviours, and behaviour k draws agent i's action from N(m_k,i(o_i), s^2 I).
Diffused to time t, with v = alpha^2 s^2 + sigma^2, the noise prediction -sigma grad log mu_t is

    eps_i(x_i, t) = sigma / v sum_k p_k (x_i - alpha m_k,i),    p_k ~ w_k,i N(x_i; alpha m_k,i, v I)

    marginal      w_k,i = pi_k
    conditional   w_k,i = pi_k prod_{j before i} N(a_j; m_k,j, s^2 I)
    joint         w_k,i = pi_k prod_{j other than i} N(x_j; alpha m_k,j, v I)

pi_k is the behaviour's share of the data (`score_model = "exact"`), or what a classifier of the behaviour says that is
learned from c_i (`"exact-posterior"`): behaviours go to different places, so that an observation tells them apart.

**Differs** from the density of the data in two points.

- Actions of the data are clipped to [-1, 1]; the Gaussians here are not, so that mass which lies on the faces of the
  box is spread over what is outside.
- A prefix is judged by what the behaviours do at the observations of the agents before i, which a learned model sees
  only as far as c_i tells them.

**Checked**. tests/probes/test_exact_scores.py: against the gradient of the log density by automatic
differentiation, and against the bandit's own formula.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from jaxomarl.base import Algorithm, Behaviours, Dataset, Past, Spec, refuse
from jaxomarl.diffusion.schedules import vp
from jaxomarl.envs import catalog, stored
from jaxomarl.networks.inputs import conditions, stated
from jaxomarl.networks.mlp import Network, mlp
from jaxomarl.optim import annealed, create, descend

MODELS = ("exact", "exact-posterior")
"""What `score_model` calls them."""


class Exact(NamedTuple):
    """State of the stage: the behaviours as arrays, and the classifier where there is one."""

    params: dict[str, Array]
    """Leaves [K, N, ...]."""
    numbers: Int[Array, " K"]
    log_shares: Float[Array, " K"]
    std: Float[Array, ""]
    posterior: Any
    """A `Net` whose leaves lead with the models, one for each agent or one for all; `()` without a classifier."""


class Seen(NamedTuple):
    """What the classifier is fitted to."""

    obs: Float[Array, "B N O"]
    state: Float[Array, "B S"]
    behaviour: Int[Array, " B"]


def check(data: Dataset | None) -> None:
    """Raise JaxomarlError where it is not known who made the data."""
    if data is not None:
        behaviours(data)


def behaviours(data: Dataset) -> Behaviours:
    """Who made a data set; JaxomarlError where that is not known."""
    source, known = data.source, {}
    if source is not None:
        known = catalog.make(source.task).behaviours
        if source.quality in known:
            return known[source.quality]()
    found = f"{source.task}, {source.quality}" if source else "data from a file"
    here = f"--data {' or '.join(known)} has known ones; " if known else ""
    way = f"{here}--cfg.score-model diffusion learns its scores from any data."
    raise refuse(
        "--cfg.score-model",
        "data of Gaussian behaviours that are known, for exact scores",
        found,
        way,
    )


def steps(cfg: Any) -> int:
    """Updates of the stage: those of the classifier, or a single one that changes nothing."""
    return cfg.score_steps if cfg.score_model == "exact-posterior" else 1


def scores(
    spec: Spec, cfg: Any, kind: str, before: Float[np.ndarray, "N N"]
) -> tuple[Algorithm, Callable[..., Array], Callable[..., Array]]:
    """The stage's learner, and `agent` and `every` in the signatures of `stages.scores.Scores`.

    Entry (i, j) of `before` is 1.0 where agent j acts before agent i.
    """
    name = f"scores-{kind}"
    heard = jnp.asarray(before if kind == "conditional" else np.zeros_like(before))
    mask = jnp.asarray(spec.act_mask)

    def mixture(past: Past, obs: Array, state: Array, action: Array) -> tuple[Array, Array]:
        """Means [B, K, N, A] and log weights [B, K, N] of the behaviours for each agent."""
        of: Exact = past[name]
        means = mask * team_means(of.params, obs)
        away = mask * (action[:, None] - means)
        prefix = -0.5 * jnp.sum(away**2, axis=-1) / of.std**2
        prior = log_prior(spec, cfg, kind, past, of, obs, state)
        return means, prior + jnp.einsum("bkj,ij->bki", prefix, heard)

    def every(
        past: Past, x: Array, t: Array, obs: Array, state: Array, action: Array
    ) -> Float[Array, "B N A"]:
        means, log_weights = mixture(past, obs, state, action)
        times = jnp.broadcast_to(t[:, None] if t.ndim == 1 else t, x.shape[:2])
        return mask * noise(
            x, times, means, log_weights, past[name].std, mask, together=kind == "joint"
        )

    def agent(
        past: Past, i: Any, x: Array, t: Array, obs: Array, state: Array, action: Array
    ) -> Float[Array, "B A"]:
        means, log_weights = mixture(past, obs, state, action)
        own = (x[:, None], t[:, None], means[:, :, i][:, :, None], log_weights[:, :, i][:, :, None])
        return (mask[i] * noise(*own, past[name].std, mask[i]))[:, 0]

    return learner(spec, cfg, kind), agent, every


def team_means(params: dict[str, Array], obs: Float[Array, "B N O"]) -> Float[Array, "B K N A"]:
    """What each behaviour plays without its noise."""
    teams = jax.vmap(stored.play, in_axes=(0, None))
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
    """The noise prediction of the diffused mixture of Gaussians; `together`: all agents' columns are one variable."""
    alpha, sigma = (f(t) for f in vp())
    variance = alpha**2 * std**2 + sigma**2
    away = mask * (x[:, None] - alpha[:, None, :, None] * means)
    fit = -0.5 * jnp.sum(away**2, axis=-1) / variance[:, None]
    if together:
        fit = jnp.sum(fit, axis=-1, keepdims=True)
    share = jax.nn.softmax(log_weights + fit, axis=1)
    return (sigma / variance)[..., None] * jnp.sum(share[..., None] * away, axis=1)


# --- which behaviour it was ---


def log_prior(
    spec: Spec, cfg: Any, kind: str, past: Past, of: Exact, obs: Array, state: Array
) -> Float[Array, "#B K #N"]:
    """Log pi_k: the shares of the data, or the classifier's posterior for each agent."""
    if cfg.score_model == "exact":
        return of.log_shares[None, :, None]
    given = told(spec, cfg, kind, past, obs, state)
    logits = logits_of(spec, cfg, kind)(of.posterior.params, given)
    return jax.nn.log_softmax(logits, axis=-1).swapaxes(1, 2)


def told(
    spec: Spec, cfg: Any, kind: str, past: Past, obs: Array, state: Array
) -> Float[Array, "B models C"]:
    """What the classifiers see: c_i of each agent, or the state for the joint model."""
    if kind == "joint":
        return stated(cfg)(past, state)[:, None]
    return conditions(spec, cfg, past, obs, state)


def classifier(spec: Spec, cfg: Any, kind: str, count: int) -> Network:
    """One model's network: c_i -> logits of the behaviours."""
    own = cfg.condition == "obs" and kind != "joint"
    return mlp(spec.obs_width if own else spec.state_dim, (cfg.score_width,) * 2, count)


def logits_of(spec: Spec, cfg: Any, kind: str) -> Callable[[Any, Array], Array]:
    """(params, c [B, models, C]) -> logits [B, models, K]; the parameters know how many behaviours there are."""

    def apply(params: Any, given: Array) -> Array:
        net = classifier(spec, cfg, kind, params["out"]["bias"].shape[-1])
        return jax.vmap(net.apply, in_axes=(0, 1), out_axes=1)(params, given)

    return apply


# --- the stage ---


def learner(spec: Spec, cfg: Any, kind: str) -> Algorithm:
    """The stage: it reads the behaviours from where they are stored, and trains the classifier if there is one."""
    if cfg.score_model == "exact-posterior":
        return posterior_learner(spec, cfg, kind)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Exact:
        return held(data, ())

    def batch(key: Key[Array, ""], state: Exact, data: Dataset) -> tuple[()]:
        return ()

    def update(
        key: Key[Array, ""], state: Exact, past: Past, batch: tuple[()]
    ) -> tuple[Exact, dict]:
        return state, {}

    return Algorithm(init, batch, update)


def held(data: Dataset, posterior: Any) -> Exact:
    """The behaviours of a data set as arrays."""
    known = behaviours(data)
    return Exact(
        params=jax.tree.map(jnp.asarray, known.params),
        numbers=jnp.asarray(known.numbers, jnp.int32),
        log_shares=jnp.log(jnp.asarray(known.shares, jnp.float32)),
        std=jnp.asarray(known.std, jnp.float32),
        posterior=posterior,
    )


def posterior_learner(spec: Spec, cfg: Any, kind: str) -> Algorithm:
    """The classifiers of all agents in one vmapped update, by cross-entropy on the rows' own behaviours."""
    models = 1 if kind == "joint" else spec.agents
    tx = optax.adamw(
        annealed(cfg.score_lr, cfg.score_steps, end=1e-5), weight_decay=cfg.score_decay
    )
    logits = logits_of(spec, cfg, kind)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Exact:
        net = classifier(spec, cfg, kind, len(behaviours(data).numbers))
        return held(
            data, jax.vmap(lambda k: create(tx, net.init(k)))(jax.random.split(key, models))
        )

    def batch(key: Key[Array, ""], state: Exact, data: Dataset) -> Seen:
        start = data.starts[jax.random.randint(key, (cfg.score_batch,), 0, data.starts.shape[0])]
        row = data.layout.unpack(data.rows[start])
        which = jnp.argmax(data.behaviour[start][:, None] == state.numbers, axis=1)
        return Seen(row["obs"], row["state"], which.astype(jnp.int32))

    def update(key: Key[Array, ""], state: Exact, past: Past, batch: Seen) -> tuple[Exact, dict]:
        given = told(spec, cfg, kind, past, batch.obs, batch.state)
        label = jnp.broadcast_to(batch.behaviour[:, None], given.shape[:2])

        def loss(params: Any) -> tuple[Array, Array]:
            guess = logits(params, given)
            losses = optax.softmax_cross_entropy_with_integer_labels(guess, label).mean(axis=0)
            right = (guess.argmax(axis=-1) == label).mean()
            return losses.sum(), jnp.stack([losses.mean(), right])

        grads, told_of = jax.grad(loss, has_aux=True)(state.posterior.params)
        posterior = jax.vmap(lambda one, g: descend(tx, one, g))(state.posterior, grads)
        metrics = {"posterior_loss": told_of[0], "posterior_accuracy": told_of[1]}
        return state._replace(posterior=posterior), metrics

    return Algorithm(init, batch, update)
