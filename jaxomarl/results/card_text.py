"""A data set's card as text, from its JSON alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Card = Mapping[str, Any]
"""What `data.card.describe` returns."""
WIDE = 40
"""Columns that the text lists for each kind of agent; the JSON has all."""
FIRST_COLUMNS = 8
"""Columns that a comparison of two sets lists."""
FIRST_ROWS = 6
"""Rows that a comparison of two sets lists."""


def text(card: Card) -> str:
    """Return the card as some forty lines."""
    lines = [
        f"{card['name']}: {card['format']}, rules {' or '.join(card['dialects']) or 'unknown'}"
    ]
    lines += [f"  evidence: {x}" for x in card["evidence"]]
    lines += [f"  repaired: {x}" for x in card["repairs"]]
    lines += _sizes(card)
    broken = {name: count for name, count in card["not_finite"].items() if count}
    if broken:
        each = [f"{count} numbers in {name}" for name, count in broken.items()]
        lines.append(f"  NOT FINITE: {', '.join(each)}")
    lines += _scores(card)
    lines += _behaviours(card["behaviours"], card["format"])
    lines += _columns(card)
    return "\n".join(lines)


def _sizes(card: Card) -> list[str]:
    """Return the lines of counts, widths, ends, actions and duplicates."""
    counts = card["counts"]
    length = _spread(counts["length"])
    discrete = " (discrete)" if card["discrete"] else ""
    return [
        f"  transitions {counts['transitions']:,} in {counts['episodes']:,} episodes"
        f" of {length} steps",
        f"  agents {card['agents']}, observations {_widths(card['obs_dims'])},"
        f" actions {_widths(card['act_dims'])}{discrete}, state {card['state_dim'] or 'none'}",
        f"  {_ends(card['ends'])}",
        f"  {_actions(card)}",
        f"  duplicates: {_percent(card['duplicates'])} of the transitions repeat an earlier"
        " observation and action",
    ]


def _scores(card: Card) -> list[str]:
    """Return the lines of the episode returns."""
    score = card["return"]
    if score["quantiles"] is None:
        return ["  return: none that is finite"]
    mean = f"{score['mean']:.2f}, with no standard error of 1 episode"
    if score["error"] is not None:
        episodes = sum(score["histogram"]["counts"])
        error = f"standard error of {episodes:,} episodes; they deviate by {score['std']:.2f}"
        mean = f"{score['mean']:.2f} ± {score['error']:.2f} ({error})"
    quantiles = ", ".join(f"{name} {value:.1f}" for name, value in score["quantiles"].items())
    lines = [
        f"  return (sum of {score['of']} over an episode): {mean}",
        f"    {quantiles}",
    ]
    references = score["references"]
    if references:
        ends = f"random {references['random']:g} = 0, expert {references['expert']:g} = 100"
        lines.append(f"    normalised {score['normalised']:.1f} ({ends}; {references['source']})")
    else:
        lines.append(f"    {score['note']}")
    return lines


def _behaviours(behaviours: Mapping[str, Any], source: str) -> list[str]:
    """Return the lines of the known behaviours and of the estimated modes."""
    lines = []
    if behaviours["known"]:
        what = "groups (behaviours, seed folders or vault indices)"
        if source == "jaxomarl":
            what = "behaviours"
        finite = {b: x for b, x in behaviours["each"].items() if x["return"] is not None}
        each = [f"{b}: {x['return']:.1f} in {x['episodes']:,}" for b, x in finite.items()]
        means = "; ".join(each)
        lines.append(f"  {what} {behaviours['count']}; mean return of each: {means} episodes")
    estimate = behaviours["estimate"]
    if estimate:
        modes = "no sign of more than one"
        if estimate["count"] != 1:
            modes = f"at least {estimate['count']}"
        if estimate["count"] > 1:
            explained = 100 * estimate["dispersion"]
            modes += f", which explain {explained:.0f} % of one policy's error"
        lines.append(f"  modes (an estimate, and a lower bound): {modes}")
    elif not behaviours["known"]:
        lines.append("  modes: not estimated, for want of episodes")
    return lines


def _columns(card: Card) -> list[str]:
    """Return a table of columns, agents pooled where they have the same number."""
    lines = []
    for kind in ("obs", "action"):
        columns = pooled(card["columns"], kind)
        lines.append(f"  {kind:<28} {'min':>9} {'mean':>9} {'max':>9}")
        for c in columns[:WIDE]:
            numbers = f"{_number(c['min'])} {_number(c['mean'])} {_number(c['max'])}"
            lines.append(f"    {c['name']:<26} {numbers}")
        if len(columns) > WIDE:
            lines.append(f"    ... and {len(columns) - WIDE} more, in the JSON")
    if any(c["name"].endswith("*") for c in pooled(card["columns"], "obs")):
        lines.append("  * called so by the first agent; the others see another one there")
    return lines


def pooled(agents: Sequence[Mapping[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Columns {"kind", "name", "min", "mean", "max"}; agents with equally many of them are pooled.

    Where their names differ, the first agent's stands with a star. Where the numbers differ, the
    agents are named.
    """
    groups: dict[int, list[int]] = {}
    for i, own in enumerate(agents):
        groups.setdefault(len(own[kind]), []).append(i)
    columns = []
    for width, group in groups.items():
        of_agents = ""
        if len(groups) > 1:
            of_agents = f" of {', '.join(map(str, group))}"
        for k in range(width):
            column = _pooled_column([agents[i][kind][k] for i in group])
            name = f"{column.pop('name')}{of_agents}"
            columns.append({"kind": kind, "name": name, **column})
    return columns


