"""The verdicts on claims: each word arises by its rule, and the page is what the evidence gives."""

import dataclasses
import functools
import importlib
import shlex
from pathlib import Path

import numpy as np
import pytest
import tyro

from jaxomarl.algorithms import REGISTRY
from jaxomarl.api import session
from jaxomarl.base import JaxomarlError
from jaxomarl.cli import commands, imports
from jaxomarl.cli.parsing import parse
from jaxomarl.cli.reproduce import with_command
from jaxomarl.papers import REPRODUCTIONS, cost_lines, measured
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.coda import steering
from jaxomarl.papers.measured import Measure, StageWord
from jaxomarl.papers.verdicts import evidence, games, page, rules, trained
from jaxomarl.papers.verdicts.claims import CLAIMS, Claim
from jaxomarl.papers.verdicts.rules import (
    NO,
    NOT_JUDGED,
    ONLY_UNDER,
    OPEN,
    REFUTED,
    REPRODUCED,
    YES,
)
from jaxomarl.results import intervals, store

ROOT = Path(__file__).parents[2]
SEEDS = 8


def around(mean, seeds=SEEDS, spread=0.01):
    """Seeds' values of a given mean."""
    return mean + spread * np.linspace(-1.0, 1.0, seeds)


def asked(out, seeds=SEEDS):
    return Asked(list(range(seeds)), 1.0, out, lambda: False)


def save(folder, measures, stages=(), seeds=SEEDS):
    """Write evidence as a command does."""
    command = f"reproduce NAME --out 'a folder' --seeds {seeds} --from=b --cfg.beta 0 1"
    measured.save_measures(folder, measures, stages)
    facts = measured.provenance(asked(folder, seeds), command)
    store.write_json(folder / measured.PROVENANCE, facts)


# --- answers ---


def test_who_is_behind_one_and_ahead_of_another_is_told_so():
    """OMSD-7's rule: yes takes a lead over all, no takes to be behind BC."""
    decide = trained.lead(lost_to=("bc",))
    differences = lambda bc, iql: {
        n: intervals.of_samples(around(x)) for n, x in (("bc", bc), ("iql", iql))
    }
    assert decide(differences(1.0, 2.0), SEEDS, 100.0).word == YES
    assert decide(differences(-1.0, 2.0), SEEDS, 100.0).word == NO
    answer = decide(differences(1.0, -2.0), SEEDS, 100.0)
    assert answer.word == OPEN
    assert "behind iql, [-2.0" in answer.reason and answer.reason.endswith("not behind bc")


@pytest.mark.parametrize(
    ("difference", "seeds", "word", "reason"),
    [
        (around(0.9), 8, YES, ""),
        (around(0.1), 8, NO, ""),
        (around(0.1, 4), 4, OPEN, "4 of the 8 seeds"),
        (around(0.1, spread=3.0), 8, OPEN, "settles nothing"),
        (np.array([0.9]), 1, OPEN, "too few seeds"),
    ],
)
def test_a_difference_is_compared_with_half_of_the_printed_one(difference, seeds, word, reason):
    answer = rules.ahead(rules.paired(difference, np.zeros(seeds)), seeds, printed=1.0)
    assert answer.word == word and reason in answer.reason


def test_a_margin_keeps_a_small_difference_open():
    small = rules.paired(around(6.0), np.zeros(SEEDS))
    assert rules.ahead(small, SEEDS, margin=30.0).word == OPEN
    assert rules.ahead(small, SEEDS).word == YES
    assert rules.ahead(rules.paired(around(-6.0), np.zeros(SEEDS)), SEEDS, 30.0).word == NO


@pytest.mark.parametrize(
    ("mean", "word"), [(0.505, YES), (0.53, OPEN), (0.7, NO)], ids=["close", "between", "far"]
)
def test_a_law_is_met_closely_or_missed_by_far(mean, word):
    assert rules.near(around(mean), 0.5, close=0.01, far=0.05).word == word


def test_limits_and_levels():
    assert [rules.below(around(m), 0.0).word for m in (-1.0, 0.0, 1.0)] == [YES, OPEN, NO]
    assert [rules.above(around(m), 0.0).word for m in (-1.0, 0.0, 1.0)] == [NO, OPEN, YES]
    assert rules.below(around(1.0, 3), 0.0).word == OPEN, "three seeds refute nothing"
    level = lambda mean, spread: rules.better(
        rules.paired(around(mean, spread=spread), np.zeros(SEEDS)), SEEDS, 0.02
    )
    assert [level(1.0, 0.1).word, level(0.0, 0.01).word, level(0.0, 1.0).word] == [YES, NO, OPEN]


