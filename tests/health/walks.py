"""Two agents that swing to and fro: x' = -0.8 x + 0.6 a, of which the first sees its last place too.

Actions follow the place along a curve, with noise. So the next row, the action between two rows, and the reward can all
be learned, and a linear regression on the observation knows a part of each.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxomarl.base import Dataset, Episodes, Health, Spec, System
from jaxomarl.data.dataset import pack
from jaxomarl.data.stats import statistics
from jaxomarl.health import verdict
from jaxomarl.training.runner import Job, run

LENGTH = 6
SPEC = Spec((2, 1), (1, 1), 3, horizon=LENGTH, dialect="walks-v1")
GAMMA = 0.3


@functools.cache
def walks(count: int, seed: int) -> Dataset:
    """`count` episodes of LENGTH steps."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (count, 2))
    last = np.zeros((count, 2))
    rows = []
    for t in range(LENGTH + 1):
        action = 0.6 * np.clip(2.0 * x, -1, 1) + 0.4 * rng.uniform(-1, 1, x.shape)
        obs = np.stack([x, last], axis=-1) * SPEC.obs_mask
        state = np.concatenate([x, np.full((count, 1), t / LENGTH)], axis=1)
        rows.append((obs, state, action[..., None], x + 0.5 * action))
        last = x
        x = -0.8 * x + 0.6 * action
    obs, state, action, reward = (np.stack(block, axis=1) for block in zip(*rows, strict=True))
    action[:, -1] = 0.0
    reward[:, -1] = 0.0
    flat = lambda x: jnp.asarray(x.reshape(-1, *x.shape[2:]), jnp.float32)
    step = np.tile(np.arange(LENGTH + 1), count)
    return pack(
        Episodes(
            obs=flat(obs),
            state=flat(state),
            action=flat(action),
            reward=flat(reward),
            done=jnp.zeros(len(step)),
            step=jnp.asarray(step),
            left=jnp.asarray(LENGTH - step),
            behaviour=jnp.zeros(len(step), jnp.int32),
        ),
        SPEC,
    )


def trained(system: System, *cfgs: Any) -> dict[str, Any]:
    """Stage -> (each run's verdict, its figures [R, marks]); the runs are one compiled program."""
    stages: dict[str, Any] = {}

    def finished(index, stage, result):
        of_run = lambda r: {name: values[r] for name, values in result.health.items()}
        said = [verdict.stage_facts(stage, of_run(r)) for r in range(len(cfgs))]
        stages[stage.name] = said, result.health

    data = system.prepare(SPEC, cfgs[0], walks(300, 0))
    held = system.prepare(SPEC, cfgs[0], walks(40, 1))
    run(
        Job(
            system,
            SPEC,
            list(cfgs),
            [0] * len(cfgs),
            data,
            statistics(data),
            held=held,
            finished=finished,
            say=lambda line: None,
        )
    )
    return stages


def words(stages: dict[str, Any], name: str) -> list[str]:
    """The verdicts on a stage's runs."""
    return [said["verdict"] for said in stages[name][0]]


def judged(health: Health, held: Dataset, state: Any = ()) -> tuple[verdict.Verdict, dict]:
    """The verdict on a stage of this state, and its figures."""
    measured = jax.jit(health.measure)(jax.random.key(0), state, {}, held)
    figures = {name: float(x) for name, x in measured.items()}
    return verdict.judge(health.gates, figures), figures