def _pooled_column(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one column of several agents: its name, least, mean and largest value."""
    several_names = len({c["name"] for c in cells}) > 1
    star = " *" if several_names else ""
    column: dict[str, Any] = {"name": f"{cells[0]['name']}{star}"}
    for key, pool in {"min": min, "mean": np.mean, "max": max}.items():
        known = [c[key] for c in cells if c[key] is not None]
        column[key] = float(pool(known)) if known else None
    return column


def _ends(ends: Mapping[str, Any]) -> str:
    terminations = f"terminations {ends['terminations']:,}"
    if not ends["distinct"]:
        count = f"{ends['terminations']:,}"
        terminations = f"ends marked done {count} (this format does not tell time-outs)"
    parts = [terminations, f"time-outs {ends['time_outs']:,}"]
    if ends["stray"]:
        parts.append(f"{ends['stray']:,} done before their episode's end")
    parts.append(f"rows with no known successor {ends['unknown_successors']:,}")
    return "; ".join(parts)


def _actions(card: Card) -> str:
    actions = card["actions"]
    if card["discrete"]:
        text = f"actions, % of each: {_shares(actions['share'])}"
        if "legal" in actions:
            text += f"; legal in %: {_shares(actions['legal'])}"
        return text
    if actions["min"] is None:
        return "actions: none"
    return (
        f"actions in [{actions['min']:.4g}, {actions['max']:.4g}];"
        f" at the bound (|a| = 1) {_percent(actions['saturated'])},"
        f" beyond it {_percent(actions['beyond'])} of the numbers"
    )


def _shares(of_agents: Sequence[Sequence[float | None]]) -> str:
    """Shares of each agent's actions, in per cent."""
    return " | ".join(" ".join(f"{100 * (x or 0):.0f}" for x in agent) for agent in of_agents)


def _widths(dims: Sequence[int]) -> str:
    if len(set(dims)) == 1:
        return str(dims[0])
    return ", ".join(map(str, dims))


def _spread(length: Mapping[str, Any]) -> str:
    low = length["min"]
    high = length["max"]
    if low == high:
        return f"{low:g}"
    return f"{low:g} to {high:g} (median {length['median']:g})"


def _percent(share: float | None) -> str:
    if share is None:
        return "-"
    return f"{100 * share:.3g} %"


def _number(x: float | None) -> str:
    if x is None:
        return f"{'-':>9}"
    if abs(x) < 1e4:
        return f"{x:>9.3f}"
    return f"{x:>9.2e}"


# --- two sets ---


def difference(compared: Mapping[str, Any]) -> str:
    """Return what `data.compare.compare` says, as lines.

    That is the first rows, and the columns that are farthest apart.
    """
    lines = ["the same content" if compared["same"] else "different"]
    lines += [f"  {name}: {x['a']} and {x['b']}" for name, x in compared["shapes"].items()]
    lines += _count_differences(compared["counts"]["a"], compared["counts"]["b"])
    lines += _return_difference(compared["return"])
    columns = compared["columns"]
    lines += [_column_difference(c) for c in columns[:FIRST_COLUMNS]]
    more = len(columns) - FIRST_COLUMNS
    if more > 0:
        lines.append(f"  ... and {more} more columns")
    lines += [_row_difference(row) for row in compared["rows"][:FIRST_ROWS]]
    lines += [f"  beside: {x}" for x in compared["beside"]]
    return "\n".join(lines)


def _count_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    lines = []
    for name in a:
        line = f"  {name.replace('_', ' ')}: {a[name]:,}"
        if a[name] != b[name]:
            line += f" and {b[name]:,}"
        lines.append(line)
    return lines


def _return_difference(score: Mapping[str, Any]) -> list[str]:
    distance = score["ks_distance"]
    if distance is None:
        return []
    means = f"{score['a']:.3f} and {score['b']:.3f}"
    if score["a"] == score["b"] and distance == 0:
        means = f"{score['a']:.3f}"
    gap = f"largest gap of the distributions (KS) {distance:.4f}"
    return [f"  mean return: {means}; {gap}"]


def _column_difference(c: Mapping[str, Any]) -> str:
    means = f"{_number(c['mean_a']).strip()} and {_number(c['mean_b']).strip()}"
    deviations = f"{_number(c['std_a']).strip()} and {_number(c['std_b']).strip()}"
    return (
        f"  {c['column']}: mean {means} ({_errors(c['mean_errors'])}),"
        f" deviation {deviations} ({_errors(c['std_errors'])})"
    )


def _row_difference(row: Mapping[str, Any]) -> str:
    """Return a line of the first column in which two rows differ."""
    pairs = zip(row["a"], row["b"], strict=True)
    k = next((k for k, (x, y) in enumerate(pairs) if x != y), 0)
    values = ""
    if row["a"]:
        values = f"{row['a'][k]} and {row['b'][k]}"
    where = f"row {row['row']}, {row['field']}, column {k}"
    return f"  {where}: {values} (one of {row['differ']:,} rows)"


def _errors(x: float | None) -> str:
    if x is None:
        return "apart by more than any error"
    return f"{x:+.1f} standard errors"
