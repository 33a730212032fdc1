"""Implicit Q-learning: one centralised critic of the joint action, or a critic for each agent.

Kostrikov et al. 2022, Algorithm 1, as the OMSD authors train it. One step, in which everything on
the right is from before the step:

    u  = min_k Qbar^k(c, a) - V(c)                  L_V = mean |tau - 1[u < 0]| u^2
    y  = r + gamma (1 - d) V(c')                    L_Q = 1/2 sum_k mean (Q^k(c, a) - y)^2
    w  = min(exp(T u), 100)                         L_pi = mean w sum_dims (pi(c) - a)^2
    Qbar <- rho Q + (1 - rho) Qbar

The policy of L_pi is optional: it is there to watch the critic. The joint critic has c = state and
a = all actions. Own critics have c = o_i and a = a_i, and are one vmapped update.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Past, Spec, Stage, State, refuse
from jaxomarl.config import config, static, traced
from jaxomarl.data.dataset import sample_transitions
from jaxomarl.health import behaviour, critics
from jaxomarl.losses.expectile import expectile
from jaxomarl.losses.td import continuation_factor, joint_reward
from jaxomarl.networks.actors import actor
from jaxomarl.networks.critics import twin, value
from jaxomarl.networks.inputs import flat, observation_normaliser, state_normaliser
from jaxomarl.networks.mlp import Network
from jaxomarl.optim import Net, create, descend, polyak
from jaxomarl.stages.decentralised import AGENT_AXES, AgentBatch

FIELDS = (
    "critic_steps", "critic_batch", "critic_width", "critic_lr", "critic_polyak",
    "critic_policy", "chunk", "expectile", "temperature", "gamma", "reward", "time_limit",
    "normalise",
)  # fmt: skip
RAISE = ("critic_steps", "critic_batch", "critic_width")
"""What to raise where a critic has not learned."""


@config
class Config:
    """Settings of a critic; the defaults are OMSD's."""

    reward: str = static(default="team")
    """Reward that is learned. team: the team's. first: agent 1's, as in the authors' code."""
    time_limit: str = static(default="bootstrap")
    """What a time limit does. bootstrap: the episode continues past it. terminal: it ends there."""
    gamma: float = traced(default=0.99, within="[0, 1]")
    """Discount factor of future rewards."""
    critic_steps: int = static(default=500_000, scaled="steps")
    """Gradient steps of the critic."""
    critic_batch: int = static(default=512)
    """Transitions in a batch of the critic's updates."""
    critic_width: int = static(default=256, scaled="width")
    """Width of the critic's hidden layers."""
    critic_lr: float = traced(default=3e-4, within="(0, inf)")
    """Learning rate of the critic."""
    critic_polyak: float = traced(default=0.005, within="(0, 1]")
    """Rate at which the critic's target follows the critic."""
    expectile: float = traced(default=0.7, within="(0, 1)")
    """tau of the value's expectile regression: 0.5 is the mean, near 1 the maximum."""
    critic_policy: bool = static(default=False)
    """Whether an advantage-weighted policy is fitted next to the critic; later stages ignore it."""
    temperature: float = traced(default=3.0, within="[0, inf)")
    """T of the advantage weights min(exp(T u), 100); larger follows the critic more."""


def check_unwatched(spec: Spec, cfg: Any) -> None:
    """Raise JaxomarlError where a policy that regresses real actions shall watch discrete ones."""
    if spec.discrete and cfg.critic_policy:
        way = "It regresses real actions, and the task's are discrete."
        raise refuse("--cfg.critic-policy", "false on a discrete task", True, way)


class CriticState(NamedTuple):
    """Twin action values with targets, the state value, and the watched policy (`()` if none)."""

    q: Net
    v: Net
    policy: Any


class CriticNets(NamedTuple):
    """One critic's networks and their optimiser."""

    q: Network
    v: Network
    pi: Network
    tx: optax.GradientTransformation


class Critic(NamedTuple):
    """A critic's learner, its value and its advantage, as functions of finished stages."""

    algorithm: Algorithm
    q: Callable[[Past, Array, Array, Array], Float[Array, "*M B"]]
    """`q(past, obs, state, action [*M, B, N, A]) -> [*M, B]`, summed over own critics."""
    advantage: Callable[[Past, Array, Array, Array], Float[Array, "B *N"]]
    """`advantage(past, obs, state, action)`: min_k Qbar^k - V, of each own critic."""


