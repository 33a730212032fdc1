import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxomarl.base import JaxomarlError
from jaxomarl.diffusion import guidance, samplers, schedules
from jaxomarl.diffusion.consistency import consistency, consistency_loss, consistent, least
from jaxomarl.networks.mlp import mish, mlp

EDM = schedules.edm(sigma_max=5.0)
MODE, STD = 0.8, 0.15  # the trained example: agents agree on +0.8 or on -0.8
LEVELS, STEPS, BATCH, HUBER = 24, 2000, 128, 0.03


def two_modes(x, t):
    """E[x_0 | x_t] of the agreements of two agents."""
    alpha, sigma = schedules.alpha_sigma_at(EDM, t, x)
    v = alpha**2 * STD**2 + sigma**2
    side = MODE * jnp.tanh(alpha * MODE * x.sum(-1, keepdims=True) / v)
    return side + alpha * STD**2 * (x - alpha * side) / v


def drawn(key, rows):
    k_side, k_noise = jax.random.split(key)
    return MODE * jax.random.rademacher(k_side, (rows, 1)) + STD * jax.random.normal(
        k_noise, (rows, 2)
    )


@pytest.fixture(scope="module")
def trained():
    """{kind: consistency function}, each trained in one scan."""
    net, tx = mlp(4, (32, 32), 2, mish), optax.adam(optax.cosine_decay_schedule(4e-3, STEPS))

    def f(params):
        def raw(x, t):
            t = jnp.broadcast_to(t[..., None] if jnp.ndim(t) else t, (*x.shape[:-1], 1))
            return net.apply(params, jnp.concatenate([x, t, jnp.log(EDM.sigma(t)) / 4], axis=-1))

        return consistent(raw, EDM, MODE)

    def fit(teacher, seed):
        def step(carry, key):
            params, opt = carry
            k_rows, k_noise, k_time = jax.random.split(key, 3)
            k = jax.random.randint(k_time, (BATCH,), 0, LEVELS)
            t, s = (k + 1) / LEVELS, k / LEVELS

            def loss(params):
                x0, z = drawn(k_rows, BATCH), jax.random.normal(k_noise, (BATCH, 2))
                weight = 1 / (EDM.sigma(t) - EDM.sigma(s))
                return consistency_loss(
                    f(params), f(params), EDM, x0, t, s, z, teacher, weight, huber=HUBER
                )

            updates, opt = tx.update(jax.grad(loss)(params), opt, params)
            return (optax.apply_updates(params, updates), opt), None

        def run(key):
            params = net.init(key)
            return jax.lax.scan(step, (params, tx.init(params)), jax.random.split(key, STEPS))[0][0]

        return f(jax.jit(run)(jax.random.key(seed)))

    return {"distilled": fit(two_modes, 0), "trained": fit(None, 0)}


def distance(x, y):
    """Wasserstein-1 of the first columns."""
    return float(np.abs(np.sort(np.asarray(x)[:, 0]) - np.sort(np.asarray(y)[:, 0])).mean())


def sampled(f, steps, rows=20_000, seed=1):
    return np.asarray(
        jax.jit(lambda key: consistency(EDM, steps)(key, f, (rows, 2)))(jax.random.key(seed))
    )


# --- the boundary ---


@pytest.mark.parametrize("schedule", [schedules.edm(), EDM, schedules.vp(), schedules.cosine(20)])
@pytest.mark.parametrize("shape", [(), (6,)])
def test_the_function_is_the_identity_where_the_data_are(schedule, shape):
    x = jax.random.normal(jax.random.key(0), (6, 3, 2))
    f = jax.jit(consistent(lambda x, t: 1e3 * jnp.cos(7 * x) + 5, schedule))
    np.testing.assert_array_equal(f(x, jnp.zeros(shape)), x)
    assert np.abs(f(x, jnp.full(shape, 0.5)) - x).max() > 1  # and is not elsewhere


def test_training_does_not_move_the_boundary(trained):
    x = jax.random.normal(jax.random.key(1), (50, 2))
    for f in trained.values():
        np.testing.assert_array_equal(f(x, jnp.zeros(50)), x)


def test_the_coefficients_are_the_papers():
    """sigma_d = 0.5, epsilon = 0.002; F = 1 and F = 0 tell c_skip and c_out apart."""
    t = jnp.array([0.1, 0.5, 1.0])
    sigma = np.asarray(schedules.edm().sigma(t), np.float64)
    x, f = (
        jnp.full((3, 1), 0.7),
        lambda F: consistent(lambda x, t: jnp.full_like(x, F), schedules.edm()),
    )
    skip = 0.25 / ((sigma - 0.002) ** 2 + 0.25)
    out = 0.5 * (sigma - 0.002) / np.sqrt(0.25 + sigma**2)
    np.testing.assert_allclose(f(0.0)(x, t)[:, 0], 0.7 * skip, rtol=2e-5)
    np.testing.assert_allclose((f(1.0)(x, t) - f(0.0)(x, t))[:, 0], out, rtol=2e-5)
    assert (
        float(least(schedules.edm())) == pytest.approx(0.002) and float(least(schedules.vp())) == 0
    )


