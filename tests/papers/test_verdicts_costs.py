"""Claims on costs: lines of benchmarks become evidence, and every judge's answers."""

import json

import numpy as np
import pytest

from benchmarks import acting, planning, reverse_process
from benchmarks.report import report
from jaxomarl.api import provenance
from jaxomarl.base import JaxomarlError
from jaxomarl.papers import cost_lines, keep, measured
from jaxomarl.papers.measured import Measure, StageWord
from jaxomarl.papers.verdicts import evidence, rules
from jaxomarl.papers.verdicts.claims import CLAIMS
from jaxomarl.papers.verdicts.evidence import Evidence
from jaxomarl.papers.verdicts.rules import NO, OPEN, YES


def judged(name, measures, stages=()):
    claim = next(claim for claim in CLAIMS if claim.name == name)
    assert claim.judge
    return claim.judge(Evidence(claim.folder, list(measures), list(stages), {"cores": 2}))


def timed(benchmark, system, seconds, metric="seconds", load=1.0, **fields):
    """The rows of a line whose samples lie within a hundredth of the median."""
    kind = cost_lines.KINDS[benchmark]
    line = {"benchmark": benchmark, kind.system: system, **fields, "load": load}
    ends = {metric: seconds, f"{metric}_low": 0.99 * seconds, f"{metric}_high": 1.01 * seconds}
    rows = cost_lines.line_measures({**line, **ends})
    assert rows
    return rows


# --- lines become evidence ---


def line_of(name, **more):
    return {
        "benchmark": "acting", "system": name, "size": "mpe", "agents": 3, "calls": 5, "teams": 1,
        "seconds": 0.25, "seconds_low": 0.2, "seconds_high": 0.5, "program_mib": 1.0, **more,
    }  # fmt: skip


def test_lines_of_benchmarks_are_kept_with_their_command(tmp_path, capsys):
    out, kept = tmp_path / "out", tmp_path / "kept"
    other = {"benchmark": "kernels", "seconds": 1.0}
    lines = [line_of("dom2"), {**line_of("dof-t"), "calls": 200}, other]
    assert report(lines, lambda written: "", out / "acting.jsonl") == 0
    assert keep.keep([out], kept) == 0

    found = evidence.load_evidence(kept)
    assert found and found.provenance["command"].startswith("python -m benchmarks.")
    assert found.provenance["seeds"] == []
    assert {m.game for m in found.measures} == {"acting"}
    setting = "agents=3 calls=5 size=mpe teams=1"
    assert evidence.settings_of(found, "acting", "dom2") == [setting]
    cells = [evidence.exact(found, "acting", "dom2", setting, m) for m in cost_lines.SECONDS]
    assert cells == [0.25, 0.2, 0.5]
    capsys.readouterr()


def test_a_line_that_was_skipped_or_is_torn(tmp_path):
    assert (
        cost_lines.line_measures({"benchmark": "acting", "system": "dom2", "skipped": "big"}) == []
    )
    (tmp_path / "acting.jsonl").write_text('{"benchmark": "acting"')
    with pytest.raises(JaxomarlError, match="line 1"):
        cost_lines.cost_measures(tmp_path)
    (tmp_path / "acting.jsonl").write_text("[]")
    with pytest.raises(JaxomarlError, match="a benchmark's line"):
        cost_lines.cost_measures(tmp_path)


