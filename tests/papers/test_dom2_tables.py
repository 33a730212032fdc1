"""DOM2's tables and figures at a tiny scale: shifted play, best of K, counts of solutions, curves."""

import csv
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxomarl.algorithms import REGISTRY
from jaxomarl.base import JaxomarlError
from jaxomarl.cli import commands
from jaxomarl.envs.catalog import make
from jaxomarl.envs.mpe.physics import Scene
from jaxomarl.papers import cells, comparison, measured, shifted
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.dom2 import figures, six_landmarks, tables
from jaxomarl.papers.shifted import EvaluationSetting
from jaxomarl.results import curves

QUICK = {"chunk": [2], "every": [1], "policy_steps": [4], "policy_width": [8], "policy_batch": [16]}
FLAGS = ["--seeds", "2", "--rows", "500", "--episodes", "4", "--final-episodes", "40"]
FLAGS += [x for k, v in QUICK.items() for x in (f"--cfg.{k.replace('_', '-')}", str(v[0]))]


def asked(out, **given):
    return Asked(
        [0, 1],
        1.0,
        out,
        lambda: False,
        rows=500,
        episodes=4,
        **{"overrides": QUICK, "final_episodes": 40, **given},
    )


@pytest.fixture(scope="module")
def tag(tmp_path_factory):
    ask = asked(tmp_path_factory.mktemp("tag"))
    return cells.train(ask, ["bc"], "mpe/tag", "random")


@pytest.fixture(scope="module")
def six(tmp_path_factory):
    out = tmp_path_factory.mktemp("six")
    flags = ["dom2-table7", "--systems", "bc", "--data", "random", *FLAGS, "--out", str(out)]
    assert commands.run("reproduce", flags) == 0
    return out


# --- shifted play ---


def test_in_its_own_task_a_policy_plays_its_final_evaluation_again(tag):
    cell, results = tag
    ((_, _, found),) = shifted.outcomes(results, EvaluationSetting(cell.task, 40))
    np.testing.assert_array_equal(found["return"][:, :, 0], results.returns["bc"])
    (again,) = shifted.setting_records(results, EvaluationSetting(cell.task, 40))
    assert (again.step, again.starts, again.episodes) == (4, "fresh", 40)
    assert (again.mean, again.normalised) == (cell.records[0].mean, cell.records[0].normalised)


def test_slower_agents_get_other_returns_and_no_normalised_score(tag):
    cell, results = tag
    (setting,) = tables.shifted_settings(results, "mpe/tag", ["speed_min=0.4"])
    (record,) = shifted.setting_records(results, setting)
    assert record.task == "mpe/tag:speed_min=0.4" and record.normalised is None
    assert record.converged == cell.records[0].converged
    assert (
        record.seeds == 2
        and record.episodes == 40
        and record.mean != pytest.approx(cell.records[0].mean, abs=1e-3)
    )


def test_returns_elsewhere_are_kept_as_evidence(tag, tmp_path):
    _, results = tag
    (setting,) = tables.shifted_settings(results, "mpe/tag", ["speed_min=0.4"])
    rows = shifted.setting_measures(results, setting)
    names = [(r.game, r.system, r.setting, r.seed, r.metric) for r in rows]
    assert names == [("mpe/tag:speed_min=0.4 random", "bc", "", k, "return") for k in (0, 1)]
    (record,) = shifted.setting_records(results, setting)
    assert np.mean([r.value for r in rows]) == pytest.approx(record.mean, rel=1e-5)
    # what another table has left stays
    measured.add_measures(tmp_path, [rows[0]._replace(value=7.0), rows[1]._replace(game="other")])
    measured.add_measures(tmp_path, rows)
    assert len(measured.read(tmp_path)) == 3
    assert measured.read(tmp_path)[0].value == pytest.approx(rows[0].value, rel=1e-4)


def test_what_was_played_is_read_and_not_played_again(tag, monkeypatch):
    _, results = tag
    setting = EvaluationSetting(make("mpe/tag:speed_min=0.7"), 2)
    ((_, runs, first),) = shifted.outcomes(results, setting)
    monkeypatch.setattr(shifted, "roll_out_group", lambda *_: pytest.fail("rolled out again"))
    ((_, _, again),) = shifted.outcomes(results, setting)
    assert set(again) == set(first) and all(np.array_equal(again[k], first[k]) for k in first)
    assert all((run.path / setting.file).exists() for run in runs)


