"""Every reader of files, arrays and flags: a good sample of each, how it is damaged, and what a right read of it is."""

import contextlib
import functools
import hashlib
import io
import json
import shutil
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from damage import CELLS, DEEP, VALUES, harm_bytes, harm_csv, harm_header, harm_json, harm_odd

from jaxomarl.base import JaxomarlError

TESTS = Path(__file__).parents[1]
REPOSITORY = TESTS.parent
TIMES = [1, 1, 1, 3]
"""How often a sample is damaged."""
DAMAGED = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OSError,
    RecursionError,
    struct.error,
)
"""What a file raises that an earlier damage has left without the entry that was to be changed."""


class Reader(NamedTuple):
    """A row of READERS."""

    share: int
    """How many of 100 malformed inputs are of this kind."""
    make: Callable[[Path], Path]
    """Writes a good sample below a folder, and says where."""
    harm: Callable[[Path, Any], str]
    """Damages it."""
    read: Callable[[Path, Any], Any]
    """Reads it: a JaxomarlError, or what it holds, once that is known to be sound."""
    warm: int = 20
    """How many undamaged samples are read first."""
    exact: bool = False
    """Whether bytes that are not as they were are refused, or read as what they were."""


class UnsoundError(Exception):
    """A read that no error ended, and that is not right."""


def sealed(rng, name="sha256"):
    """How the entries of a file with a digest among them are written: it fits them, or it does not."""
    from jaxomarl import documents

    def fits(entries):
        rest = {key: value for key, value in entries.items() if key != name}
        return {**rest, name: documents.seal(rest)}

    return rng.choice([fits, fits, lambda entries: entries])


# --- sets of other people ---


def foreign_set(name, folder):
    """A small good set of a format."""
    sys.path.insert(0, str(TESTS / "data"))
    import foreign

    from jaxomarl.data import formats

    r = foreign.rows([4, 3, 4], obs_dims=(3, 3), act_dims=(2, 2), died=[1], shared=True)
    if name == "pymarl":
        random = np.random.default_rng(0)
        numbers = r._replace(action=[random.integers(0, 3, (11, 1)) for _ in range(2)])
        return foreign.pymarl(folder / "pymarl.h5", numbers, 3)
    if name == "omiga":
        return foreign.omiga(folder / "omiga.hdf5", r)
    if name == "vault":
        return foreign.vault(folder / "some.vlt" / "vault", foreign.leaves(r))
    if name == "madiff":
        return foreign.madiff(folder / "madiff", r)
    omar = foreign.omar(folder / "omar", r, flags="ended", states=True)
    if name == "minari":
        formats.write(folder / "minari", formats.read(omar), "minari")
        return folder / "minari"
    return omar


def harm_set(path, rng):
    """Damage bytes, or an entry of a JSON file where there is one."""
    notes = [p for p in path.rglob("*.json") if p.is_file()]
    if notes and rng.random() < 0.3:
        with contextlib.suppress(*DAMAGED):
            return harm_json(rng.choice(notes), rng)
    return harm_bytes(path, rng)


def read_set(name, path, rng):
    """Read a set as its own format, as whatever it looks like, or for a card of it."""
    from jaxomarl.data import formats

    way = rng.choice(["own", "own", "any", "any", "card"])
    if way == "card":
        return command("data", ["describe", str(path)])
    raw = formats.FORMATS[name].read(path) if way == "own" else formats.read(path)
    check_rows(raw)


def check_rows(raw):
    """A read that no error ended has all that `Raw` promises."""
    rows, n = len(raw.step), raw.agents
    assert rows and n == len(raw.action)
    assert all(
        x.dtype == np.float32 and x.ndim == 2 and len(x) == rows for x in (*raw.obs, *raw.action)
    )
    assert raw.reward.shape == (rows, n) and raw.reward.dtype == np.float32
    for name in ("done", "step", "left", "known", "behaviour"):
        assert getattr(raw, name).shape == (rows,), name
    assert raw.state is None or (raw.state.ndim == 2 and len(raw.state) == rows)
    assert raw.available is None or raw.available.shape == (rows, n, raw.action[0].shape[1])
    first = np.flatnonzero(raw.step == 0)
    np.testing.assert_array_equal(np.flatnonzero(raw.left == 0), [*(first[1:] - 1), rows - 1])
    assert (np.diff(raw.step)[np.diff(raw.step) != 1] < 0).all()
    json.dumps([raw.evidence, raw.repairs, raw.dialects, raw.quality])


# --- our own sets ---


@functools.cache
def bandit():
    from jaxomarl.envs.catalog import make

    return make("games/bandit")


def own_set(folder):
    from jaxomarl.data import catalog, files

    files.save_folder(folder / "own", *catalog.load(bandit(), rows=16))
    return folder / "own"