def test_a_gate_comes_before_any_answer():
    gates = [rules.gate("critic", True), rules.gate("scores", False)]
    assert rules.gated(gates, rules.Answer(NO)) == (OPEN, "scores")
    assert rules.gated(gates[:1], rules.Answer(NO)).word == NO


# --- verdicts ---


@pytest.mark.parametrize(
    ("answers", "word", "detail"),
    [
        ([YES, YES], REPRODUCED, ""),
        ([YES, NO], ONLY_UNDER, "condition 0"),
        ([OPEN, YES], ONLY_UNDER, "condition 1"),
        ([NO, NO], REFUTED, ""),
        ([NO, OPEN], NOT_JUDGED, "why"),
        ([OPEN], NOT_JUDGED, "why"),
    ],
)
def test_a_verdict_follows_from_its_parts(answers, word, detail):
    parts = [
        rules.Part(f"condition {k}", rules.Answer(answer, "why" * (answer == OPEN)), ())
        for k, answer in enumerate(answers)
    ]
    assert rules.verdict(parts)[:2] == (word, detail)


def test_a_claim_without_files_is_not_judged(tmp_path):
    assert evidence.load_evidence(tmp_path) is None
    verdicts = [page.judge(claim, None) for claim in CLAIMS]
    assert {v[:2] for v in verdicts} == {(NOT_JUDGED, rules.NO_RUN)}


# --- made-up evidence of a game, by the files that a command writes ---


def coda_files(folder, coda, data, column_error=0.01, seeds=SEEDS):
    rewards = {games.CODA: coda, games.DATA: data, games.FREE: data, games.HIGH: data}
    rows = []
    for method, reward in rewards.items():
        values = {"reward": around(reward, seeds)}
        rows += measured.of_seeds("multiplication", method, "", range(seeds), values)
    for column in "xy":
        rows.append(
            Measure("multiplication", games.FREE, "", "", f"error of {column}", column_error)
        )
    save(folder, rows, seeds=seeds)


def coda_1(folder):
    claim = next(claim for claim in CLAIMS if claim.name == "CODA-1")
    return page.judge(claim, evidence.load_evidence(folder))


def test_coda_1_by_its_files(tmp_path):
    coda_files(tmp_path / "yes", coda=0.98, data=-0.9)
    coda_files(tmp_path / "no", coda=-0.9, data=-0.9)
    coda_files(tmp_path / "gate", coda=-0.9, data=-0.9, column_error=0.3)
    coda_files(tmp_path / "few", coda=-0.9, data=-0.9, seeds=4)
    assert coda_1(tmp_path / "yes").word == REPRODUCED
    assert coda_1(tmp_path / "no").word == REFUTED
    assert coda_1(tmp_path / "gate")[:2] == (
        NOT_JUDGED,
        "model: a column is 0.300 off the data's distribution",
    )
    assert "4 of the 8 seeds" in coda_1(tmp_path / "few").detail


def bandit_files(folder, short=()):
    rows = []
    stages = []
    for setting in games.CELLS:
        for system in (*games.SEQUENTIAL, *games.INDEPENDENT):
            best = system in games.SEQUENTIAL and setting.startswith("mode-seeking")
            values = {"reward": around(0.9 if best else 0.0), "coordinated": around(0.5)}
            rows += measured.of_seeds("bandit", system, setting, range(SEEDS), values)
        failed = SEEDS // 2 if setting in short else 0
        stages.append(
            StageWord("bandit", "omsd", setting, "scores", SEEDS - failed, failed, 0, 0, "")
        )
    save(folder, rows, stages)
    return evidence.load_evidence(folder)


def test_a_claim_holds_only_where_it_was_seen_and_where_stages_have_learned(tmp_path):
    both = rules.verdict(games.bandit_order(bandit_files(tmp_path / "a")))
    assert both.word == ONLY_UNDER and both.detail.count("beta 1.29") == 2
    short = bandit_files(tmp_path / "b", ("mode-seeking, learned scores",))
    one = rules.verdict(games.bandit_order(short))
    assert one.detail == "weights at small t, beta 1.29, exact scores"
    assert one.parts[1].answer == (OPEN, "scores")
    assert one.parts[1].numbers[1] == "stages: scores learned in 4 of 8"


MEAN = 450.0
"""Return of the data in evidence of trained systems."""


