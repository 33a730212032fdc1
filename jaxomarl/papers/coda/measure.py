"""How faithful a generator's windows are: rows compared with the data, steps with the environment.

    marginals      Kolmogorov-Smirnov distance of each column
                   floor: two disjoint draws of data
    correlations   mean |difference| of correlations of (row, next row)
                   floor: the same two draws
    dynamics       the environment is put where a row says it was and takes the row's action; RMS
                   over columns of the difference to the row that follows, in columns' deviations
                   floor: real rows, replayed; ceiling: real rows, if nothing moved
    reward         |reward - the environment's|, in deviations of the reward
                   floor: real rows, replayed

Replayed real rows have an error where a row has lost some of the environment's state.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from jaxomarl.base import Dataset, Task, refuse, team_reward
from jaxomarl.data.fidelity import above, correlations, errors, ks, real_windows, varying
from jaxomarl.envs.placed import placed
from jaxomarl.stages.generator import Generator, TrainedGenerator

ROWS = 5000
"""Largest number of rows that are replayed."""
BLOCKS = ("obs", "state", "action", "reward")
NONE = float("nan")
QUANTILES = {"median": 0.5, "90 % of rows": 0.9}

Numbers = dict[str, tuple[float, ...]]
"""Measure -> synthetic rows, real rows, and rows if nothing moved; nan where not measured."""
Windows = Float[np.ndarray, "K T C"]


class Fidelity(NamedTuple):
    """The measures of one generator, and the arrays of a picture."""

    numbers: Numbers
    windows: int
    dropped: float
    """Share of windows that were not finite."""
    columns: tuple[np.ndarray, np.ndarray]
    """Distance of each column that varies: synthetic, floor."""
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray]
    """Correlations: synthetic, and two draws of the data."""
    steps: dict[str, np.ndarray]
    """Whose rows -> error of each replayed row; empty where none can be replayed."""
    reward: tuple[np.ndarray, np.ndarray]
    """The synthetic rows' rewards, and the environment's."""


class Replayed(NamedTuple):
    """What rows say follows, and what does follow in the environment.

    Columns are observations and state side by side. Rewards are the team's.
    """

    now: Float[np.ndarray, "M C"]
    said: Float[np.ndarray, "M C"]
    true: Float[np.ndarray, "M C"]
    reward: Float[np.ndarray, " M"]
    paid: Float[np.ndarray, " M"]
    ends: Float[np.ndarray, ""]
    """Share of rows whose done is not the environment's."""


