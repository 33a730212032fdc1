"""The commands and their flags."""

import dataclasses
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import tyro

from jaxomarl.api import (
    behaviours,
    collect,
    directions,
    plan,
    provenance,
    register,
    render,
    runtime,
    session,
)
from jaxomarl.api.evaluate import evaluate
from jaxomarl.api.progress import Lines, clock
from jaxomarl.api.seeds import parse_seeds
from jaxomarl.base import JaxomarlError, refuse
from jaxomarl.cli import data as data_sets
from jaxomarl.cli import dry_run, imports, listing, reproduce, show
from jaxomarl.cli.data_flags import Data
from jaxomarl.cli.imports import Imports
from jaxomarl.cli.parsing import parse
from jaxomarl.cli.signals import CODES
from jaxomarl.presets import find
from jaxomarl.results import tables
from jaxomarl.training.runner import Interrupted

MAIN = ("omsd", "brpo-ind", "brpo-ctde", "brpo-jal")

Names = Annotated[tuple[str, ...], tyro.conf.arg(help_behavior_hint="(default: empty)")]

Cfg = imports.settings(plan.config_fields())


@dataclasses.dataclass(frozen=True, kw_only=True)
class List(Imports):
    """Say which systems, tasks, data sets, presets or tables there are."""

    what: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="WHAT")] = ""
    """systems, tasks, data, presets or tables; nothing: what each of these lists."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Show(Imports):
    """Show a system: its paper, its pseudo-code, its stages, and each of its fields with its value on a task."""

    system: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SYSTEM")]
    """A name as `jaxomarl list systems` has it; bc+coda is bc with --augment coda."""
    task: str = ""
    """The task whose preset gives the values; empty: the first that has a preset for the system."""
    data: str = ""
    """Quality of data; empty: the preset's, or the task's default."""
    preset: str = ""
    """Named settings; empty: those that training on the task takes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Common(Imports):
    """Flags of everything that trains."""

    seeds: str = "16"
    """16 for seeds 0..15, 4:8 for 4..7, or 3,5."""
    preset: str = ""
    """Named settings; empty: the first made for the task. Others: paper-code (games), paper, paper-mujoco (OMSD)."""
    out: Path | None = None
    """Folder of the results; empty: runs/TASK-DATA-PRESET."""
    resume: bool = False
    """Start, continue or reprint what OUT holds."""
    overwrite: bool = False
    """Delete what OUT holds and start again."""
    source: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """OUT of another command whose finished stages are reused."""
    rows: int = 0
    """Transitions in a generated data set; 0: the task's own number."""
    episodes: int = 0
    """Episodes of each evaluation in training; 0: the task's own number."""
    final_episodes: int = 0
    """Episodes of the final evaluation, on fresh starts for every seed; 0: 1024, of robots 128, of planners fewer."""
    scale: float = 1.0
    """Factor of the preset's step counts, in whole chunks; widths change by its cube root, --cfg values do not."""
    dry_run: bool = False
    """Say what would run, and stop."""
    augment: str = ""
    """coda, synther or eaq: part of every batch is synthetic: of the present policy, the data, or high returns."""
    precision: str = ""
    """bfloat16: hidden layers in half the bits, for cards. float32: all of them; a card rounds products to TF32."""
    compile_cache: bool = True
    """Keep compiled programs in the user's cache directory (JAXOMARL_CACHE moves it)."""
    cfg: Cfg = Cfg()  # type: ignore  # noqa: RUF009 (frozen, empty)
    """A system's fields; several values sweep one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep(Common):
    """Train systems on tasks over seeds and settings: one table, intervals and pictures."""

    systems: tuple[str, ...] = MAIN
    """Names as `jaxomarl list systems` has them; bc+coda is bc with --augment coda."""
    tasks: tuple[str, ...] = ("games/bandit",)
    """Tasks as `jaxomarl list tasks` has them."""
    data: Names = ()
    """Qualities of data; empty: the preset's, or the task's default."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(Common):
    """Train one system on one data set."""

    system: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SYSTEM")]
    """A name as `jaxomarl list systems` has it."""
    task: str = "games/bandit"
    """A task as `jaxomarl list tasks` has it; parameters follow a colon, as in games/consensus:n=4."""
    data: str = ""
    """Quality of data; empty: the preset's, or the task's default."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduce(Imports):
    """Make a paper's table again, ours beside the published numbers."""

    table: Annotated[
        tyro.conf.Positional[str], tyro.conf.arg(metavar="TABLE", help=reproduce.NAMES)
    ]
    seeds: str = "16"
    """16 for seeds 0..15, 4:8 for 4..7, or 3,5."""
    systems: Names = ()
    """Rows of the table; empty: all of ours. omsd-table1 takes neither this nor what follows, up to --cfg."""
    tasks: Names = ()
    """Tasks of the table; empty: the paper's."""
    data: Names = ()
    """Qualities of data in the table; empty: the paper's."""
    rows: int = 0
    """Transitions in a generated data set; 0: the task's own number."""
    episodes: int = 0
    """Episodes of each evaluation in training; 0: the task's own number."""
    final_episodes: int = 0
    """Episodes of the final evaluation; 0: the task's own number."""
    cfg: Cfg = Cfg()  # type: ignore  # noqa: RUF009 (frozen, empty)
    """A system's fields; several values sweep one."""
    scale: float = 1.0
    """Factor of the learned runs' step counts, in whole chunks; their widths change by its cube root."""
    out: Path | None = None
    """Empty: runs/TABLE. The same command goes on with what it holds."""
    source: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """OUT of another table whose finished stages are reused."""
    precision: str = ""
    """bfloat16: hidden layers in half the bits, for cards. float32: all of them; a card rounds products to TF32."""
    compile_cache: bool = True
    """Keep compiled programs in the user's cache directory."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(Imports):
    """Score finished runs from fresh starts, those of their final evaluation, also in a variant of their task."""

    runs: Annotated[
        tyro.conf.Positional[tuple[Path, ...]],
        tyro.conf.arg(metavar="RUN...", help_behavior_hint="(at least one)"),
    ]
    """Folders of runs, or folders above them."""
    task: str = ""
    """A variant with the same observations, actions and rules, like mpe/spread:speed_min=0.3; empty: the runs' own."""
    episodes: int = 0
    """Episodes of each run; 0: as many as its final evaluation."""
    compile_cache: bool = True
    """Keep compiled programs in the user's cache directory."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Render(Imports):
    """Film a run's final policy in its task."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Folder of a finished run: OUT/.../seed-0."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The film, .mp4 or .gif."""
    episodes: int = 3
    """Episodes that are filmed, shown side by side."""
    seed: int = 0
    """Seed of the episodes."""
    fps: float = 10.0
    """Frames per second; each step is a frame."""
    compile_cache: bool = True
    """Keep compiled programs in the user's cache directory."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collect(Imports):
    """Make a data set and keep it in a folder that --data takes; training makes the same one by itself."""

    task: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TASK")]
    """For example mpe/spread."""
    quality: str = ""
    """For example medium; empty: the task's default."""
    rows: int = 0
    """Transitions; 0: the task's own number."""
    seed: int = 0
    """Seed of the data set; training takes 0."""
    out: Path | None = None
    """Folder; empty: runs/data/TASK-QUALITY."""
    overwrite: bool = False
    """Replace what OUT holds."""
    compile_cache: bool = True
    """Keep compiled programs in the user's cache directory."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Behaviours:
    """Make the package's prey and behaviours again, as they were made for it."""

    names: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="NAME...", help_behavior_hint="(at least one)"),
    ]
    """prey, or tasks without their family: spread tag world 2halfcheetah 3hopper."""
    steps: int = 0
    """MATD3's updates; 0: as planned."""
    out: Path = Path("runs/behaviours")
    """Folder; the package's own are in jaxomarl/assets."""
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
    "render": Render,
    "behaviours": Behaviours,
}


