"""MA-SfBC: each agent clones its behaviour with a diffusion model, and selects from it by value.

**Paper**. Chen et al. 2023, "Offline Reinforcement Learning via High-Fidelity Generative Behavior
Modeling", Algorithm 1, run by every agent alone as in DOM2's tables.

**Pseudo-code**. For every agent i, on its own observation, action and reward:

    1   eps: step down mean |eps(alpha_t a + sigma_t z, t, o) - z|^2, t ~ U(1e-3, 1)
                                                              stage "behaviour" (stages/clone.py)
    2   for each round (`rounds`):                            stage "policy", `refresh`
    3       at every row of the data, with 16 samples a_j of the behaviour:
            V(o) = sum_j softmax_j(alpha Q(o, a_j)) Q(o, a_j)
    4       from each trajectory's end: R_t = r_t + gamma (1 - d_t) max(R_{t+1}, V(o_{t+1}));
            in the first round R_{t+1} instead of the maximum
    5       Q: step down mean (Q(o, a) - R)^2                 `update`
    6   act: 32 samples a_j of the behaviour, one of them with chance softmax_j(alpha Q(o, a_j))

**Differs**.

- No policy is trained against a critic, so no action is valued that the behaviour would not take.
  Compared with diffusion-ql, the value moves from the loss (line 5 there) to the choice (line 6).
- alpha counts standard deviations of the data's returns, which run from tens to hundreds here, so
  one number serves all tasks. Its value is ours.
- A trajectory that the time limit cuts continues with V of its last state, and with nothing in the
  first round. With `time_limit="terminal"` it ends. The paper's tasks leave this open.
- The noise network is a Mish perceptron; the authors' is residual. DPM-Solver is of first order.
- Line 3 samples 16 chains for each row in each later round. That is most of the cost of a run.

**Checked**. tests/probes/test_sfbc.py (the best of its candidates under an exact critic; returns by
hand, joined where trajectories meet; clones and the better mode), tests/contract.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxomarl.base import Algorithm, Dataset, Environment, Past, Spec, Stage, System, team_reward
from jaxomarl.config import config, static, traced
from jaxomarl.data.dataset import as_is, every_row
from jaxomarl.diffusion.samplers import dpm_solver
from jaxomarl.diffusion.schedules import vp
from jaxomarl.losses.candidates import pick_by_value, soft_value
from jaxomarl.losses.planning import planned_returns
from jaxomarl.losses.td import continuation_factor, ensemble_loss
from jaxomarl.networks.inputs import observation_normaliser
from jaxomarl.networks.mlp import mish
from jaxomarl.optim import Net, create, descend
from jaxomarl.policies.diffusion import Diffuser, noise_network, several
from jaxomarl.stages import clone, critic, decentralised
from jaxomarl.stages.decentralised import AgentNetworks, agent_networks

CHOICES = {**decentralised.CHOICES, "select": ("softmax", "argmax")}


@config
class Config(decentralised.Diffusion):
    """MA-SfBC's settings; `policy_*` are the behaviour model's."""

    policy_steps: int = static(default=10_000, scaled="steps")
    """Gradient steps of the behaviour model, from which actions are sampled."""
    candidates: int = static(default=32)
    critic_steps: int = static(default=9000, scaled="steps")
    """Gradient steps of the critics over all rounds; reports and checkpoints fall between them."""
    critic_batch: int = static(default=1024)
    """Transitions in a batch of the critics' updates."""
    rounds: int = static(default=3)
    """Rounds, each on new returns: first from the data, then with the values learned so far."""
    value_samples: int = static(default=16)
    """Actions that are sampled for each state value."""
    alpha: float = traced(default=10.0, within="[0, inf)")
    """Sharpness of both softmaxes, for values in standard deviations of the data's returns."""
    select: str = static(default="softmax")
    """Candidate that is taken. softmax: a sample by value. argmax: the best."""


class Planned(NamedTuple):
    """Critics, which lead with N, and the returns that they are fitted to."""

    critic: Net
    returns: Float[Array, "M N"]
    spread: Float[Array, " N"]
    """Standard deviation of the first round's returns."""
    round: Int[Array, ""]


class Regression(NamedTuple):
    """Rows drawn for line 5."""

    obs: Float[Array, "B N O"]
    action: Float[Array, "B N A"]
    returns: Float[Array, "B N"]


# --- the behaviour ---


def diffusion(spec: Spec, cfg: Config) -> Diffuser:
    """Build one agent's behaviour model."""
    return Diffuser(noise_network(spec, cfg.policy_width), vp(), dpm_solver, cfg.levels)


def behaviour_diffusion(spec: Spec, cfg: Config, acts: bool = False) -> Algorithm:
    """Build the first stage: each agent's diffusion model of its own actions."""
    return clone.diffusion_cloning_learner(spec, cfg, diffusion(spec, cfg), acts=acts)


# --- candidates and their values ---


class CandidateNets(NamedTuple):
    """One agent's behaviour model and critic, and all agents' action columns."""

    diffuser: Diffuser
    nets: AgentNetworks
    action_mask: Float[Array, "N A"]


def candidate_networks(spec: Spec, cfg: Config) -> CandidateNets:
    """Build one agent's behaviour model and critic."""
    diffuser = diffusion(spec, cfg)
    nets = agent_networks(spec, cfg, diffuser.net, activation=mish, members=1)
    return CandidateNets(diffuser, nets, jnp.asarray(spec.act_mask))


