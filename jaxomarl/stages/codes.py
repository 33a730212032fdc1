"""Codes of observations, that plans may be made of in place of observations (DoF+VAE).

A variational autoencoder of single rows o in the units of data/ranges.py, one for all agents, told whose row it is:

    mu, log s = E(o),   c = tanh(mu + s z),   L = mean (D(c) - o)^2 + kl mean 1/2 (mu^2 + s^2 - 1 - 2 log s)

An agent's code is tanh(mu), which lies in the box that plans are held in. Codes are a function of one agent's own
observation, so that what could be done apart can still be. Source: Kingma and Welling 2014; the tanh is ours, for the
samplers' box.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Past, Spec, Stage, State
from jaxomarl.data.dataset import sample_transitions
from jaxomarl.data.ranges import Quantiles, fit_quantiles, ranged
from jaxomarl.networks import agents
from jaxomarl.networks.mlp import Network, mish, mlp
from jaxomarl.optim import Net, create, descend
from jaxomarl.policies.plans import Codes


class Coder(NamedTuple):
    """The autoencoder's parameters {"to", "from"} and the units of observations."""

    net: Net
    knots: Quantiles


def codes(spec: Spec, cfg: Any) -> Codes | None:
    """What a planner of codes needs to know; None where plans are made of observations."""
    if not cfg.code_width:
        return None
    to, width = networks(spec, cfg)[0], cfg.code_width
    return Codes(width, lambda past, rows: jnp.tanh(to.apply(past["codes"].net.params["to"], rows)[..., :width]))


def code_stages(name: str, spec: Spec, cfg: Any) -> tuple[Stage, ...]:
    """The stage ahead of a planner of codes; none where plans are made of observations."""
    if not cfg.code_width:
        return ()
    return (Stage("codes", coder(spec, cfg), cfg.code_steps, cfg.chunk, cfg.every, owner=name),)


def networks(spec: Spec, cfg: Any) -> tuple[Network, Network]:
    """(E: rows [..., N, O] -> [mu, log s] [..., N, 2 L]; D: codes -> rows), perceptrons of two hidden layers."""
    hidden, n = (cfg.inverse_width, cfg.inverse_width), spec.agents
    to = agents.shared(lambda width: mlp(width, hidden, 2 * cfg.code_width, mish), spec.obs_width, n)
    back = agents.shared(lambda width: mlp(width, hidden, spec.obs_width, mish), cfg.code_width, n)
    return to, back


def coder(spec: Spec, cfg: Any) -> Algorithm:
    """The algorithm; as at the head of this file."""
    tx, see, mask = optax.adam(cfg.code_lr), ranged(cfg.normaliser, spec), jnp.asarray(spec.obs_mask)
    to, back = networks(spec, cfg)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Coder:
        k_to, k_back = jax.random.split(key)
        net = create(tx, {"to": to.init(k_to), "from": back.init(k_back)})
        return Coder(net, fit_quantiles(cfg.normaliser, spec, data))

    def batch(key: Key[Array, ""], state: State, data: Dataset) -> Batch:
        return sample_transitions(key, data, cfg.policy_batch)

    def update(key: Key[Array, ""], state: Coder, past: Past, batch: Batch) -> tuple[Coder, dict]:
        rows = see(state.knots, batch.obs)

        def loss(params: Any) -> tuple[Float[Array, ""], dict]:
            mu, log_s = jnp.split(to.apply(params["to"], rows), 2, axis=-1)
            code = jnp.tanh(mu + jnp.exp(log_s) * jax.random.normal(key, mu.shape))
            wrong = jnp.mean(jnp.sum(mask * (back.apply(params["from"], code) - rows) ** 2, axis=(1, 2)) / mask.sum())
            kl = 0.5 * jnp.mean(mu**2 + jnp.exp(2 * log_s) - 1.0 - 2.0 * log_s)
            return wrong + cfg.code_kl * kl, {"code_error": wrong, "code_kl": kl}

        grads, metrics = jax.grad(loss, has_aux=True)(state.net.params)
        return state._replace(net=descend(tx, state.net, grads)), metrics

    return Algorithm(init, batch, update)