def harm_own_set(path, rng):
    """Damage bytes, an entry of the manifest, or the arrays' description."""
    from jaxomarl.data import files

    kind = rng.choice(["bytes", "manifest", "manifest", "header"])
    if kind == "header" and (path / files.ARRAYS).exists():
        with contextlib.suppress(*DAMAGED):
            return harm_header(path / files.ARRAYS, rng)
    if kind == "manifest" and (path / files.MANIFEST).exists():
        with contextlib.suppress(*DAMAGED):
            return harm_json(path / files.MANIFEST, rng, sealed(rng, files.SEAL))
    return harm_bytes(path, rng)


def read_own_set(path, rng):
    from jaxomarl.data import catalog
    from jaxomarl.data.dataset import content_hash

    way = rng.choice(["load", "load", "load", "describe", "validate"])
    if way != "load":
        return command("data", [way, str(path), "--task", "games/bandit"])
    return content_hash(catalog.load(bandit(), str(path))[0])


# --- episodes in memory ---


def no_file(folder):
    (folder / "nothing").mkdir(exist_ok=True)
    return folder / "nothing"


def read_episodes(path, rng):
    """Episodes of a game, with some entry of another kind."""
    import jaxomarl

    spec = bandit().env.spec
    steps, n = 1, spec.agents
    episodes: list[Any] = [
        {
            "obs": np.zeros((steps + 1, n, spec.obs_width)),
            "action": np.zeros((steps, n, spec.act_width)),
            "reward": np.zeros((steps, n)),
            "state": np.zeros((steps + 1, spec.state_dim)),
            "terminated": np.ones(steps),
            "truncated": np.zeros(steps),
        }
        for _ in range(3)
    ]
    episode = rng.choice(episodes)
    for _ in range(rng.choice(TIMES)):
        name = rng.choice([*episode, "available", "another"])
        array = np.asarray(episode.get(name, 0.0))
        flat = array.astype(object).ravel()
        if flat.size:
            flat[0] = rng.choice(VALUES)
        changes: list[Callable[[], Any]] = [
            lambda: rng.choice(VALUES),
            lambda array=array: array[..., :-1] if array.ndim else array,
            lambda array=array: array[None],
            lambda array=array: np.full_like(array, rng.choice([np.nan, np.inf, 2.0, -1e30, 1e300])),
            lambda array=array: array.astype(rng.choice(["i8", "c8", "?", "U8", "O", "M8[s]", "V4"])),
            lambda array=array, flat=flat: flat.reshape(array.shape),
            lambda array=array: array.tolist(),
            lambda array=array: np.repeat(array[None], 3, axis=0),
        ]  # fmt: skip
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            episode[name] = rng.choice(changes)()
    what: Any = rng.choice([episodes, episodes, episodes, episodes, episode, rng.choice(VALUES)])
    jaxomarl.from_arrays(what, rng.choice(["games/bandit", "games/bandit", "mpe/spread"]))


# --- files of torch, and prey ---


def torch_files(folder):
    out = folder / "torch"
    shutil.copytree(TESTS / "data" / "files", out, ignore=shutil.ignore_patterns("*.py", "__*"))
    assets = REPOSITORY / "jaxomarl" / "assets" / "mpe"
    shutil.copy(assets / "tag-prey.safetensors", out)
    return out


def harm_torch(path, rng):
    prey = path / "tag-prey.safetensors"
    if prey.exists() and rng.random() < 0.2:
        with contextlib.suppress(*DAMAGED):
            return harm_header(prey, rng)
    return harm_bytes(path, rng)


def read_torch(path, rng):
    from jaxomarl import torchfile
    from jaxomarl.envs.mpe import prey

    file = rng.choice(sorted(path.iterdir()))
    if file.suffix == ".pt":
        arrays = torchfile.tensors(torchfile.load(file))
        assert all(isinstance(x, np.ndarray) and x.flags.owndata for x in arrays.values())
        assert sum(x.nbytes for x in arrays.values()) <= torchfile.LIMIT
        return
    own = prey.own("tag").kernels[0].shape[0]
    found, dialect = prey.load_prey(file, "tag", own)
    assert all(np.isfinite(x).all() for x in (*found.kernels, *found.biases)), dialect


# --- checkpoints and stages ---


def two_checkpoints(folder):
    from jaxomarl.training import checkpoint

    for step in (1, 2):
        checkpoint.save(folder / "c", step, tree(step))
    return folder / "c"


def tree(step):
    rng = np.random.default_rng(step)
    return {"w": rng.random((2, 64, 64)).astype(np.float32), "n": np.int32(step)}


