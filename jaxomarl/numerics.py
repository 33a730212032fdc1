"""Settings of JAX and XLA, from a shell or a caller, that change the numbers of a program.

Each of them is pinned, refused, or recorded:

- Pinned: our programs run under our own value, and the caller's value is restored afterwards.
- Refused: it cannot be pinned from within.
- Recorded: it changes rounding alone. It is written to run.json, and results under different
  values never share a stage or a folder.

Settings that can stop a program but change no number (JAX_DEBUG_NANS, JAX_TRANSFER_GUARD,
JAX_CHECK_TRACER_LEAKS, ...) stay the caller's.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import jax

from jaxomarl.base import refuse

PINNED: dict[str, Any] = {
    "jax_enable_x64": False,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_softmax_custom_jvp": False,
    "jax_enable_custom_prng": False,
    "jax_legacy_prng_key": "allow",
    "jax_allow_f16_reductions": True,
}
"""Setting -> the value that all our programs have."""

REFUSED: dict[str, tuple[Any, ...]] = {
    "jax_disable_jit": (False,),
    "jax_random_seed_offset": (0,),
    "jax_high_dynamic_range_gumbel": (False,),
    "jax_explicit_x64_dtypes": ("WARN", "ERROR"),
}
"""Setting -> the values that leave our numbers as they are; JAX has no public context for these."""

RECORDED: dict[str, Any] = {
    "jax_disable_most_optimizations": False,
    "jax_optimization_level": "UNKNOWN",
    "jax_exec_time_optimization_effort": 0.0,
    "jax_memory_fitting_effort": 0.0,
    "jax_memory_fitting_level": "O2",
    "jax_compiler_enable_remat_pass": True,
    "jax_use_shardy_partitioner": True,
    "jax_use_direct_linearize": True,
    "eager_constant_folding": False,
    "jax_custom_vjp3": False,
    "jax_remat3": False,
    "jax_scan3": False,
}
"""Setting of the compiler -> its default value."""

VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE")
"""Environment variables that a compiler or a library of kernels reads by itself."""

HARMLESS = (
    "--xla_force_host_platform_device_count",
    "--xla_dump_",
    "--xla_gpu_cuda_data_dir",
    "--xla_hlo_profile",
)
"""Beginnings of compiler flags that change no number."""

FAST = ("fast_math", "fast_min_max")
"""Parts of the names of compiler flags that change results with NaN or signed zeros."""


def value(name: str) -> Any:
    """A setting as text or number, as the caller has it; None where this JAX does not know it."""
    # an attribute is this thread's value; some settings have none
    everywhere = jax.config.values.get(name)
    setting = getattr(jax.config, name, everywhere)

    # an enumeration of numbers, whose names say more
    if name == "jax_explicit_x64_dtypes":
        return getattr(setting, "name", None)
    return getattr(setting, "value", setting)


def differing() -> dict[str, Any]:
    """The pinned settings that the caller has set differently, with the caller's values."""
    given = {name: value(name) for name in PINNED}
    return {
        name: setting
        for name, setting in given.items()
        if setting is not None and setting != PINNED[name]
    }


def check() -> None:
    """Raise JaxomarlError for a setting that would change numbers and cannot be pinned."""
    for name, allowed in REFUSED.items():
        setting = value(name)
        if setting is not None and setting not in allowed:
            expected = f"{allowed[0]!r}, which leaves numbers as they are"
            way = f"Unset {name.upper()}, or jax.config.update({name!r}, {allowed[0]!r})."
            raise refuse(name.upper(), expected, setting, way)

    for given in compiler_flags("XLA_FLAGS"):
        name, _, text = given.partition("=")
        fast = any(part in name for part in FAST)
        if fast and text.lower() not in ("false", "0"):
            way = "Take it out: not-a-number is how a diverged run is noticed."
            raise refuse("XLA_FLAGS", "exact arithmetic", given, way)


