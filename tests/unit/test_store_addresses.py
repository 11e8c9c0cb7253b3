"""Addresses of different stores differ, and those of the same store are equal."""

from __future__ import annotations

import os

import pytest

from marketflow.adapters.cache import address as redis_address
from marketflow.adapters.db import address as postgres_address
from marketflow.outside import _earlier_name_of, name_of

SERVICES = """
[production]
host=db1
dbname=market
[staging]
host=db2
dbname=market
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """No variables of libpq, except for a file with two services."""
    for name in os.environ:
        if name.startswith("PG"):
            monkeypatch.delenv(name)
    (tmp_path / "services").write_text(SERVICES)
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    return monkeypatch


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("redis://h/0", "redis://h/1"),
        ("redis://h:6379/0", "redis://h:6380/0"),
        ("redis://h1/0", "redis://h2/0"),
        ("redis://h/0", "redis://h/0?db=5"),
        ("redis://h/?db=5", "redis://h/?db=6"),
        ("unix:///a.sock", "unix:///b.sock"),
        ("unix:///a.sock", "unix:///a.sock?db=1"),
        ("unix:///a.sock?db=2", "unix:///a.sock?db=1"),
        ("redis://[::1]/0", "redis://[::2]/0"),
        ("redis://h%2Fx/0", "redis://h/0"),
    ],
)
def test_other_redis(one, other):
    assert redis_address.address_of(one) != redis_address.address_of(other)


@pytest.mark.parametrize(
    "urls",
    [
        ("redis://h:6379/0", "redis://h", "redis://H/", "redis://h/?db=0", "rediss://h/0", "REDIS://h/0"),
        ("redis://h/1", "redis://:secret@h/1", "redis://u:p%40ss@h/1", "redis://h/1?password=x"),
        ("redis://h/1", "redis://h/1?socket_timeout=3", "redis://h/0?db=1"),
        ("redis://[::1]/1", "redis://[0:0:0:0:0:0:0:1]:6379/1"),
        ("unix:///a%20b.sock", "unix://:secret@/a b.sock?db=0"),
    ],
)
def test_same_redis(urls):
    assert len({redis_address.address_of(url) for url in urls}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("service=production", "service=staging"),
        ("service=production dbname=a", "service=production dbname=b"),
        ("host=h dbname=d", "host=h dbname=e"),
        ("host=h dbname=d", "host=h dbname=d port=5433"),
        ("host=h hostaddr=10.0.0.1 dbname=d", "host=h hostaddr=10.0.0.2 dbname=d"),
        ("hostaddr=10.0.0.1 dbname=d", "hostaddr=10.0.0.2 dbname=d"),
        ("host=/run/a dbname=d", "host=/run/b dbname=d"),
        ("host=/run/a dbname=d", "host=/run/A dbname=d"),
        ("host=h user=a", "host=h user=b"),
        ("host=a,b dbname=d", "host=a,c dbname=d"),
        ("host=a,b port=1,2 dbname=d", "host=a,b port=2,1 dbname=d"),
        ("postgresql://h/a%20b", "postgresql://h/a%2520b"),
        ("postgresql://h/d", "postgresql://h/d?options=-csearch_path%3Dstaging"),
        ("host=h dbname=d options='-c search_path=a'", "host=h dbname=d options='-c search_path=b'"),
        ("host=h dbname=d options=endpoint=a", "host=h dbname=d options=endpoint=b"),
        ("service=missing dbname=a", "service=missing dbname=b"),
    ],
)
def test_other_postgres(one, other):
    assert postgres_address.address_of(one) != postgres_address.address_of(other)


@pytest.mark.parametrize(
    "dsns",
    [
        ("postgresql://u@h/d", "postgresql://u:secret@H:5432/d", "host=h user=u dbname=d port=5432"),
        ("postgresql://u@h/u", "postgresql://u@h", "user=u host=h"),
        ("postgresql://u@[::1]/d", "host=0:0:0:0:0:0:0:1 user=u dbname=d"),
        ("postgresql://u@/d?host=/run/x", "postgresql://u@%2Frun%2Fx/d", "host=/run/x user=u dbname=d"),
        ("host=a,b user=u", "host=b,a user=u", "host=a,b port=5432 user=u", "host=a,b port=,5432 user=u"),
        ("host=h user=u", "host=h user=u sslmode=require connect_timeout=3 application_name=x"),
        ("host=h user=u", "host=h user=u options='-c statement_timeout=5s --work_mem=1MB'"),
        (
            "service=production user=u",
            "host=db1 dbname=market user=u",
            "service=production user=u password=p",
        ),
        ("host=h user=u options='-csearch_path=a'", "host=h user=u options='-c  search_path=a'"),
    ],
)
def test_same_postgres(dsns):
    assert len({postgres_address.address_of(dsn) for dsn in dsns}) == 1


@pytest.mark.parametrize(
    ("variable", "value", "dsn"),
    [
        ("PGHOST", "elsewhere", "dbname=d"),
        ("PGHOSTADDR", "10.0.0.1", "host=h dbname=d"),
        ("PGPORT", "5433", "host=h dbname=d"),
        ("PGDATABASE", "other", "host=h user=u"),
        ("PGUSER", "other", "host=h"),
        ("PGSERVICE", "staging", "dbname=d"),
        ("PGOPTIONS", "-c search_path=staging", "host=h dbname=d"),
    ],
)
def test_environment_of_libpq(environment, variable, value, dsn):
    """The same connection string can lead to another database."""
    before = postgres_address.address_of(dsn)
    environment.setenv(variable, value)
    assert postgres_address.address_of(dsn) != before


def test_parts_do_not_run_into_each_other():
    """Different combinations of parts give different addresses."""
    assert name_of("redis://h/1", "host=h dbname=d") != name_of("redis://h/11", "host=h dbname=d")
    assert postgres_address.address_of("host=h dbname='d u'") != postgres_address.address_of(
        "host=h dbname=d user=u"
    )


@pytest.mark.parametrize(
    ("redis_url", "dsn", "name"),
    [
        ("redis://:x@h:6379/0", "postgresql://u:secret@p:5432/d", "h:6379/0 p:5432/d"),
        ("unix:///a.sock", "host=/run/x dbname=d user=u", "None:None/a.sock /run/x:None/d"),
        ("redis://h:6379/0?socket_timeout=1", "host=p dbname=d", "h:6379/0 p:None/d"),
        ("redis://h:6379/0?db=5", "host=p dbname=d", None),
        ("redis://h:6379/0?host=x", "host=p dbname=d", None),
        ("redis://h:6379/0", "service=production", None),
        ("redis://h:6379/0", "host=p hostaddr=10.0.0.1 dbname=d", None),
        ("redis://h:6379/0", "host=p", None),
        ("redis://h:6379/0", "dbname=d", None),
        ("redis://h:6379/0", "host=p dbname=d options='-c search_path=s'", None),
    ],
)
def test_earlier_name(redis_url, dsn, name):
    """It is used only if it identified the stores."""
    assert _earlier_name_of(redis_url, dsn) == name


@pytest.mark.parametrize("variable", ["PGHOSTADDR", "PGSERVICE", "PGPORT", "PGOPTIONS"])
def test_no_earlier_name_where_the_environment_leads_elsewhere(environment, variable):
    environment.setenv(variable, "1 endpoint=x")
    assert _earlier_name_of("redis://h:6379/0", "host=p dbname=d") is None
