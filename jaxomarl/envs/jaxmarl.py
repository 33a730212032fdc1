"""Any environment of JaxMARL under our contract: `jaxmarl/<env id>`.

It is stepped with `step_env`, which does not reset itself, so an episode's last observation is the
true one. The grid games of several inner episodes, such as coin_game, begin the next inner episode
by themselves within `step_env`.
"""

import contextlib
import difflib
import io
import math
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import ShapeDtypeStruct
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from jaxomarl.base import Environment, Spec, State, Task, TimeStep, refuse
from jaxomarl.envs import draw
from jaxomarl.envs.recipes import random_play

LONG = 200
"""Steps of an episode above which a final evaluation has as few episodes as a robot's."""
VIEW = 1.4
"""Half-width of a picture; MPE starts within 1."""
TAIL = 0.15
"""Length of a velocity line over the speed."""

TIMED = (
    "jaxmarl.environments.mpe.",
    "jaxmarl.environments.coin_game.",
    "jaxmarl.environments.overcooked.",
    "jaxmarl.environments.overcooked_v2.",
    "jaxmarl.environments.storm.",
)
"""Modules of JaxMARL 0.2.0 whose games end only by their limit of steps; others may terminate."""
TWO_TEAMS = {"SMAX": "smax/3m", "HeuristicEnemySMAX": "smax/5m_vs_6m"}
"""Ids that have tasks of their own, and an example: SMAX's two teams oppose each other."""


Tree = Any
"""A pytree of arrays, of whatever structure a game gives it."""


@runtime_checkable
class Game(Protocol):
    """What the adapter reads of a JaxMARL environment."""

    agents: Any

    def action_space(self, agent: Any) -> Any:
        """The space of an agent's actions."""

    def reset(self, key: Key[Array, ""]) -> Any:
        """(observations by agent, state)."""

    def step_env(self, key: Key[Array, ""], state: State, actions: Any) -> Any:
        """(observations, state, rewards, dones, info) of one step."""


class GameState(NamedTuple):
    """JaxMARL's state, the steps taken, and the agents that it has not reported as done."""

    inner: State
    step: Int[Array, ""]
    alive: Float[Array, " N"]


def task(env_id: str, continuous: bool = False, horizon: int = 0) -> Task:
    """JaxMARL's `env_id` with its default settings; `horizon` 0 is its own limit of steps.

    JaxMARL's end of an episode is a termination before the horizon, and a time-out at it. Raises
    JaxomarlError for an unknown id, for actions of a kind that the environment does not have, for
    a horizon that it cannot reach, and where it needs a package that is missing.
    """
    game, limit = _build(env_id, continuous, horizon)
    env = adapt(game, env_id, horizon or limit)
    about = f"{env_id} of JaxMARL: {env.spec.agents} agents, {env.spec.horizon} steps at most"
    final = 1024 if env.spec.horizon <= LONG else 128
    recipes = {"random": random_play(env)}
    return Task(f"jaxmarl/{env_id}", env, recipes, "random", about=about, final_episodes=final)


# --- JaxMARL's side ---


def jaxmarl_package() -> ModuleType:
    """The package JaxMARL, imported in silence."""
    own = (sys.stdout, sys.stderr, sys.__stdout__)
    try:
        # it prints, and resets sys.stdout to __stdout__
        silent = io.StringIO()
        sys.stdout = silent
        sys.__stdout__ = silent  # type: ignore[misc]
        import jaxmarl
    # a package may be missing, or too new for it
    except Exception as error:
        way = "pip install 'jaxmarl>=0.2.0'"
        raise refuse("jaxmarl", "JaxMARL installed", str(error), way) from error
    finally:
        sys.stdout, sys.stderr, sys.__stdout__ = own  # type: ignore[misc]
    return jaxmarl


