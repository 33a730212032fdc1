import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxomarl.diffusion import guidance, parameterise, samplers, schedules

VP = schedules.vp()
T = jnp.array([0.05, 0.4, 0.9])
X = jax.random.normal(jax.random.key(0), (3, 2, 4))


def gaussian(m, s, schedule=VP):
    """E[x_0 | x_t] of N(m, s^2)."""

    def denoise(x, t):
        alpha, sigma = schedules.alpha_sigma_at(schedule, t, x)
        return m + alpha * s**2 * (x - alpha * m) / (alpha**2 * s**2 + sigma**2)

    return denoise


def test_masked_hides_padded_columns_both_ways():
    mask = np.array([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]], np.float32)
    mixing = lambda x, t: x + x.sum((-2, -1), keepdims=True) + 1
    found = guidance.masked(mixing, mask)(X, T)
    real = np.where(mask > 0, X, 0)
    expected = np.where(mask > 0, X + real.sum((-2, -1), keepdims=True) + 1, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.all(found[:, 1, 2:] == 0)


def test_clipped_holds_bounds_and_the_sampler_s_noise_follows():
    found = guidance.clipped(lambda x, t: 3 * x, -1.0, jnp.array([0.5, 1.0, 1.0, 2.0]))(X, T)
    np.testing.assert_array_equal(found, np.clip(3 * np.asarray(X), -1, [0.5, 1, 1, 2]))
    # one more ddim step from x with x_0 clipped to c uses eps = (x - alpha c) / sigma
    alpha, sigma, alpha1, sigma1 = 0.6, 0.8, 0.8, 0.6
    step = samplers.ddim_step(*jnp.array([alpha, sigma, alpha1, sigma1]))
    x, c = 2.0, 1.0
    assert float(step.x * x + step.x0 * c) == pytest.approx(
        alpha1 * c + sigma1 * (x - alpha * c) / sigma, rel=1e-5
    )


def test_classifier_free_ends_and_extrapolation():
    cond, uncond = gaussian(0.8, 0.3), gaussian(-0.2, 0.9)
    both = lambda w: guidance.classifier_free(cond, uncond, w)(X, T)
    np.testing.assert_array_equal(both(0.0), uncond(X, T))
    np.testing.assert_allclose(both(1.0), cond(X, T), rtol=1e-4, atol=1e-6)
    w = 1.6
    eps_c, eps_u = (parameterise.eps_from_x0(VP, X, T, f(X, T)) for f in (cond, uncond))
    found = parameterise.eps_from_x0(VP, X, T, both(w))
    np.testing.assert_allclose(found, eps_u + w * (eps_c - eps_u), rtol=1e-4, atol=1e-5)
    coda = (1 + (w - 1)) * cond(X, T) - (w - 1) * uncond(X, T)  # CODA's weight is w - 1
    np.testing.assert_allclose(both(w), coda, rtol=1e-4, atol=1e-5)


def test_classifier_free_moves_a_gaussian_s_mean_by_w():
    """Two Gaussians of one width: eps is linear in the mean, so the result is N(m_u + w (m_c - m_u), s^2)."""
    found = guidance.classifier_free(gaussian(0.5, 0.4), gaussian(0.1, 0.4), 2.5)(X, T)
    np.testing.assert_allclose(found, gaussian(0.1 + 2.5 * 0.4, 0.4)(X, T), rtol=1e-4, atol=1e-5)


# --- energies ---


@pytest.mark.parametrize("schedule", [VP, schedules.cosine(50), schedules.edm()])
def test_a_linear_energy_tilts_a_gaussian_exactly(schedule):
    """N(m, s^2) exp(scale c x) is N(m + scale c s^2, s^2): its exact denoiser, at every level."""
    m, s, scale = 0.5, 0.4, 1.7
    c = jnp.array([2.0, -1.0, 0.5, 0.0])
    tilted = guidance.guided(gaussian(m, s, schedule), schedule, lambda x0: x0 @ c, scale)
    expected = gaussian(m + scale * c * s**2, s, schedule)
    np.testing.assert_allclose(tilted(X, T), expected(X, T), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(tilted(X[1], T[1]), expected(X[1], T[1]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("sampler", [samplers.ddpm, samplers.ddim])
def test_a_linear_energy_moves_the_sampled_mean(sampler):
    m, s, scale, slope, B = 0.5, 0.4, 2.0, -1.5, 4000
    run = lambda denoise: jax.jit(lambda key: sampler(VP, 100)(key, denoise, (B,)))(
        jax.random.key(1)
    )
    plain = run(gaussian(m, s))
    moved = run(guidance.guided(gaussian(m, s), VP, lambda x0: slope * x0, scale)) - plain
    # the same noise: all samples move by the same; the slope of the chain in the mean is 1 up to alpha(1)
    np.testing.assert_allclose(moved, scale * slope * s**2, rtol=0.02)
    assert abs(float(plain.mean()) - m) < 4 * s / np.sqrt(B) + 0.01


def test_guidance_adds_the_gradient_of_the_energy_at_the_prediction():
    """score' - score = d/dx of scale energy(x_0(x)), for a curved denoiser and a curved energy."""
    denoise = lambda x, t: jnp.tanh(x) + 0.1 * x.sum(-1, keepdims=True)
    energy = lambda x0: -jnp.sum(jnp.sin(x0) * x0, -1)
    scale = 0.7
    new = parameterise.score_from_x0(VP, X, T, guidance.guided(denoise, VP, energy, scale)(X, T))
    old = parameterise.score_from_x0(VP, X, T, denoise(X, T))
    expected = jax.grad(lambda x: scale * energy(denoise(x, T)).sum())(X)
    np.testing.assert_allclose(new - old, expected, rtol=5e-3, atol=5e-3)


def test_no_guidance_where_the_scale_or_the_slope_is_zero():
    denoise = gaussian(0.5, 0.4)
    np.testing.assert_array_equal(
        guidance.guided(denoise, VP, lambda x0: x0.sum(-1), 0.0)(X, T), denoise(X, T)
    )
    flat = guidance.guided(denoise, VP, lambda x0: -jnp.square(x0 - denoise(X, T)), 5.0)(X, T)
    np.testing.assert_array_equal(flat, denoise(X, T))


def test_guidance_composes_under_jit_and_vmap():
    tilted = guidance.clipped(
        guidance.guided(gaussian(0.5, 0.4), VP, lambda x0: x0.sum(-1), 1.0), -1, 1
    )
    np.testing.assert_allclose(jax.jit(jax.vmap(tilted))(X, T), tilted(X, T), rtol=1e-5)


# --- inpainting ---


def test_inpaint_shows_and_says_what_is_known():
    known = jnp.full((2, 4), 0.25)
    mask = np.zeros((2, 4), np.float32)
    mask[0] = 1.0
    weights = jax.random.normal(jax.random.key(2), (8, 8))
    mix = lambda x, t: (x.reshape(3, 8) @ weights).reshape(x.shape)
    found = guidance.inpaint(mix, known, mask)(X, T)
    seen = np.array(X)
    seen[:, 0] = 0.25
    np.testing.assert_array_equal(found[:, 0], np.full((3, 4), 0.25))
    np.testing.assert_allclose(found[:, 1], mix(jnp.asarray(seen), T)[:, 1], rtol=1e-5)


@pytest.mark.parametrize("sampler", [samplers.ddpm, samplers.ddim])
def test_inpainted_samples_end_at_what_is_known_and_follow_it(sampler):
    """The second entry's denoiser is a point mass at twice the first, as it is shown."""
    twice = lambda x, t: jnp.stack([x[..., 0], 2 * x[..., 0]], -1)
    known = jnp.array([0.3, 0.0])
    found = sampler(VP, 5)(
        jax.random.key(3), guidance.inpaint(twice, known, np.array([1.0, 0.0])), (6, 2)
    )
    np.testing.assert_allclose(found, np.tile([0.3, 0.6], (6, 1)), rtol=1e-6)
