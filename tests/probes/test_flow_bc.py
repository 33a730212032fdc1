"""Flow BC: a joint flow keeps the agents' agreement, separate flows keep each agent's modes alone."""

import numpy as np
import pytest
from alone import MODE, SPEC, bandit, jit, played, refused, trained
from judges import modes

from jaxomarl.algorithms import flow_bc, mean_flow

SMALL = dict(policy_batch=128, policy_width=24, policy_lr=1e-2, policy_steps=600)
LONGER = dict(policy_steps=2000, policy_width=32)  # a mean velocity takes more updates


def agreed(share=0.75, rows=400, spread=0.05):
    """Both agents play +MODE in this share of rows, both -MODE in the others; nobody is paid."""
    rng = np.random.default_rng(0)
    sign = np.where(rng.random((rows, 1, 1)) < share, 1.0, -1.0)
    return bandit(MODE * sign + spread * rng.standard_normal((rows, 2, 2)), np.zeros((rows, 2)))


def actions_of(module, **changed):
    cfg = module.Config(**{**SMALL, **changed})
    algorithm = module.policy(SPEC, cfg)
    run = jit(lambda data: played(algorithm, trained(algorithm, data, cfg.policy_steps), 400))
    return np.asarray(run(agreed())), algorithm


@pytest.fixture(scope="module")
def joint():
    return actions_of(flow_bc, model="joint")


@pytest.mark.parametrize(
    "module, near, more",
    [(flow_bc, 0.93, {}), pytest.param(mean_flow, 0.85, LONGER, marks=pytest.mark.long)],
)
def test_separate_models_keep_both_modes_in_their_shares(module, near, more):
    """Three of four actions near +MODE, by ten calls and by one; agents are not correlated."""
    actions, algorithm = actions_of(module, **more)
    good, bad = modes(actions[..., 0])
    assert np.all(np.abs(good - 0.75) < 0.13) and np.all(np.abs(bad - 0.25) < 0.13), (good, bad)
    assert np.all(good + bad > near), (good, bad)
    one, other = np.sign(actions[:, :, 0]).T
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.15
    assert np.all(actions[:, 1, 1] == 0) and np.abs(actions).max() <= 1
    assert not algorithm.centralised


def test_a_joint_flow_keeps_the_agreement(joint):
    actions, algorithm = joint
    one, other = np.sign(actions[:, :, 0]).T
    assert np.mean(one == other) > 0.95
    good, bad = modes(actions[..., 0])
    assert np.all(np.abs(good - 0.75) < 0.1) and np.all(good + bad > 0.9), (good, bad)
    assert np.all(actions[:, 1, 1] == 0) and algorithm.centralised


@pytest.mark.parametrize(
    "module, changed",
    [(flow_bc, {"model": "both"}), (flow_bc, {"levels": 0}), (mean_flow, {"policy_batch": 401})],
)
def test_bad_settings_are_refused(module, changed):
    refused(module.check, module.Config(**SMALL, chunk=100), changed)
