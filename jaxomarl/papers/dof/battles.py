"""DoF's tables of StarCraft in kind: the same questions asked of SMAX's battles.

SMAX is not SMAC: its rules, foes, observations, rewards and data differ. So what a paper prints
stands in a table of its own below ours, and only orders and gaps can be compared.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from jaxomarl.envs.catalog import make
from jaxomarl.papers import comparison, keep, shown
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.comparison import Published, markdown_table
from jaxomarl.papers.shown import Content
from jaxomarl.results import store
from jaxomarl.results.store import Run

PLANNERS = ("dof-t", "madiff-d", "madiff-c", "decision-diffuser")
SHORT_PLANS = {"horizon": [8], "history": [4]}
"""Plans that fit into a battle, most of which last 10 to 20 steps."""
NOTES = (
    "Game: SMAX on the device, against JaxMARL's heuristic enemies; the paper's is SMAC.",
    "Data: of policies that this package trained online (`experiments.behaviours`); the paper's "
    "are OG-MARL's.",
    "Plans look 8 rows ahead with 4 of history, for battles here are short, where no other is "
    "asked for.",
)
THEIRS = "the paper's 5."
MAPS = ("smax/3m", "smax/5m_vs_6m", "smax/2s3z", "smax/8m", "smax/3s5z_vs_3s6z")
QUALITIES = ("good", "medium", "poor")
BASELINES = ("bc", "mabcq", "macql", "icq", "qmix", "madt", "madiff-d", "dof-t")
MANY_MAPS = Content(BASELINES, MAPS, QUALITIES, NOTES, THEIRS)
RANDOM_TEAMS = Content(
    ("bc", "mabcq", "macql", "icq", "madiff-d", "dof-t"),
    ("smax/smacv2_5_units", "smax/smacv2_10_units"),
    ("replay", "good", "scripted"),
    NOTES,
    THEIRS,
)
CODED = Content(("dof-t",), MAPS[:1], QUALITIES[:1], NOTES, THEIRS)
REMEMBERED = Content(
    ("dof-t",), ("smax/3m", "smax/5m_vs_6m", "smax/8m"), ("medium",), NOTES, THEIRS
)
MIXED = Content(("dof-t",), ("smax/3s5z_vs_3s6z", "smax/2s3z"), QUALITIES, NOTES, THEIRS)


def table2(asked: Asked) -> str:
    """Tables 2 and 12: returns and win rates of every system on several maps."""
    printed = {"2": "average return on SMAC", "12": "share of SMAC's battles won"}
    return battles(asked, MANY_MAPS, printed)


def table10(asked: Asked) -> str:
    """Table 10: teams that are drawn anew for each battle, as in SMACv2."""
    return battles(asked, RANDOM_TEAMS, {"10": "average return on SMACv2"})


def table18(asked: Asked) -> str:
    """Table 18: what planning in an autoencoder's code saves and costs."""
    printed = {"18 hours": "hours of training on SMAC", "18 return": "average return there"}
    return battles(asked, CODED, printed, {"code_width": [0, 8]})


def table19(asked: Asked) -> str:
    """Table 19: plans with and without local history."""
    return battles(asked, REMEMBERED, {"19": "average return on SMAC"}, {"history": [0, 4]})


def table24(asked: Asked) -> str:
    """Table 24: f, which mixes the agents' noise; the printed table is a picture."""
    return battles(asked, MIXED, {}, {"noise_mixer": ["concat", "wconcat", "dec-atten"]})


def table25(asked: Asked) -> str:
    """Table 25: h, which mixes the agents' samples; attention acts centrally."""
    sweep = {"data_mixer": ["concat", "wconcat", "atten"], "execution": ["central"]}
    return battles(asked, MIXED, {"25": "average return on SMAC"}, sweep)


def battles(
    asked: Asked,
    content: Content,
    printed: Mapping[str, str],
    sweep: Mapping[str, Sequence[Any]] | None = None,
) -> str:
    """Our table, the seconds that training took, and what the paper prints below them.

    `printed` maps tables of the paper to what their numbers are. `sweep` are the values that a
    system has where no others are asked for.
    """
    overrides: dict[str, Sequence[Any]] = dict(sweep or {})
    if set(PLANNERS) & set(asked.systems or content.systems):
        overrides = {**SHORT_PLANS, **overrides}
    asked = dataclasses.replace(asked, overrides={**overrides, **asked.overrides})
    trained = []
    runs: list[Run] = []
    for cell, results in shown.trained_cells(asked, content):
        trained.append(cell)
        # read again: a finished run.json says what its stages took
        runs += store.find_runs([results.out or asked.out])
        # the results hold the data
        del results
    records = shown.records_of(trained)
    noted = content._replace(notes=(*content.notes, *without_data(asked, content)))
    parts = [shown.text(asked, noted, trained, records), training_table(runs)]
    parts += [printed_table(number, words) for number, words in printed.items()]
    return "\n".join(parts)


def without_data(asked: Asked, content: Content) -> list[str]:
    """A line for each task that has none of the table's data here."""
    if asked.data:
        return []
    lacking = [t for t in asked.tasks or content.tasks if not {*content.data} & {*make(t).recipes}]
    if not lacking:
        return []
    first = lacking[0]
    return [
        f"No data: {', '.join(lacking)} have no {', '.join(content.data)}; `python -m "
        f"experiments.behaviours {first}` trains such policies, and `--data FOLDER` takes your own."
    ]


def training_table(runs: Sequence[Run]) -> str:
    """Seconds of training by task, data, system and setting: a run's share, the mean of runs."""
    taken: dict[tuple[str, str, str], list[float]] = {}
    for run in runs:
        seconds = keep.training_seconds(run)
        if seconds is not None:
            name = f"{run.info['system']} {keep.setting(run)}".strip()
            taken.setdefault((run.info["task"], run.info["data"], name), []).append(seconds)
    rows = [(*cell, f"{sum(x) / len(x):.0f}") for cell, x in taken.items()]
    head = ("task", "data", "system", "seconds of training a seed")
    return markdown_table(head, rows)


def printed_table(number: str, words: str) -> str:
    """What the paper prints in a table, under a heading of its own."""
    published = comparison.published_scores("dof_battles", number)
    return f"Printed in DoF's Table {number.split()[0]}: {words}.\n\n{as_grid(published)}"


def as_grid(published: Published) -> str:
    """Printed numbers: a row for each game and data, and a column for each system."""
    systems = list(dict.fromkeys(system for _, _, system in published))
    games = list(dict.fromkeys((task, data) for task, data, _ in published))
    rows = [
        (task, data, *(printed_number(published.get((task, data, s))) for s in systems))
        for task, data in games
    ]
    return markdown_table(("game", "data", *systems), rows)


def printed_number(score: comparison.Score | None) -> str:
    """A printed mean with its spread; a mean that is not a number ran out of memory."""
    if score is None:
        return ""
    mean, spread = score
    if math.isnan(mean):
        return "out of memory"
    return f"{mean:g}" if math.isnan(spread) else f"{mean:g} ± {spread:g}"
