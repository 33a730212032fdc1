"""DoF-Trajectory: one diffusion of the team's plans, factorised so that each agent samples its own, then acts on it.

**Paper**. "DoF: A Diffusion Factorization Framework for Offline Multi-Agent Decision Making", Algorithms 1 and 3, its
trajectory agent (appendix C.3).

**Pseudo-code**. Plans x_i are agent i's observations over C rows of history, the present and H rows ahead:

    1   each row: y_i = discounted return of agent i from it on, as a share             (data/returns.py)
    2   for each gradient step on a batch of windows:                   stage "planner" (stages/planner.py, `update`)
    3       x = alpha_k x^0 + sigma_k z ahead, and the known rows as they are; y_i is dropped with chance 0.25
                                                                         (stages/planner.py, `times_and_noise`)
    4       theta: step down 1/2 mean |f(eps_1(x_1, k, y_1), ..) - z|^2 + mean |h(sg x0) - x^0|^2, x0 the last step's
            (stages/planner.py, `planning_loss`); f and h of `model`
    5       phi: step down 1/2 mean |u_i - D(o_i, o_i')|^2; discrete: cross-entropy over the available actions
                                                                         (stages/planner.py, `update`)
    6   act: agent i samples x_i, its own rows written over it before every step, eps = eps_0 + w (eps_y - eps_0), h;
        then plays D(o_i, x_i's next row)                                (policies/plans.py, `actor`)

**Differs**.

- In the released code the pass without the condition keeps it three times in four, so that its guidance is none; here
  the embedding is zero in all of it.
- There all agents share one network whatever is asked for; `networks` chooses, and a shared one is told whose plan it
  sees.
- Its weights of wconcat are divided by their sum; here they are k_i, 1 at the start, and the chain has the same f as
  the loss.
- Algorithm 3 draws a level for each agent; f mixes agents, so all share one. It drops y after predicting; here before.
- The low temperature scales the start alone, as the code's.
- Its "consistency" sampler runs on a network that was not trained for it; here one is distilled from the planner
  (stages/plan_student.py).
- Weights are averaged at every update (0.005), not every tenth from the 2000th on.
- Rows past an episode's end repeat the last one and are not in the loss. h's loss is ours (stages/planner.py).
- The return asked for is one number for all steps, as the code's; few rows of the data reach it late in an episode.
  `target_kind` takes the rewards received from it, or asks for a quantile of the data's (data/return_targets.py).
- Variants: `attention` is DoF+MADiff, agents attending to each other inside their networks; `code_width` is DoF+VAE, a
  diffusion of codes (stage "codes", `coder`) on which D acts too.

**Checked**. tests/diffusion/test_factorise.py (f and h), tests/probes/test_planners.py (what is known stays; the pass
without a condition; the queue of history; what is refused; a plan for a high return), tests/probes/test_targets.py
(what is asked for, and who hears of whose rewards), tests/contract.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from jaxomarl.base import (
    Algorithm,
    Batch,
    Dataset,
    Environment,
    Past,
    Spec,
    Stage,
    State,
    System,
    refuse,
)
from jaxomarl.config import config, static, traced
from jaxomarl.data.dataset import sample_transitions
from jaxomarl.data.ranges import Quantiles, fit_quantiles, ranged
from jaxomarl.diffusion.factorise import DATA, NOISE, check_execution, composed, factorisation
from jaxomarl.networks.agents import PLANS, separate, shared, shared_plans
from jaxomarl.networks.inverse_dynamics import inverse
from jaxomarl.networks.mlp import Network, mish, mlp
from jaxomarl.optim import Net, create, descend
from jaxomarl.policies.plans import Codes, Planner, Predict
from jaxomarl.stages import planner
from jaxomarl.stages.plan_student import plan_stages
from jaxomarl.stages.planner import unet

CHOICES = {
    "noise_mixer": NOISE,
    "data_mixer": DATA,
    "networks": ("shared", "separate"),
    "execution": ("decentralised", "central"),
}


@config
class Config(planner.Config):
    """DoF-Trajectory's settings."""

    noise_mixer: str = static(default="wconcat")
    """f, which mixes the agents' noise. concat, wconcat, dec-atten: agents can act alone. atten, qmix: they cannot."""
    data_mixer: str = static(default="wconcat")
    """h, which mixes the agents' samples. concat (none), wconcat: agents can act alone. atten, qmix: they cannot."""
    networks: str = static(default="shared")
    """Networks. shared: one for all, conditioned on the agent's number. separate: one per agent."""
    attention: bool = static(default=False)
    """Whether agents attend to one another inside a shared network (DoF+MADiff); then none can plan alone."""
    code_width: int = static(default=0, within="[0, inf)", scaled="width")
    """Numbers in the code of an observation, of which plans then consist (DoF+VAE); 0: plans of observations."""
    code_kl: float = traced(default=1e-3, within="[0, inf)")
    """Weight of the divergence between the autoencoder's codes and N(0, 1)."""
    code_lr: float = traced(default=1e-3, within="(0, inf)")
    """Learning rate of the autoencoder."""
    code_steps: int = static(default=20_000, scaled="steps")
    """Gradient steps of the autoencoder."""
    execution: str = static(default="decentralised")
    """What plans may need. decentralised: what needs other agents is refused. central: it is accepted."""


