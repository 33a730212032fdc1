"""The planners' settings, their networks for all agents' plans, and what they refuse."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxomarl.base import Dataset, Spec, refuse
from jaxomarl.config import check_fields, config, flag, static, traced
from jaxomarl.data.dataset import check_transitions
from jaxomarl.data.returns import KINDS, conditioned, returns
from jaxomarl.data.windows import check_windows
from jaxomarl.networks.mlp import Network
from jaxomarl.networks.temporal import temporal_unet
from jaxomarl.optim import Params
from jaxomarl.stages import ranges, targets
from jaxomarl.stages.planning import SAMPLERS, Predict

MULTIPLIERS = (1, 4, 8)

CHOICES = {
    "normaliser": ranges.KINDS,
    "returns": (*KINDS, "none"),
    "reward": ("own", "team"),
    "predict": ("noise", "clean"),
    "sampler": (*SAMPLERS, "consistency"),
    "acting": ("target", "online"),
    "target_kind": targets.KINDS,
}


@config
class Config:
    """Settings of planners; the defaults are DoF-Trajectory's Table 7, and MADiff's code where it is silent."""

    horizon: int = static(default=20)
    """H: steps ahead that are planned."""
    history: int = static(default=8, within="[0, inf)")
    """C: past observations that a plan begins with, before the present one."""
    replan: int = static(default=1)
    """Steps for which a plan is followed."""
    normaliser: str = static(default="cdf")
    """cdf: observations' ranks. limits: from the data's least to its largest."""
    returns: str = static(default="togo")
    """What plans are conditioned on: togo, the discounted return from the present on; episode, the whole one's."""
    reward: str = static(default="own")
    """own: each agent's return. team: the team's, for every agent."""
    gamma: float = static(default=0.99, within="[0, 1]")
    """Of those returns."""
    return_scale: float = static(default=0.0, within="[0, inf)")
    """Return that counts as 1; 0 counts from the data's least, 0, to its largest, 1."""
    target: float = traced(default=0.9, within="(-inf, inf)")
    """Return that is asked for when acting, in that scale, or its quantile."""
    target_kind: str = static(default="constant")
    """constant: the same at every step. remaining: less the rewards received. quantile: of the data's at that step."""
    guidance: float = traced(default=1.2, within="[0, inf)")
    """w: 1 conditions, more exaggerates the condition, 0 leaves it out."""
    drop: float = traced(default=0.25, within="[0, 1]")
    """Chance that an agent's condition is left out in training."""
    levels: int = static(default=200)
    """K: noise levels of the squared-cosine schedule that are trained."""
    sampler: str = static(default="ddpm")
    """ddpm, ddim, or consistency: a model that is distilled from the planner, for --cfg.calls 1 or a few."""
    calls: int = static(default=200)
    """Steps of the sampler; each is a call of the network with the condition and one without."""
    grid: int = static(default=40)
    """G: times between whose neighbours a consistency model is distilled."""
    temperature: float = traced(default=0.5, within="[0, inf)")
    """Standard deviation of the noise that sampling starts from."""
    predict: str = static(default="noise")
    """noise, or clean: the plan itself, which survives a handful of steps better."""
    polyak: float = traced(default=0.005, within="(0, 1]")
    """Rate at which the averaged weights follow."""
    acting: str = static(default="target")
    """Which weights plan: target, the averaged ones, or online."""
    depth: int = static(default=3)
    """Levels of the U: 1, 4 and 8 times the width."""
    reach: int = static(default=2)
    """Rows to either side that a convolution sees: a kernel of 2 reach + 1."""
    blocks: int = static(default=2)
    """Blocks of each level, each way."""
    chunk: int = static(default=1000)
    """Updates per compiled scan."""
    every: int = static(default=100)
    """Chunks between evaluations and checkpoints: an evaluation plans at every step of every episode."""
    episodes: int = static(default=0, within="[0, inf)")
    """Of each evaluation; 0: as many as other systems play (--episodes)."""
    policy_steps: int = static(default=100_000)
    student_steps: int = static(default=50_000)
    """Updates of a consistency model."""
    policy_batch: int = static(default=64)
    policy_width: int = static(default=128)
    """Of the U's first level."""
    inverse_width: int = static(default=256)
    """Of the inverse dynamics' two hidden layers."""
    policy_lr: float = traced(default=2e-4, within="(0, inf)")


# --- networks for all agents' plans: (params, x [..., N, W, D], t, told [..., N, 2]) -> like x ---


def unet(cfg: Any, channels: int, agents: int = 0) -> Network:
    """One temporal U-Net of these settings, told a return where there is one."""
    return temporal_unet(
        channels, int(cfg.returns != "none"), cfg.policy_width, MULTIPLIERS[: cfg.depth], 2 * cfg.reach + 1,
        agents=agents, blocks=cfg.blocks,
    )  # fmt: skip


