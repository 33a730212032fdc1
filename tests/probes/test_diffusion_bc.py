"""Diffusion BC: both modes of the data in their shares, where a regression plays their mean."""

import dataclasses

import numpy as np
import pytest
from alone import MODE, SPEC, bandit, jit, played, trained
from judges import modes

from jaxomarl.algorithms import bc, diffusion_bc
from jaxomarl.base import JaxomarlError

CFG = diffusion_bc.Config(
    policy_batch=128, policy_width=32, policy_lr=1e-2, policy_steps=1000, levels=30
)


def uneven(share=0.75, rows=400, spread=0.05):
    """Each agent plays +MODE in this share of rows, -MODE in the others, apart from its team-mate; nobody is paid."""
    rng = np.random.default_rng(0)
    sign = np.where(rng.random((rows, 2, 1)) < share, 1.0, -1.0)
    return bandit(MODE * sign + spread * rng.standard_normal((rows, 2, 2)), np.zeros((rows, 2)))


@pytest.fixture(scope="module")
def actions():
    algorithm = diffusion_bc.policy(SPEC, CFG)
    return np.asarray(
        jit(lambda data: played(algorithm, trained(algorithm, data, CFG.policy_steps), 400))(
            uneven()
        )
    )


def test_both_modes_are_kept_in_their_shares(actions):
    """Three of four draws near +MODE, one near -MODE, and next to nothing between them."""
    good, bad = modes(actions[..., 0])
    assert np.all(np.abs(good - 0.75) < 0.12) and np.all(np.abs(bad - 0.25) < 0.12), (good, bad)
    assert np.all(good + bad > 0.93), (good, bad)


def test_agents_draw_apart_and_padded_columns_stay_zero(actions):
    """The agents' modes are not correlated, though both draw from one key."""
    one, other = np.sign(actions[:, :, 0]).T
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.15
    assert np.all(actions[:, 1, 1] == 0) and np.abs(actions).max() <= 1


@pytest.mark.long
def test_a_regression_plays_what_nobody_does():
    cfg = bc.Config(policy_batch=64, policy_width=16, policy_lr=1e-2, policy_steps=300)
    algorithm = bc.policy(SPEC, cfg)
    drawn = np.asarray(
        jit(lambda data: played(algorithm, trained(algorithm, data, 300), 2))(uneven(0.5))
    )
    assert np.abs(drawn[..., 0]).max() < 0.2, drawn


def test_it_refuses_discrete_actions():
    with pytest.raises(JaxomarlError, match="continuous actions"):
        diffusion_bc.check(dataclasses.replace(SPEC, discrete=True), CFG, None)
