"""One diffusion of a team, put together from its agents': noise factorisation f and data factorisation h.

    eps_tot(x, t) = f(eps_1(x_1, t | y_1), .., eps_n(x_n, t | y_n))          x_tot = h(x_1, .., x_n)

Block i of either whole, of the values v_1..v_n that f or h is given; "alone": agent i can make it without the others.

    concat     v_i                                                              alone
    wconcat    k_i v_i, k_i learned and 1 at the start                          alone
    atten      sum_j w_ij v_j, w_ij of multi-head attention, sum_j w_ij = 1
    dec-atten  trained as atten; executed as w_ii v_i                           alone
    qmix       two layers with weights |w(y)| and ELU: rises with every v_j

With f = concat or wconcat and an elementwise h the whole is exactly a product of the agents' distributions given y: it
holds no correlation that y does not carry. A perfect network has k = 1. The forward noise is N(0, I) under all of them:
f weighs predictions, and what is trained with weights is sampled with them.

Source: "DoF: A Diffusion Factorization Framework for Offline Multi-Agent Decision Making", 4.3, C.1 and C.2.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import refuse

HEADS, HEAD_WIDTH, HIDDEN = 4, 8, 8

Params = Any
Noise = Callable[[Params, Array, Array, Array], Array]
"""(params, x [..., N, D], t, y [..., N, C]) -> noise [..., N, D]; t has leading axes of x, or none."""
Mix = Callable[[Params, Array, Array], Array]
"""(params, values [..., N, D], features [..., N, F]) -> [..., N, D]."""


class Factorisation(NamedTuple):
    """One way to make a whole of values of N agents."""

    init: Callable[[Key[Array, ""]], Params]
    train: Mix
    execute: Mix  # as agents act; `train` but for dec-atten
    decentralised: bool  # block i of `execute` reads row i alone


def factorisation(kind: str, agents: int, columns: int, features: int) -> Factorisation:
    """The factorisation of a name in `NOISE`, of values [..., N, `columns`] and features [..., N, `features`].

    Raises JaxomarlError for any other name.
    """
    if kind == "concat":
        return _alike(lambda key: (), lambda params, values, _: values, True)
    if kind == "wconcat":
        ones = lambda key: {"k": jnp.ones((agents, 1))}
        return _alike(ones, lambda params, values, _: params["k"] * values, True)
    if kind == "qmix":
        return _alike(lambda key: _mixer(key, agents, agents * features), _monotone, False)
    if kind not in ("atten", "dec-atten"):
        raise refuse("factorisation", f"one of {', '.join(NOISE)}", kind, "Take one of these.")
    init = lambda key: _attention(key, agents, columns + features)
    if kind == "atten":
        return _alike(init, _attended, False)
    return Factorisation(init, _attended, _own_term, True)


def composed(
    parts: Noise, f: Factorisation, mask: Float[Array, "N D"], executed: bool = False
) -> Noise:
    """The team's noise prediction f(eps_1, .., eps_n), in training or as it is executed; a `Noise` itself.

    `parts` makes each agent's noise from its own row of x and y; params are {"parts": of them, "noise": of f}. Values
    in padded columns (mask = 0.0) are zero before they are mixed. The features of f are x, t and y.
    """
    mix = f.execute if executed else f.train

    def noise(params: Params, x: Array, t: Array, y: Array) -> Array:
        own = mask * parts(params["parts"], x, t, y)
        time = jnp.broadcast_to(t.reshape(t.shape + (1,) * (x.ndim - t.ndim)), (*x.shape[:-1], 1))
        return mix(params["noise"], own, jnp.concatenate([x, time, y], axis=-1))

    return noise


def attention_weights(
    params: Params, values: Float[Array, "*B N D"], features: Float[Array, "*B N F"]
) -> Array:
    """The w_ij of "atten" [..., N, N]; rows sum to 1.

    The mean over heads of softmax_j(<q_i, k_j> / sqrt(width)); q and k are linear in an agent's values and features,
    and in who it is.
    """
    q, k, _ = _queries_and_keys(params, values, features)
    return _softmax(jnp.einsum("...ihd,...jhd->...hij", q, k))


def _attended(params: Params, values: Array, features: Array) -> Array:
    return jnp.einsum("...ij,...jd->...id", attention_weights(params, values, features), values)


def _own_term(params: Params, values: Array, features: Array) -> Array:
    """w_ii v_i as far as agent i knows it: a team-mate's key is that of its name, without values and features."""
    q, k, blank = _queries_and_keys(params, values, features)
    own = jnp.sum(q * k, axis=-1)  # [..., N, heads]
    others = jnp.einsum("...ihd,jhd->...hij", q, blank)
    agents = values.shape[-2]
    logits = jnp.where(jnp.eye(agents, dtype=bool), jnp.moveaxis(own, -1, -2)[..., None], others)
    return jnp.diagonal(_softmax(logits), axis1=-2, axis2=-1)[..., None] * values


