"""CODA: any base system on synthetic experience that follows its policy; SynthER and EAQ too.

**Paper**. "CODA: Coordination via On-Policy Diffusion for Multi-Agent Reinforcement Learning",
Algorithms 1 (sampling) and 2 (training). What it does not print comes from policy-guided diffusion
(Jackson et al. 2024). SynthER is Lu et al. 2023; EAQ is "episode augmentation with Q-total".

**Pseudo-code**. D is the EDM denoiser of joint windows; sigma_0 > .. > sigma_N = 0; lambda_N-1 = 0.

    1   train D on the data's windows         stage "generator" (stages/generator.py, `update`)
    2   for each round (every `augment_refresh` chunks):    (stages/augmented.py, `refresh`)
    3       x ~ sigma_0 N(0, I); for k = 0..N-1:            (diffusion/edm.py, `heun`)
    4           sigma^ = sigma (1 + gamma)                  (diffusion/edm.py)
                x^ = x + sqrt(sigma^2^ - sigma^2) S_noise z
    5           x_0 = D(x^; sigma^),   d = (x^ - x_0) / sigma^             (diffusion/edm.py)
    6           (o, a) = the environment's units of sg x_0
                g_t^i = (mu_i(o_t^i) - a_t^i) da/dx         (stages/generator.py, `scores`)
    7           x^ <- x^ + lambda_k g / (|g| + 1e-8), |g| over steps, agents and columns
                                                            (diffusion/policy_guidance.py)
    8           x = x^ + (sigma' - sigma^) d, and Heun's correction where sigma' > 0
                                                            (diffusion/edm.py)
    9       windows = x in the environment's units; those that are not finite are dropped
                                                            (stages/augmented.py, `counted`)
    10  N updates of the base, a share alpha of each batch from the windows
                                                            (stages/augmented.py, `batch`)

`synther` has no lines 6 and 7. `eaq` has none either, and D is conditioned on the window's team
return: it samples windows of the return's upper decile by classifier-free guidance,
(1 + w) D(x; y) - w D(x).

**Differs**.

- The paper guides by the policy mu. We guide by the actions of the base's `act`. A recurrent policy
  starts each window with an empty memory, and a stochastic policy plays one sample.
- Stages that do not act, such as a critic before the policy, learn from the data alone.
- The paper does not print the schedule lambda_k. Ours is that of policy-guided diffusion, scaled to
  the same sum for every N. `augment_raw` is the paper's.
- Our gradient goes through the transform to the environment's units. The printed one adds the
  environment's gradient to the diffusion's coordinates (`augment_coordinates="literal"`). We apply
  "converted to constrained space" (the paper's line 8) to a copy.
- The loss is EDM's weighted loss (`generator_weighting`).
- Rewards come from the model.
- A window has a final row of observations, after which no action is known. Its last transition
  counts only where it ends the episode, or where windows have one step.
- There is one generator per seed. Batches of 100,000 windows are sampled as microbatches.
- EAQ trains its generator with a critic's values. Here the return within the window takes their
  place, and the model learns windows of all returns.

**Checked**. tests/diffusion/test_edm.py, tests/diffusion/test_policy_guidance.py,
tests/probes/test_coda.py (windows, masks; what guidance does to a base's batches; nothing else
changes), tests/cli/test_augment.py.
"""

import dataclasses
import functools
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Int

from jaxomarl.base import Dataset, Environment, Spec, Stage, System, refuse
from jaxomarl.config import check_fields, config, static
from jaxomarl.data.windows import check_windows
from jaxomarl.stages.augmented import Augmentation, Settings, augmented, warn_of_strength
from jaxomarl.stages.generator import (
    GENERATED,
    NORMALISERS,
    PLACEMENTS,
    WEIGHTINGS,
    Generator,
    warn_of_width,
)

T = TypeVar("T")
DEFAULT_HORIZON = 20
"""Steps of a window where nothing else is set: the paper's."""

