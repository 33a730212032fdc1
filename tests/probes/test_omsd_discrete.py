"""OMSD where actions are choices: one agent, agreement's thresholds, XOR, penalties; exact behaviour and critic."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxomarl.algorithms import brpo, omsd
from jaxomarl.base import Batch, JaxomarlError, Observation, Spec
from jaxomarl.envs import catalog, matrix
from jaxomarl.optim import create
from jaxomarl.stages import kl_regularised
from jaxomarl.stages.clone import Policies, policy_optimiser

STEPS = 3000
CFG = omsd.Config(
    policy_width=0,
    policy_optimiser="sgd",
    policy_anneal=False,
    policy_lr=0.5,
    warm=False,
    floor=0.0,
)


def one_row(spec):
    """A batch of one constant row, in which everything is legal and all live."""
    n, width = spec.agents, spec.act_width
    ones = jnp.ones((1, n, width))
    blocks = dict.fromkeys(Batch._fields, jnp.ones(1))
    blocks |= dict(obs=jnp.ones((1, n, 1)), state=jnp.ones((1, 1)), alive=jnp.ones((1, n)))
    return Batch(**blocks)._replace(action=0 * ones, available=ones, next_available=ones)


def cell(action):
    """The one-hot of a joint action [..., N, A] among all of them, [..., A^N]; 1 of no agent."""
    out = jnp.ones((*action.shape[:-2], 1))
    for k in range(action.shape[-2]):
        out = out[..., :, None] * action[..., k, None, :]
        out = out.reshape(*action.shape[:-2], -1)
    return out


def exact_behaviour(joint, kind):
    """log mu_i(a_i | a_<i), or of the marginals, of a table of joint probabilities."""
    n = joint.ndim

    def log_mu(past, i, obs, state, action, legal):
        terms = []
        for j in range(n):
            before = joint.sum(axis=tuple(range(j + 1, n)))
            known = action[..., :j, :]
            if kind == "marginal":
                before = before.sum(axis=tuple(range(j)))
                known = action[..., :0, :]
            table = before / before.sum(axis=-1, keepdims=True)
            rows = jnp.log(jnp.asarray(table.reshape(-1, table.shape[-1]), jnp.float32))
            terms.append(cell(known) @ rows)
        return jnp.stack(terms)[i]

    return log_mu


def payoff_of(table):
    """The exact critic of a payoff table."""
    return lambda past, obs, state, action: (
        cell(action) @ jnp.asarray(table.reshape(-1), jnp.float32)
    )


def own_values(table, joint):
    """The critic of agents that each know the mean payoff of their own action in the data: its sum over agents."""
    n = table.ndim
    parts = []
    for j in range(n):
        others = tuple(k for k in range(n) if k != j)
        parts.append((joint * table).sum(axis=others) / joint.sum(axis=others))

    def q(past, obs, state, action):
        return sum(action[..., j, :] @ jnp.asarray(parts[j], jnp.float32) for j in range(n))

    return q


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def followed(spec, log_mu, q, regulariser, sweep, betas, start):
    """Policies [betas, N, A] after many small exact steps from the probabilities `start` [N, A]."""
    batch = one_row(spec)

    def run(beta):
        cfg = dataclasses.replace(CFG, beta=beta)
        algorithm = kl_regularised.policy(spec, cfg, log_mu, q, regulariser, sweep=sweep)
        bias = jnp.log(start)
        params = {"out": {"kernel": jnp.zeros((spec.agents, 1, spec.act_width)), "bias": bias}}
        state = Policies(jax.vmap(lambda own: create(policy_optimiser(cfg), own))(params))

        def step(state, key):
            return algorithm.update(key, state, {"stats": None}, batch)[0], None

        state, _ = jax.lax.scan(step, state, jax.random.split(jax.random.key(0), STEPS))
        out = state.actor.params["out"]
        return jax.nn.softmax(out["kernel"][:, 0] + out["bias"])

    return jax.vmap(run)(betas)


def ends(table, joint, regulariser, betas, start):
    """Where policies of a game end: IND has own values, the others the joint payoff."""
    spec = Spec((1,) * table.ndim, table.shape, 1, 1, discrete=True)
    q = payoff_of(table)
    kind, sweep, name = "conditional", "gauss-seidel", regulariser
    if regulariser in ("ind", "ctde"):
        kind, sweep, name = "marginal", "jacobi", "marginal"
    if regulariser == "ind":
        q = own_values(table, joint)
    log_mu = exact_behaviour(joint, kind)
    pi = followed(spec, log_mu, q, name, sweep, jnp.array(betas), jnp.array(start, jnp.float32))
    return np.asarray(pi)


def value(table, pi):
    """The team's mean payoff of products of policies [betas, N, A]."""
    out = []
    for policies in pi:
        joint = functools.reduce(np.multiply.outer, policies)
        out.append(float((joint * table).sum()))
    return np.array(out)


