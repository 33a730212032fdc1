"""How the package's behaviours were made: MATD3 over several seeds, snapshots kept as it learns.

    python -m experiments.behaviours prey                    the own prey of tag and world
    python -m experiments.behaviours spread tag world six    the joint behaviours of tasks and their references
    python -m experiments.behaviours 2halfcheetah 3hopper    likewise

An expert is a seed's best snapshot, called "good" where it falls short of one. The other kinds are the snapshots whose
data lie nearest to a fraction of the way from random to the best; a ladder is four snapshots of the first seed, evenly
spread over its returns up to medium. All are chosen by one set of episodes and measured on another.
"""

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxomarl.algorithms import matd3
from jaxomarl.base import Environment, refuse
from jaxomarl.data.stats import identity
from jaxomarl.envs import stored
from jaxomarl.envs.catalog import make as make_task
from jaxomarl.envs.mpe import scenarios, train_prey
from jaxomarl.envs.mpe.behaviours import RENUMBERED, renumbered
from jaxomarl.envs.mpe.prey import HIDDEN, LAYERS, NORM, Prey
from jaxomarl.envs.recipes import Behaviour, play_rows, uniform
from jaxomarl.envs.rollout import team_score
from jaxomarl.presets import find
from jaxomarl.training.runner import Job, Progress, run

RUNGS = 4


class Plan(NamedTuple):
    """How a task's behaviours are made."""

    task: str
    fractions: dict[str, float]
    """Kind -> how far its data shall lie from the random to the best ones."""
    ladder: bool = False
    """Whether the first seed's way up to medium is kept too."""
    settings: dict[str, Any] = {}  # noqa: RUF012
    """Of MATD3, besides its preset for the task."""
    seeds: int = 4
    episodes: int = 64
    """Of each evaluation as it learns."""
    steps: int = 50_000
    """Of the environment, for each return by which a snapshot is chosen; the final measurements take five times it."""
    top: str = "expert"
    """What the best snapshots are called."""
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


# OMAR's medium data lie that far from its random to its expert data (data cards; specs, section 6.1)
WALKING = Plan("", {"good": 0.75, "medium": 0.5, "poor": 0.2}, episodes=16, steps=16_000)
# Their best snapshots are short of the experts of published data: ant 2055, hopper 2452 (OMIGA's)
SHORT = WALKING._replace(fractions={"medium": 0.5, "poor": 0.2}, top="good")
PLANS = {
    plan.name: plan
    for plan in (
        Plan(
            "mpe/spread",
            {"medium": 0.31},
            True,
            {"policy_steps": 40_000, "every": 8},
            orders=RENUMBERED,
        ),
        Plan("mpe/tag", {"medium": 0.57}, True, {"policy_steps": 12_000, "every": 4}),
        Plan("mpe/world", {"medium": 0.79}, True, {"policy_steps": 12_000, "every": 4}),
        # at the other tasks' rate of 2e-3 one seed in four never left where it began
        Plan("mpe/six", {"medium": 0.5}, True, {"policy_steps": 30_000, "every": 6, "lr": 1e-3}),
        *(
            kind._replace(task=f"mamujoco/{name}", settings={"policy_steps": updates}, seeds=seeds)
            for name, kind, seeds, updates in (
                ("2halfcheetah", WALKING, 3, 100_000),
                ("6halfcheetah", WALKING, 1, 40_000),
                ("3hopper", SHORT, 3, 120_000),
                ("2ant", SHORT, 1, 80_000),
                ("4ant", SHORT._replace(steps=6_000), 1, 48_000),
            )
        ),
    )
}


def make(names: tuple[str, ...], out: Path, steps: int = 0) -> None:
    """Train and store what is named: prey, or tasks without their family; `steps` > 0 are MATD3's updates.

    Raises JaxomarlError for an unknown name, and for none, before anything is trained.
    """
    for name in names or ("nothing",):
        if name not in ("prey", *PLANS):
            raise refuse(
                "NAMES", f"prey or one of {', '.join(PLANS)}", name, "Name what shall be made."
            )
    for name in names:
        if name == "prey":
            for task in ("tag", "world"):
                store_prey(
                    train_prey.train(getattr(scenarios, task)()),
                    out / "mpe" / f"{task}-prey.safetensors",
                )
            continue
        plan = PLANS[name]
        changed = {"policy_steps": steps} if steps else {}
        store(plan._replace(settings={**plan.settings, **changed}), out / plan.folder)


def store_prey(prey: Prey, path: Path) -> None:
    """Write a prey under the names of a torch state dict, with an input normalisation that does nothing."""
    from safetensors.numpy import save_file

    width = len(prey.scale)
    still = dict(
        zip(
            NORM,
            (np.ones(width), np.zeros(width), np.zeros(width), np.full(width, 1.0 - 1e-5)),
            strict=True,
        )
    )
    layers = {f"{layer}.weight": k.T for layer, k in zip(LAYERS, prey.kernels, strict=True)}
    biases = {f"{layer}.bias": b for layer, b in zip(LAYERS, prey.biases, strict=True)}
    arrays = {**still, **layers, **biases}
    assert arrays["fc2.weight"].shape == (HIDDEN, HIDDEN)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: np.ascontiguousarray(v, np.float32) for k, v in arrays.items()}, path)


# --- one task ---


def store(plan: Plan, out: Path) -> None:
    """Train the seeds, choose snapshots, store them as float16 and write what was measured."""
    from safetensors.numpy import save_file

    env = make_task(plan.task).env
    chosen, targets = choose(plan, env, train(env, plan))
    arrays = {
        f"{kind}/{k}/{leaf}": x.astype(np.float16)
        for kind, many in chosen.items()
        for k, s in enumerate(many)
        for leaf, x in s["params"].items()
    }
    out.mkdir(parents=True, exist_ok=True)
    save_file(arrays, out / f"{plan.name}.safetensors")
    write_references(out / "references.json", plan.name, measure(env, plan, chosen, targets))


