"""The training of the package's behaviours: MATD3 over several seeds, with snapshots kept.

    python -m experiments.behaviours prey                    the own prey of tag and world
    python -m experiments.behaviours spread tag world six    the joint behaviours of these tasks
    python -m experiments.behaviours 2halfcheetah 3hopper    likewise
    python -m experiments.behaviours smax/3m                 MAPPO's teams (smax_behaviours.py)

The references of a task are measured and stored with its behaviours.

An expert is a seed's best snapshot; it is called "good" where it falls short of an expert. The
other kinds are snapshots whose data have a return nearest to a fraction of the way from random to
the best. A ladder is four snapshots of the first seed, evenly spread over its returns up to medium.
All are chosen by one set of episodes and measured on another.
"""

import time
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import jax
import numpy as np

from jaxomarl.algorithms import matd3
from jaxomarl.api import smax_behaviours
from jaxomarl.api.snapshots import RUNGS, layers, write_references
from jaxomarl.base import Environment, refuse
from jaxomarl.data.files import write_arrays
from jaxomarl.data.stats import identity
from jaxomarl.envs import stored
from jaxomarl.envs.catalog import make as make_task
from jaxomarl.envs.mpe import scenarios, train_prey
from jaxomarl.envs.mpe.behaviours import RENUMBERED, renumbered
from jaxomarl.envs.mpe.prey import HIDDEN, LAYERS, NORM, Prey
from jaxomarl.envs.recipes import Behaviour, roll_out_rows, uniform_behaviour
from jaxomarl.envs.rollout import team_score
from jaxomarl.presets import find
from jaxomarl.training.runner import Job, Progress, run


class Snapshot(TypedDict):
    """A policy as it was at one evaluation of the training."""

    params: stored.Params
    update: int
    score: float
    """Mean return of episodes without noise."""


class Plan(NamedTuple):
    """The training of a task's behaviours, and the choice among its snapshots."""

    task: str
    fractions: dict[str, float]
    """Kind -> the part of the way from random to best return that its data shall have gone."""
    ladder: bool = False
    """Whether snapshots of the first seed on its way up to medium are kept too."""
    settings: dict[str, Any] = {}  # noqa: RUF012
    """Settings of MATD3, besides its preset for the task."""
    seeds: int = 4
    episodes: int = 64
    """Number of episodes of each evaluation in training."""
    steps: int = 50_000
    """Environment steps behind each return by which a snapshot is chosen.

    The final measurements take five times as many.
    """
    top: str = "expert"
    """Name of the best snapshots' kind."""
    orders: dict[int, tuple[int, ...]] = {}  # noqa: RUF012
    """Seed -> how its best snapshot's agents are numbered anew (envs/mpe/behaviours.py)."""

    @property
    def name(self) -> str:
        """The task without its family."""
        return self.task.partition("/")[2]

    @property
    def folder(self) -> str:
        """The family, as the assets are laid out."""
        return self.task.partition("/")[0]


# OMAR's medium data lie that far from its random to its expert data (see the data cards)
WALKING = Plan("", {"good": 0.75, "medium": 0.5, "poor": 0.2}, episodes=16, steps=16_000)
# the best snapshots are short of the experts of published data: ant 2055, hopper 2452 (OMIGA's)
SHORT = WALKING._replace(fractions={"medium": 0.5, "poor": 0.2}, top="good")


def _walker(name: str, kind: Plan, seeds: int, updates: int) -> Plan:
    """The plan of a MuJoCo task."""
    settings = {"policy_steps": updates}
    return kind._replace(task=f"mamujoco/{name}", settings=settings, seeds=seeds)


_ALL = (
    Plan(
        "mpe/spread",
        {"medium": 0.31},
        ladder=True,
        settings={"policy_steps": 40_000, "every": 8},
        orders=RENUMBERED,
    ),
    Plan(
        "mpe/tag",
        {"medium": 0.57},
        ladder=True,
        settings={"policy_steps": 12_000, "every": 4},
    ),
    Plan(
        "mpe/world",
        {"medium": 0.79},
        ladder=True,
        settings={"policy_steps": 12_000, "every": 4},
    ),
    # at the other tasks' rate of 2e-3 one seed in four never left its starting point
    Plan(
        "mpe/six",
        {"medium": 0.5},
        ladder=True,
        settings={"policy_steps": 30_000, "every": 6, "lr": 1e-3},
    ),
    _walker("2halfcheetah", WALKING, seeds=3, updates=100_000),
    _walker("6halfcheetah", WALKING, seeds=1, updates=40_000),
    _walker("3hopper", SHORT, seeds=3, updates=120_000),
    _walker("2ant", SHORT, seeds=1, updates=80_000),
    _walker("4ant", SHORT._replace(steps=6_000), seeds=1, updates=48_000),
)
PLANS = {plan.name: plan for plan in _ALL}


