import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxomarl.base import JaxomarlError, Schedule
from jaxomarl.diffusion import guidance, parameterise, samplers, schedules

M, S = 0.5, 0.2  # the data: N(M, S^2)
SAMPLERS = {"ddpm": samplers.ddpm, "ddim": samplers.ddim, "dpm_solver": samplers.dpm_solver}
RULES = ["ddpm", "ddim"]  # the third is the second
SCHEDULES = {
    "vp": (schedules.vp(), 20),
    "vp_discrete": (schedules.vp_discrete(), 10),
    "vp_dom2": (schedules.vp_dom2(5), 5),
    "cosine": (schedules.cosine(100), 20),  # every fifth level
    "linear": (schedules.linear(1000), 40),
    "edm": (schedules.edm(), 20),
}


def gaussian(schedule, m=M, s=S):
    """E[x_0 | x_t] of N(m, s^2)."""

    def denoise(x, t):
        alpha, sigma = schedules.alpha_sigma_at(schedule, t, x)
        return m + alpha * s**2 * (x - alpha * m) / (alpha**2 * s**2 + sigma**2)

    return denoise


def grid(schedule, steps):
    """alpha and sigma in double precision at k / K, k = 0..K, clean at 0."""
    t = jnp.arange(steps + 1) / steps
    alpha, sigma = np.array(schedule.alpha(t), np.float64), np.array(schedule.sigma(t), np.float64)
    alpha[0], sigma[0] = 1, 0
    return alpha, sigma


def ddim_law(schedule, steps, m=M, s=S):
    """B.3: the std is a product of per-step factors, and x - alpha m shrinks by the same."""
    alpha, sigma = grid(schedule, steps)
    a, a1, c, c1 = alpha[1:], alpha[:-1], sigma[1:], sigma[:-1]
    factor = np.prod((a1 * a * s**2 + c1 * c) / (a**2 * s**2 + c**2))
    return m - alpha[-1] * m * factor, factor * np.hypot(alpha[-1], sigma[-1])


def ddpm_law(schedule, steps, m=M, s=S):
    """Mean and variance carried through Bayes' rule: x' | x, x_0 has the precision of x' | x_0 plus that of x | x'."""
    alpha, sigma = grid(schedule, steps)
    mean, variance = 0.0, alpha[-1] ** 2 + sigma[-1] ** 2
    for k in range(steps, 0, -1):
        gain = alpha[k] * s**2 / (alpha[k] ** 2 * s**2 + sigma[k] ** 2)
        if k == 1:
            slope, offset, added = gain, m - gain * alpha[k] * m, 0.0
        else:
            r = alpha[k] / alpha[k - 1]
            beta = sigma[k] ** 2 - r**2 * sigma[k - 1] ** 2
            added = 1 / (1 / sigma[k - 1] ** 2 + r**2 / beta)
            of_x0, of_x = added * alpha[k - 1] / sigma[k - 1] ** 2, added * r / beta
            slope, offset = of_x + of_x0 * gain, of_x0 * (m - gain * alpha[k] * m)
        mean, variance = slope * mean + offset, slope**2 * variance + added
    return mean, np.sqrt(variance)


def drawn(sampler, seed, denoise, shape):
    return jax.jit(lambda key: sampler(key, denoise, shape))(jax.random.key(seed))


def law(name):
    return ddpm_law if name == "ddpm" else ddim_law


def assert_law(x, mean, std):
    """Within four standard errors."""
    x = np.asarray(x, np.float64)
    assert abs(x.mean() - mean) < 4 * std / np.sqrt(x.size) + 1e-5
    assert abs(x.std() - std) < 4 * std / np.sqrt(2 * x.size) + 1e-6


# --- closed forms ---


QUICK = {
    "ddpm": ("vp", "cosine", "edm"),
    "ddim": ("vp_discrete", "linear", "edm"),
    "dpm_solver": ("vp_dom2",),
}
"""Each schedule under one sampler, and the one that is not variance-preserving under both."""


