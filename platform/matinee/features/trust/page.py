"""The feature catalogue as one HTML page that needs nothing beside itself. Pure: facts in, text out.

Every text from outside is escaped. Colours and sizes are CSS variables; dark follows the reader's system.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from matinee.html import document, safe

_BAR_WIDTH, _BAR_HEIGHT = 168, 40

Facts = Mapping[str, Any]
"""A feature, as `monitoring.catalogue.describe_features` describes it."""


def page(features: Sequence[Facts], *, made: int) -> str:
    """The page.

    Args:
        features: ordered by view.
        made: microseconds: what the page calls now.
    """
    views = [(name, list(held)) for name, held in groupby(features, key=lambda each: each["view"])]
    body = "".join(_view(name, held) for name, held in views)
    options = "".join(f'<option value="{safe(name)}">{safe(name)}</option>' for name, _ in views)
    content = f"""<header class="top">
<div>
<h1>Feature catalogue</h1>
<p class="muted">As of {_moment(made)}. What each feature is, where it comes from, who reads it, and whether
it can be trusted.</p>
</div>
{_summary(features, len(views))}
</header>
<form class="filter" role="search" onsubmit="return false">
<label>Search <input id="text" type="search" placeholder="name, description, owner, model …"
autocomplete="off"></label>
<label>View <select id="view"><option value="">all</option>{options}</select></label>
<label class="check"><input id="problems" type="checkbox"> only with a problem</label>
<output id="count" aria-live="polite">{len(features)} of {len(features)} features</output>
</form>
<main>
{body}
<p id="none" class="muted" hidden>No feature matches.</p>
</main>
<script>{_SCRIPT}</script>"""
    return document("Feature catalogue", style=_STYLE, body=content)


def _summary(features: Sequence[Facts], views: int) -> str:
    compared = [f["consistency"]["share"] for f in features if _share(f) is not None]
    violated = sum(bool(f["violations"]) for f in features)
    expected = sum(bool(f["expect"]) for f in features)
    late = sorted({f["view"] for f in features if f["freshness"]["decision"] == "late"})
    below = sum(_below(f) for f in features)
    tiles = [
        ("Features", str(len(features)), f"in {views} views", ""),
        (
            "Served as recomputed",
            _percent(min(compared)) if compared else "–",
            f"the least of {len(compared)} features" if compared else "nothing compared yet",
            "bad" if below else "good" if compared else "",
        ),
        (
            "Expectations",
            f"{violated} not met" if violated else "met" if expected else "–",
            f"{expected} features have some" if expected else "none declared",
            "bad" if violated else "good" if expected else "",
        ),
        (
            "Freshness",
            f"{len(late)} late" if late else _freshest(features),
            ", ".join(late) if late else "slowest view, p99",
            "bad" if late else "",
        ),
    ]
    shown = "".join(
        f'<div class="tile {kind}"><dt>{safe(name)}</dt><dd><strong>{safe(value)}</strong>'
        f"<span>{safe(note)}</span></dd></div>"
        for name, value, note, kind in tiles
    )
    return f'<dl class="tiles">{shown}</dl>'


def _freshest(features: Sequence[Facts]) -> str:
    found = [f["freshness"]["p99_s"] for f in features if f["freshness"]["p99_s"] is not None]
    return _seconds(max(found)) if found else "–"


def _view(name: str, features: Sequence[Facts]) -> str:
    first = features[0]
    rows = "".join(_feature(each) for each in features)
    fresh = first["freshness"]
    source = first["source"]
    facts = [
        ("Entity", safe(first["entity"])),
        ("Owner", safe(first["owner"] or "–")),
        ("Computed by", safe(source.get("computed_by") or "–")),
        ("Rows come with", safe(_events(first["view_events"]))),
        ("Kept", safe("for ever" if not first["ttl_s"] else _seconds(first["ttl_s"]))),
        ("Late events", safe(first["late"])),
        ("Freshness", _freshness(fresh)),
        ("Last write", _staleness(fresh)),
    ]
    listed = "".join(f"<div><dt>{label}</dt><dd>{value}</dd></div>" for label, value in facts)
    return f"""<section class="view" data-view="{safe(name)}" aria-labelledby="v-{safe(name)}">
