"""Policy guidance: strengths, length and place of the pull, what stays still, and the tilted Gaussian beside it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxomarl.diffusion import edm
from jaxomarl.diffusion.policy_guidance import (
    likelihood,
    of_deterministic,
    profile,
    strengths,
    towards,
)

K = edm.KARRAS
MEAN, STD, MU = 0.5, 0.7, -1.0
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
jit = partial(jax.jit, compiler_options=QUICK)
OLDER = jax.__version__.startswith(
    "0.10."
)  # newer jaxlib has the newer fusions alone, and no option
AS_TRAINED = {
    **QUICK,
    **({"xla_cpu_use_fusion_emitters": True} if OLDER else {}),
}  # bits depend on what is fused


def gaussian(x, t):
    sigma = K.schedule.sigma(t)
    return (STD**2 * x + sigma**2 * MEAN) / (STD**2 + sigma**2)


def moments(steps, shift=None, denoise=gaussian, shape=(20_000, 1), **more):
    chain = edm.heun(steps, shift, **more)
    x = np.asarray(jit(lambda key: chain(key, denoise, shape))(jax.random.key(4)))
    return x.mean(), x.std()


def pull(strength):
    return towards(lambda x0: of_deterministic(x0, jnp.full_like(x0, MU)), strength)


# --- strengths ---


def test_the_sum_of_the_paper_s_lambda_grows_with_the_steps():
    """Row 4: 28.11, 88.94, 177.39 times lambda; the last step's is zero."""
    for steps, want in ((40, 28.11), (128, 88.94), (256, 177.39)):
        found = np.asarray(strengths(steps, 0.5, raw=True))
        np.testing.assert_allclose(found.sum(), 0.5 * want, rtol=2e-4)
        assert found[-1] == 0 and found[0] > 0.5 and np.all(found[:-1] > 0)
    np.testing.assert_allclose(
        profile(4), [1 + 0.3 * 2**-0.5, 0.75 + 0.3, 0.5 + 0.3 * 2**-0.5, 0], rtol=1e-5
    )


def test_strength_does_not_depend_on_the_steps():
    """All sums are the one at 128 steps, where strength and lambda are the same; and so is what it does, nearly."""
    sums = [float(strengths(n, 0.5).sum()) for n in (10, 40, 128, 256)]
    np.testing.assert_allclose(sums, sums[2], rtol=1e-4)
    np.testing.assert_allclose(strengths(128, 0.5), strengths(128, 0.5, raw=True), rtol=1e-5)
    assert strengths(1, 0.5).tolist() == [0]
    few, many = (moments(n, pull(strengths(n, 0.01)))[0] for n in (32, 128))
    weak, _ = moments(32, pull(strengths(32, 0.01, raw=True)))
    moved = abs(many - MEAN)
    assert moved > 0.15 and abs(few - many) < 0.1 * moved < 0.5 * moved < abs(weak - many)


# --- one shift ---


def test_the_pull_has_length_one_over_a_whole_trajectory():
    """D.8 (4), trap 12: not over an agent's, nor a step's, share of it."""
    g = jax.random.normal(jax.random.key(0), (5, 3, 2, 2))
    x = jnp.zeros_like(g)
    moved = np.asarray(towards(lambda x0: g, jnp.array([0.7]))(jnp.asarray(0), x, x))
    np.testing.assert_allclose(np.sqrt(np.square(moved).sum(axis=(1, 2, 3))), 0.7, rtol=1e-5)
    np.testing.assert_allclose(
        moved / np.asarray(g), np.broadcast_to((moved / g)[:, :1, :1, :1], g.shape), rtol=1e-4
    )


def test_no_gradient_moves_nothing():
    """Row 23: a = mu gives no NaN and no move, as does a gradient that is nearly none."""
    x = jnp.ones((2, 3, 4))
    still = towards(lambda x0: of_deterministic(x0, x0), jnp.array([5.0]))(jnp.asarray(0), x, x)
    assert np.array_equal(np.asarray(still), np.asarray(x))
    assert np.isfinite(
        np.asarray(towards(lambda x0: 1e-30 * x0, jnp.array([5.0]))(jnp.asarray(0), x, x))
    ).all()


def test_only_what_the_mask_names_moves():
    """D.8 (5)."""
    mask = jnp.array([0.0, 1.0, 1.0])
    x = jnp.zeros((4, 2, 3))
    moved = np.asarray(
        towards(lambda x0: jnp.ones_like(x0), jnp.array([1.0]), mask)(jnp.asarray(0), x, x)
    )
    assert np.all(moved[..., 0] == 0) and np.all(moved[..., 1:] > 0)
    np.testing.assert_allclose(moved[..., 1:], 0.5, rtol=1e-5)


