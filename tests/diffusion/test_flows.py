"""Flows against what is known of them: Gaussians, Euler's order, mean velocities, and the other forms of a velocity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxomarl.base import JaxomarlError
from jaxomarl.diffusion import flows, guidance, parameterise, schedules
from jaxomarl.diffusion.consistency import consistency
from jaxomarl.diffusion.factorise import composed, factorisation
from jaxomarl.diffusion.losses import denoising_loss, eps_loss
from jaxomarl.diffusion.policy_guidance import strengths, towards
from jaxomarl.diffusion.samplers import ddim, ddpm

STRAIGHT = schedules.straight()
X = jnp.asarray(np.random.default_rng(0).standard_normal((5, 3)), jnp.float32)
T = jnp.array([0.1, 0.3, 0.5, 0.8, 1.0])


def spread(t, s):
    """Standard deviation of x_t for data N(m, s^2)."""
    return jnp.sqrt((1 - t) ** 2 * s**2 + t**2)


def gaussian(m, s):
    """The velocity of N(m, s^2): that of a Gaussian's affine map to another."""

    def velocity(x, t):
        t = flows._beside(t, x)
        return -m + (t - (1 - t) * s**2) / spread(t, s) ** 2 * (x - (1 - t) * m)

    return velocity


def jumping(m, s):
    """Its mean velocity: (x - x_r) / (t - r), x_r the point of the same path at r."""

    def mean_velocity(x, r, t):
        r, t = flows._beside(r, x), flows._beside(t, x)
        end = (1 - r) * m + spread(r, s) / spread(t, s) * (x - (1 - t) * m)
        return (x - end) / (t - r)

    return mean_velocity


def two_modes(odds, m=0.8, s=0.3):
    """The velocity of N(m, s^2) and N(-m, s^2), the former with these log odds."""

    def velocity(x, t):
        t = flows._beside(t, x)
        high = jax.nn.sigmoid(odds + 2 * (1 - t) * m * x / spread(t, s) ** 2)
        return high * gaussian(m, s)(x, t) + (1 - high) * gaussian(-m, s)(x, t)

    return velocity


def averaged(velocity, steps=12):
    """The mean velocity of a velocity, by midpoints of so many steps from t to r."""

    def mean_velocity(x, r, t):
        h = (t - r) / steps

        def step(y, k):
            now = t - k * h
            middle = y - flows._beside(h, y) / 2 * velocity(y, now)
            v = velocity(middle, now - h / 2)
            return y - flows._beside(h, y) * v, v

        return jax.lax.scan(step, x, jnp.arange(float(steps)))[1].mean(axis=0)

    return mean_velocity


# --- velocities ---


def test_the_velocity_of_a_gaussian():
    v = gaussian(0.5, 0.2)(X, T)
    t, g = T[:, None], spread(T, 0.2)[:, None]
    mean = 0.5 + (1 - t) * 0.04 / g**2 * (X - (1 - t) * 0.5)  # E[a | x]
    np.testing.assert_allclose(v, (X - mean) / t, atol=1e-4)
    np.testing.assert_allclose(v, flows.velocity_from_x0(X, T, mean), atol=1e-5)
    assert np.isfinite(gaussian(0.5, 0.2)(X, jnp.zeros(5))).all()


@pytest.mark.parametrize("s, floor", [(0.2, 0.314159), (1.0, 1.5708)])
def test_the_least_loss_is_half_pi_times_the_deviation(s, floor):
    keys = jax.random.split(jax.random.key(0), 3)
    t = (jnp.arange(200_000) + 0.5) / 200_000
    x0 = 0.5 + s * jax.random.normal(keys[0], (200_000, 1))
    z = jax.random.normal(keys[1], (200_000, 1))
    assert float(flows.flow_loss(gaussian(0.5, s), x0, t, z)) == pytest.approx(floor, rel=0.01)
    worse = lambda x, t: gaussian(0.5, s)(x, t) + 0.1
    assert float(flows.flow_loss(worse, x0, t, z)) == pytest.approx(floor + 0.01, rel=0.01)


