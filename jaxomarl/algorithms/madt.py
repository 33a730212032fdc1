"""MADT: a causal transformer of returns, observations and actions plays each agent's next action.

**Paper**. Meng et al. 2023, "Offline Pre-trained Multi-agent Decision Transformer", Algorithm 1,
offline part; the transformer is Chen et al. 2021's.

**Pseudo-code**. One transformer for all agents, conditioned on the agent:

    1   each row: R_i = agent i's return to go, as a share of the data's range      `prepare`
    2   for each gradient step on a batch of windows of C rows that end in the present one:
                                                                          stage "policy"
    3       step down mean |f(R_1, o_1, a_1, .., R_c, o_c)_c - a_c|^2 over rows of the episode,
            or the cross-entropy
    4   act: remember the last C rows; R_t = target x the largest R that the data have at step t;
        play the last output of f

**Differs**.

- The papers subtract the received rewards from the target return. Line 4 reads the target off the
  data, step by step, so it never exceeds what some row reached.
- The transformer does not see the state, only what the agent itself observes, so that agents act
  alone.
- Actions that were not available have no share in the cross-entropy.
- There is no dropout and no weight decay. The widths are Decision Transformer's; MADT prints widths
  for other tasks.

**Checked**. tests/probes/test_madt.py (no row reads a later one, or one from before its episode;
the memory against a plain loop; a higher target return gets a better return), tests/contract.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxomarl.base import (
    Algorithm,
    Dataset,
    Health,
    Past,
    Spec,
    State,
    System,
    Window,
    one_stage,
    refuse,
)
from jaxomarl.config import Pacing, check_fields, config, static, traced
from jaxomarl.data.dataset import check_batch, check_transitions
from jaxomarl.data.returns import with_returns
from jaxomarl.data.windows import sample_windows
from jaxomarl.health import behaviour
from jaxomarl.losses.imitation import action_error
from jaxomarl.masking import weighted_mean
from jaxomarl.networks.actors import action_of_output
from jaxomarl.networks.agents import with_agent_number
from jaxomarl.networks.inputs import observation_normaliser
from jaxomarl.networks.mlp import Network
from jaxomarl.networks.transformer import decision_transformer, last_steps
from jaxomarl.optim import Net, Params, clipped_adam, create, descend

CHOICES = {"reward": ("own", "team")}


@config
class Config(Pacing):
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
    """Target return of every step, as a share of the data's largest return to go."""
    normalise: bool = static(default=True)
    """Whether the network's observations are normalised to mean 0 and standard deviation 1."""
    layers: int = static(default=3)
    """Layers of the transformer."""
    heads: int = static(default=4)
    """Attention heads of each layer."""
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


class TransformerLearner(NamedTuple):
    """The transformer, and the largest return to go of the data by step and agent."""

    net: Net
    best: Float[Array, "T N"]


class Memory(NamedTuple):
    """One environment's last C rows, the newest last, and the number of steps so far."""

    returns: Float[Array, "N C"]
    obs: Float[Array, "N C O"]
    action: Float[Array, "N C A"]
    step: Int[Array, ""]


def network(spec: Spec, cfg: Config) -> Network:
    """Build the transformer of one agent's rows; each observation ends with the agent's number."""
    return decision_transformer(
        spec.obs_width + spec.agents,
        spec.act_width,
        cfg.policy_width,
        cfg.layers,
        cfg.heads,
        spec.horizon,
    )


def empty_memory(spec: Spec, cfg: Config) -> Memory:
    """The memory at the start of an episode."""
    rows = (spec.agents, cfg.context)
    return Memory(
        returns=jnp.zeros(rows),
        obs=jnp.zeros((*rows, spec.obs_width)),
        action=jnp.zeros((*rows, spec.act_width)),
        step=jnp.zeros((), jnp.int32),
    )


def swap_rows(x: Float[Array, "*B R N I"]) -> Float[Array, "*B N R I"]:
    """Exchange the axes of rows and agents."""
    return jnp.swapaxes(x, -2, -3)


def appended(rows: Float[Array, "N C *I"], new: Float[Array, "N *I"]) -> Float[Array, "N C *I"]:
    """The rows without the oldest, and the new one."""
    return jnp.concatenate([rows[:, 1:], new[:, None]], axis=1)


def predictor(spec: Spec, cfg: Config) -> Callable[..., Float[Array, "*B C N A"]]:
    """Build the prediction of every row's action from the rows up to it."""
    net = network(spec, cfg)
    normalise_obs = observation_normaliser(spec, cfg)
    action_mask = jnp.asarray(spec.act_mask)

    def predict(params, past, returns, obs, action, step, valid):
        """All agents' rows [..., N, C, ...] -> actions [..., C, N, A]."""
        seen = with_agent_number(normalise_obs(past, swap_rows(obs)), spec.agents)
        inputs = swap_rows(seen)
        step = jnp.broadcast_to(step[..., None, :], obs.shape[:-1])
        valid = jnp.broadcast_to(valid[..., None, :], obs.shape[:-1])
        action = action * action_mask[:, None]
        return swap_rows(net.apply(params, returns, inputs, action, step, valid))

    return predict


