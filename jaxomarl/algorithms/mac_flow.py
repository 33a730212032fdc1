"""MAC-Flow: a joint flow of the behaviour is distilled into one-step policies that act apart.

**Paper**. Lee et al. 2026, "Multi-agent Coordination via Flow Matching", its loss and released
code, as far as an account of them goes: no per-task number could be verified.

**Pseudo-code**. z = (z_1, .., z_n) is the team's noise, Q_tot = mean_i Q_i(o_i, a_i):

    1   v: flow matching of all actions on all observations   stage "flow-joint" (stages/flow.py)
    2   for each gradient step on a batch of transitions:     stage "policy", `update`
    3       z' ~ N(0, I);  a'_i = clip f_i(o'_i, z'_i)
    4       each Q^k: step down mean (Q_tot^k(o, a) - r - gamma (1 - d) mean_k Qbar_tot^k(o', a'))^2
    5       z ~ N(0, I);  g = sg clip Euler_K(v; o, z)
    6       f: step down alpha mean |f_i(o_i, z_i) - g_i|^2
                - eta mean Q_tot(o, clip f) / sg[ mean |Q_tot| ],  Q_tot the mean of the twins
    7       targets of the critics follow with polyak; the policies have none
    8   act: z_i ~ N(0, I), play clip f_i(o_i, z_i): one call, each agent alone

        teacher = own       line 1 is each agent's own flow, stage "flow-own"
        noise = shared      f_i gets all of z: agents share a seed, and nothing else
        critic = joint      Q_tot is one critic of the state and all actions

What line 6 can reach is E[g_i | o_i, z_i], the mean over the others' noise, and not agent i's
marginal: on data of two agreements it is uniform between them (docs/one-step.md). With
noise = shared f = g can be reached. A mean of own critics does not know which agreement the others
follow; a joint critic chooses one where alpha is small.

**Differs**.

- The released code has no joint flow. Its velocity gets one agent's row and number: teacher = own,
  with shared weights. Text and ablations speak of a joint one, which is ours.
- The paper's two stages are trained one after the other; its code trains all three at once.
- Each agent has networks of its own. The code has one network, told the agent's number.
- The critics are Mish perceptrons without layer normalisation; alpha is 3 and gamma the task's.
- The code's policy for discrete actions gets no gradient of Q (it asks Q at a one-hot argmax), so
  we leave discrete actions out.
- The code may act at z = 0, which is one action for each observation. Ours draw z.
- For one agent this is `fql`. With eta = 0 it is the flow's distillate.

**Checked**. tests/probes/test_mac_flow.py (one agent's losses and steps are fql's; the mean of own
values; whose noise a student sees), tests/papers/test_one_step.py (the fixed point of line 6),
tests/contract.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Environment, Health, Past, Spec, Stage, System
from jaxomarl.config import config, is_zero, static, traced
from jaxomarl.data.dataset import as_is, check_batch, sample_transitions
from jaxomarl.health import behaviour, critics
from jaxomarl.health.held import joined
from jaxomarl.losses.td import TIME_LIMITS, ensemble_loss, joint_target
from jaxomarl.networks.agents import separate
from jaxomarl.networks.critics import joint_twin, twin
from jaxomarl.networks.inputs import observation_normaliser, state_normaliser
from jaxomarl.networks.mlp import Network, mish
from jaxomarl.optim import Params, clipped_adam, descend
from jaxomarl.policies.flows import (
    Flow,
    flow_end,
    in_box,
    masked_noise,
    shared_noise,
    student_network,
    team_velocity,
)
from jaxomarl.stages import decentralised
from jaxomarl.stages import flow as flows
from jaxomarl.stages.decentralised import RAISE, ActorCritic, AgentNetworks

CHOICES = {
    "reward": ("team", "first"),
    "time_limit": TIME_LIMITS,
    "teacher": ("joint", "own"),
    "noise": ("own", "shared"),
    "critic": ("mean", "joint"),
}


@config
class Config(flows.Taught, decentralised.Wide):
    """MAC-Flow's settings."""

    reward: str = static(default="team")
    """Reward that is learned. team: the team's. first: agent 1's."""
    teacher: str = static(default="joint")
    """Flow that is distilled. joint: the team's. own: each agent's."""
    noise: str = static(default="own")
    """Noise of an agent's policy. own: its own. shared: the team's, from a seed that all share."""
    critic: str = static(default="mean")
    """Value of the team. mean: of the agents' own critics. joint: one critic of all actions."""
    polyak: float = traced(default=0.005, within="(0, 1]")
    """Rate at which the critics' targets follow them."""


Rows = tuple[Array, Array]
"""Normalised observations [B, N, O] and states [B, S]."""


class Team(NamedTuple):
    """All agents' networks."""

    nets: AgentNetworks
    """The students, which lead with N, and the critics, with the optimisers of both."""
    flow: Flow
    raw: Callable[[Params, Array, Array], Array]
    """(params, z [..., N, A], obs [..., N, O]) -> f [..., N, A], not clipped."""
    value: Callable[[Params, Rows, Array], Array]
    """(params, rows, action [B, N, A]) -> Q_tot of each twin [E, B]."""


