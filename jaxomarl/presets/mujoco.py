"""Settings for multi-agent MuJoCo: OMSD's appendix D, DOM2's appendix A, OMAR's code, and ours."""

from jaxomarl.presets.games import FAMILY
from jaxomarl.presets.particle import PLANNERS, PRINTED, equal_steps, threshold_list
from jaxomarl.presets.preset import Preset

# --- tables of the papers and codes, all on half-cheetah ---

TASK = "mamujoco/2halfcheetah"

# OMSD. Quality: T and tau of its Table 7, beta (in the code's convention) of its Table 11
OMSD = {
    "expert": (3.0, 0.7, 0.001),
    "medium": (3.0, 0.7, 0.005),
    "medium-replay": (3.0, 0.7, 0.05),
    "random": (5.0, 0.5, 0.05),
}

# DOM2. Quality: eta and thresholds of its Table 6, and the rate of the noise network
DOM2 = {
    "random": (0.5, "", 1e-3),
    "random-medium": (0.5, equal_steps(1800, 2000, 50), 2.5e-4),
    "medium-replay": (1.0, threshold_list(100, 300, 500, 1000, 1500), 1e-4),
    "medium": (2.5, equal_steps(1800, 2000, 50), 2.5e-4),
    "medium-expert": (2.5, threshold_list(1631.6, 1692.5, 1735.5, 1735.5), 2.5e-4),
    "expert": (0.05, equal_steps(3800, 4000, 50), 5e-4),
}

# OMAR's code. Quality: c and the weight of CQL's term
OMAR = {
    "random": (1.0, 1.0),
    "medium-replay": (0.9, 5.0),
    "medium": (0.7, 1.0),
    "expert": (0.5, 5.0),
}
PENALTY = {quality: penalty for quality, (_, penalty) in OMAR.items()}
PENALTY |= {"random-medium": 1.0, "medium-expert": 1.0}  # as the nearest data that OMAR has

# CFCQL's code. Quality: weight of its term
CFCQL = {"random": 0.1, "medium-replay": 0.4, "medium": 1.0, "expert": 1.7}

# --- settings that several presets share ---

COMMON = {"polyak": 0.005, "policy_batch": 256, "policy_steps": 100_000, "chunk": 1000}
OMARS = {**COMMON, "gamma": 0.95}
"""OMAR's code trains with gamma 0.95: its 0.99 for these tasks is in a config that is not read."""
ROBOTS = {
    "time_limit": "bootstrap", "gamma": 0.99, "temperature": 3.0, "expectile": 0.7, "beta": 0.005,
    "critic_steps": 2_000_000, "critic_batch": 512, "critic_width": 256,
    "score_steps": 2_000_000, "score_batch": 512, "score_width": 512,
    "policy_steps": 100_000, "policy_batch": 512, "policy_width": 256,
}  # fmt: skip

# --- cases: what differs by data ---

OMSD_CASES = {
    (TASK, quality): {"temperature": temperature, "expectile": tau, "beta": beta}
    for quality, (temperature, tau, beta) in OMSD.items()
}
DOM2_CASES = {
    (TASK, quality): {
        "eta": eta,
        "thresholds": thresholds,
        "policy_lr": rate,
        "penalty": PENALTY[quality],
    }
    for quality, (eta, thresholds, rate) in DOM2.items()
}
OMAR_CASES = {
    (TASK, quality): {"coefficient": c, "penalty": penalty}
    for quality, (c, penalty) in OMAR.items()
}
CFCQL_CASES = {(TASK, quality): {"penalty": penalty} for quality, penalty in CFCQL.items()}

# --- the presets ---

