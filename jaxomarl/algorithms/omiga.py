"""OMIGA: values of agents add up to one of the team, and a team's regularised optimum is each agent's own.

**Paper**. Wang et al. 2023, "Offline Multi-Agent Reinforcement Learning with Implicit Global-to-Local Value
Regularization".

**Pseudo-code**. For N agents, with w(s) >= 0 and b(s) of one mixing network:

    1   for each gradient step on a batch of transitions:                       stage "values", `update`
    2       y = r + gamma (1 - d) [ sum_i wbar_i(s') Vbar_i(o'_i) + bbar(s') ]
    3       Q_i, w, b: step down mean (sum_i w_i(s) Q_i(o_i, a_i) + b(s) - y)^2
    4       z_i = wbar_i(s) (Qbar_i(o_i, a_i) - V_i(o_i)) / alpha
    5       V_i: step down mean [ exp(z_i) + wbar_i(s) V_i(o_i) / alpha ]
    6       targets of Q_i, V_i, w and b follow with polyak
    7   for each gradient step on a batch of transitions:                       stage "policy" (stages/clone.py)
    8       pi_i: step down -mean exp(clip(z_i, -10, 10)) log pi_i(a_i | o_i)

Line 5 is least where E exp(z_i) = 1 over the behaviour: w_i V_i = alpha log E exp(w_i Q_i / alpha). Where the agents'
behaviours are independent, these sum to the team's: sum_i w_i V_i + b = alpha log E exp((sum_i w_i Q_i + b) / alpha).

**Differs**. The released code cuts z off at -10 and at 10, inside of line 5 as in line 8. There the exponential has no
slope, and what is left pushes V down, away from the Q that it is too low for where z is large; here line 5 continues
as a straight line on either side (losses/gumbel.py), so that its slope is line 8's weight everywhere. The code also
divides line 5 by its batch's largest exponential, which changes a step's length only. Agents have networks of their
own, as all systems here do, where the code has one for all, told who they are. Joint value, team's reward
(`reward`="first" for agent 1's). Actions at the edge of the box count as if at 0.999 and not at 1 - 1e-7, whose arctanh
is far from all others. The values are finished before the policies begin, which changes nothing for the values.

**Checked**. tests/probes/test_omiga.py (local and global values agree on the closed form, one step written apart,
the slope beyond the cut, no weight below zero), tests/contract.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Environment, Past, Spec, Stage, System
from jaxomarl.config import config, static, traced
from jaxomarl.data.dataset import sample_transitions
from jaxomarl.losses.gumbel import CAP, gumbel
from jaxomarl.losses.td import continues, joint_reward
from jaxomarl.networks.critics import twin, value
from jaxomarl.networks.inputs import observed, stated
from jaxomarl.networks.mixers import linear_mixer, mixed
from jaxomarl.networks.mlp import Network
from jaxomarl.optim import Net, Params, clipped_adam, create, descend, polyak
from jaxomarl.stages import clone, decentralised

VALUES = (
    "critic_steps", "critic_batch", "critic_width", "critic_lr", "mixer_width", "clip", "polyak", "gamma", "alpha",
    "reward", "time_limit", "normalise", "chunk",
)  # fmt: skip


@config
class Config(decentralised.InSample):
    """OMIGA's settings."""

    reward: str = static(default="team")
    """Reward that is learned. team: the team's. first: agent 1's."""
    alpha: float = traced(default=10.0, within="(0, inf)")
    """Weight of the regularisation, in units of reward; larger is nearer to a clone of the behaviour."""
    mixer_width: int = static(default=64, scaled="width")
    """Width of the mixing network's hidden layer."""


class Mixed(NamedTuple):
    """What line 3 trains: action values, which lead with N, and the mixing network."""

    q: Params
    mixer: Params


class Valued(NamedTuple):
    """The team's action value and the agents' state values (N), with targets."""

    critic: Net  # of Mixed
    v: Net


class SeenBatch(NamedTuple):
    """A batch as its networks see it."""

    state: Float[Array, "B S"]
    obs: Float[Array, "B N O"]
    action: Float[Array, "B N A"]


class Critics(NamedTuple):
    """The networks of all agents together, and how they are called."""

    one_q: Network
    one_v: Network
    mixer: Network

    def q(self, params: Params, seen: SeenBatch) -> Float[Array, "B N"]:
        """Q_i(o_i, a_i)."""
        return jax.vmap(self.one_q.apply, in_axes=(0, 1, 1), out_axes=-1)(
            params, seen.obs, seen.action
        )[0]

    def v(self, params: Params, obs: Float[Array, "B N O"]) -> Float[Array, "B N"]:
        """V_i(o_i)."""
        return jax.vmap(self.one_v.apply, in_axes=(0, 1), out_axes=-1)(params, obs)


