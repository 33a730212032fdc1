"""What planners ask for: quantiles by step, what is left after rewards, feasibility, and who hears of whose rewards."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxomarl.algorithms import REGISTRY, dof_trajectory, madiff
from jaxomarl.api.policy import Policy, shapes
from jaxomarl.base import Environment, Episodes, JaxomarlError, Observation, Spec, TimeStep
from jaxomarl.data import return_targets as targets
from jaxomarl.data.dataset import pack
from jaxomarl.envs.rollout import episode
from jaxomarl.stages import planner

SPEC = Spec((2, 2), (1, 1), state_dim=1, horizon=6, dialect="targets-v1")
TINY: dict[str, Any] = {
    "horizon": 1, "history": 0, "normaliser": "limits", "levels": 4, "sampler": "ddim", "calls": 1, "depth": 1,
    "blocks": 1, "reach": 1, "policy_width": 8, "inverse_width": 8, "policy_batch": 8, "gamma": 0.9, "predict": "clean",
}  # fmt: skip


@pytest.fixture(scope="module")
def data():
    """Thirty episodes of three to five steps, of six that there may be, with rewards of either sign."""
    rng, parts = np.random.default_rng(0), []
    for length in rng.integers(3, 6, 30):
        step = np.arange(length + 1)
        reward = np.where(step[:, None] < length, rng.normal(size=(length + 1, 2)), 0.0)
        obs, action = rng.normal(size=(length + 1, 2, 2)), rng.uniform(-1, 1, (length + 1, 2, 1))
        ones = np.ones(length + 1)
        parts.append(
            Episodes(obs, ones[:, None], action, reward, 0 * ones, step, length - step, 0 * step)
        )
    return pack(jax.tree.map(lambda *blocks: np.concatenate(blocks), *parts), SPEC)


def config(kind: str, base: type = dof_trajectory.Config, **changes: Any) -> Any:
    return base(**{**TINY, "target_kind": kind, **changes})


def prepared(cfg: Any, data: Any) -> tuple[Any, Any]:
    """The data with returns, and what `wanted` reads of them."""
    rows = planner.prepare(SPEC, cfg, data)
    return rows, jax.jit(lambda rows: targets.goals(SPEC, cfg, rows))(rows)


def rows_of_step(rows: Any, t: int) -> np.ndarray:
    """Shares [K, N] of all rows of a step that transitions start from."""
    step, left = np.asarray(rows.step), np.asarray(rows.left)
    return np.asarray(rows.extra["returns"])[(step == t) & (left > 0)]


def asked(cfg: Any, goals: Any, t: int, goal: Any = None, reward: Any = None) -> np.ndarray:
    goal = jnp.zeros(2) if goal is None else goal
    return np.asarray(targets.wanted(SPEC, cfg, goals, jnp.asarray(t), goal, reward))


def test_the_table_is_the_quantiles_of_each_step(data):
    rows, goals = prepared(config("quantile"), data)
    for t in range(5):
        wanted = np.quantile(rows_of_step(rows, t), np.linspace(0, 1, targets.QUANTILES), axis=0)
        np.testing.assert_allclose(goals.table[t], wanted, atol=1e-5)
    assert (goals.table[5] == goals.table[4]).all(), (
        "no episode has a sixth step: what the fifth has"
    )
    for q in (0.0, 0.125, 0.9, 1.0):
        found = asked(config("quantile", target=q), goals, 2)
        np.testing.assert_allclose(found, np.quantile(rows_of_step(rows, 2), q, axis=0), atol=2e-3)


def test_a_quantile_is_reached_at_every_step_and_a_constant_is_not(data):
    """One row in ten and more reaches the ninth decile at each step; the same number throughout is beyond the data."""
    quantile, constant = config("quantile", target=0.9), config("constant", target=0.9)
    rows, goals = prepared(quantile, data)
    reached = lambda cfg, t: (
        (rows_of_step(rows, t) >= asked(cfg, goals, t) - 1e-6).mean(axis=0).min()
    )
    assert min(reached(quantile, t) for t in range(5)) >= 0.05
    assert min(reached(constant, t) for t in range(5)) == 0.0
    assert (asked(constant, (), 0) == np.float32(0.9)).all() and prepared(constant, data)[1] == ()


@pytest.mark.parametrize("changes", [{}, {"return_scale": 5.0}, {"reward": "team"}])
def test_what_remains_along_an_episode_of_the_data_is_its_return_to_go(data, changes):
    """Whoever asks for what an episode got, and receives its rewards, asks for its returns to go to the end."""
    cfg = config("remaining", **changes)
    rows, goals = prepared(cfg, data)
    shares, reward = np.asarray(rows.extra["returns"]), np.asarray(rows.reward)
    for first in np.flatnonzero(np.asarray(rows.step) == 0)[:5]:
        goal = jnp.asarray(shares[first])
        for t in range(1, int(rows.left[first])):
            goal = jnp.asarray(asked(cfg, goals, t, goal, jnp.asarray(reward[first + t - 1])))
            np.testing.assert_allclose(goal, shares[first + t], atol=1e-4)


def test_what_remains_is_held_within_the_data(data):
    """A target beyond them, and one that no reward comes in for, ask for the largest return that the step has."""
    cfg = config("remaining", target=5.0)
    _, goals = prepared(cfg, data)
    first = asked(cfg, goals, 0, None, jnp.full(2, jnp.nan))
    np.testing.assert_allclose(first, goals.table[0, -1])
    then = asked(cfg, goals, 1, first, jnp.full(2, -100.0))
    np.testing.assert_allclose(then, goals.table[1, -1])
    np.testing.assert_allclose(asked(cfg, goals, 1, first, jnp.full(2, 100.0)), goals.table[1, 0])


@pytest.mark.parametrize("name", ["dof-t", "madiff-d"])
def test_rewards_steer_the_agents_that_received_them_alone(data, name):
    """The second action of each agent moves with its own reward and, bit for bit, with no other's."""
    base, model = {
        "dof-t": (dof_trajectory.Config, dof_trajectory.dof_planner),
        "madiff-d": (madiff.Config, partial(madiff.madiff_planner, each=True)),
    }[name]
    cfg = config("remaining", base, target=0.5)
    algorithm = planner.planner_stage(SPEC, cfg, model(SPEC, cfg))
    rows = planner.prepare(SPEC, cfg, data)
    seen, possible = 0.5 * jnp.ones((2, 2)), jnp.ones((2, 1), bool)

    @jax.jit
    def second(reward):
        state = algorithm.init(jax.random.key(0), {}, rows)
        memory = algorithm.memory
        for paid in (jnp.zeros(2), reward):
            now = Observation(seen, possible, paid)
            action, memory = algorithm.act(jax.random.key(1), state, {}, memory, now)
        return action

    nothing, first, other = (
        np.asarray(second(jnp.array(paid))) for paid in ([0.0, 0.0], [0.7, 0.0], [0.0, 0.7])
    )
    assert (first[0] != nothing[0]).any() and (first[1] == nothing[1]).all()
    assert (other[1] != nothing[1]).any() and (other[0] == nothing[0]).all()


