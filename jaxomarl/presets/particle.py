"""Settings for the particle tasks: OMSD's appendix D, DOM2's appendix A, OMAR's code, and ours."""

from collections.abc import Mapping

from jaxomarl.presets.games import FAMILY
from jaxomarl.presets.preset import Preset

# --- tables of the papers and codes ---

TASKS = ("mpe/spread", "mpe/tag", "mpe/world")
QUALITIES = ("random", "medium-replay", "medium", "expert")
NEAREST = {"random-medium": "random", "medium-expert": "medium"}
"""Data sets of DOM2's that OMAR's authors do not have -> the nearest one that they have."""


def threshold_list(*values: int | float) -> str:
    """DOM2's thresholds as its config spells them."""
    return ",".join(f"{v:g}" for v in values)


def equal_steps(first: int, last: int, step: int) -> str:
    """Thresholds at equal distances, the last one included."""
    count = round((last - first) / step) + 1
    return threshold_list(*(first + k * step for k in range(count)))


# OMSD. (task, quality): T and tau of its Table 6, beta (in the code's convention) of its Table 10
TABLE = {
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

# DOM2. (task, quality): eta and thresholds of its Table 6; equal thresholds count twice
SPREAD_MEDIUM_EXPERT = threshold_list(264.4, 267.3, 333.5, 336.4, 385.3, 385.3, 387.9, 387.9)
WORLD_MEDIUM = threshold_list(65.5, 86.4, 101.5, 101.5)
DOM2 = {
    ("mpe/spread", "random"): (10_000.0, ""),
    ("mpe/spread", "random-medium"): (500.0, equal_steps(200, 550, 50)),
    ("mpe/spread", "medium-replay"): (500.0, equal_steps(0, 100, 10)),
    ("mpe/spread", "medium"): (250.0, equal_steps(200, 550, 50)),
    ("mpe/spread", "medium-expert"): (250.0, SPREAD_MEDIUM_EXPERT),
    ("mpe/spread", "expert"): (50.0, equal_steps(525, 625, 25)),
    ("mpe/tag", "random"): (25.0, ""),
    ("mpe/tag", "random-medium"): (250.0, equal_steps(100, 300, 50)),
    ("mpe/tag", "medium-replay"): (5.0, equal_steps(0, 100, 10)),
    ("mpe/tag", "medium"): (2.5, equal_steps(100, 300, 50)),
    ("mpe/tag", "medium-expert"): (25.0, equal_steps(100, 400, 50)),
    ("mpe/tag", "expert"): (0.5, equal_steps(200, 400, 50)),
    ("mpe/world", "random"): (5.0, ""),
    ("mpe/world", "random-medium"): (25.0, WORLD_MEDIUM),
    ("mpe/world", "medium-replay"): (2.5, threshold_list(-3.7, 5.9, 15.6, 15.6)),
    ("mpe/world", "medium"): (0.5, WORLD_MEDIUM),
    ("mpe/world", "medium-expert"): (0.5, equal_steps(50, 175, 25)),
    ("mpe/world", "expert"): (0.5, equal_steps(75, 175, 25)),
}

# OMAR's code. (task, quality): c, the weight of CQL's term, and gradient steps
OMAR = {
    ("mpe/spread", "random"): (1.0, 0.5, 6000),
    ("mpe/spread", "medium-replay"): (1.0, 1.0, 2000),
    ("mpe/spread", "medium"): (1.0, 5.0, 2000),
    ("mpe/spread", "expert"): (1.0, 5.0, 2000),
    ("mpe/tag", "random"): (0.9, 0.5, 2000),
    ("mpe/tag", "medium-replay"): (0.9, 0.5, 1000),
    ("mpe/tag", "medium"): (0.7, 5.0, 2000),
    ("mpe/tag", "expert"): (0.9, 5.0, 2000),
    ("mpe/world", "random"): (1.0, 0.5, 1000),
    ("mpe/world", "medium-replay"): (0.7, 1.0, 1000),
    ("mpe/world", "medium"): (0.1, 0.5, 1000),
    ("mpe/world", "expert"): (0.9, 5.0, 1000),
}
PENALTY = {at: penalty for at, (_, penalty, _) in OMAR.items()}
PENALTY |= {
    (task, quality): PENALTY[task, near] for task in TASKS for quality, near in NEAREST.items()
}

# CFCQL's code. Task: weight of its term on the data of QUALITIES
CFCQL = {
    "mpe/spread": (0.5, 1.0, 5.0, 2.5),
    "mpe/tag": (0.5, 0.5, 0.6, 2.0),
    "mpe/world": (0.5, 0.5, 0.32, 0.3),
}

# MADiff's code. (task, quality): return that counts as 1
SCALES = {
    ("mpe/spread", "expert"): 700.0,
    ("mpe/spread", "medium"): 500.0,
    ("mpe/spread", "medium-replay"): 500.0,
    ("mpe/spread", "random"): 500.0,
    ("mpe/tag", "expert"): 700.0,
    ("mpe/tag", "medium"): 600.0,
    ("mpe/tag", "medium-replay"): 600.0,
    ("mpe/tag", "random"): 500.0,
    ("mpe/world", "expert"): 700.0,
    ("mpe/world", "medium"): 600.0,
    ("mpe/world", "medium-replay"): 600.0,
    ("mpe/world", "random"): 600.0,
}

# --- settings that several presets share ---

PLANNERS = {
    "horizon": 24, "history": 0, "returns": "togo", "gamma": 0.99, "guidance": 1.2, "target": 0.9,
    "drop": 0.25, "levels": 200, "sampler": "ddpm", "calls": 200, "temperature": 0.5,
    "predict": "noise", "normaliser": "cdf", "depth": 3, "reach": 2, "blocks": 2,
    "policy_width": 128, "inverse_width": 256,
    "policy_batch": 64, "policy_lr": 2e-4, "policy_steps": 100_000,
}  # fmt: skip
OMSD = {
    "time_limit": "terminal", "gamma": 0.99,
    "critic_steps": 500_000, "critic_batch": 512, "critic_width": 256,
    "score_steps": 2_000_000, "score_batch": 512, "score_width": 512,
    "policy_steps": 100_000, "policy_batch": 512, "policy_width": 256,
}  # fmt: skip
PRINTED = {
    "condition": "state",
    "weighting": "delta",
    "beta_convention": "paper",
    "control_variate": True,
}
"""OMSD's equation 6 and its surrogate as printed; the code has obs, vds, code and False."""

# --- cases: what differs by task and data ---

Cases = dict[tuple[str, str], Mapping[str, object]]


def with_experts(cases: Mapping[tuple[str, str], Mapping[str, object]]) -> Cases:
    """The cases of a preset, and each task's `expert` again for expert data that no paper has."""
    more: Cases = dict(cases)
    for (task, quality), values in cases.items():
        if quality == "expert":
            more[task, "one-expert"] = values
    more["mpe/spread", "expert-modes"] = cases["mpe/spread", "expert"]
    return more


def cfcql_cases() -> Cases:
    """CFCQL's penalty by task and data, and its faster rates on spread."""
    cases: Cases = {}
    for task, penalties in CFCQL.items():
        rates = {"policy_lr": 0.01, "critic_lr": 0.01} if task == "mpe/spread" else {}
        for quality, penalty in zip(QUALITIES, penalties, strict=True):
            cases[task, quality] = {"penalty": penalty, **rates}
    return cases


OMSD_CASES = with_experts(
    {
        at: {"temperature": temperature, "expectile": tau, "beta": beta}
        for at, (temperature, tau, beta) in TABLE.items()
    }
)
DOM2_CASES = with_experts(
    {
        at: {"eta": eta, "thresholds": thresholds, "penalty": PENALTY[at]}
        for at, (eta, thresholds) in DOM2.items()
    }
)
OMAR_CASES = with_experts(
    {
        at: {"coefficient": c, "penalty": penalty, "policy_steps": steps}
        for at, (c, penalty, steps) in OMAR.items()
    }
)
PLANNER_CASES = with_experts({at: {"return_scale": scale} for at, scale in SCALES.items()})

# --- the presets ---

PARTICLE = (
    Preset(
        "particle",
        (*FAMILY, "bc", "diffusion-bc", "iql", "iql-ind"),
        ("mpe/*",),
        OMSD,
        cases=OMSD_CASES,
        about="OMSD's appendix D: T and tau of its Table 6 and beta of its Table 10 by task and "
        "data; critic_steps of Table 6 (Table 5 has four times as many); a time limit ends an "
        "episode, as in its code",
    ),
    Preset(
        "paper",
        FAMILY,
        ("mpe/*",),
        {**OMSD, **PRINTED},
        cases=OMSD_CASES,
        about="OMSD as printed: scores conditioned on the state, all weight at t = 0.02, z "
        "subtracted; the rest is particle's, beta too, though it was chosen under the code's "
        "weights",
    ),
    Preset(
        "dom2-particle",
        ("dom2",),
        ("mpe/*",),
        {
            "levels": 5, "policy_lr": 5e-3, "critic_lr": 3e-4,
            "policy_width": 512, "critic_width": 256, "dropout": 0.1,
            "gamma": 0.95, "polyak": 0.01, "policy_batch": 1024, "policy_steps": 10_000,
        },
        cases=DOM2_CASES,
        about="DOM2's Table 6: eta and thresholds by task and data; what it does not print is "
        "OMAR's",
    ),
    Preset(
        "omar-particle",
        ("omar", "cql", "td3-bc"),
        ("mpe/*",),
        {
            "policy_lr": 0.01, "critic_lr": 0.01, "policy_width": 64, "critic_width": 64,
            "gamma": 0.95, "polyak": 0.01, "clip": 0.5, "alpha": 2.5,
            "policy_batch": 1024, "policy_steps": 2000,
            "search": "softmax", "iterations": 3, "candidates": 10,
            "samples": 10, "penalty_from": "uniform",
        },
        cases=OMAR_CASES,
        about="OMAR's code: c, the weight of CQL's term and the gradient steps by task and data; "
        "TD3+BC with the same sizes",
    ),
    Preset(
        "cfcql-particle",
        ("cfcql",),
        ("mpe/*",),
        {
            "policy_lr": 1e-3, "critic_lr": 1e-3, "policy_width": 64, "critic_width": 64,
            "gamma": 0.95, "polyak": 0.01, "clip": 0.5, "policy_batch": 1024,
            "policy_delay": 5, "target_noise": 0.05, "penalty_from": "uniform",
        },
        cases=with_experts(cfcql_cases()),
        about="CFCQL's code: the weight of its term by task and data, a faster rate on spread; "
        "steps are ours",
    ),
    Preset(
        "diffusion-particle",
        ("diffusion-ql", "edp", "sfbc"),
        ("mpe/*",),
        {
            "policy_lr": 3e-4, "critic_lr": 3e-4, "policy_width": 256, "critic_width": 256,
            "gamma": 0.95, "polyak": 0.005,
            "policy_batch": 1024, "policy_steps": 10_000,
            "critic_batch": 1024, "critic_steps": 9000,
        },
        about="the single-agent papers' networks and rates; gamma and batch are OMAR's, as the "
        "multi-agent papers print none",
    ),
    Preset(
        "gaussian-particle",
        ("icq", "brac", "omiga", "omac"),
        ("mpe/*",),
        {
            "policy_lr": 3e-4, "critic_lr": 3e-4, "policy_width": 256, "critic_width": 256,
            "gamma": 0.95, "polyak": 0.005,
            "policy_batch": 1024, "policy_steps": 10_000,
            "critic_batch": 1024, "critic_steps": 10_000,
            "clone_batch": 1024, "clone_steps": 10_000,
        },
        about="networks of the papers' codes for other tasks; gamma and batch are OMAR's, as none "
        "prints any for these",
    ),
    Preset(
        "dof-particle",
        ("dof-p", "ind-diffusion"),
        ("mpe/*",),
        {
            "noise_mixer": "concat", "data_mixer": "concat", "levels": 10, "eta": 0.5,
            "policy_lr": 1e-3, "critic_lr": 3e-4, "policy_width": 256, "critic_width": 256,
            "gamma": 0.99, "polyak": 0.005, "clip": 0.5,
            "policy_batch": 1024, "policy_steps": 200_000,
        },
        about="DoF-Policy's Table 8 (the largest of its three rates) and f = concat, as in its "
        "curves; batch and gamma (0.99) are its code's",
    ),
    Preset(
        "planner-particle",
        ("dof-t", "madiff-d", "madiff-c", "decision-diffuser"),
        ("mpe/*",),
        PLANNERS,
        cases=PLANNER_CASES,
        about="DoF-Trajectory's and MADiff's code: horizon 24 without history, the scale of "
        "returns by task and data",
    ),
    Preset(
        "madt-particle",
        ("madt",),
        ("mpe/*",),
        {
            "context": 20, "layers": 3, "heads": 4,
            "policy_width": 128, "policy_lr": 1e-4, "policy_batch": 64,
        },
        about="Decision Transformer's widths and rate; MADT prints none for these tasks",
    ),
    Preset(
        "online",
        ("matd3",),
        ("mpe/*",),
        {
            "width": 64, "envs": 64, "chunk": 25, "every": 80,
            "noise": 0.2, "lr": 2e-3, "policy_steps": 40_000,
        },
        about="what the package's particle behaviours were trained with",
    ),
    Preset(
        "oracle",
        ("omsd", "brpo-ctde", "brpo-ind", "brpo-jal", "joint-score", "bc"),
        ("mpe/*",),
        {
            "time_limit": "terminal", "gamma": 0.99, "beta": 0.0, "chunk": 1000, "every": 5,
            "critic_steps": 1000, "critic_batch": 256, "critic_width": 128,
            "score_steps": 30_000, "score_batch": 256, "score_width": 128,
            "score_lr": 1e-3, "score_dropout": 0.0,
            "policy_steps": 10_000, "policy_batch": 256, "policy_width": 128, "policy_lr": 1e-3,
        },
        cases={("mpe/spread", "medium"): {"score_steps": 40_000}},
        about="ours, of reproduce omsd-oracle: beta 0, so that scores alone count and the critic "
        "is hardly trained",
    ),
)  # fmt: skip
