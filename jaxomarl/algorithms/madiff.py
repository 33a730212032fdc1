"""MADiff: one diffusion of the team's plans, whose agents attend to one another in the network.

**Paper**. Zhu et al. 2024, "MADiff: Offline Multi-agent Learning with Diffusion Models",
Algorithms 1 and 2.

**Pseudo-code**. Plans as in `dof-t`, one shared U-Net for all of them:

    1   after its middle, and on every skip, h_i <- h_i + g sum_j attention_ij v_j over agents;
        g is 0 at the start                   (networks/temporal.py, `AgentAttention`)
    2   for each gradient step on a batch of windows:
                                              stage "planner" (stages/planner.py, `update`)
    3       x = alpha_k x^0 + sigma_k z, and known rows as they are:
                madiff-c: every agent's history and present
                madiff-d: those of one agent, drawn for each window; its team-mates' histories are
                          zeros                      (stages/planner.py, `plan_randomness`)
    4       theta: step down 1/2 mean |eps(x, k, y) - z|^2 over rows that are not known
                                                     (stages/planner.py, `planning_loss`)
    5       phi: step down 1/2 mean |a_i - D(o_i, o_i')|^2, or the cross-entropy over available
                actions where they are discrete      (stages/planner.py, `update`)
    6   act: madiff-c samples one joint plan. madiff-d lets each agent sample a joint plan from its
        own rows, with zeros for its team-mates' histories, and keep its own part. Then agent i
        plays D(o_i, its next row)                   (policies/plans.py, `ahead` and `actor`)

**Differs**.

- Extra channels tell the network which agent's plan it sees.
- Attention acts on each row of the sequence, and its queries, keys and values depend on the time.
  The paper's figure does not say. Its code has one weight for a pair of agents over all rows, which
  depends on the return too.
- Without attention (g = 0) the planners are independent, bit for bit.
- All agents have the same target return, one number for every step, as in the code. The code's
  settings let its remaining return run out; `target_kind` has that, and a quantile of the data's
  returns (data/return_targets.py).
- Rows before an episode repeat its first one, as in the code's settings for robots. The code's
  default is zeros.
- The pass without a condition has none (see `dof-t`), and weights are averaged at every update.
- Gradients are not accumulated: one batch is as large as two of the paper's.

**Checked**. tests/probes/test_planners.py (g = 0 against independent planners; each agent's plan
against its own rows; zeros as team-mates' histories), tests/probes/test_planner_targets.py (target
returns), tests/networks/test_temporal.py (attention), tests/contract (decentralised execution).
"""

from functools import partial

from jaxomarl.base import Dataset, Environment, Spec, Stage, System
from jaxomarl.config import config
from jaxomarl.networks.agents import shared_plans
from jaxomarl.networks.inverse_dynamics import inverse
from jaxomarl.policies.plans import Planner
from jaxomarl.stages import planner
from jaxomarl.stages.plan_student import plan_stages
from jaxomarl.stages.planner import unet


@config
class Config(planner.Config):
    """MADiff's settings: those of all planners."""


def madiff_planner(spec: Spec, cfg: Config, each: bool) -> Planner:
    """Build the planner; with `each`, every agent plans by itself."""
    n = spec.agents

    # eps of line 4, with the attention of line 1
    def network(width):
        return unet(cfg, width, agents=n)

    init, predict = shared_plans(network, spec.obs_width, n)
    inverse_dynamics = inverse(spec, "shared", cfg.inverse_width)
    return Planner(init, predict, predict, inverse_dynamics, centralised=not each, each=each)


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings or data that MADiff cannot plan with."""
    planner.check(spec, cfg, data, {})


def pipeline(
    name: str, each: bool, spec: Spec, cfg: Config, env: Environment | None = None
) -> tuple[Stage, ...]:
    """The planner; then, where `sampler` asks for one, a consistency model of it."""
    return plan_stages(name, spec, cfg, madiff_planner(spec, cfg, each))


MADIFF_C = System(Config, check, planner.prepare, partial(pipeline, "madiff-c", False))
MADIFF_D = System(Config, check, planner.prepare, partial(pipeline, "madiff-d", True))
