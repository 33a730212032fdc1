"""The games' rules, optima and exact oracles against numbers from elsewhere."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxomarl.base import JaxomarlError
from jaxomarl.envs import catalog, chain, games, matrix, polynomial

KEY = jax.random.key(0)


def play(name, action):
    """The time step after one joint action."""
    return after_one(name)(jnp.asarray(action, jnp.float32))


@functools.cache
def after_one(name):
    env = catalog.make(name).env
    return jax.jit(lambda action: env.step(KEY, env.reset(KEY)[0], action)[1])


def pair(x, y):
    return [[x], [y]]


def first_rows(name, quality, rows):
    """Joint actions [rows, N] and behaviour [rows] of a one-step game's data."""
    e = catalog.make(name).recipes[quality](KEY, rows)
    return np.asarray(e.action[::2, :, 0]), np.asarray(e.behaviour[::2])


@pytest.mark.parametrize(
    ("name", "best"),
    [
        ("games/bandit", pair(-1, -1)),
        ("games/consensus", [[-0.8]] * 3),
        ("games/consensus:n=2,modes=3", pair(0.1, -0.2)),
        ("games/multiplication", pair(1, 1)),
        ("games/twin-peaks", pair(0.375**0.5, 0.375**0.5)),
        ("games/twin-peaks:B=0.5,C=4", pair(-1, -1)),
        ("games/twin-peaks:C=-5", pair(0.375**0.5, -(0.375**0.5))),
        ("games/twin-peaks:C=1", pair(0, 0)),
        ("games/four-gaussians", pair(-0.5, 0.5)),
        ("games/climbing", np.eye(3)[[0, 0]]),
        ("games/additive", np.eye(3)[[1, 1]]),
    ],
)
def test_optimum_is_attained_and_not_exceeded(name, best):
    task = catalog.make(name)
    t = play(name, best)
    assert t.done == 1
    np.testing.assert_allclose(t.reward, task.optimum, rtol=1e-6)
    e = task.recipes[task.quality](KEY, 2000)
    assert float(e.reward.max()) <= task.optimum + 1e-6


# --- bandit ---


@pytest.mark.parametrize(
    ("action", "together"),
    [((0.4, 0.31), 1), ((-0.9, -0.4), 1), ((0.9, 0.3), 0), ((0.9, -0.9), 0), ((0.0, 0.0), 0)],
)
def test_bandit_reward_and_info(action, together):
    t = play("games/bandit", pair(*action))
    np.testing.assert_allclose(t.reward, [action[0] * action[1]] * 2, rtol=1e-6)
    assert t.info["coordinated"] == together
    np.testing.assert_allclose([t.info["action_1"], t.info["action_2"]], action)


@pytest.mark.parametrize(
    ("quality", "std"), [("std0.1", 0.1), ("std0.3", 0.3), ("sqrt0.3", 0.3**0.5)]
)
def test_bandit_data(quality, std):
    rows = 20_000
    action, behaviour = first_rows("games/bandit", quality, rows)
    assert abs(behaviour.mean() - 0.5) < 4 * 0.5 / rows**0.5
    mean, spread = polynomial.clamped_moments(0.8, std)
    side = np.where(behaviour == 0, 1.0, -1.0)[:, None]
    np.testing.assert_allclose((action * side).mean(axis=0), mean, atol=4 * spread / rows**0.5)
    np.testing.assert_allclose((action * side).std(axis=0), spread, rtol=0.03)
    assert abs(np.corrcoef((action * side).T)[0, 1]) < 4 / rows**0.5


@pytest.mark.parametrize("std", [0.1, 0.3, 0.3**0.5])
@pytest.mark.parametrize("kind", ["marginal", "conditional", "joint"])
def test_bandit_eps_is_the_score_of_the_diffused_mixture(kind, std):
    alpha, sigma, prefix, mean = 0.72, 0.69, 0.03, 0.8
    v = alpha**2 * std**2 + sigma**2
    modes = jnp.array([mean, -mean])
    log_mass = -((prefix - modes) ** 2) / (2 * std**2) if kind == "conditional" else jnp.zeros(2)

    def log_density(x):
        return jax.nn.logsumexp(
            log_mass - jnp.sum((x - alpha * modes[:, None]) ** 2, axis=-1) / (2 * v)
        )

    x = jnp.array([[0.3, -0.1], [-1.0, 0.6]]) if kind == "joint" else jnp.array([[0.3], [-1.0]])
    want = -sigma * jax.vmap(jax.grad(log_density))(x)
    got = games.bandit_eps(kind, std)(x, alpha, sigma, prefix)
    np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-6)


def test_bandit_joint_score_is_not_the_marginals_and_an_unknown_kind_is_refused():
    x = jnp.array([0.8, -0.8])
    joint, marginal = (
        games.bandit_eps(kind, 0.1)(x, 0.997, 0.077) for kind in ("joint", "marginal")
    )
    np.testing.assert_allclose(
        marginal, 0.0, atol=0.02
    )  # anti-coordination looks right to each alone
    assert float(jnp.abs(joint).min()) > 3.0  # and wrong to the pair
    with pytest.raises(JaxomarlError, match="kind"):
        games.bandit_eps("jal", 0.1)


