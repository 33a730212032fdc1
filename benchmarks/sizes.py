"""What is timed: a system's settings at a named size, on a task's shapes, with data to draw from."""

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

SPREAD = Spec(
    obs_dims=(18,) * 3, act_dims=(2,) * 3, state_dim=54, horizon=25
)  # three agents in MPE's spread
GAME = {"width": 32, "batch": 64}  # of the preset mode-seeking
EPISODES = 800  # of random data
CHUNK = {"cpu": 4}
"""Updates per chunk outside the game: on a CPU each takes a tenth of a second. A map copies a run's state once per
chunk, which four updates hide less well; and a chunk of one would be another program, for XLA drops a loop of one.
An accelerator, whose updates take a millisecond, does 100."""


class Size(NamedTuple):
    """A task's shapes, a system's settings on it, and data to draw from."""

    name: str
    spec: Spec
    cfg: Any
    data: Dataset | None
    system: str = "omsd"
    env: Environment | None = None
    """Of systems that learn online."""

    @property
    def made(self) -> System:
        """The system."""
        return plan.find_system(self.system)

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of its stages, in order."""
        return tuple(stage.name for stage in self.made.pipeline(self.spec, self.cfg, self.env))

    @property
    def past(self) -> Past:
        """What the first stage of one run is given."""
        return {"stats": identity(self.spec) if self.data is None else data_statistics(self.data)}

    def job(self, runs: int) -> Job:
        """R runs that differ in their seed."""
        seeds = list(range(runs))
        return Job(
            self.made, self.spec, [self.cfg] * runs, seeds, self.data, self.past["stats"], self.env
        )


def size(name: str, system: str = "omsd", agents: int = 0) -> Size:
    """A system at `game`, `mpe`, or WIDTHxBATCH: every width and batch of the mpe size replaced.

    With `agents`, as many of spread's, who each see what three see; else the size's own number. The settings of mpe are
    the preset's for spread. Raises JaxomarlError for unknown names and for what a system refuses.
    """
    made = plan.find_system(system)
    if name == "game" and system in PRESETS["mode-seeking"].systems and not agents:
        task, preset = catalog.make("games/bandit"), PRESETS["mode-seeking"]
        data, _ = data_catalog.load(task, preset.data[task.name])
        return Size(name, task.env.spec, configured(system, preset.cfg), data, system)
    if name not in ("game", "mpe") and not re.fullmatch(r"[1-9]\d*x[1-9]\d*", name):
        raise refuse("--sizes", "game, mpe or WIDTHxBATCH", name, "For example 128x512.")
    spec = team(agents) if agents else SPREAD
    if made.online and agents:
        raise refuse(
            "--agents",
            "systems that learn from data",
            system,
            "An online system plays the task that there is.",
        )
    base = system.partition("+")[0]
    preset = find("", "mpe/spread", base)
    cfg = configured(system, preset.at("mpe/spread", "medium") if base in preset.systems else {})
    changed: dict[str, Any] = {"chunk": CHUNK.get(jax.default_backend(), 100)}
    if name != "mpe":
        width, batch = (
            (GAME["width"], GAME["batch"]) if name == "game" else map(int, name.split("x"))
        )
        ends = {"width": width, "batch": batch}
        named = [f.name for f in fields(cfg)]
        changed |= {
            f: n for f in named for end, n in ends.items() if f == end or f.endswith(f"_{end}")
        }
    if name == "game":
        changed["chunk"] = 100
    if hasattr(cfg, "thresholds"):
        changed["thresholds"] = ""  # random data reach none
    cfg = replace(cfg, **changed)
    if made.online:
        env = catalog.make("mpe/spread").env
        return Size(name, env.spec, cfg, None, system, env)
    data = random_data(spec, EPISODES)
    made.check(spec, cfg, data)
    return Size(name, spec, cfg, made.prepare(spec, cfg, data), system)


def configured(system: str, given: Mapping[str, object]) -> Any:
    """The one config of a preset's values for a system."""
    ((cfg, _),) = plan.configs(system, given, {}, 1.0)
    return cfg


def team(agents: int) -> Spec:
    """That many agents of spread, who see as much as three do."""
    return Spec(obs_dims=(18,) * agents, act_dims=(2,) * agents, state_dim=18 * agents, horizon=25)


def random_data(spec: Spec, episodes: int, seed: int = 0) -> Dataset:
    """Whole episodes of normal numbers, actions clipped to [-1, 1]."""
    rng, n, length = np.random.default_rng(seed), spec.agents, spec.horizon + 1
    normal = lambda *shape: rng.standard_normal((episodes * length, *shape), np.float32)
    step = np.tile(np.arange(length, dtype=np.int32), episodes)
    left = spec.horizon - step
    action = np.clip(normal(n, spec.act_width), -1, 1) * spec.act_mask * (left > 0)[:, None, None]
    obs, state = normal(n, spec.obs_width) * spec.obs_mask, normal(spec.state_dim)
    none = np.zeros_like(step)
    return pack(
        Episodes(obs, state, action, normal(n), none.astype(np.float32), step, left, none), spec
    )
