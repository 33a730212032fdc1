"""Exact scores of known behaviours: the formula, the rows' own behaviours, the posterior, and where there are none."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from alone import jit

import jaxomarl
from jaxomarl.algorithms import REGISTRY, brpo, omsd
from jaxomarl.base import JaxomarlError, Spec
from jaxomarl.data import files
from jaxomarl.data.catalog import load
from jaxomarl.data.stats import statistics
from jaxomarl.diffusion.schedules import vp
from jaxomarl.envs import catalog, stored
from jaxomarl.envs.games import bandit_eps
from jaxomarl.results.store import read_json
from jaxomarl.stages import exact_scores, scores
from jaxomarl.stages.exact_scores import Exact

SPEC = Spec((3, 2, 3), (2, 1, 2), state_dim=4, horizon=1)
BATCH, STD = 4, 0.3
SHARES = (0.5, 0.2, 0.3)
ORDER = "2-0-1"
KINDS = {"conditional": omsd.Config, "marginal": brpo.OwnConfig, "joint": brpo.OwnConfig}


def some(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.fixture(scope="module")
def three():
    """Three drawn behaviours of three agents with padded columns, as the stage holds them."""
    sizes = (3, 5, 5, 2)
    params = {f"kernel_{k}": some(k, 3, 3, *sizes[k : k + 2]) for k in range(3)}
    params |= {f"bias_{k}": some(10 + k, 3, 3, sizes[k + 1]) for k in range(3)}
    return Exact(params, jnp.arange(3), jnp.log(jnp.array(SHARES)), jnp.array(STD), ())


def exact(kind, score_model="exact", **more):
    cfg = omsd.Config(score_model=score_model, order=ORDER, **more)
    return scores.behaviour_model(SPEC, cfg, kind)


def log_normal(x, mean, variance, mask):
    return -0.5 * jnp.sum(mask * (x - mean) ** 2, axis=-1) / variance


def log_density(held, kind, i, x, t, obs, action):
    """Log mu_t(x_i | ..), or of all agents, of one row: written apart, to be differentiated."""
    alpha, sigma = (f(t) for f in vp())
    order = tuple(map(int, ORDER.split("-")))
    total = jnp.log(jnp.array(SHARES))
    parts = []
    for k in range(3):
        mean = stored.behaviour_actions(jax.tree.map(lambda leaf, k=k: leaf[k], held.params), obs)
        diffused = log_normal(x, alpha * mean, alpha**2 * STD**2 + sigma**2, SPEC.act_mask)
        clean = log_normal(action, mean, STD**2, SPEC.act_mask)
        before = order[: order.index(i)] if kind == "conditional" else ()
        at = diffused.sum() if kind == "joint" else diffused[i]
        parts.append(total[k] + at + sum(clean[j] for j in before))
    return jax.nn.logsumexp(jnp.stack(parts))


@pytest.mark.parametrize("kind", KINDS)
def test_the_noise_prediction_is_the_gradient_of_the_log_density(three, kind):
    past, model = {f"scores-{kind}": three}, exact(kind)
    obs, state = some(1, BATCH, 3, 3) * SPEC.obs_mask, some(2, BATCH, 4)
    x, action = (some(seed, BATCH, 3, 2) * SPEC.act_mask for seed in (3, 4))
    t = jnp.linspace(0.05, 0.9, BATCH)
    every = jax.jit(model.every)(past, x, t, obs, state, action)
    one = jax.jit(
        jax.vmap(jax.grad(log_density, argnums=3), (None, None, None, 0, 0, 0, 0)),
        static_argnums=(1, 2),
    )
    for i in range(3):
        want = -vp().sigma(t)[:, None] * one(three, kind, i, x, t, obs, action)[:, i]
        np.testing.assert_allclose(every[:, i], want, rtol=2e-4, atol=2e-5)
        if kind != "joint":
            own = jax.jit(model.agent)(past, i, x[:, i], t, obs, state, action)
            np.testing.assert_allclose(own, want, rtol=2e-4, atol=2e-5)
    assert not np.any(np.asarray(every) * (1 - SPEC.act_mask))


@pytest.mark.parametrize("kind", KINDS)
def test_on_the_bandit_it_is_the_bandits_own_formula(kind):
    spec, data = (
        catalog.make("games/bandit").env.spec,
        load(catalog.make("games/bandit"), "std0.1", 8)[0],
    )
    model = scores.behaviour_model(spec, omsd.Config(score_model="exact"), kind)
    past = {f"scores-{kind}": jit(model.algorithm.init)(jax.random.key(0), {}, data)}
    x, action = jnp.clip(0.5 * some(5, BATCH, 2, 1), -1, 1), jnp.clip(some(6, BATCH, 2, 1), -1, 1)
    t, ones = jnp.linspace(0.02, 0.9, BATCH), jnp.ones((BATCH, 2, 1))

    @jit
    def both(past, x, t, action):
        alpha, sigma = (f(t)[:, None] for f in vp())
        found = model.every(past, x, t, ones, jnp.ones((BATCH, 1)), action)[..., 0]
        heard = jnp.stack(
            [jnp.zeros(BATCH), action[:, 0, 0]], axis=1
        )  # agent 1 is conditioned on nobody
        return found, bandit_eps(kind, 0.1)(x[..., 0], alpha, sigma, heard)

    found, formula = both(past, x, t, action)
    np.testing.assert_allclose(found, formula, rtol=1e-3, atol=1e-4)


KNOWN = [("games/bandit", "std0.3"), ("games/four-gaussians", "default"), ("games/consensus:std=0.2", "default"),
         ("mpe/spread", "expert-modes"), ("mpe/spread", "medium-expert")]  # fmt: skip


@pytest.mark.parametrize(("name", "quality"), KNOWN)
def test_rows_lie_about_what_their_own_behaviour_plays(name, quality):
    task = catalog.make(name)
    data, known = load(task, quality, 4000)[0], task.behaviours[quality]()
    rows = np.asarray(data.starts)
    which = np.argmax(np.asarray(data.behaviour)[rows][:, None] == known.numbers, axis=1)
    assert np.isin(np.asarray(data.behaviour)[rows], known.numbers).all()
    counts = np.bincount(which, minlength=len(known.shares)) / len(rows)
    np.testing.assert_allclose(counts, known.shares, atol=0.03)
    means = np.asarray(
        jit(exact_scores.team_means)(jax.tree.map(jnp.asarray, known.params), data.obs[rows])
    )
    played = np.asarray(data.action)[rows]
    mean = means[np.arange(len(rows)), which]
    away = np.sign(mean) * (played - mean)  # clipping to [-1, 1] is felt above the middle alone
    np.testing.assert_allclose(
        np.quantile(away, [0.5, 0.159]), [0.0, -known.std], atol=0.06 * known.std
    )


def test_data_of_unknown_behaviours_are_refused_with_the_way_out(tmp_path):
    cfg = omsd.Config(score_model="exact")
    task = catalog.make("games/bandit")
    data, manifest = load(task, "std0.1", 20)
    REGISTRY["omsd"].check(task.env.spec, cfg, data)
    files.save_folder(tmp_path / "kept", data, manifest)
    REGISTRY["omsd"].check(
        task.env.spec, cfg, load(task, str(tmp_path / "kept"))[0]
    )  # the manifest names its recipe
    with pytest.raises(JaxomarlError, match="score-model diffusion"):
        REGISTRY["omsd"].check(task.env.spec, cfg, dataclasses.replace(data, source=None))
    for name, quality in (("games/twin-peaks", ""), ("games/consensus", "")):
        other = catalog.make(name)
        with pytest.raises(JaxomarlError, match=r"--cfg.score-model.*known"):
            REGISTRY["brpo-ctde"].check(
                other.env.spec,
                brpo.OwnConfig(score_model="exact", reward="team"),
                load(other, quality, 20)[0],
            )
    assert "random" not in catalog.make("mpe/spread").behaviours


def test_a_posterior_learns_which_behaviour_an_observation_tells_of():
    """Rows of the bandit that see their own mode: the marginal scores become those of that mode alone."""
    task = catalog.make("games/bandit")
    data, _ = load(task, "std0.1", 500)
    seen = jnp.where(data.behaviour == 0, 1.0, -1.0)[:, None, None] * jnp.ones((1, 2, 1))
    data = dataclasses.replace(data, rows=data.rows.at[:, :2].set(seen[..., 0]))
    assert np.array_equal(data.obs, seen)
    cfg = omsd.Config(
        score_model="exact-posterior", score_width=8, score_batch=64, score_steps=400, score_lr=0.05
    )
    model, past = (
        scores.behaviour_model(task.env.spec, cfg, "marginal"),
        {"stats": statistics(data)},
    )

    def step(state, key):
        return model.algorithm.update(key, state, past, model.algorithm.batch(key, state, data))

    @jit
    def train():
        keys = jax.random.split(jax.random.key(0), 400)
        return jax.lax.scan(step, model.algorithm.init(keys[0], past, data), keys)

    state, metrics = train()
    assert metrics["posterior_accuracy"][-1] == 1.0 and metrics["posterior_loss"][-1] < 0.05
    obs, t = jnp.array([[[1.0], [1.0]], [[-1.0], [-1.0]]]), jnp.array([0.9, 0.9])
    x = jnp.zeros((2, 2, 1))
    alpha, sigma = (f(t)[:, None] for f in vp())
    found = jit(model.every)({**past, "scores-marginal": state}, x, t, obs, jnp.ones((2, 1)), x)[
        ..., 0
    ]
    alone = sigma * (0.0 - alpha * 0.8 * obs[..., 0]) / (alpha**2 * 0.1**2 + sigma**2)
    np.testing.assert_allclose(found, alone, rtol=0.1)


@pytest.mark.long
@pytest.mark.parametrize("name", ["omsd", "brpo-jal"])
def test_a_system_trains_with_exact_scores(name, tmp_path):
    """The whole pipeline; the stage of the scores learns nothing and so has one update."""
    small: dict[str, Any] = dict(
        critic_steps=1, chunk=1, critic_width=8, critic_batch=2, policy_width=8
    )
    results = jaxomarl.train(
        name, "games/bandit", "std0.1", seeds=1, rows=50, out=tmp_path / "out", score_model="exact", beta=0.0,
        policy_steps=2, policy_batch=64, **small,
    )  # fmt: skip
    facts = read_json(results.runs[0].path / "run.json")["stages"]
    assert [f["updates"] for name, f in facts.items() if name.startswith("scores-")] == [1]
    assert all(np.isfinite(v).all() for v in results.returns.values())
