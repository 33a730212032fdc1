"""The probe of one-step policies: its exact values, its rows and models, and its command."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import ndtri

from jaxomarl.algorithms import fql
from jaxomarl.base import JaxomarlError
from jaxomarl.diffusion import flows
from jaxomarl.envs import games as rules
from jaxomarl.papers import REPRODUCTIONS, measured
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.measured import Measure
from jaxomarl.papers.one_step import games, law, models, probe, systems
from jaxomarl.results.curves import Point, curves
from jaxomarl.stages import flow
from jaxomarl.training.runner import Interrupted

# --- exact values ---


@pytest.mark.parametrize(
    "agents, share, variance",
    [(2, 0.1953, 0.2133), (3, 0.0293, 0.1385), (4, 0.0031, 0.1030), (5, 0.0002, 0.0820)],
)
def test_students_of_two_levels(agents, share, variance):
    found = law.students(agents, 2)
    assert found.distance == pytest.approx(1 - 2.0 ** (1 - agents), abs=1e-3)
    assert found.share == pytest.approx(share, abs=1e-4)
    assert found.variance == pytest.approx(variance, abs=1e-4)
    # the residual is what the variance leaves of m^2
    assert found.variance == pytest.approx(0.64 * (2 / np.pi) * np.arcsin(1 / agents), rel=1e-3)


@pytest.mark.parametrize(
    "agents, distance, share", [(2, 0.579, 0.425), (3, 0.662, 0.387), (4, 0.667, 0.436)]
)
def test_students_of_three_levels_favour_the_middle(agents, distance, share):
    found = law.students(agents, 3)
    assert found.distance == pytest.approx(distance, abs=1e-3)
    assert found.share == pytest.approx(share, abs=1e-3)
    assert (
        found.distance < law.product(agents, 3).distance == pytest.approx(1 - 3.0 ** (1 - agents))
    )


def test_one_agent_plays_its_flow():
    assert set(law.student(np.array([-0.5, 0.5]), 1, 2)) == {-0.8, 0.8}
    assert law.partly_shared(0.0) == 0.5 and law.partly_shared(1.0) == 0.0


def test_students_are_the_fixed_point_of_distilling_an_exact_flow():
    """f(z_i) = E[g_i | z_i]: g - f has mean 0 at every z_i; with the team's noise f = g is reached."""
    z = jax.random.normal(jax.random.key(1), (20_000, 2))
    end = flows.euler(lambda x, t: law.exact_velocity(x, t, 2, 0.02), z, 64)
    own = np.asarray(z[:, 0])
    residual = np.clip(np.asarray(end[:, 0]), -1.0, 1.0) - law.student(own, 2, 2)
    means = [(residual * phi).mean() for phi in (np.ones_like(own), np.sign(own), own**3 / 4)]
    assert np.abs(means).max() < 0.03, means
    assert np.square(residual).mean() == pytest.approx(0.4267, abs=0.03)
    signs = np.sign(np.asarray(end))
    assert (signs[:, 0] == signs[:, 1]).mean() > 0.999
    # a linear flow g = B z leaves what the others' noise adds: f_i = B_ii z_i
    mixing = jnp.array([[0.6, 0.3], [-0.2, 0.5]])
    one = jnp.ones((2, 1))
    taught = (z @ mixing.T)[..., None]
    square = lambda out: 2 * flow.distillation(out[..., None], taught, one)
    of_own = lambda weights: square(weights * z)
    best = jnp.diag(mixing)
    assert np.abs(jax.grad(of_own)(best)).max() < 0.02 < np.abs(jax.grad(of_own)(best + 0.1)).min()
    assert float(of_own(best)) == pytest.approx(0.3**2 + 0.2**2, abs=0.004)
    assert float(square(z @ mixing.T)) == 0.0  # with the team's noise nothing is left


def test_steps_of_the_exact_flow():
    """The share that agrees after so many Euler steps, as a probe in the specification has it."""
    found = [law.followed(2, 2, 0.1, calls).share for calls in (1, 2, 4)]
    np.testing.assert_allclose(found, [0.0, 0.72, 0.974], atol=0.012)
    assert law.followed(2, 2, 0.1, 4).distance < 0.01


