"""How the package's particle behaviours were made: MATD3 over several seeds, snapshots kept as it learns.

    python -m experiments.behaviours prey                    the own prey of tag and world
    python -m experiments.behaviours spread tag world        the joint behaviours and their references

An expert is a seed's best snapshot; a medium is the snapshot whose data lie nearest to the fraction of the way from
random to expert that OMAR's medium data lie at (spread 31 %, tag 57 %, world 79 %); the ladder is four snapshots of the
first seed, evenly spread over its returns up to medium. All are chosen by one set of episodes and measured on another.
"""

import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxomarl.algorithms import matd3
from jaxomarl.base import Environment, refuse
from jaxomarl.data.stats import identity
from jaxomarl.envs.mpe import behaviours, scenarios, train_prey
from jaxomarl.envs.mpe.environment import environment
from jaxomarl.envs.mpe.prey import HIDDEN, LAYERS, NORM, Prey, own
from jaxomarl.envs.recipes import Behaviour, play_rows, uniform
from jaxomarl.envs.rollout import team_score
from jaxomarl.presets import find
from jaxomarl.training.runner import Job, Progress, run

ASSETS = Path(__file__).parents[1] / "assets" / "mpe"
FRACTION = {"spread": 0.31, "tag": 0.57, "world": 0.79}
"""How far OMAR's medium data lie from its random to its expert data (data cards; specs, section 6.1)."""
SETTINGS: dict[str, dict[str, Any]] = {
    "spread": {"policy_steps": 40_000, "every": 8},
    "tag": {"policy_steps": 12_000, "every": 4},
    "world": {"policy_steps": 12_000, "every": 4},
}
SEEDS = (0, 1, 2, 3)
RUNGS = 4


def make(names: tuple[str, ...], out: Path = ASSETS, steps: int = 0) -> None:
    """Train and store what is named: prey, spread, tag, world."""
    for name in names:
        if name == "prey":
            for task in ("tag", "world"):
                store_prey(train_prey.train(getattr(scenarios, task)()), out / f"{task}-prey.safetensors")
        elif name in SETTINGS:
            make_task(name, out, steps)
        else:
            raise refuse("NAMES", "prey, spread, tag or world", name, "Name what shall be made.")


def store_prey(prey: Prey, path: Path) -> None:
    """Write a prey under the names of a torch state dict, with an input normalisation that does nothing."""
    from safetensors.numpy import save_file

    width = len(prey.scale)
    still = dict(zip(NORM, (np.ones(width), np.zeros(width), np.zeros(width), np.full(width, 1.0 - 1e-5)), strict=True))
    layers = {f"{layer}.weight": k.T for layer, k in zip(LAYERS, prey.kernels, strict=True)}
    biases = {f"{layer}.bias": b for layer, b in zip(LAYERS, prey.biases, strict=True)}
    arrays = {**still, **layers, **biases}
    assert arrays["fc2.weight"].shape == (HIDDEN, HIDDEN)
    save_file({k: np.ascontiguousarray(v, np.float32) for k, v in arrays.items()}, path)


# --- one task ---


def make_task(name: str, out: Path, steps: int) -> None:
    """Train the seeds, choose snapshots, store them as float16 and write what was measured."""
    from safetensors.numpy import save_file

    scenario = getattr(scenarios, name)()
    env = environment(scenario, "mpe-own-prey", own(name)) if scenario.prey else environment(scenario, "mpe-omar")
    seen = train(env, {**SETTINGS[name], **({"policy_steps": steps} if steps else {})}, name)
    random = returns(env, uniform(env), 1).mean()
    experts = [max(many, key=lambda s: s["score"]) for many in seen]
    expert = np.mean([data_return(env, s["params"], 2) for s in experts])
    target = random + FRACTION[name] * (expert - random)
    upto = lambda many, last: [s for s in many if s["update"] <= last["update"]]
    mediums = [nearest(env, upto(many, best), target) for many, best in zip(seen, experts, strict=True)]
    first = upto(seen[0], mediums[0])
    rungs = [random + (target - random) * k / (RUNGS - 1) for k in range(RUNGS)]
    ladder = [min(first, key=lambda s, want=want: abs(s["score"] - want)) for want in rungs]
    chosen = {"expert": experts, "medium": mediums, "ladder": ladder}
    arrays = {
        f"{kind}/{k}/{leaf}": x.astype(np.float16)
        for kind, many in chosen.items()
        for k, s in enumerate(many)
        for leaf, x in s["params"].items()
    }
    out.mkdir(parents=True, exist_ok=True)
    save_file(arrays, out / f"{name}.safetensors")
    write_references(out / "references.json", name, measure(env, chosen, random, target))


