"""Settings for tasks of discrete actions: matrix games, and SMAX at sizes for a laptop."""

from jaxomarl.presets.games import SMALL as GAME
from jaxomarl.presets.preset import Preset

FAMILY = ("omsd", "brpo-ind", "brpo-ctde", "joint-score")
"""OMSD and its ablations that take discrete actions."""
CLONES = ("bc", "iql", "iql-ind", "icq", "omiga", "omac")
"""Systems that copy the data's better actions."""
DECOMPOSED = ("cql", "cfcql", "qmix", "macql", "mabcq")
"""Systems that choose by a value."""

SIZES = {
    "critic_width": 128, "critic_batch": 256, "critic_lr": 3e-4, "critic_steps": 20_000,
    "score_width": 128, "score_batch": 256, "score_lr": 3e-4, "score_steps": 20_000,
    "policy_width": 128, "policy_batch": 256, "policy_lr": 3e-4, "policy_steps": 20_000,
    "clone_steps": 20_000, "clip": 10.0, "gamma": 0.99, "chunk": 500, "every": 8,
    "normalise": True,
}  # fmt: skip

MATRICES = ("games/xor", "games/penalty", "games/climbing", "games/additive", "games/bridge")
"""The games whose actions are always discrete."""

CHOICES = (
    Preset(
        "choices",
        (*FAMILY, *CLONES, *DECOMPOSED),
        MATRICES,
        {**GAME, "clone_steps": 2000, "beta": 1.0},
        about="matrix games of discrete actions: the sizes of the other games, beta 1 on the "
        "payoff",
    ),
    Preset(
        "alberdice-choices",
        ("alberdice",),
        (*MATRICES, "games/consensus*"),
        {
            **GAME,
            "clone_steps": 2000,
            "alpha": 0.05,
            "alpha_first": 5.0,
            "penalty": 0.1,
            "policy_lr": 3e-3,
            "policy_steps": 12_000,
        },
        about="alpha falls from 5 as in AlberDICE's code, to 0.05 in place of 0.001; with a "
        "conservative term, without which it does not cross the bridge",
    ),
    Preset(
        "alberdice-smax",
        ("alberdice",),
        ("smax/*",),
        {**SIZES, "alpha": 0.1},
        about="SMAX's sizes here; alpha is its code's for larger tasks, 1, for SMAX's scale of "
        "rewards",
    ),
    Preset(
        "online-choices",
        ("ppo",),
        (*MATRICES, "smax/*"),
        {},
        about="MAPPO's own defaults: 64 environments, 64 steps a collection, 2 million steps",
    ),
    Preset(
        "smax",
        (*FAMILY, *CLONES, *DECOMPOSED),
        ("smax/*",),
        {
            **SIZES,
            # in deviations of each agent's values, and in units of SMAX's rewards
            "beta": 1.0,
            "normalise_gradient": True,
            "alpha": 1.0,
        },
        about="SMAX: networks 128 wide, 20,000 updates of batches of 256, beta 1 on standardised "
        "values, OMIGA's alpha for SMAX's scale of rewards",
    ),
)
