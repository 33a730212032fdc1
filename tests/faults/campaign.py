"""Kills, signals, damage, malformed inputs and full disks by the hundred: `python tests/faults/campaign.py OUT`.

`make faults` runs it at full length. Each part does one kind of harm to tiny sweeps again and again and compares the
numbers in the end, tables and policies to the byte, with those of a sweep that nothing disturbed. It prints a line for
each kind, and writes them as a table with `--write FILE`.

Counts are kept in OUT/counts.json after each sweep, so that a campaign that was stopped goes on, and parts can be run
one by one (`--parts NAME ...`). What is done to a file, or asked of a reader, depends on the seed and its number alone.
Seconds are of processors: the machine may be busy with something else.
"""

import argparse
import contextlib
import importlib.metadata
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from conftest import ROOT, SMALL, Sweeps

CELLS = {"games": (), "particles": ("--tasks", "mpe/spread")}
"""Cell -> flags of its sweep."""
SETTINGS = {
    "rows": 64, "seeds": 2, "episodes": 2, "final-episodes": 2, "save-every": 0, "cfg.chunk": 2, "cfg.every": 1,
    "cfg.policy-steps": 8, "cfg.policy-batch": 8, "cfg.policy-width": 8,
}  # fmt: skip
ONE_STAGE = ("--systems", "bc", *(x for k, v in SETTINGS.items() for x in (f"--{k}", str(v))))
"""Flags of the sweep whose files are damaged: it has one of each kind."""
CODES = {signal.SIGINT: 130, signal.SIGTERM: 75, signal.SIGUSR1: 75}
DISKS = ("4k", "16k", "32k", "64k", "128k", "256k", "512k")
PARTS = ("kills", "signals", "flips", "torn", "disks", "writers", "nan", "malformed")
MOST = 20
"""Kills of one sweep; then it comes through."""
PORTION = 100
"""Malformed inputs of one process."""
LINE = "| {:<36} | {:>6} | {:>11} | {:>7} | {} |"
COLUMNS = ("harm", "times", "differences", "seconds", "how it ended")
HEAD = (LINE.format(*COLUMNS), "|---|---:|---:|---:|---|")


class Tally:
    """What is known of one kind of harm; it is kept in a file with the others."""

    def __init__(self, file: Path, kind: str) -> None:
        self.file = file
        self.kind = kind
        self.every = json.loads(file.read_text()) if file.exists() else {}
        own = self.every.get(kind, {})
        self.done: int = own.get("done", 0)
        self.different: int = own.get("different", 0)
        self.rounds: int = own.get("rounds", 0)
        self.ends: Counter[str] = Counter(own.get("ends", {}))
        self.seconds: float = own.get("seconds", 0.0)
        self.before = processor_seconds()

    def keep(self) -> None:
        """Write what is known by now."""
        now = processor_seconds()
        self.seconds += now - self.before
        self.before = now
        self.every = json.loads(self.file.read_text()) if self.file.exists() else {}
        self.every[self.kind] = {
            "done": self.done,
            "different": self.different,
            "rounds": self.rounds,
            "ends": dict(self.ends),
            "seconds": round(self.seconds, 1),
        }
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps(self.every, indent=1))
        part.replace(self.file)

    def told(self, what: str = "") -> str:
        """How it ended, in words."""
        return ", ".join(
            [*filter(None, [what]), *(f"{n} {end}" for end, n in self.ends.items() if n)]
        )


