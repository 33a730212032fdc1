"""Kills, signals, damage and full disks by the hundred: `python tests/faults/campaign.py OUT [--parts NAME ...]`.

`make faults` runs it at full length. Each part does one kind of harm to tiny sweeps again and again and compares the
numbers in the end, tables and policies to the byte, with those of a sweep that nothing disturbed. It prints a line for
each kind, and writes them as a table with `--write FILE`.
"""

import argparse
import contextlib
import importlib.metadata
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
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
LINE = "| {:<34} | {:>6} | {:>11} | {} |"


class Campaign:
    """Sweeps under OUT, and what became of them."""

    def __init__(self, out: Path, seed: int, timed: bool) -> None:
        self.timed = timed
        self.out = out
        self.rng = random.Random(seed)
        stub = out / "stub"
        (stub / "matplotlib").mkdir(parents=True, exist_ok=True)
        (stub / "matplotlib" / "__init__.py").write_text(
            'raise ModuleNotFoundError("no", name="matplotlib")\n'
        )
        self.sweeps = Sweeps(stub, 1)
        self.wholes: dict[str, tuple[Path, float]] = {}
        self.lines: list[str] = []

    def whole(self, cell: str) -> tuple[Path, float]:
        """OUT of a cell's undisturbed sweep, and its seconds with warm programs."""
        if cell not in self.wholes:
            folder = self.out / f"whole-{cell}"
            # a second time for its seconds, with programs that are compiled
            for _ in range(1 + self.timed):
                shutil.rmtree(folder, ignore_errors=True)
                began = time.monotonic()
                code, text = self.sweeps.run(folder, *CELLS[cell])
                assert code == 0, text
            self.wholes[cell] = folder, time.monotonic() - began
        return self.wholes[cell]

    def same(self, cell: str, out: Path) -> bool:
        """Whether the numbers below OUT are those of the undisturbed sweep."""
        return self.sweeps.numbers(out) == self.sweeps.numbers(self.whole(cell)[0])

    def say(self, kind: str, count: int, different: int, rest: str) -> None:
        """Print a line of the table."""
        self.lines.append(LINE.format(kind, count, different, rest))
        print(self.lines[-1], flush=True)

    # --- processes that end too early ---

    def interrupted(self, cell: str, count: int, send: Callable[[], signal.Signals]) -> None:
        """Signals at random moments of a sweep, again and again, until it comes through; then another sweep."""
        _, seconds = self.whole(cell)
        done = different = 0
        ends: Counter[str] = Counter()
        number = 0
        name = ""
        while done < count:
            number += 1
            out = self.out / f"interrupted-{cell}"
            shutil.rmtree(out, ignore_errors=True)
            for _ in range(60):
                process = self.sweeps.start(out, *CELLS[cell], "--resume")
                what = send()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(self.rng.uniform(0.0, 1.1 * seconds) if done < count else None)
                if process.poll() is None:
                    process.send_signal(what)
                    done += 1
                text = process.communicate(timeout=300)[1]
                name = what.name
                if process.returncode == 0:
                    break
                allowed = {-what, CODES.get(what, -what)}
                ends[
                    "as documented"
                    if process.returncode in allowed
                    else f"code {process.returncode}"
                ] += 1
                early = not (out / "sweep.json").exists()
                ends["tracebacks"] += "Traceback" in text and not early
            different += not self.same(cell, out)
        kind = "SIGKILL" if name == "SIGKILL" else "SIGINT, SIGTERM, SIGUSR1"
        told = ", ".join(f"{n} {end}" for end, n in ends.items() if n)
        self.say(f"{kind}, {cell}", done, different, f"{number} sweeps; {told}")

    # --- files that are not what they were ---

    def undamaged(self) -> Path:
        """OUT of the sweep whose copies are damaged."""
        folder = self.out / "undamaged"
        if not folder.exists():
            code, text = resumed(folder)
            assert code == 0, text
        return folder

    def damaged(self, kind: str, count: int, harm: Callable[[Path], str]) -> None:
        """Harm one file of a finished sweep, resume it, and read its runs."""
        whole = self.undamaged()
        names = [
            p.relative_to(whole)
            for p in sorted(whole.rglob("*"))
            if p.is_file() and p.name != ".lock"
        ]
        silent: list[str] = []
        ends: Counter[str] = Counter()
        for k in range(count):
            out = self.out / kind
            shutil.rmtree(out, ignore_errors=True)
            shutil.copytree(whole, out)
            name = names[k % len(names)]
            what = harm(out / name)
            read = self.read(out, name)
            code, text = resumed(out)
            good = code == 0 and self.sweeps.numbers(out) == self.sweeps.numbers(whole)
            ends["repaired" if good else f"refused ({code})"] += 1
            ends["tracebacks"] += "Traceback" in text
            if read == "other" or (code == 0 and not good):
                silent.append(f"{name} {what}")
        told = ", ".join(f"{n} {end}" for end, n in ends.items() if n)
        self.say(kind, count, len(silent), f"{len(names)} files; {told}")
        print(*(f"    silent: {x}" for x in silent), sep="\n", end="")

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

    def flip(self, path: Path) -> str:
        """Flip one bit."""
        raw = bytearray(path.read_bytes())
        if not raw:
            return "empty"
        at = self.rng.randrange(len(raw))
        raw[at] ^= 1 << self.rng.randrange(8)
        path.write_bytes(raw)
        return f"bit in byte {at} of {len(raw)}"

    def tear(self, path: Path) -> str:
        """Cut a file anywhere."""
        raw = path.read_bytes()
        end = self.rng.randrange(len(raw)) if raw else 0
        path.write_bytes(raw[:end])
        return f"{end} of {len(raw)} bytes"

    # --- disks and other processes ---

    def disks(self) -> None:
        """A tmpfs that fills up; then it grows, and the sweep continues."""
        ends: Counter[str] = Counter()
        different = 0
        at, kept = self.out / "disk", self.out / "kept"
        at.mkdir(exist_ok=True)
        probe = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", str(at)]
        if subprocess.run(probe, capture_output=True).returncode:
            return self.say("full disk", 0, 0, "skipped: no tmpfs may be mounted here")
        for size in DISKS:
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
            ends[f"code {first[2].splitlines()[0]}{'' if named else ', no path'}"] += 1
            ends["tracebacks"] += "Traceback" in done.stderr
            different += not (kept.exists() and self.same("games", kept))
        told = ", ".join(f"{n} {end}" for end, n in ends.items() if n)
        self.say(f"full disk, {DISKS[0]} to {DISKS[-1]}", len(DISKS), different, told)

    def writers(self, count: int) -> None:
        """A second process on a folder in use, with --resume and with --overwrite."""
        refused = different = 0
        for k in range(count):
            out = self.out / "writers"
            shutil.rmtree(out, ignore_errors=True)
            first = self.sweeps.start(out)
            self.sweeps.wait(first, (out / "sweep.json").exists, out)
            code, text = self.sweeps.run(out, ("--resume", "--overwrite")[k % 2])
            refused += code == 2 and "in use" in text
            first.communicate(timeout=600)
            different += not (first.returncode == 0 and self.same("games", out))
        self.say("second writer, --overwrite of a live", count, different, f"{refused} refused")

    def nan(self) -> None:
        """One of R learning rates is hopeless; the others are what they are without it."""
        flags = ("--cfg.policy-lr", "0.001")
        one, both = self.out / "nan-alone", self.out / "nan-both"
        for out, more in ((one, ()), (both, ("1e38",))):
            shutil.rmtree(out, ignore_errors=True)
            code, text = self.sweeps.run(out, *flags, *more)
            assert code == 0, text
        wanted, found = self.sweeps.numbers(one), self.sweeps.numbers(both)
        wanted.pop("summary.csv")
        different = sum(found.get(name) != content for name, content in wanted.items())
        named = "policy_lr=1e+38 has diverged" in text
        self.say("NaN in half of the runs", 1, different, f"{len(wanted)} files; named: {named}")


