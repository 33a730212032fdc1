"""AlberDICE: one step's optimum in closed form, XOR, rows' weights and losses by hand, the weight that falls."""

import dataclasses

import alone
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp, softmax

from jaxomarl.algorithms import alberdice
from jaxomarl.base import Batch, JaxomarlError, Spec
from jaxomarl.losses import stationary
from jaxomarl.losses.categorical import log_policy
from jaxomarl.stages import kl_regularised, others_clone

CFG = alberdice.Config(
    policy_width=8, policy_lr=0.01, policy_steps=1500, normalise=False, gamma=0.9
)
XOR = np.array([[0.0, 1.0], [1.0, -2.0]])
SPEC = Spec((1, 1), (2, 2), 1, 1, discrete=True)
ROWS = 100
ANY = alone.bandit(np.zeros((4, 2, 2)), np.zeros((4, 2)))
"""A data set, of which the first state takes nothing."""


def rows_of(joint):
    """A batch whose joint actions have these shares, in a game of one step that is paid by XOR."""
    counts = np.round(ROWS * joint).astype(int)
    cells = np.repeat(np.argwhere(counts >= 0), counts.reshape(-1), axis=0)
    size = len(cells)
    paid = XOR[cells[:, 0], cells[:, 1]]
    fields = dict.fromkeys(Batch._fields, jnp.ones(size))
    fields |= dict(obs=jnp.ones((size, 2, 1)), next_obs=jnp.ones((size, 2, 1)))
    fields |= dict(state=jnp.ones((size, 1)), next_state=jnp.ones((size, 1)))
    legal = jnp.ones((size, 2, 2))
    return Batch(**fields)._replace(
        action=jnp.asarray(np.eye(2, dtype=np.float32)[cells]),
        reward=jnp.asarray(np.stack([paid, paid], axis=1), jnp.float32),
        team_reward=jnp.asarray(paid, jnp.float32),
        available=legal,
        next_available=legal,
        alive=jnp.ones((size, 2)),
    )


def clones_of(joint):
    """(log G, log H) of a table of joint probabilities of two agents."""
    own = jnp.log(jnp.stack([joint.sum(axis=1), joint.sum(axis=0)]))
    second = jnp.log(joint / joint.sum(axis=1, keepdims=True))
    first = jnp.log(joint / joint.sum(axis=0, keepdims=True)).T

    def log_g(past, batch):
        return jnp.broadcast_to(own, batch.action.shape)

    def log_h(past, i, batch, played):
        return jnp.stack([played[..., 1, :] @ first, played[..., 0, :] @ second], axis=-2)

    return log_g, log_h


@jax.jit
def train(joint, batch, alpha, alpha_first):
    """The policies [seeds, N, A] after training on the same rows in each update."""
    cfg = dataclasses.replace(CFG, alpha=alpha, alpha_first=alpha_first)
    algorithm = alberdice.policy(SPEC, cfg, *clones_of(joint))
    net = alberdice.networks(SPEC, cfg).actor

    def one_seed(key):
        state = algorithm.init(key, {}, ANY)
        step = lambda state, key: (algorithm.update(key, state, {}, batch)[0], None)
        state, _ = jax.lax.scan(step, state, jax.random.split(key, cfg.policy_steps))
        logits = jax.vmap(net.apply, in_axes=(0, None))(state.actor.params, jnp.ones(1))
        return jax.nn.softmax(logits)

    return jax.vmap(one_seed)(jax.random.split(jax.random.key(0), 4))


def trained(kind, alpha, alpha_first):
    joint = TABLES[kind]
    given = (jnp.asarray(joint, jnp.float32), rows_of(joint), jnp.float32(alpha))
    return np.asarray(train(*given, jnp.float32(alpha_first)))


def mixture(shares):
    return 0.97 * np.array(shares) + 0.03 / 4


TABLES = {
    "two": mixture([[0.0, 0.5], [0.5, 0.0]]),
    "three": mixture([[1 / 3, 1 / 3], [1 / 3, 0.0]]),
}


KINDS = ["two", pytest.param("three", marks=pytest.mark.long)]


