"""Flow BC: agents imitate the data by a flow, which is followed in a few Euler steps.

**Paper**. Lipman et al. 2023, "Flow Matching for Generative Modeling", equation 23, on actions: the
behaviour model of flow Q-learning (Park et al. 2025) and of MAC-Flow (Lee et al. 2026).

**Pseudo-code**. For every agent i on (o_i, a_i), or for the team on all (o, a):

    1   for each gradient step on a batch of transitions:     stage "policy" (stages/flow.py)
    2       t ~ U(0, 1), z ~ N(0, I);  x = (1 - t) a + t z
    3       v: step down mean |v(x, t, o) - (z - a)|^2        (policies/flows.py, `flow_loss`)
    4   act: x = z;  K times x <- x - v(x, t, o) / K at t = 1, .., 1/K;  play clip x
                                                              (policies/flows.py, `flow_end`)

        model = separate    each agent's velocity of its own rows
        model = joint       one velocity of all rows; agents act on all observations

**Differs**.

- Our time runs from the data (0) to the noise (1). The papers of policies have it the other way
  round, and -v.
- Networks are Mish perceptrons with sinusoids of the time. The papers' have GELU and the time
  itself.
- The learning rate falls to zero by a cosine, as that of `diffusion-bc` does.
- MAC-Flow's released code has no joint velocity: its network gets one agent's row, and the agent's
  number. That is `separate` with shared weights. Its text speaks of a joint one.

**Checked**. tests/diffusion/test_flows.py (the velocity of Gaussians, Euler's order),
tests/probes/test_flow_bc.py (modes in their shares; the joint flow keeps the agents' agreement),
tests/contract.
"""

from jaxomarl.base import Algorithm, Dataset, Spec, System, one_stage
from jaxomarl.config import config, static
from jaxomarl.data.dataset import as_is
from jaxomarl.policies.flows import Flow, flow_loss, team_velocity
from jaxomarl.stages import clone, decentralised
from jaxomarl.stages.flow import (
    IMITATION_FIELDS,
    MODELS,
    Imitation,
    behaviour_learner,
    flow_player,
    imitation_rate,
)

FIELDS = (*IMITATION_FIELDS, "levels")


@config
class Config(Imitation):
    """Flow BC's settings."""

    levels: int = static(default=10)
    """K: Euler steps of an action, each a call of the network."""


def policy(spec: Spec, cfg: Config) -> Algorithm:
    """Build the learner: the velocity of each agent's actions, or of the team's."""
    flow = Flow(team_velocity(spec, cfg.policy_width, cfg.model), cfg.levels)

    # lines 1-4
    return behaviour_learner(
        spec,
        cfg,
        flow.net,
        imitation_rate(cfg),
        cfg.policy_batch,
        flow_loss,
        flow_player(spec, flow),
        centralised=cfg.model == "joint",
    )


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings, tasks or data that Flow BC cannot train on."""
    decentralised.check(spec, cfg, data, {"model": MODELS})


pipeline = one_stage("flow-bc", policy, FIELDS, clone.drawn_health)
FLOW_BC = System(Config, check, as_is, pipeline)
