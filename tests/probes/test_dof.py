"""DoF-Policy and Independent Diffusion: Q's gradient, what is cloned, what is improved, and what a product can hold."""

import dataclasses
from functools import partial
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from alone import (
    MODE,
    ONE_STEP,
    PAST,
    SPEC,
    batch_of,
    far,
    filled,
    jit,
    jit_loop,
    judged,
    played,
    refused,
    trained,
    two_modes,
)
from judges import DIFFUSERS, difference, follows_targets, largest, modes

from jaxomarl.algorithms import dof
from jaxomarl.base import JaxomarlError, Observation, Spec
from jaxomarl.diffusion.samplers import ddpm
from jaxomarl.diffusion.schedules import alpha_sigma_at, vp_discrete
from jaxomarl.envs import games
from jaxomarl.networks.mlp import Network
from jaxomarl.optim import annealed, create, descend
from jaxomarl.policies import team as team_of
from jaxomarl.policies.diffusion import Diffuser, sample, several
from jaxomarl.policies.team import (
    Team,
    factorised,
    fitting_loss,
    independent,
    team_times_and_noise,
)

LEARN = dof.Config(**DIFFUSERS)
STEP = dataclasses.replace(LEARN, **ONE_STEP, levels=2)
FIT = dof.Config(policy_width=24, noise_mixer="concat", data_mixer="concat")
IND = dof.IndependentConfig(policy_width=24, model="separate")
check = partial(dof.check, variant=dof.DOF_P)


def policy(spec, cfg):
    """The algorithm of a factorised team."""
    return dof.policy(spec, cfg, factorised(spec, cfg))


def fit(key, team, data, obs, steps, batch, lr):
    """The team's parameters after `steps` of Adam on drawn rows of `data`; the rate falls to zero by a cosine."""
    tx, mask, levels = (
        optax.adam(annealed(lr, steps)),
        jnp.ones(data.shape[1:]),
        team.trained.levels,
    )
    k_init, k_steps = jax.random.split(key)

    def step(net, key):
        k_rows, k_noise = jax.random.split(key)
        rows = jax.random.randint(k_rows, (batch,), 0, len(data))
        t, z = team_times_and_noise(k_noise, levels, mask, batch)
        loss = lambda params: fitting_loss(team, params, data[rows], obs[rows], mask, t, z)[0]
        return descend(tx, net, jax.grad(loss)(net.params)), None

    return jax.lax.scan(
        step, create(tx, team.trained.net.init(k_init)), jax.random.split(k_steps, steps)
    )[0].params


def draw(key, team, params, obs, columns):
    """A joint sample of `columns` each for every row of `obs`, as the agents act."""
    mask = jnp.ones((obs.shape[-2], columns))
    return team.finished(params, sample(team.played, key, params, obs, mask), obs, mask)


PAIR = Spec((1, 1), (1, 1), state_dim=1, horizon=1)


# --- what is learned under a critic ---


def given(value):
    """Within, the critics say value(action) of each row that they judge, and learn nothing."""

    def twin(*sizes, **options):
        q = lambda params, cond, action: jnp.broadcast_to(value(action), (2, *action.shape[:-1]))
        return Network(lambda key: jnp.zeros(1), q)

    return mock.patch.object(dof, "twin", twin)


def likes_the_good_mode(action):
    """1 - (a - MODE)^2 of both agents' first columns, in the joint action [a_1, a_1', a_2, pad]."""
    return 1 - (action[..., 0] - MODE) ** 2 - (action[..., 2] - MODE) ** 2


@pytest.mark.long
def test_without_value_it_clones_and_with_value_it_takes_the_better_mode():
    data = two_modes()

    @jit_loop
    @jax.vmap
    def learn(eta):
        with given(likes_the_good_mode):
            algorithm = policy(SPEC, dataclasses.replace(LEARN, eta=eta))
        return played(algorithm, trained(algorithm, data, 700), 200)

    actions = np.asarray(learn(jnp.array([0.0, 20.0])))
    good, bad = modes(actions[0, :, :, 0])
    assert np.all(good + bad > 0.6) and np.all(good > 0.25) and np.all(bad > 0.25), (good, bad)
    good, bad = modes(actions[1, :, :, 0])
    assert np.all(good > 0.9) and np.all(bad < 0.05), (good, bad)
    assert np.all(actions[..., 1, 1] == 0) and np.all(np.abs(actions) <= 1)


