"""Behaviour models: who hears whom, what the family's regularisers agree on, and the way that they point."""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from batches import repeated_batch
from starts import numpy_start

from jaxomarl.algorithms import brpo, omsd
from jaxomarl.base import JaxomarlError, Spec
from jaxomarl.data.catalog import load
from jaxomarl.data.dataset import sample_transitions
from jaxomarl.envs import catalog, games
from jaxomarl.networks.mlp import Network
from jaxomarl.optim import create
from jaxomarl.stages import scores
from jaxomarl.stages.clone import Policies, policy_optimiser

SPEC = Spec((3, 2, 3), (2, 1, 2), state_dim=4, horizon=1)
SMALL = {
    "score_width": 16,
    "score_blocks": 1,
    "score_embedding": 8,
    "score_steps": 10,
    "score_components": 3,
}
BATCH = 6
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def some(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def batch_of(spec, size, obs=None, action=None):
    n = spec.agents
    obs = some(1, size, n, spec.obs_width) * spec.obs_mask if obs is None else obs
    action = some(2, size, n, spec.act_width) * spec.act_mask / 2 if action is None else action
    state, line = some(3, size, spec.state_dim), jnp.zeros(size)
    wide = jnp.zeros_like(action)
    return repeated_batch(obs, state, action, line, wide)


def filled(init):
    """The state that `init` makes, with networks drawn by numpy; a start reads no data."""
    data = load(catalog.make("games/bandit"), rows=2)[0]
    return jax.tree.map(jnp.asarray, numpy_start(init, {}, data))


# --- prefixes (A.9(3), H row 22) ---


MODELS = [
    {},
    # long: the mixture stands for the order, and a policy's noised prefix is the clean one, as a test below says
    pytest.param({"order": "2-0-1"}, marks=pytest.mark.long),
    {"order": "2-0-1", "score_model": "mixture"},
    pytest.param({"order": "2-0-1", "score_prefix": "noised"}, marks=pytest.mark.long),
    {"order": "2-0-1", "score_prefix": "diffused", "score_predict": "edm"},
]


@pytest.mark.parametrize("fields", MODELS)
def test_an_agent_hears_those_before_it_and_no_one_else(fields):
    cfg = omsd.Config(**fields, **SMALL)
    order = cfg.order
    model = scores.behaviour_model(SPEC, cfg, "conditional")
    past = {"scores-conditional": filled(model.algorithm.init)}
    b, t, x = batch_of(SPEC, BATCH), jnp.linspace(0.1, 0.9, BATCH), some(4, BATCH, 2)
    eps = jit(lambda i, action: model.agent(past, i, x, t, b.obs, b.state, action))
    turns = tuple(map(int, order.split("-"))) if order else (0, 1, 2)
    for place, i in enumerate(turns):
        base = np.asarray(eps(i, b.action))
        assert np.all(np.any(base != 0, axis=0) == (SPEC.act_mask[i] == 1))
        for j in range(3):
            moved = np.asarray(eps(i, b.action.at[:, j, 0].add(0.3)))
            if j in turns[:place]:
                assert np.all(np.abs(moved - base)[:, SPEC.act_mask[i] == 1] > 1e-6), (i, j)
            else:
                np.testing.assert_array_equal(moved, base, err_msg=f"{i} hears {j}")
    together = jit(
        lambda action: model.every(past, x[:, None].repeat(3, 1), t, b.obs, b.state, action)
    )(b.action)
    for i in range(3):
        np.testing.assert_allclose(together[:, i], eps(i, b.action), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("prefix", scores.PREFIXES)
def test_training_tells_an_agent_of_earlier_actions_alone(prefix):
    """A step on data whose agent j differs leaves the models of all agents before j as they were, bitwise."""
    cfg = omsd.Config(order="2-0-1", score_dropout=0.0, score_prefix=prefix, **SMALL)
    model = scores.behaviour_model(SPEC, cfg, "conditional")
    state, b = filled(model.algorithm.init), batch_of(SPEC, BATCH)
    update = jit(
        lambda action: (
            model.algorithm.update(jax.random.key(1), state, {}, b._replace(action=action))[
                0
            ].params
        )
    )
    base = update(b.action)
    for j, changed in ((2, {2, 0, 1}), (0, {0, 1}), (1, {1})):
        other = update(b.action.at[:, j, 0].add(0.3))
        differs = [
            np.any(x != y, axis=tuple(range(1, x.ndim)))
            for x, y in zip(*map(leaves, (base, other)), strict=True)
        ]
        assert set(np.flatnonzero(np.any(differs, axis=0))) == changed, j


def leaves(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def test_policies_actions_are_diffused_only_where_the_data_were():
    """With the agent's own time and the others' noise: alpha(t_i) a_j + sigma(t_i) z_j."""
    action, z, t = some(1, 4, 3, 2), some(2, 4, 3, 2), jnp.array([0.02, 0.3, 0.6, 0.98])
    prefix = {
        p: scores.policy_prefix(omsd.Config(score_prefix=p), action, t, z) for p in scores.PREFIXES
    }
    alpha, sigma = (x[:, None, None] for x in vp(t))
    np.testing.assert_array_equal(prefix["clean"], action)
    np.testing.assert_array_equal(prefix["noised"], action)
    np.testing.assert_allclose(prefix["diffused"], alpha * action + sigma * z, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "way_out"),
    [
        ({"score_model": "mixture", "score_prefix": "diffused"}, "score_prefix|score-prefix"),
        ({"score_prefix": "noised", "prefix_level": 0.7}, "prefix_level|prefix-level"),
        ({"score_prefix": "near"}, "score_prefix|score-prefix"),
        ({"score_predict": "v"}, "score_predict|score-predict"),
    ],
)
def test_prefixes_and_predictions_that_do_not_exist_are_refused(fields, way_out):
    with pytest.raises(JaxomarlError, match=way_out):
        omsd.check(SPEC, omsd.Config(**fields), None)


# --- EDM's preconditioning ---

EDM = omsd.Config(score_predict="edm", score_dropout=0.0, **SMALL)


def test_a_network_that_says_nothing_is_right_for_gaussian_data():
    """EDM's skip alone: -sigma times the score of N(0, SIGMA_DATA^2), diffused."""
    x, t = some(1, 5, 2), jnp.array([0.001, 0.02, 0.3, 0.7, 1.0])
    silent = Network(lambda key: (), lambda params, x, t, cond, key: jnp.zeros_like(x))
    eps = scores.predict(silent, EDM, (), x, t, x, jnp.ones(2))
    alpha, sigma = (y[:, None] for y in vp(t))
    exact = sigma * x / (alpha**2 * scores.SIGMA_DATA**2 + sigma**2)
    np.testing.assert_allclose(eps, exact, rtol=1e-4, atol=1e-6)


def test_the_preconditioned_loss_is_the_networks_own_squared_error():
    """The network's target (x0 - c_skip x) / c_out, with x in the space of alpha = 1: Karras et al. 2022, eq. 8."""
    x0, z, t, said = (
        some(1, 5, 2) / 2,
        some(2, 5, 2),
        jnp.array([0.01, 0.1, 0.3, 0.6, 0.9]),
        some(3, 5, 2),
    )
    alpha, sigma = (y[:, None] for y in vp(t))
    x, std = alpha * x0 + sigma * z, scores.SIGMA_DATA
    noise = sigma / alpha
    c_skip, c_out = std**2 / (noise**2 + std**2), noise * std / jnp.sqrt(noise**2 + std**2)
    target = (x0 - c_skip * x / alpha) / c_out
    net = Network(lambda key: (), lambda params, x, t, cond, key: said)
    eps = scores.predict(net, EDM, (), x, t, x, jnp.ones(2))
    loss = scores.loss_weight(EDM, t)[:, None] * (eps - z) ** 2
    np.testing.assert_allclose(loss, (said - target) ** 2, rtol=2e-3, atol=1e-4)


# --- the four regularisers, each through its own stage 3 ---

TWO = Spec((1, 1), (1, 1), state_dim=1, horizon=1)
VARIANTS = {
    "brpo-ind": brpo.IND,
    "brpo-ctde": brpo.CTDE,
    "brpo-jal": brpo.JAL,
    "joint-score": brpo.JOINT_SCORE,
}
START = (0.5, -0.5)


def vp(t):
    log_alpha = -0.25 * t**2 * (20 - 0.1) - 0.5 * t * 0.1
    return jnp.exp(log_alpha), jnp.sqrt(-jnp.expm1(2 * log_alpha))


def regularisers(mean, cov, clean):
    """(conditional, marginal, joint) in the signatures of `Scores`; `clean` gives -score at the action itself."""
    mean, cov = np.asarray(mean, np.float32), np.asarray(cov, np.float32)
    slope = cov[0, 1] / cov[0, 0]
    left = cov[1, 1] - slope * cov[0, 1]

    def scale(t):
        return (
            (jnp.ones_like(t), jnp.zeros_like(t), jnp.ones_like(t)) if clean else (*vp(t), vp(t)[1])
        )

    def conditional(past, i, x, t, obs, state, action):
        alpha, sigma, out = (s[:, None] for s in scale(t))
        told = jnp.where(i == 0, mean[0], mean[1] + slope * (action[:, 0] - mean[0]))
        return out * (x - alpha * told) / (alpha**2 * jnp.where(i == 0, cov[0, 0], left) + sigma**2)

    def marginal(past, x, t, obs, state, action):
        alpha, sigma, out = (s[..., None] for s in scale(t))
        return out * (x - alpha * mean[:, None]) / (alpha**2 * np.diag(cov)[:, None] + sigma**2)

    def joint(past, x, t, obs, state, action):
        alpha, sigma, out = (s[:, 0, None, None] for s in scale(t))
        precision = jnp.linalg.inv(alpha**2 * cov + sigma**2 * jnp.eye(2))
        return (
            out[..., 0] * jnp.einsum("bij,bj->bi", precision, x[..., 0] - alpha[..., 0] * mean)
        )[..., None]

    return conditional, marginal, joint


def fields(cfg, mean, cov, samples=1, size=64, names=("omsd", *VARIANTS)):
    """System -> the regulariser's pull at START, [samples, 2]: one plain step of beta 0 with rate 1 in the bias.

    JAL's one policy shares no parameters between its two outputs here, so its pull is read alike.
    """
    conditional, marginal, joint = regularisers(mean, cov, cfg.score_model == "mixture")
    q = lambda past, obs, state, action: jnp.sum(action, axis=(1, 2))
    b, keys = (
        batch_of(TWO, size, obs=jnp.zeros((size, 2, 1))),
        jax.random.split(jax.random.key(0), samples),
    )
    tx = policy_optimiser(cfg)
    bias = jnp.arctanh(jnp.array(START))
    out = {}
    for name in names:
        if name == "omsd":
            algorithm = omsd.policy(TWO, dataclasses.replace(cfg, sweep="jacobi"), conditional, q)
        else:
            scores = joint if VARIANTS[name].scores == "joint" else marginal
            algorithm = brpo.policy(TWO, cfg, VARIANTS[name], scores, q)
        shape = (2,) if name == "brpo-jal" else (2, 1)
        first = {
            "out": {
                "kernel": jnp.zeros((2, 2) if name == "brpo-jal" else (2, 1, 1)),
                "bias": bias.reshape(shape),
            }
        }
        net = jax.vmap(partial(create, tx))(first) if name == "omsd" else create(tx, first)
        step = lambda key, net=net, update=algorithm.update: update(key, Policies(net), {}, b)[
            0
        ].actor.params["out"]["bias"]
        moved = np.asarray(jit(jax.vmap(step))(keys)).reshape(samples, 2) - np.asarray(bias)
        out[name] = moved / (1 - np.array(START) ** 2)
    return out


PLAIN = omsd.Config(
    beta=0.0,
    policy_optimiser="sgd",
    policy_lr=1.0,
    policy_anneal=False,
    policy_width=0,
    policy_steps=10,
    policy_batch=64,
)


def test_regularisers_agree_on_independent_agents():
    """A.9(7): at one time for all agents, the same draws give the same step, whichever model regularises it."""
    cfg = dataclasses.replace(PLAIN, weighting="delta")
    pull = fields(cfg, (0.2, -0.3), np.diag([0.09, 0.25]), samples=3)
    for name, value in pull.items():
        np.testing.assert_allclose(value, pull["omsd"], rtol=2e-4, atol=1e-5, err_msg=name)
    assert np.abs(pull["omsd"]).min() > 1e-3


@pytest.mark.long
def test_regularisers_agree_on_independent_agents_over_all_times():
    """With times of their own for agents, or one for both, the agreement is one of means."""
    cfg, means, variances = (
        dataclasses.replace(PLAIN, control_variate=True),
        (-0.8, 0.7),
        (0.09, 0.25),
    )
    pull = fields(cfg, means, np.diag(variances), samples=400)
    t = np.linspace(0.02, 0.98, 4001)
    alpha, sigma = (np.asarray(s, float) for s in vp(t))
    exact = []
    for a, m, v in zip(START, means, variances, strict=True):
        exact.append(
            -np.trapezoid(sigma**2 * sigma * alpha * (a - m) / (alpha**2 * v + sigma**2), t) / 0.96
        )
    for name, value in pull.items():
        error = value.std(axis=0, ddof=1) / 20
        np.testing.assert_array_less(
            np.abs(value.mean(axis=0) - exact), 4 * error + 1e-5, err_msg=name
        )
        np.testing.assert_array_less(4 * error, 0.2 * np.abs(exact))


def test_regularisers_differ_on_correlated_agents_as_derived():
    """A.1's check, rho = 0.8, through the stage itself at half its actions: scores (-1, 5), (-5, 5) and (-1, 1)."""
    pull = fields(
        dataclasses.replace(PLAIN, score_model="mixture"), (0.0, 0.0), [[1, 0.8], [0.8, 1]]
    )
    half = {
        "omsd": (-1, 5),
        "brpo-jal": (-5, 5),
        "joint-score": (-5, 5),
        "brpo-ind": (-1, 1),
        "brpo-ctde": (-1, 1),
    }
    for name, score in half.items():
        np.testing.assert_allclose(pull[name][0], np.array(score) / 2, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("weighting", "low"),
    [
        ("score", 0.02),
        *(pytest.param(name, 0.02, marks=pytest.mark.long) for name in ("vds", "delta")),
    ],
)
def test_the_control_variate_changes_the_variance_and_not_the_mean(weighting, low):
    """A.9(8): the two differ by w z, of mean zero.

    Subtracting z helps where sigma^2 > alpha^2 s^2, most of eps being z there, and hurts at smaller noise: at one time,
    by (alpha^2 s^2 / sigma^2)^2 in variance.
    """
    pulls, variances = [], np.array([0.09, 0.25])
    for control_variate in (False, True):
        cfg = dataclasses.replace(
            PLAIN, weighting=weighting, control_variate=control_variate, t_min=low
        )
        pulls.append(
            fields(cfg, (0.2, -0.3), np.diag(variances), samples=400, names=("omsd",))["omsd"]
        )
    plain, less = pulls
    difference = plain - less
    error = difference.std(axis=0, ddof=1) / 20
    assert np.all(np.abs(difference.mean(axis=0)) < 4 * error)
    ratio = less.var(axis=0) / plain.var(axis=0)
    if weighting == "delta":
        alpha, sigma = (float(s) for s in vp(0.02))
        np.testing.assert_allclose(ratio, (alpha**2 * variances / sigma**2) ** 2, rtol=0.01)
    elif weighting == "score":
        assert np.all(ratio > 2)
    else:
        assert np.all(ratio < 0.5)


# --- sign (A.9(9)) ---


@pytest.mark.parametrize(
    "weighting",
    ["vds", "score", *(pytest.param(name, marks=pytest.mark.long) for name in ("stable", "delta"))],
)
def test_a_step_moves_actions_down_the_noise_prediction(weighting):
    """With beta 0, each action column moves against its column of eps, in proportion to it and to a positive weight."""
    cfg = dataclasses.replace(PLAIN, weighting=weighting, policy_lr=1e-3)
    spec, table = (
        Spec((1, 1), (2, 2), state_dim=1, horizon=1),
        jnp.array([[1.0, -2.0], [-0.5, 3.0]]),
    )
    eps = lambda past, i, x, t, obs, state, action: jnp.broadcast_to(table[i], x.shape)
    algorithm = omsd.policy(
        spec, cfg, eps, lambda past, obs, state, action: jnp.sum(action, axis=(1, 2))
    )
    params = {"out": {"kernel": some(5, 2, 1, 2), "bias": some(6, 2, 2) / 2}}
    b = batch_of(spec, 64, obs=jnp.ones((64, 2, 1)))
    net = jax.vmap(partial(create, policy_optimiser(cfg)))(params)
    after, _ = jit(algorithm.update)(jax.random.key(0), Policies(net), {}, b)
    a, moved = (
        np.tanh(p["out"]["kernel"][:, 0] + p["out"]["bias"]) for p in (params, after.actor.params)
    )
    assert np.all((moved - a) * table < 0)
    down = np.asarray(params["out"]["bias"] - after.actor.params["out"]["bias"]) / cfg.policy_lr
    w = down / (table * (1 - a**2))  # the batch's mean weight, the same for both columns
    np.testing.assert_allclose(w[:, 0], w[:, 1], rtol=0.01)
    mean, spread = {
        "vds": (0.73329, 0.34),
        "stable": (1, 0),
        "score": (0.94466, 1.72),
        "delta": (12.912, 0),
    }[weighting]
    np.testing.assert_allclose(
        w, mean, rtol=0.01, atol=4 * spread / 8
    )  # std of w over t ~ U(0.02, 0.98), 64 times


# --- learned models ---

BANDIT = catalog.make("games/bandit").env.spec


def fitted(cfg, quality, steps, seed=0):
    """A conditional behaviour model after a short training on the bandit's data, and the data."""
    data, _ = load(catalog.make("games/bandit"), quality, rows=4096)
    model = scores.behaviour_model(BANDIT, cfg, "conditional")

    @jax.jit
    def train(key, data):
        def step(state, key):
            k_batch, k_update = jax.random.split(key)
            return model.algorithm.update(
                k_update, state, {}, model.algorithm.batch(k_batch, state, data)
            )

        first = model.algorithm.init(key, {}, data)
        return jax.lax.scan(step, first, jax.random.split(key, steps))

    state, metrics = train(jax.random.key(seed), data)
    return model, {"scores-conditional": state}, metrics["score_loss"], data


SHORT = {
    "score_width": 32, "score_blocks": 1, "score_embedding": 32, "score_batch": 128, "score_steps": 1500,
    "score_lr": 4e-3, "score_dropout": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def diffusion():
    cfg = omsd.Config(**SHORT)
    return fitted(cfg, "std0.3", cfg.score_steps)


TIMES = np.linspace(0.3, 0.7, 17)


def test_a_trained_model_follows_the_first_agent(diffusion):
    """A.9(10): the implied mean of a_2 is near the mode on a_1's side, and turns over within a narrow band at 0."""
    model, past, _, _ = diffusion
    size, t = len(TIMES), jnp.asarray(TIMES, jnp.float32)
    a_1 = jnp.array([-0.9, -0.8, -0.7, -0.5, -0.1, 0.1, 0.5, 0.7, 0.8, 0.9])

    @jit
    def learned(a):
        action = jnp.stack([jnp.full(size, a), jnp.zeros(size)], axis=1)[..., None]
        ones = jnp.ones((size, 2, 1))
        return model.agent(past, jnp.asarray(1), jnp.zeros((size, 1)), t, ones, ones[:, 0], action)[
            :, 0
        ]

    alpha, sigma = vp(t)
    got = np.stack([learned(a) for a in a_1])
    exact = np.asarray(
        games.bandit_eps("conditional", 0.3)(jnp.zeros(size), alpha, sigma, a_1[:, None])
    )
    implied, want = (
        np.mean(-sigma * eps / alpha, axis=1) for eps in (got, exact)
    )  # the clean prediction at x = 0
    np.testing.assert_array_equal(np.sign(implied), np.sign(a_1))
    far_out = np.abs(a_1) >= 0.5
    np.testing.assert_allclose(np.abs(want[far_out]), 0.8, atol=0.05)
    np.testing.assert_allclose(implied[far_out], want[far_out], atol=0.2)

    slope = lambda eps, low, high: np.abs(eps[high] - eps[low]).mean() / float(a_1[high] - a_1[low])
    middle = slope(got, 4, 5)
    assert middle > 0.3 * slope(exact, 4, 5)  # a short training blurs the step
    assert middle > 5 * max(slope(got, 0, 2), slope(got, 7, 9))


def test_preconditioning_keeps_the_clean_prediction_where_noise_is_large(diffusion):
    """After equal updates, the mean of agent 1's two modes that is left of x_0 at t = 0.9 is nearer to 0, the truth."""
    cfg = omsd.Config(**{**SHORT, "score_predict": "edm"})
    t = jnp.full(64, 0.9)
    alpha, sigma = vp(t)
    ones, x = jnp.ones((64, 2, 1)), jnp.linspace(-2, 2, 64)[:, None]

    @partial(jax.jit, static_argnums=0)
    def error(model, past):
        eps = model.agent(past, jnp.asarray(0), x, t, ones, ones[:, 0], 0 * ones)
        exact = games.bandit_eps("marginal", 0.3)(x[:, 0], alpha, sigma)
        return jnp.sqrt(jnp.mean((sigma / alpha * (eps[:, 0] - exact)) ** 2))

    noise = error(diffusion[0], diffusion[1])
    edm = error(*fitted(cfg, "std0.3", cfg.score_steps)[:2])
    assert edm < 0.1
    assert edm < 0.5 * noise, (edm, noise)


def test_a_trained_models_loss_is_near_the_least_possible(diffusion):
    """The loss over t ~ U(1e-3, 1) of the exact conditional models, by quadrature over the same data."""
    _, _, losses, data = diffusion
    action = np.asarray(data.action)[::2, :, 0][:1000]
    rng = np.random.default_rng(0)
    t = jnp.asarray(np.linspace(1e-3, 1.0, 64), jnp.float32)[:, None]
    alpha, sigma = vp(t)
    z = jnp.asarray(rng.standard_normal((2, 64, 1000)), jnp.float32)
    least = 0.0
    for i, prefix in ((0, 0.0), (1, jnp.asarray(action[:, 0]))):
        eps = games.bandit_eps("conditional", 0.3)(
            alpha * action[:, i] + sigma * z[i], alpha, sigma, prefix
        )
        least += float(jnp.mean((eps - z[i]) ** 2)) / 2
    end = np.asarray(losses)[-300:]
    assert end.mean() - least < 0.05
    assert end.mean() - least > -4 * end.std() / 300**0.5 - 0.01
    assert np.asarray(losses)[:3].mean() > 3 * least


# --- mixture density ---


@pytest.fixture(scope="module")
def density():
    cfg = omsd.Config(
        score_model="mixture",
        score_width=32,
        score_batch=128,
        score_steps=800,
        score_lr=4e-3,
        score_components=4,
    )
    return cfg, *fitted(cfg, "std0.3", 800)


def log_density(params, x, cond, components):
    """The conditional mixture written out: log sum_k p_k prod_d N(x_d; m_kd, s_kd)."""
    h = cond
    for name in ("Dense_0", "Dense_1"):
        h = np.maximum(h @ params[name]["kernel"] + params[name]["bias"], 0)
    raw = h @ params["out"]["kernel"] + params["out"]["bias"]
    logits, mean, scale = (
        raw[:, :components],
        raw[:, components : 2 * components],
        raw[:, 2 * components :],
    )
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    std = np.log1p(np.exp(scale)) + 1e-4
    parts = p * np.exp(-0.5 * ((x - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
    score = (parts * (mean - x) / std**2).sum(axis=1) / parts.sum(axis=1)
    return np.log(parts.sum(axis=1)), score


def test_the_mixtures_score_is_the_formula(density):
    cfg, model, past, _, _ = density
    rng, size = np.random.default_rng(0), 200
    action, x = rng.uniform(-1, 1, (size, 2, 1)), rng.uniform(-1, 1, (size, 1))
    ones = jnp.ones((size, 2, 1))
    eps = jit(
        lambda i, x, action: model.agent(past, i, x, jnp.zeros(size), ones, ones[:, 0], action)
    )
    for i in (0, 1):
        params = jax.tree.map(
            lambda p, i=i: np.asarray(p[i], np.float64), past["scores-conditional"].params
        )
        heard = action[..., 0] * np.array([float(i == 1), 0.0])
        _, score = log_density(
            params, x, np.concatenate([np.ones((size, 1)), heard], axis=1), cfg.score_components
        )
        got = eps(jnp.asarray(i), jnp.asarray(x, jnp.float32), jnp.asarray(action, jnp.float32))
        np.testing.assert_allclose(got[:, 0], -score, rtol=2e-3, atol=2e-3)


def test_the_mixture_fits_the_data(density):
    """Given a_1 on a mode, the fitted density of a_2 has the mean and spread of the clamped data on that side."""
    cfg, _, past, _, data = density
    params = jax.tree.map(lambda p: np.asarray(p[1], np.float64), past["scores-conditional"].params)
    action = np.asarray(data.action)[::2, :, 0]
    x = np.linspace(-2.5, 2.5, 4001)
    for a_1 in (-0.8, 0.8):
        cond = np.broadcast_to([1.0, a_1, 0.0], (len(x), 3))
        p = np.exp(log_density(params, x[:, None], cond, cfg.score_components)[0])
        np.testing.assert_allclose(np.trapezoid(p, x), 1.0, atol=0.01)
        mine = action[np.sign(action[:, 0]) == np.sign(a_1), 1]
        np.testing.assert_allclose(np.trapezoid(p * x, x), mine.mean(), atol=0.1)
        np.testing.assert_allclose(
            np.trapezoid(p * (x - mine.mean()) ** 2, x) ** 0.5, mine.std(), atol=0.1
        )


def test_stage_three_climbs_the_mixtures_density(density):
    """A.6: the released loss has the wrong sign. A step at beta 0 raises log mu_i by rate |d log mu / d theta|^2."""
    cfg, model, past, _, data = density
    cfg = dataclasses.replace(
        cfg, beta=0.0, policy_optimiser="sgd", policy_anneal=False, policy_width=0, policy_lr=1e-3
    )
    q = lambda past, obs, state, action: jnp.sum(action, axis=(1, 2))
    algorithm = omsd.policy(BANDIT, cfg, model.agent, q)
    tx = policy_optimiser(cfg)
    update = jax.jit(lambda state, b: algorithm.update(jax.random.key(0), state, past, b)[0])
    b = sample_transitions(jax.random.key(1), data, 8)
    for start in ((0.5, -0.48), (-0.2, -0.3), (0.1, 0.9)):
        bias = jnp.arctanh(jnp.array(start))[:, None]
        params = {"out": {"kernel": jnp.zeros((2, 1, 1)), "bias": bias}}
        after = update(Policies(jax.vmap(partial(create, tx))(params)), b).actor.params["out"]
        a = np.tanh(np.asarray(bias, np.float64)[:, 0])
        moved = np.tanh(
            np.asarray(after["bias"], np.float64)[:, 0]
            + np.asarray(after["kernel"], np.float64)[:, 0, 0]
        )
        for i in (0, 1):
            net = jax.tree.map(
                lambda p, i=i: np.asarray(p[i], np.float64), past["scores-conditional"].params
            )
            cond = np.array([[1.0, float(i == 1) * moved[0], 0.0]])
            before, score = log_density(net, a[i : i + 1, None], cond, cfg.score_components)
            now, _ = log_density(net, moved[i : i + 1, None], cond, cfg.score_components)
            gain = (
                2 * cfg.policy_lr * (score[0] * (1 - a[i] ** 2)) ** 2
            )  # kernel and bias both move
            assert now > before
            np.testing.assert_allclose(now - before, gain, rtol=0.1, atol=1e-6)