def trained_files(folder, game, means, word="learned", seeds=SEEDS, spread=1.0):
    """`means` maps a system, or "system swept=value", to its mean over seeds."""
    rows = [Measure(game, "data", "", "", "return", MEAN)]
    rows += [Measure(game, "data", "", "", "standard error", 0.5)]
    stages = []
    for k, (name, mean) in enumerate(means.items()):
        system, _, setting = name.partition(" ")
        # what is common to all systems goes away by pairing; their own spread does not
        values = around(mean, seeds, spread * (-1) ** k) + 5.0 * np.cos(np.arange(seeds))
        rows += measured.of_seeds(game, system, setting, range(seeds), {"return": values})
        if word:
            counts = {"learned": (seeds, 0), "short": (0, seeds)}[word]
            stages.append(StageWord(game, system, setting, "critic", *counts, 0, 0, ""))
    save(folder, rows, stages, seeds)
    found = evidence.load_evidence(folder)
    assert found
    return found


def claim_of(name):
    return next(claim for claim in CLAIMS if claim.name == name)


def judged(folder, name, means, *, games=(), word="learned", seeds=SEEDS):
    """The verdict on a claim; `means` in every game that its judge reads, if none are given."""
    claim = claim_of(name)
    found = [trained_files(folder / str(k), g, means, word, seeds) for k, g in enumerate(games)]
    measures = [m for one in found for m in one.measures]
    stages = [s for one in found for s in one.stages]
    assert claim.judge
    return rules.verdict(claim.judge(found[0]._replace(measures=measures, stages=stages)))


