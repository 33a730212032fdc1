"""DOM2's Figure 5, scores against the size and the kind of the data, and Figure 7, returns against eta and N."""

import dataclasses
from collections import defaultdict

from jaxomarl.base import refuse
from jaxomarl.config import flag
from jaxomarl.envs.catalog import make
from jaxomarl.papers import cells, points
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.dom2 import tables
from jaxomarl.paths import folder_name

FRACTIONS = (0.01, 0.05, 0.1, 0.5, 1.0)
QUALITIES = tuple(
    q for q in tables.QUALITIES if q != "medium-replay"
)  # the average of its Figure 5 (a)-(c)
SWEEPS = {
    "eta": (0.1, 1.0, 10.0, 100.0),
    "levels": (1, 2, 5, 10),
}  # its Figure 7: eta in [0.1, 100], N in [1, 10]


def fig5(asked: Asked) -> str:
    """Figure 5: (a)-(c) mean normalised score over data sets against their size, by task; (d) by kind of data."""
    tasks, held, made = asked.tasks or tables.TASKS, defaultdict(dict), []
    for task in tasks:
        rows, scale = asked.rows or make(task).rows, make(task).scale
        if scale is None:
            raise refuse(
                "--tasks",
                "tasks with normalised scores",
                task,
                "Figure 5 averages over kinds of data.",
            )
        for fraction in FRACTIONS:
            part = dataclasses.replace(asked, rows=max(1, round(fraction * rows)))
            for quality in tables.qualities(asked, task, QUALITIES):
                name = folder_name(task, quality, f"{fraction:g}")
                cell, results = cells.train(
                    part, asked.systems or tables.SYSTEMS, task, quality, name=name
                )
                for system, scores in points.ends(results, scale).items():
                    held[cell.task.name, system, fraction][cell.quality] = scores
                made.append(cell)
                del results  # and the data with them
    sizes = [
        points.point(task, system, f, list(by_kind.values()))
        for (task, system, f), by_kind in held.items()
    ]
    kinds = defaultdict(list)
    for (_, system, fraction), by_kind in held.items():
        for quality, scores in by_kind.items() if fraction == max(FRACTIONS) else ():
            kinds[system, quality].append(scores)
    order = [q for q in tables.QUALITIES if any(q == kind for _, kind in kinds)]
    order += sorted({kind for _, kind in kinds} - set(order))
    panel = "all tasks, by kind of data"
    bars = [
        points.point(panel, s, float(order.index(q)), scores) for (s, q), scores in kinds.items()
    ]
    points.keep(
        asked,
        [*sizes, *bars],
        "fraction of the data",
        "normalised score",
        {panel: order},
        logarithmic=True,
    )
    how = (
        f"Size: {', '.join(f'{f:g}' for f in FRACTIONS)} of the rows, in whole episodes; a smaller set is made by the "
        "same behaviours in the same shares. The score is the mean over kinds of data, without medium-replay unless "
        "`--data` names it; the paper's curves are a picture, without numbers."
    )
    notes = [tables.DATA, tables.PREY, tables.SETTINGS, how]
    shown, x = [*sizes, *bars], "fraction of the data, or kind"
    return points.text(asked, made, notes, tables.THEIRS, shown, x, {panel: order})


def fig7(asked: Asked) -> str:
    """Figure 7: DOM2's return against eta and against the number N of sampling steps, by kind of data."""
    tasks, made, found = asked.tasks or ("mpe/world",), [], []
    for field, values in SWEEPS.items():
        if field in asked.overrides:
            raise refuse(
                flag(field), "nothing for dom2-fig7", asked.overrides[field], "It is what is swept."
            )
        part = dataclasses.replace(asked, overrides={**asked.overrides, field: list(values)})
        for task in tasks:
            for quality in tables.qualities(asked, task):
                name = folder_name(task, quality, field)
                cell, results = cells.train(
                    part, asked.systems or ("dom2",), task, quality, name=name
                )
                title = f"{cell.task.name}: {'N' if field == 'levels' else field}"
                for system, scores in points.ends(results, None).items():
                    before, _, value = f"{system} ".partition(f" {field}=")
                    x, _, after = value.partition(" ")
                    found.append(
                        points.point(title, f"{before} {after}{cell.quality}", float(x), [scores])
                    )
                made.append(cell)
                del results  # and the data with them
    found.sort(key=lambda p: (p.panel, p.curve, p.x))
    points.keep(asked, found, "eta, or N", "return", {}, logarithmic=True)
    notes = [tables.DATA, tables.PREY, "The paper's curves are a picture, without numbers."]
    return points.text(asked, made, notes, tables.THEIRS, found, "value", {})
