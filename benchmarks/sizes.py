"""Sizes that are timed: a system's settings, a task's shapes, and data to draw from."""

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxomarl.api import plan
from jaxomarl.base import Dataset, Environment, Episodes, Past, Spec, System, refuse
from jaxomarl.data import catalog as data_catalog
from jaxomarl.data.dataset import pack
from jaxomarl.data.stats import identity
from jaxomarl.data.stats import statistics as data_statistics
from jaxomarl.envs import catalog
from jaxomarl.presets import PRESETS, find
from jaxomarl.training.runner import Job

SPREAD = Spec(obs_dims=(18,) * 3, act_dims=(2,) * 3, state_dim=54, horizon=25)
"""The shapes of three agents in MPE's spread."""
GAME = {"width": 32, "batch": 64}
"""Width and batch of the preset mode-seeking."""
EPISODES = 800
"""Episodes of random data."""
CHUNK = {"cpu": 4}
"""Updates per chunk outside the game; 100 on an accelerator, whose updates take a millisecond.

On a CPU an update takes a tenth of a second. A map copies a run's state once per chunk, which four
updates hide less well. A chunk of one would be another program, because XLA drops a loop of one.
"""


class Size(NamedTuple):
    """A task's shapes, a system's settings on it, and data to draw from."""

    name: str
    spec: Spec
    cfg: Any
    data: Dataset | None
    system: str = "omsd"
    env: Environment | None = None
    """The environment of a system that learns online."""

    @property
    def definition(self) -> System:
        """The system itself."""
        return plan.find_system(self.system)

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of its stages, in order."""
        return tuple(
            stage.name for stage in self.definition.pipeline(self.spec, self.cfg, self.env)
        )

    @property
    def past(self) -> Past:
        """The `past` of the first stage of one run."""
        if self.data is None:
            return {"stats": identity(self.spec)}
        return {"stats": data_statistics(self.data)}

    def job(self, runs: int) -> Job:
        """R runs that differ in their seed."""
        cfgs = [self.cfg] * runs
        seeds = list(range(runs))
        stats = self.past["stats"]
        return Job(self.definition, self.spec, cfgs, seeds, self.data, stats, self.env)


def size(name: str, system: str = "omsd", agents: int = 0) -> Size:
    """A system at `game`, `mpe`, or WIDTHxBATCH, which replaces every width and batch of mpe.

    With `agents`, there are as many of spread's, each with the observation of three; else the
    size's own number. The settings of mpe are the preset's for spread. Raises JaxomarlError for
    unknown names, and for what a system refuses.
    """
    definition = plan.find_system(system)
    if name == "game" and system in PRESETS["mode-seeking"].systems and not agents:
        task = catalog.make("games/bandit")
        preset = PRESETS["mode-seeking"]
        data, _ = data_catalog.load(task, preset.data[task.name])
        return Size(name, task.env.spec, configured(system, preset.cfg), data, system)
    if name not in ("game", "mpe") and not re.fullmatch(r"[1-9]\d*x[1-9]\d*", name):
        raise refuse("--sizes", "game, mpe or WIDTHxBATCH", name, "For example 128x512.")
    spec = team(agents) if agents else SPREAD
    if definition.online and agents:
        way = "An online system acts in the task that there is."
        raise refuse("--agents", "systems that learn from data", system, way)

    base = system.partition("+")[0]
    preset = find("", "mpe/spread", base)
    values: Mapping[str, object] = {}
    if base in preset.systems:
        values = preset.at("mpe/spread", "medium")
    cfg = configured(system, values)
    cfg = replace(cfg, **changes(name, cfg))
    if definition.online:
        env = catalog.make("mpe/spread").env
        return Size(name, env.spec, cfg, None, system, env)
    data = random_data(spec, EPISODES)
    definition.check(spec, cfg, data)
    return Size(name, spec, cfg, definition.prepare(spec, cfg, data), system)


def changes(name: str, cfg: Any) -> dict[str, Any]:
    """The settings of a named size that differ from the preset's."""
    changed: dict[str, Any] = {"chunk": CHUNK.get(jax.default_backend(), 100)}
    ends: dict[str, int] = {}
    if name == "game":
        ends = GAME
        changed["chunk"] = 100
    elif name != "mpe":
        width, batch = map(int, name.split("x"))
        ends = {"width": width, "batch": batch}
    for field in fields(cfg):
        for end, number in ends.items():
            if field.name == end or field.name.endswith(f"_{end}"):
                changed[field.name] = number
    # random data reach no threshold
    if hasattr(cfg, "thresholds"):
        changed["thresholds"] = ""
    return changed


def configured(system: str, given: Mapping[str, object]) -> Any:
    """The one config of a preset's values for a system."""
    ((cfg, _),) = plan.configs(system, given, {}, 1.0)
    return cfg


def team(agents: int) -> Spec:
    """So many agents of spread, each with the observation of three."""
    return Spec(obs_dims=(18,) * agents, act_dims=(2,) * agents, state_dim=18 * agents, horizon=25)


def random_data(spec: Spec, episodes: int, seed: int = 0) -> Dataset:
    """Full episodes of normal numbers, actions clipped to [-1, 1]."""
    rng = np.random.default_rng(seed)
    n = spec.agents
    length = spec.horizon + 1
    normal = lambda *shape: rng.standard_normal((episodes * length, *shape), np.float32)
    step = np.tile(np.arange(length, dtype=np.int32), episodes)
    left = spec.horizon - step
    action = np.clip(normal(n, spec.act_width), -1, 1) * spec.act_mask * (left > 0)[:, None, None]
    obs = normal(n, spec.obs_width) * spec.obs_mask
    state = normal(spec.state_dim)
    reward = normal(n)
    none = np.zeros_like(step)
    done = none.astype(np.float32)
    return pack(Episodes(obs, state, action, reward, done, step, left, none), spec)
