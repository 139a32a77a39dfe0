from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from matinee.config import Kafka
from matinee.errors import StorageError, Unavailable
from matinee.events import dead_letters, kafka
from matinee.events.broker import LocalBroker
from matinee.events.kafka import EventProducer, Message, PartitionConsumer
from matinee.events.validate import Rejected

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from kafka import KafkaConsumer, KafkaProducer, TopicPartition

SETTINGS = Kafka()
TOPIC = SETTINGS.events_topic
KEYS = [f"member-{number}" for number in range(200)]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    with LocalBroker(tmp_path_factory.mktemp("broker") / "broker.log") as started:
        kafka.ensure_topics(SETTINGS, started.bootstrap)
        yield started


@pytest.fixture
def topic(broker: LocalBroker, request: pytest.FixtureRequest) -> str:
    """A topic of the test's own."""
    name: str = request.node.name.replace("[", ".").rstrip("]")
    kafka.ensure_topics(SETTINGS.model_copy(update={"events_topic": name}), broker.bootstrap)
    return name


@pytest.fixture
def producer(broker: LocalBroker) -> Iterator[EventProducer]:
    made = EventProducer(SETTINGS, broker.bootstrap)
    yield made
    made.close()


def read(consumer: PartitionConsumer, count: int, *, timeout_s: float = 10.0) -> list[Message]:
    """The next `count` messages, and any that came with the last of them."""
    messages: list[Message] = []
    deadline = time.monotonic() + timeout_s
    while len(messages) < count and time.monotonic() < deadline:
        messages += consumer.poll(10_000, 20)
    return messages


def reader(broker: LocalBroker, topic: str, offsets: dict[int, int] | None = None) -> PartitionConsumer:
    return PartitionConsumer(SETTINGS, broker.bootstrap, topic, range(SETTINGS.partitions), offsets or {})


def numbered(count: int) -> tuple[list[str], list[bytes]]:
    return [KEYS[number % len(KEYS)] for number in range(count)], [b"%d" % number for number in range(count)]


def order_of_keys(messages: Sequence[Message]) -> dict[str, list[int]]:
    order: dict[str, list[int]] = {}
    for message in messages:
        order.setdefault(str(message.key), []).append(int(message.value))
    return order


def test_topics_have_the_partitions_asked_for_and_stay(broker: LocalBroker) -> None:
    more = SETTINGS.model_copy(update={"partitions": 9, "events_topic": "another"})
    kafka.ensure_topics(more, broker.bootstrap)
    assert kafka.partitions(SETTINGS, broker.bootstrap, TOPIC) == SETTINGS.partitions
    assert kafka.partitions(SETTINGS, broker.bootstrap, "another") == 9
    assert kafka.cluster_id(SETTINGS, broker.bootstrap) == broker.cluster_id
    with pytest.raises(Unavailable, match="'nowhere'"):
        kafka.partitions(SETTINGS, broker.bootstrap, "nowhere")


def test_every_message_arrives_once_in_its_keys_order(
    broker: LocalBroker, topic: str, producer: EventProducer
) -> None:
    keys, payloads = numbered(20_000)
    producer.send_many(topic, keys, payloads)
    producer.flush(20.0)
    consumer = reader(broker, topic)
    ends = consumer.end_offsets()
    messages = read(consumer, 20_000)
    consumer.close()
    assert sorted(int(message.value) for message in messages) == list(range(20_000))
    assert all(values == sorted(values) for values in order_of_keys(messages).values())
    assert sum(ends.values()) == 20_000
    assert all(abs(message.timestamp_us / 1e6 - time.time()) < 120 for message in messages[:10])


def test_reading_starts_at_the_given_offsets(
    broker: LocalBroker, topic: str, producer: EventProducer
) -> None:
    keys, payloads = numbered(2_000)
    producer.send_many(topic, keys, payloads)
    producer.flush(10.0)
    consumer = reader(broker, topic)
    ends = consumer.end_offsets()
    consumer.close()
    consumer = reader(broker, topic, {partition: end - 2 for partition, end in ends.items()})
    messages = read(consumer, 2 * len(ends))
    producer.send_wait(topic, ["late"], [b"-1"], 5.0)
    messages += read(consumer, 1)
    consumer.close()
    assert len(messages) == 2 * len(ends) + 1
    assert all(message.offset >= ends[message.partition] - 2 for message in messages)
    assert messages[-1].value == b"-1"


