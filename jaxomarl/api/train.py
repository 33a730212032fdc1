"""The functions of `import jaxomarl`: train a system, and load the policy that it has learned.

The command line calls the same functions.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxomarl.api import arrays, policy, provenance, register, session
from jaxomarl.api.arrays import Fitted
from jaxomarl.api.plan import Group, resolve
from jaxomarl.api.progress import ProgressPrinter
from jaxomarl.api.session import Results
from jaxomarl.api.spoken import python_face
from jaxomarl.api.track import Choice, tracking
from jaxomarl.base import refuse
from jaxomarl.paths import user_path
from jaxomarl.training.memory import parse_bytes

__all__ = ["from_arrays", "load", "register_system", "register_task", "train"]

from_arrays = python_face(arrays.from_arrays)
load = python_face(policy.load_policy)
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
    memory: str = "",
    save_every: float | None = None,
    log: Choice | Sequence[Choice] = (),
    **cfg: Any,
) -> Results:
    """Train a system on a data set over seeds and return its results.

    Args:
        system: The system's name, such as "omsd"; "bc+coda" adds an augmentation.
        task: The task's name, such as "games/bandit".
        data: A quality of the task ("" is its default), a path, or what `from_arrays` built.
        seeds: A count, a range like "4:8", or a list.
        preset: The preset whose settings are taken; "" is the task's own.
        out: The folder that keeps the results, laid out as the command line does it.
        resume: Whether to continue the results that `out` holds.
        overwrite: Whether to delete the results that `out` holds, and start again.
        rows: The number of transitions of a generated data set; 0 is the task's own.
        episodes: The number of episodes of each evaluation in training; 0 is the task's own.
        scale: The factor on the preset's numbers of steps.
        augment: The augmentation that adds synthetic rows: coda, synther or eaq.
        report: A function of (group, progress), called after each chunk in place of a line.
        final_episodes: The number of fresh episodes behind `Results.returns`; 0 is the task's own.
        progress: Whether lines are printed; False trains in silence.
        memory: How much memory training may take, such as "8GiB"; "" is what is free.
        save_every: The seconds between two checkpoints; None: so that they take 2 %.
        log: Loggers: names (tensorboard, wandb, csv) or objects with `Logger`'s three methods.
        cfg: The system's fields; a list of values sweeps one.

    Raises JaxomarlError for anything that cannot be trained as asked.
    """
    overrides = {name: _as_values(value) for name, value in cfg.items()}
    allowed = parse_bytes(memory)
    names = ([system], [task], [data])
    groups = resolve(
        *names, seeds, preset, overrides, rows, episodes, scale, augment, final_episodes
    )
    folder = _folder(out, resume, overwrite)
    asked = session.asked(preset, overrides, rows, episodes, scale, final_episodes)
    opened = (asked, resume, overwrite, register.modules(system, task))
    limits = {"bytes_allowed": allowed, "save_every": save_every}
    return _train(groups, folder, opened, report, progress, _as_values(log), limits)


def _train(
    groups: list[Group],
    folder: Path | None,
    opened: tuple[dict[str, Any], bool, bool, list[str]],
    report: Callable[..., None] | None,
    progress: bool,
    log: Sequence[Choice],
    limits: dict[str, Any],
) -> Results:
    """Train groups into a folder that is opened by `opened`, or into memory alone."""
    shown, say = _printers(progress)
    with session.locked(folder):
        if folder:
            session.open_folder(folder, *opened)
        if folder and progress:
            provenance.tell(groups, folder)
        with tracking(log, folder, say) as tracker:
            shown = report or shown
            told = {"report": shown, "say": say, "tracker": tracker}
            return session.train_groups(groups, folder, **told, **limits)


def _folder(out: str | Path | None, resume: bool, overwrite: bool) -> Path | None:
    """The folder of the results; JaxomarlError where one is needed and none is given."""
    if out is not None:
        return user_path(out)
    if resume or overwrite:
        expected = "the folder that resume or overwrite is about"
        raise refuse("out", expected, None, "Name it: out=...")
    return None


def _printers(progress: bool) -> tuple[Callable[..., None], Callable[[str], None]]:
    """What shows a chunk's progress, and what prints a line of its own."""
    if not progress:
        return silent, silent
    lines = ProgressPrinter()
    return lines, lines.say


def _as_values(value: object) -> list[Any]:
    """The values of an argument that takes one or several, such as a setting that is swept."""
    if isinstance(value, list | tuple):
        return list(value)
    return [value]


def silent(*_: object) -> None:
    """Show nothing."""