def test_nothing_is_differentiated_through_the_pull():
    """D.8 (9): neither the policy nor the denoised sample."""

    def end(mu, x0):
        return towards(lambda x0: of_deterministic(x0, mu), jnp.array([1.0]))(
            jnp.asarray(0), jnp.ones(2), x0
        ).sum()

    x0 = jnp.array([[0.3, 2.0]])
    to_policy, to_sample = jax.grad(end, argnums=(0, 1))(jnp.array([[0.1, -0.4]]), x0)
    assert np.all(np.asarray(to_policy) == 0) and np.all(np.asarray(to_sample) == 0)
    assert float(end(jnp.array([[0.1, -0.4]]), x0)) != 2.0


def test_the_stand_in_density():
    action, mu = jnp.array([[[[0.5, 9.0]], [[1.0, 9.0]]]]), jnp.zeros((1, 2, 1, 2))
    mask = jnp.array([[1.0, 0.0]])
    np.testing.assert_allclose(likelihood(action, mu, mask), [-0.5 * (0.25 + 1.0)], rtol=1e-6)
    slope = jax.grad(lambda a: likelihood(a, mu, mask).sum())(action)
    np.testing.assert_allclose(mask * of_deterministic(action, mu), slope, rtol=1e-6)


# --- along a chain ---


def test_without_strength_it_is_the_unguided_chain():
    """D.8 (1): to the last bit, with churn too, wherever the pull is placed."""
    for placement in edm.PLACEMENTS:
        chains = [
            edm.heun(5, s, edm.Churn(), placement=placement)
            for s in (pull(strengths(5, 0.0)), None)
        ]
        draw = lambda c: jax.jit(lambda k: c(k, gaussian, (50, 2)), compiler_options=AS_TRAINED)(
            jax.random.key(3)
        )
        one, other = (np.asarray(draw(c)) for c in chains)
        assert np.array_equal(one, other)


def test_it_leans_to_the_policy_and_collapses_on_it():
    """More pull, nearer to mu and narrower: a normalised step in one dimension ends on the policy itself."""
    found = np.array([moments(24, pull(strengths(24, lam))) for lam in (0.0, 0.005, 0.02, 0.1)])
    assert np.all(np.diff(found[:, 0]) < -0.05), found
    assert abs(found[-1, 0] - MU) < 0.1 and found[-1, 1] < 0.25 < 0.5 < found[1, 1]


@pytest.mark.parametrize(
    ("lam", "want"), [(0.01, (0.39, 0.70)), (0.1, (-0.54, 0.51)), (0.6, (-1.0, 0.008))]
)
def test_the_normalised_pull_of_the_measurements(lam, want):
    """D.3, 128 levels with churn; without churn the same pull goes further, since no fresh noise undoes it."""
    found = moments(128, pull(strengths(128, lam)), churn=edm.Churn())
    np.testing.assert_allclose(found, want, atol=0.03)


@pytest.mark.parametrize(
    ("placement", "want"),
    [("denoised", -0.550), ("before-churn", -0.515), ("before-churn-denoised", -0.528)],
)
def test_the_additive_pull_of_the_measurements(placement, want):
    """D.3: unnormalised, lambda 0.1 at 128 levels with churn; where the pull is placed hardly counts."""
    lam = strengths(128, 0.1, raw=True)
    found, _ = moments(
        128, lambda k, x, x0: x + lam[k] * (MU - x0), churn=edm.Churn(), placement=placement
    )
    assert found == pytest.approx(want, abs=0.02)


def test_the_exact_tilt_of_a_gaussian():
    """Row 9, the oracle: with D + sigma^2 G, G the gradient of log E[w(x_0) | x], samples have the tilted law."""
    lam = 2.0

    def tilted(x, t):
        sigma2 = K.schedule.sigma(t) ** 2
        held = STD**2 * sigma2 / (STD**2 + sigma2)
        g = -(gaussian(x, t) - MU) / (held + 1 / lam) * STD**2 / (STD**2 + sigma2)
        return gaussian(x, t) + sigma2 * g

    want = ((MEAN / STD**2 + lam * MU) / (1 / STD**2 + lam), (1 / STD**2 + lam) ** -0.5)
    np.testing.assert_allclose(want, (-0.2424, 0.4975), atol=1e-4)
    np.testing.assert_allclose(moments(40, denoise=tilted), want, atol=0.015)
