"""The particle tasks of the catalog."""

from jaxomarl.base import Environment, Fields, Task
from jaxomarl.envs import stored
from jaxomarl.envs.mpe import behaviours, scenarios
from jaxomarl.envs.mpe import prey as preys
from jaxomarl.envs.mpe.environment import environment
from jaxomarl.envs.mpe.scenarios import Scenario

ROWS = 1_000_000  # transitions of a data set, as in the papers


def spread(speed_min: float = 0.0) -> Task:
    """Cooperative Navigation; `speed_min` > 0 draws each agent's largest speed from U[speed_min, 1] (DOM2's shift)."""
    scenario = scenarios.spread()
    env = environment(scenario, "mpe-omar", speed_min=speed_min)
    about = "3 agents cover 3 landmarks: sum of min(1/distance, 10), 5 off for each touch; 750 cannot be passed"
    return _task(scenario, env, about, standard=not speed_min)


def tag(prey: str = "", speed_min: float = 0.0) -> Task:
    """Predator-Prey; `prey` is a file like OMAR's pretrained_adv_model.pt, empty for the package's own prey."""
    about = "3 predators hunt a prey: 10 for each touch, 0.1 off for each unit of distance"
    return _chase("tag", prey, speed_min, about)


def world(prey: str = "", speed_min: float = 0.0) -> Task:
    """World: Predator-Prey with food and forests; `prey` as in tag."""
    return _chase("world", prey, speed_min, "tag with food and forests, 5 for each touch")


def six(hidden: int = 0) -> Task:
    """DOM2's 3 agents and 6 landmarks, of which `hidden` vanish in each episode."""
    scenario = scenarios.six()
    env = environment(scenario, "mpe-six", hidden=hidden)
    about = "3 agents start in the middle of 6 landmarks, with many good ways to share them"
    return _task(scenario, env, about, standard=not hidden)


def _chase(name: str, prey: str, speed_min: float, about: str) -> Task:
    scenario = getattr(scenarios, name)()
    held, dialect = (
        preys.load(prey, name, scenario.prey_width) if prey else (preys.own(name), "mpe-own-prey")
    )
    return _task(
        scenario, environment(scenario, dialect, held, speed_min), about, standard=not speed_min
    )


def _task(scenario: Scenario, env: Environment, about: str, standard: bool) -> Task:
    name = scenario.name
    made = stored.recipes(env, behaviours.PARTICLES, name)
    scale = behaviours.scale(name, env.spec.dialect) if standard else None
    known = stored.behaviours(behaviours.PARTICLES, name)
    return Task(
        f"mpe/{name}", env, made, "medium", about=about, rows=ROWS, scale=scale, fields=fields(scenario),
        behaviours=known,
    )  # fmt: skip


def fields(scenario: Scenario) -> Fields:
    """What the columns of the learners' observations and actions are called, in the order of `Scenario.observe`.

    dx, dy lead from the observer to the named; an entity is called by its kind and, where there are several, its number
    among them.
    """
    kinds, n = scenario.kinds, scenario.bodies.agents
    called = [
        f"{kind} {kinds[:e].count(kind)}" if kinds.count(kind) > 1 else kind
        for e, kind in enumerate(kinds)
    ]
    obs = []
    for i in range(scenario.learners):
        others = [called[j] for j in range(n) if j != i]
        names = [f"own {what} {axis}" for what in ("vel", "pos") for axis in "xy"]
        names += [f"{other} d{axis}" for other in called[n:] + others for axis in "xy"]
        if scenario.prey:
            names += [f"{called[n - 1]} vel {axis}" for axis in "xy"] + [
                f"in {x}" for x in called if "forest" in x
            ]
        else:
            names += [f"{other} word {k}" for other in others for k in range(2)]
        obs.append(tuple(names))
    return Fields(tuple(obs), (("force x", "force y"),) * scenario.learners)
