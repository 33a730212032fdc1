"""A diffusion model of joint windows, and the synthetic windows that are sampled from it.

A window is H + 1 neighbouring packed rows: state, all observations, all actions, all rewards and
done side by side. Its last row has only what is observed. Every column is made logistic by its own
distribution function (`data.cdf`), or z-scored. Constant and padded columns are left out of the
model, and come back as what they are. The loss has one level t for a window, with the weight
lambda(sigma) or without one:

    L = mean over real entries of lambda(sigma_t) |D(x + sigma_t z; sigma_t, y) - x|^2

`y` is the window's team return, standardised, where the model is conditional. It is dropped for a
share of windows. While windows are sampled, a policy may guide them towards its own actions.
"""

import logging
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import (
    Algorithm,
    Dataset,
    Denoise,
    Health,
    Layout,
    Past,
    Spec,
    Window,
    refuse,
    team_reward,
)
from jaxomarl.config import config, flag, static, traced
from jaxomarl.data import cdf
from jaxomarl.data.windows import sample_windows
from jaxomarl.diffusion import edm
from jaxomarl.diffusion.guidance import classifier_free, masked
from jaxomarl.diffusion.losses import denoising_loss
from jaxomarl.diffusion.policy_guidance import of_deterministic
from jaxomarl.diffusion.samplers import Shift
from jaxomarl.health import generators
from jaxomarl.networks.temporal import temporal_unet
from jaxomarl.optim import Net, Params, clipped_adam, create, descend, polyak

WEIGHTINGS = ("edm", "unweighted")
NORMALISERS = {"cdf": cdf.fit_cdf, "z-score": cdf.fit_z_scores}
PLACEMENTS = {"paper": "denoised", "pgd": "before-churn", "pgd-denoised": "before-churn-denoised"}
EMA = 0.005
"""Rate at which the copy that is sampled follows the trained network."""
RETURNS = 4096
"""Windows whose returns say what a high return is."""
SHARES = 101
"""Quantiles of these returns that are stored."""


@config
class Generated:
    """Settings of the generator."""

    generator_steps: int = static(default=10_000, scaled="steps")
    """Gradient steps of the generator of synthetic windows."""
    generator_batch: int = static(default=256)
    """Windows in a batch of the generator's updates."""
    generator_width: int = static(default=32, scaled="width")
    """Width of the generator's first U-Net level; the second is twice as wide."""
    generator_lr: float = traced(default=1e-3, within="(0, inf)")
    """Learning rate of the generator."""
    generator_weighting: str = static(default="edm")
    """Loss of the generator. edm: all noise levels count alike. unweighted: high levels dominate.

    CODA prints the unweighted loss.
    """
    generator_normaliser: str = static(default="cdf")
    """How columns are normalised. cdf: to a logistic distribution. z-score: shifted and scaled."""
    augment_horizon: int = static(default=0, within="[0, inf)")
    """Steps of a synthetic window.

    0: as in the system's own windows, else 20, or the task's episode where that is shorter.
    """


DRAWN = 64
"""Windows that are drawn for the figures of health."""
LEVELS = 40
"""Noise levels of the sampler that draws them, with the default churn."""
LOG = logging.getLogger(__name__)
WIDER = 2
"""Least width of a generator's first level, in columns of a row, without a warning."""
RAISE = ("generator_steps", "generator_batch", "generator_width")
"""What to raise where a generator has not learned."""
GENERATED = (
    "generator_steps", "generator_batch", "generator_width", "generator_lr",
    "generator_weighting", "generator_normaliser",
)  # fmt: skip


class TrainedGenerator(NamedTuple):
    """State of the generator's stage."""

    net: Net
    columns: cdf.Cdf
    """The distributions of the columns."""
    returns: Any
    """Quantiles [101] of window returns; `()` without a condition."""


class Columns(NamedTuple):
    """Where a packed row's blocks are; the model has the first `width` columns, up to done."""

    layout: Layout
    at: dict[str, tuple[int, int]]
    """Block -> its first column, and the column after its last."""
    width: int


