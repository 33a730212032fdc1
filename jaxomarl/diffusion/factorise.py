"""The diffusion of a team from its agents': noise factorisation f and data factorisation h.

    eps_tot(x, t) = f(eps_1(x_1, t | y_1), .., eps_n(x_n, t | y_n))
    x_tot = h(x_1, .., x_n)

f and h get values v_1, .., v_n and return one block for each agent. The table has block i.
"Alone": agent i can compute its block without the others.

    concat     v_i                                                              alone
    wconcat    k_i v_i, k_i learned and 1 at the start                          alone
    atten      sum_j w_ij v_j, w_ij of multi-head attention, sum_j w_ij = 1
    dec-atten  trained as atten; executed as w_ii v_i                           alone
    qmix       two layers with weights |w(y)| and ELU: rises with every v_j

With f = concat or wconcat and an elementwise h, the joint distribution is exactly the product of
the agents' distributions given y: it has no correlation that y does not carry. A perfect network
has k = 1. The forward noise is N(0, I) under all of them: f weighs predictions, and a model that
is trained with weights is sampled with the same weights.

Source: "DoF: A Diffusion Factorization Framework for Offline Multi-Agent Decision Making", 4.3,
C.1 and C.2.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import refuse

HEADS = 4
"""Attention heads of "atten" and "dec-atten"."""
HEAD_WIDTH = 8
"""Width of a query or a key in one head."""
HIDDEN = 8
"""Hidden units of "qmix"."""

Params = Any
Noise = Callable[[Params, Array, Array, Array], Array]
"""(params, x [..., N, D], t, y [..., N, C]) -> noise [..., N, D].