def cases_of_laws():
    """(sampler, schedule); dpm_solver of order 1 is ddim, and schedules are numbers of one chain."""
    for name in SAMPLERS:
        for schedule in SCHEDULES:
            again = schedule not in QUICK[name]
            yield pytest.param(name, schedule, marks=[pytest.mark.long] * again)


@pytest.mark.parametrize(("name", "schedule"), list(cases_of_laws()))
def test_gaussian_data_have_the_closed_form_law(name, schedule):
    schedule, steps = SCHEDULES[schedule]
    sample = SAMPLERS[name](schedule, steps)
    mean, std = law(name)(schedule, steps)
    assert_law(drawn(sample, 0, gaussian(schedule), (20_000,)), mean, std)


def test_ddpm_gaussian_oracle_of_a_hundred_steps():
    vp = schedules.vp_discrete()
    mean, std = ddpm_law(vp, 100)
    assert (mean, std) == (pytest.approx(0.500, abs=5e-4), pytest.approx(0.180, abs=5e-4))
    assert_law(drawn(samplers.ddpm(vp, 100), 1, gaussian(vp), (20_000,)), mean, std)


@pytest.mark.parametrize(
    ("form", "steps", "mean", "std"),
    [
        ("printed", 5, 0.5, 0.019),
        # ten steps lie between five and a hundred: the same code
        pytest.param("printed", 10, 0.496, 0.048, marks=pytest.mark.long),
        ("printed", 100, 0.376, 0.304),
        ("cumulative", 5, 0.5, 0.027),
        pytest.param("cumulative", 10, 0.5, 0.059, marks=pytest.mark.long),
        ("cumulative", 100, 0.5, 0.180),
        ("continuous", 5, 0.5, 0.053),
        pytest.param("continuous", 10, 0.5, 0.097, marks=pytest.mark.long),
        ("continuous", 100, 0.5, 0.187),
    ],
)
def test_few_deterministic_steps_are_too_narrow(form, steps, mean, std):
    schedule = (
        schedules.vp()
        if form == "continuous"
        else schedules.vp_dom2(steps, printed=form == "printed")
    )
    exact = ddim_law(schedule, steps)
    assert exact == (pytest.approx(mean, abs=1.1e-3), pytest.approx(std, abs=1.1e-3))
    sample = samplers.dpm_solver(schedule, steps)
    assert_law(drawn(sample, 2, gaussian(schedule), (20_000,)), *exact)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_point_mass_is_reached_exactly(name):
    sample = SAMPLERS[name](schedules.cosine(10), 10)
    point = jnp.array([0.3, -0.8])
    found = sample(jax.random.key(3), lambda x, t: jnp.broadcast_to(point, x.shape), (5, 2))
    np.testing.assert_array_equal(found, np.tile(point, (5, 1)))


@pytest.mark.parametrize("name", RULES)
def test_start_scales_the_first_noise_only(name):
    schedule, steps = schedules.vp(), 3
    mean, std = law(name)(schedule, steps)
    run = lambda start: drawn(
        SAMPLERS[name](schedule, steps, start), 4, gaussian(schedule), (4000,)
    )
    zero, one, two = run(0.0), run(1.0), run(2.0)
    np.testing.assert_allclose(two - one, one - zero, rtol=1e-4, atol=1e-6)  # linear in it
    if name == "ddpm":
        assert float(zero.std()) > 0.1 * std  # the other noise stays
    else:
        np.testing.assert_allclose(zero, mean, rtol=1e-5)


# --- steps ---


def pair(alpha, alpha_next):
    return jnp.array([alpha, np.sqrt(1 - alpha**2), alpha_next, np.sqrt(1 - alpha_next**2)])


def test_ddim_step_is_dom2_corrected():
    alpha, sigma, alpha1, sigma1 = pair(0.3, 0.8)
    x, e = 0.7, -0.4
    step = samplers.ddim_step(alpha, sigma, alpha1, sigma1)
    found = step.x * x + step.x0 * (x - sigma * e) / alpha
    assert float(found) == pytest.approx(2.644202, abs=1e-6)
    assert float(alpha1 / alpha * x - (alpha1 * sigma / alpha - sigma1) * e) == pytest.approx(
        2.644202, abs=1e-6
    )
    assert float(step.z) == 0


