"""MADT: each agent's next action by a causal transformer of returns to go, observations and actions.

**Paper**. Meng et al. 2023, "Offline Pre-trained Multi-agent Decision Transformer", Algorithm 1, offline part; the
transformer is Chen et al. 2021's.

**Pseudo-code**. One transformer for all agents, told whose rows it reads:

    1   each row: R_i = agent i's return to go, as a share of the data's range                   `prepare`
    2   for each gradient step on a batch of windows of C rows that end in the present one:      stage "policy"
    3       step down mean |f(R_1, o_1, a_1, .., R_c, o_c)_c - a_c|^2 over rows of the episode, or the cross-entropy
    4   act: remember the last C rows; R_t = target x the largest R that the data have at step t; play f's last output

**Differs**.

- The papers subtract the rewards received from the return asked for; line 4 reads what is left to ask for off the data,
  step by step, so that it is never more than what some row reached.
- The state is not told to the transformer: only what an agent sees itself, so that it is played apart.
- Actions that were not available have no share in the cross-entropy.
- There is no dropout and no weight decay. Widths are Decision Transformer's; MADT prints them for other tasks.

**Checked**. tests/probes/test_madt.py (no row reads a later one, or one from before its episode; the memory against a
plain loop; a better return is played when asked for), tests/contract.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxomarl.base import (
    Algorithm,
    Dataset,
    Environment,
    Past,
    Spec,
    Stage,
    State,
    System,
    Window,
    refuse,
)
from jaxomarl.config import check_fields, config, static, traced
from jaxomarl.data.dataset import check_batch, check_transitions
from jaxomarl.data.returns import conditioned
from jaxomarl.data.windows import sample_windows
from jaxomarl.losses.imitation import action_error
from jaxomarl.masking import weighted_mean
from jaxomarl.networks.actors import played
from jaxomarl.networks.agents import identified
from jaxomarl.networks.inputs import observed
from jaxomarl.networks.mlp import Network
from jaxomarl.networks.transformer import decision_transformer, last_steps
from jaxomarl.optim import Net, clipped_adam, create, descend

CHOICES = {"reward": ("own", "team")}


@config
class Config:
    """MADT's settings."""

    context: int = static(default=20)
    """C: rows that the transformer reads, the present one included."""
    reward: str = static(default="team")
    """Return that is the condition. team: the team's, for every agent. own: each agent's."""
    gamma: float = static(default=1.0, within="[0, 1]")
    """Discount factor of the returns to go."""
    return_scale: float = static(default=0.0, within="[0, inf)")
    """Return that counts as 1; 0 maps the data's range of returns to 0 .. 1."""
    target: float = traced(default=1.0, within="(-inf, inf)")
    """Share of the data's largest return to go that every step asks for."""
    normalise: bool = static(default=True)
    """Whether the network's observations are normalised to mean 0 and standard deviation 1."""
    layers: int = static(default=3)
    """Layers of the transformer."""
    heads: int = static(default=4)
    """Attention heads of each layer."""
    chunk: int = static(default=1000)
    """Updates of one compiled scan; reports and checkpoints fall between two scans."""
    every: int = static(default=10)
    """Chunks between two evaluations, at which checkpoints are written too."""
    policy_steps: int = static(default=100_000, scaled="steps")
    """Gradient steps of the transformer."""
    policy_batch: int = static(default=64)
    """Windows in a batch."""
    policy_width: int = static(default=128, scaled="width")
    """Width of the transformer, a multiple of its heads."""
    policy_lr: float = traced(default=1e-4, within="(0, inf)")
    """Learning rate of the transformer."""
    clip: float = traced(default=0.25, within="(0, inf)")
    """Largest norm of a gradient."""


class Learner(NamedTuple):
    """The transformer, and the largest return to go of the data by step and agent."""

    net: Net
    best: Float[Array, "T N"]


class Memory(NamedTuple):
    """One environment's last C rows, the newest last, and steps so far."""

    returns: Float[Array, "N C"]
    obs: Float[Array, "N C O"]
    action: Float[Array, "N C A"]
    step: Int[Array, ""]


