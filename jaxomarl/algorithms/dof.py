"""DoF-Policy and Independent Diffusion: a team's diffusion policies, factorised or not.

**Paper**. "DoF: A Diffusion Factorization Framework for Offline Multi-Agent Decision Making",
Algorithms 1, 2 and 4 (policy agent, C.4), and its baseline "ID", not factorised (5.1, A.2).

**Pseudo-code**. f and h are those of diffusion/factorise.py, the team is that of policies/team.py:

    1   for each gradient step on a batch of transitions:         stage "policy", `update`
    2       a' ~ pibar(o'): K ancestral steps with the noise f(eps_1, .., eps_n), then h, clipped
    3       each Q^k: step down mean (Q^k(s, a) - r - gamma (1 - d) min_k Qbar^k(s', a'))^2
    4       x = alpha_k a + sigma_k z, one k for all agents;  a^0 ~ pi(o) as in line 2
    5       theta: step down mean |f(eps_1(x_1, k, o_1), ..) - z|^2 / D + mean |h(sg x0) - a|^2 / D
                - eta mean Q^1(s, a^0) / sg[ mean |Q^1(s, a^0)| ],     x0 from the chain's last step
    6       targets of critics and policies follow with polyak
    7   act: agent i runs line 2 on row i alone; the candidate of largest min_k Qbar_i^k is played

        dof-p           f: `noise_mixer`, h: `data_mixer`, a joint critic
        ind-diffusion   f: eps(x_i, k, o_i) (pooled), eps_i(x_i, k, o_i) (separate), or
                        eps(x_1..x_n, k, o_1..o_n) (joint); no h; own critics, their mean in 5

**Differs**.

- The released code cuts the gradient of line 5's value, and its chain has another schedule than its
  settings name. It trains weights that it does not sample with, so it clones, and f has no effect.
  Here the gradient reaches the networks, and the loss and the chain share one f.
- The printed divisor is the signed mean of Q, which turns the objective over for negative returns.
  Ours is mean |Q|, held constant.
- Algorithm 1 prints x^(k-1) for x^0, and its equation 4 weights the forward noise, from which no
  chain from N(0, I) could return. We take the standard forward process.
- The paper prints no schedule, and no loss for h: ours is in policies/team.py. Linear betas leave
  alpha^2 = 0.90 at the start of a chain of K = 10 steps, so we refuse them there.
- Steps have the posterior's variance, not beta_k, and clip each clean estimate to the box.
- With dec-atten, line 5 uses atten, and the agents act with their own terms.
- `critic="own"` is the released code's. With f and h of concat it is `diffusion-ql`, which divides
  by the other head's values. The code plays one of 50 candidates at random, we sample just one.
- K, eta and rates are Table 8's, for ID too; gamma (0.99), batch and gradient clip are the code's.
- ID is pooled: agents that look alike sample from the mean of their marginals. Separate models are
  `dof-p` with concat. `joint` is the density that the paper measures against.

**Checked**. tests/diffusion/test_factorise.py (f and h), tests/probes/test_dof.py (Q's gradient;
the divisor; eta = 0 clones, eta > 0 takes the better mode; total variations), tests/contract.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Environment, Past, Spec, Stage, System, refuse
from jaxomarl.config import config, static, traced
from jaxomarl.data.dataset import as_is, sample_transitions
from jaxomarl.diffusion.factorise import DATA, NOISE, check_execution
from jaxomarl.diffusion.schedules import BY_LEVELS, check_by_levels
from jaxomarl.losses.td import continuation_factor
from jaxomarl.losses.weighting import normalised_value
from jaxomarl.networks.critics import twin
from jaxomarl.networks.inputs import flat, observation_normaliser, state_normaliser
from jaxomarl.networks.mlp import mish
from jaxomarl.optim import create
from jaxomarl.policies import team as teams
from jaxomarl.stages import decentralised
from jaxomarl.stages.decentralised import ActorCritic, AgentBatch, AgentNetworks, agent_networks

CHOICES = {"critic": ("joint", "own"), "schedule": tuple(BY_LEVELS), "acting": ("online", "target")}


@config
class Base(decentralised.Diffusion, decentralised.Config):
    """Settings of teams with diffusion policies; the defaults are DoF-Policy's."""

    reward: str = static(default="team")
    """Reward that is learned. team: the team's. own: each agent's, with own critics alone."""
    critic: str = static(default="joint")
    """Critic of the team. joint: Q(state, all actions). own: Q_i(o_i, a_i) for each agent."""
    gamma: float = traced(default=0.99, within="[0, 1]")
    eta: float = traced(default=0.5, within="[0, inf)")
    """Weight of the normalised value in the policy's loss; 0 clones the behaviour."""
    levels: int = static(default=10)
    """K: steps of the sampler, and noise levels that are trained."""
    schedule: str = static(default="vp")
    """Noise schedule. vp: Diffusion-QL's. cosine: squared. linear: betas to 0.02, 1000 levels."""
    candidates: int = static(default=1)
    """Actions that are sampled in each step; the one with the largest own value is taken."""
    acting: str = static(default="online")
    """Networks that act in evaluations. online: the trained ones. target: their slow averages."""
    polyak: float = traced(default=0.005, within="(0, 1]")