# --- one step ---


def near_x():
    """Within, the agents' networks say x and a little of their own: actions stay inside of the box."""
    original = team_of.plain_mlp

    def patched(*args):
        net = original(*args)
        return Network(net.init, lambda params, x, *rest: x + 0.02 * net.apply(params, x, *rest))

    return mock.patch.object(team_of, "plain_mlp", patched)


@pytest.fixture(scope="module", params=["joint", "own"])
def critic(request):
    return request.param


@pytest.fixture(scope="module")
def config(critic):
    return dataclasses.replace(STEP, critic=critic)


@pytest.fixture(scope="module")
def update(config):
    """(state, changed traced fields) -> state, on one batch with one key."""

    def stepped(cfg, state):
        with near_x():
            return policy(SPEC, cfg).update(jax.random.key(1), state, PAST, batch_of())[0]

    step = jit(stepped)
    return lambda state, **changed: step(dataclasses.replace(config, **changed), state)


@pytest.fixture(scope="module")
def state(config):
    found = filled(policy(SPEC, config))
    weights = {
        "noise": {"k": np.array([[0.9], [1.1]], np.float32)},
        "data": {"k": np.array([[1.1], [0.8]], np.float32)},
    }
    actor = found.actor._replace(
        params=found.actor.params | weights, target=found.actor.target | weights
    )
    return found._replace(actor=actor)


def push(update, state, eta=2.0):
    """The policies' gradient of the value alone."""
    return difference(update(state, eta=eta, critic_lr=0.0), update(state, eta=0.0, critic_lr=0.0))


def test_the_gradient_of_q_reaches_networks_and_weights_of_both_mixers(update, state):
    """The released code's fault: there this is zero, and its weights are trained by nothing."""
    one = push(update, state)
    for agent in range(2):
        assert largest(jax.tree.map(lambda g, i=agent: g[i], one["parts"])) > 1e-4
        for mixer in ("noise", "data"):
            assert abs(one[mixer]["k"][agent, 0]) > 1e-4, (mixer, agent)


def test_the_divisor_is_the_values_size_and_constant(update, state):
    """alpha E|Q| = eta: what Q says, 3 Q says, and a divisor with a gradient would cancel values of one sign."""
    one = push(update, state)
    assert far(push(update, state, eta=4.0), jax.tree.map(lambda g: 2 * g, one)) < 1e-3 * largest(
        one
    )
    assert far(push(update, judged(state, scale=3.0)), one) < 1e-3 * largest(one)
    raised, higher = (push(update, judged(state, shift=c)) for c in (50.0, 100.0))
    assert largest(raised) > 1e-4, "values of one sign"
    assert far(jax.tree.map(lambda g: 2 * g, higher), raised) < 0.1 * largest(raised)


def test_next_actions_are_the_target_policys_and_targets_follow(update, state):
    follows_targets(update, state, polyak=0.2)


# --- acting ---


@pytest.mark.parametrize(
    ("mixer", "execution"), [("concat", "decentralised"), ("atten", "central")]
)
def test_the_best_of_m_is_the_most_valued_candidate(mixer, execution):
    """Each agent's own best; of a joint draw, the best as a whole."""
    cfg = dataclasses.replace(
        STEP, critic="own", noise_mixer=mixer, data_mixer="concat", execution=execution
    )
    seen, mask = (
        Observation(jnp.asarray(SPEC.obs_mask), jnp.asarray(SPEC.act_mask > 0)),
        jnp.asarray(SPEC.act_mask),
    )
    key, team = jax.random.key(0), factorised(SPEC, cfg)

    @partial(jit, static_argnums=0)
    def play(count, state):
        with given(lambda action: action[..., 0]):
            algorithm = policy(SPEC, dataclasses.replace(cfg, candidates=count))
        drawn = several(team.played, key, state.actor.params, seen.obs, mask, count)
        return algorithm.act(key, state, PAST, (), seen)[0], drawn

    with given(lambda action: action[..., 0]):
        state = filled(policy(SPEC, cfg))
    action, drawn = play(16, state)
    assert team.centralised == (mixer == "atten")
    best = (
        jnp.argmax(drawn[..., 0].mean(axis=1))
        if team.centralised
        else jnp.argmax(drawn[..., 0], axis=0)
    )
    np.testing.assert_allclose(action, drawn[best, jnp.arange(2)], atol=1e-6)
    assert len(np.unique(np.asarray(drawn[:, 0, 0]))) > 4
    action, drawn = play(1, state)
    np.testing.assert_allclose(action, drawn[0], atol=1e-6)


