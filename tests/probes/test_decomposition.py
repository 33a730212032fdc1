"""Value decomposition: what a monotonic mixer can say, legal targets, and the conservative terms in closed form."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from alone import jit

from jaxomarl.algorithms import cfcql, cql, mabcq, macql, qmix
from jaxomarl.base import Batch, JaxomarlError, Observation, Spec
from jaxomarl.data.catalog import load
from jaxomarl.envs import catalog, matrix
from jaxomarl.losses.categorical import log_policy, soft_maximum
from jaxomarl.losses.conservative_choices import counterfactual_gap, joint_gap, own_gap
from jaxomarl.networks.mixers import monotonic_mixer
from jaxomarl.stages import decomposition

DATA = load(catalog.make("games/climbing"), rows=4)[0]


def spec_of(table):
    return Spec((1,) * table.ndim, table.shape, 1, 1, discrete=True)


def cells(table, probability=None):
    """A batch of every joint action, or as many rows as its probability says of 36."""
    spec = spec_of(table)
    index = np.array([*np.ndindex(*table.shape)])
    if probability is not None:
        index = index.repeat(np.rint(36 * probability.reshape(-1)).astype(int), axis=0)
    size, n, width = len(index), spec.agents, spec.act_width
    action = np.eye(width, dtype=np.float32)[index]
    reward = table[tuple(index.T)].astype(np.float32)
    ones = jnp.ones((size, n, width))
    return spec, Batch(
        obs=jnp.ones((size, n, 1)), state=jnp.ones((size, 1)), action=jnp.asarray(action),
        reward=jnp.asarray(reward[:, None].repeat(n, axis=1)), team_reward=jnp.asarray(reward),
        next_obs=jnp.ones((size, n, 1)), next_state=jnp.ones((size, 1)), next_action=0 * ones,
        done=jnp.ones(size), last=jnp.ones(size), known=jnp.ones(size), alive=jnp.ones((size, n)),
        available=ones * spec.act_mask, next_available=ones * spec.act_mask,
    )  # fmt: skip


def fitted(system, cfg, table, probability=None, steps=1500):
    """The table that a system's value has after `steps` full batches, and what it plays."""
    spec, batch = cells(table, probability)
    _, every = cells(table)
    total, played = trained(system, spec, steps, cfg, batch, every)
    return np.asarray(total).reshape(*table.shape, -1)[..., 0], np.asarray(played).argmax(axis=-1)


@partial(jit, static_argnums=(0, 1, 2))
def trained(system, spec, steps, cfg, batch, every):
    """The team's value of the rows of `every`, and what is played, after `steps` updates on `batch`."""
    algorithm, key = system.policy(spec, cfg), jax.random.key(0)

    def step(state, k):
        return algorithm.update(k, state, {}, batch)[0], None

    state, _ = jax.lax.scan(step, algorithm.init(key, {}, DATA), jax.random.split(key, steps))
    seen = Observation(jnp.ones((spec.agents, 1)), jnp.ones(spec.act_mask.shape, bool))
    played = algorithm.act(key, state, {}, (), seen)[0]
    params, nets = state.critic.params, networks(system, spec, cfg)
    utilities = nets.utilities.apply(params.q, every.obs)
    return nets.total(params, every.state, (utilities * every.action).sum(axis=-1)), played


def networks(system, spec, cfg):
    if hasattr(system, "networks"):
        return system.networks(spec, cfg)
    return decomposition.team_networks(spec, cfg.critic_width, "qmix" if system is cfcql else "")


SMALL = dict(normalise=False, policy_width=16, policy_lr=0.01, polyak=1.0, share=False)


def test_a_sum_has_the_best_additive_fit():
    """VDN on uniform climbing: RMSE 7.111, and both agents leave the peak; on an additive payoff it is exact."""
    vdn = qmix.Config(**SMALL, mixer="vdn")
    table, played = fitted(qmix, vdn, matrix.CLIMBING)
    np.testing.assert_allclose(table, matrix.best_additive(matrix.CLIMBING), atol=0.1)
    assert np.sqrt(((table - matrix.CLIMBING) ** 2).mean()) == pytest.approx(7.111, abs=0.01)
    assert matrix.CLIMBING[tuple(played)] == 0
    table, played = fitted(qmix, vdn, matrix.ADDITIVE)
    np.testing.assert_allclose(table, matrix.ADDITIVE, atol=0.05)
    assert tuple(played) == (1, 1)