def test_the_network_sees_inputs_of_unit_size():
    """c_in x: for data of the stated std it has variance 1 at every level."""
    t = jnp.repeat(jnp.linspace(0, 1, 5), 4000)
    for schedule in (EDM, schedules.vp()):
        x = schedule.alpha(t) * 0.5 * jax.random.normal(jax.random.key(2), (20_000,))
        x = x + schedule.sigma(t) * jax.random.normal(jax.random.key(3), (20_000,))
        seen = []
        consistent(lambda x, t, seen=seen: seen.append(x) or x, schedule, 0.5)(x, t)
        np.testing.assert_allclose(np.asarray(seen[0]).reshape(5, 4000).std(axis=1), 1.0, atol=0.06)


# --- the loss ---


def path(schedule, m=0.5, s=0.3):
    """The exact consistency function of N(m, s^2), and its denoiser."""
    floor = s**2 + least(schedule) ** 2

    def ends(x, t):
        alpha, sigma = schedules.alpha_sigma_at(schedule, t, x)
        return m + jnp.sqrt(floor / (s**2 + (sigma / alpha) ** 2)) * (x / alpha - m)

    def denoise(x, t):
        alpha, sigma = schedules.alpha_sigma_at(schedule, t, x)
        return m + alpha * s**2 * (x - alpha * m) / (alpha**2 * s**2 + sigma**2)

    return ends, denoise


@pytest.mark.parametrize("schedule", [EDM, schedules.vp()])
def test_the_exact_function_has_no_loss_under_distillation(schedule):
    """What is left is the error of one ddim step, of order 2: its square falls by 16 for half the step."""
    ends, denoise = path(schedule)
    t = jnp.full((1000,), 0.6)
    x0 = 0.5 + 0.3 * jax.random.normal(jax.random.key(4), (1000, 1))
    z = jax.random.normal(jax.random.key(5), (1000, 1))
    loss = lambda step: float(consistency_loss(ends, ends, schedule, x0, t, t - step, z, denoise))
    assert 8 < loss(0.1) / loss(0.05) < 32 and loss(0.02) < 1e-5
    wrong = lambda x, t: ends(x, t) + t[:, None]
    assert float(consistency_loss(wrong, wrong, schedule, x0, t, t - 0.02, z, denoise)) > 3e-4


def test_the_exact_one_step_samples_are_the_data():
    ends, _ = path(EDM)
    x = jax.jit(lambda key: consistency(EDM, 1)(key, ends, (20_000,)))(jax.random.key(6))
    assert float(x.std()) == pytest.approx(
        0.3, abs=0.006
    )  # and sigma_max = 5 hides all but a hundredth of the mean
    assert float(x.mean()) == pytest.approx(0.5 * (1 - 0.3 / np.hypot(0.3, 5)), abs=0.01)
    several = jax.jit(lambda key: consistency(EDM, 3)(key, ends, (20_000,)))(jax.random.key(7))
    assert (float(several.mean()), float(several.std())) == (
        pytest.approx(0.5, abs=0.01),
        pytest.approx(0.3, abs=6e-3),
    )


def test_the_pair_of_training_shares_its_noise_and_that_of_distillation_its_path():
    """f = x and target = 2 x at alpha = 1: the loss by hand, from x_t = x_0 + sigma z and x_s."""
    x0, z = jnp.array([[0.3, -0.2]]), jnp.array([[1.0, 0.5]])
    t, s = jnp.array([0.8]), jnp.array([0.6])
    high, low = float(EDM.sigma(t)[0]), float(EDM.sigma(s)[0])
    loss = lambda **more: float(
        consistency_loss(lambda x, t: x, lambda x, t: 2 * x, EDM, x0, t, s, z, **more)
    )
    x = np.asarray(x0 + high * z)
    assert loss() == pytest.approx(((x - 2 * np.asarray(x0 + low * z)) ** 2).sum(), rel=1e-5)
    taught = 0.1 + low / high * (x - 0.1)
    square = ((x - 2 * taught) ** 2).sum()
    teacher = lambda x, t: jnp.full_like(x, 0.1)
    assert loss(teacher=teacher) == pytest.approx(square, rel=1e-5)
    assert loss(teacher=teacher, huber=0.5) == pytest.approx(np.sqrt(square + 0.25) - 0.5, rel=1e-5)
    assert loss(teacher=teacher, weight=jnp.array([3.0])) == pytest.approx(3 * square, rel=1e-5)
    first = ((x - 2 * taught)[0, 0] ** 2).sum()
    assert loss(teacher=teacher, mask=jnp.array([1.0, 0.0])) == pytest.approx(first, rel=1e-5)


