"""Commands on the particle tasks: collect, train on a folder, the table, a film; scales and presets."""

import dataclasses
import json

import numpy as np
import pytest

import jaxomarl
from jaxomarl.algorithms import REGISTRY
from jaxomarl.api import plan
from jaxomarl.base import JaxomarlError
from jaxomarl.cli import commands
from jaxomarl.papers.omsd import table2
from jaxomarl.presets import PRESETS, check_fits, find
from jaxomarl.presets.particle import TABLE
from jaxomarl.presets.small import PLANNERS
from jaxomarl.results import film, tabular
from jaxomarl.results.store import read_json

QUICK = (
    "--cfg.chunk",
    "2",
    "--cfg.every",
    "1",
    "--cfg.policy-steps",
    "4",
    "--cfg.policy-width",
    "8",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("collected") / "data"
    assert (
        commands.run(
            "collect", ["mpe/tag", "--quality", "random", "--rows", "500", "--out", str(out)]
        )
        == 0
    )
    return out


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "runs"
    flags = [
        "bc",
        "--task",
        "mpe/tag",
        "--data",
        str(folder),
        "--seeds",
        "2",
        "--out",
        str(out),
        *QUICK,
    ]
    flags += ["--final-episodes", "4"]
    assert commands.run("train", flags) == 0
    return out


def test_collect_writes_a_set_and_does_not_write_over_it(folder, capsys):
    manifest = read_json(folder / "manifest.json")
    assert (
        manifest["transitions"] == 500
        and manifest["episodes"] == 20
        and manifest["task"] == "mpe/tag"
    )
    again = ["mpe/tag", "--quality", "random", "--rows", "500", "--out", str(folder)]
    assert commands.run("collect", again) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert commands.run("collect", [*again, "--overwrite"]) == 0
    assert read_json(folder / "manifest.json") == manifest
    assert commands.run("collect", ["mpe/tag", "--quality", "randon"]) == 2
    assert "random" in capsys.readouterr().err


def test_a_run_on_a_folder_knows_its_data(folder, trained):
    (info, *_) = [read_json(p) for p in sorted(trained.rglob("run.json"))]
    assert info["data_sha256"] == read_json(folder / "manifest.json")["sha256"]
    assert info["normaliser"]["source"] == "this package's behaviours" and info["scale"] == 1.0


def test_a_run_is_filmed(trained, tmp_path, capsys):
    from PIL import Image

    run = next(p.parent for p in sorted(trained.rglob("run.json")))
    out = tmp_path / "film.gif"
    assert commands.run("render", [str(run), "--episodes", "2", "-o", str(out)]) == 0
    with Image.open(out) as film:
        assert film.n_frames == 26, "the step in the caption tells each frame from the one before"
        assert film.size == (2 * 360 + 6, 2 * 24 + 360 + 24), "captions above, a legend below"
    assert "returns" in capsys.readouterr().out


def test_runs_are_filmed_side_by_side_from_the_same_start(trained, tmp_path, capsys):
    from PIL import Image

    runs = [str(p.parent) for p in sorted(trained.rglob("run.json"))]
    out = tmp_path / "film.gif"
    assert commands.run("render", [*runs, "--size", "120", "-o", str(out)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in said[:2]] == ["bc seed 0", "bc seed 1"]
    with Image.open(out) as film:
        assert film.n_frames == 26
        assert film.size[0] == 2 * 120 + 6
        frames = []
        for k in (0, 25):
            film.seek(k)
            frames.append(np.asarray(film.convert("RGB"), int))
    # a legend of two rows is below
    left, right = np.split(np.array(frames)[:, -168:-48], [123], axis=2)
    apart = np.abs(left[:, :, :120] - right[:, :, 3:]).max(axis=(1, 2, 3))
    assert apart[0] == 0 and apart[1] > 50, "equal starts, and other ends"


def test_a_contact_sheet_says_what_it_shows(trained, tmp_path, capsys):
    from PIL import Image

    runs = [str(p.parent) for p in sorted(trained.rglob("run.json"))]
    out = tmp_path / "sheet.png"
    flags = ["--episodes", "1", "--frames", "3", "--size", "100", "-o", str(out)]
    assert commands.run("render", [*runs, *flags]) == 0
    assert film.about(out) == "bc seed 0, bc seed 1 on mpe/tag, 1 episode of seed 0"
    assert commands.run("render", [str(trained), *flags]) == 0
    assert film.about(out) == "bc seed 0 on mpe/tag, 1 episode of seed 0", "its first seed"
    with Image.open(out) as sheet:
        assert sheet.size[0] == 3 * 100 + 2 * film.GAP
    for flags in (["--frames", "0"], ["--size", "-1"], ["--episodes", "-1"]):
        assert commands.run("render", [*runs, *flags, "-o", str(out)]) == 2
    assert commands.run("render", ["-o", str(out)]) == 2
    said = capsys.readouterr().err
    assert "RUN: expected at least one folder" in said and "--frames: expected at least 1" in said


def test_the_table_sets_ours_beside_the_published(tmp_path, capsys):
    flags = [
        "omsd-table2",
        "--systems",
        "bc",
        "--tasks",
        "mpe/spread",
        "--data",
        "random",
        "--seeds",
        "2",
    ]
    flags += [
        "--rows",
        "500",
        "--episodes",
        "4",
        "--final-episodes",
        "4",
        "--scale",
        "0.5",
        "--out",
        str(tmp_path / "t"),
        *QUICK,
    ]
    assert commands.run("reproduce", flags) == 0
    text = (tmp_path / "t" / "omsd-table2.md").read_text()
    assert text in capsys.readouterr().out
    assert "-0.5 ± 3.2" in text  # Table 2's BC on random Cooperative Navigation
    assert (
        "Scale 0.5" in text
        and "policy_steps = 4" in text
        and "own behaviours" in text
        and "prey" in text
    )
    (shown,) = tabular.parsed(text)
    rows = (tmp_path / "t" / "omsd-table2.csv").read_text().splitlines()
    assert len(rows) == 1 + len(shown.rows) == 2, "one system was asked for"
    assert r"\toprule" in (tmp_path / "t" / "omsd-table2.tex").read_text()
    summary = (tmp_path / "t" / "mpe-spread-random" / "summary.md").read_text()
    assert "Scale 0.5" in summary and "normalised" in summary


def test_published_scores_are_the_papers(shared):
    import csv

    with open(shared / "published" / "omsd_table2.csv") as file:
        rows = {(r["task"], r["dataset"], r["system"]): r for r in csv.DictReader(file)}
    held = table2.published()
    assert len(held) == 81
    tasks = {
        "mpe/spread": "MPE: Cooperative Navigation",
        "mpe/tag": "MPE: Predator Prey",
        "mpe/world": "MPE: World",
    }
    for task, name in tasks.items():
        for data in ("Expert", "Medium", "Random"):
            mean, spread = held[task, data.lower(), "omsd"]
            row = rows[name, data, "OMSD"]
            assert (mean, spread) == (float(row["mean"]), float(row["spread"]))


def test_the_presets_have_the_tables_values_by_task_and_data():
    preset = find("", "mpe/world:speed_min=0.5", "omsd")
    assert preset.name == "particle" and len(TABLE) == 9
    given = preset.at("mpe/world:speed_min=0.5", "medium")
    assert (given["temperature"], given["expectile"], given["beta"]) == (1.0, 0.9, 0.05)
    assert given["time_limit"] == "terminal" and given["critic_steps"] == 500_000
    assert find("", "mpe/tag", "matd3").name == "online"
    robot = find("", "mamujoco/3hopper", "omsd").at("mamujoco/3hopper", "expert")
    assert (robot["critic_steps"], robot["policy_steps"], robot["time_limit"]) == (
        2_000_000,
        100_000,
        "bootstrap",
    )
    assert find("", "games/bandit", "omsd").name == "mode-seeking"
    ((cfg, _),) = plan.configs("omsd", PRESETS["particle"].at("mpe/tag", "random"), {})
    assert (cfg.beta, cfg.expectile) == (0.5, 0.7)


def test_released_settings_of_one_step_policies():
    """They are asked for by name, since an update of theirs is wide, and there are a million."""
    assert find("", "mpe/spread", "fql").name == "longer"
    given = lambda name, task="mpe/spread": PRESETS["released"].at(task, "expert", name)
    fql, mac_flow = given("fql"), given("mac-flow")
    assert (fql["alpha"], fql["normalise_value"], fql["policy_width"]) == (10.0, False, 512)
    assert (mac_flow["alpha"], mac_flow["gamma"], mac_flow["policy_batch"]) == (1.0, 0.995, 640)
    assert (given("om2p")["policy_lr"], given("om2p", "mpe/tag")["policy_lr"]) == (1e-3, 3e-4)
    for name in ("fql", "mac-flow", "om2p"):
        plan.configs(name, given(name), {})


def test_small_has_a_part_for_each_family():
    """Particle tasks, robots and games; each system's own fields alone, as others are refused."""
    small = PRESETS["small"]
    for task, quality in (("mpe/spread", "medium"), ("mamujoco/2halfcheetah", "medium")):
        for system in small.of(task).systems:
            ((cfg, _),) = plan.configs(system, small.at(task, quality, system), {})
            steps = 10_000 if task.startswith("mamujoco") or system in PLANNERS else 3000
            assert cfg.policy_steps == steps, system
    ((cfg, _),) = plan.configs("omsd", small.at("mpe/tag:speed_min=0.4", "random", "omsd"), {})
    assert (cfg.critic_width, cfg.score_predict, cfg.beta) == (64, "edm", 0.5)
    # games keep the sizes that they have by default
    for system in ("omsd", "fql"):
        default = find("", "games/bandit", system)
        assert small.at("games/bandit", "", system) == default.at("games/bandit", "", system)
    with pytest.raises(JaxomarlError, match=r"small, which is for mpe.*games"):
        check_fits("small", ["smax/3m"], ["bc"])


def test_gamma_is_what_each_papers_code_trains_with():
    """0.95 where OMAR's code leaves its default, robots too; 0.99 where the code or the paper has it."""
    omars = (
        "dom2-particle",
        "omar-particle",
        "cfcql-particle",
        "dom2-halfcheetah",
        "omar-halfcheetah",
    )
    others = (
        "dof-particle",
        "dof-halfcheetah",
        "particle",
        "mujoco",
        "planner-particle",
        "planner-mujoco",
    )
    assert {PRESETS[name].cfg["gamma"] for name in (*omars, "cfcql-halfcheetah")} == {0.95}
    assert {PRESETS[name].cfg["gamma"] for name in (*others, "diffusion-halfcheetah")} == {0.99}
    assert {REGISTRY[name].Config().gamma for name in ("dof-p", "ind-diffusion")} == {0.99}


@pytest.mark.parametrize(
    ("task", "data", "name", "codes"),
    [
        ("mpe/tag", "random", "paper", "particle"),
        ("mamujoco/2halfcheetah", "random", "paper-mujoco", "mujoco"),
    ],
)
def test_the_paper_preset_pairs_what_the_paper_prints(task, data, name, codes):
    """State, delta weights and the control variate together; all else is what the preset of its code has."""
    ((cfg, _),) = plan.configs("omsd", PRESETS[name].at(task, data), {})
    ((other, _),) = plan.configs("omsd", PRESETS[codes].at(task, data), {})
    printed = {
        "condition": "state",
        "weighting": "delta",
        "beta_convention": "paper",
        "control_variate": True,
    }
    assert dataclasses.asdict(cfg) == dataclasses.asdict(other) | printed
    assert (other.condition, other.weighting, other.control_variate) == ("obs", "vds", False)
    assert find("", task, "omsd").name == codes


def test_scale_shrinks_steps_and_widths_together_and_leaves_what_was_given():
    given = PRESETS["particle"].at("mpe/spread", "medium")
    ((cfg, _),) = plan.configs("omsd", given, {"policy_steps": [5000]}, scale=0.008)
    assert (cfg.critic_steps, cfg.score_steps, cfg.policy_steps) == (4000, 16_000, 5000)
    assert (cfg.critic_width, cfg.score_width, cfg.policy_width) == (
        48,
        104,
        48,
    )  # a fifth, in eights
    assert cfg.critic_batch == 512
    ((cfg, _),) = plan.configs("omsd", given, {"chunk": [10]}, scale=0.0001)
    assert (cfg.critic_steps, cfg.policy_steps) == (50, 10)


def test_an_override_goes_to_the_systems_that_have_it():
    groups = plan.resolve(
        ["bc", "iql"], ["games/bandit"], seeds=1, rows=50, overrides={"temperature": [1.0, 2.0]}
    )
    assert [(g.name, len(g.cfgs)) for g in groups] == [("bc", 1), ("iql", 2)]
    with pytest.raises(JaxomarlError, match="beta"):
        plan.resolve(["bc", "iql"], ["games/bandit"], seeds=1, rows=50, overrides={"beta": [1.0]})


def test_an_online_system_trains_without_data(tmp_path):
    small = dict(
        policy_steps=4,
        chunk=2,
        every=1,
        width=8,
        envs=2,
        collect=25,
        capacity=100,
        batch=8,
        warmup=10,
    )
    results = jaxomarl.train(
        "matd3", "mpe/spread", seeds=2, out=tmp_path / "m", episodes=2, final_episodes=2, **small
    )
    (values,) = results.returns.values()
    assert values.shape == (2, 2) and np.isfinite(values).all()
    info = read_json(results.runs[0].path / "run.json")
    assert info["data"] == "online" and info["data_sha256"] == ""
    action = jaxomarl.load(results.runs[0].path).act(np.zeros((3, 18)))
    assert action.shape == (3, 2)
    sizes = [p.stat().st_size for p in (tmp_path / "m").rglob("*") if p.is_file()]
    assert json.dumps(info) and max(sizes) < 200_000  # no replay was kept