# --- h ---


def oracle(eps, levels, k=None):
    """A team whose agents have exact noise, and with `k` a weighted h."""
    schedule = vp_discrete()
    diffuser = Diffuser(
        Network(lambda key: {"k": jnp.ones(())}, lambda params, x, t, obs: eps(schedule, x, t)),
        schedule,
        ddpm,
        levels,
    )
    return Team(
        diffuser,
        diffuser,
        k and (lambda params, x, obs: params["k"] * x),
        False,
    )


def test_weights_of_h_rest_at_one_under_exact_noise_and_would_not_by_samples_of_the_chain():
    bandit, ones = games.bandit_eps("marginal", std=0.1), jnp.ones((2, 1))
    team = oracle(lambda schedule, x, t: bandit(x, *alpha_sigma_at(schedule, t, x)), 10, k=True)
    data = games.bandit().recipes["std0.1"](jax.random.key(0), 4000).action[::2]
    obs = jnp.zeros_like(data)

    @jit
    def measure(key):
        k_noise, k_draw = jax.random.split(key)
        t, z = team_times_and_noise(k_noise, 10, ones, len(data))
        slope = jax.grad(
            lambda k: fitting_loss(team, {"k": k}, data, obs, ones, t, z)[1]["mixer_loss"]
        )
        free = draw(k_draw, team, {"k": jnp.ones(())}, obs, 1)
        return 1.0 - slope(1.0) / (slope(2.0) - slope(1.0)), jnp.mean(free * data) / jnp.mean(
            free**2
        )

    paired, unpaired = measure(jax.random.key(1))
    assert abs(paired - 1.0) < 0.01 and abs(unpaired) < 0.06, (paired, unpaired)


@pytest.mark.parametrize(("levels", "std"), [(5, 0.072), (10, 0.112), (100, 0.180)])
def test_gaussian_data_have_the_chains_law(levels, std):
    """The posterior's chain with exact noise of N(0.5, 0.2^2) narrows where its steps are few."""

    def eps(schedule, x, t):
        alpha, sigma = alpha_sigma_at(schedule, t, x)
        return sigma * (x - alpha * 0.5) / (alpha**2 * 0.04 + sigma**2)

    x = jit(lambda key: draw(key, oracle(eps, levels), (), jnp.zeros((5000, 2, 1)), 1))(
        jax.random.key(0)
    )
    np.testing.assert_allclose([x.mean(), x.std()], [0.5, std], atol=0.004)


# --- what a product can hold ---


def params_of(team, seed=0):
    """Parameters drawn by numpy: compiling `init` takes longer than all that is done with them."""
    draw, shapes = (
        np.random.default_rng(seed).standard_normal,
        jax.eval_shape(team.trained.net.init, jax.random.key(0)),
    )
    return jax.tree.map(lambda x: (0.5 * draw(x.shape)).astype(np.float32), shapes)


def rows(size=8, seed=1):
    """Actions, observations, times and noise of a pair of agents."""
    draw = lambda: np.random.default_rng(seed).standard_normal((size, 2, 1)).astype(np.float32)
    return np.tanh(draw()), draw(), np.linspace(0.1, 1.0, size, dtype=np.float32), draw()


