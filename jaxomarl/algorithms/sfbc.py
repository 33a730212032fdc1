"""MA-SfBC: each agent clones its behaviour with a diffusion policy, and selects from it by planned values.

**Paper**. Chen et al. 2023, "Offline Reinforcement Learning via High-Fidelity Generative Behavior Modeling",
Algorithm 1, run by every agent alone as in DOM2's tables.

**Pseudo-code**. For every agent i, on its own observation, action and reward:

    1   eps: step down mean |eps(alpha_t a + sigma_t z, t, o) - z|^2, t ~ U(1e-3, 1)       stage "behaviour"
    2   for each round (`rounds`):                                                         stage "policy", `refresh`
    3       V(o) = sum_j softmax_j(alpha Q(o, a_j)) Q(o, a_j), 16 samples a_j of the behaviour, at every row of data
    4       R_t = r_t + gamma (1 - d_t) max(R_{t+1}, V(o_{t+1})), from each trajectory's end; in the first round R_{t+1}
    5       Q: step down mean (Q(o, a) - R)^2                                              `update`
    6   act: 32 samples a_j of the behaviour, one of them with chance softmax_j(alpha Q(o, a_j))

**Differs**. No policy is trained against a critic, so no action is valued that the behaviour would not take: against
diffusion-ql, the value moved from line 5's loss to line 6. alpha counts deviations of the data's returns, which run
from tens to hundreds here, so that one number serves all tasks; it is ours. A trajectory cut by the time limit goes on
with V of its last state (with time_limit="terminal" it ends), and with nothing in the first round, which the paper's
tasks leave open. The noise network is a Mish perceptron and not their residual one, and DPM-Solver is of the first
order. Line 3 is 16 chains for each row and later round: the cost of a run is there.

**Checked**. tests/probes/test_sfbc.py (the best of its candidates under an exact critic; returns by hand, joined where
trajectories meet; clones and the better mode), tests/contract.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxomarl.base import Algorithm, Dataset, Environment, Past, Spec, Stage, System, team_reward
from jaxomarl.config import config, static, traced
from jaxomarl.diffusion.samplers import dpm_solver
from jaxomarl.diffusion.schedules import vp
from jaxomarl.losses.candidates import pick, soft_value
from jaxomarl.losses.planning import planned_returns
from jaxomarl.losses.td import continues, ensemble_loss
from jaxomarl.networks.inputs import observed
from jaxomarl.networks.mlp import mish
from jaxomarl.optim import Net, create, descend
from jaxomarl.policies.diffusion import (
    Diffuser,
    denoising_loss,
    noise_network,
    several,
    times_and_noise,
)
from jaxomarl.stages import clone, decentralised
from jaxomarl.stages.decentralised import networks

ROWS = 512  # rows of data whose candidates are drawn at once


@config
class Config(decentralised.Diffusion):
    """MA-SfBC's settings; `policy_*` are the behaviour model's."""

    policy_steps: int = static(default=10_000, scaled="steps")
    """Gradient steps of the behaviour model, from which actions are sampled."""
    candidates: int = static(default=32)
    critic_steps: int = static(default=9000, scaled="steps")
    """Gradient steps of the critics over all rounds; reports and checkpoints fall between rounds."""
    critic_batch: int = static(default=1024)
    """Transitions in a batch of the critics' updates."""
    rounds: int = static(default=3)
    """Rounds, each on new returns: first from the data, then with the values learned so far."""
    value_samples: int = static(default=16)
    """Actions that are sampled for each state value."""
    alpha: float = traced(default=10.0, within="[0, inf)")
    """Sharpness of both softmaxes, for values in standard deviations of the data's returns."""
    select: str = static(default="softmax")
    """Candidate that is played. softmax: a draw by value. argmax: the best."""


class Planned(NamedTuple):
    """Critics, and the returns that they are fitted to."""

    critic: Net  # leads with N
    returns: Float[Array, "M N"]
    spread: Float[Array, " N"]  # standard deviation of the first round's returns
    round: Int[Array, ""]


class Regression(NamedTuple):
    """Rows drawn for line 5."""

    obs: Float[Array, "B N O"]
    action: Float[Array, "B N A"]
    returns: Float[Array, "B N"]


def diffusion(spec: Spec, cfg: Config) -> Diffuser:
    """The behaviour model."""
    return Diffuser(noise_network(spec, cfg.policy_width), vp(), dpm_solver, cfg.levels)


def every_row(
    value: Callable[[Any], Array], rows: Any, idle: Bool[Array, ""]
) -> Float[Array, "M N"]:
    """`value` of all rows, some at a time. Where `idle` it is zeros, and no work if all runs of a program are."""
    count = jax.tree.leaves(rows)[0].shape[0]
    size = min(ROWS, count)
    turns = -(-count // size)

    def some(carry):
        k, v = carry
        at = jnp.minimum(k * size, count - size)  # the last ones lie over those before
        cut = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, at, size), rows)
        return k + 1, jax.lax.dynamic_update_slice_in_dim(v, value(cut), at, 0)

    one = jax.eval_shape(value, jax.tree.map(lambda x: x[:size], rows))
    begun = jnp.where(idle, turns, 0), jnp.zeros((count, *one.shape[1:]))
    return jax.lax.while_loop(lambda carry: carry[0] < turns, some, begun)[1]


