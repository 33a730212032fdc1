"""Figures: valid files of the expected size, with the expected panels, directions and numbers."""

import importlib.util
import struct
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from jaxomarl.api import pictures
from jaxomarl.base import JaxomarlError
from jaxomarl.results import canvas, figures, store, tables

HAS_MATPLOTLIB = importlib.util.find_spec("matplotlib") is not None
needs_matplotlib = pytest.mark.skipif(
    not HAS_MATPLOTLIB, reason="matplotlib is an extra: jaxomarl[plot]"
)
POINTS = np.stack(np.meshgrid(np.linspace(-1, 1, 7), np.linspace(-1, 1, 7)), -1).reshape(-1, 2)


def size(path):
    """(width, height) from a PNG's header."""
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n" and head[12:16] == b"IHDR"
    return struct.unpack(">II", head[16:24])


def study(systems=("bc", "omsd"), data=("medium", "expert"), nan=()):
    """Runs and rows of two tasks' worth of constant, seed-numbered returns."""
    runs, rows = [], []
    for system in systems:
        for quality in data:
            for seed in range(4):
                info = {
                    "system": system,
                    "task": "games/two-modes",
                    "data": quality,
                    "config": system,
                    "seed": seed,
                }
                info |= {"cfg": {}, "swept": {}, "final_stage": "policy"}
                x = np.full((3, 2), float(seed))
                if (system, quality, seed) in nan:
                    x[-1] = np.nan
                runs.append(store.Run(Path(f"/runs/{len(runs)}"), info))
                rows += store.returns_rows(info, "policy", np.array([100, 200, 300]), {"return": x})
    return runs, rows


@needs_matplotlib
def test_score_fields_has_a_panel_per_field_and_one_scale(tmp_path):
    data = np.random.default_rng(0).uniform(-1, 1, (200, 2)).astype(np.float32)
    walk = np.stack([np.linspace([0, 0], [0.8, 0.8], 5), np.linspace([0, 0], [0.8, -0.8], 5)])
    fields = {
        "joint": (POINTS, -3.0 * POINTS),
        "product": (POINTS, np.where(POINTS[10] == POINTS, np.nan, POINTS)),
    }
    figure = figures.score_fields(tmp_path / "a.png", data, fields, {"joint": walk})
    assert size(tmp_path / "a.png") == (3 * 3 * 150, 570)  # two rows of the legend
    assert len(figure.axes) == 1 + 2 + 1  # data, fields, colour bar
    assert [axes.get_title() for axes in figure.axes[:3]] == [
        "(a) data",
        "(b) joint",
        "(c) product",
    ]
    for axes in figure.axes[:3]:
        assert axes.get_xlim() == axes.get_ylim() == (-1.05, 1.05)
        assert axes.get_xlabel() == "action of agent 1" and axes.get_ylabel() == "action of agent 2"
    lines, quiver = figure.axes[1].lines, figure.axes[1].collections[-1]
    assert [line.get_color() for line in lines[::3]] == [figures.COORDINATED, figures.ASTRAY]
    drawn = np.linalg.norm(POINTS, axis=-1) > 0  # the zero direction in the middle has no arrow
    np.testing.assert_allclose(np.hypot(quiver.U, quiver.V), 1.0)
    np.testing.assert_allclose(
        quiver.U, (-POINTS[drawn] / np.linalg.norm(POINTS[drawn], axis=-1, keepdims=True))[:, 0]
    )
    np.testing.assert_allclose(quiver.get_array(), 3.0 * np.linalg.norm(POINTS[drawn], axis=-1))
    figures.score_fields(tmp_path / "b.png", data, fields, {"joint": walk})
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@needs_matplotlib
@pytest.mark.parametrize(
    "end, colour",
    [
        ((0.4, 0.9), figures.COORDINATED),
        ((-0.4, -0.9), figures.COORDINATED),
        ((0.3, 0.9), figures.ASTRAY),
        ((0.4, -0.9), figures.ASTRAY),
        (
            (np.nan, 0.9),
            figures.ASTRAY,
        ),  # the last finite action is coordinated, but the policy diverged
    ],
)
def test_a_path_is_coloured_by_its_end(tmp_path, end, colour):
    walk = np.array([[(0.0, 0.0), (0.7, 0.7), end]])
    figure = figures.score_fields(tmp_path / "a.png", POINTS, {"f": (POINTS, POINTS)}, {"f": walk})
    assert figure.axes[1].lines[0].get_color() == colour
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert ("policy diverged" in told) == bool(np.isnan(end[0]))


