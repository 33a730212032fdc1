"""The rules of a battle (dialect battle-v1): one step, all from the state before it.

1. Shots fall at once. A firing unit deals 1 to its target, the nearest living opponent within 60
   degrees of its heading and 3 of distance, up to the target's health.
2. A weapon that fired cools for one step.
3. Units that live after the shots move, within the arena. Units that lived before them turn.

Every ally is paid

    damage to foes + 10 foes downed - damage to allies - 10 allies downed
    - 3 where no foe was downed + 50 where the last foe was.

The rewards are DoF's. Grid, sight, health and scripts are ours.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxomarl.base import Environment, Spec, TimeStep
from jaxomarl.envs import draw
from jaxomarl.envs.battle.view import (
    FACING,
    HEALTH,
    WIDTH,
    Seen,
    Units,
    look,
    observations,
)

ACTIONS = ("stay", "forward", "turn left", "turn right", "fire", "back")
STAY, FORWARD, LEFT, RIGHT, FIRE, BACK = range(6)
SPEED = (0.0, 1.0, 0.0, 0.0, 0.0, -0.5)
"""Distance of each action along the heading."""
TURN = (0, 0, 1, -1, 0, 0)
"""Headings of each action to the left."""
DENSITY = 6.0
"""The arena is DENSITY sqrt(n) wide, so that there is as much room for each unit at any n."""


class Battle(NamedTuple):
    """Both sides, and whether the battle is decided."""

    allies: Units
    foes: Units
    over: Bool[Array, ""]


Script = Callable[[Key[Array, ""], Float[Array, "n O"], Bool[Array, "n A"]], Int[Array, " n"]]
"""How foes act: (key, their observations, legal actions) -> numbers of actions."""


def arena_width(n: int) -> float:
    """Width of the square arena."""
    return DENSITY * n**0.5


def legal_actions(who: Units, foes: Seen) -> Bool[Array, "n A"]:
    """Which actions are legal: the dead stay; the living fire with a cool weapon at a target."""
    ready = who.alive & foes.in_reach & (who.cooldown <= 0)
    number = jnp.arange(len(ACTIONS))
    rest = jnp.where(number == FIRE, ready[:, None], who.alive[:, None])
    return (number == STAY) | rest


def fire(who: Units, seen: Seen, action: Int[Array, " n"]) -> tuple[Array, Bool[Array, " n"]]:
    """Shots at each opponent, and which units fired."""
    fired = (action == FIRE) & who.alive & seen.in_reach & (who.cooldown <= 0)
    shots = jnp.zeros(len(who.health)).at[seen.nearest].add(fired.astype(jnp.float32))
    return shots, fired


def moved(
    who: Units,
    action: Int[Array, " n"],
    shots: Float[Array, " n"],
    fired: Bool[Array, " n"],
    arena: float,
) -> Units:
    """A side after the shots at it and its own moves."""
    health = jnp.maximum(who.health - shots, 0.0)
    distance = jnp.asarray(SPEED)[action] * (health > 0)
    position = jnp.clip(who.position + distance[:, None] * who.facing, 0.0, arena)
    turn = jnp.where(who.alive, jnp.asarray(TURN)[action], 0)
    cooldown = jnp.where(fired, 1.0, jnp.maximum(who.cooldown - 1.0, 0.0))
    return Units(position, (who.heading + turn) % len(FACING), health, cooldown)


def payment(before: Battle, after: Battle, dense: bool) -> Float[Array, ""]:
    """The reward of every ally; `dense` leaves out what a step without a downed foe costs."""

    def lost(old: Units, new: Units) -> tuple[Array, Array]:
        downed = (old.alive & ~new.alive).sum()
        return (old.health - new.health).sum(), downed.astype(jnp.float32)

    damage, downed = lost(before.foes, after.foes)
    own_damage, own_downed = lost(before.allies, after.allies)
    reward = damage + 10.0 * downed - own_damage - 10.0 * own_downed
    reward = reward + 50.0 * (downed > 0) * ~after.foes.alive.any()
    if dense:
        return reward
    return reward - 3.0 * (downed == 0)


def environment(
    n: int, horizon: int, dialect: str, script: Script, dense: bool = False
) -> Environment:
    """The battle of n allies, who are the agents, against n foes that follow `script`."""
    arena = arena_width(n)
    spec = Spec(
        obs_dims=(WIDTH,) * n,
        act_dims=(len(ACTIONS),) * n,
        state_dim=12 * n,
        horizon=horizon,
        discrete=True,
        dialect=dialect,
        earliest=min(5, horizon),
    )

    def timestep(battle: Battle, reward: Array, info: dict[str, Array]) -> TimeStep:
        foes = look(battle.allies, battle.foes, same_side=False)
        allies = look(battle.allies, battle.allies, same_side=True)
        return TimeStep(
            obs=observations(battle.allies, foes, allies, arena),
            state=whole_state(battle, arena),
            reward=jnp.full(n, reward),
            done=battle.over.astype(jnp.float32),
            alive=battle.allies.alive.astype(jnp.float32),
            available=legal_actions(battle.allies, foes),
            info=info,
        )

    def reset(key: Key[Array, ""]) -> tuple[Battle, TimeStep]:
        k_allies, k_foes = jax.random.split(key)
        allies = new_side(k_allies, n, 0.0, arena / 4, heading=0)
        foes = new_side(k_foes, n, 3 * arena / 4, arena, heading=3)
        battle = Battle(allies, foes, jnp.zeros((), bool))
        zeros = {name: jnp.zeros(()) for name in figures(battle)}
        return battle, timestep(battle, jnp.zeros(()), zeros)

    def step(
        key: Key[Array, ""], battle: Battle, action: Float[Array, "N A"]
    ) -> tuple[Battle, TimeStep]:
        after = fought(key, battle, jnp.argmax(action, axis=-1), script, arena)
        reward = payment(battle, after, dense)

        # a decided battle stays as it is
        after = jax.tree.map(lambda old, new: jnp.where(battle.over, old, new), battle, after)
        reward = jnp.where(battle.over, 0.0, reward)
        return after, timestep(after, reward, figures(after))

    render_trails = renderer(arena)
    render = draw.still(render_trails)
    return Environment(spec, reset, step, render, render_trails=render_trails)


def fought(
    key: Key[Array, ""], battle: Battle, chosen: Int[Array, " n"], script: Script, arena: float
) -> Battle:
    """The battle after one step, in which allies do what was chosen and foes follow `script`."""
    # --- what both sides see, and the foes' actions ---
    ahead = look(battle.allies, battle.foes, same_side=False)
    back = look(battle.foes, battle.allies, same_side=False)
    beside = look(battle.foes, battle.foes, same_side=True)
    seen = observations(battle.foes, back, beside, arena)
    theirs = script(key, seen, legal_actions(battle.foes, back))

    # --- shots, then moves ---
    at_foes, allies_fired = fire(battle.allies, ahead, chosen)
    at_allies, foes_fired = fire(battle.foes, back, theirs)
    allies = moved(battle.allies, chosen, at_allies, allies_fired, arena)
    foes = moved(battle.foes, theirs, at_foes, foes_fired, arena)
    return Battle(allies, foes, ~(allies.alive.any() & foes.alive.any()))


def new_side(key: Key[Array, ""], n: int, low: float, high: float, heading: int) -> Units:
    """A side at the start, between two lines across the arena."""
    x, y = jax.random.uniform(key, (2, n))
    position = jnp.stack([low + (high - low) * x, arena_width(n) * y], axis=-1)
    full = jnp.full(n, HEALTH)
    return Units(position, jnp.full(n, heading), full, jnp.zeros(n))


def whole_state(battle: Battle, arena: float) -> Float[Array, " S"]:
    """Place, heading, health and cooldown of all units, allies first."""

    def rows(side: Units) -> Array:
        columns = [side.health[:, None] / HEALTH, side.cooldown[:, None]]
        return jnp.concatenate([side.position / arena, side.facing, *columns], axis=-1)

    return jnp.concatenate([rows(battle.allies), rows(battle.foes)]).reshape(-1)


def figures(battle: Battle) -> dict[str, Float[Array, ""]]:
    """Whether the allies won, shares of units that live, and the damage done as a share."""
    allies = battle.allies.alive.astype(jnp.float32)
    foes = battle.foes.alive.astype(jnp.float32)
    won = (foes.sum() == 0) & (allies.sum() > 0)
    return {
        "win": won.astype(jnp.float32),
        "allies_left": allies.mean(),
        "foes_left": foes.mean(),
        "damage": 1.0 - battle.foes.health.mean() / HEALTH,
    }


def renderer(arena: float) -> Callable[[Sequence[Battle]], np.ndarray]:
    """The function that draws the last of some states of a battle, and how the units came there.

    Allies are blue, foes red, and health is opacity; a line shows a unit's heading.
    """

    def trails(sides: Sequence[Units], colour: draw.Colour) -> list[draw.Trail]:
        places = np.stack([np.asarray(side.position, float) for side in sides])
        return [draw.Trail(2.0 * path / arena - 1.0, colour) for path in places.swapaxes(0, 1)]

    def render_trails(battles: Sequence[Battle]) -> np.ndarray:
        battle = battles[-1]
        discs = []
        for side, colour in ((battle.allies, draw.AGENTS[0]), (battle.foes, draw.PREY)):
            position = 2.0 * np.asarray(side.position, float) / arena - 1.0
            health = np.asarray(side.health, float) / HEALTH
            heading = np.asarray(side.heading)
            for i in np.flatnonzero(health > 0):
                x, y = position[i]
                dx, dy = 1.5 * FACING[heading[i]] / arena
                tail = float(dx), float(dy)
                discs.append(draw.Disc(x, y, 0.6 / arena, colour, 0.3 + 0.7 * health[i], tail))
        paths = trails([x.allies for x in battles], draw.AGENTS[0])
        paths += trails([x.foes for x in battles], draw.PREY)
        return draw.scene(discs, 1.05, trails=paths)

    return render_trails