def test_kafka_python_writes_and_we_read(broker: LocalBroker, topic: str, producer: EventProducer) -> None:
    other = KafkaProducer(bootstrap_servers=broker.bootstrap)
    for key in KEYS:
        other.send(topic, key=key.encode(), value=b'{"from":"kafka-python"}')
    other.flush(10)
    other.close()
    consumer = reader(broker, topic)
    theirs = read(consumer, len(KEYS))
    producer.send_wait(topic, KEYS, [b"{}"] * len(KEYS), 5.0)
    ours = read(consumer, len(KEYS))
    consumer.close()
    assert {message.value for message in theirs} == {b'{"from":"kafka-python"}'}
    placed = {message.key: message.partition for message in theirs}
    assert len(placed) == len(KEYS)
    assert placed == {message.key: message.partition for message in ours}


def test_we_write_and_kafka_python_reads(broker: LocalBroker, topic: str, producer: EventProducer) -> None:
    producer.send_wait(topic, KEYS, [key.upper().encode() for key in KEYS], 5.0)
    consumer = KafkaConsumer(
        bootstrap_servers=broker.bootstrap, consumer_timeout_ms=5000, enable_auto_commit=False
    )
    places = [TopicPartition(topic, partition) for partition in range(SETTINGS.partitions)]
    consumer.assign(places)
    consumer.seek_to_beginning(*places)
    found: dict[str, str] = {}
    for record in consumer:
        found[record.key.decode()] = record.value.decode()
        if len(found) == len(KEYS):
            break
    consumer.close()
    assert found == {key: key.upper() for key in KEYS}


def test_one_event_is_read_within_milliseconds(
    broker: LocalBroker, topic: str, producer: EventProducer
) -> None:
    consumer = reader(broker, topic)
    delays: list[float] = []
    sent = threading.Event()

    def run() -> None:
        while not sent.is_set():
            delays.extend(time.perf_counter() - float(message.value) for message in consumer.poll(1000, 5))

    thread = threading.Thread(target=run)
    thread.start()
    for number in range(100):
        producer.send_wait(topic, [str(number)], [repr(time.perf_counter()).encode()], 5.0)
    time.sleep(0.5)
    sent.set()
    thread.join()
    consumer.close()
    assert len(delays) == 100
    assert sorted(delays)[50] < 0.2