def test_another_task_is_refused(tag):
    with pytest.raises(JaxomarlError, match="mpe/spread"):
        shifted.setting_records(tag[1], EvaluationSetting(make("mpe/spread"), 2))


def test_a_shift_is_added_to_what_the_task_has():
    assert shifted.with_parameter("mpe/tag", "speed_min=0.4") == "mpe/tag:speed_min=0.4"
    assert (
        shifted.with_parameter("mpe/tag:prey=x", "speed_min=0.4") == "mpe/tag:prey=x,speed_min=0.4"
    )
    assert tables.printed_task("mpe/tag:prey=x,speed_min=0.4") == "mpe/tag:speed_min=0.4"
    assert tables.printed_task("mpe/six:hidden=3 best of 10") == "mpe/six:hidden=3 best of 10"


# --- one start, many attempts ---


def drawing(group):
    """The group with noise on its final policy's actions."""

    def pipeline(spec, cfg, env=None):
        *before, last = group.system.pipeline(spec, cfg, env)

        def act(key, *rest):
            action, memory = last.algorithm.act(key, *rest)
            return action + 0.3 * jax.random.normal(key, action.shape), memory

        return (*before, last._replace(algorithm=last.algorithm._replace(act=act)))

    return dataclasses.replace(group, system=group.system._replace(pipeline=pipeline))


def test_attempts_share_their_start_and_differ_in_the_policys_draws_alone(six):
    _, results = cells.train(asked(six), ["bc"], "mpe/six", "random")
    ((group, past),) = results.past
    setting = EvaluationSetting(make("mpe/six:hidden=3"), 4, 10)  # Table 7's, which is read
    noisy = dataclasses.replace(results, out=None, past=[(drawing(group), past)])
    (still, moved) = [
        found["return"] for r in (results, noisy) for _, _, found in shifted.outcomes(r, setting)
    ]
    assert still.shape == moved.shape == (2, 4, 10)
    assert (
        np.ptp(still, axis=2).max() < 1e-3 < np.ptp(still[:, :, 0], axis=1).min()
    )  # it draws nothing
    assert np.ptp(moved, axis=2).min() > 1e-3
    (best,) = shifted.setting_records(noisy, setting)
    assert best.mean == pytest.approx(moved.max(axis=2).mean(), rel=1e-5)
    assert best.task == "mpe/six:hidden=3 best of 10"


def scene(*agents, hidden=()):
    angle = 2 * np.pi * np.arange(6) / 6
    marks = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    pos = np.concatenate([[marks[a] + 0.1 if isinstance(a, int) else a for a in agents], marks])
    seen = np.array([float(k not in hidden) for k in range(6)])
    return Scene(
        jnp.asarray(pos), jnp.zeros((3, 2)), jnp.full(3, jnp.inf), jnp.asarray(seen), jnp.zeros(())
    )


def test_a_solution_is_who_is_where():
    assert six_landmarks.solution(scene(0, 2, 5)) == 2 * 6 + 5
    assert six_landmarks.solution(scene(2, 0, 5)) == 2 * 36 + 5
    assert six_landmarks.solution(scene(2, 2, 5)) == -1
    assert six_landmarks.solution(scene(0, 2, (0.0, 0.0))) == -1
    assert six_landmarks.solution(scene(0, 2, 5, hidden=(2,))) == -1


def test_solutions_are_counted_among_good_episodes_once():
    returns = np.array([[401.0, 500.0, 400.0, 600.0], [500.0, 500.0, 500.0, 100.0]])
    solutions = np.array([[7.0, 7.0, 9.0, -1.0], [7.0, 8.0, 9.0, 10.0]])
    assert six_landmarks.distinct(returns, solutions) == [1, 3]


# --- commands ---


