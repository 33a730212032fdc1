"""DoF's tables by the number of agents: parameters, memory and time of a plan, rewards in battles.

What a plan costs is read from the lines of `python -m benchmarks.planning`. The battle is this
package's own, with the paper's rewards in kind. So what the paper prints stands in a table of its
own below ours.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxomarl.algorithms import REGISTRY
from jaxomarl.api import plan, session
from jaxomarl.api.plan import Group
from jaxomarl.base import JaxomarlError
from jaxomarl.data.catalog import load
from jaxomarl.envs.catalog import make
from jaxomarl.papers import shown
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.comparison import markdown_table
from jaxomarl.papers.dof import battles, costs
from jaxomarl.papers.dof.costs import Line
from jaxomarl.papers.shown import Content
from jaxomarl.results import intervals
from jaxomarl.training import memory
from jaxomarl.training.library import StageCache

AGENTS = (4, 8, 16, 32, 64)
"""Numbers of agents of the paper's tables."""
FEW_ROWS = 1200
"""Transitions whose shapes are enough to count parameters: more than any system's batch."""
MILLION = 1e6
PLANNING = "planning"
"""The benchmark that times plans."""
NOTES = (
    "Game: the package's own battle, whose rules are stated in its environment; the paper's is "
    "MAgent-like combat.",
    "Data: of this package's scripts; the paper's are logs of MADDPG.",
)
UNTRAINED = {"random": "uniform actions", "medium": "the foes' script", "good": "its best script"}
"""Quality of the battle's data -> what plays it."""
PLAYED_ROWS = 10_000
"""Transitions behind the return of a team that is not trained: a hundred battles or more."""
OF_TEAMS = Content(
    ("bc", "dof-t", "madiff-c"),
    ("battle/8", "battle/64"),
    ("good",),
    NOTES,
    battles.THEIRS,
)


# --- parameters ---


def table21(asked: Asked) -> str:
    """Table 21: parameters of every system that takes the battle, in millions; nothing is trained.

    The paper's numbers are a picture in the text at hand.
    """
    unused = ("tasks", "data", "episodes", "source", "final_episodes")
    asked.check_unused("dof-table21", "it counts the parameters of battle/N.", unused)
    taken, refused = accepted(asked)
    by_team = [counts(asked, taken, agents) for agents in AGENTS]
    rows = []
    for system in taken:
        rows.append((system, *(f"{counted[system] / MILLION:.3g}" for counted in by_team)))
    head = ("millions of parameters", *(f"{n} agents" for n in AGENTS))
    left_out = (f"\n- Left out: {', '.join(who)}. {why}" for why, who in grouped(refused).items())
    first = "Networks of a run's stages at their defaults; targets and optimisers not counted."
    return f"{first}\n\n{markdown_table(head, rows)}{''.join(left_out)}\n"


def accepted(asked: Asked) -> tuple[list[str], dict[str, str]]:
    """(systems that take the battle, the others with their reasons).

    JaxomarlError for one that was asked for and takes it not.
    """
    taken = []
    refused = {}
    for system in asked.systems or tuple(REGISTRY):
        try:
            groups_of(asked, [system], AGENTS[0])
        except JaxomarlError as error:
            if asked.systems:
                raise
            refused[system] = str(error)
        else:
            taken.append(system)
    return taken, refused


def grouped(refused: Mapping[str, str]) -> dict[str, list[str]]:
    """Reason -> the systems that were refused for it."""
    found: dict[str, list[str]] = {}
    for system, reason in refused.items():
        found.setdefault(reason, []).append(system)
    return found


def counts(asked: Asked, systems: Sequence[str], agents: int) -> dict[str, int]:
    """Each system's parameters in a team."""
    found = {}
    for group in groups_of(asked, systems, agents):
        job = session.job_of(group, StageCache(), say=lambda _: None)
        found[group.name] = memory.parameters(job)
    return found


def groups_of(asked: Asked, systems: Sequence[str], agents: int) -> list[Group]:
    """The systems on a battle, with data whose shapes alone count."""
    settings = {field: values[:1] for field, values in asked.overrides.items()}
    task = f"battle/{agents}"
    return plan.resolve(systems, [task], ["random"], [0], "", settings, FEW_ROWS)


