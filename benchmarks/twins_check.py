"""Check of a PyTorch twin: it follows our first updates, on the same rows and random numbers."""

from typing import Any

import jax
import numpy as np

from benchmarks.sizes import Size
from jaxomarl.base import Past, refuse
from jaxomarl.training.runner import Program

FOLLOWED = 3
"""Updates that a twin follows before it is timed."""
LOSS = 1e-4
"""Largest difference of a first update's loss, relative to it. Losses show a wrong number best."""
ARRAY = 3e-3
"""Largest difference of a parameter array after the first update, relative to how far it has moved.

Parameters follow signs of gradients in Adam's first steps. A rounding (of a time's 500 radians,
3e-5) becomes the difference of a sample where a ReLU is active in one program and not in the other.
"""
LATER = 1e-2
"""Largest difference of both in the later updates."""


class Guide:
    """Our first updates of a stage at a size, for twins to follow."""

    def __init__(
        self, size: Size, index: int, past: Past, draws: Any, steps: int = FOLLOWED
    ) -> None:
        """`draws(spec, cfg, key)` returns the random numbers of one of our updates."""
        program = Program(size.job(1), index, jax.tree.map(lambda x: x[None], past))
        key = program.key(0)
        data = size.data
        update = jax.jit(program.update)
        state = jax.jit(program.init)(size.cfg, key, past, data)
        rows = jax.eval_shape(program.stage.algorithm.batch, key, state, data).done.shape
        self.past = past
        self.first = state
        self.updates: list[tuple[np.ndarray, Any, dict[str, Any], Any]] = []
        for key in jax.random.split(program.key(1), steps):
            k_batch, k_update = jax.random.split(key)
            drawn = np.asarray(jax.random.randint(k_batch, rows, 0, data.starts.shape[0]))
            state, metrics = update(state, key, size.cfg, past, data)
            self.updates.append((drawn, draws(size.spec, size.cfg, k_update), metrics, state))

    def apart(self, twin: Any) -> list[dict[str, float]]:
        """The differences of losses and arrays after each update, from the same start."""
        from benchmarks.twins import leaves, place

        twin.load(self.first, self.past)
        found = []
        for index, noise, ours, state in self.updates:
            differences = {}
            for name, loss in twin.update(twin.table.at(index), noise).items():
                mine = float(ours[name])
                differences[name] = abs(float(loss) - mine) / max(abs(mine), 1e-3)
            for path, part in twin.learned.items():
                before = leaves(place(self.first, path))
                after = leaves(place(state, path))
                for name, theirs in part.read(place(state, path)).items():
                    differences[f"{path}.{name}"] = distance(theirs, after[name], before[name])
            found.append(differences)
        return found


def distance(theirs: np.ndarray, ours: np.ndarray, before: np.ndarray) -> float:
    """Sum |theirs - ours| / sum |ours - before|, less what each update may round.

    There are no squares: Adam divides a gradient by its size, so that a gradient that cancels to
    nothing makes a full step of its rounding. Such entries are few, and must not stand for the
    array.
    """
    theirs, ours, before = (np.asarray(x, np.float64) for x in (theirs, ours, before))
    rounded = FOLLOWED * float(np.finfo(np.float32).eps) * np.abs(ours)
    over = np.maximum(np.abs(theirs - ours) - rounded, 0.0).sum()
    return float(over / max(np.abs(ours - before).sum(), 1e-30))


def followed(guide: Guide, twin: Any, name: str) -> float:
    """The largest difference after the first update.

    Raises JaxomarlError where a difference is more than rounding.
    """
    found = guide.apart(twin)
    for k, differences in enumerate(found):
        for what, difference in differences.items():
            allowed = ARRAY if "." in what else LOSS
            if k > 0:
                allowed = LATER
            if not difference <= allowed:
                expected = f"a relative difference of at most {allowed:g} after update {k + 1}"
                way = "Ours and the twin compute different things; nothing was timed."
                raise refuse(f"{name}: {what}", expected, f"{difference:.3g}", way)
    return max(found[0].values())
