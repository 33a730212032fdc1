import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

from jaxomarl.diffusion import parameterise, schedules

SCHEDULES = {
    "vp": schedules.vp(),
    "cosine": schedules.cosine(20),
    "edm": schedules.edm(sigma_max=2.0),
}
T = jnp.array([0.1, 0.5, 0.8])
X0 = jax.random.normal(jax.random.key(0), (3, 2, 4))
Z = jax.random.normal(jax.random.key(1), (3, 2, 4))


def column(values):
    return values[:, None, None]


@pytest.fixture(params=SCHEDULES)
def schedule(request):
    return SCHEDULES[request.param]


def test_noised_is_the_forward_process_sample_by_sample(schedule):
    x = parameterise.noised(schedule, X0, T, Z)
    for b in range(3):
        expected = schedule.alpha(T[b]) * X0[b] + schedule.sigma(T[b]) * Z[b]
        np.testing.assert_allclose(x[b], expected, rtol=1e-6)
        np.testing.assert_allclose(
            parameterise.noised(schedule, X0[b], T[b], Z[b]), expected, rtol=1e-6
        )


def test_every_form_of_the_true_prediction_agrees(schedule):
    x = parameterise.noised(schedule, X0, T, Z)
    alpha, sigma = column(schedule.alpha(T)), column(schedule.sigma(T))
    score = jax.grad(lambda x: norm.logpdf(x, alpha * X0, sigma).sum())(x)
    velocity = alpha * Z - sigma * X0
    close = lambda found, expected: np.testing.assert_allclose(
        found, expected, rtol=2e-4, atol=2e-5
    )
    close(parameterise.x0_from_eps(schedule, x, T, Z), X0)
    close(parameterise.eps_from_x0(schedule, x, T, X0), Z)
    close(parameterise.score_from_eps(schedule, x, T, Z), score)
    close(parameterise.eps_from_score(schedule, x, T, score), Z)
    close(parameterise.score_from_x0(schedule, x, T, X0), score)
    close(parameterise.x0_from_score(schedule, x, T, score), X0)
    close(parameterise.v_from_x0(schedule, x, T, X0), velocity)
    close(parameterise.x0_from_v(schedule, x, T, velocity), X0)


def test_conversions_undo_each_other_for_any_prediction(schedule):
    x, guess = X0, Z  # no relation between them
    close = lambda found: np.testing.assert_allclose(found, guess, rtol=2e-4, atol=2e-5)
    close(parameterise.x0_from_eps(schedule, x, T, parameterise.eps_from_x0(schedule, x, T, guess)))
    close(
        parameterise.x0_from_score(
            schedule, x, T, parameterise.score_from_x0(schedule, x, T, guess)
        )
    )
    close(parameterise.x0_from_v(schedule, x, T, parameterise.v_from_x0(schedule, x, T, guess)))
    close(
        parameterise.eps_from_score(
            schedule, x, T, parameterise.score_from_eps(schedule, x, T, guess)
        )
    )


def test_velocity_is_the_derivative_along_the_angle():
    vp, t = schedules.vp(), jnp.float32(0.3)
    angle = jnp.arctan2(vp.sigma(t), vp.alpha(t))
    along = lambda angle: jnp.cos(angle) * X0 + jnp.sin(angle) * Z
    x, velocity = jax.jvp(along, (angle,), (jnp.float32(1),))
    np.testing.assert_allclose(parameterise.v_from_x0(vp, x, t, X0), velocity, rtol=1e-4, atol=1e-5)


def test_from_eps_turns_the_exact_noise_of_a_gaussian_into_its_posterior_mean(schedule):
    m, s = 0.5, 0.2

    def eps(x, t):
        alpha, sigma = schedules.alpha_sigma_at(schedule, t, x)
        return sigma * (x - alpha * m) / (alpha**2 * s**2 + sigma**2)

    x = parameterise.noised(schedule, X0, T, Z)
    alpha, sigma = column(schedule.alpha(T)), column(schedule.sigma(T))
    expected = m + alpha * s**2 * (x - alpha * m) / (alpha**2 * s**2 + sigma**2)
    denoise = parameterise.from_eps(eps, schedule)
    np.testing.assert_allclose(denoise(x, T), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(denoise(x[1], T[1]), expected[1], rtol=1e-4, atol=1e-5)
