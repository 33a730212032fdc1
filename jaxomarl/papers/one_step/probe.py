"""`reproduce one-step`: diffusions, flows and their one-step kin, joint and apart, side by side.

Without `--tasks` it trains small models on games, whose exact values are known. With `--tasks` it
trains the systems there, such as mpe/spread with `--data expert medium`.
"""

from jaxomarl.papers import measured
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.one_step import games, systems
from jaxomarl.results.curves import curves


def one_step(asked: Asked) -> str:
    """The games with their figure, or the systems on tasks."""
    if asked.tasks:
        return systems.trained(asked)
    because = "it trains on its own games unless --tasks names others."
    fields = ("systems", "data", "episodes", "rows", "overrides", "source", "final_episodes")
    asked.check_unused("one-step", because, fields)
    parts = [games.with_value(asked), games.agreements(asked), games.landmarks(asked)]
    measures = [measure for part in parts for measure in part.measures]
    measured.save_measures(asked.out, measures)
    found, named = games.points(measures)
    asked.draw(curves, "one-step.png", found, "", "", named, ordered=True, columns=2)
    preface = (
        f"One-step policies on games, seeds {asked.seeds}, {asked.updates(games.UPDATES)} updates "
        'of each small model; ± is the standard error over seeds. "law" rows are exact values, '
        "without training. A model's number is that of its calls in a decision."
    )
    texts = [part.text for part in parts]
    return "\n\n".join([preface, "![](one-step.png)", *texts, systems.speed_table(asked)]) + "\n"
