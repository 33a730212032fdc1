"""Implicit Q-learning: one centralised critic of the joint action, or one of its own for each agent.

Kostrikov et al. 2022, Algorithm 1; as the OMSD authors train it. One step, with everything on the right from before it:

    u  = min_k Qbar^k(c, a) - V(c)                  L_V = mean |tau - 1[u < 0]| u^2
    y  = r + gamma (1 - d) V(c')                    L_Q = 1/2 sum_k mean (Q^k(c, a) - y)^2
    w  = min(exp(T u), 100)                         L_pi = mean w sum_dims (pi(c) - a)^2   (optional, to watch it)
    Qbar <- rho Q + (1 - rho) Qbar

The joint critic has c = state and a = all actions; the own critics have c = o_i, a = a_i and are one vmapped update.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Past, Spec, State
from jaxomarl.config import config, static, traced
from jaxomarl.data.dataset import sample_transitions
from jaxomarl.losses.expectile import expectile
from jaxomarl.losses.td import continues, joint_reward
from jaxomarl.networks.actors import actor
from jaxomarl.networks.critics import twin, value
from jaxomarl.networks.inputs import flat, observed, stated
from jaxomarl.networks.mlp import Network
from jaxomarl.optim import Net, create, descend, polyak

FIELDS = (
    "critic_steps", "critic_batch", "critic_width", "critic_lr", "critic_polyak", "critic_policy", "chunk",
    "expectile", "temperature", "gamma", "reward", "time_limit", "normalise",
)  # fmt: skip


@config
class Config:
    """Settings of a critic; the defaults are OMSD's."""

    reward: str = static(default="team")
    """Reward that is learned. team: the team's. first: agent 1's, as in the authors' code."""
    time_limit: str = static(default="bootstrap")
    """How a time limit counts. bootstrap: the episode continues past it. terminal: it ends the episode."""
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
    """Whether an advantage-weighted policy is fitted next to the critic, to watch it; no later stage reads it."""
    temperature: float = traced(default=3.0, within="[0, inf)")
    """T of the advantage weights min(exp(T u), 100); larger follows the critic more."""


class CriticState(NamedTuple):
    """Twin action values with targets, the state value, and the watched policy (`()` where there is none)."""

    q: Net
    v: Net
    policy: Any


class CriticBatch(NamedTuple):
    """One critic's share of a batch."""

    cond: Float[Array, "B C"]
    action: Float[Array, "B D"]
    reward: Float[Array, " B"]
    next_cond: Float[Array, "B C"]


class Nets(NamedTuple):
    """One critic's networks and their optimiser."""

    q: Network
    v: Network
    pi: Network
    tx: optax.GradientTransformation


class Critic(NamedTuple):
    """A critic's learner and its value: `q(past, obs, state, action) -> [B]`, summed over own critics."""

    algorithm: Algorithm
    q: Callable[[Past, Array, Array, Array], Float[Array, " B"]]
    advantage: Callable[
        [Past, Array, Array, Array], Float[Array, "B *N"]
    ]  # min_k Qbar^k - V, of each own critic


