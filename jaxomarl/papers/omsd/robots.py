"""OMSD's Tables 3 and 4: robots, ours next to the published returns and normalised scores."""

from jaxomarl.papers import cells, comparison
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.comparison import Published

OF_OMIGA = ("mamujoco/6halfcheetah", "mamujoco/2ant", "mamujoco/3hopper")
"""Table 3's robots."""
OF_OMAR = ("mamujoco/2halfcheetah",)
"""Table 4's robot."""
BESIDE_OMIGA = ("bc", "iql", "icq", "omiga", "omsd")
BESIDE_CFCQL = ("bc", "iql", "icq", "cql", "td3-bc", "omar", "cfcql", "omsd")
IN_BOTH = ("medium", "medium-replay")
"""The qualities of Table 3 that every robot has here."""
QUALITIES = ("expert", "medium", "medium-replay", "random")
DATA = (
    "Data: ours are made by this package's own behaviours, of MATD3; the paper's are {}, with "
    "other returns: compare rows with one another and with their data's mean, not with the printed "
    "number."
)
ROBOT = "Robot: ours is Gymnasium's v5 on MuJoCo 3; the paper's is an older one on MuJoCo 2."
COPIED = "Baselines: the paper takes their scores from other papers, and ours are runs."
SETTINGS = "Settings: of each system's own paper, where it has any for the robot."
NOTES_3 = (DATA.format("OMIGA's files"), ROBOT, COPIED, SETTINGS)
NOTES_4 = (DATA.format("OMAR's files"), ROBOT, COPIED, SETTINGS)
THEIRS = "the paper's 5, with critic checkpoint and beta chosen by task."


def published(number: int) -> Published:
    """Table 3 (returns) or 4 (normalised scores): (task, data, system) -> mean, standard error."""
    return comparison.published_scores("omsd_robots", str(number))


def table3(asked: Asked) -> str:
    """Table 3: the robots of OMIGA's data.

    Without `--data` these are medium and medium-replay, which all three have here. Half-cheetah has
    expert and medium-expert data too.
    """
    default = (BESIDE_OMIGA, OF_OMIGA, IN_BOTH)
    return cells.comparison_table(
        asked, default, published(3), "s.e.", NOTES_3, THEIRS, normalised=False
    )


def table4(asked: Asked) -> str:
    """Table 4: half-cheetah in two halves, on the kinds of data of OMAR's files."""
    default = (BESIDE_CFCQL, OF_OMAR, QUALITIES)
    return cells.comparison_table(asked, default, published(4), "s.e.", NOTES_4, THEIRS)