@config
class Config(Base):
    """DoF-Policy's settings."""

    noise_mixer: str = static(default="wconcat")
    """f, which mixes the agents' noise. Agents can act alone unless it is atten or qmix."""
    data_mixer: str = static(default="wconcat")
    """h, which mixes the agents' samples. Agents can act alone unless it is atten or qmix."""
    networks: str = static(default="separate")
    """Noise networks. separate: one per agent. shared: one that is given the agent's number."""
    execution: str = static(default="decentralised")
    """How agents act. decentralised: refuse mixers that need other agents. central: accept them."""


@config
class IndependentConfig(Base):
    """Independent Diffusion's settings."""

    model: str = static(default="separate")
    """Networks. pooled: one that all agents share. separate: one each. joint: one of all rows."""
    critic: str = static(default="own")


class Variant(NamedTuple):
    """One row of the table above."""

    name: str
    config: type[Base]
    team: Callable[[Spec, Any], teams.Team]
    choices: dict[str, tuple[str, ...]]


def critic_rows(spec: Spec, cfg: Base, past: Past, batch: Batch) -> tuple[AgentBatch, AgentBatch]:
    """What each critic learns from, and the axes over which to vmap: one joint critic, or N own."""
    own, axes = decentralised.agent_batches(spec, cfg, past, batch)
    if cfg.critic == "own":
        return own, axes
    normalise_state = state_normaliser(cfg)
    joint = AgentBatch(
        obs=normalise_state(past, batch.state)[:, None],
        action=flat(own.action)[:, None],
        reward=batch.team_reward[:, None],
        next_obs=normalise_state(past, batch.next_state)[:, None],
        go_on=continuation_factor(batch, cfg.time_limit),
        mask=own.mask.reshape(1, -1),
    )
    return joint, axes


def team_networks(spec: Spec, cfg: Base, team: teams.Team) -> AgentNetworks:
    """The team's noise prediction and the twin networks of one critic, with their optimisers."""
    joint = cfg.critic == "joint"
    inputs = spec.state_dim if joint else spec.obs_width
    actions = spec.act_mask.size if joint else spec.act_width
    q = twin(inputs, actions, (cfg.critic_width,) * 3, activation=mish)
    return agent_networks(spec, cfg, team.trained.net)._replace(q=q)


