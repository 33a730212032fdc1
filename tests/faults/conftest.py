"""Tiny sweeps in processes of their own, to be killed; and what must be equal between two of them."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHUNK, EVERY, CHUNKS = 5, 2, 4
STEPS = CHUNK * CHUNKS
REGISTERS = ROOT / "tests" / "registers_pair.py"
PAIR = ("weighted", "clone")
"""The systems of tests/pair.py, three stages; campaign.py kills those of the package."""
SMALL = (
    *("--seeds", "2", "--rows", "200", "--episodes", "3", "--final-episodes", "3"),
    *("--save-every", "0", "--cfg.chunk", str(CHUNK), "--cfg.every", str(EVERY)),
    *(x for stage in ("critic", "policy") for x in (f"--cfg.{stage}-steps", str(STEPS))),
    *(x for stage in ("critic", "policy") for x in (f"--cfg.{stage}-batch", "8")),
    *(x for stage in ("critic", "policy") for x in (f"--cfg.{stage}-width", "8")),
)


class Sweeps:
    """Starts sweeps, and reads what they left."""

    small, chunk, every, chunks = SMALL, CHUNK, EVERY, CHUNKS
    pair = PAIR

    def __init__(self, stub: Path, devices: int) -> None:
        # The same devices whatever the machine, programs that compile quickly, and no time spent on pictures.
        self.env = os.environ | {
            "PYTHONPATH": f"{stub}{os.pathsep}{ROOT}",
            "JAX_NUM_CPU_DEVICES": str(devices),
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        }

    def start(
        self, out: Path, *flags: str, systems: tuple[str, ...] = ("iql",), **more
    ) -> subprocess.Popen[str]:
        """A sweep in its own process."""
        imports = ("--import", str(REGISTERS)) if set(systems) & set(PAIR) else ()
        command = [
            sys.executable,
            "-m",
            "experiments.sweep",
            *imports,
            "--systems",
            *systems,
            "--out",
            str(out),
            *SMALL,
            *flags,
        ]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=out.parent, env=self.env, stdout=pipe, stderr=pipe, text=True, **more
        )

    def run(self, out: Path, *flags: str, **more) -> tuple[int, str]:
        """(exit code, stderr) of a whole sweep."""
        process = self.start(out, *flags, **more)
        text = process.communicate(timeout=600)[1]
        return process.returncode, text

    @staticmethod
    def wait(
        process: subprocess.Popen[str],
        happens: Callable[[], bool],
        near: Path,
        seconds: float = 300.0,
    ) -> None:
        """Poll until something happens, closely once a path like `near` is there; the process must still be alive then."""
        rarely = True
        end = time.monotonic() + seconds
        while not happens():
            assert process.poll() is None, f"ended too early: {process.communicate()[1]}"
            assert time.monotonic() < end, "nothing happened"
            rarely = rarely and not any(near.parent.glob(near.name))
            time.sleep(0.05 if rarely else 0.002)

    @staticmethod
    def numbers(out: Path) -> dict[str, bytes]:
        """Tables and final policies by name: what must be the same to the bit."""
        kept = ("metrics.csv", "returns.csv", "summary.csv", "policy.safetensors")
        return {
            p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.name in kept
        }

    @staticmethod
    def journals(out: Path) -> dict[str, list[str]]:
        """Chunks that were begun, by stage folder."""
        return {p.parent.name: p.read_text().split() for p in out.glob("stages/*/executed")}

    @staticmethod
    def finished(out: Path) -> set[str]:
        """Stage folders that say they are done."""
        return {p.parent.name for p in out.glob("stages/*/DONE")}


@pytest.fixture(scope="session")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose matplotlib is not installed."""
    stub = tmp_path_factory.mktemp("stub")
    (stub / "matplotlib").mkdir()
    (stub / "matplotlib" / "__init__.py").write_text(
        'raise ModuleNotFoundError("hidden", name="matplotlib")\n'
    )
    return stub


@pytest.fixture(scope="session")
def one_device(stub: Path) -> Sweeps:
    """How sweeps are started on one device, as in the tests' own process."""
    return Sweeps(stub, 1)


@pytest.fixture(
    scope="session",
    params=[1, pytest.param(2, marks=pytest.mark.long)],
    ids=lambda n: f"{n}-devices",
)
def sweeps(request: pytest.FixtureRequest, stub: Path) -> Sweeps:
    """How the tests of this folder start their sweeps; with two devices, a sweep's two seeds lie on one each."""
    return Sweeps(stub, request.param)


@pytest.fixture(scope="session")
def whole(sweeps: Sweeps, tmp_path_factory) -> Path:
    """OUT of a sweep over two systems that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "out"
    code, text = sweeps.run(out, systems=PAIR)
    assert code == 0, text
    return out


@pytest.fixture(scope="session")
def whole_of_the_package(sweeps: Sweeps, tmp_path_factory) -> Path:
    """The same of two systems of the package."""
    out = tmp_path_factory.mktemp("package") / "out"
    code, text = sweeps.run(out, systems=("iql", "bc"))
    assert code == 0, text
    return out
