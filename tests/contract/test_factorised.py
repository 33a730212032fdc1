"""DoF's factorisations and joint models are executed as they declare: the contract's check, untrained."""

import checks
import jax
import pytest
from trial import Outcome, Trial

from jaxomarl.algorithms import REGISTRY
from jaxomarl.config import config, static
from jaxomarl.diffusion.factorise import ALONE, DATA, NOISE

CHANGES = {
    **{f"f = {f}": ("dof-p", {"noise_mixer": f}, f not in ALONE) for f in NOISE},
    **{f"h = {h}": ("dof-p", {"data_mixer": h}, h not in ALONE) for h in DATA},
    "shared": ("dof-p", {"networks": "shared"}, False),
    "best of two": ("dof-p", {"critic": "own", "candidates": 2}, False),
    "pooled": ("ind-diffusion", {"model": "pooled"}, False),
    "joint": ("ind-diffusion", {"model": "joint"}, True),
    "joint flow": ("flow-bc", {"model": "joint"}, True),
    "joint mean flow": ("mean-flow", {"model": "joint"}, True),
}


def untrained(name: str, changed: dict) -> Trial:
    """The system with other defaults, its stage's state as `init` makes it."""
    system = REGISTRY[name]
    types = {field: type(value) for field, value in changed.items()}
    fields = {field: static(default=value) for field, value in changed.items()}
    other = config(type("Config", (system.Config,), {"__annotations__": types, **fields}))
    trial = Trial(name, system._replace(Config=other))
    (stage,) = trial.stages
    past = {"stats": trial.stats}
    state = jax.jit(stage.algorithm.init)(jax.random.key(0), past, trial.data)
    one_run = jax.tree.map(lambda x: x[None], {**past, stage.name: state})
    trial.base = Outcome(one_run, {}, {}, [], {})
    return trial


QUICK = ("f = atten", "h = qmix", "shared", "best of two", "joint", "joint flow")
"""tests/diffusion/test_factorise.py has every mixer; the package's policies of the others are long."""


@pytest.mark.parametrize(
    "change",
    [c if c in QUICK else pytest.param(c, marks=pytest.mark.long) for c in CHANGES],
)
def test_who_hears_whom_is_what_is_declared(change):
    name, changed, centralised = CHANGES[change]
    if (
        changed.get("noise_mixer", "concat") not in ALONE
        or changed.get("data_mixer", "concat") not in ALONE
    ):
        changed = {**changed, "execution": "central"}
    trial = untrained(name, changed)
    assert trial.stages[0].algorithm.centralised == centralised
    checks.acts_on_what_it_declares(trial)
