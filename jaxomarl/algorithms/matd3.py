"""MATD3: twin delayed deterministic policy gradients for several agents, online; it makes the behaviours of our data.

**Paper**. Ackermann et al. 2019, "Reducing Overestimation Bias in Multi-Agent Domains Using Double Centralized
Critics", after TD3 (Fujimoto et al. 2018, Algorithm 1); with own critics as OMAR's authors collected their data.

**Pseudo-code**.

    1   for each round:                                                     stage "policy"
    2       every environment steps on with pi(o) + N(0, noise^2)           `refresh`; uniform actions while warming up
    3       for each gradient step on a batch of the replay:                `update`
    4           a' = clip(pibar(o') + clip(N(0, 0.2^2), +-0.5))
    5           y_i = scale r_i + gamma (1 - d) min_k Qbar_i^k(c', a')
    6           each Q_i^k: step down mean (Q_i^k(c, a) - y_i)^2
    7           each pi_i:  step up mean Q_i^1(c, a_-i, pi_i(o_i)) - 1e-3 mean pi_i(o_i)^2
    8           targets follow with tau

with c = o_i and a = a_i for own critics (`critic="own"`), c = state and a = all agents' actions for joint ones, where
a_-i are the batch's.

**Differs**. No delayed policy updates (they are absent in the codes that collected OMAR's data, and a branch on a
counter would run both ways under vmap). One batch for all agents. Networks are separate, without the batch
normalisation of those codes, whose statistics mix data and policy actions.

**Checked**. tests/probes/test_matd3.py (targets and gradients against a step written apart; a team-mate chase that it
must solve; what the replay holds), tests/contract.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from jaxomarl.base import (
    Algorithm,
    Batch,
    Dataset,
    Environment,
    Observation,
    Past,
    Spec,
    Stage,
    System,
    refuse,
)
from jaxomarl.config import check_fields, config, static, traced
from jaxomarl.data import replay
from jaxomarl.losses.td import TIME_LIMITS, agents_reward, continues
from jaxomarl.networks.actors import actor, small
from jaxomarl.networks.agents import separate
from jaxomarl.networks.critics import twin
from jaxomarl.networks.inputs import flat
from jaxomarl.networks.mlp import Network
from jaxomarl.optim import Net, clipped_adam, create, descend, polyak


@config
class Config:
    """MATD3's settings; the defaults are for the particle tasks."""

    critic: str = static(default="own")
    """Critics. own: Q_i(o_i, a_i), as OMAR's. joint: Q_i(state, all actions)."""
    reward: str = static(default="own")
    """Reward that is learned. own: each agent's. team: the team's."""
    time_limit: str = static(default="bootstrap")
    """How a time limit counts. bootstrap: the episode continues past it. terminal: it ends the episode."""
    reward_scale: float = traced(default=0.1, within="(0, inf)")
    """Factor of every reward, so that values are of the order of ten."""
    gamma: float = traced(default=0.95, within="[0, 1]")
    """Discount factor of future rewards."""
    policy_steps: int = static(default=50_000, scaled="steps")
    """Gradient steps of the critics and the policies, which train together."""
    chunk: int = static(default=100)
    """Updates between two collections of experience."""
    every: int = static(default=10)
    """Chunks between two evaluations, at which checkpoints are written too."""
    batch: int = static(default=256)
    """Transitions in a batch."""
    width: int = static(default=128)
    """Width of the hidden layers of policies and critics."""
    lr: float = traced(default=1e-3, within="(0, inf)")
    """Learning rate of the policies and the critics."""
    polyak: float = traced(default=0.01, within="(0, 1]")
    """Rate at which target networks follow the trained ones."""
    envs: int = static(default=32)
    """Environments that run side by side."""
    collect: int = static(default=25)
    """Steps that each environment takes in a collection."""
    capacity: int = static(default=200_000)
    """Transitions that the replay stores."""
    warmup: int = static(default=2_000, within="[0, inf)")
    """Transitions that uniform actions collect before training."""
    noise: float = traced(default=0.1, within="[0, inf)")
    """Standard deviation of the exploration noise."""
    clip: float = traced(default=10.0, within="(0, inf)")
    """Largest norm of the gradient over all agents."""
    target_noise: float = traced(default=0.2, within="[0, inf)")
    """Standard deviation of the noise on the target policies' actions."""
    target_clip: float = traced(default=0.5, within="[0, inf)")
    """Largest absolute value of the noise on the target policies' actions."""
    action_penalty: float = traced(default=1e-3, within="[0, inf)")
    """Weight of the mean square of the policy's actions in its loss."""


