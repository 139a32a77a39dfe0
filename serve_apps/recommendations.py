"""The recommendation API as a Serve application: `serve deploy serve_apps/recommendations.yaml`."""

from __future__ import annotations

from pydantic import BaseModel
from ray.serve import Application

from matinee.config import load_settings
from matinee.errors import ConfigError
from matinee.gateway.deployment import application, named_monitor


class Args(BaseModel):
    """Arguments of the application, from the deploy file.

    Args:
        bootstrap: the Kafka broker, host:port[,host:port]; empty: the setting `kafka.bootstrap_servers`.
        home: the data home; empty: the setting.
        replicas: how many replicas answer.
    """

    bootstrap: str = ""
    home: str = ""
    replicas: int = 1


def app(args: Args) -> Application:
    """Bind the application.

    Raises:
        ConfigError: no broker is named, or Serve listens beyond loopback and there is no authentication.
    """
    settings = load_settings({"home": args.home or None})
    bootstrap = args.bootstrap or settings.kafka.bootstrap_servers
    if not bootstrap:
        raise ConfigError("no broker is named; set MATINEE_KAFKA_BOOTSTRAP_SERVERS or the argument bootstrap")
    return application(settings, bootstrap, named_monitor(), replicas=args.replicas)
