"""Discs on a plane as pixels: NumPy alone, no display."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

Colour = tuple[int, int, int]

# Okabe and Ito's palette and three of Tol's muted colours, safe for the colour-blind
AGENTS: tuple[Colour, ...] = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (136, 34, 85),
    (51, 34, 136),
    (153, 153, 51),
)
"""Colours of the learning agents."""
PREY: Colour = (213, 94, 0)
LANDMARK: Colour = (45, 45, 45)
OBSTACLE: Colour = (160, 160, 160)
FOOD: Colour = (120, 60, 200)
FOREST: Colour = (168, 196, 150)
KINDS: dict[str, Colour] = {
    "agent": AGENTS[0],
    "predator": AGENTS[0],
    "prey": PREY,
    "landmark": LANDMARK,
    "obstacle": OBSTACLE,
    "food": FOOD,
    "forest": FOREST,
}
"""Colours by the kind of entity."""
PAPER: Colour = (250, 250, 248)
FRAME: Colour = (222, 222, 218)
"""Colour of the square [-1, 1]."""
INK: Colour = (40, 40, 40)
"""Colour of velocity lines."""
FAINT = 0.25
"""Opacity of the oldest piece of a trail."""
STRONG = 0.8
"""Opacity of its newest."""
STEPS = 25
"""Newest pieces of a trail that are drawn."""


class Trail(NamedTuple):
    """The path of a body: points [T, 2] in world units, the oldest first."""

    points: Float[np.ndarray, "T 2"]
    rgb: Colour


class Disc(NamedTuple):
    """A filled circle, in world units; `tail` is a line from its centre, such as a velocity."""

    x: float
    y: float
    radius: float
    rgb: Colour
    alpha: float = 1.0
    tail: tuple[float, float] = (0.0, 0.0)


def agent_colour(i: int) -> Colour:
    """The colour of learning agent `i`; they repeat after eight."""
    return AGENTS[i % len(AGENTS)]


def scene(
    discs: Sequence[tuple[Any, ...]], view: float, size: int = 360, trails: Sequence[Trail] = ()
) -> UInt8[np.ndarray, "P P 3"]:
    """The discs within the square [-view, view] as size x size pixels, y upwards.

    A disc is a `Disc`, or a plain tuple in its order. Later discs lie over earlier ones. Edges are
    anti-aliased. A disc that lies outside, or is not finite, is not drawn. Trails lie below
    all discs.
    """
    canvas = np.empty((size, size, 3), np.float32)
    canvas[:] = PAPER
    scale = size / (2.0 * view)
    _frame(canvas, view, scale)
    for trail in trails:
        _trail(canvas, trail, view, scale)
    for disc in discs:
        x, y, radius, rgb, alpha, tail = Disc(*disc)
        if not np.isfinite([x, y, radius, *tail]).all():
            continue
        centre = np.array([(view + x) * scale, (view - y) * scale])
        _segment(canvas, centre, centre, radius * scale, rgb, alpha)
        if any(tail):
            end = centre + scale * np.array([tail[0], -tail[1]])
            _segment(canvas, centre, end, size / 300, INK, alpha)
    return np.rint(canvas).astype(np.uint8)


def still(
    render_trails: Callable[[Sequence[Any]], np.ndarray] | None,
) -> Callable[[Any], np.ndarray] | None:
    """The function that draws one state, from one that draws several with their trails, if any."""
    if render_trails is None:
        return None
    return lambda state: render_trails([state])


def _trail(canvas: np.ndarray, trail: Trail, view: float, scale: float) -> None:
    """Draw a trail from its oldest piece to its newest, which is the strongest."""
    points = np.asarray(trail.points, float)[-STEPS - 1 :]
    centres = scale * (view + points * np.array([1.0, -1.0]))
    opacities = np.linspace(FAINT, STRONG, len(points) - 1)
    for a, b, alpha in zip(centres[:-1], centres[1:], opacities, strict=True):
        if np.isfinite([a, b]).all():
            _segment(canvas, a, b, len(canvas) / 150, trail.rgb, float(alpha))


def _frame(canvas: np.ndarray, view: float, scale: float) -> None:
    """Draw the outline of the square [-1, 1]."""
    low = (view - 1.0) * scale
    high = (view + 1.0) * scale
    corners = np.array([[low, low], [high, low], [high, high], [low, high]])
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        _segment(canvas, a, b, 0.75, FRAME, 1.0)


def _segment(
    canvas: np.ndarray, a: np.ndarray, b: np.ndarray, radius: float, rgb: Colour, alpha: float
) -> None:
    """Blend in all pixels within `radius` of the segment from `a` to `b`.

    The segment is a disc where the ends are one point.
    """
    size = len(canvas)
    lowest = np.floor(np.minimum(a, b) - radius - 1)
    highest = np.ceil(np.maximum(a, b) + radius + 1)
    low = np.clip(lowest, 0, size).astype(int)
    high = np.clip(highest, 0, size).astype(int)
    if (high <= low).any():
        return

    # from `a` to the pixels' centres
    x = np.arange(low[0], high[0]) + 0.5 - a[0]
    y = np.arange(low[1], high[1])[:, None] + 0.5 - a[1]
    dx, dy = b - a
    squared_length = max(dx * dx + dy * dy, 1e-9)
    along = np.clip((x * dx + y * dy) / squared_length, 0.0, 1.0)
    distance = np.hypot(x - along * dx, y - along * dy)
    cover = alpha * np.clip(radius + 0.5 - distance, 0.0, 1.0)[..., None]
    patch = canvas[low[1] : high[1], low[0] : high[0]]
    patch += cover.astype(np.float32) * (np.array(rgb, np.float32) - patch)
