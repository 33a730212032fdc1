"""`import jaxomarl` is light, needs no home and writes to none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("mujoco", "jaxmarl", "orbax", "distrax", "torch", "tensorflow", "matplotlib")


def run(text: str, **env: str) -> str:
    """What a fresh Python prints, started in the repository with nothing in its environment but `env`."""
    kept = {
        name: os.environ[name]
        for name in ("PATH", "JAX_PLATFORMS", "LD_LIBRARY_PATH", "PYTHONPYCACHEPREFIX")
        if name in os.environ
    }
    command = [sys.executable, "-B", "-c", text]
    done = subprocess.run(
        command, cwd=ROOT, env=kept | env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded(text: str) -> set[str]:
    """Those of the heavy packages that `text` makes Python load."""
    print_modules = (
        "import sys, json; print(json.dumps([name.split('.')[0] for name in sys.modules]))"
    )
    return set(json.loads(run(f"{text}\n{print_modules}").splitlines()[-1])) & set(HEAVY)


def test_import_loads_nothing_heavy():
    assert loaded("import jaxomarl") == set()
    assert loaded("import jaxomarl, matplotlib") == {"matplotlib"}, "the check sees nothing"


def test_systems_load_no_distributions_until_they_need_one():
    assert "distrax" not in loaded("import jaxomarl.algorithms")
    density = """
import jax, jax.numpy as jnp
from jaxomarl.losses.gaussian import Normal, log_density
policy, action = Normal(jnp.zeros(2), jnp.zeros(2)), jnp.full(2, 0.5)
with jax.checking_leaks():
    inside = jax.jit(log_density)(policy, action, jnp.ones(2))  # the import happens while this is traced
    outside = log_density(policy, action, jnp.ones(2))
assert abs(float(inside - outside)) < 1e-6
"""
    assert "distrax" in loaded(density)


@pytest.mark.parametrize("home", [None, "/dev/null/home"], ids=["unset", "unwritable"])
def test_import_needs_no_home(home):
    text = "import jaxomarl, jaxomarl.base, jaxomarl.config; print(jaxomarl.__name__)"
    assert run(text, **({"HOME": home} if home else {})).strip() == "jaxomarl"


def test_import_writes_nothing(tmp_path):
    folders = {
        name: str(tmp_path / name)
        for name in ("HOME", "JAXOMARL_CACHE", "XDG_CACHE_HOME", "TMPDIR")
    }
    for folder in folders.values():
        Path(folder).mkdir()
    run("import jaxomarl, jaxomarl.base, jaxomarl.config", **folders)
    assert [path for folder in folders.values() for path in Path(folder).rglob("*")] == []
