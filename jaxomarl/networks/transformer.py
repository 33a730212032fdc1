"""A causal transformer over returns, observations and actions."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxomarl.base import refuse
from jaxomarl.networks.mlp import Network, dense, hidden, layer_norm, parameters


def decision_transformer(
    obs: int, actions: int, width: int, layers: int, heads: int, steps: int
) -> Network:
    """`apply(params, returns [..., C], obs [..., C, O], action [..., C, A], step, valid [..., C]) -> [..., C, A]`.

    Three tokens for each of C rows, in the order return, observation, action, each told the step of the episode (at
    most `steps`). Row c's output is read off its observation's token: it depends on earlier rows, and on its own return
    and observation, and on no row that is not valid. Raises where width is no multiple of heads.
    Source: Chen et al. 2021 (Decision Transformer), algorithm 1.
    """
    if width % heads:
        raise refuse(
            "decision_transformer.width",
            f"a multiple of its {heads} heads",
            width,
            "Take a multiple.",
        )
    net = DecisionTransformer(actions, width, layers, heads, steps)

    def init(key):
        rows = jnp.zeros((1,))
        return parameters(
            key, net, rows, jnp.zeros((1, obs)), jnp.zeros((1, actions)), rows.astype(int), rows
        )

    return Network(init, lambda params, *inputs: net.apply({"params": params}, *inputs))  # type: ignore


class DecisionTransformer(nn.Module):
    """The transformer of `decision_transformer`."""

    actions: int
    width: int
    layers: int
    heads: int
    steps: int

    @nn.compact
    def __call__(self, returns, obs, action, step, valid):
        """Returns, step and valid [..., C], obs [..., C, O], action [..., C, A] -> [..., C, A]."""
        when = nn.Embed(self.steps + 1, self.width, name="when")(step)
        tokens = [dense(x, self.width) + when for x in (returns[..., None], obs, action)]
        h = hidden(
            jnp.stack(tokens, axis=-2).reshape(*obs.shape[:-2], 3 * obs.shape[-2], self.width)
        )
        sees = visible(valid)
        for _ in range(self.layers):
            h = h + self.attended(layer_norm(h.dtype)(h), sees)
            h = h + dense(nn.gelu(dense(layer_norm(h.dtype)(h), 4 * self.width)), self.width)
        return dense(layer_norm()(h)[..., 1::3, :], self.actions, name="out")

    def attended(self, h, sees):
        """Attention of every token to those that it sees."""
        split = lambda x: x.reshape(*x.shape[:-1], self.heads, -1)
        q, k, v = (split(dense(h, self.width)) for _ in range(3))
        logits = jnp.einsum("...ihd,...jhd->...hij", q, k) / math.sqrt(q.shape[-1])
        weights = jax.nn.softmax(
            jnp.where(sees[..., None, :, :], logits.astype(jnp.float32), -1e9)
        ).astype(v.dtype)
        heard = jnp.einsum("...hij,...jhd->...ihd", weights, v)
        return dense(heard.reshape(h.shape), self.width)


def visible(valid: Float[Array, "*B C"]) -> Bool[Array, "*B L L"]:
    """Which tokens each of L = 3 C sees: itself, and earlier ones of valid rows."""
    rows = jnp.repeat(valid > 0, 3, axis=-1)
    count = rows.shape[-1]
    earlier = jnp.tril(jnp.ones((count, count), bool))
    return (earlier & rows[..., None, :]) | jnp.eye(count, dtype=bool)


def last_steps(step: Int[Array, ""], rows: int) -> tuple[Int[Array, " C"], Float[Array, " C"]]:
    """The steps of the `rows` rows that end in the present one, and 1.0 where the episode had begun."""
    found = step - jnp.arange(rows - 1, -1, -1)
    return jnp.maximum(found, 0), (found >= 0).astype(jnp.float32)