GUIDANCE_FIELDS = (
    "augment_lambda",
    "augment_raw",
    "augment_placement",
    "augment_coordinates",
)
RETURN_FIELDS = ("augment_quantile", "augment_weight", "augment_drop")
AUGMENTATIONS: dict[str, Augmentation] = {
    "coda": Augmentation(guided=True, conditioned=False, fields=GUIDANCE_FIELDS),
    "synther": Augmentation(guided=False, conditioned=False, fields=()),
    "eaq": Augmentation(guided=False, conditioned=True, fields=RETURN_FIELDS),
}
CHOICES = {
    "generator_weighting": WEIGHTINGS,
    "generator_normaliser": tuple(NORMALISERS),
    "augment_placement": tuple(PLACEMENTS),
    "augment_coordinates": ("chain", "literal"),
    "augment_short": ("refuse", "skip"),
}


@config
class Alone(Settings):
    """An augmentation's settings next to the base's chunk, to be checked by themselves."""

    chunk: int = static(default=1000)
    """Updates of one compiled scan; reports and checkpoints fall between two scans."""


@functools.cache
def config_of(base: type) -> type:
    """The base's config, extended by the fields of the augmentation."""
    about = {"__doc__": base.__doc__, "__module__": base.__module__}
    return config(type("Config", (Settings, base), about))


def plain(cfg: Settings, kind: type[T]) -> T:
    """The part of a config that has the fields of `kind`."""
    fields: Any = dataclasses.fields(kind)  # pyright: ignore[reportArgumentType]
    return kind(**{f.name: getattr(cfg, f.name) for f in fields})


def horizon_of(spec: Spec, cfg: Settings) -> int:
    """Steps H of a synthetic window: as set, else the base's own, else the default."""
    return cfg.augment_horizon or base_horizon(cfg) or min(DEFAULT_HORIZON, spec.horizon)


def base_horizon(cfg: Settings) -> int:
    """Steps of the base's own windows; 0 where it has none."""
    return getattr(cfg, "horizon", 0)


def augmentation(base: System, name: str, kind: str) -> System:
    """Build the system `base`, registered as `name`, that also learns from synthetic rows.

    `kind` is a key of AUGMENTATIONS.
    """
    chosen = AUGMENTATIONS[kind]

    def prepare(spec: Spec, cfg: Settings, data: Dataset) -> Dataset:
        return base.prepare(spec, cfg, data)

    def check(spec: Spec, cfg: Settings, data: Dataset | None) -> None:
        """Raise JaxomarlError for what neither the base nor its augmentation can train on."""
        base.check(spec, plain(cfg, base.Config), data)
        check_augmentation(spec, cfg, chosen, data, base.pipeline(spec, cfg, None))

    def pipeline(spec: Spec, cfg: Any, env: Environment | None = None) -> tuple[Stage, ...]:
        """The generator, then the base's stages; those that act are augmented."""
        generator = generator_stage(spec, cfg, chosen, cfg.chunk, cfg.every)
        horizon = horizon_of(spec, cfg)
        owner = f"{name}+{kind}"

        stages = [generator]
        for stage in base.pipeline(spec, cfg, env):
            if stage.algorithm.act:
                stage = augmented(stage, spec, cfg, chosen, horizon, generator.name, owner)
            stages.append(stage)
        return tuple(stages)

    return System(config_of(base.Config), check, prepare, pipeline)


def generator_stage(spec: Spec, cfg: Settings, kind: Augmentation, chunk: int, every: int) -> Stage:
    """The stage that trains the diffusion model of windows."""
    fields = [*GENERATED, "augment_horizon", "chunk"]
    if kind.conditioned:
        fields.append("augment_drop")
    if base_horizon(cfg):
        fields.append("horizon")  # it sets the windows' length where augment_horizon does not
    model = Generator(spec, cfg, horizon_of(spec, cfg), kind.conditioned)
    return Stage(
        "generator-return" if kind.conditioned else "generator",
        model.algorithm,
        cfg.generator_steps,
        chunk,
        every,
        fields=tuple(fields),
        health=model.health,
    )


