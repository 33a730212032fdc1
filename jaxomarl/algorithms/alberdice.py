"""AlberDICE: each agent in turn corrects the team's stationary distribution, others fixed.

**Paper**. Matsunaga et al. 2023, "AlberDICE: Addressing Out-Of-Distribution Joint Actions in
Offline Multi-Agent RL via Alternating Stationary Distribution Correction Estimation". It climbs
E[sum gamma^t r] - alpha KL(d^pi || d^D), whose second part is of the team's joint actions.

**Pseudo-code**. For discrete actions, data mu, and agents i = 1..n in turn:

    1   clone G_i(a_i | o_i) of each agent's actions          stage "clone" (stages/clone.py)
    2   clone H_i(a_-i | s, a_i) of the others' actions,      stage "others"
        as a product over j of h_ij(a_j | s, a_i, a_<j)   (stages/others_clone.py)
    3   for each gradient step on a batch of transitions:     stage "policy", `update`
    4       for agent i = 1..n in order:                      `move`, scanned
    5           k = E_{a_-i ~ pi_-i} log [ pi_-i(a_-i) / H_i(a_-i | s, a_i) ]
    6           rho = min(prod_{j != i} pi_j(a_j | o_j) / h_ij(a_j | s, a_i, a_<j), 100)
                p = rho / sum rho over the batch
    7           e = r - alpha k + gamma (1 - d) nu_i(s') - nu_i(s)
    8           m = (1 - gamma) / (1 - gamma + gamma sum p d)
                nu_i: step down alpha log [ m sum p exp(e / alpha) + 1 - m ]
                                + (1 - gamma) mean nu_i(s)
    9           e_i(s, .): step down sum p [ (e_i(s, a_i) - e)^2
                                + penalty (log sum_a exp e_i(s, a) - sum_a G_i(a) e_i(s, a)) ]
    10          pi_i: step down sum p [ alpha KL(pi_i || G_i) - sum_a pi_i(a) e_i(s, a) ]

Line 10 is least at pi_i in proportion to G_i exp(e_i / alpha). In one step (gamma (1 - d) = 0) that
is exp E_{pi_-i}[ r / alpha + log mu(a_i, a_-i) ]: the regulariser of OMSD that drops nothing, with
beta = 1 / alpha.

**Differs**.

- The policies, the KL of line 10 and G_i see o_i alone. nu, e and H see the state.
- The released code draws rows in proportion to rho. Here p weighs them. It penalises the gradient
  of nu besides, and adds alpha log mean rho to line 8, which moves nothing.
- The clones are finished before the policies begin. The released code trains all side by side.
- alpha may fall geometrically from `alpha_first` to `alpha`, as in the paper's matrix games.
- A team whose episode ended stays in a state without reward, of value 0. The released code adds
  rows of it to the data. Here 1 - m is its share in a process that restarts from the batch's states
  at rate 1 - gamma. Without it line 8 falls for ever as nu grows: a row that ends takes nu in full,
  and only (1 - gamma) nu comes back.

**Checked**. tests/probes/test_alberdice.py (one step's optimum is that of the identity above; XOR
is solved, where independent regularisation fails; lines 5 to 9 against a separate implementation),
tests/contract/test_discrete.py.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Environment, Past, Spec, Stage, State, System
from jaxomarl.config import config, static, traced
from jaxomarl.data.dataset import as_is, sample_transitions
from jaxomarl.health import behaviour
from jaxomarl.losses import stationary
from jaxomarl.losses.categorical import log_policy
from jaxomarl.losses.td import TIME_LIMITS, continuation_factor, joint_reward
from jaxomarl.networks.inputs import observation_normaliser, state_normaliser
from jaxomarl.networks.mlp import mlp
from jaxomarl.optim import Net, clipped_adam, create, descend
from jaxomarl.stages import clone, decomposition, kl_regularised, others_clone
from jaxomarl.stages.others_clone import LogClone, LogOthers

CLONES = ("clone_steps", "policy_batch", "policy_width", "policy_lr", "clip", "chunk", "normalise")
"""The settings that reach the stages of clones."""
OWN = ("obs", "action", "legal", "alive", "cloned")
"""The columns of rows that are an agent's own."""
CHOICES = {"reward": ("team", "first"), "time_limit": TIME_LIMITS, "play": ("greedy", "sample")}


