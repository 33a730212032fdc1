"""Policy stages: which parameters each loss moves, which gradient it follows, what the options do.

The letters are those of the equations: A.5, A.9(4).
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from starts import numpy_start

from jaxomarl.algorithms import REGISTRY, brpo, omsd
from jaxomarl.base import Batch, JaxomarlError, Spec
from jaxomarl.data.catalog import load
from jaxomarl.data.stats import Stats
from jaxomarl.envs import catalog
from jaxomarl.stages import critic, score_regularised, scores

SPEC = Spec((3, 2, 3), (2, 1, 2), state_dim=4, horizon=1)
SIZE, N = 10, 3
CFG = omsd.Config(
    critic_width=8, score_width=8, score_blocks=1, score_embedding=8,
    policy_width=8, policy_lr=0.1, policy_batch=SIZE, policy_optimiser="sgd", policy_anneal=False,
    beta=0.5, sweep="jacobi", chunk=1, score_steps=1, critic_steps=1, policy_steps=1,
)  # fmt: skip
VARIANTS = {
    "brpo-ind": brpo.IND,
    "brpo-ctde": brpo.CTDE,
    "brpo-jal": brpo.JAL,
    "joint-score": brpo.JOINT_SCORE,
}
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def some(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def batch_of():
    obs = some(1, SIZE, N, 3) * SPEC.obs_mask
    action = some(2, SIZE, N, 2) * SPEC.act_mask
    state = some(3, SIZE, 4)
    per_row = jnp.zeros(SIZE)
    per_agent = jnp.zeros((SIZE, N))
    per_action = jnp.zeros((SIZE, N, 2))
    return Batch(
        obs=obs,
        state=state,
        action=action,
        reward=per_agent,
        team_reward=per_row,
        next_obs=obs,
        next_state=state,
        next_action=per_action,
        done=per_row,
        last=per_row,
        known=per_row,
        alive=per_agent,
        available=per_action,
        next_available=per_action,
    )


def filled(init):
    """The state that `init` makes, with networks drawn by numpy; a start reads no data."""
    data = load(catalog.make("games/bandit"), rows=2)[0]
    return jax.tree.map(jnp.asarray, numpy_start(init, {}, data))


def stages(name, cfg):
    """The stages of a system, whose own config takes the fields of `cfg` that it has."""
    if name == "omsd":
        return REGISTRY[name].pipeline(SPEC, cfg, None)
    kind = brpo.OwnConfig if name == "brpo-ind" else score_regularised.Config
    values = {f.name: getattr(cfg, f.name) for f in dataclasses.fields(kind)}
    if name == "brpo-ind":
        values["reward"] = "own"
    return REGISTRY[name].pipeline(SPEC, kind(**values), None)


def made(name, cfg):
    """Stage 3, a state of it, and finished stages."""
    one, two, last = stages(name, cfg)
    past = {s.name: filled(s.algorithm.init) for s in (one, two)}
    return last.algorithm, filled(last.algorithm.init), past


def leaves(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


# --- which parameters a loss moves (A.9(4)) ---


# long: brpo-ind takes brpo-ctde's step under a critic of itself alone; joint-score is brpo-jal's score in policies apart
SCORED = ["omsd", "brpo-ctde", "brpo-jal"]
SCORED += [pytest.param(name, marks=pytest.mark.long) for name in ("brpo-ind", "joint-score")]


@pytest.mark.parametrize("name", SCORED)
def test_the_loss_moves_the_policies_alone(name):
    """The reported loss has no gradient in scores and critics; in policies it is the step taken.

    It is the mean (OMSD) or the sum over agents, and in a step each agent descends its own L_i. A
    path from L_i to another agent's policy would make the gradient differ from the step.
    """
    algorithm, state, past = made(name, CFG)

    first, second = (s.name for s in stages(name, CFG)[:2])
    others = {"q": past[first].q[:2], "v": past[first].v.params, "eps": past[second].params}

    def loss(params, others):
        critics = past[first]._replace(
            q=past[first].q._replace(params=others["q"][0], target=others["q"][1]),
            v=past[first].v._replace(params=others["v"]),
        )
        frozen = {first: critics, second: past[second]._replace(params=others["eps"])}
        start = state._replace(actor=state.actor._replace(params=params))
        after, metrics = algorithm.update(jax.random.key(1), start, frozen, batch_of())
        return metrics["policy_loss"], after.actor.params

    grads, after = jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(state.actor.params, others)
    assert all(not np.any(x) for x in leaves(grads[1]))
    share = N if name == "omsd" else 1
    for was, now, g in zip(*map(leaves, (state.actor.params, after, grads[0])), strict=True):
        np.testing.assert_allclose(was - now, CFG.policy_lr * share * g, rtol=1e-3, atol=1e-6)
    assert max(np.abs(x).max() for x in leaves(grads[0])) > 1e-3


@pytest.mark.parametrize("sweep", ["jacobi", "gauss-seidel"])
def test_which_agents_depend_on_one_agents_score_model(sweep):
    """Jacobi: that agent alone. Gauss-Seidel: those after it too, and never those before."""
    cfg = dataclasses.replace(CFG, sweep=sweep, order="2-0-1")
    algorithm, state, past = made("omsd", cfg)
    update = jit(
        lambda past: algorithm.update(jax.random.key(1), state, past, batch_of())[0].actor.params
    )
    base = update(past)
    for i, later in ((2, {0, 1}), (0, {1}), (1, set())):
        model = past["scores-conditional"]
        bent = model._replace(params=jax.tree.map(lambda x, i=i: x.at[i].add(0.2), model.params))
        moved = update({**past, "scores-conditional": bent})
        differs = [
            np.any(x != y, axis=tuple(range(1, x.ndim)))
            for x, y in zip(leaves(base), leaves(moved), strict=True)
        ]
        assert set(np.flatnonzero(np.any(differs, axis=0))) == {i} | (
            later if sweep == "gauss-seidel" else set()
        )


# --- which gradient is followed ---


def forward(params, *inputs):
    h = jnp.concatenate(inputs, axis=-1)
    for name in ("Dense_0", "Dense_1"):
        h = jnp.maximum(h @ params[name]["kernel"] + params[name]["bias"], 0)
    return (h @ params["out"]["kernel"] + params["out"]["bias"])[..., 0]


@pytest.mark.parametrize("own", [False, True])
def test_q_is_the_mean_of_the_target_twins(own):
    """With own critics, each agent's gradient comes from its own critic."""
    learner = critic.iql(SPEC, CFG, own)
    b = batch_of()
    state = filled(learner.algorithm.init)
    name = "critic-own" if own else "critic"
    mask = jnp.asarray(SPEC.act_mask)
    a = jnp.tanh(some(7, SIZE, N, 2)) * mask
    follow = jit(
        lambda state: score_regularised.q_gradient(CFG, learner.q, {name: state}, b, a, mask)
    )
    got = follow(state)

    @jit
    def by_hand(params):
        def mean(a):
            pick = lambda *at: jax.tree.map(lambda x: x[at], params)
            if not own:
                return (
                    0.5 * sum(forward(pick(k), b.state, a.reshape(SIZE, -1)) for k in (0, 1)).sum()
                )
            return (
                0.5
                * sum(
                    forward(pick(i, k), b.obs[:, i], a[:, i]) for i in range(N) for k in (0, 1)
                ).sum()
            )

        return mask * jax.grad(mean)(a)

    np.testing.assert_allclose(got, by_hand(state.q.target), rtol=1e-4, atol=1e-6)
    assert np.abs(got - by_hand(state.q.params)).max() > 1e-3  # not the online twins
    bent = jax.tree.map(lambda x: x + 1.0, state)._replace(
        q=state.q._replace(params=jax.tree.map(jnp.zeros_like, state.q.params))
    )
    np.testing.assert_array_equal(follow(bent), got)