def test_no_gradient_reaches_the_target():
    x0, z, t = jnp.ones((4, 1)), jnp.ones((4, 1)), jnp.full((4,), 0.5)
    loss = lambda a, b: consistency_loss(
        lambda x, t: a * x, lambda x, t: b * x, EDM, x0, t, t - 0.1, z
    )
    of_f, of_target = jax.grad(loss, argnums=(0, 1))(1.0, 1.0)
    assert of_f != 0 and of_target == 0


# --- trained ---


@pytest.mark.parametrize(
    ("kind", "one", "two"), [("distilled", 0.06, 0.04), ("trained", 0.12, 0.09)]
)
def test_one_step_samples_match_the_data(trained, kind, one, two):
    """Wasserstein-1 to the data of std 0.81 per agent, both modes kept, and the agents agree."""
    data = drawn(jax.random.key(8), 20_000)
    for steps, bound in ((1, one), (2, two)):
        x = sampled(trained[kind], steps)
        assert distance(x, data) < bound
        assert np.mean(x[:, 0] > 0) == pytest.approx(0.5, abs=0.06)
        assert (
            np.mean(x[:, 0] * x[:, 1] < 0) < 0.04 / steps
        )  # one half where agents are sampled on their own


def test_a_denoiser_is_no_consistency_function(trained):
    """One call of E[x_0 | x_1] says the mean of the modes: what a consistency sampler makes of a DDPM's network."""
    data = drawn(jax.random.key(9), 20_000)
    assert (
        distance(sampled(two_modes, 1), data)
        > 0.5
        > 5 * distance(sampled(trained["distilled"], 1), data)
    )


def test_a_path_keeps_its_end(trained):
    """f is nearly constant along the probability flow, and near the end that ddim finds from the same noise."""
    key, rows = jax.random.key(10), 2000
    ends = np.asarray(jax.jit(lambda k: samplers.ddim(EDM, 200)(k, two_modes, (rows, 2)))(key))
    first = jnp.hypot(EDM.alpha(1.0), EDM.sigma(1.0)) * jax.random.normal(
        jax.random.split(key)[0], (rows, 2)
    )
    said = np.asarray(trained["distilled"](first, jnp.ones(rows)))
    sure = np.abs(np.asarray(first).sum(axis=1)) > 1.0  # away from the line where paths part
    assert np.abs(said - ends)[sure].mean() < 0.1 and np.mean((said * ends > 0)[sure]) > 0.99


# --- the sampler ---


def test_later_calls_see_fresh_noise_of_their_levels():
    """x_t = alpha (x_0 + sqrt(kappa^2 - e^2) z), so that f = x / alpha of the last level shows its variance."""
    for schedule in (EDM, schedules.vp()):
        calls = []

        def note(t, x, calls=calls):
            calls.append((float(t), np.asarray(x)))

        def f(x, t, note=note):
            jax.debug.callback(note, t, x, ordered=True)
            return jnp.full_like(x, 0.3)

        draw = jax.jit(lambda key, f=f, s=schedule: consistency(s, 3)(key, f, (4000,)))
        draw(jax.random.key(11)).block_until_ready()
        jax.effects_barrier()
        assert [t for t, _ in calls] == pytest.approx([1.0, 2 / 3, 1 / 3])
        for (t, x), mean in zip(calls, (0.0, 0.3, 0.3), strict=True):
            alpha, sigma = (
                float(schedule.alpha(jnp.float32(t))),
                float(schedule.sigma(jnp.float32(t))),
            )
            wanted = (
                np.hypot(alpha, sigma)
                if t == 1
                else np.sqrt(sigma**2 - (alpha * float(least(schedule))) ** 2)
            )
            assert x.std() == pytest.approx(wanted, rel=0.04)
            assert x.mean() == pytest.approx(alpha * mean, abs=4 * wanted / np.sqrt(4000))


def test_masks_starts_and_refusals():
    mask = np.array([1.0, 0.0], np.float32)
    f = guidance.masked(lambda x, t: 0.5 * x + 1.0, mask)
    x = consistency(EDM, 3, mask=mask)(jax.random.key(12), f, (50, 2))
    assert np.all(np.asarray(x)[:, 1] == 0) and np.all(np.asarray(x)[:, 0] != 0)
    zero = consistency(EDM, 1, start=0.0)(jax.random.key(13), lambda x, t: x, (5,))
    np.testing.assert_array_equal(zero, np.zeros(5))
    with pytest.raises(JaxomarlError, match="steps"):
        consistency(EDM, 0)
    with pytest.raises(JaxomarlError, match="std"):
        consistent(lambda x, t: x, EDM, 0.0)
    x0, t = jnp.zeros((4, 2)), jnp.zeros(3)
    with pytest.raises(JaxomarlError, match="t: expected the leading axes"):
        consistency_loss(lambda x, t: x, lambda x, t: x, EDM, x0, t, t, x0)