MODES, MEDIUM = ("mpe/spread expert-modes",), ("mpe/spread medium",)
BOTH_RANDOM = ("mpe/spread random", "mpe/tag random")
PREDATORS = ("mpe/tag medium", "mpe/world medium")
QUALITIES = ("mpe/spread expert", "mpe/spread medium", "mpe/spread random")
CHEETAH = "mamujoco/2halfcheetah"
RULES = [
    ("OMSD-4", MODES, {"omsd": 500.0, "brpo-ctde": 440.0}, REPRODUCED),
    ("OMSD-4", MODES, {"omsd": 447.0, "brpo-ctde": 440.0}, ONLY_UNDER),
    ("OMSD-4", MODES, {"omsd": 400.0, "brpo-ctde": 440.0}, REFUTED),
    ("OMSD-5", MEDIUM, {"omsd beta=0": 430.0, "omsd beta=1": 460.0, "bc": 438.0}, REPRODUCED),
    ("OMSD-5", MEDIUM, {"omsd beta=0": 430.0, "omsd beta=1": 445.0, "bc": 438.0}, NOT_JUDGED),
    ("OMSD-5", MEDIUM, {"omsd beta=0": 430.0, "omsd beta=1": 420.0, "bc": 438.0}, REFUTED),
    ("OMSD-6", BOTH_RANDOM, {"omsd": 460.0, "omar": 440.0}, REPRODUCED),
    ("OMSD-6", BOTH_RANDOM, {"omsd": 420.0, "omar": 440.0}, REFUTED),
    ("OMSD-7", PREDATORS, {"omsd": 9.0, "bc": 5.0, "iql": 5.0, "td3-bc": 5.0, "omar": 5.0}, REPRODUCED),
    ("OMSD-7", PREDATORS, {"omsd": 6.0, "bc": 5.0, "iql": 9.0, "td3-bc": 5.0, "omar": 5.0}, NOT_JUDGED),
    ("OMSD-7", PREDATORS, {"omsd": 2.0, "bc": 5.0, "iql": 9.0, "td3-bc": 1.0, "omar": 5.0}, REFUTED),
    ("OMSD-9", ("mpe/spread expert",), {"omsd order=0-1": 450.0, "omsd order=1-0": 455.0}, REPRODUCED),
    ("OMSD-9", ("mpe/spread expert",), {"omsd order=0-1": 450.0, "omsd order=1-0": 500.0}, REFUTED),
    ("OMSD-10", (f"{CHEETAH} medium-replay",), {"omsd": 9.0, "omiga": 2.0, "cfcql": 3.0}, REPRODUCED),
    ("OMSD-10", (f"{CHEETAH} medium-replay",), {"omsd": 3.0, "omiga": 1.0, "cfcql": 9.0}, NOT_JUDGED),
    ("DOM2-1", QUALITIES[:2], {"dom2": 9.0, "omar": 2.0, "td3-bc": 2.0, "bc": 2.0}, REPRODUCED),
    ("DOM2-1", QUALITIES[:2], {"dom2": 2.0, "omar": 1.0, "td3-bc": 1.0, "bc": 5.0}, REFUTED),
    ("DOM2-2", BOTH_RANDOM, {"dom2": 9.0, "omar": 2.0}, REPRODUCED),
    ("DOM2-4", (f"{CHEETAH} medium",), {"dom2 eta=0.0": 3.0, "dom2 eta=0.5": 9.0}, REPRODUCED),
    ("DOM2-4", (f"{CHEETAH} medium",), {"dom2 eta=0.0": 9.0, "dom2 eta=0.5": 3.0}, REFUTED),
    ("DOM2-6", ("mpe/tag medium-replay", "mpe/tag medium"),
     {"dom2": 5.0, "iql-ind": 9.0, "edp": 9.0, "diffusion-ql": 9.0, "omar": 1.0, "td3-bc": 1.0}, REFUTED),
    ("DOM2-6", ("mpe/tag medium-replay", "mpe/tag medium"),
     {"dom2": 5.0, "iql-ind": 9.0, "edp": 9.0, "diffusion-ql": 1.0, "omar": 1.0, "td3-bc": 1.0}, NOT_JUDGED),
    ("DOM2-7", ("mpe/tag medium-replay",),
     {"dom2 improvement=True denoising=True network=unet": 500.0,
      "dom2 improvement=True denoising=False network=unet": 499.0,
      "dom2 improvement=False denoising=True network=unet": 440.0,
      "dom2 improvement=True denoising=True network=mlp": 440.0}, ONLY_UNDER),
    ("DOF-3", QUALITIES[:2], {"dof-p": 500.0, "ind-diffusion": 440.0}, REPRODUCED),
    ("DOF-3", QUALITIES[:2], {"dof-p": 442.0, "ind-diffusion": 445.0}, REFUTED),
    ("DOF-4", ("mpe/spread expert",),
     {"dof-p noise_mixer=atten": 441.0, "dof-p noise_mixer=concat": 445.0}, REFUTED),
    ("DOF-6", ("mpe/spread expert",), {"dof-t": 475.0, "madiff-d": 275.0}, REPRODUCED),
    ("DOF-6", ("mpe/spread expert",), {"dof-t": 285.0, "madiff-d": 275.0}, NOT_JUDGED),
    ("CODA-5", (f"{CHEETAH} replay",), {"maddpg-bc+coda": 900.0, "maddpg-bc+synther": 300.0}, REPRODUCED),
    ("CODA-5", (f"{CHEETAH} replay",), {"maddpg-bc+coda": 400.0, "maddpg-bc+synther": 300.0}, REFUTED),
    ("CODA-6", (f"{CHEETAH} good",),
     {"maddpg-bc": 440.0, "maddpg-bc+coda": 500.0, "maddpg-bc+synther": 450.0}, REPRODUCED),
    ("CODA-6", (f"{CHEETAH} good",),
     {"maddpg-bc": 440.0, "maddpg-bc+coda": 430.0, "maddpg-bc+synther": 450.0}, NOT_JUDGED),
    ("CODA-6", (f"{CHEETAH} good",),
     {"maddpg-bc": 440.0, "maddpg-bc+coda": 380.0, "maddpg-bc+synther": 300.0}, REFUTED),
    ("CODA-7", (f"{CHEETAH} medium", f"{CHEETAH} poor"),
     {"maddpg-bc": 100.0, "maddpg-bc+coda": 400.0, "maddpg-bc+synther": 405.0}, REPRODUCED),
    ("CODA-7", (f"{CHEETAH} medium", f"{CHEETAH} poor"),
     {"maddpg-bc": 500.0, "maddpg-bc+coda": 450.0, "maddpg-bc+synther": 405.0}, REFUTED),
    ("CODA-8", ("mamujoco/4ant replay",),
     {"bc": 400.0, "bc+coda": 450.0, "iql": 400.0, "iql+coda": 401.0}, ONLY_UNDER),
]  # fmt: skip


@pytest.mark.parametrize(("name", "games", "means", "word"), RULES)
def test_a_claim_by_the_returns_of_its_systems(tmp_path, name, games, means, word):
    assert judged(tmp_path, name, means, games=games).word == word


