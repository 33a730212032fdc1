"""JaxMARL's SMAX against its heuristic enemy, under our contract.

JaxMARL's adapter of other games does not serve here, for five reasons:

- Who is alive is read from the units, so that an agent that dies on the last step is dead.
- A battle that is decided at the horizon is a termination. The horizon itself is a time-out, and
  JaxMARL's own counter, which is one step late, is not read.
- JaxMARL pays the bonus of a win again in every step after it. Here a decided battle is frozen.
- JaxMARL's info is empty. Here it tells who won, and what is left of both sides.
- Of both teams only the allies are agents.

Source: Rutherford et al. 2024, "JaxMARL: Multi-Agent RL Environments and Algorithms in JAX".
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxomarl.base import Environment, Fields, Spec, State, TimeStep, refuse
from jaxomarl.envs import draw
from jaxomarl.envs.jaxmarl import cast_to, jaxmarl_package
from jaxomarl.envs.smax.picture import renderer

ATTACKS = ("closest", "random")
"""Whom a foe shoots at: the closest ally in range, or a random one; it stays with it."""
MOVES = ("up", "right", "down", "left", "stop")
"""The actions before those that shoot."""
STOP = MOVES.index("stop")
"""Number of the action that is always legal."""
UNIT_COLUMNS = (
    "health", "dx", "dy", "moved x", "moved y", "target", "cooldown",
    "marine", "marauder", "stalker", "zealot", "zergling", "hydralisk",
)  # fmt: skip
"""What an observation has of each other unit."""
OWN_COLUMNS = ("health", "x", "y", "cooldown", *UNIT_COLUMNS[7:])
"""What an observation has of the observer."""


class Battle(NamedTuple):
    """JaxMARL's state, and whether the battle is decided."""

    inner: State
    over: Bool[Array, ""]


def enemy_game(map_name: str, attack: str, horizon: int, foes_shoot: bool) -> Any:
    """JaxMARL's battle on a map.

    Raises JaxomarlError for an unknown map, for another way to attack, and for a horizon below 1.
    """
    # --- refusals ---
    package = jaxmarl_package()
    from jaxmarl.environments.smax.smax_env import MAP_NAME_TO_SCENARIO

    field = f"smax/{map_name}"
    if map_name not in MAP_NAME_TO_SCENARIO:
        way = f"Known: {', '.join(MAP_NAME_TO_SCENARIO)}."
        raise refuse("task smax/...", "a map of SMAX", map_name, way)
    if attack not in ATTACKS:
        way = "Leave it out for JaxMARL's own."
        raise refuse(f"{field}, attack", " or ".join(ATTACKS), attack, way)
    if horizon < 1:
        raise refuse(f"{field}, horizon", "at least 1 step", horizon, "Leave it out for 100.")

    # --- the game ---
    return package.make(
        "HeuristicEnemySMAX",
        scenario=MAP_NAME_TO_SCENARIO[map_name],
        attack_mode=attack,
        enemy_shoots=foes_shoot,
        max_steps=horizon,
    )


