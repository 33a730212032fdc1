"""The trials of all systems, and the process that trains on eight devices while the others run."""

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
        group = "tracing" if item.originalname == "test_by_tracing" else "training"
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


@pytest.fixture(scope="session", autouse=True)
def devices(request, tmp_path_factory):
    """Started before the first test where a test of it was selected; returns (process, folder of its results)."""
    if not any(item.path.name == "test_devices.py" for item in request.session.items):
        yield None
        return
    out = tmp_path_factory.mktemp("devices")
    env = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])]),
    }
    with open(out / "log", "w") as log:
        child = subprocess.Popen(
            [sys.executable, HERE / "on_devices.py", out], env=env, stdout=log, stderr=log
        )
    yield child, out
    child.kill()
    child.wait()


@pytest.fixture(scope="session")
def laid_out(devices):
    """What the process has found: {case: {path: array}}, and whether each state lay over the devices."""
    import numpy as np

    child, out = devices
    assert child.wait(timeout=300) == 0, (out / "log").read_text()[-3000:]
    arrays = {p.stem: dict(np.load(p)) for p in out.glob("*.npz")}
    return arrays, json.loads((out / "layouts.json").read_text())
