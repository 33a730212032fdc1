"""A data set's card as text, from its JSON alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Card = Mapping[str, Any]  # what data.card.describe returns
WIDE = 40
"""Columns that the text lists for each kind of agent; the JSON has all."""


def text(card: Card) -> str:
    """The card as some forty lines."""
    lines = [
        f"{card['name']}: {card['format']}, rules {' or '.join(card['dialects']) or 'unknown'}"
    ]
    lines += [f"  evidence: {x}" for x in card["evidence"]] + [
        f"  repaired: {x}" for x in card["repairs"]
    ]
    counts, length = card["counts"], card["counts"]["length"]
    lines += [
        f"  transitions {counts['transitions']:,} in {counts['episodes']:,} episodes of {_spread(length)} steps",
        f"  agents {card['agents']}, observations {_widths(card['obs_dims'])}, actions {_widths(card['act_dims'])}"
        f"{' (discrete)' if card['discrete'] else ''}, state {card['state_dim'] or 'none'}",
        f"  {_ends(card['ends'])}",
        f"  {_actions(card)}",
        f"  duplicates: {_percent(card['duplicates'])} of the transitions repeat an earlier observation and action",
    ]
    broken = {k: v for k, v in card["not_finite"].items() if v}
    lines += (
        [f"  NOT FINITE: {', '.join(f'{v} numbers in {k}' for k, v in broken.items())}"]
        if broken
        else []
    )
    return "\n".join(
        [*lines, *_scores(card), *_behaviours(card["behaviours"], card["format"]), *_columns(card)]
    )


def _scores(card: Card) -> list[str]:
    score = card["return"]
    if score["quantiles"] is None:
        return ["  return: none that is finite"]
    q, mean = score["quantiles"], f"{score['mean']:.2f}, with no standard error of 1 episode"
    if score["error"] is not None:
        episodes = sum(score["histogram"]["counts"])
        error = f"standard error of {episodes:,} episodes; they deviate by {score['std']:.2f}"
        mean = f"{score['mean']:.2f} ± {score['error']:.2f} ({error})"
    lines = [
        f"  return (sum of {score['of']} over an episode): {mean}",
        "    " + ", ".join(f"{k} {v:.1f}" for k, v in q.items()),
    ]
    if score["references"]:
        r = score["references"]
        lines.append(
            f"    normalised {score['normalised']:.1f} (random {r['random']:g} = 0, expert {r['expert']:g} = 100;"
            f" {r['source']})"
        )
    return lines if score["references"] else [*lines, f"    {score['note']}"]


def _behaviours(found: Mapping[str, Any], source: str) -> list[str]:
    lines = []
    if found["known"]:
        what = (
            "behaviours"
            if source == "jaxomarl"
            else "groups (behaviours, seed folders or vault indices)"
        )
        finite = {b: x for b, x in found["each"].items() if x["return"] is not None}
        each = [f"{b}: {x['return']:.1f} in {x['episodes']:,}" for b, x in finite.items()]
        lines.append(f"  {what} {found['count']}; mean return of each: {'; '.join(each)} episodes")
    guess = found["estimate"]
    if guess:
        least = "no sign of more than one" if guess["count"] == 1 else f"at least {guess['count']}"
        gain = (
            f", which explain {100 * guess['dispersion']:.0f} % of one policy's error"
            if guess["count"] > 1
            else ""
        )
        lines.append(f"  modes (an estimate, and a lower bound): {least}{gain}")
    elif not found["known"]:
        lines.append("  modes: not estimated, for want of episodes")
    return lines


def _columns(card: Card) -> list[str]:
    """A table of columns, agents pooled where they have the same number."""
    lines = []
    for kind in ("obs", "action"):
        own = pooled(card["columns"], kind)
        lines.append(f"  {kind:<28} {'min':>9} {'mean':>9} {'max':>9}")
        lines += [
            f"    {c['name']:<26} {_cell(c['min'])} {_cell(c['mean'])} {_cell(c['max'])}"
            for c in own[:WIDE]
        ]
        lines += [f"    ... and {len(own) - WIDE} more, in the JSON"] if len(own) > WIDE else []
    if any(c["name"].endswith("*") for c in pooled(card["columns"], "obs")):
        lines.append("  * called so by the first agent; the others see another one there")
    return lines


def pooled(agents: Sequence[Mapping[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Columns {"kind", "name", "min", "mean", "max"}, those of agents with the same number of them as one.

    Where their names differ, the first agent's stands with a star; where the numbers differ, the agents are named.
    """
    groups: dict[int, list[int]] = {}
    for i, own in enumerate(agents):
        groups.setdefault(len(own[kind]), []).append(i)
    out = []
    for width, who in groups.items():
        whose = f" of {', '.join(map(str, who))}" if len(groups) > 1 else ""
        for k in range(width):
            cells = [agents[i][kind][k] for i in who]
            have = {
                key: [c[key] for c in cells if c[key] is not None] for key in ("min", "mean", "max")
            }
            star = " *" if len({c["name"] for c in cells}) > 1 else ""
            pick = {"min": min, "mean": np.mean, "max": max}
            numbers = {key: float(pick[key](x)) if x else None for key, x in have.items()}
            out.append({"kind": kind, "name": f"{cells[0]['name']}{star}{whose}", **numbers})
    return out


