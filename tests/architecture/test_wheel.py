"""The wheel holds the package and nothing else, and runs from any folder without the checkout."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[2]
Run = Callable[[Sequence[str], Path], subprocess.CompletedProcess[str]]


def python(
    *args: str, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """This environment's Python; what went wrong is shown."""
    command = [sys.executable, *args]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this checkout, as the build's back end makes it."""
    return Path(
        next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("wheel"))))
    )


@pytest.fixture(scope="module")
def target(wheel: Path) -> Path:
    """A folder that the wheel alone is installed in."""
    folder = wheel.parent / "target"
    options = ("--no-deps", "--no-index", "--no-compile", "--quiet", "--target", str(folder))
    python("-m", "pip", "install", *options, str(wheel), cwd=wheel.parent)
    return folder


@pytest.fixture(scope="module")
def installed_wheel(target: Path) -> Run:
    """run(args, cwd): the `jaxomarl` command of the installed wheel, in that folder."""

    def run(args: Sequence[str], cwd: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(target / "bin" / "jaxomarl"), *args]
        return subprocess.run(
            command, cwd=cwd, env=wheel_env(target), capture_output=True, text=True, timeout=900
        )

    return run


def wheel_env(target: Path) -> dict[str, str]:
    """The environment in which the wheel's code is found before the checkout's."""
    return os.environ | {"PYTHONPATH": str(target)}


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    files = {
        path for path in (ROOT / "jaxomarl").rglob("*") if path.is_file() and path.suffix != ".pyc"
    }
    package = {path.relative_to(ROOT).as_posix() for path in files}
    info = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
    assert {name for name in names if not name.startswith(f"{info}/")} == package
    assert "jaxomarl/py.typed" in package
    assert f"{info}/licenses/LICENSE" in names


@pytest.mark.long
def test_it_is_built_in_an_environment_too(wheel, tmp_path):
    """As `python -m build` does it, with what is installed: the same files."""
    flags = ("--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT))
    python("-m", "build", *flags, cwd=tmp_path)
    (built,) = tmp_path.glob("*.whl")
    assert zipfile.ZipFile(built).namelist() == zipfile.ZipFile(wheel).namelist()


def test_the_wheels_code_is_what_runs(target, tmp_path):
    env = wheel_env(target)
    where = python(
        "-c", "import jaxomarl; print(jaxomarl.__file__)", cwd=tmp_path, env=env
    ).stdout.strip()
    assert Path(where) == target / "jaxomarl" / "__init__.py"


def test_the_command_runs_from_any_folder(installed_wheel, target, tmp_path):
    done = installed_wheel(["--help"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "sweep" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_the_module_is_the_command(installed_wheel, target, tmp_path):
    by_module = python("-m", "jaxomarl", "--help", cwd=tmp_path, env=wheel_env(target)).stdout
    assert by_module == installed_wheel(["--help"], tmp_path).stdout


@pytest.mark.long
def test_an_unknown_command_fails(installed_wheel, tmp_path):
    done = installed_wheel(["no-such-command"], tmp_path)
    assert done.returncode != 0
    assert "no-such-command" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.long
def test_a_sweep_runs_from_any_folder(installed_wheel, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # a tiny sweep is mostly compilation
    tiny = {"chunk": 5, "every": 2, "policy-steps": 20, "policy-batch": 8, "policy-width": 8}
    flags = ["--systems", "bc", "--seeds", "2", "--rows", "200", "--episodes", "3"]
    flags += [x for name, value in tiny.items() for x in (f"--cfg.{name}", str(value))]
    done = installed_wheel(["sweep", *flags], tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    (out,) = (tmp_path / "runs").iterdir()
    assert "bc" in (out / "summary.md").read_text()
    assert str(out.relative_to(tmp_path) / "summary.md") in done.stdout
    assert len(list(out.rglob("policy.safetensors"))) == 2
