"""MADDPG+BC: one recurrent policy for all agents under central twin critics, drawn to the actions in the data.

**Paper**. Lowe et al. 2017 (MADDPG) with the cloning term of Fujimoto and Gu 2021 (TD3+BC), recurrent and with shared
networks as in OG-MARL's systems (Formanek et al. 2023); CODA's base learner (its Table 5).

**Pseudo-code**. On windows of H steps, each from an empty memory; every mean is over real steps, agents and columns:

    1   for each gradient step on a batch of windows:                               stage "policy", `update`
    2       a = pi(o_0..o_H), a' = pibar(o_0..o_H), unrolled
    3       y_i,t = r_i,t + gamma (1 - d_t) min_k Qbar^k(s_t+1, a'_t+1, i)
    4       Q^k: step down sum_k 1/2 mean (Q^k(s, a_data, i) - y_i)^2
    5       q_i = min_k Q^k(s, (a_i, others), i)            others: the data's actions, or sg pi's
    6       pi: step down -c_q mean q / sg[ mean |q| ] + c_a mean (a - a_data)^2 + 1e-3 mean a^2
    7       targets follow with polyak

(c_q, c_a) = (alpha, 1) with `coefficient_on="value"`, (1, alpha) with "clone".

**Differs**. The divisor is held constant (sg). In OG-MARL's code it is not: wherever a batch's values share a sign its
gradient of q is exactly zero, and what is left is cloning. Its "BC coefficient" 2.5 multiplies the value, not the
clone: `coefficient_on` has both readings, and at alpha = 0 the first is a clone. A window never leaves its episode, so
that a transition cut by the time limit bootstraps from its own successor, or does not count where the data lack it;
OG-MARL's sequences run on into the next episode. Whose `others` are the data's best-responds to the data (BRUD).

**Checked**. tests/probes/test_maddpg.py (both losses against ones written apart; the divisor; the cut transition; who
hears whom; memory), tests/contract.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

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
from jaxomarl.data.dataset import check_transitions
from jaxomarl.data.windows import sample_windows
from jaxomarl.losses.td import TIME_LIMITS
from jaxomarl.masking import column_mean
from jaxomarl.networks.agents import identified
from jaxomarl.networks.critics import twin
from jaxomarl.networks.inputs import flat, observed, stated
from jaxomarl.networks.recurrent import Recurrent, recurrent
from jaxomarl.optim import Net, create, descend, polyak

CHOICES = {
    "reward": ("own", "team"),
    "time_limit": TIME_LIMITS,
    "others": ("data", "policy"),
    "coefficient_on": ("value", "clone"),
}


@config
class Config:
    """MADDPG+BC's settings; the defaults are CODA's Table 5 and OG-MARL's code."""

    reward: str = static(default="team")
    """Reward that is learned. team: the team's, for every agent. own: each agent's."""
    time_limit: str = static(default="bootstrap")
    """How a time limit counts. bootstrap: the episode continues past it. terminal: it ends the episode."""
    normalise: bool = static(default=False)
    """Whether the networks' observations and states are normalised to mean 0 and standard deviation 1."""
    others: str = static(default="data")
    """Team-mates' actions in the policy's loss. data: the batch's. policy: those of the current policy."""
    alpha: float = traced(default=2.5, within="[0, inf)")
    """Weight of the term that --cfg.coefficient-on names, the papers' BC coefficient."""
    coefficient_on: str = static(default="value")
    """Term that alpha multiplies. value: the normalised value, as in the codes. clone: the cloning term."""
    gamma: float = traced(default=0.99, within="[0, 1]")
    """Discount factor of future rewards."""
    chunk: int = static(default=1000)
    """Updates of one compiled scan; reports and checkpoints fall between two scans."""
    every: int = static(default=10)
    """Chunks between two evaluations, at which checkpoints are written too."""
    horizon: int = static(default=20)
    """Steps of a training window, which is padded where the episode ends."""
    policy_steps: int = static(default=500_000, scaled="steps")
    """Gradient steps of the critics and the policy, which train together."""
    policy_batch: int = static(default=32)
    """Windows in a batch."""
    policy_width: int = static(default=64, scaled="width")
    """Width of the policy's hidden layer and of its recurrent memory."""
    policy_lr: float = traced(default=3e-4, within="(0, inf)")
    """Learning rate of the policy."""
    critic_width: int = static(default=128, scaled="width")
    """Width of the critics' two hidden layers."""
    critic_lr: float = traced(default=3e-4, within="(0, inf)")
    """Learning rate of the critics."""
    polyak: float = traced(default=0.005, within="(0, 1]")
    """Rate at which target networks follow the trained ones."""
    action_penalty: float = traced(default=1e-3, within="[0, inf)")
    """Weight of the mean square of the policy's actions in its loss."""


