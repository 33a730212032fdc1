"""Every system that takes choices keeps to what is legal: one program a system, of its stages' own functions.

Each stage is trained for two updates in one compiled program, and acts on every mask of legal actions.
"""

import functools
import itertools

import choices
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trial import QUICK, Trial, takes

from jaxomarl.algorithms import REGISTRY
from jaxomarl.base import Observation, Spec
from jaxomarl.optim import Net

SPEC = choices.SPEC
FEW = Spec((2, 2), (2, 2), 1, 1, discrete=True)


PLANNERS = ("dof-t", "madiff-d", "madiff-c", "decision-diffuser")
"""Their plans are of all that is seen; tests/probes/test_planners.py has masks and weights of their actions."""
ALIKE = ("brpo-ctde", "joint-score", "iql-ind", "omac", "cql", "macql", "mabcq")
"""Systems whose stages are those of `brpo-ind`, `iql`, `omiga`, `cfcql` and `qmix` but for a loss; `make test-long` has them."""
VALUED = ("qmix", "macql", "mabcq", "cql", "cfcql")
"""Systems whose policy is a value: it goes on after an agent's death, as its reward does."""
OFFLINE = [n for n, system in REGISTRY.items() if takes(system, FEW) and not system.online]
LONG = PLANNERS + ALIKE
SYSTEMS = [pytest.param(n, marks=[pytest.mark.long] * (n in LONG)) for n in OFFLINE]
MASKS = [m for m in itertools.product((0, 1), repeat=3) if any(m)]
"""All masks of three actions with a legal one."""


@functools.cache
def trained(name):
    """A trial, each stage's finished state, the batches of its updates, and its first policy's nets."""
    trial = Trial(name, REGISTRY[name], choices.TASK)

    def train(key, data, stats):
        past, firsts, batches = {"stats": stats}, {}, {}
        for index, stage in enumerate(trial.stages):
            algorithm = stage.algorithm
            keys = jax.random.split(jax.random.fold_in(key, index), 5)
            state = algorithm.init(keys[0], past, data)
            firsts[stage.name] = state
            if stage.refresh:
                state = stage.refresh(keys[1], state, past, data)

            def one(state, keys, algorithm=algorithm):
                rows = algorithm.batch(keys[0], state, data)
                state, metrics = algorithm.update(keys[1], state, past, rows)
                return state, (rows, metrics)

            state, told = jax.lax.scan(one, state, keys[1:].reshape(2, 2))
            batches[stage.name] = jax.tree.map(lambda x: x[-1], told)
            past[stage.name] = state
        return past, firsts, batches

    given = (jax.random.key(0), trial.data, trial.stats)
    program = jax.jit(train).lower(*given).compile(compiler_options=QUICK)
    return trial, *program(*given)


def test_some_systems_take_choices():
    assert {"bc", "iql", "iql-ind", "icq", "omiga", "madt", "dof-t"} <= set(OFFLINE)
    assert not {"dom2", "brac", "td3-bc"} & set(OFFLINE)


@pytest.mark.parametrize("name", SYSTEMS)
def test_training_is_finite_where_one_action_is_legal(name):
    """The data hold rows of dead agents, whose only legal action is the first."""
    trial, past, _, batches = trained(name)
    alone = np.asarray(trial.data.extra["available"]).sum(axis=-1) == 1
    assert alone.any() and (np.asarray(trial.data.extra["alive"]) == 0).any()
    for stage in trial.stages:
        leaves = jax.tree.leaves((past[stage.name], batches[stage.name][1]))
        numbers = [x for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
        assert all(np.isfinite(x).all() for x in numbers), stage.name


@pytest.mark.parametrize("name", SYSTEMS)
def test_what_is_not_legal_is_never_played(name):
    """One-hot rows over the legal actions alone, for every mask; what is never legal is not missed."""
    trial, past, _, _ = trained(name)
    rng = np.random.default_rng(2)
    legal = np.array([[[*m[:w], *[0] * (3 - w)] for w in SPEC.act_dims] for m in MASKS])
    # an agent without a legal action is no state of any task
    legal[legal.sum(axis=-1) == 0, 0] = 1
    obs = rng.normal(size=(len(MASKS), *SPEC.obs_mask.shape)) * SPEC.obs_mask * 3.0
    seen = Observation(
        jnp.asarray(obs, jnp.float32), jnp.asarray(legal > 0), jnp.zeros((len(MASKS), 3))
    )
    for stage in trial.stages:
        if stage.algorithm.act is None:
            continue
        before = {
            k: v for k, v in past.items() if k == "stats" or k in [s.name for s in trial.stages]
        }

        def play(key, state, now, stage=stage, before=before):
            return stage.algorithm.act(key, state, before, stage.algorithm.memory, now)[0]

        keys = jax.random.split(jax.random.key(3), len(MASKS))
        act = jax.jit(jax.vmap(play, in_axes=(0, None, 0)))
        given = (keys, past[stage.name], seen)
        action = np.asarray(act.lower(*given).compile(compiler_options=QUICK)(*given))
        np.testing.assert_array_equal(action.sum(axis=-1), 1.0)
        np.testing.assert_array_equal(np.sort(action)[..., -1], 1.0)
        assert not (action * (1 - legal)).any(), stage.name


@pytest.mark.parametrize("name", [n for n in SYSTEMS if n.values[0] not in VALUED + PLANNERS])
def test_the_dead_move_no_policy(name):
    """Where all rows are of dead agents, no parameter of a policy moves; critics may, as rewards go on."""
    trial, past, firsts, batches = trained(name)
    stage = trial.stages[-1]
    state = firsts[stage.name]
    rows, _ = batches[stage.name]
    dead = rows._replace(alive=jnp.zeros_like(rows.alive))

    def update(state, rows):
        return stage.algorithm.update(jax.random.key(1), state, past, rows)[0]

    program = jax.jit(update).lower(state, dead).compile(compiler_options=QUICK)
    moved = lambda rows: [
        not np.array_equal(x, y)
        for before, after in zip(policies(state), policies(program(state, rows)), strict=True)
        for x, y in zip(*map(jax.tree.leaves, (before.params, after.params)), strict=True)
    ]
    assert policies(state) and any(moved(rows))
    assert not any(moved(dead))


def policies(state):
    """The policies' networks of a stage that trains nothing else; `actor` where there are critics too."""
    if hasattr(state, "actor"):
        state = state.actor
    is_net = lambda x: isinstance(x, Net)
    return [x for x in jax.tree.leaves(state, is_leaf=is_net) if is_net(x)]