def read_checkpoint(path, rng):
    """The newest good one, or none at all: training then begins again."""
    from jaxomarl.training import checkpoint

    found = checkpoint.restore(path, tree(0), lambda line: None)
    if found is None:
        return "right"
    right = tree(found[0])
    if not all(np.array_equal(np.asarray(found[1][k]), right[k]) for k in right):
        raise UnsoundError(f"checkpoint {found[0]} was read as something else")
    return "right"


def sweep_folder(folder):
    """OUT of a finished sweep: the kept one of the newest format, with a card, costs and divergences."""
    from jaxomarl.training import divergence

    out = folder / "out"
    newest = max((TESTS / "fixtures").glob("format-*.zip"), key=lambda p: int(p.stem.split("-")[1]))
    with zipfile.ZipFile(newest) as archive:
        archive.extractall(out)
    (stage,) = (out / "stages").iterdir()
    rows = json.loads((stage / "DONE").read_text())["rows"]
    divergence.write(stage, {rows[0]: divergence.Divergence(3, "loss", "actor.w")}, {"x"})
    command("data", ["describe", "games/bandit/std0.3", "--rows", "16", "--out", str(out / "set")])
    return out


@functools.cache
def asked_for(text):
    return json.loads(text)["asked"]


def harm_sweep(path, rng):
    """Damage sweep.json, sealed or not."""
    file = path / "sweep.json"
    if file.exists() and rng.random() < 0.7:
        with contextlib.suppress(*DAMAGED):
            return harm_json(file, rng, sealed(rng))
    return harm_bytes(file, rng) if file.exists() else harm_bytes(path, rng)


def read_sweep(path, rng):
    """Continue a folder, as --resume does before it trains."""
    from jaxomarl.api import session

    asked = asked_for((path.parent / "good-sweep.json").read_text())
    session.check_folder(path, asked, resume=False, overwrite=True)
    session.take_folder(path, asked, resume=True, overwrite=False, imports=["mine"])
    return session.read_sweep(path / "sweep.json", asked=dict)["asked"] == asked


def harm_stage(path, rng):
    """Damage what a stage's folder holds, sealed or not."""
    (stage,) = (path / "stages").iterdir()
    notes = [p for p in stage.iterdir() if p.is_file() and p.read_bytes()[:1] == b"{"]
    if notes and rng.random() < 0.6:
        with contextlib.suppress(*DAMAGED):
            return harm_json(rng.choice(notes), rng, sealed(rng))
    return harm_bytes(stage, rng)


@functools.cache
def good_stage(path):
    """(kind, rows, shapes of its arrays for U rows, its arrays) of the undamaged stage."""
    from jaxomarl.training import checkpoint, library

    (stage,) = (path / "stages").iterdir()
    said = library.read_done(stage / "DONE")
    found = checkpoint.orbax().load(str((stage / "checkpoints" / "2").absolute()))["tree"]

    def like(rows, every=None):
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype), found)

    return said["kind"], tuple(said["rows"]), like, jax.tree.map(np.asarray, found)


def read_stage(path, rng):
    """Look a finished stage up, as training does; it is found as it was, or not at all."""
    from jaxomarl.training import divergence, library

    kind, rows, like, whole = good_stage(path.parents[1] / "good-stage" / "out")
    cache = library.StageCache(path / "stages")
    say = lambda line: None
    cache.finished_rows(kind)
    for rows_begun, folder in cache.begun(kind):
        assert all(isinstance(row, str) for row in rows_begun) and folder.executed >= 0
    (stage,) = (path / "stages").iterdir()
    divergence.read(stage, 10)
    found = cache.find(kind, rows, 2, like, say)
    for trained in found:
        same = jax.tree.map(
            lambda a, b: np.array_equal(np.asarray(a), b, equal_nan=True),
            trained.state,
            whole["state"],
        )
        if trained.rows == rows and not all(jax.tree.leaves(same)):
            raise UnsoundError("a stage was read as something else")
    return "right"


# --- run folders ---


def harm_run(path, rng):
    """Damage a sweep's files; the digests of a run's folder then fit, do not fit, or are gone."""
    from jaxomarl.results import store

    runs = sorted(p.parent for p in path.rglob("run.json"))
    kind = rng.choice(["bytes", "json", "json", "json", "csv", "csv", "policy"])
    if kind == "bytes" or not runs:
        return harm_bytes(path, rng)
    run = rng.choice(runs)
    with contextlib.suppress(*DAMAGED):
        if kind == "json":
            others = [path / "sweep.json", path / "set" / "card.json"]
            what = harm_json(rng.choice([*[run / "run.json"] * 8, *others]), rng)
        elif kind == "csv":
            what = harm_csv(rng.choice(sorted(run.glob("*.csv"))), rng)
        else:
            what = harm_header(run / "policy.safetensors", rng)
        way = rng.choice(["fit", "fit", "gone", "as they were"])
        if way == "fit":
            store.seal(run)
        elif way == "gone":
            store.unseal(run)
        return f"{what}, digests {way}"
    return harm_bytes(path, rng)


