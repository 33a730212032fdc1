"""The commands and their flags."""

import dataclasses
import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from jaxomarl.api import (
    behaviours,
    collect,
    directions,
    ended,
    export,
    plan,
    provenance,
    register,
    render,
    runtime,
    session,
)
from jaxomarl.api.evaluate import evaluate, found_runs
from jaxomarl.api.progress import ProgressPrinter, clock
from jaxomarl.api.seeds import parse_seeds
from jaxomarl.api.track import tracking
from jaxomarl.base import JaxomarlError, refuse
from jaxomarl.cli import (
    boxes,
    cite,
    columns,
    doctor,
    dry_run,
    imports,
    launch,
    listing,
    reproduce,
    show,
)
from jaxomarl.cli import data as data_sets
from jaxomarl.cli.data_flags import Data
from jaxomarl.cli.imports import Imports
from jaxomarl.cli.parsing import parse
from jaxomarl.cli.signals import CODES
from jaxomarl.results import (
    canvas,
    findings,
    marl_eval,
    report,
    stage_health,
    study,
    tables,
)
from jaxomarl.training import hosts
from jaxomarl.training.background import Background
from jaxomarl.training.memory import MemoryTooSmallError, parse_bytes
from jaxomarl.training.runner import Interrupted

MAIN = ("omsd", "brpo-ind", "brpo-ctde", "brpo-jal")

"""The default systems of `sweep`."""

Names = Annotated[tuple[str, ...], tyro.conf.arg(help_behavior_hint="(default: empty)")]
"""A flag of several names, whose default is empty."""

Runs = Annotated[
    tyro.conf.Positional[tuple[Path, ...]],
    tyro.conf.arg(metavar="RUN...", help_behavior_hint="(at least one)"),
]
"""Folders of runs."""

Cfg = imports.settings(plan.config_fields())