class Learner(NamedTuple):
    """The policy and the twin critics with their targets; all agents share both."""

    actor: Net
    critic: Net


class Nets(NamedTuple):
    """The networks and what steps them."""

    actor: Recurrent
    play: Callable[..., Array]  # (params, obs [B, T, N, O]) -> [B, T, N, A]
    q: Callable[
        ..., Array
    ]  # (params, state [B, T, S], action [B, T, M, N, A]) -> [E, B, T, N]; M is N or 1
    init_q: Callable[[Key[Array, ""]], Any]
    tx_actor: optax.GradientTransformation
    tx_q: optax.GradientTransformation


def networks(spec: Spec, cfg: Config) -> Nets:
    """One policy and two critics, told which agent is meant."""
    n = spec.agents
    actor = recurrent(spec.obs_width + n, cfg.policy_width, spec.act_width)
    critic = twin(spec.state_dim + n, n * spec.act_width, (cfg.critic_width,) * 2)
    mask = jnp.asarray(spec.act_mask)

    def play(params: Any, obs: Float[Array, "B T N O"]) -> Float[Array, "B T N A"]:
        along = jnp.swapaxes(identified(obs, n), 1, 2)
        return mask * jnp.swapaxes(actor.unrolled(params, along), 1, 2)

    def q(
        params: Any, state: Float[Array, "B T S"], action: Float[Array, "B T M N A"]
    ) -> Float[Array, "E B T N"]:
        """Values for agent i where all agents act as in `action[..., i]`, or in its only one."""
        told = identified(
            jnp.broadcast_to(state[..., None, :], (*state.shape[:-1], n, state.shape[-1])), n
        )
        joint = jnp.broadcast_to(flat(action), (*told.shape[:-1], n * spec.act_width))
        return critic.apply(params, told, joint)

    return Nets(actor, play, q, critic.init, optax.adam(cfg.policy_lr), optax.adam(cfg.critic_lr))


def counts(window: Window) -> Float[Array, "B H N"]:
    """1.0 for transitions that were made, by agents that were there, and whose successor is known or not needed."""
    made = window.valid[:, :-1] * jnp.maximum(window.valid[:, 1:], window.done[:, :-1])
    return made[..., None] * window.alive[:, :-1]


def average(x: Float[Array, "... B H N"], weight: Float[Array, "B H N"]) -> Float[Array, "..."]:
    """Mean over what counts."""
    return jnp.sum(x * weight, axis=(-3, -2, -1)) / jnp.maximum(weight.sum(), 1.0)