def train(env: Environment, settings: dict[str, Any], name: str) -> list[list[dict[str, Any]]]:
    """Snapshots of each seed in order: parameters, update, and mean return of 64 episodes without noise."""
    cfg, began = matd3.Config(**{**find("online", "mpe").cfg, **settings}), time.perf_counter()
    seen: list[list[dict[str, Any]]] = [[] for _ in SEEDS]

    def keep(progress: Progress) -> None:
        if not progress.evaluations:
            return
        score = progress.evaluations["return"].mean(axis=1)
        for r, many in enumerate(seen):
            params = layers(jax.tree.map(lambda x, r=r: np.asarray(x[r]), progress.state.actor.params))
            many.append({"params": params, "update": progress.step, "score": float(score[r])})
        print(f"{name} {progress.step} {time.perf_counter() - began:.0f} s {score.round(1)}", flush=True)

    cfgs = [cfg] * len(SEEDS)
    run(Job(matd3.MATD3, env.spec, cfgs, list(SEEDS), None, identity(env.spec), env, episodes=64, report=keep))
    return seen


def layers(params: dict[str, Any]) -> behaviours.Params:
    """An actor's parameters under the names that the stored behaviours have."""
    names = [*sorted(k for k in params if k != "out"), "out"]
    return {f"{leaf}_{k}": params[n][leaf] for k, n in enumerate(names) for leaf in ("kernel", "bias")}


def returns(env: Environment, behaviour: Behaviour, seed: int, episodes: int = 2000) -> np.ndarray:
    """Team returns of a behaviour's episodes."""
    played = play_rows(env, behaviour, jax.random.key(seed), episodes * env.spec.horizon)
    return np.concatenate([np.asarray(team_score(env.spec, p.reward)).sum(axis=1) for p, _ in played])


def data_return(env: Environment, params: behaviours.Params, seed: int, episodes: int = 2000) -> float:
    """Mean return with collecting noise."""
    return float(returns(env, Behaviour(behaviours.noisy, params), seed, episodes).mean())


def nearest(env: Environment, many: list[dict[str, Any]], target: float) -> dict[str, Any]:
    """The snapshot whose data lie nearest to a return: the eight likeliest are measured."""
    likely = sorted(many, key=lambda s: abs(s["score"] - target))[:8]
    return min(likely, key=lambda s: abs(data_return(env, s["params"], 3, 500) - target))


def measure(env: Environment, chosen: dict[str, list], random: float, target: float) -> dict[str, Any]:
    """Means over 10,000 fresh episodes each, with noise (as data) and without, in float32 and as stored."""
    half = lambda params: {k: x.astype(np.float16).astype(np.float32) for k, x in params.items()}
    exact = lambda params, key, seen: behaviours.play(params, seen.obs)
    out: dict[str, Any] = {"dialect": env.spec.dialect, "random": float(random), "target_of_medium": float(target)}
    for kind, many in chosen.items():
        rows = []
        for s in many:
            data = returns(env, Behaviour(behaviours.noisy, half(s["params"])), 5, 10_000)
            full, stored = (returns(env, Behaviour(exact, p), 6, 10_000) for p in (s["params"], half(s["params"])))
            rows.append(
                {
                    "update": s["update"],
                    "data": float(data.mean()),
                    "data_std": float(data.std()),
                    "greedy": float(stored.mean()),
                    "greedy_float32": float(full.mean()),
                }
            )
        out[f"{kind}_behaviours"] = rows
        out[kind] = float(np.mean([r["data"] for r in rows]))
    return out


def write_references(path: Path, name: str, found: dict[str, Any]) -> None:
    """Add a task's measurements to the file."""
    held = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**held, name: found}, indent=1, sort_keys=True) + "\n")
