"""Agents that learn apart: agent i from (o_i, a_i, r_i, o'_i), with its own twin critics.

DOM2 and the baselines of its tables differ in how a policy acts and in what it descends. Here is
the rest: settings, one agent's share of a batch, the critics' step, and the one vmapped update in
which all agents train. One step:

    y = r + gamma (1 - d) min_k Qbar^k(o', a')
    L_Q = sum_k { mean (Q^k(o, a) - y)^2 + penalty C^k }
    C^k = mean [ log mean_m exp(Q^k(o, a_m) - log p_m) - Q^k(o, a) ]
    the critics step down L_Q, the policy steps down its loss under the new critics,
    and both targets follow.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Health, Past, Spec, State
from jaxomarl.config import Pacing, check_continuous, check_fields, config, is_zero, static, traced
from jaxomarl.data.dataset import check_batch, check_transitions, sample_transitions
from jaxomarl.health import behaviour, critics
from jaxomarl.health.held import joined
from jaxomarl.losses.conservative import (
    Proposals,
    conservative,
    joined_proposals,
    normal_proposals,
    uniform_proposals,
)
from jaxomarl.losses.td import TIME_LIMITS, agents_reward, continuation_factor, ensemble_loss
from jaxomarl.networks.actors import actor, small
from jaxomarl.networks.critics import twin
from jaxomarl.networks.inputs import flat, observation_normaliser, state_normaliser
from jaxomarl.networks.mlp import Network
from jaxomarl.optim import Net, Params, clipped_adam, create, descend, polyak
from jaxomarl.stages import clone

RAISE = ("policy_steps", "policy_batch", "critic_width")
"""What to raise where critics have not learned that train with the policies."""
CHOICES = {"reward": ("own", "team"), "time_limit": TIME_LIMITS}
IN_SAMPLE_FIELDS = (
    "critic_steps", "critic_batch", "critic_width", "critic_lr", "clip", "polyak", "gamma",
    "reward", "time_limit", "normalise", "chunk",
)  # fmt: skip
"""The settings of `InSample` that reach the stage of values."""
DETERMINISTIC_CHOICES = {**CHOICES, "penalty_from": ("uniform", "policy")}


@config
class Valued(Pacing):
    """Settings of systems that learn values of rewards."""

    reward: str = static(default="own")
    """Reward that is learned. own: each agent's. team: the team's, for every agent."""
    time_limit: str = static(default="bootstrap")
    """What a time limit does. bootstrap: the episode continues past it. terminal: it ends there."""
    normalise: bool = static(default=True)
    """Whether the networks' observations are normalised to mean 0 and standard deviation 1."""


@config
class AgentSettings(Valued):
    """Settings of systems whose agents learn apart; the defaults are OMAR's for particle tasks."""

    gamma: float = traced(default=0.95, within="[0, 1]")
    """Discount factor of future rewards."""
    chunk: int = static(default=100)
    policy_steps: int = static(default=10_000, scaled="steps")
    """Gradient steps of the critics and the policies, which train together."""
    policy_batch: int = static(default=1024)
    """Transitions in a batch of the policies' updates."""
    policy_width: int = static(default=64, scaled="width")
    """Width of the policies' two hidden layers."""
    policy_lr: float = traced(default=0.01, within="(0, inf)")
    """Learning rate of the policies."""
    critic_width: int = static(default=64, scaled="width")
    """Width of the critics' two hidden layers."""
    critic_lr: float = traced(default=0.01, within="(0, inf)")
    """Learning rate of the critics."""
    clip: float = traced(default=0.5, within="(0, inf)")
    """Largest norm of a gradient: of one agent's critics, or of its policy."""


@config
class Wide(AgentSettings):
    """Settings of agents with the networks and rates that are usual in single-agent papers."""

    policy_width: int = static(default=256, scaled="width")
    policy_lr: float = traced(default=3e-4, within="(0, inf)")
    critic_width: int = static(default=256, scaled="width")
    critic_lr: float = traced(default=3e-4, within="(0, inf)")


