"""What a table or figure is asked to be made of; how its progress is shown and stopped."""

import dataclasses
import functools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxomarl.api.plan import Overrides
from jaxomarl.api.progress import ProgressPrinter
from jaxomarl.base import JaxomarlError, refuse
from jaxomarl.results import canvas
from jaxomarl.training.runner import Interrupted

FLAGS = {"overrides": "--cfg", "source": "--from", "final_episodes": "--final-episodes"}
"""Fields of `Asked` whose flag has another name."""
CHOICES = ("systems", "tasks", "data", "episodes", "rows", "overrides", "source", "final_episodes")
"""Fields of `Asked` that choose what is trained, none of which a table of fixed cells takes."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a table or figure is made of."""

    seeds: list[int]
    scale: float
    out: Path
    stopped: Callable[[], bool]
    systems: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    episodes: int = 0
    rows: int = 0
    overrides: Overrides = dataclasses.field(default_factory=dict)
    source: Path | None = None
    final_episodes: int = 0
    lock: threading.Lock = dataclasses.field(
        default_factory=threading.Lock, repr=False, compare=False
    )
    """Lock of the picture that is being drawn, for games that are made in parallel."""

    @functools.cached_property
    def progress(self) -> ProgressPrinter:
        """The printer of progress."""
        return ProgressPrinter()

    def say(self, line: str) -> None:
        """Print what comes next; raises Interrupted where the user asked to stop."""
        if self.stopped():
            raise Interrupted
        self.progress.say(line)

    def updates(self, count: int) -> int:
        """The gradient steps that are `count` at scale 1."""
        return max(1, round(self.scale * count))

    def draw(self, figure: Callable[..., Any], name: str, *args: Any, **more: Any) -> None:
        """Draw a picture into `out`, one at a time, in each format.

        Where matplotlib is missing, a line says so.
        """
        path = self.out / name
        try:
            with self.lock:
                canvas.save_copies(figure(path, *args, **more), path)
        except JaxomarlError as error:
            self.progress.say(f"no picture {name}: {error}")

    def check_unused(self, name: str, because: str, fields: Sequence[str] = CHOICES) -> None:
        """Raise JaxomarlError where a flag is given that `name` does not take."""
        for field in fields:
            value = getattr(self, field)
            if value:
                flag = FLAGS.get(field, f"--{field}")
                raise refuse(flag, f"nothing for {name}", value, f"Leave it out: {because}")


def one_name(flag: str, given: Sequence[str], default: str) -> str:
    """The name that a flag gives; JaxomarlError where it gives several."""
    if not given:
        return default
    if len(given) > 1:
        raise refuse(flag, "one name", given, "Call it for each.")
    return given[0]