def predicted_rows(
    predict: Callable[..., Array], params: Params, past: Past, batch: Window
) -> Float[Array, "B C N A"]:
    """The action of every row of windows, from the data's own returns and actions before it."""
    returns = jnp.swapaxes(batch.extra["returns"], 1, 2)
    obs = jnp.swapaxes(batch.obs, 1, 2)
    action = jnp.swapaxes(batch.action, 1, 2)
    return predict(params, past, returns, obs, action, batch.extra["step"], batch.valid)


def policy(spec: Spec, cfg: Config) -> Algorithm:
    """Build the learner: one transformer that plays for every agent."""
    net = network(spec, cfg)
    predict = predictor(spec, cfg)
    action_mask = jnp.asarray(spec.act_mask)
    optimiser = clipped_adam(cfg.policy_lr, cfg.clip)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> TransformerLearner:
        best = jax.ops.segment_max(data.extra["returns"], data.step, spec.horizon + 1)
        net_state = create(optimiser, net.init(key))
        return TransformerLearner(net_state, jnp.where(jnp.isfinite(best), best, 0.0))

    def batch(key: Key[Array, ""], state: State, data: Dataset) -> Window:
        return sample_windows(key, data, cfg.policy_batch, horizon=0, history=cfg.context - 1)

    # line 2
    def update(
        key: Key[Array, ""], state: TransformerLearner, past: Past, batch: Window
    ) -> tuple[TransformerLearner, dict]:
        weight = batch.valid[..., None] * batch.alive

        # line 3
        def loss(params):
            predicted = predicted_rows(predict, params, past, batch)
            error = action_error(spec, predicted, batch.action, batch.available)
            return weighted_mean(error, weight)

        value, grads = jax.value_and_grad(loss)(state.net.params)
        return state._replace(net=descend(optimiser, state.net, grads)), {"policy_loss": value}

    # line 4
    def act(key, state, past, memory, observation):
        target = cfg.target * state.best[jnp.minimum(memory.step, spec.horizon)]
        returns = appended(memory.returns, target)
        obs = appended(memory.obs, observation.obs)
        unknown = appended(memory.action, jnp.zeros_like(action_mask))  # its last row is not read
        step_and_valid = last_steps(memory.step, cfg.context)
        output = predict(state.net.params, past, returns, obs, unknown, *step_and_valid)
        action = action_of_output(spec, output[-1], observation.available)
        actions = unknown.at[:, -1].set(action)
        return action, Memory(returns, obs, actions, memory.step + 1)

    return Algorithm(init, batch, update, act, empty_memory(spec, cfg))


def prepare(spec: Spec, cfg: Config, data: Dataset) -> Dataset:
    """Add returns to go, and the step of each row."""
    # line 1
    data = with_returns(data, cfg.gamma, "togo", cfg.reward, cfg.return_scale)
    step = jnp.minimum(data.step, spec.horizon)
    return dataclasses.replace(data, extra={**data.extra, "step": step})


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings or data that MADT cannot train on."""
    check_fields(cfg, CHOICES)
    check_transitions(data)
    if cfg.policy_width % cfg.heads:
        expected = f"a multiple of the {cfg.heads} heads"
        way = f"Take a multiple of {cfg.heads}, or other --cfg.heads."
        raise refuse("--cfg.policy-width", expected, cfg.policy_width, way)
    check_batch(data, cfg.policy_batch)


def health(spec: Spec, cfg: Config, algorithm: Algorithm) -> Health:
    """The action of the last row of held-out windows, from the data's rows before it."""
    rows_of = predictor(spec, cfg)

    def predict(
        key: Key[Array, ""], state: TransformerLearner, past: Past, held: Dataset
    ) -> behaviour.Predicted:
        windows = sample_windows(key, held, behaviour.DRAWN, horizon=0, history=cfg.context - 1)
        out = predicted_rows(rows_of, state.net.params, past, windows)[:, -1]
        action = jax.vmap(partial(action_of_output, spec))(out, windows.available[:, -1] > 0)
        return behaviour.Predicted(action, windows.action[:, -1], windows.alive[:, -1])

    raise_fields = ("policy_steps", "policy_batch", "policy_width")
    return behaviour.predictor(spec, predict, raise_fields)


pipeline = one_stage("madt", policy, health=health)
MADT = System(Config, check, prepare, pipeline)
