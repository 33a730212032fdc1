"""The particle tasks of the catalog."""

from jaxomarl.base import Environment, Fields, Task
from jaxomarl.envs import stored
from jaxomarl.envs.mpe import behaviours, scenarios
from jaxomarl.envs.mpe import prey as preys
from jaxomarl.envs.mpe.environment import environment
from jaxomarl.envs.mpe.scenarios import Scenario

ROWS = 1_000_000
"""Number of transitions of a data set, as in the papers."""


def spread(speed_min: float = 0.0) -> Task:
    """Cooperative Navigation.

    `speed_min` > 0 draws each agent's largest speed from U[speed_min, 1] (DOM2's shift).
    """
    scenario = scenarios.spread()
    env = environment(scenario, "mpe-omar", speed_min=speed_min)
    about = (
        "3 agents cover 3 landmarks: sum of min(1/distance, 10), 5 off for each touch; "
        "750 cannot be passed"
    )
    return _task(scenario, env, about, standard=not speed_min)


def tag(prey: str = "", speed_min: float = 0.0) -> Task:
    """Predator-Prey.

    `prey` is a file like OMAR's pretrained_adv_model.pt; it is empty for the package's own prey.
    """
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
    if prey:
        policy, dialect = preys.load_prey(prey, name, scenario.prey_width)
    else:
        policy = preys.own(name)
        dialect = "mpe-own-prey"
    env = environment(scenario, dialect, policy, speed_min)
    return _task(scenario, env, about, standard=not speed_min)


def _task(scenario: Scenario, env: Environment, about: str, standard: bool) -> Task:
    name = scenario.name
    # the references hold for the standard environment alone
    scale = behaviours.scale(name, env.spec.dialect) if standard else None
    return Task(
        f"mpe/{name}",
        env,
        stored.recipes(env, behaviours.PARTICLES, name),
        "medium",
        about=about,
        rows=ROWS,
        scale=scale,
        fields=column_names(scenario),
        behaviours=stored.gaussian_behaviours(behaviours.PARTICLES, name),
    )


def column_names(scenario: Scenario) -> Fields:
    """Names of the columns of the learners' observations and actions.

    They are in the order of `Scenario.observe`. dx, dy lead from the observer to the named entity.
    An entity is called by its kind and, where there are several, its number among them.
    """
    entities = _entity_names(scenario.kinds)
    n = scenario.bodies.agents
    obs = []
    for i in range(scenario.learners):
        others = [entities[j] for j in range(n) if j != i]
        names = [f"own {what} {axis}" for what in ("vel", "pos") for axis in "xy"]
        names += [f"{entity} d{axis}" for entity in entities[n:] + others for axis in "xy"]
        if scenario.prey:
            names += [f"{entities[n - 1]} vel {axis}" for axis in "xy"]
            names += [f"in {entity}" for entity in entities if "forest" in entity]
        else:
            names += [f"{other} word {k}" for other in others for k in range(2)]
        obs.append(tuple(names))
    return Fields(tuple(obs), (("force x", "force y"),) * scenario.learners)


def _entity_names(kinds: tuple[str, ...]) -> list[str]:
    """Each entity's kind, with its number among them where there are several."""
    names = []
    for e, kind in enumerate(kinds):
        if kinds.count(kind) > 1:
            names.append(f"{kind} {kinds[:e].count(kind)}")
        else:
            names.append(kind)
    return names