def test_concat_learns_what_its_agents_learn_apart():
    """Its loss is the mean of the agents' own, so that its gradient is theirs."""
    whole, single = factorised(PAIR, FIT), factorised(Spec((1,), (1,), 1, 1), FIT)
    params, (x, obs, t, z) = params_of(whole), rows()

    @partial(jit, static_argnums=0)
    def gradient(team, params, x, obs, t, z):
        mask = jnp.ones(x.shape[1:])
        return jax.grad(lambda p: fitting_loss(team, p, x, obs, mask, t, z)[0])(params)["parts"]

    together = gradient(whole, params, x, obs, t, z)
    for i in range(2):
        one = slice(i, i + 1)
        own = jax.tree.map(lambda p, one=one: p[one], params)
        apart = gradient(single, own, x[:, one], obs[:, one], t, z[:, one])
        assert far(jax.tree.map(lambda g, one=one: 2 * g[one], together), apart) < 1e-4 * largest(
            apart
        )


STEPS, ROWS, DRAWS = 400, 2000, 2000


@pytest.fixture(scope="module")
def data():
    """Joint actions of agents that agree on one of two modes, and of the four Gaussians."""
    two, four = games.consensus(n=2, std=0.1), games.four_gaussians()
    return jnp.stack(
        [task.recipes["default"](jax.random.key(0), ROWS).action[::2] for task in (two, four)]
    )


def learned(team, data, steps=STEPS, agents=1):
    """Samples [K, DRAWS, N, 1] of models of K data sets; with `agents`, `team` is one's and each is fitted apart."""

    @jit
    @jax.vmap
    def learn(key, data):
        def one(key, part):
            params = fit(key, team, part, jnp.ones_like(part), steps, batch=64, lr=5e-3)
            return draw(
                jax.random.fold_in(key, 1), team, params, jnp.ones((DRAWS, *part.shape[1:])), 1
            )

        if agents == 1:
            return one(key, data)
        parts = jnp.stack(jnp.split(data, agents, axis=1))
        return jnp.concatenate(list(jax.vmap(one)(jax.random.split(key, agents), parts)), axis=1)

    return np.asarray(learn(jax.random.split(jax.random.key(1), len(data)), data))


@pytest.fixture(scope="module")
def drawn(data):
    """Samples [2, DRAWS, 2, 1] of the two data sets by the name of the model."""
    one = Spec((1,), (1,), state_dim=1, horizon=1)
    return {
        "factorised": learned(
            factorised(PAIR, dataclasses.replace(FIT, noise_mixer="wconcat")), data
        ),
        "apart": learned(independent(one, IND), data, agents=2),
        "joint": learned(independent(PAIR, dataclasses.replace(IND, model="joint")), data),
    }


def joint_of(x):
    """Frequencies [2, 2] of the signs of both agents' actions."""
    return games.joint_distribution(games.consensus_levels(jnp.asarray(x), 2), 2)


def test_a_factorised_model_of_two_modes_is_half_wrong_and_a_joint_one_is_not(drawn):
    """Total variation 1 - 2^(1 - n) for n = 2, within 0.04 (2000 samples: 0.01); all of them find the modes."""
    exact = games.consensus_distribution(2, 2)
    found = {name: games.total_variation(exact, joint_of(x[0])) for name, x in drawn.items()}
    for name in ("factorised", "apart"):
        assert abs(found[name] - games.cms_total_variation(2, 2)) < 0.04, found
    assert found["joint"] < 0.1, found
    for x in drawn.values():
        near = np.mean(np.abs(np.abs(x[0]) - 0.8) < 0.3)
        assert near > 0.35, near


@pytest.mark.long
@pytest.mark.parametrize("n", [3, 4])
def test_the_more_agents_the_more_a_product_misses(n):
    """1 - 2^(1 - n) again, of the package's default, and within 0.1 a joint model that fits."""
    spec, exact = (
        Spec((1,) * n, (1,) * n, state_dim=1, horizon=1),
        games.consensus_distribution(n, 2),
    )
    data = (
        games.consensus(n=n, std=0.1).recipes["default"](jax.random.key(0), ROWS).action[None, ::2]
    )
    product = factorised(spec, dof.Config(policy_width=32))
    whole = independent(spec, dof.IndependentConfig(policy_width=48, model="joint"))
    far_off, near = (
        games.total_variation(exact, joint_of(learned(team, data, 2000)[0]))
        for team in (product, whole)
    )
    assert abs(far_off - games.cms_total_variation(n, 2)) < 0.04 and near < 0.1, (far_off, near)


