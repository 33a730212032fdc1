"""Factorisations of noise and data: who reads whom, weights of one, rows that sum to one, and a mixer that rises."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxomarl.base import JaxomarlError
from jaxomarl.diffusion.factorise import (
    ALONE,
    DATA,
    NOISE,
    attention_weights,
    composed,
    factorisation,
)

N, D, C, B = 3, 2, 2, 4
MASK = jnp.array([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
# Programs of a few hundred numbers run for milliseconds: compiling them is all they cost.
jit = partial(
    jax.jit,
    compiler_options={
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
    },
)


def parts(params, x, t, y):
    """Each agent's noise from its own row, of its own slope."""
    time = t.reshape(t.shape + (1,) * (x.ndim - t.ndim))
    return jnp.tanh(params * (x + 0.5 * y) + time)


def given(kind, features=D + 1 + C, seed=0):
    """A factorisation and its parameters."""
    f = factorisation(kind, N, D, features)
    return f, f.init(jax.random.key(seed))


def inputs(seed=1):
    draw = lambda k, width: (
        np.random.default_rng(seed + k).standard_normal((B, N, width)).astype(np.float32)
    )
    return draw(0, D) * np.asarray(MASK), np.linspace(0.1, 1.0, B, dtype=np.float32), draw(1, C)


def noise_of(kind, executed=False):
    """(params of f, x, t, y) -> the team's noise."""
    f, params = given(kind)
    slopes = jnp.arange(1.0, N + 1)[:, None]
    eps = jit(
        lambda p, x, t, y: composed(parts, f, MASK, executed)(
            {"parts": slopes, "noise": p}, x, t, y
        )
    )
    return f, params, eps


def heard(mix):
    """[N, N] of bools: whether block i of `mix(values, y)` changes, in any bit, with row j of its inputs."""
    x, _, y = inputs()
    before = np.asarray(mix(x, y))
    found = np.zeros((N, N), bool)
    for j in range(N):
        for k in range(2):
            moved = [x.copy(), y.copy()]
            moved[k][:, j] += 0.7 * (np.asarray(MASK)[j] if k == 0 else 1.0)
            found[:, j] |= (np.asarray(mix(*moved)) != before).any(axis=(0, 2))
    return found


@pytest.mark.parametrize("kind", NOISE)
def test_agents_read_others_as_declared(kind):
    f, params, eps = noise_of(kind, executed=True)
    found = heard(lambda x, y: eps(params, x, inputs()[1], y))
    assert f.decentralised == (kind in ALONE)
    assert found.diagonal().all()
    assert (found == np.eye(N, dtype=bool)).all() if f.decentralised else found.all(), found


@pytest.mark.parametrize("kind", DATA)
def test_data_is_mixed_as_declared(kind):
    f, params = given(kind, features=C)
    mix = jit(f.execute)
    found = heard(lambda x, y: mix(params, x, y))
    assert (found == np.eye(N, dtype=bool)).all() if f.decentralised else found.all(), found


def test_in_training_dec_atten_is_atten():
    _, params, eps = noise_of("atten")
    _, same, dec = noise_of("dec-atten")
    np.testing.assert_array_equal(eps(params, *inputs()), dec(same, *inputs()))
    assert heard(lambda x, y: dec(same, x, inputs()[1], y)).all()


def test_weights_of_one_are_no_weights():
    """Bit for bit; and any other weight multiplies what is trained and what is executed alike."""
    (_, _, plain), (_, ones, weighted) = noise_of("concat"), noise_of("wconcat")
    x, t, y = inputs()
    np.testing.assert_array_equal(weighted(ones, x, t, y), plain((), x, t, y))
    k = jnp.array([[0.5], [2.0], [-1.0]])
    for eps in (weighted, noise_of("wconcat", executed=True)[2]):
        np.testing.assert_array_equal(eps({"k": k}, x, t, y), k * plain((), x, t, y))


def test_attention_by_hand():
    f, params = given("atten")
    rng = np.random.default_rng(3)
    values, features = rng.standard_normal((N, D)), rng.standard_normal((N, D + 1 + C))
    w = np.asarray(attention_weights(params, jnp.asarray(values), jnp.asarray(features)))
    np.testing.assert_allclose(w.sum(axis=-1), 1.0, rtol=1e-6)
    seen = np.concatenate([values, features], axis=-1)
    q, k = (
        np.asarray(seen @ params[m]["kernel"] + params[m]["names"]).reshape(N, 4, 8)
        for m in ("query", "key")
    )
    logits = np.stack([q[:, h] @ k[:, h].T for h in range(4)]) / np.sqrt(8)
    want = (np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(w, want, rtol=1e-4)
    np.testing.assert_allclose(
        f.train(params, jnp.asarray(values), jnp.asarray(features)), want @ values, rtol=1e-4
    )


def test_an_agent_alone_knows_its_own_weight_but_for_the_others_keys():
    """Dec-atten's weight is atten's where the others have nothing to say, and lies in (0, 1) elsewhere."""
    f, params = given("dec-atten")
    x, _, y = inputs()
    values, features = jnp.asarray(x), jnp.concatenate([x, x[..., :1], y], axis=-1)
    own = np.asarray(f.execute(params, jnp.ones_like(values), features))
    assert np.all((own > 0) & (own < 1))
    only = jnp.zeros((N, 1)).at[1].set(1.0)
    alone = values * only, features * only
    weight = attention_weights(params, *alone)[:, 1, 1]
    np.testing.assert_allclose(
        f.execute(params, *alone)[:, 1], weight[:, None] * values[:, 1], rtol=1e-5
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_monotone_mixer_rises_with_every_value(seed):
    f, params = given("qmix", features=C, seed=seed)
    x, _, y = inputs(seed)
    slope = jit(jax.vmap(jax.jacobian(lambda x, y: f.train(params, x, y)), in_axes=(0, 0)))(
        x, y
    )  # [B, N, D, N, D]
    by_column = np.asarray(jnp.einsum("bidjd->bidj", slope))
    assert by_column.min() >= 0 and (by_column > 1e-4).mean() > 0.9


def test_padded_values_are_not_mixed():
    """What an agent says in a column that it does not have reaches nobody."""
    f, params = given("atten")
    loud = lambda own, x, t, y: parts(jnp.ones((N, 1)), x, t, y) + own
    x, t, y = map(jnp.asarray, inputs())
    eps = lambda junk: composed(loud, f, MASK)(
        {"parts": junk * (1 - MASK), "noise": params}, x, t, y
    )
    np.testing.assert_array_equal(eps(5.0), eps(0.0))


def test_other_names_are_refused():
    with pytest.raises(JaxomarlError, match="concat, wconcat, atten, dec-atten, qmix"):
        factorisation("sum", N, D, C)