def environment(game: Any, horizon: int, dialect: str) -> Environment:
    """The contract around JaxMARL's battle: the allies are the agents, and all have one reward.

    A step's reward is the share of health that the foes lose, averaged over them, and 1 more where
    the last foe falls and an ally lives. A return is in [0, 2], and 2 for a win alone.
    """
    allies = list(game.agents)
    n = len(allies)
    spec, dtypes = _traced(game, horizon, dialect)

    def timestep(battle: Battle, reward: Float[Array, " N"], info: dict[str, Array]) -> TimeStep:
        inner = battle.inner
        seen = game.get_obs(inner)
        legal = game.get_avail_actions(inner)
        return TimeStep(
            obs=jnp.stack([seen[a] for a in allies]).astype(jnp.float32),
            state=game.get_world_state(inner).astype(jnp.float32),
            reward=reward,
            done=battle.over.astype(jnp.float32),
            alive=inner.state.unit_alive[:n].astype(jnp.float32),
            available=jnp.stack([legal[a] for a in allies]) > 0,
            info=info,
        )

    def reset(key: Key[Array, ""]) -> tuple[Battle, TimeStep]:
        _, inner = game.reset(key)
        battle = Battle(jax.tree.map(cast_to, inner, dtypes), jnp.zeros((), bool))
        zeros = {name: jnp.zeros(()) for name in ("win", *left_of(game, battle.inner))}
        return battle, timestep(battle, jnp.zeros(n), zeros)

    def step(
        key: Key[Array, ""], battle: Battle, action: Float[Array, "N A"]
    ) -> tuple[Battle, TimeStep]:
        chosen = jnp.argmax(action, axis=-1).astype(jnp.int32)
        actions = {a: chosen[i] for i, a in enumerate(allies)}
        _, stepped, rewards, _, _ = game.step_env(key, battle.inner, actions)
        stepped = jax.tree.map(cast_to, stepped, dtypes)

        # a decided battle stays as it is
        inner = jax.tree.map(
            lambda old, new: jnp.where(battle.over, old, new), battle.inner, stepped
        )
        allies_fell = ~inner.state.unit_alive[:n].any()
        foes_fell = ~inner.state.unit_alive[n:].any()
        gained = jnp.stack([jnp.asarray(rewards[a], jnp.float32) for a in allies])
        reward = jnp.where(battle.over, 0.0, gained)

        info = {"win": (foes_fell & ~allies_fell).astype(jnp.float32), **left_of(game, inner)}
        decided = Battle(inner, allies_fell | foes_fell)
        return decided, timestep(decided, reward, info)

    render_trails = renderer(game)
    render = draw.still(render_trails)
    return Environment(spec, reset, step, render, render_trails=render_trails)


def _traced(game: Any, horizon: int, dialect: str) -> tuple[Spec, Any]:
    """The task's spec and the types of JaxMARL's state, found by tracing a reset and a step."""
    allies = list(game.agents)
    n = len(allies)
    key = jax.random.key(0)
    seen, inner = jax.eval_shape(game.reset, key)
    spec = Spec(
        obs_dims=(seen[allies[0]].size,) * n,
        act_dims=(len(MOVES) + int(game.num_enemies),) * n,
        state_dim=seen["world_state"].size,
        horizon=horizon,
        discrete=True,
        dialect=dialect,
    )
    idle = dict.fromkeys(allies, jnp.int32(STOP))
    after = jax.eval_shape(game.step_env, key, inner, idle)[1]
    return spec, jax.tree.map(lambda a, b: jnp.promote_types(a.dtype, b.dtype), inner, after)


def left_of(game: Any, inner: State) -> dict[str, Float[Array, ""]]:
    """Shares of both sides' units that live, and the foes' mean share of health."""
    n = int(game.num_allies)
    units = inner.state
    alive = units.unit_alive.astype(jnp.float32)
    health = units.unit_health / game.unit_type_health[units.unit_types]
    return {
        "allies_left": alive[:n].mean(),
        "foes_left": alive[n:].mean(),
        "foe_health": jnp.maximum(health[n:], 0.0).mean(),
    }


def column_names(allies: int, foes: int) -> Fields:
    """Names of the columns of each ally's observation and action; foes are counted from 0."""
    obs = []
    for i in range(allies):
        units = [f"ally {j}" for j in range(allies) if j != i]
        units += [f"foe {j}" for j in range(foes)]
        names = [f"{unit} {column}" for unit in units for column in UNIT_COLUMNS]
        obs.append((*names, *(f"own {column}" for column in OWN_COLUMNS)))
    action = (*MOVES, *(f"shoot foe {j}" for j in range(foes)))
    return Fields(tuple(obs), (action,) * allies)


def targets(
    legal: Bool[Array, "N A"], cost: Float[Array, "N F"]
) -> tuple[Int[Array, " N"], Bool[Array, " N"]]:
    """Each agent's shot at the legal target of least cost, and whether it has a target."""
    reachable = legal[:, len(MOVES) :]
    best = jnp.argmin(jnp.where(reachable, cost, jnp.inf), axis=-1)
    return len(MOVES) + best, reachable.any(axis=-1)