@needs_matplotlib
def test_data_alone_is_a_figure_and_many_fields_wrap(tmp_path):
    assert len(figures.score_fields(tmp_path / "a.png", POINTS, {}).axes) == 1
    assert size(tmp_path / "a.png") == (450, 540)
    figures.score_fields(tmp_path / "b.png", POINTS, {f"f{k}": (POINTS, POINTS) for k in range(5)})
    assert size(tmp_path / "b.png") == (3 * 450, 1020)


def test_paths_without_a_field_and_wrong_shapes_are_refused(tmp_path):
    with pytest.raises(JaxomarlError, match="titles of fields"):
        figures.score_fields(tmp_path / "a.png", POINTS, {}, {"g": np.zeros((1, 2, 2))})
    with pytest.raises(JaxomarlError, match=r"\[G, 2\]"):
        figures.score_fields(tmp_path / "a.png", POINTS, {"g": (POINTS, POINTS[:3])})
    with pytest.raises(JaxomarlError, match="seeds, V, 2"):
        figures.score_fields(
            tmp_path / "a.png", POINTS, {"g": (POINTS, POINTS)}, {"g": np.zeros((2, 2))}
        )
    assert list(tmp_path.iterdir()) == []


@needs_matplotlib
def test_learning_curves_are_means_over_seeds_and_mark_what_is_missing(tmp_path):
    _, rows = study(nan=[("omsd", "expert", 3)])
    figure = figures.learning_curves(tmp_path / "a.png", rows)
    assert size(tmp_path / "a.png") == (2 * 600, 532)  # one row of the legend
    assert [axes.get_title() for axes in figure.axes] == [
        "games/two-modes  expert",
        "games/two-modes  medium",
    ]
    bc, bc_marks, omsd, omsd_marks = figure.axes[0].lines
    assert bc.get_ydata().tolist() == [1.5, 1.5, 1.5] and len(bc_marks.get_xdata()) == 0
    assert omsd.get_ydata().tolist() == [1.5, 1.5, 1.0]  # the mean of seeds 0, 1, 2
    assert omsd_marks.get_xdata().tolist() == [300]
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    band_label = "band: mean ± one standard error of 4 seeds"
    assert told == ["bc", "omsd", band_label, "a seed is missing or not finite"]
    band = figure.axes[0].collections[0].get_paths()[0].vertices[:, 1]
    error = np.std([0, 1, 2, 3], ddof=1) / 2  # one standard error of four seeds
    assert (band.min(), band.max()) == pytest.approx((1.5 - error, 1.5 + error))
    assert figure.get_suptitle() == figures.CURVES
    with pytest.raises(JaxomarlError, match="'win'"):
        figures.learning_curves(tmp_path / "b.png", rows, "win")


@needs_matplotlib
def test_a_curve_that_diverged_goes_on_as_crosses_at_its_last_mean():
    """Every seed of omsd is not finite at its last evaluation."""
    _, rows = study(data=("expert",), nan=[("omsd", "expert", seed) for seed in range(4)])
    figure = figures.learning_curves(None, rows)
    omsd, marks = figure.axes[0].lines[2:]
    assert np.isnan(omsd.get_ydata()[-1])
    assert (marks.get_xdata().tolist(), marks.get_ydata().tolist()) == ([300], [1.5])


@needs_matplotlib
def test_curves_of_one_system_are_told_apart(tmp_path):
    _, rows = study(systems=("bc",), data=("medium",))
    rows += [row._replace(config="0123456789", value=5.0) for row in rows]
    words = {"bc": "beta=1", "0123456789": "beta=5"}
    same = {"bc": "beta=1", "0123456789": "beta=1"}
    for labels, expected in (
        (None, ["bc (01234567)", "bc (bc)"]),
        (words, ["bc beta=1", "bc beta=5"]),
        (same, ["bc beta=1 (01234567)", "bc beta=1 (bc)"]),
    ):
        figure = figures.learning_curves(None, rows, labels=labels)
        texts = [text.get_text() for text in figure.legends[0].get_texts()]
        assert texts == [*expected, "band: mean ± one standard error of 4 seeds"]
    assert {line.get_marker() for line in figure.axes[0].lines[::2]} == {"o"}, "three evaluations"


@needs_matplotlib
def test_results_name_curves_by_what_was_swept():
    """`returns.png` and `intervals.png` of one sweep have the same names."""
    runs, rows = study(systems=("bc",), data=("medium",))
    for value, config in ((0.3, "0123456789"), (5.0, "9876543210")):
        for run in runs[:4]:
            info = {**run.info, "config": config, "swept": {"beta": value}}
            runs = [*runs, run._replace(info=info)]
        rows += [row._replace(config=config) for row in rows[:24]]
    runs, rows = runs[4:], rows[24:]
    records = tables.summary(rows, runs)
    curves = pictures.figure("returns", rows, records, [])
    intervals = pictures.figure("intervals", rows, records, [])
    names = [label.get_text() for label in intervals.axes[0].get_yticklabels()]
    assert names == ["bc beta=0.3", "bc beta=5.0"]
    assert [text.get_text() for text in curves.legends[0].get_texts()][:2] == names


