"""The fidelity report: statistics of rows, environments put where rows say, and what a wrong row is told."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from alone import jit

from jaxomarl.base import Episodes, JaxomarlError, Spec
from jaxomarl.data.catalog import load
from jaxomarl.data.dataset import pack
from jaxomarl.data.fidelity import above, correlations, errors, ks, real_windows
from jaxomarl.envs.catalog import make
from jaxomarl.envs.placed import placed
from jaxomarl.papers.coda.measure import FidelityMeasure
from jaxomarl.results.fidelity import fidelity
from jaxomarl.stages.augmented import Settings
from jaxomarl.stages.generator import Generator

SMALL = Settings(generator_width=8, augment_windows=16, augment_microbatch=16, augment_levels=4)


# --- statistics ---


def test_distances_are_gaps_of_distribution_functions():
    a = np.stack([np.arange(10.0), np.zeros(10)], axis=1)
    b = np.stack([np.arange(10.0) + 5, np.arange(10.0) >= 7], axis=1)
    np.testing.assert_allclose(ks(a, b), [0.5, 0.3])
    assert ks(a, a[::-1]).tolist() == [0.0, 0.0]


def test_correlations_are_those_of_numpy_and_constants_have_none():
    rows = np.random.default_rng(0).standard_normal((200, 3)).astype(np.float32)
    rows[:, 1] += rows[:, 0]
    found = correlations(np.concatenate([rows, np.full((200, 1), 7.0, np.float32)], axis=1))
    np.testing.assert_allclose(found[:3, :3], np.corrcoef(rows.T), atol=1e-5)
    assert np.all(found[3] == 0) and len(above(found)) == 6


def test_errors_are_in_deviations_of_columns_that_vary():
    said, true = np.array([[3.0, 5.0, 1.0]]), np.array([[1.0, 5.0, 9.0]])
    assert errors(said, true, np.array([2.0, 1.0, 0.0])) == pytest.approx(np.sqrt(0.5))
    assert errors(said, true, np.zeros(3)).tolist() == [0.0]


def test_two_draws_of_the_data_are_whole_windows_that_share_no_start():
    rows = np.arange(40.0, dtype=np.float32)
    step, zero = np.tile(np.arange(8, dtype=np.int32), 5), np.zeros(40, np.int32)
    blocks = (
        rows[:, None, None],
        rows[:, None],
        0 * rows[:, None, None],
        0 * rows[:, None],
        0 * rows,
    )
    data = pack(
        Episodes(*map(jnp.asarray, (*blocks, step, 7 - step, zero))), Spec((1,), (1,), 1, horizon=7)
    )
    one, two = real_windows(data, 50, 5, seed=0)
    starts = [windows[:, 0, 0].astype(int) for windows in (one, two)]
    assert len(one) == len(two) == 7 and not set(starts[0]) & set(starts[1])
    for at, window in zip(np.concatenate(starts), np.concatenate([one, two]), strict=True):
        assert np.array_equal(window[:, 0], np.arange(at, at + 6)) and step[at] <= 2
    assert len(real_windows(data, 2, 5, seed=0)[1]) == 2


# --- environments ---


@pytest.mark.parametrize(
    ("name", "bound"),
    [
        pytest.param("mpe/spread", 1e-4, marks=pytest.mark.long),
        ("mpe/world", 1e-4),
        ("mamujoco/2halfcheetah", 1e-4),
        pytest.param("mamujoco/4ant", 2e-2, marks=pytest.mark.long),
    ],
)
def test_an_environment_put_where_a_row_says_goes_on_as_it_did(name, bound):
    """Rows of a few random steps: what follows is what followed, up to rounding and the solver's warm start."""
    task = make(name)
    data, _ = load(task, "random", 60)
    put = placed(task).put
    assert put is not None
    rows = np.flatnonzero(np.asarray(data.left) > 0)[:16]
    held = {k: np.asarray(getattr(data, k)) for k in ("obs", "state", "action", "reward", "done")}
    state = put(held["obs"][rows], held["state"][rows])
    step = lambda state, action: task.env.step(jax.random.key(0), state, action)[1]
    then = jax.jit(jax.vmap(step))(state, jnp.asarray(held["action"][rows]))
    scale = 1.0 + np.abs(held["obs"]).max()
    assert np.abs(np.asarray(then.obs) - held["obs"][rows + 1]).max() < bound * scale
    assert np.abs(np.asarray(then.reward) - held["reward"][rows]).max() < 10 * bound
    assert np.array_equal(np.asarray(then.done), held["done"][rows])
    moved = np.abs(held["obs"][rows + 1] - held["obs"][rows]).max(axis=(1, 2))
    assert moved.min() > 10 * bound, "else standing still would pass"


