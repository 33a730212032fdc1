"""The random numbers of one of our updates, from its key, for a twin.

They follow the key splits of the package's updates. Where one of those changes, the check of
`benchmarks.peers` fails.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor

from benchmarks.twins_dom2 import Noise
from benchmarks.twins_omsd import PolicyNoise, ScoreNoise
from jaxomarl.algorithms import dom2, omsd
from jaxomarl.base import Spec
from jaxomarl.networks.mlp import Network
from jaxomarl.stages import score_regularised, scores


def critic_draws(spec: Spec, cfg: omsd.Config, key: jax.Array) -> None:
    """Nothing: our update draws no random numbers."""


def score_draws(spec: Spec, cfg: omsd.Config, key: jax.Array) -> ScoreNoise:
    """The random numbers that our update draws from its key, flax's dropout included."""
    n = spec.agents
    batch = cfg.score_batch
    width = spec.act_width
    k_t, k_z, k_drop = jax.random.split(key, 3)
    t = jax.random.uniform(k_t, (batch, n), minval=1e-3, maxval=1.0)
    z = spec.act_mask * jax.random.normal(k_z, (batch, n, width))
    if not cfg.score_dropout:
        return ScoreNoise(tensor(t.T), tensor(z.swapaxes(0, 1)), False)
    net = scores.score_network(spec, cfg, "conditional")
    keys = jax.random.split(k_drop, n)
    drop = multipliers(net, keys, batch, width, spec.obs_width + n * width)
    return ScoreNoise(tensor(t.T), tensor(z.swapaxes(0, 1)), drop)


def policy_draws(spec: Spec, cfg: omsd.Config, key: jax.Array) -> PolicyNoise:
    """The random numbers that our update draws from its key."""
    shape = cfg.policy_batch, spec.agents, spec.act_width
    mask = jnp.asarray(spec.act_mask)
    t, z = score_regularised.score_times_and_noise(key, cfg, shape, mask)
    return PolicyNoise(tensor(t), tensor(z))


def dom2_draws(spec: Spec, cfg: dom2.Config, key: jax.Array) -> Noise:
    """The random numbers that our update draws from its key, flax's dropout included."""
    batch = cfg.policy_batch
    width = spec.act_width
    mask = spec.act_mask[:, None]
    keys = jax.vmap(lambda k: jax.random.split(k, 6))(jax.random.split(key, spec.agents))  # [N, 6]
    each = lambda draw, k: jax.vmap(draw)(keys[:, k])

    normal = lambda k: jax.random.normal(k, (batch, width))
    first_noise = lambda k: normal(jax.random.split(k)[0])  # of a sampler
    after = mask * each(first_noise, 0)
    u = each(lambda k: jax.random.uniform(k, (1, cfg.samples, batch, width))[0], 1)
    proposed = mask[:, None] * (2.0 * u - 1.0)
    t = each(lambda k: jax.random.randint(k, (batch,), 1, cfg.levels + 1) / cfg.levels, 2)
    z = mask * each(normal, 3)
    acting = mask * each(first_noise, 5)

    drop: bool | list[Tensor] = False
    if cfg.dropout:
        drop = multipliers(dom2.noise_network(spec, cfg), keys[:, 4], batch, width, spec.obs_width)
    return Noise(tensor(after), tensor(proposed), tensor(t), tensor(z), drop, tensor(acting))


def multipliers(net: Network, keys: jax.Array, batch: int, columns: int, cond: int) -> list[Tensor]:
    """The factors of flax's dropout layers in a noise network under N keys: [N, B, width] each."""

    def one(key: jax.Array) -> list[Any]:
        found = []

        def watch(
            call: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext
        ) -> Any:
            if not isinstance(context.module, nn.Dropout):
                return call(*args, **kwargs)
            found.append(call(jnp.ones_like(args[0])))
            return args[0]

        params = net.init(key)
        x = jnp.zeros((batch, columns))
        t = jnp.zeros(batch)
        with nn.intercept_methods(watch):
            net.apply(params, x, t, jnp.zeros((batch, cond)), key)
        return found

    return [tensor(x) for x in jax.jit(jax.vmap(one))(keys)]


def tensor(x: Any) -> Tensor:
    """A JAX array as a tensor of its own."""
    return torch.from_numpy(np.array(x))
