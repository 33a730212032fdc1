"""`reproduce verdicts`: docs/verdicts.md, computed from the folders under docs/evidence."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

from jaxomarl.base import refuse
from jaxomarl.papers.asked import CHOICES, Asked
from jaxomarl.papers.verdicts import rules
from jaxomarl.papers.verdicts.claims import CLAIMS, PAPERS, Claim
from jaxomarl.papers.verdicts.evidence import Evidence, load_evidence
from jaxomarl.papers.verdicts.rules import NOT_JUDGED, OPEN, WORDS, Part, Verdict

EVIDENCE = Path("docs/evidence")
"""Where a checkout has its evidence."""
WIDTH = 100
"""Columns of the page."""
REPRODUCE = "python -m experiments.reproduce"
BENCHMARKS = "python -m benchmarks."

PREFACE = """\
What four papers claim, and what this package's evidence says of each claim. Every verdict here is
computed from files under docs/evidence by a rule in `jaxomarl/papers/verdicts`. None is typed in.

| verdict | when |
| --- | --- |
| reproduced | the rule says yes under every condition that was measured |
| only under X | the rule says yes under X, and no or nothing under another condition |
| refuted | the rule says no under every condition, with eight seeds or exactly (no seeds) |
| not judged | no run is on record, a stage has not learned, or an interval settles nothing |

- Intervals are 95 % t intervals over seeds. Differences are paired by seed, if it is not said.
- All data are this package's own. So a printed return is no target; order and differences are.
- A network that has not learned cannot speak against a method. Its gate comes first, and a claim
  whose gate fails is not judged, whatever its returns are.
- "t" is our arithmetic: a printed difference over the printed errors. Below 2 a table does not
  separate its systems.
- The tables of [results](results.md) that have no files in docs/evidence judge nothing here.
- A claim without evidence names its gates and the commands that would measure it. `jaxomarl keep
  OUT... -o docs/evidence/NAME` makes its evidence of the folders that they write, costs too. Of
  games, the csv and json files are copied.
- Costs have no seeds: the ranges of their samples stand in for intervals.
"""


def verdicts(asked: Asked) -> str:
    """The page, from `--from FOLDER` or from the evidence of the checkout that one stands in."""
    unused = [field for field in CHOICES if field != "source"]
    asked.check_unused("verdicts", "it trains nothing.", unused)
    folder = asked.source or EVIDENCE
    if not folder.is_dir():
        way = "Stand in a checkout of the repository, or give the folder by --from."
        raise refuse("verdicts", f"a folder {folder}", "none", way)
    return page(folder)


def page(folder: Path) -> str:
    """The page from a folder of evidence."""
    names = dict.fromkeys(claim.folder for claim in CLAIMS if claim.folder)
    on_record = {name: load_evidence(folder / name) for name in names}
    judged = {claim: judge(claim, on_record.get(claim.folder)) for claim in CLAIMS}
    parts = [
        "# Verdicts",
        PREFACE.strip(),
        counts(judged),
        evidence_list(on_record),
        *(section(paper, judged) for paper in PAPERS.values()),
    ]
    return "\n\n".join(parts) + "\n"


def judge(claim: Claim, evidence: Evidence | None) -> Verdict:
    """The verdict on a claim; without evidence, or a judge, it is not judged."""
    if claim.judge is None or evidence is None:
        return Verdict(NOT_JUDGED, rules.NO_RUN)
    return rules.verdict(claim.judge(evidence))


# --- the head of the page ---


def counts(judged: Mapping[Claim, Verdict]) -> str:
    """How many claims of each paper got each verdict."""
    lines = [_row(("paper", *WORDS)), _row(("---", *["---:"] * len(WORDS)))]
    for paper in PAPERS.values():
        words = [v.word for claim, v in judged.items() if claim.paper == paper]
        lines.append(_row((paper, *(str(words.count(word)) for word in WORDS))))
    words = [v.word for v in judged.values()]
    lines.append(_row(("all", *(str(words.count(word)) for word in WORDS))))
    return "\n".join(lines)


def evidence_list(on_record: Mapping[str, Evidence | None]) -> str:
    """Each folder of evidence: its command, seeds, scale, commit and machine."""
    lines = ["The evidence on record:", ""]
    for name, evidence in on_record.items():
        if evidence is None:
            continue
        facts = evidence.provenance
        commit = facts["source"].get("commit", "unknown")[:10]
        seeds = len(facts["seeds"]) or "no"
        lines += _bullet(
            f"[{name}](evidence/{name}): {seeds} seeds, scale {facts['scale']:g}, "
            f"commit {commit}, {facts['cores']} cores; `{facts['command']}`"
        )
    return "\n".join(lines) if len(lines) > 2 else "No evidence is on record."


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


# --- claims ---


def section(paper: str, judged: Mapping[Claim, Verdict]) -> str:
    """A paper's claims, a heading for each."""
    blocks = [f"## {paper}"]
    for claim, verdict in judged.items():
        if claim.paper == paper:
            blocks.append(claim_block(claim, verdict))
    return "\n\n".join(blocks)


def claim_block(claim: Claim, verdict: Verdict) -> str:
    """A claim, its printed numbers, ours, the rule, the verdict and the command."""
    detail = verdict.detail
    if verdict.word == NOT_JUDGED:
        detail = f"({detail})"
    word = f"**{verdict.word}** {detail}".strip()
    lines = [f"### {claim.name}: {verdict.word}", "", textwrap.fill(claim.sentence, WIDTH), ""]
    lines += _bullet(f"Verdict: {word}.")
    lines += _bullet(f"Printed: {claim.printed}")
    for part in verdict.parts:
        lines += _part_lines(part)
    lines += _bullet(f"Rule: {claim.rule}")
    if claim.learned_first:
        lines += _bullet(f"Must have learned first: {claim.learned_first}.")
    lines += _bullet(f"Evidence: docs/evidence/{claim.folder}.")
    lines += ["", "```bash"]
    for command in commands(claim):
        lines += _command(command)
    return "\n".join([*lines, "```"])


def commands(claim: Claim) -> list[str]:
    """The command lines that measure a claim, as one types them."""
    tables = [command for command in (claim.command, *claim.also) if command]
    timings = [f"{BENCHMARKS}{command}" for command in claim.benchmarks]
    return [*(f"{REPRODUCE} {command}" for command in tables), *timings]


def _part_lines(part: Part) -> list[str]:
    """Ours under one condition: the answer, and the numbers below it."""
    answer = part.answer.word
    if answer == OPEN:
        answer = f"open ({part.answer.reason})"
    condition = part.condition and f", {part.condition}"
    lines = _bullet(f"Ours{condition}: {answer}.")
    for numbers in part.numbers:
        lines += _bullet(f"{numbers}.", indent="  ")
    return lines


def _bullet(text: str, indent: str = "") -> list[str]:
    """A list item, wrapped; words of code and links are not broken."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=f"{indent}- ",
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _command(command: str) -> list[str]:
    """The command over as many lines as it takes; a flag and its values stay on one."""
    # the first piece is the name, which has no flag before it
    name, *flags = command.split(" --")
    lines = [name]
    for piece in (f"--{flag}" for flag in flags):
        longer = f"{lines[-1]} {piece}"
        if len(longer) <= WIDTH - 2:
            lines[-1] = longer
        else:
            lines.append(f"    {piece}")
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]
