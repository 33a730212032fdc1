"""Which action led from one observation to the next: how planners of observations act.

a_i = D(o_i, o_i'),    down mean |a_i - D|^2,  or the cross-entropy of D's logits where actions are discrete

of the actions that were available, as MADiff's code has it, from pairs of neighbouring rows, in the planner's units.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxomarl.base import Spec
from jaxomarl.networks import agents
from jaxomarl.networks.mlp import Network, mlp
from jaxomarl.optim import Params
from jaxomarl.stages.inputs import flat


def inverse(spec: Spec, kind: str, width: int, columns: int = 0) -> Network:
    """`apply(params, obs [..., N, O], then [..., N, O]) -> [..., N, A]` of two hidden layers.

    `columns` O are the observations' unless plans are made of something else.
    `kind` shared: one network that is told whose action it is; separate: each agent's own; joint: one of all agents.
    """
    n, o, a, hidden = spec.agents, columns or spec.obs_width, spec.act_width, (width, width)
    if kind == "joint":
        whole = mlp(2 * n * o, hidden, n * a)
        net = Network(whole.init, lambda params, pair: whole.apply(params, flat(pair)).reshape(*pair.shape[:-1], a))
    elif kind == "shared":
        net = agents.shared(lambda wide: mlp(wide, hidden, a), 2 * o, n)
    else:
        net = agents.separate(mlp(2 * o, hidden, a), n)
    return Network(net.init, lambda params, obs, then: net.apply(params, jnp.concatenate([obs, then], axis=-1)))


def inverse_loss(
    spec: Spec,
    net: Network,
    params: Params,
    obs: Float[Array, "B W N O"],
    action: Float[Array, "B W N A"],
    available: Float[Array, "B W N A"],
    weight: Float[Array, "B V N"],
) -> Float[Array, ""]:
    """Mean over pairs of neighbouring rows (V = W - 1), by `weight`, of the error of the action between them."""
    out = net.apply(params, obs[:, :-1], obs[:, 1:])
    each = action_error(spec, out, action[:, :-1], available[:, :-1])
    return jnp.sum(weight * each) / jnp.maximum(weight.sum(), 1.0)


def action_error(
    spec: Spec,
    out: Float[Array, "*B N A"],
    action: Float[Array, "*B N A"],
    available: Float[Array, "*B N A"],
) -> Float[Array, "*B N"]:
    """Mean square over real columns; where actions are discrete, the cross-entropy of logits `out`.

    Logits of actions that were not available have no share in it. What was done counts as available.
    """
    mask = jnp.asarray(spec.act_mask)
    if spec.discrete:
        possible = (mask > 0) & ((available > 0) | (action > 0))
        return -jnp.sum(action * mask * jax.nn.log_softmax(jnp.where(possible, out, -1e9)), axis=-1)
    return jnp.sum(mask * (out - action) ** 2, axis=-1) / mask.sum(axis=-1)


def played(spec: Spec, out: Float[Array, "N A"], available: Bool[Array, "N A"]) -> Float[Array, "N A"]:
    """The action of D's output: held in the box; discrete, the likeliest of those that are available, one-hot."""
    mask = jnp.asarray(spec.act_mask)
    if not spec.discrete:
        return mask * jnp.clip(out, -1.0, 1.0)
    logits = jnp.where((mask > 0) & available, out, -jnp.inf)
    return jax.nn.one_hot(jnp.argmax(logits, axis=-1), spec.act_width)
