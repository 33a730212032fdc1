"""Any environment of JaxMARL under our contract: `jaxmarl/<env id>`.

It is stepped with `step_env`, which does not reset itself, so an episode's last observation is the true one. (The
grid games of several inner episodes, such as coin_game, begin the next of these by themselves within `step_env`.)
"""

import contextlib
import difflib
import io
import math
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxomarl.base import Environment, Spec, State, Task, TimeStep, refuse
from jaxomarl.envs import draw
from jaxomarl.envs.recipes import random_play

LONG = 200  # steps of an episode, above which a final evaluation has as few episodes as a robot's
VIEW = 1.4  # half-width of a picture; MPE starts within 1
TAIL = 0.15  # length of a velocity line over the speed

TIMED = tuple(
    f"jaxmarl.environments.{x}."
    for x in ("mpe", "coin_game", "overcooked", "overcooked_v2", "storm")
)
"""Modules of JaxMARL's games that end by their limit of steps alone, read in 0.2.0; others may terminate."""


class Play(NamedTuple):
    """JaxMARL's state, the steps taken, and which agents it has not yet said to be done."""

    inner: State
    step: Int[Array, ""]
    alive: Float[Array, " N"]


def task(env_id: str, continuous: bool = False, horizon: int = 0) -> Task:
    """JaxMARL's `env_id` with its default settings; `horizon` 0 is its own limit of steps.

    JaxMARL's end of an episode is a termination before the horizon, and a time-out at it. Raises JaxomarlError for
    an unknown id, for actions of a kind that the environment does not have, for a horizon that it cannot reach, and
    where it needs a package that is missing.
    """
    game, limit = _build(env_id, continuous, horizon)
    env = adapt(game, env_id, horizon or limit)
    about = f"{env_id} of JaxMARL: {env.spec.agents} agents, {env.spec.horizon} steps at most"
    final = 1024 if env.spec.horizon <= LONG else 128
    made = {"random": random_play(env)}
    return Task(f"jaxmarl/{env_id}", env, made, "random", about=about, final_episodes=final)


# --- JaxMARL's side ---


def _jaxmarl() -> ModuleType:
    own = sys.stdout, sys.stderr, sys.__stdout__
    try:
        sys.stdout = sys.__stdout__ = io.StringIO()  # type: ignore[misc] (it prints, and resets sys.stdout to __stdout__)
        import jaxmarl
    except Exception as error:  # a package that is missing, or too new for it
        raise refuse(
            "jaxmarl", "JaxMARL installed", str(error), "pip install 'jaxmarl>=0.2.0'"
        ) from error
    finally:
        sys.stdout, sys.stderr, sys.__stdout__ = own  # type: ignore[misc]
    return jaxmarl


def _build(env_id: str, continuous: bool, horizon: int) -> tuple[Any, int]:
    """The game with such actions and horizon, and its own limit of steps."""
    field, known = f"jaxmarl/{env_id}", _jaxmarl().registered_envs
    if env_id not in known:
        close = difflib.get_close_matches(env_id, known, n=3, cutoff=0.4)
        hint = f"Did you mean {', '.join(close)}? " if close else ""
        raise refuse(
            "task jaxmarl/...", "an id of JaxMARL", env_id, f"{hint}Known: {', '.join(known)}."
        )
    if horizon < 0:
        raise refuse(
            f"{field}, horizon", "a number of steps, or 0 for its own", horizon, "Leave it out."
        )
    found = "no such actions"
    for options in _options(continuous):
        try:
            game = _jaxmarl().make(env_id, **options)
            found = ", ".join(sorted({type(game.action_space(a)).__name__ for a in game.agents}))
        except Exception as error:  # whatever its constructor raises
            if not options:
                raise refuse(
                    field, "what JaxMARL can build as it is", str(error), "Give what it needs."
                ) from error
            continue
        if found == ("Box" if continuous else "Discrete"):
            break
    else:
        way_out = f"Try {field}{'' if continuous else ':continuous=true'}."
        raise refuse(
            f"{field}, continuous", f"action spaces for {str(continuous).lower()}", found, way_out
        )
    if horizon:
        with contextlib.suppress(TypeError):  # then it has no such setting
            game = _jaxmarl().make(env_id, **options, max_steps=horizon)
    limit = getattr(
        game, "max_steps", getattr(game, "num_inner_steps", 0) * getattr(game, "num_outer_steps", 1)
    )
    if not (horizon or limit):
        raise refuse(
            f"{field}, horizon",
            "a number of steps, as the game has none",
            0,
            f"Try {field}:horizon=100.",
        )
    if limit and horizon > limit:
        raise refuse(
            f"{field}, horizon", f"at most {limit}, its own limit", horizon, "Leave it out."
        )
    return game, limit


