"""What a command sets before JAX starts: one CPU device per core, and the persistent compilation cache."""

import contextlib
import os
import warnings
from pathlib import Path

import jax

from jaxomarl.base import refuse


def use_cores() -> int:
    """Make each processor core a device, so that runs spread over cores as they do over accelerators.

    A no-op where the user has said otherwise (JAX_NUM_CPU_DEVICES) or JAX has started already. Returns the devices.
    """
    if "JAX_NUM_CPU_DEVICES" not in os.environ and "xla_force_host_platform_device_count" not in os.environ.get(
        "XLA_FLAGS", ""
    ):
        with contextlib.suppress(RuntimeError, AttributeError):  # started already; or a system without affinities
            jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    return jax.device_count()


def cache_folder() -> Path:
    """`$JAXOMARL_CACHE`, or jaxomarl under the user's cache directory."""
    if "JAXOMARL_CACHE" in os.environ:
        return Path(os.environ["JAXOMARL_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "jaxomarl"


def keep_programs() -> Path | None:
    """Turn the compilation cache on, for every program; None, and no cache, where the folder cannot be written."""
    try:
        folder = cache_folder() / "xla"
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{folder} cannot be written")
    except (OSError, RuntimeError) as error:
        warnings.warn(f"no compile cache: {error}; set JAXOMARL_CACHE to a folder that can be written", stacklevel=2)
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return folder


PRECISIONS = ("default", "float32", "bfloat16")


def use_precision(name: str) -> None:
    """Round as `name` says from here on; the empty name leaves what is set (JAX_DEFAULT_MATMUL_PRECISION)."""
    if name and name not in PRECISIONS:
        raise refuse("--precision", f"one of {', '.join(PRECISIONS)}", name, "")
    if name:
        jax.config.update("jax_default_matmul_precision", None if name == "default" else name)
