"""What the values of a view's features are expected to be, held against tables of them. Pure.

The stream checks each table it publishes and the batch each part it builds, with the same functions. A
range is judged value by value. A share of nulls says little about the few rows of a micro-batch, so
`Violations` gathers rows before it judges one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self

import pyarrow as pa
import pyarrow.compute as pc

from matinee.errors import InvalidInput
from matinee.schema import AggregateView, Decision, Expectation

Rule = Literal["low", "high", "null_share", "distinct"]
"""The fields of `schema.Expectation`, each a rule of its own."""

LEAST_ROWS = 1_000
"""Rows of a view that `Violations` gathers before it judges their share of nulls."""


@dataclass(frozen=True, kw_only=True)
class ViewExpectations:
    """What is expected of a view.

    Args:
        view: its name.
        features: by feature name; features that nothing is expected of are left out.
    """

    view: str
    features: Mapping[str, Expectation] = field(default_factory=dict)

    @classmethod
    def of(cls, view: AggregateView) -> Self:
        """As its aggregates declare."""
        return cls(view=view.name, features={a.name: a.expect for a in view.aggregates if a.expect})

    @classmethod
    def of_tags(cls, view: str, tags: Mapping[str, str]) -> Self:
        """From the tag `expect` of a view's fields.

        Args:
            tags: feature name to a JSON object of `Expectation`'s fields, as in '{"low": 0}'.

        Raises:
            InvalidInput: not an object of these fields and numbers.
        """
        return cls(view=view, features={name: parse(text, f"{view}.{name}") for name, text in tags.items()})


def parse(text: str, name: str) -> Expectation:
    """An expectation from JSON.

    Raises:
        InvalidInput: not an object of `Expectation`'s fields and numbers; `name` says whose.
    """
    known = [each.name for each in fields(Expectation)]
    try:
        given = json.loads(text)
    except ValueError:
        given = None
    if not isinstance(given, dict) or not given.keys() <= set(known):
        raise InvalidInput(
            f"expectation of {name} is {text!r}; a JSON object of {', '.join(known)} is accepted"
        )
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in given.values()):
        raise InvalidInput(f"expectation of {name} is {text!r}; its values must be numbers")
    return Expectation(**given)


@dataclass(frozen=True, kw_only=True)
class Violation:
    """An expectation that some rows do not meet.

    Args:
        rule: which of its bounds.
        count: values out of range; 1 where the rule is about all rows together.
        rows: those looked at.
        found: the value furthest out, the share of nulls, or the number of distinct values.
        limit: the bound.
    """

    view: str
    feature: str
    rule: Rule
    count: int
    rows: int
    found: float
    limit: float

    def __str__(self) -> str:
        place = f"{self.view}.{self.feature}"
        found, limit = f"{self.found:g}", f"{self.limit:g}"
        if self.rule == "null_share":
            return (
                f"{place}: {self.found:.2%} of {self.rows} rows are null, {self.limit:.2%} at most expected"
            )
        if self.rule == "distinct":
            return f"{place}: {found} distinct values in {self.rows} rows, {limit} at most expected"
        bound = "under" if self.rule == "low" else "over"
        return f"{place}: {self.count} of {self.rows} values {bound} {limit}, as far as {found}"


def check(expected: ViewExpectations, table: pa.Table) -> list[Violation]:
    """Every expectation that the rows of `table` do not meet, in the order of declaration.

    Args:
        table: with a column for each feature that something is expected of. Of a list its length counts,
            of a text its characters. NaN counts as null; a null is out of no range.
    """
    if not table.num_rows:
        return []
    found: list[Violation] = []
    for name, expectation in expected.features.items():
        found += _range(expected.view, name, expectation, table[name])
        if expectation.null_share is not None:
            found += _null_share(expected.view, name, expectation, nulls(table[name]), table.num_rows)
    return found


def nulls(column: pa.ChunkedArray) -> int:
    """How many values are null or NaN."""
    count = int(column.null_count)
    if pa.types.is_floating(column.type):
        count += int(pc.sum(pc.is_nan(column)).as_py() or 0)
    return count


class Violations:
    """Violations counted by view, feature and rule, over many tables of rows.

    Args:
        least_rows: a share of nulls is judged over at least so many rows of a view, put together from as
            many tables as it takes.
    """

    def __init__(self, *, least_rows: int = LEAST_ROWS) -> None:
        self._least = least_rows
        self._counts: dict[tuple[str, str, str], int] = {}
        self._latest: dict[tuple[str, str, str], Violation] = {}
        self._gathered: dict[tuple[str, str], tuple[int, int]] = {}

    def add(self, expected: ViewExpectations, table: pa.Table) -> list[Violation]:
        """Check a table and count; returns what it violates.

        Args:
            table: as `check` takes it.
        """
        found: list[Violation] = []
        if not table.num_rows:
            return found
        for name, expectation in expected.features.items():
            found += _range(expected.view, name, expectation, table[name])
            if expectation.null_share is not None:
                seen, missing = self._gathered.get((expected.view, name), (0, 0))
                seen, missing = seen + table.num_rows, missing + nulls(table[name])
                if seen >= self._least:
                    found += _null_share(expected.view, name, expectation, missing, seen)
                    seen, missing = 0, 0
                self._gathered[expected.view, name] = (seen, missing)
        for each in found:
            place = (each.view, each.feature, each.rule)
            self._counts[place] = self._counts.get(place, 0) + each.count
            self._latest[place] = each
        return found

    def status(self) -> list[dict[str, Any]]:
        """The latest violation of each view, feature and rule, its `count` the sum of all so far."""
        return [asdict(each) | {"count": self._counts[place]} for place, each in sorted(self._latest.items())]


def merged(found: Iterable[Violation]) -> list[Violation]:
    """One violation for each view, feature and rule of several tables: counts and rows added, the worst kept.

    A share of nulls is the worst of the tables that were over the limit, not that of all rows.
    """
    held: dict[tuple[str, str, str], Violation] = {}
    for each in found:
        place = (each.view, each.feature, each.rule)
        known = held.get(place)
        if known is None:
            held[place] = each
            continue
        worst = min if each.rule == "low" else max
        held[place] = Violation(
            view=each.view,
            feature=each.feature,
            rule=each.rule,
            count=known.count + each.count,
            rows=known.rows + each.rows,
            found=worst(known.found, each.found),
            limit=each.limit,
        )
    return list(held.values())


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What a build may violate and still be published."""

    out_of_range: float = 0.0
    """Share of a feature's rows in [0, 1] that may be out of its range."""
    report_only: bool = False
    """Publish whatever is violated: violations are reported alone."""


