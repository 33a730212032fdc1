"""A set that does not fit its task is refused: each error names field, expected, found and the way out."""

import foreign
import numpy as np
import pytest
from refusing import refused

from jaxomarl.data import catalog as sets
from jaxomarl.data import formats
from jaxomarl.data.fit import fit
from jaxomarl.data.raw import from_dataset
from jaxomarl.envs import catalog


def changed(raw, field, index, value, agent=None):
    """`raw` with one entry changed."""
    arrays = getattr(raw, field)
    new = (arrays if agent is None else arrays[agent]).copy()
    new[index] = value
    return raw._replace(
        **{field: new if agent is None else (*arrays[:agent], new, *arrays[agent + 1 :])}
    )


# --- against the task ---


def test_the_good_set_fits(good, spread):
    assert fit(good, spread)[1]["transitions"] == 75


@pytest.mark.parametrize("kept", [(0, 1), (0, 1, 2, 2)], ids=["missing", "extra"])
def test_missing_or_extra_agents(good, spread, kept):
    raw = good._replace(
        obs=tuple(good.obs[i] for i in kept),
        action=tuple(good.action[i] for i in kept),
        reward=good.reward[:, kept],
    )
    refused(
        lambda: fit(raw, spread), "data, agents", "expected 3", f"found '{len(kept)}", "mpe/spread"
    )


def test_a_fourth_agent_that_is_no_prey_is_not_dropped(spread, tmp_path):
    task = spread._replace(
        env=spread.env._replace(
            spec=foreign.replaced(spread.env.spec, obs_dims=(16,) * 3, state_dim=48)
        )
    )
    raw = formats.read(foreign.omar(tmp_path, foreign.rows([25], (16,) * 4, (2,) * 4)))
    refused(lambda: fit(raw, task), "data, agents", "expected 3")


def test_wrong_widths_are_shown_side_by_side(good, spread):
    raw = good._replace(obs=(good.obs[0], good.obs[1], good.obs[2][:, :17]))
    refused(lambda: fit(raw, spread), "obs widths", "(18, 18, 18)", "(18, 18, 17)")
    raw = good._replace(action=tuple(np.hstack([x, x[:, :1] / 2]) for x in good.action))
    refused(lambda: fit(raw, spread), "action widths", "(2, 2, 2)", "(3, 3, 3)")


@pytest.mark.parametrize(
    "filled", ["0", "-1e+09", "-inf", "nan", "column 17 again", "column 0 again"]
)
def test_surplus_columns_are_cut_off_only_where_they_are_padding(good, spread, filled):
    def pad(x):
        if "column" in filled:
            return np.hstack([x, x[:, [int(filled.split()[1])] * 3]])
        return np.pad(x, ((0, 0), (0, 3)), constant_values=float(filled))

    wide = good._replace(obs=(good.obs[0], pad(good.obs[1]), good.obs[2]))
    data, manifest = fit(wide, spread)
    np.testing.assert_array_equal(data.obs, fit(good, spread)[0].obs)
    (line,) = [x for x in manifest["origin"]["repairs"] if "cut off as padding" in x]
    assert f"3 of obs 1 ({filled})" in line
    wide = good._replace(obs=tuple(np.pad(x, ((0, 0), (0, 3))) for x in good.obs))
    refused(lambda: fit(changed(wide, "obs", (70, 20), 1e-30, agent=1), spread), "(18, 21, 18)")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("field", ["obs", "action", "reward", "done", "state"])
def test_nan_and_infinity(good, spread, field, value):
    raw = good._replace(state=np.concatenate(good.obs, axis=1))
    agent = 2 if field in ("obs", "action") else None
    index = {"reward": ([7, 60], 1), "done": [7, 60]}.get(field, ([7, 60], 0))
    words = [f"data, {field}", "finite", "2 rows", "row 7"] + (["agent 2"] if agent else [])
    refused(lambda: fit(changed(raw, field, index, value, agent), spread), *words)


def test_actions_out_of_bounds_are_refused_and_rounding_is_clipped_and_counted(good, spread):
    text = refused(
        lambda: fit(changed(good, "action", (30, 1), -1.2, agent=1), spread),
        "action of agent 1",
        "[-1, 1]",
    )
    assert "up to 1.2" in text and "row 29 (episode 1, step 4)" in text
    data, manifest = fit(changed(good, "action", ([3, 4], 0), 1.00005, agent=0), spread)
    assert float(np.asarray(data.action).max()) == 1.0
    assert any("actions of 2 rows" in x and "clipped" in x for x in manifest["origin"]["repairs"])


