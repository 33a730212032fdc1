"""A battle as pixels."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxomarl.envs import draw

VIEW = 1.05
"""Half-width of the picture, in half-widths of the map."""
FADED = 0.35
"""Opacity of a unit's full circle; the share of its area that is health is opaque."""


def renderer(game: Any) -> Callable[[Sequence[Any]], np.ndarray]:
    """The function that draws the last of some states of a battle, and how the units came there.

    Allies are blue and foes red. A unit's opaque disc has its health's share of the circle's area,
    and a line leads to its target while it shoots.
    """
    n = int(game.num_allies)
    half = np.array([game.map_width, game.map_height]) / 2
    radii = np.asarray(game.unit_type_radiuses)
    most = np.asarray(game.unit_type_health)
    ranges = np.asarray(game.unit_type_attack_ranges)
    moves = int(game.num_movement_actions)

    def render_trails(battles: Sequence[Any]) -> np.ndarray:
        units = battles[-1].inner.state
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
            colour = _colour(int(i), n)
            x, y = position[i] / half - 1.0
            radius = float(radii[kind[i]] / half[0])
            tail = (float(line[0] / half[0]), float(line[1] / half[1]))
            discs.append(draw.Disc(x, y, radius, colour, FADED, tail))
            discs.append(draw.Disc(x, y, radius * share[i] ** 0.5, colour))
        places = np.stack([np.asarray(x.inner.state.unit_positions, float) for x in battles])
        trails = [
            draw.Trail(places[:, i] / half - 1.0, _colour(i, n)) for i in range(places.shape[1])
        ]
        return draw.scene(discs, VIEW, trails=trails)

    return render_trails


def _colour(unit: int, allies: int) -> draw.Colour:
    """Allies are blue and foes red."""
    if unit < allies:
        return draw.AGENTS[0]
    return draw.PREY


def _target(unit: int, shot: int, allies: int) -> int:
    """The unit that is shot at; foes number the allies in the opposite order."""
    if unit < allies:
        return allies + shot
    return allies - 1 - shot
