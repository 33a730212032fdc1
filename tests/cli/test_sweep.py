"""One tiny sweep, and all that a user does with it afterwards: read, resume, extend, reuse, load."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import jaxomarl
from jaxomarl import documents
from jaxomarl.api import ended
from jaxomarl.base import JaxomarlError
from jaxomarl.cli import commands
from jaxomarl.results import canvas, store, tabular
from jaxomarl.training.sharding import at_once

ROOT = Path(__file__).parents[2]
SYSTEMS = ("omsd", "iql")
SEEDS, EPISODES, FINAL, STEPS, CHUNK, EVERY = 2, 3, 5, 20, 5, 2
EVALUATIONS = [0, 10, 20]
CFG = {
    **{
        f"{stage}_{k}": v
        for stage in ("critic", "score", "policy")
        for k, v in (("steps", STEPS), ("batch", 8))
    },
    **{
        "critic_width": 8,
        "score_width": 8,
        "policy_width": 8,
        "score_embedding": 8,
        "chunk": CHUNK,
        "every": EVERY,
    },
}
IQL = {k: v for k, v in CFG.items() if not k.startswith("score")}
"""The settings that IQL has of these."""
SMALL = (
    *("--rows", "200", "--episodes", str(EPISODES), "--final-episodes", str(FINAL)),
    *(x for k, v in CFG.items() for x in (f"--cfg.{k.replace('_', '-')}", str(v))),
)


def run(command, *flags):
    """(exit code, what it printed on stdout) of a command in this process."""
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setenv("JAX_NUM_CPU_DEVICES", "1")  # leave the devices of this process as they are
        code = commands.run(command, [*flags, *SMALL])
    return code, out.getvalue()


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """OUT of a finished sweep; tests read it and write into copies."""
    folder = tmp_path_factory.mktemp("sweep") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canvas, "COPIES", (".svg", ".pdf"))  # tests/conftest.py does without
        flags = ("--systems", *SYSTEMS, "--seeds", str(SEEDS), "--out", str(folder))
        code, text = run("sweep", *flags, "--log", "csv")
    assert code == 0
    (folder.parent / "stdout").write_text(text)
    return folder


@pytest.fixture
def copy(out, tmp_path):
    """A copy of the finished sweep to go on with."""
    return Path(shutil.copytree(out, tmp_path / "out"))


def runs(folder):
    """Run folders by (system, seed, swept values)."""
    found = {
        (r.info["system"], r.info["seed"], *r.info["swept"].values()): r
        for r in store.find_runs([folder])
    }
    assert len(found) == len(store.find_runs([folder]))
    return found


def numbers(folder):
    """What must not change: tables and policies, by name."""
    kept = ("metrics.csv", "returns.csv", "final.csv", "health.csv", "policy.safetensors")
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob("*")
        if p.name in kept
    }


def journals(folder):
    """Chunks that were begun, by stage."""
    return {p.parent.name: p.read_text().split() for p in folder.glob("stages/*/executed")}


def trained(folder):
    """Rows of all stages that were trained in a folder: (kind, row), each once."""
    done = [json.loads(p.read_text()) for p in folder.glob("stages/*/DONE")]
    rows = [(d["kind"].rpartition("-")[0], row) for d in done for row in d["rows"]]
    assert len(rows) == len(set(rows)), "a stage was trained twice for the same run"
    return rows


# --- what it leaves ---


def test_the_files(out):
    assert {p.name for p in out.iterdir()} >= {
        "sweep.json",
        "stages",
        "games-bandit",
        "summary.md",
        "summary.csv",
    }
    found = runs(out)
    assert set(found) == {(s, k) for s in SYSTEMS for k in range(SEEDS)}
    for run in found.values():
        names = {p.name for p in run.path.iterdir()}
        assert names == {
            "run.json",
            "metrics.csv",
            "returns.csv",
            "final.csv",
            "health.csv",
            "policy.safetensors",
            store.SUMS,
        }
        assert (run.path.parent / "DONE").exists()
    assert not [p for p in out.rglob("*") if p.name.endswith(".part")]
    assert not [p for p in out.rglob("*") if p.suffix in (".pkl", ".pickle", ".npy", ".pt")]


def test_the_tables_of_a_run(out):
    columns = "system,task,data,config,seed,stage,step,metric,episode,value"
    for (system, seed), run in runs(out).items():
        for name in ("metrics.csv", "returns.csv", "final.csv", "health.csv"):
            assert (run.path / name).read_text().splitlines()[0] == columns
        metrics, returns = (
            store.read_rows(run.path / "metrics.csv"),
            store.read_rows(run.path / "returns.csv"),
        )
        assert {r.system for r in metrics + returns} == {system}
        assert {r.seed for r in metrics + returns} == {seed}
        assert {r.config for r in metrics + returns} == {run.info["config"]}
        stages = list(dict.fromkeys(r.stage for r in metrics))
        assert set(stages) == set(run.info["stages"])
        assert stages[-1] == run.info["final_stage"]
        for stage in stages:  # one row per chunk
            names = {r.metric for r in metrics if r.stage == stage}
            for name in names:
                assert [r.step for r in metrics if (r.stage, r.metric) == (stage, name)] == [
                    5,
                    10,
                    15,
                    20,
                ]
        scores = [
            (r.step, r.episode) for r in returns if (r.stage, r.metric) == (stages[-1], "return")
        ]
        assert scores == [(step, e) for step in EVALUATIONS for e in range(EPISODES)]
        assert {r.episode for r in metrics} == {""}
        assert np.isfinite([r.value for r in metrics + returns]).all()


def test_run_json(out):
    for (system, seed), run in runs(out).items():
        info = run.info
        assert (info["system"], info["task"], info["data"], info["seed"]) == (
            system,
            "games/bandit",
            "std0.3",
            seed,
        )
        cfg = CFG if system == "omsd" else IQL
        assert {k: info["cfg"][k] for k in cfg} == cfg
        if system == "omsd":
            assert info["cfg"]["weighting"] == "score"  # the preset's
        assert len(info["data_sha256"]) == 64
        assert {"python", "jax", "jaxlib", "numpy", "orbax-checkpoint"} <= set(info["versions"])
        assert info["device"].startswith("cpu")
        assert info["precision"]["evaluation"] == "highest"
        assert info["dialect"]
        assert info["episodes"] == EPISODES
        chunks = {name: facts["updates_executed"] for name, facts in info["stages"].items()}
        assert chunks == dict.fromkeys(chunks, STEPS)
        assert info["updates_executed"] == STEPS * len(chunks)
        assert len(chunks) == (3 if system == "omsd" else 2)
        for facts in info["stages"].values():
            assert facts["program_bytes"] > 1_000, "the state and a batch at least"
            assert facts["mapping"] == "blocks"
            of_a_device = facts["runs"] // facts["devices"]
            assert facts["at_once"] == at_once("blocks", of_a_device)
            assert facts["updates"] == STEPS
            assert facts["seconds"] >= 0
            assert facts["compile_seconds"] > 0
        assert info["seconds"] == pytest.approx(
            sum(f["seconds"] for f in info["stages"].values()), abs=1e-2
        )
        assert info["compile_seconds"] > 0


def test_systems_share_a_stage(out):
    names = [kind for kind, _ in trained(out)]
    assert sorted(names) == sorted(
        SEEDS * ["critic", "scores-conditional", "omsd-policy", "iql-policy"]
    )
    first, second = (runs(out)[s, 0].info["stages"]["critic"] for s in SYSTEMS)
    assert first == second


def test_the_summary(out):
    markdown, screen = (out / "summary.md").read_text(), (out.parent / "stdout").read_text()
    assert "| system" in markdown and "games/bandit" in markdown
    for word in (*SYSTEMS, "IQM", "95 %", "coordinated"):
        assert word in markdown
        assert word in screen
    rows = {r["system"]: r for r in store.read_table(out / "summary.csv")}
    for system in SYSTEMS:
        assert (rows[system]["seeds"], rows[system]["step"]) == (str(SEEDS), str(STEPS))
        final = [
            np.mean(
                [
                    r.value
                    for r in store.read_rows(x.path / "final.csv")
                    if (r.metric, r.step) == ("return", STEPS)
                ]
            )
            for (name, _), x in runs(out).items()
            if name == system
        ]
        assert float(rows[system]["mean"]) == pytest.approx(np.mean(final), rel=1e-6)
    # the same cells for a paper, and the differences below them
    latex = (out / "summary.tex").read_text()
    tables = tabular.parsed(markdown)
    assert latex.count(r"\toprule") == len(tables)
    for row in tables[0].rows:
        assert " & ".join(x.replace("†", r"$\dagger$") for x in row) in latex
    assert len(store.read_table(out / "differences.csv")) == (
        len(tables[1:]) and len(tables[1].rows)
    )


def test_a_logger_is_told_what_the_files_hold(out):
    """log/RUN.csv has each number of the run's files once: means over episodes, final ones apart."""
    for run in runs(out).values():
        told = store.read_table((out / "log" / run.path.relative_to(out)).with_suffix(".csv"))
        numbers = {(int(x["step"]), x["name"]): float(x["value"]) for x in told}
        assert len(numbers) == len(told)
        expected = {}
        for name in ("metrics.csv", "returns.csv", "health.csv", "final.csv"):
            for r in store.read_rows(run.path / name):
                stage = "final" if name == "final.csv" else r.stage
                expected.setdefault((r.step, f"{stage}/{r.metric}"), []).append(r.value)
        # what was measured before training is told with the rest
        means = {key: np.mean(values) for key, values in expected.items()}
        assert numbers == pytest.approx(means, rel=1e-5, nan_ok=True)


