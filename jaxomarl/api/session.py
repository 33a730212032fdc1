"""One command from its resolved plan to files: folders, training, csv, policies, summary, figures.

OUT/sweep.json                        the settings that were asked for, which --resume compares
OUT/stages/<stage>-<digest>-<rows>/   a trained stage: checkpoints, executed, DONE; groups share it
OUT/<task>/<data>/<system>-<digest>/  a group: DONE, and a folder for each run:
    <config>-seed-<s>/                run.json, policy.safetensors,
                                      metrics.csv, returns.csv, final.csv, health.csv
OUT/summary.md, .csv, .tex            the table; differences.csv, of the highest mean from others
OUT/*.png, *.svg, *.pdf               figures
OUT/DONE                              digests of all results of a sweep that has ended (ended.py)
"""

import contextlib
import dataclasses
import fcntl
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxomarl import documents
from jaxomarl.api import pictures, portions, register
from jaxomarl.api.plan import Group, config_digest
from jaxomarl.api.policy import Policy, load_policy, save_policies
from jaxomarl.api.provenance import source, versions
from jaxomarl.api.spoken import python_face
from jaxomarl.api.track import Tracker
from jaxomarl.base import JaxomarlError, Past, Stage, State, refuse
from jaxomarl.config import digest, static_fields, traced_fields
from jaxomarl.data.held_out import FEW, SHARE, split
from jaxomarl.data.stats import identity, statistics
from jaxomarl.health.verdict import stage_facts
from jaxomarl.numerics import precision, rounded, settings, tier
from jaxomarl.paths import open_own
from jaxomarl.presets import find
from jaxomarl.results import differences, stage_health, store, tables
from jaxomarl.results.canvas import Figure
from jaxomarl.training import checkpoint, hosts, memory, sharding
from jaxomarl.training.background import Background
from jaxomarl.training.final import roll_out
from jaxomarl.training.library import StageCache, TrainedStage
from jaxomarl.training.program import chunking, last_step, marks
from jaxomarl.training.runner import Interrupted, Job, Progress, run

FORMAT = store.FORMAT
MORE = "final_episodes"
"""The setting in `asked` that may grow."""
WRITE_SECONDS = 60.0
"""Seconds after which the tables are written before the last stage has ended."""


@dataclasses.dataclass(repr=False)
class Results:
    """The results of a command: the records of its table, its runs, and each group's stages."""

    out: Path | None
    records: list[tables.Record]
    runs: list[store.Run]
    rows: list[store.Row]
    final: list[store.Row]
    past: list[tuple[Group, Past]]
    """Each group's stages; those of a group that does not fit into memory are in `out` alone."""
    groups: list[Group] = dataclasses.field(default_factory=list)

    @property
    def table(self) -> str:
        """The summary as aligned text."""
        return tables.text(self.records)

    @property
    def health(self) -> str:
        """Whether the stages have learned, by their figures on held-out episodes, as text."""
        return stage_health.text(stage_health.cells_of(self.runs))

    @property
    def returns(self) -> dict[str, np.ndarray]:
        """Team returns [seeds, episodes] of the final evaluation, by system and swept values."""
        scores: dict[tuple[str, str], dict[int, list[float]]] = {}
        for row in self.final:
            if row.metric == "return":
                seeds = scores.setdefault((row.system, row.config), {})
                seeds.setdefault(row.seed, []).append(row.value)

        out = {}
        for record in self.records:
            seeds = scores.get((record.system, record.config), {})
            name = " ".join(filter(None, (record.system, record.swept)))
            out[name] = np.array([seeds[seed] for seed in sorted(seeds)])
        return out

    def __repr__(self) -> str:
        plural = "s" * (len(self.runs) != 1)
        kinds = {f"{record.system} on {record.task}/{record.data}" for record in self.records}
        shown = ", ".join(sorted(kinds)) or "none evaluated"
        if self.out:
            shown = f"{shown}, in {self.out}"
        return f"<Results of {len(self.runs)} run{plural}: {shown}; .table shows the scores>"

    def _repr_html_(self) -> str:
        return tables.html(self.records)

    @python_face
    def policy(self, seed: int = 0, system: str = "", **swept: Any) -> Policy:
        """The final policy of a run, as `load` gives it from a folder.

        `system` and swept values name the run where a seed has several. Raises JaxomarlError where
        they name no run, or more than one.
        """
        runs = [(group, r) for group in self.groups for r in range(len(group.seeds))]
        chosen = [k for k, (group, r) in enumerate(runs) if is_run(group, r, seed, system, swept)]
        if len(chosen) != 1:
            candidates = [runs[k] for k in chosen] or runs
            names = "; ".join(run_name(group, r) for group, r in candidates)
            expected = "what names one run"
            if not chosen:
                expected = "what names a run"
            way = "Give seed, system and the swept values of one of them."
            raise refuse("policy", expected, f"{len(chosen)} of: {names[:400]}", way)

        group, r = runs[chosen[0]]
        spec = group.task.env.spec
        last = group.system.pipeline(spec, group.cfgs[r], None)[-1]
        if last.algorithm.act is None:
            way = "Train one whose last stage has an act."
            raise refuse("policy", "a system that acts", group.name, way)
        states = [past for own, past in self.past if own is group]
        if not states:
            # its runs did not fit into memory at once
            return load_policy(self.runs[chosen[0]].path)
        own = jax.tree.map(lambda leaf: jnp.asarray(leaf[r]), states[0])
        state = own.pop(last.name)
        return Policy(last.algorithm, state, own, spec, self.runs[chosen[0]].info)

    @python_face
    def figure(self, kind: str = "returns", path: str | Path | None = None) -> Figure:
        """A figure of the command line: "returns", "intervals" or "directions".

        It is written to `path` where one is given. Raises JaxomarlError for another kind, where
        these results have no such figure, and where matplotlib is missing.
        """
        return pictures.figure(kind, self.rows, self.records, self.past, path)


