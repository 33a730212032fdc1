"""Scripted allies: JaxMARL's heuristic for the allies' side, whom they shoot at, and noise.

No training is needed for them, so that their data sets are there at once.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import Environment, Observation, Recipe
from jaxomarl.envs.recipes import Behaviour, Part, mixture
from jaxomarl.envs.smax.environment import MOVES, STOP, UNIT_COLUMNS, targets

NOISE = 0.05
"""Share of uniform legal actions in the data of scripted allies."""


class Script(NamedTuple):
    """Whom scripted allies shoot at; one compiled program serves all scripts.

    Where both weights are 0 it is the heuristic's own target: the closest at first, and then the
    same as before. Else it is the legal target of least `by_health` x health + `by_index` x index.
    """

    noise: float
    """Probability of a uniform legal action, for each agent and step."""
    by_health: float = 0.0
    by_index: float = 0.0


CLOSEST = Script(NOISE)
WEAKEST = Script(NOISE, by_health=1.0)
FIRST = Script(NOISE, by_index=1.0)
LAST = Script(NOISE, by_index=-1.0)
UNIFORM = Script(1.0)
SCRIPTS: Mapping[str, tuple[Script, ...]] = {
    "scripted": (CLOSEST,),
    "scripted-weakest": (WEAKEST,),
    "scripted-two": (FIRST, LAST),
    "random": (UNIFORM,),
}
"""Quality -> its behaviours, which have equal shares of the transitions.

The two of `scripted-two` differ in a convention alone: the team's targets in order, or in reverse.
"""


def scripted_act(env: Environment, game: Any) -> tuple[Any, Any]:
    """How scripted allies act, and their memory at the start of an episode.

    The parameters are a `Script`. Where the heuristic's action is not legal they stop.
    """
    from jaxmarl.environments.smax.heuristic_enemy import (
        create_heuristic_policy,
        get_heuristic_policy_initial_state,
    )

    n = env.spec.agents
    width = env.spec.act_width
    heuristic = create_heuristic_policy(game, 0)
    foes = width - len(MOVES)
    start = len(UNIT_COLUMNS) * (n - 1)
    health = start + len(UNIT_COLUMNS) * jnp.arange(foes)
    strong = lambda x: jnp.broadcast_to(jnp.asarray(x, jnp.result_type(x)), (n, *jnp.shape(x)))
    memory = jax.tree.map(strong, get_heuristic_policy_initial_state())

    def act(
        script: Script, key: Key[Array, ""], seen: Observation, memory: Any
    ) -> tuple[Float[Array, "N A"], Any]:
        k_script, k_uniform, k_noise = jax.random.split(key, 3)

        # --- the heuristic, and another target ---
        action, memory = jax.vmap(heuristic)(jax.random.split(k_script, n), memory, seen.obs)
        cost = script.by_health * seen.obs[:, health] + script.by_index * jnp.arange(foes)
        shot, in_range = targets(seen.available, cost)
        chooses = (jnp.abs(script.by_health) + jnp.abs(script.by_index)) > 0
        action = jnp.where(chooses & in_range, shot, action)
        legal = jnp.take_along_axis(seen.available, action[:, None], axis=1)[:, 0]
        action = jnp.where(legal, action, STOP)

        # --- noise ---
        uniform = jax.random.categorical(k_uniform, jnp.where(seen.available, 0.0, -jnp.inf))
        noisy = jax.random.uniform(k_noise, (n,)) < script.noise
        return jax.nn.one_hot(jnp.where(noisy, uniform, action), width), memory

    return act, memory


def recipes(env: Environment, game: Any) -> Mapping[str, Recipe]:
    """The recipe of every quality that needs no training."""
    act, memory = scripted_act(env, game)

    def of(scripts: tuple[Script, ...]) -> Recipe:
        share = 1.0 / len(scripts)
        parts = [
            Part(Behaviour(act, script, memory), number, share)
            for number, script in enumerate(scripts)
        ]
        return mixture(env, parts)

    return {quality: of(scripts) for quality, scripts in SCRIPTS.items()}