def consensus(n, modes, floor):
    """Payoff, and the data's joint distribution, whose conditionals are each mixed with the uniform."""
    same = np.zeros((modes,) * n)
    for k in range(modes):
        same[(k,) * n] = 1.0
    # p(a) = prod_i [(1 - floor) p(a_i | a_<i) + floor / modes]; after unseen prefixes it is uniform
    floored = np.full(modes, 1.0 / modes)
    for i in range(1, n):
        grown = np.empty((modes,) * (i + 1))
        for prefix in np.ndindex(*(modes,) * i):
            seen = len(set(prefix)) == 1
            row = np.eye(modes)[prefix[0]] if seen else np.full(modes, 1.0 / modes)
            grown[prefix] = floored[prefix] * ((1 - floor) * row + floor / modes)
        floored = grown
    return same, floored


def test_one_agent_is_regularised_as_alone():
    """pi = mu exp(beta Q) / Z: q (1, 0, -1), mu (.2, .5, .3), beta 2."""
    mu, q = np.array([0.2, 0.5, 0.3]), np.array([1.0, 0.0, -1.0])
    for regulariser in ("conditional", "joint", "ctde"):
        pi = ends(q, mu, regulariser, [2.0], [[1 / 3] * 3])
        np.testing.assert_allclose(pi[0, 0], [0.7322, 0.2477, 0.0201], atol=1e-3)
    # and one step is that of the single-agent policy gradient, written apart
    spec = Spec((1,), (3,), 1, 1, discrete=True)
    cfg = dataclasses.replace(CFG, beta=0.7)
    log_mu = exact_behaviour(mu, "conditional")
    algorithm = kl_regularised.policy(spec, cfg, log_mu, payoff_of(q), "conditional")
    logits = np.array([0.3, -0.2, 0.5])
    params = {
        "out": {"kernel": jnp.zeros((1, 1, 3)), "bias": jnp.asarray(logits[None], jnp.float32)}
    }
    state = Policies(jax.vmap(lambda own: create(policy_optimiser(cfg), own))(params))
    after = algorithm.update(jax.random.key(0), state, {"stats": None}, one_row(spec))[0]
    pi = np.exp(logits) / np.exp(logits).sum()
    gain = 0.7 * q + np.log(mu) - np.log(pi)
    step = 0.5 * pi * (gain - (pi * gain).sum())
    np.testing.assert_allclose(after.actor.params["out"]["bias"][0], logits + step, atol=1e-6)


LONG = pytest.mark.long
LEAN = [[0.55, 0.45], [0.55, 0.45]]


@pytest.mark.parametrize(
    ("n", "modes", "regulariser", "expected"),
    [
        (2, 2, "conditional", {0.711: 0.5, 0.823: 0.551, 1.0: 0.643, 1.9: 0.86, 4.0: 0.982}),
        (2, 2, "ctde", {1.9: 0.5}),
        pytest.param(2, 2, "ind", {4.0: 0.5}, marks=LONG),
        pytest.param(2, 3, "conditional", {1.307: 1 / 3, 1.546: 0.63}, marks=LONG),
        (3, 2, "conditional", {0.44: 0.25, 0.54: 0.321, 1.0: 0.648, 2.0: 0.872, 4.0: 0.981}),
        pytest.param(3, 2, "ctde", {1.0: 0.25, 4.0: 0.938}, marks=LONG),
        pytest.param(3, 2, "joint", {1.0: 0.992}, marks=LONG),
        pytest.param(3, 2, "ind", {4.0: 0.25}, marks=LONG),
    ],
)
def test_agreement_emerges_above_the_threshold_in_beta(n, modes, regulariser, expected):
    """beta (beta + L) > K^2 for OMSD of two agents, beta > K for CTDE, never for independent ones."""
    same, joint = consensus(n, modes, floor=0.02)
    lean = np.full(modes, 0.9 / modes)
    lean[0] += 0.1
    pi = ends(same, joint, regulariser, [*expected], [lean] * n)
    np.testing.assert_allclose(value(same, pi), [*expected.values()], atol=0.02)