def test_two_files_that_time_the_same_are_refused(tmp_path):
    for name in ("a", "b"):
        out = tmp_path / name
        out.mkdir()
        line = line_of("dom2", seconds=0.1 if name == "a" else 0.2)
        (out / "acting.jsonl").write_text(json.dumps(line))
        facts = provenance.facts("python -m benchmarks.acting", [], 1.0)
        (out / "acting.provenance.json").write_text(json.dumps(facts))
    with pytest.raises(JaxomarlError, match="each number once"):
        keep.keep([tmp_path / "a", tmp_path / "b"], tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_lines_of_chains_have_the_fields_that_are_kept():
    one = reverse_process.Timed({}, lambda: None, 1, seconds=[0.1, 0.2, 0.3], bytes=2**20)
    chain = reverse_process.line(reverse_process.Flags(), "concat", 4, "ddpm", 200, one, None)
    plan = planning.line(planning.Flags(), "madiff-d", 4, "ddim", one, one)
    setting = "agents=4 calls={} sampler={} width={}"
    for line, system, sampler, seconds in (
        (chain, "concat", (200, "ddpm", 256), 40.0),
        (plan, "madiff-d", (15, "ddim", 32), 0.8),
    ):
        rows = cost_lines.line_measures(line)
        assert [m.metric for m in rows] == [*cost_lines.SECONDS, "program_mib"]
        assert rows[0][1:3] == (system, setting.format(*sampler))
        assert (rows[0].value, rows[3].value) == (pytest.approx(seconds), 1.0)


def test_a_joint_action_is_timed():
    (line,) = acting.bench(acting.Flags(systems=("bc",), toy=True))
    assert line["calls"] == 1 and line["seconds_low"] <= line["seconds"] <= line["seconds_high"]
    assert cost_lines.line_measures(line)[0].setting == "agents=3 calls=1 size=8x4 teams=1"
    assert "| 8x4 | bc | 3 | 1 | 1 |" in acting.table([line])


def test_joint_actions_of_no_team_are_refused():
    with pytest.raises(JaxomarlError, match="--teams"):
        next(acting.bench(acting.Flags(systems=("bc",), toy=True, teams=0)))


# --- DOM2-9 ---


def dom2_costs(update, act, size="mpe", load=1.0):
    """`update` and `act`: how many times as much others take as DOM2, which has two stages."""
    rows = []
    each = {"size": size, "agents": 3, "load": load}
    for stage in ("critic", "policy"):
        lines = {"runs": 1, "stage": stage, "metric": "seconds_per_update", **each}
        rows += timed("updates", "dom2", 0.05, **lines)
        for other in ("dof-p", "dof-t", "madiff-d"):
            rows += timed("updates", other, 0.05 * update, **lines)
    rows += timed(
        "updates", "dom2", 9.0, metric="seconds_per_update", runs=16, stage="policy", **each
    )
    rows += timed("acting", "dom2", 0.01, teams=1, calls=5, **each)
    for other in ("dof-p", "dof-t", "madiff-d"):
        rows += timed("acting", other, 0.01 * act, teams=1, calls=200, **each)
    return rows


@pytest.mark.parametrize(
    ("found", "answer"),
    [
        (dom2_costs(4.0, 10.0), (YES, "")),
        (dom2_costs(4.0, 0.5), (NO, "")),
        (dom2_costs(1.2, 10.0), (NO, "")),
        (dom2_costs(4.0, 2.0), (OPEN, "a ratio of 2.00 with these ranges settles nothing")),
        (dom2_costs(3.01, 10.0), (OPEN, "a ratio of 3.01 with these ranges settles nothing")),
        (dom2_costs(4.0, 10.0, size="game"), (OPEN, "not timed at the papers' widths")),
        (dom2_costs(4.0, 10.0, load=5.5),
         (OPEN, "the machine was busy: a load of 5.5, at most 3 is asked")),
    ],
    ids=["yes", "acting", "updates", "twice", "range", "width", "busy"],
)  # fmt: skip
def test_dom2_costs_a_third(found, answer):
    parts = judged("DOM2-9", found)
    named = ["against DoF as a policy", "against DoF as a planner", "against MADiff-D"]
    assert [part.condition for part in parts] == named
    assert {part.answer for part in parts} == {rules.Answer(*answer)}
    # two stages of 50 ms
    assert "an update: dom2 100.0 [99.0, 101.0] ms" in parts[0].numbers[0]
    assert "calls of the network 5 and 200: 40.00 times" in parts[1].numbers[2]


@pytest.mark.parametrize("lost", ["updates", "acting"])
def test_costs_without_a_benchmark_are_refused(lost):
    rows = [m for m in dom2_costs(4.0, 10.0) if m.game != lost]
    with pytest.raises(JaxomarlError, match=f"a line of {lost} for dom2"):
        judged("DOM2-9", rows)


# --- DOF-9 ---

GAME = "mpe/spread expert"
SAMPLERS = {"ddpm": 1.0, "ddim": 0.1, "consistency": 0.01}


def dof_costs(wconcat=2.0, ddim=0.1, madiff_c=1.0, memory=1.0, coded=80.0, short=0, load=1.0):
    """`wconcat`, `madiff_c` and `memory`: how many times as much as concat and DoF-T take."""
    rows = []
    for agents in (4, 64):
        sized = {"agents": agents, "width": 128, "load": load, "program_mib": 1.0}
        for sampler, seconds in {**SAMPLERS, "ddim": ddim}.items():
            lines = {"sampler": sampler, "calls": 1, **sized}
            rows += timed("reverse_process", "concat", agents * seconds, **lines)
            rows += timed("reverse_process", "wconcat", agents * wconcat * seconds, **lines)
        for system, times in {"dof-t": 1.0, "madiff-c": madiff_c, "madiff-d": 3.0}.items():
            amount = memory if system == "madiff-c" else 1.0
            lines = {"sampler": "ddim", "calls": 15, **sized, "program_mib": 32.0 * amount}
            rows += timed("planning", system, times * agents, **lines)
            # a narrow network that says something else
            narrow = {**lines, "width": 8}
            rows += timed("planning", system, 1.0, **narrow)
    stages = []
    for width, seconds in {0: 100.0, 4: coded}.items():
        setting = f"code_width={width}"
        for metric, mean in {"return": 400.0 - width, "training seconds": seconds}.items():
            values = {metric: mean + 0.1 * np.arange(3)}
            rows += measured.of_seeds(GAME, "dof-t", setting, range(3), values)
        words = (3 - short, short, 0, 0, "")
        stages.append(StageWord(GAME, "dof-t", setting, "codes", *words))
    rows.append(Measure(GAME, "data", "", "", "return", 500.0))
    return rows, stages


PARTS = [
    "fewer steps and consistency cut a reverse process",
    "concat is the fastest f",
    "less time than madiff-c",
    "less time than madiff-d",
    "less memory than madiff-c",
    "the autoencoder saves training time",
]


@pytest.mark.parametrize(
    ("found", "answers"),
    [
        ({}, [YES, YES, NO, YES, NO, YES]),
        ({"madiff_c": 2.0, "memory": 3.7}, [YES, YES, YES, YES, YES, YES]),
        ({"wconcat": 0.5}, [YES, NO, NO, YES, NO, YES]),
        ({"ddim": 1.5}, [NO, YES, NO, YES, NO, YES]),
        ({"madiff_c": 1.25}, [YES, YES, OPEN, YES, NO, YES]),
        ({"coded": 120.0}, [YES, YES, NO, YES, NO, NO]),
        ({"coded": 95.0}, [YES, YES, NO, YES, NO, OPEN]),
        ({"short": 3}, [YES, YES, NO, YES, NO, OPEN]),
        ({"load": 4.0}, [OPEN, OPEN, OPEN, OPEN, NO, YES]),
    ],
    ids=["level", "less", "slow f", "slow ddim", "range", "dear", "between", "short", "busy"],
)
def test_dof_costs(found, answers):
    parts = judged("DOF-9", *dof_costs(**found))
    assert [part.condition for part in parts] == PARTS
    assert [part.answer.word for part in parts] == answers
    assert "concat, 64 agents: ddpm 64000.0 [63360.0, 64640.0] ms" in parts[0].numbers[1]
    assert "a plan of 64 agents: dof-t 64000.0" in parts[2].numbers[1]
    assert "dof-t 32.0 MiB" in parts[4].numbers[0]
    coded = found.get("coded", 80.0)
    assert f"seconds of training: 100 and {coded:.0f} without and with it" in parts[5].numbers[0]


def test_open_costs_say_why():
    parts = judged("DOF-9", *dof_costs(madiff_c=1.25, coded=95.0))
    assert parts[2].answer.reason == "not dearer with 4 agents"
    assert parts[5].answer.reason == "a saving of 5% to 5% settles nothing"
    short = judged("DOF-9", *dof_costs(short=3))
    assert short[5].answer.reason == "dof-t: codes has not learned"


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        (("planning", "madiff-d"), "planning for madiff-d"),
        (("reverse_process", "wconcat"), "other mixers than concat"),
    ],
)
def test_missing_costs_are_refused(lost, message):
    rows, stages = dof_costs()
    kept = [m for m in rows if (m.game, m.system) != lost]
    with pytest.raises(JaxomarlError, match=message):
        judged("DOF-9", kept, stages)


def test_benchmarks_alone_leave_the_autoencoder_open():
    rows, stages = dof_costs()
    kept = [m for m in rows if m.game != GAME]
    parts = judged("DOF-9", kept, stages)
    assert [part.answer.word for part in parts] == [YES, YES, NO, YES, NO, OPEN]
    assert parts[5].answer.reason == "not run"


def test_unequal_teams_are_refused():
    rows, stages = dof_costs()
    kept = [m for m in rows if not (m.system == "madiff-c" and "agents=64" in m.setting)]
    with pytest.raises(JaxomarlError, match="numbers of agents"):
        judged("DOF-9", kept, stages)
