"""CFCQL: one conservative critic of the joint action, which is told of unseen actions one agent at a time.

**Paper**. Shao et al. 2023, "Counterfactual Conservative Q Learning for Offline Multi-agent Reinforcement Learning",
its form for continuous actions.

**Pseudo-code**. For one joint critic and N policies:

    1   for each gradient step on a batch of transitions:                       stage "policy", `update`
    2       a'_i = clip(pibar_i(o'_i) + N(0, 0.05^2)) for all agents
    3       y = r + gamma (1 - d) min_k Qbar^k(s', a')
    4       for every agent i, a_i^m ~ p_m: M uniform actions; or, penalty_from="policy", M more around pi_i(o_i) and
            around pi_i(o'_i), the others' actions from the data:
            L_i = log mean_m exp(Q^k(s, a_i^m, a_-i) - log p_m(a_i^m))
    5       each Q^k: step down mean (Q^k(s, a) - y)^2 + penalty mean [ sum_i lambda_i L_i - Q^k(s, a) ], lambda = 1/N
    6       every fifth step (`policy_delay`):
    7           pi_i: step down -mean Q^1(s, pi_i(o_i), a_-i) + 1e-3 mean pi_i(o_i)^2, a_-i from the data
    8           targets follow with polyak

**Differs**. With resample="all" line 4 draws the actions of all agents at once, in one L: that is the joint MA-CQL
against which the paper argues, as the term then grows with the joint action's volume; for one agent both are CQL. The
weights are the released default's 1/N; those by a ratio of the policy to a fitted behaviour are not here. Others'
actions carry no jitter of 1e-5. On MuJoCo the released code pairs the samples around pi(o) with the densities around
pi(o') and the other way round; here each keeps its own, of noise cut off at the box. `others="current"` takes a_-i of
line 7 from the policies, held constant. The reward is the team's, and OMAR's mixing of policies is left out.

**Checked**. tests/probes/test_cfcql.py (CQL's term for one agent; N separate terms for a sum of values; the policy's
gradient by other agents' actions; a joint bandit), tests/contract.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Environment, Past, Spec, Stage, System
from jaxomarl.config import config, static, traced
from jaxomarl.data.dataset import sample_transitions
from jaxomarl.losses.conservative import Proposals, conservative
from jaxomarl.losses.td import continues, ensemble_loss, joint_reward
from jaxomarl.networks.critics import twin
from jaxomarl.networks.inputs import flat, observed, stated
from jaxomarl.optim import create, descend, polyak
from jaxomarl.stages import decentralised
from jaxomarl.stages.decentralised import Learner, agent_batches, effort, networks, proposals

CHOICES = {
    **decentralised.DETERMINISTIC_CHOICES,
    "reward": ("team", "first"),
    "resample": ("each", "all"),
    "others": ("data", "current"),
}


@config
class Config(decentralised.Deterministic):
    """CFCQL's settings."""

    reward: str = static(default="team")
    """Reward that is learned. team: the team's. first: agent 1's."""
    policy_lr: float = traced(default=1e-3, within="(0, inf)")
    critic_lr: float = traced(default=1e-3, within="(0, inf)")
    resample: str = static(default="each")
    """Unseen actions of the penalty. each: one agent's at a time (CFCQL). all: all agents' at once (joint MA-CQL)."""
    others: str = static(default="data")
    """Team-mates' actions in a policy's loss. data: the batch's. current: those of the current policies."""
    target_noise: float = traced(default=0.05, within="[0, inf)")
    """Standard deviation of the noise on the target policies' actions."""
    policy_delay: int = static(default=5)
    """Critic updates for one update of the policies and the targets."""


def replaced(
    action: Float[Array, "*B N A"], i: int | Array, own: Float[Array, "*M A"]
) -> Float[Array, "*M N A"]:
    """The joint action with agent i's set to `own`, whose axes may lead with more."""
    mine = (jnp.arange(action.shape[-2]) == i)[:, None]
    return jnp.where(mine, own[..., None, :], action)


def penalty(
    q: Callable[[Float[Array, "M B N A"]], Float[Array, "E M B"]],
    action: Float[Array, "B N A"],
    sampled: Proposals,
    resample: str,
) -> Float[Array, "E B"]:
    """Lines 4 and 5: mean_i L_i - Q(s, a), or with resample="all" one L of all agents' samples.

    `sampled` holds each agent's proposals: actions [N, M, B, A] and log-densities [N, M, B].
    """
    q_data = q(action[None])[:, 0]
    if resample == "all":
        return conservative(
            q(jnp.moveaxis(sampled.action, 0, -2)), sampled.log_p.sum(axis=0), q_data
        )

    def one(i, own):
        return conservative(q(replaced(action, i, own.action)), own.log_p, q_data)

    return jax.vmap(one)(jnp.arange(action.shape[-2]), sampled).mean(axis=0)


