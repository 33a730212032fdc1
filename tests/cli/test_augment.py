"""`--augment` from the command line: one generator for all bases, rows that follow them, resuming, and bad input."""

import collections
import contextlib
import io
import json
import shutil

import numpy as np
import pytest

from jaxomarl.api import plan, session
from jaxomarl.api.train import load, train
from jaxomarl.base import JaxomarlError
from jaxomarl.cli import commands
from jaxomarl.papers import REPRODUCTIONS
from jaxomarl.papers.asked import Asked
from jaxomarl.results import store
from jaxomarl.training.runner import Interrupted, Program, check_limits

TASK, CHUNK, PULLS = "games/twin-peaks", 4, (0.0, 0.02)
CFG = {
    "generator_steps": 40, "generator_batch": 32, "generator_width": 8, "generator_lr": 0.01, "augment_levels": 8,
    "augment_order": 1, "augment_churn": 0.0, "augment_windows": 64, "augment_microbatch": 32, "policy_steps": 12,
    "policy_batch": 16, "policy_width": 8, "chunk": CHUNK, "every": 1,
}  # fmt: skip
OTHERS = {  # of the systems that have them
    "critic_steps": 4, "critic_batch": 16, "critic_width": 8, "score_steps": 4, "score_batch": 16, "score_width": 8,
    "score_embedding": 8, "horizon": 1,
}  # fmt: skip


def settings(*systems):
    """The small settings that one of these systems has, as --cfg flags."""
    known = {f for name in systems for f in plan.config_field_names(name)}
    return {k: v for k, v in {**CFG, **OTHERS}.items() if k in known}


def swept(out, *systems):
    """(exit code, how often each stage was traced) of a sweep of augmented systems over two pulls."""
    flags = [
        x for k, v in settings(*systems).items() for x in (f"--cfg.{k.replace('_', '-')}", str(v))
    ]
    flags += [
        "--cfg.augment-lambda",
        *map(str, PULLS),
        "--rows",
        "300",
        "--episodes",
        "2",
        "--final-episodes",
        "2",
        "--seeds",
        "2",
    ]
    bases, traced = [s.partition("+")[0] for s in systems], collections.Counter()
    original = Program.advance

    def advance(self, *args):
        traced[self.stage.owner or self.stage.name] += 1
        return original(self, *args)

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setenv("JAX_NUM_CPU_DEVICES", "1")
        patch.setattr(Program, "advance", advance)
        code = commands.run(
            "sweep",
            [
                "--systems",
                *bases,
                "--augment",
                "coda",
                "--tasks",
                TASK,
                "--out",
                str(out),
                *flags,
            ],
        )
    return code, traced


def likelihoods(run):
    """Of the rows after each refresh."""
    rows = [
        r for r in store.read_rows(run.path / "metrics.csv") if r.metric == "synthetic_likelihood"
    ]
    return np.array([r.value for r in sorted(rows, key=lambda r: r.step)])


def follows(out, systems):
    """Check the runs of a sweep: every base's rows are likelier under its policy where they are pulled to it."""
    found = {
        (r.info["system"], r.info["seed"], r.info["swept"]["augment_lambda"]): r
        for r in store.find_runs([out])
    }
    assert set(found) == {(s, k, p) for s in systems for k in range(2) for p in PULLS}
    for system in systems:
        for seed in range(2):
            free, pulled = (likelihoods(found[system, seed, p]) for p in PULLS)
            assert len(free) == CFG["policy_steps"] // CHUNK
            assert np.all(pulled > free), (system, free, pulled)
    return found


SYSTEMS = ("bc+coda", "td3-bc+coda")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """(OUT of a finished sweep over two bases, how often each stage was traced)."""
    out = tmp_path_factory.mktemp("augment") / "out"
    code, traced = swept(out, *SYSTEMS)
    assert code == 0
    return out, traced


def test_rows_follow_every_base(sweep):
    found = follows(sweep[0], SYSTEMS)
    for (system, *_), run in found.items():
        assert run.info["augment"] == "coda" and run.info["system"] == system
        assert run.info["cfg"]["augment_share"] == 0.5 and "generator" in run.info["stages"]
        assert {r.system for r in store.read_rows(run.path / "returns.csv")} == {system}
    assert all(system in (sweep[0] / "summary.md").read_text() for system in SYSTEMS)


def test_one_generator_serves_all_bases_and_pulls(sweep):
    """It was trained for two seeds, once each, and each stage was traced once."""
    out, traced = sweep
    done = [json.loads(p.read_text()) for p in out.glob("stages/generator-*/DONE")]
    assert [len(d["rows"]) for d in done] == [2]
    assert traced == {"generator": 1, "bc+coda": 1, "td3-bc+coda": 1}


def groups():
    given = {**{k: [v] for k, v in settings("bc+coda").items()}, "augment_lambda": list(PULLS)}
    return plan.resolve(["bc"], [TASK], [], 2, "", given, 300, 2, augment="coda", final_episodes=2)