def gate(violations: Sequence[Violation], policy: Policy) -> Decision:
    """Whether rows may be published: "publish" or "hold", with the violations that decided.

    Any share of nulls or number of distinct values over its limit holds; values out of range hold where
    their share is over the policy's. `evidence`: count by "view.feature.rule".
    """
    grave = [
        each
        for each in violations
        if each.rule in ("null_share", "distinct") or each.count > policy.out_of_range * each.rows
    ]
    evidence = {f"{each.view}.{each.feature}.{each.rule}": float(each.count) for each in violations}
    if grave and not policy.report_only:
        shown = "; ".join(str(each) for each in grave[:5])
        more = f"; and {len(grave) - 5} more" if len(grave) > 5 else ""
        return Decision(action="hold", reason=shown + more, evidence=evidence)
    reason = "every expectation is met"
    if violations:
        tolerated = "violations are reported alone" if policy.report_only else "within what is tolerated"
        reason = f"{len(violations)} expectations are not met: {tolerated}"
    return Decision(action="publish", reason=reason, evidence=evidence)


def _range(view: str, feature: str, expected: Expectation, column: pa.ChunkedArray) -> list[Violation]:
    found: list[Violation] = []
    rows = len(column)
    if expected.distinct is not None:
        distinct = pc.count_distinct(_flat(column), mode="only_valid").as_py()
        if distinct > expected.distinct:
            found.append(
                Violation(
                    view=view,
                    feature=feature,
                    rule="distinct",
                    count=1,
                    rows=rows,
                    found=float(distinct),
                    limit=float(expected.distinct),
                )
            )
    if expected.low is None and expected.high is None:
        return found
    numbers = _measured(column)
    ends = pc.min_max(numbers)
    for rule, limit, worst, beyond in (
        ("low", expected.low, ends["min"].as_py(), pc.less),
        ("high", expected.high, ends["max"].as_py(), pc.greater),
    ):
        if limit is None or worst is None or not (worst < limit if rule == "low" else worst > limit):
            continue
        count = int(pc.sum(beyond(numbers, pa.scalar(limit, pa.float64()))).as_py())
        found.append(
            Violation(
                view=view,
                feature=feature,
                rule=rule,  # type: ignore[arg-type]
                count=count,
                rows=rows,
                found=float(worst),
                limit=limit,
            )
        )
    return found


def _null_share(view: str, feature: str, expected: Expectation, missing: int, rows: int) -> list[Violation]:
    assert expected.null_share is not None
    share = missing / rows
    if share <= expected.null_share:
        return []
    return [
        Violation(
            view=view,
            feature=feature,
            rule="null_share",
            count=1,
            rows=rows,
            found=share,
            limit=expected.null_share,
        )
    ]


def _measured(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The number of each value that a range is about."""
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pc.list_value_length(column)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pc.utf8_length(column)
    return column


def _flat(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The values whose number is counted: of lists, their items."""
    nested = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    return pc.list_flatten(column) if nested else column