# --- what is refused ---


def check_augmentation(
    spec: Spec, cfg: Settings, kind: Augmentation, data: Dataset | None, stages: tuple[Stage, ...]
) -> None:
    """Raise JaxomarlError for settings, data or a base that cannot be augmented.

    Guidance that is so strong that it overshoots is only warned of, and so is a narrow generator.
    """
    if spec.discrete:
        way = "Windows are drawn as real numbers."
        raise refuse("--augment", "continuous actions", "a discrete task", way)
    check_fields(plain(cfg, Alone), CHOICES)
    check_base(cfg, stages)
    check_rounds(cfg, stages)
    if kind.guided:
        warn_of_strength(cfg.augment_lambda)
    warn_of_width(spec, cfg.generator_width)
    check_horizon(horizon_of(spec, cfg), cfg, data)


def check_base(cfg: Settings, stages: tuple[Stage, ...]) -> None:
    """Raise JaxomarlError for a base whose policy synthetic windows cannot follow."""
    history = getattr(cfg, "history", 0)
    if history:
        expected = "a base that learns from what follows a row"
        way = "Augment a system that acts without planning."
        raise refuse("--augment", expected, f"{history} rows before it", way)
    acting = [stage for stage in stages if stage.algorithm.act]
    if not acting or any(stage.refresh for stage in acting):
        expected = "a base with a policy to follow, trained on data"
        way = "Augment an offline system with a stage that acts."
        raise refuse("--augment", expected, [stage.name for stage in stages], way)


def check_rounds(cfg: Settings, stages: tuple[Stage, ...]) -> None:
    """Raise JaxomarlError where windows or updates cannot be divided into equal parts."""
    if cfg.augment_windows % min(cfg.augment_microbatch, cfg.augment_windows):
        expected = f"a multiple of {cfg.augment_microbatch}"
        way = "Microbatches are equal."
        raise refuse("--cfg.augment-windows", expected, cfg.augment_windows, way)
    for stage in stages:
        if not stage.algorithm.act:
            continue
        chunk = min(stage.chunk * cfg.augment_refresh, stage.steps)
        if stage.steps % chunk:
            expected = f"a divisor of {stage.steps // stage.chunk} chunks"
            way = "Rows are refreshed after whole chunks."
            raise refuse("--cfg.augment-refresh", expected, chunk, way)


def check_horizon(horizon: int, cfg: Settings, data: Dataset | None) -> None:
    """Raise JaxomarlError where windows are longer than episodes, or shorter than the base's."""
    field = "--cfg.augment-horizon"
    if base_horizon(cfg) > horizon:
        way = "Leave it out: it then is the base's."
        raise refuse(field, f"at least the base's {base_horizon(cfg)}", horizon, way)
    if data is None:
        return
    few = shorter(data, horizon)
    if few and cfg.augment_short == "refuse":
        lengths = episode_lengths(data)
        shortest = int(lengths.min(initial=np.iinfo(np.int32).max))
        way = f"--cfg.augment-short skip leaves out {few} of {len(lengths)} episodes"
        if base_horizon(cfg) <= shortest:
            way = f"{way}, --cfg.augment-horizon {shortest} makes windows shorter"
        expected = f"at most {shortest}, the shortest episode's steps"
        raise refuse(field, expected, horizon, f"{way}.")
    check_windows(data, horizon, field=field)


def shorter(data: Dataset, horizon: int) -> int:
    """How many episodes have fewer than `horizon` steps, of those that have any."""
    return int((episode_lengths(data) < horizon).sum())


def episode_lengths(data: Dataset) -> Int[np.ndarray, " E"]:
    """Steps of each episode that has any."""
    lengths = np.asarray(data.left)[np.asarray(data.step) == 0]
    return lengths[lengths > 0]
