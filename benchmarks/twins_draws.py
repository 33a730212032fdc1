"""The random numbers of one of our updates, from its key, for a twin that is to draw the same.

They follow the key splits of the package's updates; where one of those changes, the check of `benchmarks.peers` fails.
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
from jaxomarl.algorithms.dom2 import noise_network
from jaxomarl.base import Spec
from jaxomarl.networks.mlp import Network
from jaxomarl.stages import score_regularised, scores


def critic_draws(spec: Spec, cfg: Any, key: jax.Array) -> None:
    """Our update draws nothing."""


def score_draws(spec: Spec, cfg: Any, key: jax.Array) -> ScoreNoise:
    """What our update draws from its key, flax's dropout among it."""
    n, batch, width, mask = spec.agents, cfg.score_batch, spec.act_width, spec.act_mask
    k_t, k_z, k_drop = jax.random.split(key, 3)
    t = jax.random.uniform(k_t, (batch, n), minval=1e-3, maxval=1.0)
    z = mask * jax.random.normal(k_z, (batch, n, width))
    if not cfg.score_dropout:
        return ScoreNoise(tensor(t.T), tensor(z.swapaxes(0, 1)), False)
    net = scores.model(spec, cfg, "conditional")
    keys = jax.random.split(k_drop, n)
    drop = multipliers(net, keys, batch, width, spec.obs_width + n * width)
    return ScoreNoise(tensor(t.T), tensor(z.swapaxes(0, 1)), drop)


def policy_draws(spec: Spec, cfg: Any, key: jax.Array) -> PolicyNoise:
    """What our update draws from its key."""
    shape = cfg.policy_batch, spec.agents, spec.act_width
    return PolicyNoise(
        *(
            tensor(x)
            for x in score_regularised.times_and_noise(key, cfg, shape, jnp.asarray(spec.act_mask))
        )
    )


def dom2_draws(spec: Spec, cfg: Any, key: jax.Array) -> Noise:
    """What our update draws from its key, flax's dropout among it."""
    batch, n, width, mask = cfg.policy_batch, spec.agents, spec.act_width, spec.act_mask
    keys = jax.vmap(lambda k: jax.random.split(k, 6))(jax.random.split(key, n))  # [N, 6]
    each = lambda draw, k: jax.vmap(draw)(keys[:, k])
    normal = lambda k: jax.random.normal(k, (batch, width))
    started = lambda k: normal(jax.random.split(k)[0])  # a sampler's first noise
    after, played, z = (
        mask[:, None] * each(draw, k) for draw, k in ((started, 0), (started, 5), (normal, 3))
    )
    u = each(lambda k: jax.random.uniform(k, (1, cfg.samples, batch, width))[0], 1)
    t = each(lambda k: jax.random.randint(k, (batch,), 1, cfg.levels + 1) / cfg.levels, 2)
    proposed = mask[:, None, None] * (2.0 * u - 1.0)
    net = noise_network(spec, cfg)
    drop = multipliers(net, keys[:, 4], batch, width, spec.obs_width) if cfg.dropout else False
    return Noise(*(tensor(x) for x in (after, proposed, t, z)), drop, tensor(played))


def multipliers(net: Network, keys: jax.Array, batch: int, columns: int, cond: int) -> list[Tensor]:
    """What flax's dropout layers of a noise network multiply by under each of N keys: [N, B, width] for each layer."""

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
        with nn.intercept_methods(watch):
            net.apply(
                params, jnp.zeros((batch, columns)), jnp.zeros(batch), jnp.zeros((batch, cond)), key
            )
        return found

    return [tensor(x) for x in jax.jit(jax.vmap(one))(keys)]


def tensor(x: Any) -> Tensor:
    """A JAX array as a tensor of its own."""
    return torch.from_numpy(np.array(x))