def behaviour(spec: Spec, cfg: Config) -> Algorithm:
    """The behaviour's stage: line 1."""
    diffuser = diffusion(spec, cfg)
    # line 1
    return clone.behaviour(
        spec,
        cfg,
        diffuser.net,
        lambda key, params, seen, _: denoising_loss(
            diffuser, params, seen, *times_and_noise(key, seen)
        ),
    )


def policy(spec: Spec, cfg: Config) -> tuple[Algorithm, Any]:
    """The critics' stage, which acts, and its refresh."""
    n, see, mask, diffuser = (
        spec.agents,
        observed(spec, cfg),
        jnp.asarray(spec.act_mask),
        diffusion(spec, cfg),
    )
    nets = networks(spec, cfg, diffuser.net, activation=mish, members=1)

    def judged(
        key: Any, state: Planned, past: Past, obs: Float[Array, "N O"], count: int
    ) -> tuple[Array, Array]:
        """Candidates [K, N, A] and their values [K, N]."""

        def one(key, model, critic, obs, mask):
            wide, drawn = several(diffuser, key, model, obs, mask, count)
            return drawn, nets.q.apply(critic, wide, drawn)[0]

        each = jax.vmap(one, out_axes=1)
        return each(
            jax.random.split(key, n), past["behaviour"].params, state.critic.params, obs, mask
        )

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Planned:
        critics = jax.vmap(lambda k: create(nets.tx_q, nets.q.init(k)))(jax.random.split(key, n))
        return Planned(
            critics, jnp.zeros((data.step.shape[0], n)), jnp.ones(n), jnp.zeros((), jnp.int32)
        )

    # line 2
    def refresh(
        key: Key[Array, ""], state: Planned, past: Past, data: Dataset
    ) -> Planned:  # lines 3 and 4
        def value(row):
            q = judged(row[0], state, past, row[1], cfg.value_samples)[1]
            return soft_value(q, cfg.alpha / state.spread)

        keys, obs = jax.random.split(key, data.step.shape[0]), see(past, data.obs)
        first = state.round == 0
        v = every_row(jax.vmap(value), (keys, obs), first)  # the first round has no use for them
        team = team_reward(spec.team, data.reward)[:, None]
        reward = data.reward if cfg.reward == "own" else jnp.broadcast_to(team, data.reward.shape)
        factor = cfg.gamma * continues(data, cfg.time_limit)
        found = planned_returns(reward, factor, data.left == 0, v, first)
        spread = jnp.where(first, found[data.starts].std(axis=0) + 1e-6, state.spread)
        return Planned(state.critic, found, spread, state.round + 1)

    def batch(key: Key[Array, ""], state: Planned, data: Dataset) -> Regression:
        start = data.starts[jax.random.randint(key, (cfg.critic_batch,), 0, data.starts.shape[0])]
        row = data.layout.unpack(data.rows[start])
        return Regression(row["obs"], row["action"] * mask, state.returns[start])

    def update(
        key: Key[Array, ""], state: Planned, past: Past, batch: Regression
    ) -> tuple[Planned, dict]:
        def fit(one, obs, action, returns):  # line 5
            loss = lambda params: ensemble_loss(nets.q.apply(params, obs, action), returns)
            value, grads = jax.value_and_grad(loss)(one.params)
            return descend(nets.tx_q, one, grads), value

        each = jax.vmap(fit, in_axes=(0, 1, 1, 1))
        critic, value = each(state.critic, see(past, batch.obs), batch.action, batch.returns)
        return state._replace(critic=critic), {
            "q_loss": value.mean(),
            "returns": batch.returns.mean(),
        }

    def act(key, state, past, memory, observation):  # line 6
        k_draw, k_pick = jax.random.split(key)
        drawn, q = judged(k_draw, state, past, see(past, observation.obs), cfg.candidates)
        gumbel = jax.random.gumbel(k_pick, q.shape) if cfg.select == "softmax" else None
        return pick(drawn, cfg.alpha / state.spread * q, gumbel), memory

    return Algorithm(init, batch, update, act), refresh


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings, tasks or data that it cannot train on."""
    decentralised.check(spec, cfg, data, {**decentralised.CHOICES, "select": ("softmax", "argmax")})


def pipeline(spec: Spec, cfg: Config, env: Environment | None = None) -> tuple[Stage, ...]:
    """Behaviour -> critics by rounds: one scan is one round, before which returns are computed anew."""
    algorithm, refresh = policy(spec, cfg)
    a_round = -(-cfg.critic_steps // cfg.rounds)
    return (
        Stage(
            "behaviour",
            behaviour(spec, cfg),
            cfg.policy_steps,
            cfg.chunk,
            cfg.every,
            clone.FIELDS,
            owner="sfbc",
        ),
        Stage("policy", algorithm, cfg.rounds * a_round, a_round, 1, owner="sfbc", refresh=refresh),
    )


SFBC = System(Config, check, lambda spec, cfg, data: data, pipeline)
