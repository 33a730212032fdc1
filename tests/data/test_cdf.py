"""Columns made logistic: round trips, atoms, constants, values out of range, slopes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxomarl.data import cdf

ROWS = 4000
fit = jax.jit(cdf.fit_cdf)
forward, inverse, slope = (
    jax.jit(lambda held, x, name=name: getattr(held, name)(x))
    for name in ("forward", "inverse", "slope")
)
"""Compiled as a whole: one by one their operations are forty programs."""
NORMAL, SATURATED, CONSTANT, HEAVY, RARE = range(5)


@pytest.fixture(scope="module")
def data():
    x = np.random.default_rng(0).standard_normal((ROWS, 5)).astype(np.float32)
    x[:, SATURATED] = np.clip(2 * x[:, SATURATED], -1, 1)
    x[:, CONSTANT] = 3.0
    x[:, HEAVY] = np.exp(3 * x[:, HEAVY])
    x[:, RARE] = x[:, RARE] > 2
    return x


@pytest.fixture(scope="module")
def held(data):
    return fit(jnp.asarray(data))


def test_there_and_back(data, held):
    """D.8 (7): to 1e-4 of a column's range, atoms and constants included."""
    back = inverse(held, forward(held, jnp.asarray(data)))
    assert np.all(
        np.abs(back - data).max(axis=0) <= 1e-4 * np.maximum(np.abs(data).max(axis=0), 1.0)
    )
    assert np.array_equal(np.asarray(back)[:, CONSTANT], data[:, CONSTANT])
    for atom in (-1.0, 1.0):
        assert np.allclose(np.asarray(back)[data[:, SATURATED] == atom, SATURATED], atom, atol=1e-6)


def test_continuous_columns_become_logistic_of_deviation_one(data, held):
    z = np.asarray(forward(held, jnp.asarray(data)))
    for column in (NORMAL, HEAVY):
        np.testing.assert_allclose([z[:, column].mean(), z[:, column].std()], [0, 1], atol=0.01)
        u = 1 / (1 + np.exp(-z[:, column] / cdf.SCALE))
        np.testing.assert_allclose(np.quantile(u, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.005)


def test_atoms_stay_where_their_mass_is(data, held):
    """Trap 20: a saturated column's top is at the logit of 1 - p / 2, not at 13.8; nothing else is beyond it."""
    z = np.asarray(forward(held, jnp.asarray(data)))[:, SATURATED]
    for side in (-1, 1):
        mass = np.mean(data[:, SATURATED] == side)
        assert mass > 0.2
        want = side * cdf.SCALE * np.log((1 - mass / 2) / (mass / 2))
        np.testing.assert_allclose(z[data[:, SATURATED] == side], want, rtol=1e-3)
    assert np.abs(z).max() < 1.2
    two = np.unique(np.asarray(forward(held, jnp.asarray(data)))[:, RARE])
    assert len(two) == 2 and two[0] < 0 < two[1]


def test_constants_are_zero_and_come_back(held):
    assert np.asarray(held.varies).tolist() == [1, 1, 0, 1, 1]
    assert np.all(np.asarray(forward(held, jnp.full((3, 5), 9.0)))[:, CONSTANT] == 0)
    assert np.all(np.asarray(inverse(held, jnp.full((3, 5), 1.3)))[:, CONSTANT] == 3.0)


def test_what_is_out_of_range_is_its_end(data, held):
    far = jnp.full((1, 5), 1e6)
    np.testing.assert_allclose(
        forward(held, far)[0], forward(held, jnp.asarray(data)).max(axis=0), rtol=1e-6
    )
    for sign, end in ((1, data.max(axis=0)), (-1, data.min(axis=0))):
        assert np.array_equal(np.asarray(inverse(held, sign * jnp.full((1, 5), 50.0)))[0], end)


def test_slopes(held):
    """Those of the logistic's map to a standard normal; positive beyond the range; none on a constant."""
    z = jnp.array([[-0.8] * 5, [0.0] * 5, [0.8] * 5])
    at = 1 / (1 + np.exp(-np.array([-0.8, 0.0, 0.8]) / cdf.SCALE))
    density = np.exp(-0.5 * np.array([-0.845, 0.0, 0.845]) ** 2) / np.sqrt(2 * np.pi)
    assert at[2] == pytest.approx(0.81, abs=0.02)
    want = at * (1 - at) / cdf.SCALE / density
    np.testing.assert_allclose(slope(held, z)[:, NORMAL], want, rtol=0.12)
    assert np.all(np.asarray(slope(held, z))[:, CONSTANT] == 0)
    out = np.asarray(slope(held, jnp.array([[40.0] * 5, [-40.0] * 5])))
    assert np.all(out[:, [NORMAL, SATURATED, HEAVY]] > 0)


def test_few_rows(held):
    """Two rows are their own knots; one is a constant."""
    two = fit(jnp.array([[1.0], [3.0]]))
    np.testing.assert_allclose(
        inverse(two, forward(two, jnp.array([[1.0], [2.0], [3.0]])))[:, 0], [1, 2, 3], rtol=1e-6
    )
    assert np.asarray(fit(jnp.array([[5.0]])).varies).tolist() == [0]


def test_what_is_no_number_stays_none(held):
    """Else a model that diverged would make maxima, which nobody drops."""
    broken = jnp.full((2, 5), jnp.nan)
    for way in (inverse, forward):
        assert np.isnan(np.asarray(way(held, broken))).all()


def test_z_scores_are_the_same_form(data):
    z = jax.jit(cdf.fit_z_scores)(jnp.asarray(data))
    found = np.asarray(forward(z, jnp.asarray(data)))
    want = (data - data.mean(axis=0)) / np.maximum(data.std(axis=0), 1e-6)
    np.testing.assert_allclose(found, want * (np.arange(5) != CONSTANT), atol=2e-3)
    np.testing.assert_allclose(
        inverse(z, forward(z, jnp.asarray(data))), data, rtol=1e-4, atol=1e-3
    )
    assert np.asarray(z.varies).tolist() == [1, 1, 0, 1, 1]
    middle = np.asarray(slope(z, jnp.zeros((1, 5))))[0]
    np.testing.assert_allclose(middle[NORMAL], data[:, NORMAL].std(), rtol=1e-3)
    assert middle[CONSTANT] == 0
