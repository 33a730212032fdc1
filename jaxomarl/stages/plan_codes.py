"""Codes of observations, of which a plan may consist in place of observations (DoF+VAE).

The stage before the planner's trains a variational autoencoder of single rows o, one for all
agents:

    mu, log s = E(o),   c = tanh(mu + s z)
    L = mean (D(c) - o)^2 + kl mean 1/2 (mu^2 + s^2 - 1 - 2 log s)

An agent's code is tanh(mu), in the box to which plans are clipped. It is a function of the agent's
own observation, so agents that could plan alone still can. Source: Kingma and Welling 2014; the
tanh is ours, for the samplers' box.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Health, Past, Spec, State
from jaxomarl.config import config, static, traced
from jaxomarl.data.dataset import sample_transitions
from jaxomarl.data.ranges import Quantiles, fit_quantiles, ranged
from jaxomarl.health import codes as code_figures
from jaxomarl.networks.agents import shared
from jaxomarl.networks.mlp import Network, mish, mlp
from jaxomarl.optim import Net, Params, create, descend
from jaxomarl.policies.plans import Codes
from jaxomarl.stages import planner

RAISE = ("code_steps", "policy_batch", "inverse_width")
"""What to raise where codes have not learned."""


@config
class Config(planner.Config):
    """Settings of planners whose plans may consist of codes."""

    code_width: int = static(default=0, within="[0, inf)", scaled="width")
    """Numbers in the code of an observation, of which plans then consist (DoF+VAE); 0: plans of
    observations."""
    code_kl: float = traced(default=1e-3, within="[0, inf)")
    """Weight of the divergence between the autoencoder's codes and N(0, 1)."""
    code_lr: float = traced(default=1e-3, within="(0, inf)")
    """Learning rate of the autoencoder."""
    code_steps: int = static(default=20_000, scaled="steps")
    """Gradient steps of the autoencoder."""


class Coder(NamedTuple):
    """The autoencoder's parameters {"to", "from"} and the units of observations."""

    net: Net
    knots: Quantiles


def codes(spec: Spec, cfg: Config) -> Codes | None:
    """What a planner of codes needs to know; None where plans consist of observations."""
    if not cfg.code_width:
        return None
    encoder, _ = coder_networks(spec, cfg)

    def encode(past: Past, rows: Array) -> Array:
        mu_and_log_s = encoder.apply(past["codes"].net.params["to"], rows)
        return jnp.tanh(mu_and_log_s[..., : cfg.code_width])

    return Codes(cfg.code_width, encode)


def coder_networks(spec: Spec, cfg: Config) -> tuple[Network, Network]:
    """Build E: rows [..., N, O] -> [mu, log s] [..., N, 2 L], and D: codes -> rows."""
    hidden = (cfg.inverse_width, cfg.inverse_width)

    def perceptron(outputs: int) -> Callable[[int], Network]:
        return lambda inputs: mlp(inputs, hidden, outputs, mish)

    encoder = shared(perceptron(2 * cfg.code_width), spec.obs_width, spec.agents)
    decoder = shared(perceptron(spec.obs_width), cfg.code_width, spec.agents)
    return encoder, decoder


def coder(spec: Spec, cfg: Config) -> Algorithm:
    """Build the autoencoder of this file's head."""
    optimiser = optax.adam(cfg.code_lr)
    to_units = ranged(cfg.normaliser, spec)
    obs_mask = jnp.asarray(spec.obs_mask)
    encoder, decoder = coder_networks(spec, cfg)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Coder:
        k_to, k_from = jax.random.split(key)
        params = {"to": encoder.init(k_to), "from": decoder.init(k_from)}
        return Coder(create(optimiser, params), fit_quantiles(cfg.normaliser, spec, data))

    def batch(key: Key[Array, ""], state: Coder, data: Dataset) -> Batch:
        return sample_transitions(key, data, cfg.policy_batch)

    def update(key: Key[Array, ""], state: Coder, past: Past, batch: Batch) -> tuple[Coder, dict]:
        rows = to_units(state.knots, batch.obs)

        def loss(params: Params) -> tuple[Float[Array, ""], dict]:
            mu, log_s = jnp.split(encoder.apply(params["to"], rows), 2, axis=-1)
            code = jnp.tanh(mu + jnp.exp(log_s) * jax.random.normal(key, mu.shape))
            error = obs_mask * (decoder.apply(params["from"], code) - rows) ** 2
            code_error = jnp.mean(jnp.sum(error, axis=(1, 2)) / obs_mask.sum())
            kl = 0.5 * jnp.mean(mu**2 + jnp.exp(2 * log_s) - 1.0 - 2.0 * log_s)
            return code_error + cfg.code_kl * kl, {"code_error": code_error, "code_kl": kl}

        grads, metrics = jax.grad(loss, has_aux=True)(state.net.params)
        return state._replace(net=descend(optimiser, state.net, grads)), metrics

    return Algorithm(init, batch, update)


# --- what it is compared with ---


def coder_health(spec: Spec, cfg: Config) -> Health:
    """What the codes that plans consist of keep of observations.

    The encoder gives [mu, log s], and a code is tanh(mu).
    """
    encoder, decoder = coder_networks(spec, cfg)
    to_units = ranged(cfg.normaliser, spec)

    def decode(state: State, past: Past, obs: Float[Array, "K N O"]) -> code_figures.Decoded:
        rows = to_units(state.knots, obs)
        mu_and_log_s = encoder.apply(state.net.params["to"], rows)
        code = jnp.tanh(mu_and_log_s[..., : cfg.code_width])
        return code_figures.Decoded(rows, decoder.apply(state.net.params["from"], code))

    columns = jnp.asarray(spec.obs_mask)
    return code_figures.autoencoder(decode, columns, cfg.code_width, RAISE)
