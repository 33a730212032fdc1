"""A data set from arrays in memory, for `jaxomarl.train(..., data=...)`.

It is checked by the same code that checks files.
"""

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
    """Episodes that fit a task: the packed rows, and the manifest that describes them."""

    data: Dataset
    manifest: dict[str, Any]
    spec: Spec

    def __repr__(self) -> str:
        manifest = self.manifest
        counts = f"{manifest['transitions']:,} transitions in {manifest['episodes']:,} episodes"
        mean_return = manifest["return"]["mean"]
        return f"<{counts} of {manifest['task']}: mean return {mean_return:.4g}>"

    @property
    def repairs(self) -> list[str]:
        """The changes that fitted the data to the task, with counts."""
        return self.manifest["origin"]["repairs"]

    def save(self, folder: str | Path) -> None:
        """Write the data set as a folder that `--data` takes."""
        files.save_folder(folder, self.data, self.manifest)

    def of_task(self, task: Task) -> tuple[Dataset, dict[str, Any]]:
        """The rows and their manifest; JaxomarlError where the task has another spec."""
        if task.env.spec != self.spec:
            expected = f"a set made for the spec of {task.name}: {task.env.spec}"
            way = f"Make it again: from_arrays(episodes, {task.name!r})."
            raise refuse("data", expected, self.spec, way)
        return self.data, self.manifest


@pinned()
def from_arrays(episodes: Any, task: str | Spec, name: str = arrays.FORMAT) -> Fitted:
    """A data set from a list of episodes, for a task's name or its Spec.

    An episode of T steps is a dict with these entries:

        obs                    [T + 1, N, O] or [T, N, O]
        action                 [T, N, A], or numbers [T, N] where actions are discrete
        reward                 [T, N] or [T]
        terminated, truncated  [T], or done [T] in place of both
        state, available       optional

    A list of one array per agent stands for arrays of different widths. `name` is what results
    call the data set. Raises JaxomarlError, naming the episode and the field, for an entry that
    does not fit.
    """
    if not files.NAME.fullmatch(name):
        way = "Letters, digits, dots and hyphens make one."
        raise refuse("name", "a name that can be a folder's", name, way)

    target = _unnamed(task) if isinstance(task, Spec) else make(task)
    spec = target.env.spec
    data, manifest = fit(arrays.read(episodes, spec, name), target)
    return Fitted(data, manifest, spec)


def _unnamed(spec: Spec) -> Task:
    """A task of which only the spec is known, for the checks."""

    def nothing(*_: Any) -> Any:
        raise AssertionError("the checks run no environment")

    return Task("the spec", Environment(spec, nothing, nothing), {}, "")
