"""Diffusion BC: each agent imitates its actions in the data by a diffusion model, mode by mode.

**Paper**. Pearce et al. 2023, "Imitating Human Behaviour with Diffusion Models", run by every agent
alone.

**Pseudo-code**. For every agent i, on its own observation and action:

    1   for each gradient step on a batch of transitions:     stage "policy" (stages/clone.py)
    2       eps: step down mean |eps(alpha_t a + sigma_t z, t, o) - z|^2, t ~ U(1e-3, 1)
                                                              (stages/clone.py)
    3   act: one sample of a deterministic chain of K steps, DPM-Solver's of the first order
                                                              (policies/diffusion.py, `sample`)

**Differs**.

- `bc` regresses an action, so it plays the mean of behaviours that disagree. This system samples
  one of their actions, which is what "imitation" should mean on data of several policies.
- Agents sample independently, so they may follow different behaviours at the same time.
- We leave out the paper's extra denoising steps and its selection of likely samples.
- The learning rate falls to zero by a cosine, as that of `bc` does.
- The system equals line 1 of SfBC, and Diffusion-QL with eta = 0.

**Checked**. tests/probes/test_diffusion_bc.py (modes in their shares, where `bc` plays the middle),
tests/contract.
"""

from jaxomarl.base import Algorithm, Dataset, Spec, System, one_stage
from jaxomarl.config import config, static, traced
from jaxomarl.data.dataset import as_is
from jaxomarl.diffusion.samplers import dpm_solver
from jaxomarl.diffusion.schedules import vp
from jaxomarl.optim import annealed
from jaxomarl.policies.diffusion import Diffuser, noise_network
from jaxomarl.stages import clone, decentralised

FIELDS = (*clone.FIELDS, "policy_anneal", "levels")


@config
class Config(clone.Config):
    """Diffusion BC's settings; sizes and rates are those of `bc`."""

    normalise: bool = static(default=True)
    """Whether the networks' observations are normalised to mean 0 and standard deviation 1."""
    clip: float = traced(default=10.0, within="(0, inf)")
    """Largest norm of a gradient of one agent's network."""
    levels: int = static(default=15)
    """K: steps of the sampler."""


def policy(spec: Spec, cfg: Config) -> Algorithm:
    """Build the learner: each agent's diffusion model of its own actions."""
    diffuser = Diffuser(noise_network(spec, cfg.policy_width), vp(), dpm_solver, cfg.levels)

    learning_rate = cfg.policy_lr
    if cfg.policy_anneal:
        learning_rate = annealed(cfg.policy_lr, cfg.policy_steps)
    return clone.diffusion_cloning_learner(spec, cfg, diffuser, lr=learning_rate)


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings, tasks or data that Diffusion BC cannot train on."""
    decentralised.check(spec, cfg, data, {})


pipeline = one_stage("diffusion-bc", policy, FIELDS, clone.drawn_health)
DIFFUSION_BC = System(Config, check, as_is, pipeline)
