"""Claims on what finished policies do: every judge's yes, no, open gate and missing part."""

import numpy as np
import pytest

from jaxomarl.base import JaxomarlError
from jaxomarl.papers import measured
from jaxomarl.papers.measured import Measure, StageWord
from jaxomarl.papers.verdicts import rules
from jaxomarl.papers.verdicts.claims import CLAIMS
from jaxomarl.papers.verdicts.evidence import Evidence
from jaxomarl.papers.verdicts.rules import NO, OPEN, YES, Part

SEEDS = 8
DATA_MEAN = 500.0


def row(game, system, setting, mean, metric="return", seeds=SEEDS, spread=0.01):
    """Seeds' values around a mean."""
    values = mean + spread * np.linspace(-1.0, 1.0, seeds)
    return measured.of_seeds(game, system, setting, range(seeds), {metric: values})


def word(game, system, setting, short=0, stage="policy"):
    return StageWord(game, system, setting, stage, SEEDS - short, short, 0, 0, "")


def data(game, mean=DATA_MEAN):
    return [
        Measure(game, "data", "", "", "return", mean),
        Measure(game, "data", "", "", "standard error", 0.5),
    ]


def judged(name, measures, stages=()) -> list[Part]:
    claim = next(claim for claim in CLAIMS if claim.name == name)
    assert claim.judge
    return claim.judge(Evidence(claim.folder, list(measures), list(stages), {"cores": 2}))


def lines(part):
    return "\n".join(part.numbers)


# --- DOM2-3 ---

TASKS = {
    "mpe/tag": ["mpe/tag:speed_min=0.4"],
    "mpe/world": ["mpe/world:speed_min=0.5"],
    "mpe/spread": ["mpe/spread:speed_min=0.3"],
    "mamujoco/2halfcheetah": [
        "mamujoco/2halfcheetah:shift=random",
        "mamujoco/2halfcheetah:shift=extreme",
    ],
}


def elsewhere(kept, own=450.0, short=0, seeds=SEEDS):
    """Evidence in which systems keep shares of their own return; DOM2 has swept eta."""
    rows, stages = [], []
    for task, shifts in TASKS.items():
        rows += data(f"{task} expert")
        for system, share in kept.items():
            setting = "eta=0" if system == "dom2" else ""
            rows += row(f"{task} expert", system, setting, own, seeds=seeds)
            stages.append(word(f"{task} expert", system, setting, short))
            for shifted in shifts:
                rows += row(f"{shifted} expert", system, setting, own * share, seeds=seeds)
        # a worse setting of DOM2, which does not speak
        rows += row(f"{task} expert", "dom2", "eta=9", own - 100.0, seeds=seeds)
    return rows, stages


def test_a_larger_share_is_kept_elsewhere():
    parts = judged("DOM2-3", *elsewhere({"dom2": 0.9, "bc": 0.8, "omar": 0.7}))
    assert [part.condition for part in parts] == [f"{s} expert" for t in TASKS.values() for s in t]
    assert {part.answer.word for part in parts} == {YES}
    assert "over bc 0.100 [0.100, 0.100], over omar 0.200 [0.200, 0.200]" in lines(parts[0])
    assert "dom2 eta=0 (best of 2 settings) 450.0" in lines(parts[0])
    assert "(90% of the data)" in lines(parts[0])


@pytest.mark.parametrize(
    ("kept", "more", "answer"),
    [
        ({"dom2": 0.82, "bc": 0.8, "omar": 0.7}, {}, (NO, "")),
        ({"dom2": 0.82, "bc": 0.8, "omar": 0.7}, {"seeds": 4}, (OPEN, "4 of the 8 seeds")),
        ({"dom2": 0.9, "bc": 0.8, "omar": 0.7}, {"own": 350.0}, (OPEN, "70% of the data's mean")),
        ({"dom2": 0.9, "bc": 0.8, "omar": 0.7}, {"short": 8}, (OPEN, "dom2: policy has not")),
    ],
    ids=["within 5 points", "few seeds", "not good enough", "short"],
)
def test_shares_that_do_not_say_yes(kept, more, answer):
    for part in judged("DOM2-3", *elsewhere(kept, **more)):
        assert part.answer.word == answer[0] and answer[1] in part.answer.reason


def test_shares_without_a_system_are_refused():
    with pytest.raises(JaxomarlError, match="omar"):
        judged("DOM2-3", *elsewhere({"dom2": 0.9, "bc": 0.8}))


# --- DOM2-5 ---

KINDS = [f"mpe/spread {kind}" for kind in ("expert", "medium", "random")]