def test_the_pictures(out):
    image = pytest.importorskip("matplotlib.image")
    names = ("returns.png", "intervals.png", "games-bandit-directions.png")
    for name in names:
        pixels = image.imread(out / name)
        assert min(pixels.shape[:2]) >= 100
        assert pixels[..., :3].std() > 0.01, f"{name} is empty"
        assert str(out / name) in (out.parent / "stdout").read_text()
        svg = ElementTree.parse((out / name).with_suffix(".svg")).getroot()
        assert svg.tag.endswith("svg") and len(list(svg.iter())) > 100
        assert (out / name).with_suffix(".pdf").read_bytes().startswith(b"%PDF")


# --- going on with it ---


def test_a_finished_sweep_is_reprinted_without_a_program(out, copy, monkeypatch):
    """A file that is not as it was written is noticed, wherever it lies, and mended."""
    flags = ("--systems", *SYSTEMS, "--seeds", str(SEEDS), "--out", str(copy), "--resume")
    assert run("sweep", *flags)[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr("jaxomarl.api.session.train_groups", None)
        patch.setattr(commands, "draw", None)
        code, text = run("sweep", *flags)
    assert code == 0 and text.replace(str(copy), str(out)) == (out.parent / "stdout").read_text()

    table = next(copy.rglob("returns.csv"))
    content = table.read_bytes()
    for file in (table, next(copy.rglob("d/*")), copy / "summary.md", copy / "DONE"):
        file.write_bytes(file.read_bytes()[:-3])
        with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
            patch.setattr("jaxomarl.api.session.train_groups", lambda *_: 1 / 0)
            run("sweep", *flags)
    assert run("sweep", *flags)[0] == 0
    assert table.read_bytes() == content


def test_an_end_without_its_digest_is_none(tmp_path):
    names = {"sizes": {}, "files": {}, "records": [], "pictures": []}
    facts = {"plan": ended.plan_digest(tmp_path, []), **names}
    documents.write_sealed(tmp_path / "DONE", facts)
    assert ended.find(tmp_path, []) == ended.Ended([], [])
    (tmp_path / "DONE").write_text(json.dumps(facts))
    assert ended.find(tmp_path, []) is None


def test_resume_of_a_finished_sweep_reprints_and_executes_nothing(out, copy):
    code, text = run(
        "sweep", "--systems", *SYSTEMS, "--seeds", str(SEEDS), "--out", str(copy), "--resume"
    )
    assert code == 0
    assert text.replace(str(copy), str(out)) == (out.parent / "stdout").read_text()
    assert journals(copy) == journals(out)
    assert numbers(copy) == numbers(out)
    assert (copy / "summary.csv").read_bytes() == (out / "summary.csv").read_bytes()
    assert {k: r.info for k, r in runs(copy).items()} == {k: r.info for k, r in runs(out).items()}


@pytest.mark.long
def test_more_seeds_train_only_the_new_ones(out, copy):
    code, _ = run("sweep", "--systems", "omsd", "--out", str(copy), "--resume", "--seeds", "4")
    assert code == 0
    assert_kept(out, copy)
    assert new_rows(out, copy) == [
        (kind, k) for kind in ("critic", "omsd-policy", "scores-conditional") for k in (2, 3)
    ]
    assert [(r["system"], r["seeds"]) for r in store.read_table(copy / "summary.csv")] == [
        ("omsd", "4")
    ]


def test_another_beta_trains_only_its_policies(out, copy):
    flags = ("--out", str(copy), "--resume", "--seeds", str(SEEDS), "--cfg.beta", "1.29", "2.0")
    code, text = run("sweep", "--systems", "omsd", *flags)
    assert code == 0
    assert "beta=1.29" in text
    assert "beta=2.0" in text
    assert_kept(out, copy)
    assert new_rows(out, copy) == [("omsd-policy", 0), ("omsd-policy", 1)]
    records = {
        (r["system"], r["swept"]): r["seeds"] for r in store.read_table(copy / "summary.csv")
    }
    assert records == {("omsd", "beta=1.29"): "2", ("omsd", "beta=2.0"): "2"}


def assert_kept(out, copy):
    """What was trained before is neither trained again nor changed."""
    before, after = journals(out), journals(copy)
    assert {k: after[k] for k in before} == before
    found = numbers(copy)
    assert {name: found[name] for name in numbers(out)} == numbers(out)


def new_rows(out, copy):
    """(stage, seed) of what was trained since."""
    return sorted(
        (kind, json.loads(row)[0]) for kind, row in trained(copy) if (kind, row) not in trained(out)
    )


@pytest.mark.long
def test_seeds_are_added_where_stages_lie_over_several_devices(tmp_path):
    script = "import sys; from jaxomarl.cli import commands as c; f = sys.argv[1:];"
    script += "sys.exit(max(c.run('train', ['omsd', *f, '--resume', '--seeds', s]) for s in ('2', '3', '5')))"
    done = python("-c", script, *SMALL, "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert {k[:2] for k in runs(tmp_path / "out")} == {("omsd", k) for k in range(5)}
    assert sorted(
        json.loads(row)[0] for kind, row in trained(tmp_path / "out") if kind == "critic"
    ) == list(range(5))


def python(*args):
    """A process of its own, with two devices."""
    env = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAX_NUM_CPU_DEVICES": "2",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    return subprocess.run(
        [sys.executable, *args], env=env, capture_output=True, text=True, timeout=600
    )


def test_from_reuses_finished_stages(out, tmp_path):
    flags = ("--seeds", str(SEEDS), "--out", str(tmp_path / "new"))
    code, _ = run("train", "omsd", *flags, "--from", str(out))
    assert code == 0
    assert journals(tmp_path / "new") == {}
    old, new = runs(out)["omsd", 0].path, runs(tmp_path / "new")["omsd", 0].path
    for name in ("metrics.csv", "returns.csv", "final.csv", "health.csv", "policy.safetensors"):
        assert (old / name).read_bytes() == (new / name).read_bytes()


def test_dry_run_writes_nothing(out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, text = run("sweep", "--seeds", "4", "--dry-run", "--scale", "3")
    assert code == 0
    assert "runs/games-bandit-std0.3-mode-seeking" in text
    assert "critic 20" in text and "Scale 3:" in text  # what --cfg gives is not scaled
    assert "4 runs" in text
    assert "MiB" in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_the_default_out(out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, text = run("train", "omsd", "--seeds", str(SEEDS), "--from", str(out))
    assert code == 0
    assert "runs/games-bandit-std0.3-mode-seeking/summary.md" in text
    assert numbers(tmp_path / "runs" / "games-bandit-std0.3-mode-seeking")
    assert [p.name for p in tmp_path.iterdir()] == ["runs"]


# --- from Python ---


def test_python_gives_the_numbers_of_the_command_line(out):
    results = jaxomarl.train(
        "iql",
        "games/bandit",
        seeds=SEEDS,
        rows=200,
        episodes=EPISODES,
        final_episodes=FINAL,
        **IQL,
    )
    assert results.out is None
    assert results.returns["iql"].shape == (SEEDS, FINAL)
    for seed in range(SEEDS):
        rows = store.read_rows(runs(out)["iql", seed].path / "returns.csv")
        assert [r for r in results.rows if r.seed == seed] == rows
    assert "iql" in results.table


@pytest.mark.long
def test_python_goes_on_in_the_folder_of_the_command_line(out, copy):
    results = jaxomarl.train(
        "omsd", "games/bandit", seeds=list(range(SEEDS)), rows=200, episodes=EPISODES, final_episodes=FINAL, out=copy,
        resume=True, **CFG,
    )  # fmt: skip
    assert journals(copy) == journals(out)
    assert results.returns["omsd"].shape == (SEEDS, FINAL)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_loaded_policy_acts_as_recorded(out, system):
    for seed in range(SEEDS):
        run = runs(out)[system, seed]
        policy = jaxomarl.load(run.path)
        action = policy.act(np.ones((policy.spec.agents, policy.spec.obs_width)))
        rows = [
            r
            for r in store.read_rows(run.path / "returns.csv")
            if (r.step, r.episode) == (STEPS, 0)
        ]
        recorded = [r.value for i in (1, 2) for r in rows if r.metric == f"action_{i}"]
        np.testing.assert_allclose(np.asarray(action)[:, 0], recorded, atol=1e-6)


def test_load_refuses_what_is_no_policy(out, copy, tmp_path):
    run = runs(copy)["omsd", 0].path
    with pytest.raises(JaxomarlError, match=r"obs: expected shape \(2, \d\)"):
        jaxomarl.load(run).act(np.zeros((3, 7)))
    for folder in (tmp_path, tmp_path / "nowhere", copy):
        with pytest.raises(
            JaxomarlError, match=r"expected the folder of a finished run, found .no run.json"
        ):
            jaxomarl.load(folder)
    with pytest.raises(JaxomarlError, match=rf"Name a run in it, such as {copy}/.*seed-0\."):
        jaxomarl.load(copy)
    policy = run / "policy.safetensors"
    whole = policy.read_bytes()
    for torn in (whole[: len(whole) // 2], whole[:4], b"", b"\xff" * 64):
        policy.write_bytes(torn)
        with pytest.raises(JaxomarlError, match="safetensors"):
            jaxomarl.load(run)
    policy.unlink()
    with pytest.raises(JaxomarlError, match=r"no policy\.safetensors"):
        jaxomarl.load(run)
    policy.write_bytes(whole)
    (run / "run.json").write_text("{")
    with pytest.raises(JaxomarlError, match="expected a JSON object"):
        jaxomarl.load(run)
