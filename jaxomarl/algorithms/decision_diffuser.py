"""Decision Diffuser: the team is one agent, with all observations as one and all plans as one.

**Paper**. Ajay et al. 2023, "Is Conditional Generative Modeling all you need for Decision-Making?",
Algorithm 1.

**Pseudo-code**. As `dof-t` for one agent with o = (o_1, .., o_n), a = (a_1, .., a_n):

    1   each row: y = discounted team return from that row on, as a share      (data/returns.py)
    2   for each gradient step on a batch of windows: stage "planner" (stages/planner.py, `update`)
    3       step down 1/2 mean |eps(alpha_k x^0 + sigma_k z, k, y) - z|^2, known rows as they are,
            y dropped at times (stages/planner.py, `planning_loss`); eps is one U-Net of all
            observations, `model`
    4       step down 1/2 mean |a - D(o, o')|^2                (stages/planner.py, `update`)
    5   act: sample a plan for a high return with eps_0 + w (eps_y - eps_0), play D(o, its next row)
                                                               (policies/plans.py, `actor`)

**Differs**.

- It is the single-agent limit of the planners, so it acts centrally. The other limit, a Decision
  Diffuser for each agent, is `dof-t` with concat for both mixers and separate networks.
- The temperature scales the chain's start alone. The paper scales the noise of every step.
- The settings are MADiff's and DoF's, to compare like with like. The paper conditions on the
  present row alone: `--cfg.history 0`.
- The target return is one number, as in the paper. `target_kind` has targets that the data reach
  (data/return_targets.py).

**Checked**. tests/probes/test_planners.py (rows of all agents reach every action), tests/contract.
"""

from jaxomarl.base import Dataset, Environment, Spec, Stage, System
from jaxomarl.config import config, static
from jaxomarl.networks.agents import joint_plans
from jaxomarl.networks.inverse_dynamics import inverse
from jaxomarl.policies.plans import Planner
from jaxomarl.stages import planner
from jaxomarl.stages.plan_student import plan_stages
from jaxomarl.stages.planner import unet

CHOICES = {"reward": ("team",)}


@config
class Config(planner.Config):
    """Decision Diffuser's settings."""

    reward: str = static(default="team")
    """Reward that is learned: the team's, as there is one agent with one return."""


def joint_planner(spec: Spec, cfg: Config) -> Planner:
    """Build the planner of the one agent that stands for all."""
    # line 3
    init, predict = joint_plans(unet(cfg, spec.agents * spec.obs_width))
    # line 4
    inverse_dynamics = inverse(spec, "joint", cfg.inverse_width)
    return Planner(init, predict, predict, inverse_dynamics, centralised=True)


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings or data that it cannot plan with."""
    planner.check(spec, cfg, data, CHOICES)


def pipeline(spec: Spec, cfg: Config, env: Environment | None = None) -> tuple[Stage, ...]:
    """The planner; then, where `sampler` asks for one, a consistency model of it."""
    return plan_stages("decision-diffuser", spec, cfg, joint_planner(spec, cfg))


DECISION_DIFFUSER = System(Config, check, planner.prepare, pipeline)
