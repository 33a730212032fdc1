"""One command from its resolved plan to files: folders, training, csv, policies, summary, figures.

OUT/sweep.json                        what was asked; what --resume compares
OUT/stages/<stage>-<digest>-<rows>/   checkpoints, executed, DONE: trained stages, shared by whoever needs them
OUT/<task>/<data>/<system>-<digest>/  a group: DONE, and a folder for each run:
    <config>-seed-<s>/                run.json, metrics.csv, returns.csv, final.csv, policy.safetensors
OUT/summary.md, summary.csv, *.png
"""

import contextlib
import dataclasses
import fcntl
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxomarl.api import pictures, register
from jaxomarl.api.plan import Group, config_digest
from jaxomarl.api.policy import Policy, save_policies
from jaxomarl.api.provenance import source, versions
from jaxomarl.api.spoken import python_face
from jaxomarl.base import JaxomarlError, Past, Stage, refuse
from jaxomarl.config import digest, static_fields, traced_fields
from jaxomarl.data.stats import identity, statistics
from jaxomarl.numerics import precision, rounded, settings
from jaxomarl.results import differences, store, tables
from jaxomarl.results.canvas import Figure
from jaxomarl.training.final import roll_out
from jaxomarl.training.library import Library, Trained
from jaxomarl.training.program import chunking, last_step, marks
from jaxomarl.training.runner import Interrupted, Job, Progress, run

FORMAT = 1
MORE = "final_episodes"
"""What of `asked` may grow."""


@dataclasses.dataclass(repr=False)
class Results:
    """What a command has made: the records of its table, its runs, and the finished stages of each group."""

    out: Path | None
    records: list[tables.Record]
    runs: list[store.Run]
    rows: list[store.Row]
    final: list[store.Row]
    past: list[tuple[Group, Past]]

    @property
    def table(self) -> str:
        """The summary as aligned text."""
        return tables.text(self.records)

    @property
    def returns(self) -> dict[str, np.ndarray]:
        """Team returns of the final evaluation by system (and swept values): [seeds, episodes]."""
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
        runs = f"{len(self.runs)} run{'s' * (len(self.runs) != 1)}"
        kinds = sorted(
            {f"{record.system} on {record.task}/{record.data}" for record in self.records}
        )
        where = f", in {self.out}" if self.out else ""
        return f"<Results of {runs}: {', '.join(kinds) or 'none evaluated'}{where}; .table shows the scores>"

    def _repr_html_(self) -> str:
        return tables.html(self.records)

    @python_face
    def policy(self, seed: int = 0, system: str = "", **swept: Any) -> Policy:
        """The final policy of a run, as `load` gives it from a folder.

        `system` and swept values say which run where a seed has several. Raises JaxomarlError where these name no run,
        or more than one.
        """
        every = [(group, past, r) for group, past in self.past for r in range(len(group.seeds))]
        found = [
            k for k, (group, _, r) in enumerate(every) if is_run(group, r, seed, system, swept)
        ]
        if len(found) != 1:
            named = [
                run_name(group, r) for group, _, r in (every[k] for k in found or range(len(every)))
            ]
            way = "Give seed, system and the swept values of one of them."
            expected = "what names one run" if found else "what names a run"
            raise refuse("policy", expected, f"{len(found)} of: {'; '.join(named)[:400]}", way)
        group, past, r = every[found[0]]
        last = group.system.pipeline(group.task.env.spec, group.cfgs[r], None)[-1]
        if last.algorithm.act is None:
            raise refuse(
                "policy", "a system that acts", group.name, "Train one whose last stage has an act."
            )
        own = jax.tree.map(lambda x: x[r], past)
        state = own.pop(last.name)
        return Policy(last.algorithm, state, own, group.task.env.spec, self.runs[found[0]].info)

    @python_face
    def figure(self, kind: str = "returns", path: str | Path | None = None) -> Figure:
        """A figure that the command line draws: "returns", "intervals" or "directions"; written where `path` says.

        Raises JaxomarlError for another kind, where these results have no such figure, and where matplotlib is missing.
        """
        return pictures.figure(kind, self.rows, self.records, self.past, path)


def is_run(group: Group, r: int, seed: int, system: str, settings: Mapping[str, Any]) -> bool:
    """Whether run r of a group has this seed and these settings; "" stands for any system."""
    same = [getattr(group.cfgs[r], name, None) == value for name, value in settings.items()]
    return group.seeds[r] == seed and system in ("", group.name) and all(same)


def run_name(group: Group, r: int) -> str:
    """What tells a run from the others, as arguments of `Results.policy`."""
    swept = [f"{name}={value}" for name, value in group.swept[r].items()]
    return f"seed={group.seeds[r]} " + " ".join([f"system={group.name}", *swept])