@config
class Config(decomposition.Choosing):
    """AlberDICE's settings."""

    alpha: float = traced(default=1.0, within="(0, inf)")
    """Weight of the divergence from the data, in units of reward; larger is nearer to a clone."""
    alpha_first: float = traced(default=0.0, within="[0, inf)")
    """Weight at the first update, from which it falls geometrically to alpha. 0: alpha throughout.
    """
    penalty: float = traced(default=0.0, within="[0, inf)")
    """Weight of a conservative term, which lowers e of actions outside the data."""
    clone_steps: int = static(default=20_000, scaled="steps")
    """Gradient steps of each clone."""
    draws: int = static(default=16)
    """Joint actions of the others that an expectation draws, where they are not enumerated."""
    play: str = static(default="greedy")
    """Execution. greedy: the likeliest legal action. sample: a draw."""


class Nets(NamedTuple):
    """pi_i of o_i, nu_i and e_i of s: networks of an agent, or what all agents have trained."""

    actor: Any
    nu: Any
    e: Any


class Corrected(NamedTuple):
    """What all agents have trained, each leaf of which leads with N, and the updates so far."""

    actor: Net
    nu: Net
    e: Net
    updates: Float[Array, ""]


def networks(spec: Spec, cfg: Config) -> Nets:
    """Build one agent's networks."""
    hidden = (cfg.policy_width,) * 2
    actor = mlp(spec.obs_width, hidden, spec.act_width)
    return Nets(actor, mlp(spec.state_dim, hidden, 1), mlp(spec.state_dim, hidden, spec.act_width))


def moved(
    nets: Nets, optimiser: Any, penalty: Any, rows: stationary.Rows, own: Nets
) -> tuple[Nets, dict]:
    """One step of agent i's three networks, which `own` has trained so far."""
    # lines 7 and 8
    lost_nu = lambda params: stationary.nu_loss(nets.nu.apply, rows, params)
    value_nu, grads = jax.value_and_grad(lost_nu)(own.nu.params)
    nu = descend(optimiser, own.nu, grads)
    target = stationary.residual(nets.nu.apply, rows, nu.params)

    # line 9
    lost_e = lambda params: stationary.e_loss(nets.e.apply, rows, target, penalty, params)
    value_e, grads = jax.value_and_grad(lost_e)(own.e.params)
    e = descend(optimiser, own.e, grads)
    advantage = nets.e.apply(e.params, rows.s)

    # line 10
    lost_pi = lambda params: stationary.pi_loss(nets.actor.apply, rows, advantage, params)
    value_pi, grads = jax.value_and_grad(lost_pi)(own.actor.params)
    actor = descend(optimiser, own.actor, grads)
    share = jnp.exp(rows.log_p.max())
    metrics = {"nu_loss": value_nu, "e_loss": value_e, "policy_loss": value_pi}
    return Nets(actor, nu, e), {**metrics, "largest_share": share}


def team_rows(
    spec: Spec, cfg: Config, past: Past, batch: Batch, cloned: Array, updates: Array
) -> stationary.Rows:
    """The rows of all agents, whose own columns have an axis N more."""
    normalise_state = state_normaliser(cfg)
    nobody = jnp.zeros(len(batch.done))
    return stationary.Rows(
        alpha=weight_now(cfg, updates), gamma=cfg.gamma, s=normalise_state(past, batch.state),
        next_s=normalise_state(past, batch.next_state),
        go_on=continuation_factor(batch, cfg.time_limit), reward=joint_reward(batch, cfg.reward),
        obs=observation_normaliser(spec, cfg)(past, batch.obs), action=batch.action * spec.act_mask,
        legal=batch.available * spec.act_mask, alive=batch.alive, cloned=cloned, k=nobody,
        log_p=nobody,
    )  # fmt: skip