def is_run(group: Group, r: int, seed: int, system: str, settings: Mapping[str, Any]) -> bool:
    """Whether run r of a group has this seed and these settings; "" stands for any system."""
    same = [getattr(group.cfgs[r], name, None) == value for name, value in settings.items()]
    return group.seeds[r] == seed and system in ("", group.name) and all(same)


def run_name(group: Group, r: int) -> str:
    """The arguments of `Results.policy` that name a run."""
    swept = [f"{name}={value}" for name, value in group.swept[r].items()]
    return " ".join([f"seed={group.seeds[r]}", f"system={group.name}", *swept])


# --- the output folder ---


def open_folder(
    out: Path, asked: dict[str, Any], resume: bool, overwrite: bool, imports: Sequence[str] = ()
) -> None:
    """Take a folder for a command.

    `asked` are the settings that must agree for its results to belong together. `imports` are the
    modules that register systems and tasks from outside the package.

    Raises JaxomarlError where the folder holds something else, or the same without --resume or
    --overwrite. Where there are several hosts, the first one takes the folder for all.
    """
    if hosts.first():
        take_folder(out, asked, resume, overwrite, imports)
    hosts.meet("folder")


def take_folder(
    out: Path, asked: dict[str, Any], resume: bool, overwrite: bool, imports: Sequence[str]
) -> None:
    """As `open_folder`, on one host."""
    check_folder(out, asked, resume, overwrite)
    sweep = out / "sweep.json"
    if sweep.exists() and overwrite:
        _empty(out)
    out.mkdir(parents=True, exist_ok=True)
    collect_leftovers(out)

    before = None
    if sweep.exists() and not overwrite:
        before = read_sweep(sweep).get("imports")
    every = set(imports)
    if isinstance(before, list):
        every.update(before)
    facts: dict[str, Any] = {"format": FORMAT, "asked": asked, "versions": versions()}
    if every:
        facts["imports"] = sorted(every)
    documents.write_sealed(sweep, facts)


def collect_leftovers(out: Path) -> None:
    """Delete what a killed command left of its writes, in a folder of ours that is locked."""
    for part in out.rglob("*.part"):
        part.unlink(missing_ok=True)
    for folder in out.glob("stages/*/checkpoints"):
        checkpoint.clean(folder)


def _empty(out: Path) -> None:
    """Delete the results in a folder of ours."""
    # this process holds the lock, and sweep.json says that the folder is ours
    kept = (".lock", "sweep.json")
    for path in out.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name not in kept:
            path.unlink()


