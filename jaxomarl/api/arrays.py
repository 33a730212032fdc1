"""A data set from arrays in memory, checked by the code that checks files, for `jaxomarl.train(..., data=...)`."""

import dataclasses
from pathlib import Path
from typing import Any

from jaxomarl.base import Dataset, Environment, Spec, Task, refuse
from jaxomarl.data import arrays, files
from jaxomarl.data.fit import fit
from jaxomarl.envs.catalog import make
from jaxomarl.numerics import pinned


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Fitted:
    """Episodes that fit a task: the packed rows, and what is written down of them."""

    data: Dataset
    manifest: dict[str, Any]
    spec: Spec

    def __repr__(self) -> str:
        held = self.manifest
        counts = f"{held['transitions']:,} transitions in {held['episodes']:,} episodes"
        return f"<{counts} of {held['task']}: mean return {held['return']['mean']:.4g}>"

    @property
    def repairs(self) -> list[str]:
        """What was changed to fit the task, with counts."""
        return self.manifest["origin"]["repairs"]

    def save(self, folder: str | Path) -> None:
        """Write it as a folder that `--data` takes."""
        files.save(folder, self.data, self.manifest)

    def of_task(self, task: Task) -> tuple[Dataset, dict[str, Any]]:
        """The rows and what is said of them; JaxomarlError where a task has another spec."""
        if task.env.spec != self.spec:
            way = f"Make it again: from_arrays(episodes, {task.name!r})."
            raise refuse(
                "data", f"a set made for the spec of {task.name}: {task.env.spec}", self.spec, way
            )
        return self.data, self.manifest


@pinned()
def from_arrays(episodes: Any, task: str | Spec, name: str = arrays.FORMAT) -> Fitted:
    """A data set from a list of episodes, for a task's name or its Spec; `name` is what results call it.

    An episode of T steps is a dict: obs [T + 1, N, O] or [T, N, O], action [T, N, A] (or their numbers [T, N] where
    they are discrete), reward [T, N] or [T], terminated and truncated, or done, and where there are any state and
    available. A list of one array per agent stands for arrays of different widths. Raises JaxomarlError, naming the
    episode and the field, for what does not fit.
    """
    if not files.NAME.fullmatch(name):
        raise refuse(
            "name",
            "a name that can be a folder's",
            name,
            "Letters, digits, dots and hyphens make one.",
        )
    found = _unnamed(task) if isinstance(task, Spec) else make(task)
    data, manifest = fit(arrays.read(episodes, found.env.spec, name), found)
    return Fitted(data, manifest, found.env.spec)


def _unnamed(spec: Spec) -> Task:
    """A task of which nothing but its spec is known, for the checks."""

    def nothing(*_: Any) -> Any:
        raise AssertionError("the checks run no environment")

    return Task("the spec", Environment(spec, nothing, nothing), {}, "")