def test_the_six_landmarks_tables_and_pictures(six, capsys):
    text = (six / "dom2-table7.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| mpe/six")]
    names = ["mpe/six", "mpe/six:hidden=3", "mpe/six:hidden=3 best of 10"]
    assert [line.split(" | ")[0][2:] for line in lines if "| bc" in line] == names
    assert not [line for line in lines if "| dom2 |" in line], "bc alone was asked for"
    assert tables.published(7)[names[2], "random", "dom2"] == (283.7, 53.0)
    assert "policy_steps = 4" in text
    flags = ["dom2-table8", "--systems", "bc", "--data", "random", *FLAGS, "--out", str(six)]
    assert commands.run("reproduce", flags) == 0  # on the runs of Table 7
    assert "updates" not in capsys.readouterr().err  # nothing is trained again
    kept = {(m.game, m.metric): m.value for m in measured.read(six)}
    names = ("good starts", "good from one start", "ways")
    assert [kept["mpe/six random", name] for name in names] == [0.0, 0.0, 0.0]
    assert ("mpe/six:hidden=3 best of 10 random", "return") in kept
    text = (six / "dom2-table8.md").read_text()
    (line,) = [x for x in text.splitlines() if x.startswith("| mpe/six | random | bc")]
    assert " 0.0 ± 0.0 | 0.0 ± 0.0 | 0.0 ± 0.0 |" in line  # four updates find no good way
    assert "12.8 ± 3.4" in text and "out of 20" in text
    pictures = {"returns.png", "solutions.png", "ways-mpe-six-random.png"}
    assert {p.name for p in six.glob("*.png")} == pictures


@pytest.mark.long
def test_figure_5_is_a_table_points_and_a_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "FRACTIONS", (0.5, 1.0))
    flags = [
        "--systems",
        "bc",
        "--tasks",
        "mpe/tag",
        "--data",
        "random",
        *FLAGS,
        "--out",
        str(tmp_path),
    ]
    assert commands.run("reproduce", ["dom2-fig5", *flags]) == 0
    with open(tmp_path / "points.csv") as file:
        points = list(csv.DictReader(file))
    assert [(p["panel"], float(p["x"])) for p in points[:2]] == [("mpe/tag", 0.5), ("mpe/tag", 1.0)]
    assert points[2]["mean"] == points[1]["mean"]  # all the data, one kind, one task
    assert (
        "250 transitions" in (tmp_path / "dom2-fig5.md").read_text()
        and (tmp_path / "curves.png").exists()
    )


def test_figure_7_sweeps_a_field_after_another(tmp_path, monkeypatch):
    monkeypatch.setattr(
        figures, "SWEEPS", {"policy_lr": (0.001, 0.01)}
    )  # BC's, which compiles sooner
    ask = dataclasses.replace(
        asked(tmp_path, tasks=("mpe/tag",), systems=("bc",), data=("random",)), seeds=[0]
    )
    lines = [x.split(" | ") for x in figures.fig7(ask).splitlines() if x.startswith("| mpe/tag")]
    assert [x[:3] for x in lines] == [
        ["| mpe/tag: policy_lr", "bc random", v] for v in ("0.001", "0.01")
    ]
    assert lines[0][3] != lines[1][3]
    with pytest.raises(JaxomarlError, match="what is swept"):
        figures.fig7(dataclasses.replace(ask, overrides={"policy_lr": [0.1]}))


def test_a_swept_row_meets_the_printed_row_of_its_name(tag):
    """MA-EDP is printed twice in Table 4, once for each sampler; every printed row is beside one of ours, or below."""
    (record,) = tag[0].records
    ours = [record._replace(system="edp", swept=f"sampler={k}") for k in ("dpm", "ddpm")] + [record]
    text = comparison.full_table(ours, tables.published(4), tables.printed_task, "std", alone=True)
    lines = [
        [x.strip() for x in line.split("|")[1:-1]] for line in text.splitlines()[2:] if "|" in line
    ]
    (dpm, ddpm, bc), theirs = lines[:3], [line[2] for line in lines[3:]]
    assert (dpm[-1], ddpm[-1], bc[-1]) == ("64.3 ± 14.3", "8.8 ± 8.5", "")
    wanted = {"brac", "iql-ind", "diffusion-ql", "omac", "omiga", "cfcql", "madiff", "dof", "dom2"}
    wanted |= {"cql", "omar", "sfbc"}  # of Table 1
    assert len(theirs) == len(wanted) and set(theirs) == wanted
    assert {*tables.SYSTEMS, *tables.BESIDE} <= set(REGISTRY)