def policy(spec: Spec, cfg: Base, team: teams.Team) -> Algorithm:
    """Build the learner: the policies of N agents, and C = 1 joint critic or C = N own ones."""
    nets = team_networks(spec, cfg, team)
    play = teams.player(team, nets.q, cfg.candidates, cfg.acting)
    normalise_obs = observation_normaliser(spec, cfg)
    action_mask = jnp.asarray(spec.act_mask)
    critics = 1 if cfg.critic == "joint" else spec.agents
    for_critics = lambda action: action.reshape(len(action), critics, -1)  # [B, N, A] -> [B, C, D]

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> ActorCritic:
        k_actor, k_critic = jax.random.split(key)
        actor = create(nets.tx_actor, nets.actor.init(k_actor), target=True)
        new_critic = lambda key: create(nets.tx_q, nets.q.init(key), target=True)
        return ActorCritic(actor, jax.vmap(new_critic)(jax.random.split(k_critic, critics)))

    def batch(key: Key[Array, ""], state: ActorCritic, data: Dataset) -> Batch:
        return sample_transitions(key, data, cfg.policy_batch)

    # line 1
    def update(
        key: Key[Array, ""], state: ActorCritic, past: Past, batch: Batch
    ) -> tuple[ActorCritic, dict]:
        k_next, k_noise, k_action = jax.random.split(key, 3)

        # --- critics: lines 2 and 3 ---
        rows, axes = critic_rows(spec, cfg, past, batch)
        next_obs = normalise_obs(past, batch.next_obs)
        next_action = team.sample(k_next, state.actor.target, next_obs, action_mask)

        def fit_critic(critic, row, action):
            old = ActorCritic(state.actor, critic)
            new, metrics = decentralised.critic_step(cfg, nets, old, row, action)
            return new.critic, metrics

        fit_critics = jax.vmap(fit_critic, in_axes=(0, axes, 1))
        critic, critic_metrics = fit_critics(state.critic, rows, for_critics(next_action))

        # --- policies: lines 4-6 ---
        obs = normalise_obs(past, batch.obs)
        data_action = batch.action * action_mask
        t, z = teams.team_times_and_noise(k_noise, cfg.levels, action_mask, len(data_action))

        def loss(params):
            fit, metrics = teams.fitting_loss(team, params, data_action, obs, action_mask, t, z)
            action = for_critics(team.sample(k_action, params, obs, action_mask))
            q_of_all = jax.vmap(nets.q.apply, in_axes=(0, 1, 1))
            value = q_of_all(critic.params, rows.obs, action)[:, 0]  # [C, B], of Q^1
            climb = jax.vmap(lambda v: normalised_value(v, cfg.eta, v))(value).mean()
            return fit + climb, {**metrics, "q_played": value.mean()}

        state = ActorCritic(state.actor, critic)
        state, policy_metrics = decentralised.policy_step(cfg, nets, state, loss, {})
        return state, jax.tree.map(jnp.mean, critic_metrics) | policy_metrics

    # line 7
    def act(key, state, past, memory, observation):
        obs = normalise_obs(past, observation.obs)
        return play(key, state, obs, action_mask), memory

    return Algorithm(init, batch, update, act, centralised=team.centralised)


def check(spec: Spec, cfg: Base, data: Dataset | None, variant: Variant) -> None:
    """Raise JaxomarlError for settings, tasks or data that a team cannot learn on."""
    decentralised.check(spec, cfg, data, {**decentralised.CHOICES, **CHOICES, **variant.choices})
    check_by_levels(cfg.schedule, cfg.levels)
    if cfg.critic == "joint" and cfg.reward != "team":
        way = "A joint critic has one value: take --cfg.reward team, or --cfg.critic own."
        raise refuse("--cfg.reward", "team", cfg.reward, way)
    if cfg.critic == "joint" and cfg.candidates > 1:
        way = "No agent sees the joint critic's inputs: take 1, or --cfg.critic own."
        raise refuse("--cfg.candidates", "1 with a joint critic", cfg.candidates, way)
    if isinstance(cfg, Config):
        check_execution(cfg.execution, cfg.noise_mixer, cfg.data_mixer)


def pipeline(spec: Spec, cfg: Base, env: Environment | None, variant: Variant) -> tuple[Stage, ...]:
    """A variant has one stage."""
    team = variant.team(spec, cfg)
    final = policy(spec, cfg, team)
    health = decentralised.team_health(spec, cfg, final, team_networks(spec, cfg, team).q)
    return (Stage.from_config(cfg, "policy", final, cfg.policy_steps, None, variant.name, health),)


def system(variant: Variant) -> System:
    """The registry row of a variant."""
    stages = partial(pipeline, variant=variant)
    return System(variant.config, partial(check, variant=variant), as_is, stages)


MIXERS = {"noise_mixer": NOISE, "data_mixer": DATA}
MODES = {"networks": ("separate", "shared"), "execution": ("decentralised", "central")}
MODELS = {"model": ("pooled", "separate", "joint")}
DOF_P = Variant("dof-p", Config, teams.factorised, MIXERS | MODES)
IND_DIFFUSION = Variant("ind-diffusion", IndependentConfig, teams.independent, MODELS)