def _build(env_id: str, continuous: bool, horizon: int) -> tuple[Any, int]:
    """The game with such actions and horizon, and its own limit of steps."""
    field = f"jaxmarl/{env_id}"
    known = jaxmarl_package().registered_envs
    if env_id not in known:
        way = f"Known: {', '.join(known)}."
        close = difflib.get_close_matches(env_id, known, n=3, cutoff=0.4)
        if close:
            way = f"Did you mean {', '.join(close)}? Known: {', '.join(known)}."
        raise refuse("task jaxmarl/...", "an id of JaxMARL", env_id, way)
    if env_id in TWO_TEAMS:
        expected = "a game of one team, with a map"
        raise refuse(field, expected, env_id, f"Name a map of SMAX, as {TWO_TEAMS[env_id]}.")
    if horizon < 0:
        expected = "a number of steps, or 0 for its own"
        raise refuse(f"{field}, horizon", expected, horizon, "Leave it out.")

    game, options = _with_actions(env_id, continuous)
    if horizon:
        # a TypeError says that the game has no such setting
        with contextlib.suppress(TypeError):
            game = jaxmarl_package().make(env_id, **options, max_steps=horizon)
    inner = getattr(game, "num_inner_steps", 0) * getattr(game, "num_outer_steps", 1)
    limit = getattr(game, "max_steps", inner)
    if not (horizon or limit):
        expected = "a number of steps, as the game has none"
        raise refuse(f"{field}, horizon", expected, 0, f"Try {field}:horizon=100.")
    if limit and horizon > limit:
        expected = f"at most {limit}, its own limit"
        raise refuse(f"{field}, horizon", expected, horizon, "Leave it out.")
    return game, limit


def _with_actions(env_id: str, continuous: bool) -> tuple[Any, dict[str, str]]:
    """The game with actions of one kind, and the settings that give them."""
    field = f"jaxmarl/{env_id}"
    wanted = "Box" if continuous else "Discrete"
    kinds = "no such actions"
    for options in _options(continuous):
        try:
            game = jaxmarl_package().make(env_id, **options)
            kinds = ", ".join(sorted({type(game.action_space(a)).__name__ for a in game.agents}))
        # a constructor may raise anything
        except Exception as error:
            if not options:
                expected = "what JaxMARL can build as it is"
                raise refuse(field, expected, str(error), "Give what it needs.") from error
            continue
        if kinds == wanted:
            return game, options

    expected = f"action spaces for {str(continuous).lower()}"
    way = f"Try {field}:continuous=true."
    if continuous:
        way = f"Try {field}."
    raise refuse(f"{field}, continuous", expected, kinds, way)


def _options(continuous: bool) -> list[dict[str, str]]:
    """The settings by which JaxMARL's constructors take the kind of actions."""
    word = "Continuous" if continuous else "Discrete"
    return [{}, {"action_type": word}, {"action_type": word.lower()}, {"act_type": word}]


# --- our side ---