def team(spec: Spec, cfg: Config) -> Team:
    """Build the networks of all agents."""
    n = spec.agents
    own = cfg.noise == "own"
    noise_width = spec.act_width if own else n * spec.act_width
    student = student_network(spec.act_width, noise_width, spec.obs_width, cfg.policy_width)
    students = separate(student, n)
    hidden = (cfg.critic_width,) * 2
    own_twin = twin(spec.obs_width, spec.act_width, hidden, activation=mish)
    own_twins = separate(own_twin, n, (-2, -2), out=-1)
    joint = joint_twin(spec, hidden, mish)

    def raw(params: Params, z: Array, obs: Array) -> Array:
        return students.apply(params, z if own else shared_noise(z), obs)

    def value(params: Params, rows: Rows, action: Array) -> Array:
        obs, state = rows
        if cfg.critic == "joint":
            return joint.apply(params, state, action)
        return own_twins.apply(params, obs, action).mean(axis=-1)

    q: Network = joint if cfg.critic == "joint" else own_twins
    nets = AgentNetworks(
        students, q, clipped_adam(cfg.policy_lr, cfg.clip), clipped_adam(cfg.critic_lr, cfg.clip)
    )
    velocity = team_velocity(spec, cfg.flow_width, flows.TEACHERS[cfg.teacher])
    return Team(nets, Flow(velocity, cfg.levels), raw, value)


def policy(spec: Spec, cfg: Config) -> Algorithm:
    """Build the last stage: the agents' students and the team's value."""
    nets, flow, raw, team_value = team(spec, cfg)
    aggregate = flows.AGGREGATES[cfg.aggregate]
    action_mask = jnp.asarray(spec.act_mask)
    normalise_obs = observation_normaliser(spec, cfg)
    normalise_state = state_normaliser(cfg)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> ActorCritic:
        return flows.first_networks(nets, key)

    def batch(key: Key[Array, ""], state: ActorCritic, data: Dataset) -> Batch:
        return sample_transitions(key, data, cfg.policy_batch)

    # line 2
    def update(
        key: Key[Array, ""], state: ActorCritic, past: Past, batch: Batch
    ) -> tuple[ActorCritic, dict]:
        k_next, k_z = jax.random.split(key)
        size = batch.action.shape[:1]
        rows = normalise_obs(past, batch.obs), normalise_state(past, batch.state)
        after = normalise_obs(past, batch.next_obs), normalise_state(past, batch.next_state)

        # --- critics: lines 3 and 4 ---
        z_next = masked_noise(k_next, action_mask, size)
        next_action = in_box(raw(state.actor.params, z_next, after[0]), action_mask)
        ahead = aggregate(team_value(state.critic.target, after, next_action), axis=0)
        y = joint_target(batch, ahead, cfg.gamma, cfg.reward, cfg.time_limit)

        def critic_loss(params):
            q = team_value(params, rows, batch.action * action_mask)
            loss = ensemble_loss(q, y)
            return loss, {"q_loss": loss, "q_mean": q.mean()}

        grads, critic_metrics = jax.grad(critic_loss, has_aux=True)(state.critic.params)
        critic = descend(nets.tx_q, state.critic, grads)
        state = ActorCritic(state.actor, critic)

        # --- students: lines 5 and 6 ---
        z = masked_noise(k_z, action_mask, size)
        taught_by = flows.teacher_params(past, cfg.teacher)
        taught = flow_end(flow, taught_by, z, rows[0], action_mask)

        def loss(params):
            out = raw(params, z, rows[0])
            fit = flows.distillation(out, taught, action_mask)
            q = team_value(critic.params, rows, in_box(out, action_mask))
            value, q_mean = flows.value_term(cfg, q)
            return cfg.alpha * fit + value, {"distillation_loss": fit, "q_played": q_mean}

        # lines 6 and 7
        return flows.one_step_update(nets, cfg.polyak, state, loss, critic_metrics)

    # line 8
    def act(key, state, past, memory, observation):
        obs = normalise_obs(past, observation.obs)
        z = masked_noise(key, action_mask)
        return in_box(raw(state.actor.params, z, obs), action_mask), memory

    return Algorithm(init, batch, update, act)


def team_health(spec: Spec, cfg: Config, algorithm: Algorithm) -> Health:
    """Figures of Q_tot against the team's returns, and how far the policies are from the data."""
    value = team(spec, cfg).value
    normalise_obs = observation_normaliser(spec, cfg)
    normalise_state = state_normaliser(cfg)

    def values(
        state: ActorCritic, past: Past, obs: Array, env_state: Array, action: Array
    ) -> Float[Array, " K"]:
        rows = normalise_obs(past, obs), normalise_state(past, env_state)
        return value(state.critic.params, rows, action).mean(axis=0)

    critic = critics.critic(values, cfg.gamma, cfg.reward, RAISE)
    if is_zero(cfg.eta):
        critic = critic._replace(gates=())
    return joined(critic, behaviour.policy(spec, algorithm))


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings, tasks or data that MAC-Flow cannot train on."""
    decentralised.check(spec, cfg, data, {**CHOICES, **flows.CHOICES})
    check_batch(data, cfg.flow_batch, "--cfg.flow-batch")


def pipeline(spec: Spec, cfg: Config, env: Environment | None = None) -> tuple[Stage, ...]:
    """Two stages: the team's flow -> students and critics."""
    final = policy(spec, cfg)
    compared = team_health(spec, cfg, final)
    last = Stage.from_config(cfg, "policy", final, cfg.policy_steps, None, "mac-flow", compared)
    return flows.teacher_stage(spec, cfg, cfg.teacher, ("teacher",)), last


MAC_FLOW = System(Config, check, as_is, pipeline)