def check_folder(out: Path, asked: dict[str, Any], resume: bool, overwrite: bool) -> None:
    """Raise JaxomarlError where `open_folder` would; nothing is touched."""
    if resume and overwrite:
        way = "Continue, or delete and start again."
        raise refuse("--resume, --overwrite", "one of them", "both", way)
    check_ours(out)
    sweep = out / "sweep.json"
    if not sweep.exists() or overwrite:
        return

    found = read_sweep(sweep, asked=dict)
    store.check_format(sweep, found, "Use the version that wrote it, or another --out.")
    before = found["asked"]
    documents.check_known(f"{sweep}, asked", before, AS_WRITTEN, **{MORE: int})
    if "held_out" not in before:
        expected = "results whose stages left episodes out of training"
        way = "--out takes another folder; --overwrite deletes this one."
        raise refuse(f"--out {out}", expected, "version 0.1.0's, of all episodes", way)
    names = {*before, *asked}
    if before.get(MORE, 0) <= asked.get(MORE, 0):
        names.discard(MORE)
    other = [name for name in sorted(names) if not extends(before.get(name), asked.get(name))]
    if other:
        was = {name: before.get(name) for name in other}
        now = {name: asked.get(name) for name in other}
        way = (
            "--out takes another folder; --overwrite deletes this one; "
            "--resume wants the same settings."
        )
        raise refuse(f"--out {out}", f"results of {was}", now, way)
    if not resume:
        taken = f"{out}, which holds this command's results"
        way = "--resume continues, --overwrite starts again."
        raise refuse("--out", "a new folder", taken, way)


AS_WRITTEN = "--overwrite starts again; --resume wants the file as it was written."
"""What to do with a damaged sweep.json."""


def read_sweep(path: Path, **entries: type) -> dict[str, Any]:
    """What a folder's sweep.json says; JaxomarlError where it is damaged."""
    return documents.read_sealed(path, AS_WRITTEN, **entries)


def check_ours(out: Path) -> None:
    """Raise JaxomarlError where a folder for results is a file, or holds what is not ours."""
    if not out.exists():
        return
    if not out.is_dir():
        raise refuse("--out", "a folder", f"the file {out}", "Name another.")
    if not (out / "sweep.json").exists() and not all(map(left_by_a_kill, out.iterdir())):
        way = "Name another; nothing was touched."
        raise refuse("--out", "an empty folder or one that jaxomarl made", str(out), way)


def left_by_a_kill(path: Path) -> bool:
    """Whether a command leaves such a path that was killed before it wrote its first file."""
    if path.is_dir():
        return path.name == "stages" and not any(path.iterdir())
    return path.name == ".lock" or path.match(".sweep.json.*.part")