def test_ddim_chain_of_a_noise_network():
    """Two steps with constant noise e, against the step in its eps form: .3 -> .8 -> clean."""
    table = lambda t: jnp.where(t > 0.75, 0.3, 0.8)
    schedule = Schedule(table, lambda t: jnp.sqrt(1 - table(t) ** 2))
    e = -0.4
    denoise = parameterise.from_eps(lambda x, t: jnp.full_like(x, e), schedule)
    start, key = 0.0, jax.random.key(5)
    shift = lambda k, x, x0: jnp.where(k == 0, 0.7, x)  # x = .7 for the first step
    found = samplers.ddim(schedule, 2, start, shift=shift)(key, denoise, ())
    first = 2.644202
    assert float(found) == pytest.approx((first - 0.6 * e) / 0.8, abs=3e-6)


def test_ddpm_step_is_the_posterior_of_ho():
    """G.4 with beta and the cumulative products."""
    before, after = 0.36, 0.81
    beta = 1 - before / after
    step = samplers.ddpm_step(*pair(0.6, 0.9))
    assert float(step.x0) == pytest.approx(np.sqrt(after) * beta / (1 - before), rel=1e-5)
    assert float(step.x) == pytest.approx(np.sqrt(1 - beta) * (1 - after) / (1 - before), rel=1e-5)
    assert float(step.z) == pytest.approx(np.sqrt(beta * (1 - after) / (1 - before)), rel=1e-5)


@pytest.mark.parametrize("rule", [samplers.ddim_step, samplers.ddpm_step])
def test_the_last_step_gives_the_prediction_itself(rule):
    step = rule(
        jnp.float32(0.99), jnp.sqrt(jnp.float32(1 - 0.99**2)), jnp.float32(1), jnp.float32(0)
    )
    assert tuple(float(c) for c in step) == (0.0, 1.0, 0.0)


def test_the_denoiser_is_told_the_times_of_its_levels():
    """Averaging nothing: a denoiser that returns t ends at the last time, 1 / K, and x counts the others."""
    found = samplers.ddim(schedules.vp(), 4)(
        jax.random.key(0), lambda x, t: jnp.full_like(x, t), (2,)
    )
    np.testing.assert_allclose(found, [0.25, 0.25])
    seen = []

    def denoise(x, t):
        jax.debug.callback(lambda t: seen.append(float(t)), t, ordered=True)
        return x

    samplers.ddpm(schedules.vp(), 4)(jax.random.key(0), denoise, (2,)).block_until_ready()
    jax.effects_barrier()
    assert seen == [1.0, 0.75, 0.5, 0.25]


# --- padding ---


@pytest.mark.parametrize("name", RULES)
def test_padded_columns_are_zero_through_the_whole_chain(name):
    mask = np.array([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]], np.float32)
    schedule = schedules.vp()

    def network(x, t):
        return 0.5 * x + 1.0  # not zero in padded columns

    def watched(denoise):
        """NaN everywhere from the step on at which a padded column is not exactly zero."""
        return lambda x, t: denoise(x, t) + jnp.where(jnp.any(x * (1 - mask) != 0), jnp.nan, 0.0)

    run = lambda mask, denoise: drawn(SAMPLERS[name](schedule, 6, mask=mask), 6, denoise, (8, 2, 3))
    x = run(mask, watched(guidance.masked(network, mask)))
    assert (
        np.all(np.isfinite(x)) and np.all(x * (1 - mask) == 0) and np.all((x != 0) == (mask != 0))
    )
    assert np.all(
        np.isnan(run(None, watched(guidance.masked(network, mask))))
    )  # the watch sees unmasked noise
    assert np.all(np.isnan(run(mask, watched(network))))  # and an unmasked network
    free = run(None, guidance.masked(network, mask))
    np.testing.assert_allclose(
        free * mask, x, rtol=1e-5, atol=1e-6
    )  # real columns are what they would be


# --- gradients ---