t has leading axes of x, or none.
"""
Mix = Callable[[Params, Array, Array], Array]
"""(params, values [..., N, D], features [..., N, F]) -> [..., N, D]."""


class Factorisation(NamedTuple):
    """A way to combine the values of N agents."""

    init: Callable[[Key[Array, ""]], Params]
    train: Mix
    execute: Mix
    """The mix that acting agents use: `train`, except for dec-atten."""
    decentralised: bool
    """Whether block i of `execute` depends on row i alone."""


def factorisation(kind: str, agents: int, columns: int, features: int) -> Factorisation:
    """The factorisation of a name in `NOISE`.

    It combines values [..., N, `columns`] with features [..., N, `features`].
    Raises JaxomarlError for any other name.
    """

    def weights(key):
        return {"k": jnp.ones((agents, 1))}

    def mixer(key):
        return _mixer(key, agents, agents * features)

    def attention(key):
        return _attention(key, agents, columns + features)

    if kind == "concat":
        return Factorisation(lambda key: (), _side_by_side, _side_by_side, decentralised=True)
    if kind == "wconcat":
        return Factorisation(weights, _weighted, _weighted, decentralised=True)
    if kind == "atten":
        return Factorisation(attention, _attended, _attended, decentralised=False)
    if kind == "dec-atten":
        return Factorisation(attention, _attended, _own_term, decentralised=True)
    if kind == "qmix":
        return Factorisation(mixer, _monotone, _monotone, decentralised=False)
    raise refuse("factorisation", f"one of {', '.join(NOISE)}", kind, "Take one of these.")


def composed(
    parts: Noise, f: Factorisation, mask: Float[Array, "N D"], executed: bool = False
) -> Noise:
    """The team's noise prediction f(eps_1, .., eps_n), in training or as it is executed.

    The result is a `Noise` itself. `parts` predicts each agent's noise from its own row of x and
    y. The params are {"parts": those of `parts`, "noise": those of f}. Values in padded columns
    (mask = 0.0) are zero before they are mixed. The features of f are x, t and y.
    """
    mix = f.execute if executed else f.train

    def noise(params: Params, x: Array, t: Array, y: Array) -> Array:
        own = mask * parts(params["parts"], x, t, y)
        time = t.reshape(t.shape + (1,) * (x.ndim - t.ndim))
        time = jnp.broadcast_to(time, (*x.shape[:-1], 1))
        features = jnp.concatenate([x, time, y], axis=-1)
        return mix(params["noise"], own, features)

    return noise


# --- concat and wconcat ---


def _side_by_side(params: Params, values: Array, features: Array) -> Array:
    return values


def _weighted(params: Params, values: Array, features: Array) -> Array:
    return params["k"] * values


# --- attention ---


def attention_weights(
    params: Params, values: Float[Array, "*B N D"], features: Float[Array, "*B N F"]
) -> Array:
    """The w_ij of "atten" [..., N, N]; rows sum to 1.

    They are the mean over heads of softmax_j(<q_i, k_j> / sqrt(width)). q and k are linear in an
    agent's values and features, with an offset for each agent.
    """
    q, k, _ = _queries_and_keys(params, values, features)
    return _softmax(jnp.einsum("...ihd,...jhd->...hij", q, k))


def _attended(params: Params, values: Array, features: Array) -> Array:
    weights = attention_weights(params, values, features)
    return jnp.einsum("...ij,...jd->...id", weights, values)


def _own_term(params: Params, values: Array, features: Array) -> Array:
    """w_ii v_i as far as agent i knows it.

    The key of a team-mate is that of its name alone, without its values and features.
    """
    q, k, blank = _queries_and_keys(params, values, features)
    own = jnp.sum(q * k, axis=-1)
    others = jnp.einsum("...ihd,jhd->...hij", q, blank)
    itself = jnp.eye(values.shape[-2], dtype=bool)
    logits = jnp.where(itself, jnp.moveaxis(own, -1, -2)[..., None], others)
    own_weight = jnp.diagonal(_softmax(logits), axis1=-2, axis2=-1)
    return own_weight[..., None] * values


def _softmax(logits: Float[Array, "*B h N N"]) -> Float[Array, "*B N N"]:
    return jax.nn.softmax(logits / HEAD_WIDTH**0.5, axis=-1).mean(axis=-3)


def _queries_and_keys(params: Params, values: Array, features: Array) -> tuple[Array, Array, Array]:
    """Queries and keys [..., N, heads, width], and keys [N, heads, width] from the names alone."""
    inputs = jnp.concatenate([values, features], axis=-1)

    def heads(x):
        return x.reshape(*x.shape[:-1], HEADS, HEAD_WIDTH)

    def linear(name):
        return heads(inputs @ params[name]["kernel"] + params[name]["names"])

    q = linear("query")
    k = linear("key")
    return q, k, heads(params["key"]["names"])


def _attention(key: Key[Array, ""], agents: int, width: int) -> Params:
    def linear(key):
        k_kernel, k_names = jax.random.split(key)
        return {
            "kernel": _uniform(k_kernel, width, (width, HEADS * HEAD_WIDTH)),
            "names": _uniform(k_names, 1, (agents, HEADS * HEAD_WIDTH)),
        }

    k_query, k_key = jax.random.split(key)
    return {"query": linear(k_query), "key": linear(k_key)}


# --- qmix ---


def _monotone(params: Params, values: Array, features: Array) -> Array:
    """QMIX's mixer, column by column: out_i = mean_e |w2_ei| ELU(sum_j |w1_je| v_j + b1_e) + b2_i.

    w and b are linear in y. QMIX has a sum in place of the mean. The mean makes outputs as large
    as inputs at the start; the family of functions is the same.
    """
    agents = values.shape[-2]
    state = features.reshape(*features.shape[:-2], -1)

    def linear(name, *shape):
        out = state @ params[name]["kernel"] + params[name]["bias"]
        return out.reshape(*state.shape[:-1], *shape)

    w1 = jnp.abs(linear("w1", agents, HIDDEN))
    w2 = jnp.abs(linear("w2", HIDDEN, agents)) / HIDDEN
    inner = jnp.einsum("...je,...jd->...ed", w1, values) + linear("b1", HIDDEN, 1)
    hidden = jax.nn.elu(inner)
    return jnp.einsum("...ei,...ed->...id", w2, hidden) + linear("b2", agents, 1)


def _mixer(key: Key[Array, ""], agents: int, width: int) -> Params:
    sizes = {"w1": agents * HIDDEN, "b1": HIDDEN, "w2": HIDDEN * agents, "b2": agents}

    def linear(key, size):
        k_kernel, k_bias = jax.random.split(key)
        return {
            "kernel": _uniform(k_kernel, width, (width, size)),
            "bias": _uniform(k_bias, width, (size,)),
        }

    keys = jax.random.split(key, len(sizes))
    layers = zip(keys, sizes.items(), strict=True)
    return {name: linear(k, size) for k, (name, size) in layers}


def _uniform(key: Key[Array, ""], fan_in: int, shape: tuple[int, ...]) -> Array:
    return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0) * fan_in**-0.5


# --- names ---

NOISE = ("concat", "wconcat", "atten", "dec-atten", "qmix")
"""Names of f."""
DATA = ("concat", "wconcat", "atten", "qmix")
"""Names of h."""
ALONE = tuple(kind for kind in NOISE if factorisation(kind, 1, 1, 1).decentralised)
"""Names of those whose agents act without one another."""


def check_execution(execution: str, noise_mixer: str, data_mixer: str) -> None:
    """Raise JaxomarlError for mixers that need other agents, unless the execution is "central"."""
    if execution == "central":
        return
    way = "It needs the other agents at every step: take one of these, or --cfg.execution central."
    fields = (
        ("--cfg.noise-mixer", noise_mixer, NOISE),
        ("--cfg.data-mixer", data_mixer, DATA),
    )
    for field, chosen, kinds in fields:
        alone = [kind for kind in kinds if kind in ALONE]
        if chosen not in alone:
            expected = f"one of {', '.join(alone)} for decentralised agents"
            raise refuse(field, expected, chosen, way)
