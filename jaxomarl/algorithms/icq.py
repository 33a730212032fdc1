"""MA-ICQ: each agent learns the values of what the data did next, and copies the actions that did better than usual.

**Paper**. Yang et al. 2021, "Believe What You See: Implicit Constraint Approach for Offline Multi-Agent Reinforcement
Learning", its implicit constraint, run by every agent alone as in Pan et al. 2022 (OMAR).

**Pseudo-code**. For every agent i, on its own observation, action and reward, a' the action that the data took next:

    1   for each gradient step on a batch of transitions:                       stage "values", `step`
    2       rho = n softmax_batch(min_k Qbar^k(o', a') / beta_T), over the n transitions that go on
    3       each Q^k: step down mean (Q^k(o, a) - r - gamma (1 - d) rho min_k Qbar^k(o', a'))^2
    4       V: step down mean (V(o) - min_k Qbar^k(o, a))^2
    5       targets follow with polyak
    6   for each gradient step on a batch of transitions:                       stage "policy" (stages/clone.py)
    7       w = B softmax_batch((min_k Qbar^k(o, a) - V(o)) / beta_A)
    8       pi: step down -mean w log pi(a | o)

**Differs**. Three things are called MA-ICQ. The paper's mixes critics of discrete actions through the state; so does
OG-MARL's, which is recurrent; the tables of the particle tasks have independent critics for all their rows, and that is
this one: own critic, own reward (`reward`="team" for the team's). No action outside of the data is ever valued: line 7
counts from a V that is fitted in the sample, where the paper's code asks Q of the policy's own actions and its
single-agent code takes the TD error, which is mere noise once Q is learned. The batch stands in for the normaliser of
each state, as in the released codes. Temperatures count standard deviations in the batch, so that one number serves
rewards of any size, and rho cannot grow with Q; the released 0.1 and 1000 count returns of up to 20. Where a time limit
cuts an episode there is no a': those transitions are left out (`prepare`), or with time_limit="terminal" end at r. The
values are finished before the policies begin, which changes nothing for the values.

**Checked**. tests/probes/test_icq.py (weights sum to one and vanish off the data, limits of both temperatures, steps
written apart, the better of two modes), tests/contract.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Environment, Past, Spec, Stage, System, refuse
from jaxomarl.config import config, traced
from jaxomarl.losses.weighting import importance
from jaxomarl.networks.critics import value
from jaxomarl.networks.inputs import observed
from jaxomarl.optim import Net, create, descend, polyak
from jaxomarl.stages import clone, decentralised
from jaxomarl.stages.decentralised import AgentBatch, critic_step, networks

VALUES = (
    "critic_steps", "critic_batch", "critic_width", "critic_lr", "clip", "polyak", "gamma", "target_temperature",
    "reward", "time_limit", "normalise", "chunk",
)  # fmt: skip


@config
class Config(decentralised.InSample):
    """MA-ICQ's settings."""

    temperature: float = traced(default=1.0, within="(0, inf)")
    """beta_A: temperature of the policies' weights, in deviations of the advantage; larger is nearer to a clone."""
    target_temperature: float = traced(default=100.0, within="(0, inf)")
    """beta_T: temperature of the targets' weights, in deviations of the next values; larger is nearer to SARSA."""


class Valued(NamedTuple):
    """Twin action values with their targets, and what a state is worth to the data; both lead with N."""

    critic: Net
    v: Net


def values(spec: Spec, cfg: Config) -> Algorithm:
    """The values' stage: lines 1 to 5."""
    nets, net = networks(spec, cfg), value(spec.obs_width, (cfg.critic_width,) * 2)

    def fresh(key: Key[Array, ""]) -> Valued:
        k_q, k_v = jax.random.split(key)
        return Valued(
            create(nets.tx_q, nets.q.init(k_q), target=True), create(nets.tx_q, net.init(k_v))
        )

    # line 1, for one agent
    def step(
        key: Key[Array, ""], state: Valued, batch: AgentBatch, then: Float[Array, "B A"]
    ) -> tuple[Valued, dict]:
        judge = lambda obs, action: nets.q.apply(state.critic.target, obs, action).min(axis=0)
        rho = importance(
            judge(batch.next_obs, then), cfg.target_temperature, jnp.sign(batch.go_on)
        )  # line 2
        moved, metrics = critic_step(
            cfg, nets, state, batch._replace(go_on=rho * batch.go_on), then
        )  # line 3
        q = judge(batch.obs, batch.action)
        v_loss, grads = jax.value_and_grad(lambda p: jnp.mean((net.apply(p, batch.obs) - q) ** 2))(
            state.v.params
        )
        metrics |= {"v_loss": v_loss, "largest_rho": rho.max()}
        return Valued(
            polyak(moved.critic, cfg.polyak), descend(nets.tx_q, state.v, grads)
        ), metrics  # lines 4 and 5

    def beside(past: Past, batch: Batch) -> Float[Array, "N B A"]:
        return jnp.moveaxis(batch.next_action * spec.act_mask, 1, 0)

    return decentralised.apart(spec, cfg, fresh, step, None, beside, cfg.critic_batch)


def policy(spec: Spec, cfg: Config) -> Algorithm:
    """The policies' stage: lines 6 to 8."""
    q, v, see = (
        networks(spec, cfg).q,
        value(spec.obs_width, (cfg.critic_width,) * 2),
        observed(spec, cfg),
    )

    def weigh(past: Past, batch: Batch) -> Float[Array, "B N"]:  # line 7
        def ahead(
            held: Valued, obs: Float[Array, "B O"], action: Float[Array, "B A"]
        ) -> Float[Array, " B"]:
            return q.apply(held.critic.target, obs, action).min(axis=0) - v.apply(
                held.v.params, obs
            )

        each = jax.vmap(ahead, in_axes=(0, 1, 1), out_axes=1)
        return importance(
            each(past["values"], see(past, batch.obs), batch.action * spec.act_mask),
            cfg.temperature,
        )

    return clone.gaussian(spec, cfg, weigh)  # line 8


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings, tasks or data that it cannot train on."""
    decentralised.check(spec, cfg, data, decentralised.CHOICES)
    if data is not None and not len(prepare(spec, cfg, data).starts):
        way = "All episodes are one step and a time limit; --cfg.time-limit terminal learns from them."
        raise refuse("--data", "a transition with a next action", 0, way)


def prepare(spec: Spec, cfg: Config, data: Dataset) -> Dataset:
    """Without the transitions that go on after the last action, unless a time limit ends an episode."""
    if cfg.time_limit == "terminal":
        return data
    starts, last, done = np.asarray(data.starts), np.asarray(data.last), np.asarray(data.done)
    return dataclasses.replace(
        data, starts=jnp.asarray(starts[(last[starts] == 0) | (done[starts] > 0)])
    )


def pipeline(spec: Spec, cfg: Config, env: Environment | None = None) -> tuple[Stage, ...]:
    """Values -> policies."""
    return (
        Stage(
            "values", values(spec, cfg), cfg.critic_steps, cfg.chunk, cfg.every, VALUES, owner="icq"
        ),
        Stage("policy", policy(spec, cfg), cfg.policy_steps, cfg.chunk, cfg.every, owner="icq"),
    )


ICQ = System(Config, check, prepare, pipeline)