@config
class Diffusion(Wide):
    """Settings of agents with diffusion policies; the sizes and rates are Diffusion-QL's."""

    policy_width: int = static(default=256, scaled="width")
    """Width of the noise network's three hidden layers."""
    levels: int = static(default=15)
    """Steps of the sampler."""
    candidates: int = static(default=10)
    """Actions that the diffusion policy samples in each step, of which one is taken."""


@config
class Gaussian(Wide):
    """Settings of agents with Gaussian policies."""

    clip: float = traced(default=1.0, within="(0, inf)")
    """Largest norm of a gradient."""


@config
class InSample(Gaussian):
    """Settings of agents that learn the values of the data's actions, and then copy the best."""

    policy_steps: int = static(default=10_000, scaled="steps")
    """Gradient steps of the policies, which begin when the values are finished."""
    critic_steps: int = static(default=10_000, scaled="steps")
    """Gradient steps of the values."""
    critic_batch: int = static(default=1024)
    """Transitions in a batch of the values' updates."""
    polyak: float = traced(default=0.005, within="(0, 1]")
    """Rate at which target networks follow the trained ones."""


@config
class Config(AgentSettings):
    """Settings of agents that bootstrap."""

    polyak: float = traced(default=0.01, within="(0, 1]")
    """Rate at which the targets of critics and policies follow the trained networks."""


@config
class Conservative(Config):
    """Settings of agents with CQL's critics."""

    penalty: float = traced(default=1.0, within="[0, inf)")
    """Weight of the conservative term, which lowers the values of actions outside the data."""
    samples: int = static(default=10)
    """Actions that each proposal of the conservative term draws."""


@config
class Deterministic(Conservative):
    """Settings of deterministic policies with CQL's critics."""

    penalty_from: str = static(default="uniform")
    """Actions whose values are lowered. uniform: of the full box.

    policy: of the full box, and as many around each of pi(o) and pi(o').
    """
    penalty_std: float = traced(default=0.2, within="(0, inf)")
    """Standard deviation of the proposals around the policy's actions."""
    action_penalty: float = traced(default=1e-3, within="[0, inf)")
    """Weight of the mean square of the policy's actions in its loss."""


class ActorCritic(NamedTuple):
    """Policies and twin critics with their targets; all lead with N."""

    actor: Net
    critic: Net


class AgentBatch(NamedTuple):
    """One agent's share of a batch; padded columns are zero."""

    obs: Float[Array, "B O"]
    """Its normalised observation, which its networks are conditioned on."""
    action: Float[Array, "B A"]
    """Its action in the data."""
    reward: Float[Array, " B"]
    """The reward that it learns."""
    next_obs: Float[Array, "B O"]
    """Its normalised observation after the transition."""
    go_on: Float[Array, " B"]
    """1.0 where the episode continues after the transition."""
    mask: Float[Array, " A"]
    """1.0 on its real action columns."""


AGENT_AXES = AgentBatch(1, 1, 1, 1, None, 0)  # pyright: ignore[reportArgumentType]
"""The axes over which to vmap the batches of all agents."""


Stepped = tuple[ActorCritic, dict[str, Array]]
"""One agent's networks after a step, and the metrics of the step."""


class AgentNetworks(NamedTuple):
    """One agent's networks and their optimisers; each system calls the `actor` in its own way."""

    actor: Network
    q: Network
    """(params, obs [..., O], action [..., A]) -> [E, ...]."""
    tx_actor: optax.GradientTransformation
    tx_q: optax.GradientTransformation

    def play(
        self, key: Key[Array, ""] | None, state: ActorCritic, obs: Array, mask: Array
    ) -> Array:
        """How a deterministic policy acts, for `actor_critic_learner`."""
        return mask * self.actor.apply(state.actor.params, obs)


Step = Callable[..., tuple[State, dict[str, Array]]]
"""`step(key, state, batch)` of one agent, with `beside`'s arguments after the batch, if any."""
Play = Callable[[Key[Array, ""], State, Float[Array, " O"], Float[Array, " A"]], Float[Array, " A"]]
"""`play(key, state, obs, mask)` of one agent."""