def window_columns(spec: Spec) -> Columns:
    """The blocks of the spec's packed rows."""
    layout = Layout(spec.agents, spec.obs_width, spec.state_dim, spec.act_width, spec.team)
    at = {}
    start = 0
    for name, shape in layout.blocks.items():
        stop = start + math.prod(shape)
        at[name] = (start, stop)
        start = stop
    return Columns(layout, at, at["done"][1])


def column_distributions(data: Dataset, columns: Columns, normaliser: str = "cdf") -> cdf.Cdf:
    """Distributions of every column over all rows.

    Actions, rewards and done count only in rows in which an action was taken.
    """
    index = jnp.arange(len(data.left))
    # in place of a successor row stands the row before it
    acted = data.rows[index - (data.left == 0)]
    first = columns.at["action"][0]
    observed = data.rows[:, :first]
    rows = jnp.concatenate([observed, acted[:, first : columns.width]], axis=1)
    return NORMALISERS[normaliser](rows)


def entry_mask(horizon: int, columns: Columns) -> Float[Array, "T C"]:
    """1.0 where a window has an entry: all but actions, rewards and done of its last row."""
    last_row = (jnp.arange(horizon + 1) == horizon)[:, None]
    absent = last_row & (jnp.arange(columns.width) >= columns.at["action"][0])
    return 1.0 - absent.astype(jnp.float32)


def packed_rows(window: Window) -> Float[Array, "B T C"]:
    """A window's rows in the order of `Dataset.rows`, up to done."""
    blocks = [getattr(window, name) for name in ("obs", "state", "action", "reward", "done")]
    return jnp.concatenate([x.reshape(*x.shape[:2], -1) for x in blocks], axis=-1)


def check_choice(cfg: Any, field: str, known: Iterable[str]) -> None:
    """Raise JaxomarlError where a field's value is none of those that are known."""
    value = getattr(cfg, field)
    if value not in known:
        expected = f"one of {', '.join(known)}"
        raise refuse(flag(field), expected, value, "The first is the default.")


def warn_of_width(spec: Spec, width: int) -> None:
    """Warn of a generator that is narrower than twice a row's columns."""
    columns = window_columns(spec).width
    if width < WIDER * columns:
        LOG.warning(
            "--cfg.generator-width %d is below %d, twice the %d columns of a row: what so narrow a "
            "generator draws may be no better than shuffled rows; `jaxomarl health` says it",
            width,
            WIDER * columns,
            columns,
        )