@needs_matplotlib
def test_no_line_of_a_note_or_a_legend_is_wider_than_its_figure(tmp_path):
    wide = f"{'MWMW ' * 30}\n{'i' * 40} short"
    lines = canvas.fitting_lines("MWMW " * 30, 3.9)
    assert " ".join(lines).split() == ["MWMW"] * 30 and len(lines) > 3
    _, rows = study(systems=("bc",), data=("medium",))
    labels = {
        "bc": "prefix_level=0.2 score_model=mixture weighting=vds reward=team policy_lr=0.001"
    }
    figure = figures.learning_curves(tmp_path / "a.png", rows, labels=labels, note=wide)
    drawn = [figure._suptitle, figure.legends[0]]
    for box in (artist.get_window_extent() for artist in drawn):
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width
        assert box.y0 >= 0 and box.y1 <= figure.bbox.height


@needs_matplotlib
def test_score_intervals_draws_each_record(tmp_path):
    runs, rows = study(nan=[("omsd", "expert", s) for s in range(4)] + [("bc", "expert", 0)])
    records = tables.summary(rows, runs)
    figure = figures.score_intervals(tmp_path / "a.png", records)
    assert size(tmp_path / "a.png") == (2 * 690, 247)
    expert, medium = figure.axes
    assert [label.get_text() for label in expert.get_yticklabels()] == [
        "bc\n1 of 4 diverged",
        "omsd\n4 of 4 diverged",
    ]
    whisker, point = medium.lines[:2]
    record = next(r for r in records if r.data == "medium")
    assert whisker.get_xdata().tolist() == [
        record.iqm_low,
        record.iqm_high,
    ] and point.get_xdata().tolist() == [record.iqm]
    assert (
        "the same 2 for every seed and system: intervals cover seeds alone" in figure.get_suptitle()
    )
    own = figures.score_intervals(
        tmp_path / "c.png", [record._replace(covers="seeds and episodes")], note="Scale 0.1"
    )
    assert own.get_suptitle().endswith("cover seeds and episodes.\nScale 0.1")
    with pytest.raises(JaxomarlError, match="one record"):
        figures.score_intervals(tmp_path / "b.png", [])


@needs_matplotlib
@pytest.mark.filterwarnings("error")  # matplotlib warns where axes collapse
def test_a_long_note_leaves_axes_their_height(tmp_path):
    runs, rows = study()
    one = tables.summary(rows, runs)[:1]
    heights = []
    for note in ("", "Scale 0.001: " + 5 * "steps and widths are smaller than the preset's. "):
        figure = figures.score_intervals(tmp_path / "a.png", one, note)
        heights.append(figure.axes[0].get_window_extent().height / figure.dpi)
    assert min(heights) > 0.3 and abs(heights[1] - heights[0]) < 0.1


@needs_matplotlib
def test_a_figure_has_its_copies_as_svg_and_pdf(tmp_path, monkeypatch):
    with pytest.raises(JaxomarlError, match=r"\.svg or \.pdf, found '\.gif'"):
        figures.score_fields(tmp_path / "a.gif", POINTS, {})
    monkeypatch.setattr(canvas, "COPIES", (".svg", ".pdf"))
    figure = figures.score_fields(tmp_path / "a.png", POINTS, {})
    before = (tmp_path / "a.png").read_bytes()
    kept = []
    for _ in range(2):
        svg, pdf = canvas.save_copies(figure, tmp_path / "a.png")
        kept.append((svg.read_bytes(), pdf.read_bytes()))
    assert kept[0] == kept[1], "no dates, and no identifiers that change"
    root = ElementTree.parse(svg).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert float(root.get("width").removesuffix("pt")) == 72 * figure.get_size_inches()[0]
    assert pdf.read_bytes().startswith(b"%PDF") and b"/CreationDate" not in pdf.read_bytes()
    assert (tmp_path / "a.png").read_bytes() == before


def test_without_matplotlib_the_way_out_is_named(tmp_path, monkeypatch):
    for module in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(JaxomarlError, match=r"pip install 'jaxomarl\[plot\]'"):
        figures.learning_curves(tmp_path / "a.png", study()[1])
    with pytest.raises(JaxomarlError, match=r"pip install 'jaxomarl\[plot\]'"):
        figures.score_fields(tmp_path / "a.png", POINTS, {"f": (POINTS, POINTS)})