def read_run(path, rng):
    """Read a sweep's runs for one of the commands."""
    return rng.choice(RUN_READS)(path)


def read_table(path):
    from jaxomarl.api.evaluate import found_runs
    from jaxomarl.results import store, tables

    runs = found_runs([path])
    records = tables.summary(store.load_returns(runs), runs, store.load_final(runs))
    tables.html(records)
    return tables.text(records)


def read_health(path):
    return command("health", [str(path)])


def read_for_keep(path):
    from jaxomarl.papers import keep

    runs = keep.scored_runs([path])
    settings = keep.settings_of(runs)
    keep.check_once(runs, settings)
    rows = [*keep.data_measures(runs)]
    for run in runs:
        rows += keep.run_measures(run, settings[run.path])
    return str(rows)


def read_report(path):
    return command("report", [str(path), "--out", str(path.parent / "page.html")])


def read_citation(path):
    return command("cite", [str(path)])


def read_policy(path):
    from jaxomarl.api.policy import load_policy
    from jaxomarl.results import store

    runs = store.find_runs([path])
    if not runs:
        return "none"
    policy = load_policy(runs[0].path)
    shapes = {jax.tree_util.keystr(k): x.shape for k, x in jax.tree.leaves_with_path(policy.state)}
    return str(sorted(shapes.items()))


def read_scores(path):
    return command("evaluate", [str(path), "--episodes", "8"])


RUN_READS = (*[read_table] * 3, *[read_policy] * 3, *[read_for_keep] * 2, read_health, read_report,
             read_citation, read_scores)  # fmt: skip


# --- the end of a sweep ---

KEPT_SWEEP = (
    *("--systems", "bc", "--tasks", "games/bandit", "--seeds", "2", "--rows", "100"),
    *("--final-episodes", "8", "--cfg.chunk", "10", "--cfg.every", "1"),
    *("--cfg.policy-steps", "20", "--cfg.policy-width", "8", "--no-compile-cache"),
)
"""Flags of the kept sweep."""
PRINTED: dict[str, str] = {}
"""What the undamaged sweep's end prints, by its OUT."""


class TrainsError(Exception):
    """A sweep whose end is not taken: it trains."""


@contextlib.contextmanager
def trained_by(train):
    """Sweeps that train by another function, and draw a file of some bytes."""
    from jaxomarl.api import session
    from jaxomarl.cli import commands

    def draw(results, out):
        (out / "returns.png").write_bytes(bytes(100))
        return [out / "returns.png"]

    before = session.train_groups, commands.draw
    session.train_groups, commands.draw = train, draw
    try:
        yield
    finally:
        session.train_groups, commands.draw = before


def ended_sweep(folder):
    """OUT of the kept sweep as one of today leaves it: with its DONE and a picture."""
    from jaxomarl import documents
    from jaxomarl.api import session
    from jaxomarl.numerics import rounded
    from jaxomarl.results import store, tables

    out = sweep_folder(folder)
    asked = json.loads((out / "sweep.json").read_text())["asked"]
    # as if it had been asked for under the settings of this process
    documents.write_sealed(out / "sweep.json", {"format": 2, "asked": {**asked, **rounded()}})

    def read_kept(groups, out, *rest):
        runs = store.find_runs([out])
        final = store.load_final(runs)
        records = tables.summary(store.load_returns(runs), runs, final)
        return session.Results(out, records, runs, [], final, [], groups)

    with trained_by(read_kept):
        command("sweep", [*KEPT_SWEEP, "--out", str(out), "--resume"])
    assert (out / "DONE").exists()
    PRINTED.pop("DONE", None)
    PRINTED[out.name] = read_ended(out, None)
    return out


def harm_ended(path, rng):
    """Damage DONE, sealed or not, or another file of OUT."""
    done = path / "DONE"
    if done.exists() and rng.random() < 0.6:
        with contextlib.suppress(*DAMAGED):
            return harm_json(
                done, rng, sealed(rng), rng.choice(["", "records", "pictures", "plan"])
            )
    return harm_bytes(done if done.exists() and rng.random() < 0.3 else path, rng)


def read_ended(path, rng):
    """Print a finished sweep again; training begins where its end is not as it was written."""

    def train(*args, **kwargs):
        raise TrainsError

    words = [*KEPT_SWEEP, "--out", str(path), "--resume"]
    before = (path / "DONE").read_bytes() if (path / "DONE").is_file() else b""
    with trained_by(train):
        try:
            text = command("sweep", words).replace(str(path.parent), "")
        except TrainsError:
            raise JaxomarlError("it trains again") from None
    if hashlib.sha256(before).hexdigest() == PRINTED.get("DONE") and text != PRINTED[path.name]:
        raise UnsoundError("another table was printed")
    PRINTED.setdefault("DONE", hashlib.sha256(before).hexdigest())
    return text