class FidelityMeasure:
    """Compares a model's windows with a task's data and environment."""

    def __init__(self, task: Task, data: Dataset, model: Generator) -> None:
        self.spec = task.env.spec
        self.data = data
        self.layout = data.layout
        self.model = model
        self.place = placed(task)
        self.few = min(model.cfg.augment_microbatch, model.cfg.augment_windows)
        self.draw = jax.jit(lambda key, trained: model.draw(key, trained, self.few))
        step = lambda state, action, key: task.env.step(key, state, action)[1]
        self.step = jax.jit(jax.vmap(step, in_axes=(0, 0, None)))

    def judged(self, trained: TrainedGenerator, seed: int) -> Fidelity:
        """All measures; JaxomarlError where no window is finite, or the data have no two draws."""
        model = self.model
        count = model.cfg.augment_windows

        # --- windows of the generator, and two draws of the data ---
        synthetic, dropped = self.drawn(trained, count, seed)
        real = real_windows(self.data, count, model.horizon, seed)
        first, second = (windows[..., : model.held.width] for windows in real)
        if not len(synthetic) or not len(first):
            counts = (len(synthetic), len(first))
            raise refuse("coda-fidelity", "windows of both kinds", counts, "Take more rows.")

        # --- rows ---
        some = varying(rows_of(first))
        gaps = ks(rows_of(synthetic), rows_of(first))
        floor = ks(rows_of(second), rows_of(first))
        pairs = (
            above(correlations(neighbours(synthetic, some))),
            above(correlations(neighbours(first, some))),
            above(correlations(neighbours(second, some))),
        )
        nothing = np.zeros(0)
        judged = Fidelity(
            numbers={**self.marginals(gaps, floor, some), **correlation_numbers(*pairs)},
            windows=len(synthetic),
            dropped=dropped,
            columns=(gaps[some], floor[some]),
            pairs=pairs,
            steps={},
            reward=(nothing, nothing),
        )

        # --- steps ---
        if not self.place.put:
            return judged
        return self.with_steps(judged, synthetic, first, seed)

    def marginals(
        self,
        gaps: Float[np.ndarray, " C"],
        floor: Float[np.ndarray, " C"],
        some: Bool[np.ndarray, " C"],
    ) -> Numbers:
        """Mean and largest distance of the columns of each block that vary."""
        numbers: Numbers = {}
        for block in BLOCKS:
            columns = slice(*self.model.held.at[block])
            ours = gaps[columns][some[columns]]
            real = floor[columns][some[columns]]
            if len(ours):
                mean = (float(ours.mean()), float(real.mean()), NONE)
                worst = (float(ours.max()), float(real.max()), NONE)
                numbers[f"{block}: distance of a column, mean"] = mean
                numbers[f"{block}: the worst column"] = worst
        return numbers

    def with_steps(
        self, judged: Fidelity, synthetic: np.ndarray, real: np.ndarray, seed: int
    ) -> Fidelity:
        """The measures with those of dynamics and reward, from replayed rows of both kinds."""
        ours = self.replayed(synthetic, seed)
        theirs = self.replayed(real, seed)
        std = theirs.true.std(axis=0)
        reward_std = max(float(theirs.paid.std()), 1e-6)
        steps = {
            "synthetic": errors(ours.said, ours.true, std),
            "real, replayed": errors(theirs.said, theirs.true, std),
            "nothing moves": errors(theirs.now, theirs.true, std),
        }
        rewards = [np.abs(rows.reward - rows.paid) / reward_std for rows in (ours, theirs)]

        numbers = dict(judged.numbers)
        if varying(theirs.true).any():
            for name, q in QUANTILES.items():
                values = [float(np.quantile(error, q)) for error in steps.values()]
                numbers[f"next state: error, {name}"] = tuple(values)
        for name, q in QUANTILES.items():
            values = [float(np.quantile(error, q)) for error in rewards]
            numbers[f"reward: error, {name}"] = (*values, NONE)
        ends = (float(ours.ends), float(theirs.ends), NONE)
        numbers["ends: share that are not the environment's"] = ends
        return judged._replace(numbers=numbers, steps=steps, reward=(ours.reward, ours.paid))

    def replayed(self, windows: Windows, seed: int) -> Replayed:
        """Rows of windows replayed, at most ROWS, without those after an end of their episode."""
        # --- choose rows ---
        # the model's rows end before the columns known and last
        missing = np.zeros((*windows.shape[:-1], 2), windows.dtype)
        rows = self.layout.unpack(jnp.asarray(np.concatenate([windows, missing], axis=-1)))
        row = {name: np.asarray(x) for name, x in rows.items()}
        ends_before = np.cumsum(row["done"], axis=1) - row["done"]
        places = np.argwhere(ends_before[:, :-1] == 0)
        w, t = np.random.default_rng(seed).permutation(places)[:ROWS].T
        at = lambda t: {name: np.asarray(x[w, t], np.float32) for name, x in row.items()}
        now = at(t)
        after = at(t + 1)

        # --- take their actions in the environment ---
        assert self.place.put is not None
        state = self.place.put(now["obs"], now["state"])
        then = self.step(state, jnp.asarray(now["action"]), jax.random.key(seed))
        then = jax.tree.map(np.asarray, then)

        team = lambda reward: np.asarray(team_reward(self.layout.team, reward))
        return Replayed(
            now=self.side_by_side(now["obs"], now["state"]),
            said=self.side_by_side(after["obs"], after["state"]),
            true=self.side_by_side(then.obs, then.state),
            reward=team(now["reward"]),
            paid=team(then.reward),
            ends=np.asarray(np.abs(now["done"] - then.done).mean()),
        )

    def side_by_side(
        self, obs: Float[np.ndarray, "M N O"], state: Float[np.ndarray, "M S"]
    ) -> Float[np.ndarray, "M C"]:
        """Observations, without what is padded, and state."""
        masked = obs * self.spec.obs_mask
        return np.concatenate([masked.reshape(len(obs), -1), state], axis=1)

    def drawn(self, trained: TrainedGenerator, count: int, seed: int) -> tuple[np.ndarray, float]:
        """(finite windows [K, H + 1, C] in raw units, share that were not finite)."""
        draws = max(1, count // self.few)
        keys: Any = jax.random.split(jax.random.key(seed), draws)
        windows = np.concatenate([np.asarray(self.draw(key, trained)) for key in keys])
        finite = np.isfinite(windows).all(axis=(1, 2))
        return windows[finite], float(1.0 - finite.mean())


def rows_of(windows: Windows) -> Float[np.ndarray, "M C"]:
    """All rows of windows but the last, which has no action."""
    return windows[:, :-1].reshape(-1, windows.shape[-1])


def neighbours(windows: Windows, some: Bool[np.ndarray, " C"]) -> Float[np.ndarray, "M C2"]:
    """Every row and the next side by side, in the columns that vary."""
    first = windows[:, :-1, some]
    second = windows[:, 1:, some]
    return np.concatenate([first, second], axis=-1).reshape(-1, 2 * some.sum())


def correlation_numbers(
    synthetic: Float[np.ndarray, " P"],
    first: Float[np.ndarray, " P"],
    second: Float[np.ndarray, " P"],
) -> Numbers:
    """Mean difference of correlations from those of the first draw of the data."""
    ours = float(np.abs(synthetic - first).mean())
    floor = float(np.abs(second - first).mean())
    return {"correlations: mean difference": (ours, floor, NONE)}