def iql(spec: Spec, cfg: Any, own: bool = False) -> Critic:
    """IQL on the joint action (stage `critic`), or on each agent's own (stage `critic-own`).

    `cfg` has the fields of `Config`.
    """
    if own:
        return own_critics(spec, cfg)
    return joint_critic(spec, cfg)


def joint_critic(spec: Spec, cfg: Any) -> Critic:
    """One critic of the state and the joint action."""
    nets = critic_networks(cfg, spec.state_dim, spec.agents * spec.act_width)
    mask = jnp.asarray(spec.act_mask).reshape(-1)
    normalise_state = state_normaliser(cfg)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> CriticState:
        return first_state(nets, cfg, key)

    def update(
        key: Key[Array, ""], state: CriticState, past: Past, batch: Batch
    ) -> tuple[CriticState, dict]:
        not_ended = continuation_factor(batch, cfg.time_limit)
        action = batch.action * spec.act_mask
        reward = joint_reward(batch, cfg.reward)
        team = AgentBatch(
            obs=normalise_state(past, batch.state),
            action=flat(action),
            reward=reward,
            next_obs=normalise_state(past, batch.next_state),
            go_on=not_ended,
            mask=mask,
        )
        return iql_step(nets, cfg, state, team)

    def q(past: Past, obs: Array, state: Array, action: Array) -> Float[Array, "*M B"]:
        cond = normalise_state(past, state)
        target = past["critic"].q.target
        return nets.q.apply(target, cond, flat(action)).mean(axis=0)

    def advantage(past: Past, obs: Array, state: Array, action: Array) -> Float[Array, " B"]:
        cond = normalise_state(past, state)
        return critic_advantage(nets, past["critic"], cond, flat(action))

    return Critic(critic_learner(cfg, init, update), q, advantage)


def own_critics(spec: Spec, cfg: Any) -> Critic:
    """A critic of each agent's own observation and action; all are one vmapped update."""
    nets = critic_networks(cfg, spec.obs_width, spec.act_width)
    mask = jnp.asarray(spec.act_mask)
    normalise_obs = observation_normaliser(spec, cfg)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> CriticState:
        start = lambda key: first_state(nets, cfg, key)
        return jax.vmap(start)(jax.random.split(key, spec.agents))

    def update(
        key: Key[Array, ""], state: CriticState, past: Past, batch: Batch
    ) -> tuple[CriticState, dict]:
        not_ended = continuation_factor(batch, cfg.time_limit)
        action = batch.action * spec.act_mask
        each = AgentBatch(
            obs=normalise_obs(past, batch.obs),
            action=action,
            reward=batch.reward,
            next_obs=normalise_obs(past, batch.next_obs),
            go_on=not_ended,
            mask=mask,
        )
        step = lambda state, batch: iql_step(nets, cfg, state, batch)
        state, metrics = jax.vmap(step, in_axes=(0, AGENT_AXES))(state, each)
        return state, jax.tree.map(jnp.mean, metrics)

    def q(past: Past, obs: Array, state: Array, action: Array) -> Float[Array, "*M B"]:
        target = past["critic-own"].q.target
        each = jax.vmap(nets.q.apply, in_axes=(0, 1, -2))  # -> [N, E, *M, B]
        return each(target, normalise_obs(past, obs), action).mean(axis=1).sum(axis=0)

    def advantage(past: Past, obs: Array, state: Array, action: Array) -> Float[Array, "B N"]:
        one = lambda critic, cond, action: critic_advantage(nets, critic, cond, action)
        each = jax.vmap(one, in_axes=(0, 1, 1), out_axes=1)
        return each(past["critic-own"], normalise_obs(past, obs), action)

    return Critic(critic_learner(cfg, init, update), q, advantage)


def critic_learner(cfg: Any, init: Callable[..., Any], update: Callable[..., Any]) -> Algorithm:
    """A critic's algorithm, which learns from transitions."""

    def batch(key: Key[Array, ""], state: State, data: Dataset) -> Batch:
        return sample_transitions(key, data, cfg.critic_batch)

    return Algorithm(init, batch, update)


