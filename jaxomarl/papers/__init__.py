"""The papers' tables and figures that `reproduce NAME` makes again, by name."""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple


class Reproduction(NamedTuple):
    """A table or figure, and the function that makes it."""

    module: str
    """Name of the module under `jaxomarl.papers`, which is imported when it is asked for."""
    function: str
    """Name of its function, which maps what was asked to the text, as Markdown."""
    about: str
    """A sentence on what it makes, and from which paper."""
    out: str = ""
    """Folder that it is written into where none is asked for; empty: runs/NAME."""

    def load(self) -> Callable[[Any], str]:
        """Import the function."""
        module = importlib.import_module(f"jaxomarl.papers.{self.module}")
        return getattr(module, self.function)


REPRODUCTIONS: dict[str, Reproduction] = {
    "omsd-table1": Reproduction(
        "omsd.table1",
        "omsd_table1",
        "OMSD's Table 1: the bandit, with exact and with learned scores.",
    ),
    "omsd-table2": Reproduction(
        "omsd.table2",
        "omsd_table2",
        "OMSD's Table 2: OMSD, its ablations, IQL and BC on the three particle tasks.",
    ),
    "omsd-table3": Reproduction(
        "omsd.robots", "table3", "OMSD's Table 3: returns on robots next to OMIGA's baselines."
    ),
    "omsd-table4": Reproduction(
        "omsd.robots", "table4", "OMSD's Table 4: half-cheetah in two halves next to CFCQL's."
    ),
    "omsd-fig2": Reproduction(
        "omsd.figures",
        "fig2",
        "OMSD's Figure 2: the bandit's data and each system's direction.",
    ),
    "omsd-fig4a": Reproduction(
        "omsd.figures", "fig4a", "OMSD's Figure 4 (a): IQL, and policies by each decomposition."
    ),
    "omsd-fig8": Reproduction(
        "omsd.figures", "fig8", "OMSD's Figures 4 (b) and 8: its return against beta."
    ),
    "omsd-fig9": Reproduction(
        "omsd.evolution",
        "fig9",
        "OMSD's Figures 4 (c) and 9: where its policies act while they train.",
    ),
    "omsd-fig10": Reproduction(
        "omsd.figures", "fig10", "OMSD's Figure 10: training on hopper by the order of agents."
    ),
    "omsd-fig11": Reproduction(
        "omsd.figures",
        "particle_data",
        "OMSD's Figures 11 and 12: returns of particle data.",
    ),
    "omsd-fig13": Reproduction(
        "omsd.figures", "robot_data", "OMSD's Figure 13: returns of the robots' data."
    ),
    "omsd-oracle": Reproduction(
        "omsd.oracle",
        "omsd_oracle",
        "How much of OMSD's loss is learning, against exact scores; in no paper.",
    ),
    "omsd-scores": Reproduction(
        "omsd.scores",
        "omsd_scores",
        "What OMSD's score models have learned, by diffusion time, agent and prefix.",
    ),
    "dom2-table1": Reproduction(
        "dom2.tables",
        "table1",
        "DOM2's Table 1: DOM2 and its baselines on the standard particle tasks.",
    ),
    "dom2-table2": Reproduction(
        "dom2.tables", "table2", "DOM2's Table 2: the same policies with agents of random speeds."
    ),
    "dom2-table3": Reproduction(
        "dom2.tables",
        "table3",
        "DOM2's Table 3: half-cheetah, standard and with two shifts of its physics.",
    ),
    "dom2-table4": Reproduction(
        "dom2.tables", "table4", "DOM2's Table 4: every baseline on Predator-Prey."
    ),
    "dom2-table7": Reproduction(
        "dom2.six_landmarks",
        "table7",
        "DOM2's Table 7: returns of three agents among six landmarks.",
    ),
    "dom2-table8": Reproduction(
        "dom2.six_landmarks",
        "table8",
        "DOM2's Table 8: good episodes there, and their distinct joint solutions.",
    ),
    "dom2-table9": Reproduction(
        "dom2.tables", "table9", "DOM2's Table 9: DOM2 next to the printed MADiff and DoF."
    ),
    "dom2-fig5": Reproduction(
        "dom2.figures", "fig5", "DOM2's Figure 5: scores against the size and kind of the data."
    ),
    "dom2-fig7": Reproduction(
        "dom2.figures", "fig7", "DOM2's Figure 7: returns against eta and the sampler's steps."
    ),
    "dom2-fig6": Reproduction(
        "dom2.figures", "fig6", "DOM2's Figure 6: DOM2 without each of its parts."
    ),
    "dom2-fig11": Reproduction(
        "dom2.six_landmarks",
        "fig11",
        "DOM2's Figures 1 and 11: six landmarks.",
    ),
    "dof-games": Reproduction(
        "dof.games",
        "dof_games",
        "DoF's illustrative games: what factorised diffusions can and cannot represent.",
    ),
    "dof-policies": Reproduction(
        "dof.policies",
        "dof_policies",
        "DoF-Policy by factorisation next to other diffusion policies, as DoF compares.",
    ),
    "dof-planners": Reproduction(
        "dof.planners",
        "dof_planners",
        "Planners and MADT on spread, next to what MADiff and DoF print.",
    ),
    "dof-table2": Reproduction(
        "dof.battles", "table2", "DoF's Tables 2 and 12 in kind: returns and win rates on SMAX."
    ),
    "dof-table10": Reproduction(
        "dof.battles", "table10", "DoF's Table 10 in kind: SMAX's teams that are drawn anew."
    ),
    "dof-table18": Reproduction(
        "dof.battles", "table18", "DoF's Table 18 in kind: planning in an autoencoder's code."
    ),
    "dof-table19": Reproduction(
        "dof.battles", "table19", "DoF's Table 19 in kind: plans with and without history."
    ),
    "dof-table24": Reproduction(
        "dof.battles", "table24", "DoF's Table 24 in kind: how the agents' noise is mixed."
    ),
    "dof-table25": Reproduction(
        "dof.battles", "table25", "DoF's Table 25 in kind: how the agents' samples are mixed."
    ),
    "dof-table21": Reproduction(
        "dof.teams", "table21", "DoF's Table 21 in kind: parameters of each system by team size."
    ),
    "dof-table3": Reproduction(
        "dof.teams", "table3", "DoF's Table 3 in kind: memory and time of a plan by team size."
    ),
    "dof-table22": Reproduction(
        "dof.teams", "table22", "DoF's Table 22 in kind: time of a plan by sampler and team size."
    ),
    "dof-table23": Reproduction(
        "dof.teams", "table23", "DoF's Table 23 in kind: rewards in battles by team size."
    ),
    "dof-fig7": Reproduction(
        "dof.costs",
        "fig7",
        "DoF's Figure 7: time of a reverse process against the number of agents.",
    ),
    "dof-fig8": Reproduction(
        "dof.figures", "fig8", "DoF's Figure 8: planners by steps, guidance, history and horizon."
    ),
    "dof-fig5": Reproduction(
        "dof.policies", "fig5", "DoF's Figure 5 in kind: training on battles of SMAX."
    ),
    "dof-fig6": Reproduction(
        "dof.policies",
        "fig6",
        "DoF's Figure 6: training of DoF-Policy and other policies.",
    ),
    "coda-games": Reproduction(
        "coda.games",
        "coda_games",
        "CODA's Figures 1 and 2: paths of four methods on two polynomial games.",
    ),
    "coda-steering": Reproduction(
        "coda.steering",
        "coda_steering",
        "CODA's steering curve: likelihood of windows against the strength of guidance.",
    ),
    "coda-fidelity": Reproduction(
        "coda.fidelity",
        "coda_fidelity",
        "How faithful CODA's generator is to its data and the environment; in no paper.",
    ),
    "coda-table1": Reproduction(
        "coda.table1", "coda_table1", "CODA's Table 1: MADDPG+BC with synthetic rows on robots."
    ),
    "coda-fig4": Reproduction(
        "coda.table1", "fig4", "CODA's Figure 4: final scores on half-cheetah by data set."
    ),
    "coda-fig5": Reproduction(
        "coda.table1", "fig5", "CODA's Figures 5 to 8: training on half-cheetah by data set."
    ),
    "one-step": Reproduction(
        "one_step.probe",
        "one_step",
        "One-step policies of diffusions and flows, joint and apart, on games or --tasks.",
    ),
    "verdicts": Reproduction(
        "verdicts.page",
        "verdicts",
        "What the evidence in docs/evidence says of each paper's claims; trains nothing.",
        out="docs",
    ),
}
"""What `reproduce` makes, by name."""

ALIASES = {
    "omsd-fig4b": "omsd-fig8",
    "omsd-fig4c": "omsd-fig9",
    "omsd-fig12": "omsd-fig11",
    "dom2-fig1": "dom2-fig11",
    "dom2-fig10": "dom2-table8",
    "dof-table12": "dof-table2",
    "dof-fig3": "dof-games",
    "dof-fig4": "dof-games",
    "dof-fig10": "dof-games",
    "coda-fig1": "coda-games",
    "coda-fig2": "coda-games",
    "coda-fig3": "coda-steering",
}
"""Names of figures that another reproduction draws -> its name."""