def test_many_threads_share_a_producer(broker: LocalBroker, topic: str, producer: EventProducer) -> None:
    threads = [
        threading.Thread(target=lambda: [producer.send_wait(topic, ["k"], [b"v"], 10.0) for _ in range(20)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    consumer = reader(broker, topic)
    assert len(read(consumer, 160)) == 160
    consumer.close()


def test_dead_letters_are_read_back_once(broker: LocalBroker) -> None:
    producer = EventProducer(SETTINGS, broker.bootstrap)
    letters = dead_letters.DeadLetters(producer, SETTINGS.dead_letters_topic)
    refused = [Rejected(row=row, reason=f"reason {row}", payload=b"\xff%d" % row) for row in range(50)]
    positions = [(row % 4, row) for row in range(50)]
    letters.send(refused, source="stream", positions=positions)
    letters.send(refused[20:], source="stream", positions=positions[20:])
    letters.send(refused[:1], source="http", timeout_s=5.0)
    producer.flush(5.0)
    producer.close()
    found = dead_letters.read_all(SETTINGS, broker.bootstrap)
    assert sorted(letter["reason"] for letter in found if letter["source"] == "stream") == sorted(
        item.reason for item in refused
    )
    assert [letter["reason"] for letter in found if letter["source"] == "http"] == ["reason 0"]


def test_a_broker_that_comes_back_is_written_to_and_read_as_a_new_log(tmp_path: Path) -> None:
    broker = LocalBroker(tmp_path / "broker.log")
    address = broker.start()
    kafka.ensure_topics(SETTINGS, address)
    producer = EventProducer(SETTINGS, address)
    consumer = reader(broker, TOPIC)
    first = broker.cluster_id
    try:
        keys, payloads = numbered(100)
        producer.send_wait(TOPIC, keys, payloads, 5.0)
        assert len(read(consumer, 100)) == 100
        assert consumer.cluster_id == first

        broker.stop()
        assert not broker.alive
        started = time.monotonic()
        with pytest.raises(Unavailable, match=address):
            producer.send_wait(TOPIC, ["lost"], [b"-1"], 30.0)
        assert time.monotonic() - started < 1.5
        assert consumer.poll(10, 10) == []

        assert broker.start() == address
        kafka.ensure_topics(SETTINGS, address)
        again = time.monotonic() + 10
        while True:
            try:
                producer.send_wait(TOPIC, keys, payloads, 2.0)
                break
            except Unavailable:
                assert time.monotonic() < again
        messages = read(consumer, 100)
        assert broker.cluster_id != first
        assert consumer.cluster_id == broker.cluster_id
        assert {int(message.value) for message in messages} >= set(range(100))
        assert min(message.offset for message in messages) == 0
        assert sum(consumer.end_offsets().values()) == len(messages)
    finally:
        consumer.close()
        producer.close()
        broker.stop()


def test_two_brokers_run_side_by_side(broker: LocalBroker, tmp_path: Path) -> None:
    with LocalBroker(tmp_path / "broker.log") as other:
        assert other.bootstrap != broker.bootstrap
        assert kafka.cluster_id(SETTINGS, other.bootstrap) == other.cluster_id != broker.cluster_id
    assert not other.alive
    other.stop()


def test_a_taken_port_is_left_for_another(tmp_path: Path) -> None:
    broker = LocalBroker(tmp_path / "broker.log")
    first = broker.start()
    broker.stop()
    with socket.create_server(("127.0.0.1", int(first.rpartition(":")[2]))):
        assert broker.start() != first
    broker.stop()


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"none/broker\.log"):
        LocalBroker(tmp_path / "none" / "broker.log").start()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux ends a child with its parent")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_broker_ends_with_its_parent_and_not_with_the_starting_thread(
    tmp_path: Path, how: signal.Signals
) -> None:
    script = textwrap.dedent(
        """
        import sys, threading, time
        from pathlib import Path
        from matinee.events.broker import LocalBroker

        broker = LocalBroker(Path(sys.argv[1]))
        thread = threading.Thread(target=broker.start)
        thread.start()
        thread.join()
        time.sleep(0.5)
        print(broker.bootstrap, broker.alive, flush=True)
        time.sleep(60)
        """
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "broker.log")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert parent.stdout is not None
    try:
        address, alive = parent.stdout.readline().decode().split()
        assert alive == "True"
        assert kafka.cluster_id(SETTINGS, address)
        parent.send_signal(how)
        parent.wait(10)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    deadline = time.monotonic() + 5
    while listens(address) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not listens(address)


def listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


@pytest.mark.parametrize("trusted", [True, False])
def test_tls_is_spoken_and_the_certificate_checked(tmp_path: Path, trusted: bool) -> None:
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    requests: list[bytes] = []
    refusals: list[ssl.SSLError] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10.0)

        def serve() -> None:
            raw, _ = server.accept()
            with raw:
                try:
                    with context.wrap_socket(raw, server_side=True) as client:
                        requests.append(client.recv(6))
                except ssl.SSLError as refusal:
                    refusals.append(refusal)

        thread = threading.Thread(target=serve)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        settings = Kafka(security_protocol="SSL", ssl_ca_location=str(certificate) if trusted else "")
        with pytest.raises(Unavailable, match=address):
            kafka.cluster_id(settings, address, timeout_s=2.0)
        thread.join()
    asks_for_versions = [request[4:] == b"\x00\x12" for request in requests]
    assert (asks_for_versions, bool(refusals)) == (([True], False) if trusted else ([], True))


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    today = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    places = folder / "certificate.pem", folder / "key.pem"
    places[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    places[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return places