class Stop:
    """Ctrl-C, SIGTERM and SIGUSR1 ask training to stop at the next chunk; a second one ends the process at once."""

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
            print(
                "\nstopped at once; everything up to the last checkpoint is kept",
                file=sys.stderr,
                flush=True,
            )
            os._exit(
                self.code
            )  # an exception here may surface in JAX's callbacks, or crash its threads at exit
        self.code = CODES[signal.Signals(number)]
        print(
            "\nstopping at the next chunk; what is trained will be saved",
            file=sys.stderr,
            flush=True,
        )

    def asked(self) -> bool:
        """Whether training should stop."""
        return bool(self.code)


def run(command: str, argv: list[str]) -> int:
    """Parse and run; the exit code."""
    asked: Any = None
    try:
        if imports.named(argv):  # a module may start JAX
            runtime.pin_numbers()
            runtime.use_cores()
            imports.load(argv)
        asked = parse(imports.with_fields(COMMANDS), command, argv)
        if isinstance(asked, List | Show):
            return tell(asked)
        runtime.pin_numbers()
        runtime.use_cores()
        runtime.use_precision(getattr(asked, "precision", ""))
        with runtime.programs(asked.compile_cache):
            return answer(asked, go_on(command, argv))
    except JaxomarlError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        trains = not isinstance(asked, Evaluate | Render | Data)
        kept = " What was finished is kept; --resume goes on once that is mended." if trains else ""
        print(f"error: {error}.{kept}", file=sys.stderr)
        return 74


def tell(asked: List | Show) -> int:
    """Print what there is; the exit code."""
    if isinstance(asked, List):
        print(listing.listed(asked.what))
    else:
        print(show.page(asked.system, asked.task, asked.data, asked.preset))
    return 0


