"""OMSD's stage 3 against steps written apart: SRPO's for one agent, a Python loop over agents for several."""

import dataclasses
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from batches import repeated_batch

from jaxomarl.algorithms import omsd
from jaxomarl.base import Observation, Spec
from jaxomarl.optim import Net, create
from jaxomarl.stages.clone import Policies, policy_optimiser

ONE = Spec((3,), (2,), state_dim=4, horizon=1)
THREE = Spec((3, 2, 3), (2, 1, 2), state_dim=4, horizon=1)  # the second agent is padded
BATCH, STEPS = 16, 4
CFG = omsd.Config(policy_batch=BATCH, policy_steps=8, policy_width=8, policy_lr=0.03, beta=0.7)
WEIGHTS = {
    "vds": lambda alpha, sigma: sigma**2,
    "stable": lambda alpha, sigma: jnp.ones_like(sigma),
    "score": lambda alpha, sigma: alpha / sigma,
    "delta": lambda alpha, sigma: alpha / sigma,
}


def some(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def batch_of(spec, seed=0):
    """What stage 3 reads of a batch: observations and states; the rest is noise."""
    n, a = spec.agents, spec.act_width
    obs, state = (
        some(seed, BATCH, n, spec.obs_width) * spec.obs_mask,
        some(seed + 1, BATCH, spec.state_dim),
    )
    line, wide = jnp.zeros(BATCH), jnp.zeros((BATCH, n, a))
    return repeated_batch(obs, state, wide, line, wide)


# A behaviour model and a critic with no symmetry to hide behind: agents differ, and every input matters.


def eps_of(i, x, t, obs, prefix):
    """Agent i's noise prediction; `prefix` [B, N, A] is zero but for the agents that it may hear."""
    heard = jnp.tanh(
        prefix.reshape(len(x), -1) @ some(10 + i, prefix.shape[1] * prefix.shape[2], x.shape[-1])
    )
    told = jnp.tanh(obs @ some(20 + i, obs.shape[-1], x.shape[-1]))
    return (1.0 + i) * jnp.sin(x) + x + jnp.cos(3 * t)[:, None] + 2.0 * heard + told


def q_of(state, action):
    """[B, S], [B, N, A] -> [B], with products between agents."""
    u = jnp.concatenate([state, action.reshape(len(state), -1)], axis=-1)
    return (
        jnp.sum(jnp.tanh(u @ some(30, u.shape[-1], 6)) ** 2, axis=-1) + jnp.sum(u, axis=-1) ** 2 / 8
    )


def learner(spec, cfg):
    """OMSD's stage 3 with the models above, as the pipeline would make it."""
    agents, wide = range(spec.agents), jnp.asarray(spec.act_mask)
    order = tuple(int(i) for i in cfg.order.split("-")) if cfg.order else tuple(agents)
    hears = jnp.array([[float(order.index(j) < order.index(i)) for j in agents] for i in agents])

    def eps(past, i, x, t, obs, state, action):
        prefix = hears[i][:, None] * action
        each = [eps_of(j, x, t, obs[:, j], prefix) for j in agents]
        return wide[i] * jnp.stack(each)[i]

    return omsd.policy(spec, cfg, eps, lambda past, obs, state, action: q_of(state, action))


# Programs of a few hundred numbers run once: compiling them is all they cost, so it is done without optimising.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def first_params(spec, seed=40):
    """Some policy's parameters [N, ...], drawn by numpy."""
    sizes = {"Dense_0": (spec.obs_width, 8), "Dense_1": (8, 8), "out": (8, spec.act_width)}
    n = spec.agents
    return {
        name: {"kernel": some(seed + k, n, i, o) / i**0.5, "bias": some(seed + 9 + k, n, o) / 4}
        for k, (name, (i, o)) in enumerate(sizes.items())
    }


@partial(jit, static_argnums=0)
def run(spec, cfg, params, batch, keys):
    """Parameters after each of OMSD's updates."""
    algorithm = learner(spec, cfg)
    tx = policy_optimiser(cfg)

    def step(state, key):
        state, _ = algorithm.update(key, state, {}, batch)
        return state, state.actor.params

    return jax.lax.scan(step, Policies(jax.vmap(partial(create, tx))(params)), keys)[1]


def trained(spec, cfg):
    """Policies' parameters before the first update and after each of STEPS, and the batch and keys that they used."""
    batch, keys = batch_of(spec), jax.random.split(jax.random.key(4), STEPS)
    first = first_params(spec)
    after = jax.tree.map(np.asarray, run(spec, cfg, first, batch, keys))
    return [first, *(jax.tree.map(lambda x: x[k], after) for k in range(STEPS))], batch, keys  # noqa: B023


# --- written apart, from A.2 and A.5 ---


def vp(t):
    log_alpha = -0.25 * t**2 * (20 - 0.1) - 0.5 * t * 0.1
    return jnp.exp(log_alpha), jnp.sqrt(-jnp.expm1(2 * log_alpha))


def pi(params, obs):
    """Two ReLU layers and a tanh."""
    h = jax.nn.relu(obs @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"])
    h = jax.nn.relu(h @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"])
    return jnp.tanh(h @ params["out"]["kernel"] + params["out"]["bias"])


def draws(key, cfg, spec):
    """Times [B, N] and noises [B, N, A] of a step."""
    k_t, k_z = jax.random.split(key)
    u = jax.random.uniform(k_t, (BATCH, spec.agents))
    t = 0.02 + 0.0 * u if cfg.weighting == "delta" else 0.02 + 0.96 * u
    return t, jax.random.normal(k_z, (BATCH, spec.agents, spec.act_width))


def one_step(cfg, tx, params, opt, obs, t, z, eps, dq):
    """SRPO's step on one policy: w(t) <eps, a> - beta <dQ/da, a>, down."""
    a = pi(params, obs)
    alpha, sigma = vp(t)
    e = eps(alpha[:, None] * a + sigma[:, None] * z, t) - (z if cfg.control_variate else 0.0)
    if cfg.normalise_gradient:
        dq = dq / jnp.sqrt(jnp.mean(dq**2, axis=-1, keepdims=True) + 1e-8)
    w = WEIGHTS[cfg.weighting](alpha, sigma)

    def loss(params):
        a = pi(params, obs)
        return jnp.mean(w * jnp.sum(e * a, axis=-1) - cfg.beta * jnp.sum(dq * a, axis=-1))

    updates, opt = tx.update(jax.grad(loss)(params), opt)
    return optax.apply_updates(params, updates), opt


def adam(cfg):
    rate = (
        optax.cosine_decay_schedule(cfg.policy_lr, cfg.policy_steps)
        if cfg.policy_anneal
        else cfg.policy_lr
    )
    return optax.adam(rate)


def close(got, want):
    # Adam divides by the size of the gradient, so that a rounding error in a small one shows: 3e-5 on steps of 3e-2
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-4, atol=3e-5), got, want)


def far(got, want):
    return max(
        float(jnp.abs(g - w).max()) for g, w in zip(*map(jax.tree.leaves, (got, want)), strict=True)
    )


CASES = [  # weighting, control variate, normalised gradient, annealed
    ("vds", False, False, True),
    ("vds", True, True, False),
    ("stable", False, True, True),
    ("stable", True, False, True),
    ("score", False, False, False),
    ("score", True, True, True),
    ("delta", False, True, True),
    ("delta", True, False, True),
]


def case(weighting, control_variate, normalise_gradient, anneal):
    options = {
        "control_variate": control_variate,
        "normalise_gradient": normalise_gradient,
        "policy_anneal": anneal,
    }
    return dataclasses.replace(CFG, weighting=weighting, **options)


FIRST = (("score", False, False, False), ("vds", True, True, False), ("delta", False, True, True))
"""Each option is on and off; the other cases are long."""


@pytest.mark.parametrize(
    "options",
    [c if c in FIRST else pytest.param(c, marks=pytest.mark.long) for c in CASES],
    ids=str,
)
def test_one_agent_is_srpo_step_for_step(options):
    cfg = case(*options)
    after, batch, keys = trained(ONE, cfg)
    tx, obs, silent = adam(cfg), batch.obs[:, 0], jnp.zeros((BATCH, 1, 2))
    params = jax.tree.map(lambda x: x[0], after[0])
    opt = tx.init(params)

    @jit
    def srpo(params, opt, t, z):
        dq = jax.grad(lambda a: q_of(batch.state, a[:, None]).sum())(pi(params, obs))
        eps = lambda x, t: eps_of(0, x, t, obs, silent)
        return one_step(cfg, tx, params, opt, obs, t[:, 0], z[:, 0], eps, dq)

    for key, ours in zip(keys, after[1:], strict=True):
        params, opt = srpo(params, opt, *draws(key, cfg, ONE))
        close(jax.tree.map(lambda x: x[0], ours), params)
    assert far(after[-1], after[0]) > 0.02


@pytest.mark.long
def test_the_comparison_tells_srpo_from_its_neighbours():
    """Each option and each number changes the steps by far more than `close` allows."""
    ends = [trained(ONE, case(*options))[0][-1] for options in CASES]
    for change in ({"beta": 0.6}, {"t_min": 0.1}, {"t_max": 0.9}, {"policy_lr": 0.028}):
        ends.append(trained(ONE, dataclasses.replace(CFG, **change))[0][-1])
    assert min(far(x, y) for x, y in itertools.combinations(ends, 2)) > 1e-3


def test_one_agent_has_no_turns_to_take():
    """Gauss-Seidel and Jacobi are the same for one agent."""
    ends = [
        trained(ONE, dataclasses.replace(CFG, sweep=sweep))[0][-1]
        for sweep in ("gauss-seidel", "jacobi")
    ]
    close(*ends)


def by_hand(cfg, order, first, batch, keys):
    """Algorithm 1's inner loop, one agent after another in Python, each at its own true width."""
    tx = adam(cfg)
    width = [(THREE.obs_dims[i], THREE.act_dims[i]) for i in range(3)]
    params = [jax.tree.map(lambda x, i=i: x[i], first) for i in range(3)]
    opts = [tx.init(p) for p in params]

    def actions(params):
        wide = [pi(params[j], batch.obs[:, j]) for j in range(3)]
        return jnp.stack(wide, axis=1).at[:, 1, 1].set(0.0)  # the second agent has one real column

    @jit
    def step(params, opts, t, z):
        params, opts = list(params), list(opts)
        start = actions(params)
        for k, i in enumerate(order):
            joint = actions(params) if cfg.sweep == "gauss-seidel" else start
            real = width[i][1]
            prefix = jnp.stack([joint[:, j] * float(j in order[:k]) for j in range(3)], axis=1)
            dq = jax.grad(lambda a: q_of(batch.state, a).sum())(joint)[:, i, :real]

            def eps(x, t, i=i, prefix=prefix, real=real):
                x = jnp.pad(x, ((0, 0), (0, 2 - real)))
                return eps_of(i, x, t, batch.obs[:, i], prefix)[:, :real]

            narrow = {
                **params[i],
                "out": jax.tree.map(lambda x, r=real: x[..., :r], params[i]["out"]),
            }
            moments = jax.tree.map(lambda x: x, opts[i])
            narrow, moments = one_step(
                cfg,
                tx,
                narrow,
                cut(moments, real),
                batch.obs[:, i],
                t[:, i],
                z[:, i, :real],
                eps,
                dq,
            )
            out = jax.tree.map(
                lambda new, old, r=real: old.at[..., :r].set(new), narrow["out"], params[i]["out"]
            )
            params[i], opts[i] = {**narrow, "out": out}, widen(moments, opts[i], real)
        return params, opts

    for key in keys:
        params, opts = step(params, opts, *draws(key, cfg, THREE))
    return jax.tree.map(lambda *x: jnp.stack(x), *params)


def cut(opt, real):
    """Adam's moments of the real columns."""
    moments = opt[0]
    mu, nu = (
        {**m, "out": jax.tree.map(lambda x: x[..., :real], m["out"])}
        for m in (moments.mu, moments.nu)
    )
    return (moments._replace(mu=mu, nu=nu), *opt[1:])


def widen(opt, old, real):
    """Put the real columns' moments back among the padded ones."""
    fill = lambda new, was: {
        **new,
        "out": jax.tree.map(lambda n, w: w.at[..., :real].set(n), new["out"], was["out"]),
    }
    moments = opt[0]._replace(mu=fill(opt[0].mu, old[0].mu), nu=fill(opt[0].nu, old[0].nu))
    return (moments, *opt[1:])


def test_the_scan_over_agents_is_the_loop():
    """Three sweeps, each equal to its own loop and far from the two others."""
    cases = [("gauss-seidel", (0, 1, 2)), ("gauss-seidel", (2, 0, 1)), ("jacobi", (2, 0, 1))]
    ours, theirs = {}, {}
    for sweep, order in cases:
        cfg = dataclasses.replace(
            CFG, sweep=sweep, order="-".join(map(str, order)), normalise_gradient=True
        )
        params, batch, keys = trained(THREE, cfg)
        ours[sweep, order] = params[-1]
        theirs[sweep, order] = by_hand(cfg, order, params[0], batch, keys)
    for case in cases:
        for other in cases:
            if case == other:
                close(ours[case], theirs[case])
            else:
                assert far(ours[case], theirs[other]) > 1e-3, (case, other)


def test_the_first_agent_moves_alike_in_both_sweeps_and_the_others_do_not():
    cfgs = (
        dataclasses.replace(CFG, sweep=sweep, order="2-0-1", normalise_gradient=True)
        for sweep in ("gauss-seidel", "jacobi")
    )
    one, other = (trained(THREE, cfg)[0][1] for cfg in cfgs)
    difference = jax.tree.map(lambda g, w: np.abs(g - w).reshape(3, -1).max(axis=1), one, other)
    moved = np.max(jax.tree.leaves(difference), axis=0)
    assert moved[2] < 1e-6
    assert moved[0] > 1e-5
    assert moved[1] > 1e-5


def test_padded_columns_neither_move_nor_act():
    cfg = dataclasses.replace(CFG, sweep="jacobi", order="2-0-1", normalise_gradient=True)
    params, batch, _ = trained(THREE, cfg)
    for before, after in zip(
        *(jax.tree.leaves(p["out"]) for p in (params[0], params[-1])), strict=True
    ):
        np.testing.assert_array_equal(after[1, ..., 1], before[1, ..., 1])
        assert np.any(after[1, ..., 0] != before[1, ..., 0])
    seen = Observation(batch.obs[0], jnp.ones((3, 2), bool))
    state = Policies(Net(params[-1], (), ()))
    action, _ = learner(THREE, cfg).act(jax.random.key(0), state, {}, (), seen)
    np.testing.assert_array_equal(np.asarray(action)[1, 1], 0.0)
    assert np.all(np.asarray(action)[THREE.act_mask == 1] != 0)