def test_the_mean_of_own_values_is_the_best_additive_fit():
    """Its residual has mean 0 at each action of an agent, and it is even: it cannot choose."""
    rng = np.random.default_rng(0)
    rows = 400_000
    a = 0.8 * rng.choice([-1.0, 1.0], (rows, 1)) + 0.1 * rng.standard_normal((rows, 2))
    action = jnp.asarray(a, jnp.float32)[..., None]
    residual = a.prod(axis=1) - np.asarray(games.mean_value(action))
    near = lambda x: abs(residual[np.abs(a[:, 0] - x) < 0.02].mean())
    assert max(near(x) for x in (-0.9, -0.8, 0.75, 0.95)) < 0.005
    flipped = action.at[:, 1].multiply(-1.0)
    np.testing.assert_allclose(games.mean_value(flipped), games.mean_value(action), rtol=1e-5)


def test_a_joint_critic_chooses_an_agreement_where_alpha_is_small():
    """A number for each noise, down alpha |f - g|^2 - a_1 a_2: the mean action M leaves 0 below 1/2.

    There M solves M = E min(g + M / (2 alpha), 1), with E[g | z_i] uniform in +-0.8.
    """
    noise = ndtri((jnp.arange(64) + 0.5) / 64)

    def teams(of_agents):
        return jnp.stack(jnp.meshgrid(*of_agents, indexing="ij"), axis=-1).reshape(-1, 2, 1)

    side = jnp.sign(jnp.round(teams([noise, noise]).sum(axis=1, keepdims=True), 3))
    taught = 0.8 * jnp.broadcast_to(side, (64 * 64, 2, 1))
    cfg = fql.Config(normalise_value=False)

    def loss(of_agents, alpha):
        out = teams(of_agents)
        q = games.joint_value(jnp.clip(out, -1.0, 1.0))
        square = 2 * flow.distillation(out, taught, jnp.ones((2, 1)))
        return alpha * square + flow.value_term(cfg, q[None])[0]

    def mean_action(alpha):
        step = lambda f, _: (f - 0.03 * 64 * jax.grad(loss)(f, alpha), None)
        return jax.lax.scan(step, jnp.full((2, 64), 0.3), length=2500)[0].mean()

    found = jax.jit(lambda alphas: jax.lax.map(mean_action, alphas))(jnp.array([0.6, 0.45, 0.3]))
    np.testing.assert_allclose(found, [0.0, 0.593, 0.99], atol=0.015)


# --- rows and models ---


def test_a_law_with_fewer_agents_masks_the_others():
    game = games.game_of(games.agreement(3, 3))
    rows = np.asarray(game.draw(jax.random.key(0), 3000))
    assert rows.shape == (3000, 5, 1) and (rows[:, 3:] == 0).all() and np.abs(rows).max() <= 1
    level = np.asarray(rules.consensus_levels(jnp.asarray(rows[:, :3]), 3))
    assert (level == level[:, :1]).mean() > 0.995
    np.testing.assert_allclose(np.bincount(level[:, 0]) / 3000, 1 / 3, atol=0.04)


def test_an_agent_is_told_those_before_it():
    x = jnp.array([[[1.0], [2.0], [3.0]]])
    np.testing.assert_array_equal(
        models.preceding(x)[0], [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 2.0, 0.0]]
    )


@pytest.mark.parametrize(
    "kind, count", [pytest.param("joint", 15, marks=pytest.mark.long), ("own", 14)]
)
def test_every_model_is_sampled(kind, count):
    """Traced, not trained: names and shapes of what the figure and the table read."""
    sizes = models.Sizes(3, 2, 4, 1, 7)
    given = games.agreement(2, 2)
    game = games.game_of(given._replace(mask=jnp.ones((3, 2))))
    drawn = jax.eval_shape(partial(models.team_models, kind, sizes, game), jax.random.key(0))
    assert {x.shape for x in drawn.values()} == {(7, 3, 2)} and len(drawn) == count
    assert {name.rpartition(", ")[0] for name in drawn} == set(models.NAMES[kind])
    named = dict.fromkeys(drawn, jnp.zeros(()))
    assert set(models.chosen(named, [f"{kind} mean flow"])) == {f"{kind} mean flow, 1"}
    own = [name for name in games.SHOWN.values() if name in drawn]
    assert len(own) == (5 if kind == "joint" else 2)


