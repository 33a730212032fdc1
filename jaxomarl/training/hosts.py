"""Several processes that train one command's runs together, by `jax.distributed`.

Runs do not communicate, so no array lies on two hosts. Each host trains its own block of a group's
runs on its own devices, and writes their folders; host 0 writes what is said of all. The hosts
share the folder of results, and speak by JAX's coordination service: they meet before and after
training, and a host that is told to stop tells the others, which stop at their next chunk.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax._src import distributed

from jaxomarl.base import refuse

STOP = "jaxomarl/stop"
"""What a host that stops tells the others."""
PATIENCE = 24 * 3600
"""Seconds that a host waits for the slowest one."""
DETECTED = "auto"
"""What asks JAX to find the hosts itself: on Slurm, Kubernetes, a TPU pod."""


def join(coordinator: str, count: int, index: int) -> None:
    """Join the hosts, before JAX starts; "" is a process on its own.

    `coordinator` is host 0's address with a port, or "auto". Raises JaxomarlError where the hosts
    do not find each other.
    """
    if not coordinator:
        if (count, index) != (0, 0):
            way = "Give host 0's address and port, or auto on Slurm, Kubernetes or a TPU pod."
            raise refuse("--coordinator", "an address with --hosts and --host", "none", way)
        return
    if coordinator != DETECTED and not 0 <= index < count:
        way = "Hosts are numbered 0 to N - 1."
        raise refuse("--host, --hosts", "a host's number, and how many", (index, count), way)
    try:
        if coordinator == DETECTED:
            jax.distributed.initialize()
        else:
            jax.distributed.initialize(coordinator, count, index)
    except (RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0][:300]
        way = "Start every host with the same address, and within five minutes."
        raise refuse("--coordinator", "hosts that find each other", reason, way) from None


def count() -> int:
    """How many hosts there are; 1 for a process on its own."""
    return jax.process_count()


def index() -> int:
    """This host's number."""
    return jax.process_index()


def first() -> bool:
    """Whether this host writes what is said of all runs."""
    return index() == 0


def own(runs: int) -> Sequence[int]:
    """The numbers of this host's block of R runs; none where there are fewer runs than hosts."""
    return np.array_split(np.arange(runs), count())[index()].tolist()


def meet(place: str) -> None:
    """Wait until every host is here."""
    if count() > 1:
        client().wait_at_barrier(f"jaxomarl/{place}", PATIENCE * 1000)


def together(stopped: Callable[[], bool]) -> Callable[[], bool]:
    """Whether this host or another was told to stop."""
    if count() == 1:
        return stopped

    def any_stopped() -> bool:
        if told():
            return True
        if stopped():
            client().key_value_set(STOP, str(index()), allow_overwrite=True)
            return True
        return False

    return any_stopped


def told() -> bool:
    """Whether a host has told the others to stop."""
    try:
        client().key_value_try_get(STOP)
    except jax.errors.JaxRuntimeError as error:
        if "NOT_FOUND" in str(error):
            return False
        raise
    return True


def client() -> Any:
    """The client of JAX's coordination service; JAX has no public name for it."""
    return distributed.global_state.client
