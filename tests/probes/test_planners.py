"""Planning by diffusion on a track: agents drift at a pace of their own, and are paid for how far they have come.

Data show paces uniform in [-1, 1], 0 on average. Whoever plans for a high return has to keep a high pace, which few of
the data do; what is known to a plan, what guides it and how it is acted upon is checked on the way.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from alone import jit_loop

from jaxomarl.algorithms import decision_diffuser, dof_trajectory, madiff
from jaxomarl.base import Environment, Episodes, JaxomarlError, Observation, Spec, TimeStep
from jaxomarl.data.dataset import pack
from jaxomarl.data.ranges import ranged
from jaxomarl.diffusion.schedules import cosine
from jaxomarl.envs.catalog import make
from jaxomarl.envs.rollout import episodes
from jaxomarl.losses import imitation
from jaxomarl.networks.mlp import Network
from jaxomarl.policies import plans as planning
from jaxomarl.stages import plan_student, planner

SPEC = Spec((2, 2), (1, 1), state_dim=2, horizon=6, dialect="track-v1")
TINY: dict[str, Any] = {
    "horizon": 3, "history": 0, "normaliser": "limits", "returns": "episode", "gamma": 1.0, "levels": 20,
    "sampler": "ddim", "calls": 4, "predict": "clean", "depth": 1, "blocks": 1, "reach": 1, "policy_width": 16,
    "inverse_width": 16, "policy_batch": 32, "policy_lr": 2e-3, "polyak": 0.02, "target": 1.0,
}  # fmt: skip
UPDATES, PLAYED = 400, 32
CONCAT = {"noise_mixer": "concat", "data_mixer": "concat"}


# --- the track ---


def told(place, pace):
    """[place, last pace] of each agent."""
    return jnp.stack([place, pace], axis=-1)


def reset(key):
    place = 0.2 * jax.random.normal(key, (2,))
    return place, shown(place, jnp.zeros(2))


def step(key, place, action):
    pace = jnp.clip(action[:, 0], -1, 1)
    place = place + 0.3 * pace
    return place, shown(place, pace)


def shown(place, pace):
    every = jnp.ones((2, 1), bool)
    return TimeStep(
        told(place, pace),
        place,
        place,
        jnp.zeros(()),
        jnp.ones(2),
        every,
        {"far": jnp.abs(place).max()},
    )


TRACK = Environment(SPEC, reset, step)


@functools.cache
def data(count: int = 300):
    rng = np.random.default_rng(0)
    paces = rng.uniform(-1, 1, (count, 1, 2)) + 0.05 * rng.normal(size=(count, 7, 2))
    action = np.clip(paces, -1, 1)[..., None]
    action[:, -1] = 0
    place = 0.2 * rng.normal(size=(count, 1, 2)) + 0.3 * np.cumsum(
        np.pad(action[:, :-1, :, 0], [(0, 0), (1, 0), (0, 0)]), 1
    )
    last = np.pad(action[:, :-1, :, 0], [(0, 0), (1, 0), (0, 0)])
    reward = np.pad(place[:, 1:], [(0, 0), (0, 1), (0, 0)])
    flat = lambda x: x.reshape(-1, *x.shape[2:])
    steps = np.tile(np.arange(7), count)
    return pack(
        Episodes(
            flat(np.stack([place, last], -1)), flat(place), flat(action), flat(reward), np.zeros(7 * count), steps,
            6 - steps, np.zeros(7 * count, int),
        ),
        SPEC,
    )  # fmt: skip


def best() -> float:
    """The largest return: full pace for six steps."""
    return 0.3 * sum(range(1, 7))


def made(config, model, **changes):
    """(config, model, algorithm) of a planner at tiny sizes."""
    cfg = config(**{**TINY, **changes})
    parts = model(SPEC, cfg)
    return cfg, parts, planner.planner_stage(SPEC, cfg, parts)


def dof(**changes):
    return made(dof_trajectory.Config, dof_trajectory.dof_planner, **{**CONCAT, **changes})


def stub(predict, each: bool = False) -> planning.Planner:
    """A planner that predicts by a plain function."""
    return planning.Planner(
        lambda key: (), predict, predict, Network(lambda key: (), lambda *_: 0), False, each
    )


def trained(cfg, algorithm):
    """The state after `UPDATES` updates: one program."""
    rows = planner.prepare(SPEC, cfg, data())

    @jax.jit
    def run(key, rows):
        def one(state, key):
            return algorithm.update(key, state, {}, algorithm.batch(key, state, rows))

        return jax.lax.scan(one, algorithm.init(key, {}, rows), jax.random.split(key, UPDATES))

    return run(jax.random.key(0), rows)


@pytest.fixture(scope="module")
def track():
    """A trained DoF-T: config, model, algorithm, state, and the losses on the way."""
    cfg, parts, algorithm = dof()
    state, metrics = trained(cfg, algorithm)
    return cfg, parts, algorithm, state, metrics


@pytest.fixture(scope="module")
def score(track):
    """Mean return of a planner that asks for a return with a weight; one program for all of both."""
    cfg, parts, _, state, _ = track

    @jax.jit
    def play(target, guidance):
        chosen = dataclasses.replace(cfg, target=target, guidance=guidance)
        algorithm = planner.planner_stage(SPEC, chosen, parts)
        act = lambda key, memory, seen: algorithm.act(key, state, {}, memory, seen)
        keys = jax.random.split(jax.random.key(5), PLAYED)
        return episodes(TRACK, act, algorithm.memory, keys, keys)["return"].mean()

    return lambda target, guidance: float(play(jnp.asarray(target), jnp.asarray(guidance)))


def test_a_plan_for_a_high_return_gets_more_than_the_data(track, score):
    losses = track[4]["inverse_loss"]
    assert losses[-50:].mean() < 0.2 * losses[:20].mean()
    high, low, without = score(1.0, 1.2), score(0.0, 1.2), score(1.0, 0.0)
    assert abs(without) < 0.35 * best(), "the plan without a condition is not the data's"
    assert high > 0.6 * best() and low < -0.6 * best(), (high, low, without)


def test_a_mixer_of_the_data_is_left_out_where_it_changes_nothing():
    assert dof()[1].mix is None, "concatenation is the identity"
    assert dof(data_mixer="wconcat")[1].mix is not None
    assert dof(data_mixer="qmix", execution="central")[1].mix is not None


@pytest.mark.long
def test_a_distilled_model_plans_as_well_in_one_call(track):
    """From planner to student, whose single call ends near the guided planner's path; before, it is far from it."""
    cfg, parts, _, state, _ = track
    cfg = dataclasses.replace(cfg, sampler="consistency", calls=1, grid=20)
    algorithm = plan_student.student(SPEC, cfg, parts)
    rows, past = (
        planner.prepare(SPEC, cfg, data()),
        {"planner": plan_student.without_optimiser(state)},
    )

    def one(state, key):
        return algorithm.update(key, state, past, algorithm.batch(key, state, rows))

    def play(case):
        student, target = case
        act = plan_student.student(SPEC, dataclasses.replace(cfg, target=target), parts).act
        keys = jax.random.split(jax.random.key(5), PLAYED)
        told = lambda key, memory, seen: act(key, student, past, memory, seen)
        return episodes(TRACK, told, algorithm.memory, keys, keys)["return"].mean()

    @jit_loop
    def run(key):
        first = algorithm.init(key, past, rows)
        student, metrics = jax.lax.scan(one, first, jax.random.split(key, 1600))
        cases = (
            jax.tree.map(lambda *x: jnp.stack(x), student, student, first),
            jnp.array([1.0, 0.0, 1.0]),
        )
        return student, metrics, jax.lax.map(play, cases)

    student, metrics, (high, low, before) = run(jax.random.key(0))
    assert metrics["consistency_loss"][-50:].mean() < 0.5 * metrics["consistency_loss"][:50].mean()
    assert high > 0.6 * best() and low < -0.6 * best(), (high, low)
    assert before < 0.5 * high, "the planner's weights are no consistency model"
    x, y = jax.random.normal(jax.random.key(1), (2, 4, 2)), jnp.ones(2)
    ends = plan_student.plan_ends(SPEC, cfg, parts, student.net.target["plan"], y)
    end = jax.jit(ends)(x, jnp.zeros(()))
    np.testing.assert_allclose(end, x, atol=1e-6)