@pytest.mark.parametrize("name", RULES)
def test_gradients_flow_through_every_step(name):
    """Samples are linear in the data's mean m, with slope (mean of the law) / m, and in the first noise."""
    schedule, steps = schedules.vp(), 5
    key = jax.random.key(7)
    sample = SAMPLERS[name](schedule, steps)
    slope = jax.jit(jax.grad(lambda m: sample(key, gaussian(schedule, m), (50,)).mean()))(0.5)
    assert float(slope) == pytest.approx(law(name)(schedule, steps, m=1.0)[0], rel=1e-4)
    of_start = jax.jit(
        lambda start: SAMPLERS[name](schedule, steps, start)(key, gaussian(schedule), (50,))
    )
    tangent = jax.jvp(of_start, (jnp.float32(1),), (jnp.float32(1),))[1]
    np.testing.assert_allclose(tangent, of_start(1.0) - of_start(0.0), rtol=1e-3, atol=1e-6)


# --- the hook ---


@pytest.mark.parametrize("name", RULES)
def test_a_shift_reaches_the_next_level_as_it_is(name):
    """With x_0 = b + c x and no first noise: moved by d at step 0 of 2, the sample moves by c d alpha' / alpha."""
    schedule, b, c, d = schedules.vp(), 0.4, 0.3, 2.0
    alpha, _ = grid(schedule, 2)
    denoise = lambda x, t: b + c * x
    run = lambda shift: drawn(SAMPLERS[name](schedule, 2, 0.0, shift=shift), 8, denoise, (3,))
    plain = run(None)
    moved = lambda shift: np.asarray(run(shift) - plain)
    ratio = alpha[1] / alpha[2]
    np.testing.assert_allclose(
        moved(lambda k, x, x0: x + jnp.where(k == 0, d, 0.0)), c * d * ratio, rtol=1e-4
    )
    # it is given x_0 = b of the first step, where x = 0
    np.testing.assert_allclose(
        moved(lambda k, x, x0: x + jnp.where(k == 0, x0, 0.0)), c * b * ratio, rtol=1e-4
    )
    # in the last step nothing projects it
    np.testing.assert_allclose(
        moved(lambda k, x, x0: x + jnp.where(k == 1, d, 0.0)), d / alpha[1], rtol=1e-4
    )
    np.testing.assert_array_equal(moved(lambda k, x, x0: x), 0)


def test_a_shifted_deterministic_step_is_coda_s_euler_step():
    """x+ = x^ + (sigma' - sigma) d with the moved x^ and the d from before; alpha = 1."""
    edm = schedules.edm(sigma_max=3.0)
    _, sigma = grid(edm, 3)
    g, x = 0.25, 0.0
    denoise = lambda x, t: 0.2 + 0.5 * x
    for k in range(3):
        high, low = sigma[3 - k], sigma[2 - k]
        d = (x - (0.2 + 0.5 * x)) / high
        x = x + g / (k + 1) + (low - high) * d
    found = samplers.ddim(edm, 3, 0.0, shift=lambda k, x, x0: x + g / (k + 1))(
        jax.random.key(9), denoise, ()
    )
    assert float(found) == pytest.approx(x, rel=1e-5)


# --- keys and refusals ---


def test_the_key_decides_the_sample():
    vp = schedules.vp()
    run = jax.jit(lambda key: samplers.ddpm(vp, 8)(key, gaussian(vp), (4000,)))
    one, other, again = (run(jax.random.key(i)) for i in (0, 1, 0))
    assert abs(np.corrcoef(one, other)[0, 1]) < 4 / np.sqrt(4000)
    np.testing.assert_array_equal(one, again)


@pytest.mark.parametrize("name", SAMPLERS)
def test_no_steps_are_refused(name):
    with pytest.raises(JaxomarlError, match="steps"):
        SAMPLERS[name](schedules.vp(), 0)


def test_the_first_order_solver_is_ddim_with_all_its_arguments():
    vp, mask = schedules.vp(), jnp.array([1.0, 1.0, 0.0])
    given = dict(start=0.5, mask=mask, shift=lambda k, x, x0: x + 0.1 * k)
    one, other = (
        drawn(f(vp, 4, **given), 10, gaussian(vp), (5, 3))
        for f in (samplers.ddim, samplers.dpm_solver)
    )
    np.testing.assert_array_equal(one, other)


