"""MAPPO: online policy gradient for discrete actions; it trains the behaviours of the data.

**Paper**. Yu et al. 2022, "The Surprising Effectiveness of PPO in Cooperative Multi-Agent Games",
after Schulman et al. 2017; IPPO with `critic="own"` (de Witt et al. 2020).

**Pseudo-code**. With one actor and one value for all agents, which know the agent by its one-hot:

    1   before each scan of updates:                          stage "policy", `refresh`
    2       step `envs` environments `collect` times with a ~ pi_old over the legal actions
    3       delta_t = k r_t + gamma (1 - d_t) V(c_{t+1}) - V(c_t)
    4       A_t = delta_t + gamma lambda (1 - end_t) A_{t+1},   R_t = A_t + V(c_t)
    5   for each gradient step on the next minibatch of a permutation:      `update`
    6       rho = pi(a | o) / pi_old(a | o),   A standardised over the minibatch's living agents
    7       L_pi = -mean min(rho A, clip(rho, 1 - eps, 1 + eps) A) - c_H mean H(pi)
    8       L_V = 1/2 mean max((V - R)^2, (V_old + clip(V - V_old, -eps, eps) - R)^2)
    9       one Adam step down L_pi + c_V L_V, the rate falling to zero

**Differs**.

- The centralised value sees all observations side by side (`critic="joint"`), and no world state:
  SMAX's is in raw units, and online there are no statistics of it.
- An episode that a time limit cuts is continued by the value of its true successor. JaxMARL's
  baselines count it as ended.
- Dead agents do not count in lines 6 and 7, and do in line 8, because their reward goes on.
- Rewards keep their scale, as eps of line 8 counts them: with SMAX's times ten, SMAC's scale, the
  value lags behind (3m: 0.48 of battles are won after 28,000 and 600,000 steps).
- Networks have no memory. eps is 0.2 (JaxMARL's 0.05), the rate 2e-3 (4e-3), a collection 64 x 64.

**Checked**. tests/probes/test_ppo.py (one gradient step written apart; advantages at both ends of
lambda; a cut continues and a termination does not; dead agents), tests/contract/test_discrete.py.
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
    System,
    refuse,
    team_reward,
)
from jaxomarl.config import check_fields, config, static, traced
from jaxomarl.data import replay
from jaxomarl.data.dataset import as_is
from jaxomarl.data.on_policy import Collected, advantages, empty_collection, minibatch
from jaxomarl.losses.categorical import greedy, log_policy, taken
from jaxomarl.masking import weighted_mean
from jaxomarl.networks.actor_and_value import ActorAndValue, shared_actor_and_value
from jaxomarl.networks.actors import small
from jaxomarl.optim import Net, Params, create, descend

CHOICES = {"critic": ("joint", "own")}


@config
class Config(replay.Collecting):
    """MAPPO's settings; the defaults are for SMAX on a laptop."""

    critic: str = static(default="joint")
    """What the value sees. joint: all observations. own: the agent's (IPPO)."""
    chunk: int = static(default=16)
    """Updates between two collections: epochs x minibatches."""
    every: int = static(default=25)
    envs: int = static(default=64)
    collect: int = static(default=64)
    capacity: int = static(default=4096)
    """Transitions of a collection: envs x collect."""
    warmup: int = static(default=0, within="[0, inf)")
    """Not used: the policy collects from the start."""
    minibatches: int = static(default=4)
    """Minibatches of an epoch; a chunk is a whole number of epochs."""
    reward_scale: float = traced(default=1.0, within="(0, inf)")
    """Factor of every reward. `clip_ratio` limits steps of the value too, in units of reward."""
    gamma: float = traced(default=0.99, within="[0, 1]")
    """Discount factor of future rewards."""
    trace: float = traced(default=0.95, within="[0, 1]")
    """lambda of the generalised advantages: 0 has one step, 1 the return to go."""
    policy_steps: int = static(default=8_000, scaled="steps")
    """Gradient steps of policy and value; 16 of them are 4,096 steps of the environments."""
    width: int = static(default=128)
    """Width of the hidden layers of policy and value."""
    lr: float = traced(default=2e-3, within="(0, inf)")
    """Learning rate at the start; it falls to zero linearly."""
    clip_ratio: float = traced(default=0.2, within="(0, 1)")
    """eps: how far a probability's ratio, and a value, may move."""
    entropy: float = traced(default=0.01, within="[0, inf)")
    """c_H: weight of the policy's entropy."""
    value_weight: float = traced(default=0.5, within="[0, inf)")
    """c_V: weight of the value's loss."""
    clip: float = traced(default=0.5, within="(0, inf)")
    """Largest norm of the gradient."""