def adapt(game: Game, env_id: str, horizon: int) -> Environment:
    """The contract around a JaxMARL environment that was built already, with whatever settings.

    Observations are flattened and zero-padded. The state is JaxMARL's world state, or else all
    observations. Continuous actions are clipped to [-1, 1] and mapped to the action space's bounds.
    Scalars of JaxMARL's info are kept. Raises JaxomarlError where the game cannot be traced.
    """
    agents = list(game.agents)
    spaces = [game.action_space(a) for a in agents]
    discrete = hasattr(spaces[0], "n")
    act_dims = tuple(_action_width(space, discrete) for space in spaces)
    decode = _decoder(agents, spaces, act_dims, discrete)
    traced = _trace(game, env_id, agents, max(act_dims), decode)
    timed = type(game).__module__.startswith(TIMED)
    spec = Spec(
        obs_dims=traced.obs_dims,
        act_dims=act_dims,
        state_dim=traced.state_dim,
        horizon=horizon,
        discrete=discrete,
        dialect=f"jaxmarl-{jaxmarl_package().__version__}-{env_id}",
        terminates="never" if timed else "may",
    )
    available = _available(game, agents, spec, traced.inner)

    def timestep(
        obs: Tree, game_state: GameState, reward: Array, done: Array, info: dict[str, Any]
    ) -> TimeStep:
        rows = _padded([_flat(obs[a]) for a in agents], spec.obs_width)
        # a reset has no info yet
        scalars = {name: jnp.zeros(()) for name in traced.scalars}
        if info:
            scalars = {name: jnp.asarray(info[name], jnp.float32) for name in traced.scalars}
        legal = available(game_state.inner)
        state = _state(obs, agents)
        return TimeStep(rows, state, reward, done, game_state.alive, legal, scalars)

    def reset(key: Key[Array, ""]) -> tuple[GameState, TimeStep]:
        obs, inner = game.reset(key)
        inner = jax.tree.map(cast_to, inner, traced.dtypes)
        game_state = GameState(inner, jnp.zeros((), jnp.int32), jnp.ones(len(agents)))
        return game_state, timestep(obs, game_state, jnp.zeros(len(agents)), jnp.zeros(()), {})

    def step(
        key: Key[Array, ""], state: GameState, action: Float[Array, "N A"]
    ) -> tuple[GameState, TimeStep]:
        obs, inner, rewards, dones, info = game.step_env(key, state.inner, decode(action))
        over = jnp.reshape(dones["__all__"], ())
        t = state.step + 1
        out = jnp.stack([jnp.reshape(dones.get(a, False), ()) for a in agents])
        # at the end all agents are done, the living too
        alive = state.alive * (1.0 - out.astype(jnp.float32) * ~over)
        game_state = GameState(jax.tree.map(cast_to, inner, traced.dtypes), t, alive)
        gained = [jnp.asarray(rewards[a], jnp.float32) for a in agents]
        reward = jnp.stack([jnp.reshape(x, ()) for x in gained])
        done = (over & (t < horizon)).astype(jnp.float32)
        return game_state, timestep(obs, game_state, reward, done, info)

    trails = _renderer(game)
    return Environment(spec, reset, step, draw.still(trails), render_trails=trails)


def _action_width(space: Any, discrete: bool) -> int:
    """The number of actions, or of an action's columns."""
    if discrete:
        return int(space.n)
    return math.prod(space.shape)


class Traced(NamedTuple):
    """Shapes and types of a game, found by tracing its reset and one step."""

    inner: State
    dtypes: Any
    obs_dims: tuple[int, ...]
    state_dim: int
    scalars: list[str]
    """Names of the scalars in the game's info."""


def _trace(game: Game, env_id: str, agents: list[Any], width: int, decode: Callable) -> Traced:
    """Trace a game; JaxomarlError where it cannot be traced."""
    joint_action = ShapeDtypeStruct((len(agents), width), jnp.float32)

    def step(key: Key[Array, ""], state: State, action: Array) -> Any:
        return game.step_env(key, state, decode(action))

    def common_dtype(before: ShapeDtypeStruct, after: ShapeDtypeStruct) -> Any:
        if before.dtype == after.dtype:
            return before.dtype
        return jnp.promote_types(before, after)

    try:
        key = jax.random.key(0)
        obs, inner = jax.eval_shape(game.reset, key)
        _, after, _, _, info = jax.eval_shape(step, key, inner, joint_action)
        dtypes = jax.tree.map(common_dtype, inner, after)
        obs_dims = tuple(jax.eval_shape(_flat, obs[a]).size for a in agents)
        state_dim = jax.eval_shape(lambda o: _state(o, agents), obs).size
    # the game's rules may raise anything
    except Exception as error:
        found = f"{type(error).__name__}: {str(error)[:300]}"
        expected = "rules that JAX can trace"
        raise refuse(f"jaxmarl/{env_id}", expected, found, "Take another.") from error
    scalars = [
        name for name, x in info.items() if isinstance(x, ShapeDtypeStruct) and x.shape == ()
    ]
    return Traced(inner, dtypes, obs_dims, state_dim, scalars)