def _options(continuous: bool) -> list[dict[str, str]]:
    """The ways in which JaxMARL's constructors take the kind of actions."""
    word = "Continuous" if continuous else "Discrete"
    return [{}, {"action_type": word}, {"action_type": word.lower()}, {"act_type": word}]


# --- our side ---


def adapt(game: Any, env_id: str, horizon: int) -> Environment:
    """The contract around a JaxMARL environment that was built already, with whatever settings.

    Observations are flattened and zero-padded. The state is JaxMARL's world state, or else all observations.
    Continuous actions are clipped to [-1, 1] and mapped to the action space's bounds. Scalars of JaxMARL's info are
    kept. Raises JaxomarlError where the game cannot be traced.
    """
    agents, key = list(game.agents), jax.random.key(0)
    spaces = [game.action_space(a) for a in agents]
    discrete = hasattr(spaces[0], "n")
    act_dims = tuple(int(s.n) if discrete else math.prod(s.shape) for s in spaces)
    decode = _decoder(agents, spaces, act_dims, discrete)
    try:
        obs, inner = jax.eval_shape(game.reset, key)
        like = jax.ShapeDtypeStruct((len(agents), max(act_dims)), jnp.float32)
        _, after, _, _, info = jax.eval_shape(
            lambda k, s, a: game.step_env(k, s, decode(a)), key, inner, like
        )
        dtypes = jax.tree.map(
            lambda a, b: a.dtype if a.dtype == b.dtype else jnp.promote_types(a, b), inner, after
        )
        obs_dims = tuple(jax.eval_shape(_flat, obs[a]).size for a in agents)
        state_dim = jax.eval_shape(lambda o: _state(o, agents), obs).size
    except Exception as error:  # whatever its rules raise
        found = f"{type(error).__name__}: {str(error)[:300]}"
        raise refuse(
            f"jaxmarl/{env_id}", "rules that JAX can trace", found, "Take another."
        ) from error
    dialect = f"jaxmarl-{_jaxmarl().__version__}-{env_id}"
    ending = "never" if type(game).__module__.startswith(TIMED) else "may"
    spec = Spec(
        obs_dims, act_dims, state_dim, horizon, discrete, dialect=dialect, terminates=ending
    )
    available = _available(game, agents, spec, inner)
    told = [k for k, v in info.items() if isinstance(v, jax.ShapeDtypeStruct) and v.shape == ()]

    def timestep(
        obs: Any, play: Play, reward: Array, done: Array, info: dict[str, Any]
    ) -> TimeStep:
        rows = [
            jnp.pad(_flat(obs[a]), (0, spec.obs_width - n))
            for a, n in zip(agents, obs_dims, strict=True)
        ]
        numbers = {k: jnp.asarray(info[k], jnp.float32) if info else jnp.zeros(()) for k in told}
        may = available(play.inner)
        return TimeStep(
            jnp.stack(rows), _state(obs, agents), reward, done, play.alive, may, numbers
        )

    def reset(key: Key[Array, ""]) -> tuple[Play, TimeStep]:
        obs, inner = game.reset(key)
        play = Play(
            jax.tree.map(_cast, inner, dtypes), jnp.zeros((), jnp.int32), jnp.ones(len(agents))
        )
        return play, timestep(obs, play, jnp.zeros(len(agents)), jnp.zeros(()), {})

    def step(
        key: Key[Array, ""], state: Play, action: Float[Array, "N A"]
    ) -> tuple[Play, TimeStep]:
        obs, inner, reward, dones, info = game.step_env(key, state.inner, decode(action))
        over, t = jnp.reshape(dones["__all__"], ()), state.step + 1
        out = jnp.stack([jnp.reshape(dones.get(a, False), ()) for a in agents])
        alive = state.alive * (
            1.0 - out.astype(jnp.float32) * ~over
        )  # at the end all are done, the living too
        play = Play(jax.tree.map(_cast, inner, dtypes), t, alive)
        gained = jnp.stack([jnp.reshape(jnp.asarray(reward[a], jnp.float32), ()) for a in agents])
        return play, timestep(obs, play, gained, (over & (t < horizon)).astype(jnp.float32), info)

    return Environment(spec, reset, step, _renderer(game))