def iql(spec: Spec, cfg: Any, own: bool = False) -> Critic:
    """IQL on the joint action (stage `critic`), or on each agent's own (`own`, stage `critic-own`)."""
    n, hidden = spec.agents, (cfg.critic_width,) * 2
    cond, acts = (spec.obs_width, spec.act_width) if own else (spec.state_dim, n * spec.act_width)
    nets = Nets(
        twin(cond, acts, hidden),
        value(cond, hidden),
        actor(cond, hidden, acts),
        optax.adam(cfg.critic_lr),
    )
    mask = jnp.asarray(spec.act_mask) if own else jnp.asarray(spec.act_mask).reshape(-1)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> CriticState:
        start = lambda k: fresh(nets, cfg, k)
        return jax.vmap(start)(jax.random.split(key, n)) if own else start(key)

    def batch(key: Key[Array, ""], state: State, data: Dataset) -> Batch:
        return sample_transitions(key, data, cfg.critic_batch)

    def update(
        key: Key[Array, ""], state: CriticState, past: Past, batch: Batch
    ) -> tuple[CriticState, dict]:
        go_on, action = continues(batch, cfg.time_limit), batch.action * spec.act_mask
        if not own:
            see, reward = stated(cfg), joint_reward(batch, cfg.reward)
            own_batch = CriticBatch(
                see(past, batch.state), flat(action), reward, see(past, batch.next_state)
            )
            return learn(nets, cfg, state, own_batch, mask, go_on)
        see = observed(spec, cfg)
        own_batch = CriticBatch(
            see(past, batch.obs), action, batch.reward, see(past, batch.next_obs)
        )
        each = lambda state, own_batch, mask: learn(nets, cfg, state, own_batch, mask, go_on)
        state, metrics = jax.vmap(each, in_axes=(0, 1, 0))(state, own_batch, mask)
        return state, jax.tree.map(jnp.mean, metrics)

    def q(past: Past, obs: Array, state: Array, action: Array) -> Float[Array, " B"]:
        if not own:
            return nets.q.apply(
                past["critic"].q.target, stated(cfg)(past, state), flat(action)
            ).mean(axis=0)
        params = past["critic-own"].q.target
        each = jax.vmap(nets.q.apply, in_axes=(0, 1, 1))(
            params, observed(spec, cfg)(past, obs), action
        )  # [N, E, B]
        return each.mean(axis=1).sum(axis=0)

    def advantage(past: Past, obs: Array, state: Array, action: Array) -> Float[Array, "B *N"]:
        def one(held, seen, act):
            return nets.q.apply(held.q.target, seen, act).min(axis=0) - nets.v.apply(
                held.v.params, seen
            )

        if not own:
            return one(past["critic"], stated(cfg)(past, state), flat(action))
        return jax.vmap(one, in_axes=(0, 1, 1), out_axes=1)(
            past["critic-own"], observed(spec, cfg)(past, obs), action
        )

    return Critic(Algorithm(init, batch, update), q, advantage)


def fresh(nets: Nets, cfg: Any, key: Key[Array, ""]) -> CriticState:
    """One critic before its first step."""
    k_q, k_v, k_pi = jax.random.split(key, 3)
    policy = create(nets.tx, nets.pi.init(k_pi)) if cfg.critic_policy else ()
    return CriticState(
        create(nets.tx, nets.q.init(k_q), target=True), create(nets.tx, nets.v.init(k_v)), policy
    )


def learn(
    nets: Nets,
    cfg: Any,
    state: CriticState,
    batch: CriticBatch,
    mask: Float[Array, " D"],
    go_on: Float[Array, " B"],
) -> tuple[CriticState, dict[str, Array]]:
    """One step of one critic, as at the head of this file."""
    q_min = nets.q.apply(state.q.target, batch.cond, batch.action).min(axis=0)
    y = batch.reward + cfg.gamma * go_on * nets.v.apply(state.v.params, batch.next_cond)

    def v_loss(params):
        u = q_min - nets.v.apply(params, batch.cond)
        return expectile(u, cfg.expectile).mean(), u

    def q_loss(params):
        q = nets.q.apply(params, batch.cond, batch.action)
        return 0.5 * jnp.sum(jnp.mean((q - y) ** 2, axis=-1)), q.mean()

    (loss_v, u), grad_v = jax.value_and_grad(v_loss, has_aux=True)(state.v.params)
    (loss_q, q_mean), grad_q = jax.value_and_grad(q_loss, has_aux=True)(state.q.params)
    metrics = {"v_loss": loss_v, "q_loss": loss_q, "q_mean": q_mean, "advantage": u.mean()}
    policy = state.policy
    if cfg.critic_policy:
        w = jnp.minimum(jnp.exp(cfg.temperature * u), 100.0)

        def policy_loss(params):
            return jnp.mean(
                w * jnp.sum(mask * (nets.pi.apply(params, batch.cond) - batch.action) ** 2, axis=-1)
            )

        metrics["policy_loss"], grad_pi = jax.value_and_grad(policy_loss)(policy.params)
        policy = descend(nets.tx, policy, grad_pi)
    q = polyak(descend(nets.tx, state.q, grad_q), cfg.critic_polyak)
    return CriticState(q, descend(nets.tx, state.v, grad_v), policy), metrics