def network(spec: Spec, cfg: Config) -> Network:
    """The transformer of one agent's rows, who it is appended to what it sees."""
    wide = spec.obs_width + spec.agents
    return decision_transformer(
        wide, spec.act_width, cfg.policy_width, cfg.layers, cfg.heads, spec.horizon
    )


def policy(spec: Spec, cfg: Config) -> Algorithm:
    """The algorithm."""
    net, see, mask = network(spec, cfg), observed(spec, cfg), jnp.asarray(spec.act_mask)
    tx = clipped_adam(cfg.policy_lr, cfg.clip)
    n, rows, last = spec.agents, cfg.context, spec.horizon

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Learner:
        best = jax.ops.segment_max(data.extra["returns"], data.step, last + 1)
        return Learner(create(tx, net.init(key)), jnp.where(jnp.isfinite(best), best, 0.0))

    def batch(key: Key[Array, ""], state: State, data: Dataset) -> Window:
        return sample_windows(key, data, cfg.policy_batch, horizon=0, history=rows - 1)

    def read(params, past, returns, obs, action, step, valid):
        """All agents' rows [..., N, C, ...] to actions [..., C, N, A]."""
        who = jnp.swapaxes(identified(see(past, jnp.swapaxes(obs, -2, -3)), n), -2, -3)
        shape = obs.shape[:-1]
        step, valid = (jnp.broadcast_to(x[..., None, :], shape) for x in (step, valid))
        return jnp.swapaxes(
            net.apply(params, returns, who, action * mask[:, None], step, valid), -2, -3
        )

    # line 2
    def update(
        key: Key[Array, ""], state: Learner, past: Past, batch: Window
    ) -> tuple[Learner, dict]:
        whose = lambda x: jnp.swapaxes(x, 1, 2)
        returns, step = whose(batch.extra["returns"]), batch.extra["step"]
        weight = batch.valid[..., None] * batch.alive

        def loss(params):
            out = read(
                params, past, returns, whose(batch.obs), whose(batch.action), step, batch.valid
            )
            wrong = action_error(spec, out, batch.action, batch.available)
            return weighted_mean(wrong, weight)

        value, grads = jax.value_and_grad(loss)(state.net.params)  # line 3
        return state._replace(net=descend(tx, state.net, grads)), {"policy_loss": value}

    def act(key, state, past, memory, observation):  # line 4
        newest = lambda old, new: jnp.concatenate([old[:, 1:], new[:, None]], axis=1)
        asked = cfg.target * state.best[jnp.minimum(memory.step, last)]
        returns, obs = newest(memory.returns, asked), newest(memory.obs, observation.obs)
        blank = newest(memory.action, jnp.zeros_like(mask))  # what is not known yet, and not read
        out = read(state.net.params, past, returns, obs, blank, *last_steps(memory.step, rows))
        action = played(spec, out[-1], observation.available)
        return action, Memory(returns, obs, blank.at[:, -1].set(action), memory.step + 1)

    held = lambda *shape: jnp.zeros((n, rows, *shape))
    memory = Memory(held(), held(spec.obs_width), held(spec.act_width), jnp.zeros((), jnp.int32))
    return Algorithm(init, batch, update, act, memory)


def prepare(spec: Spec, cfg: Config, data: Dataset) -> Dataset:
    """The data with returns to go, and the step of each row."""
    # line 1
    data = conditioned(data, cfg.gamma, "togo", cfg.reward, cfg.return_scale)
    return dataclasses.replace(
        data, extra={**data.extra, "step": jnp.minimum(data.step, spec.horizon)}
    )


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings or data that it cannot train on."""
    check_fields(cfg, CHOICES)
    check_transitions(data)
    if cfg.policy_width % cfg.heads:
        way = f"Take a multiple of {cfg.heads}, or other --cfg.heads."
        raise refuse(
            "--cfg.policy-width", f"a multiple of the {cfg.heads} heads", cfg.policy_width, way
        )
    check_batch(data, cfg.policy_batch)


def pipeline(spec: Spec, cfg: Config, env: Environment | None = None) -> tuple[Stage, ...]:
    """One stage."""
    return (
        Stage("policy", policy(spec, cfg), cfg.policy_steps, cfg.chunk, cfg.every, owner="madt"),
    )


MADT = System(Config, check, prepare, pipeline)