def test_a_code_knows_one_agents_row_alone():
    """DoF+VAE, untrained; tests/health/test_trained_kinds.py trains codes, the long test below plans too."""
    cfg, parts, _ = dof(code_width=3)
    coder, _ = (stage.algorithm for stage in dof_trajectory.pipeline(SPEC, cfg))
    rows = planner.prepare(SPEC, cfg, data())
    past = {"codes": jax.jit(coder.init)(jax.random.key(0), {}, rows)}
    of_one_agent(jax.jit(parts.codes.encode), past)
    assert not parts.centralised


def of_one_agent(encode, past):
    """Codes are in the box, and another row of agent 2 is another code of agent 2's alone."""
    seen = 0.3 * jnp.ones((2, 2))
    one, other = encode(past, seen), encode(past, seen.at[1].set(-0.3))
    assert one.shape == (2, 3) and np.abs(one).max() <= 1
    assert (one[0] == other[0]).all() and np.abs(one[1] - other[1]).max() > 0.05


@pytest.mark.long
def test_plans_of_codes_get_more_than_the_data_too():
    """DoF+VAE: rows come back from their codes, a code knows one agent's row alone, and its plans reach as far."""
    cfg, parts, _ = dof(code_width=3, code_lr=5e-3, policy_batch=64)
    coder, plans = (stage.algorithm for stage in dof_trajectory.pipeline(SPEC, cfg))
    rows = planner.prepare(SPEC, cfg, data())

    def fit(algorithm, past):
        def one(state, key):
            return algorithm.update(key, state, past, algorithm.batch(key, state, rows))

        key = jax.random.key(0)
        return jax.lax.scan(one, algorithm.init(key, past, rows), jax.random.split(key, 500))

    @jax.jit
    def run(targets):
        coded, metrics = fit(coder, {})
        past = {"codes": coded}
        state, _ = fit(plans, past)

        def play(target):
            algorithm = planner.planner_stage(SPEC, dataclasses.replace(cfg, target=target), parts)
            act = lambda key, memory, seen: algorithm.act(key, state, past, memory, seen)
            keys = jax.random.split(jax.random.key(5), PLAYED)
            return episodes(TRACK, act, algorithm.memory, keys, keys)["return"].mean()

        return past, metrics["code_error"], jax.lax.map(play, targets)

    past, error, (high, low) = run(jnp.array([1.0, 0.0]))
    assert error[-50:].mean() < 0.02 * error[:10].mean()
    assert high > 0.6 * best() and low < -0.6 * best(), (high, low)
    of_one_agent(jax.jit(parts.codes.encode), past)
    assert not parts.centralised