# --- the second order ---


def second(schedule, steps, *args, **more):
    return samplers.dpm_solver(schedule, steps, *args, order=2, **more)


def affine(solver, schedule, steps):
    """(b, c) of the samples b + c z, z ~ N(0, 1), under the exact denoiser of N(M, S^2): start 0 and 1 of one draw."""
    run = lambda start: solver(schedule, steps, start)(jax.random.key(11), gaussian(schedule), ())
    zero, one = (float(x) for x in jax.jit(lambda: (run(0.0), run(1.0)))())
    z = jax.random.normal(jax.random.split(jax.random.key(11))[0], ())
    return zero, (one - zero) / float(z)


def second_law(schedule, steps):
    """The multistep rule in double precision, b and c carried apart."""
    alpha, sigma = (v[::-1] for v in grid(schedule, steps))
    with np.errstate(divide="ignore"):
        level = np.log(alpha / sigma)
    x, before = np.array([0.0, np.hypot(alpha[0], sigma[0])]), None
    for k in range(steps):
        gain = alpha[k] * S**2 / (alpha[k] ** 2 * S**2 + sigma[k] ** 2)
        x0 = gain * x + np.array([M - gain * alpha[k] * M, 0.0])
        aim = x0
        if 0 < k < steps - 1:
            ratio = (level[k + 1] - level[k]) / (level[k] - level[k - 1])
            aim = (1 + ratio / 2) * x0 - ratio / 2 * before
        keep = sigma[k + 1] / sigma[k]
        x, before = keep * x + (alpha[k + 1] - alpha[k] * keep) * aim, x0
    return x


@pytest.mark.parametrize(("name", "steps"), [("vp", 20), ("cosine", 20), ("edm", 40)])
def test_the_second_order_is_the_multistep_rule(name, steps):
    schedule = SCHEDULES[name][0]
    np.testing.assert_allclose(
        affine(second, schedule, steps), second_law(schedule, steps), rtol=2e-3, atol=2e-4
    )
    assert (
        abs(second_law(schedule, steps)[1] - affine(samplers.ddim, schedule, steps)[1]) > 5e-3
    )  # not the first's


def test_the_error_falls_with_the_square_of_the_steps():
    """The std of N(M, S^2) under the exact score: halving the steps' size halves or quarters the error."""
    edm, counts = schedules.edm(), (40, 80, 160)
    first, two = (
        np.array([abs(affine(f, edm, k)[1] - S) for k in counts])
        for f in (samplers.dpm_solver, second)
    )
    np.testing.assert_allclose(np.log2(first[:-1] / first[1:]), 1.0, atol=0.05)
    np.testing.assert_allclose(np.log2(two[:-1] / two[1:]), 2.0, atol=0.15)
    assert (two < first / 5).all()


@pytest.mark.parametrize("steps", [1, 2])
def test_without_a_step_between_the_ends_both_orders_are_one(steps):
    vp = schedules.vp()
    one, two = (drawn(f(vp, steps), 12, gaussian(vp), (50,)) for f in (samplers.ddim, second))
    np.testing.assert_array_equal(one, two)


def test_the_second_order_keeps_points_bounds_and_padding():
    vp, mask = schedules.vp(), np.array([1.0, 1.0, 0.0], np.float32)
    point = jnp.array([0.3, -0.8, 0.0])
    found = drawn(
        second(vp, 6, mask=mask), 13, lambda x, t: jnp.broadcast_to(point, x.shape), (5, 3)
    )
    np.testing.assert_array_equal(found, np.tile(point, (5, 1)))
    wild = guidance.masked(guidance.clipped(lambda x, t: 3.0 * x + 0.1, -1.0, 1.0), mask)
    x = drawn(second(vp, 6, mask=mask), 14, wild, (200, 3))
    assert np.abs(x).max() <= 1.0 and (np.abs(x[:, :2]) == 1.0).any() and not x[:, 2].any()


def test_the_third_order_is_refused_with_a_way_out():
    with pytest.raises(JaxomarlError, match=r"order.*expected 1 or 2, found 3.*order=2"):
        samplers.dpm_solver(schedules.vp(), 10, order=3)