class Generator:
    """The model of windows of `horizon` steps; `conditioned` on their returns."""

    def __init__(self, spec: Spec, cfg: Any, horizon: int, conditioned: bool = False) -> None:
        check_choice(cfg, "generator_normaliser", NORMALISERS)
        check_choice(cfg, "generator_weighting", WEIGHTINGS)
        self.spec = spec
        self.cfg = cfg
        self.horizon = horizon
        self.conditioned = conditioned
        self.held = window_columns(spec)
        self.full = entry_mask(horizon, self.held)
        self.net = temporal_unet(
            self.held.width,
            int(conditioned),
            cfg.generator_width,
            (1, 2) if horizon > 1 else (1,),
            kernel=3,
            pools=horizon > 1,
        )
        self.tx = clipped_adam(cfg.generator_lr, clip=1.0)

    @property
    def algorithm(self) -> Algorithm:
        """The generator's training; it does not act."""
        return Algorithm(self.init, self.batch, self.update)

    def denoiser(
        self,
        params: Params,
        trained: TrainedGenerator,
        y: Array | None = None,
        drop: Array | None = None,
    ) -> Denoise:
        """(x, t) -> x_0, zero where the model has no entry."""
        inner = lambda x, t: self.net.apply(params, x, t, y, drop)
        return masked(edm.preconditioned(inner), self.full * trained.columns.varies)

    @property
    def health(self) -> Health:
        """What the trained generator is compared with."""
        return generator_health(self)

    # --- training ---

    def init(self, key: Key[Array, ""], past: Past, data: Dataset) -> TrainedGenerator:
        """The data's distributions and a new network."""
        returns = ()
        if self.conditioned:
            k_returns = jax.random.fold_in(key, 1)
            windows = sample_windows(k_returns, data, RETURNS, self.horizon, full=True)
            returns = jnp.quantile(self.window_return(windows), jnp.linspace(0.0, 1.0, SHARES))
        net = create(self.tx, self.net.init(key), target=True)
        columns = column_distributions(data, self.held, self.cfg.generator_normaliser)
        return TrainedGenerator(net, columns, returns)

    def batch(self, key: Key[Array, ""], state: TrainedGenerator, data: Dataset) -> Window:
        """Full windows of the data."""
        size = self.cfg.generator_batch
        return sample_windows(key, data, size, self.horizon, full=True)._replace(extra={})

    def update(
        self,
        key: Key[Array, ""],
        state: TrainedGenerator,
        past: Past,
        batch: Window,
    ) -> tuple[TrainedGenerator, dict]:
        """One step down L."""
        k_t, k_z, k_drop = jax.random.split(key, 3)

        # --- windows, and their noise ---
        # a successor row that the data lack is no entry
        mask = self.full * state.columns.varies * batch.valid[..., None]
        x0 = mask * state.columns.forward(packed_rows(batch))
        t = edm.KARRAS.draw(k_t, (len(x0),))
        z = jax.random.normal(k_z, x0.shape)
        weight = None
        if self.cfg.generator_weighting == "edm":
            weight = edm.edm_loss_weight(edm.KARRAS.schedule.sigma(t))

        # --- the condition ---
        y = None
        drop = None
        if self.conditioned:
            y = standardised(state.returns, self.window_return(batch))[:, None]
            dropped = jax.random.bernoulli(k_drop, self.cfg.augment_drop, (len(x0),))
            drop = dropped.astype(jnp.float32)

        # --- the step ---
        def loss(params):
            denoise = self.denoiser(params, state, y, drop)
            total = denoising_loss(denoise, edm.KARRAS.schedule, x0, t, z, weight, mask)
            return total * len(x0) / jnp.maximum(mask.sum(), 1.0)

        value, grads = jax.value_and_grad(loss)(state.net.params)
        net = polyak(descend(self.tx, state.net, grads), EMA)
        return state._replace(net=net), {"denoising_loss": value}

    def window_return(self, window: Window) -> Float[Array, " B"]:
        """Sum of the team's rewards over the window's steps."""
        return team_reward(self.spec.team, window.reward[:, : self.horizon]).sum(axis=1)

    # --- sampling ---

    def draw(
        self,
        key: Key[Array, ""],
        trained: TrainedGenerator,
        count: int,
        shift: Shift | None = None,
    ) -> Array:
        """Sample `count` windows [B, T, C] in raw units; a conditional model's are of high return.

        What a window lacks is as `raw` says.
        """
        cfg = self.cfg
        params = trained.net.target
        mask = self.full * trained.columns.varies
        denoise = self.denoiser(params, trained)
        if self.conditioned:
            denoise = self.guided_denoiser(params, trained)
        chain = edm.heun(
            cfg.augment_levels,
            shift,
            edm.Churn(cfg.augment_churn),
            cfg.augment_order,
            PLACEMENTS[cfg.augment_placement],
            mask=mask,
        )
        return self.raw(trained, chain(key, denoise, (count, *self.full.shape)))

    def raw(self, trained: TrainedGenerator, x0: Float[Array, "B T C"]) -> Array:
        """Windows in raw units; what they lack in their last row is zero, and done is 0 or 1."""
        values = self.full * trained.columns.inverse(x0)
        at = self.held.at["done"][0]
        done = values[..., at] > 0.5
        return values.at[..., at].set(done.astype(jnp.float32))

    def guided_denoiser(self, params: Params, trained: TrainedGenerator) -> Denoise:
        """The denoiser of a conditional model, guided towards a high quantile of the returns."""
        cfg = self.cfg
        shares = jnp.linspace(0.0, 1.0, SHARES)
        wanted = jnp.interp(cfg.augment_quantile, shares, trained.returns)
        y = standardised(trained.returns, wanted)[None]
        conditional = self.denoiser(params, trained, y, jnp.asarray(0.0))
        unconditional = self.denoiser(params, trained, y, jnp.asarray(1.0))
        return classifier_free(conditional, unconditional, 1.0 + cfg.augment_weight)

    def part(
        self, name: str, f: Callable, trained: TrainedGenerator, x: Float[Array, "B T C"]
    ) -> Array:
        """`f` of one block's columns, in the block's shape."""
        start, stop = self.held.at[name]
        own = f(trained.columns.part(start, stop), x[..., start:stop])
        return own.reshape(*x.shape[:-1], *self.held.layout.blocks[name])

    def acted(self, rows: Float[Array, "B T C"]) -> tuple[Array, Array]:
        """Observations [B, H, N, O] and actions [B, H, N, A] of windows in raw units.

        The last row, which has no action, is left out.
        """
        return self.block(rows[:, :-1], "obs"), self.block(rows[:, :-1], "action")

    def block(self, rows: Float[Array, "B T C"], name: str) -> Array:
        """One block of windows in raw units, in its shape."""
        start, stop = self.held.at[name]
        return rows[..., start:stop].reshape(*rows.shape[:-1], *self.held.layout.blocks[name])

    def scores(
        self, trained: TrainedGenerator, played: Callable[[Array], Array], chain: bool
    ) -> Callable[[Array], Array]:
        """Gradients [B, T, C] of log N(a; mu(o), I) at a denoised x_0, in its action columns.

        With `chain`, the gradient goes through the columns' distributions: times d a / d x.
        Without, it is the environment's gradient itself, as in the paper's text. It is zero in all
        other entries.
        """
        start, stop = self.held.at["action"]

        def gradient(x0: Float[Array, "B T C"]) -> Float[Array, "B T C"]:
            obs = self.part("obs", cdf.Cdf.inverse, trained, x0)
            action = self.part("action", cdf.Cdf.inverse, trained, x0)
            g = of_deterministic(action, played(obs)) * self.spec.act_mask
            if chain:
                g = g * self.part("action", cdf.Cdf.slope, trained, x0)
            own = g.reshape(*g.shape[:2], -1)
            around = (start, self.held.width - stop)
            return jnp.pad(own, ((0, 0), (0, 0), around)) * self.full

        return gradient


