"""A run's final policy in files that other programs run: weights with a card, and StableHLO.

    policy.safetensors   the arrays that the policy reads, as the run has them
    card.json            what has to be known to act with them, and where they come from
    policy.stablehlo     the whole policy as a compiled-anywhere program (`jax.export`)

Where the policy is one perceptron for each agent, or one for all, the card has its layers: a page
of NumPy acts with it (docs/export.md). Other policies (samplers, planners) act by the program.
"""

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxomarl.api import policy, provenance
from jaxomarl.api.policy import Policy
from jaxomarl.base import Observation, refuse
from jaxomarl.paths import user_path
from jaxomarl.results import store

CARD, PROGRAM = "card.json", "policy.stablehlo"
FORMAT = 1
"""Version of the card; a reader of a later version reads it too."""
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
LAYER = re.compile(r"(?P<net>.+)\['(?P<layer>Dense_\d+|out)'\]\['(?P<part>kernel|bias)'\]")
STATS = {"mean": "obs_mean", "std": "obs_std"}
"""What the card calls the observations' statistics, and their name among the arrays."""
CLOSE = 1e-5
"""Largest difference of an action by the card's network, in float64, and by the policy itself."""
TRIALS = 32
"""Observations at which both are compared."""


def export(run: str | Path, out: str | Path) -> dict[str, Any]:
    """Write the final policy of a run into the folder `out`; the card.

    Raises JaxomarlError where the folder is no finished run, and where `out` has something in it.
    """
    run, out = user_path(run), user_path(out)
    if out.exists() and any(out.iterdir()):
        raise refuse("-o", "a new or empty folder", str(out), "Take another, or delete it.")
    player = policy.load_policy(run)
    arrays = policy.read_arrays(run / policy.FILE)
    weights = (run / policy.FILE).read_bytes()
    written = program(player)
    contents = {policy.FILE: weights, PROGRAM: written}
    facts = card(player, arrays, contents)
    for name, content in contents.items():
        store.write_bytes(out / name, content)
    store.write_json(out / CARD, facts)
    return facts


def card(
    player: Policy, arrays: Mapping[str, np.ndarray], contents: Mapping[str, bytes]
) -> dict[str, Any]:
    """What has to be known to act with the arrays, and where they come from."""
    info = player.info
    spec = dataclasses.asdict(player.spec)
    origin = ("system", "task", "data", "dialect", "seed", "swept", "cfg", "data_sha256")
    return {
        "format": FORMAT,
        "policy": {name: info[name] for name in origin if name in info},
        "spec": {name: list(v) if isinstance(v, tuple) else v for name, v in spec.items()},
        "centralised": player.algorithm.centralised,
        "memory": bool(jax.tree.leaves(player.algorithm.memory)),
        "network": network(player, arrays),
        "normalisation": normalisation(arrays),
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
        "source": info.get("source", {}),
        "versions": provenance.versions(),
    }


# --- the network, for programs without JAX ---


def normalisation(arrays: Mapping[str, np.ndarray]) -> dict[str, str] | None:
    """The names of the observations' mean and deviation; None where they are taken raw."""
    found = {}
    for name, ending in STATS.items():
        for array in arrays:
            if array.endswith(f".{ending}"):
                found[name] = array
    return found or None


def network(player: Policy, arrays: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
    """The layers of a perceptron in their order and its output; None where it is no perceptron.

    What is described acts as the policy does: both are compared on drawn observations.
    """
    layers: dict[str, dict[str, str]] = {}
    nets = set()
    for name in arrays:
        if name.endswith(tuple(f".{ending}" for ending in STATS.values())):
            continue
        match = LAYER.fullmatch(name)
        if not match:
            return None
        nets.add(match["net"])
        layers.setdefault(match["layer"], {})[match["part"]] = name
    if len(nets) != 1 or "out" not in layers:
        return None
    hidden = sorted(layers.keys() - {"out"}, key=lambda layer: int(layer.partition("_")[2]))
    kernel = arrays[layers["out"]["kernel"]]
    described = {
        "layers": [layers[name] for name in (*hidden, "out")],
        "shared": kernel.ndim == 2,
        "activation": "relu",
        "output": output(player, kernel.shape[-1]),
    }
    return described if acts_alike(player, arrays, described) else None


def output(player: Policy, width: int) -> str:
    """How the last layer becomes an action."""
    if player.spec.discrete:
        return "argmax"
    if width == 2 * player.spec.act_width:
        return "tanh of the first half"
    return "tanh"


def acts_alike(
    player: Policy, arrays: Mapping[str, np.ndarray], described: Mapping[str, Any]
) -> bool:
    """Whether the network that the card describes acts as the policy does."""
    spec = player.spec
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(TRIALS, spec.agents, spec.obs_width)) * np.asarray(spec.obs_mask)
    for one in obs.astype(np.float32):
        player.reset()
        theirs = np.asarray(player.act(one))
        ours = act_by_card(spec, arrays, described, normalisation(arrays), one)
        if ours.shape != theirs.shape or not np.allclose(ours, theirs, rtol=0.0, atol=CLOSE):
            return False
    return True


def act_by_card(
    spec: Any,
    arrays: Mapping[str, np.ndarray],
    described: Mapping[str, Any],
    normalised: Mapping[str, str] | None,
    obs: Float[np.ndarray, "N O"],
) -> Float[np.ndarray, "N A"]:
    """The joint action by the described network, in NumPy alone; every action is available."""
    x = obs
    if normalised:
        x = (x - arrays[normalised["mean"]]) / arrays[normalised["std"]]
    x = x.astype(np.float64) * np.asarray(spec.obs_mask)
    if described["shared"]:
        x = np.concatenate([x, np.eye(spec.agents)], axis=1)
    rows = "io" if described["shared"] else "nio"
    for layer in described["layers"]:
        if layer is not described["layers"][0]:
            x = np.maximum(x, 0.0)
        x = np.einsum(f"ni,{rows}->no", x, arrays[layer["kernel"]]) + arrays[layer["bias"]]
    mask = np.asarray(spec.act_mask)
    if described["output"] == "argmax":
        best = np.where(mask > 0, x, -np.inf).argmax(axis=1)
        return np.eye(spec.act_width)[best]
    return mask * np.tanh(x[:, : spec.act_width])


# --- the program, for anything that runs StableHLO ---


def program(player: Policy) -> bytes:
    """The policy as a serialised program; its arrays are constants of it.

    (key data [2] of uint32, memory, obs [N, O], available [N, A], reward [N])
    -> (action [N, A], memory), where the memory's leaves are in one tuple, all zero at first.
    """
    leaves, tree = jax.tree.flatten(player.algorithm.memory)
    if any(np.any(np.asarray(leaf)) for leaf in leaves):
        way_out = "Let it tell the first step by a counter, as the planners do."
        raise refuse("RUN", "a policy whose memory starts at zero", "another", way_out)

    def act(
        key: Array, memory: tuple, obs: Array, available: Bool[Array, "N A"], reward: Array
    ) -> tuple[Array, tuple]:
        assert player.algorithm.act is not None
        observation = Observation(obs, available, reward)
        own = jax.tree.unflatten(tree, list(memory))
        action, after = player.algorithm.act(
            jax.random.wrap_key_data(key), player.state, player.past, own, observation
        )
        return action, tuple(jax.tree.leaves(after))

    blank = policy.blank(player.spec)
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)),
        (jnp.zeros(2, jnp.uint32), tuple(leaves), *blank),
    )
    with jax.default_matmul_precision("highest"):
        exported = jax.export.export(jax.jit(act), platforms=PLATFORMS)(*shapes)
    return bytes(exported.serialize())
