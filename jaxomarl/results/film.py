"""Frames to a film, .gif through Pillow or .mp4 through imageio-ffmpeg, or to a sheet, .png.

No display is needed. A .gif and a .png say in themselves what they show, so that a report knows
them again.
"""

import contextlib
import io
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from jaxomarl.base import refuse
from jaxomarl.results.store import write_bytes

SUFFIXES = (".gif", ".mp4", ".png")
SHEET = ".png"
"""The suffix of a contact sheet, which shows some frames of each film in a grid."""
COLUMNS = 5
"""Frames in a row of a sheet."""
THUMB = 216
"""Width of a frame on a sheet, in pixels: five fill a page."""
SAMPLED = 16
"""Frames from which the palette of a .gif is made."""
MARK = "jaxomarl film: "
"""How the text begins by which a picture says what it shows."""
GAP = 6
"""Pixels between two films."""
LINE = 24
"""Height of a line of a caption, in pixels."""
LETTERS = 13
"""Size of a caption's letters, in pixels."""
PAPER = 255
INK = 40


def mosaic(
    films: Sequence[np.ndarray], captions: Sequence[str | Sequence[str]] = ()
) -> UInt8[np.ndarray, "T H W 3"]:
    """Films, each [T, h, w, 3], side by side; a shorter one holds its last frame and caption.

    A film's caption is one text, or one for each of its frames. Texts may have several lines.

    Raises JaxomarlError where there is none, where one has no frame or another size of frame, where
    captions are not one per film, and for captions without Pillow.
    """
    if not films or any(len(film) == 0 or film.shape[1:] != films[0].shape[1:] for film in films):
        wanted = "one or more, [T, h, w, 3] of one h and w"
        raise refuse("films", wanted, [f.shape for f in films], "Draw them alike.")
    if captions and len(captions) != len(films):
        raise refuse("captions", f"{len(films)}, one per film", len(captions), "Or none.")
    h, w = films[0].shape[1:3]
    spoken = [
        _per_frame(caption, len(film)) for caption, film in zip(captions, films, strict=False)
    ]
    top = LINE * max((_lines(texts) for texts in spoken), default=0)
    steps = max(len(film) for film in films)
    width = len(films) * (w + GAP) - GAP
    frames = np.full((steps, top + h, width, 3), PAPER, np.uint8)
    for k, film in enumerate(films):
        at = k * (w + GAP)
        if captions:
            frames[:, :top, at : at + w] = _captions(spoken[k], steps, top, w)
        frames[: len(film), top:, at : at + w] = film
        frames[len(film) :, top:, at : at + w] = film[-1]
    return frames


def stack(rows: Sequence[UInt8[np.ndarray, "_ _ _ 3"]]) -> UInt8[np.ndarray, "T H W 3"]:
    """Films one below the other; a shorter one holds its last frame, a narrower one gets paper."""
    steps = max(len(row) for row in rows)
    width = max(row.shape[2] for row in rows)
    parts = []
    for k, row in enumerate(rows):
        gap = GAP * (k > 0)
        held = np.concatenate([row, np.repeat(row[-1:], steps - len(row), axis=0)])
        sides = ((0, 0), (gap, 0), (0, width - row.shape[2]), (0, 0))
        parts.append(np.pad(held, sides, constant_values=PAPER))
    return np.concatenate(parts, axis=1)


def shrunk(frames: UInt8[np.ndarray, "T h w 3"], width: int) -> UInt8[np.ndarray, "T H W 3"]:
    """Frames of at most so many pixels in width, with the same proportions."""
    image, _, _ = _pillow()
    _, h, w, _ = frames.shape
    if w <= width:
        return frames
    size = (width, max(1, round(h * width / w)))
    return np.stack([np.asarray(image.fromarray(frame).resize(size)) for frame in frames])


def fitting(text: str, width: int) -> str:
    """A text whose lines are no wider than `width` pixels as a caption: words go to a new line."""
    _, _, font = _pillow()
    letters = font.load_default(LETTERS)
    lines = []
    for line in text.split("\n"):
        words = line.split(" ")
        row = words[0]
        for word in words[1:]:
            longer = f"{row} {word}"
            if letters.getlength(longer) <= width:
                row = longer
            else:
                lines.append(row)
                row = word
        lines.append(row)
    return "\n".join(lines)


def moments(length: int, count: int) -> list[int]:
    """The numbers of at most `count` frames of `length`, evenly spaced, first and last included."""
    if count == 1:
        return [length - 1]
    return sorted({round(x) for x in np.linspace(0, length - 1, count).tolist()})