# --- what it is compared with ---


def generator_health(model: Generator) -> Health:
    """The steps of windows that are drawn without guidance, by fixed settings of the sampler.

    So a generator has the same figures whichever system trains it.
    """

    def draw(key: Key[Array, ""], trained: TrainedGenerator) -> generators.Steps:
        mask = model.full * trained.columns.varies
        chain = edm.heun(LEVELS, churn=edm.Churn(), mask=mask)
        shape = (DRAWN, *model.full.shape)
        windows = model.raw(trained, chain(key, unguided_denoiser(model, trained), shape))
        return steps_of(model, windows)

    return generators.generator(draw, RAISE)


def unguided_denoiser(model: Generator, trained: TrainedGenerator) -> Denoise:
    """The denoiser of windows of all returns."""
    if not model.conditioned:
        return model.denoiser(trained.net.target, trained)
    return model.denoiser(trained.net.target, trained, jnp.zeros(1), jnp.asarray(1.0))


def steps_of(model: Generator, windows: Float[Array, "B T C"]) -> generators.Steps:
    """All steps of windows in raw units; those after an end of their episode do not count."""
    finite = jnp.isfinite(windows).all(axis=(1, 2))
    windows = jnp.where(finite[:, None, None], windows, 0.0)
    done = model.block(windows[:, :-1], "done")
    ended_before = jnp.cumsum(done, axis=1) - done
    counted = finite[:, None] & (ended_before == 0)

    def columns(rows: Float[Array, "B H C"], *names: str) -> Float[Array, "K D"]:
        """Blocks of all rows side by side."""
        flat_rows = rows.reshape(-1, 1, rows.shape[-1])
        return generators.side_by_side(*(model.block(flat_rows, name) for name in names))

    reward = model.block(windows[:, :-1], "reward")
    return generators.Steps(
        row=columns(windows[:, :-1], "obs", "state"),
        action=columns(windows[:, :-1], "action"),
        reward=team_reward(model.spec.team, reward).reshape(-1, 1),
        after=columns(windows[:, 1:], "obs", "state"),
        counted=counted.reshape(-1).astype(jnp.float32),
    )


def standardised(returns: Float[Array, " Q"], value: Array) -> Array:
    """A return in deviations from the mean of all quantiles."""
    return (value - returns.mean()) / (returns.std() + 1e-6)
