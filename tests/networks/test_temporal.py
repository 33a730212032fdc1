"""The temporal U-Net: its convolution is a convolution, any length goes in, and who and what it listens to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxomarl.base import JaxomarlError
from jaxomarl.networks.temporal import Norm, doubled, halved, temporal_unet, unfolded

AGENTS, CHANNELS = 3, 2
SMALL = {
    "channels": CHANNELS,
    "cond": 1,
    "width": 8,
    "multipliers": (1, 2),
    "kernel": 3,
    "blocks": 1,
}


@pytest.fixture(scope="module")
def team():
    """A network with attention, its parameters at the start and with gains of 1, and the same without attention."""
    with_them, alone = temporal_unet(**SMALL, agents=AGENTS), temporal_unet(**SMALL)
    params = jax.jit(with_them.init)(jax.random.key(0))
    loud = jax.tree_util.tree_map_with_path(
        lambda k, x: jnp.ones(()) if "gain" in str(k) else x, params
    )
    return jax.jit(with_them.apply), jax.jit(alone.apply), params, loud


def given(rows=5, batch=4):
    k_x, k_y = jax.random.split(jax.random.key(rows))
    x, y = (
        jax.random.normal(k_x, (batch, AGENTS, rows, CHANNELS)),
        jax.random.normal(k_y, (batch, AGENTS, 1)),
    )
    return x, jnp.linspace(0.1, 1.0, batch), y


def without_attention(params):
    return {k: v for k, v in params.items() if not k.startswith("attend")}


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("rows", [1, 2, 7])
def test_unfold_and_matmul_is_a_convolution(kernel, rows):
    x = jax.random.normal(jax.random.key(0), (4, rows, 3))
    weight = jax.random.normal(jax.random.key(1), (kernel, 3, 6))

    @jax.jit
    def both(x, weight):
        wanted = jax.lax.conv_general_dilated(
            x, weight, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
        )
        return unfolded(x, kernel) @ weight.reshape(-1, 6), wanted

    found, wanted = both(x, weight)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_halving_and_doubling():
    x = jnp.asarray([[1.0], [3.0], [2.0], [5.0], [4.0]])
    assert halved(x)[:, 0].tolist() == [3.0, 5.0, 4.0]
    assert halved(x[:1]).tolist() == [[1.0]]
    assert doubled(halved(x), 5)[:, 0].tolist() == [3.0, 3.0, 5.0, 5.0, 4.0]


def test_groups_are_normalised_over_time():
    x = 3.0 + 2.0 * jax.random.normal(jax.random.key(0), (2, 6, 16))
    out = Norm(8).apply({"params": {"scale": jnp.ones(16), "shift": jnp.zeros(16)}}, x)
    groups = np.asarray(out).reshape(
        2, 6, 4, 4
    )  # four channels each: no more than four groups of sixteen
    np.testing.assert_allclose(groups.mean(axis=(1, 3)), 0.0, atol=1e-5)
    np.testing.assert_allclose(groups.std(axis=(1, 3)), 1.0, atol=1e-3)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_any_length_goes_in_and_comes_out(team, rows):
    _, alone, params, _ = team
    x, t, y = given(rows)
    out = alone(without_attention(params), x, t, y)
    assert out.shape == x.shape and np.isfinite(out).all() and np.std(out) > 0.01


def test_without_pools_lengths_are_kept_and_params_fit():
    net = temporal_unet(**SMALL, pools=False)
    shapes = jax.eval_shape(net.init, jax.random.key(0))
    assert jax.tree.structure(shapes) == jax.tree.structure(
        jax.eval_shape(temporal_unet(**SMALL).init, jax.random.key(0))
    )
    assert jax.eval_shape(net.apply, shapes, *given(5)).shape == (4, AGENTS, 5, CHANNELS)


def test_a_dropped_condition_is_not_heard_and_a_kept_one_is(team):
    _, alone, params, _ = team
    x, t, y = given()
    params, drop = without_attention(params), jnp.ones((4, AGENTS)).at[0].set(0.0)
    one, other = alone(params, x, t, y, drop), alone(params, x, t, y + 3.0, drop)
    assert (one[1:] == other[1:]).all() and np.isfinite(one).all()
    assert np.abs(one[0] - other[0]).max() > 1e-3
    assert (alone(params, x, t, y * jnp.nan, jnp.ones((4, AGENTS)))[1:] == one[1:]).all()


def test_the_time_is_heard(team):
    _, alone, params, _ = team
    x, t, y = given()
    moved = np.abs(
        alone(without_attention(params), x, t, y) - alone(without_attention(params), x, t * 0.5, y)
    )
    assert (moved.max(axis=(1, 2, 3)) > 1e-3).all()


def test_gains_of_zero_are_independent_agents_bit_for_bit(team):
    together, alone, params, loud = team
    x, t, y = given()
    out = together(params, x, t, y)
    assert (out == alone(without_attention(params), x, t, y)).all()
    other = x.at[:, 1].add(1.0)
    assert (together(params, other, t, y)[:, [0, 2]] == out[:, [0, 2]]).all()
    heard = np.abs(together(loud, other, t, y) - together(loud, x, t, y))
    assert (heard.max(axis=(0, 2, 3)) > 1e-4).all(), "with gains agents do not hear one another"


def test_the_gain_learns_from_the_start(team):
    together, _, params, _ = team
    x, t, y = given()
    slope = jax.jit(jax.grad(lambda p: jnp.sum(together(p, x, t, y) ** 2)))(params)
    gains = [slope[k]["gain"] for k in params if k.startswith("attend")]
    assert len(gains) == 3 and all(abs(g) > 1e-6 for g in gains)


def test_sizes_that_cannot_be_are_refused():
    for wrong, match in (
        ({"kernel": 4}, "odd"),
        ({"width": 0}, "at least 1"),
        ({"multipliers": ()}, "at least 1"),
        ({"width": 6, "agents": 2}, "multiples of 4"),
    ):
        with pytest.raises(JaxomarlError, match=match):
            temporal_unet(**{**SMALL, **wrong})
