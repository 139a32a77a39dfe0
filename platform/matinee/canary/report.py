"""The page of a decision: one HTML file that needs nothing beside itself. Every text is escaped.

Colours and sizes are CSS variables; dark follows the reader's system.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from matinee.canary.judge import Analysis, Judgement, MetricJudgement, Samples, Summary, warnings_of
from matinee.html import document, safe
from matinee.schema import Decision

_BINS = 32
_WIDTH, _HEIGHT = 300, 84
_SHOWN = 0.995
"""Share of the values between the ends of a plot's axis; the others count in its outer bins."""


def write_report(
    path: Path,
    judgement: Judgement,
    samples: Mapping[str, Samples],
    decision: Decision | None = None,
    analysis: Analysis | None = None,
) -> None:
    """Write the page of a judgement, whole or not at all.

    Args:
        samples: what was judged, by metric; a metric without any is shown without a plot.
        decision: what follows from the judgement.
        analysis: over intervals, of which this judgement is the last.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text(page(judgement, samples, decision, analysis), encoding="utf-8")
    draft.replace(path)


def page(
    judgement: Judgement,
    samples: Mapping[str, Samples],
    decision: Decision | None = None,
    analysis: Analysis | None = None,
) -> str:
    """The page as text. Arguments as of `write_report`."""
    order = sorted(judgement.metrics, key=lambda each: (each.label == "Pass", not each.critical))
    metrics = "".join(_metric(each, samples.get(each.name)) for each in order)
    groups = "".join(
        f"<div><dt>{safe(name)}</dt><dd>{value:.4g}</dd></div>" for name, value in judgement.groups.items()
    )
    body = f"""<header>
<p class="score {judgement.verdict}"><strong>{judgement.score:g}</strong> {judgement.verdict}</p>
<div><h1>Canary judgement</h1><p>{safe(judgement.reason)}</p></div>
</header>
{_warnings(judgement)}
{_decision(decision) if decision else ""}
{_intervals(analysis) if analysis else ""}
<section aria-labelledby="groups"><h2 id="groups">Groups</h2><dl class="tiles">{groups}</dl></section>
<main>
<h2>Metrics</h2>
<p class="soft">Upwards <span class="key control"></span> control, downwards
<span class="key experiment"></span> experiment; a tick is a median. The bar is the interval of the shift of
experiment over control, the line zero.</p>
{metrics}
</main>"""
    return document(f"Canary: {judgement.verdict}, {judgement.score:g}", style=_STYLE, body=body)


def _decision(decision: Decision) -> str:
    facts = "".join(
        f"<div><dt>{safe(name)}</dt><dd>{value:.6g}</dd></div>" for name, value in decision.evidence.items()
    )
    return (
        f'<section class="card"><h2>{safe(decision.action)}</h2><p>{safe(decision.reason)}</p>'
        f'<dl class="tiles">{facts}</dl></section>'
    )


def _warnings(judgement: Judgement) -> str:
    found = "".join(f"<li>{safe(each)}</li>" for each in warnings_of(judgement))
    return f'<ul class="card warnings" aria-label="Warnings">{found}</ul>' if found else ""


def _intervals(analysis: Analysis) -> str:
    """The scores of an analysis in their order, and what they come to."""
    tiles = "".join(
        f"<div><dt>{number}</dt><dd>{score:g}</dd></div>" for number, score in enumerate(analysis.scores, 1)
    )
    state = "stopped" if analysis.stopped else "over" if analysis.over else "goes on"
    return (
        f'<section class="card"><h2>Intervals <span class="badge {analysis.verdict}">{analysis.verdict}'
        f'</span> <span class="chip">{state}</span></h2><p>{safe(analysis.reason)}</p>'
        f'<dl class="tiles">{tiles}</dl></section>'
    )


def _metric(found: MetricJudgement, samples: Samples | None) -> str:
    marks = [word for word, holds in (("critical", found.critical), ("muted", found.muted)) if holds]
    chips = "".join(f'<span class="chip">{safe(word)}</span>' for word in [*marks, *found.groups])
    kind = "pass" if found.label == "Pass" else "marginal" if found.label == "Nodata" else "fail"
    plot = _distributions(samples, found) if samples is not None else ""
    return f"""<article class="card">
