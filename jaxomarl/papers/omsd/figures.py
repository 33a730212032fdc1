"""OMSD's figures: directions on the bandit, decompositions, beta, orders of agents, data sets."""

import dataclasses
from collections.abc import Sequence

from jaxomarl.api import directions
from jaxomarl.base import JaxomarlError
from jaxomarl.data import card
from jaxomarl.data.catalog import load
from jaxomarl.data.raw import from_dataset
from jaxomarl.envs.catalog import make
from jaxomarl.papers import cells, points, shown
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.comparison import markdown_table
from jaxomarl.papers.omsd import table2
from jaxomarl.papers.shown import Content
from jaxomarl.results import canvas, card_text, cards, store, tables

BANDIT = "games/bandit"
DIRECTED = ("omsd", "brpo-ctde", "brpo-jal")
BETAS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""The values of the paper's section 4.3."""
HOPPER = "mamujoco/3hopper"
ORDERS = ("0-1-2", "0-2-1", "2-1-0")
ROBOTS = ("mamujoco/2halfcheetah", "mamujoco/3hopper", "mamujoco/2ant")
NOTES = (*table2.DIFFERENCES, "The paper's figure is a picture, without numbers.")

DECOMPOSED = Content(
    ("iql", "brpo-ind", "brpo-ctde", "omsd"), table2.TASKS, table2.DATA, NOTES, table2.THEIRS
)
WEIGHTED = Content(("omsd",), table2.TASKS, table2.DATA, NOTES, table2.THEIRS)
ORDERED = Content(
    ("omsd",),
    (HOPPER,),
    ("medium",),
    (
        "Data: ours are made by this package's own behaviours; the paper does not say which of "
        "its sets it takes.",
        "The paper's figure is a picture, without numbers.",
    ),
    table2.THEIRS,
)


def fig2(asked: Asked) -> str:
    """Figure 2: the data of the bandit, and the direction that each system follows."""
    asked.check_unused("omsd-fig2", "the figure is of the bandit.", ("tasks",))
    (quality,) = asked.data[:1] or ("",)
    cell, results = cells.train(asked, asked.systems or DIRECTED, BANDIT, quality)
    path = asked.out / "directions.png"
    try:
        note = points.scale_note(asked)
        drawn = directions.draw_directions(path, results.past, results.rows, note)
        if drawn is not None:
            canvas.save_copies(drawn, path)
    except JaxomarlError as error:
        asked.say(f"no picture {path.name}: {error}")
    notes = ("The directions are those of learned scores at t = 0.02, with policies over them.",)
    before = cells.preface(asked, [cell], notes, "the paper's figure has none.")
    return f"{before}\n{tables.markdown(cell.records)}"


def fig4a(asked: Asked) -> str:
    """Figure 4 (a): the pre-trained IQL, and policies by each decomposition of the score."""
    return shown.final_scores(asked, DECOMPOSED)


def fig8(asked: Asked) -> str:
    """Figures 4 (b) and 8: OMSD's return against beta."""
    return shown.swept_fields(asked, WEIGHTED, {"beta": BETAS})


def fig10(asked: Asked) -> str:
    """Figure 10: OMSD's returns in training, by the order in which agents move."""
    shown.refuse_swept(asked, ["order"])
    orders = dataclasses.replace(asked, overrides={**asked.overrides, "order": list(ORDERS)})
    return shown.training_curves(orders, ORDERED)


# --- data sets ---


def particle_data(asked: Asked) -> str:
    """Figures 11 and 12: violins and histograms of the particle tasks' returns."""
    return data_figure(asked, table2.TASKS, ("expert", "medium", "medium-replay", "random"))


def robot_data(asked: Asked) -> str:
    """Figure 13: violins and histograms of the robots' returns."""
    return data_figure(asked, ROBOTS, ("expert", "good", "medium", "medium-replay", "poor"))


def data_figure(asked: Asked, tasks: Sequence[str], qualities: Sequence[str]) -> str:
    """Draw the returns of data sets, and print their sizes and means."""
    unused = ("systems", "episodes", "overrides", "source", "final_episodes")
    asked.check_unused("a figure of data", "nothing is trained.", unused)
    described = []
    for name in asked.tasks or tasks:
        task = make(name)
        for quality in asked.data or [q for q in qualities if q in task.recipes]:
            asked.say(f"{task.name} {quality}")
            data, manifest = load(task, quality, asked.rows)
            raw = from_dataset(data, task.env.spec, manifest["quality"])
            described.append(card.describe(raw, f"{task.name}/{quality}", task))
    asked.draw(cards.picture, "returns.png", described)
    store.write_json(asked.out / "cards.json", {"cards": described})
    head = ("data set", "transitions", "episodes", "mean return", "standard deviation")
    rows = [_card_row(one) for one in described]
    note = "Data are this package's own; the paper's are OMAR's and OMIGA's files."
    return f"{note}\n\n{markdown_table(head, rows)}"


def _card_row(one: card_text.Card) -> tuple[str, ...]:
    score = one["return"]
    counts = one["counts"]
    sizes = (f"{counts['transitions']:,}", f"{counts['episodes']:,}")
    return one["name"], *sizes, f"{score['mean']:.1f}", f"{score['std']:.1f}"
