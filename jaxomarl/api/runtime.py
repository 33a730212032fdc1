"""A command's settings before JAX starts: numbers, devices, and the compilation cache."""

import contextlib
import os
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.extend
from jax.errors import JaxRuntimeError
from jax.experimental.compilation_cache import compilation_cache

from jaxomarl.base import refuse
from jaxomarl.numerics import DETERMINISTIC, PINNED, pin_process
from jaxomarl.paths import user_path
from jaxomarl.training.memory import MemoryTooSmallError


def pin_numbers() -> None:
    """Set our own values of JAX's settings that decide numbers.

    A line names each setting that had another value.
    """
    for name, found in pin_process().items():
        aside = f"{name.upper()}={found} is set aside: jaxomarl computes with {PINNED[name]}"
        print(f"{aside}, so that a result does not depend on the shell", file=sys.stderr)


# --- devices ---


def use_cores() -> int:
    """Make each processor core a device, so that runs are sharded over cores as over accelerators.

    Nothing changes where the user has chosen the number (JAX_NUM_CPU_DEVICES), or where JAX has
    started already. Returns the number of devices. Raises JaxomarlError where the platform that was
    asked for is not there.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    chosen = "JAX_NUM_CPU_DEVICES" in os.environ or "xla_force_host_platform_device_count" in flags
    if not chosen:
        # it has started, or the system has no affinities
        with contextlib.suppress(RuntimeError, AttributeError):
            jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    return devices()


def devices() -> int:
    """The number of devices.

    Raises JaxomarlError where JAX cannot start the platform that was asked for.
    """
    try:
        return jax.device_count()
    # an unknown name, a missing driver and a missing plugin raise three kinds of error
    except Exception as error:
        set_to: Any = jax.config
        asked = set_to.jax_platforms or set_to.jax_platform_name or ""
        there = platforms()
        lines = str(error).splitlines()
        reason = ""
        if lines:
            reason = f" ({lines[0][:200]})"
        way = f"Name one of these, or unset it for JAX to choose.{reason}"
        expected = f"a platform that is there: {', '.join(there)}"
        raise refuse("JAX_PLATFORMS", expected, asked, way) from None


def platforms() -> list[str]:
    """The platforms that JAX can start here, found by letting it choose."""
    settings = ("jax_platforms", "jax_platform_name")
    before = {name: getattr(jax.config, name, None) for name in settings}
    try:
        for name in before:
            jax.config.update(name, None)
        return sorted({"cpu", *(device.platform for device in jax.devices())})
    except Exception:
        return ["cpu"]
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        jax.extend.backend.clear_backends()


@contextlib.contextmanager
def memory_refused() -> Iterator[None]:
    """Turn an error of JAX or NumPy about memory into a MemoryTooSmallError."""
    try:
        yield
    except (MemoryError, JaxRuntimeError) as error:
        wanted = memory_wanted(error)
        if not wanted:
            raise
        way = (
            "Take smaller networks or batches (--cfg.*-width, --cfg.*-batch), or fewer seeds at "
            "once (--seeds). What was finished is kept."
        )
        told = refuse("memory of the device", "room for all arrays", wanted, way)
        raise MemoryTooSmallError(str(told)) from error


def memory_wanted(error: Exception) -> str:
    """What an error says of memory that a device does not have; "" for other errors."""
    lines = str(error).splitlines() or [""]
    if isinstance(error, MemoryError):
        lines[0] = lines[0] or "more was asked for than there is"
    elif "RESOURCE_EXHAUSTED" not in lines[0] and "out of memory" not in lines[0].lower():
        return ""
    asked = re.search(r"allocat\w+ (\d[\d.]*\s?\w*)", str(error))
    return f"{asked[1]} were asked for" if asked else lines[0][:200]


# --- compiled programs ---


def cache_folder() -> Path:
    """The folder `$JAXOMARL_CACHE`, or jaxomarl under the user's cache directory."""
    if os.environ.get("JAXOMARL_CACHE"):
        return user_path(os.environ["JAXOMARL_CACHE"])
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return user_path(caches) / "jaxomarl"


def program_folder() -> Path:
    """The folder of compiled programs, by our variable, by JAX's own setting, or by default."""
    jax_folder = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if jax_folder and not os.environ.get("JAXOMARL_CACHE"):
        return user_path(jax_folder)
    return cache_folder() / "xla"


def keep_programs() -> Path | None:
    """Turn the compilation cache on, for every program, and return its folder.

    Where the folder cannot be written, there is no cache, and the result is None.
    """
    try:
        folder = program_folder()
        # JAX also writes to a bucket, whose address has ://
        if "://" not in str(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                raise PermissionError(f"{folder} cannot be written")
    except (OSError, ValueError) as error:
        way = "set JAXOMARL_CACHE to a folder that can be written"
        warnings.warn(f"no compile cache: {error}; {way}", stacklevel=2)
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    always = {
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in always.items():
        if name.upper() not in os.environ:
            jax.config.update(name, value)
    return folder


@contextlib.contextmanager
def programs(kept: bool) -> Iterator[None]:
    """Keep compiled programs while a command runs.

    Where `kept` is False, none is kept, whatever the setting of JAX.
    """
    if kept:
        keep_programs()
        yield
        return
    name = "jax_enable_compilation_cache"
    before = getattr(jax.config, name)
    jax.config.update(name, False)
    # the cache reads its setting once
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update(name, before)
        compilation_cache.reset_cache()


# --- precision ---

PRECISIONS = ("default", "float32", "bfloat16")


def use_determinism(wanted: bool) -> None:
    """Ask the compiler for kernels that give a card the same bits every time, before JAX starts."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    if wanted and DETERMINISTIC not in flags:
        os.environ["XLA_FLAGS"] = " ".join([*flags, DETERMINISTIC])


def use_precision(name: str) -> None:
    """Set the precision of matrix products from here on.

    The empty name leaves what is set (JAX_DEFAULT_MATMUL_PRECISION).
    """
    if not name:
        return
    if name not in PRECISIONS:
        way = "Leave it out for the device's own."
        raise refuse("--precision", f"one of {', '.join(PRECISIONS)}", name, way)
    value: Any = name
    if name == "default":
        value = None
    jax.config.update("jax_default_matmul_precision", value)
