"""The command line: parse, build settings, call a room, print. `--json` prints for machines.

Rooms are imported by the command that needs them: the shell is never kept waiting for a model library.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

from matinee.config import Settings, load_settings
from matinee.errors import MatineeError

Command = Callable[[argparse.Namespace, Settings], int]


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Exit 2 with one line."""
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    options = parser().parse_args(arguments)
    try:
        settings = load_settings(
            {"home": options.home, "seed": options.seed, "serving.port": getattr(options, "port", None)}
        )
        command: Command = options.command
        return command(options, settings)
    except MatineeError as failure:
        print(f"matinee: {failure}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("matinee: interrupted; run it again to go on", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """Every command and flag."""
    common = Parser(add_help=False)
    common.add_argument("--home", help="the data home (default .matinee)")
    common.add_argument("--seed", type=int, help="seeds everything random (default 0)")
    common.add_argument("--json", action="store_true", help="print JSON")

    root = Parser(prog="matinee", description="The machine-learning platform of a streaming service.")
    commands = root.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)

    def add(name: str, command: Command, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, parents=[common], help=text, description=text)
        added.set_defaults(command=command)
        return added

    demo = add("demo", _demo, "run the whole loop on MovieLens 100K, then serve it")
    demo.add_argument("--port", type=int, help="port of the API (default: a free one)")
    demo.add_argument("--exit", action="store_true", help="stop when the table is printed")

    data = add("data", _data, "bring a data set into the home")
    data.add_argument("action", choices=["get"])
    data.add_argument("name", help="movielens-100k, movielens-1m, movielens-20m, ...")
    data.add_argument("--from", dest="origin", help="a zip, a folder or an address to take it from")

    up = add("up", _up, "start the platform as a service")
    up.add_argument("--port", type=int, help="port of the API (default: a free one)")
    add("down", _down, "stop the service; what was accepted is kept")
    add("status", _status, "what runs, and how it is")

    tune = add("tune", _tune, "search a model's config; the same command goes on where it was")
    tune.add_argument("model", help="cf, dnn, gnn, popularity, ensemble, ...")
    limit = tune.add_mutually_exclusive_group()
    limit.add_argument("--budget", default="20m", help="20m, 1h30m, 90s or '30 trials' (default 20m)")
    limit.add_argument("--trials", type=int, help="the same as --budget 'N trials'")
    tune.add_argument("--name", help="of the study (default: of model, data, seed and presets)")
    tune.add_argument("--apply", action="store_true", help='keep the best as the preset "tuned"')

    models = add("models", _models, "list the model versions")
    models.add_argument("--card", metavar="VERSION", help="print a version's model card")

    split = add("split", _split, "show or set the versions that answer a surface, with their weights")
    split.add_argument("surface", nargs="?", default="home")
    split.add_argument("weights", nargs="*", metavar="VERSION=WEIGHT")
    split.add_argument(
        "--member", nargs=2, metavar=("MEMBER", "CELL"), help='put a member in a cell, or "none"'
    )
    split.add_argument(
        "--segment",
        nargs=2,
        metavar=("SEGMENT", "CELL"),
        help='"new", "country=SE", "plays_7d<5", ... likewise',
    )
    split.add_argument(
        "--shadow", nargs=2, metavar=("VERSION", "SHARE"), help="score a share of requests unseen; 0 ends it"
    )
    split.add_argument("--who", default="cli")
    split.add_argument("--why", default="")

    licences = add("licences", _licences, "show or set which titles are on offer, where and when")
    licences.add_argument("action", choices=["show", "import", "set", "withdraw", "clear"])
    licences.add_argument(
        "name", nargs="?", help="import: a CSV or Parquet file of windows; else a title's id"
    )
    licences.add_argument("--country", action="append", default=[], help="set: SE, again for more; none: all")
    licences.add_argument("--from", dest="begin", metavar="TIME", help="set: 2026-01-31 or 2026-01-31T20:00Z")
    licences.add_argument("--until", dest="end", metavar="TIME", help="set: the first moment it is not")
    licences.add_argument("--who", default="cli")
    licences.add_argument("--why", default="")

    rollout = add("rollout", _rollout, "put a candidate in front of members, judged as it goes")
    rollout.add_argument("action", choices=["start", "status", "stop", "list", "show"])
    rollout.add_argument("name", nargs="?", help="start: the model; stop, show: the rollout's number")
    rollout.add_argument("--candidate", metavar="VERSION", help="start: the version that is tried")
    rollout.add_argument("--plan", default="canary", help="start: a preset, a TOML or a JSON file")
    rollout.add_argument("--surface", default="home", help="start: the place in the product")
    rollout.add_argument("--who", default="cli")
    rollout.add_argument("--why", default="asked on the command line")

    judge = add("judge", _judge, "judge a canary that was recorded elsewhere, as Kayenta or stricter")
    judge.add_argument("config", help="a canary configuration in Kayenta's JSON")
    judge.add_argument("samples", help="the metrics' values in Kayenta's JSON")
    judge.add_argument("--request", help="an analysis over intervals: Kayenta's request, as JSON")
    judge.add_argument("--mode", choices=["strict", "kayenta"], default="strict")
    judge.add_argument("--report", help="write the page of the judgement there, as HTML")

    features = add("features", _features, "the feature platform: its catalogue, its server, its workers")
    features.add_argument("action", choices=["catalogue", "serve", "scale"])
    features.add_argument("workers", nargs="?", type=int, help="scale: how many share the partitions")
    features.add_argument("--port", type=int, help="serve: port (default: a free one)")

    keys = add("keys", _keys, "the API keys of services: make, list or revoke them")
    keys.add_argument("action", choices=["create", "list", "revoke"])
    keys.add_argument("key_id", nargs="?", help="revoke: the key's id")
    keys.add_argument("--scope", default="service", help="create: service, batch or operator")
    keys.add_argument("--days", type=float, help="create: how long it is good (default: until revoked)")
    keys.add_argument("--who", default="cli")
    keys.add_argument("--why", default="")

    add("settings", _settings, "print every setting and its value")
    return root


def _demo(options: argparse.Namespace, settings: Settings) -> int:
    from matinee.local.demo import run_demo

    return run_demo(settings, stay=sys.stdin.isatty() and not options.exit, as_json=options.json)


def _data(options: argparse.Namespace, settings: Settings) -> int:
    from matinee.sources import movielens

    folder = movielens.get(options.name, settings.paths, source=options.origin)
    if options.json:
        print(json.dumps({"name": options.name, "folder": str(folder)}))
    else:
        print(movielens.terms(options.name))
        print(f"{options.name} is in {folder}")
    return 0


def _up(options: argparse.Namespace, settings: Settings) -> int:
    from matinee.local.service import start_detached

    _show(options, start_detached(settings))
    return 0


def _down(options: argparse.Namespace, settings: Settings) -> int:
    from matinee.local.service import stop_detached

    _show(options, {"stopped": stop_detached(settings)})
    return 0


def _status(options: argparse.Namespace, settings: Settings) -> int:
    from matinee.local.service import status

    report = status(settings)
    _show(options, report)
    return 0 if report["running"] else 1


def _tune(options: argparse.Namespace, settings: Settings) -> int:
    from rich.console import Console

    from matinee.local.cluster import connect
    from matinee.local.stages import Stages
    from matinee.training import budget, search

    limit = budget.parse(options.budget if options.trials is None else f"{options.trials} trials")
    search.check(options.model, options.name)
    with (
        Stages(Console(stderr=True)) as stages,
        stages.stage("tune", options.model) as step,
        connect(settings),
    ):
        found = search.tune(
            settings, options.model, limit, name=options.name, apply=options.apply, progress=step.move
        )
    _show(options, search.shown(found, whole=options.json))
    return 0


def _models(options: argparse.Namespace, settings: Settings) -> int:
    from matinee.errors import NotFound
    from matinee.registry.mlflow import CHAMPION, Registry

    registry, model = Registry(settings), settings.serving.model
    if options.card:
        version = registry.get(model, options.card)
        print((Path(version.path) / "card.md").read_text())
        return 0
    rows = [
        {"version": version.version, "run_id": version.run_id, **version.metrics}
        for version in registry.versions(model)
    ]
    try:
        champion = registry.get(model, CHAMPION).version
    except NotFound:
        champion = None
    _show(options, {"model": model, "champion": champion, "versions": rows})
    return 0


def _split(options: argparse.Namespace, settings: Settings) -> int:
    from matinee.errors import InvalidInput
    from matinee.serving.place import Rules, Shadow
    from matinee.serving.splits import Splits

    splits = Splits(settings)
    if options.weights:
        weights: dict[str, float] = {}
        for text in options.weights:
            version, _, weight = text.partition("=")
            try:
                weights[version] = float(weight)
            except ValueError:
                raise InvalidInput(f"weight {text!r} is not VERSION=NUMBER") from None
        splits.set(options.surface, weights, who=options.who, why=options.why)
    signed = {"who": options.who, "why": options.why}
    for rule, put in ((options.member, splits.set_member), (options.segment, splits.set_segment)):
        if rule:
            put(options.surface, rule[0], None if rule[1] == "none" else rule[1], **signed)
    if options.shadow:
        version, share = options.shadow[0], _number(options.shadow[1])
        splits.set_shadow(options.surface, Shadow(version=version, share=share) if share else None, **signed)
    _show(options, {"surface": options.surface, **asdict(splits.rules().get(options.surface, Rules()))})
    return 0


def _licences(options: argparse.Namespace, settings: Settings) -> int:
    from matinee.errors import InvalidInput
    from matinee.events.encode import rfc3339
    from matinee.serving.availability import WINDOW_SCHEMA
    from matinee.serving.licences import Licences, read_windows, windows_of

    licences, name, signed = Licences(settings), options.name, {"who": options.who, "why": options.why}
    if options.action == "show":
        listed = licences.listed().windows.to_pylist()
        changes = [{**asdict(change), "time": rfc3339(change.time)} for change in licences.history(name)]
        windows = [row for row in listed if name in (None, row["title_id"])]
        _show(options, {"windows": windows if name or options.json else len(windows), "changes": changes})
        return 0
    if not name:
        what = "a file" if options.action == "import" else "a title's id"
        raise InvalidInput(f"licences {options.action} needs {what}")
    match options.action:
        case "import":
            licences.replace(read_windows(Path(name)), **signed)
        case "set":
            windows = windows_of(name, options.country, begin=options.begin, end=options.end)
            licences.set(name, windows, **signed)
        case "withdraw":
            licences.set(name, WINDOW_SCHEMA.empty_table(), **signed)
        case _:
            licences.clear(name, **signed)
    _show(options, {"action": options.action, "name": name, "windows": len(licences.listed().windows)})
    return 0


def _rollout(options: argparse.Namespace, settings: Settings) -> int:
    from matinee.canary import rollout
    from matinee.canary.plan import read_plan
    from matinee.canary.store import Rollouts
    from matinee.errors import InvalidInput

    signed = {"who": options.who, "why": options.why}
    if options.action == "start":
        if not (options.name and options.candidate):
            raise InvalidInput("rollout start needs a model and a candidate: rollout start rec --candidate 7")
        plan, surface = read_plan(options.plan), options.surface
        started = rollout.propose(
            settings, model=options.name, candidate=options.candidate, plan=plan, surface=surface, **signed
        )
        _show(options, {"rollout": started.id, "surface": surface, "status": started.status})
        return 0
    rollouts = Rollouts(settings)
    if options.action in ("list", "status"):
        found = rollouts.all() if options.action == "list" else rollouts.live()
        _show(options, {"rollouts": [each.line() for each in found]})
        return 0
    if not (options.name or "").isdecimal():
        raise InvalidInput(f"rollout {options.action} needs a rollout's number: rollout {options.action} 1")
    number = int(options.name)
    found_one = rollouts.get(number) if options.action == "show" else rollout.stop(settings, number, **signed)
    _show(options, found_one.shown() if options.action == "show" else found_one.line())
    return 0


def _judge(options: argparse.Namespace, settings: Settings) -> int:
    """Ends with 1 where the verdict is not "pass"."""
    from matinee.canary import recorded
    from matinee.canary.judge import warnings_of
    from matinee.canary.report import write_report

    found = recorded.judged(
        Path(options.config),
        Path(options.samples),
        request=Path(options.request) if options.request else None,
        mode=options.mode,
        seed=settings.seed,
    )
    metrics = [
        {"metric": each.name, "groups": ", ".join(each.groups), "label": each.label, "reason": each.reason}
        for each in found.judgement.metrics
    ]
    report: dict[str, object] = {
        "metrics": metrics,
        "groups": dict(found.judgement.groups),
        "scores": found.analysis.scores if found.analysis else [found.judgement.score],
        "verdict": found.verdict,
        "reason": found.reason,
        "warnings": warnings_of(found.judgement),
    }
    if options.report:
        write_report(Path(options.report), found.judgement, found.samples, analysis=found.analysis)
        report["page"] = options.report
    _show(options, report)
    return 0 if found.verdict == "pass" else 1


def _number(text: str) -> float:
    from matinee.errors import InvalidInput

    try:
        return float(text)
    except ValueError:
        raise InvalidInput(f"{text!r} is no number") from None


def _features(options: argparse.Namespace, settings: Settings) -> int:
    from matinee.errors import InvalidInput

    if options.action == "serve":
        from matinee.gateway import features_app

        features_app.serve(settings, settings.serving.host, settings.serving.port)
        return 0
    if options.action == "catalogue":
        from matinee.monitoring.catalogue import describe_features, write_catalogue

        features = describe_features(settings)
        page = write_catalogue(settings, features)
        _show(options, {"page": str(page), "features": features if options.json else len(features)})
        return 0
    if options.workers is None:
        raise InvalidInput("features scale needs a number of workers: matinee features scale 4")
    from matinee.local.service import scale_stream

    _show(options, {"workers": scale_stream(settings, options.workers)})
    return 0


def _keys(options: argparse.Namespace, settings: Settings) -> int:
    from matinee.errors import InvalidInput
    from matinee.events.encode import rfc3339
    from matinee.gateway.keys import Keys

    keys = Keys(settings)
    if options.action == "create":
        key = keys.create(options.scope, who=options.who, why=options.why, days=options.days)
        _show(options, {"key": key, "note": "it is shown this once"})
    elif options.action == "revoke":
        if not options.key_id:
            raise InvalidInput("keys revoke needs an id; see `matinee keys list`")
        keys.revoke(options.key_id, who=options.who, why=options.why)
        _show(options, {"revoked": options.key_id})
    else:
        rows = [
            {
                "id": key.key_id,
                "scope": key.scope,
                "expires": rfc3339(key.expires) if key.expires else "never",
                "who": key.who,
                "why": key.why,
                "time": rfc3339(key.time),
            }
            for key in keys.live().values()
        ]
        _show(options, {"keys": rows})
    return 0


def _settings(options: argparse.Namespace, settings: Settings) -> int:
    print(json.dumps(settings.shown(), indent=2))
    return 0


def _show(options: argparse.Namespace, report: dict[str, object]) -> None:
    if options.json:
        print(json.dumps(report, default=str))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for name, value in report.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            table = Table(*value[0], title=name)
            for row in value:
                cells = (f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row.values())
                table.add_row(*cells)
            console.print(table)
        elif isinstance(value, dict):
            console.print(f"{name}:")
            for key, item in value.items():
                console.print(f"  {key}: {item}", highlight=False)
        else:
            console.print(f"{name}: {value}", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