def test_a_consistency_model_is_a_stage_behind_its_planner():
    cfg = dof_trajectory.Config(
        **{**TINY, **CONCAT, "sampler": "consistency", "calls": 1, "episodes": 7}
    )
    plan, student = dof_trajectory.pipeline(SPEC, cfg)
    assert (plan.name, student.name) == ("planner", "student") and plan.algorithm.act is None
    assert (
        student.algorithm.act is not None
        and student.steps == cfg.student_steps
        and student.episodes == 7
    )
    (alone,) = dof_trajectory.pipeline(SPEC, dataclasses.replace(cfg, sampler="ddim"))
    assert alone.algorithm.act is not None


# --- what is known to a plan, and what guides it ---


@pytest.fixture(scope="module")
def passes(track):
    """x_0 of a noisy plan by target and weight, of the conditioned pass alone, and of the pass without a condition."""
    cfg, parts, _, state, _ = track
    x, t = 3.0 * jax.random.normal(jax.random.key(3), (8, 2, 4, 2)), jnp.asarray(0.6)

    @jax.jit
    def guided(target, guidance):
        chosen = dataclasses.replace(cfg, guidance=guidance)
        return planning.denoiser(
            SPEC, chosen, parts, state.net.target["plan"], jnp.full((8, 2), target)
        )(x, t)

    @jax.jit
    def one(y, drop):
        tell = planning.return_condition(jnp.full((8, 2), y), jnp.full((8, 2), drop))
        return planning.clean(
            cfg, parts.executed, state.net.target["plan"], tell, jnp.ones((2, 1, 2))
        )(x, t)

    return guided, one


