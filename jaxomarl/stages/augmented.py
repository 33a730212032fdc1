"""Any stage that acts, learning from synthetic rows next to the data's.

The stage's state stores the synthetic rows, and `refresh` samples them again.

    state = (the stage's own, K synthetic windows of H steps, which of their rows count)
    refresh: windows ~ generator, guided by the stage's present policy or not
    batch:   the stage's own batch, of which a share of rows is replaced by synthetic ones

Windows with a number that is not finite never count, nor do rows after an end of an episode.
"""

import dataclasses
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxomarl.base import (
    Algorithm,
    Batch,
    Dataset,
    Health,
    Limit,
    Observation,
    Past,
    Spec,
    Stage,
    State,
    Window,
    refuse,
    team_reward,
)
from jaxomarl.config import config, static, traced
from jaxomarl.data.dataset import transitions_of
from jaxomarl.diffusion.policy_guidance import likelihood, strengths, towards
from jaxomarl.stages.generator import GENERATED, Columns, Generated, Generator, TrainedGenerator

DROPPED = "synthetic_dropped"
"""The metric that says which share of the last refresh was not finite."""
FEWER_DROPPED = (
    "train the generator longer, lower its rate or the policy's guidance, "
    "or raise --cfg.augment-dropped."
)
"""What to do where too many windows are not finite."""


@config
class Settings(Generated):
    """Settings of an augmentation; a config has them next to the base's own."""

    augment_share: float = traced(default=0.5, within="[0, 1]")
    """alpha: share of synthetic rows in each batch."""
    augment_windows: int = static(default=1000)
    """Synthetic windows that are stored at a time."""
    augment_microbatch: int = static(default=250)
    """Synthetic windows that are sampled at once."""
    augment_refresh: int = static(default=1)
    """Chunks of updates between one set of synthetic windows and the next."""
    augment_levels: int = static(default=40)
    """Noise levels of the generator's sampler."""
    augment_order: int = static(default=2, within="[1, 2]")
    """Order of the sampler's steps. 2: Heun's. 1: Euler's."""
    augment_churn: float = traced(default=80.0, within="[0, inf)")
    """Fresh noise that the sampler adds over its levels; 0: none."""
    augment_dropped: float = static(default=0.1, within="[0, 1]")
    """Share of windows with numbers that are not finite above which the run stops."""
    augment_short: str = static(default="refuse")
    """Episodes shorter than a window. refuse: such data. skip: such episodes, in sampling."""
    augment_lambda: float = traced(default=0.6, within="[0, inf)")
    """CODA: strength of the policy's guidance, at any number of levels.

    At 128 levels it is the paper's lambda.
    """
    augment_raw: bool = static(default=False)
    """CODA: whether lambda is the paper's own, whose effect grows with the number of levels."""
    augment_placement: str = static(default="paper")
    """CODA: where guidance acts. paper: after the denoiser. pgd, pgd-denoised: before the churn."""
    augment_coordinates: str = static(default="chain")
    """CODA: gradient of the guidance. chain: through the normalised columns.

    literal: in the environment's units.
    """
    augment_quantile: float = traced(default=0.9, within="[0, 1]")
    """EAQ: quantile of the data's window returns that samples are conditioned on."""
    augment_weight: float = traced(default=1.0, within="[0, inf)")
    """EAQ: w of the guided denoiser (1 + w) conditional - w unconditional."""
    augment_drop: float = traced(default=0.1, within="[0, 1]")
    """EAQ: share of training windows whose return is hidden from the generator."""


LOG = logging.getLogger(__name__)
CONTRACTIVE = 2.0
"""Below this lambda, one step a <- (1 - lambda) a + lambda mu shrinks the distance to mu."""
CHECKED = ("augment_short",)
"""Settings that say which data are taken; they reach no program."""
SAMPLING = (
    "augment_share", "augment_windows", "augment_microbatch", "augment_refresh",
    "augment_levels", "augment_order", "augment_churn", "augment_horizon",
)  # fmt: skip
"""Settings of synthetic windows that every kind of augmentation has."""


class Augmentation(NamedTuple):
    """A kind of augmentation."""

    guided: bool
    """Whether the stage's present policy guides the sampling of windows."""
    conditioned: bool
    """Whether windows are conditioned on a high return."""
    fields: tuple[str, ...]
    """The settings of this kind alone."""


