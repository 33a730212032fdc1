"""CFCQL: one conservative critic of the joint action, with a penalty for each agent's own actions.

**Paper**. Shao et al. 2023, "Counterfactual Conservative Q Learning for Offline Multi-agent
Reinforcement Learning": lines 1 to 8 for continuous actions, line 9 for discrete ones.

**Pseudo-code**. For one joint critic and N policies:

    1   for each gradient step on a batch of transitions:     stage "policy", `update`
    2       a'_i = clip(pibar_i(o'_i) + N(0, 0.05^2)) for all agents
    3       y = r + gamma (1 - d) min_k Qbar^k(s', a')
    4       for every agent i, a_i^m ~ p_m: M uniform actions;
                with penalty_from="policy", also M around pi_i(o_i) and M around pi_i(o'_i)
            L_i = log mean_m exp(Q^k(s, a_i^m, a_-i) - log p_m(a_i^m)),     a_-i from the data
    5       each Q^k: step down mean (Q^k(s, a) - y)^2
                + penalty mean [ sum_i lambda_i L_i - Q^k(s, a) ],          lambda = 1/N
    6       every fifth step (`policy_delay`):
    7           pi_i: step down -mean Q^1(s, pi_i(o_i), a_-i) + 1e-3 mean pi_i(o_i)^2,
                    a_-i from the data
    8           targets follow with polyak
    9   discrete actions: QMIX, and mean [ sum_i lambda_i log sum over legal b of
                exp Q_tot(s, b, a_-i) - Q_tot(s, a) ] times the penalty

**Differs**.

- The weights lambda are 1/N, the released default. Those by a fitted behaviour are left out.
- With `resample="all"`, line 4 samples the actions of all agents at once, in one L. That is the
  joint MA-CQL against which the paper argues, because the term then grows with the volume of the
  joint action. For one agent, both are CQL.
- The released code adds a jitter of 1e-5 to the others' actions. We do not.
- On MuJoCo, the released code pairs the samples around pi(o) with the densities around pi(o'), and
  the other way round. Here each sample keeps its own density, of noise that is cut off at the box.
- `others="current"` takes a_-i of line 7 from the current policies, held constant.
- With discrete actions utilities see the current observation, targets have one step, and weights
  are 1/N. Widths and rates are the critic's; settings of policies and proposals are not read.
- The reward is the team's, and OMAR's mixing of policies is left out.

**Checked**. tests/probes/test_cfcql.py (CQL's term for one agent; N separate terms for a sum of
values; the policy's gradient by other agents' actions; a joint bandit), tests/contract.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Health, Past, Spec, System, one_stage
from jaxomarl.config import config, static, traced
from jaxomarl.data.dataset import as_is, sample_transitions
from jaxomarl.health import behaviour, critics
from jaxomarl.health.held import joined
from jaxomarl.losses.conservative import Proposals, conservative, replaced
from jaxomarl.losses.td import ensemble_loss, joint_target
from jaxomarl.networks.agents import separate
from jaxomarl.networks.critics import joint_twin
from jaxomarl.networks.inputs import observation_normaliser, state_normaliser
from jaxomarl.networks.mlp import Network
from jaxomarl.optim import Net, Params, create, descend, polyak
from jaxomarl.stages import decentralised, decomposition
from jaxomarl.stages.decentralised import ActorCritic, AgentNetworks

CHOICES = {
    **decentralised.DETERMINISTIC_CHOICES,
    "reward": ("team", "first"),
    "resample": ("each", "all"),
    "others": ("data", "current"),
}


@config
class Config(decentralised.Deterministic):
    """CFCQL's settings."""

    reward: str = static(default="team")
    """Reward that is learned. team: the team's. first: agent 1's."""
    policy_lr: float = traced(default=1e-3, within="(0, inf)")
    critic_lr: float = traced(default=1e-3, within="(0, inf)")
    resample: str = static(default="each")
    """Unseen actions of the penalty. each: one agent's at a time. all: at once (joint MA-CQL)."""
    others: str = static(default="data")
    """Team-mates' actions in a policy's loss. data: the batch's. current: the current policies'."""
    target_noise: float = traced(default=0.05, within="[0, inf)")
    """Standard deviation of the noise on the target policies' actions."""
    policy_delay: int = static(default=5)
    """Critic updates for one update of the policies and the targets."""


