"""A scenario and its prey as one environment.

An episode has 25 steps and no termination. The prey's policy acts inside the step.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxomarl.base import Environment, Spec, TimeStep, refuse
from jaxomarl.envs import draw
from jaxomarl.envs.mpe.physics import Scene, move
from jaxomarl.envs.mpe.prey import Prey, act
from jaxomarl.envs.mpe.scenarios import Scenario, touching

HORIZON = 25


def environment(
    scenario: Scenario,
    dialect: str,
    prey: Prey | None = None,
    speed_min: float = 0.0,
    hidden: int = 0,
) -> Environment:
    """The environment of a scenario.

    The state is all learners' observations side by side, as OMAR's data have no other. `speed_min`
    > 0 draws each learner's largest speed from U[speed_min, 1] in each episode. `hidden` landmarks
    vanish in each episode: they are observed at zero and pay nothing (DOM2's shifts). Raises
    JaxomarlError where either is out of range.
    """
    _check_shift(scenario, speed_min, hidden)
    spec = _spec(scenario, dialect)
    n = scenario.learners
    agents = scenario.bodies.agents

    def timestep(scene: Scene, reward: Array) -> TimeStep:
        obs = scenario.observe(scene)
        return TimeStep(
            obs=obs,
            state=obs.reshape(-1),
            reward=reward[:n],
            done=jnp.zeros(()),
            alive=jnp.ones(n),
            available=jnp.ones((n, 2), bool),
            info={"touches": scene.touches},
        )

    def reset(key: Key[Array, ""]) -> tuple[Scene, TimeStep]:
        k_place, k_speed, k_hide = jax.random.split(key, 3)
        speed = _speeds(scenario, k_speed, speed_min)
        order = _landmark_order(scenario, k_hide, hidden)
        scene = Scene(
            pos=scenario.place(k_place),
            vel=jnp.zeros((agents, 2)),
            speed=speed,
            # the first `hidden` landmarks of the order vanish
            seen=jnp.asarray(order >= hidden, jnp.float32),
            touches=jnp.zeros(()),
        )
        return scene, timestep(scene, jnp.zeros(agents))

    def step(
        key: Key[Array, ""], scene: Scene, action: Float[Array, "n 2"]
    ) -> tuple[Scene, TimeStep]:
        if prey is not None:
            prey_action = act(prey, scenario.prey_sees(scene))
            action = jnp.concatenate([action, prey_action[None]])
        scene = advance(scenario, scene, action)
        return scene, timestep(scene, scenario.reward(scene))

    def render_trails(scenes: Sequence[Scene]) -> np.ndarray:
        view = 1.6 if scenario.prey else 1.4
        return draw.scene(discs(scenario, scenes[-1]), view, trails=trails(scenario, scenes))

    render = draw.still(render_trails)
    return Environment(spec, reset, step, render, legend(scenario), render_trails)


def _check_shift(scenario: Scenario, speed_min: float, hidden: int) -> None:
    """Raise JaxomarlError where a shift is out of range."""
    if not 0.0 <= speed_min <= 1.0:
        raise refuse("speed_min", "a speed in [0, 1]", speed_min, "0 is the standard environment.")
    if not 0 <= hidden < max(1, scenario.landmarks):
        expected = f"0 to {scenario.landmarks - 1} landmarks"
        raise refuse("hidden", expected, hidden, "One at least has to be left.")


def _spec(scenario: Scenario, dialect: str) -> Spec:
    n = scenario.learners
    return Spec(
        obs_dims=(scenario.obs_width,) * n,
        act_dims=(2,) * n,
        state_dim=n * scenario.obs_width,
        horizon=HORIZON,
        team=scenario.team,
        dialect=dialect,
        terminates="never",
    )


def _speeds(scenario: Scenario, key: Key[Array, ""], speed_min: float) -> Float[Array, " n"]:
    """Largest speed of each agent; the learners' are drawn where `speed_min` > 0."""
    speed = jnp.asarray(scenario.bodies.speed)
    if not speed_min:
        return speed
    n = scenario.learners
    drawn = jax.random.uniform(key, (n,), minval=speed_min, maxval=1.0)
    return jnp.concatenate([drawn, speed[n:]])


def _landmark_order(scenario: Scenario, key: Key[Array, ""], hidden: int) -> Array | np.ndarray:
    """The landmarks' numbers, in a random order where some are hidden."""
    if not hidden:
        return np.arange(scenario.landmarks)
    return jax.random.permutation(key, scenario.landmarks)


def advance(scenario: Scenario, scene: Scene, action: Float[Array, "n 2"]) -> Scene:
    """The scene after the actions of all agents, prey included; this step's touches are counted."""
    bodies = scenario.bodies
    scene = move(bodies, scene, action)
    if scenario.prey:
        reach = bodies.size[0] + bodies.size[3]
        squared = jnp.sum((scene.pos[:3] - scene.pos[3]) ** 2, axis=-1)
        now = jnp.sum(squared < reach**2)
    else:
        # each touch counts for both agents
        now = touching(bodies, scene).sum() / 2.0
    return scene._replace(touches=scene.touches + now)


def colour_of(scenario: Scenario, e: int) -> draw.Colour:
    """The colour of entity `e`: learning agents have their own, others that of their kind."""
    if e < scenario.learners:
        return draw.agent_colour(e)
    return draw.KINDS[scenario.kinds[e]]


def legend(scenario: Scenario) -> tuple[tuple[str, draw.Colour], ...]:
    """Words for the colours of a picture: each learning agent, then each kind of the others."""
    words = {}
    for e, kind in enumerate(scenario.kinds):
        word = f"{kind} {e + 1}" if e < scenario.learners else kind
        words.setdefault(word, colour_of(scenario, e))
    return tuple(words.items())


def trails(scenario: Scenario, scenes: Sequence[Scene]) -> list[draw.Trail]:
    """The path of each agent through the scenes, prey included."""
    places = np.stack([np.asarray(scene.pos) for scene in scenes])
    agents = range(scenario.bodies.agents)
    return [draw.Trail(places[:, e], colour_of(scenario, e)) for e in agents]


def discs(scenario: Scenario, scene: Scene) -> list[draw.Disc]:
    """The discs of a picture of the scene, landmarks first."""
    pos = np.asarray(scene.pos)
    seen = np.asarray(scene.seen)
    n = scenario.bodies.agents
    out = []
    for e in [*range(n, len(pos)), *range(n)]:
        if e >= n and not seen[e - n]:
            continue
        kind = scenario.kinds[e]
        colour = colour_of(scenario, e)
        alpha = 0.4 if kind == "forest" else 0.9
        x, y = pos[e]
        out.append(draw.Disc(float(x), float(y), scenario.bodies.size[e], colour, alpha))
    return out