XOR_VALUES = {
    "two": ([0.5, 1.0, 2.0, 4.0], {
        "ind": [0.0, 0.0, 0.01, 0.02], "ctde": [0.14, 0.19, 0.86, 0.98],
        "conditional": [0.41, 0.85, 0.99, 1.0], "joint": [0.99, 1.0, 1.0, 1.0],
    }),
    "three": ([1.0, 2.0, 4.0, 8.0], {
        "ind": [0.09, -0.15, -0.84, -1.76], "ctde": [0.24, 0.76, 0.96, 1.0],
        # at beta = 2 the other basin has 0.787: small steps end there
        "conditional": [0.54, 0.868, 0.98, 1.0], "joint": [0.72, 0.88, 0.98, 1.0],
    }),
}  # fmt: skip


@pytest.mark.parametrize(
    ("data", "regulariser"),
    [
        pytest.param(d, r, marks=LONG if d == "three" else ())
        for d, (_, rows) in XOR_VALUES.items()
        for r in rows
    ],
)
def test_xor_is_solved_where_independent_regularisation_fails(data, regulariser):
    betas, rows = XOR_VALUES[data]
    cells = {"two": [(0, 1), (1, 0)], "three": [(0, 0), (0, 1), (1, 0)]}[data]
    joint = 0.99 * matrix.listed_cells(matrix.XOR, cells) + 0.01 / 4
    pi = ends(matrix.XOR, joint, regulariser, betas, [[0.55, 0.45], [0.5, 0.5]])
    np.testing.assert_allclose(value(matrix.XOR, pi), rows[regulariser], atol=0.02)


def test_labels_do_not_matter():
    """The same game with the second agent's actions renamed has the same values."""
    joint = 0.99 * matrix.listed_cells(matrix.XOR, [(0, 1), (1, 0)]) + 0.01 / 4
    start = [[0.55, 0.45], [0.5, 0.5]]
    same = ends(matrix.XOR[:, ::-1], joint[:, ::-1], "conditional", [1.0], start)
    assert value(matrix.XOR[:, ::-1], same)[0] == pytest.approx(0.85, abs=0.02)


def test_of_two_best_cells_one_is_chosen():
    """The penalty game, from policies that lean to the first action: 10 where independent learners have less."""
    table = np.array([[10.0, 0, -10], [0, 2, 0], [-10, 0, 10]])
    joint = 0.98 * matrix.listed_cells(table, [(0, 0), (2, 2)]) + 0.02 / 9
    lean = [[0.36, 0.32, 0.32]] * 2
    pi = ends(table, joint, "conditional", [0.5], lean)
    assert value(table, pi)[0] > 9.5
    assert value(table, ends(table, joint, "ind", [0.5], lean))[0] < 1.0


def test_climbing_needs_enough_data_at_its_peak():
    """Stated, not solved: from clones, a share of .05 at the peak leaves both agents at 0, .1 and more reach 8."""
    for share, reached in ((0.05, 0.0), (0.3, 8.0)):
        joint = matrix.peak_cells(matrix.CLIMBING, share)
        start = [joint.sum(axis=1), joint.sum(axis=0)]
        pi = ends(matrix.CLIMBING, joint, "conditional", [1.0], start)[0]
        assert matrix.CLIMBING[tuple(pi.argmax(axis=-1))] == reached


