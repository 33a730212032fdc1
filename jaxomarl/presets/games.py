"""Settings for the games: OMSD's two weights of its regulariser, at sizes that train in seconds."""

from jaxomarl.presets.preset import Preset

FAMILY = ("omsd", "brpo-ind", "brpo-ctde", "brpo-jal", "joint-score")
"""OMSD and its ablations."""

SMALL = {
    "critic_width": 32, "critic_batch": 64, "critic_lr": 3e-3, "critic_steps": 2000,
    "score_width": 32, "score_blocks": 1, "score_embedding": 32, "score_dropout": 0.0,
    "score_batch": 64, "score_lr": 3e-3, "score_steps": 2000,
    "policy_width": 32, "policy_batch": 64, "policy_lr": 0.01, "policy_steps": 2000,
    "start": "uniform:0.9", "chunk": 250, "every": 1,
}  # fmt: skip

GAMES = (
    Preset(
        "mode-seeking",
        (*FAMILY, "bc", "iql"),
        ("games/*",),
        {**SMALL, "weighting": "score", "t_min": 0.02, "t_max": 0.02, "beta": 1.29},
        data={"games/bandit": "std0.3"},
        about="w = alpha/sigma at t = 0.02, beta 1.29: with this weight the regulariser rests on "
        "modes",
    ),
    Preset(
        "paper-code",
        FAMILY,
        ("games/*",),
        {**SMALL, "weighting": "vds", "t_min": 0.02, "t_max": 0.98, "beta": 0.1},
        data={"games/bandit": "std0.1"},
        about="w = sigma^2, t ~ U(0.02, 0.98), beta 0.1: the authors' released defaults, on their "
        "data",
    ),
)