def test_a_normalised_gradient_has_unit_root_mean_square():
    q = lambda past, obs, state, action: jnp.sum(action**3 * some(9, N, 2), axis=(1, 2))
    a = some(8, SIZE, N, 2) * SPEC.act_mask
    mask = jnp.asarray(SPEC.act_mask)
    b = batch_of()
    raw = score_regularised.q_gradient(CFG, q, {}, b, a, mask)
    got = score_regularised.q_gradient(
        dataclasses.replace(CFG, normalise_gradient=True), q, {}, b, a, mask
    )
    square = np.square(raw).sum(-1, keepdims=True) / SPEC.act_mask.sum(-1, keepdims=True)
    np.testing.assert_allclose(got, raw / np.sqrt(square + 1e-8), rtol=1e-4)
    np.testing.assert_allclose(
        np.median(np.square(got).sum(-1) / SPEC.act_mask.sum(-1), axis=0), 1.0, rtol=1e-4
    )
    np.testing.assert_array_equal(np.sign(got), np.sign(raw))
    np.testing.assert_array_equal(got[:, 1, 1], 0.0)
    flat = score_regularised.q_gradient(
        dataclasses.replace(CFG, normalise_gradient=True),
        lambda past, obs, state, action: 0 * action.sum((1, 2)),
        {},
        b,
        a,
        mask,
    )
    np.testing.assert_array_equal(flat, 0.0)  # and not NaN


