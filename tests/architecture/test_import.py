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


MARK = "after:"
FOLDERS = ("HOME", "JAXOMARL_CACHE", "XDG_CACHE_HOME", "TMPDIR")
AFTER_EACH = f"""
import sys, os, json, pathlib
names = [name.split(".")[0] for name in sys.modules]
files = [str(p) for name in {FOLDERS!r} for p in pathlib.Path(os.environ[name]).rglob("*")]
print({MARK!r} + json.dumps([names, files]))
"""
DENSITY = """
import jax, jax.numpy as jnp
from jaxomarl.losses.gaussian import Normal, log_density
policy, action = Normal(jnp.zeros(2), jnp.zeros(2)), jnp.full(2, 0.5)
with jax.checking_leaks():
    inside = jax.jit(log_density)(policy, action, jnp.ones(2))  # the import happens while this is traced
    outside = log_density(policy, action, jnp.ones(2))
assert abs(float(inside - outside)) < 1e-6
"""
TEXTS = {
    "package": "import jaxomarl",
    "systems": "import jaxomarl.base, jaxomarl.config, jaxomarl.algorithms",
    "unchecked": "import jax.numpy; jaxomarl.base.Layout(1, 1, 1, 1).unpack(jax.numpy.zeros((3, 7), int))",
    "density": DENSITY,
    "figures": "import jaxomarl.results.figures",
    "matplotlib": "import matplotlib",
}
"""What one fresh process does in turn; another one would take seconds to import JAX."""


@pytest.fixture(scope="module")
def after(tmp_path_factory) -> dict[str, tuple[set[str], list[str]]]:
    """Text -> those of the heavy packages that Python has loaded after it, and the files that it has written."""
    folders = {name: str(tmp_path_factory.mktemp(name)) for name in FOLDERS}
    lines = run("\n".join(f"{text}\n{AFTER_EACH}" for text in TEXTS.values()), **folders)
    told = [line.removeprefix(MARK) for line in lines.splitlines() if line.startswith(MARK)]
    found = {name: json.loads(line) for name, line in zip(TEXTS, told, strict=True)}
    return {name: (set(names) & set(HEAVY), files) for name, (names, files) in found.items()}


def test_import_loads_nothing_heavy(after):
    ours, figures, with_matplotlib = (
        after[name][0] for name in ("package", "figures", "matplotlib")
    )
    assert ours == set()
    assert "matplotlib" not in figures, "it is loaded where a figure is drawn"
    assert with_matplotlib - figures == {"matplotlib"}, "the check sees nothing"


def test_systems_load_no_distributions_until_they_need_one(after):
    assert "distrax" not in after["systems"][0]
    assert "distrax" in after["density"][0]


def test_outside_tests_no_shape_is_checked(after):
    """The process goes on after a call with a wrong dtype, which tests/architecture/test_shape_checks.py refuses."""
    assert after["unchecked"][0] == after["systems"][0]


def test_import_writes_nothing(after):
    assert after["package"][1] == after["systems"][1] == []


@pytest.mark.parametrize(
    "home",
    [
        pytest.param(None, marks=pytest.mark.long, id="unset"),
        pytest.param("/dev/null/home", id="unwritable"),
    ],
)
def test_import_needs_no_home(home):
    text = "import jaxomarl, jaxomarl.base, jaxomarl.config; print(jaxomarl.__name__)"
    assert run(text, **({"HOME": home} if home else {})).strip() == "jaxomarl"