class Augmented(NamedTuple):
    """A stage's own state, and the synthetic rows that it learns from."""

    base: State
    rows: Float[Array, "K T W"]
    """Windows of rows as in `Dataset.rows`."""
    order: Int[Array, " KH"]
    """window * H + step of each row that a transition may start from; those that count lead."""
    usable: Int[Array, ""]
    """How many rows count."""
    windows: Int[Array, " K"]
    """Numbers of the windows; those that count lead."""
    whole: Int[Array, ""]
    """How many windows count."""
    dropped: Float[Array, ""]
    """Share of windows with a number that is not finite."""
    likelihood: Float[Array, ""]
    """Mean over windows that count, under the policy at the refresh."""


def warn_of_strength(strength: float | Float[Array, ""]) -> None:
    """Warn of guidance that is so strong that it overshoots."""
    if strength > CONTRACTIVE:
        LOG.warning(
            "--cfg.augment-lambda %g is above %g: guidance of this strength may throw actions past "
            "the policy's own, to the data's edge, where likelihood falls again",
            strength,
            CONTRACTIVE,
        )


# --- the stage ---


def augmented(
    stage: Stage,
    spec: Spec,
    cfg: Settings,
    kind: Augmentation,
    horizon: int,
    name: str,
    owner: str,
) -> Stage:
    """`stage` on real and synthetic rows, from the finished generator `name`.

    What is kept of its finished state is the stage's own state.
    """
    own = stage.algorithm
    model = Generator(spec, cfg, horizon, kind.conditioned)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Augmented:
        return without_windows(own.init(key, past, data), cfg.augment_windows, horizon, model.held)

    def batch(key: Key[Array, ""], state: Augmented, data: Dataset) -> Any:
        real = own.batch(key, state.base, data)
        return mixed_batch(jax.random.fold_in(key, 1), state, real, model.held, cfg.augment_share)

    def update(
        key: Key[Array, ""],
        state: Augmented,
        past: Past,
        batch: Batch | Window,
    ) -> tuple[Augmented, dict]:
        base, metrics = own.update(key, state.base, past, batch)
        synthetic = {DROPPED: state.dropped, "synthetic_likelihood": state.likelihood}
        return state._replace(base=base), {**metrics, **synthetic}

    def act(key, state, past, memory, observation):
        assert own.act is not None
        # a finished stage's state is the base's
        base = state.base if isinstance(state, Augmented) else state
        return own.act(key, base, past, memory, observation)

    limit = Limit(
        metric=DROPPED,
        most=cfg.augment_dropped,
        field="synthetic windows",
        of="with numbers that are not finite",
        way_out=FEWER_DROPPED,
    )
    return stage._replace(
        algorithm=own._replace(init=init, batch=batch, update=update, act=act),
        chunk=stage.chunk * cfg.augment_refresh,
        every=max(1, stage.every // cfg.augment_refresh),
        fields=augmented_fields(stage, cfg, kind),
        owner=owner,
        refresh=window_refresh(own, spec, cfg, kind, model, name),
        kept=lambda state: stage.kept(state.base),
        health=health_of_base(stage.health),
        limits=(limit,),
    )


def health_of_base(health: Health | None) -> Health | None:
    """The stage's own health, measured on the stage's own part of the augmented state."""
    if health is None:
        return None
    measure_base = health.measure

    def measure(
        key: Key[Array, ""], state: Augmented, past: Past, held: Dataset
    ) -> dict[str, Float[Array, ""]]:
        return measure_base(key, state.base, past, held)

    return health._replace(measure=measure)


def augmented_fields(stage: Stage, cfg: Settings, kind: Augmentation) -> tuple[str, ...]:
    """The config fields that reach an augmented stage."""
    if stage.fields is None:
        return tuple(f.name for f in dataclasses.fields(cfg) if f.name not in CHECKED)
    return (*stage.fields, *SAMPLING, *GENERATED, *kind.fields)


# --- sampling windows ---


def follower(
    algorithm: Algorithm,
    key: Key[Array, ""],
    state: State,
    past: Past,
    spec: Spec,
) -> Callable[[Array], Array]:
    """Observations [B, T, N, O] -> the policy's actions there, [B, T, N, A].

    A policy with memory starts each window with an empty one. A stochastic policy draws once for
    each row, and draws the same in every call.
    """
    act = algorithm.act
    available = jnp.broadcast_to(spec.act_mask > 0, spec.act_mask.shape)
    assert act is not None

    def one_window(keys, obs):
        def step(memory, key_and_obs):
            key, obs = key_and_obs
            action, memory = act(key, state, past, memory, Observation(obs, available))
            return memory, action

        if not jax.tree.leaves(algorithm.memory):
            one_row = lambda key, obs: step(algorithm.memory, (key, obs))[1]
            return jax.vmap(one_row)(keys, obs)
        return jax.lax.scan(step, algorithm.memory, (keys, obs))[1]

    def played(obs: Float[Array, "B T N O"]) -> Float[Array, "B T N A"]:
        keys = jax.random.split(key, obs.shape[:2])
        return jnp.asarray(spec.act_mask) * jax.vmap(one_window)(keys, obs)

    return played


def window_refresh(
    own: Algorithm,
    spec: Spec,
    cfg: Settings,
    kind: Augmentation,
    model: Generator,
    name: str,
) -> Callable[[Key[Array, ""], Augmented, Past, Dataset], Augmented]:
    """The stage's `refresh`: all windows again, `augment_microbatch` of them side by side."""
    size = cfg.augment_windows
    few = min(cfg.augment_microbatch, size)

    def refresh(key: Key[Array, ""], state: Augmented, past: Past, data: Dataset) -> Augmented:
        k_play, k_draw = jax.random.split(key)
        played = follower(own, k_play, state.base, past, spec)
        trained: TrainedGenerator = past[name]
        shift = None
        if kind.guided:
            scores = model.scores(trained, played, cfg.augment_coordinates == "chain")
            strength = strengths(cfg.augment_levels, cfg.augment_lambda, cfg.augment_raw)
            shift = towards(scores, strength)

        def draw(key):
            rows = model.draw(key, trained, few, shift)
            obs, action = model.acted(rows)
            return rows, likelihood(action, played(obs), jnp.asarray(spec.act_mask))

        rows, likelihoods = jax.lax.map(draw, jax.random.split(k_draw, size // few))
        rows = rows.reshape(size, *rows.shape[2:])
        return with_windows(state, rows, likelihoods.reshape(size), model.held)

    return refresh


def without_windows(base: State, size: int, horizon: int, columns: Columns) -> Augmented:
    """The state before the first refresh: no window counts."""
    width = columns.at["last"][1]
    return Augmented(
        base=base,
        rows=jnp.zeros((size, horizon + 1, width)),
        order=jnp.arange(size * horizon, dtype=jnp.int32),
        usable=jnp.zeros((), jnp.int32),
        windows=jnp.arange(size, dtype=jnp.int32),
        whole=jnp.zeros((), jnp.int32),
        dropped=jnp.zeros(()),
        likelihood=jnp.zeros(()),
    )


def with_windows(
    state: Augmented,
    rows: Float[Array, "K T C"],
    likelihoods: Float[Array, " K"],
    columns: Columns,
) -> Augmented:
    """The state with new windows, and which of their rows count.

    Rows count that are finite and lie before an end of their episode.
    """
    size = rows.shape[0]
    steps = rows.shape[1] - 1

    # --- windows that count ---
    good = jnp.all(jnp.isfinite(rows), axis=(1, 2)) & jnp.isfinite(likelihoods)
    rows = jnp.where(good[:, None, None], rows, 0.0)

    # --- rows that count ---
    done = rows[:, :steps, columns.at["done"][0]]
    ends_before = jnp.cumsum(done, axis=1) - done
    usable = good[:, None] & (ends_before == 0)
    known = jnp.ones((size, steps + 1, 1))
    last = jnp.zeros((size, steps + 1, 1))
    # the action after a window's last step is not known
    last = last.at[:, steps - 1].set(1.0)
    if steps > 1:
        # so that step counts only where it ends the episode
        ends = done[:, -1] > 0
        usable = usable.at[:, -1].set(usable[:, -1] & ends)
    usable = usable.reshape(-1)

    whole = good.sum()
    return state._replace(
        rows=jnp.concatenate([rows, known, last], axis=-1),
        order=leading(usable),
        usable=usable.sum().astype(jnp.int32),
        windows=leading(good),
        whole=whole.astype(jnp.int32),
        dropped=1.0 - whole / size,
        likelihood=jnp.sum(jnp.where(good, likelihoods, 0.0)) / jnp.maximum(whole, 1),
    )


def leading(flags: Bool[Array, " K"]) -> Int[Array, " K"]:
    """The places of all flags, those that are set first."""
    return jnp.argsort(~flags, stable=True).astype(jnp.int32)


# --- batches ---


def mixed_batch(
    key: Key[Array, ""],
    state: Augmented,
    real: Any,
    columns: Columns,
    share: float | Float[Array, ""],
) -> Any:
    """A batch of the base, of which a share of rows is replaced by synthetic ones."""
    size = len(real.obs)
    if isinstance(real, Window):
        synthetic, there = synthetic_windows(key, state, columns, size, real)
    elif isinstance(real, Batch):
        synthetic, there = synthetic_transitions(key, state, columns, size, real)
    else:
        expected = "a base that learns from rows of the data"
        way = "Augment a system whose batches are transitions or windows."
        raise refuse("--augment", expected, type(real).__name__, way)

    replaced = (jnp.arange(size) < jnp.round(share * size)) & there

    def pick(synthetic: Array, real: Array) -> Array:
        ones = (1,) * (real.ndim - 1)
        return jnp.where(replaced.reshape(-1, *ones), synthetic, real)

    return jax.tree.map(pick, synthetic, real)


def synthetic_transitions(
    key: Key[Array, ""], state: Augmented, columns: Columns, size: int, real: Batch
) -> tuple[Batch, Array]:
    """`size` synthetic transitions, and whether there are any."""
    steps = state.rows.shape[1] - 1
    count = jnp.maximum(state.usable, 1)
    at = state.order[jax.random.randint(key, (size,), 0, count)]
    window = at // steps
    step = at % steps
    pair = state.rows[window[:, None], step[:, None] + jnp.arange(2)]
    row = columns.layout.unpack(pair[:, 0])
    after = columns.layout.unpack(pair[:, 1])
    batch = transitions_of(
        row,
        after,
        team_reward=team_reward(columns.layout.team, row["reward"]),
        alive=jnp.ones_like(real.alive),
        available=jnp.ones_like(real.available),
        next_available=jnp.ones_like(real.next_available),
    )
    return batch, state.usable > 0


def synthetic_windows(
    key: Key[Array, ""], state: Augmented, columns: Columns, size: int, real: Window
) -> tuple[Window, Array]:
    """`size` synthetic windows, as long as the real ones, and whether there are any."""
    length = real.valid.shape[1]
    if length > state.rows.shape[1] or real.extra:
        expected = f"windows of at most {state.rows.shape[1]} plain rows"
        way = "Leave --cfg.augment-horizon out, or augment a base that prepares no rows of its own."
        raise refuse("--augment", expected, length, way)

    count = jnp.maximum(state.whole, 1)
    at = state.windows[jax.random.randint(key, (size,), 0, count)]
    row = columns.layout.unpack(state.rows[at, :length])

    def ended(lag: int) -> Array:
        """Whether the episode ended at least `lag` rows before a row."""
        done = jnp.pad(row["done"], ((0, 0), (lag, 0)))
        return jnp.cumsum(done[:, :length], axis=1) > 0

    # no action is taken in the last row, and none after an end, whose successor row is still valid
    acted = ((jnp.arange(length) < length - 1) & ~ended(1)).astype(jnp.float32)
    reward = row["reward"] * acted[..., None]
    window = Window(
        obs=row["obs"],
        state=row["state"],
        action=row["action"] * acted[..., None, None],
        reward=reward,
        team_reward=team_reward(columns.layout.team, reward),
        done=row["done"] * acted,
        last=jnp.zeros_like(row["last"]),
        alive=jnp.ones_like(real.alive),
        available=jnp.ones_like(real.available),
        valid=(~ended(2)).astype(jnp.float32),
        extra={},
    )
    return window, state.whole > 0