def _softmax(logits: Float[Array, "*B h N N"]) -> Float[Array, "*B N N"]:
    return jax.nn.softmax(logits / HEAD_WIDTH**0.5, axis=-1).mean(axis=-3)


def _queries_and_keys(params: Params, values: Array, features: Array) -> tuple[Array, Array, Array]:
    """Queries and keys [..., N, heads, width], and keys [N, heads, width] of agents of whom only the name is known."""
    seen = jnp.concatenate([values, features], axis=-1)
    heads = lambda x: x.reshape(*x.shape[:-1], HEADS, HEAD_WIDTH)
    q, k = (
        heads(seen @ params[name]["kernel"] + params[name]["names"]) for name in ("query", "key")
    )
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


def _monotone(params: Params, values: Array, features: Array) -> Array:
    """QMIX's mixer, column by column: out_i = mean_e |w2_ei| ELU(sum_j |w1_je| v_j + b1_e) + b2_i, with w, b of y.

    The mean, a sum in QMIX, starts what comes out at the size of what goes in; the family is the same.
    """
    agents = values.shape[-2]
    state = features.reshape(*features.shape[:-2], -1)
    made = lambda name, *shape: (state @ params[name]["kernel"] + params[name]["bias"]).reshape(
        *state.shape[:-1], *shape
    )
    w1, w2 = jnp.abs(made("w1", agents, HIDDEN)), jnp.abs(made("w2", HIDDEN, agents)) / HIDDEN
    hidden = jax.nn.elu(jnp.einsum("...je,...jd->...ed", w1, values) + made("b1", HIDDEN, 1))
    return jnp.einsum("...ei,...ed->...id", w2, hidden) + made("b2", agents, 1)


def _mixer(key: Key[Array, ""], agents: int, width: int) -> Params:
    sizes = {"w1": agents * HIDDEN, "b1": HIDDEN, "w2": HIDDEN * agents, "b2": agents}

    def linear(key, size):
        k_kernel, k_bias = jax.random.split(key)
        return {
            "kernel": _uniform(k_kernel, width, (width, size)),
            "bias": _uniform(k_bias, width, (size,)),
        }

    return {
        name: linear(k, size)
        for k, (name, size) in zip(jax.random.split(key, 4), sizes.items(), strict=True)
    }


def _uniform(key: Key[Array, ""], fan_in: int, shape: tuple[int, ...]) -> Array:
    return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0) * fan_in**-0.5


def _alike(
    init: Callable[[Key[Array, ""]], Params], mix: Mix, decentralised: bool
) -> Factorisation:
    return Factorisation(init, mix, mix, decentralised)


NOISE = ("concat", "wconcat", "atten", "dec-atten", "qmix")
"""Names of f."""
DATA = ("concat", "wconcat", "atten", "qmix")
"""Names of h."""
ALONE = tuple(kind for kind in NOISE if factorisation(kind, 1, 1, 1).decentralised)
"""Those whose agents act without one another."""


def check_execution(execution: str, noise_mixer: str, data_mixer: str) -> None:
    """Raise JaxomarlError for mixers that need other agents, unless the execution is "central"."""
    if execution == "central":
        return
    for field, chosen, kinds in (
        ("--cfg.noise-mixer", noise_mixer, NOISE),
        ("--cfg.data-mixer", data_mixer, DATA),
    ):
        alone = [kind for kind in kinds if kind in ALONE]
        if chosen not in alone:
            way = "It needs the other agents at every step: take one of these, or --cfg.execution central."
            raise refuse(field, f"one of {', '.join(alone)} for decentralised agents", chosen, way)