class OnPolicy(NamedTuple):
    """Actor and value as one network, the last collection, and the environments."""

    net: Net
    collected: Any
    shuffle: Any
    """Key of the permutations of the collection."""
    walk: Any


def networks(spec: Spec, cfg: Config) -> tuple[ActorAndValue, optax.GradientTransformation]:
    """Build the shared actor and value, and their optimiser."""
    nets = shared_actor_and_value(spec, (cfg.width,) * 2, joint=cfg.critic == "joint")
    rate = optax.linear_schedule(cfg.lr, 0.0, cfg.policy_steps)
    return nets, optax.chain(optax.clip_by_global_norm(cfg.clip), optax.adam(rate, eps=1e-5))


def collecting(spec: Spec, cfg: Config, env: Environment) -> Callable[..., OnPolicy]:
    """Build the stage's `refresh`: every environment steps, and the rows are valued."""
    nets, _ = networks(spec, cfg)
    mask = jnp.asarray(spec.act_mask)

    # line 1
    def refresh(key: Key[Array, ""], state: OnPolicy, past: Past, data: Dataset | None) -> OnPolicy:
        k_walk, k_shuffle = jax.random.split(key)
        params = state.net.params

        # line 2
        def explore(key, seen):
            logits = nets.actor.apply(params["actor"], seen.obs)
            chosen = jax.random.categorical(key, log_policy(logits, mask * seen.available))
            return jax.nn.one_hot(chosen, spec.act_width)

        walk, rows = replay.step_environments(env, explore, state.walk, k_walk, cfg.collect)

        # line 3
        v = nets.value.apply(params["value"], rows.obs)
        v_next = nets.value.apply(params["value"], rows.next_obs)
        reward = cfg.reward_scale * team_reward(spec.team, rows.reward)[:, None]
        delta = reward + cfg.gamma * (1.0 - rows.done)[:, None] * v_next - v

        # line 4
        by_step = lambda x: x.reshape(cfg.collect, cfg.envs, *x.shape[1:])
        advantage = advantages(by_step(delta), by_step(rows.last), cfg.gamma * cfg.trace)
        advantage = advantage.reshape(v.shape)
        assert rows.available is not None and rows.alive is not None
        legal = mask * rows.available
        log_pi = log_policy(nets.actor.apply(params["actor"], rows.obs), legal)
        collected = Collected(
            obs=rows.obs,
            action=rows.action,
            legal=legal,
            alive=rows.alive,
            log_pi=taken(log_pi, rows.action),
            value=v,
            advantage=advantage,
            returns=advantage + v,
        )
        shuffle = jax.random.key_data(k_shuffle)
        return state._replace(collected=collected, shuffle=shuffle, walk=walk)

    return refresh


