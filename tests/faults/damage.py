"""Ways to damage a file: its bytes, and what it says where it still parses (JSON, CSV, safetensors)."""

import copy
import csv
import io
import json
import os
import re
import shutil
import struct

WORDS = (b"0", b"-1", b"99999999999999999999", b"1e9", b"True", b"[]")
VALUES = (
    None, True, 0, -1, 7, 1 << 40, 1 << 70, 0.5, 1e308, 1e999, float("nan"), "", "x", "0", "../../x", "/x", "a\0b",
    "\ud800", "x" * 5000, [], [[]], [None], ["x"], [1 << 40], {}, {"x": 1}, {"": {}}, "deep",
)  # fmt: skip
CELLS = (
    "", "x", "nan", "inf", "-1", "0.5", "1e400", "9" * 30, "9" * 5000, '"', "a,b", "a\nb", "\0", "\ud800", "0x1",
    "1_000", "\u0663", " 1", "True",
)  # fmt: skip
DEEP = 3000
"""Lists in each other of the value "deep"."""


def files_of(path):
    """A file, or all files below a folder."""
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())


# --- bytes ---


def harm_bytes(path, rng):
    """Damage one file of a set; returns what was done."""
    files = files_of(path)
    if not files:
        return "nothing left"
    file = rng.choice(files)
    raw = bytearray(file.read_bytes())
    kind = rng.choice(
        ["flip", "flip", "flip", "cut", "fill", "grow", "digits", "digits", "swap", "gone"]
    )
    if not raw:
        kind = "gone"
    if kind == "flip":
        reach = rng.choice([len(raw), min(len(raw), 256), min(len(raw), 2048)])
        for _ in range(rng.choice([1, 1, 2, 8])):
            raw[rng.randrange(reach)] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del raw[rng.randrange(len(raw)) :]
    elif kind == "fill":
        at = rng.randrange(len(raw))
        wide = rng.choice([1, 4, 8, 64])
        raw[at : at + wide] = bytes([rng.choice([0, 255, 127, 128])]) * min(wide, len(raw) - at)
    elif kind == "grow":
        raw += rng.randbytes(rng.choice([1, 8, 4096]))
    elif kind == "digits":  # headers and JSON: another number in the place of one
        found = list(re.finditer(rb"\d+", bytes(raw[:4096])))
        if found:
            one = rng.choice(found)
            raw[one.start() : one.end()] = rng.choice([*WORDS, b"9" * len(one[0])])
    elif kind == "swap":
        raw = bytearray(rng.choice(files).read_bytes())
    if kind == "gone":
        file.unlink()
    else:
        file.write_bytes(raw)
    return f"{kind} {file.name}"


# --- what is no regular file, or not one of the folder's ---

SPARSE = 3 << 30
"""Bytes of a huge file, of which the disk keeps none."""


def harm_odd(path, rng, outside):
    """Put something else in the place of a file or folder below `path`.

    `outside` is a folder that no reader may change; links lead to it.
    """
    if path.is_symlink():
        return "nothing left"
    below = files_of(path)
    if path.is_dir():
        below += [p for p in sorted(path.rglob("*")) if p.is_dir() and not p.is_symlink()]
    place = rng.choice(below)
    kind = rng.choice(
        ["out", "out", "itself", "nowhere", "device", "pipe", "huge", "folder", "file", "moved"]
    )
    if kind == "moved":
        # as people do who have a larger disk
        shutil.move(place, outside / "moved")
        place.symlink_to(outside / "moved")
        return f"moved {place.name}"
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    if kind == "out":
        place.symlink_to(outside if rng.random() < 0.5 else outside / "canary")
    elif kind == "itself":
        place.symlink_to(place.name)
    elif kind == "nowhere":
        place.symlink_to(outside / "nothing")
    elif kind == "device":
        place.symlink_to(rng.choice(["/dev/zero", "/dev/null", "/dev/full"]))
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
        (place / "x").write_text("{}")
    elif kind == "file":
        place.write_text("{}")
    else:
        place.touch()
        os.truncate(place, SPARSE)
    return f"{kind} {place.name}"


# --- JSON ---


def places(value, path=()):
    """The path of keys to every value in a JSON value, its own excepted."""
    rows = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()  # fmt: skip
    for key, child in rows:
        yield (*path, key)
        yield from places(child, (*path, key))


def harm_json(path, rng, sealed_by=lambda entries: entries, under=""):
    """Change one entry of a JSON file, below the entry `under` where it is given.

    `sealed_by` gives the entries as they are written.
    """
    found = json.loads(path.read_text())
    where = [place for place in places(found) if under in ("", place[0])]
    at = rng.choice([*where, *[place for place in where if len(place) == 1]])
    inner = found
    for key in at[:-1]:
        inner = inner[key]
    kind = rng.choice(["value", "value", "value", "gone", "other", "more"])
    if kind == "gone":
        del inner[at[-1]]
    elif kind == "other":  # the value of another entry
        other = found
        for key in rng.choice(where):
            other = other[key]
        inner[at[-1]] = copy.deepcopy(other)
    elif kind == "more" and isinstance(inner, dict):
        inner["another"] = rng.choice(VALUES)
    else:
        inner[at[-1]] = rng.choice(VALUES)
    text = json.dumps(sealed_by(found))
    text = text.replace('"deep"', "[" * DEEP + "]" * DEEP)
    path.write_text(text)
    return f"{kind} {path.name} {'.'.join(map(str, at))[:60]}"


# --- CSV ---


def harm_csv(path, rng):
    """Change cells, rows or columns of a table."""
    rows = list(csv.reader(io.StringIO(path.read_text())))
    kind = rng.choice(["cell", "cell", "cell", "row", "column", "head", "twice", "short"])
    row = rng.randrange(1, len(rows)) if len(rows) > 1 else 0
    column = rng.randrange(len(rows[0]))
    if kind == "cell":
        rows[row][column] = rng.choice(CELLS)
    elif kind == "row":
        rows = [r for k, r in enumerate(rows) if k != row or k == 0]
    elif kind == "column":
        rows = [r[:column] + r[column + 1 :] for r in rows]
    elif kind == "head":
        rows[0][column] = rng.choice(["", "x", rows[0][0]])
    elif kind == "twice":
        rows.append(rows[row])
    else:
        rows = rows[: rng.randrange(len(rows))]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    path.write_bytes(text.getvalue().encode(errors="surrogatepass"))
    return f"{kind} {path.name} column {column}"


# --- safetensors ---


def harm_header(path, rng):
    """Change one entry of a safetensors file's description, with the length that fits it."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    part = path.with_name("header.json")
    part.write_bytes(raw[8 : 8 + length])
    what = harm_json(part, rng)
    header = part.read_bytes()
    part.unlink()
    path.write_bytes(struct.pack("<Q", len(header)) + header + raw[8 + length :])
    return f"{path.name}, {what}"
