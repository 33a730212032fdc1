"""Coordination in closed form: total variation of independent fits, scores, BRUD, and the bandit's rest points."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxomarl.envs import catalog, games, matrix, polynomial

# --- the CMS proposition ---


@pytest.mark.parametrize(
    ("n", "modes", "printed"),
    [(2, 2, 0.5), (3, 2, 0.75), (4, 2, 0.875), (8, 2, 0.9922), (2, 3, 0.667), (3, 3, 0.889)],
)
def test_total_variation_of_independent_fits(n, modes, printed):
    joint = games.consensus_distribution(n, modes)
    assert joint.shape == (modes,) * n
    enumerated = games.total_variation(joint, games.product_of_marginals(joint))
    digits = len(str(printed)) - 2
    assert round(enumerated, digits) == printed
    np.testing.assert_allclose(enumerated, games.cms_total_variation(n, modes), rtol=1e-12)


@pytest.mark.parametrize(
    "name", ["games/consensus:n=3,modes=3", "games/consensus:n=3,modes=3,discrete=true"]
)
def test_total_variation_of_the_recipes_data(name):
    task = catalog.make(name)
    e = task.recipes["default"](jax.random.key(0), 4000)
    levels = games.consensus_levels(e.action[::2], 3, task.env.spec.discrete)
    joint = games.joint_distribution(levels, 3)
    np.testing.assert_allclose(joint, games.consensus_distribution(3, 3), atol=0.03)
    product = games.product_of_marginals(joint)
    np.testing.assert_allclose(
        games.total_variation(joint, product), games.cms_total_variation(3, 3), atol=0.005
    )


def test_noise_that_crosses_levels_blurs_the_modes():
    task = catalog.make("games/consensus:n=2,std=0.6")
    e = task.recipes["default"](jax.random.key(1), 20_000)
    exact = games.consensus_distribution(2, 2, std=0.6)
    np.testing.assert_allclose(
        games.joint_distribution(games.consensus_levels(e.action[::2], 2), 2), exact, atol=0.015
    )
    np.testing.assert_allclose(exact.sum(), 1.0, rtol=1e-12)
    blurred = games.total_variation(exact, games.product_of_marginals(exact))
    assert 0.1 < blurred < games.cms_total_variation(2, 2)


@pytest.mark.parametrize("n", [2, 3])
def test_the_best_product_is_near_one_mode_and_better_than_it(n):
    """One mode has TV 1 - 1/K, as the specification says; the optimum is less: p^n = 1/2 on one mode (K = 2)."""
    joint = games.consensus_distribution(n, 2).reshape(-1)
    p = np.linspace(0, 1, 201 if n == 2 else 61)
    grids = np.meshgrid(*[p] * n, indexing="ij")
    corners = itertools.product((0, 1), repeat=n)
    products = [
        np.prod([g if bit else 1 - g for g, bit in zip(grids, c, strict=True)], axis=0)
        for c in corners
    ]
    tv = sum(np.abs(a - b) for a, b in zip(joint, products, strict=True)) / 2
    best = 0.5 - (1 - 0.5 ** (1 / n)) ** n  # 0.4142, 0.4912, ... -> 1 - 1/K as n grows
    np.testing.assert_allclose(tv[(0,) * n], 0.5, rtol=1e-12)
    assert best - 1e-12 < tv.min() < best + 0.01
    at = np.array(np.unravel_index(tv.argmin(), tv.shape)) / (len(p) - 1)
    np.testing.assert_allclose(np.maximum(at, 1 - at), 0.5 ** (1 / n), atol=0.02)


def test_four_gaussians_are_nearly_independent():
    joint = games.four_gaussians_joint()
    product = games.product_of_marginals(joint)
    np.testing.assert_allclose(product, [[0.49, 0.21], [0.21, 0.09]], atol=1e-12)
    np.testing.assert_allclose(games.total_variation(joint, product), 0.02, atol=1e-12)
    assert round(games.mutual_information(joint), 4) == 0.0011


# --- scores ---


def test_joint_conditional_and_marginal_scores_of_a_correlated_gaussian():
    """Data N(0, [[1, .8], [.8, 1]]) at a = (1, -1)."""
    rho, a = 0.8, jnp.array([1.0, -1.0])
    precision = jnp.linalg.inv(jnp.array([[1.0, rho], [rho, 1.0]]))
    joint = jax.grad(lambda a: -0.5 * a @ precision @ a)(a)
    first = jax.grad(lambda x: -0.5 * x**2)(a[0])
    second = jax.grad(lambda x: -0.5 * (x - rho * a[0]) ** 2 / (1 - rho**2))(a[1])
    np.testing.assert_allclose(joint, [-5, 5], rtol=1e-5)
    np.testing.assert_allclose([first, second], [-1, 5], rtol=1e-5)
    np.testing.assert_allclose(-a, [-1, 1])
    # what the sequence of best responses drops: agent 2's conditional as a function of a_1
    dropped = jax.grad(lambda x: -0.5 * (a[1] - rho * x) ** 2 / (1 - rho**2))(a[0])
    np.testing.assert_allclose(first + dropped, joint[0], rtol=1e-5)


WEIGHTS = {
    "vds": lambda alpha, sigma: sigma**2,
    "stable": lambda alpha, sigma: 1.0 + 0 * alpha,
    "score": jnp.divide,
}
STDS = (0.1, 0.3, 0.3**0.5)


def vp(t):
    log_alpha = -0.25 * t**2 * (20 - 0.1) - 0.5 * t * 0.1
    return jnp.exp(log_alpha), jnp.sqrt(-jnp.expm1(2 * log_alpha))


def times(low, high):
    """Gauss-Legendre nodes of t ~ U(low, high) and their weights, of sum 1."""
    x, w = np.polynomial.legendre.leggauss(48) if high > low else (np.zeros(1), np.full(1, 2.0))
    return jnp.asarray(low + (high - low) * (x + 1) / 2), jnp.asarray(w / 2)


def stiffness(std, low, high, weight):
    t, w_t = times(low, high)
    alpha, sigma = vp(t)
    return float(
        w_t @ (WEIGHTS[weight](alpha, sigma) * sigma * alpha / (alpha**2 * std**2 + sigma**2))
    )


def regulariser(a, std, low, high, weight):
    """E_t w(t) E_z eps*(alpha a + sigma z) at each a, by Gauss-Legendre in t and Gauss-Hermite in z."""
    t, w_t = times(low, high)
    z, w_z = np.polynomial.hermite_e.hermegauss(96)
    alpha, sigma = (s[:, None] for s in vp(t))
    eps = games.bandit_eps("marginal", std)(
        alpha * a[:, None, None] + sigma * jnp.asarray(z), alpha, sigma
    )
    weighed = eps * WEIGHTS[weight](alpha, sigma)
    return jnp.einsum("atz,t,z->a", weighed, w_t, jnp.asarray(w_z / w_z.sum()))


def rest_point(std, low, high, weight):
    """The stable rest point a >= 0 of da/ds = -regulariser(a), and 0 where all starts collapse."""
    a = jnp.linspace(0.005, 1.0, 200)
    g = np.asarray(jax.jit(regulariser, static_argnums=(1, 2, 3, 4))(a, std, low, high, weight))
    up = np.flatnonzero((g[:-1] < 0) & (g[1:] >= 0))
    assert len(up) <= 1
    return (
        float(a[up[0]] - g[up[0]] * (a[1] - a[0]) / (g[up[0] + 1] - g[up[0]])) if len(up) else 0.0
    )


# Printed to the cell of a grid of 0.0025 that holds the root (its lower end, rounded), so each is up to 0.003 below.
REST_POINTS = {
    (0.02, 0.98, "vds"): (0, 0, 0),
    (0.02, 0.98, "stable"): (0.488, 0.120, 0),
    (0.02, 0.98, "score"): (0.735, 0.635, 0.165),
    (0.02, 0.30, "vds"): (0, 0, 0),
    (0.02, 0.30, "stable"): (0.642, 0.473, 0),
    (0.02, 0.30, "score"): (0.755, 0.680, 0.375),
    (0.02, 0.10, "vds"): (0.792, 0.780, 0.655),
    (0.02, 0.10, "stable"): (0.795, 0.788, 0.692),
    (0.02, 0.10, "score"): (0.798, 0.792, 0.715),
    (0.02, 0.02, "vds"): (0.798, 0.798, 0.768),
    (0.02, 0.02, "stable"): (0.798, 0.798, 0.768),
    (0.02, 0.02, "score"): (0.798, 0.798, 0.768),
}


@pytest.mark.parametrize(("low", "high", "weight"), REST_POINTS)
def test_rest_points_of_the_marginal_regulariser(low, high, weight):
    for std, printed in zip(STDS, REST_POINTS[low, high, weight], strict=True):
        root = rest_point(std, low, high, weight)
        if printed == 0:
            assert root == 0.0
            continue
        cell = 0.0025 * np.floor(
            root / 0.0025 - 1e-3
        )  # a root on a grid point belongs to the cell below it
        assert abs(cell - printed) <= 0.0005 + 1e-9, (std, root)


def test_rest_points_to_more_digits():
    """The roots themselves, as a float64 trapezoid rule of 2000 x 2000 points and Brent's method give them."""
    assert round(rest_point(0.3, 0.02, 0.98, "score"), 3) == 0.636
    assert round(rest_point(0.1, 0.02, 0.98, "stable"), 3) == 0.488
    assert round(rest_point(0.3**0.5, 0.02, 0.02, "vds"), 3) == 0.770