def test_one_step_is_the_mean_and_more_halve_the_error():
    z = jax.random.normal(jax.random.key(1), (400, 1))
    z = (z - z.mean()) / z.std()
    end = lambda s, k: np.asarray(flows.euler(gaussian(0.5, s), z, k))
    np.testing.assert_allclose(end(0.2, 1), 0.5, atol=1e-6)
    found = [end(0.2, k).std() for k in (2, 4, 8, 16, 32)]
    np.testing.assert_allclose(found, [0.03846, 0.09586, 0.14377, 0.17038, 0.18470], rtol=1e-3)
    errors = 0.2 - np.array(found)
    assert errors[-2] / errors[-1] == pytest.approx(2.0, rel=0.05)
    wide = [end(1.0, k).std() for k in (2, 4, 8, 16, 32)]
    np.testing.assert_allclose(wide, [0.5, 0.72, 0.85082, 0.92270, 0.96061], rtol=1e-3)
    with pytest.raises(JaxomarlError, match=r"euler\.steps"):
        flows.euler(gaussian(0.5, 0.2), z, 0)


@pytest.mark.parametrize("steps", [1, 3, 8])
def test_euler_is_ddim_on_straight_paths(steps):
    velocity = gaussian(0.5, 0.2)
    key = jax.random.key(3)
    drawn = ddim(STRAIGHT, steps)(key, flows.from_velocity(velocity), (50, 2))
    z = jax.random.normal(jax.random.split(key)[0], (50, 2))  # the chain's own start
    np.testing.assert_allclose(flows.euler(velocity, z, steps), drawn, atol=2e-6)


def test_a_point_is_reached_in_one_step_from_everywhere():
    velocity = lambda x, t: (x - 0.3) / flows._beside(t, x)
    end = X - flows._beside(T, X) * velocity(X, T)
    np.testing.assert_allclose(end, 0.3, atol=1e-6)
    np.testing.assert_allclose(flows.euler(velocity, X, 1), 0.3, atol=1e-6)
    mean = lambda x, r, t: velocity(x, t)  # the same from every t to every r
    assert flows.mean_flow_loss(mean, jnp.full_like(X, 0.3), T / 2, T, X) < 1e-9


def test_forms_of_a_velocity():
    v = gaussian(0.5, 0.4)(X, T)
    x0, eps = flows.x0_from_velocity(X, T, v), flows.eps_from_velocity(X, T, v)
    t = T[:, None]
    np.testing.assert_allclose(eps - x0, v, atol=1e-6)
    np.testing.assert_allclose((1 - t) * x0 + t * eps, X, atol=1e-6)
    np.testing.assert_allclose(flows.velocity_from_x0(X, T, x0), v, atol=1e-5)
    score = parameterise.score_from_x0(STRAIGHT, X, T, x0)
    np.testing.assert_allclose(flows.score_from_velocity(X, T, v), score, atol=1e-5)
    other = parameterise.x0_from_v(STRAIGHT, X, T, v)  # alpha eps - sigma x_0 is another "v"
    assert np.abs(other - x0).max() > 0.1


def test_losses_of_a_velocity_are_weighted_losses_of_the_others():
    x0, z = X, X[::-1]
    t = jnp.array([0.1, 0.3, 0.5, 0.8, 0.95])
    mask = jnp.array([1.0, 1.0, 0.0])
    velocity = gaussian(0.5, 0.4)
    loss = flows.flow_loss(velocity, x0 * mask, t, z, mask)
    clean = denoising_loss(flows.from_velocity(velocity), STRAIGHT, x0 * mask, t, z, 1 / t**2, mask)
    eps = lambda x, t: flows.eps_from_velocity(x, t, velocity(x, t))
    noise = eps_loss(eps, STRAIGHT, x0 * mask, t, z, mask, 1 / (1 - t) ** 2)
    np.testing.assert_allclose([clean, noise], loss, rtol=1e-4)


