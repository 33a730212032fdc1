"""A diffusion model of whole joint windows, and synthetic windows drawn from it while a policy pulls at them.

A window is H + 1 neighbouring packed rows: state, all observations, all actions, all rewards and done side by side, of
which the last row has only what is observed. Every column is made logistic by its own distribution function
(`data.cdf`), or z-scored; constant and padded columns are left out of the model and come back as what they are. Two
losses, with one level t for a window, its weight lambda(sigma) or none:

    L = mean over real entries of lambda(sigma_t) |D(x + sigma_t z; sigma_t, y) - x|^2

`y` is the window's team return, standardised, where the model is conditional; it is dropped for a share of windows.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import (
    Algorithm,
    Dataset,
    Denoise,
    Layout,
    Past,
    Spec,
    Window,
    refuse,
    team_reward,
)
from jaxomarl.config import config, static, traced
from jaxomarl.data import cdf
from jaxomarl.data.windows import sample_windows
from jaxomarl.diffusion import edm
from jaxomarl.diffusion.guidance import classifier_free, masked
from jaxomarl.diffusion.losses import denoising_loss
from jaxomarl.diffusion.policy_guidance import of_deterministic
from jaxomarl.diffusion.samplers import Shift
from jaxomarl.networks.temporal import temporal_unet
from jaxomarl.optim import Net, clipped_adam, create, descend, polyak

WEIGHTINGS = ("edm", "unweighted")
NORMALISERS = {"cdf": cdf.fit, "z-score": cdf.standard}
PLACEMENTS = {"paper": "denoised", "pgd": "before-churn", "pgd-denoised": "before-churn-denoised"}
EMA = 0.005  # rate at which the sampled copy follows
RETURNS = 4096  # windows whose returns say what a high one is
SHARES = 101  # their quantiles that are kept


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
    """Loss of the generator. edm: all noise levels count alike. unweighted: as CODA prints it, high levels dominate."""
    generator_normaliser: str = static(default="cdf")
    """How columns are normalised. cdf: to a logistic distribution. z-score: shifted and scaled."""
    augment_horizon: int = static(default=0, within="[0, inf)")
    """Steps of a synthetic window; 0: the system's own window, else 20 or the task's shorter episode."""


GENERATED = (
    "generator_steps", "generator_batch", "generator_width", "generator_lr", "generator_weighting",
    "generator_normaliser",
)  # fmt: skip


class Trained(NamedTuple):
    """The denoiser, the columns' distributions, and quantiles [101] of window returns (`()` without a condition)."""

    net: Net
    columns: cdf.Cdf
    returns: Any


class Columns(NamedTuple):
    """Where a packed row's blocks are: the model has its first `width` columns, up to done."""

    layout: Layout
    at: dict[str, tuple[int, int]]
    width: int


def columns(spec: Spec) -> Columns:
    """The blocks of the spec's packed rows."""
    layout = Layout(spec.agents, spec.obs_width, spec.state_dim, spec.act_width, spec.team)
    at, where = 0, {}
    for name, shape in layout.blocks.items():
        size = 1
        for s in shape:
            size *= s
        where[name] = (at, at + size)
        at += size
    return Columns(layout, where, where["done"][1])


def fitted(data: Dataset, held: Columns, normaliser: str = "cdf") -> cdf.Cdf:
    """Distributions of every column over all rows; what was done counts from rows in which something was."""
    index = jnp.arange(len(data.left))
    acted = data.rows[index - (data.left == 0)]  # a successor row repeats the row before it
    first = held.at["action"][0]
    rows = jnp.concatenate([data.rows[:, :first], acted[:, first : held.width]], axis=1)
    return NORMALISERS[normaliser](rows)


def real(spec: Spec, horizon: int, held: Columns) -> Float[Array, "T C"]:
    """1.0 where a window has an entry: all but actions, rewards and done of its last row."""
    done = (jnp.arange(horizon + 1) == horizon)[:, None] & (
        jnp.arange(held.width) >= held.at["action"][0]
    )
    return 1.0 - done.astype(jnp.float32)


def packed(window: Window) -> Float[Array, "B T C"]:
    """A window's rows in the order of `Dataset.rows`, up to done."""
    blocks = (getattr(window, name) for name in ("obs", "state", "action", "reward", "done"))
    return jnp.concatenate([x.reshape(*x.shape[:2], -1) for x in blocks], axis=-1)


