"""`reproduce dof-policies`: DoF-Policy with three factorisations, next to other policies.

These are Independent Diffusion, DOM2, OMSD and BC.
"""

import dataclasses

from jaxomarl.papers import cells
from jaxomarl.papers.asked import Asked
from jaxomarl.papers.omsd import table2

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


def dof_policies(asked: Asked) -> str:
    """Every system on each task and quality.

    `dof-p` is trained once for each of `MIXERS`, unless a mixer was asked for.
    """
    if "noise_mixer" not in asked.overrides:
        mixers = {"noise_mixer": list(MIXERS), "execution": ["central"]}
        asked = dataclasses.replace(asked, overrides={**asked.overrides, **mixers})
    default = (SYSTEMS, TASKS, DATA)
    printed = table2.published()
    return cells.comparison_table(asked, default, printed, "s.e.", DIFFERENCES, THEIRS)
