"""The application with its real parts: what a replica builds for itself."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import FastAPI

from matinee.config import Settings
from matinee.events.kafka import EventProducer
from matinee.gateway.app import Parts, build_app
from matinee.gateway.intake import Intake
from matinee.gateway.metrics import Pipeline
from matinee.registry.mlflow import Registry
from matinee.serving.exposures import ExposureLog
from matinee.serving.page_cache import PageCache
from matinee.serving.page_stores import page_store
from matinee.serving.recommender import Recommender
from matinee.serving.splits import Splits


def assemble(settings: Settings, bootstrap: str, monitor: Any = None) -> FastAPI:
    """The application with its real parts. Runs inside the replica, so the imports, seconds long, do too.

    Args:
        bootstrap: the Kafka broker's address.
        monitor: actor handle that gives the pipeline's gauges, or None.
    """
    producer = EventProducer(settings.kafka, bootstrap)
    exposures = ExposureLog(producer, settings.kafka.exposures_topic)
    recommender = Recommender(settings, exposures)
    splits = Splits(settings)
    store = page_store(settings)

    def close() -> None:
        recommender.close()
        exposures.close()
        splits.close()
        producer.close()

    parts = Parts(
        recommender=recommender,
        intake=Intake(settings, producer),
        exposures=exposures,
        splits=splits,
        registry=Registry(settings),
        pipeline=Pipeline(partial(_gauges, monitor) if monitor is not None else None),
        close=close,
        cache=PageCache(store, ttl_s=settings.serving.page_ttl_s) if store is not None else None,
    )
    return build_app(settings, parts)


async def _gauges(monitor: Any) -> str:
    return str(await monitor.metrics.remote())