def test_larger_beta_is_weaker_regularisation():
    """L = w <e, a> - beta <g, a>: beta scales the step along the critic, not the regulariser's."""
    w = jnp.array([2.0])
    e = jnp.array([[3.0, -1.0]])
    g = jnp.array([[0.5, 4.0]])
    a = jnp.array([[0.1, 0.2]])
    for beta in (0.0, 0.1, 1.0, 10.0):
        cfg = dataclasses.replace(CFG, beta=beta)
        down = -jax.grad(lambda a, cfg=cfg: score_regularised.surrogate(cfg, w, e, g, a).sum())(a)
        np.testing.assert_allclose(down, [[-6.0 + 0.5 * beta, 2.0 + 4.0 * beta]], rtol=1e-6)
        np.testing.assert_allclose(
            score_regularised.surrogate(cfg, w, e, g, a),
            2 * (0.3 - 0.2) - beta * (0.05 + 0.8),
            rtol=1e-5,
        )


@pytest.mark.parametrize("weighting", score_regularised.WEIGHTS)
def test_weights_and_times(weighting):
    cfg = dataclasses.replace(CFG, weighting=weighting, t_min=0.1, t_max=0.4)
    mask = jnp.asarray(SPEC.act_mask)
    t, z = score_regularised.score_times_and_noise(jax.random.key(0), cfg, (4000, N, 2), mask)
    if weighting == "delta":
        np.testing.assert_allclose(t, 0.02, rtol=1e-6)
    else:
        assert 0.1 <= t.min() < 0.101
        assert 0.399 < t.max() <= 0.4
        np.testing.assert_allclose(t.mean(axis=0), 0.25, atol=4 * 0.3 / 12**0.5 / 4000**0.5)
        # agents have times of their own
        between_agents = np.corrcoef(np.asarray(t).T) - np.eye(N)
        assert np.abs(between_agents).max() < 4 / 4000**0.5
    np.testing.assert_array_equal(z[:, 1, 1], 0.0)
    real = np.asarray(z)[:, SPEC.act_mask == 1]
    np.testing.assert_allclose(real.mean(axis=0), 0, atol=4 / 4000**0.5)
    np.testing.assert_allclose(real.var(axis=0), 1, atol=4 * (2 / 4000) ** 0.5)
    at = jnp.array([0.02, 0.5])
    printed = {"vds": (0.077215**2, 0.959654**2), "stable": (1, 1)}.get(
        weighting, (12.912, 0.281183 / 0.959654)
    )
    np.testing.assert_allclose(score_regularised.weight(cfg, at), printed, rtol=4e-5)
    np.testing.assert_array_equal(
        score_regularised.weight(dataclasses.replace(cfg, score_model="mixture"), at), 1.0
    )
    x = score_regularised.diffused(cfg, jnp.array([[1.0], [1.0]]), at, jnp.array([[0.0], [2.0]]))
    np.testing.assert_allclose(x[:, 0], [0.997014, 0.281183 + 2 * 0.959654], rtol=1e-5)


# --- what models are conditioned on ---


@pytest.mark.parametrize("kind", ["conditional", "marginal", "joint"])
@pytest.mark.parametrize("condition", ["obs", "state"])
def test_the_condition_of_score_models(kind, condition):
    """obs: the agent's own observation alone. state, and joint models: the state alone."""
    cfg = dataclasses.replace(CFG, condition=condition)
    model = scores.behaviour_model(SPEC, cfg, kind)
    b = batch_of()
    past = {f"scores-{kind}": filled(model.algorithm.init)}
    x = some(5, SIZE, N, 2)
    t = jnp.linspace(0.1, 0.9, SIZE)
    eps = jit(lambda obs, state: model.every(past, x, t, obs, state, b.action))
    base = eps(b.obs, b.state)
    changed = lambda other: np.flatnonzero(np.any(np.asarray(other != base), axis=(0, 2))).tolist()
    by_state = kind == "joint" or condition == "state"
    assert changed(eps(b.obs, b.state + 0.5)) == ([0, 1, 2] if by_state else [])
    for i in range(N):
        assert changed(eps(b.obs.at[:, i, 0].add(0.5), b.state)) == ([] if by_state else [i])
    assert changed(eps(b.obs.at[:, 1, 2].add(0.5), b.state)) == []  # a padded column


def test_statistics_are_applied_inside():
    """A model with `normalise` at raw inputs is the model without at z-scores."""
    stats = Stats(
        some(1, N, 3) * SPEC.obs_mask, 1 + some(2, N, 3) ** 2, some(3, 4), 1 + some(4, 4) ** 2
    )
    b = batch_of()
    cfg = dataclasses.replace(CFG, normalise=True)
    z = b._replace(
        obs=(b.obs - stats.obs_mean) / stats.obs_std * SPEC.obs_mask,
        state=(b.state - stats.state_mean) / stats.state_std,
    )
    z = z._replace(next_obs=z.obs, next_state=z.state)
    for name in ("brpo-jal", "brpo-ind"):
        algorithm, state, past = made(name, cfg)
        got = jit(algorithm.update)(jax.random.key(1), state, {**past, "stats": stats}, b)[
            0
        ].actor.params
        algorithm = stages(name, CFG)[2].algorithm
        want = jit(algorithm.update)(jax.random.key(1), state, past, z)[0].actor.params
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), got, want)


