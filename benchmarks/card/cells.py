"""The cells of the card's queue, in order of claims per device second.

The order was planned and is not computed: most seconds are estimates until a card has run a cell.
`--list` shows the claims and the seconds of each. A cell is a command that stands on its own, and
the queue trains nothing else. Flags of the full size and of a trial are apart, because a trial must
not have the paper's steps.
"""

import shlex
from typing import NamedTuple

HALF = "bfloat16"


class Work(NamedTuple):
    """Updates of one stage, for all seeds of a cell at once."""

    system: str
    stage: str
    updates: float
    guess: float
    """Seconds per update where docs/speed/card.md has no such row."""


class Cell(NamedTuple):
    """A command of the queue."""

    name: str
    run: str
    """The command after `python -m`, at any size."""
    full: str
    """Flags of the paper's size."""
    toy: str
    """Flags of a trial on a CPU."""
    seeds: int = 0
    """Seeds at full size; 0 where nothing is trained."""
    work: tuple[Work, ...] = ()
    """The updates, from which the expected seconds follow."""
    besides: float = 0.0
    """Estimated seconds of all that is no update: compilation, data, evaluations."""
    claims: tuple[str, ...] = ()
    """Claims of docs/verdicts.md that the cell bears on."""
    needs: tuple[str, ...] = ()
    """Cells that have to be done first."""
    half: bool = False
    """Train in bfloat16, once it has passed its accuracy test."""
    continues: bool = True
    """Whether the command continues where it was stopped; else it starts again."""
    folder: str = ""
    """Its folder below OUT/cells, which cells may share; empty: its name."""

    def words(self, out: str, toy: bool, half: bool) -> list[str]:
        """The command's words after `python -m`, writing below the folder `out`."""
        flags = self.toy if toy else self.full
        words = [*shlex.split(self.run), *shlex.split(flags)]
        if half and self.half:
            words += ["--precision", HALF]
        return [*words, "--out", f"{out}/{self.folder or self.name}"]


ACCURACY = ("accuracy-default", "accuracy-bfloat16")
"""The default bandit in the device's own precision, and in bfloat16."""
TINY = "--seeds 1 --scale 0.0001 --rows 2000 --episodes 2 --final-episodes 2"
ROBOT_TINY = "--seeds 1 --scale 0.0001 --rows 2000 --episodes 1 --final-episodes 1"
PARTICLE = "--episodes 100 --final-episodes 1024"
SPREAD = "experiments.reproduce omsd-table2 --systems omsd brpo-ctde bc --tasks mpe/spread"
TAG = "experiments.reproduce dom2-table4 --systems dom2 omar td3-bc"
DOF = "experiments.reproduce dof-policies --systems dof-p ind-diffusion bc"
MIXER = "--cfg.noise-mixer concat --cfg.model separate"
PLANS = "experiments.reproduce dof-planners --tasks mpe/spread --data expert"
CHEETAH = "experiments.reproduce coda-table1 --tasks mamujoco/2halfcheetah"
DISCRETE = "experiments.sweep --resume --tasks smax/3m --data medium"
BENCH = "benchmarks --card --resume --parts"

OMSD_WORK = (
    Work("omsd", "critic", 500_000, 0.6e-3),
    Work("omsd", "scores-conditional", 100_000, 7e-3),
    Work("omsd", "policy", 100_000, 4e-3),
    Work("brpo-ctde", "scores-marginal", 100_000, 4.2e-3),
    Work("brpo-ctde", "policy", 100_000, 2.3e-3),
    Work("bc", "policy", 100_000, 0.3e-3),
)
DOM2_WORK = (
    Work("dom2", "policy", 10_000, 80e-3),
    Work("omar", "policy", 2000, 3e-3),
    Work("td3-bc", "policy", 2000, 1e-3),
)
DOF_WORK = (
    Work("dof-p", "policy", 200_000, 12e-3),
    Work("ind-diffusion", "policy", 200_000, 12e-3),
    Work("bc", "policy", 100_000, 0.2e-3),
)
PLANNER_WORK = (Work("dof-t", "planner", 100_000, 25e-3),)
OTHER_PLANNERS_WORK = (
    Work("madiff-d", "planner", 100_000, 30e-3),
    Work("madiff-c", "planner", 100_000, 30e-3),
    Work("madt", "policy", 100_000, 5e-3),
)
CODA_WORK = (
    Work("maddpg-bc+coda", "generator", 10_000, 15e-3),
    Work("maddpg-bc", "policy", 500_000, 1.5e-3),
    Work("maddpg-bc+synther", "policy", 500_000, 2e-3),
    Work("maddpg-bc+coda", "policy", 500_000, 2.5e-3),
)
GENERATOR_WORK = (Work("maddpg-bc+coda", "generator", 10_000, 30e-3),)
DISCRETE_WORK = (Work("omsd", "scores-conditional", 20_000, 3e-3),)


