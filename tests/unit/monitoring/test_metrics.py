from __future__ import annotations

from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from matinee.monitoring.metrics import LABELLED, MEASURES, FeatureFigures, render


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


def test_single_features_have_labels_and_counters_end_in_total() -> None:
    figures = FeatureFigures(
        violations={("v", "f", "low"): 3.0},
        freshness={("v", "0.5"): 0.1, ("v", "0.99"): 0.4},
        consistency={("v", 'f"\n'): 0.5},
        bound={(): 0.999},
    )
    families = {
        family.name: family for family in text_string_to_metric_families(render({}, features=figures))
    }
    assert families.keys() == {
        "matinee_feature_violations",
        "matinee_feature_freshness_seconds",
        "matinee_feature_consistency",
        "matinee_feature_consistency_bound",
    }
    (violation,) = families["matinee_feature_violations"].samples
    assert violation.name == "matinee_feature_violations_total"
    assert (violation.labels, violation.value) == ({"view": "v", "feature": "f", "rule": "low"}, 3)
    quantiles = {s.labels["quantile"]: s.value for s in families["matinee_feature_freshness_seconds"].samples}
    assert quantiles == {"0.5": 0.1, "0.99": 0.4}
    (share,) = families["matinee_feature_consistency"].samples
    assert share.labels == {"view": "v", "feature": 'f"\n'}


def test_every_labelled_measure_is_a_field_with_as_many_labels() -> None:
    for measure in LABELLED:
        figures = FeatureFigures(**{measure.figure: {("x",) * len(measure.labels): 1.0}})
        (family,) = text_string_to_metric_families(render({}, features=figures))
        (sample,) = family.samples
        assert sample.name == measure.name + ("_total" if measure.total else "")
        assert set(sample.labels) == set(measure.labels)