<h3><span class="badge {kind}">{safe(found.label)}</span> <code>{safe(found.name)}</code> {chips}</h3>
<p class="soft">{safe(found.reason)}</p>
<div class="row">{plot}{_interval(found)}
<table><thead><tr><th></th><th>n</th><th>mean</th><th>median</th><th>sd</th><th>min</th><th>max</th></tr></thead>
<tbody>{_summary("control", found.control)}{_summary("experiment", found.experiment)}</tbody></table>
</div>
</article>
"""


def _summary(side: str, summary: Summary) -> str:
    numbers = (summary.mean, summary.median, summary.std, summary.min, summary.max)
    cells = "".join(f"<td>{value:.4g}</td>" for value in numbers)
    name = f'<span class="key {side}"></span> {side}'
    return f'<tr><th scope="row">{name}</th><td>{summary.count}</td>{cells}</tr>'


def _distributions(samples: Samples, found: MetricJudgement) -> str:
    """Histograms of both sides on one axis, control upwards and experiment downwards."""
    sides = {"control": samples.control, "experiment": samples.experiment}
    finite = {name: values[np.isfinite(values)] for name, values in sides.items()}
    pooled = np.concatenate(list(finite.values()))
    if not len(pooled):
        return ""
    low, high = np.quantile(pooled, [1 - _SHOWN, _SHOWN])
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    shares = {
        name: np.histogram(np.clip(values, low, high), _BINS, (low, high))[0] / max(1, len(values))
        for name, values in finite.items()
    }
    tallest = max(float(share.max()) for share in shares.values())
    half, step = _HEIGHT / 2, _WIDTH / _BINS
    bars = []
    for name, sign in (("control", -1), ("experiment", 1)):
        for place, share in enumerate(shares[name]):
            if share:
                height = (half - 4) * share / tallest
                top = half - height if sign < 0 else half
                bars.append(_rect(name, place * step, top, step - 1, height))
        middle = getattr(found, name).median
        at = _WIDTH * (min(max(middle, low), high) - low) / (high - low)
        bars.append(_line("tick", at, half + sign * (half - 2), at, half))
    text = f"from {low:.4g} to {high:.4g}"
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Distributions {text}">'
        f"{''.join(bars)}{_line('axis', 0, half, _WIDTH, half)}</svg>{_ends(low, high)}</figure>"
    )


def _interval(found: MetricJudgement) -> str:
    """The interval of the shift beside zero."""
    ends = np.array([found.low, found.high, found.estimate])
    if not np.isfinite(ends).all():
        return ""
    low, high = min(0.0, float(ends.min())), max(0.0, float(ends.max()))
    pad = (high - low or 1.0) * 0.08
    low, high = low - pad, high + pad
    left, right, middle, zero = (_WIDTH * (np.array([*ends, 0.0]) - low) / (high - low)).tolist()
    half = _HEIGHT / 2
    text = f"shift {found.estimate:.4g}, from {found.low:.4g} to {found.high:.4g}"
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{text}">'
        f"{_rect('interval', left, half - 5, max(1.0, right - left), 10)}"
        f"{_line('axis', zero, 8, zero, _HEIGHT - 8)}"
        f'<circle class="estimate" cx="{middle:.1f}" cy="{half:.1f}" r="5"/></svg>{_ends(low, high)}</figure>'
    )


def _rect(kind: str, x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _ends(low: float | npt.NDArray[np.float64], high: float | npt.NDArray[np.float64]) -> str:
    return f"<figcaption><span>{low:.4g}</span><span>{high:.4g}</span></figcaption>"


_STYLE = """
:root{--ground:#fbfbfa;--card:#fff;--ink:#1d1f23;--soft:#5d6470;--line:#dcdfe3;--control:#9aa3af;
--experiment:#3e6fb0;--pass:#1c6b3c;--pass-ground:#e3f3e8;--fail:#a1261d;--fail-ground:#fbe7e4;
--marginal:#7a5200;--marginal-ground:#faefd6;--chip:#eceef1}
@media(prefers-color-scheme:dark){:root{--ground:#15171a;--card:#1c1f23;--ink:#e7e9ec;--soft:#9aa3af;
--line:#31353b;--control:#78818d;--experiment:#7ba7e3;--pass:#82d5a0;--pass-ground:#173424;--fail:#f4a097;
--fail-ground:#45201c;--marginal:#e9c46a;--marginal-ground:#3b2f12;--chip:#2c3138}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:72rem;padding:1.5rem;background:var(--ground);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
h1{font-size:1.5rem;margin:0}
h2{font-size:1.1rem;margin:1.4rem 0 .4rem}
h3{font-size:1rem;margin:0 0 .2rem;display:flex;flex-wrap:wrap;gap:.5rem;align-items:center}
p{margin:0}
code{font:.95em/1.4 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;
overflow-wrap:anywhere}
header{display:flex;flex-wrap:wrap;gap:1.2rem;align-items:center}
.score{border-radius:12px;padding:.5rem 1rem;font-size:1.05rem}
.score strong{font-size:1.9rem;font-weight:650;font-variant-numeric:tabular-nums;margin-right:.3rem}
.pass{color:var(--pass);background:var(--pass-ground)}
.fail{color:var(--fail);background:var(--fail-ground)}
.marginal{color:var(--marginal);background:var(--marginal-ground)}
.soft{color:var(--soft);font-size:.92rem}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:1rem 1.2rem;
margin:.8rem 0}
.card h2{margin-top:0}
.warnings{color:var(--marginal);background:var(--marginal-ground);list-style-position:inside}
.tiles{display:flex;flex-wrap:wrap;gap:.6rem;margin:.5rem 0 0}
.tiles div{border:1px solid var(--line);border-radius:10px;padding:.4rem .8rem;background:var(--card)}
.tiles dt{font-size:.78rem;color:var(--soft)}
.tiles dd{margin:0;font-weight:600;font-variant-numeric:tabular-nums}
.badge,.chip{border-radius:6px;padding:.05rem .5rem;font-size:.82rem;font-weight:600}
.chip{background:var(--chip);font-weight:500}
.row{display:flex;flex-wrap:wrap;gap:1rem 1.6rem;align-items:center;margin-top:.6rem}
figure{margin:0;width:18rem;max-width:100%}
svg{display:block;width:100%;height:auto;overflow:visible}
figcaption{display:flex;justify-content:space-between;font-size:.74rem;color:var(--soft);
font-variant-numeric:tabular-nums}
rect.control{fill:var(--control)}
rect.experiment{fill:var(--experiment)}
rect.interval{fill:var(--experiment);opacity:.35}
.estimate{fill:var(--experiment)}
.axis{stroke:var(--soft);stroke-width:1}
.tick{stroke:var(--ink);stroke-width:1.5}
.key{display:inline-block;width:.7rem;height:.7rem;border-radius:2px}
.key.control{background:var(--control)}
.key.experiment{background:var(--experiment)}
table{border-collapse:collapse;font-size:.84rem;font-variant-numeric:tabular-nums}
th,td{padding:.15rem .5rem;text-align:right;font-weight:400}
thead th{color:var(--soft)}
th[scope=row]{text-align:left;white-space:nowrap}
"""