# --- the output folder ---


def open_folder(
    out: Path, asked: dict[str, Any], resume: bool, overwrite: bool, imports: Sequence[str] = ()
) -> None:
    """Take a folder for a command; `asked` is all that must agree for its results to belong together.

    `imports` are what registers the systems and tasks that are not our own.

    Raises JaxomarlError where it holds something else, or the same without --resume or --overwrite.
    """
    check_folder(out, asked, resume, overwrite)
    found = out / "sweep.json"
    if found.exists() and overwrite:
        for path in out.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name not in (
                ".lock",
                "sweep.json",
            ):  # held by this process; what says that the folder is ours
                path.unlink()
    out.mkdir(parents=True, exist_ok=True)
    for part in out.glob(".sweep.json.*.part"):
        part.unlink(missing_ok=True)
    before = store.read_json(found).get("imports") if found.exists() and not overwrite else None
    every = sorted({*imports, *(before if isinstance(before, list) else ())})
    named = {"imports": every} if every else {}
    store.write_json(found, {"format": FORMAT, "asked": asked, "versions": versions(), **named})


def check_folder(out: Path, asked: dict[str, Any], resume: bool, overwrite: bool) -> None:
    """Raise JaxomarlError where `open_folder` would; nothing is touched."""
    if resume and overwrite:
        raise refuse(
            "--resume, --overwrite", "one of them", "both", "Continue, or delete and start again."
        )
    check_ours(out)
    found = out / "sweep.json"
    if found.exists() and not overwrite:
        before = store.read_json(found, asked=dict)["asked"]
        grown = before.get(MORE, 0) <= asked.get(MORE, 0)
        agreed = {MORE} if grown else set()
        other = [
            k
            for k in sorted({*before, *asked} - agreed)
            if not extends(before.get(k), asked.get(k))
        ]
        if other:
            was, now = ({k: d.get(k) for k in other} for d in (before, asked))
            way = "--out takes another folder; --overwrite deletes this one; --resume wants the same settings."
            raise refuse(f"--out {out}", f"results of {was}", now, way)
        if not resume:
            raise refuse(
                "--out",
                "a new folder",
                f"{out}, which holds this command's results",
                "--resume goes on, --overwrite starts again.",
            )


def check_ours(out: Path) -> None:
    """Raise JaxomarlError where a folder for results is a file, or holds what is not ours."""
    if out.exists() and not out.is_dir():
        raise refuse("--out", "a folder", f"the file {out}", "Name another.")
    if (
        out.is_dir()
        and not (out / "sweep.json").exists()
        and not all(map(left_by_a_kill, out.iterdir()))
    ):
        way = "Name another; nothing was touched."
        raise refuse("--out", "an empty folder or one that jaxomarl made", str(out), way)


def left_by_a_kill(path: Path) -> bool:
    """Whether a command that was killed before its first file was there leaves such a thing."""
    if path.is_dir():
        return path.name == "stages" and not any(path.iterdir())
    return path.name == ".lock" or path.match(".sweep.json.*.part")


@contextlib.contextmanager
def locked(out: Path | None) -> Iterator[None]:
    """Hold a folder for this process; JaxomarlError where another holds it, or it is none of ours."""
    if out is None:
        yield
        return
    check_ours(out)
    out.mkdir(parents=True, exist_ok=True)
    with open(out / ".lock", "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise refuse(
                "--out",
                "a folder of this command alone",
                f"{out}, in use",
                "Wait, or name another.",
            ) from None
        yield


# --- a group of runs ---


