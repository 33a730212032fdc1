"""QMIX offline: monotonic value decomposition without any conservatism.

**Paper**. Rashid et al. 2018, "QMIX: Monotonic Value Function Factorisation for Deep Multi-Agent
Reinforcement Learning"; the naive baseline of DoF's Table 12.

**Pseudo-code**. For discrete actions, with utilities Q_i(o_i, .) and a monotonic mixer:

    1   for each gradient step on a batch of transitions:     stage "policy"
                                                                          (stages/decomposition.py)
    2       a'_i = argmax of Q_i(o'_i, .) over the legal actions          (stages/decomposition.py)
    3       y = r + gamma (1 - d) mix_bar(s', Qbar_i(o'_i, a'_i))         (stages/decomposition.py)
    4       step down 1/2 mean (mix(s, Q_i(o_i, a_i)) - y)^2              (stages/decomposition.py)
    5       targets follow with polyak                                    (stages/decomposition.py)

**Differs**.

- It learns from a data set, of whose missing actions it knows nothing. So it overestimates them.
- Utilities see the current observation alone. The paper's are recurrent.
- Targets follow with Polyak averages. The paper copies them every 200 episodes.
- `mixer="vdn"` is the sum of Sunehag et al. 2018.

**Checked**. tests/probes/test_decomposition.py (the best additive fit of climbing, games that no
monotonic mixer represents, targets over legal actions), tests/contract/test_discrete.py.
"""

from jaxomarl.base import Algorithm, Dataset, Health, Spec, System, one_stage
from jaxomarl.config import config
from jaxomarl.data.dataset import as_is
from jaxomarl.optim import clipped_adam
from jaxomarl.stages import decomposition


@config
class Config(decomposition.Config):
    """QMIX's settings."""


def networks(spec: Spec, cfg: Config) -> decomposition.TeamNets:
    """Build the utilities and the mixer."""
    return decomposition.team_networks(
        spec, cfg.policy_width, cfg.mixer, cfg.mixer_width, cfg.share
    )


def policy(spec: Spec, cfg: Config) -> Algorithm:
    """Build the learner."""
    optimiser = clipped_adam(cfg.policy_lr, cfg.clip)
    return decomposition.decomposition_learner(spec, cfg, networks(spec, cfg), optimiser)


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings, tasks or data that QMIX cannot train on."""
    decomposition.check(spec, cfg, data, decomposition.CHOICES, "Take maddpg-bc.")


def health(spec: Spec, cfg: Config, algorithm: Algorithm) -> Health:
    """The team's value on held-out returns; its policies may leave the data."""
    return decomposition.decomposition_health(spec, cfg, networks(spec, cfg), algorithm)


pipeline = one_stage("qmix", policy, health=health)
QMIX = System(Config, check, as_is, pipeline)
