"""Flows of the behaviour, and students that play what a flow makes of their noise by one call.

A flow is trained on each agent's own rows (stage "flow-own") or on the team's (stage "flow-joint"):

    x = (1 - t) a + t z,  t ~ U(0, 1):   step down |v(x, t, o) - (z - a)|^2

It depends neither on rewards nor on how it is followed, so systems share it. A student f
regresses the flow's ends g(o, z) at the same z, and climbs a critic:

    L_f = alpha mean |f(o, z) - g(o, z)|^2 - eta lambda mean Q(o, clip f(o, z))
    lambda = 1 / sg[ mean |Q| ], or 1

The square is a mean over real columns too. f is clipped for Q alone: outside of the box Q has no
gradient, and the first term brings f back. Q is the mean of the twins. There is no target of the
student: critics bootstrap from what it plays now.

Sources: Lipman et al. 2023 (Flow matching); Park et al. 2025 (Flow Q-learning), Algorithm 1.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Batch, Past, Spec, Stage
from jaxomarl.config import config, static, traced
from jaxomarl.health import behaviour
from jaxomarl.losses.weighting import normalised_value
from jaxomarl.networks.inputs import Normalising, observation_normaliser
from jaxomarl.networks.mlp import Network
from jaxomarl.optim import Params, annealed, create, descend, polyak
from jaxomarl.policies.flows import Flow, flow_end, flow_loss, masked_noise, team_velocity
from jaxomarl.stages import clone
from jaxomarl.stages.clone import Policies, policies_learner
from jaxomarl.stages.decentralised import ActorCritic, AgentNetworks

TEACHERS = {"own": "separate", "joint": "joint"}
"""Whose rows a flow is trained on -> the networks of its velocity."""
FIELDS = ("flow_steps", "flow_batch", "flow_width", "flow_lr", "normalise", "chunk")
"""The settings that reach a flow's stage."""
RAISE = ("flow_steps", "flow_batch", "flow_width")
"""What to raise where a flow has not learned."""
MEASURED_STEPS = 16
"""Euler steps of the actions that a flow is judged by, whichever system trains it."""
AGGREGATES: dict[str, Callable[..., Array]] = {"mean": jnp.mean, "min": jnp.min}
"""How the twins' values of a next action become one."""
CHOICES = {"aggregate": tuple(AGGREGATES)}

MODELS = ("separate", "joint")
"""Networks of a team that imitates."""
IMITATION_FIELDS = (
    "policy_steps", "policy_batch", "policy_width", "policy_lr", "policy_anneal", "normalise",
    "chunk", "model",
)  # fmt: skip
"""The settings of `Imitation` that reach its stage."""

Loss = Callable[[Key[Array, ""], Network, Params, Array, Array, Array], Float[Array, ""]]
"""(key, net, params, action, obs, mask) -> loss of a team's batch."""


@config
class Imitation(clone.Config):
    """Settings of flows that play the behaviour themselves; sizes and rates are those of `bc`."""

    normalise: bool = static(default=True)
    """Whether the networks' observations are normalised to mean 0 and standard deviation 1."""
    model: str = static(default="separate")
    """Networks of the team. separate: one for each agent. joint: one of all, executed centrally."""


@config
class Valued:
    """Settings of one-step policies that climb a critic."""

    eta: float = traced(default=1.0, within="[0, inf)")
    """Weight of the value in the policy's loss; 0 leaves the value out."""
    normalise_value: bool = static(default=True)
    """Whether the value is divided by its mean absolute value, so that rewards have no scale."""
    aggregate: str = static(default="mean")
    """Value of a next action from the twin critics. mean: their mean. min: the smaller one."""


@config
class Taught(Valued):
    """Settings of students of a flow."""

    flow_steps: int = static(default=10_000, scaled="steps")
    """Gradient steps of the flow that is distilled."""
    flow_batch: int = static(default=1024)
    """Transitions in a batch of the flow's updates."""
    flow_width: int = static(default=256, scaled="width")
    """Width of the flow's three hidden layers."""
    flow_lr: float = traced(default=3e-4, within="(0, inf)")
    """Learning rate of the flow."""
    levels: int = static(default=10)
    """K: Euler steps by which the flow makes what the student regresses."""
    alpha: float = traced(default=3.0, within="[0, inf)")
    """Weight of the distillation; larger follows the data more and the critic less."""


# --- models of the behaviour ---


