"""What libraries compute for us is the formula that stood in their place."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxomarl.base import Spec
from jaxomarl.losses.gaussian import EDGE, Normal, divergence, log_density
from jaxomarl.losses.imitation import action_error
from jaxomarl.networks.denoisers import mixture
from jaxomarl.networks.temporal import Norm

RNG = np.random.default_rng(0)


def some(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def close(got, want, atol=1e-6):
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=atol)


# --- the tanh-Gaussian ---


def exact_log_density(mean, log_std, action):
    """In float64: log N(u; m, s^2) - log(1 - a^2), for each column."""
    mean, log_std, action = (np.asarray(x, np.float64) for x in (mean, log_std, action))
    edge = float(np.float32(EDGE))
    a = np.clip(action, -edge, edge)
    z = (np.arctanh(a) - mean) * np.exp(-log_std)
    return -0.5 * z**2 - log_std - 0.5 * math.log(2.0 * math.pi) - np.log1p(-(a**2))


def test_the_density_of_a_squashed_normal_written_out():
    mean, log_std, action = 0.5 * some(500, 3), 0.3 * some(500, 3), 0.9 * jnp.tanh(some(500, 3))
    mask = jnp.array([1.0, 0.0, 1.0])
    got = jax.jit(log_density)(Normal(mean, log_std), action, mask)
    want = exact_log_density(mean, log_std, action)
    # against float64 over 300 such draws, distrax was at worst at 0.58 of this tolerance and the
    # formula in float32 at 0.52: inside the box neither is nearer
    close(got, (want * np.asarray(mask)).sum(axis=-1))


def test_its_density_at_the_edge_is_finite_and_right():
    """Of actions at and near the edge, for narrow policies too; its gradient is that of the formula."""
    action = jnp.array([1.0, -1.0, 0.9999, 0.99, -0.999])[:, None]
    mean, log_std = jnp.full((5, 1), 0.2), jnp.array([[0.0], [-3.0], [1.0], [-1.0], [0.5]])
    p, one = Normal(mean, log_std), jnp.ones(1)
    got = log_density(p, action, one)
    # distrax is off by 2e-7; in float32 the formula is off by 6e-6, as 1 - a^2 loses digits there
    np.testing.assert_allclose(got, exact_log_density(mean, log_std, action)[:, 0], rtol=1e-6)
    slope = jax.grad(lambda p: log_density(p, action, one).sum())(p)
    z = np.arctanh(np.clip(np.asarray(action, np.float64), -EDGE, EDGE)) - 0.2
    precision = np.exp(-2.0 * np.asarray(log_std, np.float64))
    np.testing.assert_allclose(slope.mean, z * precision, rtol=1e-4)
    np.testing.assert_allclose(slope.log_std, z**2 * precision - 1.0, rtol=1e-4)


def test_our_divergence_is_nearer_to_float64_than_distraxs():
    """The reason why it is ours: distrax subtracts m_p / s_q - m_q / s_q."""
    import distrax

    mean, log_std = some(5000) * 1.5, jnp.asarray(RNG.uniform(-5, -4, 5000), jnp.float32)
    p, q = (mean, log_std), (mean + 0.3 * jnp.exp(log_std), log_std + 0.1)
    (m, s), (m2, s2) = ([np.asarray(x, np.float64) for x in y] for y in (p, q))
    exact = 0.5 * (np.exp(2 * (s - s2)) + ((m - m2) * np.exp(-s2)) ** 2 - 1.0) - (s - s2)
    ours = divergence(*(Normal(x[:, None], y[:, None]) for x, y in (p, q)), jnp.ones(1))
    theirs = distrax.Normal(p[0], jnp.exp(p[1])).kl_divergence(distrax.Normal(q[0], jnp.exp(q[1])))
    worst = [np.abs(np.asarray(x, np.float64) - exact).max() for x in (ours, theirs)]
    assert worst[0] < 2e-6 and worst[1] > 20 * worst[0], worst


# --- group normalisation ---


@pytest.mark.parametrize(("shape", "groups"), [((6, 2, 9, 32), 8), ((5, 7, 12), 3), ((3, 4, 6), 1)])
def test_group_normalisation_written_out(shape, groups):
    """Over T and each group of at least four channels, then scale and shift under their stored names."""
    width, x = shape[-1], 2.0 * some(*shape) + 0.5
    params = {"scale": 1.0 + 0.2 * some(width), "shift": some(width)}
    first = jax.jit(Norm(8).init)(jax.random.key(0), x)["params"]
    assert jax.tree.map(jnp.shape, first) == {"scale": (width,), "shift": (width,)}
    np.testing.assert_array_equal(
        [first["scale"], first["shift"]], [np.ones(width), np.zeros(width)]
    )

    def written_out(params, x):
        h = x.reshape(*shape[:-1], groups, width // groups)
        h = h - h.mean(axis=(-3, -1), keepdims=True)
        h = h / jnp.sqrt(jnp.square(h).mean(axis=(-3, -1), keepdims=True) + 1e-5)
        return h.reshape(shape) * params["scale"] + params["shift"]

    ours = lambda params, x: Norm(8).apply({"params": params}, x)

    def values_and_slopes(params, x):
        slope = lambda f: jax.grad(lambda p, x: jnp.sin(f(p, x)).mean(), (0, 1))(params, x)
        return [(f(params, x), slope(f)) for f in (ours, written_out)]

    (value, slopes), (wanted, wanted_slopes) = jax.jit(values_and_slopes)(params, x)
    close(value, wanted, atol=2e-6)
    jax.tree.map(close, slopes, wanted_slopes)
    assert jax.eval_shape(ours, params, x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


# --- the mixture density ---


@pytest.mark.parametrize("mask", [(1.0, 1.0), (1.0, 0.0)])
def test_the_mixture_density_written_out(mask):
    """log sum_k p_k prod_d N(x_d; m_kd, s_kd)^mask_d, and its gradients in x and in what the network says."""
    net, mask, components, actions = mixture(3, (), 2, 4), jnp.array(mask), 4, 2
    params = {"out": {"kernel": some(3, 20), "bias": some(20)}}
    x, cond = some(50, 2), some(50, 3)

    def written_out(params, x):
        raw = cond @ params["out"]["kernel"] + params["out"]["bias"]
        shape = (*raw.shape[:-1], components, actions)
        logits, mean, scale = jnp.split(raw, [components, components * (1 + actions)], axis=-1)
        std = jax.nn.softplus(scale.reshape(shape)) + 1e-4
        u = (x[..., None, :] - mean.reshape(shape)) / std
        log_normal = -0.5 * u**2 - jnp.log(std) - 0.5 * math.log(2.0 * math.pi)
        parts = jnp.sum(mask[..., None, :] * log_normal, axis=-1)
        return jax.nn.logsumexp(jax.nn.log_softmax(logits) + parts, axis=-1)

    ours = lambda params, x: net.apply(params, x, cond, mask)

    def values_and_slopes(params, x):
        slope = lambda f: jax.grad(lambda p, x: f(p, x).mean(), (0, 1))(params, x)
        return [(f(params, x), slope(f)) for f in (ours, written_out)]

    (value, slopes), (wanted, wanted_slopes) = jax.jit(values_and_slopes)(params, x)
    close(value, wanted, atol=2e-6)
    jax.tree.map(lambda a, b: close(a, b, atol=1e-5), slopes, wanted_slopes)


# --- the masked categorical ---


def test_the_cross_entropy_over_available_actions_written_out():
    spec = Spec((1, 1), (4, 3), state_dim=1, horizon=1, discrete=True)
    mask = jnp.asarray(spec.act_mask)
    done = jax.nn.one_hot(RNG.integers(0, 3, (60, 2)), 4).at[:5].set(0.0)  # rows without an action
    available = jnp.asarray(RNG.random((60, 2, 4)) > 0.4, jnp.float32)

    def written_out(out):
        possible = (mask > 0) & ((available > 0) | (done > 0))
        log_p = jax.nn.log_softmax(jnp.where(possible, out, -1e9))
        return -jnp.sum(done * mask * log_p, axis=-1)

    ours, out = lambda out: action_error(spec, out, done, available), 2.0 * some(60, 2, 4)
    close(ours(out), written_out(out))
    close(jax.grad(lambda x: ours(x).sum())(out), jax.grad(lambda x: written_out(x).sum())(out))
