"""A film of a run's final policy in its task."""

import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jaxomarl.api import policy, register
from jaxomarl.api.seeds import check_seed
from jaxomarl.base import Environment, Observation, State, refuse
from jaxomarl.envs.catalog import make
from jaxomarl.envs.rollout import Act, recorded
from jaxomarl.results import film


def render(run: Path, episodes: int, out: Path, seed: int = 0, fps: float = 10.0) -> list[float]:
    """Film the run's final policy, and return the episodes' team returns.

    The episodes are shown side by side in `out` (.gif or .mp4). Raises JaxomarlError for a seed out
    of range, where the folder is no finished run, where the task has no picture or has changed
    since, and where `out` cannot be written.
    """
    if episodes < 1:
        raise refuse("--episodes", "at least 1", episodes, "Leave it out for 3.")
    check_seed(seed)
    film.check(out, fps)
    player = policy.load_policy(run)
    register.check_task(player.info)
    task = make(player.info["task"])
    env = task.env
    if env.render is None:
        raise refuse("RUN", "a task that draws its states", task.name, "The particle tasks do.")
    if env.spec != player.spec:
        way = "Use the version that wrote the run."
        raise refuse("RUN", f"{task.name} as {player.spec}", env.spec, way)

    def act(key: Key[Array, ""], memory: State, now: Observation) -> tuple[Array, State]:
        assert player.algorithm.act is not None
        return player.algorithm.act(key, player.state, player.past, memory, now)

    key = jax.random.key(seed)
    states, lengths, returns = roll_out_states(env, act, player.algorithm.memory, key, episodes)
    films = []
    captions = []
    for e in range(episodes):
        times = range(lengths[e] + 1)
        shown = [jax.tree.map(operator.itemgetter((e, t)), states) for t in times]
        films.append(np.stack([env.render(state) for state in shown]))
        title = f"{name_of(player.info)}, episode {e + 1} of seed {seed}"
        last = int(lengths[e])
        captions.append([caption(title, t, last, float(returns[e, t])) for t in times])
    frames = film.with_legend(film.mosaic(films, captions), env.legend)
    film.write(out, frames, fps)
    return [float(x) for x in returns[:, -1]]


def name_of(info: Mapping[str, Any]) -> str:
    """The system of a run with its swept values and its seed in training."""
    swept = [f"{name}={value}" for name, value in sorted(info["swept"].items())]
    return " ".join([info["system"], *swept, f"seed {info['seed']}"])


def caption(title: str, step: int, steps: int, score: float) -> str:
    """Two lines above a frame: whose episode it is, and the step with the return until then."""
    return f"{title}\nstep {step} of {steps}, return {score:.1f}"


def roll_out_states(
    env: Environment, act: Act, memory: State, key: Key[Array, ""], episodes: int
) -> tuple[State, Int[np.ndarray, " E"], Float[np.ndarray, "E T1"]]:
    """Roll out episodes: (all states [E, T + 1], lengths, team returns until then), on the host.

    The return at step 0 is 0, and the last one that of the episode. States after an episode's end
    have no meaning.
    """

    def episode(key: Key[Array, ""]) -> tuple[State, Array, Array]:
        played = recorded(env, act, memory, key)
        return played.states, played.alive.sum().astype(jnp.int32), played.score

    with jax.default_matmul_precision("highest"):
        played = jax.jit(jax.vmap(episode))(jax.random.split(key, episodes))
    return jax.tree.map(np.asarray, played)