def test_four_gaussians_do_not_tell_them_apart(drawn):
    """The product of their marginals is at 0.02 from them: a factorised model fits as well as a joint one."""
    exact = games.four_gaussians_joint()
    for name, x in drawn.items():
        signs = joint_of(x[1])[:, ::-1]  # agent 2's axis runs from top to bottom
        assert games.total_variation(exact, signs) < 0.09, name
        if name != "joint":
            assert games.total_variation(games.product_of_marginals(signs), signs) < 0.03, name


def test_factorised_and_separately_trained_models_agree_in_distribution(drawn):
    """Every agent's empirical distribution function, and the joint signs."""
    grid = np.linspace(-1, 1, 41)
    for k in range(2):
        one, other = drawn["factorised"][k], drawn["apart"][k]
        below = lambda x: (x[:, :, 0, None] <= grid).mean(axis=0)
        assert np.abs(below(one) - below(other)).max() < 0.1
        assert games.total_variation(joint_of(one), joint_of(other)) < 0.07


def test_pooled_agents_are_one_agent():
    """The paper's baseline cannot tell rows apart: it makes of swapped rows what it made, swapped; others do not."""
    x, obs, t, _ = rows()

    def swaps(team):
        eps = jit(team.trained.net.apply)
        params = params_of(team)
        return far(eps(params, x[:, ::-1], t, obs[:, ::-1])[:, ::-1], eps(params, x, t, obs)) < 1e-5

    ind = dof.IndependentConfig(policy_width=8)
    models = {
        kind: dataclasses.replace(ind, model=kind) for kind in ("pooled", "separate", "joint")
    }
    found = {kind: swaps(independent(PAIR, cfg)) for kind, cfg in models.items()}
    found["shared"] = swaps(
        factorised(PAIR, dataclasses.replace(FIT, policy_width=8, networks="shared"))
    )
    assert found == {"pooled": True, "separate": False, "joint": False, "shared": False}


# --- what is refused ---


@pytest.mark.parametrize("kind", ["atten", "qmix"])
@pytest.mark.parametrize("field", ["noise_mixer", "data_mixer"])
def test_mixers_that_need_others_are_refused_to_decentralised_agents(field, kind):
    cfg = dataclasses.replace(LEARN, **{field: kind})
    allowed = "concat, wconcat, dec-atten" if field == "noise_mixer" else "concat, wconcat"
    with pytest.raises(
        JaxomarlError,
        match=f"--cfg.{field.replace('_', '-')}: expected one of {allowed} for .*central",
    ):
        check(SPEC, cfg, two_modes())
    check(SPEC, dataclasses.replace(cfg, execution="central"), two_modes())


@pytest.mark.parametrize(
    "changed",
    [
        {"schedule": "linear"}, {"schedule": "sigmoid"}, {"levels": 0}, {"candidates": 8}, {"reward": "own"},
        {"noise_mixer": "sum"}, {"data_mixer": "dec-atten"}, {"networks": "deep"}, {"policy_batch": 401},
    ],
)  # fmt: skip
def test_bad_settings_are_refused(changed):
    refused(check, LEARN, changed)


def test_a_schedule_is_taken_where_it_ends_at_noise_and_actions_are_continuous():
    check(SPEC, dataclasses.replace(LEARN, schedule="linear", levels=1000), two_modes())
    check(
        SPEC,
        dataclasses.replace(LEARN, schedule="cosine", critic="own", candidates=8, reward="own"),
        two_modes(),
    )
    with pytest.raises(JaxomarlError, match=r"after 10 levels, found .linear.*0\.904"):
        check(SPEC, dataclasses.replace(LEARN, schedule="linear", levels=10), two_modes())
    for variant in (dof.DOF_P, dof.IND_DIFFUSION):
        with pytest.raises(JaxomarlError, match="--task: expected continuous actions"):
            dof.check(dataclasses.replace(SPEC, discrete=True), variant.config(), None, variant)
    with pytest.raises(JaxomarlError, match="pooled, separate, joint"):
        dof.check(SPEC, dof.IndependentConfig(model="both"), None, dof.IND_DIFFUSION)