def _decoder(
    agents: list[Any], spaces: list[Any], act_dims: tuple[int, ...], discrete: bool
) -> Callable:
    """[N, A] -> JaxMARL's actions.

    An action is the index of a one-hot row, or [-1, 1] mapped to the space's bounds.
    """

    def decode(action: Float[Array, "N A"]) -> dict[Any, Array]:
        rows = [action[i, :n] for i, n in enumerate(act_dims)]
        out = {}
        for a, space, row in zip(agents, spaces, rows, strict=True):
            if discrete:
                out[a] = jnp.argmax(row).astype(jnp.int32)
                continue
            unit = (jnp.clip(row, -1.0, 1.0).reshape(space.shape) + 1.0) / 2.0
            out[a] = space.low + unit * (space.high - space.low)
        return out

    return decode


def _padded(rows: list[Array], width: int) -> Shaped[Array, "N W"]:
    """Rows of different widths as one array, padded with zeros."""
    return jnp.stack([jnp.pad(row, (0, width - row.shape[0])) for row in rows])


def _flat(obs: Tree) -> Float[Array, " O"]:
    """One agent's observation, of whatever structure, as a row."""
    return jnp.concatenate([jnp.ravel(x).astype(jnp.float32) for x in jax.tree.leaves(obs)])


def _state(obs: Tree, agents: list[Any]) -> Float[Array, " S"]:
    """JaxMARL's world state where it gives one, else all observations side by side."""
    if isinstance(obs, dict) and "world_state" in obs:
        return _flat(obs["world_state"])
    return jnp.concatenate([_flat(obs[a]) for a in agents])


def cast_to(x: Any, dtype: Any) -> Array:
    """An array of a strong type, so that states before and after a step have the same types."""
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return x
    return jax.lax.convert_element_type(x, dtype)


def _available(
    game: Any, agents: list[Any], spec: Spec, inner: State
) -> Callable[[State], Bool[Array, "N A"]]:
    """The function that gives the legal actions of a state.

    They are those that the game reports, or else all real columns.
    """
    try:
        reported = jax.eval_shape(game.get_avail_actions, inner)
        shapes = [reported[a].shape for a in agents]
        reports = spec.discrete and shapes == [(n,) for n in spec.act_dims]
    # most games do not implement it, each in its own way
    except Exception:
        reports = False

    def available(inner: State) -> Bool[Array, "N A"]:
        if not reports:
            return jnp.asarray(spec.act_mask > 0)
        legal = game.get_avail_actions(inner)
        return _padded([legal[a].astype(bool) for a in agents], spec.act_width)

    return available


def _renderer(game: object) -> Callable[[Sequence[GameState]], np.ndarray] | None:
    """The function that draws the last of some states of JaxMARL's MPE; None for other games.

    Hunters and other agents have a colour each; hunted agents share one; landmarks are grey.
    """
    from jaxmarl.environments.mpe.simple import SimpleMPE

    if not isinstance(game, SimpleMPE):
        return None
    radius = np.asarray(game.rad)
    collide = np.asarray(game.collide)
    n = game.num_agents
    hunted = set()
    if hasattr(game, "adversaries"):
        hunted = set(getattr(game, "good_agents", ()))
    colours = [
        draw.PREY if a in hunted else draw.agent_colour(i) for i, a in enumerate(game.agents)
    ]
    colours += [draw.OBSTACLE if solid else draw.LANDMARK for solid in collide[n:]]

    def render_trails(states: Sequence[GameState]) -> np.ndarray:
        state = states[-1]
        position = np.asarray(state.inner.p_pos, float)
        tail = TAIL * np.asarray(state.inner.p_vel, float)
        discs = []
        # agents lie over landmarks
        for i in [*range(n, len(position)), *range(n)]:
            x, y = position[i]
            ends = (tail[i, 0], tail[i, 1])
            discs.append(draw.Disc(x, y, float(radius[i]), colours[i], 0.85, ends))
        places = np.stack([np.asarray(x.inner.p_pos, float) for x in states])
        trails = [draw.Trail(places[:, i], colours[i]) for i in range(n)]
        return draw.scene(discs, VIEW, trails=trails)

    return render_trails
