"""MACQL: QMIX whose team value is conservative over drawn joint actions.

**Paper**. Kumar et al. 2020, "Conservative Q-Learning for Offline Reinforcement Learning", on
QMIX (Rashid et al. 2018), as in OG-MARL (Formanek et al. 2023) and DoF's Tables 2, 10 and 12.

**Pseudo-code**. For discrete actions, with utilities Q_i(o_i, .) and a monotonic mixer:

    1   for each gradient step on a batch of transitions:     stage "policy"
                                                                          (stages/decomposition.py)
    2       L_TD, the loss of QMIX                                        (stages/decomposition.py)
    3       a^1 .. a^K: joint actions, uniform over each agent's legal ones
    4       L_C = mean [ log (sum_k exp Q_tot(s, a^k) + exp Q_tot(s, a)) - Q_tot(s, a) ]
    5       step down L_TD + penalty L_C

**Differs**.

- OG-MARL draws line 3 with normalised masks for logits, by which it draws illegal actions too. Ours
  are legal.
- CFCQL's code of this baseline has more draws (100), and leaves the data's action out of line 4.
- OG-MARL's utilities are recurrent. Ours see the current observation alone.

**Checked**. tests/probes/test_decomposition.py (values off the data fall with the penalty; no
illegal action is drawn), tests/contract/test_discrete.py.
"""

from jaxtyping import Array, Key

from jaxomarl.base import Algorithm, Dataset, Health, Spec, System, one_stage
from jaxomarl.config import config, static, traced
from jaxomarl.data.dataset import as_is
from jaxomarl.losses.conservative_choices import joint_gap
from jaxomarl.optim import clipped_adam
from jaxomarl.stages import decomposition


@config
class Config(decomposition.Config):
    """MACQL's settings."""

    penalty: float = traced(default=3.0, within="[0, inf)")
    """Weight of the conservative term, which lowers the values of actions outside the data."""
    samples: int = static(default=20)
    """Joint actions that the conservative term draws."""


def networks(spec: Spec, cfg: Config) -> decomposition.TeamNets:
    """Build the utilities and the mixer."""
    return decomposition.team_networks(
        spec, cfg.policy_width, cfg.mixer, cfg.mixer_width, cfg.share
    )


def policy(spec: Spec, cfg: Config) -> Algorithm:
    """Build the learner."""
    nets = networks(spec, cfg)

    # lines 3-5
    def conservative(
        key: Key[Array, ""], values: decomposition.Values
    ) -> tuple[Array, dict[str, Array]]:
        def total(own: Array) -> Array:
            return nets.total(values.params, values.state, own)

        gap = joint_gap(
            key, total, values.utilities, values.chosen, values.legal, cfg.samples
        ).mean()
        return cfg.penalty * gap, {"q_gap": gap}

    optimiser = clipped_adam(cfg.policy_lr, cfg.clip)
    return decomposition.decomposition_learner(spec, cfg, nets, optimiser, conservative)


def check(spec: Spec, cfg: Config, data: Dataset | None) -> None:
    """Raise JaxomarlError for settings, tasks or data that MACQL cannot train on."""
    decomposition.check(spec, cfg, data, decomposition.CHOICES, "Take cfcql or cql.")


def health(spec: Spec, cfg: Config, algorithm: Algorithm) -> Health:
    """The team's value on held-out returns; its policies may leave the data."""
    return decomposition.decomposition_health(spec, cfg, networks(spec, cfg), algorithm)


pipeline = one_stage("macql", policy, health=health)
MACQL = System(Config, check, as_is, pipeline)