def spread(quality: str, *claims: str) -> Cell:
    """OMSD, its marginal ablation and behaviour cloning on spread, at the paper's widths."""
    # by edm, scores learn large diffusion times too (docs/omsd.md)
    full = f"--seeds 16 --cfg.score-steps 100000 --cfg.score-predict edm {PARTICLE}"
    return Cell(
        name=f"omsd-spread-{quality}",
        run=f"{SPREAD} --data {quality}",
        full=full,
        toy=TINY,
        seeds=16,
        work=OMSD_WORK,
        besides=240.0,
        claims=claims,
        needs=ACCURACY,
        half=True,
    )


def tag(quality: str) -> Cell:
    """DOM2 and two baselines on Predator-Prey."""
    return Cell(
        name=f"dom2-tag-{quality}",
        run=f"{TAG} --data {quality}",
        full=f"--seeds 16 {PARTICLE}",
        toy=TINY,
        seeds=16,
        work=DOM2_WORK,
        besides=300.0,
        claims=("DOM2-6",),
    )


def factorised(quality: str) -> Cell:
    """DoF-Policy next to independent diffusion on spread."""
    return Cell(
        name=f"dof-p-spread-{quality}",
        run=f"{DOF} --tasks mpe/spread --data {quality} {MIXER}",
        full=f"--seeds 8 {PARTICLE}",
        toy=TINY,
        seeds=8,
        work=DOF_WORK,
        besides=240.0,
        claims=("DOF-3",),
    )


def augmented(name: str, data: str, *claims: str) -> Cell:
    """CODA's Table 1 on half-cheetah."""
    sets = len(data.split())
    return Cell(
        name=f"coda-table1-{name}",
        run=f"{CHEETAH} --data {data}",
        full="--seeds 8 --final-episodes 128",
        toy=ROBOT_TINY,
        seeds=8,
        work=sets * CODA_WORK,
        besides=sets * 1200.0,
        claims=claims,
    )


def rows(part: str, besides: float, continues: bool = True) -> Cell:
    """Rows that docs/speed/card.md lacks."""
    return Cell(
        name=f"rows-{part}",
        run=f"{BENCH} {part}",
        full="",
        toy="--toy",
        besides=besides,
        continues=continues,
        folder="rows",
    )


def bandit(name: str, flags: str) -> Cell:
    """The default bandit, whose scores two precisions must share."""
    return Cell(
        name=name,
        run=f"experiments.sweep --resume --systems omsd {flags}".strip(),
        full="--seeds 16",
        toy="--seeds 2 --scale 0.001 --rows 256 --episodes 2 --final-episodes 8",
        seeds=16,
        besides=90.0,
    )


CELLS = (
    bandit(ACCURACY[0], ""),
    bandit(ACCURACY[1], f"--precision {HALF}"),
    spread("expert", "OMSD-4"),
    spread("medium", "OMSD-4", "OMSD-5"),
    tag("medium-replay"),
    tag("medium"),
    factorised("expert"),
    factorised("medium"),
    Cell(
        name="dof-t-spread",
        run=f"{PLANS} --systems dof-t",
        full="--seeds 8 --final-episodes 1024",
        toy=TINY,
        seeds=8,
        work=PLANNER_WORK,
        besides=600.0,
        claims=("DOF-6",),
        folder="planners",
    ),
    Cell(
        name="coda-generator",
        run="experiments.reproduce coda-steering --cfg.generator-normaliser z-score",
        full="--seeds 8 --rows 100000 --cfg.generator-width 128",
        toy="--seeds 1 --scale 0.0001 --rows 2000",
        seeds=8,
        work=GENERATOR_WORK,
        besides=300.0,
        claims=("CODA-4",),
    ),
    augmented("replay", "replay", "CODA-5"),
    augmented("good", "good", "CODA-6"),
    augmented("medium-poor", "medium poor", "CODA-7"),
    Cell(
        name="planners-spread",
        run=f"{PLANS} --systems dof-t madiff-d madiff-c madt",
        full="--seeds 8 --final-episodes 1024",
        toy=TINY,
        seeds=8,
        work=OTHER_PLANNERS_WORK,
        besides=1200.0,
        claims=("DOF-6",),
        # the planner that is trained already is not trained again
        needs=("dof-t-spread",),
        folder="planners",
    ),
    Cell(
        name="discrete-3m",
        run=f"{DISCRETE} --systems omsd iql icq omiga cql qmix bc",
        full="--seeds 8 --final-episodes 256",
        toy=TINY,
        seeds=8,
        work=DISCRETE_WORK,
        besides=900.0,
    ),
    rows("agents-dom2", 400.0),
    rows("agents-dof", 300.0),
    rows("planners", 420.0, continues=False),
    rows("systems", 5000.0),
)
"""What `make card` runs, in this order."""