def agent_networks(
    spec: Spec, cfg: AgentSettings, policy: Network | None = None, **of_critic: Any
) -> AgentNetworks:
    """Twin critics with `policy`, or with a deterministic one that starts near the box's middle."""
    plain = actor(spec.obs_width, (cfg.policy_width,) * 2, spec.act_width)
    deterministic = Network(lambda key: small(plain.init(key)), plain.apply)
    return AgentNetworks(
        actor=policy or deterministic,
        q=twin(spec.obs_width, spec.act_width, (cfg.critic_width,) * 2, **of_critic),
        tx_actor=clipped_adam(cfg.policy_lr, cfg.clip),
        tx_q=clipped_adam(cfg.critic_lr, cfg.clip),
    )


# --- all agents at once ---


def agent_batches(
    spec: Spec, cfg: AgentSettings, past: Past, batch: Batch
) -> tuple[AgentBatch, AgentBatch]:
    """A batch as all agents' own, and the axes over which to vmap them."""
    normalise_obs = observation_normaliser(spec, cfg)
    mask = jnp.asarray(spec.act_mask)
    reward = agents_reward(batch, cfg.reward)
    go_on = continuation_factor(batch, cfg.time_limit)
    each = AgentBatch(
        obs=normalise_obs(past, batch.obs),
        action=batch.action * mask,
        reward=reward,
        next_obs=normalise_obs(past, batch.next_obs),
        go_on=go_on,
        mask=mask,
    )
    return each, AGENT_AXES


def actor_critic_learner(
    spec: Spec,
    cfg: AgentSettings,
    nets: AgentNetworks,
    step: Step,
    play: Play,
    beside: Callable[[Past, Batch], Any] | None = None,
) -> Algorithm:
    """Policies and critics of all agents at once.

    `step`, `play` and `beside` are as in `independent_learners`.
    """

    def fresh(key: Key[Array, ""]) -> ActorCritic:
        k_actor, k_q = jax.random.split(key)
        actor = create(nets.tx_actor, nets.actor.init(k_actor), target=True)
        critic = create(nets.tx_q, nets.q.init(k_q), target=True)
        return ActorCritic(actor, critic)

    return independent_learners(spec, cfg, fresh, step, play, beside, cfg.policy_batch)


def independent_learners(
    spec: Spec,
    cfg: AgentSettings,
    fresh: Callable[[Key[Array, ""]], State],
    step: Step,
    play: Play | None,
    beside: Callable[[Past, Batch], Any] | None,
    size: int,
) -> Algorithm:
    """All agents at once, from functions of one agent.

    - `fresh(key)` is its first state.
    - `step(key, state, batch)` is its update, on batches of `size` transitions.
    - `play(key, state, obs, mask)` is its action; None for a stage that does not act.
    - `beside(past, batch)` is one more argument of `step`, a tree that leads with N.
    """
    n = spec.agents
    normalise_obs = observation_normaliser(spec, cfg)
    mask = jnp.asarray(spec.act_mask)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> State:
        return jax.vmap(fresh)(jax.random.split(key, n))

    def batch(key: Key[Array, ""], state: State, data: Dataset) -> Batch:
        return sample_transitions(key, data, size)

    def update(key: Key[Array, ""], state: State, past: Past, batch: Batch) -> tuple[State, dict]:
        each_batch, axes = agent_batches(spec, cfg, past, batch)
        more = []
        if beside is not None:
            more.append(beside(past, batch))
        each = jax.vmap(step, in_axes=(0, 0, axes, *(0 for _ in more)))
        state, metrics = each(jax.random.split(key, n), state, each_batch, *more)
        return state, jax.tree.map(jnp.mean, metrics)

    def act(key, state, past, memory, observation):
        assert play is not None
        keys = jax.random.split(key, n)
        obs = normalise_obs(past, observation.obs)
        return jax.vmap(play)(keys, state, obs, mask), memory

    return Algorithm(init, batch, update, act if play else None)


