from __future__ import annotations

from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from matinee.monitoring.metrics import MEASURES, render


def samples(text: str) -> dict[str, float]:
    return {s.name: s.value for family in text_string_to_metric_families(text) for s in family.samples}


def test_every_figure_arrives() -> None:
    figures = {measure.figure: float(i) for i, measure in enumerate(MEASURES)}
    found = samples(render(figures))
    for i, measure in enumerate(MEASURES):
        assert found[measure.name + ("_total" if measure.total else "")] == i


def test_what_is_not_known_is_not_said() -> None:
    assert samples(render({"lag": None, "events": 3})) == {"matinee_events_total": 3}
    assert samples(render({})) == {}


def test_columns_have_labels_that_survive_any_name() -> None:
    text = render({}, drift={'affinity["Sci\\Fi"\n]': 0.25}, version="recommender/1")
    (family,) = text_string_to_metric_families(text)
    (sample,) = family.samples
    assert sample.labels == {"column": 'affinity["Sci\\Fi"\n]', "model_version": "recommender/1"}
    assert sample.value == 0.25


def test_leaves_the_global_registry_alone() -> None:
    before = {family.name for family in REGISTRY.collect()}
    render({"lag": 1})
    assert {family.name for family in REGISTRY.collect()} == before