@dataclasses.dataclass(frozen=True, kw_only=True)
class List(Imports):
    """List the systems, tasks, data sets, presets or tables that there are."""

    what: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="WHAT")] = ""
    """systems, tasks, data, presets or tables; empty: what each of these lists."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Show(Imports):
    """Show a system: paper, pseudo-code, stages, and its fields with their values on a task."""

    system: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SYSTEM")]
    """A name from `jaxomarl list systems`; bc+coda is bc with --augment coda."""
    task: str = ""
    """The task whose preset gives the values; empty: the first with a preset for the system."""
    data: str = ""
    """Quality of data, or a path; empty: the preset's, or the task's default."""
    preset: str = ""
    """Named settings; empty: those with which the system trains on the task."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Common(Imports):
    """Flags of the commands that train."""

    seeds: str = "16"
    """Seeds of the runs: 16 for 0..15, 4:8 for 4..7, or 3,5."""
    preset: str = ""
    """Named settings from `jaxomarl list presets`; empty: the first preset of the task."""
    out: Path | None = None
    """Folder of the results (OUT); empty: runs/TASK-DATA-PRESET."""
    resume: bool = False
    """Start, continue, or print again what is in OUT."""
    overwrite: bool = False
    """Delete what is in OUT and start again."""
    source: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """Folder of another command (its OUT), whose finished stages are reused."""
    rows: int = 0
    """Transitions of a generated data set; 0: the task's own number."""
    episodes: int = 0
    """Episodes of each evaluation in training; 0: the task's own number."""
    final_episodes: int = 0
    """Episodes of the final evaluation; 0: 1024, for robots 128, for planners fewer."""
    scale: float = 1.0
    """Factor of steps, in whole chunks; widths change by its cube root, and --cfg values stay."""
    dry_run: bool = False
    """Print what would run, and stop."""
    coordinator: str = ""
    """Train on several hosts: host 0's ADDRESS:PORT, or auto (Slurm, Kubernetes, a TPU pod)."""
    hosts: int = 0
    """How many hosts there are, with --coordinator ADDRESS:PORT."""
    host: int = 0
    """The number of this host, from 0."""
    augment: str = ""
    """Synthetic rows: coda (of the policy), synther (as the data), eaq (of high returns)."""
    precision: str = ""
    """Precision of hidden layers: bfloat16, float32; empty: the device's, TF32 on a card."""
    memory: str = ""
    """Memory that training may take, such as 8GiB, of each device; empty: what is free."""
    save_every: float = -1.0
    """Seconds between two checkpoints, 0 for each evaluation; -1: so that they take 2 %."""
    deterministic: bool = False
    """On a card, take kernels that give the same bits every time; they may be slower."""
    log: Names = ()
    """Show training elsewhere too: tensorboard, wandb, csv; OUT has all files without it."""
    compile_cache: bool = True
    """Keep compiled programs in the user's cache directory, or in $JAXOMARL_CACHE."""
    cfg: Cfg = Cfg()  # type: ignore  # noqa: RUF009 (frozen, empty)
    """Fields of a system; several values of a field sweep it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep(Common):
    """Train systems on tasks over seeds and settings: one table, intervals and pictures."""

    systems: tuple[str, ...] = MAIN
    """Names from `jaxomarl list systems`; bc+coda is bc with --augment coda."""
    tasks: tuple[str, ...] = ("games/bandit",)
    """Names from `jaxomarl list tasks`; parameters follow a colon."""
    data: Names = ()
    """Qualities of data from `jaxomarl list data`; empty: the preset's, or the task's default."""
    launcher: str = ""
    """Train each task and data set in a job of its own. local: here; slurm: on the cluster."""
    tries: int = 3
    """How often a job of the launcher is started, at most, if it is stopped or runs out of time."""
    at_once: int = 1
    """Jobs of the launcher that run at the same time."""
    slurm: Names = ()
    """Parameters of submitit: partition=gpu gpus_per_node=1 timeout_min=240."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(Common):
    """Train one system on one data set."""

    system: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SYSTEM")]
    """A name from `jaxomarl list systems`."""
    task: str = "games/bandit"
    """A name from `jaxomarl list tasks`; parameters follow a colon: games/consensus:n=4."""
    data: str = ""
    """Quality of data, or a path; empty: the preset's, or the task's default."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduce(Imports):
    """Measure a paper's table again, and print it next to the published numbers."""

    table: Annotated[
        tyro.conf.Positional[str], tyro.conf.arg(metavar="TABLE", help=reproduce.NAMES)
    ]
    seeds: str = "16"
    """Seeds of the runs: 16 for 0..15, 4:8 for 4..7, or 3,5."""
    systems: Names = ()
    """Rows of the table; empty: all. omsd-table1 takes no flag from this one to --cfg."""
    tasks: Names = ()
    """Tasks of the table; empty: the paper's."""
    data: Names = ()
    """Qualities of data in the table; empty: the paper's."""
    rows: int = 0
    """Transitions of a generated data set; 0: the task's own number."""
    episodes: int = 0
    """Episodes of each evaluation in training; 0: the task's own number."""
    final_episodes: int = 0
    """Episodes of the final evaluation; 0: the task's own number."""
    cfg: Cfg = Cfg()  # type: ignore  # noqa: RUF009 (frozen, empty)
    """Fields of a system; several values of a field sweep it."""
    scale: float = 1.0
    """Factor of learned runs' steps, in whole chunks; widths change by its cube root."""
    out: Path | None = None
    """Folder of the results, with which the same command continues; empty: runs/TABLE (verdicts:
    docs)."""
    source: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """Folder of another table, whose finished stages are reused (verdicts: folder of evidence)."""
    precision: str = ""
    """Precision of hidden layers: bfloat16, float32; empty: the device's, TF32 on a card."""
    compile_cache: bool = True
    """Keep compiled programs in the user's cache directory."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(Imports):
    """Score finished runs on the starts of their final evaluation, or in a variant of the task."""

    runs: Runs
    """Folders of runs, or folders that contain runs."""
    task: str = ""
    """A variant of the runs' task, like mpe/spread:speed_min=0.3; empty: the task itself."""
    episodes: int = 0
    """Episodes of each run; 0: as many as its final evaluation."""
    compile_cache: bool = True
    """Keep compiled programs in the user's cache directory."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Health:
    """Say which stages of runs have learned, by figures on held-out episodes, and what to raise."""

    runs: Runs
    """Folders of runs, or folders that contain runs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Keep:
    """Keep what lasts of finished tables' runs: scores, health and policies, in a small folder."""

    runs: Annotated[
        tyro.conf.Positional[tuple[Path, ...]],
        tyro.conf.arg(metavar="OUT...", help_behavior_hint="(at least one)"),
    ]
    """Folders that `reproduce` wrote, such as parts of one table by seeds."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder that is made; docs/evidence/NAME is where `reproduce verdicts` reads it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Write a page on results, also while they train: who leads, by how much, and how sure."""

    runs: Runs
    """Folders of runs, or folders that contain runs."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("report.html")
    """File of the page, which holds all it shows: figures, tables and the files behind links.
    A name that ends in .json gets every evaluation, as marl-eval reads it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cite:
    """Print the papers behind runs, and BibTeX of them and of this software."""

    runs: Runs
    """Folders of runs, or folders that contain runs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Doctor:
    """Print versions, devices, engines, renderers and caches, and what is missing."""

    missing: bool = False
    """Print nothing but what is missing, and how to add it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Render(Imports):
    """Film the final policies of runs in their task, side by side from the same starts."""

    runs: Annotated[
        tyro.conf.Positional[tuple[Path, ...]],
        tyro.conf.arg(metavar="RUN...", help_behavior_hint="(at least one)"),
    ]
    """Folders of finished runs of one task; one that contains runs: each system's first seed."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """File of the film, .mp4 or .gif; a .png is a contact sheet, some frames of each episode."""
    episodes: int = 0
    """Number of episodes of each run; 0: 3 of one run, 1 of several."""
    seed: int = 0
    """Seed of the episodes."""
    fps: float = 10.0
    """Frames per second; each step is a frame."""
    trails: bool = True
    """Draw where bodies have been, in tasks on a plane."""
    size: int = 0
    """Most pixels of a frame's width; 0: as it is drawn, on a sheet 216."""
    frames: int = 5
    """Frames of each episode on a contact sheet."""
    compile_cache: bool = True
    """Keep compiled programs in the user's cache directory."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export(Imports):
    """Write a run's final policy for other programs: weights with a card, and StableHLO."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Folder of a finished run, OUT/.../seed-0."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder that is made."""
    compile_cache: bool = True
    """Keep compiled programs in the user's cache directory."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collect(Imports):
    """Generate a data set into a folder that --data takes; training generates the same set."""

    task: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TASK")]
    """The task, for example mpe/spread."""
    quality: str = ""
    """Quality of data, for example medium; empty: the task's default."""
    rows: int = 0
    """Number of transitions; 0: the task's own number."""
    seed: int = 0
    """Seed of the data set; training generates seed 0."""
    out: Path | None = None
    """Folder of the data set (OUT); empty: runs/data/TASK-QUALITY."""
    overwrite: bool = False
    """Replace what is in OUT."""
    compile_cache: bool = True
    """Keep compiled programs in the user's cache directory."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Behaviours:
    """Train the package's prey and behaviours again, as they were trained for it."""

    names: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="NAME...", help_behavior_hint="(at least one)"),
    ]
    """prey, names of tasks without their family, such as spread or 3hopper, or smax/3m."""
    steps: int = 0
    """Updates of the learner; 0: as planned."""
    out: Path = Path("runs/behaviours")
    """Folder of the results; the package's own are in jaxomarl/assets."""
    compile_cache: bool = True
    """Keep compiled programs in the user's cache directory."""


