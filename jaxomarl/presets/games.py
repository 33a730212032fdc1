"""Settings for the games: OMSD's two weights of its regulariser, at sizes that train in seconds."""

from jaxomarl.presets.preset import Preset

FAMILY = ("omsd", "brpo-ind", "brpo-ctde", "brpo-jal", "joint-score")
"""OMSD and its ablations."""
IMITATING = ("diffusion-bc", "flow-bc")
"""Systems of flows and diffusions that imitate alone, by a velocity or noise."""

SMALL = {
    "critic_width": 32, "critic_batch": 64, "critic_lr": 3e-3, "critic_steps": 2000,
    "score_width": 32, "score_blocks": 1, "score_embedding": 32, "score_dropout": 0.0,
    "score_batch": 64, "score_lr": 3e-3, "score_steps": 2000,
    "policy_width": 32, "policy_batch": 64, "policy_lr": 0.01, "policy_steps": 2000,
    "start": "uniform:0.9", "chunk": 250, "every": 1,
}  # fmt: skip

ONE_STEP = {
    "policy_width": 32, "policy_batch": 64, "policy_lr": 3e-3, "policy_steps": 2000,
    "chunk": 250, "every": 4,
}  # fmt: skip
LONGER = {"policy_steps": 16_000, "every": 16}
"""A mean velocity learns from its own derivative, and takes more updates (docs/one-step.md)."""
ONE_STEP_CRITICS = {**ONE_STEP, "critic_width": 32, "critic_lr": 3e-3}
TAUGHT = {
    **ONE_STEP_CRITICS, "flow_width": 32, "flow_batch": 64, "flow_lr": 3e-3, "flow_steps": 2000,
}  # fmt: skip
OWN = {
    **{name: Preset("one-step", (name,), ("games/*",), ONE_STEP) for name in IMITATING},
    **{name: Preset("one-step", (name,), ("games/*",), TAUGHT) for name in ("fql", "mac-flow")},
    "mean-flow": Preset("one-step", ("mean-flow",), ("games/*",), {**ONE_STEP, **LONGER}),
    "om2p": Preset("one-step", ("om2p",), ("games/*",), {**ONE_STEP_CRITICS, **LONGER}),
}

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
    Preset(
        "one-step",
        tuple(OWN),
        ("games/*",),
        {},
        data={"games/bandit": "std0.1"},
        own=OWN,
        about="ours: flows and their one-step policies at sizes that train in seconds",
    ),
)
