"""A trial without the runner: all stages of a system in one program, four runs side by side.

The checks that train ask for states, metrics and actions alone. The runner's own programs (a first state, a chunk, an
evaluation, figures of health, of each stage) take twice as long to compile; what they do is the same for all systems.
"""

from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from trial import QUICK, SEEDS, Outcome, Trial, Trials, task_for


class Brief(NamedTuple):
    """What is left of a stage."""

    state: Any
    metrics: Any
    evaluations: Any = ()
    facts: Any = {}  # noqa: RUF012


class BriefTrial(Trial):
    """A system that learns from data, whose stages follow each other in one program."""

    @cached_property
    def program(self) -> Any:
        """(settings, keys, data) of R runs -> their finished and their first states, and all metrics."""

        def train(cfg: Any, key: jax.Array, data: Any) -> tuple:
            past, firsts, metrics = {"stats": self.stats}, {}, {}
            for index, stage in enumerate(self.make(cfg)):

                def one(state, key, stage=stage, past=past):
                    k_batch, k_update = jax.random.split(key)
                    rows = stage.algorithm.batch(k_batch, state, data)
                    return stage.algorithm.update(k_update, state, past, rows)

                k_init, k_refresh, k_steps = jax.random.split(jax.random.fold_in(key, index), 3)
                state = firsts[stage.name] = stage.algorithm.init(k_init, past, data)
                if stage.refresh:
                    state = stage.refresh(k_refresh, state, past, data)
                state, told = jax.lax.scan(one, state, jax.random.split(k_steps, stage.steps))
                metrics[stage.name] = told
                past = {**past, stage.name: stage.kept(state)}
            return past, firsts, metrics

        runs = jax.vmap(train, in_axes=(0, 0, None))
        return jax.jit(runs, compiler_options=QUICK)

    def states(self, cfgs: list[Any], seeds: tuple[int, ...], data: Any) -> tuple[Outcome, dict]:
        """What is left of the runs, and their first states."""
        settings = jax.tree.map(lambda *x: jnp.stack([jnp.asarray(v) for v in x]), *cfgs)
        keys = jnp.stack([jax.random.key(seed) for seed in seeds])
        past, firsts, metrics = self.program(settings, keys, data)
        done = {s.name: Brief(past[s.name], metrics[s.name]) for s in self.stages}
        return Outcome(past, done, {}, [], {}), firsts

    def run(self, cfgs: list[Any], seeds: tuple[int, ...], library: Any, **given: Any) -> Outcome:
        """As the runner's, without its library, progress and counts."""
        return self.states(cfgs, seeds, given["data"])[0]

    @cached_property
    def both(self) -> tuple[Outcome, dict]:
        """Of the base run."""
        return self.states(self.cfgs, SEEDS, self.data)

    base = property(lambda self: self.both[0])
    first_states = property(lambda self: self.both[1])


BRIEF = Trials(task_for, BriefTrial)