# --- the card's queue, and what benchmarks wrote ---

CARD_FLAGS = {
    "--minutes": (), "--max-files": (), "--max-mib": (), "--only": ("bc", "omsd-spread-expert", "x", ""),
    "--list": (None,), "--toy": (None,), "--x": (),
}  # fmt: skip
"""Those without values take NUMBERS."""


def queue_folder(folder):
    """The folder of a queue of which two cells are done, with lines of benchmarks and portions."""
    from benchmarks.card import queue
    from benchmarks.card.cells import ACCURACY, CELLS

    out = folder / "card"
    out.mkdir()
    state = queue.fresh(toy=True)
    for cell in CELLS[:4]:
        done = {"state": "done", "command": queue.command_of(cell, state), "seconds": 1.0}
        state["cells"][cell.name] = {**done, "calls": 1, "reason": "x"}
    state["packed"] = {"cells/x/summary.csv": "0" * 64}
    for name in ACCURACY:
        home = out / "cells" / name
        home.mkdir(parents=True)
        head = "system,mean_low,mean_high,coordinated,seeds"
        (home / "summary.csv").write_text(f"{head}\nomsd,0.7,0.8,1.0,16\n")
    queue.write(out, state)
    line = {
        **{"benchmark": "updates", "size": "game", "system": "bc", "stage": "policy", "agents": 2},
        **{"runs": 1, "updates_per_second": 10.0, "updates_per_second_high": 11.0, "load": 0.5},
        **{"seconds_per_update": 0.1, "seconds_per_update_low": 0.09, "machine": "two cores"},
    }
    for name in ("old", "new"):
        rows = [json.dumps({**line, "runs": runs}) for runs in (1, 4)]
        (out / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    from jaxomarl import documents

    documents.write_sealed(out / "portions.json", {"runs": 4})
    return out


def harm_queue(path, rng):
    kind = rng.choice(["bytes", "json", "json", "json", "lines", "lines", "csv"])
    with contextlib.suppress(*DAMAGED):
        if kind == "json":
            return harm_json(rng.choice(sorted(path.glob("*.json"))), rng, sealed(rng))
        if kind == "csv":
            return harm_csv(rng.choice(sorted(path.rglob("*.csv"))), rng)
        if kind == "lines":
            file = rng.choice(sorted(path.glob("*.jsonl")))
            first, *others = file.read_text().splitlines()
            file.write_text(first)
            what = harm_json(file, rng)
            file.write_text("\n".join([file.read_text(), *others]) + "\n")
            return what
    return harm_bytes(path, rng)


def read_queue(path, rng):
    """Ask for what the files say, as `make card`, benchmarks and a sweep do."""
    from benchmarks import compare, updates
    from benchmarks.card import __main__ as card
    from benchmarks.card import queue
    from benchmarks.card.cells import CELLS
    from benchmarks.card.takeaway import Bounds
    from jaxomarl.api import portions

    way = rng.choice(["state", "list", "compare", "resume", "portions", "flags"])
    if way == "portions":
        assert portions.begun_with(path / "portions.json") > 0
    elif way == "compare":
        return printed(compare.main, [str(path / "old.jsonl"), str(path / "new.jsonl")])
    elif way == "resume":
        flags = updates.Flags(runs=(1, 4), out=path / "old.jsonl", resume=True)
        return len(updates.kept_lines(flags))
    elif way == "state":
        state = queue.read(path, toy=True)
        queue.judge_half(path, state, CELLS)
        packed = queue.pack(path, state, CELLS, Bounds(3, 2.0), state["packed"])
        assert all(name in packed.digests for name in packed.digests)
        queue.write(path, state)
        return str(queue.read(path, toy=True) == state)
    else:
        words = ["--out", str(path), "--list", "--toy"]
        if way == "flags":
            for flag in rng.sample(sorted(CARD_FLAGS), rng.choice([1, 1, 2])):
                value = rng.choice(CARD_FLAGS[flag] or NUMBERS)
                words += [flag] if value is None else [flag, value]
        return printed(card.main, words)


def printed(main, words):
    """What a command of benchmarks prints; a refusal is raised."""
    said, out = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(out):
        try:
            code = main(words)
        except SystemExit as stop:
            code = stop.code
    text = said.getvalue()
    if code in (2, 74) and "Traceback" not in text:
        raise JaxomarlError(text[-3000:])
    if code not in (0, 1):
        raise UnsoundError(f"exit code {code}: {text[-300:]}")
    return out.getvalue()


# --- kept evidence ---

ON_RECORD = ("measured.csv", "stages.csv", "provenance.json")


def evidence(folder):
    out = folder / "evidence"
    for name in ON_RECORD:
        out.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / "docs" / "evidence" / "omsd-table1" / name, out)
    line = {"benchmark": "acting", "system": "bc", "size": "small", "agents": 2, "teams": 1, "calls": 1}  # fmt: skip
    line |= {"seconds": 1.0, "seconds_low": 0.5, "seconds_high": 2.0, "load": 0.1}
    (out / "acting.jsonl").write_text(json.dumps(line) + "\n")
    return out


