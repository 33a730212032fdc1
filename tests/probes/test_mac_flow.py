"""MAC-Flow: one agent's is FQL, its team value is a mean, and whose noise a student sees."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from alone import ONE_STEP, SPEC, batch_of, far, filled, jit, refused, two_modes
from starts import numpy_start

from jaxomarl.algorithms import fql, mac_flow
from jaxomarl.base import Batch, Spec
from jaxomarl.data.stats import identity
from jaxomarl.networks.critics import twin
from jaxomarl.networks.mlp import mish
from jaxomarl.optim import Net
from jaxomarl.policies import flows as policies
from jaxomarl.stages import flow
from jaxomarl.stages.clone import Policies

SMALL = dict(**ONE_STEP, flow_width=8, levels=2, policy_batch=16, flow_batch=16)
ONE = Spec((2,), (2,), state_dim=1, horizon=1)


def flow_of(spec, teacher):
    net = policies.team_velocity(spec, 8, flow.TEACHERS[teacher])
    past = {"stats": identity(spec)}
    cfg = mac_flow.Config(**SMALL)
    learner = flow.behaviour_learner(spec, cfg, net, 0.1, 16, policies.flow_loss)
    return numpy_start(learner.init, past, two_modes(2), seed=4)


def alone_in(batch):
    """The first agent's share of a batch."""
    own = {
        name: getattr(batch, name)[:, :1]
        for name in Batch._fields
        if getattr(batch, name).ndim > 1 and "state" not in name
    }
    return batch._replace(**own, team_reward=batch.reward[:, 0])


# --- one agent ---


@pytest.mark.parametrize("teacher", ["own", pytest.param("joint", marks=pytest.mark.long)])
def test_for_one_agent_it_is_fql(teacher):
    """The same weights, times and noise give the same losses and the same networks after a step."""
    past = {"stats": identity(ONE)}
    own = flow_of(ONE, "own")
    without_agents = jax.tree.map(lambda x: x[0], own.actor.params)
    joint = Policies(Net(without_agents, (), ()))
    taught = own if teacher == "own" else joint
    cfg = mac_flow.Config(**SMALL, teacher=teacher)
    apart = fql.policy(ONE, fql.Config(**SMALL))
    team = mac_flow.policy(ONE, cfg)
    start = numpy_start(apart.init, {**past, "flow-own": own}, two_modes(2))
    like = numpy_start(team.init, past, two_modes(2))
    same = lambda net, of: net._replace(params=of.params, target=of.target)
    state = like._replace(
        actor=same(like.actor, start.actor), critic=same(like.critic, start.critic)
    )
    batch, key = alone_in(batch_of()), jax.random.key(1)

    @jit
    def both(start, state):
        one = apart.update(key, start, {**past, "flow-own": own}, batch)
        (own_key,) = jax.random.split(key, 1)  # FQL splits a key for each agent
        return one, team.update(own_key, state, {**past, f"flow-{teacher}": taught}, batch)

    (one, metrics), (whole, team_metrics) = both(start, state)
    for name in ("q_loss", "distillation_loss", "policy_loss", "q_played"):
        np.testing.assert_allclose(team_metrics[name], metrics[name], rtol=2e-4, err_msg=name)
    for net, of in ((whole.actor, one.actor), (whole.critic, one.critic)):
        assert far(net.params, of.params) < 1e-4


# --- the team's value ---


def test_a_shift_between_the_agents_values_is_free():
    """Q_1 + c and Q_2 - c have the same mean: losses and gradients do not change."""
    cfg = mac_flow.Config(**SMALL)
    networks = mac_flow.team(SPEC, cfg)
    params = filled(mac_flow.policy(SPEC, cfg)).critic.params
    batch = batch_of()
    rows = (batch.obs, batch.state)
    shift = jnp.array([0.7, -0.7]).reshape(2, 1, 1)
    out = {**params["out"], "bias": params["out"]["bias"] + shift}
    value = jit(networks.value)
    q = value(params, rows, batch.action)
    np.testing.assert_allclose(value({**params, "out": out}, rows, batch.action), q, atol=1e-5)
    # (1 / n) of agent i's own value, and blind to what the others do
    of_own = jit(jax.grad(lambda a: networks.value(params, rows, a)[0].sum()))
    slope = of_own(batch.action)
    first = jax.tree.map(lambda x: x[0], params)
    alone = twin(SPEC.obs_width, SPEC.act_width, (cfg.critic_width,) * 2, activation=mish)
    of_first = jit(jax.grad(lambda a: alone.apply(first, batch.obs[:, 0], a)[0].sum()))
    np.testing.assert_allclose(slope[:, 0], of_first(batch.action[:, 0]) / 2, atol=1e-6)
    other = batch.action.at[:, 1].set(0.3)
    again = of_own(other)
    np.testing.assert_allclose(slope[:, 0], again[:, 0], atol=1e-6)
    joint = mac_flow.team(SPEC, dataclasses.replace(cfg, critic="joint"))
    of_joint = filled(mac_flow.policy(SPEC, dataclasses.replace(cfg, critic="joint"))).critic.params
    pull = jit(jax.grad(lambda a: joint.value(of_joint, rows, a)[0].sum()))
    assert np.abs(pull(batch.action) - pull(other))[:, 0].max() > 1e-3


# --- what students see ---


@pytest.mark.parametrize("noise", ["own", "shared"])
def test_a_student_sees_its_own_noise_or_the_teams(noise):
    cfg = mac_flow.Config(**SMALL, noise=noise)
    params = filled(mac_flow.policy(SPEC, cfg)).actor.params
    raw = mac_flow.team(SPEC, cfg).raw
    z = jax.random.normal(jax.random.key(0), (2, 2)) * SPEC.act_mask
    seen = jnp.asarray(SPEC.obs_mask)
    first = raw(params, z, seen)
    moved = raw(params, z.at[1, 0].add(1.0), seen)
    assert (np.abs(moved - first).max(axis=1) > 1e-4).tolist() == [noise == "shared", True]


@pytest.mark.parametrize(
    "changed", [{"teacher": "none"}, {"noise": "no"}, {"critic": "sum"}, {"reward": "own"}]
)
def test_bad_settings_are_refused(changed):
    refused(mac_flow.check, mac_flow.Config(**SMALL), changed)
