"""A battle as pixels."""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxomarl.envs import draw

VIEW = 1.05
"""Half-width of the picture, in half-widths of the map."""
FADED = 0.35
"""Opacity of a unit's full circle; the share of its area that is health is opaque."""


def renderer(game: Any) -> Callable[[Any], np.ndarray]:
    """The function that draws a battle's state.

    Allies are blue and foes red. A unit's opaque disc has its health's share of the circle's area,
    and a line leads to its target while it shoots.
    """
    n = int(game.num_allies)
    half = np.array([game.map_width, game.map_height]) / 2
    radii = np.asarray(game.unit_type_radiuses)
    most = np.asarray(game.unit_type_health)
    ranges = np.asarray(game.unit_type_attack_ranges)
    moves = int(game.num_movement_actions)

    def render(battle: Any) -> np.ndarray:
        units = battle.inner.state
        position = np.asarray(units.unit_positions, float)
        alive = np.asarray(units.unit_alive)
        kind = np.asarray(units.unit_types)
        shots = np.asarray(units.prev_attack_actions)
        share = np.clip(np.asarray(units.unit_health, float) / most[kind], 0.0, 1.0)
        discs = []
        for i in np.flatnonzero(alive):
            target = _target(int(i), int(shots[i]) - moves, n)
            line = np.zeros(2)
            if shots[i] >= moves:
                line = position[target] - position[i]
                line = line * (np.hypot(*line) < ranges[kind[i]])
            colour = draw.AGENTS[0] if i < n else draw.PREY
            x, y = position[i] / half - 1.0
            radius = float(radii[kind[i]] / half[0])
            tail = (float(line[0] / half[0]), float(line[1] / half[1]))
            discs.append(draw.Disc(x, y, radius, colour, FADED, tail))
            discs.append(draw.Disc(x, y, radius * share[i] ** 0.5, colour))
        return draw.scene(discs, VIEW)

    return render


def _target(unit: int, shot: int, allies: int) -> int:
    """The unit that is shot at; foes number the allies in the opposite order."""
    if unit < allies:
        return allies + shot
    return allies - 1 - shot
