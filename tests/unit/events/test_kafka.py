from __future__ import annotations

import logging
import socket
import time

import pytest
from pydantic import SecretStr

from matinee.config import Kafka
from matinee.errors import Unavailable
from matinee.events.kafka import EventProducer, PartitionConsumer, client_config, cluster_id

NOBODY = "127.0.0.1:1"


def test_security_settings_reach_the_client() -> None:
    kafka = Kafka(
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="matinee",
        sasl_password=SecretStr("curtain"),
        ssl_ca_location="/etc/ca.pem",
    )
    config = client_config(kafka, "a:1,b:2")
    given = {
        "bootstrap.servers": "a:1,b:2",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "matinee",
        "sasl.password": "curtain",
        "ssl.ca.location": "/etc/ca.pem",
    }
    assert given.items() <= config.items()


def test_security_settings_left_empty_are_left_out() -> None:
    assert not {"sasl.mechanism", "sasl.password", "ssl.ca.location"} & set(client_config(Kafka(), "a:1"))


def test_the_library_accepts_every_security_protocol() -> None:
    for protocol in ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"):
        producer = EventProducer(
            Kafka(
                security_protocol=protocol,
                sasl_mechanism="PLAIN" if "SASL" in protocol else "",
                sasl_username="u",
                sasl_password=SecretStr("p"),
            ),
            NOBODY,
        )
        producer.close()


def test_an_unreachable_broker_is_named_soon(caplog: pytest.LogCaptureFixture) -> None:
    producer = EventProducer(Kafka(), NOBODY)
    try:
        with caplog.at_level(logging.WARNING):
            started = time.monotonic()
            with pytest.raises(Unavailable, match=NOBODY) as caught:
                producer.send_wait("t", ["k"], [b"v"], 30.0)
            assert time.monotonic() - started < 1.5
        assert caught.value.retry_after_s > 0
        assert NOBODY in caplog.text
        producer.send("t", "k", b"v")
        with pytest.raises(Unavailable, match=f"{NOBODY}.*not delivered"):
            producer.flush(0.1)
    finally:
        producer.close()


def test_a_silent_broker_costs_no_more_than_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        producer = EventProducer(Kafka(), address)
        started = time.monotonic()
        with pytest.raises(Unavailable, match=address):
            producer.send_wait("t", ["k"], [b"v"], 0.5)
        assert time.monotonic() - started < 1.0
        producer.close()
        with pytest.raises(Unavailable, match=address):
            cluster_id(Kafka(), address, timeout_s=0.3)


def test_a_consumer_of_an_unreachable_broker_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matinee.events.kafka.TIMEOUT_S", 0.3)
    with pytest.raises(Unavailable, match=NOBODY):
        PartitionConsumer(Kafka(), NOBODY, "t", [0], {})
