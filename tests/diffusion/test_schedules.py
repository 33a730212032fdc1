import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxomarl.base import JaxomarlError
from jaxomarl.diffusion import schedules

PRESERVING = {
    "vp": schedules.vp(),
    "vp_discrete": schedules.vp_discrete(),
    "vp_dom2": schedules.vp_dom2(10),
    "vp_dom2 printed": schedules.vp_dom2(5, printed=True),
    "cosine": schedules.cosine(100),
    "linear": schedules.linear(1000),
}


def squares(schedule, steps):
    """alpha^2 at k / K, k = 1..K."""
    return np.asarray(schedule.alpha(jnp.arange(1, steps + 1) / steps), np.float64) ** 2


def products(betas):
    return np.cumprod(1 - np.asarray(betas, np.float64))


@pytest.mark.parametrize(
    ("t", "alpha", "sigma"),
    [
        (0.001, 0.999945, 0.010485),
        (0.02, 0.997014, 0.077215),
        (0.1, 0.946722, 0.322053),
        (0.25, 0.723657, 0.690160),
        (0.5, 0.281183, 0.959654),
        (0.98, 0.008011, 0.999968),
        (1.0, 0.006572, 0.999978),
    ],
)
def test_vp_has_the_values_of_srpo(t, alpha, sigma):
    vp = schedules.vp()
    t = jnp.float32(t)
    np.testing.assert_allclose([vp.alpha(t), vp.sigma(t)], [alpha, sigma], rtol=0, atol=6e-7)


def test_vp_ratio_and_expectations_over_its_times():
    vp = schedules.vp()
    assert float(vp.alpha(jnp.float32(0.02)) / vp.sigma(jnp.float32(0.02))) == pytest.approx(
        12.912, abs=5e-4
    )
    t = 0.02 + 0.96 * (jnp.arange(20000) + 0.5) / 20000  # midpoints of U(.02, .98)
    alpha, sigma = (np.asarray(f(t), np.float64) for f in vp)
    found = [np.mean(sigma**2), np.mean(alpha * sigma), np.mean(alpha / sigma)]
    np.testing.assert_allclose(found, [0.73329, 0.23565, 0.94466], rtol=0, atol=6e-6)


def test_sigma_keeps_its_digits_near_clean_data():
    t = 1e-5
    exact = np.sqrt(-np.expm1(-0.5 * t * t * 19.9 - t * 0.1))
    assert float(schedules.vp().sigma(jnp.float32(t))) == pytest.approx(
        exact, rel=1e-5
    )  # sqrt(1 - alpha^2): 20 % off


@pytest.mark.parametrize("name", PRESERVING)
def test_variance_is_preserved_and_noise_grows(name):
    t = jnp.linspace(0, 1, 201)
    alpha, sigma = (np.asarray(f(t)) for f in PRESERVING[name])
    np.testing.assert_allclose(alpha**2 + sigma**2, 1, atol=1e-6)
    assert np.all(np.diff(alpha) < 0) and np.all(np.diff(sigma) >= 0)
    assert alpha[0] == 1 and sigma[0] == 0 and alpha[-1] ** 2 < 0.01


@pytest.mark.parametrize("steps", [5, 100])
def test_vp_discrete_is_the_product_of_its_betas(steps):
    k = np.arange(1, steps + 1)
    betas = 1 - np.exp(-0.1 / steps - 0.5 * 9.9 * (2 * k - 1) / steps**2)
    np.testing.assert_allclose(squares(schedules.vp_discrete(), steps), products(betas), rtol=1e-5)
    assert squares(schedules.vp_discrete(), steps)[-1] == pytest.approx(0.00641, abs=5e-6)


def test_cosine_is_cut_at_its_last_level():
    f = np.cos((np.arange(101) / 100 + 0.008) / 1.008 * np.pi / 2) ** 2
    found = squares(schedules.cosine(100), 100)
    np.testing.assert_allclose(found[:99], f[1:100] / f[0], rtol=1e-4)
    assert found[-1] == pytest.approx(2.4e-7, abs=5e-9)
    assert 1 - found[-1] / found[-2] == pytest.approx(0.999, abs=1e-5)