@pytest.mark.parametrize("std", [0.1, 0.3, 0.3**0.5])
def test_bandit_own_critic(std):
    other = np.linspace(-4, 4, 4001)
    for a in (-0.7, 0.02, 0.5):
        density = sum(
            np.exp(-((a - m) ** 2 + (other - m) ** 2) / (2 * std**2)) for m in (0.8, -0.8)
        )
        want = a * (other * density).sum() / density.sum()
        np.testing.assert_allclose(games.bandit_own_value(jnp.float32(a), std), want, rtol=1e-4)
        slope = jax.grad(lambda x: games.bandit_own_value(x, std))(a)
        np.testing.assert_allclose(games.bandit_own_gradient(jnp.float32(a), std), slope, rtol=1e-5)


# --- consensus, four Gaussians ---


def test_consensus_decodes_to_the_nearest_level():
    t = play("games/consensus:modes=3", [[0.5], [0.9], [0.8]])
    assert t.info == {"coordinated": 1.0, "level": 2.0}
    t = play("games/consensus:modes=3", [[0.3], [0.9], [0.8]])
    assert t.info == {"coordinated": 0.0, "level": -1.0}
    np.testing.assert_array_equal(t.reward, 0.0)
    t = play("games/consensus:n=2,modes=4,discrete=true", np.eye(4)[[3, 3]])
    assert t.info == {"coordinated": 1.0, "level": 3.0}


def test_consensus_data_without_noise_always_agree():
    action, behaviour = first_rows("games/consensus:n=4,modes=3", "default", 600)
    np.testing.assert_allclose(
        action, np.repeat(np.array([-0.8, 0, 0.8])[behaviour][:, None], 4, axis=1), atol=1e-7
    )
    assert np.all(np.bincount(behaviour, minlength=3) > 150)


@pytest.mark.parametrize(
    ("action", "quadrant", "reward"),
    [((-0.1, 0.2), 0, 0.5), ((0.1, 0.2), 1, 0.2), ((-1, -1), 2, 0.2), ((0.5, -0.2), 3, 0.1)],
)
def test_four_gaussians_pays_the_mass_of_the_quadrant(action, quadrant, reward):
    t = play("games/four-gaussians", pair(*action))
    assert t.info["quadrant"] == quadrant
    np.testing.assert_allclose(t.reward, reward)


def test_four_gaussians_data():
    action, behaviour = first_rows("games/four-gaussians", "default", 20_000)
    np.testing.assert_allclose(np.bincount(behaviour) / 20_000, [0.5, 0.2, 0.2, 0.1], atol=0.015)
    quadrant = (action[:, 0] >= 0) + 2 * (action[:, 1] < 0)
    assert (quadrant == behaviour).mean() > 0.998
    noise = action[behaviour == 0] - [-0.75, 0.75]
    np.testing.assert_allclose(
        noise.std(axis=0), polynomial.clamped_moments(0.75, 0.05**0.5)[1], rtol=0.03
    )


# --- polynomial and matrix games ---


@pytest.mark.parametrize(
    "weights", [(1, 4, 5), (0, 0, 1), (1, 0.5, 4), (1, 4, 1), (1, 4, -5), (0.5, 0, 3), (0, 2, 0)]
)
def test_twin_peaks_optimum_is_that_of_a_fine_grid(weights):
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 401)] * 2), axis=-1)
    values = np.asarray(polynomial.polynomial(jnp.asarray(grid, jnp.float32), *map(float, weights)))
    where, best = polynomial.twin_peaks_optimum(*map(float, weights))
    np.testing.assert_allclose(best, values.max(), atol=1e-4)
    np.testing.assert_allclose(
        polynomial.polynomial(jnp.array(where), *map(float, weights)), best, atol=1e-6
    )


@pytest.mark.parametrize(
    ("mean", "std"), [(0.2, 0.3), (-0.64, 0.1), (0.6, 0.3), (0.2, 0.5), (0.8, 0.0), (1.5, 0.0)]
)
def test_clamped_moments_are_those_of_clamped_draws(mean, std):
    x = np.clip(mean + std * np.random.default_rng(0).standard_normal(200_000), -1, 1)
    np.testing.assert_allclose(
        polynomial.clamped_moments(mean, std), (x.mean(), x.std()), atol=0.003
    )


def test_polynomial_data():
    for name, centre, std in (
        ("games/multiplication", (-0.64, 0.65), 0.1),
        ("games/twin-peaks", (0.2, 0.2), 0.3),
    ):
        action, _ = first_rows(name, "gaussian", 20_000)
        want = np.array([polynomial.clamped_moments(m, std) for m in centre])
        np.testing.assert_allclose(action.mean(axis=0), want[:, 0], atol=0.01)
        np.testing.assert_allclose(action.std(axis=0), want[:, 1], rtol=0.03)
        action, _ = first_rows(name, "uniform", 20_000)
        np.testing.assert_allclose(action.mean(axis=0), 0.0, atol=0.02)
        np.testing.assert_allclose(action.std(axis=0), 3**-0.5, rtol=0.02)


