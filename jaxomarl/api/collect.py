"""A data set made on demand and kept: what `collect` does."""

import json
from pathlib import Path

from jaxomarl.api.seeds import check_seed
from jaxomarl.base import refuse
from jaxomarl.data import files
from jaxomarl.data.catalog import load
from jaxomarl.envs.catalog import make
from jaxomarl.paths import folder_name


def collect(
    task: str,
    quality: str = "",
    rows: int = 0,
    seed: int = 0,
    out: Path | None = None,
    overwrite: bool = False,
) -> str:
    """Make a data set, write it to its folder, and return its manifest as text.

    Raises JaxomarlError for an unknown task or quality, a seed out of range, and where the folder holds anything
    already.
    """
    check_seed(seed)
    found = make(task)
    if "/" in quality or quality.startswith("."):
        raise refuse(
            "--quality",
            f"one of {', '.join(found.recipes)}",
            quality,
            "A folder is a data set already.",
        )
    folder = out or Path("runs/data") / folder_name(found.name, quality or found.quality)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        ours = (folder / files.MANIFEST).exists()
        if not (overwrite and ours):
            way = "--overwrite replaces it." if ours else "It holds no data set: name another."
            raise refuse("--out", "a new folder", str(folder), way)
    data, manifest = load(found, quality, rows, seed)
    files.save(folder, data, manifest)
    return f"{json.dumps(manifest, indent=1)}\n{folder}"