def make_behaviours(names: tuple[str, ...], out: Path, steps: int = 0) -> None:
    """Train and store what is named: prey, or tasks without their family.

    `steps` > 0 is the number of MATD3's updates. Raises JaxomarlError for an unknown name, and for
    no name, before anything is trained.
    """
    maps = {f"smax/{name}": plan for name, plan in smax_behaviours.PLANS.items()}
    for name in names or ("nothing",):
        if name not in ("prey", *PLANS, *maps):
            expected = f"prey or one of {', '.join((*PLANS, *maps))}"
            raise refuse("NAMES", expected, name, "Name what shall be made.")

    for name in names:
        if name == "prey":
            for task in ("tag", "world"):
                prey = train_prey.trained_prey(getattr(scenarios, task)())
                store_prey(prey, out / "mpe" / f"{task}-prey.safetensors")
            continue
        if name in maps:
            plan = maps[name]
            if steps:
                plan = plan._replace(steps=steps)
            smax_behaviours.store(name.partition("/")[2], out / "smax", plan)
            continue
        plan = PLANS[name]
        if steps:
            plan = plan._replace(settings={**plan.settings, "policy_steps": steps})
        store(plan, out / plan.folder)


def store_prey(prey: Prey, path: Path) -> None:
    """Write a prey under the names of a torch state dict.

    Its input normalisation is the identity.
    """
    width = len(prey.scale)
    identity_norm = (np.ones(width), np.zeros(width), np.zeros(width), np.full(width, 1.0 - 1e-5))
    norm = dict(zip(NORM, identity_norm, strict=True))
    kernels = {f"{layer}.weight": k.T for layer, k in zip(LAYERS, prey.kernels, strict=True)}
    biases = {f"{layer}.bias": b for layer, b in zip(LAYERS, prey.biases, strict=True)}
    arrays = {**norm, **kernels, **biases}
    assert arrays["fc2.weight"].shape == (HIDDEN, HIDDEN)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_arrays(path, {k: np.ascontiguousarray(v, np.float32) for k, v in arrays.items()})


# --- one task ---


def store(plan: Plan, out: Path) -> None:
    """Train the seeds, choose snapshots, store them as float16, and write the measurements."""
    env = make_task(plan.task).env
    chosen, targets = choose(plan, env, train_with_snapshots(env, plan))
    arrays = {
        f"{kind}/{k}/{leaf}": x.astype(np.float16)
        for kind, snapshots in chosen.items()
        for k, snapshot in enumerate(snapshots)
        for leaf, x in snapshot["params"].items()
    }
    out.mkdir(parents=True, exist_ok=True)
    write_arrays(out / f"{plan.name}.safetensors", arrays)
    write_references(out / "references.json", plan.name, measure(env, plan, chosen, targets))


def train_with_snapshots(env: Environment, plan: Plan) -> list[list[Snapshot]]:
    """The snapshots of each seed, in order."""
    settings = {**find("", plan.task, "matd3").cfg, **plan.settings}
    cfg = matd3.Config(**settings)
    began = time.perf_counter()
    of_seeds: list[list[Snapshot]] = [[] for _ in range(plan.seeds)]

    def keep(progress: Progress) -> None:
        if not progress.evaluations:
            return
        score = progress.evaluations["return"].mean(axis=1)
        for r, snapshots in enumerate(of_seeds):
            actor = jax.tree.map(lambda x, r=r: np.asarray(x[r]), progress.state.actor.params)
            snapshots.append(
                {"params": layers(actor), "update": progress.step, "score": float(score[r])}
            )
        seconds = time.perf_counter() - began
        print(f"{plan.name} {progress.step} {seconds:.0f} s {score.round(1)}", flush=True)

    job = Job(
        system=matd3.MATD3,
        spec=env.spec,
        cfgs=[cfg] * plan.seeds,
        seeds=list(range(plan.seeds)),
        data=None,
        stats=identity(env.spec),
        env=env,
        episodes=plan.episodes,
        report=keep,
    )
    run(job)
    return of_seeds