def test_the_pass_without_a_condition_does_not_hear_it(passes):
    guided, one = passes
    assert (guided(0.0, 0.0) == guided(1.0, 0.0)).all() and (one(0.2, 1.0) == one(0.9, 1.0)).all()
    assert (one(jnp.nan, 1.0) == one(0.9, 1.0)).all()
    assert np.abs(guided(0.0, 1.0) - guided(1.0, 1.0)).max() > 0.05


def test_weights_of_zero_and_one_are_the_two_passes(passes):
    guided, one = passes
    box = lambda x: np.clip(x, -1, 1)
    without, towards = one(0.9, 1.0), one(0.9, 0.0)
    np.testing.assert_allclose(guided(0.9, 0.0), box(without), atol=1e-6)
    np.testing.assert_allclose(guided(0.9, 1.0), box(towards), atol=1e-6)
    np.testing.assert_allclose(
        guided(0.9, 1.7), box(without + 1.7 * (towards - without)), atol=1e-5
    )


def test_clean_estimates_are_held_in_the_box(passes):
    guided, one = passes
    out = np.asarray(guided(1.0, 50.0))
    assert np.abs(one(1.0, 0.0)).max() > 0 and np.abs(out).max() == 1.0


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_what_is_known_is_in_the_plan_bit_for_bit(track, sampler):
    cfg, parts, _, state, _ = track
    cfg = dataclasses.replace(cfg, sampler=sampler)
    seen = 1.5 * jax.random.normal(jax.random.key(1), (2, 1, 2))  # beyond the data's limits too
    known = jnp.broadcast_to(planning.given(cfg), (2, 4, 1))
    draw = jax.jit(
        lambda key: planning.sample(key, SPEC, cfg, parts, state.net.target["plan"], seen, known)
    )
    one, other = draw(jax.random.key(0)), draw(jax.random.key(1))
    assert (one[:, :1] == seen).all() and (other[:, :1] == seen).all()
    assert (np.abs(one[:, 1:]) <= 1).all() and np.abs(one - other)[:, 1:].max() > 0.01


def test_only_unknown_rows_of_the_episode_are_in_the_loss():
    """A model that is wrong where it may be, and right elsewhere, loses nothing; one that is off by 1, exactly 1/2."""
    cfg = dof_trajectory.Config(**{**TINY, **CONCAT, "history": 1, "predict": "noise"})
    draw = lambda key: planner.plan_randomness(key, SPEC, cfg, 16, stub(None))
    drawn = jax.jit(draw)(jax.random.key(0))
    valid = jnp.ones((16, 5)).at[:8, 4].set(0.0)
    free = (1 - drawn.rows.known) * valid[:, None, :, None]
    obs = jax.random.normal(jax.random.key(1), (16, 5, 2, 2))

    @jax.jit
    def lost(off):
        def predict(params, x, t, told):
            return drawn.z + off * free + 7.0 * (1 - free)

        model = stub(predict, False)
        return planner.planning_loss(SPEC, cfg, model, (), obs, valid, jnp.ones((16, 2)), drawn)[0]

    assert lost(0.0) == 0.0
    np.testing.assert_allclose(lost(1.0), 0.5, rtol=1e-6)