def answer(asked: Any, again: str) -> int:
    """Do what was asked; the exit code. `again` is the command that goes on where this one is stopped."""
    if isinstance(asked, Render):  # nothing of it can be kept, so Ctrl-C ends it at once
        returns = render.render(asked.run, asked.episodes, asked.out, asked.seed, asked.fps)
        print(f"returns: {', '.join(f'{x:.1f}' for x in returns)}\n{asked.out}")
        return 0
    if isinstance(asked, Evaluate):
        records = evaluate(asked.runs, asked.task, asked.episodes, Lines().say)
        print(f"\n{tables.text(records)}")
        return 0
    if isinstance(asked, Collect):
        print(
            collect.collect(
                asked.task, asked.quality, asked.rows, asked.seed, asked.out, asked.overwrite
            )
        )
        return 0
    if isinstance(asked, Data):
        return data_sets.run(asked)
    if isinstance(asked, Behaviours):
        behaviours.make(asked.names, asked.out, asked.steps)
        return 0
    with Stop() as stop:
        try:
            if isinstance(asked, Reproduce):
                reproduce.table(asked.table, wanted(asked, stop), again)
            else:
                sweep(asked, stop)
        except (Interrupted, KeyboardInterrupt):
            kept = "stopped; everything up to the last checkpoint is kept. Go on with:"
            line = "\n" if sys.stderr.isatty() else ""  # a progress line may be open
            print(f"{line}{kept}\n  {again}", file=sys.stderr)
            return stop.code or 130
    return 0


def go_on(command: str, argv: list[str]) -> str:
    """The command line that continues this one; `reproduce` continues by itself."""
    again = [x for x in argv if x != "--overwrite"]  # which --resume excludes
    if (command or argv[0]) != "reproduce" and "--resume" not in again:
        again.append("--resume")
    return shlex.join(
        [*(("python", "-m", f"experiments.{command}") if command else ("jaxomarl",)), *again]
    )


def overridden(cfg: Any) -> dict[str, Any]:
    """The config fields that were given."""
    chosen = {f.name: getattr(cfg, f.name) for f in dataclasses.fields(cfg)}
    return {k: v for k, v in chosen.items() if v}


def wanted(asked: Reproduce, stop: Stop) -> reproduce.Asked:
    """What `reproduce` was asked for."""
    return reproduce.Asked(
        seeds=parse_seeds(asked.seeds),
        scale=asked.scale,
        out=asked.out or Path("runs") / asked.table,
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


def sweep(asked: Any, stop: Stop) -> None:
    """Train what was asked for and show the table."""
    start = time.perf_counter()
    several = isinstance(asked, Sweep)
    systems, tasks = (asked.systems, asked.tasks) if several else ((asked.system,), (asked.task,))
    data = asked.data if several else ((asked.data,) if asked.data else ())
    overrides = overridden(asked.cfg)
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
        raise refuse(
            "--systems, --tasks",
            "at least one name each",
            "none",
            "Leave the flag out for its default.",
        )
    preset = find(asked.preset, groups[0].task.name).name
    out = asked.out or session.default_folder(groups, preset)
    for source in [asked.source] if asked.source else []:
        if not (source / "stages").is_dir():
            raise refuse(
                "--from", "the --out folder of another command", str(source), "It has no stages/."
            )
    settings = session.asked(
        preset, overrides, asked.rows, asked.episodes, asked.scale, asked.final_episodes
    )
    if asked.dry_run:
        print(dry_run.plan_text(groups, out))
        session.check_folder(out, settings, asked.resume, asked.overwrite)
        return
    with session.locked(out):
        session.open_folder(
            out, settings, asked.resume, asked.overwrite, register.modules(*systems, *tasks)
        )
        provenance.tell(groups, out)
        print(
            f"{len(groups)} group(s), {sum(len(g.seeds) for g in groups)} runs, preset {preset}, into {out}",
            file=sys.stderr,
        )
        lines = Lines()
        results = session.train_groups(
            groups, out, [asked.source] if asked.source else [], lines, stop.asked, lines.say
        )
        pictures = draw(results, out)
    print(f"\n{results.table}\n{out / 'summary.md'}" + "".join(f"\n{p}" for p in pictures))
    print(f"done in {clock(time.perf_counter() - start)}", file=sys.stderr)


def draw(results: session.Results, out: Path) -> list[Path]:
    """Every picture that these results allow; where matplotlib is missing, a line says so."""
    made = [out / "returns.png", out / "intervals.png"]
    try:
        results.figure("returns", made[0])
        results.figure("intervals", made[1])
        for task in {group.task.name: None for group, _ in results.past}:
            path = out / f"{task.replace('/', '-')}-directions.png"
            trained = [(group, past) for group, past in results.past if group.task.name == task]
            if directions.draw(path, trained, results.rows) is not None:
                made.append(path)
    except JaxomarlError as error:
        print(f"no pictures: {error}", file=sys.stderr)
        return []
    return made