class Campaign:
    """Sweeps under OUT, and what became of them."""

    def __init__(self, out: Path, seed: int) -> None:
        self.out = out
        self.seed = seed
        stub = out / "stub"
        (stub / "matplotlib").mkdir(parents=True, exist_ok=True)
        (stub / "matplotlib" / "__init__.py").write_text(
            'raise ModuleNotFoundError("no", name="matplotlib")\n'
        )
        self.sweeps = Sweeps(stub, 1)
        self.wholes: dict[str, tuple[Path, float]] = {}
        self.lines: list[str] = []

    def tally(self, kind: str) -> Tally:
        """What is known of a kind of harm so far."""
        return Tally(self.out / "counts.json", kind)

    def whole(self, cell: str) -> tuple[Path, float]:
        """OUT of a cell's undisturbed sweep, and its seconds of processors with warm programs."""
        if cell not in self.wholes:
            folder = self.out / f"whole-{cell}"
            # a second time for its seconds, with programs that are compiled
            for _ in range(2):
                shutil.rmtree(folder, ignore_errors=True)
                before = processor_seconds()
                code, text = self.sweeps.run(folder, *CELLS[cell])
                assert code == 0, text
            self.wholes[cell] = folder, processor_seconds() - before
        return self.wholes[cell]

    def same(self, cell: str, out: Path) -> bool:
        """Whether the numbers below OUT are those of the undisturbed sweep."""
        return self.sweeps.numbers(out) == self.sweeps.numbers(self.whole(cell)[0])

    def say(self, tally: Tally, what: str = "") -> None:
        """Print a line of the table."""
        seconds = round(tally.seconds)
        line = (tally.kind, tally.done, tally.different, seconds, tally.told(what))
        self.lines.append(LINE.format(*line))
        print(self.lines[-1], flush=True)

    # --- processes that end too early ---

    def interrupted(self, cell: str, kind: str, count: int, signals: list[signal.Signals]) -> None:
        """Signals at random moments of a sweep, again and again, until it comes through; then another sweep."""
        tally = self.tally(f"{kind}, {cell}")
        while tally.done < count:
            tally.rounds += 1
            rng = random.Random(f"{self.seed}, {tally.kind}, {tally.rounds}")
            _, seconds = self.whole(cell)
            out = self.out / f"interrupted-{cell}"
            shutil.rmtree(out, ignore_errors=True)
            for turn in range(MOST + 1):
                process = self.sweeps.start(out, *CELLS[cell], "--resume")
                what = signals[tally.done % len(signals)]
                if tally.done < count and turn < MOST:
                    run_for(process, rng.uniform(0.0, 1.1 * seconds))
                    if process.poll() is None:
                        process.send_signal(what)
                        tally.done += 1
                text = process.communicate(timeout=900)[1]
                if process.returncode == 0:
                    break
                known = process.returncode in {-what, CODES.get(what, -what)}
                tally.ends["as documented" if known else f"code {process.returncode}"] += 1
                # before a sweep's first file, Python itself may be importing
                tally.ends["tracebacks"] += "Traceback" in text and (out / "sweep.json").exists()
            if not self.same(cell, out):
                tally.different += 1
                shutil.copytree(out, self.out / f"different-{cell}-{tally.rounds}")
            tally.keep()
        self.say(tally, f"{tally.rounds} sweeps")

    # --- files that are not what they were ---

    def undamaged(self) -> Path:
        """OUT of the sweep whose copies are damaged."""
        folder = self.out / "undamaged"
        if not (folder / "summary.csv").exists():
            code, text = resumed(folder)
            assert code == 0, text
        return folder

    def damaged(self, kind: str, count: int, harm: Callable[[Path, random.Random], str]) -> None:
        """Harm one file of a finished sweep, resume it, and read its runs."""
        whole = self.undamaged()
        files = [p.relative_to(whole) for p in sorted(whole.rglob("*")) if p.is_file()]
        names = [name for name in files if name.name != ".lock"]
        tally = self.tally(kind)
        while tally.done < count:
            rng = random.Random(f"{self.seed}, {kind}, {tally.done}")
            out = self.out / kind.replace(" ", "-")
            shutil.rmtree(out, ignore_errors=True)
            shutil.copytree(whole, out)
            name = names[tally.done % len(names)]
            what = harm(out / name, rng)
            read = self.read(out, name)
            code, text = resumed(out)
            good = code == 0 and self.sweeps.numbers(out) == self.sweeps.numbers(whole)
            tally.done += 1
            tally.ends["repaired" if good else f"refused ({code})"] += 1
            tally.ends["tracebacks"] += "Traceback" in text
            if read == "other" or (code == 0 and not good):
                tally.different += 1
                print(f"    silent: {name} {what}", flush=True)
            tally.keep()
        self.say(tally, f"{len(names)} files")

    def read(self, out: Path, name: Path) -> str:
        """How the runs of a sweep with one damaged file are read: as they were, refused, or as something "other"."""
        from jaxomarl.api.policy import load_policy
        from jaxomarl.base import JaxomarlError
        from jaxomarl.results import store

        def facts(folder: Path) -> object:
            runs = store.find_runs([folder])
            own = [{k: v for k, v in r.info.items() if k != "seconds"} for r in runs]
            return own, store.load_returns(runs), store.load_final(runs)

        try:
            if name.name == "policy.safetensors":
                # its digest covers the arrays; what else is read of it is shapes
                load_policy(out / name.parent)
            return "same" if facts(out) == facts(self.undamaged()) else "other"
        except (JaxomarlError, OSError):
            return "refused"

    # --- disks and other processes ---

    def disks(self) -> None:
        """A tmpfs that fills up; then it grows, and the sweep continues."""
        tally = self.tally(f"full disk, {DISKS[0]} to {DISKS[-1]}")
        at, kept = self.out / "disk", self.out / "kept"
        at.mkdir(exist_ok=True)
        probe = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", str(at)]
        if subprocess.run(probe, capture_output=True).returncode:
            return self.say(tally, "skipped: no tmpfs may be mounted here")
        for size in DISKS[tally.done :]:
            shutil.rmtree(kept, ignore_errors=True)
            sweep = " ".join(
                [
                    sys.executable,
                    "-m",
                    "experiments.sweep",
                    "--systems",
                    "iql",
                    "--out",
                    f"{at}/out",
                    *SMALL,
                ]
            )
            script = (
                f"mount -t tmpfs -o size={size} none {at} && {sweep}; echo code $? >&2; "
                f"mount -o remount,size=256m {at} && {sweep} --resume && cp -r {at}/out {kept}"
            )
            done = subprocess.run(
                ["unshare", "-rm", "sh", "-c", script],
                cwd=ROOT,
                env=self.sweeps.env,
                capture_output=True,
                text=True,
            )
            first = done.stderr.partition("code ")
            errors = [x for x in first[0].splitlines() if x.startswith("error: ")]
            named = len(errors) == 1 and str(at) in errors[0]
            tally.done += 1
            code = first[2].splitlines()[0]
            tally.ends[f"code {code}{'' if named or code == '0' else ' without a path'}"] += 1
            tally.ends["tracebacks"] += "Traceback" in done.stderr
            tally.different += not (kept.exists() and self.same("games", kept))
            tally.keep()
        self.say(tally)

    def writers(self, count: int) -> None:
        """A second process on a folder in use, with --resume and with --overwrite."""
        tally = self.tally("second writer, --overwrite of a live")
        while tally.done < count:
            out = self.out / "writers"
            shutil.rmtree(out, ignore_errors=True)
            first = self.sweeps.start(out)
            self.sweeps.wait(first, (out / "sweep.json").exists, out)
            code, text = self.sweeps.run(out, ("--resume", "--overwrite")[tally.done % 2])
            tally.ends["refused"] += code == 2 and "in use" in text
            first.communicate(timeout=600)
            tally.different += not (first.returncode == 0 and self.same("games", out))
            tally.done += 1
            tally.keep()
        self.say(tally)

    def nan(self) -> None:
        """One of R learning rates is hopeless; the others are what they are without it."""
        tally = self.tally("NaN in half of the runs")
        if not tally.done:
            flags = ("--cfg.policy-lr", "0.001")
            one, both = self.out / "nan-alone", self.out / "nan-both"
            for out, more in ((one, ()), (both, ("1e38",))):
                shutil.rmtree(out, ignore_errors=True)
                code, text = self.sweeps.run(out, *flags, *more)
                assert code == 0, text
            wanted, found = self.sweeps.numbers(one), self.sweeps.numbers(both)
            wanted.pop("summary.csv")
            tally.done = 1
            tally.different = sum(found.get(name) != content for name, content in wanted.items())
            named = "policy_lr=1e+38 has diverged" in text
            tally.ends["files compared"] = len(wanted)
            tally.ends["diverged value named" if named else "diverged value not named"] = 1
            tally.keep()
        self.say(tally)

    # --- inputs ---

    def malformed(self, count: int, names: list[str]) -> None:
        """Malformed inputs of the named readers, or of all, in processes of their own.

        Each has 10 seconds and 1 GiB.
        """
        from readers import READERS

        unknown = set(names) - set(READERS)
        if unknown:
            sys.exit(f"--readers: expected some of {', '.join(READERS)}, found {sorted(unknown)}")
        for name in names or READERS:
            row = READERS[name]
            tally = self.tally(f"malformed: {name}")
            tally.ends += Counter({"refused": 0, "read": 0})
            wanted = round(count * row.share / 100)
            while tally.done < wanted:
                lines = self.reads(name, tally.done, min(PORTION, wanted - tally.done))
                for told, end in zip(lines[::2], [*lines[1::2], "ENDED"], strict=False):
                    tally.done += 1
                    word = end.split()[0]
                    tally.ends[word] += 1
                    if word not in ("read", "refused"):
                        tally.different += 1
                        print(f"    {end}\n        {told}", flush=True)
                tally.keep()
            self.say(tally)

    def reads(self, name: str, first: int, count: int) -> list[str]:
        """The lines of a process that reads so many malformed inputs, the first with this number."""
        script = Path(__file__).with_name("malformed.py")
        wanted = f"{name}={first}:{first + count}"
        command = [sys.executable, script, self.out / "malformed", self.seed, wanted]
        # with the pictures of a report
        env = self.sweeps.env | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True)
        lines = done.stdout.splitlines()
        if not lines:
            raise AssertionError(f"{name} was not read at all: {done.stderr[-2000:]}")
        if len(lines) % 2:
            lines.append(f"ENDED with {done.returncode}: {' '.join(done.stderr.split())[-300:]}")
        return lines