def resumed(out: Path) -> tuple[int, str]:
    """(exit code, what it printed) of the resumed sweep, in this process."""
    from jaxomarl.cli import commands

    commands.draw = lambda *_: []
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        code = commands.run("sweep", [*ONE_STAGE, "--out", str(out), "--resume"])
    return code, said.getvalue()


def any_signal(campaign: Campaign) -> Iterator[signal.Signals]:
    """The signals that ask a sweep to stop, in turn."""
    while True:
        yield from CODES


def main() -> None:
    parts = ("kills", "signals", "flips", "torn", "disks", "writers", "nan")
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--parts", nargs="+", default=parts, choices=parts)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--signals", type=int, default=50)
    parser.add_argument("--flips", type=int, default=400)
    parser.add_argument("--torn", type=int, default=200)
    parser.add_argument("--writers", type=int, default=10)
    parser.add_argument("--cells", nargs="+", default=[*CELLS], choices=[*CELLS])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    campaign = Campaign(
        asked.out.absolute(), asked.seed, bool({"kills", "signals"} & set(asked.parts))
    )
    head = LINE.format("harm", "times", "differences", "how it ended")
    print(head, "|---|---:|---:|---|", sep="\n", flush=True)
    for cell in asked.cells:
        if "kills" in asked.parts:
            campaign.interrupted(cell, asked.kills // len(asked.cells), lambda: signal.SIGKILL)
        if "signals" in asked.parts:
            turns = any_signal(campaign)
            campaign.interrupted(
                cell, asked.signals // len(asked.cells), lambda turns=turns: next(turns)
            )
    if "flips" in asked.parts:
        campaign.damaged("one bit flipped", asked.flips, campaign.flip)
    if "torn" in asked.parts:
        campaign.damaged("file cut short", asked.torn, campaign.tear)
    if "disks" in asked.parts:
        campaign.disks()
    if "writers" in asked.parts:
        campaign.writers(asked.writers)
    if "nan" in asked.parts:
        campaign.nan()
    if asked.write:
        asked.write.write_text("\n".join([head, "|---|---:|---:|---|", *campaign.lines]) + "\n")


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