COMMANDS = {
    "list": List,
    "show": Show,
    "sweep": Sweep,
    "train": Train,
    "collect": Collect,
    "data": Data,
    "reproduce": Reproduce,
    "evaluate": Evaluate,
    "health": Health,
    "keep": Keep,
    "report": Report,
    "cite": Cite,
    "doctor": Doctor,
    "render": Render,
    "export": Export,
    "behaviours": Behaviours,
}


class Stop:
    """Stops training at the next chunk after Ctrl-C, SIGTERM or SIGUSR1.

    A second signal ends the process at once.
    """

    def __init__(self) -> None:
        self.code = 0

    def __enter__(self) -> "Stop":
        self.before = {s: signal.signal(s, self.note) for s in CODES}
        return self

    def __exit__(self, *error: object) -> None:
        for s, handler in self.before.items():
            signal.signal(s, handler)

    def note(self, number: int, frame: object) -> None:
        """Remember the signal."""
        if self.code:
            say("\nstopped at once; everything up to the last checkpoint is kept")
            # an exception here may surface in JAX's callbacks, or crash its threads at exit
            os._exit(self.code)
        self.code = CODES[signal.Signals(number)]
        say("\nstopping at the next chunk; what is trained will be saved")

    def asked(self) -> bool:
        """Whether training should stop."""
        return bool(self.code)