def behaviour_learner(
    spec: Spec,
    cfg: Normalising,
    net: Network,
    lr: optax.ScalarOrSchedule,
    size: int,
    loss: Loss,
    play: Callable[[Key[Array, ""], Params, Array], Array] | None = None,
    centralised: bool = False,
) -> Algorithm:
    """The learner of a team's network down `loss`, on batches of `size` transitions.

    With `play(key, params, obs) -> action` it acts. Adam's steps of separate networks do not
    depend on one another.
    """
    optimiser = optax.adam(lr)
    action_mask = jnp.asarray(spec.act_mask)
    normalise_obs = observation_normaliser(spec, cfg)

    def update(
        key: Key[Array, ""], state: Policies, past: Past, batch: Batch
    ) -> tuple[Policies, dict]:
        obs = normalise_obs(past, batch.obs)
        action = batch.action * action_mask
        of_params = lambda params: loss(key, net, params, action, obs, action_mask)
        value, grads = jax.value_and_grad(of_params)(state.actor.params)
        return Policies(descend(optimiser, state.actor, grads)), {"flow_loss": value}

    def act(key, state, past, memory, observation):
        assert play is not None
        obs = normalise_obs(past, observation.obs)
        return play(key, state.actor.params, obs), memory

    acting = act if play else None
    return policies_learner(net, optimiser, size, update, acting, centralised)


def imitation_rate(cfg: Imitation) -> optax.ScalarOrSchedule:
    """The learning rate, which falls to zero along a cosine where the settings say so."""
    if cfg.policy_anneal:
        return annealed(cfg.policy_lr, cfg.policy_steps)
    return cfg.policy_lr


def flow_player(
    spec: Spec, flow: Flow
) -> Callable[[Key[Array, ""], Params, Float[Array, "N O"]], Float[Array, "N A"]]:
    """How a team plays a flow: each decision follows it from new noise."""
    action_mask = jnp.asarray(spec.act_mask)

    def play(key: Key[Array, ""], params: Params, obs: Float[Array, "N O"]) -> Array:
        z = masked_noise(key, action_mask)
        return flow_end(flow, params, z, obs, action_mask)

    return play


def teacher_stage(spec: Spec, cfg: Any, teacher: str, chosen_by: tuple[str, ...] = ()) -> Stage:
    """The stage of the flow that students regress, "flow-own" or "flow-joint".

    `cfg` has the fields of `Taught`, and those that `chosen_by` names where they choose `teacher`.
    Systems with the same fields share it.
    """
    net = team_velocity(spec, cfg.flow_width, TEACHERS[teacher])
    settings = (spec, cfg, net, cfg.flow_lr, cfg.flow_batch, flow_loss)
    learner = behaviour_learner(*settings)
    acting = behaviour_learner(*settings, flow_player(spec, Flow(net, MEASURED_STEPS)))
    health = behaviour.clone(spec, acting, draws=True, raise_fields=RAISE)
    fields = (*FIELDS, *chosen_by)
    return Stage.from_config(
        cfg, stage_name(teacher), learner, cfg.flow_steps, fields, health=health
    )


def stage_name(teacher: str) -> str:
    """The name of a flow's stage."""
    return f"flow-{teacher}"


def teacher_params(past: Past, teacher: str) -> Params:
    """The trained flow's parameters; those of separate networks lead with N."""
    return past[stage_name(teacher)].actor.params


# --- students ---


def value_term(cfg: Valued, q: Float[Array, "E *B"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """-eta lambda mean Q of what a policy plays, and the mean of Q; the twins count alike."""
    q = q.mean(axis=0).reshape(-1)
    if cfg.normalise_value:
        return normalised_value(q, cfg.eta, q), q.mean()
    return -cfg.eta * q.mean(), q.mean()


def distillation(
    out: Float[Array, "B *N A"], taught: Float[Array, "B *N A"], mask: Float[Array, "*N A"]
) -> Float[Array, ""]:
    """Mean |f - g|^2 over the batch, the agents and their real columns."""
    square = mask * jnp.square(out - taught)
    return square.sum() / (len(out) * mask.sum())


def first_networks(nets: AgentNetworks, key: Key[Array, ""]) -> ActorCritic:
    """A policy without a target, and critics with one, before their first step."""
    k_actor, k_critic = jax.random.split(key)
    actor = create(nets.tx_actor, nets.actor.init(k_actor))
    return ActorCritic(actor, create(nets.tx_q, nets.q.init(k_critic), target=True))


def one_step_update(
    nets: AgentNetworks,
    rate: float | Float[Array, ""],
    state: ActorCritic,
    loss: Callable[[Params], tuple[Array, dict[str, Array]]],
    critic_metrics: dict[str, Array],
) -> tuple[ActorCritic, dict[str, Array]]:
    """One step of the policy down `loss(params) -> (value, metrics)`, and of the critics' target.

    The target follows at `rate`. The policy has none.
    """
    (value, metrics), grads = jax.value_and_grad(loss, has_aux=True)(state.actor.params)
    actor = descend(nets.tx_actor, state.actor, grads)
    state = ActorCritic(actor, polyak(state.critic, rate))
    return state, {**critic_metrics, "policy_loss": value, **metrics}
