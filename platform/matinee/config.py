"""Settings, typed and checked once at start: defaults, then a TOML file, then `MATINEE_*`, then flags.

`MATINEE_KAFKA_BOOTSTRAP_SERVERS` sets `kafka.bootstrap_servers`; the TOML file is `matinee.toml` in the
working folder, or the file that `MATINEE_CONFIG` names.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from matinee.errors import ConfigError

MASK = "**********"
_IN_TEXT = re.compile(r"(password=|://[^/@:]*:)[^,@]+", re.IGNORECASE)
"""A password inside an address: of a Redis connection string, or of a URL."""


class Section(BaseModel):
    """A group of settings: immutable, and closed to names it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Kafka(Section):
    """The backbone. Any Kafka; without `bootstrap_servers` Matinee starts its own broker."""

    bootstrap_servers: str = ""
    """host:port[,host:port]; empty: the embedded broker."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: str = ""
    """PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, ...; empty: none."""
    sasl_username: str = ""
    sasl_password: SecretStr = SecretStr("")
    ssl_ca_location: str = ""
    """A CA bundle's path; empty: the system's."""
    events_topic: str = "matinee.events"
    exposures_topic: str = "matinee.exposures"
    dead_letters_topic: str = "matinee.dead-letters"
    signals_topic: str = "matinee.signals"
    """Events about the platform itself: drift, ..."""
    partitions: int = Field(4, ge=1, le=1024)
    """Partitions of a topic Matinee creates; an existing topic keeps its own."""


class Stream(Section):
    """The streaming features."""

    workers: int = Field(1, ge=1)
    """Ray actors that share the partitions."""
    most_workers: int = Field(0, ge=0)
    """Workers are added up to this many while reading falls behind; 0: the number stays."""
    lag_s: float = Field(10.0, gt=0)
    """How far behind, in seconds of reading, adds a worker."""
    state: str = ""
    """Where commits lie: a folder or a URI such as s3://bucket/prefix; empty: in the home."""
    batch_events: int = Field(20_000, ge=1)
    """Most events of one micro-batch."""
    linger_ms: int = Field(50, ge=1)
    """Longest wait for a micro-batch to fill."""
    heartbeat_s: float = Field(2.0, gt=0)
    """How often the supervisor looks at its workers."""


