"""CODA: any base pipeline on synthetic experience that follows its present joint policy; SynthER and EAQ beside it.

**Paper**. "CODA: Coordination via On-Policy Diffusion for Multi-Agent Reinforcement Learning", Algorithms 1 (sampling)
and 2 (training); after policy-guided diffusion (Jackson et al. 2024), from which comes what it does not print. SynthER
is Lu et al. 2023; EAQ is "episode augmentation with Q-total".

**Pseudo-code**. D is the EDM denoiser of joint windows; sigma_0 > .. > sigma_N = 0; lambda_N-1 = 0.

    1   train D on the data's windows                            stage "generator" (stages/generator.py, `update`)
    2   for each round (every `augment_refresh` chunks):                            (stages/augmented.py, `refresh`)
    3       x ~ sigma_0 N(0, I); for k = 0..N-1:                                            (diffusion/edm.py, `heun`)
    4           x^ = x + sqrt(sigma^2^ - sigma^2) S_noise z,   sigma^ = sigma (1 + gamma)   (diffusion/edm.py)
    5           x_0 = D(x^; sigma^),   d = (x^ - x_0) / sigma^                              (diffusion/edm.py)
    6           (o, a) = the environment's units of sg x_0;  g_t^i = (mu_i(o_t^i) - a_t^i) da/dx
                                                                                 (stages/generator.py, `scores`)
    7           x^ <- x^ + lambda_k g / (|g| + 1e-8), |g| over steps, agents and columns
                                                                                 (diffusion/policy_guidance.py)
    8           x = x^ + (sigma' - sigma^) d, and Heun's correction where sigma' > 0        (diffusion/edm.py)
    9       windows = x in the environment's units; those that are not finite are dropped
                                                                                 (stages/augmented.py, `counted`)
    10  N updates of the base, a share alpha of each batch from the windows       (stages/augmented.py, `batch`)

`synther` has no lines 6 and 7. `eaq` has none either, and D is told the window's team return: it draws windows of the
return's upper decile by classifier-free guidance, (1 + w) D(x; y) - w D(x).

**Differs**. The base is followed through its `act`: its actions stand for mu, so that a recurrent policy starts each
window with an empty memory, and one that draws plays one draw. Stages that do not act, such as a critic before the
policy, learn from the data alone. The schedule lambda_k is not printed: policy-guided diffusion's, brought to the same
sum for every N (`augment_raw` is the paper's). The gradient goes through the transform (`augment_coordinates="literal"`
adds the environment's gradient to diffusion's coordinates, as printed); "converted to constrained space" (line 8 there)
is of a copy. The loss is EDM's weighted one (`generator_weighting`). Rewards come from the model. A window has a final
row of observations; its last transition counts only where it ends the episode or windows are one step, since no action
is known after it. One generator per seed; batches of 100,000 windows become microbatches. EAQ trains its generator with
a critic's values; here the return within the window stands for them, and the model learns all returns.

**Checked**. tests/diffusion/test_edm.py, tests/diffusion/test_policy_guidance.py, tests/probes/test_coda.py (windows,
masks; what the pull does to a base's batches; nothing else changes), tests/cli/test_augment.py.
"""

import dataclasses
import functools
import logging
from typing import Any, TypeVar

import numpy as np

from jaxomarl.base import Dataset, Environment, Spec, Stage, System, refuse
from jaxomarl.config import check_fields, config, static
from jaxomarl.data.windows import check_windows
from jaxomarl.stages.augmented import Augmentation, Settings, augmented
from jaxomarl.stages.generator import GENERATED, NORMALISERS, PLACEMENTS, WEIGHTINGS, Generator

T = TypeVar("T")
LOG = logging.getLogger(__name__)
LONGEST = 20  # steps of a window where nothing else is said: the paper's
CONTRACTIVE = 2.0  # one step a <- (1 - lambda) a + lambda mu shrinks the distance to mu below it

