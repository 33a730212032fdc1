"""Any stage that acts, learning from synthetic rows beside the data's: its state holds them, `refresh` makes them anew.

    state = (the stage's own, K synthetic windows of H steps, which of their rows count)
    refresh: windows ~ generator, while the stage's present policy pulls at them, or not
    batch:   the stage's own draw, of which a share of rows is replaced by synthetic ones

Windows with a number that is not finite, and rows after an end of an episode, never count.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxomarl.base import (
    Algorithm,
    Batch,
    Dataset,
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
from jaxomarl.diffusion.policy_guidance import likelihood, strengths, towards
from jaxomarl.stages.generator import GENERATED, Generated, Generator

DROPPED = "synthetic_dropped"  # the metric that says which share of the last refresh was not finite
LESS = "train the generator longer, lower its rate or the policy's pull, or raise --cfg.augment-dropped."


@config
class Settings(Generated):
    """Settings of an augmentation; a base's own come beside them."""

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
    """Episodes shorter than a window. refuse: such data. skip: such episodes, when windows are drawn."""
    augment_lambda: float = traced(default=0.6, within="[0, inf)")
    """CODA: strength of the policy's guidance at any number of levels; at 128 levels it is the paper's lambda."""
    augment_raw: bool = static(default=False)
    """CODA: whether lambda is the paper's own, whose effect grows with the number of levels."""
    augment_placement: str = static(default="paper")
    """CODA: where guidance acts. paper: after the denoiser's call. pgd, pgd-denoised: before the churn."""
    augment_coordinates: str = static(default="chain")
    """CODA: gradient of the guidance. chain: through the normalised columns. literal: the environment's."""
    augment_quantile: float = traced(default=0.9, within="[0, 1]")
    """EAQ: quantile of the data's window returns that samples are conditioned on."""
    augment_weight: float = traced(default=1.0, within="[0, inf)")
    """EAQ: w of the guided denoiser (1 + w) conditional - w unconditional."""
    augment_drop: float = traced(default=0.1, within="[0, 1]")
    """EAQ: share of training windows whose return is hidden from the generator."""


CHECKED = ("augment_short",)
"""Settings that say which data are taken and reach no program."""
DRAWN = (
    "augment_share", "augment_windows", "augment_microbatch", "augment_refresh", "augment_levels", "augment_order",
    "augment_churn", "augment_horizon",
)  # fmt: skip


class Augmentation(NamedTuple):
    """Whose windows are drawn."""

    guided: bool  # the stage's present policy pulls at them
    conditioned: bool  # they are of high return
    fields: tuple[str, ...]  # the settings that reach it beside all augmentations' own


class Augmented(NamedTuple):
    """A stage's own state and the synthetic rows that it learns from."""

    base: State
    rows: Float[Array, "K T W"]  # as `Dataset.rows`
    order: Int[
        Array, " KH"
    ]  # window * H + step of each row that a transition may start from, those that count first
    usable: Int[Array, ""]  # how many count
    windows: Int[Array, " K"]  # windows, those that count first
    whole: Int[Array, ""]  # how many count
    dropped: Float[Array, ""]  # share of windows with a number that is not finite
    likelihood: Float[Array, ""]  # mean over windows that count, under the policy at the refresh


Act = Callable[..., Array]


def follower(
    algorithm: Algorithm, key: Key[Array, ""], state: State, past: Past, spec: Spec
) -> Act:
    """Obs [B, T, N, O] -> what the policy plays there, [B, T, N, A]: with memory, from an episode's start.

    A policy that draws plays one draw for each row, the same in every call.
    """
    act, available = algorithm.act, jnp.broadcast_to(spec.act_mask > 0, spec.act_mask.shape)
    assert act is not None

    def played(obs: Float[Array, "B T N O"]) -> Float[Array, "B T N A"]:
        keys = jax.random.split(key, obs.shape[:2])

        def one(keys, obs):
            def step(memory, now):
                action, memory = act(now[0], state, past, memory, Observation(now[1], available))
                return memory, action

            if not jax.tree.leaves(algorithm.memory):
                return jax.vmap(lambda k, o: step(algorithm.memory, (k, o))[1])(keys, obs)
            return jax.lax.scan(step, algorithm.memory, (keys, obs))[1]

        return jnp.asarray(spec.act_mask) * jax.vmap(one)(keys, obs)

    return played


