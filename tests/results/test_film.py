"""Films: what was written is read back; a shorter episode holds its last frame; a wrong name says the way out."""

import importlib.util
import sys

import numpy as np
import pytest

from jaxomarl.base import JaxomarlError
from jaxomarl.results import film

needs_pillow = pytest.mark.skipif(
    importlib.util.find_spec("PIL") is None, reason="Pillow is an extra: jaxomarl[plot]"
)
needs_ffmpeg = pytest.mark.skipif(
    importlib.util.find_spec("imageio_ffmpeg") is None,
    reason="imageio-ffmpeg is an extra: jaxomarl[plot]",
)


def ramp(steps, h=40, w=60):
    """[steps, h, w, 3]: a bright bar that moves to the right."""
    out = np.zeros((steps, h, w, 3), np.uint8)
    for t in range(steps):
        out[t, :, 5 * t : 5 * t + 10] = 250
    return out


def bar(frame):
    """The middle column of the bar."""
    bright = frame[..., 0].astype(float).mean(axis=0) > 125
    return np.flatnonzero(bright).mean()


def test_a_mosaic_holds_the_last_frame():
    long, short = ramp(6), ramp(3)
    out = film.mosaic([long, short])
    assert out.shape == (6, 40, 60 + film.GAP + 60, 3) and out.dtype == np.uint8
    np.testing.assert_array_equal(out[:, :, :60], long)
    np.testing.assert_array_equal(out[:3, :, -60:], short)
    np.testing.assert_array_equal(out[3:, :, -60:], np.stack([short[-1]] * 3))
    assert (out[:, :, 60 : 60 + film.GAP] == film.PAPER).all()


@needs_pillow
def test_captions_stand_above():
    out = film.mosaic([ramp(2), ramp(2)], ["one", "a caption that is much too long for it"])
    assert out.shape == (2, 40 + film.LINE, 126, 3)
    np.testing.assert_array_equal(out[:, film.LINE :, :60], ramp(2))
    first, gap, second = np.split(out[0, : film.LINE], [60, 60 + film.GAP], axis=1)
    assert first.min() < 100 and second.min() < 100 and (gap == film.PAPER).all()


@needs_pillow
def test_each_frame_has_its_own_caption_of_two_lines():
    texts = ["bc seed 0\nstep 0 of 2", "bc seed 0\nstep 1 of 2", "bc seed 0\nstep 2 of 2"]
    out = film.mosaic([ramp(3), ramp(5)], [texts, "other"])
    top = 2 * film.LINE
    assert out.shape == (5, top + 40, 126, 3)
    heads = out[:, :top, :60]
    assert (heads[:, : film.LINE] == heads[0, : film.LINE]).all(), "the first line is the same"
    assert len({frame.tobytes() for frame in heads}) == 3
    np.testing.assert_array_equal(heads[3:], heads[[2, 2]])
    assert (out[1:, :top, 66:] == out[0, :top, 66:]).all()
    with pytest.raises(JaxomarlError, match="3 texts, one per frame"):
        film.mosaic([ramp(3)], [texts[:2]])


@needs_pillow
def test_a_legend_names_colours_below_and_wraps():
    entries = [("agent 1", (0, 114, 178)), ("landmark", (45, 45, 45)), ("prey", (213, 94, 0))]
    frames = np.full((2, 30, 150, 3), 9, np.uint8)
    out = film.with_legend(frames, entries)
    assert out.shape == (2, 30 + 2 * film.LINE, 150, 3)
    np.testing.assert_array_equal(out[:, :30], frames)
    for _, colour in entries:
        assert (out[0, 30:] == colour).all(-1).sum() > 20
    assert film.with_legend(frames, []) is frames


@needs_pillow
def test_a_gif_is_read_back(tmp_path):
    from PIL import Image

    film.write(tmp_path / "new" / "a.gif", np.concatenate([ramp(7), ramp(7)[-1:]]), fps=20.0)
    with Image.open(tmp_path / "new" / "a.gif") as image:
        assert image.size == (60, 40) and image.n_frames == 7
        shown, seconds = [], []
        for k in range(image.n_frames):
            image.seek(k)
            shown.append(np.asarray(image.convert("RGB")))
            seconds.append(image.info["duration"] / 1000)
    assert seconds == [0.05] * 6 + [0.1]  # the equal frame lengthens the last
    np.testing.assert_allclose(np.stack(shown), ramp(7), atol=2)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.gif"]


@needs_ffmpeg
def test_an_mp4_is_read_back(tmp_path):
    import imageio_ffmpeg

    path, frames = tmp_path / "a.mp4", ramp(9, 41, 63)  # odd sides
    film.write(path, frames, fps=10.0)
    assert imageio_ffmpeg.count_frames_and_secs(str(path)) == (9, pytest.approx(0.9))
    told, *shown = imageio_ffmpeg.read_frames(str(path))
    assert told["source_size"] == (64, 42) and told["fps"] == 10
    pixels = np.stack([np.frombuffer(frame, np.uint8).reshape(42, 64, 3) for frame in shown])
    assert [bar(x) for x in pixels] == pytest.approx([bar(x) for x in frames], abs=1)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("name", ["a.webm", "a", "a.GIFF"])
