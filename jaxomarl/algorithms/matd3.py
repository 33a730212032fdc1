"""MATD3: twin delayed policy gradients for several agents, online; it makes our data's behaviours.

**Paper**. Ackermann et al. 2019, "Reducing Overestimation Bias in Multi-Agent Domains Using Double
Centralized Critics", after TD3 (Fujimoto et al. 2018, Algorithm 1); with own critics as OMAR's
authors collected their data.

**Pseudo-code**.

    1   for each round:                                       stage "policy"
    2       every environment steps with pi(o) + N(0, noise^2), or uniform actions while warming up
                                                              `refresh`
    3       for each gradient step on a batch of the replay:  `update`
    4           a' = clip(pibar(o') + clip(N(0, 0.2^2), +-0.5))
    5           y_i = scale r_i + gamma (1 - d) min_k Qbar_i^k(c', a')
    6           each Q_i^k: step down mean (Q_i^k(c, a) - y_i)^2
    7           each pi_i:  step up mean Q_i^1(c, a_-i, pi_i(o_i)) - 1e-3 mean pi_i(o_i)^2
    8           targets follow with tau

with c = o_i and a = a_i for own critics (`critic="own"`), c = state and a = all agents' actions for
joint ones, where a_-i are the batch's.

**Differs**.

- There are no delayed policy updates. The codes that collected OMAR's data have none either, and
  under vmap a branch on a counter would run both ways.
- One batch serves all agents, whose networks are separate.
- There is no batch normalisation. In those codes its statistics mix data and policy actions.

**Checked**. tests/probes/test_matd3.py (targets and gradients against a separate implementation; a
team-mate chase that it must solve; what the replay stores), tests/contract.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Environment, Past, Spec, Stage, System
from jaxomarl.config import check_continuous, check_fields, config, static, traced
from jaxomarl.data import replay
from jaxomarl.data.dataset import as_is
from jaxomarl.losses.td import TIME_LIMITS, agents_reward, continuation_factor
from jaxomarl.networks.actors import actor, small
from jaxomarl.networks.agents import separate
from jaxomarl.networks.critics import twin
from jaxomarl.networks.inputs import flat
from jaxomarl.networks.mlp import Network
from jaxomarl.optim import Net, Params, clipped_adam, create, descend, polyak

CHOICES = {"critic": ("own", "joint"), "reward": ("own", "team"), "time_limit": TIME_LIMITS}


@config
class Config(replay.Collecting):
    """MATD3's settings; the defaults are for the particle tasks."""

    critic: str = static(default="own")
    """Critics. own: Q_i(o_i, a_i), as OMAR's. joint: Q_i(state, all actions)."""
    reward: str = static(default="own")
    """Reward that is learned. own: each agent's. team: the team's."""
    time_limit: str = static(default="bootstrap")
    """How a time limit counts. bootstrap: the episode continues. terminal: it ends there."""
    reward_scale: float = traced(default=0.1, within="(0, inf)")
    """Factor of every reward, so that values are of the order of ten."""
    gamma: float = traced(default=0.95, within="[0, 1]")
    """Discount factor of future rewards."""
    policy_steps: int = static(default=50_000, scaled="steps")
    """Gradient steps of the critics and the policies, which train together."""
    batch: int = static(default=256)
    """Transitions in a batch."""
    width: int = static(default=128)
    """Width of the hidden layers of policies and critics."""
    lr: float = traced(default=1e-3, within="(0, inf)")
    """Learning rate of the policies and the critics."""
    polyak: float = traced(default=0.01, within="(0, 1]")
    """Rate at which target networks follow the trained ones."""
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


class OnlineLearner(NamedTuple):
    """Policies and critics, which lead with N; the replay; and the environments that fill it."""

    actor: Net
    critic: Net
    replay: Any
    walk: Any


class OnlineNets(NamedTuple):
    """The networks of all agents and their optimiser."""

    actors: Network
    critics: Network
    """(params, obs, state, action, own) -> [N, E, B]."""
    tx: optax.GradientTransformation


def online_networks(spec: Spec, cfg: Config) -> OnlineNets:
    """Build separate policies and twin critics for N agents."""
    n = spec.agents
    hidden = (cfg.width,) * 2
    actors = separate(actor(spec.obs_width, hidden, spec.act_width), n)
    if cfg.critic == "joint":
        critic = twin(spec.state_dim, n * spec.act_width, hidden)
    else:
        critic = twin(spec.obs_width, spec.act_width, hidden)

    def q(params: Params, obs: Array, state: Array, action: Array, own: Array) -> Array:
        """Critic i sees `own` [B, N, A] in agent i's place and `action` elsewhere."""

        def of_agent(params, i):
            if cfg.critic == "joint":
                return critic.apply(params, state, flat(action.at[:, i].set(own[:, i])))
            return critic.apply(params, obs[:, i], own[:, i])

        return jax.vmap(of_agent)(params, jnp.arange(n))

    def init_q(key):
        return jax.vmap(critic.init)(jax.random.split(key, n))

    return OnlineNets(actors, Network(init_q, q), clipped_adam(cfg.lr, cfg.clip))