@pytest.mark.parametrize("kind", KINDS)
def test_one_steps_optimum_is_the_joint_regularisers(kind):
    """Each policy is in proportion to exp E[r / alpha + log mu] over the other's, as it is at the end."""
    alpha = 0.7
    counted = rows_of(TABLES[kind]).action
    shares = np.einsum("bi,bj->ij", counted[:, 0], counted[:, 1]) / len(counted)
    for pi in trained(kind, alpha, 0.0):
        followed = XOR / alpha + np.log(shares)
        for own, expected in ((pi[0], followed @ pi[1]), (pi[1], pi[0] @ followed)):
            np.testing.assert_allclose(own, np.exp(expected - logsumexp(expected)), atol=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_xor_is_solved_where_alpha_falls(kind):
    """One of the two optima, from every start; own values and own clones end at value 0 or below."""
    pi = trained(kind, 0.05, 5.0)
    value = np.einsum("si,sj,ij->s", pi[:, 0], pi[:, 1], XOR)
    assert (value > 0.95).all(), value


# --- lines 5 to 9, written apart ---


@pytest.fixture(scope="module")
def drawn():
    """Random policies, clones and rows of two agents with three actions, some of them illegal."""
    rng = np.random.default_rng(0)
    shape = (6, 2, 3)
    legal = np.ones(shape)
    legal[:3, 0, 2] = 0
    log_pi = np.asarray(log_policy(jnp.asarray(rng.normal(size=shape)), jnp.asarray(legal)))
    table = rng.normal(size=(2, 3, 3))  # of j, by the other's action
    action = np.eye(3)[rng.integers(0, 2, size=(6, 2))]
    return log_pi, table, action, legal


def test_rows_are_weighed_by_the_others_policies_over_their_clones(drawn):
    log_pi, table, action, legal = drawn
    spec = Spec((1, 1), (3, 3), 1, 1, discrete=True)

    def log_h(joint):
        logits = jnp.stack([joint[..., 1, :] @ table[0], joint[..., 0, :] @ table[1]], axis=-2)
        return log_policy(logits, jnp.asarray(legal))

    for i, j in ((0, 1), (1, 0)):
        others = kl_regularised.others_actions(jax.random.key(0), spec, 1, jnp.asarray(log_pi), i)
        weights = stationary.row_weights(jnp.asarray(log_pi), i, jnp.asarray(action), others, log_h)
        own = np.argmax(action[:, i], axis=-1)
        logits = np.where(legal[:, j] > 0, table[j][own], -1e9)
        h = logits - logsumexp(logits, axis=-1, keepdims=True)
        p = np.where(legal[:, j] > 0, np.exp(log_pi[:, j]), 0.0)
        with np.errstate(invalid="ignore"):
            k = np.sum(np.where(p > 0, p * (log_pi[:, j] - h), 0.0), axis=-1)
        np.testing.assert_allclose(weights[0], k, rtol=1e-4)
        log_rho = np.sum(action[:, j] * (log_pi[:, j] - h), axis=-1)
        rho = np.minimum(np.exp(log_rho), 100.0)
        np.testing.assert_allclose(np.exp(weights[1]), rho / rho.sum(), rtol=1e-4)


def test_the_losses_are_those_written_apart():
    """The mean over agents of nu's and e's losses; steps are too short to change what the second agent meets."""
    cfg = dataclasses.replace(CFG, alpha=0.5, policy_lr=1e-12, penalty=0.3)
    log_g, log_h = clones_of(jnp.asarray(TABLES["three"], jnp.float32))
    algorithm = alberdice.policy(SPEC, cfg, log_g, log_h)
    batch = rows_of(TABLES["three"])
    size = len(batch.action)
    done = np.arange(size) % 4 == 0
    batch = batch._replace(done=jnp.asarray(done, jnp.float32))
    state = algorithm.init(jax.random.key(1), {}, ANY)
    _, metrics = jax.jit(algorithm.update)(jax.random.key(2), state, {}, batch)

    nets = alberdice.networks(SPEC, cfg)
    of = lambda net, params, i: np.asarray(
        net.apply(jax.tree.map(lambda x: x[i], params), jnp.ones((1,)))
    )
    losses = []
    for i, j in ((0, 1), (1, 0)):
        pi_j = softmax(of(nets.actor, state.actor.params, j))
        h = np.exp(np.asarray(log_h({}, i, batch, batch.action)))[:, j]
        k = np.sum(pi_j * (np.log(pi_j) - np.log(h)), axis=-1)
        other = np.argmax(np.asarray(batch.action)[:, j], axis=-1)
        rho = pi_j[other] / h[np.arange(size), other]
        p = rho / rho.sum()
        nu = of(nets.nu, state.nu.params, i)[0]
        e = np.asarray(batch.reward)[:, 0] - 0.5 * k + 0.9 * nu * ~done - nu
        live = 0.1 / (0.1 + 0.9 * np.sum(p * done))
        nu_loss = 0.5 * np.log(live * np.sum(p * np.exp(e / 0.5)) + 1 - live) + 0.1 * nu
        own = np.argmax(np.asarray(batch.action)[:, i], axis=-1)
        every = of(nets.e, state.e.params, i)
        g = np.exp(np.asarray(log_g({}, batch)))[0, i]
        e_loss = np.sum(p * (every[own] - e) ** 2) + 0.3 * (logsumexp(every) - g @ every)
        losses.append((nu_loss, e_loss))
    want = np.mean(losses, axis=0)
    np.testing.assert_allclose([metrics["nu_loss"], metrics["e_loss"]], want, rtol=1e-4)


def test_alpha_falls_geometrically_from_its_first_value():
    cfg = dataclasses.replace(CFG, alpha=0.01, alpha_first=1.0, policy_steps=100)
    at = [float(alberdice.weight_now(cfg, jnp.asarray(float(u)))) for u in (0, 50, 100, 200)]
    np.testing.assert_allclose(at, [1.0, 0.1, 0.01, 0.01], rtol=1e-5)
    plain = dataclasses.replace(CFG, alpha=0.3)
    np.testing.assert_allclose(alberdice.weight_now(plain, jnp.asarray(7.0)), 0.3)


def test_each_clone_sees_its_owner_and_those_before_it():
    known = others_clone.known_actions(3)
    assert known[1, 0].tolist() == [0, 1, 0], "agent 0, for agent 1, sees agent 1 alone"
    assert known[1, 2].tolist() == [1, 1, 0] and known[0, 2].tolist() == [1, 1, 0]
    assert known[2, 0].tolist() == [0, 0, 1] and known[2, 1].tolist() == [1, 0, 1]


def test_continuous_actions_are_refused():
    with pytest.raises(JaxomarlError, match="joint-score"):
        alberdice.ALBERDICE.check(Spec((1, 1), (2, 2), 1, 1), CFG, None)