def test_every_judge_of_trained_systems_is_tried():
    by_games = {"OMSD-1", "OMSD-2", "OMSD-3", "OMSD-8"}
    elsewhere = {"DOM2-3", "DOM2-5", "DOM2-8", "DOF-7", "DOF-8", "DOM2-9", "DOF-9"}
    tried = {name for name, *_ in RULES} | by_games | elsewhere
    judged = {claim.name for claim in CLAIMS if claim.judge}
    assert judged - tried == {"DOF-1", "DOF-2", "DOF-5", "CODA-1", "CODA-2", "CODA-3", "CODA-4"}


def test_a_loss_takes_eight_seeds_and_stages_on_record(tmp_path):
    lost = {"omsd": 400.0, "brpo-ctde": 440.0}
    few = judged(tmp_path / "a", "OMSD-4", lost, games=MODES, seeds=4)
    assert few.word == NOT_JUDGED and "4 of the 8 seeds" in few.detail
    unknown = judged(tmp_path / "b", "OMSD-4", lost, games=MODES, word="")
    assert unknown.word == NOT_JUDGED and "health of its stages is not on record" in unknown.detail


def test_what_has_not_learned_is_not_judged_even_if_ahead(tmp_path):
    ahead = {"omsd": 500.0, "brpo-ctde": 440.0}
    verdict = judged(tmp_path / "a", "OMSD-4", ahead, games=MODES, word="short")
    assert verdict.word == NOT_JUDGED and "omsd: critic has not learned" in verdict.detail
    assert judged(tmp_path / "b", "OMSD-4", ahead, games=MODES, word="").word == REPRODUCED


def test_a_diverged_seed_is_named(tmp_path):
    files = trained_files(tmp_path, MODES[0], {"omsd": 500.0, "brpo-ctde": 440.0})
    bad = [
        m._replace(value=np.nan) if (m.system, m.seed) == ("omsd", 3) else m for m in files.measures
    ]
    verdict = rules.verdict(claim_of("OMSD-4").judge(files._replace(measures=bad)))
    assert verdict.word == NOT_JUDGED and "omsd: seed 3 diverged" in verdict.detail


def test_seeds_are_paired(tmp_path):
    """Seeds differ by 10 among themselves; their differences by 0.1."""
    means = {"omsd": 480.0, "brpo-ctde": 440.0}
    files = trained_files(tmp_path, MODES[0], means, spread=0.0)
    part, _ = claim_of("OMSD-4").judge(files)
    assert "over brpo-ctde 40.0 [40.0, 40.0]" in part.numbers[1]


def curve(folder, means, learned=1):
    rows = []
    for lam, mean in means.items():
        values = {"log-likelihood": around(mean)}
        rows += measured.of_seeds("steering", "expert", f"lambda {lam:g}", range(SEEDS), values)
    words = StageWord("steering", "coda", "", "generator", learned, 1 - learned, 0, 0, "")
    save(folder, rows, [words])
    return rules.verdict(claim_of("CODA-4").judge(evidence.load_evidence(folder)))


@pytest.mark.parametrize(
    ("means", "learned", "word", "detail"),
    [
        ({0: -9.0, 1: -3.0, 10: -6.0}, 1, REPRODUCED, ""),
        ({0: -9.0, 1: -6.0, 10: -3.0}, 1, NOT_JUDGED, "no fall up to lambda 10"),
        ({0: -3.0, 1: -6.0, 10: -9.0}, 1, REFUTED, ""),
        ({0: -9.0, 1: -3.0, 10: -6.0}, 0, NOT_JUDGED, "generator"),
    ],
)
def test_a_curve_that_rises_and_falls(tmp_path, means, learned, word, detail):
    verdict = curve(tmp_path, means, learned)
    assert verdict.word == word and detail in verdict.detail


@pytest.mark.parametrize(
    ("best", "word"),
    [((0.0, 0.1, 0.3), REPRODUCED), ((0.1, 0.1, 0.1), REFUTED), ((0.3, 0.1, 0.0), NOT_JUDGED)],
)
def test_the_best_beta_rises_as_data_get_worse(tmp_path, best, word):
    found = []
    for k, (game, top) in enumerate(zip(QUALITIES, best, strict=True)):
        means = {f"omsd beta={b}": 450.0 - 100.0 * abs(b - top) for b in (0.0, 0.1, 0.3)}
        found.append(trained_files(tmp_path / str(k), game, means))
    measures = [m for one in found for m in one.measures]
    stages = [s for one in found for s in one.stages]
    whole = found[0]._replace(measures=measures, stages=stages)
    assert rules.verdict(claim_of("OMSD-8").judge(whole)).word == word


