"""What a preset is."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Preset:
    """Values for the config fields of some systems on some tasks, and the data they were stated for."""

    name: str
    systems: tuple[str, ...]
    """Systems whose settings it gives; others keep their defaults."""
    tasks: tuple[str, ...]
    """Patterns of task names, such as `games/*`."""
    cfg: Mapping[str, object]
    data: Mapping[str, str] = field(default_factory=dict)
    """Quality by task, where it differs from the task's own default."""
    cases: Mapping[tuple[str, str], Mapping[str, object]] = field(default_factory=dict)
    """(task, quality) -> values that hold there alone."""
    about: str = ""

    def at(self, task: str, quality: str) -> dict[str, object]:
        """The values for a task, named without its parameters, and a quality."""
        return {**self.cfg, **self.cases.get((task.partition(":")[0], quality), {})}