def shares(small, others, sizes=(900, 18000), short=0, seeds=SEEDS):
    """DOM2 with a twentieth of the episodes, others with all; both also the other way round."""
    rows, stages = [], []
    for game in KINDS:
        rows += data(game)
        for system, mean in {"dom2": small, **others}.items():
            for episodes in sizes:
                setting = f"episodes={episodes}"
                own = episodes == (sizes[0] if system == "dom2" else sizes[-1])
                rows += row(game, system, setting, mean if own else 0.0, seeds=seeds)
                stages.append(word(game, system, setting, short))
    return rows, stages


OTHERS = {"omar": 400.0, "td3-bc": 350.0, "bc": 300.0}


@pytest.mark.parametrize(
    ("small", "more", "answer"),
    [
        (401.0, {}, (YES, "")),
        # level: 25 is 5 % of the data's mean
        (380.0, {}, (YES, "")),
        (350.0, {}, (NO, "")),
        (350.0, {"seeds": 4}, (OPEN, "4 of the 8 seeds")),
        (450.0, {"short": 4}, (OPEN, "dom2: policy has not learned")),
    ],
    ids=["ahead", "level", "behind", "few seeds", "short"],
)
def test_a_twentieth_of_the_data(small, more, answer):
    parts = judged("DOM2-5", *shares(small, OTHERS, **more))
    assert [part.condition for part in parts] == KINDS
    for part in parts:
        assert part.answer.word == answer[0] and answer[1] in part.answer.reason
        assert f"return with 900 episodes: dom2 episodes=900 {small:.1f}" in lines(part)
        assert f"dom2 with 5%, paired by seed: over omar {small - 400.0:.1f}" in lines(part)


def test_all_data_alone_are_refused():
    with pytest.raises(JaxomarlError, match="with 5 % and with all"):
        judged("DOM2-5", *shares(401.0, OTHERS, sizes=(9000, 18000)))


# --- DOM2-8 ---

SIX = ("mpe/six random", "mpe/six expert")


def counts(good, ways, short=0, returns=True):
    rows, stages = [], []
    for game in SIX:
        rows += data(game)
        for system, mean in good.items():
            if returns:
                rows += row(game, system, "", 400.0)
            rows += row(game, system, "", mean, "good starts")
            rows += row(game, system, "", ways, "ways")
            stages.append(word(game, system, "", short))
    return rows, stages


GOOD = {"sfbc": 10.0, "omar": 5.0, "bc": 3.0}


@pytest.mark.parametrize(
    ("dom2", "ways", "short", "answer"),
    [
        (16.0, 3.0, 0, (YES, "")),
        (2.0, 3.0, 0, (NO, "")),
        (16.0, 1.0, 0, (NO, "")),
        (7.0, 3.0, 0, (OPEN, "fewer good episodes than sfbc")),
        (16.0, 1.9996, 0, (OPEN, "2.000 ways from one start, 2 are asked")),
        (16.0, 3.0, 8, (OPEN, "dom2: policy has not learned")),
    ],
    ids=["more", "fewer than bc", "one way", "between", "nearly two", "short"],
)
def test_good_episodes_and_ways(dom2, ways, short, answer):
    parts = judged("DOM2-8", *counts({"dom2": dom2, **GOOD}, ways, short))
    assert [part.condition for part in parts] == list(SIX)
    for part in parts:
        assert (part.answer.word, part.answer.reason) == answer
        assert f"over bc {dom2 - 3.0:.{3 if abs(dom2 - 3.0) < 10 else 1}f}" in lines(part)
        assert f"from one start: {ways:.3f}" in lines(part)


def test_counts_without_bc_or_without_counts_are_refused():
    without = {system: mean for system, mean in GOOD.items() if system != "bc"}
    with pytest.raises(JaxomarlError, match="bc"):
        judged("DOM2-8", *counts({"dom2": 9.0, **without}, 3.0))
    rows, stages = counts({"dom2": 9.0, **GOOD}, 3.0)
    only_returns = [m for m in rows if m.metric == "return"]
    with pytest.raises(JaxomarlError, match="good starts"):
        judged("DOM2-8", [*only_returns, *data(SIX[0])], stages)


# --- DOF-7 ---

HIDDEN = ("smax/3m scripted", "mpe/spread expert")


def histories(means, short=0, seeds=SEEDS):
    rows, stages = [], []
    for game in HIDDEN:
        rows += data(game)
        for setting, mean in means.items():
            rows += row(game, "dof-t", setting, mean, seeds=seeds)
            stages.append(word(game, "dof-t", setting, short))
    return rows, stages


