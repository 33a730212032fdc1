import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxomarl.base import JaxomarlError
from jaxomarl.diffusion import losses, parameterise, schedules

VP = schedules.vp()
T = jnp.array([0.2, 0.7])
X0 = jnp.arange(12.0).reshape(2, 2, 3) / 10
Z = jax.random.normal(jax.random.key(0), (2, 2, 3))
MASK = np.array([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]], np.float32)


def wrong(x, t):
    """Some prediction that depends on all it is given."""
    return 0.3 * x - t[:, None, None] + 0.1


def by_hand(target, weight, mask):
    total = 0.0
    for b in range(2):
        for n in range(2):
            for a in range(3):
                alpha, sigma = float(VP.alpha(T[b])), float(VP.sigma(T[b]))
                x = alpha * float(X0[b, n, a]) + sigma * float(Z[b, n, a])
                guess = 0.3 * x - float(T[b]) + 0.1
                total += (
                    float(mask[n, a]) * float(weight[b]) * (guess - float(target[b, n, a])) ** 2
                )
    return total / 2


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("weight", [None, jnp.array([0.5, 3.0])])
def test_losses_are_the_batch_mean_of_sums_over_real_columns(mask, weight):
    m, w = np.ones((2, 3)) if mask is None else mask, [1.0, 1.0] if weight is None else weight
    found = losses.eps_loss(wrong, VP, X0, T, Z, mask, weight)
    assert float(found) == pytest.approx(by_hand(Z, w, m), rel=1e-5)
    found = losses.denoising_loss(wrong, VP, X0, T, Z, weight, mask)
    assert float(found) == pytest.approx(by_hand(X0, w, m), rel=1e-5)


def test_noise_in_padded_columns_is_never_seen():
    x0 = X0 * MASK

    def mixing(x, t):  # a network that reads all columns
        return jnp.broadcast_to(x.sum((-2, -1), keepdims=True), x.shape)

    for loss in (losses.eps_loss, losses.denoising_loss):
        clean = loss(mixing, VP, x0, T, Z * MASK, mask=MASK)
        assert float(loss(mixing, VP, x0, T, Z + 5 * (1 - MASK), mask=MASK)) == pytest.approx(
            float(clean), rel=1e-6
        )
        assert float(loss(mixing, VP, x0, T, Z)) != pytest.approx(float(clean), rel=1e-2)


def test_denoising_loss_with_the_signal_to_noise_weight_is_the_eps_loss():
    eps = wrong
    weight = (VP.alpha(T) / VP.sigma(T)) ** 2
    clean = losses.denoising_loss(parameterise.from_eps(eps, VP), VP, X0, T, Z, weight, MASK)
    assert float(clean) == pytest.approx(float(losses.eps_loss(eps, VP, X0, T, Z, MASK)), rel=1e-4)


def test_vmapped_agents_give_their_own_losses():
    """A time per agent makes the agents part of the batch; a scalar time makes one sample of everything."""
    t = jnp.stack([T, T], axis=1)  # [B, N]
    eps = lambda x, t: 0.3 * x
    joint = losses.eps_loss(eps, VP, X0, T, Z)
    assert float(losses.eps_loss(eps, VP, X0, t, Z)) == pytest.approx(float(joint) / 2, rel=1e-5)
    each = jax.vmap(lambda x0, t, z: losses.eps_loss(eps, VP, x0, t, z))(X0, T, Z)
    assert float(each.mean()) == pytest.approx(float(joint), rel=1e-5)


def test_times_that_do_not_lead_the_sample_are_refused():
    with pytest.raises(JaxomarlError, match="leading axes"):
        losses.eps_loss(lambda x, t: x, VP, X0, jnp.full((2, 1), 0.5), Z)


@pytest.mark.parametrize("s", [0.2, 1.0])
def test_least_eps_loss_on_gaussian_data(s):
    m, B = 0.5, 100_000
    k_t, k_x, k_z = jax.random.split(jax.random.key(1), 3)
    t = jax.random.uniform(k_t, (B,), minval=1e-3)
    x0 = m + s * jax.random.normal(k_x, (B, 2))
    z = jax.random.normal(k_z, (B, 2))

    def exact(x, t, off=0.0, slope=1.0):
        alpha, sigma = schedules.alpha_sigma_at(VP, t, x)
        return slope * sigma * (x - alpha * m) / (alpha**2 * s**2 + sigma**2) + off

    grid = 1e-3 + (1 - 1e-3) * (np.arange(20000) + 0.5) / 20000
    log = -(grid**2) * 19.9 / 4 - grid * 0.05
    alpha2, sigma2 = np.exp(2 * log), -np.expm1(2 * log)
    least = 2 * np.mean(alpha2 * s**2 / (alpha2 * s**2 + sigma2))

    found = float(losses.eps_loss(exact, VP, x0, t, z))
    each = np.sum(np.square(exact(parameterise.noised(VP, x0, t, z), t) - z), -1)
    assert abs(found - least) < 4 * each.std() / np.sqrt(B)
    # the excess of another prediction is the mean square of its difference: 2 off^2, and (slope - 1)^2 E|eps*|^2
    shifted = losses.eps_loss(lambda x, t: exact(x, t, off=0.3), VP, x0, t, z)
    assert float(shifted) - found == pytest.approx(2 * 0.3**2, abs=0.01)
    scaled = losses.eps_loss(lambda x, t: exact(x, t, slope=1.3), VP, x0, t, z)
    expected = 0.3**2 * 2 * np.mean(sigma2 / (alpha2 * s**2 + sigma2))
    assert float(scaled) - found == pytest.approx(expected, abs=0.01)


def test_edm_weighted_loss_of_the_exact_gaussian_denoiser():
    """E[weight V], V = s^2 sigma^2 / (s^2 + sigma^2): with sigma_d = s the EDM weight makes it 1 at every level."""
    s, B = 0.7, 50_000
    edm = schedules.edm()
    k_t, k_x, k_z = jax.random.split(jax.random.key(2), 3)
    t = jax.random.uniform(k_t, (B,), minval=0.2)
    x0, z = s * jax.random.normal(k_x, (B, 1)), jax.random.normal(k_z, (B, 1))
    sigma = edm.sigma(t)
    denoise = lambda x, t: s**2 * x / (s**2 + edm.sigma(t)[:, None] ** 2)
    found = losses.denoising_loss(denoise, edm, x0, t, z, (sigma**2 + s**2) / (sigma * s) ** 2)
    assert abs(float(found) - 1) < 4 * np.sqrt(2 / B)  # a mean of B squares of N(0, 1)