def test_brud_gradient_is_the_average_of_automatic_ones():
    action = jax.random.uniform(KEY, (500, 2), minval=-1.0)
    theta, weights = jnp.array([0.3, -0.6]), (1.0, 4.0, 5.0)

    def own(i):
        def value(x):
            return jnp.mean(polynomial.polynomial(action.at[:, i].set(x), *weights))

        return jax.grad(value)(theta[i])

    got = polynomial.brud_gradient(theta, action.mean(axis=0), action.std(axis=0), *weights)
    np.testing.assert_allclose(got, [own(0), own(1)], rtol=1e-4)


def test_matrix_games_pay_their_entries():
    for name, payoff in (("games/climbing", matrix.CLIMBING), ("games/additive", matrix.ADDITIVE)):
        for i in range(3):
            for j in range(3):
                t = play(name, np.eye(3)[[i, j]])
                np.testing.assert_array_equal(t.reward, payoff[i, j])
                assert t.info["optimal"] == (payoff[i, j] == payoff.max())
    e = catalog.make("games/climbing").recipes["uniform"](KEY, 9000)
    index = np.asarray(e.action[::2]).argmax(axis=-1)
    np.testing.assert_allclose(np.bincount(index[:, 0] * 3 + index[:, 1]) / 9000, 1 / 9, atol=0.015)


# --- chain ---


def test_chain_time_out_is_not_a_termination_and_leaving_is():
    env = catalog.make("games/chain").env
    reset, step = jax.jit(env.reset), jax.jit(env.step)
    state, t = reset(KEY)
    for _ in range(env.spec.horizon + 3):
        state, t = step(KEY, state, jnp.array(pair(1.0, -1.0)))
        assert t.done == 0
        assert t.obs[0, 0] == 1
    for k in range(5):
        assert t.done == 0
        state, t = step(KEY, state, jnp.array(pair(-0.2, -0.4)))
        np.testing.assert_array_equal(t.reward, float(k == 4))
    assert t.done == 1
    assert t.info["solved"] == 1
    assert not np.any(t.obs)  # not a reset observation
    _, t = step(KEY, state, jnp.array(pair(1.0, 1.0)))
    np.testing.assert_array_equal(t.reward, 0.0)  # paid once


def test_chain_data_replays_through_the_environment():
    task = catalog.make("games/chain:length=3,horizon=6")
    e = jax.tree.map(np.asarray, task.recipes["random"](KEY, 200))
    reset, step = jax.jit(task.env.reset), jax.jit(task.env.step)
    first = np.asarray(reset(KEY)[1].obs)
    state = None
    for i in range(len(e.done)):
        if e.step[i] == 0:
            state, t = reset(KEY)
        np.testing.assert_array_equal(e.obs[i], t.obs)
        np.testing.assert_array_equal(e.state[i], t.state)
        if e.left[i] > 0:
            state, t = step(KEY, state, jnp.asarray(e.action[i]))
            np.testing.assert_array_equal(e.reward[i], t.reward)
            assert e.done[i] == t.done
        elif e.done[i - 1]:
            assert np.any(e.obs[i] != first)
    assert {0.0, 1.0} == set(e.done[e.left == 1])  # both kinds of end occur


@pytest.mark.parametrize("agree", [0.5, 0.9])
def test_chain_values_are_the_datas(agree):
    length, gamma = 4, 0.9
    values = chain.chain_values(length, agree, gamma)
    # the Bellman equation
    np.testing.assert_allclose(
        values.v, agree * values.q_agree + (1 - agree) * values.q_disagree, rtol=1e-12
    )
    # a long horizon leaves nothing to bootstrap: mean discounted return of the data
    task = catalog.make(f"games/chain:length={length},agree={agree},horizon=60")
    e = jax.tree.map(np.asarray, task.recipes["random"](KEY, 8000))
    together = e.action[:, 0, 0] * e.action[:, 1, 0] > 0
    np.testing.assert_allclose(together[e.left > 0].mean(), agree, atol=0.02)
    got = (gamma ** e.step[e.reward[:, 0] > 0]).sum() / (e.step == 0).sum()
    np.testing.assert_allclose(got, values.v[0], atol=0.02)


def test_chain_values_in_the_small():
    v, agree, disagree = chain.chain_values(2, 0.5, 0.9)
    np.testing.assert_allclose(v, [0.5 * 0.9 / 0.55 * 0.5 / 0.55, 0.5 / 0.55])
    np.testing.assert_allclose(agree, [0.9 * v[1], 1.0])
    np.testing.assert_allclose(disagree, 0.9 * v)
    np.testing.assert_allclose(chain.chain_values(3, 1.0, 0.5).v, [0.25, 0.5, 1.0])
    with pytest.raises(JaxomarlError, match="less than 1"):
        chain.chain_values(3, 0.0, 1.0)