def policy(spec: Spec, cfg: Config) -> Algorithm:
    """The algorithm."""
    nets, see, state_of, mask = (
        networks(spec, cfg),
        observed(spec, cfg),
        stated(cfg),
        jnp.asarray(spec.act_mask),
    )
    weights = (cfg.alpha, 1.0) if cfg.coefficient_on == "value" else (1.0, cfg.alpha)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Learner:
        k_actor, k_q = jax.random.split(key)
        one = lambda tx, params: create(tx, params, target=True)
        return Learner(
            one(nets.tx_actor, nets.actor.init(k_actor)), one(nets.tx_q, nets.init_q(k_q))
        )

    def batch(key: Key[Array, ""], state: State, data: Dataset) -> Window:
        return sample_windows(key, data, cfg.policy_batch, cfg.horizon)._replace(extra={})

    # line 1
    def update(
        key: Key[Array, ""], state: Learner, past: Past, batch: Window
    ) -> tuple[Learner, dict]:
        obs, seen, count = see(past, batch.obs), state_of(past, batch.state), counts(batch)
        now, done = seen[:, :-1], batch.action[:, :-1] * mask
        y = targets(spec, cfg, nets, state, obs, seen, batch)  # line 3

        def critic_loss(params):
            q = nets.q(params, now, done[:, :, None])
            error = average(jnp.square(q - y), count)
            return 0.5 * error.sum(), {
                "q_loss": error.sum(),
                "q_mean": average(q, count).mean(),
            }  # line 4

        grads, judged = jax.grad(critic_loss, has_aux=True)(state.critic.params)
        critic = descend(nets.tx_q, state.critic, grads)

        def actor_loss(params):
            a = nets.play(params, obs)[:, :-1]  # line 2
            rest = done if cfg.others == "data" else jax.lax.stop_gradient(a)
            eye = jnp.eye(spec.agents)[..., None]
            q = nets.q(critic.params, now, jnp.where(eye > 0, a[:, :, None], rest[:, :, None])).min(
                axis=0
            )  # line 5
            scale = jax.lax.stop_gradient(average(jnp.abs(q), count)) + 1e-8
            clone, effort = (
                average(column_mean(jnp.square(x), mask), count) for x in (a - done, a)
            )
            loss = (
                weights[1] * clone
                - weights[0] * average(q, count) / scale
                + cfg.action_penalty * effort
            )  # line 6
            return loss, {"policy_loss": loss, "q_played": average(q, count), "clone_loss": clone}

        grads, metrics = jax.grad(actor_loss, has_aux=True)(state.actor.params)
        actor = descend(nets.tx_actor, state.actor, grads)
        return Learner(
            polyak(actor, cfg.polyak), polyak(critic, cfg.polyak)
        ), judged | metrics  # line 7

    def act(key, state, past, memory, observation):
        told = identified(see(past, observation.obs), spec.agents)
        memory, action = nets.actor.step(state.actor.params, memory, told)
        return mask * action, memory

    return Algorithm(init, batch, update, act, memory=jnp.zeros((spec.agents, cfg.policy_width)))


def targets(
    spec: Spec,
    cfg: Config,
    nets: Nets,
    state: Learner,
    obs: Float[Array, "B W N O"],
    seen: Float[Array, "B W S"],
    batch: Window,
) -> Float[Array, "B H N"]:
    """The y of line 3."""
    after = nets.play(state.actor.target, obs)[:, 1:]  # line 2
    ahead = nets.q(state.critic.target, seen[:, 1:], after[:, :, None]).min(axis=0)
    reward = batch.reward if cfg.reward == "own" else batch.team_reward[..., None]
    ends = jnp.maximum(batch.done, batch.last) if cfg.time_limit == "terminal" else batch.done
    return reward[:, :-1] + cfg.gamma * (1.0 - ends[:, :-1, None]) * ahead


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings, tasks or data that it cannot train on."""
    if spec.discrete:
        raise refuse("--task", "continuous actions", "a discrete task", "Its policy follows dQ/da.")
    check_fields(cfg, CHOICES)
    check_transitions(data)


def pipeline(spec: Spec, cfg: Config, env: Environment | None = None) -> tuple[Stage, ...]:
    """One stage."""
    return (
        Stage(
            "policy", policy(spec, cfg), cfg.policy_steps, cfg.chunk, cfg.every, owner="maddpg-bc"
        ),
    )


MADDPG_BC = System(Config, check, lambda spec, cfg, data: data, pipeline)
