"""Generate a data set and keep it: the command `collect`."""

import json
from pathlib import Path

from jaxomarl.api.generated import load
from jaxomarl.api.seeds import check_seed
from jaxomarl.base import refuse
from jaxomarl.data import files
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
    """Generate a data set, write it to its folder, and return its manifest as text.

    Raises JaxomarlError for an unknown task or quality, for a seed out of range, and where the
    folder is not empty.
    """
    check_seed(seed)
    chosen = make(task)
    if "/" in quality or quality.startswith("."):
        expected = f"one of {', '.join(chosen.recipes)}"
        raise refuse("--quality", expected, quality, "A folder is a data set already.")

    folder = out or Path("runs/data") / folder_name(chosen.name, quality or chosen.quality)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        ours = folder.is_dir() and (
            (folder / files.MANIFEST).exists() or files.left_by_a_kill(folder)
        )
        way = "It holds no data set: name another."
        if ours:
            way = "--overwrite replaces it."
        if not (overwrite and ours):
            raise refuse("--out", "a new folder", str(folder), way)

    data, manifest = load(chosen, quality, rows, seed)
    files.save_folder(folder, data, manifest)
    return f"{json.dumps(manifest, indent=1)}\n{folder}"