@pytest.mark.long
def test_resuming_is_bitwise(sweep, tmp_path):
    """Stopped within the policy's stage and gone on with, a run leaves the bytes of one that was not stopped."""
    chunks = []
    report = lambda group, progress: chunks.append(progress.stage)
    for stage in (sweep[0] / "stages").glob("generator-*"):
        shutil.copytree(stage, tmp_path / "stages" / stage.name)
    with pytest.raises(Interrupted):
        session.train_groups(groups(), tmp_path, [], report, lambda: len(chunks) >= 1, str)
    assert chunks == ["policy", "policy"], "the generator is the finished one"
    session.train_groups(groups(), tmp_path, [], report, say=str)
    assert chunks == ["policy"] * (CFG["policy_steps"] // CHUNK)
    for name in ("metrics.csv", "returns.csv", "policy.safetensors"):
        ours, whole = (
            sorted(folder.rglob(f"bc+coda-*/*/{name}")) for folder in (tmp_path, sweep[0])
        )
        assert [p.read_bytes() for p in ours] == [p.read_bytes() for p in whole] and len(ours) == 4


def test_the_policy_is_loaded_without_its_rows(sweep):
    run = next(r for r in store.find_runs([sweep[0]]) if r.info["system"] == "bc+coda")
    action = np.asarray(load(run.path).act(np.ones((2, 1))))
    last = [r for r in store.read_rows(run.path / "returns.csv") if r.metric == "action_1"][-1]
    assert action.shape == (2, 1) and action[0, 0] == pytest.approx(last.value, abs=1e-6)
    assert (run.path / "policy.safetensors").stat().st_size < 10_000


def test_a_finished_generator_is_judged_without_training_it_again(sweep, tmp_path):
    given = {k: [v] for k, v in settings("bc+coda").items()}
    asked = Asked(
        [0, 1], 1.0, tmp_path, lambda: False, ("bc+coda",), (TASK,), (), 0, 300, given, sweep[0]
    )
    text = REPRODUCTIONS["coda-fidelity"].load()(asked)
    assert not list(tmp_path.rglob("executed")) and "64 windows, 0.0% dropped" in text
    rows = {
        cells[1].strip(): cells[2:-1]
        for line in text.splitlines()
        if len(cells := line.split("|")) == 6
    }
    ours, floor, still = (x.strip() for x in rows["reward: error, median"])
    assert float(ours.split(" ± ")[0]) > 0.01 and float(floor.split(" ± ")[0]) < 1e-5 and not still
    assert not [name for name in rows if name.startswith("obs")], "a game's observation is constant"
    assert (tmp_path / "fidelity.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"systems": ("bc",)}, "--systems"),
        ({"systems": ("bc+eaq",)}, "--systems"),
        ({"tasks": (TASK, "mpe/spread")}, "--tasks"),
        ({"episodes": 3}, "--episodes"),
    ],
)
def test_what_cannot_be_judged_is_refused(tmp_path, more, word):
    with pytest.raises(JaxomarlError, match=word):
        REPRODUCTIONS["coda-fidelity"].load()(
            Asked([0], 1.0, tmp_path, lambda: False, **{"tasks": (TASK,), **more})
        )


def test_too_many_dropped_rows_stop_the_run():
    group = groups()[0]
    stage = group.system.pipeline(group.task.env.spec, group.cfgs[0], None)[-1]

    def told(*shares):
        check_limits(stage, {"synthetic_dropped": np.array(shares)[:, None]})

    told(0.0, 0.1)
    with pytest.raises(JaxomarlError, match=r"synthetic windows.*10%.*20%"):
        told(0.0, 0.2)


@pytest.mark.parametrize(
    ("system", "augment", "changed", "words"),
    [
        ("bc", "cod", {}, ["--augment", "coda, synther, eaq", "Did you mean coda"]),
        ("matd3", "coda", {}, ["--augment", "learns from data"]),
        ("bc+eaq", "coda", {}, ["--augment", "one augmentation"]),
        ("bd+coda", "", {}, ["system", "bd"]),
        ("bc", "coda", {"augment_share": [2.0]}, ["--cfg.augment-share"]),
        ("bc", "", {"augment_share": [0.5]}, ["--cfg.augment-share", "a field of bc"]),
    ],
)
def test_bad_input(system, augment, changed, words):
    with pytest.raises(JaxomarlError) as error:
        plan.resolve([system], [TASK], [], 1, "", changed, 40, 1, augment=augment)
    assert [w for w in words if w not in str(error.value)] == [], str(error.value)


@pytest.mark.long
def test_four_bases_and_the_other_augmentations(tmp_path):
    """An extraction of scores, advantage weighting, a recurrent policy and a twin-delayed one; then the two others."""
    systems = ("omsd+coda", "iql+coda", "maddpg-bc+coda", "td3-bc+coda")
    code, traced = swept(tmp_path / "four", *systems)
    assert code == 0 and all(traced[s] == 1 for s in systems)
    follows(tmp_path / "four", systems)
    for kind in ("synther", "eaq"):
        done = train(
            "bc",
            TASK,
            seeds=2,
            augment=kind,
            rows=300,
            episodes=2,
            final_episodes=2,
            **settings(f"bc+{kind}"),
        )
        assert done.records[0].system == f"bc+{kind}" and np.isfinite(done.records[0].mean)