def test_linear_is_the_product_of_its_betas_and_refuses_few_levels():
    found = squares(schedules.linear(1000), 1000)
    np.testing.assert_allclose(found, products(np.linspace(1e-4, 0.02, 1000)), rtol=2e-5)
    assert found[-1] == pytest.approx(4.0e-5, abs=5e-7)
    for steps, left in ((10, "0.904"), (100, "0.364")):
        with pytest.raises(JaxomarlError, match=left):
            schedules.linear(steps)


@pytest.mark.parametrize(
    ("steps", "printed", "alpha"),
    [
        (5, True, [0.4292, 0.2469, 0.1421, 0.0817, 0.0470]),
        (5, False, [0.5658, 0.2812, 0.1060, 0.0303, 0.0066]),
        (
            10,
            True,
            [0.7743, 0.6569, 0.5573, 0.4728, 0.4011, 0.3402, 0.2886, 0.2449, 0.2077, 0.1762],
        ),
        (
            10,
            False,
            [0.8407, 0.6813, 0.5086, 0.3497, 0.2215, 0.1292, 0.0694, 0.0344, 0.0157, 0.0066],
        ),
    ],
)
def test_dom2_has_its_printed_levels(steps, printed, alpha):
    found = schedules.vp_dom2(steps, printed).alpha(jnp.arange(1, steps + 1) / steps)
    np.testing.assert_allclose(found, alpha, rtol=0, atol=6e-5)


def test_dom2_cumulative_is_vp_at_its_own_times():
    i = jnp.arange(1, 11)
    found = schedules.vp_dom2(10).sigma(i / 10)
    np.testing.assert_allclose(found, schedules.vp().sigma((i + 1) / 11), rtol=1e-6)


def test_edm_has_karras_levels():
    edm = schedules.edm()
    found = edm.sigma(1 - jnp.arange(18) / 17)
    np.testing.assert_allclose(found[jnp.array([0, 1, 2])], [80, 57.586, 40.786], rtol=2e-5)
    np.testing.assert_allclose(found[-2:], [0.0075, 0.002], atol=5e-5)
    np.testing.assert_array_equal(edm.alpha(jnp.linspace(0, 1, 5)), np.ones(5))


def test_levels_run_from_noise_to_clean_data():
    vp = schedules.vp()
    np.testing.assert_allclose(schedules.times(4), [1.0, 0.75, 0.5, 0.25])
    alpha, sigma = schedules.levels(vp, 4)
    np.testing.assert_allclose(
        alpha, [0.006572, vp.alpha(0.75), 0.281183, 0.723657, 1.0], atol=1e-6
    )
    np.testing.assert_allclose(
        sigma, [0.999978, vp.sigma(0.75), 0.959654, 0.690160, 0.0], atol=1e-6
    )
    assert alpha[-1] == 1 and sigma[-1] == 0
    exploding = schedules.levels(schedules.edm(), 4)
    assert exploding[1][-1] == 0 and float(exploding[1][0]) == pytest.approx(80, rel=1e-6)


def test_a_table_made_under_jit_can_be_read_outside():
    made = []

    @jax.jit
    def f(t):
        made.append(schedules.cosine(10))
        return made[-1].alpha(t)

    inside = f(jnp.float32(0.35))
    assert float(made[0].alpha(jnp.float32(0.35))) == pytest.approx(float(inside), rel=1e-6)
    between = schedules.cosine(10).alpha(jnp.array([0.3, 0.4]))
    assert float(inside) == pytest.approx(
        float(jnp.sqrt(between[0] * between[1])), rel=1e-5
    )  # log alpha is linear


@pytest.mark.parametrize(
    "make",
    [
        lambda: schedules.vp(20.0, 0.1),
        lambda: schedules.vp_discrete(-1.0, 2.0),
        lambda: schedules.vp_dom2(0),
        lambda: schedules.vp_dom2(5, beta_min=3.0, beta_max=2.0),
        lambda: schedules.cosine(0),
        lambda: schedules.linear(0),
        lambda: schedules.linear(1000, 0.5, 1.5),
        lambda: schedules.edm(1.0, 0.5),
    ],
)
def test_impossible_schedules_are_refused(make):
    with pytest.raises(JaxomarlError, match="expected"):
        make()