def harm_evidence(path, rng):
    kind = rng.choice(["bytes", "csv", "csv", "json", "json"])
    with contextlib.suppress(*DAMAGED):
        if kind == "csv":
            return harm_csv(rng.choice(sorted(path.glob("*.csv"))), rng)
        if kind == "json":
            return harm_json(rng.choice(sorted(path.glob("*.json*"))), rng)
    return harm_bytes(path, rng)


def read_evidence(path, rng):
    from jaxomarl.papers import keep
    from jaxomarl.papers.verdicts.evidence import load_evidence, stages_shown

    if rng.random() < 0.5:
        facts = keep.joint_facts([path])
        rows, stages = keep.other_measures([path])
        json.dumps(facts)
        return len(rows) + len(stages)
    found = load_evidence(path)
    if found is not None:
        stages_shown(found, "")
    return found is not None


# --- verdicts ---


def all_evidence(folder):
    """The tables of the checkout's evidence, the largest shortened."""
    out = folder / "record"
    for home in sorted((REPOSITORY / "docs" / "evidence").iterdir()):
        (out / home.name).mkdir(parents=True)
        for name in ON_RECORD:
            if (home / name).exists():
                shutil.copy(home / name, out / home.name)
    return out


def harm_record(path, rng):
    """Damage a table of one folder."""
    home = rng.choice(sorted(p for p in path.iterdir() if p.name != "one-step"))
    return harm_evidence(home, rng)


def read_verdicts(path, rng):
    """Judge all claims."""
    return command("reproduce", ["verdicts", "--from", str(path), "--out", str(path.parent / "v")])


# --- what is no regular file ---


SAMPLES: dict[str, Path] = {}
"""Reader -> its sample below its folder."""


def one_of_each(folder):
    """A good sample of every reader of files, in a folder of its own."""
    out = folder / "all"
    for name, row in FILES.items():
        home = out / name
        home.mkdir(parents=True)
        SAMPLES[name] = row.make(home).relative_to(home)
    return out


def harm_any(path, rng):
    """Put a link, a pipe, a folder or something huge in the place of a file of some reader."""
    outside = path.parent / "outside"
    if not outside.exists():
        outside.mkdir()
        (outside / "canary").write_text("canary")
    file = path / "chosen"
    if not file.exists():
        file.write_text(rng.choice(list(FILES)))
    name = file.read_text()
    with contextlib.suppress(*DAMAGED):
        return f"{name}: {harm_odd(sample_of(path, name), rng, outside)}"
    return f"{name}: nothing left"


def sample_of(path, name):
    """Where a reader's sample is; it may be a file."""
    return path / name / SAMPLES[name]


def read_any(path, rng):
    """Read it by its reader; what is outside stays as it is."""
    name = (path / "chosen").read_text() if (path / "chosen").exists() else rng.choice(list(FILES))
    outside = path.parent / "outside"
    try:
        return FILES[name].read(sample_of(path, name), rng)
    finally:
        if outside.exists() and (outside / "canary").read_text() != "canary":
            raise UnsoundError("a file outside was changed")
        if {p.name for p in outside.glob("*")} - {"canary", "moved"}:
            raise UnsoundError("a file was written outside")


# --- commands ---


def command(name, words):
    """What a command prints; a refusal is raised, and anything else than the documented ends is unsound."""
    from jaxomarl.cli import commands

    said, out = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(out):
        try:
            code = commands.run(name, list(words))
        except SystemExit as stop:
            code = stop.code
    text = said.getvalue()
    if code in (2, 71, 74) and "error: " in text and "Traceback" not in text:
        raise JaxomarlError(text[-3000:])
    if code not in (0, 1, 130):
        raise UnsoundError(f"exit code {code}: {text[-300:]}")
    return out.getvalue()


NAMES = ("bc", "omsd", "iql", "bc+coda", "madt", "", "x", "BC", "../bc", "a\0b", "bc bc", "\ud800")
TASKS = ("games/bandit", "mpe/spread", "games/bandit:n=3", "mpe/spread:speed_min=x", "games/bandit:n=",
         "games/bandit:n=999999999", "mpe/tag:prey=/x", "mamujoco/x", "/", "games/", "jaxmarl/x", "smax/x", "")  # fmt: skip