def losses(
    cfg: Config, nets: ActorAndValue, params: Params, batch: Collected
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """L_pi + c_V L_V of a minibatch, and the metrics."""
    # line 6
    centred = batch.advantage - weighted_mean(batch.advantage, batch.alive)
    deviation = jnp.sqrt(weighted_mean(centred**2, batch.alive))
    advantage = centred / (deviation + 1e-8)
    log_pi = log_policy(nets.actor.apply(params["actor"], batch.obs), batch.legal)
    ratio = jnp.exp(taken(log_pi, batch.action) - batch.log_pi)

    # line 7
    limited = jnp.clip(ratio, 1.0 - cfg.clip_ratio, 1.0 + cfg.clip_ratio)
    gain = jnp.minimum(ratio * advantage, limited * advantage)
    entropy = -jnp.sum(jnp.exp(log_pi) * jnp.where(batch.legal > 0, log_pi, 0.0), axis=-1)
    mean_entropy = weighted_mean(entropy, batch.alive)
    policy_loss = -weighted_mean(gain, batch.alive) - cfg.entropy * mean_entropy

    # line 8
    v = nets.value.apply(params["value"], batch.obs)
    near = batch.value + jnp.clip(v - batch.value, -cfg.clip_ratio, cfg.clip_ratio)
    worse = jnp.maximum((v - batch.returns) ** 2, (near - batch.returns) ** 2)
    v_loss = 0.5 * jnp.mean(worse)

    moved = weighted_mean((jnp.abs(ratio - 1.0) > cfg.clip_ratio).astype(jnp.float32), batch.alive)
    metrics = {"policy_loss": policy_loss, "v_loss": v_loss, "entropy": mean_entropy}
    metrics["clipped"] = moved
    return policy_loss + cfg.value_weight * v_loss, metrics


def policy(spec: Spec, cfg: Config, env: Environment | None) -> Algorithm:
    """Build the learner; without an environment it can act, but not learn."""
    nets, optimiser = networks(spec, cfg)
    mask = jnp.asarray(spec.act_mask)

    def init(key: Key[Array, ""], past: Past, data: Dataset | None) -> OnPolicy:
        k_actor, k_value, k_walk = jax.random.split(key, 3)
        params = {"actor": small(nets.actor.init(k_actor)), "value": nets.value.init(k_value)}
        net = create(optimiser, params)
        if env is None:
            return OnPolicy(net, (), (), ())
        empty = empty_collection(spec, cfg.envs * cfg.collect)
        shuffle = jax.random.key_data(key)
        return OnPolicy(net, empty, shuffle, replay.begin(env, k_walk, cfg.envs))

    def batch(key: Key[Array, ""], state: OnPolicy, data: Dataset | None) -> Collected:
        # Adam and its schedule count alike
        _, count = optax.tree_utils.tree_get_all_with_path(state.net.opt, "count")[0]
        done = count % cfg.chunk
        return minibatch(state.collected, state.shuffle, done, cfg.minibatches)

    # line 5
    def update(
        key: Key[Array, ""], state: OnPolicy, past: Past, batch: Collected
    ) -> tuple[OnPolicy, dict]:
        # line 9
        loss = lambda params: losses(cfg, nets, params, batch)
        grads, metrics = jax.grad(loss, has_aux=True)(state.net.params)
        return state._replace(net=descend(optimiser, state.net, grads)), metrics

    def act(key, state, past, memory, observation):
        logits = nets.actor.apply(state.net.params["actor"], observation.obs * spec.obs_mask)
        return greedy(logits, mask * observation.available), memory

    return Algorithm(init, batch, update, act)


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings or tasks that MAPPO cannot train on."""
    if not spec.discrete:
        way = "Take matd3 for continuous actions."
        raise refuse("--task", "discrete actions", "a continuous task", way)
    check_fields(cfg, CHOICES)
    replay.check(cfg)
    rows = cfg.envs * cfg.collect
    if rows % cfg.minibatches or cfg.chunk % cfg.minibatches:
        expected = f"a divisor of envs x collect = {rows} and of chunk = {cfg.chunk}"
        raise refuse("--cfg.minibatches", expected, cfg.minibatches, "Take 1, 2 or 4.")


def pipeline(spec: Spec, cfg: Config, env: Environment | None = None) -> tuple[Stage, ...]:
    """MAPPO has one stage; without an environment it can act, but not learn."""

    def without_collection(state: OnPolicy) -> OnPolicy:
        return state._replace(collected=(), shuffle=(), walk=())

    final = policy(spec, cfg, env)
    stage = Stage.from_config(cfg, "policy", final, cfg.policy_steps, owner="ppo")
    refresh = collecting(spec, cfg, env) if env else None
    return (stage._replace(refresh=refresh, kept=without_collection),)


PPO = System(Config, check, as_is, pipeline, online=True)