# --- mean velocities ---


def test_the_identity_of_a_mean_velocity():
    """u = v - (t - r) du/dt on a Gaussian's paths, with the numbers of one point."""
    u = jumping(0.5, 0.2)
    x, r, t = (jnp.full((1, 1), 0.3), jnp.full(1, 0.1), jnp.full(1, 0.7))
    v = gaussian(0.5, 0.2)(x, t)
    value, slope = jax.jvp(lambda x, t: u(x, r, t), (x, t), (v, jnp.ones(1)))
    np.testing.assert_allclose([value.item(), slope.item()], [-0.32327, 0.05391], atol=1e-5)
    np.testing.assert_allclose(value, v - 0.6 * slope, atol=1e-6)

    # a finite difference is near it, and OM2P's of 1e-12 is nothing at all in float32
    behind = lambda h: ((u(x, r, t) - u(x - h * v, r, t - h)) / h).item()
    np.testing.assert_allclose([behind(1e-2), behind(1e-3)], [0.0548, 0.0540], atol=2e-4)
    assert behind(1e-12) == 0.0


def test_the_loss_is_least_at_the_mean_velocity():
    """u + c has its least loss at c = 0, and so has u + c (x - E x), which sees the sign of du/dt."""
    keys = jax.random.split(jax.random.key(1), 4)
    rows = 200_000
    x0 = 0.5 + 0.2 * jax.random.normal(keys[0], (rows, 1))
    z = jax.random.normal(keys[1], (rows, 1))
    pair = jnp.sort(jax.random.uniform(keys[2], (2, rows), minval=0.05), axis=0)

    def loss(c):
        def moved(x, r, t):
            centred = x - (1 - flows._beside(t, x)) * 0.5
            return jumping(0.5, 0.2)(x, r, t) + c[0] + c[1] * centred

        return flows.mean_flow_loss(moved, x0, pair[0], pair[1], z)

    slopes = jax.jit(lambda cs: jax.lax.map(jax.grad(loss), cs))
    at_rest, moved = slopes(jnp.array([[0.0, 0.0], [0.1, 0.1]]))
    assert np.abs(at_rest).max() < 0.02
    assert float(moved[0]) == pytest.approx(0.2, abs=0.02) and moved[1] > 0.05


def test_at_equal_times_it_is_flow_matching():
    velocity = gaussian(0.5, 0.4)
    z = X[::-1]
    t = T * 0.9
    mean = flows.mean_flow_loss(lambda x, r, t: velocity(x, t), X, t, t, z)
    np.testing.assert_allclose(mean, flows.flow_loss(velocity, X, t, z), rtol=1e-6)
    with pytest.raises(JaxomarlError, match="leading axes"):
        flows.flow_loss(velocity, X, jnp.ones(1), z)


def test_a_jump_is_a_consistency_function():
    f = flows.jump(jumping(0.5, 0.2))
    assert (flows.jump(lambda x, r, t: x + 7.0)(X, jnp.zeros(5)) == X).all()
    drawn = consistency(STRAIGHT, 1)(jax.random.key(0), f, (20_000, 1))
    assert float(drawn.mean()) == pytest.approx(0.5, abs=0.006)
    assert float(drawn.std()) == pytest.approx(0.2, abs=0.004)
    two_calls = consistency(STRAIGHT, 2)(jax.random.key(0), f, (20_000, 1))
    assert float(two_calls.std()) == pytest.approx(0.2, abs=0.004)