def model(spec: Spec, cfg: Config) -> Planner:
    """The factorised planner."""
    n, rows, coded = spec.agents, cfg.history + 1 + cfg.horizon, codes(spec, cfg)
    o = coded.width if coded else spec.obs_width
    if cfg.networks == "shared":
        init_parts, predict = shared_plans(
            lambda width: unet(cfg, width, n if cfg.attention else 0), o, n
        )
    else:
        init_parts, predict = separate(unet(cfg, o), n, PLANS, out=-3)
    plans, flat = (
        (lambda x: x.reshape(*x.shape[:-1], rows, o)),
        (lambda x: x.reshape(*x.shape[:-2], rows * o)),
    )
    parts = lambda params, x, t, told: flat(predict(params, plans(x), t, told))
    f = factorisation(cfg.noise_mixer, n, rows * o, rows * o + 3)
    h = factorisation(cfg.data_mixer, n, rows * o, 2)
    mask = jnp.ones((n, rows * o)) if coded else jnp.tile(jnp.asarray(spec.obs_mask), (1, rows))

    def noise(executed: bool) -> Predict:  # f of line 4
        team = composed(parts, f, mask, executed)
        return lambda params, x, t, told: plans(team(params, flat(x), t, told))

    def init(key):
        k_parts, k_noise, k_data = jax.random.split(key, 3)
        return {"parts": init_parts(k_parts), "noise": f.init(k_noise), "data": h.init(k_data)}

    def mixed(params: Any, x: Array, t: Array, told: Array) -> Array:  # h of line 4
        return plans(h.train(params["data"], flat(x), told))

    alone = f.decentralised and h.decentralised and not cfg.attention
    mix = None if cfg.data_mixer == "concat" else mixed
    acts = inverse(spec, cfg.networks, cfg.inverse_width, o)  # D of line 5
    return Planner(
        init, noise(False), noise(True), mix, acts, each=False, centralised=not alone, codes=coded
    )


# --- codes of observations, that plans may be made of (DoF+VAE) ---


class Coder(NamedTuple):
    """The autoencoder's parameters {"to", "from"} and the units of observations."""

    net: Net
    knots: Quantiles


def codes(spec: Spec, cfg: Config) -> Codes | None:
    """What a planner of codes needs to know; None where plans are made of observations."""
    if not cfg.code_width:
        return None
    to, width = coder_networks(spec, cfg)[0], cfg.code_width
    return Codes(
        width,
        lambda past, rows: jnp.tanh(to.apply(past["codes"].net.params["to"], rows)[..., :width]),
    )


