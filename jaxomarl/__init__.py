"""Offline multi-agent reinforcement learning with diffusion models, in JAX from end to end.

import jaxomarl
results = jaxomarl.train("omsd", "games/bandit", seeds=4)
print(results.table)
action = jaxomarl.load("runs/.../seed-0").act(obs)
"""

import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxomarl.api.export import export
    from jaxomarl.api.train import from_arrays, load, register_system, register_task, train
    from jaxomarl.base import JaxomarlError

try:
    __version__ = importlib.metadata.version("jaxomarl")
except importlib.metadata.PackageNotFoundError:
    # a checkout that was never installed
    __version__ = "0+unknown"

__all__ = [
    "JaxomarlError",
    "__version__",
    "export",
    "from_arrays",
    "load",
    "register_system",
    "register_task",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import what a name needs on its first use, so that `import jaxomarl` costs nothing."""
    if name in ("from_arrays", "load", "register_system", "register_task", "train"):
        from jaxomarl.api import train

        return getattr(train, name)
    if name == "export":
        from jaxomarl.api.export import export

        return export
    if name == "JaxomarlError":
        from jaxomarl.base import JaxomarlError

        return JaxomarlError
    raise AttributeError(f"module 'jaxomarl' has no attribute {name!r}")