@pytest.mark.parametrize(
    ("without", "more", "answer"),
    [
        (250.0, {}, (YES, "")),
        (395.0, {}, (NO, "")),
        (420.0, {}, (NO, "")),
        (395.0, {"seeds": 4}, (OPEN, "4 of the 8 seeds")),
        (320.0, {}, (OPEN, "20% of the return is lost")),
        (250.0, {"short": 8}, (OPEN, "dof-t: policy has not learned")),
    ],
    ids=["lost", "level", "better without", "few seeds", "between", "short"],
)
def test_what_is_lost_without_history(without, more, answer):
    means = {"history=0": without, "history=4": 400.0, "history=8 policy_steps=9": 390.0}
    parts = judged("DOF-7", *histories(means, **more))
    assert [part.condition for part in parts] == list(HIDDEN)
    for part in parts:
        assert part.answer.word == answer[0] and answer[1] in part.answer.reason
        assert "dof-t history=4 (best of 2 settings) 400.0" in lines(part)
        assert f"{1 - without / 400.0:.0%} of the return with it" in lines(part)


def test_a_share_of_nothing_is_open():
    (part, _) = judged("DOF-7", *histories({"history=0": -9.0, "history=4": -3.0}))
    assert part.answer.word == OPEN and "not above 0" in part.answer.reason


def test_no_planner_without_history_is_refused():
    with pytest.raises(JaxomarlError, match="history=0"):
        judged("DOF-7", *histories({"history=4": 400.0}))


# --- DOF-8 ---

SPREAD = "mpe/spread expert"
BASE = "history=8 horizon=20"


def settings(steps=(440.0, 450.0), weights=(445.0, 450.0, 452.0), horizons=(440.0, 450.0), short=0):
    """A base planner of 20 rows that acts by settings, and another of 7 rows ahead."""
    rows = data(SPREAD)
    for sampler in ("ddpm", "ddim"):
        for calls, mean in zip((5, 50), steps, strict=True):
            rows += row(SPREAD, "dof-t", f"calls={calls} {BASE} sampler={sampler}", mean)
    for weight, mean in zip((1.0, 1.4, 1.8), weights, strict=True):
        rows += row(SPREAD, "dof-t", f"guidance={weight} {BASE}", mean)
    rows += row(SPREAD, "dof-t", f"guidance=3.0 {BASE}", 10.0)
    for horizon, mean in zip((7, 20), horizons, strict=True):
        setting = f"history=8 horizon={horizon}"
        rows += row(SPREAD, "dof-t", setting, mean)
        rows += row(SPREAD, "dof-t", setting, 60.0, "training seconds")
    rows += row(SPREAD, "dof-t", "history=0 horizon=20", 999.0)
    rows += row(SPREAD, "dof-t", "history=0 horizon=20", 60.0, "training seconds")
    stages = [word(SPREAD, "dof-t", f"history=8 horizon={h}", short) for h in (7, 20)]
    return rows, stages


NAMES = ["steps of ddpm", "steps of ddim", "guidance of 1 to 1.8", "a longer horizon"]


@pytest.mark.parametrize(
    ("found", "answers"),
    [
        ({}, [YES, YES, YES, YES]),
        ({"steps": (400.0, 450.0)}, [NO, NO, YES, YES]),
        ({"weights": (380.0, 450.0, 452.0)}, [YES, YES, NO, YES]),
        ({"horizons": (400.0, 450.0)}, [YES, YES, YES, NO]),
        ({"horizons": (450.0, 400.0)}, [YES, YES, YES, YES]),
        ({"short": 8}, [OPEN, OPEN, OPEN, OPEN]),
    ],
    ids=["level", "steps help", "weights matter", "a longer one helps", "it harms", "short"],
)
def test_settings_of_planners(found, answers):
    parts = judged("DOF-8", *settings(**found))
    assert [part.condition for part in parts] == NAMES
    assert [part.answer.word for part in parts] == answers
    steps = found.get("steps", (440.0, 450.0))
    assert f"return by calls: 5: {steps[0]:.1f}" in lines(parts[0])
    assert "5 % of the data's mean: 25.0" in lines(parts[0])
    assert "guidance: 1: " in lines(parts[2]) and "3: 10.0" not in lines(parts[2])
    assert "999" not in lines(parts[3])
    if "short" in found:
        assert parts[0].answer.reason == "dof-t: policy has not learned"


@pytest.mark.parametrize("lost", ["calls=5", "guidance=1", "horizon=7"])
def test_a_curve_of_one_point_is_refused(lost):
    rows, stages = settings()
    kept = [m for m in rows if lost not in m.setting]
    with pytest.raises(JaxomarlError, match="two "):
        judged("DOF-8", kept, stages)


def test_a_verdict_names_the_conditions_that_hold():
    parts = judged("DOF-8", *settings(steps=(400.0, 450.0)))
    assert rules.verdict(parts).detail == "guidance of 1 to 1.8; a longer horizon"
