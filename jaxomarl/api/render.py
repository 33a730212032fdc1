"""A film of a run's final policy in its task."""

import operator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jaxomarl.api import policy, register
from jaxomarl.api.seeds import check_seed
from jaxomarl.base import Environment, Observation, State, refuse
from jaxomarl.envs.catalog import make
from jaxomarl.envs.rollout import Act, team_score
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
    titles = []
    for e in range(episodes):
        times = range(lengths[e] + 1)
        shown = [jax.tree.map(operator.itemgetter((e, t)), states) for t in times]
        films.append(np.stack([env.render(state) for state in shown]))
        titles.append(f"episode {e + 1}: return {returns[e]:.1f}")
    film.write(out, film.mosaic(films, titles), fps)
    return [float(x) for x in returns]


def roll_out_states(
    env: Environment, act: Act, memory: State, key: Key[Array, ""], episodes: int
) -> tuple[State, Int[np.ndarray, " E"], Float[np.ndarray, " E"]]:
    """Roll out episodes: (all states [E, T + 1], lengths, team returns), on the host.

    States after an episode's end have no meaning.
    """

    def episode(key: Key[Array, ""]) -> tuple[State, Array, Array]:
        k_reset, k_act, k_step = jax.random.split(key, 3)
        start, first = env.reset(k_reset)

        def step(carry: tuple, t: Array) -> tuple[tuple, State]:
            state, now, memory, alive, length, score = carry
            observation = Observation(now.obs, now.available, now.reward)
            action, memory = act(jax.random.fold_in(k_act, t), memory, observation)
            state, then = env.step(jax.random.fold_in(k_step, t), state, action)
            score += jnp.where(alive > 0, team_score(env.spec, then.reward), 0.0)
            length += (alive > 0).astype(jnp.int32)
            return (state, then, memory, alive * (1.0 - then.done), length, score), state

        carry = (start, first, memory, jnp.ones(()), jnp.zeros((), jnp.int32), jnp.zeros(()))
        (*_, length, score), later = jax.lax.scan(step, carry, jnp.arange(env.spec.horizon))
        states = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), start, later)
        return states, length, score

    with jax.default_matmul_precision("highest"):
        played = jax.jit(jax.vmap(episode))(jax.random.split(key, episodes))
    return jax.tree.map(np.asarray, played)