def coder_networks(spec: Spec, cfg: Config) -> tuple[Network, Network]:
    """(E: rows [..., N, O] -> [mu, log s] [..., N, 2 L]; D: codes -> rows), perceptrons of two hidden layers."""
    hidden, n = (cfg.inverse_width, cfg.inverse_width), spec.agents
    to = shared(lambda width: mlp(width, hidden, 2 * cfg.code_width, mish), spec.obs_width, n)
    back = shared(lambda width: mlp(width, hidden, spec.obs_width, mish), cfg.code_width, n)
    return to, back


def coder(spec: Spec, cfg: Config) -> Algorithm:
    """A variational autoencoder of single rows o, one for all agents, told whose row it is.

    mu, log s = E(o),   c = tanh(mu + s z),   L = mean (D(c) - o)^2 + kl mean 1/2 (mu^2 + s^2 - 1 - 2 log s)

    An agent's code is tanh(mu), in the box that plans are held in: a function of its own observation, so that what
    could be done apart can still be. Source: Kingma and Welling 2014; the tanh is ours, for the samplers' box.
    """
    tx, see, mask = (
        optax.adam(cfg.code_lr),
        ranged(cfg.normaliser, spec),
        jnp.asarray(spec.obs_mask),
    )
    to, back = coder_networks(spec, cfg)

    def init(key: Key[Array, ""], past: Past, data: Dataset) -> Coder:
        k_to, k_back = jax.random.split(key)
        net = create(tx, {"to": to.init(k_to), "from": back.init(k_back)})
        return Coder(net, fit_quantiles(cfg.normaliser, spec, data))

    def batch(key: Key[Array, ""], state: State, data: Dataset) -> Batch:
        return sample_transitions(key, data, cfg.policy_batch)

    def update(key: Key[Array, ""], state: Coder, past: Past, batch: Batch) -> tuple[Coder, dict]:
        rows = see(state.knots, batch.obs)

        def loss(params: Any) -> tuple[Float[Array, ""], dict]:
            mu, log_s = jnp.split(to.apply(params["to"], rows), 2, axis=-1)
            code = jnp.tanh(mu + jnp.exp(log_s) * jax.random.normal(key, mu.shape))
            wrong = jnp.mean(
                jnp.sum(mask * (back.apply(params["from"], code) - rows) ** 2, axis=(1, 2))
                / mask.sum()
            )
            kl = 0.5 * jnp.mean(mu**2 + jnp.exp(2 * log_s) - 1.0 - 2.0 * log_s)
            return wrong + cfg.code_kl * kl, {"code_error": wrong, "code_kl": kl}

        grads, metrics = jax.grad(loss, has_aux=True)(state.net.params)
        return state._replace(net=descend(tx, state.net, grads)), metrics

    return Algorithm(init, batch, update)


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings or data that it cannot plan with."""
    planner.check(spec, cfg, data, CHOICES)
    if cfg.attention and cfg.networks != "shared":
        way = "Agents attend to one another within one network: take --cfg.networks shared."
        raise refuse("--cfg.networks", "shared with --cfg.attention", cfg.networks, way)
    if cfg.attention and cfg.execution != "central":
        way = "It needs the other agents' plans at every step: take --cfg.execution central."
        raise refuse(
            "--cfg.attention",
            "no attention over agents in a decentralised planner",
            cfg.attention,
            way,
        )
    check_execution(cfg.execution, cfg.noise_mixer, cfg.data_mixer)


def pipeline(spec: Spec, cfg: Config, env: Environment | None = None) -> tuple[Stage, ...]:
    """The planner; an autoencoder ahead of it, a consistency model behind it, where the settings ask for them."""
    plans = plan_stages("dof-t", spec, cfg, model(spec, cfg))
    if not cfg.code_width:
        return plans
    return (
        Stage("codes", coder(spec, cfg), cfg.code_steps, cfg.chunk, cfg.every, owner="dof-t"),
        *plans,
    )


DOF_T = System(Config, check, planner.prepare, pipeline)
