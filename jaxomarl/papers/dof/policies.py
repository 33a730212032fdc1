"""`reproduce dof-policies`: DoF-Policy with three factorisations, next to other policies.

These are Independent Diffusion, DOM2, OMSD and BC.
"""

import dataclasses

from jaxomarl.papers import cells, shown
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.omsd import table2
from jaxomarl.papers.shown import Content

SYSTEMS = ("bc", "dof-p", "ind-diffusion", "dom2", "omsd")
TASKS = ("mpe/spread",)
DATA = ("expert", "medium", "random")
MIXERS = ("concat", "wconcat", "atten")
DIFFERENCES = (
    table2.DIFFERENCES[0],
    "Published: normalised scores as OMSD's Table 2 prints them; it does not say which f its "
    "DoF-Policy has, and has none on half-cheetah.",
    "f: concat and wconcat act alone; atten sees the other agents at every step of the sampler, "
    "and acts centrally.",
)
THEIRS = "OMSD's 5."
CURVES = Content(
    systems=("dof-p", "icq", "td3-bc", "omar"),
    tasks=table2.TASKS,
    data=DATA,
    notes=(*table2.DIFFERENCES, "The paper's curves are a picture, without numbers."),
    theirs="not printed.",
)
BATTLES = Content(
    systems=("dof-t", "madiff-d", "bc"),
    tasks=("smax/3m", "smax/5m_vs_6m"),
    data=("scripted",),
    notes=(
        "Game: SMAX, whose rules and returns are not those of the paper's SMAC; data are those of "
        "scripts.",
        "The paper's curves are a picture, without numbers.",
    ),
    theirs="not printed.",
)


def dof_policies(asked: Asked) -> str:
    """Every system on each task and quality.

    `dof-p` is trained once for each of `MIXERS`, unless a mixer was asked for.
    """
    mixes = "dof-p" in (asked.systems or SYSTEMS)
    if mixes and "noise_mixer" not in asked.overrides:
        mixers = {"noise_mixer": list(MIXERS), "execution": ["central"]}
        asked = dataclasses.replace(asked, overrides={**asked.overrides, **mixers})
    default = (SYSTEMS, TASKS, DATA)
    printed = table2.published()
    return cells.comparison_table(asked, default, printed, "s.e.", DIFFERENCES, THEIRS)


def fig5(asked: Asked) -> str:
    """Figure 5 in kind: returns in training on battles of SMAX."""
    return shown.training_curves(asked, BATTLES)


def fig6(asked: Asked) -> str:
    """Figure 6: returns of DoF-Policy and other policies in training."""
    return shown.training_curves(asked, CURVES)
