"""The trials of all systems, and the process that trains on eight devices."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from trial import TRIALS, Trials, takes

from jaxomarl.algorithms import REGISTRY
from jaxomarl.envs.catalog import make

HERE = Path(__file__).parent
TRACING = (
    "test_by_tracing",
    "test_half_the_bits_by_tracing",
    "test_half_the_bits_of_updates_by_tracing",
)
RUNNER = ("test_alone", "test_a_sweep_trains_shared_stages_once")
"""What one system shows of the runner, for all of them."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--only",
        choices=REGISTRY,
        metavar="SYSTEM",
        help="the contract of one system; with --dist loadgroup, one worker traces and one trains",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give a system's tests, which share programs, to one worker; `--only` drops all others."""
    only, dropped = config.getoption("--only", None), []
    for item in items:
        name = item.callspec.params.get("name") if hasattr(item, "callspec") else None
        group = "tracing" if item.originalname in TRACING else "training"
        if only is not None and (name != only or item.originalname in RUNNER):
            dropped.append(item)
        elif item.path.parent == HERE and name in REGISTRY:
            item.add_marker(pytest.mark.xdist_group(f"{name} {group}" if only else name))
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in dropped]


@pytest.fixture(scope="session")
def trials():
    return TRIALS


@pytest.fixture(scope="session")
def games():
    bandit, xor = make("games/bandit"), make("games/xor")
    return Trials(lambda system: bandit if takes(system, bandit.env.spec) else xor)


@pytest.fixture(scope="session")
def laid_out(tmp_path_factory):
    """What a process of eight devices finds: {case: {path: array}}, and whether each state lay over the devices."""
    return on_eight_devices(tmp_path_factory.mktemp("devices"))


def on_eight_devices(out, *names):
    """What on_devices.py leaves in `out`, of the sweeps of these systems alone where any is named."""
    import numpy as np

    paths = [str(HERE), str(HERE.parent), str(HERE.parents[1])]
    env = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8",
        "PYTHONPATH": os.pathsep.join(paths),
    }
    command = [sys.executable, HERE / "on_devices.py", out, *names]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    arrays = {p.stem: dict(np.load(p)) for p in out.glob("*.npz")}
    return arrays, json.loads((out / "layouts.json").read_text())


@pytest.fixture(scope="session")
def laid_out_more(tmp_path_factory):
    """What such a process finds of other numbers of runs."""
    return on_eight_devices(tmp_path_factory.mktemp("more-devices"), "more")


@pytest.fixture(scope="session")
def laid_out_omsd(tmp_path_factory):
    """What such a process finds of a sweep of OMSD."""
    return on_eight_devices(tmp_path_factory.mktemp("omsd-devices"), "omsd")