class Generator:
    """The model of windows of `horizon` steps; `conditioned` on their returns."""

    def __init__(self, spec: Spec, cfg: Any, horizon: int, conditioned: bool = False) -> None:
        for field, known in (
            ("generator_normaliser", NORMALISERS),
            ("generator_weighting", WEIGHTINGS),
        ):
            if getattr(cfg, field) not in known:
                name, found = f"--cfg.{field.replace('_', '-')}", getattr(cfg, field)
                raise refuse(name, f"one of {', '.join(known)}", found, "The first is the default.")
        self.spec, self.cfg, self.horizon, self.conditioned = spec, cfg, horizon, conditioned
        self.held = columns(spec)
        self.full = real(spec, horizon, self.held)
        levels = (1, 2) if horizon > 1 else (1,)
        self.net = temporal_unet(
            self.held.width,
            int(conditioned),
            cfg.generator_width,
            levels,
            kernel=3,
            pools=horizon > 1,
        )
        self.tx = clipped_adam(cfg.generator_lr, clip=1.0)

    @property
    def algorithm(self) -> Algorithm:
        """Its training; it does not act."""
        return Algorithm(self.init, self.batch, self.update)

    def denoiser(self, params: Any, trained: Trained, y: Any = None, drop: Any = None) -> Denoise:
        """(x, t) -> x_0, zero where the model has no entry."""
        inner = lambda x, t: self.net.apply(params, x, t, y, drop)
        return masked(edm.preconditioned(inner), self.full * trained.columns.varies)

    # --- training ---

    def init(self, key: Key[Array, ""], past: Past, data: Dataset) -> Trained:
        """The data's distributions and a fresh network."""
        returns = ()
        if self.conditioned:
            drawn = sample_windows(
                jax.random.fold_in(key, 1), data, RETURNS, self.horizon, full=True
            )
            returns = jnp.quantile(self.window_return(drawn), jnp.linspace(0.0, 1.0, SHARES))
        return Trained(
            create(self.tx, self.net.init(key), target=True),
            fitted(data, self.held, self.cfg.generator_normaliser),
            returns,
        )

    def batch(self, key: Key[Array, ""], state: Trained, data: Dataset) -> Window:
        """Whole windows."""
        return sample_windows(
            key, data, self.cfg.generator_batch, self.horizon, full=True
        )._replace(extra={})

    def update(
        self, key: Key[Array, ""], state: Trained, past: Past, batch: Window
    ) -> tuple[Trained, dict]:
        """One step down L."""
        k_t, k_z, k_drop = jax.random.split(key, 3)
        # a successor row that the data lack is no entry
        mask = self.full * state.columns.varies * batch.valid[..., None]
        x0 = mask * state.columns.forward(packed(batch))
        t, z = edm.KARRAS.draw(k_t, (len(x0),)), jax.random.normal(k_z, x0.shape)
        weight = (
            edm.weight(edm.KARRAS.schedule.sigma(t))
            if self.cfg.generator_weighting == "edm"
            else None
        )
        y = drop = None
        if self.conditioned:
            y = standard(state.returns, self.window_return(batch))[:, None]
            drop = jax.random.bernoulli(k_drop, self.cfg.augment_drop, (len(x0),)).astype(
                jnp.float32
            )

        def loss(params):
            denoise = self.denoiser(params, state, y, drop)
            whole = denoising_loss(denoise, edm.KARRAS.schedule, x0, t, z, weight, mask)
            return whole * len(x0) / jnp.maximum(mask.sum(), 1.0)

        value, grads = jax.value_and_grad(loss)(state.net.params)
        return state._replace(net=polyak(descend(self.tx, state.net, grads), EMA)), {
            "denoising_loss": value
        }

    def window_return(self, window: Window) -> Float[Array, " B"]:
        """Sum of the team's rewards over the window's steps."""
        return team_reward(self.spec.team, window.reward[:, : self.horizon]).sum(axis=1)

    # --- drawing ---

    def draw(
        self, key: Key[Array, ""], trained: Trained, count: int, shift: Shift | None = None
    ) -> Array:
        """`count` windows [B, T, C] in raw units; a conditional model's are of high return.

        What a window lacks in its last row is zero there, and done is 0 or 1.
        """
        cfg, params, mask = self.cfg, trained.net.target, self.full * trained.columns.varies
        denoise = self.denoiser(params, trained)
        if self.conditioned:
            wanted = jnp.interp(
                cfg.augment_quantile, jnp.linspace(0.0, 1.0, SHARES), trained.returns
            )
            y = standard(trained.returns, wanted)[None]
            told, untold = (
                self.denoiser(params, trained, y, jnp.asarray(drop)) for drop in (0.0, 1.0)
            )
            denoise = classifier_free(told, untold, 1.0 + cfg.augment_weight)
        churn = edm.Churn(cfg.augment_churn)
        chain = edm.heun(
            cfg.augment_levels,
            shift,
            churn,
            cfg.augment_order,
            PLACEMENTS[cfg.augment_placement],
            mask=mask,
        )
        values = self.full * trained.columns.inverse(chain(key, denoise, (count, *self.full.shape)))
        done = self.held.at["done"][0]
        return values.at[..., done].set((values[..., done] > 0.5).astype(jnp.float32))

    def part(self, name: str, f: Callable, trained: Trained, x: Float[Array, "B T C"]) -> Array:
        """`f` of one block's columns, in the block's shape."""
        start, stop = self.held.at[name]
        own = f(trained.columns.part(start, stop), x[..., start:stop])
        return own.reshape(*x.shape[:-1], *self.held.layout.blocks[name])

    def acted(self, rows: Float[Array, "B T C"]) -> tuple[Array, Array]:
        """What agents saw [B, H, N, O] and did [B, H, N, A] in windows of raw units, without their last row."""
        blocks = (rows[:, :-1, slice(*self.held.at[name])] for name in ("obs", "action"))
        obs, action = (x.reshape(*x.shape[:2], self.spec.agents, -1) for x in blocks)
        return obs, action

    def scores(
        self, trained: Trained, played: Callable[[Array], Array], chain: bool
    ) -> Callable[[Array], Array]:
        """Gradients [B, T, C] of log N(a; mu(o), I) at a denoised x_0, in its action columns; of no other entry.

        With `chain`, through the columns' distributions: times d a / d x. Without, the environment's gradient itself,
        as the paper's text has it.
        """
        start, stop = self.held.at["action"]

        def gradient(x0: Float[Array, "B T C"]) -> Float[Array, "B T C"]:
            obs, action = (
                self.part(name, cdf.Cdf.inverse, trained, x0) for name in ("obs", "action")
            )
            g = of_deterministic(action, played(obs)) * self.spec.act_mask
            if chain:
                g = g * self.part("action", cdf.Cdf.slope, trained, x0)
            own = g.reshape(*g.shape[:2], -1)
            return jnp.pad(own, ((0, 0), (0, 0), (start, self.held.width - stop))) * self.full

        return gradient


def standard(returns: Float[Array, " Q"], value: Array) -> Array:
    """A return in deviations from the middle of all."""
    return (value - returns.mean()) / (returns.std() + 1e-6)
