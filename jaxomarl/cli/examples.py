"""Two examples of each command, which open its help."""

EXAMPLES = {
    "list": ("jaxomarl list systems", "jaxomarl list data"),
    "show": ("jaxomarl show omsd", "jaxomarl show dom2 --task mpe/spread --data expert"),
    "train": (
        "jaxomarl train bc --task mpe/spread --data medium --seeds 4 --scale 0.01",
        "jaxomarl train omsd --seeds 16 --cfg.beta 0.3 1.29 5.0",
    ),
    "sweep": (
        "jaxomarl sweep --seeds 16",
        "jaxomarl sweep --systems bc iql --tasks mpe/spread mpe/tag --data medium --scale 0.01",
    ),
    "collect": (
        "jaxomarl collect mpe/spread --quality medium",
        "jaxomarl collect games/bandit --rows 1000",
    ),
    "data": (
        "jaxomarl data describe mpe/spread/medium",
        "jaxomarl data validate FOLDER --task mpe/spread",
    ),
    "data describe": (
        "jaxomarl data describe mpe/spread/medium mpe/spread/expert",
        "jaxomarl data describe FOLDER --task mpe/spread --out runs/card",
    ),
    "data validate": (
        "jaxomarl data validate FOLDER --task mpe/spread",
        "jaxomarl data validate FILE.hdf5 --task mamujoco/2halfcheetah",
    ),
    "data convert": (
        "jaxomarl data convert mpe/spread/medium NEW_FOLDER --to omar",
        "jaxomarl data convert FOLDER NEW_FOLDER --to jaxomarl --task mpe/spread",
    ),
    "data diff": (
        "jaxomarl data diff mpe/spread/medium mpe/spread/expert",
        "jaxomarl data diff FOLDER mpe/spread/medium --task mpe/spread",
    ),
    "reproduce": (
        "jaxomarl reproduce omsd-table1 --seeds 4",
        "jaxomarl reproduce dom2-table1 --scale 0.01 --systems dom2 omar",
    ),
    "health": (
        "jaxomarl health runs/first",
        "jaxomarl health runs/first runs/second",
    ),
    "keep": (
        "jaxomarl keep OUT -o docs/evidence/omsd-medium",
        "jaxomarl keep OUT_SEEDS_0_3 OUT_SEEDS_4_7 -o docs/evidence/omsd-medium",
    ),
    "report": (
        "jaxomarl report runs/first -o report.html",
        "jaxomarl report runs/first runs/second -o both.html",
    ),
    "cite": (
        "jaxomarl cite runs/first",
        "jaxomarl cite runs/first runs/second",
    ),
    "doctor": (
        "jaxomarl doctor",
        "jaxomarl doctor --missing",
    ),
    "evaluate": (
        "jaxomarl evaluate runs/first --episodes 4096",
        "jaxomarl evaluate RUN --task mpe/spread:speed_min=0.3",
    ),
    "render": (
        "jaxomarl render RUN -o film.mp4",
        "jaxomarl render RUN OTHER_RUN -o sheet.png",
    ),
    "export": (
        "jaxomarl export RUN -o policy",
        "jaxomarl export runs/first/omsd/seed-0 -o policy",
    ),
    "behaviours": (
        "jaxomarl behaviours prey",
        "jaxomarl behaviours spread tag --out runs/behaviours",
    ),
}
"""Command -> what a person would type; words in capitals stand for their own paths."""


def opening(command: str, docstring: str | None) -> str:
    """The head of a command's help: its docstring's first sentence and its examples."""
    first = (docstring or "").partition("\n\n")[0]
    sentence = " ".join(first.split())
    lines = "\n".join(f"$ {example}" for example in EXAMPLES[command])
    return f"{sentence}\n{lines}"
