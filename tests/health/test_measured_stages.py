"""Every stage of the systems that plan, predict, or learn from generated windows is measured on what its gates name.

The figures are traced, and not computed: whatever the settings, they are numbers of one run.
"""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from walks import SPEC, walks

from jaxomarl.algorithms import REGISTRY, coda
from jaxomarl.base import Stage
from jaxomarl.data.stats import statistics

DISCRETE = dataclasses.replace(SPEC, discrete=True, act_dims=(2, 2))
SMALL = {"depth": 1, "horizon": 2, "history": 1}
STUDENT = {**SMALL, "sampler": "consistency", "calls": 1}
CASES = {
    "dof-t": [
        {**STUDENT, "code_width": 2},
        {**SMALL, "networks": "separate", "data_mixer": "concat", "returns": "none", "guidance": 1.0},
        {**SMALL, "target_kind": "quantile"},
    ],
    "madiff-d": [STUDENT],
    "decision-diffuser": [SMALL],
    "madt": [{}],
    "dof-p": [{}, {"critic": "own", "reward": "own"}],
    "ind-diffusion": [{}, {"critic": "joint", "reward": "team", "model": "joint"}],
    "td3-bc+coda": [{"augment_horizon": 2}],
    "diffusion-bc+eaq": [{"augment_horizon": 1}],
}  # fmt: skip
CONTINUOUS = [(name, changes) for name, all_changes in CASES.items() for changes in all_changes]
ONE_HOT = [("dof-t", {**SMALL, "code_width": 0}), ("madt", {})]


def system_of(name: str):
    base, _, kind = name.partition("+")
    return coda.augmentation(REGISTRY[base], base, kind) if kind else REGISTRY[base]


def check_measured(name, changes, spec, data):
    system = system_of(name)
    cfg = system.Config(**changes)
    data = system.prepare(spec, cfg, data)
    past = {"stats": statistics(data)}
    key = jax.random.key(0)
    stages: tuple[Stage, ...] = system.pipeline(spec, cfg, None)
    for stage in stages:
        state = jax.eval_shape(stage.algorithm.init, key, past, data)
        figures = jax.eval_shape(stage.health.measure, key, state, past, data)
        assert all(x.shape == () and x.dtype == jnp.float32 for x in figures.values()), figures
        for gate in stage.health.gates:
            assert {gate.figure, *filter(None, [gate.times])} <= figures.keys()
        known = {field.name for field in dataclasses.fields(cfg)}
        assert set(stage.health.raise_fields) <= known
        past[stage.name] = jax.eval_shape(stage.kept, state)


@pytest.mark.parametrize("name, changes", CONTINUOUS)
def test_continuous_actions(name, changes):
    check_measured(name, changes, SPEC, walks(20, 2))


@pytest.mark.parametrize("name, changes", ONE_HOT)
def test_one_hot_actions(name, changes):
    data = walks(20, 2)
    width = data.rows.shape[1] + DISCRETE.agents
    data = dataclasses.replace(
        data, rows=jnp.zeros((len(data.left), width)), layout=data.layout._replace(action=2)
    )
    check_measured(name, changes, DISCRETE, data)