# --- what they are compared with ---


def actor_critic_health(
    spec: Spec, cfg: AgentSettings, algorithm: Algorithm, weight: str = "", **of_critic: Any
) -> Health:
    """The agents' critics on held-out returns, and how far their policies are from the data.

    `weight` names the setting that weights the value in the policies' loss: at 0 they follow no
    critic, and nothing is asked of it.
    """
    critic = agent_critics_health(spec, cfg, RAISE, **of_critic)
    if weight and is_zero(getattr(cfg, weight)):
        critic = critic._replace(gates=())
    return joined(critic, behaviour.policy(spec, algorithm))


def agent_critics_health(
    spec: Spec, cfg: Any, raise_fields: tuple[str, ...], **of_critic: Any
) -> Health:
    """Figures of `state.critic`, the agents' own twin critics, against their returns."""
    q = agent_networks(spec, cfg, **of_critic).q
    normalise_obs = observation_normaliser(spec, cfg)
    of_agents = jax.vmap(q.apply, in_axes=(0, 1, 1), out_axes=-1)

    def values(state: State, past: Past, obs: Array, env_state: Array, action: Array) -> Array:
        return of_agents(state.critic.params, normalise_obs(past, obs), action).mean(axis=0)

    return critics.critic(values, cfg.gamma, cfg.reward, raise_fields)


def team_health(spec: Spec, cfg: Any, algorithm: Algorithm, q: Network) -> Health:
    """Figures of `state.critic` and of the policies of a team.

    `cfg.critic` says whether the critic is one twin `q` of the state and all actions, or each
    agent's own. Nothing is asked of the policies, which may leave the data.
    """
    normalise_obs = observation_normaliser(spec, cfg)
    normalise_state = state_normaliser(cfg)
    q_of_all = jax.vmap(q.apply, in_axes=(0, 1, 1), out_axes=-1)

    def values(state: State, past: Past, obs: Array, env_state: Array, action: Array) -> Array:
        if cfg.critic == "own":
            return q_of_all(state.critic.params, normalise_obs(past, obs), action).mean(axis=0)
        inputs = normalise_state(past, env_state)[:, None]
        value = q_of_all(state.critic.params, inputs, flat(action)[:, None])
        return value.mean(axis=0)[:, 0]

    critic = critics.critic(values, cfg.gamma, cfg.reward, RAISE)
    if is_zero(cfg.eta):
        critic = critic._replace(gates=())
    return joined(critic, behaviour.policy(spec, algorithm))


# --- one agent's steps ---


def proposals(
    key: Key[Array, ""],
    cfg: Conservative,
    batch: AgentBatch,
    std: float | Float[Array, ""] = 1.0,
    centres: Sequence[Float[Array, "B A"]] = (),
) -> Proposals:
    """Actions of the conservative term: all over the box, and as many around each of `centres`."""
    shape = (1 + len(centres), cfg.samples, *batch.action.shape)
    first, *others = jax.random.uniform(key, shape)
    near = [
        normal_proposals(centre, u, std, batch.mask)
        for centre, u in zip(centres, others, strict=True)
    ]
    return joined_proposals(uniform_proposals(first, batch.mask), *near)


def agents_proposals(
    key: Key[Array, ""],
    spec: Spec,
    cfg: Deterministic,
    past: Past,
    batch: Batch,
    centres: Sequence[Float[Array, "B N A"]],
) -> Proposals:
    """Every agent's proposals: actions [N, M, B, A] over the box and around each of `centres`."""
    each, axes = agent_batches(spec, cfg, past, batch)

    def of_one_agent(key, own, centres):
        return proposals(key, cfg, own, cfg.penalty_std, centres)

    keys = jax.random.split(key, spec.agents)
    return jax.vmap(of_one_agent, in_axes=(0, axes, 1))(keys, each, centres)