def test_evidence_that_lacks_a_row_is_refused(tmp_path):
    found = bandit_files(tmp_path)
    with pytest.raises(JaxomarlError, match=r"a row of .*none"):
        evidence.values(found, "bandit", "omsd", "elsewhere", "reward")
    with pytest.raises(JaxomarlError, match="a row of bandit nobody"):
        trained.best(found, "bandit", "nobody")


def test_numbers_are_read_as_they_were_written(tmp_path):
    rows = [Measure("g", "s", "a, b", 3, "m", 0.5), Measure("g", "law", "", "", "m", np.pi)]
    words = [StageWord("g", "s", "a, b", "critic", 1, 2, 3, 4, 'x is 1, at most "0" is asked')]
    save(tmp_path, rows, words)
    assert measured.read(tmp_path) == [rows[0], rows[1]._replace(value=3.14159)]
    assert measured.read_stages(tmp_path) == words
    facts = store.read_json(tmp_path / measured.PROVENANCE, command=str)
    assert facts["command"] == "reproduce NAME --seeds 8 --cfg.beta 0 1"


# --- the page and the list ---


def test_the_page_is_what_the_command_writes_from_the_evidence():
    text = with_command(page.page(ROOT / "docs/evidence"), f"{page.REPRODUCE} verdicts")
    assert (ROOT / "docs/verdicts.md").read_text(encoding="utf-8") == text


def test_the_page_is_readable_at_a_hundred_columns():
    lines = (ROOT / "docs/verdicts.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > 100] == []


def test_without_a_checkout_the_page_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    verdicts = REPRODUCTIONS["verdicts"].load()
    with pytest.raises(JaxomarlError, match="checkout"):
        verdicts(asked(tmp_path))
    with pytest.raises(JaxomarlError, match="--systems"):
        verdicts(Asked([0], 1.0, tmp_path, lambda: False, systems=("omsd",)))


def test_the_list_is_complete_and_its_names_are_unique():
    counts = {"OMSD": 10, "DOM2": 9, "DOF": 9, "CODA": 8}
    names = [f"{paper}-{k + 1}" for paper, count in counts.items() for k in range(count)]
    assert [claim.name for claim in CLAIMS] == names


@functools.cache
def known_commands() -> dict[str, type]:
    """The commands with the fields of every system."""
    return imports.with_fields(commands.COMMANDS)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_every_command_is_one_that_can_be_typed(claim: Claim):
    for command in filter(None, (claim.command, *claim.also)):
        argv = shlex.split(command)
        assert argv[0] in REPRODUCTIONS
        given = parse(known_commands(), "reproduce", argv)
        assert {name.partition("+")[0] for name in given.systems} <= set(REGISTRY)
    for command in claim.benchmarks:
        name, *argv = shlex.split(command)
        flags = importlib.import_module(f"benchmarks.{name}").Flags
        given = tyro.cli(flags, args=argv)
        assert given.out.name == f"{name}.jsonl" and name in cost_lines.KINDS


class ResolvedError(Exception):
    """Raised in place of the training: a command has come as far as that."""


SLOW = ("coda-", "dom2-table3", "omsd-table4", "dof-planners --systems dof-t --tasks smax")
"""Whose data take seconds to make: the long tests have these."""
TRAINED = [
    pytest.param(
        command,
        id=f"{claim.name}-{k}",
        marks=[pytest.mark.long] if command.startswith(SLOW) else [],
    )
    for claim in CLAIMS
    for k, command in enumerate(filter(None, (claim.command, *claim.also)))
    if not command.startswith(("dof-games", "coda-games", "omsd-table1"))
]


@pytest.mark.parametrize("command", TRAINED)
def test_every_command_comes_as_far_as_its_training(command, tmp_path, monkeypatch):
    def resolved(*args: object, **more: object) -> None:
        raise ResolvedError

    monkeypatch.setattr(session, "train_groups", resolved)
    monkeypatch.setattr(steering, "run", resolved)
    given = parse(known_commands(), "reproduce", shlex.split(command))
    few = dataclasses.replace(given, rows=5_000, out=tmp_path)
    with pytest.raises(ResolvedError):
        REPRODUCTIONS[given.table].load()(commands.wanted(few, commands.Stop()))


def test_every_claim_has_a_judge_its_evidence_and_a_command():
    for claim in CLAIMS:
        assert claim.judge and claim.folder and page.commands(claim)
