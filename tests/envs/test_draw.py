"""Pictures of discs: area, place, blending and clipping, in pixels."""

import numpy as np
import pytest

from jaxomarl.envs import draw
from jaxomarl.envs.draw import Disc

BLACK, WHITE = (0, 0, 0), (255, 255, 255)
EMPTY = draw.scene([], view=1.5, size=200)


def cover(frame, rgb=BLACK):
    """[P, P]: the share of each pixel that took the colour."""
    paper = EMPTY.astype(float)
    return ((paper - frame) / (paper - np.array(rgb, float)))[..., 0]


@pytest.mark.parametrize(
    ("x", "y", "radius"), [(0.0, 0.0, 0.4), (0.313, -0.521, 0.15), (-0.9, 0.7, 0.06)]
)
def test_a_disc_has_its_area_and_its_place(x, y, radius):
    share = cover(draw.scene([Disc(x, y, radius, BLACK)], view=1.5, size=200))
    pixel = 3.0 / 200
    assert share.sum() * pixel**2 == pytest.approx(np.pi * radius**2, rel=0.02)
    centre = (np.arange(200) + 0.5) * pixel - 1.5
    assert (share.sum(axis=0) @ centre) / share.sum() == pytest.approx(x, abs=0.1 * pixel)
    assert (share.sum(axis=1) @ -centre) / share.sum() == pytest.approx(
        y, abs=0.1 * pixel
    )  # y upwards
    assert ((share > 0.1) & (share < 0.9)).any()  # a soft edge


def test_alpha_blends_and_later_discs_lie_over_earlier_ones():
    half = draw.scene([Disc(0, 0, 0.5, BLACK, 0.5)], view=1.5)[180, 180]
    np.testing.assert_allclose(half, np.array(draw.PAPER) / 2, atol=1)
    both = draw.scene([(0, 0, 0.5, BLACK, 1.0), (0, 0, 0.3, draw.PREY)], view=1.5)
    assert tuple(both[180, 180]) == draw.PREY and tuple(both[180, 180 + 48]) == BLACK
    assert both.dtype == np.uint8 and both.shape == (360, 360, 3)


def test_what_is_outside_is_cut_off():
    inside = cover(draw.scene([Disc(1.5, 0.2, 0.3, BLACK)], view=1.5, size=200))
    assert inside.sum() * 0.015**2 == pytest.approx(np.pi * 0.3**2 / 2, rel=0.03)
    far = [
        Disc(9.0, 0.0, 0.3, BLACK),
        Disc(0.0, -2.0, 0.3, BLACK),
        Disc(float("nan"), 0.0, 1.0, BLACK),
    ]
    np.testing.assert_array_equal(draw.scene(far, view=1.5, size=200), EMPTY)


def test_a_tail_points_where_it_goes():
    dark = (
        draw.scene([Disc(0, 0, 0.01, draw.INK, 1.0, (0.5, 0.5))], view=1.5, size=200).sum(axis=2)
        < 400
    )
    rows, columns = np.nonzero(dark)
    assert columns.max() == pytest.approx(100 + 33, abs=2) and columns.min() >= 97
    assert rows.min() == pytest.approx(100 - 33, abs=2) and rows.max() <= 102  # upwards


def test_the_square_is_faint_and_the_colours_differ():
    assert (np.array(draw.PAPER) != EMPTY).any(axis=2).sum() > 4 * 130
    assert EMPTY.min() > 200
    assert len({draw.agent_colour(i) for i in range(8)} | set(draw.KINDS.values())) == 8 + 5
    assert draw.agent_colour(8) == draw.agent_colour(0)