def critic_step(
    cfg: AgentSettings,
    nets: AgentNetworks,
    state: State,
    batch: AgentBatch,
    after: Float[Array, "B A"],
    sampled: Proposals | None = None,
    aggregate: Callable[..., Array] = jnp.min,
) -> tuple[State, dict[str, Array]]:
    """One step of `state.critic` down L_Q, at next actions `after`.

    The conservative term is there with `sampled`, and takes `Conservative` settings. `aggregate`
    makes one next value of the twins'.
    """
    ahead = aggregate(nets.q.apply(state.critic.target, batch.next_obs, after), axis=0)
    y = batch.reward + cfg.gamma * batch.go_on * ahead

    def loss(params: Params) -> tuple[Array, dict[str, Array]]:
        q = nets.q.apply(params, batch.obs, batch.action)
        metrics = {"q_loss": ensemble_loss(q, y), "q_mean": q.mean()}
        if sampled is None:
            return metrics["q_loss"], metrics

        assert isinstance(cfg, Conservative)
        q_sampled = nets.q.apply(params, batch.obs, sampled.action)
        gap = conservative(q_sampled, sampled.log_p, q).mean(axis=-1)
        total = metrics["q_loss"] + cfg.penalty * gap.sum()
        return total, {**metrics, "q_gap": gap.mean()}

    grads, metrics = jax.grad(loss, has_aux=True)(state.critic.params)
    return state._replace(critic=descend(nets.tx_q, state.critic, grads)), metrics


def cql_step(
    key: Key[Array, ""],
    cfg: Deterministic,
    nets: AgentNetworks,
    state: ActorCritic,
    batch: AgentBatch,
) -> Stepped:
    """MA-CQL's step of the critics, with a deterministic policy."""
    play = lambda params, obs: batch.mask * nets.actor.apply(params, obs)
    centres = []
    if cfg.penalty_from == "policy":
        centres = [play(state.actor.params, obs) for obs in (batch.obs, batch.next_obs)]
    sampled = proposals(key, cfg, batch, cfg.penalty_std, centres)
    after = play(state.actor.target, batch.next_obs)
    return critic_step(cfg, nets, state, batch, after, sampled)


def policy_step(
    cfg: Config,
    nets: AgentNetworks,
    state: ActorCritic,
    loss: Callable[[Params], tuple[Array, dict[str, Array]]],
    critic_metrics: dict[str, Array],
) -> Stepped:
    """One step of the policy down `loss(params) -> (value, metrics)`; then both targets follow.

    The critics' metrics are passed on with the policy's.
    """
    (value, metrics), grads = jax.value_and_grad(loss, has_aux=True)(state.actor.params)
    actor = descend(nets.tx_actor, state.actor, grads)
    state = ActorCritic(polyak(actor, cfg.polyak), polyak(state.critic, cfg.polyak))
    return state, {**critic_metrics, "policy_loss": value, **metrics}


def due(delay: int, critic: Net) -> Bool[Array, ""]:
    """Whether this is a `delay`-th step of the critic, in which policies and targets move too."""
    return optax.tree_utils.tree_get(critic.opt, "count") % delay == 0


def moved_where(due: Bool[Array, ""], moved: ActorCritic, kept: ActorCritic) -> ActorCritic:
    """The networks after a step that is due, else those that are kept."""
    return jax.tree.map(lambda new, old: jnp.where(due, new, old), moved, kept)


def effort(action: Float[Array, "B A"], mask: Float[Array, " A"]) -> Float[Array, ""]:
    """Mean square of an agent's real action columns."""
    return jnp.mean(jnp.sum(mask * action**2, axis=-1)) / mask.sum()


def check(
    spec: Spec,
    cfg: AgentSettings | clone.Config,
    data: Dataset | None,
    choices: dict[str, tuple[str, ...]],
    discrete: bool = False,
) -> None:
    """Raise JaxomarlError for settings, tasks or data that agents cannot learn on.

    `discrete` says whether the system takes discrete actions too.
    """
    if not discrete:
        check_continuous(spec, "Its policy is one of real actions.")
    check_fields(cfg, choices)
    check_transitions(data)
    check_batch(data, cfg.policy_batch)