@pytest.mark.parametrize(
    ("weight", "low", "high", "printed"),
    [
        ("vds", 0.02, 0.98, (0.2301, 0.2076, 0.1799, 0.1411)),
        ("stable", 0.02, 0.98, (0.7894, 0.5198, 0.3657, 0.2357)),
        ("score", 0.02, 0.98, (2.6067, 1.1112, 0.5746, 0.2667)),
        ("score", 0.02, 0.02, (62.51, 10.417, 3.268, 0.994)),
    ],
)
def test_stiffness_about_a_gaussian_mode(weight, low, high, printed):
    for std, value in zip((*STDS, 1.0), printed, strict=True):
        digits = len(str(value).split(".")[1])
        assert abs(stiffness(std, low, high, weight) - value) <= 0.51 * 10**-digits


# --- BRUD ---


def ascent(theta, steps, weights):
    """Online gradient ascent with both agents at once; the parameters after each number of updates in `steps`."""

    def body(theta, _):
        theta = polynomial.ascend(theta, polynomial.brud_gradient(theta, theta, 0.0, *weights))
        return theta, theta

    path = jax.lax.scan(body, jnp.array(theta), length=max(steps))[1]
    return [np.asarray(path[k - 1]) for k in steps]


def test_online_ascent_of_multiplication():
    """The source counts updates from 0: its step 10 is the state after 11 updates, its step 40 after 41."""
    at_10, at_40, at_60 = ascent((-0.64, 0.65), (11, 41, 60), (0.0, 0.0, 1.0))
    np.testing.assert_allclose(at_10, (-0.188, 0.217), atol=5e-4)
    np.testing.assert_allclose(at_40, (0.240, 0.258), atol=5.1e-4)
    np.testing.assert_array_equal(at_60, (1.0, 1.0))


