"""Settings for the particle tasks: the tables of OMSD's appendix D, and what trained the package's behaviours."""

from jaxomarl.presets.games import FAMILY
from jaxomarl.presets.preset import Preset

TABLE = {  # (task, quality): T and tau of its Table 7, beta (the code's convention) of its Table 10
    ("mpe/spread", "expert"): (3.0, 0.5, 0.001),
    ("mpe/spread", "medium"): (0.5, 0.7, 0.005),
    ("mpe/spread", "random"): (0.5, 0.5, 0.05),
    ("mpe/tag", "expert"): (7.0, 0.7, 0.005),
    ("mpe/tag", "medium"): (1.0, 0.5, 0.05),
    ("mpe/tag", "random"): (5.0, 0.7, 0.5),
    ("mpe/world", "expert"): (3.0, 0.5, 0.01),
    ("mpe/world", "medium"): (1.0, 0.9, 0.05),
    ("mpe/world", "random"): (7.0, 0.7, 0.5),
}

PARTICLE = (
    Preset(
        "particle",
        (*FAMILY, "bc", "iql"),
        ("mpe/*",),
        {
            "time_limit": "terminal", "gamma": 0.99,
            "critic_steps": 500_000, "critic_batch": 512, "critic_width": 256,
            "score_steps": 2_000_000, "score_batch": 512, "score_width": 512,
            "policy_steps": 100_000, "policy_batch": 512, "policy_width": 256,
        },
        cases={at: dict(temperature=t, expectile=tau, beta=beta) for at, (t, tau, beta) in TABLE.items()},
        about="OMSD's appendix D: T, tau and beta by task and data, a time limit ends an episode",
    ),
    Preset(
        "online",
        ("matd3",),
        ("mpe/*",),
        {"width": 64, "envs": 64, "chunk": 25, "every": 80, "noise": 0.2, "lr": 2e-3, "policy_steps": 40_000},
        about="what the package's particle behaviours were trained with",
    ),
)  # fmt: skip
