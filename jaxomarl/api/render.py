"""Films of runs' final policies in their task, side by side from the same starts."""

import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jaxomarl.api import policy, register
from jaxomarl.api.policy import Policy
from jaxomarl.api.seeds import check_seed
from jaxomarl.base import Environment, Observation, State, Task, refuse
from jaxomarl.envs.catalog import make
from jaxomarl.envs.rollout import Act, recorded
from jaxomarl.paths import user_path
from jaxomarl.results import film, store


class Look(NamedTuple):
    """How films are made."""

    seed: int = 0
    """Seed of the episodes: equal seeds give equal starts."""
    fps: float = 10.0
    """Frames per second; each step is a frame."""
    trails: bool = True
    """Whether bodies leave trails, where the task is a plane."""
    size: int = 0
    """Most pixels of a frame's width; 0: as it is drawn, on a sheet `film.THUMB`."""
    frames: int = film.COLUMNS
    """Frames of each episode on a sheet."""


USUAL = Look()


class Shot(NamedTuple):
    """One episode of one run."""

    title: str
    frames: np.ndarray
    """[T + 1, h, w, 3]."""
    captions: list[str]
    """What stands with each frame: the step, and the return until then."""


def render(
    runs: Sequence[Path], out: Path, episodes: int = 0, look: Look = USUAL
) -> dict[str, list[float]]:
    """Film the runs' final policies from the same starts, and return each run's team returns.

    A folder that contains runs stands for the first seed of each system in it. In `out` (.gif or
    .mp4) runs are side by side, and their episodes below one another. Those of a single run are
    side by side. A .png is a contact sheet: some frames of each episode. `episodes` 0 is 3 for one
    run and 1 for several.

    Raises JaxomarlError for a seed out of range, for no run, where a folder is no finished run,
    where the runs' tasks differ, where the task has no picture or has changed since, and where
    `out` cannot be written.
    """
    if not runs:
        raise refuse("RUN", "at least one folder", "none", "For example a seed's folder.")
    if episodes < 0:
        raise refuse("--episodes", "at least 1", episodes, "Leave it out for its default.")
    for flag, value, least in (("--frames", look.frames, 1), ("--size", look.size, 0)):
        if value < least:
            raise refuse(flag, f"at least {least}", value, "Leave it out for its default.")
    check_seed(look.seed)
    film.check(out, look.fps)
    players = [policy.load_policy(run) for folder in runs for run in first_seeds(folder)]
    task = common_task(players)
    names = names_of([player.info for player in players])
    if not episodes:
        episodes = 3 if len(players) == 1 else 1

    returns: dict[str, list[float]] = {}
    shots = []
    for name, player in zip(names, players, strict=True):
        of_run, scores = filmed(task.env, player, name, episodes, look)
        shots.append(of_run)
        returns[name] = scores
    if len(players) > 1:
        # a row of a film, and neighbours on a sheet, have one start
        shots = [list(row) for row in zip(*shots, strict=True)]
    frames = film.with_legend(joined(shots, out.suffix, look), task.env.legend)
    starts = f"{episodes} episode{'s' * (episodes != 1)} of seed {look.seed}"
    film.write(out, frames, look.fps, f"{', '.join(names)} on {task.name}, {starts}")
    return returns


def first_seeds(folder: Path) -> list[Path]:
    """The first finished seed of each system and setting below a folder; a run's folder itself."""
    finished = user_path(folder).rglob(policy.FILE)
    below = store.find_runs([file.parent for file in finished if file.parent != folder])
    first: dict[tuple, Path] = {}
    for run in below:
        cell = tuple(run.info[name] for name in ("task", "data", "system", "config"))
        first.setdefault(cell, run.path)
    return list(first.values()) or [folder]


def common_task(players: Sequence[Policy]) -> Task:
    """The task of all players; JaxomarlError where there are several, or it cannot be drawn."""
    for player in players:
        register.check_task(player.info)
    tasks = sorted({player.info["task"] for player in players})
    if len(tasks) > 1:
        way = "Film each task in a file of its own."
        raise refuse("RUN", "runs of one task", ", ".join(tasks), way)
    task = make(tasks[0])
    if task.env.render is None:
        way = "Particle tasks, battles and robots do."
        raise refuse("RUN", "a task that draws its states", task.name, way)
    for player in players:
        if task.env.spec != player.spec:
            way = "Use the version that wrote the run."
            raise refuse("RUN", f"{task.name} as {player.spec}", task.env.spec, way)
    return task


def filmed(
    env: Environment, player: Policy, name: str, episodes: int, look: Look
) -> tuple[list[Shot], list[float]]:
    """The episodes of one run, and their returns."""

    def act(key: Key[Array, ""], memory: State, now: Observation) -> tuple[Array, State]:
        assert player.algorithm.act is not None
        return player.algorithm.act(key, player.state, player.past, memory, now)

    key = jax.random.key(look.seed)
    states, lengths, returns = roll_out_states(env, act, player.algorithm.memory, key, episodes)
    shots = []
    for e in range(episodes):
        last = int(lengths[e])
        shown = [jax.tree.map(operator.itemgetter((e, t)), states) for t in range(last + 1)]
        captions = [caption(t, last, float(returns[e, t])) for t in range(last + 1)]
        title = f"{name}, episode {e + 1} of seed {look.seed}"
        shots.append(Shot(title, drawn(env, shown, look.trails), captions))
    return shots, [float(x) for x in returns[:, -1]]


def drawn(env: Environment, states: Sequence[State], trails: bool) -> np.ndarray:
    """A frame [T + 1, h, w, 3] of each state, with trails where they are asked for and possible."""
    if trails and env.render_trails is not None:
        return np.stack([env.render_trails(states[: t + 1]) for t in range(len(states))])
    assert env.render is not None
    return np.stack([env.render(state) for state in states])


def joined(rows: Sequence[Sequence[Shot]], suffix: str, look: Look) -> np.ndarray:
    """The frames [T, H, W, 3] of a film of rows of shots; of a sheet there is one."""
    if suffix == film.SHEET:
        shots = [shot for row in rows for shot in row]
        small = [film.shrunk(shot.frames, look.size or film.THUMB) for shot in shots]
        width = small[0].shape[2]
        titles = [shot.title for shot in shots]
        captions = [[film.fitting(text, width) for text in shot.captions] for shot in shots]
        return film.sheet(small, titles, captions, look.frames)[None]

    films = []
    for row in rows:
        frames = [film.shrunk(shot.frames, look.size or shot.frames.shape[2]) for shot in row]
        width = frames[0].shape[2]
        captions = [
            [film.fitting(f"{shot.title}\n{text}", width) for text in shot.captions] for shot in row
        ]
        films.append(film.mosaic(frames, captions))
    return film.stack(films)


def names_of(infos: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each run, with its data and the digest of its settings where these tell apart."""
    names = [name_of(info) for info in infos]
    for more in ("data", "config"):
        if len(set(names)) == len(names):
            break
        words = [str(info[more])[:8] if more == "config" else info[more] for info in infos]
        if len(set(words)) > 1:
            names = [f"{name} ({word})" for name, word in zip(names, words, strict=True)]
    return names


def name_of(info: Mapping[str, Any]) -> str:
    """The system of a run with its swept values and its seed in training."""
    swept = [f"{name}={value}" for name, value in sorted(info["swept"].items())]
    return " ".join([info["system"], *swept, f"seed {info['seed']}"])


def caption(step: int, steps: int, score: float) -> str:
    """What stands with a frame: its step, and the return until then."""
    return f"step {step} of {steps}, return {score:.1f}"


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