def test_brud_on_multiplication_is_constant_and_slides_to_a_bad_corner():
    mean = jnp.array([-0.64, 0.65])
    for theta in ((0.0, 0.0), (0.9, -0.3), (-0.64, 0.65)):
        np.testing.assert_allclose(
            polynomial.brud_gradient(jnp.array(theta), mean, 0.1, 0.0, 0.0, 1.0), mean[::-1]
        )
    theta = mean
    for _ in range(60):
        theta = polynomial.ascend(theta, mean[::-1])
    np.testing.assert_array_equal(theta, (1.0, -1.0))


@pytest.mark.parametrize(
    ("mean", "std", "printed"),
    [(0.6124, 0.0, 0.6124), (0.6124, 0.3, 0.5353), (0.2, 0.5, 0.2315), (0.0, 0.4, 0.0)],
)
def test_twin_peaks_brud_fixed_point(mean, std, printed):
    point = polynomial.twin_peaks_brud_fixed_point(1.0, 4.0, 5.0, mean, std)
    assert round(float(point), 4) == printed
    theta, both = jnp.full(2, 0.9), jnp.full(2, mean)
    for _ in range(200):
        theta = polynomial.ascend(theta, polynomial.brud_gradient(theta, both, std, 1.0, 4.0, 5.0))
    np.testing.assert_allclose(theta, point, atol=1e-5)


def test_twin_peaks_numbers():
    where, best = polynomial.twin_peaks_optimum(1.0, 4.0, 5.0)
    np.testing.assert_allclose(np.round(where, 4), 0.6124)
    assert best == 0.5625

    def reward(a):
        return polynomial.polynomial(a, 1.0, 4.0, 5.0)

    np.testing.assert_allclose(
        [reward(jnp.ones(2)), reward(jnp.full(2, 0.5))], [-1.0, 0.5], rtol=1e-6
    )
    np.testing.assert_allclose(
        jnp.linalg.eigvalsh(jax.hessian(reward)(jnp.zeros(2))), [-7, 3], rtol=1e-5
    )
    (end,) = ascent((0.3, 0.1), (100,), (1.0, 4.0, 5.0))
    np.testing.assert_allclose(end, 0.6124, atol=1e-4)


# --- additive values ---


def test_best_additive_fit_of_climbing():
    fit = matrix.best_additive(matrix.CLIMBING)
    assert round(float(np.sqrt(np.mean((fit - matrix.CLIMBING) ** 2))), 2) == 7.11
    design = np.concatenate(
        [np.kron(np.eye(3), np.ones((3, 1))), np.kron(np.ones((3, 1)), np.eye(3))], axis=1
    )
    solved = design @ np.linalg.lstsq(design, matrix.CLIMBING.reshape(-1), rcond=None)[0]
    np.testing.assert_allclose(fit.reshape(-1), solved, atol=1e-9)
    assert fit.argmax() != 0  # it sends the team away from the optimum
    np.testing.assert_allclose(matrix.best_additive(matrix.ADDITIVE), matrix.ADDITIVE, atol=1e-12)
