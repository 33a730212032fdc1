"""How faithful windows of a generator are: their rows beside the data's, their steps beside the environment's.

    marginals       Kolmogorov-Smirnov distance of each column                       floor: two disjoint draws of data
    correlations    mean |difference| of correlations of (row, next row)             floor: the same two draws
    dynamics        the environment is put where a row says it was and plays the     floor: real rows, replayed
                    row's action; RMS over columns of the difference to the row      ceiling: real rows, of which one
                    that follows, in the columns' deviations                         says that nothing moves
    reward          |reward - the environment's|, in deviations of the reward        floor: real rows, replayed

Real rows replayed are not free of error where a row has lost some of the environment's state.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxomarl.base import Dataset, Task, refuse, team_reward
from jaxomarl.data.fidelity import above, correlations, errors, ks, real_windows, varying
from jaxomarl.envs.placed import placed
from jaxomarl.stages.generator import Generator, Trained

ROWS = 5000  # that are played again, at most
BLOCKS = ("obs", "state", "action", "reward")
NONE = float("nan")

Numbers = dict[str, tuple[float, ...]]
"""What is measured -> synthetic rows, real rows, and a model that says nothing moves; nan where there is none."""


class Judged(NamedTuple):
    """The numbers of one generator, and the arrays of a picture."""

    numbers: Numbers
    windows: int
    dropped: float  # share of windows that were not finite
    columns: tuple[np.ndarray, np.ndarray]  # distance of each column that varies: synthetic, floor
    pairs: tuple[
        np.ndarray, np.ndarray, np.ndarray
    ]  # correlations: synthetic, two draws of the data
    steps: dict[
        str, np.ndarray
    ]  # whose -> error of each replayed row; empty where none can be replayed
    reward: tuple[np.ndarray, np.ndarray]  # the synthetic rows', and what the environment pays


class Replayed(NamedTuple):
    """What rows say follows, and what does: observations and state side by side, the team's reward, done."""

    now: Float[np.ndarray, "M C"]
    said: Float[np.ndarray, "M C"]
    true: Float[np.ndarray, "M C"]
    reward: Float[np.ndarray, " M"]
    paid: Float[np.ndarray, " M"]
    ends: Float[np.ndarray, ""]  # share of rows whose done is not the environment's


