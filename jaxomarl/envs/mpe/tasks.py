"""The particle tasks of the catalog."""

from jaxomarl.base import Environment, Task
from jaxomarl.envs.mpe import behaviours, scenarios
from jaxomarl.envs.mpe import prey as preys
from jaxomarl.envs.mpe.environment import environment
from jaxomarl.envs.recipes import random_play

ROWS = 1_000_000  # transitions of a data set, as in the papers


def spread(speed_min: float = 0.0) -> Task:
    """Cooperative Navigation; `speed_min` > 0 draws each agent's largest speed from U[speed_min, 1] (DOM2's shift)."""
    env = environment(scenarios.spread(), "mpe-omar", speed_min=speed_min)
    about = "3 agents cover 3 landmarks: sum of min(1/distance, 10), 5 off for each touch; 750 cannot be passed"
    return _task("spread", env, about, standard=not speed_min)


def tag(prey: str = "", speed_min: float = 0.0) -> Task:
    """Predator-Prey; `prey` is a file like OMAR's pretrained_adv_model.pt, empty for the package's own prey."""
    about = "3 predators hunt a prey: 10 for each touch, 0.1 off for each unit of distance"
    return _chase("tag", prey, speed_min, about)


def world(prey: str = "", speed_min: float = 0.0) -> Task:
    """World: Predator-Prey with food and forests; `prey` as in tag."""
    return _chase("world", prey, speed_min, "tag with food and forests, 5 for each touch")


def six(hidden: int = 0) -> Task:
    """DOM2's 3 agents and 6 landmarks, of which `hidden` vanish in each episode."""
    env = environment(scenarios.six(), "mpe-six", hidden=hidden)
    about = "3 agents start in the middle of 6 landmarks, with many good ways to share them"
    return Task("mpe/six", env, {"random": random_play(env)}, "random", about=about, rows=ROWS)


def _chase(name: str, prey: str, speed_min: float, about: str) -> Task:
    scenario = getattr(scenarios, name)()
    held, dialect = preys.load(prey, name, scenario.prey_width) if prey else (preys.own(name), "mpe-own-prey")
    return _task(name, environment(scenario, dialect, held, speed_min), about, standard=not speed_min)


def _task(name: str, env: Environment, about: str, standard: bool) -> Task:
    made = behaviours.recipes(env, name)
    scale = behaviours.scale(name, env.spec.dialect) if standard else None
    return Task(f"mpe/{name}", env, made, "medium", about=about, rows=ROWS, scale=scale)
