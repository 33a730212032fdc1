"""Value decomposition: utilities of each agent's own actions, and a mixer to the team's value.

One step, on batches of transitions with legal actions m, m':

    a'_i  = argmax over m'_i of Q_i(o'_i, .)
    y     = r + gamma (1 - d) mix_bar(s', Qbar_1(o'_1, a'_1), .., Qbar_n(o'_n, a'_n))
    L     = 1/2 mean (Q_tot(s, a) - y)^2 + a system's own term
    Qbar, mix_bar <- rho (Q, mix) + (1 - rho) (Qbar, mix_bar)

The mixer grows in each utility, so that every agent's best legal action is the team's. Rows of dead
agents stay in the mixer: their observation is zero, and their value is that of the team that goes
on. Policies play the legal action of largest utility.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Health, Past, Spec, State, refuse
from jaxomarl.config import check_fields, config, static, traced
from jaxomarl.data.dataset import check_batch, check_transitions, sample_transitions
from jaxomarl.health import behaviour, critics
from jaxomarl.health.held import joined
from jaxomarl.losses.categorical import greedy, taken
from jaxomarl.losses.conservative_choices import counterfactual_gap
from jaxomarl.losses.td import TIME_LIMITS, agents_reward, continuation_factor, joint_reward
from jaxomarl.networks.agents import separate, shared
from jaxomarl.networks.inputs import observation_normaliser, state_normaliser
from jaxomarl.networks.mixers import monotonic_mixer
from jaxomarl.networks.mlp import Network, mlp
from jaxomarl.optim import Net, Params, clipped_adam, create, descend, polyak
from jaxomarl.stages import decentralised

MIXERS = ("qmix", "vdn")
CHOICES = {"reward": ("team", "first"), "time_limit": TIME_LIMITS, "mixer": MIXERS}
RAISE = ("policy_steps", "policy_batch", "policy_width")
"""What to raise where a value has not learned."""


@config
class Choosing(decentralised.Valued):
    """Settings of systems of discrete actions alone; sizes are OG-MARL's."""

    reward: str = static(default="team")
    """Reward that is learned. team: the team's. first: agent 1's."""
    gamma: float = traced(default=0.99, within="[0, 1]")
    """Discount factor of future rewards."""
    policy_steps: int = static(default=50_000, scaled="steps")
    """Gradient steps of the values, and of policies beside them."""
    policy_batch: int = static(default=256)
    """Transitions in a batch."""
    policy_width: int = static(default=128, scaled="width")
    """Width of the networks' two hidden layers."""
    policy_lr: float = traced(default=3e-4, within="(0, inf)")
    """Learning rate of these networks."""
    clip: float = traced(default=10.0, within="(0, inf)")
    """Largest norm of a gradient."""


@config
class Config(Choosing):
    """Settings of value decomposition."""

    polyak: float = traced(default=0.005, within="(0, 1]")
    """Rate at which target networks follow the trained ones."""
    mixer: str = static(default="qmix")
    """How utilities make the team's value. qmix: a monotonic network of the state. vdn: a sum."""
    mixer_width: int = static(default=32, scaled="width")
    """Hidden units of the mixer; its hyper-networks have twice as many."""
    share: bool = static(default=True)
    """Whether all agents have one network, which knows the agent by a one-hot input."""


class Team(NamedTuple):
    """The parameters: utilities, and the mixer."""

    q: Params
    mixer: Params


class Decomposed(NamedTuple):
    """The team's value, whose params are `Team`, with its target."""

    critic: Net


class TeamNets(NamedTuple):
    """The utilities of all agents, and the mixer; None leaves each agent its own value."""

    utilities: Network
    """(params, obs [..., N, O]) -> [..., N, A]."""
    mixer: Network | None

    def init(self, key: Key[Array, ""]) -> Team:
        """First parameters."""
        k_q, k_mixer = jax.random.split(key)
        mixer = self.mixer.init(k_mixer) if self.mixer else ()
        return Team(self.utilities.init(k_q), mixer)

    def total(
        self, params: Team, state: Float[Array, "*b S"], value: Float[Array, "*B N"]
    ) -> Float[Array, "*B"] | Float[Array, "*B N"]:
        """The team's value of the utilities taken; without a mixer they are returned.

        They may lead with more axes than the state, whose weights are computed once.
        """
        if self.mixer is None:
            return value
        return self.mixer.apply(params.mixer, state, value)


def summed() -> Network:
    """VDN's mixer: the sum, without parameters."""
    return Network(lambda key: (), lambda params, state, value: value.sum(axis=-1))


def team_networks(
    spec: Spec, width: int, mixer: str = "", mixer_width: int = 32, share: bool = False
) -> TeamNets:
    """Build the networks; `mixer` is qmix, vdn, or "" for agents that learn apart."""
    make = lambda inputs: mlp(inputs, (width,) * 2, spec.act_width)
    if share:
        utilities = shared(make, spec.obs_width, spec.agents)
    else:
        utilities = separate(make(spec.obs_width), spec.agents)
    if mixer == "qmix":
        hyper = 2 * mixer_width
        of_team = monotonic_mixer(spec.state_dim, spec.agents, mixer_width, hyper)
        return TeamNets(utilities, of_team)
    return TeamNets(utilities, summed() if mixer else None)


class Values(NamedTuple):
    """What a system's own term is made of, in one step."""

    params: Team
    state: Float[Array, "B S"]
    utilities: Float[Array, "B N A"]
    chosen: Float[Array, "B N"]
    """The utilities of the data's actions."""
    total: Float[Array, "B"] | Float[Array, "B N"]
    """The value of the data's joint action; of each agent's own without a mixer."""
    legal: Float[Array, "B N A"]
    alive: Float[Array, "B N"]