@pytest.mark.parametrize(
    "kinds",
    [("own", "shared"), pytest.param(("part", "in turn"), marks=pytest.mark.long)],
    ids=" ".join,
)
def test_trained_students_follow_their_law(kinds):
    """Of an exact flow of two agents: own noise, all of it, part of it, and one agent after the other."""
    sizes = models.Sizes(2, 1, 16, 300, 4000)
    given = games.agreement(2, 2)
    game = games.game_of(given._replace(mask=given.mask[:2]))
    exact = lambda x, t: law.exact_velocity(x[..., 0], t, 2, 0.02)[..., None]

    def played(key):
        k_pairs, k_z, k_own, k_shared, k_part, k_turn = jax.random.split(key, 6)
        pairs = models.pool(exact, sizes, game, k_pairs)
        z = jax.random.normal(k_z, (sizes.rows, 2, 1))
        learned = lambda student, key: models.distilled(student, pairs, sizes, game.mask, key)(z)
        of = {
            "own": lambda: learned(models.own_student(sizes), k_own),
            "shared": lambda: learned(models.shared_student(sizes), k_shared),
            "part": lambda: models.partly(exact, sizes, game, k_part),
            "in turn": lambda: models.in_turn(sizes, game, k_turn)(z),
        }
        return {name: of[name]() for name in kinds}

    drawn = jax.jit(played)(jax.random.key(0))
    found = {name: law.of_samples(np.asarray(x[..., 0]), 2) for name, x in drawn.items()}
    exact_values = law.students(2, 2)
    error = (exact_values.share * (1 - exact_values.share) / sizes.rows) ** 0.5
    if "own" in kinds:
        assert abs(found["own"].share - exact_values.share) < 3 * error, found
        assert found["own"].variance == pytest.approx(exact_values.variance, abs=0.015)
        assert found["own"].distance == pytest.approx(0.5, abs=0.025)
        assert found["shared"].share > 0.9 and found["shared"].distance < 0.025
    else:
        assert found["part"].distance == pytest.approx(law.partly_shared(models.PART), abs=0.025)
        assert found["in turn"].distance < 0.1  # agents that are not told have 0.5


def test_points_are_means_over_seeds():
    rows = [
        Measure("two levels", "joint flow, 16", "agents=2", seed, "coordinated share", value)
        for seed, value in enumerate((0.9, 1.0))
    ]
    found, named = games.points(rows)
    flow = [p for p in found if p.curve == "joint flow"]
    assert {(p.panel, p.x) for p in flow} == {
        ("two levels: share that agrees", 0.0),
        ("two agents: share that agrees", 0.0),
        ("two agents, two levels: share by calls", 4.0),
    }
    assert [(p.mean, p.low, p.high) for p in flow] == [(0.95, 0.9, 1.0)] * 3
    assert {p.panel for p in found} <= set(named)
    assert len(named["with value: reward of the bandit"]) == len(games.ALPHAS)


def test_landmarks_are_drawn_by_calls():
    """A step to the right is twice the calls, so that agents in turn, three calls, are between 2 and 4."""
    rows = [
        Measure("landmarks", name, "agents=3", 0, "return", 300.0)
        for name in ("joint flow, 8", "in turn, n")
    ]
    (flow, turn) = [p for p in games.points(rows)[0] if p.panel == "landmarks: return, by calls"]
    assert (flow.curve, flow.x, turn.curve) == ("joint flow", 3.0, "in turn")
    assert turn.x == pytest.approx(np.log2(3))