@contextlib.contextmanager
def locked(out: Path | None) -> Iterator[None]:
    """Lock a folder for this process; JaxomarlError where it is locked already, or is not ours."""
    if out is None:
        yield
        return
    check_ours(out)
    if not hosts.first():
        # the first host's lock is for all of them
        yield
        return
    out.mkdir(parents=True, exist_ok=True)
    with open_own(out / ".lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            expected = "a folder of this command alone"
            way = "Wait, or name another."
            raise refuse("--out", expected, f"{out}, in use", way) from None
        yield


# --- a group of runs ---


def group_folder(out: Path | None, group: Group) -> Path:
    """The group's folder, below OUT; JaxomarlError where a name leads out of it."""
    out = out or Path()
    task = group.task.name.replace("/", "-")
    folder = out / task / group.quality / f"{group.name}-{group.digest}"
    if not folder.resolve().is_relative_to(out.resolve()):
        way = "A link leads out of OUT: put the folder itself there, or take another --out."
        raise refuse(str(folder), "a folder below OUT", str(folder.resolve()), way)
    return folder


class Writer:
    """Writes a group's run folders; after each stage it writes what is known by then."""

    def __init__(self, out: Path | None, group: Group, tracker: Tracker | None = None) -> None:
        self.out = out
        self.group = group
        self.tracker = tracker
        self.facts: dict[str, Any] = {}
        self.rows: dict[str, list[list[store.Row]]] = {
            "metrics": [[] for _ in group.seeds],
            "returns": [[] for _ in group.seeds],
            "health": [[] for _ in group.seeds],
        }
        self.final: list[store.Row] = []
        # the final evaluations that no file holds yet, by the run's number
        self.fresh: dict[int, list[store.Row]] = {}
        self.written = time.monotonic()
        self.infos = [self.info(r) for r in range(len(group.seeds))]
        folder = group_folder(out, group)
        self.folders = [folder / f"{info['config'][:8]}-seed-{info['seed']}" for info in self.infos]
        if tracker:
            tracker.begin(self.runs, out)

    @property
    def last_stage(self) -> Stage:
        """The group's last stage, whose policy acts."""
        return self.pipelines[0][-1]

    @cached_property
    def pipelines(self) -> list[tuple[Stage, ...]]:
        """The stages of each run, from its own settings."""
        g = self.group
        online = g.task.env if g.system.online else None
        return [g.system.pipeline(g.task.env.spec, cfg, online) for cfg in g.cfgs]

    def info(self, r: int) -> dict[str, Any]:
        """The part of run.json that is known before training."""
        g = self.group
        cfg = g.cfgs[r]
        env = g.task.env
        last = self.pipelines[r][-1]
        info = {
            "format": FORMAT,
            "system": g.name,
            "augment": g.name.partition("+")[2],
            "task": g.task.name,
            "data": g.quality,
            "data_sha256": g.manifest["sha256"],
            "dialect": env.spec.dialect,
            "spec": dataclasses.asdict(env.spec),
            "config": config_digest(cfg),
            "cfg": {**static_fields(cfg), **traced_fields(cfg)},
            "swept": g.swept[r],
            "seed": g.seeds[r],
            "final_stage": last.name,
            "centralised": last.algorithm.centralised,
            "episodes": last.episodes or g.task.episodes,
            "final_episodes": g.final_episodes if last.algorithm.act else 0,
            "data_return": data_return(g.manifest),
            "optimum": g.task.optimum,
            "preset": g.preset,
            "scale": g.scale,
            "normaliser": g.task.scale._asdict() if g.task.scale else None,
            "versions": versions(),
            "source": source(),
            "device": f"{jax.devices()[0].device_kind} x{jax.device_count()}",
            "hosts": hosts.count(),
            "held_out": g.held_out.facts(),
            "health": [],
            "diverged": [],
            "precision": {"matmul": precision(), "evaluation": "highest"},
            "determinism": tier(),
            "jax": settings(),
        }
        imports = register.modules(g.name, g.task.name)
        if imports:
            info["imports"] = imports
        return info

    def stage(self, index: int, stage: Stage, trained: TrainedStage) -> None:
        """Take a finished stage's histories, and write them where the last time is long ago."""
        self.take(index, stage, trained)
        # files come before loggers
        if self.tracker or time.monotonic() - self.written > WRITE_SECONDS:
            self.write()
        if self.tracker:
            self.tracker.finished(self.rows, stage.name)

    def take(self, index: int, stage: Stage, trained: TrainedStage) -> None:
        """Turn a finished stage's histories into rows and facts."""
        batches = trained.facts.get("batches", [trained.facts])
        self.facts[stage.name] = {"batches": batches}
        if len(batches) == 1:
            self.facts[stage.name] = batches[0]

        chunk, chunks = chunking(stage)
        steps = chunk * np.arange(1, chunks + 1)
        evaluated = chunk * np.array([0, *marks(stage)])
        for r, info in enumerate(self.infos):
            figures = {name: values[r] for name, values in trained.health.items()}
            self.rows["health"][r] += store.metrics_rows(info, stage.name, evaluated[1:], figures)
            info["health"].append(stage_facts(self.pipelines[r][index], figures))
            found = trained.diverged.get(trained.rows[r])
            if found:
                info["diverged"].append({"stage": stage.name, **dataclasses.asdict(found)})
            metrics = {name: values[r] for name, values in trained.metrics.items()}
            self.rows["metrics"][r] += store.metrics_rows(info, stage.name, steps, metrics)
            if trained.evaluations:
                shown = {name: values[r] for name, values in trained.evaluations.items()}
                self.rows["returns"][r] += store.returns_rows(info, stage.name, evaluated, shown)

    def progress(self, progress: Progress) -> None:
        """Tell the loggers of a chunk."""
        if self.tracker:
            self.tracker.live(progress)

    def write(self) -> None:
        """Write the files of every run, as far as they are known."""
        if self.out is None:
            return
        stages = self.facts.values()
        seconds = sum(facts.get("seconds", 0.0) for facts in stages)
        compile_seconds = sum(facts.get("compile_seconds", 0.0) for facts in stages)
        cost = {
            "seconds": round(seconds, 3),
            "compile_seconds": round(compile_seconds, 3),
            "updates_executed": sum(facts.get("updates_executed", 0) for facts in stages),
        }
        for r, folder in enumerate(self.folders):
            store.unseal(folder)
            store.write_json(folder / "run.json", {**self.infos[r], **cost, "stages": self.facts})
            for name, rows in self.rows.items():
                store.write_rows(folder / f"{name}.csv", rows[r])
        self.written = time.monotonic()

    def roll_out(
        self, state: State, past: Past, say: Callable[[str], None], stopped: Callable[[], bool]
    ) -> None:
        """Evaluate every run whose final.csv does not hold its final evaluation yet.

        `finish` writes them. Raises Interrupted when stopped.
        """
        g = self.group
        last = self.last_stage
        if last.algorithm.act is None:
            return

        def pause() -> None:
            if stopped():
                raise Interrupted

        kept = [self.kept_final(r, last, say) for r in range(len(g.seeds))]
        missing = [r for r, rows in enumerate(kept) if rows is None]
        if missing:
            each = f"{g.final_episodes} fresh episodes each"
            say(f"  {g.name}: final evaluation of {len(missing)} runs, {each}")
            env = g.task.env
            own_state, own_past = sharding.rows_of((state, past), missing, len(g.seeds))
            metrics = roll_out(
                env,
                g.system.pipeline,
                env.spec,
                [g.cfgs[r] for r in missing],
                [g.seeds[r] for r in missing],
                own_state,
                own_past,
                g.final_episodes,
                pause=pause,
            )
            step = np.array([last_step(last)])
            for k, r in enumerate(missing):
                own = {name: values[k : k + 1] for name, values in metrics.items()}
                self.fresh[r] = store.returns_rows(self.infos[r], last.name, step, own)
                kept[r] = self.fresh[r]
        self.final = [row for rows in kept for row in rows or ()]
        if self.tracker:
            self.tracker.final(self.final)

    def kept_final(self, r: int, last: Stage, say: Callable[[str], None]) -> list[store.Row] | None:
        """The rows of a run's final.csv, of as many episodes as are asked for.

        They are None where there is no file, or where it is torn or has fewer episodes. A longer
        file stays, as start e is the same whatever the number of episodes.
        """
        file = self.folders[r] / store.FINAL
        if self.out is None or not file.exists():
            return None
        try:
            rows = store.read_rows(file)
        except JaxomarlError:
            say(f"  {file} is torn or damaged: it is made again")
            return None

        asked = self.group.final_episodes
        episodes = sum(row.metric == "return" for row in rows)
        if episodes < asked:
            say(f"  {file} has {episodes} episodes: it is made again with {asked}")
            return None
        if any((row.stage, row.step) != (last.name, last_step(last)) for row in rows):
            return None
        return [row for row in rows if int(row.episode) < asked]

    def finish(self, state: State, past: Past) -> None:
        """Write the final evaluations and policies, and the digests of all tables."""
        if self.out is None:
            return
        for r, rows in self.fresh.items():
            store.unseal(self.folders[r])
            store.write_rows(self.folders[r] / store.FINAL, rows)
        for folder in self.folders:
            store.seal(folder)
        algorithm = self.last_stage.algorithm
        if algorithm.act is not None:
            save_policies(self.folders, algorithm, state, past, self.group.task.env.spec)

    @property
    def runs(self) -> list[store.Run]:
        """The runs as the report reads them."""
        pairs = zip(self.folders, self.infos, strict=True)
        return [store.Run(folder, info) for folder, info in pairs]


def write_done(out: Path, group: Group, runs: Sequence[store.Run]) -> None:
    """Write a group's DONE: the folders of its runs."""
    done = {"runs": [run.path.name for run in runs]}
    documents.write_sealed(group_folder(out, group) / "DONE", done)


def train_groups(
    groups: Sequence[Group],
    out: Path | None,
    sources: Sequence[Path] = (),
    report: Callable[[Group, Progress], None] = lambda group, progress: None,
    stopped: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = print,
    bytes_allowed: int = 0,
    save_every: float | None = None,
    tracker: Tracker | None = None,
    background: Background | None = None,
) -> Results:
    """Train every group, sharing stages, and write the results below `out` where it is given.

    `sources` are other output folders whose stages may be reused. `bytes_allowed` is the memory
    that training may take; 0 is what is free. A group that needs more is trained in portions.
    `save_every` are the seconds between two checkpoints, as of `checkpoint.Cadence`. A `tracker` is
    told what is measured, and closed by who opened it. A `background` that is given writes the
    files, and may still write when this returns.

    Raises Interrupted, with all work saved, once `stopped()` says so, and MemoryTooSmallError where
    not even one run of a group fits.
    """
    folders = [folder for folder in (out, *sources) if folder]
    stopped = hosts.together(stopped)
    past: list[tuple[Group, Past]] = []
    rows: list[store.Row] = []
    final: list[store.Row] = []
    runs: list[store.Run] = []
    roots = [folder / "stages" for folder in folders]
    with contextlib.ExitStack() as stack:
        background = background or stack.enter_context(Background())
        library = StageCache(*roots, save_every=save_every, background=background)
        for of_all_hosts in groups:
            group = of_all_hosts
            if hosts.count() > 1:
                group = group.part(hosts.own(len(group.seeds)))
            if not group.seeds:
                continue
            job = job_of(group, library, report, stopped, say, bytes_allowed)
            trained = train_group(job, group, out, tracker)
            if out is not None and hosts.count() == 1:
                background.do(partial(write_done, out, group, trained.runs))
            runs += trained.runs
            rows += trained.rows
            final += trained.final
            if trained.past is not None:
                past.append((group, trained.past))

        if hosts.count() > 1:
            background.wait()
            hosts.meet("trained")
            assert out is not None, "hosts meet in a folder"
            runs, rows, final = collected(out, groups)
        records = tables.summary(rows, runs, final)
        if out and hosts.first():
            compared = differences.differences(records, final)
            tables.write_summary(out, records, differences.markdown(compared))
            differences.write(out, compared)
    return Results(out, records, runs, rows, final, past, list(groups))


class Trained(NamedTuple):
    """A group after its training."""

    runs: list[store.Run]
    rows: list[store.Row]
    """Of the evaluations in training."""
    final: list[store.Row]
    """Of the final evaluations."""
    past: Past | None
    """All stages; None where those of all runs do not fit into memory."""


def train_group(
    job: Job, group: Group, out: Path | None, tracker: Tracker | None = None
) -> Trained:
    """Train all runs of a job's group, in portions where they do not fit into memory at once.

    Raises as `train_groups`.
    """
    plan = portions.fitted(job, group.name, group_folder(out, group) if out else None)
    trained = Trained([], [], [], None)
    states: list[Past | None] = []
    for portion in memory.portions(len(group.seeds), plan.runs):
        some = group if plan.portions == 1 else group.part(portion)
        writer = Writer(out, some, tracker)
        states.append(train_portion(job, some, writer))
        trained = Trained(
            runs=trained.runs + writer.runs,
            rows=trained.rows + [row for of_run in writer.rows["returns"] for row in of_run],
            final=trained.final + writer.final,
            past=None,
        )
        if plan.portions > 1:
            states = [portions.kept_on_host(states, plan)]
            job.library.forget()
    return trained._replace(past=states[0])


def collected(
    out: Path, groups: Sequence[Group]
) -> tuple[list[store.Run], list[store.Row], list[store.Row]]:
    """(runs, rows of their evaluations, rows of their final ones) that all hosts have written."""
    folders = []
    for group in groups:
        writer = Writer(out, group)
        folders += writer.folders
        if hosts.first():
            write_done(out, group, writer.runs)
    runs = store.find_runs(folders)
    return runs, store.load_returns(runs), store.load_final(runs)


def train_portion(job: Job, group: Group, writer: Writer) -> Past:
    """Train some runs of a job's group to their end, and return every stage's state.

    Their folders are written in the background.

    Raises Interrupted where the job is stopped.
    """

    def report(progress: Progress) -> None:
        job.report(progress)
        writer.progress(progress)

    own = dataclasses.replace(
        job,
        cfgs=group.cfgs,
        seeds=group.seeds,
        swept=group.swept,
        report=report,
        finished=writer.stage,
    )
    try:
        done = run(own)
    except BaseException:
        # what is known by then
        if writer.facts:
            writer.write()
        raise
    files = job.library.background
    files.do(writer.write)
    last = job.make(group.cfgs[0])[-1].name
    before = {name: stage for name, stage in done.items() if name != last}
    writer.roll_out(done[last], before, job.say, job.stopped)
    files.do(partial(writer.finish, done[last], before))
    return done


def job_of(
    group: Group,
    library: StageCache,
    report: Callable[[Group, Progress], None] = lambda group, progress: None,
    stopped: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = print,
    bytes_allowed: int = 0,
) -> Job:
    """The job of the runner for a group."""
    env = group.task.env
    spec = env.spec

    data = None
    held = None
    stats = identity(spec)
    if group.data:
        prepared = group.system.prepare(spec, group.cfgs[0], group.data)
        data, held = split(prepared, group.held_out)
        stats = statistics(data)
    if held and group.held_out.of < FEW:
        episodes = f"{len(group.held_out.episodes)} of {group.held_out.of} episodes"
        say(f"  ! {group.name}: few episodes; the health of its stages rests on {episodes}")
    return Job(
        system=group.system,
        spec=spec,
        cfgs=group.cfgs,
        seeds=group.seeds,
        swept=group.swept,
        data=data,
        stats=stats,
        env=env,
        held=held,
        episodes=group.task.episodes,
        facts={
            "task": group.task.name,
            "dialect": spec.dialect,
            "data": group.manifest["sha256"],
            "held_out": len(group.held_out.episodes),
        },
        library=library,
        report=lambda progress: report(group, progress),
        stopped=stopped,
        say=say,
        memory=bytes_allowed,
    )


# --- what a folder states about its results ---


def data_return(manifest: Mapping[str, Any]) -> dict[str, float] | None:
    """Mean and standard deviation of the data's episode returns, and their number.

    The result is None without data.
    """
    if "return" not in manifest:
        return None
    found = manifest["return"]
    return {"mean": found["mean"], "std": found["std"], "episodes": manifest["episodes"]}


def asked(
    preset: str,
    overrides: Mapping[str, Sequence[Any]],
    rows: int,
    episodes: int,
    scale: float,
    final_episodes: int = 0,
) -> dict[str, Any]:
    """The settings that must agree for two commands to share a folder.

    Systems, tasks, seeds and further swept values may differ. A later command may ask for more
    final episodes, as training does not depend on them.
    """
    agreed: dict[str, Any] = {
        "preset": preset,
        "rows": rows,
        "episodes": episodes,
        "scale": scale,
        "held_out": SHARE,
    }
    if final_episodes:
        agreed[MORE] = final_episodes
    fields = {f"cfg.{name}": list(values) for name, values in overrides.items()}
    return {**agreed, **rounded(), **fields}


def extends(before: object, now: object) -> bool:
    """Whether a setting is unchanged, or sweeps at least the values that it had before."""
    if not isinstance(now, list) or not (before is None or isinstance(before, list)):
        return before == now
    if before is None:
        return len(now) > 1
    return all(value in now for value in before)


def presets(groups: Sequence[Group]) -> str:
    """The names of the groups' presets, each once."""
    return ", ".join(dict.fromkeys(group.preset for group in groups))


def default_folder(groups: Sequence[Group], preset: str) -> Path:
    """The folder runs/<task>-<preset>, or a digest where there are several tasks.

    It does not depend on the systems: `preset` "" is the first one of the task.
    """
    preset = find(preset, groups[0].task.name).name
    names = sorted({f"{group.task.name}-{group.quality}".replace("/", "-") for group in groups})
    if len(names) > 1:
        return Path("runs") / f"{digest(names)[:8]}-{preset}"
    return Path("runs") / f"{names[0]}-{preset}"
