"""Padding, hyper-parameters and optimisers: the small parts that every system shares."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxomarl.base import JaxomarlError, Spec
from jaxomarl.config import config, digest, stack, static, static_fields, traced_fields
from jaxomarl.masking import column_mean, weighted_mean
from jaxomarl.optim import annealed, create, descend, polyak

MASK = jnp.asarray(Spec((1, 1, 1), (3, 1, 2), state_dim=1, horizon=1).act_mask)

# --- masking ---


def test_masks_of_a_spec():
    np.testing.assert_array_equal(MASK, [[1, 1, 1], [1, 0, 0], [1, 1, 0]])


def test_a_wide_agent_counts_no_more_than_a_narrow_one():
    x = jnp.array([[3.0, 6.0, 9.0], [1.0, 99.0, 99.0], [4.0, 8.0, 99.0]])
    np.testing.assert_allclose(column_mean(x, MASK), [6, 1, 6])
    np.testing.assert_allclose(column_mean(jnp.stack([x, 2 * x]), MASK), [[6, 1, 6], [12, 2, 12]])
    slope = jax.grad(lambda x: column_mean(x, MASK).mean())(x)
    np.testing.assert_allclose(slope, MASK / MASK.sum(1, keepdims=True) / 3, rtol=1e-6)


def test_a_weighted_mean_is_of_what_counts():
    x, weight = jnp.array([[1.0, 3.0], [99.0, 8.0]]), jnp.array([[1.0, 1.0], [0.0, 0.5]])
    np.testing.assert_allclose(weighted_mean(x, weight), (1 + 3 + 4) / 2.5, rtol=1e-6)
    assert weighted_mean(x, jnp.zeros((2, 2))) == 0.0


# --- config ---


@config
class Small:
    """Two kinds of fields."""

    rate: float = 0.1
    size: int = static(default=4)
    name: str = static(default="a")
    beta: float = 2.0


def test_leaves_are_the_traced_fields():
    cfg = Small(rate=0.5, size=8)
    assert sorted(jax.tree.leaves(cfg)) == [0.5, 2.0]
    assert traced_fields(cfg) == {"rate": 0.5, "beta": 2.0}
    assert static_fields(cfg) == {"size": 8, "name": "a"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        cfg.rate = 1.0
    with pytest.raises(TypeError):
        Small(0.5)


def test_a_traced_field_is_one_program_and_a_static_one_another():
    count = []

    @jax.jit
    def f(cfg):
        count.append(cfg.size)
        return cfg.rate * jnp.ones(cfg.size)

    for cfg in (Small(), Small(rate=3.0), Small(beta=7.0)):
        np.testing.assert_allclose(f(cfg), cfg.rate * np.ones(4))
    assert count == [4]
    assert f(Small(size=2)).shape == (2,)
    assert count == [4, 2]


def test_a_field_that_is_no_float_must_say_so():
    with pytest.raises(
        TypeError, match=r"Bad.steps is traced, so it must be a float; else declare it static\(\)"
    ):

        @config
        class Bad:
            steps: int = 3

    with pytest.raises(TypeError, match=r"Worse\.rate has no default"):

        @config
        class Worse:
            rate: float


def test_configs_inherit_their_fields():
    @config
    class Child(Small):
        rate: float = 0.7
        more: str = static(default="b")

    assert traced_fields(Child()) == {"rate": 0.7, "beta": 2.0}
    assert static_fields(Child()) == {"size": 4, "name": "a", "more": "b"}


def test_stack_lays_traced_fields_along_runs_and_refuses_other_programs():
    both = stack([Small(rate=0.1), Small(rate=0.2, beta=3.0)])
    np.testing.assert_allclose(both.rate, [0.1, 0.2], rtol=1e-6)
    np.testing.assert_array_equal(both.beta, [2.0, 3.0])
    assert both.rate.dtype == jnp.float32
    assert both.size == 4
    np.testing.assert_allclose(jax.vmap(lambda c: c.rate * c.beta)(both), [0.2, 0.6], rtol=1e-6)
    with pytest.raises(JaxomarlError, match="static"):
        stack([Small(), Small(size=5)])


def test_digests_name_values():
    """Twelve hex digits, of the value and not of the order of its keys; pinned, as checkpoints are found by them."""
    assert digest({"a": 1, "b": [2.5, "x"]}) == digest({"b": [2.5, "x"], "a": 1}) == "03c06acc42d5"
    values = [
        {"a": 1},
        {"a": 2},
        {"a": "1"},
        {"b": 1},
        [{"a": 1}],
        {"a": 1.5},
        {"a": None},
        {"a": True},
    ]
    assert len({digest(v) for v in values}) == len(values)
    assert digest("a", "b") != digest("ab")


# --- optimisers ---


def test_polyak_moves_the_target_alone():
    net = create(optax.sgd(1.0), {"w": jnp.array([1.0, 2.0])}, target=True)
    np.testing.assert_array_equal(net.target["w"], net.params["w"])
    net = descend(optax.sgd(1.0), net, {"w": jnp.array([0.5, -1.0])})
    np.testing.assert_allclose(net.params["w"], [0.5, 3.0])
    np.testing.assert_array_equal(net.target["w"], [1.0, 2.0])
    after = polyak(net, 0.005)
    np.testing.assert_allclose(after.target["w"], [0.9975, 2.005], rtol=1e-6)
    np.testing.assert_array_equal(after.params["w"], net.params["w"])
    for _ in range(99):
        after = polyak(after, 0.005)
    np.testing.assert_allclose(
        after.target["w"], [0.5 + 0.5 * 0.995**100, 3 - 0.995**100], rtol=1e-5
    )
    assert create(optax.sgd(1.0), {"w": jnp.ones(1)}).target == ()


def test_polyak_written_out():
    rng = np.random.default_rng(0)
    trees = [{"a": rng.normal(size=(3, 4)), "b": {"c": rng.normal(size=5)}} for _ in range(2)]
    params, target = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), trees)
    net = create(optax.adam(1e-3), params, target=True)._replace(target=target)
    for tau in (0.0, 0.005, 1.0):
        want = jax.tree.map(lambda p, t, tau=tau: tau * p + (1.0 - tau) * t, *trees)
        for got in (polyak(net, tau), jax.jit(polyak)(net, tau)):
            jax.tree.map(
                lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6),
                got.target,
                want,
            )


@pytest.mark.parametrize(("lr", "end"), [(3e-4, 0.0), (1e-3, 1e-5), (0.3, 0.01)])
def test_the_cosine_written_out(lr, end):
    for steps in (1, 10, 1000, 100_000):
        count = np.unique(np.linspace(0, steps + 5, 61).astype(np.int32))
        want = end + (lr - end) * 0.5 * (1.0 + np.cos(np.pi * np.minimum(count, steps) / steps))
        rate = jax.jit(lambda lr, k, steps=steps: annealed(lr, steps, end)(k))
        got = [rate(lr, k) for k in count]
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-6 * lr)


def test_the_cosines_ends():
    rate = annealed(0.3, 200, end=0.01)
    np.testing.assert_allclose(
        [rate(0), rate(100), rate(200), rate(900)], [0.3, 0.155, 0.01, 0.01], rtol=1e-6
    )
    np.testing.assert_allclose(rate(50), 0.01 + 0.29 * 0.5 * (1 + 0.5**0.5), rtol=1e-6)
    theirs = optax.cosine_decay_schedule(0.3, 200)
    for k in (0, 1, 77, 199, 200, 300):
        np.testing.assert_allclose(annealed(0.3, 200)(k), theirs(k), rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(
        jax.jit(lambda lr: annealed(lr, 10)(5))(0.4), 0.2, rtol=1e-6
    )  # a traced rate


def test_annealed_descent_takes_its_first_step_at_the_full_rate_and_rests_at_the_end():
    tx = optax.sgd(annealed(0.5, 4))
    net, path = create(tx, jnp.array(0.0)), []
    for _ in range(6):
        net = descend(tx, net, jnp.array(-1.0))
        path.append(float(net.params))
    want = np.cumsum([0.5 * 0.5 * (1 + np.cos(np.pi * min(k, 4) / 4)) for k in range(6)])
    np.testing.assert_allclose(path, want, rtol=1e-6)
    assert path[-1] == path[-2]


def test_vmapped_networks_train_as_if_alone():
    """Adam's moments and count lead with the networks' axis, and no network feels another."""
    tx, params = optax.adam(0.1), {"w": jnp.array([[1.0, -2.0], [0.5, 3.0], [0.0, 1.0]])}
    many = jax.vmap(lambda p: create(tx, p, target=True))(params)
    assert {x.shape[0] for x in jax.tree.leaves(many)} == {3}
    slope = lambda p, k: {"w": p["w"] ** 3 + k}
    for _ in range(3):
        many = jax.vmap(lambda net, k: polyak(descend(tx, net, slope(net.params, k)), 0.5))(
            many, jnp.arange(3.0)
        )
    for k in range(3):
        alone = create(tx, {"w": params["w"][k]}, target=True)
        for _ in range(3):
            alone = polyak(descend(tx, alone, slope(alone.params, float(k))), 0.5)
        jax.tree.map(
            lambda x, y, k=k: np.testing.assert_allclose(x[k], y, rtol=1e-6, atol=1e-7), many, alone
        )