def test_a_law_is_dashed_in_the_colour_of_what_follows_it(tmp_path):
    assert len(set(games.SLOTS.values())) == len(games.SLOTS)
    names = ("law: students", "students, own noise", "joint diffusion")
    found = [Point("share", name, 0.0, 0.2, np.nan, np.nan, 1) for name in names]
    figure = curves(tmp_path / "a.png", found, "", "", slots=games.SLOTS)
    law_line, line, other = figure.axes[0].lines
    assert law_line.get_color() == line.get_color() != other.get_color()
    assert [x.get_linestyle() for x in (law_line, line, other)] == ["--", "-", ":"]


def test_the_law_in_levels_is_drawn():
    """Two agents, two to four levels: nothing needs to be trained for it."""
    found, named = games.points([])
    of = lambda what, curve: [
        p.mean for p in found if (p.panel, p.curve) == (f"two agents: {what}", curve)
    ]
    distance = of("total variation", "law: students")
    np.testing.assert_allclose(distance, [0.5, 0.579, 0.666], atol=1e-3)
    shares = of("share that agrees", "law: students")
    np.testing.assert_allclose(shares[:2], [0.1953, 0.425], atol=1e-3)
    np.testing.assert_allclose(of("share that agrees", "law: product"), [1 / 2, 1 / 3, 1 / 4])
    assert named["two agents: total variation"] == ["2 levels", "3 levels", "4 levels"]


# --- the command ---


def test_what_a_seed_measured_is_kept_when_a_command_is_stopped(tmp_path):
    """A seed whose numbers are there is not measured again, unless what they depend on is another."""
    called = []

    def measure(seed):
        called.append(seed)
        return measured.of_seeds("game", "flow", "", [seed], {"share": [seed / 3]})

    def asked(seeds, stop_after):
        stopped = lambda: len(called) >= stop_after
        return Asked(seeds, 1.0, tmp_path, stopped)

    with pytest.raises(Interrupted):
        measured.seed_by_seed(asked([0, 1, 2], 2), "law", [1], measure)
    rows = measured.seed_by_seed(asked([0, 1, 2], 9), "law", [1], measure)
    assert called == [0, 1, 2]
    assert [(row.seed, row.value) for row in rows] == [(0, 0.0), (1, 0.333333), (2, 0.666667)]
    measured.seed_by_seed(asked([1], 9), "law", [2], measure)
    assert called == [0, 1, 2, 1]


def test_flags_that_mean_nothing_to_the_games_are_refused(tmp_path):
    assert REPRODUCTIONS["one-step"].load() is probe.one_step
    with pytest.raises(JaxomarlError, match=r"--systems.*nothing for one-step"):
        probe.one_step(Asked([0], 1.0, tmp_path, lambda: False, systems=("fql",)))
    of_landmarks = {"data": ("landmarks",), "systems": ("joint flw",)}
    with pytest.raises(JaxomarlError, match=r"--systems.*joint flow"):
        probe.one_step(Asked([0], 1.0, tmp_path, lambda: False, **of_landmarks))
    with pytest.raises(JaxomarlError, match=r"--data.*landmarks"):
        probe.one_step(Asked([0], 1.0, tmp_path, lambda: False, data=("landmark",)))


def test_data_chooses_a_part_of_the_games(tmp_path, monkeypatch):
    row = Measure("landmarks", "joint flow, 16", "agents=3", 0, "return", 1.0)
    monkeypatch.setitem(probe.PARTS, "landmarks", lambda asked: measured.Part("## Walks", [row]))
    text = probe.one_step(Asked([0], 4.0, tmp_path, lambda: False, data=("landmarks",)))
    assert "6000 on landmarks" in text and text.endswith("## Walks\n")
    assert measured.read(tmp_path) == [row]
    assert not (tmp_path / "one-step.png").exists()


def test_models_choose_the_kinds_that_are_trained():
    assert games.chosen_kinds(()) == ["joint", "own"]
    assert games.chosen_kinds(("in turn", "own flow")) == ["own"]


def test_calls_are_those_of_the_policys_network():
    calls = {name: systems.calls_of(systems.REGISTRY[name].Config()) for name in systems.SYSTEMS}
    assert {name for name, count in calls.items() if count == 1} == {
        "fql", "mac-flow", "mean-flow", "om2p",
    }  # fmt: skip
    assert calls["flow-bc"] == 10