# --- settings ---


@pytest.mark.parametrize(
    ("name", "reward", "taken"),
    [
        ("omsd", "team", True),
        ("omsd", "first", True),
        ("omsd", "own", False),
        ("brpo-ctde", "first", True),
        ("brpo-ctde", "own", False),
        ("brpo-ind", "own", True),
        ("brpo-ind", "team", False),
        ("brpo-jal", "own", False),
    ],
)
def test_which_system_takes_which_reward(name, reward, taken):
    cfg = REGISTRY[name].Config(reward=reward)
    if taken:
        REGISTRY[name].check(SPEC, cfg, None)
    else:
        with pytest.raises(JaxomarlError, match=r"--cfg\.reward"):
            REGISTRY[name].check(SPEC, cfg, None)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"order": "0-1"}, "--cfg.order"),
        ({"order": "0-1-1"}, "--cfg.order"),
        ({"order": "a-b-c"}, "--cfg.order"),
        ({"sweep": "sor"}, "--cfg.sweep"),
        ({"weighting": "snr"}, "--cfg.weighting"),
        ({"condition": "all"}, "--cfg.condition"),
        ({"beta_convention": "srpo"}, "--cfg.beta-convention"),
        ({"time_limit": "cut"}, "--cfg.time-limit"),
        ({"score_model": "flow"}, "--cfg.score-model"),
        ({"policy_optimiser": "lion"}, "--cfg.policy-optimiser"),
        ({"policy_steps": 1500}, "--cfg.policy-steps"),
        ({"critic_steps": 0}, "--cfg.critic-steps"),
        ({"t_min": 0.0}, "--cfg.t-min"),
        ({"t_min": 0.5, "t_max": 0.4}, "--cfg.t-min"),
        ({"t_max": 1.1}, "--cfg.t-max"),
        ({"start": "0.1,0.2"}, "--cfg.start"),
        ({"start": "uniform:1.5"}, "--cfg.start"),
        ({"start": "0,0,x"}, "--cfg.start"),
        ({"start": "uniform:0.1,0.2"}, "--cfg.start"),
    ],
)
def test_what_is_refused_names_its_flag(change, named):
    REGISTRY["omsd"].check(SPEC, omsd.Config(order="2-0-1", start="0.1,-0.2,1"), None)
    with pytest.raises(JaxomarlError, match=named):
        REGISTRY["omsd"].check(SPEC, omsd.Config(**change), None)


@pytest.mark.parametrize("joint", [False, True])
def test_starts(joint):
    make = score_regularised.joint_actor if joint else score_regularised.actors
    mask = SPEC.act_mask == 1
    obs = some(6, 40, N, 3)

    def first(start, seed=0):
        actors = make(SPEC, dataclasses.replace(CFG, start=start))
        a = np.asarray(jit(lambda key: actors.every(actors.init(key), obs))(jax.random.key(seed)))
        np.testing.assert_array_equal(a[:, ~mask], 0.0)
        return a[:, mask]

    chosen = first("0.5,-0.48,1")
    np.testing.assert_allclose(
        chosen, np.broadcast_to([0.5, 0.5, -0.48, 0.999, 0.999], chosen.shape), rtol=1e-5
    )
    drawn = np.stack([first("uniform:0.3", seed) for seed in range(2)])
    assert np.all(np.ptp(drawn, axis=1) < 1e-6)  # at every observation
    assert np.all(np.abs(drawn) <= 0.3)
    different = np.unique(drawn[:, 0].round(6))  # for each agent, column and seed
    assert len(different) == drawn[:, 0].size
    plain = first("network")
    assert np.all(np.ptp(plain, axis=0) > 1e-3)
    assert np.abs(plain).max() < 0.9


def test_uniform_starts_are_uniform():
    spec = Spec((1,) * 2, (1,) * 2, state_dim=1, horizon=1)
    actors = score_regularised.actors(
        spec, dataclasses.replace(CFG, start="uniform:0.9", policy_width=0)
    )
    draw = lambda key: actors.every(actors.init(key), jnp.ones((2, 1)))
    a = np.asarray(jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 2000))).reshape(-1)
    share = np.histogram(a, 6, (-0.9, 0.9))[0] / 4000
    np.testing.assert_allclose(share, 1 / 6, atol=4 * (5 / 36 / 4000) ** 0.5)