def critic_stage(cfg: Any, critic: Critic, own: bool = False, unused: bool = False) -> Stage:
    """The stage that trains a critic; all systems share the joint one, and the own ones.

    One that the policies do not follow is `unused`: its figures are not judged.
    """
    name = "critic-own" if own else "critic"

    def values(state: State, past: Past, obs: Array, env_state: Array, action: Array) -> Array:
        return critic.q({**past, name: state}, obs, env_state, action)

    health = critics.critic(values, cfg.gamma, cfg.reward, RAISE)
    if unused:
        health = health._replace(gates=())
    return Stage.from_config(
        cfg, name, critic.algorithm, cfg.critic_steps, fields=FIELDS, health=health
    )


def policy_stage(
    spec: Spec, cfg: Any, policy: Algorithm, fields: tuple[str, ...], owner: str
) -> Stage:
    """The last stage, whose policies follow a trained critic; they are compared with the data.

    It depends on the critic's fields and on those that are given.
    """
    health = behaviour.policy(spec, policy)
    fields = (*FIELDS, *fields)
    return Stage.from_config(cfg, "policy", policy, cfg.policy_steps, fields, owner, health)


def critic_networks(cfg: Any, cond: int, action: int) -> CriticNets:
    """The networks of a critic whose condition and action have these widths."""
    hidden = (cfg.critic_width,) * 2
    return CriticNets(
        q=twin(cond, action, hidden),
        v=value(cond, hidden),
        pi=actor(cond, hidden, action),
        tx=optax.adam(cfg.critic_lr),
    )


def first_state(nets: CriticNets, cfg: Any, key: Key[Array, ""]) -> CriticState:
    """One critic before its first step."""
    k_q, k_v, k_pi = jax.random.split(key, 3)
    policy = ()
    if cfg.critic_policy:
        policy = create(nets.tx, nets.pi.init(k_pi))
    q = create(nets.tx, nets.q.init(k_q), target=True)
    return CriticState(q, create(nets.tx, nets.v.init(k_v)), policy)


def critic_advantage(
    nets: CriticNets,
    critic: CriticState,
    cond: Array,
    action: Array,
) -> Float[Array, " B"]:
    """The advantage min_k Qbar^k(c, a) - V(c)."""
    q_min = nets.q.apply(critic.q.target, cond, action).min(axis=0)
    return q_min - nets.v.apply(critic.v.params, cond)


def iql_step(
    nets: CriticNets, cfg: Any, state: CriticState, batch: AgentBatch
) -> tuple[CriticState, dict[str, Array]]:
    """One step of one critic, as at the head of this file.

    For the joint critic the team is one agent, which observes the state.
    """
    # --- targets, from before the step ---
    q_min = nets.q.apply(state.q.target, batch.obs, batch.action).min(axis=0)
    discount = cfg.gamma * batch.go_on
    y = batch.reward + discount * nets.v.apply(state.v.params, batch.next_obs)

    # --- values ---
    def v_loss(params):
        u = q_min - nets.v.apply(params, batch.obs)
        return expectile(u, cfg.expectile).mean(), u

    def q_loss(params):
        q = nets.q.apply(params, batch.obs, batch.action)
        errors = jnp.mean((q - y) ** 2, axis=-1)
        return 0.5 * jnp.sum(errors), q.mean()

    (loss_v, u), grad_v = jax.value_and_grad(v_loss, has_aux=True)(state.v.params)
    (loss_q, q_mean), grad_q = jax.value_and_grad(q_loss, has_aux=True)(state.q.params)
    metrics = {"v_loss": loss_v, "q_loss": loss_q, "q_mean": q_mean, "advantage": u.mean()}

    # --- the watched policy ---
    policy = state.policy
    if cfg.critic_policy:
        w = jnp.minimum(jnp.exp(cfg.temperature * u), 100.0)

        def policy_loss(params):
            error = nets.pi.apply(params, batch.obs) - batch.action
            return jnp.mean(w * jnp.sum(batch.mask * error**2, axis=-1))

        metrics["policy_loss"], grad_pi = jax.value_and_grad(policy_loss)(policy.params)
        policy = descend(nets.tx, policy, grad_pi)

    # --- steps, and targets ---
    q = polyak(descend(nets.tx, state.q, grad_q), cfg.critic_polyak)
    return CriticState(q, descend(nets.tx, state.v, grad_v), policy), metrics
