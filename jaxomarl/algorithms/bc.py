"""BC: each agent imitates its own actions in the data.

**Paper**. Pomerleau 1991, "Efficient Training of Artificial Neural Networks for Autonomous
Navigation"; the behaviour cloning row of every table of this field.

**Pseudo-code**.

    1   for each gradient step on a batch of transitions:           stage "policy", `update`
    2       theta_i <- step down mean_batch sum_dims (pi_i(o_i) - a_i)^2, for all agents i at once
                discrete actions: down -mean_batch log pi_i(a_i | o_i), over the legal actions

**Differs**.

- The policies are deterministic and have a squared loss, so the optimum is E[a_i | o_i]. Where the
  behaviours in the data disagree, the policy plays their mean, which none of them may ever play.
- Discrete policies are categorical, and play their likeliest legal action. Rows of dead agents do
  not count.
- Each agent has a network of its own. No parameters are shared.
- OG-MARL's behaviour cloning has a recurrent policy; ours sees the current observation alone.

**Checked**. tests/probes/test_bc_iql.py (the mean on two-mode data; a linear policy recovered),
tests/contract (discrete actions: test_discrete.py).
"""

import jax
from jaxtyping import Array, Key

from jaxomarl.base import Algorithm, Batch, Dataset, Past, Spec, System, one_stage
from jaxomarl.config import check_fields, config, static
from jaxomarl.data.dataset import as_is, check_transitions
from jaxomarl.losses.imitation import imitation_loss
from jaxomarl.networks.actors import acting_network, action_of_output
from jaxomarl.networks.agents import separate
from jaxomarl.networks.inputs import observation_normaliser
from jaxomarl.optim import OPTIMISERS, descend
from jaxomarl.stages import clone
from jaxomarl.stages.clone import Policies, policies_learner, policy_optimiser

FIELDS = (*clone.POLICY_FIELDS, "normalise", "chunk")
"""The settings that reach the stage; runs that agree in them share its training."""


@config
class Config(clone.Config):
    """BC's settings."""

    policy_optimiser: str = static(default="adam")
    """Optimiser of the policy: adam, or sgd."""


def policy(spec: Spec, cfg: Config) -> Algorithm:
    """Build the learner: one network for each agent, and one update for all of them."""
    one_actor = acting_network(spec, spec.obs_width, (cfg.policy_width,) * 2, spec.act_width)
    actors = separate(one_actor, spec.agents)
    optimiser = policy_optimiser(cfg)
    normalise_obs = observation_normaliser(spec, cfg)

    # line 1
    def update(
        key: Key[Array, ""], state: Policies, past: Past, batch: Batch
    ) -> tuple[Policies, dict]:
        # line 2
        def loss(params):
            predicted = actors.apply(params, normalise_obs(past, batch.obs))
            return imitation_loss(spec, predicted, batch)

        value, grads = jax.value_and_grad(loss)(state.actor.params)
        stepped = descend(optimiser, state.actor, grads)
        return Policies(stepped), {"policy_loss": value / spec.agents}

    def act(key, state, past, memory, observation):
        out = actors.apply(state.actor.params, normalise_obs(past, observation.obs))
        return action_of_output(spec, out, observation.available), memory

    return policies_learner(actors, optimiser, cfg.policy_batch, update, act)


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings or data that BC cannot train on."""
    check_fields(cfg, {"policy_optimiser": OPTIMISERS})
    check_transitions(data)


pipeline = one_stage("bc", policy, FIELDS, clone.mean_health)
BC = System(Config, check, as_is, pipeline)
