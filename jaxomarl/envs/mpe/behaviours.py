"""The policies that fill the particle tasks' data sets, and the references by which their returns are normalised.

`assets/mpe/<task>.safetensors` holds, as float16, joint behaviours of three agents under names like `expert/0`, each a
perceptron o -> W -> W -> 2 with tanh, made by `python -m experiments.behaviours`. Qualities (DOM2, section 5; OMAR):

    random          uniform actions                         medium-replay   a ladder of training snapshots up to medium
    medium, expert  four independently trained behaviours   medium-expert   90 % medium, 10 % expert
                    each, in equal shares                   random-medium   90 % random, 10 % medium
    one-expert      the first expert alone: what a clone can do where nothing has to be averaged

All but `random` add N(0, NOISE^2) to the actions, clipped to [-1, 1], as collecting MATD3 does.
"""

import functools
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxomarl.base import Environment, Observation, Recipe, Scale
from jaxomarl.envs.recipes import Behaviour, Part, mixture, uniform

NOISE = 0.1
NUMBERS = {"random": 0, "medium": 1, "expert": 101, "ladder": 201}
"""Number of the first behaviour of a kind, as `Dataset.behaviour` carries it."""
MIXTURES = {
    "expert": {"expert": 1.0},
    "medium": {"medium": 1.0},
    "medium-replay": {"ladder": 1.0},
    "random": {"random": 1.0},
    "medium-expert": {"medium": 0.9, "expert": 0.1},
    "random-medium": {"random": 0.9, "medium": 0.1},
    "one-expert": {"expert": 1.0},
}
OMAR = {
    "spread": Scale(159.8, 516.8, "OMAR's data", 273.39),
    "tag": Scale(-4.1, 185.6, "OMAR's data", 116.36),
    "world": Scale(-6.8, 79.5, "OMAR's data", 65.86),
}
"""Random and expert returns that the papers normalise by (dialect mpe-omar)."""

Params = dict[str, Any]


def play(params: Params, obs: Float[Array, "N O"]) -> Float[Array, "N A"]:
    """Actions of a stored joint behaviour; `params` has kernel_k [N, I, J] and bias_k [N, J] for three layers."""
    h = obs
    for k in range(3):
        h = jnp.einsum("ni,nij->nj", h, params[f"kernel_{k}"]) + params[f"bias_{k}"]
        h = jax.nn.relu(h) if k < 2 else jnp.tanh(h)
    return h


def noisy(params: Params, key: Key[Array, ""], seen: Observation) -> Float[Array, "N A"]:
    """As data are collected: with exploration noise, inside the box."""
    action = play(params, seen.obs)
    return jnp.clip(action + NOISE * jax.random.normal(key, action.shape), -1.0, 1.0)


@functools.cache
def stored(task: str) -> dict[str, list[Params]]:
    """Joint behaviours of `spread`, `tag` or `world` by kind (expert, medium, ladder), as float32."""
    from safetensors.numpy import load

    held = load(resources.files("jaxomarl").joinpath("assets", "mpe", f"{task}.safetensors").read_bytes())
    out: dict[str, list[Params]] = {}
    for name in sorted(held):
        kind, index, leaf = name.split("/")
        many = out.setdefault(kind, [])
        many.extend({} for _ in range(int(index) + 1 - len(many)))
        many[int(index)][leaf] = np.asarray(held[name], np.float32)  # type: ignore[assignment]
    return out


def parts(env: Environment, task: str, quality: str) -> list[Part]:
    """Who makes a quality, and how much of it."""
    out = []
    for kind, share in MIXTURES[quality].items():
        many = [uniform(env)] if kind == "random" else [Behaviour(noisy, p) for p in stored(task)[kind]]
        many = many[:1] if quality == "one-expert" else many
        out += [Part(one, NUMBERS[kind] + k, share / len(many)) for k, one in enumerate(many)]
    return out


def recipes(env: Environment, task: str) -> Mapping[str, Recipe]:
    """Every quality of a task, its behaviours read when it is first asked for."""

    def later(quality: str) -> Recipe:
        return lambda key, rows: mixture(env, parts(env, task, quality))(key, rows)

    return {quality: later(quality) for quality in MIXTURES}


@functools.cache
def measured() -> dict[str, Any]:
    """What was measured when the behaviours were made: `assets/mpe/references.json`."""
    return json.loads(resources.files("jaxomarl").joinpath("assets", "mpe", "references.json").read_text())


def scale(task: str, dialect: str) -> Scale | None:
    """The references of a task under a dialect: the papers' for `mpe-omar`, ours for the own prey, else none."""
    if dialect == "mpe-omar":
        return OMAR[task]
    if dialect != "mpe-own-prey":
        return None
    own = measured()[task]
    return Scale(own["random"], own["expert"], "this package's behaviours", own["medium"])
