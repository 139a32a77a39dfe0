"""Connection strings as Feast's Redis store reads them."""

import pytest

from matinee.features.redis_client import parse, redis_client


def test_hosts_and_options_are_told_apart():
    nodes, options = parse("a:6379,b:6380,db=1,ssl=true,password=x=y,username=me")
    assert nodes == [("a", 6379), ("b", 6380)]
    assert options == {"db": 1, "ssl": True, "password": "x=y", "username": "me"}


def test_it_reads_what_feast_reads():
    redis = pytest.importorskip("feast.infra.online_stores.redis")
    address = "127.0.0.1:6379,db=1,ssl=false,password=secret"
    found, options = redis.RedisOnlineStore._parse_connection_string(address)
    assert [(node["host"], int(node["port"])) for node in found] == parse(address)[0]
    assert options == parse(address)[1]


def test_the_client_waits_no_longer_than_asked():
    client = redis_client("127.0.0.1:1,db=3", timeout_s=0.5)
    held = client.connection_pool.connection_kwargs
    assert (held["host"], held["port"], held["db"]) == ("127.0.0.1", 1, 3)
    assert (held["socket_timeout"], held["socket_connect_timeout"]) == (0.5, 0.5)