def say(text: str) -> None:
    """Print a line on stderr at once."""
    print(text, file=sys.stderr, flush=True)


def run(command: str, argv: list[str]) -> int:
    """Parse a command line and do it; the exit code."""
    asked: Any = None
    try:
        # a module may start JAX
        if imports.named(argv):
            runtime.pin_numbers()
            runtime.use_cores()
            imports.load_modules(argv)
        asked = parse(imports.with_fields(COMMANDS), command, argv)
        if isinstance(asked, List | Show | Health | Keep | Report | Cite | Doctor):
            with runtime.memory_refused():
                return tell(asked)

        runtime.pin_numbers()
        if isinstance(asked, Common):
            hosts.join(asked.coordinator, asked.hosts, asked.host)
            runtime.use_determinism(asked.deterministic)
        runtime.use_cores()
        runtime.use_precision(getattr(asked, "precision", ""))
        with runtime.programs(asked.compile_cache), runtime.memory_refused():
            return answer(asked, resuming(command, argv))

    except MemoryTooSmallError as error:
        say(f"error: {error}")
        return 71
    except JaxomarlError as error:
        say(f"error: {error}")
        return 2
    except OSError as error:
        advice = ""
        if isinstance(asked, Sweep | Train):
            advice = " What was finished is kept; --resume continues once that is fixed."
        elif isinstance(asked, Reproduce):
            advice = " What was finished is kept; the same command continues once that is fixed."
        say(f"error: {error}.{advice}")
        return 74


def tell(asked: List | Show | Health | Keep | Report | Cite | Doctor) -> int:
    """Print what there is, or write a page or folder of it; the exit code. Nothing is trained."""
    if isinstance(asked, List):
        print(listing.listed(asked.what))
    elif isinstance(asked, Keep):
        reproduce.keep_runs(asked.runs, asked.out)
    elif isinstance(asked, Health):
        print(stage_health.text(measured(asked.runs)), end="")
    elif isinstance(asked, Report):
        write_report(asked)
    elif isinstance(asked, Cite):
        print(cite.text(asked.runs))
    elif isinstance(asked, Doctor):
        print("\n".join(doctor.missing()) if asked.missing else doctor.text())
    else:
        print(show.page(asked.system, asked.task, asked.data, asked.preset))
    return 0


def write_report(asked: Report) -> None:
    """Write the page or its numbers, and print the answer."""
    if not asked.runs:
        raise refuse("RUN", "at least one folder", "none", "For example runs/first.")
    if asked.out.suffix == ".json":
        read = study.load(asked.runs)
        marl_eval.write(asked.out, read)
    elif asked.out.suffix in (".html", ".htm"):
        read = report.write(asked.out, asked.runs, reproduce.printed(), boxes.cited_papers())
    else:
        wanted = "a name that ends in .html or .json"
        raise refuse("--out", wanted, str(asked.out), "Change the suffix.")
    print(findings.text(read))
    print(asked.out)


def measured(paths: Sequence[Path]) -> list[stage_health.CellHealth]:
    """The health of the runs below the folders; JaxomarlError where no stage was measured."""
    runs = found_runs(paths)
    cells = stage_health.cells_of(runs)
    if not cells:
        way = (
            "A stage is measured when it ends: finish them with --resume. Runs of earlier commits "
            "and systems that learn without data have no figures."
        )
        raise refuse("RUN", "runs with a measured stage", f"{len(runs)} without", way)
    return cells