def policy(spec: Spec, cfg: Config, env: Environment | None) -> Algorithm:
    """Build the learner; without an environment it can act, but not learn."""
    nets = online_networks(spec, cfg)
    action_mask = jnp.asarray(spec.act_mask)

    def init(key: Key[Array, ""], past: Past, data: Dataset | None) -> OnlineLearner:
        k_actor, k_critic, k_walk = jax.random.split(key, 3)
        ring = replay.empty_ring(spec, cfg.capacity) if env else ()
        walk = replay.begin(env, k_walk, cfg.envs) if env else ()
        actors = create(nets.tx, small(nets.actors.init(k_actor)), target=True)
        critics = create(nets.tx, nets.critics.init(k_critic), target=True)
        return OnlineLearner(actors, critics, ring, walk)

    def batch(key: Key[Array, ""], state: OnlineLearner, data: Dataset | None) -> Batch:
        return replay.sample_ring(key, state.replay, spec, cfg.batch)

    # line 3
    def update(
        key: Key[Array, ""], state: OnlineLearner, past: Past, batch: Batch
    ) -> tuple[OnlineLearner, dict]:
        y = targets(spec, cfg, nets, key, state, batch)

        # line 6
        def critic_loss(params):
            q = nets.critics.apply(params, batch.obs, batch.state, batch.action, batch.action)
            return jnp.sum(jnp.mean((q - y[:, None]) ** 2, axis=-1)), q.mean()

        # line 7
        def actor_loss(params):
            own = action_mask * nets.actors.apply(params, batch.obs)
            q = nets.critics.apply(state.critic.params, batch.obs, batch.state, batch.action, own)
            value = q[:, 0].mean(axis=-1)
            effort = jnp.mean(own**2, axis=0).sum(axis=-1) / action_mask.sum(axis=-1)
            return jnp.sum(cfg.action_penalty * effort - value)

        critic_grad = jax.value_and_grad(critic_loss, has_aux=True)
        (loss_q, q_mean), grad_q = critic_grad(state.critic.params)
        loss_pi, grad_pi = jax.value_and_grad(actor_loss)(state.actor.params)
        n = spec.agents
        metrics = {"q_loss": loss_q / n, "q_mean": q_mean, "policy_loss": loss_pi / n}

        # line 8
        critic = polyak(descend(nets.tx, state.critic, grad_q), cfg.polyak)
        actor = polyak(descend(nets.tx, state.actor, grad_pi), cfg.polyak)
        return state._replace(critic=critic, actor=actor), metrics

    def act(key, state, past, memory, observation):
        obs = observation.obs * spec.obs_mask
        return action_mask * nets.actors.apply(state.actor.params, obs), memory

    return Algorithm(init, batch, update, act)


def targets(
    spec: Spec,
    cfg: Config,
    nets: OnlineNets,
    key: Key[Array, ""],
    state: OnlineLearner,
    batch: Batch,
) -> Float[Array, "N B"]:
    """y_i of line 5."""
    # line 4
    noise = cfg.target_noise * jax.random.normal(key, batch.action.shape)
    chosen = nets.actors.apply(state.actor.target, batch.next_obs)
    noisy = chosen + jnp.clip(noise, -cfg.target_clip, cfg.target_clip)
    next_action = spec.act_mask * jnp.clip(noisy, -1.0, 1.0)
    # line 5
    next_q = nets.critics.apply(
        state.critic.target, batch.next_obs, batch.next_state, next_action, next_action
    ).min(axis=1)
    reward = cfg.reward_scale * agents_reward(batch, cfg.reward).T
    return reward + cfg.gamma * continuation_factor(batch, cfg.time_limit) * next_q


def collecting(spec: Spec, cfg: Config, env: Environment) -> Callable[..., OnlineLearner]:
    """Build the stage's `refresh`: every environment steps, and the replay stores what happened."""
    nets = online_networks(spec, cfg)
    action_mask = jnp.asarray(spec.act_mask)

    # line 1
    def refresh(
        key: Key[Array, ""], state: OnlineLearner, past: Past, data: Dataset | None
    ) -> OnlineLearner:
        # line 2
        def explore(key, observation):
            k_noise, k_uniform = jax.random.split(key)
            chosen = nets.actors.apply(state.actor.params, observation.obs)
            noise = cfg.noise * jax.random.normal(k_noise, action_mask.shape)
            noisy = jnp.clip(chosen + noise, -1.0, 1.0)
            uniform = jax.random.uniform(k_uniform, action_mask.shape, minval=-1.0, maxval=1.0)
            warming_up = state.replay.count < cfg.warmup
            return action_mask * jnp.where(warming_up, uniform, noisy)

        walk, rows = replay.step_environments(env, explore, state.walk, key, cfg.collect)
        return state._replace(walk=walk, replay=replay.extend(state.replay, rows))

    return refresh


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings or tasks that MATD3 cannot train on."""
    check_continuous(spec, "MATD3 follows dQ/da.")
    check_fields(cfg, CHOICES)
    replay.check(cfg)


def pipeline(spec: Spec, cfg: Config, env: Environment | None = None) -> tuple[Stage, ...]:
    """MATD3 has one stage; without an environment it can act, but not learn."""

    def without_replay(state: OnlineLearner) -> OnlineLearner:
        return state._replace(replay=(), walk=())

    final = policy(spec, cfg, env)
    stage = Stage.from_config(cfg, "policy", final, cfg.policy_steps, owner="matd3")
    refresh = collecting(spec, cfg, env) if env else None
    return (stage._replace(refresh=refresh, kept=without_replay),)


MATD3 = System(Config, check, as_is, pipeline, online=True)