def test_draws_and_enumeration_agree():
    """Many joint draws estimate what the enumeration has, and weights sum to one."""
    spec = Spec((1,) * 3, (2, 3, 2), 1, 1, discrete=True)
    legal = jnp.asarray(spec.act_mask)[None]
    log_pi = jnp.log(jnp.array([[[0.7, 0.3, 0], [0.2, 0.3, 0.5], [0.6, 0.4, 0]]]) + 1e-30)
    joint, weight = kl_regularised.others_actions(jax.random.key(0), spec, 0, log_pi, 1)
    np.testing.assert_allclose(weight.sum(axis=0), 1.0, rtol=1e-5)
    mean = jnp.einsum("kb,kbna->bna", weight, joint)[0]
    np.testing.assert_allclose(mean[0], [0.7, 0.3, 0], atol=1e-6)
    np.testing.assert_allclose(mean[2], [0.6, 0.4, 0], atol=1e-6)
    wide = Spec((1,) * 3, (5, 5, 5), 1, 1, discrete=True)
    log_pi = jnp.pad(log_pi, ((0, 0), (0, 0), (0, 2)), constant_values=-1e9)
    joint, weight = kl_regularised.others_actions(jax.random.key(0), wide, 4000, log_pi, 1)
    assert joint.shape == (4000, 1, 3, 5)
    np.testing.assert_allclose(
        jnp.einsum("kb,kbna->bna", weight, joint)[0, 0, :2], [0.7, 0.3], atol=0.03
    )
    assert not joint[..., 3:].any() and legal.shape == (1, 3, 3)
    every = kl_regularised.with_own_actions(joint[:2], 1)
    np.testing.assert_array_equal(every[:, 0, 0, 1], np.eye(5))
    np.testing.assert_array_equal(every[3, :, :, 0], joint[:2, :, 0])


def test_what_is_refused():
    spec = Spec((1, 1), (2, 2), 1, 1, discrete=True)
    omsd.check(spec, omsd.Config(), None)
    for cfg, says in [
        (omsd.Config(play="best"), "greedy, sample"),
        (omsd.Config(score_model="exact"), "score-model"),
        (omsd.Config(critic_policy=True), "critic-policy"),
    ]:
        with pytest.raises(JaxomarlError, match=says):
            omsd.check(spec, cfg, None)
    with pytest.raises(JaxomarlError, match="joint-score"):
        brpo.check(spec, brpo.OwnConfig(reward="team"), None, brpo.JAL)


@pytest.mark.parametrize("name", ["games/xor", "games/penalty", "games/climbing"])
def test_the_games_data_have_their_cells(name):
    task = catalog.make(name)
    for quality, recipe in task.recipes.items():
        index = np.asarray(recipe(jax.random.key(0), 3000).action)[::2].argmax(axis=-1)
        found = np.zeros(task.env.spec.act_dims)
        np.add.at(found, tuple(index.T), 1 / len(index))
        expected = {"uniform": 1 / found.size, "all": 1 / 4, "two": 0.5, "three": 1 / 3}
        if quality == "peak":
            assert found[0, 0] == pytest.approx(0.5 + 0.5 / 9, abs=0.03)
            continue
        np.testing.assert_allclose(found[found > 0], expected[quality], atol=0.04)
    with pytest.raises(JaxomarlError, match="at most 0"):
        catalog.make("games/penalty:k=1")


def test_policies_play_a_draw_where_they_are_asked_to():
    spec = Spec((1,), (3,), 1, 1, discrete=True)
    params = {"out": {"kernel": jnp.zeros((1, 1, 3)), "bias": jnp.array([[0.0, 1.0, 9.0]])}}
    state = Policies(create(policy_optimiser(CFG), params))
    seen = Observation(jnp.ones((1, 1)), jnp.array([[True, True, False]]))
    for play, share in (("greedy", 1.0), ("sample", 1 / (1 + np.exp(-1)))):
        cfg = dataclasses.replace(CFG, play=play)
        nothing = payoff_of(np.zeros(3))
        act = kl_regularised.policy(spec, cfg, nothing, nothing, "marginal").act
        keys = jax.random.split(jax.random.key(0), 2000)
        action = jax.vmap(act, in_axes=(0, None, None, None, None))(keys, state, {}, (), seen)[0]
        assert not action[..., 2].any()
        assert float(action[:, 0, 1].mean()) == pytest.approx(share, abs=0.04)
