"""One-step systems keep their contract on half-cheetah, whose episodes are MuJoCo's."""

import checks
import pytest
from trial import Trial

from jaxomarl.algorithms import REGISTRY
from jaxomarl.envs.catalog import make

ONE_STEP = ("flow-bc", "mean-flow", "fql", "mac-flow", "om2p")


@pytest.mark.long
@pytest.mark.parametrize("name", ONE_STEP)
def test_on_half_cheetah(name):
    """Four runs train with evaluations: nothing is NaN, parameters move, and agents act apart."""
    trial = Trial(name, REGISTRY[name], make("mamujoco/2halfcheetah"))
    checks.finite(trial)
    checks.parameters_move(trial)
    checks.acts_on_what_it_declares(trial)
    evaluated = [p.evaluations["return"] for p in trial.base.progress if p.evaluations]
    assert evaluated and evaluated[-1].shape[0] == len(trial.cfgs)
