"""The tasks `battle/<n>`, the script of the foes, and the behaviours of the data."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxomarl.base import Environment, Fields, Observation, Recipe, Task, refuse
from jaxomarl.envs.battle.rules import (
    ACTIONS,
    BACK,
    FIRE,
    FORWARD,
    LEFT,
    RIGHT,
    STAY,
    arena_width,
    environment,
)
from jaxomarl.envs.battle.view import OTHER, OWN, RANGE, SHOWN
from jaxomarl.envs.recipes import Behaviour, Part, mixture

COSINE = 0.8660254
"""cos 30 degrees: a unit that faces its aim within it goes forward."""
FINAL = 256
"""Episodes of a final evaluation."""


class Plan(NamedTuple):
    """A scripted side; one compiled program serves all of them."""

    noise: float
    """Probability of a uniform action, for each unit and step."""
    backs: float = 0.0
    """1.0 for units that go back while their weapon cools and a target is there."""


FOES = Plan(0.1)
BEHAVIOURS: Mapping[str, tuple[Plan, ...]] = {
    "medium": (FOES,),
    "good": (Plan(0.0, backs=1.0),),
    "poor": (Plan(0.5),),
    "mixed": (Plan(0.0, backs=1.0), Plan(0.5)),
    "random": (Plan(1.0),),
}
"""Quality -> its behaviours, which have equal shares of the transitions."""


def scripted(
    n: int, plan: Plan, key: Key[Array, ""], obs: Float[Array, "n O"], legal: Bool[Array, "n A"]
) -> Int[Array, " n"]:
    """A unit fires where it can; else it turns to its aim, and then goes there.

    The aim is the nearest opponent that is seen, or the centre. Near the centre, and with no one in
    sight, it turns left. An action that is not legal is a stay.
    """
    k_noise, k_uniform = jax.random.split(key)
    first = obs[:, len(OWN) : len(OWN) + len(OTHER)]
    seen = jnp.abs(first).sum(axis=-1) > 0
    in_reach = first[:, OTHER.index("in reach")] > 0

    # --- the aim, as (ahead, left) ---
    arena = arena_width(n)
    to_centre = 0.5 * arena - obs[:, :2] * arena
    facing = obs[:, 2:4]
    ahead = jnp.sum(to_centre * facing, axis=-1)
    left = to_centre[:, 1] * facing[:, 0] - to_centre[:, 0] * facing[:, 1]
    centre = jnp.stack([ahead, left], axis=-1)
    aim = jnp.where(seen[:, None], first[:, :2], centre)
    distance = jnp.sqrt(jnp.sum(aim**2, axis=-1))

    # --- the script, its last rule first ---
    turn = jnp.where(aim[:, 1] > 0, LEFT, RIGHT)
    action = jnp.where(aim[:, 0] < COSINE * distance, turn, FORWARD)
    there = ~seen & (jnp.sqrt(jnp.sum(centre**2, axis=-1)) <= RANGE)
    action = jnp.where(there, LEFT, action)
    action = jnp.where((plan.backs > 0) & in_reach, BACK, action)
    action = jnp.where(legal[:, FIRE], FIRE, action)

    # --- noise ---
    uniform = jax.random.randint(k_uniform, (n,), 0, len(ACTIONS))
    noisy = jax.random.uniform(k_noise, (n,)) < plan.noise
    action = jnp.where(noisy, uniform, action)
    allowed = jnp.take_along_axis(legal, action[:, None], axis=1)[:, 0]
    return jnp.where(allowed, action, STAY)


def still(key: Key[Array, ""], obs: Array, legal: Array) -> Int[Array, " n"]:
    """Foes that stay where they are."""
    return jnp.full(len(obs), STAY)


def task(size: str, foes: str = "script", reward: str = "dof", horizon: int = 100) -> Task:
    """The battle of n against n.

    - `foes` follow the script, or stand still.
    - `reward` is DoF's, or dense: without what a step costs in which no foe is downed.

    Raises JaxomarlError for a size that is no whole number from 1 on, and for other settings.
    """
    field = f"battle/{size}"
    if not size.isdigit() or int(size) < 1:
        raise refuse("task battle/...", "a number of units, such as battle/8", size, "From 1 on.")
    choices = {"foes": (foes, ("script", "still")), "reward": (reward, ("dof", "dense"))}
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            way = "Leave it out for the first."
            raise refuse(f"{field}, {name}", " or ".join(allowed), value, way)
    if horizon < 1:
        raise refuse(f"{field}, horizon", "at least 1 step", horizon, "Leave it out for 100.")

    n = int(size)
    dialect = f"battle-v1-{n}"
    for name, (value, allowed) in choices.items():
        if value != allowed[0]:
            dialect += f"-{name}={value}"

    def follow(key: Key[Array, ""], obs: Array, legal: Array) -> Int[Array, " n"]:
        return scripted(n, FOES, key, obs, legal)

    script = still if foes == "still" else follow
    env = environment(n, horizon, dialect, script, dense=reward == "dense")
    return Task(
        field,
        env,
        recipes(env),
        "medium",
        optimum=None,
        about=f"{n} against {n} scripted units: hits, downs and 50 for the last foe",
        rows=100_000 if n <= 16 else 10_000,
        fields=column_names(n),
        final_episodes=FINAL,
    )


def recipes(env: Environment) -> Mapping[str, Recipe]:
    """The recipe of every quality."""
    n = env.spec.agents

    def act(plan: Any, key: Key[Array, ""], seen: Observation) -> Float[Array, "N A"]:
        chosen = scripted(n, plan, key, seen.obs, seen.available)
        return jax.nn.one_hot(chosen, len(ACTIONS))

    def of(plans: tuple[Plan, ...]) -> Recipe:
        share = 1.0 / len(plans)
        return mixture(env, [Part(Behaviour(act, p), k, share) for k, p in enumerate(plans)])

    return {quality: of(plans) for quality, plans in BEHAVIOURS.items()}


def column_names(n: int) -> Fields:
    """Names of the columns of each ally's observation and action; nearest units first."""
    shown = [f"{side} {k}" for side in ("foe", "ally") for k in range(SHOWN)]
    others = [f"{unit} {column}" for unit in shown for column in OTHER]
    obs = (*(f"own {column}" for column in OWN), *others)
    return Fields((obs,) * n, (ACTIONS,) * n)