# --- networks ---


class JointNets(NamedTuple):
    """The policies of N agents and their joint critic."""

    nets: AgentNetworks
    """One agent's policy, and the optimisers."""
    critic: Network
    """(params, state [B, S], action [*M, B, N, A]) -> [E, *M, B]."""
    action_mask: Float[Array, "N A"]

    def play(self, params: Params, obs: Float[Array, "*B N O"]) -> Float[Array, "*B N A"]:
        """All agents' actions."""
        actors = separate(self.nets.actor, len(self.action_mask))
        return self.action_mask * actors.apply(params, obs)


def joint_networks(spec: Spec, cfg: Config) -> JointNets:
    """Build the policies and the joint critic."""
    nets = decentralised.agent_networks(spec, cfg)
    critic = joint_twin(spec, (cfg.critic_width,) * 2)
    return JointNets(nets, critic, jnp.asarray(spec.act_mask))


# --- the critic's loss ---


def penalty(
    q: Callable[[Float[Array, "M B N A"]], Float[Array, "E M B"]],
    action: Float[Array, "B N A"],
    sampled: Proposals,
    resample: str,
) -> Float[Array, "E B"]:
    """Lines 4 and 5: mean_i L_i - Q(s, a), or with resample="all" one L of all agents' samples.

    `sampled` has each agent's proposals: actions [N, M, B, A] and log-densities [N, M, B].
    """
    q_data = q(action[None])[:, 0]
    if resample == "all":
        joint = jnp.moveaxis(sampled.action, 0, -2)
        return conservative(q(joint), sampled.log_p.sum(axis=0), q_data)

    def counterfactual(i, own):
        return conservative(q(replaced(action, i, own.action)), own.log_p, q_data)

    agents = jnp.arange(action.shape[-2])
    return jax.vmap(counterfactual)(agents, sampled).mean(axis=0)


