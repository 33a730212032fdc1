"""The prey of tag and world: a fixed policy that is part of the environment.

    a = clip(tanh(W_3 relu(W_2 relu(W_1 norm(o) + b_1) + b_2) + b_3))
    norm(o) = gamma (o - mean) / sqrt(var + eps) + beta

Published scores hold for the prey that came with OMAR's data (dialect `mpe-omar`). It is not ours
to ship: `load_prey` takes a user's copy. The package's own prey (dialect `mpe-own-prey`) was
trained by `python -m experiments.behaviours prey`.
"""

import functools
import hashlib
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxomarl.base import refuse
from jaxomarl.paths import check_regular, user_path

HIDDEN = 64
EPS = 1e-5
OMAR = {"tag": "7e9a2e60b4245259", "world": "d91e0481fe20c69d"}
"""Fingerprints of OMAR's two preys, by which they are recognised; the weights are not here."""
LAYERS = ("fc1", "fc2", "fc3")
NORM = ("in_fn.weight", "in_fn.bias", "in_fn.running_mean", "in_fn.running_var")


class Prey(NamedTuple):
    """Arrays of the policy, with the input normalisation folded into a scale and a shift."""

    scale: Any
    shift: Any
    kernels: tuple[Any, ...]
    """Kernels [in, out] of the three layers."""
    biases: tuple[Any, ...]


def act(prey: Prey, obs: Float[Array, " O"]) -> Float[Array, "2"]:
    """The prey's action in [-1, 1], which is deterministic."""
    h = obs * prey.scale + prey.shift
    for kernel, bias in zip(prey.kernels[:-1], prey.biases[:-1], strict=True):
        h = jax.nn.relu(h @ kernel + bias)
    action = jnp.tanh(h @ prey.kernels[-1] + prey.biases[-1])
    return jnp.clip(action, -1.0, 1.0)


def fold(arrays: dict[str, np.ndarray], width: int, where: str) -> Prey:
    """The prey of a state dict's named arrays, with weights as (out, in).

    Raises JaxomarlError where an array is missing or wrong.
    """
    _check_arrays(arrays, width, where)
    gamma, beta, mean, var = (arrays[name].astype(np.float32) for name in NORM)
    scale = gamma / np.sqrt(var + np.float32(EPS))
    weights = [arrays[f"{layer}.weight"] for layer in LAYERS]
    biases = [arrays[f"{layer}.bias"] for layer in LAYERS]
    return Prey(
        scale=scale,
        shift=beta - mean * scale,
        kernels=tuple(np.ascontiguousarray(weight.T, np.float32) for weight in weights),
        biases=tuple(bias.astype(np.float32) for bias in biases),
    )


def _check_arrays(arrays: dict[str, np.ndarray], width: int, where: str) -> None:
    """Raise JaxomarlError where an array of a state dict is missing, misshapen or not finite."""
    shapes: dict[str, tuple[int, ...]] = {name: (width,) for name in NORM}
    shapes |= {
        "fc1.bias": (HIDDEN,),
        "fc2.bias": (HIDDEN,),
        "fc3.bias": (2,),
        "fc1.weight": (HIDDEN, width),
        "fc2.weight": (HIDDEN, HIDDEN),
        "fc3.weight": (2, HIDDEN),
    }
    for name, shape in shapes.items():
        found = arrays[name].shape if name in arrays else "nothing"
        if found != shape:
            expected = f"an array of shape {shape}"
            raise refuse(f"{where}, {name}", expected, found, "Is it the prey of this task?")
        if not np.isfinite(arrays[name]).all():
            way = "The file is damaged."
            raise refuse(f"{where}, {name}", "finite numbers", "some that are not", way)


@functools.cache
def own(task: str) -> Prey:
    """The package's prey of `tag` or `world`."""
    from safetensors.numpy import load as parse

    assets = resources.files("jaxomarl").joinpath("assets", "mpe")
    arrays = parse(assets.joinpath(f"{task}-prey.safetensors").read_bytes())
    return fold(arrays, len(arrays[NORM[0]]), f"the package's prey of {task}")


def load_prey(path: str | Path, task: str, width: int) -> tuple[Prey, str]:
    """A user's prey and its dialect.

    `path` is a `pretrained_adv_model.pt` as OMAR and OG-MARL ship it, or a .safetensors with the
    state dict's names. The former is read without torch, and nothing in it is executed. The dialect
    is `mpe-omar` for the two known files, else `mpe-prey-<fingerprint>`. Raises JaxomarlError for
    anything else.
    """
    path = user_path(path)
    if not path.is_file():
        raise refuse("prey", "a file such as pretrained_adv_model.pt", str(path), "Check the path.")
    read = _from_safetensors if path.suffix == ".safetensors" else _from_torch
    prey = fold(read(path), width, str(path))
    mark = fingerprint(prey)
    if mark == OMAR.get(task):
        return prey, "mpe-omar"
    return prey, f"mpe-prey-{mark[:8]}"


def fingerprint(prey: Prey) -> str:
    """A prey's mark: 16 hex digits of SHA-256 over its kernels and biases."""
    sha = hashlib.sha256()
    for x in (*prey.kernels, *prey.biases):
        sha.update(np.ascontiguousarray(x, np.float32).tobytes())
    return sha.hexdigest()[:16]


def _from_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        check_regular(path)
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise refuse(str(path), "a safetensors file", str(error), "Copy it again.") from None


def _from_torch(path: Path) -> dict[str, np.ndarray]:
    from jaxomarl import torchfile

    content = torchfile.load(path)
    try:
        policy = content["agent_params"][3]["policy"]
        return {name: np.asarray(x) for name, x in policy.items()}
    except (KeyError, IndexError, TypeError, AttributeError):
        way = "This is no pretrained_adv_model.pt of OMAR's predator-prey tasks."
        raise refuse(str(path), "agent_params[3].policy, the prey", "no such entry", way) from None