NUMBERS = ("0", "1", "2", "16", "-1", "0.5", "1e9", "1e400", "nan", "x", "", "99999999999999999999", "1:", ":", "3:1",
           "0,0", "1,,2", "0:99999999999", "\u0663", "1_0")  # fmt: skip
PATHS = (
    "{}/new",
    "{}/there",
    "{}/a file",
    "/proc/none/x",
    "",
    "~nobody/x",
    "a\0b",
    "x" * 300,
    "{}/run",
    "/dev/null",
)
"""{} is the folder of the case."""
RECIPE = "games/bandit/std0.3"
TRAINED = {
    "--seeds": NUMBERS, "--rows": NUMBERS, "--episodes": NUMBERS, "--final-episodes": NUMBERS, "--scale": NUMBERS,
    "--preset": (*NAMES, "small"), "--out": PATHS, "--from": PATHS, "--augment": ("coda", *NAMES),
    "--precision": ("float32", *NAMES), "--memory": ("1GiB", "1B", "9TiB", *NUMBERS), "--save-every": NUMBERS,
    "--log": ("csv", *NAMES), "--hosts": NUMBERS, "--host": NUMBERS, "--cfg.beta": NUMBERS, "--cfg.policy-lr": NUMBERS,
    "--cfg.policy-width": NUMBERS, "--cfg.policy-steps": NUMBERS, "--cfg.chunk": NUMBERS, "--cfg.x": NUMBERS,
    "--resume": (None,), "--overwrite": (None,), "--deterministic": (None,), "--no": (None,),
    "--import": ("x", "", "../x.py", "json", "{}/a file"),
}  # fmt: skip
FLAGS = {
    "train": {**TRAINED, "--task": TASKS, "--data": ("std0.3", *NAMES, *PATHS)},
    "sweep": {
        **TRAINED, "--systems": NAMES, "--tasks": TASKS, "--data": ("std0.3", *NAMES, *PATHS), "--launcher": ("x", ""),
        "--tries": NUMBERS, "--at-once": NUMBERS, "--slurm": ("a=b", "a", "=", ""),
    },
    "collect": {"--quality": NAMES, "--rows": NUMBERS, "--seed": NUMBERS, "--out": PATHS, "--overwrite": (None,)},
    "evaluate": {"--task": TASKS, "--episodes": ("1", "x", "-1", "nan")},
    "render": {"--episodes": NUMBERS, "--seed": NUMBERS, "--fps": NUMBERS, "--out": PATHS},
    "export": {"--out": PATHS}, "report": {"--out": (*PATHS, "{}/x.html")}, "keep": {"--out": PATHS},
    "list": {"--x": NUMBERS}, "show": {"--task": TASKS, "--data": NAMES, "--preset": NAMES}, "doctor": {"--missing": (None,)},
    "cite": {}, "health": {}, "data": {"--task": TASKS, "--rows": NUMBERS, "--to": ("omar", "jaxomarl", "x")},
    "reproduce": {"--seeds": NUMBERS, "--scale": NUMBERS}, "x": {}, "": {},
}  # fmt: skip
WORDS = {
    "train": NAMES, "collect": TASKS, "evaluate": PATHS, "render": PATHS, "export": PATHS, "report": PATHS, "keep": PATHS,
    "list": ("systems", "tasks", "presets", "tables", "data", *NAMES), "show": NAMES, "cite": PATHS, "health": PATHS,
    "data": ("describe", "validate", "convert", "diff", *PATHS, *TASKS, RECIPE),
    "reproduce": ("x", "", "omsd-table9", "../x"), "x": NUMBERS, "": ("--help", "-h", "--version", *NAMES),
}  # fmt: skip


MORE_TRAINED = {
    "--dry-run": (None,), "--compile-cache": (None,), "--no-compile-cache": (None,), "--out": PATHS, "--rows": NUMBERS,
    "--seeds": NUMBERS, "--preset": ("mode-seeking", "paper-code", *NAMES), "--held-out": NUMBERS,
}  # fmt: skip
MORE_FLAGS = {
    "train": {**MORE_TRAINED, "--task": TASKS}, "sweep": {**MORE_TRAINED, "--tasks": TASKS},
    "render": {"--size": NUMBERS, "--frames": NUMBERS, "--trails": (None,), "--out": PATHS},
    "behaviours": {"--steps": NUMBERS, "--out": PATHS},
    "reproduce": {
        "--from": PATHS, "--out": PATHS, "--systems": NAMES, "--tasks": TASKS, "--data": NAMES, "--episodes": NUMBERS,
        "--rows": NUMBERS, "--final-episodes": NUMBERS, "--precision": NAMES, "--cfg.x": NUMBERS,
    },
    "data": {"--json": (None,), "--to": ("omar", "jaxomarl", "x"), "--out": PATHS, "--task": TASKS},
    "evaluate": {"--import": ("x", ""), "--no-compile-cache": (None,), "--task": TASKS},
    "export": {"--out": PATHS, "--import": ("x", ""), "--no-compile-cache": (None,)},
}  # fmt: skip
"""What has come since, with the words of `MORE_WORDS`."""
MORE_WORDS = {
    **WORDS,
    "behaviours": ("x", "", "../x"),
    "reproduce": ("verdicts", "verdicts", "x", ""),
}


