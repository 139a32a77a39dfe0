"""The page of a decision shows what decided, and no text can break out of it."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from matinee.canary.judge import CanaryConfig, Judgement, Metric, Samples, analyse, judge
from matinee.canary.report import page, write_report
from matinee.schema import Decision

NASTY = '<script>alert("x")</script>'
DRAW = np.random.default_rng(0)
SAMPLES = {
    "latency": Samples(DRAW.lognormal(3, 0.3, 60), DRAW.lognormal(3.5, 0.3, 60)),
    "flat": Samples(np.ones(5), np.ones(5)),
    NASTY: Samples(np.zeros(0), np.array([np.nan])),
}


def judgement() -> Judgement:
    return judge(CanaryConfig(metrics=[Metric(name=name, groups=[NASTY]) for name in SAMPLES]), SAMPLES)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_shows_each_metric(tmp_path: Path) -> None:
    path = tmp_path / "reports" / "home.html"
    decision = Decision(action="roll back", reason="the score is low", evidence={"score": 50.0})
    write_report(path, judgement(), SAMPLES, decision)
    text = path.read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert tags.seen.count("article") == 3
    assert tags.seen.count("figure") == 3  # latency: values and interval; flat: values
    assert "script" not in tags.seen
    for part in ("roll back", "the score is low", "High", "Nodata", "shift"):
        assert part in text
    assert [each.name for each in path.parent.iterdir()] == ["home.html"]


def test_failures_come_first_and_a_decision_is_not_needed() -> None:
    text = page(judgement(), {})
    assert text.index("<code>latency") < text.index("<code>flat")
    assert "<figure>" in text  # the interval needs no samples


def test_an_analysis_shows_the_score_of_every_interval_and_what_it_warns_of() -> None:
    good = {"latency": Samples(np.ones(60), np.ones(60))}
    config = CanaryConfig(metrics=[Metric(name="latency")])
    analysis = analyse(config, [good, {"latency": SAMPLES["latency"]}, good], count=3)
    text = page(analysis.last, {}, analysis=analysis)
    assert "<dt>1</dt><dd>100</dd>" in text
    assert "<dt>2</dt><dd>0</dd>" in text
    assert "<dt>3</dt>" not in text
    assert "stopped" in text
    assert "fewer than" not in text
    few = judge(config, {"latency": Samples(np.ones(49), np.ones(60))})
    assert "fewer than 50 values of the control: latency 49" in page(few, {})
