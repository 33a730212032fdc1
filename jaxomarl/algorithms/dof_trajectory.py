"""DoF-Trajectory: one factorised diffusion of plans, of which each agent follows its own.

**Paper**. "DoF: A Diffusion Factorization Framework for Offline Multi-Agent Decision Making",
Algorithms 1 and 3, its trajectory agent (appendix C.3).

**Pseudo-code**. Plans x_i are agent i's observations over C rows of history, the present and H rows
ahead:

    1   each row: y_i = discounted return of agent i from that row on, as a share  (data/returns.py)
    2   for each gradient step on a batch of windows: stage "planner" (stages/planner.py, `update`)
    3       x = alpha_k x^0 + sigma_k z ahead, and the known rows as they are; y_i is dropped with
            probability 0.25                          (stages/planner.py, `plan_randomness`)
    4       theta: step down 1/2 mean |f(eps_1(x_1, k, y_1), ..) - z|^2 + mean |h(sg x0) - x^0|^2,
            x0 from the chain's last step; f and h of `model`
                                                      (stages/planner.py, `planning_loss`)
    5       phi: step down 1/2 mean |u_i - D(o_i, o_i')|^2; discrete: cross-entropy over the
            available actions                         (stages/planner.py, `update`)
    6   act: agent i samples x_i with eps = eps_0 + w (eps_y - eps_0) and h, its known rows written
        over it before every step; then it plays D(o_i, x_i's next row) (policies/plans.py, `actor`)

**Differs**.

- In the released code, the pass without the condition keeps the condition three times in four, so
  guidance has no effect. Here the embedding of the condition is zero throughout that pass.
- In the released code, all agents share one network whatever the settings say. Here `networks`
  chooses, and a shared network is conditioned on the agent.
- The released code divides the weights of wconcat by their sum. Here they are k_i, 1 at the start,
  and the chain has the same f as the loss.
- Algorithm 3 samples a level for each agent. f mixes agents, so here all agents share one level.
- Algorithm 3 drops y after predicting; here it is dropped before.
- The low temperature scales the start of the chain alone, as in the released code.
- The released "consistency" sampler runs on a network that was not trained for it. Here one is
  distilled from the planner (stages/plan_student.py).
- Weights are averaged at every update (0.005), not at every tenth from the 2000th on.
- Rows past the end of an episode repeat the last one and are not in the loss.
- The paper prints no loss for h; ours is in stages/planner.py.
- The target return is one number for all steps, as in the released code, and few rows reach it late
  in an episode. `target_kind` subtracts the received rewards, or takes a quantile of the data's
  returns (data/return_targets.py).
- Two variants of the paper: `attention` is DoF+MADiff, in whose networks agents attend to each
  other. `code_width` is DoF+VAE, a diffusion of codes, on which D acts (stage "codes",
  stages/plan_codes.py).

**Checked**. tests/diffusion/test_factorise.py (f and h), tests/probes/test_planners.py (known rows
stay; the pass without a condition; the queue of history; what is refused; a plan for a high
return), tests/probes/test_planner_targets.py (target returns, and which rewards an agent sees),
tests/contract.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxomarl.base import Dataset, Environment, Spec, Stage, System, refuse
from jaxomarl.config import config, static
from jaxomarl.diffusion.factorise import DATA, NOISE, check_execution, composed, factorisation
from jaxomarl.networks.agents import PLANS, separate, shared_plans
from jaxomarl.networks.inverse_dynamics import inverse
from jaxomarl.networks.mlp import Network
from jaxomarl.optim import Params
from jaxomarl.policies.plans import Planner, Predict
from jaxomarl.stages import plan_codes, planner
from jaxomarl.stages.plan_student import plan_stages
from jaxomarl.stages.planner import unet

CHOICES = {
    "noise_mixer": NOISE,
    "data_mixer": DATA,
    "networks": ("shared", "separate"),
    "execution": ("decentralised", "central"),
}


@config
class Config(plan_codes.Config):
    """DoF-Trajectory's settings."""

    noise_mixer: str = static(default="wconcat")
    """f, which mixes the agents' noise. Agents can act alone unless it is atten or qmix."""
    data_mixer: str = static(default="wconcat")
    """h, which mixes the agents' samples; concat leaves them unmixed. Agents can act alone unless
    it is atten or qmix."""
    networks: str = static(default="shared")
    """Networks. shared: one that is given the agent's number. separate: one per agent."""
    attention: bool = static(default=False)
    """Whether agents attend to one another inside a shared network (DoF+MADiff); then none can plan
    alone."""
    execution: str = static(default="decentralised")
    """How agents plan. decentralised: refuse what needs other agents. central: accept it."""