class Learner(NamedTuple):
    """Policies and critics, each leading with N, the replay, and the environments that fill it."""

    actor: Net
    critic: Net
    replay: Any
    walk: Any


class Nets(NamedTuple):
    """The networks and what steps them."""

    actors: Network
    q: Callable[..., Array]  # (params, obs, state, action, own) -> [N, E, B]
    init_q: Callable[[Key[Array, ""]], Any]
    tx: optax.GradientTransformation


def networks(spec: Spec, cfg: Config) -> Nets:
    """Separate policies and twin critics of N agents."""
    n, hidden, joint = spec.agents, (cfg.width,) * 2, cfg.critic == "joint"
    net = twin(
        *((spec.state_dim, n * spec.act_width) if joint else (spec.obs_width, spec.act_width)),
        hidden,
    )

    def q(params: Any, obs: Array, state: Array, action: Array, own: Array) -> Array:
        """Critic i sees `own` [B, N, A] in agent i's place and `action` elsewhere."""

        def one(params, i):
            if joint:
                return net.apply(params, state, flat(action.at[:, i].set(own[:, i])))
            return net.apply(params, obs[:, i], own[:, i])

        return jax.vmap(one)(params, jnp.arange(n))

    init_q = lambda key: jax.vmap(net.init)(jax.random.split(key, n))
    tx = clipped_adam(cfg.lr, cfg.clip)
    return Nets(separate(actor(spec.obs_width, hidden, spec.act_width), n), q, init_q, tx)


def policy(spec: Spec, cfg: Config, env: Environment | None) -> Algorithm:
    """The algorithm; without an environment it can act, but not learn."""
    nets, mask = networks(spec, cfg), jnp.asarray(spec.act_mask)

    def init(key: Key[Array, ""], past: Past, data: Dataset | None) -> Learner:
        k_actor, k_critic, k_walk = jax.random.split(key, 3)
        start = lambda params: create(nets.tx, params, target=True)
        ring = replay.empty(spec, cfg.capacity) if env else ()
        walk = replay.begin(env, k_walk, cfg.envs) if env else ()
        return Learner(
            start(small(nets.actors.init(k_actor))), start(nets.init_q(k_critic)), ring, walk
        )

    def batch(key: Key[Array, ""], state: Learner, data: Dataset | None) -> Batch:
        return replay.sample(key, state.replay, spec, cfg.batch)

    # line 3
    def update(
        key: Key[Array, ""], state: Learner, past: Past, batch: Batch
    ) -> tuple[Learner, dict]:
        y = targets(spec, cfg, nets, key, state, batch)

        def critic_loss(params):
            values = nets.q(params, batch.obs, batch.state, batch.action, batch.action)
            return jnp.sum(jnp.mean((values - y[:, None]) ** 2, axis=-1)), values.mean()  # line 6

        def actor_loss(params):
            own = mask * nets.actors.apply(params, batch.obs)
            values = nets.q(state.critic.params, batch.obs, batch.state, batch.action, own)[
                :, 0
            ].mean(axis=-1)
            effort = jnp.mean(own**2, axis=0).sum(axis=-1) / mask.sum(axis=-1)
            return jnp.sum(cfg.action_penalty * effort - values)  # line 7

        (loss_q, q_mean), grad_q = jax.value_and_grad(critic_loss, has_aux=True)(
            state.critic.params
        )
        loss_pi, grad_pi = jax.value_and_grad(actor_loss)(state.actor.params)
        step = lambda net, grads: polyak(descend(nets.tx, net, grads), cfg.polyak)  # line 8
        metrics = {
            "q_loss": loss_q / spec.agents,
            "q_mean": q_mean,
            "policy_loss": loss_pi / spec.agents,
        }
        return state._replace(
            critic=step(state.critic, grad_q), actor=step(state.actor, grad_pi)
        ), metrics

    def act(key, state, past, memory, observation):
        return mask * nets.actors.apply(state.actor.params, observation.obs * spec.obs_mask), memory

    return Algorithm(init, batch, update, act)