def test_known_rows_go_in_as_they_are_in_training():
    cfg = dof_trajectory.Config(**{**TINY, **CONCAT, "history": 1})
    draw = lambda key: planner.plan_randomness(key, SPEC, cfg, 8, stub(None, True))
    drawn = jax.jit(draw)(jax.random.key(0))
    known, shown = (np.asarray(x) > 0 for x in drawn.rows)
    assert (shown.sum(axis=(1, 2, 3)) == 2).all(), "one agent's history and present, in each window"
    assert 0 < shown[:, 0, 0, 0].mean() < 1
    assert known[:, :, 0].all() and (known[:, :, 1] == shown[:, :, 1]).all(), (
        "a team-mate's history, not its present"
    )
    obs = jax.random.normal(jax.random.key(1), (8, 5, 2, 2))

    @jax.jit
    def given(obs, drawn):
        seen = []

        def predict(params, x, t, told):
            seen.append((x, told))
            return x

        model, value = stub(predict, True), jnp.full((8, 2), 0.7)
        planner.planning_loss(SPEC, cfg, model, (), obs, jnp.ones((8, 5)), value, drawn)
        return seen[0]

    x, tell = given(obs, drawn)
    clean = np.asarray(x == jnp.swapaxes(obs, 1, 2)).all(axis=-1, keepdims=True)
    assert (clean == shown).all()
    assert ((np.asarray(x) == 0).all(axis=-1, keepdims=True) == (known & ~shown)).all(), (
        "MADiff-D's zeros"
    )
    assert (
        np.asarray(tell[..., 0]) == np.where(np.asarray(drawn.drop) > 0, 0, np.float32(0.7))
    ).all()


def test_team_mates_histories_are_zeros_in_acting_too():
    """A model that plans [its team-mate's history, its own present]: MADiff-D's agents read zeros, -C's what was."""
    cfg = madiff.Config(**{**TINY, "history": 1})

    def predict(params, x, t, told):
        row = jnp.stack([x[..., ::-1, 0, 0], x[..., :, 1, 1]], axis=-1)
        return jnp.broadcast_to(row[..., None, :], x.shape)

    seen = jax.random.uniform(jax.random.key(1), (2, 2, 2), minval=-1.0)

    @functools.partial(jax.jit, static_argnums=0)
    def ahead(each, seen):
        return planning.ahead(jax.random.key(0), SPEC, cfg, stub(predict, each), (), seen)[:, 0]

    apart, together = ahead(True, seen), ahead(False, seen)
    np.testing.assert_allclose(apart, np.stack([np.zeros(2), seen[:, 1, 1]], axis=-1), atol=1e-6)
    np.testing.assert_allclose(
        together, np.stack([seen[::-1, 0, 0], seen[:, 1, 1]], axis=-1), atol=1e-6
    )