@pytest.mark.parametrize(
    ("name", "word"),
    [("mpe/six:hidden=2", "hidden"), ("mpe/tag:speed_min=0.4", "speed_min"), ("games/chain", "not known"),
     ("mamujoco/2halfcheetah:dialect=omar", "not known"), ("mamujoco/3hopper:shift=random", "shift")],
)  # fmt: skip
def test_what_rows_do_not_hold_is_said(name, word):
    assert placed(make(name)).put is None and word in placed(make(name)).why


# --- the judge ---


@pytest.fixture(scope="module")
def game():
    """(a judge of a game's rows, whole windows of its data, an untrained model)."""
    task = make("games/twin-peaks")
    data, _ = load(task, "uniform", 100)
    model = Generator(task.env.spec, SMALL, 1)
    judge = FidelityMeasure(task, data, model)
    windows = real_windows(data, 40, 1, 0)[0][..., : model.held.width]
    return judge, windows, jit(lambda key, data: model.init(key, {}, data))(jax.random.key(0), data)


def test_real_rows_are_replayed_without_error(game):
    judge, windows, _ = game
    found = judge.replayed(windows, 0)
    np.testing.assert_allclose(found.reward, found.paid, atol=1e-6)
    assert found.ends == 0 and len(found.reward) == 40 and found.paid.std() > 0.1


def test_a_wrong_reward_action_or_end_is_seen(game):
    judge, windows, _ = game
    at = judge.model.held.at
    wrong = lambda block, change: (
        windows.copy().astype(np.float32)
        + change
        * (
            np.isin(np.arange(windows.shape[-1]), np.arange(*at[block]))
            & (np.arange(2) == 0)[:, None]
        )
    )
    off = judge.replayed(wrong("reward", 0.3), 0)
    np.testing.assert_allclose(off.reward - off.paid, 0.3, atol=1e-5)
    other = judge.replayed(wrong("action", 0.2), 0)
    assert np.abs(other.reward - other.paid).mean() > 0.05
    assert judge.replayed(wrong("done", -1.0), 0).ends == 1.0


def test_an_untrained_model_is_told_from_the_data(game):
    judge, _, trained = game
    found = judge.judged(trained, 0)
    ours, floor, _ = found.numbers["reward: error, median"]
    assert floor < 1e-5 < 0.05 < ours and found.windows == 16 and found.dropped == 0
    assert not [k for k in found.numbers if k.startswith(("obs", "state", "next state"))], (
        "they are constant"
    )
    assert len(found.columns[0]) == 4  # two actions, two rewards


def test_a_model_of_broken_windows_alone_is_refused(game):
    judge, _, trained = game
    broken = trained._replace(
        net=trained.net._replace(target=jax.tree.map(lambda x: x * jnp.nan, trained.net.target))
    )
    with pytest.raises(JaxomarlError, match="windows of both kinds"):
        judge.judged(broken, 0)


@pytest.mark.parametrize("field", ["generator_normaliser", "generator_weighting"])
def test_an_unknown_normaliser_or_weighting_is_refused(field):
    cfg = Settings(**{field: "limits"})
    with pytest.raises(JaxomarlError, match=f"--cfg.{field.replace('_', '-')}"):
        Generator(make("games/twin-peaks").env.spec, cfg, 1)


def test_a_picture_of_nothing_is_refused(tmp_path):
    none = np.zeros(0)
    with pytest.raises(JaxomarlError, match="columns"):
        fidelity(tmp_path / "x.png", (none, none), (none, none, none), {}, (none, none))