def test_a_glance_has_a_column_for_each_data_set(tag):
    """Ours with the printed mean in brackets, an empty cell where a system was not run, a row of the paper's own."""
    (record,) = tag[0].records
    record = record._replace(health="learned")
    one = record._replace(data="medium", system="td3-bc", mean=7.25, std=1.0, converged=False)
    one = one._replace(data_mean=10.0, data_se=0.125)
    two = record._replace(
        data="expert", system="bc", mean=20.0, std=None, converged=None, data_mean=None
    )
    printed = {
        ("mpe/tag", "medium", "td3-bc"): (70.0, 1.0),
        ("mpe/tag", "expert", "madiff"): (9.0, 1.0),
    }
    shown = (printed, tables.printed_task)
    lines = comparison.overview([one, two], *shown).splitlines()
    assert lines[2:] == [
        "| mpe/tag | medium (10.00 ± 0.12) | expert |",
        "| --- | --- | --- |",
        "| td3-bc | 7.2 ± 1.0* (70.0) |  |",
        "| bc |  | 20.0 |",
        "| madiff |  | (9.0) |",
        "",
    ]
    assert "madiff" not in comparison.overview([one, two], *shown, others=False)
    assert comparison.overview([one], *shown) == ""
    short = comparison.overview([one._replace(health="short: critic"), two], *shown)
    assert "| td3-bc | 7.2 ± 1.0*† (70.0) |" in short
    scored = comparison.overview([one._replace(normalised=3.0), two], *shown, normalised=True)
    assert (
        "| td3-bc | 7.2 ± 1.0* (3.0; 70.0) |" in scored
        and "the normalised score; the printed one" in scored
    )


def test_thresholds_out_of_reach_are_left_out_and_said(tmp_path):
    groups, ask, note = cells.resolve(asked(tmp_path), ["dom2"], "mpe/tag", "random-medium", "")
    left = [float(x) for x in groups[0].cfgs[0].thresholds.split(",") if x]
    assert left == [float(x) for x in ask.overrides["thresholds"][0].split(",") if x]
    assert max(left, default=0.0) < 300.0 and "300" in note
    given = asked(tmp_path, overrides={**QUICK, "thresholds": ["900"]})
    with pytest.raises(JaxomarlError, match="thresholds"):
        cells.resolve(given, ["dom2"], "mpe/tag", "random-medium", "")


# --- what is printed ---


def test_published_numbers_are_the_papers(shared):
    tasks = {"MPE shifted speed: World": "mpe/world:speed_min=0.5", "MPE: World": "mpe/world"}
    tasks |= {
        f"MAMuJoCo 2-agent: HalfCheetah-{x} Env.": f"mamujoco/2halfcheetah:shift={x.lower()}"
        for x in ("Extreme",)
    }
    tasks |= {"3-Agent 6-Landmark: Shifted Environment K = 10": "mpe/six:hidden=3 best of 10"}
    tasks |= {"3-Agent 6-Landmark standard env": "mpe/six"}
    names, seen = {"MA-CQL": "cql", "OMAR": "omar", "DOM2": "dom2", "DoF": "dof"}, 0
    assert sum(len(tables.published(k)) for k in (1, 2, 3, 7, 8, 9)) == 348
    for k in (1, 2, 3, 7, 8, 9):
        held = tables.published(k)
        with open(shared / "published" / f"dom2_table{k}.csv") as file:
            for r in csv.DictReader(file):
                at = (
                    tasks.get(r["task"]),
                    r["dataset"].lower().replace(" ", "-"),
                    names.get(r["system"]),
                )
                if all(at) and at[1] != "average":
                    assert held[at] == (float(r["mean"]), float(r["spread"]))
                    seen += 1
    assert seen == 98


def test_a_figure_of_nothing_is_refused(tmp_path):
    with pytest.raises(JaxomarlError, match="points"):
        curves.curves(tmp_path / "x.png", [], "x", "y")
    with pytest.raises(JaxomarlError, match="solutions of a"):
        curves.solution_paths(
            tmp_path / "x.png", {"a": (np.zeros((2, 5, 3)), np.zeros((6, 2)), np.zeros(2))}
        )
