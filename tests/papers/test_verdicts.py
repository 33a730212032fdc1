"""The verdicts on claims: each word arises by its rule, and the page is what the evidence gives."""

import shlex
from pathlib import Path

import numpy as np
import pytest

from jaxomarl.algorithms import REGISTRY
from jaxomarl.base import JaxomarlError
from jaxomarl.cli import commands, imports
from jaxomarl.cli.parsing import parse
from jaxomarl.cli.reproduce import with_command
from jaxomarl.papers import REPRODUCTIONS, measured
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.measured import Measure, StageWord
from jaxomarl.papers.verdicts import evidence, games, page, rules, scores
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
from jaxomarl.results import store

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
    measured.save_measures(asked(folder, seeds), measures, stages)
    facts = measured.provenance(asked(folder, seeds), command)
    store.write_json(folder / measured.PROVENANCE, facts)


# --- answers ---


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


COLUMNS = (
    "task", "data", "system", "swept", "seeds", "nonfinite", "mean", "std", "data_mean", "data_se",
    "health",
)  # fmt: skip


def summary_files(folder, omsd, health, seeds=4, data="expert-modes"):
    """`omsd` is its mean, or its means by what was swept."""
    own = omsd if isinstance(omsd, dict) else {"": omsd}
    means = {("omsd", swept): mean for swept, mean in own.items()}
    means |= {("brpo-ctde", ""): 440.0, ("bc", ""): 438.0}
    rows = [
        ("mpe/spread", data, system, swept, seeds, 0, mean, 2.0, 450.0, 0.5, health)
        for (system, swept), mean in means.items()
    ]
    store.write_table(folder / evidence.SUMMARY, rows, COLUMNS)
    save(folder, [], seeds=seeds)
    return evidence.load_evidence(folder)


@pytest.mark.parametrize(
    ("omsd", "health", "seeds", "word", "detail"),
    [
        (500.0, "learned", 4, REPRODUCED, ""),
        (447.0, "learned", 4, NOT_JUDGED, "settles nothing"),
        (400.0, "learned", 8, REFUTED, ""),
        (400.0, "learned", 4, NOT_JUDGED, "4 of the 8 seeds"),
        (400.0, "", 8, NOT_JUDGED, "health is not on record"),
        (500.0, "short: scores-conditional", 8, NOT_JUDGED, "omsd: short: scores-conditional"),
    ],
)
def test_omsd_4_by_its_summary(tmp_path, omsd, health, seeds, word, detail):
    verdict = rules.verdict(scores.sequence_on_modes(summary_files(tmp_path, omsd, health, seeds)))
    assert verdict.word == word and detail in verdict.detail


@pytest.mark.parametrize(
    ("best", "health", "seeds", "word", "detail"),
    [
        (460.0, "learned", 4, REPRODUCED, ""),
        (450.0, "learned", 4, NOT_JUDGED, "settles nothing"),
        (445.0, "learned", 8, REFUTED, ""),
        (445.0, "learned", 4, NOT_JUDGED, "4 of the 8 seeds"),
        (460.0, "short: critic in 2 of 4", 4, NOT_JUDGED, "omsd: short: critic"),
    ],
)
def test_omsd_5_by_its_best_beta(tmp_path, best, health, seeds, word, detail):
    """Above BC (438) in every case; the data have 450."""
    swept = {"beta=0.0": 430.0, "beta=0.002": best}
    files = summary_files(tmp_path, swept, health, seeds, data="medium")
    verdict = rules.verdict(scores.best_beta_on_medium(files))
    assert verdict.word == word and detail in verdict.detail
    assert "omsd beta=0.002, unpaired" in verdict.parts[0].numbers[1]


def test_evidence_that_lacks_a_row_is_refused(tmp_path):
    found = bandit_files(tmp_path)
    with pytest.raises(JaxomarlError, match=r"a row of .*none"):
        evidence.values(found, "bandit", "omsd", "elsewhere", "reward")
    with pytest.raises(JaxomarlError, match="one row of"):
        evidence.score(found, "mpe/spread", "medium", "omsd")


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


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_every_command_is_one_that_can_be_typed(claim: Claim):
    argv = shlex.split(claim.command)
    assert argv[0] in REPRODUCTIONS
    given = parse(imports.with_fields(commands.COMMANDS), "reproduce", argv)
    assert {name.partition("+")[0] for name in given.systems} <= set(REGISTRY)