@contextlib.contextmanager
def pinned() -> Iterator[None]:
    """Run a block under our own settings, in this thread alone; also a decorator, `@pinned()`.

    Raises JaxomarlError for a setting that cannot be pinned.
    """
    check()
    with contextlib.ExitStack() as stack:
        for name in differing():
            set_in_context = getattr(jax, name.removeprefix("jax_"))
            stack.enter_context(set_in_context(PINNED[name]))
        yield


def pin_process() -> dict[str, Any]:
    """Set our own values for a command's whole process; returns the replaced values of the shell.

    Raises JaxomarlError for a setting that cannot be pinned.
    """
    check()
    replaced = differing()
    for name in replaced:
        jax.config.update(name, PINNED[name])
    return replaced


def compiler_flags(variable: str) -> list[str]:
    """The flags in an environment variable that may change numbers, sorted."""
    flags = os.environ.get(variable, "").split()
    return sorted({flag for flag in flags if not flag.startswith(HARMLESS)})


LEVEL = "xla_backend_optimization_level"
"""The compiler's option for how much LLVM does; by itself XLA takes 3, the most."""
RUN_ONCE = {LEVEL: 0}
"""Options of a program that runs once: a CPU compiles it in a third of the time."""
TRAINING = {"vmap": {LEVEL: 1}, "blocks": {LEVEL: 1}, "map": {LEVEL: 2}}
"""Options of a program that trains, by how it goes through its runs (`sharding.mapping`).

A CPU compiles it in two thirds or nine tenths of the time of level 3, and it is no slower; narrow
runs are faster (benchmarks/NOTES.md). Levels 1 and 2 gave the same bits wherever they were tried.
"""

DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
"""The compiler's flag for kernels that give a card the same bits every time."""


def run_once() -> dict[str, Any] | None:
    """The compiler's options for a program that runs once; None where they save nothing."""
    return RUN_ONCE if jax.default_backend() == "cpu" else None


def training(how: str) -> dict[str, Any] | None:
    """The compiler's options for a program that trains; None off a CPU, or where a level is set."""
    flags = compiler_flags("XLA_FLAGS")
    chosen = value("jax_disable_most_optimizations") or any(LEVEL in flag for flag in flags)
    if jax.default_backend() != "cpu" or chosen:
        return None
    return TRAINING[how]


def tier() -> str:
    """How equal a second run is: for run.json.

    bitwise        on CPUs, by the same versions
    deterministic  on a card, by DETERMINISTIC, on the same card and by the same versions
    statistical    elsewhere: sums of a card may be added in another order each time
    """
    if jax.default_backend() == "cpu":
        return "bitwise"
    if DETERMINISTIC in compiler_flags("XLA_FLAGS"):
        return "deterministic"
    return "statistical"


def precision() -> str:
    """How programs that are traced now round matrix products: JAX's name for it, or "default".

    The setting is JAX's, `jax.default_matmul_precision`. Two names mean more here. "bfloat16": the
    hidden layers of networks are bfloat16, see `networks/mlp.py`. "default": each device's own
    choice, which is TF32 on NVIDIA's cards and float32 on a CPU.
    """
    return str(jax.config.jax_default_matmul_precision or "default")  # type: ignore[attr-defined]


def rounded() -> dict[str, Any]:
    """The recorded settings that differ from their defaults; they keep results apart."""
    facts = {}
    if precision() != "default":
        facts["precision"] = precision()
    for name, default in RECORDED.items():
        setting = value(name)
        if setting is not None and setting != default:
            facts[name] = setting
    for variable in VARIABLES:
        flags = compiler_flags(variable)
        if flags:
            facts[variable] = " ".join(flags)
    return facts


def settings() -> dict[str, Any]:
    """The settings that decided a run's numbers, for run.json.

    They are every pinned setting, and the recorded ones that differ from their defaults.
    """
    pinned_here = {name: pin for name, pin in PINNED.items() if value(name) is not None}
    recorded = {name: fact for name, fact in rounded().items() if name != "precision"}
    return pinned_here | recorded
