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


def test_a_trail_leads_from_faint_to_strong_below_its_disc():
    points = np.array([[-1.0, -0.5], [0.0, -0.5], [1.0, -0.5]])
    trail = draw.Trail(points, BLACK)
    share = cover(draw.scene([], view=1.5, size=200, trails=[trail]))
    rows, columns = np.nonzero(share > 0.2)
    assert rows.min() >= 130 and rows.max() <= 137, "y is upwards"
    assert columns.min() == pytest.approx(33, abs=2) and columns.max() == pytest.approx(167, abs=2)
    assert share[133, 66] == pytest.approx(draw.FAINT, abs=0.03)
    assert share[133, 133] == pytest.approx(draw.STRONG, abs=0.03)
    disc = Disc(1.0, -0.5, 0.2, draw.PREY)
    both = draw.scene([disc], view=1.5, size=200, trails=[trail])
    assert tuple(both[133, 160]) == draw.PREY


def test_only_the_newest_steps_of_a_trail_are_drawn():
    x = np.linspace(-1.0, 1.0, 2 * draw.STEPS + 1)
    trail = draw.Trail(np.stack([x, 0 * x], axis=1), BLACK)
    share = cover(draw.scene([], view=1.5, size=200, trails=[trail]))
    assert np.nonzero(share > 0.1)[1].min() == pytest.approx(100, abs=3)
    alone = draw.Trail(np.array([[0.0, 0.0]]), BLACK)
    np.testing.assert_array_equal(draw.scene([], 1.5, 200, trails=[alone]), EMPTY)