def test_another_suffix_is_refused(tmp_path, name):
    with pytest.raises(JaxomarlError, match=r"\.gif or \.mp4"):
        film.write(tmp_path / name, ramp(2))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("suffix", "module"), [("gif", "PIL"), ("mp4", "imageio_ffmpeg")])
def test_without_the_package_the_way_out_is_named(tmp_path, monkeypatch, suffix, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(JaxomarlError, match=r"pip install 'jaxomarl\[plot\]'"):
        film.check(tmp_path / f"a.{suffix}")


@needs_pillow
def test_what_is_no_film_is_refused(tmp_path):
    with pytest.raises(JaxomarlError, match="one h and w"):
        film.mosaic([ramp(2), ramp(2, h=41)])
    with pytest.raises(JaxomarlError, match="one or more"):
        film.mosaic([])
    with pytest.raises(JaxomarlError, match="one per film"):
        film.mosaic([ramp(2)], ["a", "b"])
    with pytest.raises(JaxomarlError, match="frames"):
        film.write(tmp_path / "a.gif", ramp(0))
    with pytest.raises(JaxomarlError, match="fps"):
        film.write(tmp_path / "a.gif", ramp(2), fps=0.0)


@needs_ffmpeg
def test_a_writer_that_fails_leaves_the_old_film(tmp_path, monkeypatch):
    import imageio_ffmpeg

    (tmp_path / "a.mp4").write_bytes(b"old")

    def missing():
        raise RuntimeError("No ffmpeg exe could be found.")

    monkeypatch.setattr(imageio_ffmpeg._io, "get_ffmpeg_exe", missing)
    with pytest.raises(
        JaxomarlError, match=r"No ffmpeg exe could be found\.'\. Install ffmpeg, or write a \.gif"
    ):
        film.write(tmp_path / "a.mp4", ramp(2))
    assert (tmp_path / "a.mp4").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


# --- sheets ---


def test_moments_are_evenly_spaced_with_both_ends():
    assert film.moments(26, 5) == [0, 6, 12, 19, 25]
    assert film.moments(3, 5) == [0, 1, 2] and film.moments(1, 5) == [0]
    assert film.moments(7, 1) == [6]


@needs_pillow
def test_a_sheet_has_a_row_for_each_film_and_wraps_after_five():
    texts = [f"step {t}" for t in range(9)]
    out = film.sheet([ramp(9), ramp(9)], ["one", "two"], [texts, texts], count=6)
    row = film.LINE + 40
    wide = 5 * 60 + 4 * film.GAP
    assert out.shape == (2 * (film.LINE + film.GAP + row) + 2 * row + 3 * film.GAP, wide, 3)
    top = film.LINE + film.GAP + film.LINE
    for k, t in enumerate(film.moments(9, 6)[:5]):
        at = k * (60 + film.GAP)
        np.testing.assert_array_equal(out[top : top + 40, at : at + 60], ramp(9)[t])
    second = top + 40 + film.GAP + film.LINE
    np.testing.assert_array_equal(out[second : second + 40, :60], ramp(9)[8])
    assert (out[second : second + 40, 60:] == film.PAPER).all()
    with pytest.raises(JaxomarlError, match="one per film"):
        film.sheet([ramp(2)], [], [["a", "b"]])
    with pytest.raises(JaxomarlError, match="films"):
        film.sheet([], [], [])


@needs_pillow
def test_rows_of_films_hold_their_last_frame():
    out = film.stack([ramp(4), ramp(2, w=30)])
    assert out.shape == (4, 40 + film.GAP + 40, 60, 3)
    np.testing.assert_array_equal(out[3, 40 + film.GAP :, :30], ramp(2, w=30)[1])
    assert (out[:, 40:, 30:] == film.PAPER).all()


@needs_pillow
def test_shrunk_frames_keep_their_proportions_and_small_ones_stay():
    frames = ramp(3, 80, 120)
    small = film.shrunk(frames, 60)
    assert small.shape == (3, 40, 60, 3)
    assert [bar(x) for x in small] == pytest.approx([bar(x) / 2 for x in frames], abs=1)
    assert film.shrunk(frames, 120) is frames


@needs_pillow
def test_words_of_a_caption_fit_and_none_is_lost():
    text = "maddpg-bc+coda augment_lambda=0.003 seed 3\nstep 0 of 25"
    fitted = film.fitting(text, 200)
    assert fitted.split() == text.split() and fitted.count("\n") == 2
    assert film.fitting(text, 1000) == text


@needs_pillow
@pytest.mark.parametrize("name", ["a.gif", "a.png"])
def test_a_picture_says_what_it_shows(tmp_path, name):
    from PIL import Image

    film.write(tmp_path / name, ramp(3), shown="bc ä seed 0 on mpe/spread")
    assert film.about(tmp_path / name) == "bc ä seed 0 on mpe/spread"
    Image.new("RGB", (4, 4)).save(tmp_path / f"other-{name}")
    assert film.about(tmp_path / f"other-{name}") == ""
    (tmp_path / name).write_bytes(b"torn")
    assert film.about(tmp_path / name) == ""


@needs_pillow
def test_a_sheet_is_read_back(tmp_path):
    from PIL import Image

    film.write(tmp_path / "a.png", ramp(3))
    with Image.open(tmp_path / "a.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), ramp(3)[-1])