def policy(spec: Spec, cfg: Config, log_g: LogClone, log_h: LogOthers) -> Algorithm:
    """Build the last stage from the clones (lines 3 to 10)."""
    nets = networks(spec, cfg)
    optimiser = clipped_adam(cfg.policy_lr, cfg.clip)
    normalise_obs = observation_normaliser(spec, cfg)
    every = jax.vmap(nets.actor.apply, in_axes=(0, -2), out_axes=-2)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Corrected:
        def start(key: Array) -> Nets:
            keys = jax.random.split(key, 3)
            return Nets(
                *(create(optimiser, net.init(k)) for net, k in zip(nets, keys, strict=True))
            )

        return Corrected(*jax.vmap(start)(jax.random.split(key, spec.agents)), jnp.zeros(()))

    def batch(key: Key[Array, ""], state: State, data: Dataset) -> Batch:
        return sample_transitions(key, data, cfg.policy_batch)

    # line 3
    def update(
        key: Key[Array, ""], state: Corrected, past: Past, batch: Batch
    ) -> tuple[Corrected, dict]:
        rows = team_rows(spec, cfg, past, batch, log_g(past, batch), state.updates)

        # line 4
        def move(trained: Nets, turn: tuple[Array, Array]) -> tuple[Nets, dict]:
            i, k_others = turn
            # lines 5 and 6
            log_pi = log_policy(every(trained.actor.params, rows.obs), rows.legal)
            team = kl_regularised.others_actions(k_others, spec, cfg.draws, log_pi, i)
            of_others = lambda joint: log_h(past, i, batch, joint)
            k, log_p = stationary.row_weights(log_pi, i, rows.action, team, of_others)
            own_columns = {name: getattr(rows, name)[:, i] for name in OWN}

            own = jax.tree.map(lambda leaf: leaf[i], trained)
            own_rows = rows._replace(k=k, log_p=log_p, **own_columns)
            own, metrics = moved(nets, optimiser, cfg.penalty, own_rows, own)
            return jax.tree.map(lambda x, new: x.at[i].set(new), trained, own), metrics

        turns = (jnp.arange(spec.agents), jax.random.split(key, spec.agents))
        trained, metrics = jax.lax.scan(move, Nets(*state[:3]), turns)
        metrics = {**jax.tree.map(jnp.mean, metrics), "alpha": rows.alpha}
        return Corrected(*trained, state.updates + 1.0), metrics

    def act(key, state, past, memory, observation):
        logits = every(state.actor.params, normalise_obs(past, observation.obs))
        legal = spec.act_mask * observation.available
        return kl_regularised.played(key, cfg.play, logits, legal), memory

    return Algorithm(init, batch, update, act)


def weight_now(cfg: Config, updates: Float[Array, ""]) -> Float[Array, ""]:
    """alpha after a number of updates."""
    first = jnp.where(jnp.asarray(cfg.alpha_first) > 0, cfg.alpha_first, cfg.alpha)
    return first * (cfg.alpha / first) ** jnp.minimum(updates / cfg.policy_steps, 1.0)


# --- the system ---


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings, tasks or data that AlberDICE cannot train on."""
    decomposition.check(spec, cfg, data, CHOICES, "Take omsd or joint-score.")


def pipeline(spec: Spec, cfg: Config, env: Environment | None = None) -> tuple[Stage, ...]:
    """Three stages: clone -> others -> policy."""
    # line 1
    cloned = clone.categorical_cloning_learner(spec, cfg)
    compared = behaviour.clone(spec, cloned, draws=False, raise_fields=("clone_steps",))
    clone_stage = Stage.from_config(
        cfg,
        "clone",
        cloned,
        cfg.clone_steps,
        (*CLONES, "every"),
        health=compared,
        owner="alberdice",
    )

    # line 2
    others = others_clone.others_clone(spec, cfg)
    others_stage = Stage.from_config(
        cfg,
        "others",
        others.algorithm,
        cfg.clone_steps,
        CLONES,
        health=others.health,
        owner="alberdice",
    )
    # line 3
    final = policy(spec, cfg, clone.log_clone(spec, cfg, "clone"), others.log_h)
    health = behaviour.policy(spec, final)
    policy_stage = Stage.from_config(
        cfg, "policy", final, cfg.policy_steps, health=health, owner="alberdice"
    )
    return clone_stage, others_stage, policy_stage


ALBERDICE = System(Config, check, as_is, pipeline)