def test_a_monotonic_mixer_cannot_have_xor():
    """AB and BA are never both above AA and BB; the loss stays."""
    table, _ = fitted(qmix, qmix.Config(**SMALL), matrix.XOR)
    assert not min(table[0, 1], table[1, 0]) > max(table[0, 0], table[1, 1]) + 1e-3
    assert ((table - matrix.XOR) ** 2).mean() > 0.05


def test_the_mixer_grows_in_every_value():
    net = monotonic_mixer(state=3, agents=4, width=8, hyper=16)

    @jit
    def slopes():
        params = net.init(jax.random.key(0))
        state = jax.random.normal(jax.random.key(1), (50, 3))
        value = 3.0 * jax.random.normal(jax.random.key(2), (50, 4))
        return jax.vmap(jax.grad(lambda v, s: net.apply(params, s, v)))(value, state)

    slope = np.asarray(slopes())
    assert (slope >= 0).all() and (slope.mean(axis=0) > 0).all()


def test_conservatism_lowers_what_the_data_never_did():
    """The distance of the data's values from the log sum of exp over all cells falls as the penalty grows."""
    seen = matrix.listed_cells(matrix.ADDITIVE, [(0, 0), (0, 1), (1, 0), (1, 1)])
    gaps = []
    for penalty in (0.0, 0.3, 3.0):
        cfg = macql.Config(**SMALL, penalty=penalty, samples=16)
        table, played = fitted(macql, cfg, matrix.ADDITIVE, seen, steps=300)
        gaps.append(np.log(np.exp(table).sum()) - table[seen > 0].mean())
    assert gaps[0] > gaps[1] > gaps[2]
    assert tuple(played) == (1, 1)


def test_terms_are_in_closed_form():
    """Own, counterfactual and joint terms against sums over all legal actions, written apart."""
    rng = np.random.default_rng(0)
    q = jnp.asarray(rng.normal(size=(5, 3, 4)), jnp.float32)
    legal = jnp.asarray(rng.integers(0, 2, (5, 3, 4)), jnp.float32).at[..., 0].set(1.0)
    chosen = q[..., 0]
    weights = jnp.array([0.5, 2.0, 1.0])
    total = lambda own: (own * weights).sum(axis=-1)
    inside = np.where(legal > 0, np.exp(q), 0.0).sum(axis=-1)
    own = jit(own_gap)
    np.testing.assert_allclose(own(q, chosen, legal), np.log(inside) - chosen, rtol=1e-4, atol=1e-5)

    # a sum: the others' utilities cancel, and N separate terms are left
    found = jit(partial(counterfactual_gap, total))(q, chosen, legal)
    scaled = np.where(legal > 0, np.exp(q * weights[:, None]), 0.0).sum(axis=-1)
    np.testing.assert_allclose(found, np.log(scaled) - chosen * weights, rtol=1e-4, atol=1e-4)
    # one agent: CQL's term
    only_one = jit(partial(counterfactual_gap, lambda own: own[..., 0]))
    alone = only_one(q[:, :1], chosen[:, :1], legal[:, :1])
    np.testing.assert_allclose(alone, own(q[:, :1], chosen[:, :1], legal[:, :1]), atol=1e-6)

    # where one joint action is legal, all draws are it
    only = jnp.zeros_like(legal).at[..., 0].set(1.0)
    drawn = jit(
        lambda key, q, chosen, legal, draws: joint_gap(key, total, q, chosen, legal, draws),
        static_argnums=4,
    )
    gap = drawn(jax.random.key(0), q, chosen, only, 20)
    np.testing.assert_allclose(gap, np.log(21.0), rtol=1e-5)
    # and of many draws the mean of exp is that over the legal joint actions
    one_row = lambda x: jnp.broadcast_to(x[:1], x.shape)
    many = drawn(jax.random.key(1), one_row(q), one_row(chosen), one_row(legal), 20_000)
    mean = np.prod(scaled[0] / np.asarray(legal[0]).sum(axis=-1))
    expected = np.log(20_000 * mean + np.exp(total(chosen[0]))) - total(chosen[0])
    np.testing.assert_allclose(many, expected, atol=0.05)