class Features(Section):
    """Where feature values are declared, and served from."""

    repository: str = ""
    """Folder of the definitions; empty: feature_repo/ of the checkout, or of the working folder."""
    online_store: Literal["sqlite", "redis", "cassandra", "dynamodb"] = "sqlite"
    """sqlite and redis: packed rows; cassandra and dynamodb: Feast's own stores."""
    redis: str = "127.0.0.1:6379"
    """host:port of Redis, read where `online_store` is redis; Feast's options may follow ("...,db=1")."""
    online_options: dict[str, Any] = {}
    """Further settings of the online store, under Feast's names; a JSON object in the environment."""
    gate: Literal["report", "hold"] = "report"
    """What a batch build does whose values are not what is expected: report it, or stay unpublished."""
    titles_refresh_s: float = Field(1.0, gt=0)
    """How often the in-memory copy of title features looks for changes."""

    @field_validator("online_options", mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return json.loads(value) if isinstance(value, str) else value


class Training(Section):
    """How models are trained."""

    preset: str = "default"
    """Preset of every model that has one of this name; "tuned" is what `matinee tune --apply` kept."""
    workers: int = Field(1, ge=1)
    """Ray Train workers for the models that train data-parallel."""
    lanes: int = Field(1, ge=1)
    """Groups of Ray Train workers that fit different models side by side; each takes about 2 GiB."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """auto: a GPU where the cluster has one."""
    replay_events: int = Field(2_000, ge=1)
    """Most events that prequential replay asks about; of more, a seeded sample of this many."""
    max_failures: int = Field(3, ge=0)
    """How often a group of workers that lost one is started again; its fit goes on from the checkpoint."""
    checkpoint_steps: int = Field(100, ge=1)
    """Optimiser steps between two checkpoints: what a lost worker costs at most."""
    checkpoints: str = ""
    """Where fits under way keep them: a folder all nodes see, or s3://bucket/prefix; empty: in the home."""
    patience_s: float = Field(900.0, gt=0)
    """Seconds without any advance after which training gives up: a node is lost and no other comes."""
    process_mib: int = Field(2_048, ge=1)
    """MiB that cf's rows may take in all where one process does them; of more, Ray tasks share them."""


class Tuning(Section):
    """How searches over models' configs run."""

    concurrent: int = Field(0, ge=0)
    """Trials side by side, each on one CPU; 0: as many as the cluster has CPUs."""
    gpus_per_trial: float = Field(0.0, ge=0)
    """GPUs, or the share of one, that a trial takes; 0: trials run on CPUs."""


class Serving(Section):
    """The HTTP API."""

    host: str = "127.0.0.1"
    """Address the API binds; Ray Serve's proxies take it too."""
    port: int = Field(0, ge=0, le=65535)
    """0: a free one, printed at start."""
    replicas: int = Field(1, ge=1)
    """Processes that answer, each with all live versions in its memory; they share the port."""
    model: str = "recommender"
    """Registered model the API serves."""
    max_k: int = Field(500, ge=1)
    max_body_bytes: int = Field(1 << 20, ge=1024)
    future_tolerance_s: float = Field(300.0, ge=0)
    """How far ahead of our clock an event time may lie."""
    deadline_ms: float = Field(500.0, gt=0)
    """How long an answer may take; a model that takes longer is given up for something cheaper."""
    page_cache: Literal["sqlite", "redis", "cassandra", "none"] = "sqlite"
    """Where home pages are kept; sqlite: in the home."""
    page_cache_address: SecretStr = SecretStr("")
    """Redis: host:port[,option=value]; Cassandra: host:port,keyspace=NAME[,username=U,password=P]."""
    page_ttl_s: float = Field(300.0, ge=0)
    """How long a kept page is shown again while its member does nothing; 0: never, it only stands in."""
    page_look_s: float = Field(1.0, ge=0)
    """Pages are shown again from memory while the feature store told no longer ago than this whose features
    were written. 0: they never are; each request reads its member's features."""
    page_keep_s: float = Field(86_400.0, gt=0)
    """How long a page can stand in where no model answers."""
    exact_titles: int = Field(50_000, ge=0)
    """With more titles than this, a version's best ones are found by an index instead of a pass over all."""


class Auth(Section):
    """Who may call the API. Off while neither tokens nor keys are set; then only loopback is served."""

    jwks: str = ""
    """Public keys of the tokens' issuer (a JWKS): a file, or an https address, asked again as they rotate."""
    hs256_secret: SecretStr = SecretStr("")
    """For development, on loopback only: tokens are signed with this secret of 32 bytes or more."""
    issuer: str = ""
    """Who must have made a token (`iss`); needed with `jwks`."""
    audience: str = "matinee"
    """Whom a token must be for (`aud`)."""
    member_claim: str = "sub"
    """Claim that names the member."""
    scope_claim: str = "scope"
    """Claim with the scopes, a list or a text: member, service, batch, operator."""
    leeway_s: float = Field(30.0, ge=0, le=300)
    """By how much clocks may differ."""
    refresh_s: float = Field(300.0, gt=0)
    """Age at which the key set is asked for again."""
    retry_s: float = Field(10.0, gt=0)
    """Least time between two requests for the key set, whatever unknown keys tokens name."""
    stale_s: float = Field(86_400.0, ge=0)
    """How long the last key set serves while its source does not answer."""
    keys: bool = False
    """Accept API keys, made with `matinee keys create`."""
    token: SecretStr = SecretStr("")
    """What this machine's own commands (status) show the API: an API key or a token of scope operator."""

    @property
    def on(self) -> bool:
        """Callers must say who they are."""
        return bool(self.jwks or self.hs256_secret.get_secret_value() or self.keys)


class Gateway(Section):
    """What the API lets through, and what it tells of it."""

    rates: dict[str, str] = {"member": "30/second", "peer": "30/second"}
    """Most requests to one route, by kind of caller (member, service, batch, operator; peer: an address
    without credentials; local: all where authentication is off) or by kind and route
    ("member POST /v1/events"): "30/second", "5/second;100/minute". A JSON object in the environment."""
    rate_store: str = ""
    """Redis that replicas count in together, redis://host:port/db; empty: each counts in its memory."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks whose X-Forwarded-For is believed; a JSON list in the environment."""
    cors_origins: tuple[str, ...] = ()
    """Origins of web pages that may call the API; a JSON list in the environment."""
    max_header_bytes: int = Field(16_384, ge=1024)
    max_path_bytes: int = Field(8_192, ge=256)
    body_s: float = Field(10.0, gt=0)
    """Longest wait for a whole body."""
    request_s: float = Field(30.0, gt=0)
    """Longest a request may take; then it is answered 503."""
    quick_s: float = Field(0.1, gt=0)
    """Pages that take no longer are never held to be slow; where more than 5% take longer than this and
    than twice what they take in calm, fewer are let in at a time, and the others answered 503."""
    access_log: Literal["file", "stderr", "off"] = "file"
    """Where a JSON line for each request goes; the file lies in the home's logs, one a replica."""
    otlp_endpoint: str = ""
    """Where traces go (OTLP over HTTP), http://host:4318/v1/traces; empty: there are none."""

    @field_validator("rates", "trusted_proxies", "cors_origins", mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return json.loads(value) if isinstance(value, str) else value


class Monitoring(Section):
    """Drift, freshness, and agreement of what was served with what the lake says."""

    interval_s: float = Field(60.0, gt=0)
    """How often drift is computed while serving."""
    drift_threshold: float = Field(0.2, gt=0)
    """PSI above which a column counts as drifted."""
    drift_share: float = Field(0.5, gt=0, le=1)
    """Share of drifted columns that makes a drift event."""
    window: int = Field(2_000, ge=100)
    """Most rows of the live window."""
    served_share: float = Field(0.05, ge=0, le=1)
    """Share of the requests of which the features they read are logged; 0: none."""
    served_days: int = Field(14, ge=1)
    """Days that the log of served features is kept."""
    consistency_bound: float = Field(0.999, ge=0, le=1)
    """Share of a feature's served values that must equal the recomputed ones."""
    consistency_interval_s: float = Field(300.0, gt=0)
    """How often served features are recomputed while serving."""
    settle_s: float = Field(5.0, ge=0)
    """After so long an event is sure to be in the features that are served."""


class Canary(Section):
    """Judged rollouts."""

    prometheus: str = ""
    """Address of Prometheus, for the metrics of plans that query it."""


class Home:
    """Where things lie in the data home. Paths only: whoever writes makes the folder.

    Args:
        root: the data home, absolute.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sources = root / "sources"
        """Raw data sets, one folder each, as fetched."""
        self.catalogue = root / "catalogue.parquet"
        """The titles the service offers (`schema.Catalogue`)."""
        self.events = root / "lake" / "events"
        self.exposures = root / "lake" / "exposures"
        self.served = root / "lake" / "served"
        """Features as rankings read them."""
        self.feast = root / "feast"
        """Feast's registry, online store and offline Parquet."""
        self.stream = root / "stream"
        """Commits of the streaming features: state and offsets."""
        self.mlflow = root / "mlflow"
        self.tuning = root / "tuning"
        """Studies, one folder each: what a search tried so far."""
        self.tuned = root / "tuned"
        """Configs that searches found, one file a model: the preset "tuned"."""
        self.state = root / "state.db"
        """Splits and other decisions (SQLite)."""
        self.pages = root / "pages.db"
        """Home pages that are kept (SQLite)."""
        self.run = root / "run"
        """What is running: addresses, pids, tokens."""
        self.logs = root / "logs"
        self.reports = root / "reports"
        self.scratch = root / "scratch"
        """Work in progress: checkpoints, drafts; safe to delete when nothing runs."""


class Settings(Section):
    """Everything that can be set."""

    home: Path = Path(".matinee")
    """The data home: lake, feature store, registry, state, reports."""
    seed: int = 0
    ray_address: str = ""
    """Address of a running Ray cluster; empty: one started in this process tree."""
    database_url: str = ""
    """SQLAlchemy URL of the state database; empty: SQLite in the home."""
    mlflow_tracking_uri: str = ""
    """MLflow's tracking URI; empty: SQLite in the home."""
    kafka: Kafka = Kafka()
    stream: Stream = Stream()
    features: Features = Features()
    training: Training = Training()
    tuning: Tuning = Tuning()
    serving: Serving = Serving()
    auth: Auth = Auth()
    gateway: Gateway = Gateway()
    monitoring: Monitoring = Monitoring()
    canary: Canary = Canary()

    @property
    def paths(self) -> Home:
        """The data home's layout."""
        return Home(self.home)

    def shown(self) -> dict[str, Any]:
        """Every setting as JSON holds it, for people to read: secrets are masked."""
        shown: dict[str, Any] = _masked(self.model_dump(mode="json"))
        return shown

    @property
    def stream_state(self) -> str:
        """Folder or URI of the stream's commits."""
        return self.stream.state or str(self.paths.stream)

    @property
    def state_url(self) -> str:
        """SQLAlchemy URL of the state database."""
        return self.database_url or f"sqlite:///{self.paths.state}"


def load_settings(
    flags: Mapping[str, object] | None = None, *, environment: Mapping[str, str] | None = None
) -> Settings:
    """Settings from every source, later ones over earlier ones.

    Args:
        flags: dotted names to values ("serving.port": 8000); None values are ignored.
        environment: stands in for `os.environ`.

    Raises:
        ConfigError: an unknown name, a value of the wrong type or range, an unreadable file.
    """
    environment = os.environ if environment is None else environment
    values = _from_file(environment)
    sources: dict[str, str] = {}
    for variable, text in environment.items():
        if variable.startswith("MATINEE_") and variable != "MATINEE_CONFIG":
            name = _dotted(variable)
            _put(values, name, text)
            sources[name] = variable
    for name, value in (flags or {}).items():
        if value is not None:
            _put(values, name, value)
            sources[name] = f"--{name.split('.')[-1].replace('_', '-')}"
    try:
        settings = Settings.model_validate(values)
    except ValidationError as failure:
        first = failure.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        shown = "" if _is_secret(name) else f" is {first['input']!r}"
        raise ConfigError(f"setting {sources.get(name, name)}{shown}: {first['msg']}") from None
    return settings.model_copy(update={"home": settings.home.expanduser().absolute()})


def _from_file(environment: Mapping[str, str]) -> dict[str, Any]:
    named = environment.get("MATINEE_CONFIG")
    path = Path(named or "matinee.toml")
    if not named and not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as failure:
        raise ConfigError(f"settings file {path}: {failure}") from None


def _dotted(variable: str) -> str:
    name = variable.removeprefix("MATINEE_").lower()
    if name in Settings.model_fields:
        return name
    section, _, key = name.partition("_")
    kind = Settings.model_fields.get(section)
    nested = kind.annotation if kind else None
    if isinstance(nested, type) and issubclass(nested, Section) and key in nested.model_fields:
        return f"{section}.{key}"
    raise ConfigError(f"environment variable {variable} names no setting; see `matinee settings`")


def _put(values: dict[str, Any], name: str, value: object) -> None:
    *sections, key = name.split(".")
    for section in sections:
        values = values.setdefault(section, {})
    values[key] = value


def _is_secret(name: str) -> bool:
    return any(word in name.lower() for word in ("password", "secret", "token"))


def _masked(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _masked(held, str(key)) for key, held in value.items()}
    if isinstance(value, str) and value and _is_secret(name):
        return MASK
    if isinstance(value, str):
        return _IN_TEXT.sub(rf"\g<1>{MASK}", value)
    return value
