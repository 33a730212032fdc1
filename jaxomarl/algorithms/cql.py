"""MA-CQL: each agent's conservative critics, and a deterministic policy that climbs them.

**Paper**. Kumar et al. 2020, "Conservative Q-Learning for Offline Reinforcement Learning",
Algorithm 1, run by every agent alone as in Pan et al. 2022 (OMAR) and DOM2's tables.

**Pseudo-code**. For every agent i, on its own observation, action and reward:

    1   for each gradient step on a batch of transitions:     stage "policy", `update`
    2       y = r + gamma (1 - d) min_k Qbar^k(o', pibar(o'))
    3       a_m ~ p_m: M uniform actions;
            with penalty_from="policy", also M around pi(o) and M around pi(o')
    4       each Q^k: step down mean (Q^k(o, a) - y)^2
                + penalty mean [ log mean_m exp(Q^k(o, a_m) - log p_m(a_m)) - Q^k(o, a) ]
    5       pi: step down -mean Q^1(o, pi(o)) + 1e-3 mean pi(o)^2
    6       targets follow with polyak

With discrete actions there is no policy but the critic's: lines 2 to 5 become

    7       a' = argmax over the legal actions of Q(o', .)
            step down 1/2 mean (Q(o, a) - r - gamma (1 - d) Qbar(o', a'))^2
                + penalty mean [ log sum over legal b of exp Q(o, b) - Q(o, a) ]

**Differs**.

- OMAR's released code subtracts the density of the samples around the policy. We subtract the
  logarithm of the density.
- That code takes the density of the noise before actions are clipped, which counts volume outside
  the box. Here the noise is cut off at the box (losses/conservative.py).
- OMAR's code leaves out the factor 1/M. It changes no gradient.
- OMAR's batch normalisation mixes the statistics of data, random and policy actions. We standardise
  observations once, from the data.
- With discrete actions the critic is one network and not a twin, and the choice of line 7 is by the
  trained network (double Q-learning), as in OG-MARL's code. Rows of dead agents do not count in the
  penalty. Widths and rates are the critic's, and the settings of a policy and of proposals are not
  read.
- One batch serves all agents, whose networks are separate.

**Checked**. tests/probes/test_cql_omar.py (unseen actions fall below seen ones),
tests/reference/test_conservative.py (the term by hand, its estimate of the integral),
tests/contract.
"""

from jaxtyping import Array, Key

from jaxomarl.base import Algorithm, Dataset, Health, Spec, System, one_stage
from jaxomarl.config import config
from jaxomarl.data.dataset import as_is
from jaxomarl.losses.conservative_choices import own_gap
from jaxomarl.masking import weighted_mean
from jaxomarl.optim import clipped_adam
from jaxomarl.stages import decentralised, decomposition
from jaxomarl.stages.decentralised import ActorCritic, AgentBatch, Stepped, cql_step, policy_step


@config
class Config(decentralised.Deterministic):
    """MA-CQL's settings."""


def policy(spec: Spec, cfg: Config) -> Algorithm:
    """Build the learner: each agent's policy and twin critics."""
    if spec.discrete:
        return choices(spec, cfg)
    nets = decentralised.agent_networks(spec, cfg)

    # line 1, for one agent
    def step(key: Key[Array, ""], state: ActorCritic, batch: AgentBatch) -> Stepped:
        # --- critics: lines 2-4 ---
        state, critic_metrics = cql_step(key, cfg, nets, state, batch)

        # --- policy: line 5 ---
        def loss(params):
            action = batch.mask * nets.actor.apply(params, batch.obs)
            q = nets.q.apply(state.critic.params, batch.obs, action)[0].mean()
            penalty = cfg.action_penalty * decentralised.effort(action, batch.mask)
            return penalty - q, {"q_played": q}

        # lines 5 and 6
        return policy_step(cfg, nets, state, loss, critic_metrics)

    return decentralised.actor_critic_learner(spec, cfg, nets, step, nets.play)


def choices(spec: Spec, cfg: Config) -> Algorithm:
    """Build the learner of discrete actions: each agent's conservative critic."""

    # line 7
    def conservative(
        key: Key[Array, ""], values: decomposition.Values
    ) -> tuple[Array, dict[str, Array]]:
        gap = own_gap(values.utilities, values.chosen, values.legal)
        mean = weighted_mean(gap, values.alive)
        return cfg.penalty * mean, {"q_gap": mean}

    nets = decomposition.team_networks(spec, cfg.critic_width)
    optimiser = clipped_adam(cfg.critic_lr, cfg.clip)
    return decomposition.decomposition_learner(spec, cfg, nets, optimiser, conservative)


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings or data that MA-CQL cannot train on."""
    decentralised.check(spec, cfg, data, decentralised.DETERMINISTIC_CHOICES, discrete=True)


def health(spec: Spec, cfg: Config, algorithm: Algorithm) -> Health:
    """The agents' critics on held-out returns, and how far their policies are from the data."""
    if not spec.discrete:
        return decentralised.actor_critic_health(spec, cfg, algorithm)
    nets = decomposition.team_networks(spec, cfg.critic_width)
    return decomposition.decomposition_health(spec, cfg, nets, algorithm)


pipeline = one_stage("cql", policy, health=health)
CQL = System(Config, check, as_is, pipeline)
