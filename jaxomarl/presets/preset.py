"""What a preset is."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Preset:
    """Settings of some systems on some tasks, and the data for which they were stated."""

    name: str
    systems: tuple[str, ...]
    """Systems whose settings it gives; others keep their defaults."""
    tasks: tuple[str, ...]
    """Patterns of task names, such as `games/*`."""
    cfg: Mapping[str, object]
    """Values of config fields."""
    data: Mapping[str, str] = field(default_factory=dict)
    """Quality by task, where it differs from the task's own default."""
    cases: Mapping[tuple[str, str], Mapping[str, object]] = field(default_factory=dict)
    """(task, quality) -> values that hold there alone."""
    own: "Mapping[str, Preset]" = field(default_factory=dict)
    """System -> values that it alone gets, besides those above."""
    families: "Mapping[str, Preset]" = field(default_factory=dict)
    """Start of a task's name, such as `games` -> the preset that holds there in place of this."""
    about: str = ""
    """Where the values come from, in a phrase."""

    def of(self, task: str) -> "Preset":
        """The part of it that is for a task."""
        return self.families.get(task.partition("/")[0], self)

    def at(self, task: str, quality: str, system: str = "") -> dict[str, object]:
        """The values for a quality of a task, whose name may have parameters, and for a system."""
        if self.of(task) is not self:
            return self.of(task).at(task, quality, system)
        plain_name = task.partition(":")[0]
        values = {**self.cfg, **self.cases.get((plain_name, quality), {})}
        if system in self.own:
            values |= self.own[system].at(task, quality, system)
        return values
