"""Joint behaviours that ship with the package, and the data sets that mixtures of them collect.

`assets/<family>/<task>.safetensors` holds them as float16, under names like `expert/0`. Each agent
has a perceptron o -> W -> W -> a with tanh. Behaviours add N(0, NOISE^2) to their actions, clipped
to [-1, 1], as a collecting MATD3 does. `assets/<family>/references.json` holds the returns that
were measured when they were trained.
"""

import functools
import json
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxomarl.base import Behaviours, Environment, Observation, Recipe, Spec
from jaxomarl.envs.recipes import Behaviour, Part, mixture, uniform_behaviour

NOISE = 0.1
"""Standard deviation of the noise on stored behaviours' actions."""

Params = dict[str, Any]
Derived = Callable[[Mapping[str, list[Params]]], list[Params]]
"""A task's stored behaviours by kind -> the behaviours of a kind that is derived from them."""


class Family(NamedTuple):
    """The kinds of behaviours of which the data sets of a family of tasks are mixed."""

    folder: str
    """Folder under `assets/`."""
    mixtures: Mapping[str, Mapping[str, float]]
    """Quality -> kind -> share of the transitions, which the kind's behaviours share equally."""
    numbers: Mapping[str, int]
    """Number of the first behaviour of a kind, as `Dataset.behaviour` carries it."""
    alone: frozenset[str] = frozenset()
    """Qualities that only the first behaviour of their kind collects."""
    derived: Mapping[tuple[str, str], Derived] = {}
    """(task, kind) -> the function that derives a kind that is not stored.

    No other task has the qualities that need this kind.
    """
    acting: Callable[[Spec], Callable[..., Any]] | None = None
    """How stored behaviours act; None: with Gaussian noise (`acting`)."""

    def qualities(self, task: str) -> list[str]:
        """The qualities that a task has."""
        elsewhere = {kind for _, kind in self.derived if (task, kind) not in self.derived}
        return [quality for quality, kinds in self.mixtures.items() if not elsewhere & set(kinds)]

    def teams(self, task: str, quality: str, kind: str) -> list[Params]:
        """The joint behaviours of a kind in a task's quality, in the order of their numbers."""
        kinds = stored_behaviours(self.folder, task)
        derive = self.derived.get((task, kind))
        many = kinds[kind] if derive is None else derive(kinds)
        if quality in self.alone:
            return many[:1]
        return many


def behaviour_actions(params: Params, obs: Float[Array, "N O"]) -> Float[Array, "N A"]:
    """Actions of a stored joint behaviour.

    `params` has kernel_k [N, I, J] and bias_k [N, J] for three layers.
    """

    def layer(k: int, x: Float[Array, "N I"]) -> Float[Array, "N J"]:
        return jnp.einsum("ni,nij->nj", x, params[f"kernel_{k}"]) + params[f"bias_{k}"]

    h = jax.nn.relu(layer(0, obs))
    h = jax.nn.relu(layer(1, h))
    return jnp.tanh(layer(2, h))


# cached, so that programs compiled for the function are found again
@functools.cache
def acting(
    spec: Spec, noise: float = NOISE
) -> Callable[[Params, Key[Array, ""], Observation], Float[Array, "N A"]]:
    """The acting function of stored behaviours, with exploration noise of that deviation.

    Actions are clipped to [-1, 1].
    """
    mask = jnp.asarray(spec.act_mask)

    def act(params: Params, key: Key[Array, ""], seen: Observation) -> Float[Array, "N A"]:
        action = behaviour_actions(params, seen.obs)
        return mask * jnp.clip(action + noise * jax.random.normal(key, action.shape), -1.0, 1.0)

    return act


@functools.cache
def stored_behaviours(folder: str, task: str) -> dict[str, list[Params]]:
    """A task's joint behaviours by kind, as float32."""
    from safetensors.numpy import load

    assets = resources.files("jaxomarl").joinpath("assets", folder)
    arrays = load(assets.joinpath(f"{task}.safetensors").read_bytes())
    kinds: dict[str, list[Params]] = {}
    for name in sorted(arrays):
        kind, index, leaf = name.split("/")
        many = kinds.setdefault(kind, [])
        many.extend({} for _ in range(int(index) + 1 - len(many)))
        many[int(index)][leaf] = np.asarray(arrays[name], np.float32)  # type: ignore[assignment]
    return kinds


def parts(env: Environment, family: Family, task: str, quality: str) -> list[Part]:
    """The behaviours that collect a quality, and their shares of it."""
    out = []
    act = (family.acting or acting)(env.spec)
    for kind, share in family.mixtures[quality].items():
        if kind == "random":
            many = [uniform_behaviour(env)]
        else:
            many = [Behaviour(act, params) for params in family.teams(task, quality, kind)]
        number = family.numbers[kind]
        each = share / len(many)
        out += [Part(behaviour, number + k, each) for k, behaviour in enumerate(many)]
    return out


def recipes(env: Environment, family: Family, task: str) -> Mapping[str, Recipe]:
    """The recipe of every quality of a task; behaviours are read when it is first asked for."""

    def later(quality: str) -> Recipe:
        return lambda key, rows: mixture(env, parts(env, family, task, quality))(key, rows)

    return {quality: later(quality) for quality in family.qualities(task)}


def gaussian_behaviours(family: Family, task: str) -> Mapping[str, Callable[[], Behaviours]]:
    """The behaviours of every quality of a task that has no uniform actions in it.

    They are read when they are asked for.
    """

    def later(quality: str) -> Callable[[], Behaviours]:
        return lambda: behaviours_of(family, task, quality)

    return {
        quality: later(quality)
        for quality in family.qualities(task)
        if "random" not in family.mixtures[quality]
    }


def behaviours_of(family: Family, task: str, quality: str) -> Behaviours:
    """The Gaussian behaviours of a quality, with the numbers and shares that `parts` gives them."""
    teams: list[Params] = []
    numbers: list[int] = []
    shares: list[float] = []
    for kind, share in family.mixtures[quality].items():
        many = family.teams(task, quality, kind)
        count = len(many)
        teams += many
        numbers += [family.numbers[kind] + k for k in range(count)]
        shares += [share / count] * count
    params = jax.tree.map(lambda *leaves: np.stack(leaves), *teams)
    return Behaviours(params, np.array(numbers), np.array(shares), NOISE)


def constant(
    modes: Float[np.ndarray, "K N A"], shares: Float[np.ndarray, " K"], std: float, obs: int
) -> Behaviours:
    """Behaviours of a game whose observations do not matter.

    The k-th behaviour acts about `modes[k]`, which lie within +-1.
    """
    count, agents, width = modes.shape
    sizes = (obs, 1, 1, width)
    params = {}
    for k in range(3):
        params[f"kernel_{k}"] = np.zeros((count, agents, *sizes[k : k + 2]), np.float32)
    for k in range(2):
        params[f"bias_{k}"] = np.zeros((count, agents, 1), np.float32)
    params["bias_2"] = np.arctanh(modes).astype(np.float32)
    return Behaviours(params, np.arange(count), np.asarray(shares), std)


@functools.cache
def measured(folder: str) -> dict[str, Any]:
    """The measurements from the training of a family's behaviours, by task."""
    assets = resources.files("jaxomarl").joinpath("assets", folder)
    return json.loads(assets.joinpath("references.json").read_text(encoding="utf-8"))