def valued_candidates(
    of: CandidateNets,
    key: Key[Array, ""],
    state: Planned,
    past: Past,
    obs: Float[Array, "N O"],
    count: int,
) -> tuple[Float[Array, "K N A"], Float[Array, "K N"]]:
    """Sample `count` actions of every agent's behaviour, and value them."""

    def of_one_agent(key, model, critic, obs, mask):
        actions = several(of.diffuser, key, model, obs, mask, count)
        return actions, of.nets.q.apply(critic, obs, actions)[0]

    keys = jax.random.split(key, len(of.action_mask))
    models = past["behaviour"].params
    of_all = jax.vmap(of_one_agent, out_axes=1)
    return of_all(keys, models, state.critic.params, obs, of.action_mask)


# --- the critics, which select ---


def policy(spec: Spec, cfg: Config) -> tuple[Algorithm, Callable[..., Planned]]:
    """Build the second stage, critics that select from the behaviour's samples, and its refresh."""
    of = candidate_networks(spec, cfg)
    nets = of.nets
    normalise_obs = observation_normaliser(spec, cfg)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Planned:
        keys = jax.random.split(key, spec.agents)
        critic = jax.vmap(lambda key: create(nets.tx_q, nets.q.init(key)))(keys)
        returns = jnp.zeros((data.step.shape[0], spec.agents))
        return Planned(critic, returns, jnp.ones(spec.agents), jnp.zeros((), jnp.int32))

    def batch(key: Key[Array, ""], state: Planned, data: Dataset) -> Regression:
        drawn = jax.random.randint(key, (cfg.critic_batch,), 0, data.starts.shape[0])
        start = data.starts[drawn]
        row = data.layout.unpack(data.rows[start])
        return Regression(row["obs"], row["action"] * of.action_mask, state.returns[start])

    # line 5
    def update(
        key: Key[Array, ""], state: Planned, past: Past, batch: Regression
    ) -> tuple[Planned, dict]:
        def fit(critic, obs, action, returns):
            loss = lambda params: ensemble_loss(nets.q.apply(params, obs, action), returns)
            value, grads = jax.value_and_grad(loss)(critic.params)
            return descend(nets.tx_q, critic, grads), value

        fit_all = jax.vmap(fit, in_axes=(0, 1, 1, 1))
        obs = normalise_obs(past, batch.obs)
        critic, loss = fit_all(state.critic, obs, batch.action, batch.returns)
        metrics = {"q_loss": loss.mean(), "returns": batch.returns.mean()}
        return state._replace(critic=critic), metrics

    # line 6
    def act(key, state, past, memory, observation):
        k_sample, k_pick = jax.random.split(key)
        obs = normalise_obs(past, observation.obs)
        actions, q = valued_candidates(of, k_sample, state, past, obs, cfg.candidates)
        gumbel = jax.random.gumbel(k_pick, q.shape) if cfg.select == "softmax" else None
        return pick_by_value(actions, cfg.alpha / state.spread * q, gumbel), memory

    return Algorithm(init, batch, update, act), planning(spec, cfg, of)


def planning(spec: Spec, cfg: Config, of: CandidateNets) -> Callable[..., Planned]:
    """Build the stage's `refresh`: the returns of a round, planned with the values so far."""
    normalise_obs = observation_normaliser(spec, cfg)

    # line 2
    def refresh(key: Key[Array, ""], state: Planned, past: Past, data: Dataset) -> Planned:
        # line 3
        def value(row):
            key, obs = row
            _, q = valued_candidates(of, key, state, past, obs, cfg.value_samples)
            return soft_value(q, cfg.alpha / state.spread)

        keys = jax.random.split(key, data.step.shape[0])
        obs = normalise_obs(past, data.obs)
        first_round = state.round == 0  # it needs no values
        v = every_row(jax.vmap(value), (keys, obs), first_round)

        # line 4
        reward = data.reward
        if cfg.reward != "own":
            team = team_reward(spec.team, data.reward)[:, None]
            reward = jnp.broadcast_to(team, data.reward.shape)
        discount = cfg.gamma * continuation_factor(data, cfg.time_limit)
        returns = planned_returns(reward, discount, data.left == 0, v, first_round)
        deviation = returns[data.starts].std(axis=0) + 1e-6
        spread = jnp.where(first_round, deviation, state.spread)
        return Planned(state.critic, returns, spread, state.round + 1)

    return refresh


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings, tasks or data that MA-SfBC cannot train on."""
    decentralised.check(spec, cfg, data, CHOICES)


def pipeline(spec: Spec, cfg: Config, env: Environment | None = None) -> tuple[Stage, ...]:
    """Two stages: behaviour -> critics, in which one scan is one round on new returns."""
    learner = behaviour_diffusion(spec, cfg)
    behaviour_stage = Stage.from_config(
        cfg,
        "behaviour",
        learner,
        cfg.policy_steps,
        fields=clone.FIELDS,
        owner="sfbc",
        health=clone.drawn_health(spec, cfg, behaviour_diffusion(spec, cfg, acts=True)),
    )
    final, refresh = policy(spec, cfg)
    of_critics = {"activation": mish, "members": 1}
    compared = decentralised.agent_critics_health(spec, cfg, critic.RAISE, **of_critics)
    round_steps = -(-cfg.critic_steps // cfg.rounds)
    steps = cfg.rounds * round_steps
    policy_stage = Stage(
        "policy", final, steps, round_steps, owner="sfbc", refresh=refresh, health=compared
    )
    return behaviour_stage, policy_stage


SFBC = System(Config, check, as_is, pipeline)