def test_a_wrapper_of_26_steps_does_not_fit_a_task_of_25(tmp_path, spread):
    raw = formats.read(foreign.omar(tmp_path, foreign.rows([26, 26])))
    refused(
        lambda: fit(raw, spread),
        "episode length",
        "at most 25 steps",
        "2 of 2 are longer, up to 26",
    )


def test_episodes_that_stop_in_the_middle(tmp_path, spread):
    raw = formats.read(foreign.omiga(tmp_path / "x.hdf5", foreign.rows([25, 7, 25], shared=True)))
    refused(
        lambda: fit(raw, spread),
        "data, done, row 32 (episode 1, step 6)",
        "never terminates",
        "one after 7 of 25",
    )
    falls = spread._replace(
        env=spread.env._replace(spec=foreign.replaced(spread.env.spec, terminates="may"))
    )
    assert fit(raw, falls)[1]["origin"]["terminations"] == 1  # d does mark an end
    raw = changed(raw, "done", slice(None), 0.0)
    refused(
        lambda: fit(raw, falls),
        "data, episodes",
        "a termination or 25 steps",
        "1 that stop before",
        "of 7 steps",
    )


def test_a_done_inside_an_episode(good, spread):
    refused(
        lambda: fit(changed(good, "done", 40, 1.0), spread),
        "data, done, row 39 (episode 1, step 14)",
        "0 inside an episode",
    )


def test_no_rows(good, spread):
    none = slice(0)
    raw = good._replace(
        **{k: getattr(good, k)[none] for k in ("reward", "done", "step", "left", "known", "behaviour")},
        obs=tuple(x[none] for x in good.obs), action=tuple(x[none] for x in good.action),
    )  # fmt: skip
    refused(lambda: fit(raw, spread), "at least one transition")


def test_discrete_data_and_continuous_tasks(good, spread, tmp_path):
    refused(
        lambda: fit(good._replace(discrete=True), spread),
        "data, actions",
        "continuous ones",
        "discrete",
    )
    climbing = catalog.make("games/climbing")
    raw = from_dataset(sets.load(climbing, "uniform", 4)[0], climbing.env.spec)
    refused(lambda: fit(raw._replace(discrete=False), climbing), "data, actions", "discrete ones")
    refused(
        lambda: fit(changed(raw, "action", (0, slice(None)), 0.5, agent=1), climbing),
        "one-hot rows",
        "1 rows that are not",
    )
    legal = np.ones((len(raw.step), 2, 3), np.float32)
    legal[2, 0, raw.action[0][2].argmax()] = 0
    refused(
        lambda: fit(raw._replace(available=legal), climbing),
        "legal actions only",
        "row 1 (episode 1, step 0)",
    )


def test_another_dialect(good, tmp_path):
    tag = catalog.make("mpe/tag")
    raw = formats.read(foreign.omar(tmp_path, foreign.rows([25], (16, 16, 16, 14), (2,) * 4)))
    refused(
        lambda: fit(raw, tag),
        "data, dialect",
        "mpe-own-prey",
        "'mpe-omar'",
        "--task mpe/tag:prey=FILE",
    )
    spec = foreign.replaced(tag.env.spec, dialect="mpe-prey-0123abcd")
    refused(lambda: fit(raw, tag._replace(env=tag.env._replace(spec=spec))), "not OMAR's")
    omiga = good._replace(dialects=("mamujoco-omiga",))
    refused(
        lambda: fit(omiga, catalog.make("mpe/spread")),
        "data, dialect",
        "mpe-omar",
        "'mamujoco-omiga'",
    )


def test_a_state_that_the_set_has_not(good, spread):
    spec = foreign.replaced(spread.env.spec, state_dim=17)
    task = spread._replace(env=spread.env._replace(spec=spec))
    refused(lambda: fit(good, task), "data, state width", "17", "no state")
    refused(lambda: fit(good._replace(state=np.zeros((78, 18), np.float32)), task), "found 18")


def test_rows_without_a_known_successor_are_counted(good, spread):
    data, manifest = fit(changed(good, "known", 24, 0.0), spread)
    assert manifest["origin"]["unknown_successors"] == 1 == (np.asarray(data.known) == 0).sum()