def run_for(process: subprocess.Popen[str], seconds: float) -> None:
    """Wait until a process has ended or has used so many seconds of processors, however busy the machine is."""
    stat = Path(f"/proc/{process.pid}/stat")
    while process.poll() is None:
        user, system = stat.read_text().rpartition(")")[2].split()[11:13]
        if (int(user) + int(system)) / os.sysconf("SC_CLK_TCK") >= seconds:
            return
        time.sleep(0.005)


def processor_seconds() -> float:
    """Seconds of processors that this process and those that it has started, once they ended, have used."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def flip(path: Path, rng: random.Random) -> str:
    """Flip one bit."""
    raw = bytearray(path.read_bytes())
    if not raw:
        return "empty"
    at = rng.randrange(len(raw))
    raw[at] ^= 1 << rng.randrange(8)
    path.write_bytes(raw)
    return f"bit in byte {at} of {len(raw)}"


def tear(path: Path, rng: random.Random) -> str:
    """Cut a file anywhere."""
    raw = path.read_bytes()
    end = rng.randrange(len(raw)) if raw else 0
    path.write_bytes(raw[:end])
    return f"{end} of {len(raw)} bytes"


def resumed(out: Path) -> tuple[int, str]:
    """(exit code, what it printed) of the resumed sweep, in this process."""
    from jaxomarl.cli import commands

    commands.draw = lambda *_: []
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        code = commands.run("sweep", [*ONE_STAGE, "--out", str(out), "--resume"])
    return code, said.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--signals", type=int, default=50)
    parser.add_argument("--flips", type=int, default=400)
    parser.add_argument("--torn", type=int, default=200)
    parser.add_argument("--writers", type=int, default=10)
    parser.add_argument("--malformed", type=int, default=10_000)
    parser.add_argument("--readers", nargs="+", default=[], help="of malformed inputs; all")
    parser.add_argument("--cells", nargs="+", default=[*CELLS], choices=[*CELLS])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    campaign = Campaign(asked.out.absolute(), asked.seed)
    print(*HEAD, sep="\n", flush=True)
    each = len(CELLS)
    for cell in asked.cells:
        if "kills" in asked.parts:
            campaign.interrupted(cell, "SIGKILL", asked.kills // each, [signal.SIGKILL])
        if "signals" in asked.parts:
            campaign.interrupted(cell, "SIGINT, SIGTERM, SIGUSR1", asked.signals // each, [*CODES])
    if "flips" in asked.parts:
        campaign.damaged("one bit flipped", asked.flips, flip)
    if "torn" in asked.parts:
        campaign.damaged("file cut short", asked.torn, tear)
    if "disks" in asked.parts:
        campaign.disks()
    if "writers" in asked.parts:
        campaign.writers(asked.writers)
    if "nan" in asked.parts:
        campaign.nan()
    if "malformed" in asked.parts:
        campaign.malformed(asked.malformed, asked.readers)
    if asked.write:
        asked.write.write_text("\n".join([*HEAD, *campaign.lines]) + "\n")


if __name__ == "__main__":
    os.environ["JAX_PLATFORMS"] = "cpu"
    # programs as the tests compile them, so that both find them in one cache
    if importlib.metadata.version("jaxlib").startswith("0.10."):
        quick = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {quick}".strip()
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "xla"))
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    os.environ["JAX_NUM_CPU_DEVICES"] = "1"
    os.environ.pop("JAXOMARL_CACHE", None)
    sys.path.insert(0, str(ROOT))
    main()