Term = Callable[[Key[Array, ""], Values], tuple[Float[Array, ""], dict[str, Array]]]
"""(key, values) -> a loss that is added, and its metrics."""
Allow = Callable[[Past, Array, Array], Array]
"""(past, normalised obs [..., N, O], legal [..., N, A]) -> the actions that may be chosen."""


def decomposition_learner(
    spec: Spec,
    cfg: Any,
    nets: TeamNets,
    optimiser: optax.GradientTransformation,
    term: Term | None = None,
    allow: Allow | None = None,
) -> Algorithm:
    """The learner of utilities and mixer; `allow` restricts what is chosen, and `term` the loss."""
    mask = jnp.asarray(spec.act_mask)
    normalise_obs = observation_normaliser(spec, cfg)
    normalise_state = state_normaliser(cfg)

    def allowed(past, obs, legal):
        if allow is None:
            return legal
        return allow(past, obs, legal)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Decomposed:
        return Decomposed(create(optimiser, nets.init(key), target=True))

    def batch(key: Key[Array, ""], state: State, data: Dataset) -> Batch:
        return sample_transitions(key, data, cfg.policy_batch)

    def update(
        key: Key[Array, ""], state: Decomposed, past: Past, batch: Batch
    ) -> tuple[Decomposed, dict]:
        next_obs = normalise_obs(past, batch.next_obs)
        next_legal = allowed(past, next_obs, batch.next_available * mask)
        next_state = normalise_state(past, batch.next_state)
        y = bootstrapped(cfg, nets, state.critic, batch, next_obs, next_state, next_legal)
        obs = normalise_obs(past, batch.obs)
        s = normalise_state(past, batch.state)

        def loss(params: Team) -> tuple[Array, dict[str, Array]]:
            utilities = nets.utilities.apply(params.q, obs)
            chosen = taken(utilities, batch.action * mask)
            total = nets.total(params, s, chosen)
            q_loss = 0.5 * jnp.mean((total - y) ** 2)
            metrics = {"q_loss": q_loss, "q_mean": total.mean()}
            if term is None:
                return q_loss, metrics
            legal = batch.available * mask
            values = Values(params, s, utilities, chosen, total, legal, batch.alive)
            more, others = term(key, values)
            return q_loss + more, {**metrics, **others}

        grads, metrics = jax.grad(loss, has_aux=True)(state.critic.params)
        critic = polyak(descend(optimiser, state.critic, grads), cfg.polyak)
        return Decomposed(critic), metrics

    def act(key, state, past, memory, observation):
        obs = normalise_obs(past, observation.obs)
        legal = allowed(past, obs, mask * observation.available)
        return greedy(nets.utilities.apply(state.critic.params.q, obs), legal), memory

    return Algorithm(init, batch, update, act)


def bootstrapped(
    cfg: Any,
    nets: TeamNets,
    critic: Net,
    batch: Batch,
    next_obs: Float[Array, "B N O"],
    next_state: Float[Array, "B S"],
    next_legal: Float[Array, "B N A"],
) -> Float[Array, "B"] | Float[Array, "B N"]:
    """y: of the team, or of each agent without a mixer."""
    best = greedy(nets.utilities.apply(critic.params.q, next_obs), next_legal)
    own = taken(nets.utilities.apply(critic.target.q, next_obs), best)
    ahead = nets.total(critic.target, next_state, own)
    go_on = continuation_factor(batch, cfg.time_limit)
    if nets.mixer is None:
        return agents_reward(batch, cfg.reward) + cfg.gamma * go_on[:, None] * ahead
    return joint_reward(batch, cfg.reward) + cfg.gamma * go_on * ahead


def counterfactual_learner(spec: Spec, cfg: Any) -> Algorithm:
    """QMIX with CFCQL's term, from settings of a critic: its width, rate, clip and penalty."""
    nets = team_networks(spec, cfg.critic_width, "qmix")

    def term(key: Key[Array, ""], values: Values) -> tuple[Array, dict[str, Array]]:
        total = lambda own: nets.total(values.params, values.state, own)
        gap = counterfactual_gap(total, values.utilities, values.chosen, values.legal).mean()
        return cfg.penalty * gap, {"q_gap": gap}

    return decomposition_learner(spec, cfg, nets, clipped_adam(cfg.critic_lr, cfg.clip), term)


def decomposition_health(spec: Spec, cfg: Any, nets: TeamNets, algorithm: Algorithm) -> Health:
    """The value on held-out returns, and how far the policies are from the data."""
    normalise_obs = observation_normaliser(spec, cfg)
    normalise_state = state_normaliser(cfg)

    def values(state: State, past: Past, obs: Array, env_state: Array, action: Array) -> Array:
        params = state.critic.params
        own = taken(nets.utilities.apply(params.q, normalise_obs(past, obs)), action)
        return nets.total(params, normalise_state(past, env_state), own)

    critic = critics.critic(values, cfg.gamma, cfg.reward, RAISE)
    return joined(critic, behaviour.policy(spec, algorithm))


def check(
    spec: Spec, cfg: Any, data: Dataset | None, choices: dict[str, tuple[str, ...]], twin: str
) -> None:
    """Raise JaxomarlError for settings, tasks or data that utilities cannot be learned from.

    `twin` names a system for continuous actions.
    """
    if not spec.discrete:
        way = f"It chooses among actions. {twin}"
        raise refuse("--task", "discrete actions", "a continuous task", way)
    check_fields(cfg, choices)
    check_transitions(data)
    check_batch(data, cfg.policy_batch)
