"""The prey of tag and world: a fixed policy that is part of the environment.

    a = clip(tanh(W_3 relu(W_2 relu(W_1 norm(o) + b_1) + b_2) + b_3))
    norm(o) = gamma (o - mean) / sqrt(var + eps) + beta

Published scores hold for the prey that came with OMAR's data (dialect `mpe-omar`). It is not ours to ship: `load` takes
a user's copy. The package's own prey (dialect `mpe-own-prey`) was trained by `python -m experiments.behaviours prey`.
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
from jaxomarl.paths import user_path

HIDDEN = 64
EPS = 1e-5
OMAR = {"tag": "7e9a2e60b4245259", "world": "d91e0481fe20c69d"}
"""Fingerprints of OMAR's two preys: numbers that tell them, not the weights."""
LAYERS = ("fc1", "fc2", "fc3")
NORM = ("in_fn.weight", "in_fn.bias", "in_fn.running_mean", "in_fn.running_var")


class Prey(NamedTuple):
    """Arrays of the policy, with the input normalisation folded into a scale and a shift."""

    scale: Any
    shift: Any
    kernels: tuple[Any, ...]  # [in, out]
    biases: tuple[Any, ...]


def act(prey: Prey, obs: Float[Array, " O"]) -> Float[Array, "2"]:
    """The prey's action in [-1, 1]; it draws nothing."""
    h = obs * prey.scale + prey.shift
    for kernel, bias in zip(prey.kernels[:-1], prey.biases[:-1], strict=True):
        h = jax.nn.relu(h @ kernel + bias)
    return jnp.clip(jnp.tanh(h @ prey.kernels[-1] + prey.biases[-1]), -1.0, 1.0)


def fold(arrays: dict[str, np.ndarray], width: int, where: str) -> Prey:
    """Named arrays of a state dict, weights as (out, in) -> Prey; JaxomarlError where one is missing or wrong."""
    shapes = {
        **{name: (width,) for name in NORM},
        **{f"{layer}.bias": (out,) for layer, out in zip(LAYERS, (HIDDEN, HIDDEN, 2), strict=True)},
        "fc1.weight": (HIDDEN, width), "fc2.weight": (HIDDEN, HIDDEN), "fc3.weight": (2, HIDDEN),
    }  # fmt: skip
    for name, shape in shapes.items():
        found = arrays[name].shape if name in arrays else "nothing"
        if found != shape:
            raise refuse(
                f"{where}, {name}",
                f"an array of shape {shape}",
                found,
                "Is it the prey of this task?",
            )
        if not np.isfinite(arrays[name]).all():
            raise refuse(
                f"{where}, {name}", "finite numbers", "some that are not", "The file is damaged."
            )
    gamma, beta, mean, var = (arrays[name].astype(np.float32) for name in NORM)
    scale = gamma / np.sqrt(var + np.float32(EPS))
    return Prey(
        scale,
        beta - mean * scale,
        tuple(np.ascontiguousarray(arrays[f"{layer}.weight"].T, np.float32) for layer in LAYERS),
        tuple(arrays[f"{layer}.bias"].astype(np.float32) for layer in LAYERS),
    )


@functools.cache
def own(task: str) -> Prey:
    """The package's prey of `tag` or `world`."""
    from safetensors.numpy import load as parse

    held = parse(
        resources.files("jaxomarl")
        .joinpath("assets", "mpe", f"{task}-prey.safetensors")
        .read_bytes()
    )
    return fold(held, len(held[NORM[0]]), f"the package's prey of {task}")


def load(path: str | Path, task: str, width: int) -> tuple[Prey, str]:
    """A user's prey and its dialect.

    Takes `pretrained_adv_model.pt` as OMAR and OG-MARL ship it (read without torch, and nothing in it is executed) or
    a .safetensors with the state dict's names. The dialect is `mpe-omar` for the two known files, else
    `mpe-prey-<fingerprint>`. Raises JaxomarlError for anything else.
    """
    path = user_path(path)
    if not path.is_file():
        raise refuse("prey", "a file such as pretrained_adv_model.pt", str(path), "Check the path.")
    arrays = _from_safetensors(path) if path.suffix == ".safetensors" else _from_torch(path)
    prey = fold(arrays, width, str(path))
    mark = fingerprint(prey)
    return prey, "mpe-omar" if mark == OMAR.get(task) else f"mpe-prey-{mark[:8]}"


def fingerprint(prey: Prey) -> str:
    """What tells one prey from another: 16 hex digits of SHA-256 over its kernels and biases."""
    h = hashlib.sha256()
    for x in (*prey.kernels, *prey.biases):
        h.update(np.ascontiguousarray(x, np.float32).tobytes())
    return h.hexdigest()[:16]


def _from_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise refuse(str(path), "a safetensors file", str(error), "Copy it again.") from None


def _from_torch(path: Path) -> dict[str, np.ndarray]:
    from jaxomarl import torchfile

    held = torchfile.load(path)
    try:
        policy = held["agent_params"][3]["policy"]
        return {name: np.asarray(x) for name, x in policy.items()}
    except (KeyError, IndexError, TypeError, AttributeError):
        way = "This is no pretrained_adv_model.pt of OMAR's predator-prey tasks."
        raise refuse(str(path), "agent_params[3].policy, the prey", "no such entry", way) from None