def answer(asked: Any, again: str) -> int:
    """Do what was asked; the exit code. `again` is the command that continues a stopped one."""
    if isinstance(asked, Render):
        # nothing of a film can be kept, so Ctrl-C ends it at once
        look = render.Look(asked.seed, asked.fps, asked.trails, asked.size, asked.frames)
        for name, returns in render.render(asked.runs, asked.out, asked.episodes, look).items():
            print(f"{name}, returns: {', '.join(f'{x:.1f}' for x in returns)}")
        print(asked.out)
        return 0
    if isinstance(asked, Evaluate):
        records = evaluate(asked.runs, asked.task, asked.episodes, ProgressPrinter().say)
        print(f"\n{tables.text(records, columns.width())}")
        return 0
    if isinstance(asked, Export):
        card = export.export(asked.run, asked.out)
        by = "its network is in the card" if card["network"] else "it acts by its program alone"
        print(f"{card['policy']['system']} on {card['policy']['task']}: {by}\n{asked.out}")
        return 0
    if isinstance(asked, Collect):
        folder = collect.collect(
            asked.task, asked.quality, asked.rows, asked.seed, asked.out, asked.overwrite
        )
        print(folder)
        return 0
    if isinstance(asked, Data):
        return data_sets.run(asked)
    if isinstance(asked, Behaviours):
        behaviours.make_behaviours(asked.names, asked.out, asked.steps)
        return 0
    return trained(asked, again)


def trained(asked: Sweep | Train | Reproduce, again: str) -> int:
    """Train what was asked until it is done or stopped; the exit code."""
    with Stop() as stop:
        try:
            if isinstance(asked, Reproduce):
                reproduce.table(asked.table, wanted(asked, stop), again)
            elif isinstance(asked, Sweep) and asked.launcher:
                launch.run(asked, again, say, stop.asked)
            else:
                sweep(asked, stop)
        except (Interrupted, KeyboardInterrupt):
            # a progress line may be open
            line = "\n" if sys.stderr.isatty() else ""
            kept = "stopped; everything up to the last checkpoint is kept. Continue with:"
            say(f"{line}{kept}\n  {again}")
            return stop.code or 130
    return 0


def resuming(command: str, argv: list[str]) -> str:
    """The command line that continues this one; `reproduce` continues by itself."""
    # --resume excludes --overwrite
    words = [word for word in argv if word != "--overwrite"]
    if (command or argv[0]) != "reproduce" and "--resume" not in words:
        words.append("--resume")
    program = ["jaxomarl"]
    if command:
        program = ["python", "-m", f"experiments.{command}"]
    return shlex.join([*program, *words])


def overridden(cfg: Any) -> dict[str, Any]:
    """The config fields that were given."""
    chosen = {f.name: getattr(cfg, f.name) for f in dataclasses.fields(cfg)}
    return {name: values for name, values in chosen.items() if values}


def wanted(asked: Reproduce, stop: Stop) -> reproduce.Asked:
    """What `reproduce` was asked for."""
    return reproduce.Asked(
        seeds=parse_seeds(asked.seeds),
        scale=asked.scale,
        out=asked.out or reproduce.folder(asked.table),
        stopped=stop.asked,
        systems=asked.systems,
        tasks=asked.tasks,
        data=asked.data,
        episodes=asked.episodes,
        rows=asked.rows,
        overrides=overridden(asked.cfg),
        source=asked.source,
        final_episodes=asked.final_episodes,
    )


