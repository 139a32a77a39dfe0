"""Aggregate views computed event by event: exact, incremental, columnar; knows no engine, store or log."""

from matinee.features.aggregates.state import TEXTS, AggregateState, Applied, latest

__all__ = ["TEXTS", "AggregateState", "Applied", "latest"]
