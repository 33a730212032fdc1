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


def loaded(*texts: str) -> list[set[str]]:
    """Those of the heavy packages that Python has loaded after each text; they run in turn, in one process."""
    mark = "loaded:"
    print_modules = (
        "import sys, json; "
        f"print({mark!r} + json.dumps([name.split('.')[0] for name in sys.modules]))"
    )
    lines = run("\n".join(f"{text}\n{print_modules}" for text in texts)).splitlines()
    found = [json.loads(line.removeprefix(mark)) for line in lines if line.startswith(mark)]
    return [set(names) & set(HEAVY) for names in found]


def test_import_loads_nothing_heavy():
    texts = ("import jaxomarl", "import jaxomarl.results.figures", "import matplotlib")
    ours, figures, with_matplotlib = loaded(*texts)
    assert ours == set()
    assert "matplotlib" not in figures, "it is loaded where a figure is drawn"
    assert with_matplotlib - figures == {"matplotlib"}, "the check sees nothing"


def test_systems_load_no_distributions_until_they_need_one():
    density = """
import jax, jax.numpy as jnp
from jaxomarl.losses.gaussian import Normal, log_density
policy, action = Normal(jnp.zeros(2), jnp.zeros(2)), jnp.full(2, 0.5)
with jax.checking_leaks():
    inside = jax.jit(log_density)(policy, action, jnp.ones(2))  # the import happens while this is traced
    outside = log_density(policy, action, jnp.ones(2))
assert abs(float(inside - outside)) < 1e-6
"""
    before, after = loaded("import jaxomarl.algorithms", density)
    assert "distrax" not in before
    assert "distrax" in after


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
