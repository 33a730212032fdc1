"""What all tests share: the CPU, shape checks at run time, a cache of compiled programs, and the folders."""

import gc
import importlib.metadata
import os
import sys
import zlib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MAPPINGS = 20_000
"""Memory mappings of a process above which compiled programs are let go: Linux aborts one at 65,530."""
FIRST = (
    "contract/test_contract",
    "probes/test_planners",
    "cli/test_sweep",
    "probes/test_coda",
    "envs/test_environments",
    "papers/test_dom2_tables",
    "cli/test_augment",
    "api/test_final",
    "faults/test_kill",
)
"""The files that take longest, by falling seconds: they start first, and small ones end a run."""
pytest_plugins = ["seconds"]

# Python's compiled modules stay in a folder of their own, also where none are to be written beside the sources: to compile
# JAX's takes each process that a test starts two seconds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = str(ROOT / ".pytest_cache" / "pyc")
sys.dont_write_bytecode = False

# Before JAX is imported, and for the processes that tests start as well. Programs compiled in an earlier session are
# read from disk; a torn entry (two workers at once, a killed process) fails its checksum, and JAX compiles as usual.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.pop("JAXOMARL_CACHE", None)  # a command would keep its programs there
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(ROOT / ".pytest_cache" / "xla")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
# Small programs that run once: XLA's costly passes take longer than they save. Set it to 0 to have them.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Flags of jaxlib 0.10, two ways to compile faster: XLA's older fusions, which take a third of the
# newer ones' time, and one piece of code for a program, which takes 30 % less than pieces for
# threads. Another jaxlib ends the process at a flag that it does not know, as 0.11 at the first.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    flags = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()

import checked  # noqa: E402
import jax  # noqa: E402
import jaxtyping  # noqa: E402
import pytest  # noqa: E402
from jax._src import compilation_cache  # noqa: E402
from jax._src.interpreters import mlir  # noqa: E402

_new_context, _contexts = mlir.make_ir_context, []


def _a_context() -> Any:
    """MLIR's context, which JAX makes anew for each program, 5 ms of a processor: one serves 200, then goes with them."""
    if not _contexts:
        _contexts.extend([_new_context()] * 200)
    return _contexts.pop()


mlir.make_ir_context = _a_context

# 13,000 programs are written to the cache: zlib's quickest level takes a third of the usual one's time, and a
# sixth more of the disk. Any process reads both.
compilation_cache.compress_executable = lambda executable: zlib.compress(executable, 1)

# Tracing makes and keeps millions of small objects: collecting often takes a tenth of it.
gc.set_threshold(50_000, 20, 20)
_register_dataclass = jax.tree_util.register_dataclass


def _register_unchecked(cls: type, *args: Any, **kwargs: Any) -> type:
    """JAX builds a registered dataclass around whatever a tree holds (axes, shapes, runs), so its fields go unchecked.

    Its methods, and all functions that take one, are checked.
    """
    cls.__no_type_check__ = True  # type: ignore[attr-defined]
    return _register_dataclass(cls, *args, **kwargs)


jax.tree_util.register_dataclass = _register_unchecked
jaxtyping.jaxtyped = checked.jaxtyped
jaxtyping.install_import_hook("jaxomarl", "beartype.beartype")

from jaxomarl.results import canvas  # noqa: E402

# Commands write a figure in three formats. Each takes half a second, so that tests of copies ask for them.
canvas.COPIES = ()


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a session where JAX was imported before the lines above and so does not heed them."""
    if jax.config.jax_platforms != "cpu" or jax.config.jax_compilation_cache_dir is None:
        raise pytest.UsageError(
            "a pytest plugin imported JAX before tests/conftest.py: disable it with -p no:NAME"
        )
    config.addinivalue_line(
        "filterwarnings", "ignore:Error reading persistent compilation cache entry"
    )


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Between files, let programs go that have piled up: each holds a few mappings, and thousands are compiled."""
    maps = Path("/proc/self/maps")
    if nextitem is None or nextitem.path == item.path or not maps.exists():
        return
    if maps.read_bytes().count(b"\n") > MAPPINGS:
        jax.clear_caches()
        gc.collect()


def pytest_sessionfinish() -> None:
    """Let go of what is left with the process: pytest would search gigabytes for garbage, twice."""
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files in the order that workers take them: the longest first, the others as they are."""
    place = {f"{name}.py": k for k, name in enumerate(FIRST)}
    items.sort(key=lambda item: place.get("/".join(item.path.parts[-2:]), len(FIRST)))


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference material beside the repository; the test is skipped where there is none."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no ../shared: its reference material is not part of the repository")
    return folder


@pytest.fixture(scope="session")
def _cache_folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def cache(_cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """jaxomarl's own cache, in a folder that the tests of one session share; for tests that write there."""
    monkeypatch.setenv("JAXOMARL_CACHE", str(_cache_folder))
    return _cache_folder