def critics(spec: Spec, cfg: Config) -> Critics:
    """Q_i(o_i, a_i), V_i(o_i), and [w(s), b(s)]."""
    hidden = (cfg.critic_width,) * 2
    q, v = twin(spec.obs_width, spec.act_width, hidden, members=1), value(spec.obs_width, hidden)
    return Critics(q, v, linear_mixer(spec.state_dim, cfg.mixer_width, spec.agents))


def shown(spec: Spec, cfg: Config, past: Past, batch: Batch) -> SeenBatch:
    """The batch's transitions where they start."""
    return SeenBatch(
        stated(cfg)(past, batch.state),
        observed(spec, cfg)(past, batch.obs),
        batch.action * spec.act_mask,
    )


def advantage(
    cfg: Config, nets: Critics, state: Valued, v: Float[Array, "B N"], seen: SeenBatch
) -> tuple[Array, Array]:
    """Line 4: z [B, N] for values v, and the weights wbar [B, N]."""
    w = nets.mixer.apply(state.critic.target.mixer, seen.state)[..., :-1]
    return w * (nets.q(state.critic.target.q, seen) - v) / cfg.alpha, w


def values(spec: Spec, cfg: Config) -> Algorithm:
    """The values' stage: lines 1 to 6."""
    nets, tx = critics(spec, cfg), clipped_adam(cfg.critic_lr, cfg.clip)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Valued:
        k_q, k_v, k_mixer = jax.random.split(key, 3)
        each = lambda net, key: jax.vmap(net.init)(jax.random.split(key, spec.agents))
        critic = create(tx, Mixed(each(nets.one_q, k_q), nets.mixer.init(k_mixer)), target=True)
        return Valued(critic, create(tx, each(nets.one_v, k_v), target=True))

    def batch(key: Key[Array, ""], state: Valued, data: Dataset) -> Batch:
        return sample_transitions(key, data, cfg.critic_batch)

    # line 1
    def update(key: Key[Array, ""], state: Valued, past: Past, batch: Batch) -> tuple[Valued, dict]:
        seen, see = shown(spec, cfg, past, batch), observed(spec, cfg)
        after = nets.mixer.apply(state.critic.target.mixer, stated(cfg)(past, batch.next_state))
        ahead = mixed(after, nets.v(state.v.target, see(past, batch.next_obs)))
        y = (
            joint_reward(batch, cfg.reward) + cfg.gamma * continues(batch, cfg.time_limit) * ahead
        )  # line 2

        def q_loss(params):  # line 3
            q = mixed(nets.mixer.apply(params.mixer, seen.state), nets.q(params.q, seen))
            return jnp.mean((q - y) ** 2), q.mean()

        def v_loss(params):  # lines 4 and 5
            v = nets.v(params, seen.obs)
            z, w = advantage(cfg, nets, state, v, seen)
            return jnp.mean(gumbel(z) + w * v / cfg.alpha), {
                "weight": w.mean(),
                "cut": jnp.mean(jnp.abs(z) > CAP),
            }

        (loss_q, q_mean), grad_q = jax.value_and_grad(q_loss, has_aux=True)(state.critic.params)
        (loss_v, metrics), grad_v = jax.value_and_grad(v_loss, has_aux=True)(state.v.params)
        moved = descend(tx, state.critic, grad_q), descend(tx, state.v, grad_v)
        state = Valued(*(polyak(net, cfg.polyak) for net in moved))  # line 6
        return state, {"q_loss": loss_q, "q_mean": q_mean, "v_loss": loss_v, **metrics}

    return Algorithm(init, batch, update)


def policy(spec: Spec, cfg: Config) -> Algorithm:
    """The policies' stage: lines 7 and 8."""
    nets = critics(spec, cfg)

    def weigh(past: Past, batch: Batch) -> Float[Array, "B N"]:
        seen, held = shown(spec, cfg, past, batch), past["values"]
        z = advantage(cfg, nets, held, nets.v(held.v.params, seen.obs), seen)[0]
        return jnp.exp(jnp.clip(z, -CAP, CAP))

    return clone.gaussian(spec, cfg, weigh)  # line 8


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings, tasks or data that it cannot train on."""
    decentralised.check(spec, cfg, data, {**decentralised.CHOICES, "reward": ("team", "first")})


def pipeline(spec: Spec, cfg: Config, env: Environment | None = None) -> tuple[Stage, ...]:
    """Values -> policies."""
    return (
        Stage(
            "values",
            values(spec, cfg),
            cfg.critic_steps,
            cfg.chunk,
            cfg.every,
            VALUES,
            owner="omiga",
        ),
        Stage("policy", policy(spec, cfg), cfg.policy_steps, cfg.chunk, cfg.every, owner="omiga"),
    )


OMIGA = System(Config, check, lambda spec, cfg, data: data, pipeline)