@pytest.mark.parametrize("kind", ["flow", "mean flow"])
def test_weights_of_a_value_tilt_the_modes(kind):
    """exp(A / T) on rows of equal modes paid 1 and 0: the best model has +'s share 1 / (1 + e^{-1/T}).

    Models are exact for some share, so that the loss's slope in the share's log odds is 0 at 1 / T.
    """
    keys = jax.random.split(jax.random.key(5), 4)
    rows = 40_000
    sign = jnp.where(jnp.arange(rows) < rows // 2, 1.0, -1.0)[:, None]
    x0 = 0.8 * sign + 0.3 * jax.random.normal(keys[0], (rows, 1))
    z = jax.random.normal(keys[1], (rows, 1))
    r, t = jnp.sort(jax.random.uniform(keys[2], (2, rows)), axis=0)
    temperature = 0.8
    weight = jnp.exp((sign[:, 0] > 0) / temperature)

    def loss(odds):
        velocity = two_modes(odds)
        if kind == "flow":
            return flows.flow_loss(velocity, x0, t, z, weight=weight)
        return flows.mean_flow_loss(averaged(velocity), x0, r, t, z, weight=weight)

    slopes = jax.jit(lambda odds: jax.lax.map(jax.grad(loss), odds))
    below, best, above = slopes(jnp.array([0.5, 1.0, 1.5]) / temperature)
    assert below < 0 < above and abs(best) < 0.15 * min(-below, above), (below, best, above)
    draws = jax.random.normal(keys[3], (20_000, 1))
    jump = jax.jit(flows.jump(averaged(two_modes(1.0 / temperature), 64)))
    share = float((jump(draws, jnp.ones(20_000)) > 0).mean())
    assert share == pytest.approx(1.0 / (1.0 + np.exp(-1.0 / temperature)), abs=0.012)


# --- what denoisers have, flows have ---


@pytest.mark.parametrize("sampler", [ddim, ddpm])
def test_a_linear_energy_tilts_a_flow(sampler):
    """N(m, s^2) exp(c x) is N(m + c s^2, s^2); the call at t = 1, where alpha = 0, is not guided."""
    denoise = flows.from_velocity(gaussian(0.1, 0.4))
    tilted = guidance.guided(denoise, STRAIGHT, lambda x0: 2.0 * x0.sum(-1), 1.0)
    found = jax.jit(lambda key: sampler(STRAIGHT, 128)(key, tilted, (4000, 1)))(jax.random.key(2))
    assert float(found.mean()) == pytest.approx(0.1 + 2.0 * 0.16, abs=0.03)
    assert float(found.std()) == pytest.approx(0.4, abs=0.03)


def test_a_policys_pull_moves_a_flow():
    """CODA's shift towards 1 raises the mean, and a shift at t = 1 moves nothing."""
    scores = lambda x0: 1.0 - x0
    pull = towards(scores, strengths(16, 0.05))
    denoise = flows.from_velocity(gaussian(0.1, 0.4))
    draw = lambda **more: ddim(STRAIGHT, 16, **more)(jax.random.key(2), denoise, (500, 2))
    moved = draw(shift=pull) - draw()
    assert np.isfinite(moved).all() and float(moved.mean()) > 0.02
    only_first = lambda k, x, x0: x + (k == 0)
    np.testing.assert_allclose(draw(shift=only_first), draw(), atol=1e-6)


def test_a_factorised_velocity_is_a_velocity():
    """f = concat leaves the agents' velocities as they are, so both agents follow their own flows."""
    parts = lambda params, x, t, y: jnp.stack(
        [gaussian(m, 0.2)(x[..., i, :], t) for i, m in enumerate((0.5, -0.3))], axis=-2
    )
    f = factorisation("concat", 2, 1, 2)
    whole = composed(parts, f, jnp.ones((2, 1)))
    params = {"parts": (), "noise": f.init(jax.random.key(0))}
    z = X[:, :2, None]
    y = jnp.zeros((5, 2, 0))
    found = flows.euler(lambda x, t: whole(params, x, t, y), z, 8)
    alone = [flows.euler(gaussian(m, 0.2), z[:, i], 8) for i, m in enumerate((0.5, -0.3))]
    np.testing.assert_allclose(found, jnp.stack(alone, axis=1), atol=1e-6)
