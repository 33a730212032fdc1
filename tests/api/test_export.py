"""Exported policies: the page of NumPy and the program act as the policy does."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxomarl
from jaxomarl.algorithms import REGISTRY
from jaxomarl.api import export, policy
from jaxomarl.api.policy import Policy
from jaxomarl.base import JaxomarlError
from jaxomarl.envs.catalog import make

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "docs/evidence/omsd-expert/omsd/seed-0"
"""A run of an earlier commit: what it wrote has to load from then on."""
SMALL = {"policy_width": 8, "width": 8, "levels": 3, "context": 2, "layers": 1, "heads": 1}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "policy"
    return out, export.export(KEPT, out)


@pytest.fixture(scope="module")
def observations():
    rng = np.random.default_rng(1)
    return rng.uniform(-1.5, 1.5, (20, 3, 18)).astype(np.float32)


def untrained(name, task="mpe/spread"):
    """A policy with drawn parameters: nothing about acting depends on training."""
    system, spec = REGISTRY[name], make(task).env.spec
    known = {f for f in SMALL if f in system.Config.__dataclass_fields__}
    cfg = system.Config(**{f: SMALL[f] for f in known})
    stages = system.pipeline(spec, cfg, None)
    rng = np.random.default_rng(0)

    def drawn(like):
        if jnp.issubdtype(like.dtype, jnp.floating):
            return jnp.asarray(rng.normal(0.0, 0.3, like.shape), like.dtype)
        return jnp.zeros(like.shape, like.dtype)

    state, past = jax.tree.map(drawn, policy.shapes(system, cfg, stages, spec))
    return Policy(stages[-1].algorithm, state, past, spec, {})


def test_the_page_acts_in_numpy_alone(exported, observations, tmp_path):
    out, _ = exported
    page = (ROOT / "docs/export.md").read_text(encoding="utf-8")
    (code, *_) = [c for c in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "einsum" in c]
    np.save(tmp_path / "obs.npy", observations)
    code += "assert not any(name.startswith('jax') for name in sys.modules)\n"
    command = [sys.executable, "-I", "-c", code, str(out), str(tmp_path / "obs.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    player = jaxomarl.load(KEPT)
    theirs = np.stack([player.act(obs) for obs in observations])
    np.testing.assert_allclose(json.loads(done.stdout), theirs, rtol=0.0, atol=1e-6)
    assert np.ptp(theirs) > 0.5


def test_the_card_says_where_the_policy_comes_from(exported):
    out, card = exported
    assert json.loads((out / export.CARD).read_text()) == json.loads(json.dumps(card))
    said = json.loads((KEPT / "run.json").read_text())
    told = ("system", "task", "data", "seed", "swept")
    assert {k: card["policy"][k] for k in told} == {k: said[k] for k in told}
    assert card["policy"]["system"] == "omsd"
    assert card["spec"]["obs_dims"] == [18, 18, 18] and card["network"]["output"] == "tanh"
    assert set(card["files"]) == {policy.FILE, export.PROGRAM}


def test_the_program_acts_as_the_policy(exported, observations):
    out, _ = exported
    program = jax.export.deserialize((out / export.PROGRAM).read_bytes())
    player = jaxomarl.load(KEPT)
    now = policy.blank(player.spec)
    for obs in observations[:3]:
        key = np.zeros(2, np.uint32)
        action, memory = program.call(key, (), obs, np.asarray(now.available), now.reward)
        np.testing.assert_allclose(action, player.act(obs), rtol=0.0, atol=1e-6)
        assert memory == ()


@pytest.mark.parametrize("name", ["madt", "diffusion-bc"])
def test_programs_keep_memories_and_draws(name, observations):
    player = untrained(name)
    program = jax.export.deserialize(export.program(player))
    memory = tuple(np.zeros(x.shape, x.dtype) for x in program.in_avals[1:-3])
    assert bool(memory) == (name == "madt")
    now = policy.blank(player.spec)
    for step, obs in enumerate(observations[:3]):
        key = jax.random.key_data(jax.random.fold_in(jax.random.key(0), step))
        action, memory = program.call(key, memory, obs, now.available, now.reward)
        np.testing.assert_allclose(action, player.act(obs), rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("name", ["madt", "diffusion-bc"])
def test_more_than_a_perceptron_has_no_network_in_its_card(name):
    player = untrained(name)
    leaves, _ = jax.tree_util.tree_flatten_with_path((player.state, player.past))
    arrays = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
    assert export.network(player, arrays) is None


def test_a_network_that_acts_otherwise_is_not_described(monkeypatch):
    player = policy.load_policy(KEPT)
    arrays = policy.read_arrays(KEPT / policy.FILE)
    assert export.network(player, arrays)
    monkeypatch.setattr(export, "output", lambda player, width: "argmax")
    assert export.network(player, arrays) is None


def test_folders_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(JaxomarlError, match="finished run"):
        export.export(tmp_path, tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(JaxomarlError, match="a new or empty folder"):
        export.export(KEPT, tmp_path)