PULL = ("augment_lambda", "augment_raw", "augment_placement", "augment_coordinates")
RETURN = ("augment_quantile", "augment_weight", "augment_drop")
AUGMENTATIONS: dict[str, Augmentation] = {
    "coda": Augmentation(guided=True, conditioned=False, fields=PULL),
    "synther": Augmentation(guided=False, conditioned=False, fields=()),
    "eaq": Augmentation(guided=False, conditioned=True, fields=RETURN),
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
    """An augmentation's settings beside the base's chunk, to be checked by themselves."""

    chunk: int = static(default=1000)
    """Updates of one compiled scan; reports and checkpoints fall between two scans."""


@functools.cache
def config_of(base: type) -> type:
    """The base's config with the augmentation's fields beside its own."""
    return config(
        type("Config", (Settings, base), {"__doc__": base.__doc__, "__module__": base.__module__})
    )


def plain(cfg: Settings, kind: type[T]) -> T:
    """The part of a config that has `kind`'s fields."""
    fields: Any = dataclasses.fields(kind)  # pyright: ignore[reportArgumentType]
    return kind(**{f.name: getattr(cfg, f.name) for f in fields})


def horizon_of(spec: Spec, cfg: Settings) -> int:
    """Steps H of a synthetic window."""
    return cfg.augment_horizon or base_horizon(cfg) or min(LONGEST, spec.horizon)


def base_horizon(cfg: Settings) -> int:
    """Steps of the base's own windows; 0 where it has none."""
    return getattr(cfg, "horizon", 0)


def augmentation(base: System, name: str, kind: str) -> System:
    """The system `base`, registered as `name`, on real and synthetic rows of `kind`, a key of AUGMENTATIONS."""
    chosen = AUGMENTATIONS[kind]

    def pipeline(spec: Spec, cfg: Any, env: Environment | None = None) -> tuple[Stage, ...]:
        """Generator -> the base's stages, those that act augmented."""
        horizon, stages = horizon_of(spec, cfg), base.pipeline(spec, cfg, env)
        first = "generator-return" if chosen.conditioned else "generator"
        fields = (
            *GENERATED,
            "augment_horizon",
            "chunk",
            *(("augment_drop",) if chosen.conditioned else ()),
        )
        if base_horizon(cfg):
            fields = (*fields, "horizon")  # which decides where augment_horizon does not
        model = Generator(spec, cfg, horizon, chosen.conditioned)
        made = Stage(first, model.algorithm, cfg.generator_steps, cfg.chunk, cfg.every, fields)
        wrap = lambda s: augmented(s, spec, cfg, chosen, horizon, first, f"{name}+{kind}")
        return (made, *(wrap(s) if s.algorithm.act else s for s in stages))

    def check(spec: Spec, cfg: Settings, data: Dataset | None) -> None:
        """Raise JaxomarlError for what neither the base nor its augmentation can train on."""
        base.check(spec, plain(cfg, base.Config), data)
        check_augmentation(spec, cfg, chosen, data, base.pipeline(spec, cfg, None))

    prepare = lambda spec, cfg, data: base.prepare(spec, cfg, data)
    return System(config_of(base.Config), check, prepare, pipeline)


def check_augmentation(
    spec: Spec, cfg: Settings, kind: Augmentation, data: Dataset | None, stages: tuple[Stage, ...]
) -> None:
    """Raise JaxomarlError for settings, data or a base that cannot be augmented; warn of a pull that overshoots."""
    if spec.discrete:
        raise refuse(
            "--augment",
            "continuous actions",
            "a discrete task",
            "Windows are drawn as real numbers.",
        )
    check_fields(plain(cfg, Alone), CHOICES)
    history = getattr(cfg, "history", 0)
    if history:
        way = "Augment a system that plays without planning."
        raise refuse(
            "--augment",
            "a base that learns from what follows a row",
            f"{history} rows before it",
            way,
        )
    followed = [s for s in stages if s.algorithm.act]
    if not followed or any(s.refresh for s in followed):
        way = "Augment an offline system with a stage that acts."
        raise refuse(
            "--augment",
            "a base with a policy to follow, trained on data",
            [s.name for s in stages],
            way,
        )
    if cfg.augment_windows % min(cfg.augment_microbatch, cfg.augment_windows):
        way = "Microbatches are equal."
        raise refuse(
            "--cfg.augment-windows",
            f"a multiple of {cfg.augment_microbatch}",
            cfg.augment_windows,
            way,
        )
    for stage in followed:
        chunk = min(stage.chunk * cfg.augment_refresh, stage.steps)
        if stage.steps % chunk:
            way = "Rows are refreshed after whole chunks."
            raise refuse(
                "--cfg.augment-refresh",
                f"a divisor of {stage.steps // stage.chunk} chunks",
                chunk,
                way,
            )
    if kind.guided and cfg.augment_lambda > CONTRACTIVE:
        LOG.warning(
            "--cfg.augment-lambda %g is above %g: such a pull may throw actions past the policy's own, to the data's "
            "edge, where likelihood falls again",
            cfg.augment_lambda,
            CONTRACTIVE,
        )
    check_horizon(horizon_of(spec, cfg), cfg, data)


def check_horizon(horizon: int, cfg: Settings, data: Dataset | None) -> None:
    """Raise JaxomarlError where windows do not fit into every episode, or a base's own do not fit into them."""
    if base_horizon(cfg) > horizon:
        way = "Leave it out: it then is the base's."
        raise refuse(
            "--cfg.augment-horizon", f"at least the base's {base_horizon(cfg)}", horizon, way
        )
    if data is None:
        return
    lengths = np.asarray(data.left)[np.asarray(data.step) == 0]
    few, shortest = (
        shorter(data, horizon),
        int(lengths[lengths > 0].min(initial=np.iinfo(np.int32).max)),
    )
    if few and cfg.augment_short == "refuse":
        way = f"--cfg.augment-short skip leaves out {few} of {(lengths > 0).sum()} episodes"
        if base_horizon(cfg) <= shortest:
            way = f"{way}, --cfg.augment-horizon {shortest} makes windows shorter"
        raise refuse(
            "--cfg.augment-horizon",
            f"at most {shortest}, the shortest episode's steps",
            horizon,
            f"{way}.",
        )
    check_windows(data, horizon, field="--cfg.augment-horizon")


def shorter(data: Dataset, horizon: int) -> int:
    """How many episodes have fewer than `horizon` steps, of those that have any."""
    lengths = np.asarray(data.left)[np.asarray(data.step) == 0]
    return int(((lengths > 0) & (lengths < horizon)).sum())