def _decoder(
    agents: list[Any], spaces: list[Any], act_dims: tuple[int, ...], discrete: bool
) -> Callable:
    """[N, A] -> JaxMARL's actions: the index of a one-hot row, or [-1, 1] mapped to the space's bounds."""

    def decode(action: Float[Array, "N A"]) -> dict[Any, Array]:
        rows = [action[i, :n] for i, n in enumerate(act_dims)]
        if discrete:
            return {
                a: jnp.argmax(row).astype(jnp.int32) for a, row in zip(agents, rows, strict=True)
            }
        out = {}
        for a, space, row in zip(agents, spaces, rows, strict=True):
            unit = (jnp.clip(row, -1.0, 1.0).reshape(space.shape) + 1.0) / 2.0
            out[a] = space.low + unit * (space.high - space.low)
        return out

    return decode


def _flat(obs: Any) -> Float[Array, " O"]:
    """One agent's observation, of whatever structure, as a row."""
    return jnp.concatenate([jnp.ravel(x).astype(jnp.float32) for x in jax.tree.leaves(obs)])


def _state(obs: Any, agents: list[Any]) -> Float[Array, " S"]:
    """JaxMARL's world state where it gives one, else all observations side by side."""
    if isinstance(obs, dict) and "world_state" in obs:
        return _flat(obs["world_state"])
    return jnp.concatenate([_flat(obs[a]) for a in agents])


def _cast(x: Any, dtype: Any) -> Array:
    """Strongly typed, so that a state before a step and one after it are alike."""
    return (
        x if jnp.issubdtype(dtype, jax.dtypes.prng_key) else jax.lax.convert_element_type(x, dtype)
    )


def _available(
    game: Any, agents: list[Any], spec: Spec, inner: State
) -> Callable[[State], Bool[Array, "N A"]]:
    """Which actions are legal in a state: as the game says where it says so, else all real columns."""
    try:
        said = jax.eval_shape(game.get_avail_actions, inner)
        says = spec.discrete and all(
            said[a].shape == (n,) for a, n in zip(agents, spec.act_dims, strict=True)
        )
    except Exception:  # most games do not implement it, each in its own way
        says = False

    def available(inner: State) -> Bool[Array, "N A"]:
        if not says:
            return jnp.asarray(spec.act_mask > 0)
        said = game.get_avail_actions(inner)
        rows = zip(agents, spec.act_dims, strict=True)
        return jnp.stack([jnp.pad(said[a].astype(bool), (0, spec.act_width - n)) for a, n in rows])

    return available


def _renderer(game: Any) -> Callable[[Play], np.ndarray] | None:
    """A picture of JaxMARL's MPE: hunters and other agents each in a colour, hunted ones in one, grey landmarks."""
    from jaxmarl.environments.mpe.simple import SimpleMPE

    if not isinstance(game, SimpleMPE):
        return None
    radius, collide, n = np.asarray(game.rad), np.asarray(game.collide), game.num_agents
    hunted = set(getattr(game, "good_agents", ())) if hasattr(game, "adversaries") else set()
    colours = [
        draw.PREY if a in hunted else draw.agent_colour(i) for i, a in enumerate(game.agents)
    ]
    colours += [draw.OBSTACLE if c else draw.LANDMARK for c in collide[n:]]

    def render(state: Play) -> np.ndarray:
        at, v = np.asarray(state.inner.p_pos, float), TAIL * np.asarray(state.inner.p_vel, float)
        order = [*range(n, len(at)), *range(n)]  # agents lie over landmarks
        discs = [
            draw.Disc(at[i, 0], at[i, 1], float(radius[i]), colours[i], 0.85, (v[i, 0], v[i, 1]))
            for i in order
        ]
        return draw.scene(discs, VIEW)

    return render