def sheet(
    films: Sequence[np.ndarray],
    titles: Sequence[str],
    captions: Sequence[Sequence[str]],
    count: int = COLUMNS,
) -> UInt8[np.ndarray, "H W 3"]:
    """A contact sheet: `count` frames of each film [T, h, w, 3], a title above each film's.

    `captions` has a text for each frame of each film. Raises JaxomarlError where there is no film,
    where frames differ in size, where texts are not one per film and frame, and without Pillow.
    """
    if len(titles) != len(films) or len(captions) != len(films):
        found = (len(titles), len(captions))
        raise refuse("titles, captions", f"{len(films)}, one per film", found, "Name each film.")
    rows = []
    for film, title, texts in zip(films, titles, captions, strict=True):
        spoken = _per_frame(texts, len(film))
        shown = moments(len(film), count)
        for first in range(0, len(shown), COLUMNS):
            some = shown[first : first + COLUMNS]
            stills = [film[t : t + 1] for t in some]
            row = mosaic(stills, [spoken[t] for t in some])
            if first == 0:
                row = stack([_heading(title, row.shape[2]), row])
            rows.append(row)
    if not rows:
        raise refuse("films", "one or more", 0, "Film an episode.")
    return stack(rows)[0]


def _heading(text: str, width: int) -> UInt8[np.ndarray, "1 H W 3"]:
    """A title over a row, in as many lines as it needs."""
    lines = fitting(text, width)
    return _caption(lines, LINE * _lines([lines]), width)[None]


def with_legend(
    frames: UInt8[np.ndarray, "T h w 3"], entries: Sequence[tuple[str, tuple[int, int, int]]]
) -> UInt8[np.ndarray, "T H w 3"]:
    """Frames with a strip below that names colours: a dot and a word for each of `entries`.

    Words that do not fit in one row continue in the next. Without entries nothing is added.
    """
    if not entries:
        return frames
    image, draw, font = _pillow()
    width = frames.shape[2]
    letters = font.load_default(LETTERS)
    rows: list[list[tuple[str, tuple[int, int, int], float]]] = [[]]
    x = 0.0
    for word, colour in entries:
        needed = LINE + letters.getlength(word) + GAP
        if rows[-1] and x + needed > width:
            rows.append([])
            x = 0.0
        rows[-1].append((word, colour, x))
        x += needed

    picture = image.new("RGB", (width, LINE * len(rows)), (PAPER,) * 3)
    pen = draw.Draw(picture)
    for k, row in enumerate(rows):
        middle = LINE * (k + 0.5)
        for word, colour, x in row:
            pen.ellipse((x + 7, middle - 5, x + 17, middle + 5), fill=tuple(colour))
            pen.text((x + LINE, middle), word, fill=(INK,) * 3, font=letters, anchor="lm")
    strip = np.broadcast_to(np.asarray(picture), (len(frames), *picture.size[::-1], 3))
    return np.concatenate([frames, strip], axis=1)


def check(path: str | Path, fps: float = 10.0) -> None:
    """Raise JaxomarlError for what `write` could not do.

    That is another suffix, a package that is missing, or a rate that is no positive number.
    """
    suffix = Path(path).suffix
    if suffix not in SUFFIXES:
        expected = "a name that ends in .gif or .mp4, or in .png for a sheet of frames"
        raise refuse("path", expected, str(path), "Change the suffix.")
    if not 0 < fps < float("inf"):
        raise refuse("fps", "a positive number of frames per second", fps, "10 is usual.")
    if suffix == ".mp4":
        _ffmpeg()
    else:
        _pillow()


def write(
    path: str | Path, frames: UInt8[np.ndarray, "T h w 3"], fps: float = 10.0, shown: str = ""
) -> None:
    """Write a film, atomically, in the format of its suffix; a .png is of the last frame.

    An .mp4 repeats a last row and column to have even sides. A .gif counts time in 1/100 s, and
    keeps equal frames in a row as one that lasts longer. `shown` says what is seen, for `about`.
    Raises JaxomarlError for what `check` does, and for no frames.
    """
    check(path, fps)
    if not len(frames):
        raise refuse("frames", "one or more", 0, "Play a step.")
    suffix = Path(path).suffix
    if suffix == ".gif":
        content = _gif(frames, fps, shown)
    elif suffix == SHEET:
        content = _png(frames[-1], shown)
    else:
        content = _mp4(frames, fps)
    write_bytes(path, content)


