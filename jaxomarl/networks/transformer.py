"""A causal transformer over returns, observations and actions."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxomarl.base import refuse
from jaxomarl.networks.mlp import Network, dense, hidden, layer_norm, parameters


def decision_transformer(
    obs: int, actions: int, width: int, layers: int, heads: int, steps: int
) -> Network:
    """`apply(params, returns, obs, action, step, valid) -> [..., C, A]`.

    The inputs are returns, step and valid [..., C], obs [..., C, O] and action [..., C, A]. Each of
    the C rows is three tokens: return, observation, action. An embedding of the step in the
    episode (at most `steps`) is added to each token.

    The output of row c is read from its observation's token. It depends on earlier rows, on its
    own return and observation, and on no row that is not valid. Raises where width is no multiple
    of heads. Source: Chen et al. 2021 (Decision Transformer), algorithm 1.
    """
    if width % heads:
        expected = f"a multiple of its {heads} heads"
        raise refuse("decision_transformer.width", expected, width, "Take a multiple.")
    net = DecisionTransformer(actions, width, layers, heads, steps)

    def init(key):
        scalars = jnp.zeros((1,))
        rows = (scalars, jnp.zeros((1, obs)), jnp.zeros((1, actions)), scalars.astype(int), scalars)
        return parameters(key, net, *rows)

    def apply(params, *inputs) -> Any:
        return net.apply({"params": params}, *inputs)

    return Network(init, apply)


class DecisionTransformer(nn.Module):
    """The transformer of `decision_transformer`."""

    actions: int
    width: int
    layers: int
    heads: int
    steps: int

    @nn.compact
    def __call__(self, returns, obs, action, step, valid):
        """returns, step and valid [..., C], obs [..., C, O], action [..., C, A] -> [..., C, A]."""
        # --- three tokens a row ---
        when = nn.Embed(self.steps + 1, self.width, name="when")(step)
        tokens = [dense(x, self.width) + when for x in (returns[..., None], obs, action)]
        rows = obs.shape[-2]
        h = jnp.stack(tokens, axis=-2).reshape(*obs.shape[:-2], 3 * rows, self.width)
        h = hidden(h)

        # --- layers ---
        mask = visible(valid)
        for _ in range(self.layers):
            h = h + self.attended(layer_norm(h.dtype)(h), mask)
            inner = nn.gelu(dense(layer_norm(h.dtype)(h), 4 * self.width))
            h = h + dense(inner, self.width)

        # --- the observations' tokens ---
        of_obs = layer_norm()(h)[..., 1::3, :]
        return dense(of_obs, self.actions, name="out")

    def attended(self, h, mask):
        """Attention of every token to the tokens of its mask."""

        def heads():
            x = dense(h, self.width)
            return x.reshape(*x.shape[:-1], self.heads, -1)

        q = heads()
        k = heads()
        v = heads()
        # ours and not `jax.nn.dot_product_attention`, which has no further batch axes: its
        # gradient took 1.2 times as long (60 tokens, 4 heads of 16, 64 sequences, on a CPU)
        logits = jnp.einsum("...ihd,...jhd->...hij", q, k) / math.sqrt(q.shape[-1])
        logits = jnp.where(mask[..., None, :, :], logits.astype(jnp.float32), -1e9)
        weights = jax.nn.softmax(logits).astype(v.dtype)
        attended = jnp.einsum("...hij,...jhd->...ihd", weights, v)
        return dense(attended.reshape(h.shape), self.width)


def visible(valid: Float[Array, "*B C"]) -> Bool[Array, "*B L L"]:
    """The attention mask of L = 3 C tokens: each attends to itself, and to earlier valid ones."""
    tokens = jnp.repeat(valid > 0, 3, axis=-1)
    count = tokens.shape[-1]
    earlier = jnp.tril(jnp.ones((count, count), bool))
    return (earlier & tokens[..., None, :]) | jnp.eye(count, dtype=bool)


def last_steps(step: Int[Array, ""], rows: int) -> tuple[Int[Array, " C"], Float[Array, " C"]]:
    """The steps of the last `rows` rows, the present one included, and their validity.

    It is 1.0 where the episode had begun.
    """
    steps = step - jnp.arange(rows - 1, -1, -1)
    return jnp.maximum(steps, 0), (steps >= 0).astype(jnp.float32)
