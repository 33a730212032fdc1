"""Diffusion policies of a team that learn as one, under DoF-Policy and Independent Diffusion. One step:

    a' ~ pibar(o'), the whole chain;  each Q^k: step down mean (Q^k(c, a) - r - gamma (1 - d) min_k Qbar^k(c', a'))^2
    u ~ pi(o);  theta: step down L_fit - eta mean Q^1(c, u) / sg[ mean |Q^1(c, u)| ],   L_fit of stages/generator.py
    targets of critics and policies follow with polyak.

The joint critic has c = state, a = all actions and the team's reward; own critics have c = o_i and a = a_i, and the
value in theta's loss is their mean.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Batch, Dataset, JaxomarlError, Past, Schedule, Spec, refuse
from jaxomarl.config import config, static, traced
from jaxomarl.data.dataset import sample_transitions
from jaxomarl.diffusion.schedules import cosine, linear, vp_discrete
from jaxomarl.losses.candidates import pick
from jaxomarl.losses.td import continues
from jaxomarl.losses.weighting import normalised_value
from jaxomarl.networks.critics import twin
from jaxomarl.networks.mlp import Network, mish
from jaxomarl.optim import create
from jaxomarl.stages import decentralised, diffusion_policy
from jaxomarl.stages.decentralised import Case, Learner, Nets, cases, critic_step, optimiser, policy_step
from jaxomarl.stages.diffusion_policy import several
from jaxomarl.stages.generator import Team, drawn, finished, fitting_loss, noise
from jaxomarl.stages.inputs import flat, observed, stated

SCHEDULES: dict[str, Callable[[int], Schedule]] = {
    "vp": lambda levels: vp_discrete(),
    "cosine": cosine,
    "linear": linear,
}
CHOICES = {
    **decentralised.CHOICES,
    "critic": ("joint", "own"),
    "schedule": tuple(SCHEDULES),
    "acting": ("online", "target"),
}


@config
class Config(diffusion_policy.Config, decentralised.Config):
    """Settings of teams with diffusion policies; the defaults are DoF-Policy's."""

    reward: str = static(default="team")
    """team: the team's. own: each agent's, for own critics alone."""
    critic: str = static(default="joint")
    """joint: Q(state, all actions). own: Q_i(o_i, a_i) for each agent."""
    gamma: float = traced(default=0.99, within="[0, 1]")
    eta: float = traced(default=0.5, within="[0, inf)")
    """Weight of the normalised value in the policies' loss; 0 clones the behaviour."""
    levels: int = static(default=10)
    """K: steps of the sampler, and noise levels that are trained."""
    schedule: str = static(default="vp")
    """vp: Diffusion-QL's. cosine: squared cosine. linear: betas 1e-4 .. 0.02, for about 1000 levels."""
    candidates: int = static(default=1)
    """Actions drawn, of which the one with the largest own value is played; one is a sample of the policy."""
    acting: str = static(default="online")
    """Which networks play: online, or target."""
    polyak: float = traced(default=0.005, within="(0, 1]")


def critics(spec: Spec, cfg: Any) -> Network:
    """Twin critics (params, c [..., C], a [..., D]) -> [2, ...], one joint critic or one agent's own."""
    whole, own = (spec.state_dim, spec.agents * spec.act_width), (spec.obs_width, spec.act_width)
    return twin(*(whole if cfg.critic == "joint" else own), (cfg.critic_width,) * 3, activation=mish)


def critics_cases(spec: Spec, cfg: Any, past: Past, batch: Batch) -> tuple[Case, Case]:
    """What each critic is told of a batch, and the axes over which to vmap them: one critic, or N."""
    own, axes = cases(spec, cfg, past, batch)
    if cfg.critic == "own":
        return own, axes
    see = lambda state: stated(cfg)(past, state)[:, None]
    one = Case(
        see(batch.state),
        flat(own.action)[:, None],
        batch.team_reward[:, None],
        see(batch.next_state),
        continues(batch, cfg.time_limit),
        own.mask.reshape(1, -1),
    )
    return one, axes