# --- what a plan costs ---


def table3(asked: Asked) -> str:
    """Table 3: memory and time of a plan, from the benchmark's lines in OUT."""
    lines = [
        x for x in costs.measured_lines(asked, "dof-table3", PLANNING) if x["sampler"] == "ddim"
    ]
    memory_rows = by_agents(lines, lambda x: f"{x['program_mib']:.0f}", ("system",))
    time_rows = by_agents(lines, seconds, ("system",))
    return "\n".join(
        [
            f"Memory of the compiled plan in MiB, as XLA counts it.\n\n{memory_rows}",
            f"Seconds of a plan with DDIM: the median, and the range of samples.\n\n{time_rows}",
            battles.printed_table("3 memory", "MB of a card's memory, in its combat game"),
            battles.printed_table("3 seconds", "seconds of inference, in its combat game"),
        ]
    )


def table22(asked: Asked) -> str:
    """Table 22: time of a plan by sampler, from the benchmark's lines in OUT."""
    lines = costs.measured_lines(asked, "dof-table22", PLANNING)
    rows = by_agents(lines, seconds, ("system", "sampler", "calls"))
    ours = f"Seconds of a plan: the median, and the range of samples.\n\n{rows}"
    printed = battles.printed_table("22", "seconds of inference, of a game that it does not name")
    return f"{ours}\n{printed}"


def seconds(line: Line) -> str:
    """A line's seconds with their range."""
    middle, *ends = (three_digits(line[f"seconds{end}"]) for end in ("", "_low", "_high"))
    return f"{middle} [{', '.join(ends)}]"


def three_digits(x: float) -> str:
    """Three digits, and no exponent."""
    return f"{float(f'{x:.3g}'):g}"


def by_agents(lines: Sequence[Line], cell: Callable[[Line], str], fields: Sequence[str]) -> str:
    """A row for each value of the fields, and a column for each number of agents."""
    agents = sorted({line["agents"] for line in lines})
    found = {(*(line[f] for f in fields), line["agents"]): cell(line) for line in lines}
    names = list(dict.fromkeys(key[:-1] for key in found))
    rows = [(*map(str, name), *(found.get((*name, n), "") for n in agents)) for name in names]
    return markdown_table((*fields, *(f"{n} agents" for n in agents)), rows)


# --- rewards ---


def table23(asked: Asked) -> str:
    """Table 23: rewards in battles of 8 and of 64, beside random and scripted teams'.

    The paper's numbers are a picture in the text at hand, but for those of its Table 3.
    """
    trained = [cell for cell, _ in shown.trained_cells(asked, OF_TEAMS)]
    ours = shown.text(asked, OF_TEAMS, trained, shown.records_of(trained))
    without = untrained_table(asked.tasks or OF_TEAMS.tasks)
    printed = battles.printed_table("3 reward", "reward, in its combat game")
    return f"{ours}\n{without}\n{printed}"


def untrained_table(tasks: Sequence[str]) -> str:
    """Mean returns with their intervals of teams that are not trained."""
    rows = []
    for quality, words in UNTRAINED.items():
        rows.append((words, *(shown_return(task, quality) for task in tasks)))
    first = "Teams that are not trained: mean return, and its interval over battles."
    return f"{first}\n\n{markdown_table(('team', *tasks), rows)}"


def shown_return(task: str, quality: str) -> str:
    """The mean return of a quality's behaviours with its interval, and their battles."""
    _, manifest = load(make(task), quality, PLAYED_ROWS)
    battles_played = manifest["episodes"]
    returns = manifest["return"]
    variance = returns["std"] ** 2 / (battles_played - 1)
    facts = (returns["mean"], variance, battles_played - 1)
    low, high = map(float, intervals.interval(intervals.Estimate(*map(np.asarray, facts))))
    return f"{returns['mean']:.1f} [{low:.1f}, {high:.1f}] ({battles_played} battles)"