def test_actions_that_were_not_available_have_no_share_in_the_loss():
    """The cross-entropy of the others; what was done counts as available, whatever the data say."""
    spec = dataclasses.replace(SPEC, act_dims=(3, 2), discrete=True)
    out = jnp.array([[0.3, 9.0, -0.2], [1.0, 0.5, 7.0]])
    action = jnp.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    error = jax.jit(lambda out, available: imitation.action_error(spec, out, action, available))
    legal = jnp.array([[1.0, 0.0, 1.0], [1.0, 0.0, 1.0]])
    by_hand = np.array([np.log(1 + np.exp(-0.2 - 0.3)), np.log(1 + np.exp(1.0 - 0.5))])
    np.testing.assert_allclose(error(out, legal), by_hand, rtol=1e-6)
    assert (error(out, jnp.ones((2, 3)))[0] > 8.0) and error(out, jnp.zeros((2, 3))).sum() == 0
    slope = jax.jit(jax.grad(lambda out: error(out, legal).sum()))(out)
    assert slope[0, 1] == slope[1, 2] == 0 and (slope[:, 0] != 0).all()


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_an_exact_model_plans_the_datas_gaussian(temperature):
    """C.6 (9): exact noise of N(0.5, 0.2^2), squared cosine, K = 100: std 0.185, whatever the chain starts from."""
    changes = {
        "levels": 100,
        "calls": 100,
        "sampler": "ddpm",
        "predict": "noise",
        "temperature": temperature,
    }
    cfg = dof_trajectory.Config(**{**TINY, **CONCAT, "returns": "none", "guidance": 1.0, **changes})
    schedule = cosine(100)

    def exact(params, x, t, told):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return sigma * (x - alpha * 0.5) / (alpha**2 * 0.04 + sigma**2)

    model = stub(exact, False)
    seen = jnp.zeros((2000, 2, 1, 2))
    known = jnp.broadcast_to(planning.given(cfg), (2000, 2, 4, 1))
    plan = jax.jit(lambda: planning.sample(jax.random.key(0), SPEC, cfg, model, (), seen, known))()[
        :, :, 1:
    ]
    assert abs(plan.mean() - 0.5) < 0.01 and abs(plan.std() - 0.185) < 0.006, (
        plan.mean(),
        plan.std(),
    )


# --- acting ---


def played(parts, cfg, steps=5):
    """Actions and memories of an untrained planner, step by step in Python, what it was shown, and `act` itself."""
    algorithm = planner.planner_stage(SPEC, cfg, parts)
    state = jax.jit(algorithm.init)(jax.random.key(0), {}, planner.prepare(SPEC, cfg, data()))
    act, memory, out = jax.jit(algorithm.act), algorithm.memory, []
    seen = 0.7 * jax.random.normal(jax.random.key(9), (steps, 2, 2))
    for t in range(steps):
        now = Observation(seen[t], jnp.ones((2, 1), bool))
        action, memory = act(jax.random.key(t), state, {}, memory, now)
        out.append((action, memory))
    return (
        state,
        seen,
        out,
        lambda shown: act(jax.random.key(0), state, {}, algorithm.memory, now._replace(obs=shown))[
            0
        ],
    )


def test_the_history_is_the_last_rows_and_repeats_the_first_at_the_start():
    cfg, parts, _ = dof(history=2, horizon=2, calls=1)
    state, seen, out, _ = played(parts, cfg)
    see = ranged(cfg.normaliser, SPEC)

    @jax.jit
    def by_hand(key, rows):
        units = jnp.swapaxes(see(state.knots, rows), 0, 1)
        known = jnp.broadcast_to(planning.given(cfg), (2, 5, 1))
        plan = planning.sample(key, SPEC, cfg, parts, state.net.target["plan"], units, known)
        return jnp.clip(
            parts.inverse.apply(state.net.target["inverse"], units[:, -1], plan[:, 3]), -1, 1
        )

    for t, (action, memory) in enumerate(out):
        rows = np.stack([seen[max(k, 0)] for k in (t - 2, t - 1, t)])
        assert (np.asarray(memory.history) == rows[1:].swapaxes(0, 1)).all()
        assert int(memory.step) == t + 1
        np.testing.assert_allclose(action, by_hand(jax.random.key(t), jnp.asarray(rows)), atol=1e-5)


def test_a_plan_is_followed_until_it_is_time_for_another():
    cfg, parts, _ = dof(replan=2, calls=1)
    state, seen, out, act = played(parts, cfg)
    see = ranged(cfg.normaliser, SPEC)
    for t in (1, 3):
        (_, before), (action, memory) = out[t - 1 : t + 1]
        assert (memory.plan == before.plan).all()
        wanted = parts.inverse.apply(
            state.net.target["inverse"], see(state.knots, seen[t]), before.plan[:, 1]
        )
        np.testing.assert_allclose(action, jnp.clip(wanted, -1, 1), atol=1e-5)
    assert (out[2][1].plan != out[1][1].plan).any()
    # DoF-T acts apart: what its team-mate sees is nothing to an agent
    one, other = act(seen[0]), act(seen[0].at[1].add(0.5))
    assert (one[0] == other[0]).all() and (one[1] != other[1]).any()