def heard(net: Network) -> Predict:
    """The network as a prediction: the return is its condition, what is dropped has none."""
    return lambda params, x, t, told: net.apply(params, x, t, told[..., :1], told[..., 1])


def separate(net: Network, agents: int) -> tuple[Callable, Predict]:
    """Each agent's own network, on its own plan."""
    each = jax.vmap(heard(net), in_axes=(0, -3, None, -2), out_axes=-3)
    return lambda key: jax.vmap(net.init)(jax.random.split(key, agents)), each


def shared(make: Callable[[int], Network], width: int, agents: int) -> tuple[Callable, Predict]:
    """One network for every agent's plan, told whose it is by `agents` channels more than the plan's `width`."""
    net = make(width + agents)
    predict = heard(net)

    def named(params: Params, x: Array, t: Array, told: Array) -> Array:
        who = jnp.broadcast_to(jnp.eye(agents)[:, None], (*x.shape[:-1], agents))
        return predict(params, jnp.concatenate([x, who], axis=-1), t, told)[..., :width]

    return net.init, named


def whole(net: Network) -> tuple[Callable, Predict]:
    """One network of all plans side by side; it is told the first agent's return."""

    def predict(params: Params, x: Float[Array, "*B N W O"], t: Array, told: Array) -> Array:
        rows = jnp.moveaxis(x, -3, -2)
        out = heard(net)(params, rows.reshape(*rows.shape[:-2], -1), t, told[..., 0, :])
        return jnp.moveaxis(out.reshape(rows.shape), -2, -3)

    return net.init, predict


# --- the data, and what is refused ---


def prepare(spec: Spec, cfg: Any, data: Dataset) -> Dataset:
    """The data with returns as conditions, where the settings ask for them."""
    if cfg.returns == "none":
        return data
    unit = cfg.target_kind != "constant"
    return conditioned(data, cfg.gamma, cfg.returns, cfg.reward, cfg.return_scale, unit)


def check(spec: Spec, cfg: Any, data: Dataset | None, choices: dict[str, tuple[str, ...]]) -> None:
    """Raise JaxomarlError for settings or data that a planner cannot learn on or plan with."""
    check_fields(cfg, {**CHOICES, **choices})
    check_transitions(data)
    check_windows(data, cfg.horizon, cfg.history)
    for name, most, why in (
        ("depth", len(MULTIPLIERS), "the U's levels are 1, 4 and 8 times its width"),
        ("replan", cfg.horizon, "a plan is no longer than --cfg.horizon"),
        ("calls", most_calls(cfg), "a sampler visits noise levels that were trained"),
    ):
        if getattr(cfg, name) > most:
            raise refuse(flag(name), f"at most {most}", getattr(cfg, name), f"Take {most}: {why}.")
    check_returns(cfg, data)
    check_target(cfg)
    if data is not None and cfg.policy_batch > data.starts.shape[0]:
        rows = data.starts.shape[0]
        way = f"Take {rows}, or --rows."
        raise refuse("--cfg.policy-batch", f"at most the data's {rows} transitions", cfg.policy_batch, way)


def check_target(cfg: Any) -> None:
    """Raise JaxomarlError for a target that the returns do not allow."""
    if cfg.target_kind == "constant":
        return
    if cfg.returns != "togo":
        way = "Take --cfg.returns togo, or --cfg.target-kind constant."
        raise refuse("--cfg.target-kind", f"constant with returns {cfg.returns}", cfg.target_kind, way)
    if cfg.target_kind == "quantile" and not 0.0 <= cfg.target <= 1.0:
        way = "1 asks for the largest return that the data get from each step on."
        raise refuse("--cfg.target", "a quantile from 0 to 1", cfg.target, way)
    if cfg.target_kind == "remaining" and cfg.gamma == 0.0:
        way = "A return without a future leaves nothing to ask for: take --cfg.target-kind quantile."
        raise refuse("--cfg.gamma", "above 0 with --cfg.target-kind remaining", cfg.gamma, way)


def most_calls(cfg: Any) -> int:
    """Noise levels that were trained."""
    return cfg.grid if cfg.sampler == "consistency" else cfg.levels


def check_returns(cfg: Any, data: Dataset | None) -> None:
    """Raise JaxomarlError where guidance is asked for and there are no returns that it could follow."""
    if cfg.returns == "none":
        if cfg.guidance != 1.0:
            way = "There is no condition to exaggerate: take --cfg.guidance 1, or --cfg.returns togo."
            raise refuse("--cfg.guidance", "1 without returns", cfg.guidance, way)
        return
    if data is None:
        return
    found = returns(data, cfg.gamma, cfg.returns, cfg.reward)[np.asarray(data.left) > 0]
    if np.ptp(found) == 0:
        wanted = f"returns that differ, to condition on and to guide by (--cfg.returns {cfg.returns})"
        way = "Take --cfg.returns none --cfg.guidance 1, or data with rewards."
        raise refuse("--data", wanted, f"{float(found.flat[0]):g} in every transition", way)