def train(env: Environment, plan: Plan) -> list[list[dict[str, Any]]]:
    """Snapshots of each seed in order: parameters, update, and mean return of episodes without noise."""
    cfg, began = (
        matd3.Config(**{**find("", plan.task, "matd3").cfg, **plan.settings}),
        time.perf_counter(),
    )
    seen: list[list[dict[str, Any]]] = [[] for _ in range(plan.seeds)]

    def keep(progress: Progress) -> None:
        if not progress.evaluations:
            return
        score = progress.evaluations["return"].mean(axis=1)
        for r, many in enumerate(seen):
            params = layers(
                jax.tree.map(lambda x, r=r: np.asarray(x[r]), progress.state.actor.params)
            )
            many.append({"params": params, "update": progress.step, "score": float(score[r])})
        print(
            f"{plan.name} {progress.step} {time.perf_counter() - began:.0f} s {score.round(1)}",
            flush=True,
        )

    cfgs, seeds = [cfg] * plan.seeds, list(range(plan.seeds))
    run(
        Job(
            matd3.MATD3,
            env.spec,
            cfgs,
            seeds,
            None,
            identity(env.spec),
            env,
            episodes=plan.episodes,
            report=keep,
        )
    )
    return seen


def layers(params: dict[str, Any]) -> stored.Params:
    """An actor's parameters under the names that the stored behaviours have."""
    names = [*sorted(k for k in params if k != "out"), "out"]
    return {
        f"{leaf}_{k}": params[n][leaf] for k, n in enumerate(names) for leaf in ("kernel", "bias")
    }


def choose(
    plan: Plan, env: Environment, seen: list[list[dict[str, Any]]]
) -> tuple[dict[str, list], dict[str, float]]:
    """Each kind's snapshots, and the returns that were wanted of their data."""
    random = returns(env, uniform(env), 1, plan.steps).mean()
    best = [max(many, key=lambda s: s["score"]) for many in seen]
    reached = np.mean([data_return(env, s["params"], 2, plan.steps) for s in best])
    targets = {
        kind: float(random + part * (reached - random)) for kind, part in plan.fractions.items()
    }
    upto = lambda many, last: [s for s in many if s["update"] <= last["update"]]
    ways = [upto(many, last) for many, last in zip(seen, best, strict=True)]
    told = lambda k, s: (
        {**s, "params": renumbered(s["params"], plan.orders[k])} if k in plan.orders else s
    )
    top = [told(k, s) for k, s in enumerate(best)]
    chosen = {plan.top: top} | {
        k: [nearest(env, way, t, plan.steps) for way in ways] for k, t in targets.items()
    }
    if plan.ladder:
        first = upto(seen[0], chosen["medium"][0])
        rungs = [random + (targets["medium"] - random) * k / (RUNGS - 1) for k in range(RUNGS)]
        chosen["ladder"] = [
            min(first, key=lambda s, want=want: abs(s["score"] - want)) for want in rungs
        ]
    return chosen, {"random": float(random), **{f"target_of_{k}": t for k, t in targets.items()}}


def returns(env: Environment, behaviour: Behaviour, seed: int, steps: int) -> np.ndarray:
    """Team returns of a behaviour's episodes, as many as make these steps."""
    out = []
    for played, lengths in play_rows(env, behaviour, jax.random.key(seed), steps):
        alive = np.arange(env.spec.horizon) < np.asarray(lengths)[:, None]
        out.append((np.asarray(team_score(env.spec, played.reward)) * alive).sum(axis=1))
    return np.concatenate(out)


def data_return(env: Environment, params: stored.Params, seed: int, steps: int) -> float:
    """Mean return with collecting noise."""
    return float(returns(env, Behaviour(stored.acting(env.spec), params), seed, steps).mean())


def nearest(
    env: Environment, many: list[dict[str, Any]], target: float, steps: int
) -> dict[str, Any]:
    """The snapshot whose data lie nearest to a return: the eight likeliest are measured."""
    likely = sorted(many, key=lambda s: abs(s["score"] - target))[:8]
    return min(likely, key=lambda s: abs(data_return(env, s["params"], 3, steps // 4) - target))


def measure(
    env: Environment, plan: Plan, chosen: dict[str, list], targets: dict[str, float]
) -> dict[str, Any]:
    """Means over fresh episodes, with noise (as data) and without, in float32 and as stored."""
    half = lambda params: {k: x.astype(np.float16).astype(np.float32) for k, x in params.items()}
    noisy, exact, steps = stored.acting(env.spec), stored.acting(env.spec, 0.0), 5 * plan.steps
    out: dict[str, Any] = {"dialect": env.spec.dialect, **targets}
    for kind, many in chosen.items():
        rows = []
        for s in many:
            data = returns(env, Behaviour(noisy, half(s["params"])), 5, steps)
            full, kept = (
                returns(env, Behaviour(exact, p), 6, steps)
                for p in (s["params"], half(s["params"]))
            )
            rows.append(
                {
                    "update": s["update"],
                    "data": float(data.mean()),
                    "data_std": float(data.std()),
                    "greedy": float(kept.mean()),
                    "greedy_float32": float(full.mean()),
                }
            )
        out[f"{kind}_behaviours"] = rows
        out[kind] = float(np.mean([r["data"] for r in rows]))
    return out


def write_references(path: Path, name: str, found: dict[str, Any]) -> None:
    """Add a task's measurements to the file."""
    held = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(
        json.dumps({**held, name: found}, indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )
