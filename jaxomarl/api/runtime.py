"""What a command sets before JAX starts: its numbers, its devices, and where programs are kept."""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.extend
from jax.experimental.compilation_cache import compilation_cache

from jaxomarl.base import refuse
from jaxomarl.numerics import PINNED, pin_process
from jaxomarl.paths import user_path


def pin_numbers() -> None:
    """Take our own values of JAX's settings that decide numbers; a line says which ones were otherwise."""
    for name, found in pin_process().items():
        said = f"{name.upper()}={found} is set aside: jaxomarl computes with {PINNED[name]}"
        print(f"{said}, so that a result does not depend on the shell", file=sys.stderr)


# --- devices ---


def use_cores() -> int:
    """Make each processor core a device, so that runs spread over cores as they do over accelerators.

    A no-op where the user has said otherwise (JAX_NUM_CPU_DEVICES) or JAX has started already.
    Returns the number of devices; raises JaxomarlError where the platform that was asked for is not there.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    chosen = "JAX_NUM_CPU_DEVICES" in os.environ or "xla_force_host_platform_device_count" in flags
    if not chosen:
        with contextlib.suppress(
            RuntimeError, AttributeError
        ):  # it has started; or there are no affinities
            jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    return devices()


def devices() -> int:
    """The number of devices; raises JaxomarlError where JAX cannot start the platform that was asked for."""
    try:
        return jax.device_count()
    except (
        Exception
    ) as error:  # an unknown name, a missing driver and a missing plugin are three kinds of error
        asked = jax.config.jax_platforms or jax.config.jax_platform_name or ""  # type: ignore[attr-defined]
        there = platforms()
        reason = f" ({str(error).splitlines()[0][:200]})" if str(error) else ""
        way = f"Name one of these, or unset it for JAX to choose.{reason}"
        raise refuse(
            "JAX_PLATFORMS", f"a platform that is there: {', '.join(there)}", asked, way
        ) from None


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


# --- compiled programs ---


def cache_folder() -> Path:
    """`$JAXOMARL_CACHE`, or jaxomarl under the user's cache directory."""
    if os.environ.get("JAXOMARL_CACHE"):
        return user_path(os.environ["JAXOMARL_CACHE"])
    return user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "jaxomarl"


def program_folder() -> Path:
    """Where compiled programs are kept: by our variable, by JAX's own setting, or by default."""
    jaxs = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if jaxs and not os.environ.get("JAXOMARL_CACHE"):
        return user_path(jaxs)
    return cache_folder() / "xla"


def keep_programs() -> Path | None:
    """Turn the compilation cache on, for every program; None, and no cache, where its folder cannot be written."""
    try:
        folder = program_folder()
        if "://" not in str(folder):  # JAX also writes to a bucket
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
    """Keep compiled programs while a command runs, or keep none, JAX's own setting included."""
    if kept:
        keep_programs()
        yield
        return
    name = "jax_enable_compilation_cache"
    before = getattr(jax.config, name)
    jax.config.update(name, False)
    compilation_cache.reset_cache()  # which asks for the setting once
    try:
        yield
    finally:
        jax.config.update(name, before)
        compilation_cache.reset_cache()


# --- precision ---


PRECISIONS = ("default", "float32", "bfloat16")


def use_precision(name: str) -> None:
    """Round as `name` says from here on; the empty name leaves what is set (JAX_DEFAULT_MATMUL_PRECISION)."""
    if name and name not in PRECISIONS:
        raise refuse(
            "--precision",
            f"one of {', '.join(PRECISIONS)}",
            name,
            "Leave it out for the device's own.",
        )
    value: Any = None if name == "default" else name
    if name:
        jax.config.update("jax_default_matmul_precision", value)