def test_discrete_actions_are_one_hot_and_available():
    task = make("games/consensus:n=2,discrete=true")
    spec = task.env.spec
    cfg = dof_trajectory.Config(**{**TINY, **CONCAT, "horizon": 1, "calls": 1, "policy_batch": 8})
    rows = task.recipes[task.quality](jax.random.key(0), 64)
    rows = pack(rows, spec)
    algorithm = planner.planner_stage(spec, cfg, dof_trajectory.dof_planner(spec, cfg))
    ready = planner.prepare(spec, cfg, rows)

    @jax.jit
    def once(key, available, forced):
        state = algorithm.init(key, {}, ready)
        batch = algorithm.batch(key, state, ready)
        batch = batch._replace(available=jnp.where(forced, batch.action, batch.available))
        state, metrics = algorithm.update(key, state, {}, batch)
        seen = Observation(jnp.ones((spec.agents, spec.obs_width)), available)
        return algorithm.act(key, state, {}, algorithm.memory, seen)[0], metrics

    available = jnp.ones((spec.agents, spec.act_width), bool)
    free, metrics = once(jax.random.key(0), available, False)
    assert (free.sum(axis=-1) == 1).all() and set(np.unique(free)) <= {0.0, 1.0}
    assert 0.3 < metrics["inverse_loss"] < 1.5, "not a cross-entropy of two actions"
    other, metrics = once(jax.random.key(0), available & (free == 0), True)
    assert (other * free == 0).all() and (other.sum(axis=-1) == 1).all()
    assert metrics["inverse_loss"] == 0.0, "there was nothing to choose"


# --- who knows what ---


def test_madiff_without_gains_is_independent_planners_bit_for_bit():
    cfg, parts, _ = made(madiff.Config, functools.partial(madiff.madiff_planner, each=False))
    _, alone, _ = dof()
    params = jax.jit(parts.init)(jax.random.key(0))
    bare = {
        "parts": {k: v for k, v in params.items() if not k.startswith("attend")},
        "noise": (),
        "data": (),
    }
    x, tell = jax.random.normal(jax.random.key(1), (4, 2, 4, 2)), jnp.full((4, 2, 2), 0.3)
    t = jnp.full((4,), 0.5)
    assert (
        jax.jit(parts.trained)(params, x, t, tell) == jax.jit(alone.trained)(bare, x, t, tell)
    ).all()
    assert parts.centralised and not alone.centralised and cfg.history == 0


def test_madiff_d_plans_for_all_from_its_own_rows():
    cfg, parts, _ = made(
        madiff.Config, functools.partial(madiff.madiff_planner, each=True), calls=2
    )
    params = jax.tree_util.tree_map_with_path(
        lambda k, x: jnp.ones(()) if "gain" in str(k) else x, jax.jit(parts.init)(jax.random.key(0))
    )
    plan = jax.jit(lambda seen: planning.ahead(jax.random.key(1), SPEC, cfg, parts, params, seen))
    seen = 0.5 * jnp.ones((2, 1, 2))
    one, other = plan(seen), plan(seen.at[1].set(-0.5))
    assert (one[0] == other[0]).all() and (one[1] != other[1]).any()
    assert not parts.centralised