def augmented(
    stage: Stage, spec: Spec, cfg: Any, kind: Augmentation, horizon: int, name: str, owner: str
) -> Stage:
    """`stage` on real and synthetic rows, from the finished generator `name`; a finished state is the stage's own."""
    own, model = stage.algorithm, Generator(spec, cfg, horizon, kind.conditioned)
    held, size = model.held, cfg.augment_windows
    width = held.at["last"][1]

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Augmented:
        none, zero = jnp.zeros((), jnp.int32), jnp.zeros(())
        rows = jnp.zeros((size, horizon + 1, width))
        order, windows = (jnp.arange(n, dtype=jnp.int32) for n in (size * horizon, size))
        return Augmented(own.init(key, past, data), rows, order, none, windows, none, zero, zero)

    def batch(key: Key[Array, ""], state: Augmented, data: Dataset) -> Any:
        real, k_made = own.batch(key, state.base, data), jax.random.fold_in(key, 1)
        rows = len(real.obs)
        if isinstance(real, Window):
            fake, there = windowed(k_made, state, held, rows, real)
        elif isinstance(real, Batch):
            fake, there = transitions(k_made, state, held, rows, real)
        else:
            way = "Augment a system whose batches are transitions or windows."
            raise refuse(
                "--augment", "a base that learns from rows of the data", type(real).__name__, way
            )
        chosen = (jnp.arange(rows) < jnp.round(cfg.augment_share * rows)) & there
        pick = lambda a, b: jnp.where(chosen.reshape(-1, *(1,) * (a.ndim - 1)), a, b)
        return jax.tree.map(pick, fake, real)

    def update(
        key: Key[Array, ""], state: Augmented, past: Past, batch: Any
    ) -> tuple[Augmented, dict]:
        base, metrics = own.update(key, state.base, past, batch)
        found = {DROPPED: state.dropped, "synthetic_likelihood": state.likelihood}
        return state._replace(base=base), {**metrics, **found}

    def act(key, state, past, memory, observation):
        assert own.act is not None
        return own.act(
            key, state.base if isinstance(state, Augmented) else state, past, memory, observation
        )

    fields = (*DRAWN, *GENERATED, *kind.fields)
    whole = tuple(f.name for f in dataclasses.fields(cfg) if f.name not in CHECKED)
    return stage._replace(
        algorithm=own._replace(init=init, batch=batch, update=update, act=act),
        chunk=stage.chunk * cfg.augment_refresh,
        every=max(1, stage.every // cfg.augment_refresh),
        fields=whole if stage.fields is None else (*stage.fields, *fields),
        owner=owner,
        refresh=refreshing(own, spec, cfg, kind, model, name),
        kept=lambda state: stage.kept(state.base),
        limits=(
            Limit(
                DROPPED,
                cfg.augment_dropped,
                "synthetic windows",
                "with numbers that are not finite",
                LESS,
            ),
        ),
    )


def refreshing(
    own: Algorithm, spec: Spec, cfg: Any, kind: Augmentation, model: Generator, name: str
) -> Callable:
    """The stage's `refresh`: all windows anew, `augment_microbatch` of them side by side."""
    held, size, few = (
        model.held,
        cfg.augment_windows,
        min(cfg.augment_microbatch, cfg.augment_windows),
    )

    def refresh(key: Key[Array, ""], state: Augmented, past: Past, data: Dataset) -> Augmented:
        k_play, k_draw = jax.random.split(key)
        played, shift, trained = follower(own, k_play, state.base, past, spec), None, past[name]
        if kind.guided:
            scores = model.scores(trained, played, cfg.augment_coordinates == "chain")
            shift = towards(
                scores, strengths(cfg.augment_levels, cfg.augment_lambda, cfg.augment_raw)
            )

        def draw(key):
            rows = model.draw(key, trained, few, shift)
            obs, action = model.acted(rows)
            return rows, likelihood(action, played(obs), jnp.asarray(spec.act_mask))

        rows, found = jax.lax.map(draw, jax.random.split(k_draw, size // few))
        return counted(state, rows.reshape(size, *rows.shape[2:]), found.reshape(size), held)

    return refresh


def counted(
    state: Augmented, rows: Float[Array, "K T C"], found: Float[Array, " K"], held: Any
) -> Augmented:
    """The state with new windows, and which of their rows count: finite ones before an end of their episode."""
    size, steps = rows.shape[0], rows.shape[1] - 1
    good = jnp.all(jnp.isfinite(rows), axis=(1, 2)) & jnp.isfinite(found)
    rows = jnp.where(good[:, None, None], rows, 0.0)
    done = rows[:, :steps, held.at["done"][0]]
    before = jnp.cumsum(done, axis=1) - done
    usable = good[:, None] & (before == 0)
    known, last = jnp.ones((size, steps + 1, 1)), jnp.zeros((size, steps + 1, 1))
    last = last.at[:, steps - 1].set(1.0)  # what is done after a window is not known
    if steps > 1:
        usable = usable.at[:, -1].set(
            usable[:, -1] & (done[:, -1] > 0)
        )  # nor is it, unless nothing is
    usable = usable.reshape(-1)
    first = lambda flags: jnp.argsort(~flags, stable=True).astype(jnp.int32)
    whole = good.sum()
    return state._replace(
        rows=jnp.concatenate([rows, known, last], axis=-1),
        order=first(usable),
        usable=usable.sum().astype(jnp.int32),
        windows=first(good),
        whole=whole.astype(jnp.int32),
        dropped=1.0 - whole / size,
        likelihood=jnp.sum(jnp.where(good, found, 0.0)) / jnp.maximum(whole, 1),
    )


def transitions(
    key: Key[Array, ""], state: Augmented, held: Any, size: int, real: Batch
) -> tuple[Batch, Array]:
    """`size` synthetic transitions and whether there are any."""
    steps = state.rows.shape[1] - 1
    at = state.order[jax.random.randint(key, (size,), 0, jnp.maximum(state.usable, 1))]
    pair = state.rows[(at // steps)[:, None], (at % steps)[:, None] + jnp.arange(2)]
    row, after = (held.layout.unpack(pair[:, k]) for k in range(2))
    ones = jnp.ones_like
    made = Batch(
        **{k: row[k] for k in ("obs", "state", "action", "reward", "done", "last", "known")},
        team_reward=team_reward(held.layout.team, row["reward"]),
        **{f"next_{k}": after[k] for k in ("obs", "state", "action")},
        alive=ones(real.alive),
        available=ones(real.available),
        next_available=ones(real.next_available),
    )
    return made, state.usable > 0


def windowed(
    key: Key[Array, ""], state: Augmented, held: Any, size: int, real: Window
) -> tuple[Window, Array]:
    """`size` synthetic windows, as long as the real ones, and whether there are any."""
    length = real.valid.shape[1]
    if length > state.rows.shape[1] or real.extra:
        way = "Leave --cfg.augment-horizon out, or augment a base that prepares no rows of its own."
        raise refuse(
            "--augment", f"windows of at most {state.rows.shape[1]} plain rows", length, way
        )
    at = state.windows[jax.random.randint(key, (size,), 0, jnp.maximum(state.whole, 1))]
    row = held.layout.unpack(state.rows[at, :length])
    ends = lambda lag: jnp.cumsum(jnp.pad(row["done"], ((0, 0), (lag, 0)))[:, :length], axis=1) > 0
    # nothing was done in the last row, and nothing is after an end, whose successor row is there still
    acted = ((jnp.arange(length) < length - 1) & ~ends(1)).astype(jnp.float32)
    reward = row["reward"] * acted[..., None]
    made = Window(
        obs=row["obs"],
        state=row["state"],
        action=row["action"] * acted[..., None, None],
        reward=reward,
        team_reward=team_reward(held.layout.team, reward),
        done=row["done"] * acted,
        last=jnp.zeros_like(row["last"]),
        alive=jnp.ones_like(real.alive),
        available=jnp.ones_like(real.available),
        valid=(~ends(2)).astype(jnp.float32),
        extra={},
    )
    return made, state.whole > 0