def harm_flags(path, rng, flags=FLAGS, words_of=WORDS):
    """Choose a command line of which some words mean nothing."""
    (path / "a file").touch()
    (path / "there").mkdir(exist_ok=True)
    name = rng.choice([*flags, "train", "train", "train", "sweep", "sweep", "data"])
    words = [
        rng.choice(words_of[name])
        for _ in range(rng.choice([0, 1, 1, 1, 2, 3]))
        if name in words_of
    ]
    own = flags[name]
    chosen = rng.sample(sorted(own), min(len(own), rng.choice([0, 1, 1, 2, 3])))
    given = {flag: rng.choice(own[flag]) for flag in chosen}
    if name in ("train", "sweep"):
        # as small as it can be, where nothing else is asked
        given = {"--rows": "64", "--seeds": "1", "--out": "{}/new", **given}
        if name == "train":
            given.setdefault("--task", "games/bandit")
            words = words or ["bc"]
        else:
            given.setdefault("--systems", "bc")
    elif name == "collect" or (name == "data" and not set(words).isdisjoint((*TASKS, RECIPE))):
        given.setdefault("--rows", "64")
    for flag, value in given.items():
        words += [flag] if value is None else rng.choice([[flag, value], [f"{flag}={value}"]])
    if rng.random() < 0.1:
        words.insert(rng.randrange(len(words) + 1), rng.choice(CELLS))
    words = [*([name] if name else []), *words]
    (path / "words").write_text(json.dumps(words))
    return ascii(" ".join(words))[:300]


def read_flags(path, rng):
    """Do what a command line asks for, up to its first update."""
    from jaxomarl.api import session
    from jaxomarl.training.runner import Interrupted

    def train(*args, **kwargs):
        raise Interrupted

    if not (path / "words").exists():
        harm_flags(path, rng)
    words = json.loads((path / "words").read_text())
    before = session.train_groups
    session.train_groups = train
    try:
        return command("", [word.replace("{}", str(path)) for word in words])
    finally:
        session.train_groups = before


READERS: dict[str, Reader] = {
    **{
        name: Reader(
            share, functools.partial(foreign_set, name), harm_set, functools.partial(read_set, name)
        )
        for name, share in {"omar": 5, "madiff": 4, "omiga": 5, "pymarl": 4, "minari": 4, "vault": 3}.items()
    },
    "own set": Reader(9, own_set, harm_own_set, read_own_set),
    "arrays": Reader(4, no_file, lambda path, rng: "", read_episodes),
    "torch and prey": Reader(7, torch_files, harm_torch, read_torch),
    "checkpoint": Reader(7, two_checkpoints, harm_bytes, read_checkpoint),
    "stage": Reader(7, sweep_folder, harm_stage, read_stage),
    "sweep.json": Reader(5, sweep_folder, harm_sweep, read_sweep),
    "run folder": Reader(14, sweep_folder, harm_run, read_run, warm=6, exact=True),
    "ended sweep": Reader(4, ended_sweep, harm_ended, read_ended, warm=2, exact=True),
    "card and benchmarks": Reader(3, queue_folder, harm_queue, read_queue),
    "evidence": Reader(3, evidence, harm_evidence, read_evidence),
    "verdicts": Reader(1, all_evidence, harm_record, read_verdicts, warm=2),
    "odd files": Reader(2, one_of_each, harm_any, read_any, warm=4),
    "flags": Reader(8, no_file, harm_flags, read_flags, warm=3),
    "more flags": Reader(
        1,
        no_file,
        functools.partial(harm_flags, flags=MORE_FLAGS, words_of=MORE_WORDS),
        read_flags,
        warm=3,
    ),
}  # fmt: skip
FILES = {name: READERS[name] for name in (
    "omar", "madiff", "omiga", "pymarl", "minari", "vault", "own set", "torch and prey", "checkpoint", "run folder",
    "ended sweep", "card and benchmarks", "evidence",
)}  # fmt: skip
"""Readers of files alone."""
assert sum(row.share for row in READERS.values()) == 100
__all__ = ["DEEP", "READERS", "Reader", "UnsoundError"]
