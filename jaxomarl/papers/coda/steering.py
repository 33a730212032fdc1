"""CODA's steering curve: how likely windows are under the policy that guides them.

One generator of the data's windows serves all seeds. A seed samples windows from it under guidance
by a policy, one that was never trained or the best that ships with the task. It takes their mean
log-likelihood under that policy, the sum over steps, agents and columns of -(a - mu(o))^2 / 2. The
paper's curve rises with lambda, then collapses.
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
from jaxomarl.data.held_out import hold_out, split
from jaxomarl.data.stats import identity
from jaxomarl.data.windows import check_windows
from jaxomarl.diffusion.policy_guidance import likelihood, strengths, towards
from jaxomarl.envs import stored
from jaxomarl.envs.catalog import make
from jaxomarl.health.verdict import DIVERGED, LEARNED, SHORT, UNJUDGED, stage_facts
from jaxomarl.networks.actors import actor
from jaxomarl.networks.agents import separate
from jaxomarl.papers import measured
from jaxomarl.papers.asked import Asked, one_name
from jaxomarl.papers.comparison import markdown_table
from jaxomarl.papers.measured import Measure, StageWord
from jaxomarl.results import curves, intervals
from jaxomarl.results.curves import Point
from jaxomarl.stages.augmented import Settings
from jaxomarl.stages.generator import Generator, TrainedGenerator
from jaxomarl.training.library import StageCache, TrainedStage
from jaxomarl.training.runner import Job, run

TASK = "mamujoco/2halfcheetah"
QUALITY = "replay"
LAMBDAS = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
HORIZON = 20
WINDOWS = 2048
CHUNK = 100
"""Updates of the generator in one program, at most: the largest divisor of its steps is taken."""
SETTINGS = Settings(
    generator_steps=2000, generator_batch=128, generator_width=16, augment_microbatch=128
)
GAME, MODEL, LIKELIHOOD = "steering", "coda", "log-likelihood"
"""Names in measured.csv and stages.csv."""
BEST = ("expert", "good")
"""Kinds of shipped behaviours, the best first."""

Play = Callable[[Any, Float[Array, "B T N O"]], Float[Array, "B T N A"]]
"""(a policy's parameters, observations) -> actions."""


def coda_steering(asked: Asked) -> str:
    """The table of likelihoods by policy and lambda, and its picture.

    Raises JaxomarlError before anything is trained.
    """
    # --- what was asked ---
    unused = ("systems", "episodes", "source", "final_episodes")
    asked.check_unused("coda-steering", "it trains no policy.", unused)
    quality = one_name("--data", asked.data, QUALITY)
    settings = chosen_settings(asked)
    task = make(one_name("--tasks", asked.tasks, TASK))
    spec = task.env.spec
    policies = guiding_policies(spec, task.name)
    rows, manifest = load(task, quality, asked.rows)
    horizon = settings.augment_horizon or min(HORIZON, spec.horizon)
    check_windows(rows, horizon, field="--cfg.augment-horizon")
    wanted = max(1, round(min(asked.scale, 1.0) * WINDOWS))
    microbatch = min(settings.augment_microbatch, wanted)
    windows = wanted // microbatch * microbatch

    # --- the generator ---
    model = Generator(spec, settings, horizon)
    asked.say(f"{task.name} {quality}: one generator, {settings.generator_steps} updates")
    generator, health = train_generator(asked, settings, horizon, task, rows, manifest)

    # --- windows under each policy ---
    curves_of: dict[str, np.ndarray] = {}
    for name, (play, params_of) in policies.items():
        seeds = f"{len(asked.seeds)} seeds, {windows} windows each"
        asked.say(f"{name} policy: {len(LAMBDAS)} strengths, {seeds}")

        def score(key: Key[Array, ""], lam: Array, params: Any, play: Play = play) -> Array:
            return mean_likelihood(key, model, generator, play, params, lam, windows)

        compiled = jax.jit(score)
        values = [
            [float(compiled(jax.random.key(seed), lam, params_of(seed))) for lam in LAMBDAS]
            for seed in asked.seeds
        ]
        curves_of[name] = np.array(values)
    measures = [
        m for name, values in curves_of.items() for m in seeds_measures(asked, name, values)
    ]
    measured.save_measures(asked.out, measures, [health])
    points = [p for name, values in curves_of.items() for p in policy_points(name, values)]
    axes = ("lambda", "log-likelihood of a window")
    asked.draw(curves.curves, "steering.png", points, *axes, None, True)
    return steering_report(
        asked, task.name, manifest, settings, horizon, windows, curves_of, health
    )


def chosen_settings(asked: Asked) -> Settings:
    """The settings, with what `--cfg` and `--scale` change of them."""
    known = {f.name for f in dataclasses.fields(Settings)}
    for field in asked.overrides:
        if field not in known:
            names = ", ".join(sorted(k for k in known if k.startswith("generator")))
            way_out = f"It has {names} and augment-*."
            raise refuse(flag(field), "a setting of the generator", asked.overrides[field], way_out)
    given = {field: values[0] for field, values in asked.overrides.items()}
    steps = given.pop("generator_steps", asked.updates(SETTINGS.generator_steps))
    return dataclasses.replace(SETTINGS, generator_steps=steps, **given)


def guiding_policies(spec: Spec, task: str) -> dict[str, tuple[Play, Callable[[int], Any]]]:
    """Name -> (how it acts, a seed's parameters).

    These are networks as they are initialised, and the task's best behaviours in turn.
    """
    folder, _, name = task.partition(":")[0].partition("/")
    behaviours = {}
    if folder in ("mpe", "mamujoco"):
        behaviours = stored.stored_behaviours(folder, name)
    kind = next((kind for kind in BEST if kind in behaviours), None)
    if kind is None:
        wanted = "a task that ships with behaviours"
        raise refuse("--tasks", wanted, task, f"Take {TASK} or mpe/spread.")
    fresh = separate(actor(spec.obs_width, (64, 64), spec.act_width), spec.agents)
    mask = jnp.asarray(spec.act_mask)
    best = behaviours[kind]

    def act_untrained(params: Any, obs: Array) -> Array:
        return mask * fresh.apply(params, obs)

    def act_best(params: Any, obs: Array) -> Array:
        one_action = lambda o: stored.behaviour_actions(params, o)
        return mask * jax.vmap(jax.vmap(one_action))(obs)

    return {
        "untrained": (act_untrained, lambda seed: fresh.init(jax.random.key(seed))),
        kind: (act_best, lambda seed: best[seed % len(best)]),
    }


def train_generator(
    asked: Asked, settings: Settings, horizon: int, task: Task, rows: Dataset, manifest: dict
) -> tuple[TrainedGenerator, StageWord]:
    """The generator after all its updates, kept under OUT as any command keeps its stages.

    The second is whether it has learned, by its windows of held-out episodes. Raises Interrupted.
    """
    steps = settings.generator_steps
    chunk = next(size for size in range(min(CHUNK, steps), 0, -1) if steps % size == 0)

    def check(spec: Spec, cfg: Settings, data: Dataset | None) -> None:
        pass

    def prepare(spec: Spec, cfg: Settings, data: Dataset) -> Dataset:
        return data

    def pipeline(spec: Spec, cfg: Settings, env: Any = None) -> tuple[Stage, ...]:
        model = Generator(spec, cfg, horizon)
        return (Stage("generator", model.algorithm, steps, chunk, health=model.health),)

    found = []

    def finished(index: int, stage: Stage, trained: TrainedStage) -> None:
        figures = {name: values[0] for name, values in trained.health.items()}
        found.append(stage_facts(stage, figures))

    drawn, held = split(rows, hold_out(rows))
    job = Job(
        system=System(Settings, check=check, prepare=prepare, pipeline=pipeline),
        spec=task.env.spec,
        cfgs=[settings],
        seeds=[0],
        data=drawn,
        held=held,
        stats=identity(task.env.spec),
        facts={"task": task.name, "data": manifest["sha256"], "horizon": horizon},
        library=StageCache(asked.out / "stages"),
        stopped=asked.stopped,
        say=asked.progress.say,
        finished=finished,
    )
    trained = jax.tree.map(lambda x: x[0], run(job)["generator"])
    (facts,) = found
    is_word = lambda word: int(facts["verdict"] == word)
    health = StageWord(
        GAME,
        MODEL,
        setting="",
        stage="generator",
        learned=is_word(LEARNED),
        short=is_word(SHORT),
        diverged=is_word(DIVERGED),
        unjudged=is_word(UNJUDGED),
        failed="; ".join(facts["failed"]),
    )
    return trained, health


def seeds_measures(asked: Asked, name: str, values: Float[np.ndarray, "S L"]) -> list[Measure]:
    """Each seed's log-likelihood under a policy, by the strength of the guidance."""
    rows = []
    for k, lam in enumerate(LAMBDAS):
        of_lam = {LIKELIHOOD: values[:, k]}
        rows += measured.of_seeds(GAME, name, f"lambda {lam:g}", asked.seeds, of_lam)
    return rows


def mean_likelihood(
    key: Key[Array, ""],
    model: Generator,
    trained: TrainedGenerator,
    play: Play,
    params: Any,
    lam: Array,
    windows: int,
) -> Float[Array, ""]:
    """Mean log-likelihood of windows under the policy that guides them.

    Windows that are not finite are left out.
    """
    cfg = model.cfg
    mask = jnp.asarray(model.spec.act_mask)
    act = lambda obs: play(params, obs)
    scores = model.scores(trained, act, cfg.augment_coordinates == "chain")
    shift = towards(scores, strengths(cfg.augment_levels, lam, cfg.augment_raw))
    microbatch = min(cfg.augment_microbatch, windows)

    def of_microbatch(key: Key[Array, ""]) -> Float[Array, " B"]:
        obs, action = model.acted(model.draw(key, trained, microbatch, shift))
        return likelihood(action, act(obs), mask)

    keys = jax.random.split(key, max(1, windows // microbatch))
    return jnp.nanmean(jax.lax.map(of_microbatch, keys))


def policy_points(name: str, values: Float[np.ndarray, "S L"]) -> list[Point]:
    """A curve over the strengths above 0, next to the level without guidance."""
    points = []
    for k, lam in enumerate(LAMBDAS[1:], 1):
        points.append(seeds_point(name, "guided by the policy", lam, values[:, k]))
        points.append(seeds_point(name, "no guidance", lam, values[:, 0]))
    return points


def seeds_point(name: str, curve: str, lam: float, values: Float[np.ndarray, " S"]) -> Point:
    """The mean over seeds with its interval."""
    low, high = intervals.interval(intervals.of_samples(values))
    ends = (float(low), float(high))
    return Point(f"{name} policy", curve, lam, float(values.mean()), *ends, len(values))


def steering_report(
    asked: Asked,
    task: str,
    manifest: dict,
    settings: Settings,
    horizon: int,
    windows: int,
    curves_of: dict[str, np.ndarray],
    health: StageWord,
) -> str:
    """The table and what has to be known to read it."""
    rows = []
    for name, values in curves_of.items():
        mean = values.mean(axis=0)
        std = 0.0 * mean
        if len(values) > 1:
            std = values.std(axis=0, ddof=1)
        cells = [f"{m:.1f} ± {s:.1f}" for m, s in zip(mean, std, strict=True)]
        best = LAMBDAS[int(np.nanargmax(mean))]
        rows.append((name, *cells, f"{best:g}"))
    head = ("policy", *(f"lambda {lam:g}" for lam in LAMBDAS), "highest at")
    raw = "lambda as at the paper's 128 levels"
    if settings.augment_raw:
        raw = "the paper's raw lambda"
    data = f"{manifest['quality']} ({manifest['transitions']} transitions)"
    updates = f"{settings.generator_steps} updates of {settings.generator_batch} windows"
    return (
        f"CODA's steering curve on {task}, {data}: mean log-likelihood of {windows} windows of "
        f"{horizon} steps under the policy that guides them, mean ± std of {len(asked.seeds)} "
        f"seeds. One generator, {settings.generator_width} wide, {updates} (the paper's: 10,000 "
        f"epochs of 100,000); {settings.augment_levels} levels (the paper's 128), {raw}. The "
        "paper's curve is a picture, without numbers. "
        f"{health_line(health)}\n\n"
        f"{markdown_table(head, rows)}\n![](steering.png)\n"
    )


def health_line(health: StageWord) -> str:
    """Whether the generator has learned."""
    if health.learned:
        return "The generator has learned, by its windows of held-out episodes."
    if health.failed:
        return f"The generator has not learned: {health.failed}."
    return "Nobody judged the generator: no episode was held out."
