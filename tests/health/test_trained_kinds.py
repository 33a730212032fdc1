"""A stage that is trained learns, and one at a rate of nothing is short: one compiled program for each kind of stage.

Plans, next actions and generated windows compile longest, and are long; their gates meet models by hand in every
session.
"""

import dataclasses

import numpy as np
import pytest
from walks import GAMMA, trained, words

from jaxomarl.algorithms import coda, dof, dof_trajectory, madt
from jaxomarl.algorithms.bc import BC
from jaxomarl.health.verdict import LEARNED, SHORT

NOTHING = 1e-9
PLANS = {
    "horizon": 1, "history": 0, "levels": 20, "calls": 2, "predict": "clean", "depth": 1, "blocks": 1, "reach": 1,
    "normaliser": "limits", "policy_width": 16, "inverse_width": 32, "policy_batch": 64, "policy_lr": 1e-2,
    "polyak": 0.1, "target": 0.5,
}  # fmt: skip


@pytest.mark.long
def test_plans_and_inverse_dynamics():
    small = PLANS | {"policy_batch": 32}
    cfg = dof_trajectory.Config(**small, policy_steps=120, chunk=120)
    untrained = dataclasses.replace(cfg, policy_lr=NOTHING)
    stages = trained(dof_trajectory.DOF_T, cfg, untrained, dataclasses.replace(cfg, target=2.0))
    assert words(stages, "planner") == [LEARNED, SHORT, SHORT]

    _, by_training, by_asking = stages["planner"][0]
    assert "policy_steps" in by_training["raise"] and len(by_training["failed"]) == 2
    assert "lower --cfg.target" in by_asking["failed"][0] and not by_asking["raise"]


def test_codes():
    cfg = dof_trajectory.Config(**PLANS, code_width=1, code_kl=1e-4, code_steps=300, chunk=300)
    codes = dof_trajectory.DOF_T._replace(
        pipeline=lambda *given: dof_trajectory.pipeline(*given)[:1]
    )
    stages = trained(codes, cfg, dataclasses.replace(cfg, code_lr=NOTHING))
    assert words(stages, "codes") == [LEARNED, SHORT]


@pytest.mark.long
def test_next_actions():
    cfg = madt.Config(
        context=3, layers=1, heads=2, policy_width=16, policy_batch=32, policy_lr=1e-2, clip=10.0,
        policy_steps=200, chunk=200,
    )  # fmt: skip
    stages = trained(madt.MADT, cfg, dataclasses.replace(cfg, policy_lr=NOTHING))
    assert words(stages, "policy") == [LEARNED, SHORT]


def test_critics_of_a_team():
    system = dof.system(dof.DOF_P)
    cfg = system.Config(
        policy_width=8, critic_width=16, policy_batch=64, policy_lr=1e-2, critic_lr=1e-2, levels=2, gamma=GAMMA,
        policy_steps=150, chunk=150, polyak=0.1,
    )  # fmt: skip
    stages = trained(system, cfg, dataclasses.replace(cfg, critic_lr=NOTHING))
    assert words(stages, "policy") == [LEARNED, SHORT]


@pytest.mark.long
def test_windows_of_a_generator_and_the_base_that_learns_from_them():
    system = coda.augmentation(BC, "bc", "synther")
    cfg = system.Config(
        policy_width=16, policy_batch=64, policy_steps=150, policy_lr=1e-2, chunk=150, every=1, augment_order=1,
        generator_width=32, generator_batch=64, generator_steps=300, generator_lr=1e-2, augment_horizon=1,
        generator_normaliser="z-score", augment_windows=64, augment_microbatch=64, augment_levels=8,
    )  # fmt: skip
    untrained = dataclasses.replace(cfg, policy_lr=NOTHING, generator_lr=NOTHING)
    stages = trained(system, cfg, untrained)
    assert words(stages, "generator") == [LEARNED, SHORT]
    assert words(stages, "policy") == [LEARNED, SHORT]

    # its windows are drawn at the end alone
    for values in stages["generator"][1].values():
        assert np.isnan(values[:, :-1]).all() and np.isfinite(values[:, -1]).all()