class Writer:
    """Writes a group's run folders, after each stage what is known by then."""

    def __init__(self, out: Path | None, group: Group) -> None:
        self.out, self.group = out, group
        self.facts: dict[str, Any] = {}
        self.rows: dict[str, list[list[store.Row]]] = {
            k: [[] for _ in group.seeds] for k in ("metrics", "returns")
        }
        self.final: list[store.Row] = []
        self.infos = [self.info(r) for r in range(len(group.seeds))]
        self.folders = [self.folder / f"{i['config'][:8]}-seed-{i['seed']}" for i in self.infos]

    @property
    def folder(self) -> Path:
        """The group's, below OUT; JaxomarlError where a name leads out of it."""
        g, out = self.group, self.out or Path()
        found = out / g.task.name.replace("/", "-") / g.quality / f"{g.name}-{g.digest}"
        if not found.resolve().is_relative_to(out.resolve()):
            raise refuse(
                "data, quality",
                "the name of a folder",
                g.quality,
                "Rename it where the data set says it.",
            )
        return found

    def info(self, r: int) -> dict[str, Any]:
        """The part of run.json that is known before training."""
        g = self.group
        stages = g.system.pipeline(
            g.task.env.spec, g.cfgs[r], g.task.env if g.system.online else None
        )
        spec = dataclasses.asdict(g.task.env.spec)
        imports = register.modules(g.name, g.task.name)
        named = {"imports": imports} if imports else {}
        return {
            "format": FORMAT,
            "system": g.name,
            "augment": g.name.partition("+")[2],
            "task": g.task.name,
            "data": g.quality,
            "data_sha256": g.manifest["sha256"],
            "dialect": g.task.env.spec.dialect,
            "spec": spec,
            "config": config_digest(g.cfgs[r]),
            "cfg": {**static_fields(g.cfgs[r]), **traced_fields(g.cfgs[r])},
            "swept": g.swept[r],
            "seed": g.seeds[r],
            "final_stage": stages[-1].name,
            "centralised": stages[-1].algorithm.centralised,
            "episodes": stages[-1].episodes or g.task.episodes,
            "final_episodes": g.final_episodes if stages[-1].algorithm.act else 0,
            "data_return": data_return(g.manifest),
            "optimum": g.task.optimum,
            "scale": g.scale,
            "normaliser": g.task.scale._asdict() if g.task.scale else None,
            "versions": versions(),
            "source": source(),
            "device": f"{jax.devices()[0].device_kind} x{jax.device_count()}",
            "precision": {"matmul": precision(), "evaluation": "highest"},
            "jax": settings(),
            **named,
        }

    def stage(self, index: int, stage: Stage, trained: Trained) -> None:
        """Take a finished stage's histories."""
        batches = trained.facts.get("batches", [trained.facts])
        self.facts[stage.name] = batches[0] if len(batches) == 1 else {"batches": batches}
        chunk, chunks = chunking(stage)
        steps = chunk * np.arange(1, chunks + 1)
        evaluated = chunk * np.array([0, *marks(stage)])
        for r, info in enumerate(self.infos):
            metrics = {k: v[r] for k, v in trained.metrics.items()}
            self.rows["metrics"][r] += store.metrics_rows(info, stage.name, steps, metrics)
            if trained.evaluations:
                shown = {k: v[r] for k, v in trained.evaluations.items()}
                self.rows["returns"][r] += store.returns_rows(info, stage.name, evaluated, shown)
        self.write()

    def write(self) -> None:
        """Files of every run as far as they are known."""
        if self.out is None:
            return
        done = sum(f.get("seconds", 0.0) for f in self.facts.values())
        compiled = sum(f.get("compile_seconds", 0.0) for f in self.facts.values())
        executed = sum(f.get("updates_executed", 0) for f in self.facts.values())
        cost = {
            "seconds": round(done, 3),
            "compile_seconds": round(compiled, 3),
            "updates_executed": executed,
        }
        for r, folder in enumerate(self.folders):
            store.write_json(folder / "run.json", {**self.infos[r], **cost, "stages": self.facts})
            for name, rows in self.rows.items():
                store.write_table(folder / f"{name}.csv", rows[r], store.COLUMNS)

    def roll_out(
        self, state: Any, past: Past, say: Callable[[str], None], stopped: Callable[[], bool]
    ) -> None:
        """The final evaluation of every run whose final.csv does not hold it yet; raises Interrupted when stopped."""
        g = self.group
        last = g.system.pipeline(g.task.env.spec, g.cfgs[0], None)[-1]
        if last.algorithm.act is None:
            return

        def pause() -> None:
            if stopped():
                raise Interrupted

        kept = [self.kept_final(r, last, say) for r in range(len(g.seeds))]
        missing = [r for r, rows in enumerate(kept) if rows is None]
        if missing:
            say(
                f"  {g.name}: final evaluation of {len(missing)} runs, {g.final_episodes} fresh episodes each"
            )
            rows = np.array(missing)
            own_state, own_past = jax.tree.map(lambda x: x[rows], (state, past))
            cfgs, seeds = [g.cfgs[r] for r in missing], [g.seeds[r] for r in missing]
            env, pipeline = g.task.env, g.system.pipeline
            shown = roll_out(
                env,
                pipeline,
                env.spec,
                cfgs,
                seeds,
                own_state,
                own_past,
                g.final_episodes,
                pause=pause,
            )
            for k, r in enumerate(missing):
                mine = {name: values[k : k + 1] for name, values in shown.items()}
                kept[r] = store.returns_rows(
                    self.infos[r], last.name, np.array([last_step(last)]), mine
                )
                if self.out is not None:
                    store.write_table(self.folders[r] / store.FINAL, kept[r] or (), store.COLUMNS)
        self.final = [row for rows in kept for row in rows or ()]

    def kept_final(self, r: int, last: Stage, say: Callable[[str], None]) -> list[store.Row] | None:
        """The rows of a run's final.csv, as many episodes as asked; None where there is none, it is torn or too short.

        A longer one stays: start e is the same however many were asked for.
        """
        file = self.folders[r] / store.FINAL
        if self.out is None or not file.exists():
            return None
        try:
            rows = store.read_rows(file)
        except JaxomarlError:
            say(f"  {file} is torn: it is made again")
            return None
        asked, found = self.group.final_episodes, sum(row.metric == "return" for row in rows)
        if found < asked:
            say(f"  {file} has {found} episodes: it is made again with {asked}")
            return None
        same = all((row.stage, row.step) == (last.name, last_step(last)) for row in rows)
        return [row for row in rows if int(row.episode) < asked] if same else None

    def finish(self, state: Any, past: Past) -> None:
        """Final policies and the group's DONE."""
        if self.out is None:
            return
        g = self.group
        algorithm = g.system.pipeline(g.task.env.spec, g.cfgs[0], None)[-1].algorithm
        if algorithm.act is not None:
            save_policies(self.folders, algorithm, state, past, g.task.env.spec)
        store.write_json(self.folder / "DONE", {"runs": [f.name for f in self.folders]})

    @property
    def runs(self) -> list[store.Run]:
        """As the report reads them."""
        return [store.Run(f, i) for f, i in zip(self.folders, self.infos, strict=True)]


