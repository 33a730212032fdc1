"""The command `doctor`: what is installed here, what works, what is missing, and how to add it."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

import jax

from jaxomarl.api import provenance, runtime

NEEDED = ("jax", "jaxlib", "flax", "optax", "distrax", "orbax-checkpoint", "mujoco", "mujoco-mjx")
"""Packages on which numbers rest."""
EXTRAS = {
    "plot": {"matplotlib": "figures and reports", "PIL": "films", "imageio_ffmpeg": ".mp4 films"},
    "data": {"h5py": "data in HDF5"},
    "track": {
        "tensorboardX": "--log tensorboard",
        "tensorboard": "pages of what it wrote",
        "wandb": "--log wandb",
    },
}
"""Extra -> module -> what needs it."""
RENDERERS = {"egl": "libEGL.so.1", "osmesa": "libOSMesa.so.8"}
"""MuJoCo's renderer without a display -> its library."""


def text() -> str:
    """Everything, in sections of a line each."""
    parts = {
        "versions": versions(),
        "devices": devices(),
        "engines": engines(),
        "renderers": renderers(),
        "caches": caches(),
        "missing": missing(),
    }
    lines = []
    for title, own in parts.items():
        lines.append(f"{title}:")
        lines += [f"  {line}" for line in own] or ["  nothing"]
    return "\n".join(lines)


def versions() -> Iterator[str]:
    """Python, the system, this package with its commit, and what numbers rest on."""
    yield f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    source = provenance.source()
    commit = ""
    if source:
        commit = f", commit {source['commit'][:12]}"
        if source["dirty"]:
            commit += " with changes"
    yield f"jaxomarl {importlib.metadata.version('jaxomarl')}{commit}"
    for name in NEEDED:
        yield f"{name} {_version(name)}"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "MISSING"


def devices() -> Iterator[str]:
    """The devices that JAX trains on."""
    for device in jax.devices():
        stats = device.memory_stats() or {}
        memory = ""
        if "bytes_limit" in stats:
            memory = f", {stats['bytes_limit'] / 2**30:.1f} GiB for JAX"
        yield f"{device.platform} {device.id}: {device.device_kind}{memory}"
    yield f"{os.cpu_count()} processors, of which this process may use {_usable()}"


def _usable() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def engines() -> Iterator[str]:
    """What simulates the tasks."""
    yield "particle tasks and games: JAX, on the device"
    for name, module in (("robots on a CPU", "mujoco"), ("robots on a card", "mujoco.mjx")):
        found = "there" if importlib.util.find_spec(module) else "MISSING"
        yield f"{name}: {module} {found}"


def renderers() -> Iterator[str]:
    """What draws films: MuJoCo's libraries, and ffmpeg."""
    for name, library in RENDERERS.items():
        yield f"robots by {name}: {'there' if _loads(library) else f'no {library}'}"
    if os.environ.get("MUJOCO_GL"):
        yield f"MUJOCO_GL={os.environ['MUJOCO_GL']} is taken"
    if not any(map(_loads, RENDERERS.values())):
        yield "films of robots are plain drawings; try: apt-get install libosmesa6"
    own = importlib.util.find_spec("imageio_ffmpeg") is not None
    ffmpeg = "its own" if own else shutil.which("ffmpeg") or "none"
    yield f"ffmpeg for .mp4: {ffmpeg}"


def _loads(library: str) -> bool:
    """Whether a shared library can be opened."""
    import ctypes

    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def caches() -> Iterator[str]:
    """Where compiled programs are kept, and how large they are together."""
    folder = runtime.program_folder()
    yield f"compiled programs: {folder}, {_size(folder)}"


def _size(folder: Path) -> str:
    """The size of a folder in words."""
    if not folder.is_dir():
        return "not there yet"
    total = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return f"{total / 2**20:,.1f} MiB"


def missing() -> list[str]:
    """The optional packages that are not installed, what needs them, and how to add them."""
    lines = []
    for extra, modules in EXTRAS.items():
        for module, use in modules.items():
            if importlib.util.find_spec(module) is None:
                lines.append(f"{module}, for {use}: pip install 'jaxomarl[{extra}]'")
    return lines