def sweep(asked: Sweep | Train, stop: Stop) -> None:
    """Train what was asked for, and print and draw the results."""
    start = time.perf_counter()
    systems, tasks, data = cells(asked)
    overrides = overridden(asked.cfg)
    allowed = parse_bytes(asked.memory)
    between = seconds_between(asked)
    groups = plan.resolve(
        systems,
        tasks,
        data,
        asked.seeds,
        asked.preset,
        overrides,
        asked.rows,
        asked.episodes,
        asked.scale,
        asked.augment,
        asked.final_episodes,
    )
    if not groups:
        way = "Leave the flag out for its default."
        raise refuse("--systems, --tasks", "at least one name each", "none", way)
    sources = reused(asked.source)
    out = asked.out or session.default_folder(groups, asked.preset)
    settings = session.asked(
        asked.preset, overrides, asked.rows, asked.episodes, asked.scale, asked.final_episodes
    )

    if asked.dry_run:
        for line in dry_run.plan_lines(groups, out, allowed):
            print(line, flush=True)
        session.check_folder(out, settings, asked.resume, asked.overwrite)
        return

    with session.locked(out):
        modules = register.modules(*systems, *tasks)
        session.open_folder(out, settings, asked.resume, asked.overwrite, modules)
        provenance.tell(groups, out)
        runs = sum(len(group.seeds) for group in groups)
        say(f"{len(groups)} group(s), {runs} runs, preset {session.presets(groups)}, into {out}")
        before = None if asked.log else ended.find(out, groups)
        if before:
            return show_results(before, out)

        found = carry_out(asked, stop, groups, out, sources, (allowed, between))
    if found:
        show_results(found, out)
        say(f"done in {clock(time.perf_counter() - start)}")


def carry_out(
    asked: Sweep | Train,
    stop: Stop,
    groups: list[plan.Group],
    out: Path,
    sources: list[Path],
    limits: tuple[int, float | None],
) -> ended.Ended | None:
    """Train the groups and draw the results; None on all hosts but the first."""
    canvas.begin_to_load()
    lines = ProgressPrinter()
    with tracking(asked.log, out, lines.say) as tracker, Background() as background:
        results = session.train_groups(
            groups, out, sources, lines, stop.asked, lines.say, *limits, tracker, background
        )
        if not hosts.first():
            return None
        # beside the last files
        found = ended.Ended(results.records, draw(results, out))
    if found.pictures:
        ended.write(out, groups, found)
    return found


def show_results(found: ended.Ended, out: Path) -> None:
    """Print the table, and where it and its pictures are."""
    print()
    print(tables.text(found.records, columns.width()))
    print(out / "summary.md", *found.pictures, sep="\n")


def seconds_between(asked: Sweep | Train) -> float | None:
    """The seconds between two checkpoints; None where they follow from what a save takes."""
    if asked.save_every == -1.0:
        return None
    if not 0.0 <= asked.save_every < float("inf"):
        expected = "seconds of 0 or more"
        raise refuse("--save-every", expected, asked.save_every, "Leave it out.")
    return asked.save_every


def cells(asked: Sweep | Train) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The systems, tasks and qualities of data that are combined."""
    if isinstance(asked, Sweep):
        return asked.systems, asked.tasks, asked.data
    qualities = (asked.data,) if asked.data else ()
    return (asked.system,), (asked.task,), qualities


def reused(source: Path | None) -> list[Path]:
    """The folders whose finished stages are reused; raises JaxomarlError where there are none."""
    if source is None:
        return []
    if not (source / "stages").is_dir():
        folder = "the --out folder of another command"
        raise refuse("--from", folder, str(source), "It has no stages/.")
    return [source]


def draw(results: session.Results, out: Path) -> list[Path]:
    """Every picture that these results allow; where matplotlib is missing, a line says so."""
    drawn = []

    def keep(figure: Any, path: Path) -> None:
        canvas.save_copies(figure, path)
        drawn.append(path)

    try:
        for kind in ("returns", "intervals"):
            path = out / f"{kind}.png"
            keep(results.figure(kind, path), path)
        for task in {group.task.name: None for group, _ in results.past}:
            path = out / f"{task.replace('/', '-')}-directions.png"
            past = [(group, past) for group, past in results.past if group.task.name == task]
            figure = directions.draw_directions(path, past, results.rows)
            if figure is not None:
                keep(figure, path)
    except JaxomarlError as error:
        say(f"no pictures: {error}")
    return drawn