def test_an_episode_tells_policies_their_last_reward():
    """Policies that play half of their last reward, from one on, get 1, 1/2, 1/4, ..."""
    every = jnp.ones((2, 1), bool)

    def shown(reward):
        return TimeStep(
            jnp.zeros((2, 2)), jnp.ones(1), reward, jnp.zeros(()), jnp.ones(2), every, {}
        )

    env = Environment(
        SPEC, lambda key: ((), shown(jnp.zeros(2))), lambda key, state, a: ((), shown(a[:, 0]))
    )

    def act(key, memory, seen):
        return jnp.where(memory > 0, 0.5 * seen.reward, 1.0)[:, None], memory + 1

    found = episode(env, act, jnp.zeros(()), jax.random.key(0), jax.random.key(0))
    assert found["return"] == 2.0 - 0.5**5


def test_a_loaded_policy_that_needs_rewards_says_so(data):
    cfg = config("remaining")
    algorithm = planner.planner_stage(SPEC, cfg, dof_trajectory.dof_planner(SPEC, cfg))
    state = jax.jit(algorithm.init)(jax.random.key(0), {}, planner.prepare(SPEC, cfg, data))
    policy = Policy(algorithm, state, {}, SPEC, {})
    with pytest.raises(
        JaxomarlError, match=r"reward: expected .*Pass each agent's last reward.*target-kind"
    ):
        policy.act(np.zeros((2, 2)))
    with pytest.raises(JaxomarlError, match=r"shape \(2,\)"):
        policy.act(np.zeros((2, 2)), reward=1.0)
    assert policy.act(np.zeros((2, 2)), reward=np.zeros(2)).shape == (2, 1)


@pytest.mark.parametrize("name", ["dof-t", "madt", "icq", "dom2"])
def test_shapes_of_a_saved_policy_need_what_prepare_adds(name):
    system = REGISTRY[name]
    cfg = system.Config()
    if name == "dof-t":
        cfg = dataclasses.replace(cfg, target_kind="quantile", horizon=1, history=0)
    state, past = shapes(system, cfg, system.pipeline(SPEC, cfg, None), SPEC)
    assert jax.tree.leaves(state) and past["stats"]


def test_what_a_target_cannot_be_is_refused(data):
    check = lambda **changes: dof_trajectory.check(
        SPEC, dof_trajectory.Config(**{**TINY, **changes}), data
    )
    check(target_kind="quantile", target=1.0)
    check(target_kind="remaining")
    for wrong, match in (
        ({"target_kind": "most"}, "target-kind: expected one of constant, remaining, quantile"),
        (
            {"target_kind": "remaining", "returns": "episode"},
            "returns togo, or --cfg.target-kind constant",
        ),
        (
            {"target_kind": "quantile", "returns": "none", "guidance": 1.0},
            "constant with returns none",
        ),
        ({"target_kind": "quantile", "target": 1.5}, "a quantile from 0 to 1"),
        ({"target_kind": "remaining", "gamma": 0.0}, "take --cfg.target-kind quantile"),
    ):
        with pytest.raises(JaxomarlError, match=match):
            check(**wrong)
