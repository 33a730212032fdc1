"""What `import jaxomarl` gives: train a system and load what it has learned; the command line is a skin over it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxomarl.api import arrays, policy, provenance, register, session
from jaxomarl.api.arrays import Fitted
from jaxomarl.api.plan import resolve
from jaxomarl.api.progress import Lines
from jaxomarl.api.session import Results
from jaxomarl.api.spoken import python_face
from jaxomarl.base import refuse
from jaxomarl.envs.catalog import make
from jaxomarl.paths import user_path
from jaxomarl.presets import find

__all__ = ["from_arrays", "load", "register_system", "register_task", "train"]

from_arrays = python_face(arrays.from_arrays)
load = python_face(policy.load)
register_system = python_face(register.register_system)
register_task = python_face(register.register_task)


@python_face
def train(
    system: str,
    task: str,
    data: str | Fitted = "",
    seeds: str | int | Sequence[int] = 1,
    preset: str = "",
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    rows: int = 0,
    episodes: int = 0,
    scale: float = 1.0,
    augment: str = "",
    report: Callable[..., None] | None = None,
    final_episodes: int = 0,
    progress: bool = True,
    **cfg: Any,
) -> Results:
    """Train a system on a data set over seeds and return its results; `out` keeps them as the command line does.

    `data` is a quality of the task ("" its default), a path, or what `from_arrays` made. `seeds` is a count, "4:8" or a
    list. `augment` adds synthetic rows: coda, synther or eaq. `final_episodes` is the number of fresh episodes of the
    final evaluation (0: the task's own), whose returns are `Results.returns`. `cfg` sets the system's fields; a list of
    values sweeps one. `progress` False trains in silence; `report`, a function of (group, progress), is called after
    each chunk in place of the printed line.
    Raises JaxomarlError for anything that cannot be trained as asked.
    """
    overrides = {k: list(v) if isinstance(v, list | tuple) else [v] for k, v in cfg.items()}
    groups = resolve(
        [system],
        [task],
        [data],
        seeds,
        preset,
        overrides,
        rows,
        episodes,
        scale,
        augment,
        final_episodes,
    )
    folder = user_path(out) if out is not None else None
    if folder is None and (resume or overwrite):
        raise refuse(
            "out", "the folder that resume or overwrite is about", None, "Name it: out=..."
        )
    with session.locked(folder):
        if folder:
            session.open_folder(
                folder,
                session.asked(
                    find(preset, make(task).name).name,
                    overrides,
                    rows,
                    episodes,
                    scale,
                    final_episodes,
                ),
                resume,
                overwrite,
                register.modules(system, task),
            )
            if progress:
                provenance.tell(groups, folder)
        lines = Lines()
        shown = lines if progress else silent
        return session.train_groups(
            groups, folder, report=report or shown, say=lines.say if progress else silent
        )


def silent(*_: Any) -> None:
    """Show nothing."""
