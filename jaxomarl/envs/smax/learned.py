"""SMAX's data of learned teams: mixtures of independently trained MAPPO policies.

`python -m experiments.behaviours smax/3m` trains and stores them (api/smax_behaviours.py).

    good      three teams that win most of their battles
    medium    three that win a quarter to a half of them
    poor      three that hardly win one
    mixed     good and poor in halves

A team draws its actions from its policy. With probability `noise` an agent takes a uniform legal
action instead.
"""

import functools
from collections.abc import Callable, Mapping
from importlib import resources

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import Environment, Observation, Recipe, Spec
from jaxomarl.envs import stored

FOLDER = "smax"
Params = stored.Params
"""kernel_k, bias_k of one network for all agents, its temperature and its noise."""


def logits(params: Params, obs: Float[Array, "N O"]) -> Float[Array, "N A"]:
    """The network of a team, which knows an agent by its one-hot: two hidden layers."""
    x = jnp.concatenate([obs, jnp.eye(len(obs))], axis=-1)
    for k in range(2):
        x = jax.nn.relu(x @ params[f"kernel_{k}"] + params[f"bias_{k}"])
    return x @ params["kernel_2"] + params["bias_2"]


# cached, so that programs compiled for the function are found again
@functools.cache
def drawing(
    spec: Spec,
) -> Callable[[Params, Key[Array, ""], Observation], Float[Array, "N A"]]:
    """The acting function of stored teams."""

    def act(params: Params, key: Key[Array, ""], seen: Observation) -> Float[Array, "N A"]:
        k_draw, k_noisy, k_uniform = jax.random.split(key, 3)
        score = logits(params, seen.obs) / params["temperature"]
        own = jax.random.categorical(k_draw, jnp.where(seen.available, score, -jnp.inf))
        uniform = jax.random.categorical(k_uniform, jnp.where(seen.available, 0.0, -jnp.inf))
        noisy = jax.random.uniform(k_noisy, own.shape) < params["noise"]
        return jax.nn.one_hot(jnp.where(noisy, uniform, own), spec.act_width)

    return act


LEARNED = stored.Family(
    folder=FOLDER,
    mixtures={
        "good": {"good": 1.0},
        "medium": {"medium": 1.0},
        "poor": {"poor": 1.0},
        "mixed": {"good": 0.5, "poor": 0.5},
    },
    numbers={"poor": 1, "medium": 51, "good": 101},
    acting=drawing,
)


def is_stored(map_name: str) -> bool:
    """Whether learned teams of a map ship with the package."""
    assets = resources.files("jaxomarl").joinpath("assets", FOLDER)
    return assets.joinpath(f"{map_name}.safetensors").is_file()


def recipes(env: Environment, map_name: str) -> Mapping[str, Recipe]:
    """The recipes of learned teams; none where they are not stored."""
    if not is_stored(map_name):
        return {}
    return stored.recipes(env, LEARNED, map_name)
