"""The model card: what a person should know of a version before it serves. Pure: facts in, Markdown out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from matinee.schema import Estimate

Figures = Mapping[str, Estimate]
"""Metric name to its estimate."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Figures of several rows side by side.

    Args:
        title: heading of the section.
        text: what the rows are and how they were measured.
        rows: row name to its figures; a metric that a row lacks shows as a dash.
        members: row name to how many members its figures rest on.
        counted: what `members` counts.
    """

    title: str
    text: str
    rows: Mapping[str, Figures]
    members: Mapping[str, int] = field(default_factory=dict)
    counted: str = "members"


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What the card says.

    Args:
        name: of the registered model.
        purpose: one sentence on what it does.
        uses: what it is meant for.
        misuses: what it is not meant for.
        data: what it learned from, label to value.
        training: how it was made, label to value.
        tables: figures, the most telling first.
        limits: what it does badly, and what nobody has measured.
        lineage: label to value: run, code, packages, data snapshot, ...
        metrics_text: what each metric means, and how its interval is made.
    """

    name: str
    purpose: str
    uses: Sequence[str]
    misuses: Sequence[str]
    data: Mapping[str, str]
    training: Mapping[str, str]
    tables: Sequence[Table]
    limits: Sequence[str]
    lineage: Mapping[str, str]
    metrics_text: Mapping[str, str]


def card(facts: CardFacts) -> str:
    """The card as Markdown."""
    parts = [
        f"# {facts.name}",
        facts.purpose,
        "## Intended use",
        _bullets(facts.uses),
        "Not meant for:",
        _bullets(facts.misuses),
        "## Data",
        _pairs(facts.data),
        "## Training",
        _pairs(facts.training),
        "## How to read the figures",
        _bullets([f"**{name}**: {text}" for name, text in facts.metrics_text.items()]),
    ]
    for table in facts.tables:
        parts += [f"## {table.title}", table.text, _figures(table)]
    parts += ["## Limits", _bullets(facts.limits), "## Lineage", _pairs(facts.lineage)]
    return "\n\n".join(parts) + "\n"


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _pairs(values: Mapping[str, str]) -> str:
    rows = [f"| {_cell(name)} | {_cell(value)} |" for name, value in values.items()]
    return "\n".join(["| | |", "|---|---|", *rows])


def _figures(table: Table) -> str:
    metrics = list(dict.fromkeys(name for figures in table.rows.values() for name in figures))
    counted = [table.counted] if table.members else []
    lines = [
        "| | " + " | ".join([*counted, *metrics]) + " |",
        "|---|" + "---:|" * (len(counted) + len(metrics)),
    ]
    for name, figures in table.rows.items():
        cells = [f"{table.members[name]:,}" if name in table.members else "-" for _ in counted]
        cells += [_estimate(figures[metric]) if metric in figures else "-" for metric in metrics]
        lines.append(f"| {_cell(name)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _estimate(estimate: Estimate) -> str:
    return f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