class Judge:
    """Compares a model's windows with a task's data and environment."""

    def __init__(self, task: Task, data: Dataset, model: Generator) -> None:
        self.spec, self.data, self.layout, self.model = task.env.spec, data, data.layout, model
        self.place, self.few = (
            placed(task),
            min(model.cfg.augment_microbatch, model.cfg.augment_windows),
        )
        self.draw = jax.jit(lambda key, trained: model.draw(key, trained, self.few))
        step = lambda state, action, key: task.env.step(key, state, action)[1]
        self.step = jax.jit(jax.vmap(step, in_axes=(0, 0, None)))

    def judged(self, trained: Trained, seed: int) -> Judged:
        """All numbers; JaxomarlError where no window came out finite, or the data have no two."""
        model, count = self.model, self.model.cfg.augment_windows
        made, dropped = self.drawn(trained, count, seed)
        real = [
            x[..., : model.held.width] for x in real_windows(self.data, count, model.horizon, seed)
        ]
        if not len(made) or not len(real[0]):
            raise refuse(
                "coda-fidelity",
                "windows of both kinds",
                (len(made), len(real[0])),
                "Take more rows.",
            )
        flat = [x[:, :-1].reshape(-1, x.shape[-1]) for x in (made, *real)]
        some = varying(flat[1])
        gaps = ks(flat[0], flat[1]), ks(flat[2], flat[1])
        numbers: Numbers = {}
        for block in BLOCKS:
            start, stop = model.held.at[block]
            mine = [gap[start:stop][some[start:stop]] for gap in gaps]
            if len(mine[0]):
                numbers[f"{block}: distance of a column, mean"] = (
                    *(float(x.mean()) for x in mine),
                    NONE,
                )
                numbers[f"{block}: the worst column"] = *(float(x.max()) for x in mine), NONE
        beside = lambda x: np.concatenate([x[:, :-1, some], x[:, 1:, some]], axis=-1).reshape(
            -1, 2 * some.sum()
        )
        first, second, third = (above(correlations(beside(x))) for x in (made, *real))
        far = lambda x: float(np.abs(x - second).mean())
        numbers["correlations: mean difference"] = far(first), far(third), NONE
        columns = gaps[0][some], gaps[1][some]
        out = Judged(
            numbers,
            len(made),
            dropped,
            columns,
            (first, second, third),
            {},
            (np.zeros(0), np.zeros(0)),
        )
        return self.played(out, made, real[0], seed) if self.place.put else out

    def played(self, judged: Judged, made: np.ndarray, real: np.ndarray, seed: int) -> Judged:
        """With what the environment says of both."""
        ours, theirs = (self.replayed(x, seed) for x in (made, real))
        scale, paid = theirs.true.std(axis=0), max(float(theirs.paid.std()), 1e-6)
        steps = {
            "synthetic": errors(ours.said, ours.true, scale),
            "real, replayed": errors(theirs.said, theirs.true, scale),
            "nothing moves": errors(theirs.now, theirs.true, scale),
        }
        rewards = [np.abs(x.reward - x.paid) / paid for x in (ours, theirs)]
        numbers = dict(judged.numbers)
        both = (("median", 0.5), ("90 % of rows", 0.9))
        for name, q in both if varying(theirs.true).any() else ():
            numbers[f"next state: error, {name}"] = tuple(
                float(np.quantile(x, q)) for x in steps.values()
            )
        for name, q in both:
            numbers[f"reward: error, {name}"] = *(float(np.quantile(x, q)) for x in rewards), NONE
        numbers["ends: share that are not the environment's"] = (
            float(ours.ends),
            float(theirs.ends),
            NONE,
        )
        return judged._replace(numbers=numbers, steps=steps, reward=(ours.reward, ours.paid))

    def replayed(self, windows: Float[np.ndarray, "K T C"], seed: int) -> Replayed:
        """Rows of windows played again, at most ROWS; those after an end of their episode are left out."""
        known = np.zeros(
            (*windows.shape[:-1], 2), windows.dtype
        )  # the model's rows end before known and last
        rows = jnp.asarray(np.concatenate([windows, known], axis=-1))
        row = {k: np.asarray(x) for k, x in self.layout.unpack(rows).items()}
        before = np.cumsum(row["done"], axis=1) - row["done"]
        at = np.argwhere(before[:, :-1] == 0)
        w, t = np.random.default_rng(seed).permutation(at)[:ROWS].T
        now, after = (
            {k: np.asarray(x[w, i], np.float32) for k, x in row.items()} for i in (t, t + 1)
        )
        assert self.place.put is not None
        state = self.place.put(now["obs"], now["state"])
        then = jax.tree.map(
            np.asarray, self.step(state, jnp.asarray(now["action"]), jax.random.key(seed))
        )
        true = {"obs": then.obs, "state": then.state}
        wide = lambda x: np.concatenate(
            [(x["obs"] * self.spec.obs_mask).reshape(len(w), -1), x["state"]], axis=1
        )
        team = lambda x: np.asarray(team_reward(self.layout.team, x))
        ends = np.asarray(np.abs(now["done"] - then.done).mean())
        return Replayed(
            wide(now), wide(after), wide(true), team(now["reward"]), team(then.reward), ends
        )

    def drawn(self, trained: Trained, count: int, seed: int) -> tuple[np.ndarray, float]:
        """(finite windows [K, H + 1, C] in raw units, share that were not)."""
        keys: Any = jax.random.split(jax.random.key(seed), max(1, count // self.few))
        rows = np.concatenate([np.asarray(self.draw(key, trained)) for key in keys])
        good = np.isfinite(rows).all(axis=(1, 2))
        return rows[good], float(1.0 - good.mean())