def test_decision_diffuser_is_one_agent_that_sees_all():
    cfg, parts, _ = made(decision_diffuser.Config, decision_diffuser.joint_planner, reward="team")
    params = jax.jit(parts.init)(jax.random.key(0))
    x, tell = jax.random.normal(jax.random.key(1), (2, 4, 2)), jnp.zeros((2, 2))
    predict = jax.jit(parts.trained)
    out, other = (predict(params, x, jnp.asarray(0.5), tell) for x in (x, x.at[1].add(1.0)))
    assert out.shape == x.shape and (out[0] != other[0]).any() and parts.centralised
    inverse, apply = jax.jit(parts.inverse.init)(jax.random.key(0)), jax.jit(parts.inverse.apply)
    moved = [apply(inverse, x[:, 0], x[:, 1]) for x in (x, x.at[1].add(1.0))]
    assert (moved[0][0] != moved[1][0]).any()
    with pytest.raises(JaxomarlError, match="team"):
        decision_diffuser.check(SPEC, dataclasses.replace(cfg, reward="own"), data())


def test_weights_of_the_mixers_are_the_same_in_training_and_in_plans():
    _, parts, _ = dof(noise_mixer="wconcat", data_mixer="wconcat")
    params = jax.jit(parts.init)(jax.random.key(0))
    x, tell, t = (
        jax.random.normal(jax.random.key(1), (2, 4, 2)),
        jnp.zeros((2, 2)),
        jnp.asarray(0.5),
    )
    twice = {**params, "noise": {"k": jnp.asarray([[2.0], [1.0]])}}
    train, execute = jax.jit(parts.trained), jax.jit(parts.executed)
    plain, scaled, executed = (
        f(p, x, t, tell) for f, p in ((train, params), (train, twice), (execute, twice))
    )
    np.testing.assert_allclose(scaled, plain * jnp.asarray([2.0, 1.0])[:, None, None], rtol=1e-6)
    assert (scaled == executed).all()
    half = {**params, "data": {"k": jnp.asarray([[0.5], [1.0]])}}
    np.testing.assert_allclose(
        jax.jit(parts.mix)(half, x, t, tell), x * np.asarray([0.5, 1.0])[:, None, None]
    )


# --- what is refused ---


def test_what_a_planner_cannot_do_is_refused():
    check = lambda **changes: dof_trajectory.check(
        SPEC, dof_trajectory.Config(**{**TINY, **CONCAT, **changes}), data()
    )
    check()
    check(returns="none", guidance=1.0)
    for wrong, match in (
        ({"horizon": 5, "history": 2}, "episodes of 6 steps"),
        ({"horizon": 7}, "episodes of 6 steps.*at most 6"),
        ({"returns": "none"}, "guidance.*without returns"),
        ({"attention": True}, "no attention over agents in a decentralised planner.*central"),
        ({"attention": True, "networks": "separate"}, "shared"),
        ({"noise_mixer": "atten"}, "concat, wconcat, dec-atten"),
        ({"data_mixer": "qmix"}, "concat, wconcat"),
        ({"replan": 4}, "at most 3"),
        ({"calls": 21}, "at most 20"),
        ({"depth": 4}, "at most 3"),
        ({"drop": 1.5}, r"--cfg.drop.*\[0, 1\]"),
        ({"policy_batch": 10_000}, "transitions"),
        ({"sampler": "heun"}, "ddpm, ddim, consistency"),
        ({"sampler": "consistency", "calls": 50}, "at most 40"),
    ):
        with pytest.raises(JaxomarlError, match=match):
            check(**wrong)
    check(attention=True, execution="central")


def test_guidance_wants_returns_that_differ():
    rows = data()
    parts = rows.layout.unpack(rows.rows) | {"reward": jnp.zeros(rows.reward.shape)}
    flat = jnp.concatenate(
        [parts[k].reshape(len(rows.rows), -1) for k in rows.layout.blocks], axis=1
    )
    cfg = dof_trajectory.Config(**{**TINY, **CONCAT})
    with pytest.raises(JaxomarlError, match=r"returns that differ.*0 in every transition"):
        dof_trajectory.check(SPEC, cfg, dataclasses.replace(rows, rows=flat))
