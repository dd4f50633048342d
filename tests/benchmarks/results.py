"""What a run of the benchmark says: ratios, geometric means, tables in Markdown, and what changed since another run. It neither times nor runs anything."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
Run = Mapping[str, Any]  # about the machine, the names of contenders, and `rows`
ALWAYS = ("forward", "netsens")
FAMILIES = {
    "convolutions": ("resnet18", "resnet50", "mobilenetv2", "squeezenet", "vgg16", "densenet121", "efficientnet_b0", "unet"),
    "transformers": ("bert", "gpt", "vit"),
}


def milliseconds(row: Row, name: str, statistic: str) -> float | None:
    found: float | None = row.get(name, {}).get(f"{statistic}_ms")
    return found


def ratio(row: Row, over: str, under: str, statistic: str) -> float | None:
    a, b = (milliseconds(row, name, statistic) for name in (over, under))
    return a / b if a and b else None


def geometric(values: Iterable[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def rivals(run: Run) -> list[str]:
    return [name for name in run["contenders"] if name not in ALWAYS]


def questions(run: Run) -> Iterator[tuple[int, str, list[Row]]]:
    """Rows together that belong in one table."""
    for batch, by in dict.fromkeys((row["batch"], row["by"]) for row in sorted(run["rows"], key=lambda row: row["batch"])):
        yield batch, by, [row for row in run["rows"] if (row["batch"], row["by"]) == (batch, by)]


def ratios(run: Run, rows: Sequence[Row]) -> dict[str, list[float]]:
    """By column: netsens in forward passes, and every rival in gradients of netsens; of the rows that have both."""
    statistic = run["statistic"]
    pairs = {"/ forward": ("netsens", "forward"), **{name: (name, "netsens") for name in rivals(run)}}
    return {column: [v for row in rows if (v := ratio(row, over, under, statistic))] for column, (over, under) in pairs.items()}


def times(run: Run, rows: Sequence[Row]) -> list[dict[str, str]]:
    """Milliseconds of the forward pass and of netsens, how many forward passes that is, and how many times as long the others took, or why they didn't."""
    statistic, table = run["statistic"], []
    for row in rows:
        shown = {"": row["model"]}
        for name in ALWAYS:
            value = milliseconds(row, name, statistic)
            shown[f"{name} ms"] = row.get(name, {}).get("failed") or "-" if value is None else f"{value:.2f}" if value < 1 else f"{value:.1f}"
        for column, over, under in (("/ forward", "netsens", "forward"), *((name, name, "netsens") for name in rivals(run))):
            value = ratio(row, over, under, statistic)
            shown[column] = (row.get(over, {}).get("failed") or "-") if value is None else f"{value:.2f}"
        table.append(shown)
    for title, some in families(rows):
        means = {column: f"{geometric(values):.2f}" if values else "-" for column, values in ratios(run, some).items()}
        table.append({"": title, **{f"{name} ms": "" for name in ALWAYS}, **means})
    return table


def families(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """What means are taken of: models of a kind, where there are several, and all."""
    for family, models in FAMILIES.items():
        if len(some := [row for row in rows if row["model"] in models]) > 1:
            yield f"geometric mean, {family}", some
    yield "geometric mean", list(rows)


def figures(run: Run, rows: Sequence[Row], key: str) -> list[dict[str, str]]:
    """Of every contender, `setup_s` or `peak_mb`."""
    return [{"": row["model"], **{name: f"{row[name][key]:.3g}" if key in row.get(name, {}) else "-" for name in run["contenders"]}} for row in rows]


def markdown(table: Sequence[Mapping[str, str]]) -> str:
    columns = list(table[0]) if table else []
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *([row[c] for c in columns] for row in table)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def of_question(batch: int, by: str) -> str:
    return f"By {'the input' if by == 'input' else 'all parameters'}, batch {batch}"


def about(run: Run) -> str:
    """Where a run was, on what, and what its figures are."""
    versions = ", ".join(f"{package} {version}" for package, version in run["versions"].items())
    threads = "one thread" if run["threads"] == 1 else f"{run['threads']} threads"
    sizes = "" if run["full"] else ", small sizes"
    return f"{run['date']}, {run['machine']} with {run['cores']} cores, {threads}{sizes}, the {run['statistic']} of many turns; {versions}."


def report(run: Run) -> str:
    """All of a run: times, set-up and memory."""
    parts = [about(run) + "\n"]
    for batch, by, rows in questions(run):
        title = of_question(batch, by)
        parts.append(f"{title}: {run['statistic']} milliseconds; the others' time over netsens's\n\n{markdown(times(run, rows))}")
        parts.append(f"{title}: seconds to set up\n\n{markdown(figures(run, rows, 'setup_s'))}")
        parts.append(f"{title}: peak memory of the process, MB\n\n{markdown(figures(run, rows, 'peak_mb'))}")
    return "\n".join(parts)


def readme(run: Run) -> str:
    """The tables of times, those of the smallest batch open."""
    parts = [about(run) + "\n"]
    smallest = min(row["batch"] for row in run["rows"])
    for batch, by, rows in questions(run):
        title, table = of_question(batch, by), markdown(times(run, rows))
        parts.append(f"{title}:\n\n{table}" if batch == smallest else f"<details><summary>{title}</summary>\n\n{table}\n</details>\n")
    return "\n".join(parts)


def refusals(run: Run) -> list[str]:
    """Who didn't take part, and why."""
    return [
        f"{row['model']}, by {row['by']}, batch {row['batch']}: {name} {row[name]['failed']}: {row[name].get('why', '')}"
        for row in run["rows"]
        for name in run["contenders"]
        if row.get(name, {}).get("failed") and row[name]["failed"] != "no twin"
    ]


def compared(new: Run, old: Run) -> str:
    """How netsens's cost in forward passes has changed since another run, and the geometric means of what both runs have."""
    before = {(row["model"], row["batch"], row["by"]): row for row in old["rows"]}
    parts = []
    for batch, by, rows in questions(new):
        both = [(row, before[key]) for row in rows if (key := (row["model"], batch, by)) in before]
        table = []
        for row, was in both:
            a, b = ratio(was, "netsens", "forward", old["statistic"]), ratio(row, "netsens", "forward", new["statistic"])
            if a and b:
                table.append({"": row["model"], "was": f"{a:.2f}", "now": f"{b:.2f}", "change": f"{b / a - 1:+.0%}"})
        for title, some in families([row for row, _ in both]):
            for name, under in (("netsens", "forward"), *((name, "netsens") for name in rivals(new))):
                was_now = [(ratio(before[row["model"], batch, by], name, under, old["statistic"]), ratio(row, name, under, new["statistic"])) for row in some]
                known = [(a, b) for a, b in was_now if a and b]
                if known:
                    a, b = (geometric(values) for values in zip(*known, strict=True))
                    table.append({"": f"{title}, {name} / {under}", "was": f"{a:.2f}", "now": f"{b:.2f}", "change": f"{b / a - 1:+.0%}"})
        if table:
            parts.append(f"{of_question(batch, by)}, in forward passes, since {old.get('date', 'then')}\n\n{markdown(table)}")
    return "\n".join(parts) or "No row of this run is in the other.\n"