def about(path: Path) -> str:
    """What a .gif or .png that `write` wrote says of itself; "" of another file."""
    image, _, _ = _pillow()
    try:
        with image.open(path) as picture:
            said = picture.info.get("comment", b"")
    except (OSError, ValueError, SyntaxError):
        return ""
    if isinstance(said, bytes):
        said = said.decode(errors="replace")
    if not said.startswith(MARK):
        return ""
    return said.removeprefix(MARK)


def _gif(frames: np.ndarray, fps: float, shown: str) -> bytes:
    image, _, _ = _pillow()
    # one palette for all frames, so that what does not move is not stored again
    some = np.concatenate([frames[t] for t in moments(len(frames), SAMPLED)])
    palette = image.fromarray(some).quantize(method=image.Quantize.FASTOCTREE)
    plain = {"palette": palette, "dither": image.Dither.NONE}
    content = io.BytesIO()
    first, *rest = [image.fromarray(frame).quantize(**plain) for frame in frames]
    options = {"save_all": True, "append_images": rest, "duration": 1000 / fps, "loop": 0}
    if shown:
        options["comment"] = f"{MARK}{shown}".encode()
    first.save(content, format="GIF", **options)
    return content.getvalue()


def _png(frame: np.ndarray, shown: str) -> bytes:
    image, _, _ = _pillow()
    from PIL.PngImagePlugin import PngInfo

    words = PngInfo()
    if shown:
        words.add_itxt("comment", f"{MARK}{shown}")
    content = io.BytesIO()
    image.fromarray(frame).save(content, format="PNG", optimize=True, pnginfo=words)
    return content.getvalue()


def _mp4(frames: np.ndarray, fps: float) -> bytes:
    _, h, w, _ = frames.shape
    even = np.pad(frames, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)), mode="edge")
    size = even.shape[2:0:-1]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        encoder = _ffmpeg().write_frames(str(path), size, fps=fps, macro_block_size=2, quality=8)
        try:
            with warnings.catch_warnings(), contextlib.closing(encoder) as writer:
                # JAX warns of a fork; this one starts ffmpeg at once
                warnings.simplefilter("ignore", RuntimeWarning)
                for frame in (None, *even):
                    writer.send(frame)
        except RuntimeError as error:
            # neither the package nor the path has an ffmpeg for this system
            way_out = "Install ffmpeg, or write a .gif."
            raise refuse("film", "ffmpeg", str(error), way_out) from error
        return path.read_bytes()


def _per_frame(caption: str | Sequence[str], frames: int) -> list[str]:
    """One text for each frame; JaxomarlError where the texts are not one per frame."""
    if isinstance(caption, str):
        return [caption] * frames
    if len(caption) != frames:
        wanted = f"{frames} texts, one per frame"
        raise refuse("captions", wanted, len(caption), "Or one text for all.")
    return list(caption)


def _lines(texts: Sequence[str]) -> int:
    return max(text.count("\n") + 1 for text in texts)


def _captions(texts: Sequence[str], steps: int, height: int, width: int) -> np.ndarray:
    """[steps, height, width, 3], each frame's text in the middle; the last one stays."""
    drawn: dict[str, np.ndarray] = {}
    for text in texts:
        if text not in drawn:
            drawn[text] = _caption(text, height, width)
    return np.stack([drawn[texts[min(t, len(texts) - 1)]] for t in range(steps)])


def _caption(text: str, height: int, width: int) -> np.ndarray:
    """[height, width, 3], the lines of a text in the middle."""
    image, draw, font = _pillow()
    picture = image.new("RGB", (width, height), (PAPER,) * 3)
    pen = draw.Draw(picture)
    lines = text.split("\n")
    top = (height - LINE * len(lines)) / 2
    style = {"fill": (INK,) * 3, "font": font.load_default(LETTERS), "anchor": "mm"}
    for k, line in enumerate(lines):
        pen.text((width / 2, top + LINE * (k + 0.5)), line, **style)
    return np.asarray(picture)


def _pillow() -> tuple[Any, Any, Any]:
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise refuse("film", "Pillow", "no such package", "pip install 'jaxomarl[plot]'") from error
    return Image, ImageDraw, ImageFont


def _ffmpeg() -> Any:
    try:
        import imageio_ffmpeg
    except ImportError as error:
        way_out = "pip install 'jaxomarl[plot]'"
        raise refuse("film", "imageio-ffmpeg", "no such package", way_out) from error
    return imageio_ffmpeg