def _ends(ends: Mapping[str, Any]) -> str:
    parts = [f"terminations {ends['terminations']:,}", f"time-outs {ends['time_outs']:,}"]
    if not ends["distinct"]:
        parts = [
            f"ends marked done {ends['terminations']:,} (this format does not tell time-outs)",
            *parts[1:],
        ]
    parts += [f"{ends['stray']:,} done before their episode's end"] if ends["stray"] else []
    return "; ".join([*parts, f"rows with no known successor {ends['unknown_successors']:,}"])


def _actions(card: Card) -> str:
    found = card["actions"]
    if card["discrete"]:
        shares = [" ".join(f"{100 * (x or 0):.0f}" for x in agent) for agent in found["share"]]
        return f"actions, % of each: {' | '.join(shares)}"
    if found["min"] is None:
        return "actions: none"
    return (
        f"actions in [{found['min']:.4g}, {found['max']:.4g}]; at the bound (|a| = 1) {_percent(found['saturated'])},"
        f" beyond it {_percent(found['beyond'])} of the numbers"
    )


def _widths(dims: Sequence[int]) -> str:
    return str(dims[0]) if len(set(dims)) == 1 else ", ".join(map(str, dims))


def _spread(length: Mapping[str, Any]) -> str:
    low, middle, high = (length[k] for k in ("min", "median", "max"))
    return f"{low:g}" if low == high else f"{low:g} to {high:g} (median {middle:g})"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.3g} %"


def _cell(x: float | None) -> str:
    return f"{'-':>9}" if x is None else f"{x:>9.3f}" if abs(x) < 1e4 else f"{x:>9.2e}"


# --- two sets ---


def difference(found: Mapping[str, Any]) -> str:
    """What `data.compare.compare` says, as lines: the first rows, and the eight columns that lie farthest apart."""
    lines = ["the same content" if found["same"] else "different"]
    lines += [f"  {name}: {x['a']} and {x['b']}" for name, x in found["shapes"].items()]
    a, b = found["counts"]["a"], found["counts"]["b"]
    lines += [
        f"  {k.replace('_', ' ')}: {a[k]:,}" + ("" if a[k] == b[k] else f" and {b[k]:,}") for k in a
    ]
    score = found["return"]
    if score["ks_distance"] is not None:
        same = score["a"] == score["b"] and score["ks_distance"] == 0
        means = f"{score['a']:.3f}" if same else f"{score['a']:.3f} and {score['b']:.3f}"
        lines.append(
            f"  mean return: {means}; largest gap of the distributions (KS) {score['ks_distance']:.4f}"
        )
    for c in found["columns"][:8]:
        lines.append(
            f"  {c['column']}: mean {_cell(c['mean_a']).strip()} and {_cell(c['mean_b']).strip()}"
            f" ({_errors(c['mean_errors'])}), deviation {_cell(c['std_a']).strip()} and {_cell(c['std_b']).strip()}"
            f" ({_errors(c['std_errors'])})"
        )
    more = len(found["columns"]) - 8
    lines += [f"  ... and {more} more columns"] if more > 0 else []
    for row in found["rows"][:6]:
        k = next((k for k, (x, y) in enumerate(zip(row["a"], row["b"], strict=True)) if x != y), 0)
        values = f"{row['a'][k]} and {row['b'][k]}" if row["a"] else ""
        lines.append(
            f"  row {row['row']}, {row['field']}, column {k}: {values} (one of {row['differ']:,} rows)"
        )
    return "\n".join([*lines, *(f"  beside: {x}" for x in found["beside"])])


def _errors(x: float | None) -> str:
    return "apart by more than any error" if x is None else f"{x:+.1f} standard errors"