def choose(
    plan: Plan, env: Environment, of_seeds: list[list[Snapshot]]
) -> tuple[dict[str, list[Snapshot]], dict[str, float]]:
    """Each kind's snapshots, and the returns that its data were to have."""
    # --- the returns to reach ---
    random = episode_returns(env, uniform_behaviour(env), 1, plan.steps).mean()
    best = [max(snapshots, key=lambda s: s["score"]) for snapshots in of_seeds]
    reached = np.mean([data_return(env, s["params"], 2, plan.steps) for s in best])
    targets = {
        kind: float(random + part * (reached - random)) for kind, part in plan.fractions.items()
    }

    # --- the snapshots that come nearest, up to each seed's best ---
    ways = [_up_to(snapshots, last) for snapshots, last in zip(of_seeds, best, strict=True)]
    chosen = {plan.top: [_renumbered(plan, k, snapshot) for k, snapshot in enumerate(best)]}
    for kind, target in targets.items():
        chosen[kind] = [nearest(env, way, target, plan.steps) for way in ways]

    if plan.ladder:
        first = _up_to(of_seeds[0], chosen["medium"][0])
        medium = targets["medium"]
        rungs = [random + (medium - random) * k / (RUNGS - 1) for k in range(RUNGS)]
        chosen["ladder"] = [
            min(first, key=lambda s, rung=rung: abs(s["score"] - rung)) for rung in rungs
        ]
    wanted = {f"target_of_{kind}": target for kind, target in targets.items()}
    return chosen, {"random": float(random), **wanted}


def _up_to(snapshots: list[Snapshot], last: Snapshot) -> list[Snapshot]:
    """The snapshots that are no later than another."""
    return [snapshot for snapshot in snapshots if snapshot["update"] <= last["update"]]


def _renumbered(plan: Plan, seed: int, snapshot: Snapshot) -> Snapshot:
    """A seed's snapshot with its agents in the order that the plan has for it."""
    if seed not in plan.orders:
        return snapshot
    return {**snapshot, "params": renumbered(snapshot["params"], plan.orders[seed])}


def episode_returns(env: Environment, behaviour: Behaviour, seed: int, steps: int) -> np.ndarray:
    """Team returns of a behaviour's episodes, as many as have these steps."""
    out = []
    for rollouts, lengths in roll_out_rows(env, behaviour, jax.random.key(seed), steps):
        alive = np.arange(env.spec.horizon) < np.asarray(lengths)[:, None]
        rewards = np.asarray(team_score(env.spec, rollouts.reward))
        out.append((rewards * alive).sum(axis=1))
    return np.concatenate(out)


def data_return(env: Environment, params: stored.Params, seed: int, steps: int) -> float:
    """Mean return with the noise of a data collection."""
    behaviour = Behaviour(stored.acting(env.spec), params)
    return float(episode_returns(env, behaviour, seed, steps).mean())


def nearest(env: Environment, snapshots: list[Snapshot], target: float, steps: int) -> Snapshot:
    """The snapshot whose data have a return nearest to the target.

    The eight snapshots with the nearest scores are measured.
    """

    def miss(snapshot: Snapshot) -> float:
        return abs(data_return(env, snapshot["params"], 3, steps // 4) - target)

    likely = sorted(snapshots, key=lambda s: abs(s["score"] - target))[:8]
    return min(likely, key=miss)


def measure(
    env: Environment, plan: Plan, chosen: dict[str, list[Snapshot]], targets: dict[str, float]
) -> dict[str, Any]:
    """Mean returns over fresh episodes.

    They are measured with noise (as data) and without, in float32 and as stored.
    """
    noisy = stored.acting(env.spec)
    exact = stored.acting(env.spec, 0.0)
    steps = 5 * plan.steps
    out: dict[str, Any] = {"dialect": env.spec.dialect, **targets}
    for kind, snapshots in chosen.items():
        rows = []
        for snapshot in snapshots:
            params = snapshot["params"]
            as_stored = _through_float16(params)
            data = episode_returns(env, Behaviour(noisy, as_stored), 5, steps)
            full = episode_returns(env, Behaviour(exact, params), 6, steps)
            kept = episode_returns(env, Behaviour(exact, as_stored), 6, steps)
            rows.append(
                {
                    "update": snapshot["update"],
                    "data": float(data.mean()),
                    "data_std": float(data.std()),
                    "greedy": float(kept.mean()),
                    "greedy_float32": float(full.mean()),
                }
            )
        out[f"{kind}_behaviours"] = rows
        out[kind] = float(np.mean([row["data"] for row in rows]))
    return out


def _through_float16(params: stored.Params) -> stored.Params:
    """Parameters as a stored file gives them back."""
    return {name: x.astype(np.float16).astype(np.float32) for name, x in params.items()}
