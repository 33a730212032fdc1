"""Planners on the particle tasks next to what is published of them, and what their settings do.

`dof-planners` trains the planners and MADT on each data set. An ablation is a sweep of a field of
`dof-t`, in kind of DoF's Tables 14 to 19 and its Figure 8, one command each
(`experiments.sweep --systems dof-t --tasks mpe/spread ..`):

    steps of the sampler     --cfg.calls 1 2 5 10 20
    kind of the sampler      --cfg.sampler ddpm ddim
    horizon                  --cfg.horizon 1 2 4 8 16
    history                  --cfg.history 0 1 2 4 8
    weight of guidance       --cfg.guidance 0 1 1.2 1.4 1.6 1.8
    return                   --cfg.target 0.3 0.6 0.9 1.2
    what is asked for later  --cfg.target-kind constant remaining quantile
    f                        --cfg.noise-mixer concat wconcat dec-atten
    networks                 --cfg.networks shared separate
    replanning               --cfg.replan 1 2 4
    DoF+VAE                  --cfg.code-width 0 4 8

Consistency takes a sampler and its calls at once: `--cfg.sampler consistency --cfg.calls 1`.

The field's name is printed in the row of each value. Guidance and target are swept within one
program.
"""

from jaxomarl.papers import cells, comparison
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.comparison import Published

SYSTEMS = ("dof-t", "madiff-d", "madiff-c", "decision-diffuser", "madt")
TASKS = ("mpe/spread",)
DATA = ("expert", "medium", "random")
DIFFERENCES = (
    "Data: ours are made by this package's own behaviours (four MATD3 seeds mixed in medium and in "
    "expert); MADiff's and DoF's are OMAR's files, MADiff's all five data seeds of a task at once.",
    "Published: normalised scores. MADiff-C's and -D's are those of MADiff's repository, which "
    "prints no spread; that of -D is as OMSD's Table 2 copies it. DoF-Trajectory's on these tasks "
    "are not legible; `dof-p` is DoF-Policy.",
    "Returns: the published scales count returns of OMAR's data; where `return_scale` is 0 ours "
    "counts from the least to the largest of the data.",
)
THEIRS = "the papers' 5, at saved steps."


def published() -> Published:
    """(task, data, system) -> mean and spread of the printed normalised score.

    The spread is NaN where none is printed.
    """
    return comparison.published_scores("planners")


def dof_planners(asked: Asked) -> str:
    """The planners and MADT on each data set, next to what is published."""
    default = (SYSTEMS, TASKS, DATA)
    table = cells.comparison_table(
        asked, default, published(), "spread", DIFFERENCES, THEIRS, alone=True
    )
    return table.replace(" ± nan", "")