def conservative_loss(
    cfg: Config,
    q: Callable[[Array], Array],
    action: Float[Array, "B N A"],
    y: Float[Array, " B"],
    sampled: Proposals,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The loss of line 5, and its metrics; `q` as in `penalty`."""
    q_data = q(action)
    gap = penalty(q, action, sampled, cfg.resample).mean(axis=-1)
    td_loss = ensemble_loss(q_data, y)
    loss = td_loss + cfg.penalty * gap.sum()
    return loss, {"q_loss": td_loss, "q_mean": q_data.mean(), "q_gap": gap.mean()}


# --- the algorithm ---


def policy(spec: Spec, cfg: Config) -> Algorithm:
    """Build the learner: the policies of N agents under one joint critic."""
    if spec.discrete:  # line 9
        return decomposition.counterfactual_learner(spec, cfg)
    team = joint_networks(spec, cfg)
    normalise_obs = observation_normaliser(spec, cfg)
    normalise_state = state_normaliser(cfg)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> ActorCritic:
        k_actor, k_critic = jax.random.split(key)
        new_actor = lambda key: create(team.nets.tx_actor, team.nets.actor.init(key), target=True)
        actor = jax.vmap(new_actor)(jax.random.split(k_actor, spec.agents))
        return ActorCritic(actor, create(team.nets.tx_q, team.critic.init(k_critic), target=True))

    def batch(key: Key[Array, ""], state: ActorCritic, data: Dataset) -> Batch:
        return sample_transitions(key, data, cfg.policy_batch)

    # line 1
    def update(
        key: Key[Array, ""], state: ActorCritic, past: Past, batch: Batch
    ) -> tuple[ActorCritic, dict]:
        k_next, k_penalty = jax.random.split(key)
        action = batch.action * team.action_mask
        s = normalise_state(past, batch.state)
        obs = normalise_obs(past, batch.obs)
        next_obs = normalise_obs(past, batch.next_obs)

        # --- critic: lines 2-5 ---
        noise = cfg.target_noise * team.action_mask * jax.random.normal(k_next, action.shape)
        next_action = jnp.clip(team.play(state.actor.target, next_obs) + noise, -1.0, 1.0)
        next_s = normalise_state(past, batch.next_state)
        next_q = team.critic.apply(state.critic.target, next_s, next_action).min(axis=0)
        y = joint_target(batch, next_q, cfg.gamma, cfg.reward, cfg.time_limit)
        around = (obs, next_obs) if cfg.penalty_from == "policy" else ()
        centres = [team.play(state.actor.params, o) for o in around]
        sampled = decentralised.agents_proposals(k_penalty, spec, cfg, past, batch, centres)

        def critic_loss(params):
            q = lambda a: team.critic.apply(params, s, a)
            return conservative_loss(cfg, q, action, y, sampled)

        grads, metrics = jax.grad(critic_loss, has_aux=True)(state.critic.params)
        critic = descend(team.nets.tx_q, state.critic, grads)

        # --- policies: lines 6-8 ---
        others = action
        if cfg.others == "current":
            others = jax.lax.stop_gradient(team.play(state.actor.params, obs))
        actor, losses = improved(cfg, team, ActorCritic(state.actor, critic), s, obs, others)
        metrics["policy_loss"] = losses.mean()
        due = decentralised.due(cfg.policy_delay, critic)
        moved = ActorCritic(polyak(actor, cfg.polyak), polyak(critic, cfg.polyak))
        return decentralised.moved_where(due, moved, state._replace(critic=critic)), metrics

    def act(key, state, past, memory, observation):
        return team.play(state.actor.params, normalise_obs(past, observation.obs)), memory

    return Algorithm(init, batch, update, act)


def improved(
    cfg: Config, team: JointNets, learner: ActorCritic, state: Array, obs: Array, others: Array
) -> tuple[Net, Float[Array, " N"]]:
    """One step of every policy up the joint critic, and the policies' losses.

    `state` is [B, S], `obs` [B, N, O], and `others` the team-mates' actions [B, N, A].
    """

    # line 7
    def climb(i, actor, obs, mask):
        def loss(params):
            own = mask * team.nets.actor.apply(params, obs)
            q = team.critic.apply(learner.critic.params, state, replaced(others, i, own))[0].mean()
            return cfg.action_penalty * decentralised.effort(own, mask) - q

        value, grads = jax.value_and_grad(loss)(actor.params)
        return descend(team.nets.tx_actor, actor, grads), value

    agents = jnp.arange(len(team.action_mask))
    return jax.vmap(climb, in_axes=(0, 0, 1, 0))(agents, learner.actor, obs, team.action_mask)


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings or data that CFCQL cannot train on."""
    decentralised.check(spec, cfg, data, CHOICES, discrete=True)


def health(spec: Spec, cfg: Config, algorithm: Algorithm) -> Health:
    """The joint critic on held-out returns, and how far the policies are from the data."""
    if spec.discrete:
        nets = decomposition.team_networks(spec, cfg.critic_width, "qmix")
        return decomposition.decomposition_health(spec, cfg, nets, algorithm)
    q = joint_networks(spec, cfg).critic.apply
    normalise_state = state_normaliser(cfg)

    def values(state, past, obs, env_state, action):
        return q(state.critic.params, normalise_state(past, env_state), action).mean(axis=0)

    critic = critics.critic(values, cfg.gamma, cfg.reward, decentralised.RAISE)
    return joined(critic, behaviour.policy(spec, algorithm))


pipeline = one_stage("cfcql", policy, health=health)
CFCQL = System(Config, check, as_is, pipeline)
