"""A scenario and its prey as one environment: 25 steps, no termination, the prey's policy inside the step."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxomarl.base import Environment, Spec, TimeStep, refuse
from jaxomarl.envs.mpe.physics import Scene, move
from jaxomarl.envs.mpe.prey import Prey, act
from jaxomarl.envs.mpe.scenarios import Scenario, bumps

HORIZON = 25


def environment(
    scenario: Scenario,
    dialect: str,
    prey: Prey | None = None,
    speed_min: float = 0.0,
    hidden: int = 0,
) -> Environment:
    """The task of a scenario.

    The state is all learners' observations side by side, as OMAR's data have no other. `speed_min` > 0 draws each
    learner's largest speed from U[speed_min, 1] in each episode, and `hidden` landmarks vanish in each episode: they
    are seen at zero and pay nothing (DOM2's shifts). Raises JaxomarlError where either is out of range.
    """
    if not 0.0 <= speed_min <= 1.0:
        raise refuse("speed_min", "a speed in [0, 1]", speed_min, "0 is the standard environment.")
    if not 0 <= hidden < max(1, scenario.landmarks):
        raise refuse(
            "hidden",
            f"0 to {scenario.landmarks - 1} landmarks",
            hidden,
            "One at least has to be left.",
        )
    n = scenario.learners
    width = scenario.obs_width
    team = scenario.team
    spec = Spec(
        (width,) * n, (2,) * n, n * width, HORIZON, team=team, dialect=dialect, terminates="never"
    )

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
        speed = jnp.asarray(scenario.bodies.speed)
        if speed_min:
            drawn = jax.random.uniform(k_speed, (n,), minval=speed_min, maxval=1.0)
            speed = jnp.concatenate([drawn, speed[n:]])
        order = (
            jax.random.permutation(k_hide, scenario.landmarks)
            if hidden
            else np.arange(scenario.landmarks)
        )
        scene = Scene(
            pos=scenario.place(k_place),
            vel=jnp.zeros((scenario.bodies.agents, 2)),
            speed=speed,
            seen=jnp.asarray(order >= hidden, jnp.float32),
            touches=jnp.zeros(()),
        )
        return scene, timestep(scene, jnp.zeros(scenario.bodies.agents))

    def step(
        key: Key[Array, ""], scene: Scene, action: Float[Array, "n 2"]
    ) -> tuple[Scene, TimeStep]:
        if prey is not None:
            action = jnp.concatenate([action, act(prey, scenario.prey_sees(scene))[None]])
        scene = advance(scenario, scene, action)
        return scene, timestep(scene, scenario.reward(scene))

    def render(scene: Scene) -> np.ndarray:
        from jaxomarl.envs.draw import scene as draw

        return draw(discs(scenario, scene), view=1.6 if scenario.prey else 1.4)

    return Environment(spec, reset, step, render)


def advance(scenario: Scenario, scene: Scene, action: Float[Array, "n 2"]) -> Scene:
    """The scene after everybody's action, prey included, with this step's touches counted."""
    scene = move(scenario.bodies, scene, action)
    if scenario.prey:
        reach = scenario.bodies.size[0] + scenario.bodies.size[3]
        now = jnp.sum(jnp.sum((scene.pos[:3] - scene.pos[3]) ** 2, axis=-1) < reach**2)
    else:
        now = bumps(scenario.bodies, scene).sum() / 2.0
    return scene._replace(touches=scene.touches + now)


def discs(scenario: Scenario, scene: Scene) -> list:
    """What a picture of the scene shows: (x, y, radius, colour, alpha), landmarks first."""
    from jaxomarl.envs import draw

    pos, seen = np.asarray(scene.pos), np.asarray(scene.seen)
    n = scenario.bodies.agents
    out = []
    for e in [*range(n, len(pos)), *range(n)]:
        if e >= n and not seen[e - n]:
            continue
        kind = scenario.kinds[e]
        colour = draw.AGENTS[e % len(draw.AGENTS)] if e < scenario.learners else draw.KINDS[kind]
        out.append(
            (
                float(pos[e, 0]),
                float(pos[e, 1]),
                scenario.bodies.size[e],
                colour,
                0.4 if kind == "forest" else 0.9,
            )
        )
    return out