# --- the planner ---


def plan_network(spec: Spec, cfg: Config, width: int) -> Network:
    """Build the noise prediction of all agents' plans, before f mixes them."""
    n = spec.agents
    if cfg.networks == "separate":
        return separate(unet(cfg, width), n, PLANS, out=-3)

    def network(width):
        return unet(cfg, width, n if cfg.attention else 0)

    return shared_plans(network, width, n)


def dof_planner(spec: Spec, cfg: Config) -> Planner:
    """Build the factorised planner."""
    codes = plan_codes.codes(spec, cfg)
    rows = cfg.history + 1 + cfg.horizon
    width = codes.width if codes else spec.obs_width
    columns = rows * width
    if codes:
        mask = jnp.ones((spec.agents, columns))
    else:
        mask = jnp.tile(jnp.asarray(spec.obs_mask), (1, rows))

    init_parts, predict = plan_network(spec, cfg, width)
    f = factorisation(cfg.noise_mixer, spec.agents, columns, columns + 3)
    h = factorisation(cfg.data_mixer, spec.agents, columns, 2)

    def init(key):
        k_parts, k_noise, k_data = jax.random.split(key, 3)
        return {"parts": init_parts(k_parts), "noise": f.init(k_noise), "data": h.init(k_data)}

    # f and h work on flat plans [..., N, rows * width], the networks on plans [..., N, rows, width]
    def flat(x):
        return x.reshape(*x.shape[:-2], columns)

    def unflat(x):
        return x.reshape(*x.shape[:-1], rows, width)

    def parts(params, x, t, condition):
        return flat(predict(params, unflat(x), t, condition))

    # f of line 4
    def noise(executed: bool) -> Predict:
        team = composed(parts, f, mask, executed)
        return lambda params, x, t, condition: unflat(team(params, flat(x), t, condition))

    # h of line 4
    def mixed(params: Params, x: Array, t: Array, condition: Array) -> Array:
        return unflat(h.train(params["data"], flat(x), condition))

    # D of line 5
    inverse_dynamics = inverse(spec, cfg.networks, cfg.inverse_width, width)
    decentralised = f.decentralised and h.decentralised and not cfg.attention
    return Planner(
        init,
        trained=noise(executed=False),
        executed=noise(executed=True),
        mix=None if cfg.data_mixer == "concat" else mixed,
        inverse=inverse_dynamics,
        centralised=not decentralised,
        codes=codes,
    )


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings or data that DoF-Trajectory cannot plan with."""
    planner.check(spec, cfg, data, CHOICES)
    if cfg.attention and cfg.networks != "shared":
        way = "Agents attend to one another within one network: take --cfg.networks shared."
        raise refuse("--cfg.networks", "shared with --cfg.attention", cfg.networks, way)
    if cfg.attention and cfg.execution != "central":
        expected = "no attention over agents in a decentralised planner"
        way = "It needs the other agents' plans at every step: take --cfg.execution central."
        raise refuse("--cfg.attention", expected, cfg.attention, way)
    check_execution(cfg.execution, cfg.noise_mixer, cfg.data_mixer)


def pipeline(spec: Spec, cfg: Config, env: Environment | None = None) -> tuple[Stage, ...]:
    """The planner; before it an autoencoder and after it a consistency model, where asked for."""
    plans = plan_stages("dof-t", spec, cfg, dof_planner(spec, cfg))
    if not cfg.code_width:
        return plans
    learner = plan_codes.coder(spec, cfg)
    health = plan_codes.coder_health(spec, cfg)
    code_stage = Stage.from_config(cfg, "codes", learner, cfg.code_steps, None, "dof-t", health)
    return (code_stage, *plans)


DOF_T = System(Config, check, planner.prepare, pipeline)