def test_targets_are_over_legal_actions():
    """An illegal successor action of huge value changes neither y nor what is played; of what is legal it takes the best."""
    spec, batch = cells(matrix.ADDITIVE)
    batch = batch._replace(done=0 * batch.done, last=0 * batch.last)
    cfg = qmix.Config(**SMALL, mixer="vdn")
    algorithm = qmix.policy(spec, cfg)
    state = jit(algorithm.init)(jax.random.key(0), {}, DATA)
    update, act = jit(algorithm.update), jit(algorithm.act)
    huge = jax.tree.map(lambda x: x, state.critic.params)
    huge.q["out"]["bias"] = huge.q["out"]["bias"].at[:, 2].add(1e6)
    loss_of = lambda params, legal: float(
        update(
            jax.random.key(0),
            decomposition.Decomposed(state.critic._replace(params=params, target=params)),
            {},
            batch._replace(next_available=legal, action=batch.action.at[..., 2].set(0.0)),
        )[1]["q_loss"]
    )
    legal = batch.next_available.at[..., 2].set(0.0)
    assert loss_of(huge, legal) == pytest.approx(loss_of(state.critic.params, legal), rel=1e-5)
    assert loss_of(huge, batch.next_available) > 1e6
    seen = Observation(jnp.ones((2, 1)), jnp.array([[True, True, False]] * 2))
    held = decomposition.Decomposed(state.critic._replace(params=huge))
    assert not act(jax.random.key(0), held, {}, (), seen)[0][:, 2].any()


def test_mabcq_never_plays_a_rare_action():
    """Probabilities .6, .3, .1: at .4 the third is never chosen; at 1 the likeliest alone, at 0 all that is legal."""
    logits, legal = jnp.log(jnp.array([0.6, 0.3, 0.1])), jnp.ones(3)
    for threshold, kept in {0.0: [1, 1, 1], 0.4: [1, 1, 0], 1.0: [1, 0, 0]}.items():
        np.testing.assert_array_equal(mabcq.likely(logits, legal, threshold), kept)
    first_illegal = jnp.array([0.0, 1.0, 1.0])
    np.testing.assert_array_equal(mabcq.likely(logits, first_illegal, 0.4), [0, 1, 0])
    np.testing.assert_array_equal(mabcq.likely(logits, first_illegal, 0.3), [0, 1, 1])


def test_illegal_actions_have_probability_zero():
    """Exactly, in float32, however large their logits are, and the gradient of the rest is finite."""
    logits, legal = jnp.array([1.0, 50.0, 2.0]), jnp.array([1.0, 0.0, 1.0])
    p = jnp.exp(log_policy(logits, legal))
    assert p[1] == 0.0 and float(p.sum()) == pytest.approx(1.0)
    grads = jax.grad(lambda x: log_policy(x, legal)[0] + soft_maximum(x, legal))(logits)
    assert np.isfinite(grads).all() and grads[1] == 0.0
    assert np.isfinite(log_policy(logits, jnp.zeros(3))).all()


@pytest.mark.parametrize("system", [qmix, macql, mabcq])
def test_continuous_tasks_are_refused(system):
    with pytest.raises(JaxomarlError, match="discrete actions"):
        system.check(Spec((1,), (1,), 1, 1), system.Config(), None)


@functools.cache
def learned(name):
    system = {"cql": cql, "cfcql": cfcql}[name]
    cfg = system.Config(normalise=False, critic_width=16, policy_batch=1, penalty=0.0, polyak=1.0)
    return fitted(system, cfg, matrix.ADDITIVE, steps=600)


@pytest.mark.parametrize("name", [pytest.param("cql", marks=pytest.mark.long), "cfcql"])
def test_without_a_penalty_an_additive_payoff_is_learned(name):
    """CFCQL has the table; independent CQL the mean over the other's actions, here with the same best actions."""
    table, played = learned(name)
    assert tuple(played) == (1, 1)
    if name == "cfcql":
        np.testing.assert_allclose(table, matrix.ADDITIVE, atol=0.3)