<h2 id="v-{safe(name)}">{safe(name)} <span class="tally">{len(features)}</span></h2>
<p>{safe(first["view_description"])}</p>
<dl class="facts">{listed}</dl>
<div class="scroll">
<table>
<caption class="hidden">Features of {safe(name)}</caption>
<thead><tr><th scope="col">Feature</th><th scope="col">Window</th><th scope="col">Values</th>
<th scope="col">Expected</th><th scope="col">Served as recomputed</th><th scope="col">Read by</th></tr>
</thead>
<tbody>{rows}</tbody>
</table>
</div>
</section>
"""


def _feature(facts: Facts) -> str:
    searched = " ".join(
        [
            facts["view"],
            facts["name"],
            facts["description"],
            facts["owner"],
            facts["type"],
            *facts["services"],
            *facts["models"],
        ]
    ).lower()
    late = facts["freshness"]["decision"] == "late"
    problem = "1" if facts["violations"] or late or _below(facts) else ""
    return (
        f'<tr data-text="{safe(searched)}" data-problem="{problem}">'
        f'<th scope="row" id="{safe(facts["view"])}.{safe(facts["name"])}"><code>{safe(facts["name"])}</code>'
        f'<span class="type">{safe(facts["type"])}</span><p>{safe(facts["description"])}</p></th>'
        f"<td>{_window(facts)}</td><td>{_values(facts)}</td><td>{_expected(facts)}</td>"
        f"<td>{_consistency(facts)}</td><td>{_readers(facts)}</td></tr>"
    )


def _window(facts: Facts) -> str:
    source = facts["source"]
    function = source.get("function", "")
    column = source.get("column") or ""
    made = f"{function}({column})" if function else ""
    window = facts["window"]
    if not made and not window:
        return '<span class="muted">see description</span>'
    lines = [f"<code>{safe(made)}</code>" if made else "", safe(window)]
    if function and source.get("events"):
        lines.append(f'<span class="muted">of {safe(_events(source["events"]))}</span>')
    return "<br>".join(line for line in lines if line)


def _expected(facts: Facts) -> str:
    expect = facts["expect"]
    if not expect:
        return '<span class="muted">–</span>'
    words = []
    low, high = expect.get("low"), expect.get("high")
    if low is not None and high is not None:
        words.append(f"{low:g} to {high:g}")
    elif low is not None:
        words.append(f"at least {low:g}")
    elif high is not None:
        words.append(f"at most {high:g}")
    if "null_share" in expect:
        words.append(f"at most {_percent(expect['null_share'])} null")
    if "distinct" in expect:
        words.append(f"at most {expect['distinct']} distinct")
    said = safe("; ".join(words))
    if facts["violations"]:
        listed = "".join(f"<li>{safe(_violation(each))}</li>" for each in facts["violations"])
        return f'{said}<br>{_badge("bad", "not met")}<ul class="small">{listed}</ul>'
    if facts["checked"] is None:
        return f'{said}<br><span class="muted">not checked</span>'
    return f"{said}<br>{_badge('good', 'met')}"


def _violation(found: Facts) -> str:
    rule, origin = found["rule"], found.get("origin", "")
    where = f" ({origin})" if origin else ""
    if rule == "null_share":
        return f"{_percent(found['found'])} null{where}"
    if rule == "distinct":
        return f"{found['found']:g} distinct{where}"
    return f"{found['count']} of {found['rows']} out of range, as far as {found['found']:g}{where}"


def _consistency(facts: Facts) -> str:
    found = facts["consistency"]
    if found is None:
        return '<span class="muted">not compared</span>'
    if found["share"] is None:
        return '<span class="muted">nothing to compare</span>'
    kind = "bad" if _below(facts) else "good"
    text = f"{_badge(kind, _percent(found['share']))}<br>"
    text += f'<span class="muted">{found["equal"]} of {found["compared"]}</span>'
    if found["examples"]:
        items = "".join(
            f"<li><code>{safe(each['key'])}</code>: served <code>{safe(_short(each['served']))}</code>, "
            f"recomputed <code>{safe(_short(each['recomputed']))}</code></li>"
            for each in found["examples"]
        )
        text += f"<details><summary>differing</summary><ul class='small'>{items}</ul></details>"
    return text


def _readers(facts: Facts) -> str:
    services = "".join(f'<span class="chip">{safe(each)}</span>' for each in facts["services"])
    models = "".join(f'<span class="chip model">model {safe(each)}</span>' for each in facts["models"])
    return services + models or '<span class="muted">nobody</span>'


def _values(facts: Facts) -> str:
    found = facts["distribution"]
    if found is None or not found["rows"]:
        return '<span class="muted">no values yet</span>'
    nulls = found["nulls"] / found["rows"]
    rows = f"{found['rows']} {safe(facts['entity'])}s, {safe(facts['origin'])}"
    share = f", {_percent(nulls)} null" if found["nulls"] else ""
    note = f'<p class="muted">{rows}{share}</p>'
    if found["kind"] == "text":
        return _tops(found["bars"]) + note
    if not found["bars"]:
        return note
    plot = _bars(found["bars"], _title(facts, found))
    low, middle, high = safe(found["low"]), f"median {safe(found['median'])}", safe(found["high"])
    if found["kind"] == "length":
        middle += " items"
    if found["kind"] == "time":
        low, middle, high = low[:10], "", high[:10]
    ends = f'<div class="ends"><span>{low}</span><span>{middle}</span><span>{high}</span></div>'
    top = f"<details><summary>most frequent</summary>{_tops(found['top'])}</details>" if found["top"] else ""
    return plot + ends + note + top


def _title(facts: Facts, found: Facts) -> str:
    what = {"length": "List lengths", "time": "Times"}.get(found["kind"], "Values")
    return f"{what} of {facts['name']}: {found['low']} to {found['high']}, median {found['median']}"


def _bars(bars: Sequence[Facts], title: str) -> str:
    """A histogram as inline SVG; each bar tells its range and count."""
    most = max(bar["count"] for bar in bars) or 1
    step = _BAR_WIDTH / len(bars)
    width = min(step * 0.86, 28)
    drawn = "".join(
        f'<rect x="{i * step + (step - width) / 2:.1f}" y="{_BAR_HEIGHT - height:.1f}" width="{width:.1f}" '
        f'height="{height:.1f}" rx="1"><title>{safe(bar["label"])}: {bar["count"]}</title></rect>'
        for i, bar in enumerate(bars)
        for height in [max(1.5 if bar["count"] else 0, _BAR_HEIGHT * bar["count"] / most)]
    )
    return (
        f'<svg class="plot" viewBox="0 0 {_BAR_WIDTH} {_BAR_HEIGHT}" role="img" aria-label="{safe(title)}">'
        f'{drawn}<line x1="0" x2="{_BAR_WIDTH}" y1="{_BAR_HEIGHT}" y2="{_BAR_HEIGHT}"/></svg>'
    )


def _tops(bars: Sequence[Facts]) -> str:
    most = max((bar["count"] for bar in bars), default=1)
    items = "".join(
        f'<li><span class="bar" style="width:{100 * bar["count"] / most:.0f}%"></span>'
        f'<span class="label">{safe(bar["label"])}</span><span class="n">{bar["count"]}</span></li>'
        for bar in bars
    )
    return f'<ol class="tops">{items}</ol>'


def _freshness(fresh: Facts) -> str:
    objective = fresh["objective_s"]
    wanted = f"within {_seconds(objective)}" if objective is not None else "no objective"
    if fresh["p99_s"] is None:
        return f'{safe(wanted)} <span class="muted">(not measured)</span>'
    kind = {"late": "bad", "fresh": "good"}.get(fresh["decision"], "")
    return _badge(kind, f"{_seconds(fresh['p99_s'])} p99") + " " + safe(wanted)


def _staleness(fresh: Facts) -> str:
    if fresh["staleness_s"] is None:
        return '<span class="muted">not measured</span>'
    measured = f'<span class="muted">(at {_moment(fresh["measured"], "%H:%M")})</span>'
    return f"{safe(_seconds(fresh['staleness_s']))} ago {measured}"


def _events(types: Sequence[str]) -> str:
    return (
        "no events: the catalogue" if not types else "every event" if types == ["all"] else ", ".join(types)
    )


def _share(facts: Facts) -> float | None:
    found = facts["consistency"]
    return None if found is None else found["share"]


def _below(facts: Facts) -> bool:
    share = _share(facts)
    return share is not None and share < facts["consistency"]["bound"]


def _badge(kind: str, text: str) -> str:
    mark = {"good": "✓ ", "bad": "✗ "}.get(kind, "")
    return f'<span class="badge {kind}">{mark}{safe(text)}</span>'


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:38]} … {text[-38:]}"


def _percent(share: float) -> str:
    """Never rounded up to 100%."""
    if share == 1 or share == 0:
        return f"{share:.0%}"
    shown = f"{share:.2%}" if share < 0.9999 else f"{share:.4%}"
    return "99.9999%" if shown == "100.0000%" else shown


def _seconds(value: float) -> str:
    if value < 1:
        return f"{1000 * value:.0f} ms"
    for name, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if value >= 2 * size or value == size:
            return f"{value / size:.3g} {name}"
    return f"{value:.3g} s"


def _moment(time_us: int, form: str = "%Y-%m-%d %H:%M UTC") -> str:
    moment = datetime.fromtimestamp(time_us / 1e6, UTC)
    return f'<time datetime="{moment:%Y-%m-%dT%H:%M:%SZ}">{moment.strftime(form)}</time>'


_STYLE = """
:root{--ground:#fbfbfa;--card:#fff;--ink:#1d1f23;--soft:#5d6470;--line:#e3e5e8;--bar:#3e6fb0;--head:#f3f4f5;
--good:#1c6b3c;--good-ground:#e3f3e8;--bad:#a1261d;--bad-ground:#fbe7e4;--chip:#eceef1;--model:#e6ecf8;
--focus:#1f5fd0}
@media(prefers-color-scheme:dark){:root{--ground:#15171a;--card:#1c1f23;--ink:#e7e9ec;--soft:#9aa3af;
--line:#31353b;--bar:#7ba7e3;--head:#22262b;--good:#82d5a0;--good-ground:#173424;--bad:#f4a097;
--bad-ground:#45201c;--chip:#2c3138;--model:#24324d;--focus:#8ab4ff}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
h1{font-size:1.6rem;line-height:1.2;margin:0 0 .3rem;letter-spacing:-.01em}
h2{font-size:1.15rem;margin:0 0 .2rem}
p{margin:0}
code{font:.92em/1.4 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;
overflow-wrap:anywhere}
.muted{color:var(--soft)}
.hidden{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.top,main,.filter{max-width:84rem;margin:0 auto;padding:0 1.5rem}
.top{padding-top:2rem;padding-bottom:1rem;display:flex;flex-wrap:wrap;gap:1.2rem 3rem;
align-items:flex-end;justify-content:space-between}
.top p{max-width:34rem}
.tiles{display:flex;flex-wrap:wrap;gap:.7rem;margin:0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:.6rem .9rem;
min-width:8.5rem}
.tile dt{font-size:.8rem;color:var(--soft)}
.tile dd{margin:0}
.tile strong{display:block;font-size:1.25rem;font-weight:600;font-variant-numeric:tabular-nums}
.tile span{font-size:.8rem;color:var(--soft)}
.tile.good strong{color:var(--good)}
.tile.bad strong{color:var(--bad)}
.filter{position:sticky;top:0;z-index:2;background:var(--ground);display:flex;flex-wrap:wrap;
gap:.6rem 1.2rem;align-items:center;padding-top:.7rem;padding-bottom:.7rem;
border-bottom:1px solid var(--line)}
.filter label{display:flex;align-items:center;gap:.5rem;font-size:.9rem;color:var(--soft)}
.filter input[type=search]{width:min(22rem,60vw)}
.filter input[type=search],.filter select{font:inherit;color:var(--ink);background:var(--card);
border:1px solid var(--line);border-radius:8px;padding:.35rem .6rem}
.filter output{margin-left:auto;font-size:.9rem;color:var(--soft);font-variant-numeric:tabular-nums}
:focus-visible{outline:2px solid var(--focus);outline-offset:2px}
.view{background:var(--card);border:1px solid var(--line);border-radius:12px;margin:1.2rem 0;
padding:1.1rem 1.2rem 0;overflow:hidden}
.tally{font-size:.8rem;font-weight:500;color:var(--soft);background:var(--chip);border-radius:99px;
padding:.1rem .55rem;vertical-align:.1em}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(max(10.5rem,22%),1fr));gap:.5rem 1.2rem;
margin:.8rem 0 1rem}
.facts dt{font-size:.78rem;color:var(--soft)}
.facts dd{margin:0;font-size:.92rem}
.scroll{overflow-x:auto;margin:0 -1.2rem}
table{border-collapse:collapse;table-layout:fixed;width:100%;min-width:66rem;font-size:.92rem}
thead th{background:var(--head);font-size:.78rem;font-weight:600;color:var(--soft);white-space:nowrap}
th,td{text-align:left;vertical-align:top;padding:.65rem .8rem;border-top:1px solid var(--line)}
th:first-child{padding-left:1.2rem;width:24%}
thead th:nth-child(2){width:17%}
thead th:nth-child(3){width:13rem}
thead th:nth-child(4){width:14%}
thead th:nth-child(5){width:15%}
td{overflow-wrap:anywhere}
td:last-child,th:last-child{padding-right:1.2rem}
tbody th{font-weight:400}
tbody th code{font-weight:600}
tbody th p{color:var(--soft);font-size:.88rem;margin-top:.15rem}
.type{font-size:.76rem;color:var(--soft);margin-left:.5rem;white-space:nowrap}
.plot{display:block;width:10.5rem;height:2.5rem;overflow:visible}
.plot rect{fill:var(--bar)}
.plot rect:hover{opacity:.65}
.plot line{stroke:var(--line);stroke-width:1}
.ends{display:flex;justify-content:space-between;gap:.4rem;width:10.5rem;font-size:.72rem;
color:var(--soft);font-variant-numeric:tabular-nums;margin-top:.15rem}
td p.muted{font-size:.76rem;margin-top:.1rem}
.tops{list-style:none;margin:.2rem 0 0;padding:0;width:10.5rem;font-size:.8rem}
.tops li{position:relative;display:flex;justify-content:space-between;gap:.5rem;padding:.05rem .35rem;
margin-bottom:2px}
.tops .bar{position:absolute;inset:0 auto 0 0;background:var(--bar);opacity:.22;border-radius:3px}
.tops .label,.tops .n{position:relative}
.tops .label{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.tops .n{font-variant-numeric:tabular-nums;color:var(--soft)}
.badge{display:inline-block;border-radius:6px;padding:.05rem .45rem;font-size:.82rem;font-weight:600;
font-variant-numeric:tabular-nums;background:var(--chip);white-space:nowrap}
.badge.good{color:var(--good);background:var(--good-ground)}
.badge.bad{color:var(--bad);background:var(--bad-ground)}
.chip{display:inline-block;background:var(--chip);border-radius:6px;padding:.05rem .45rem;
margin:0 .3rem .3rem 0;font-size:.8rem;white-space:nowrap}
.chip.model{background:var(--model)}
.small{font-size:.8rem;margin:.25rem 0 0;padding-left:1rem;color:var(--soft)}
details{font-size:.8rem;margin-top:.2rem}
summary{cursor:pointer;color:var(--soft)}
[hidden]{display:none!important}
@media print{.filter{display:none}.view{break-inside:avoid}}
"""

_SCRIPT = """
(function(){
var text=document.getElementById('text'),view=document.getElementById('view'),
problems=document.getElementById('problems'),count=document.getElementById('count'),
none=document.getElementById('none'),sections=Array.from(document.querySelectorAll('section.view'));
function show(){
var words=text.value.toLowerCase().split(/\\s+/).filter(Boolean),shown=0,all=0;
sections.forEach(function(section){
var right=!view.value||section.dataset.view===view.value,here=0;
section.querySelectorAll('tbody tr').forEach(function(row){
var fits=right&&(!problems.checked||row.dataset.problem)&&
words.every(function(word){return row.dataset.text.indexOf(word)>=0});
row.hidden=!fits;all+=1;if(fits)here+=1;});
section.hidden=!here;shown+=here;});
none.hidden=shown>0;
count.textContent=shown+' of '+all+' features';}
[text,problems].forEach(function(field){field.addEventListener('input',show)});
view.addEventListener('change',show);
text.addEventListener('keydown',function(key){if(key.key==='Escape'){text.value='';show()}});
show();
})();
"""