def samples(
    key: Key[Array, ""], spec: Spec, cfg: Config, past: Past, batch: Batch, near: list[Array]
) -> Proposals:
    """Line 4's proposals of every agent: actions [N, M, B, A]; `near` are centres [B, N, A]."""
    each, axes = agent_batches(spec, cfg, past, batch)
    draw = lambda k, one, near: proposals(k, cfg, one, cfg.penalty_std, near)
    return jax.vmap(draw, in_axes=(0, axes, 1))(jax.random.split(key, spec.agents), each, near)


def conservative_loss(
    cfg: Config,
    q: Callable[[Array], Array],
    action: Float[Array, "B N A"],
    y: Float[Array, " B"],
    sampled: Proposals,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Line 5, and its metrics; `q` as in `penalty`."""
    q_data = q(action)
    gap = penalty(q, action, sampled, cfg.resample).mean(axis=-1)
    fit = ensemble_loss(q_data, y)
    return fit + cfg.penalty * gap.sum(), {
        "q_loss": fit,
        "q_mean": q_data.mean(),
        "q_gap": gap.mean(),
    }


def policy(spec: Spec, cfg: Config) -> Algorithm:
    """The algorithm."""
    n, mask = spec.agents, jnp.asarray(spec.act_mask)
    nets, see, known = networks(spec, cfg), observed(spec, cfg), stated(cfg)
    value = twin(spec.state_dim, n * spec.act_width, (cfg.critic_width,) * 2)

    def judge(
        params: Any, s: Float[Array, "B S"], action: Float[Array, "*M N A"]
    ) -> Float[Array, "E *M"]:
        return value.apply(
            params, jnp.broadcast_to(s, (*action.shape[:-2], s.shape[-1])), flat(action)
        )

    def play(params: Any, obs: Float[Array, "*B N O"]) -> Float[Array, "*B N A"]:
        return mask * jax.vmap(nets.actor.apply, in_axes=(0, -2), out_axes=-2)(params, obs)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Learner:
        k_actor, k_q = jax.random.split(key)
        one = lambda k: create(nets.tx_actor, nets.actor.init(k), target=True)
        return Learner(
            jax.vmap(one)(jax.random.split(k_actor, n)),
            create(nets.tx_q, value.init(k_q), target=True),
        )

    def batch(key: Key[Array, ""], state: Learner, data: Dataset) -> Batch:
        return sample_transitions(key, data, cfg.policy_batch)

    # line 1
    def update(
        key: Key[Array, ""], state: Learner, past: Past, batch: Batch
    ) -> tuple[Learner, dict]:
        k_after, k_penalty = jax.random.split(key)
        action, s = batch.action * mask, known(past, batch.state)
        obs, next_obs = see(past, batch.obs), see(past, batch.next_obs)

        # --- critic: lines 2-5 ---
        noise = cfg.target_noise * mask * jax.random.normal(k_after, action.shape)
        after = jnp.clip(play(state.actor.target, next_obs) + noise, -1.0, 1.0)
        ahead = judge(state.critic.target, known(past, batch.next_state), after).min(axis=0)
        y = joint_reward(batch, cfg.reward) + cfg.gamma * continues(batch, cfg.time_limit) * ahead
        near = (
            [play(state.actor.params, o) for o in (obs, next_obs)]
            if cfg.penalty_from == "policy"
            else []
        )
        sampled = samples(k_penalty, spec, cfg, past, batch, near)
        loss = lambda params: conservative_loss(
            cfg, lambda a: judge(params, s, a), action, y, sampled
        )
        grads, metrics = jax.grad(loss, has_aux=True)(state.critic.params)
        critic = descend(nets.tx_q, state.critic, grads)

        # --- policies: line 7 ---
        beside = (
            action if cfg.others == "data" else jax.lax.stop_gradient(play(state.actor.params, obs))
        )

        def climb(i, actor, obs, mask):
            def loss(params):
                own = mask * nets.actor.apply(params, obs)
                q = judge(critic.params, s, replaced(beside, i, own))[0].mean()
                return cfg.action_penalty * effort(own, mask) - q

            value, grads = jax.value_and_grad(loss)(actor.params)
            return descend(nets.tx_actor, actor, grads), value

        actor, losses = jax.vmap(climb, in_axes=(0, 0, 1, 0))(jnp.arange(n), state.actor, obs, mask)
        metrics["policy_loss"] = losses.mean()
        due = optax.tree_utils.tree_get(critic.opt, "count") % cfg.policy_delay == 0  # line 6
        moved = Learner(polyak(actor, cfg.polyak), polyak(critic, cfg.polyak))  # line 8
        return jax.tree.map(
            lambda new, old: jnp.where(due, new, old), moved, Learner(state.actor, critic)
        ), metrics

    def act(key, state, past, memory, observation):
        return play(state.actor.params, see(past, observation.obs)), memory

    return Algorithm(init, batch, update, act)


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings, tasks or data that it cannot train on."""
    decentralised.check(spec, cfg, data, CHOICES)


def pipeline(spec: Spec, cfg: Config, env: Environment | None = None) -> tuple[Stage, ...]:
    """One stage."""
    return (
        Stage("policy", policy(spec, cfg), cfg.policy_steps, cfg.chunk, cfg.every, owner="cfcql"),
    )


CFCQL = System(Config, check, lambda spec, cfg, data: data, pipeline)
