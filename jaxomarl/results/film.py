"""Frames to a film: side by side, then .gif through Pillow or .mp4 through imageio-ffmpeg; no display is needed."""

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
GAP, LINE = 6, 24  # pixels between pictures, and the height of a caption
PAPER, INK = 255, 40


def mosaic(
    films: Sequence[np.ndarray], captions: Sequence[str] = ()
) -> UInt8[np.ndarray, "T H W 3"]:
    """Films, each [T, h, w, 3], side by side, each below its caption; a shorter one holds its last frame.

    Raises JaxomarlError where there is none, where one has no frame or another size of frame, where captions are not
    one per film, and for captions without Pillow.
    """
    if not films or any(len(film) == 0 or film.shape[1:] != films[0].shape[1:] for film in films):
        raise refuse(
            "films",
            "one or more, [T, h, w, 3] of one h and w",
            [f.shape for f in films],
            "Draw them alike.",
        )
    if captions and len(captions) != len(films):
        raise refuse("captions", f"{len(films)}, one per film", len(captions), "Or none.")
    h, w = films[0].shape[1:3]
    top, steps = LINE if captions else 0, max(len(film) for film in films)
    out = np.full((steps, top + h, len(films) * (w + GAP) - GAP, 3), PAPER, np.uint8)
    for k, film in enumerate(films):
        at = k * (w + GAP)
        if captions:
            out[:, :top, at : at + w] = _caption(captions[k], w)
        out[: len(film), top:, at : at + w] = film
        out[len(film) :, top:, at : at + w] = film[-1]
    return out


def check(path: str | Path, fps: float = 10.0) -> None:
    """Raises JaxomarlError for what `write` could not do: another suffix, a package that is missing, no such rate."""
    suffix = Path(path).suffix
    if suffix not in SUFFIXES:
        raise refuse("path", "a name that ends in .gif or .mp4", str(path), "Change the suffix.")
    if not 0 < fps < float("inf"):
        raise refuse("fps", "a positive number of frames per second", fps, "10 is usual.")
    _pillow() if suffix == ".gif" else _ffmpeg()


def write(path: str | Path, frames: UInt8[np.ndarray, "T h w 3"], fps: float = 10.0) -> None:
    """Write a film, atomically, as what its suffix says; an .mp4 repeats a last row and column to have even sides.

    A .gif counts time in 1/100 s, and keeps equal frames in a row as one that lasts longer. Raises JaxomarlError for
    what `check` does, and for no frames.
    """
    check(path, fps)
    if not len(frames):
        raise refuse("frames", "one or more", 0, "Play a step.")
    write_bytes(path, _gif(frames, fps) if Path(path).suffix == ".gif" else _mp4(frames, fps))


def _gif(frames: np.ndarray, fps: float) -> bytes:
    image, content = _pillow()[0], io.BytesIO()
    first, *rest = [image.fromarray(frame) for frame in frames]
    first.save(
        content, format="GIF", save_all=True, append_images=rest, duration=1000 / fps, loop=0
    )
    return content.getvalue()


def _mp4(frames: np.ndarray, fps: float) -> bytes:
    _, h, w, _ = frames.shape
    even = np.pad(frames, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)), mode="edge")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        start = _ffmpeg().write_frames(
            str(path), even.shape[2:0:-1], fps=fps, macro_block_size=2, quality=8
        )
        try:
            with warnings.catch_warnings(), contextlib.closing(start) as writer:
                warnings.simplefilter(
                    "ignore", RuntimeWarning
                )  # JAX warns of a fork; this one starts ffmpeg at once
                for frame in (None, *even):
                    writer.send(frame)
        except RuntimeError as error:  # no ffmpeg for this system in the package, nor on the path
            raise refuse(
                "film", "ffmpeg", str(error), "Install ffmpeg, or write a .gif."
            ) from error
        return path.read_bytes()


def _caption(text: str, width: int) -> np.ndarray:
    """[LINE, width, 3], the text in the middle."""
    image, draw, font = _pillow()
    picture = image.new("RGB", (width, LINE), (PAPER,) * 3)
    place = draw.Draw(picture)
    place.text(
        (width / 2, LINE / 2), text, fill=(INK,) * 3, font=font.load_default(13), anchor="mm"
    )
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
        raise refuse(
            "film", "imageio-ffmpeg", "no such package", "pip install jaxomarl[plot]"
        ) from error
    return imageio_ffmpeg