def learner(spec: Spec, cfg: Any, team: Team) -> Algorithm:
    """The team as it learns; as at the head of this file."""
    see, mask, q = observed(spec, cfg), jnp.asarray(spec.act_mask), critics(spec, cfg)
    actor = Network(team.init, team.trained.net.apply)
    nets = Nets(actor, q, optimiser(cfg, cfg.policy_lr), optimiser(cfg, cfg.critic_lr))
    rows = 1 if cfg.critic == "joint" else spec.agents

    def split(action: Float[Array, "B N A"]) -> Float[Array, "B C D"]:
        return action.reshape(len(action), rows, -1)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Learner:
        k_actor, k_q = jax.random.split(key)
        one = lambda k: create(nets.tx_q, q.init(k), target=True)
        actor = create(nets.tx_actor, team.init(k_actor), target=True)
        return Learner(actor, jax.vmap(one)(jax.random.split(k_q, rows)))

    def batch(key: Key[Array, ""], state: Learner, data: Dataset) -> Batch:
        return sample_transitions(key, data, cfg.policy_batch)

    def update(key: Key[Array, ""], state: Learner, past: Past, batch: Batch) -> tuple[Learner, dict]:
        k_after, k_noise, k_play = jax.random.split(key, 3)
        case, axes = critics_cases(spec, cfg, past, batch)
        after = split(drawn(team, k_after, state.actor.target, see(past, batch.next_obs), mask))

        def judge(critic, case, after):
            stepped, metrics = critic_step(cfg, nets, Learner(state.actor, critic), case, after)
            return stepped.critic, metrics

        critic, judged = jax.vmap(judge, in_axes=(0, axes, 1))(state.critic, case, after)
        obs, action = see(past, batch.obs), batch.action * mask
        t, z = noise(k_noise, cfg.levels, mask, len(action))

        def loss(params):
            fit, metrics = fitting_loss(team, params, action, obs, mask, t, z)
            played = split(drawn(team, k_play, params, obs, mask))
            value = jax.vmap(q.apply, in_axes=(0, 1, 1))(critic.params, case.obs, played)[:, 0]  # [C, B]
            climb = jax.vmap(lambda v: normalised_value(v, cfg.eta, v))(value).mean()
            return fit + climb, {**metrics, "q_played": value.mean()}

        state, metrics = policy_step(cfg, nets, Learner(state.actor, critic), loss)
        return state, jax.tree.map(jnp.mean, judged) | metrics

    def act(key, state, past, memory, observation):
        params = state.actor.target if cfg.acting == "target" else state.actor.params
        obs = see(past, observation.obs)
        wide, x = several(team.played, key, params, obs, mask, cfg.candidates)
        action = finished(team, params, x, wide, mask)
        if cfg.candidates == 1:
            return action[0], memory
        value = jax.vmap(q.apply, in_axes=(0, 1, 1), out_axes=2)(state.critic.target, wide, action).min(axis=0)
        if team.centralised:  # a joint action is one draw: it is taken whole
            value = jnp.broadcast_to(value.mean(axis=1, keepdims=True), value.shape)
        return pick(action, value), memory

    return Algorithm(init, batch, update, act, centralised=team.centralised)


def check(spec: Spec, cfg: Any, data: Dataset | None, choices: dict[str, tuple[str, ...]]) -> None:
    """Raise JaxomarlError for settings, tasks or data that a team cannot learn on."""
    decentralised.check(spec, cfg, data, {**CHOICES, **choices})
    try:
        SCHEDULES[cfg.schedule](cfg.levels)
    except JaxomarlError as error:
        way = f"Take --cfg.schedule vp or cosine: {error}"
        wanted = f"one that ends at noise after {cfg.levels} levels"
        raise refuse("--cfg.schedule", wanted, cfg.schedule, way) from error
    if cfg.critic == "joint" and cfg.reward != "team":
        way = "A joint critic has one value: take --cfg.reward team, or --cfg.critic own."
        raise refuse("--cfg.reward", "team", cfg.reward, way)
    if cfg.critic == "joint" and cfg.candidates > 1:
        way = "No agent sees the joint critic's state or the others' candidates: take 1, or --cfg.critic own."
        raise refuse("--cfg.candidates", "1 with a joint critic", cfg.candidates, way)
