"""Frames to a film: .gif through Pillow or .mp4 through imageio-ffmpeg.

No display is needed.
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

SUFFIXES = (".gif", ".mp4")
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
        raise refuse("path", "a name that ends in .gif or .mp4", str(path), "Change the suffix.")
    if not 0 < fps < float("inf"):
        raise refuse("fps", "a positive number of frames per second", fps, "10 is usual.")
    if suffix == ".gif":
        _pillow()
    else:
        _ffmpeg()


def write(path: str | Path, frames: UInt8[np.ndarray, "T h w 3"], fps: float = 10.0) -> None:
    """Write a film, atomically, in the format of its suffix.

    An .mp4 repeats a last row and column to have even sides. A .gif counts time in 1/100 s, and
    keeps equal frames in a row as one that lasts longer. Raises JaxomarlError for what `check`
    does, and for no frames.
    """
    check(path, fps)
    if not len(frames):
        raise refuse("frames", "one or more", 0, "Play a step.")
    encode = _gif if Path(path).suffix == ".gif" else _mp4
    write_bytes(path, encode(frames, fps))


def _gif(frames: np.ndarray, fps: float) -> bytes:
    image, _, _ = _pillow()
    content = io.BytesIO()
    first, *rest = [image.fromarray(frame) for frame in frames]
    options = {"save_all": True, "append_images": rest, "duration": 1000 / fps, "loop": 0}
    first.save(content, format="GIF", **options)
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
        raise refuse("film", "Pillow", "no such package", "pip install jaxomarl[plot]") from error
    return Image, ImageDraw, ImageFont


def _ffmpeg() -> Any:
    try:
        import imageio_ffmpeg
    except ImportError as error:
        way_out = "pip install jaxomarl[plot]"
        raise refuse("film", "imageio-ffmpeg", "no such package", way_out) from error
    return imageio_ffmpeg
