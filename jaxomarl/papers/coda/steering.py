"""CODA's steering curve: how likely a generator's windows are under a policy, against the strength of its pull.

One generator of the data's windows serves all seeds. A seed draws windows from it while a policy pulls at them, one
that was never trained or the best that ships with the task, and takes their mean log-likelihood under that policy, the
sum over steps, agents and columns of -(a - mu(o))^2 / 2. The paper's curve rises with lambda, then collapses.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxomarl.base import Dataset, Spec, Stage, System, Task, refuse
from jaxomarl.config import flag
from jaxomarl.data.catalog import load
from jaxomarl.data.stats import identity
from jaxomarl.data.windows import check_windows
from jaxomarl.diffusion.policy_guidance import likelihood, strengths, towards
from jaxomarl.envs import stored
from jaxomarl.envs.catalog import make
from jaxomarl.networks.actors import actor
from jaxomarl.networks.agents import separate
from jaxomarl.papers.asked import Asked, one
from jaxomarl.papers.comparison import markdown
from jaxomarl.results import curves, intervals
from jaxomarl.results.curves import Point
from jaxomarl.stages.augmented import Settings
from jaxomarl.stages.generator import Generator, Trained
from jaxomarl.training.library import Library
from jaxomarl.training.runner import Job, run

TASK, QUALITY = "mamujoco/2halfcheetah", "replay"
LAMBDAS = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
HORIZON, WINDOWS = 20, 2048
CHUNK = 100
"""Updates of the generator in one program, at most: the largest divisor of its steps is taken."""
SETTINGS = Settings(
    generator_steps=2000, generator_batch=128, generator_width=16, augment_microbatch=128
)
BEST = ("expert", "good")  # kinds of shipped behaviours, the best first

Play = Callable[[Any, Float[Array, "B T N O"]], Float[Array, "B T N A"]]


def coda_steering(asked: Asked) -> str:
    """The table of likelihoods by policy and lambda, and its picture; raises JaxomarlError before it trains."""
    asked.check_unused(
        "coda-steering", "it trains no policy.", ("systems", "episodes", "source", "final_episodes")
    )
    quality = one("--data", asked.data, QUALITY)
    settings, task = chosen(asked), make(one("--tasks", asked.tasks, TASK))
    spec, players = task.env.spec, policies(task.env.spec, task.name)
    rows, manifest = load(task, quality, asked.rows)
    horizon = settings.augment_horizon or min(HORIZON, spec.horizon)
    check_windows(rows, horizon, field="--cfg.augment-horizon")
    wanted = max(1, round(min(asked.scale, 1.0) * WINDOWS))
    few = min(settings.augment_microbatch, wanted)
    model, windows = Generator(spec, settings, horizon), wanted // few * few
    asked.say(f"{task.name} {quality}: one generator, {settings.generator_steps} updates")
    generator = trained(asked, settings, horizon, task, rows, manifest)
    found = {}
    for name, (play, params) in players.items():
        asked.say(
            f"{name} policy: {len(LAMBDAS)} strengths, {len(asked.seeds)} seeds, {windows} windows each"
        )
        draw = jax.jit(
            lambda key, lam, params, play=play: drawn(
                key, model, generator, play, params, lam, windows
            )
        )
        found[name] = np.array(
            [
                [float(draw(jax.random.key(s), lam, params(s))) for lam in LAMBDAS]
                for s in asked.seeds
            ]
        )
    points = [p for name, values in found.items() for p in pointed(name, values)]
    asked.draw(
        curves.curves, "steering.png", points, "lambda", "log-likelihood of a window", None, True
    )
    return text(asked, task.name, manifest, settings, horizon, windows, found)


def chosen(asked: Asked) -> Settings:
    """The settings, with what `--cfg` and `--scale` change of them."""
    known = {f.name for f in dataclasses.fields(Settings)}
    for field in asked.overrides:
        if field not in known:
            way = f"It has {', '.join(sorted(k for k in known if k.startswith('generator')))} and augment-*."
            raise refuse(flag(field), "a setting of the generator", asked.overrides[field], way)
    given = {field: values[0] for field, values in asked.overrides.items()}
    steps = given.pop("generator_steps", asked.updates(SETTINGS.generator_steps))
    return dataclasses.replace(SETTINGS, generator_steps=steps, **given)


def policies(spec: Spec, task: str) -> dict[str, tuple[Play, Callable[[int], Any]]]:
    """Name -> (how it plays, a seed's parameters): networks as they start, and the task's best behaviours in turn."""
    folder, _, name = task.partition(":")[0].partition("/")
    held = stored.stored(folder, name) if folder in ("mpe", "mamujoco") else {}
    kind = next((kind for kind in BEST if kind in held), None)
    if kind is None:
        raise refuse(
            "--tasks", "a task that ships with behaviours", task, f"Take {TASK} or mpe/spread."
        )
    fresh, mask = (
        separate(actor(spec.obs_width, (64, 64), spec.act_width), spec.agents),
        jnp.asarray(spec.act_mask),
    )
    random = lambda params, obs: mask * fresh.apply(params, obs)
    best = lambda params, obs: mask * jax.vmap(jax.vmap(lambda o: stored.play(params, o)))(obs)
    return {
        "untrained": (random, lambda seed: fresh.init(jax.random.key(seed))),
        kind: (best, lambda seed: held[kind][seed % len(held[kind])]),
    }


def trained(
    asked: Asked, settings: Settings, horizon: int, task: Task, rows: Dataset, manifest: dict
) -> Trained:
    """The generator after all its updates, kept under OUT as any command keeps its stages; raises Interrupted."""
    steps = settings.generator_steps
    chunk = next(size for size in range(min(CHUNK, steps), 0, -1) if steps % size == 0)

    def pipeline(spec: Spec, cfg: Settings, env: Any = None) -> tuple[Stage, ...]:
        return (Stage("generator", Generator(spec, cfg, horizon).algorithm, steps, chunk),)

    system = System(
        Settings, check=lambda *given: None, prepare=lambda spec, cfg, data: data, pipeline=pipeline
    )
    job = Job(
        system=system,
        spec=task.env.spec,
        cfgs=[settings],
        seeds=[0],
        data=rows,
        stats=identity(task.env.spec),
        facts={"task": task.name, "data": manifest["sha256"], "horizon": horizon},
        library=Library(asked.out / "stages"),
        stopped=asked.stopped,
        say=asked.lines.say,
    )
    return jax.tree.map(lambda x: x[0], run(job)["generator"])


def drawn(
    key: Key[Array, ""],
    model: Generator,
    trained: Trained,
    play: Play,
    params: Any,
    lam: Array,
    windows: int,
) -> Float[Array, ""]:
    """Mean log-likelihood of windows under the policy that pulls at them; those that are not finite are left out."""
    cfg, spec = model.cfg, model.spec
    played = lambda obs: play(params, obs)
    scores = model.scores(trained, played, cfg.augment_coordinates == "chain")
    shift = towards(scores, strengths(cfg.augment_levels, lam, cfg.augment_raw))
    few = min(cfg.augment_microbatch, windows)

    def some(key: Key[Array, ""]) -> Float[Array, " B"]:
        obs, action = model.acted(model.draw(key, trained, few, shift))
        return likelihood(action, played(obs), jnp.asarray(spec.act_mask))

    return jnp.nanmean(jax.lax.map(some, jax.random.split(key, max(1, windows // few))))


def pointed(name: str, values: Float[np.ndarray, "S L"]) -> list[Point]:
    """A curve over the strengths above 0, beside the level of none."""
    out = []
    for k, lam in enumerate(LAMBDAS[1:], 1):
        for curve, column in (("the policy pulls", values[:, k]), ("no pull", values[:, 0])):
            low, high = intervals.interval(intervals.of_samples(column))
            out.append(
                Point(
                    f"{name} policy",
                    curve,
                    lam,
                    float(column.mean()),
                    float(low),
                    float(high),
                    len(column),
                )
            )
    return out


def text(
    asked: Asked,
    task: str,
    manifest: dict,
    settings: Settings,
    horizon: int,
    windows: int,
    found: dict[str, np.ndarray],
) -> str:
    """The table and what has to be known to read it."""
    rows = []
    for name, values in found.items():
        mean = values.mean(axis=0)
        spread = values.std(axis=0, ddof=1) if len(values) > 1 else 0.0 * mean
        best = LAMBDAS[int(np.nanargmax(mean))]
        rows.append(
            (name, *(f"{m:.1f} ± {s:.1f}" for m, s in zip(mean, spread, strict=True)), f"{best:g}")
        )
    raw = (
        "the paper's raw lambda" if settings.augment_raw else "lambda as at the paper's 128 levels"
    )
    return (
        f"CODA's steering curve on {task}, {manifest['quality']} ({manifest['transitions']} transitions): mean "
        f"log-likelihood of {windows} windows of {horizon} steps under the policy that pulls at them, mean ± std of "
        f"{len(asked.seeds)} seeds. One generator, {settings.generator_width} wide, {settings.generator_steps} "
        f"updates of {settings.generator_batch} windows (the paper's: 10,000 epochs of 100,000); "
        f"{settings.augment_levels} levels (the paper's 128), {raw}. The paper's curve is a picture, "
        f"without numbers.\n\n"
        f"{markdown(('policy', *(f'lambda {lam:g}' for lam in LAMBDAS), 'highest at'), rows)}\n![](steering.png)\n"
    )