def train_groups(
    groups: Sequence[Group],
    out: Path | None,
    sources: Sequence[Path] = (),
    report: Callable[[Group, Progress], None] = lambda group, progress: None,
    stopped: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = print,
) -> Results:
    """Train every group, sharing stages, and write what there is to write; raises Interrupted with all work saved."""
    library = Library(*([out / "stages"] if out else []), *(s / "stages" for s in sources))
    past, rows, final, runs = [], [], [], []
    for group in groups:
        writer, env = Writer(out, group), group.task.env
        spec = env.spec
        job = Job(
            system=group.system,
            spec=spec,
            cfgs=group.cfgs,
            seeds=group.seeds,
            data=group.system.prepare(spec, group.cfgs[0], group.data) if group.data else None,
            stats=statistics(group.data) if group.data else identity(spec),
            env=env,
            episodes=group.task.episodes,
            facts={
                "task": group.task.name,
                "dialect": spec.dialect,
                "data": group.manifest["sha256"],
            },
            library=library,
            report=lambda progress, group=group: report(group, progress),
            stopped=stopped,
            finished=writer.stage,
            say=say,
        )
        done = run(job)
        last = group.system.pipeline(spec, group.cfgs[0], env if group.system.online else None)[
            -1
        ].name
        finished = done[last], {k: v for k, v in done.items() if k != last}
        writer.roll_out(*finished, say, stopped)
        writer.finish(*finished)
        past.append((group, done))
        runs += writer.runs
        rows += [row for one in writer.rows["returns"] for row in one]
        final += writer.final
    records = tables.summary(rows, runs, final)
    if out:
        compared = differences.markdown(differences.differences(records, final))
        tables.write_summary(out, records, compared)
    return Results(out, records, runs, rows, final, past)


def data_return(manifest: Mapping[str, Any]) -> dict[str, float] | None:
    """Mean and standard deviation of the data's episode returns, and how many there are; None without data."""
    if "return" not in manifest:
        return None
    held = manifest["return"]
    return {"mean": held["mean"], "std": held["std"], "episodes": manifest["episodes"]}


def asked(
    preset: str,
    overrides: Mapping[str, Sequence[Any]],
    rows: int,
    episodes: int,
    scale: float,
    final_episodes: int = 0,
) -> dict[str, Any]:
    """What must agree for two commands to share a folder: all but systems, tasks, seeds and further swept values.

    More final episodes than before may be asked for: training does not depend on them.
    """
    fields = {f"cfg.{k}": list(v) for k, v in overrides.items()}
    final = {MORE: final_episodes} if final_episodes else {}
    return {
        "preset": preset,
        "rows": rows,
        "episodes": episodes,
        "scale": scale,
        **final,
        **rounded(),
        **fields,
    }


def extends(before: Any, now: Any) -> bool:
    """Whether a setting is what it was, or a sweep of a field that had one value, or fewer of them."""
    if isinstance(now, list) and (before is None or isinstance(before, list)):
        return set(before or ()) <= set(now) and (before is not None or len(now) > 1)
    return before == now


def default_folder(groups: Sequence[Group], preset: str) -> Path:
    """runs/<task>-<preset>, or a digest where there are several tasks."""
    names = sorted({f"{g.task.name}-{g.quality}".replace("/", "-") for g in groups})
    return Path("runs") / f"{names[0] if len(names) == 1 else digest(names)[:8]}-{preset}"