def targets(
    spec: Spec, cfg: Config, nets: Nets, key: Key[Array, ""], state: Learner, batch: Batch
) -> Array:
    """y_i of line 5, [N, B]."""
    shake = cfg.target_noise * jax.random.normal(key, batch.action.shape)
    after = nets.actors.apply(state.actor.target, batch.next_obs) + jnp.clip(
        shake, -cfg.target_clip, cfg.target_clip
    )
    after = spec.act_mask * jnp.clip(after, -1.0, 1.0)  # line 4
    ahead = nets.q(state.critic.target, batch.next_obs, batch.next_state, after, after).min(axis=1)
    reward = agents_reward(batch, cfg.reward).T
    # line 5
    return cfg.reward_scale * reward + cfg.gamma * continues(batch, cfg.time_limit) * ahead


def collecting(spec: Spec, cfg: Config, env: Environment) -> Callable[..., Learner]:
    """The stage's `refresh`: every environment steps on and the replay takes what happened."""
    nets, mask = networks(spec, cfg), jnp.asarray(spec.act_mask)

    # line 1
    def refresh(key: Key[Array, ""], state: Learner, past: Past, data: Dataset | None) -> Learner:
        # line 2
        def explore(key: Key[Array, ""], seen: Observation) -> Array:
            k_noise, k_uniform = jax.random.split(key)
            chosen = nets.actors.apply(state.actor.params, seen.obs)
            chosen = jnp.clip(
                chosen + cfg.noise * jax.random.normal(k_noise, mask.shape), -1.0, 1.0
            )
            anything = jax.random.uniform(k_uniform, mask.shape, minval=-1.0, maxval=1.0)
            return mask * jnp.where(state.replay.count < cfg.warmup, anything, chosen)

        walk, rows = replay.walk(env, explore, state.walk, key, cfg.collect)
        return state._replace(walk=walk, replay=replay.extend(state.replay, rows))

    return refresh


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings or tasks that it cannot train on."""
    if spec.discrete:
        raise refuse("--task", "continuous actions", "a discrete task", "MATD3 follows dQ/da.")
    check_fields(
        cfg, {"critic": ("own", "joint"), "reward": ("own", "team"), "time_limit": TIME_LIMITS}
    )
    if cfg.envs * cfg.collect > cfg.capacity:
        way = "Raise --cfg.capacity, or collect less at a time."
        raise refuse(
            "--cfg.capacity",
            f"at least envs x collect = {cfg.envs * cfg.collect}",
            cfg.capacity,
            way,
        )


def pipeline(spec: Spec, cfg: Config, env: Environment | None = None) -> tuple[Stage, ...]:
    """One stage; without an environment it can act, but not learn."""
    refresh = collecting(spec, cfg, env) if env else None
    kept = lambda state: state._replace(replay=(), walk=())
    final = policy(spec, cfg, env)
    return (
        Stage(
            "policy",
            final,
            cfg.policy_steps,
            cfg.chunk,
            cfg.every,
            owner="matd3",
            refresh=refresh,
            kept=kept,
        ),
    )


MATD3 = System(Config, check, lambda spec, cfg, data: data, pipeline, online=True)