MUJOCO = (
    Preset(
        "mujoco",
        (*FAMILY, "bc", "diffusion-bc", "iql", "iql-ind"),
        ("mamujoco/*",),
        ROBOTS,
        cases=OMSD_CASES,
        about="OMSD's appendix D on half-cheetah: T, tau and critic_steps (200 x 10,000) of its "
        "Table 7, beta and policy_steps of Table 11 (D.3 says 1e6); other robots take its values "
        "for medium data, as it prints none",
    ),
    Preset(
        "paper-mujoco",
        FAMILY,
        ("mamujoco/*",),
        {**ROBOTS, **PRINTED},
        cases=OMSD_CASES,
        about="OMSD as printed: scores conditioned on the state, all weight at t = 0.02, z "
        "subtracted; the rest is mujoco's, beta too, though it was chosen under the code's weights",
    ),
    Preset(
        "dom2-halfcheetah",
        ("dom2",),
        (TASK,),
        {
            **OMARS, "levels": 10, "critic_lr": 3e-4,
            "policy_width": 512, "critic_width": 256, "dropout": 0.1,
        },
        cases=DOM2_CASES,
        about="DOM2's Table 6: eta, thresholds and rate by data; what it does not print is OMAR's, "
        "such as gamma 0.95",
    ),
    Preset(
        "omar-halfcheetah",
        ("omar", "cql", "td3-bc"),
        (TASK,),
        {
            **OMARS, "policy_lr": 3e-4, "critic_lr": 3e-4,
            "policy_width": 256, "critic_width": 256, "clip": 0.5, "alpha": 2.5,
            "penalty_from": "policy", "samples": 10, "penalty_std": 0.2,
            "search": "elites", "iterations": 2, "candidates": 20, "elites": 5,
        },
        cases=OMAR_CASES,
        about="OMAR's code: c and the weight of CQL's term by data, gamma 0.95, as its 0.99 is "
        "never passed on; TD3+BC with the same sizes",
    ),
    Preset(
        "cfcql-halfcheetah",
        ("cfcql",),
        (TASK,),
        {
            **OMARS, "policy_lr": 3e-4, "critic_lr": 3e-4,
            "policy_width": 256, "critic_width": 256, "clip": 0.5,
            "penalty_from": "policy", "penalty_std": 0.2, "policy_delay": 5, "target_noise": 0.05,
        },
        cases=CFCQL_CASES,
        about="CFCQL's code: the weight of its term by data; networks, rates and gamma (0.95) as "
        "OMAR's",
    ),
    Preset(
        "diffusion-halfcheetah",
        ("diffusion-ql", "edp", "sfbc"),
        (TASK,),
        {
            **COMMON, "gamma": 0.99, "policy_lr": 3e-4, "critic_lr": 3e-4,
            "policy_width": 256, "critic_width": 256, "critic_batch": 256, "critic_steps": 99_000,
        },
        about="the single-agent papers' networks and rates; the multi-agent papers print no "
        "settings of their own",
    ),
    Preset(
        "omiga-mujoco",
        ("omiga",),
        ("mamujoco/*",),
        {
            "gamma": 0.99, "alpha": 10.0, "polyak": 0.005, "clip": 1.0,
            "policy_lr": 5e-4, "critic_lr": 5e-4,
            "policy_width": 256, "critic_width": 256, "mixer_width": 64,
            "policy_batch": 128, "critic_batch": 128,
            "policy_steps": 1_000_000, "critic_steps": 1_000_000, "chunk": 1000,
        },
        about="OMIGA's code",
    ),
    Preset(
        "icq-mujoco",
        ("icq",),
        ("mamujoco/*",),
        {
            "gamma": 0.99, "polyak": 0.005, "policy_lr": 3e-4, "critic_lr": 3e-4,
            "policy_width": 256, "critic_width": 256, "policy_batch": 128, "critic_batch": 128,
            "policy_steps": 1_000_000, "critic_steps": 1_000_000, "chunk": 1000,
        },
        about="ICQ's single-agent code, but for the temperatures, which are ours",
    ),
    Preset(
        "brac-mujoco",
        ("brac",),
        ("mamujoco/*",),
        {
            "gamma": 0.99, "alpha": 0.1, "polyak": 0.005,
            "policy_lr": 3e-4, "critic_lr": 1e-3, "clone_lr": 5e-4,
            "policy_width": 200, "critic_width": 300, "policy_batch": 256, "clone_batch": 256,
            "policy_steps": 500_000, "clone_steps": 300_000, "chunk": 1000,
        },
        about="BRAC's single-agent code",
    ),
    Preset(
        "dof-halfcheetah",
        ("dof-p", "ind-diffusion"),
        (TASK,),
        {
            **COMMON, "gamma": 0.99, "levels": 10, "eta": 0.5,
            "policy_lr": 1e-3, "critic_lr": 3e-4, "policy_width": 256, "critic_width": 256,
            "policy_batch": 1024, "policy_steps": 200_000,
        },
        about="DoF-Policy's Table 8 (the largest of its three rates); its code's batch and gamma "
        "(0.99); f and h by its default, wconcat",
    ),
    Preset(
        "planner-mujoco",
        ("dof-t", "madiff-d", "madiff-c", "decision-diffuser"),
        ("mamujoco/*",),
        {**PLANNERS, "horizon": 10, "history": 18, "policy_steps": 500_000},
        about="MADiff's code: horizon 10, history 18; its scales belong to other data, so the "
        "data's range is taken",
    ),
    Preset(
        "coda-mujoco",
        ("maddpg-bc",),
        ("mamujoco/*",),
        {
            "gamma": 0.99, "alpha": 2.5, "polyak": 0.005,
            "policy_lr": 3e-4, "critic_lr": 3e-4, "policy_width": 64, "critic_width": 128,
            "policy_batch": 32, "horizon": 20, "policy_steps": 500_000,
            "chunk": 1000, "every": 5,
            "generator_width": 16, "generator_lr": 1e-3,
            "augment_levels": 128, "augment_lambda": 0.6, "augment_windows": 1000,
        },
        about="CODA's Tables 3 and 5, but for the generator's batch; what they do not print is "
        "OG-MARL's",
    ),
    Preset(
        "online-mujoco",
        ("matd3",),
        ("mamujoco/*",),
        {
            "critic": "joint", "reward": "team", "gamma": 0.99, "width": 64, "polyak": 0.005,
            "noise": 0.15, "envs": 64, "chunk": 200, "every": 20, "capacity": 400_000,
            "warmup": 10_000, "policy_steps": 60_000,
        },
        about="what the package's MuJoCo behaviours were trained with",
    ),
)  # fmt: skip
