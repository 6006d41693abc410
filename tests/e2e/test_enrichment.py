"""`customer_enrichment` as Airflow runs it: with the gazetteer, with a server, and with a connection that is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from include.local.stack import Stack
from tests.e2e.running import Database, DataDatabase, Run, Runner
from tests.extract.scripted_server import Reply, ScriptedServer

AS_OF = "2026-01-15T12:00:00+00:00"
SAYS = """
select name, latitude, longitude, lifecycle_stage, lifetime_value, total_orders, enriched_at::text, change_seq
  from app.customers
 order by name
"""
DATA = """
insert into app.customers (id, name, email, tags, city, country, signup_date, updated_at, fetched_at, change_seq)
select gen_random_uuid(), name, 'a@b.org', '{}', city, country,
       timestamptz '2026-01-15 12:00Z' - days * interval '1 day', now(), now(), 0
  from (
    values
      ('Ann', 'Berlin', 'DE', 1),
      ('Bob', ' berlin ', 'DE', 8),
      ('Cid', 'Atlantis', 'GR', 50),
      ('Dan', null, null, 99)
  ) as c (name, city, country, days);
insert into app.orders (id, customer_id, status, total, created_at, updated_at, fetched_at, change_seq)
select status, id, status, 9.99, now(), now(), now(), 0
  from app.customers
 cross join unnest(array['paid', 'shipped', 'cancelled']) as status
 where name = 'Ann';
"""
UNREACHABLE = {"host": "127.0.0.1", "port": 9, "extra": {"requests_per_second": 1000}}
BERLIN = (52.52437, 13.41053)


@pytest.fixture
def people(data: DataDatabase) -> DataDatabase:
    """Four customers and three orders; no address was ever asked for."""
    data.execute("truncate operations.geocodes")
    data.execute("alter sequence app.change_seq restart")
    data.execute(DATA)
    return data


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer().running() as server:
        yield server


def states(stack: Stack, run: Run) -> dict[str, str]:
    metadata = Database(stack.dsn("airflow_demo"))
    rows = metadata.rows("select task_id, state from task_instance where run_id = %s", run.run_id)
    return {row["task_id"]: row["state"] for row in rows}


def says(data: DataDatabase) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in data.rows(SAYS)]


def test_customers_are_enriched_once_and_a_dry_run_only_says_so(
    stack: Stack, runner: Runner, people: DataDatabase
) -> None:
    before = says(people)
    run = runner.run("customer_enrichment", as_of=AS_OF, dry_run=True)
    assert run.state == "success"
    assert states(stack, run) == {"start": "success", "geocode": "success", "enrich": "skipped", "finish": "success"}
    assert "gazetteer: 2 addresses to ask for: 0 found, 0 not found, 0 failed, 2 left" in run.log
    assert "dry run: 4 customers would change, nothing is written" in run.log
    assert says(people) == before
    assert people.rows("select * from operations.geocodes") == []

    run = runner.run("customer_enrichment", as_of=AS_OF)
    assert run.state == "success"
    assert set(states(stack, run).values()) == {"success"}
    assert "gazetteer: 2 addresses to ask for: 1 found, 1 not found, 0 failed, 0 left" in run.log
    assert "4 live customers, of whom 4 changed: 2 in location, 4 in lifecycle stage" in run.log
    after = says(people)
    at = "2026-01-15 12:00:00+00"
    assert [row[:-1] for row in after] == [
        ("Ann", *BERLIN, "new", Decimal("19.9800"), 2, at),
        ("Bob", *BERLIN, "active", Decimal("0.0000"), 0, at),
        ("Cid", None, None, "engaged", Decimal("0.0000"), 0, at),
        ("Dan", None, None, "dormant", Decimal("0.0000"), 0, at),
    ]
    assert sorted(row[-1] for row in after) == [1, 2, 3, 4]
    assert people.pipeline_run(run.run_id)["status"] == "success"

    run = runner.run("customer_enrichment", as_of=AS_OF)
    assert run.state == "success"
    assert "gazetteer: 0 addresses to ask for" in run.log
    assert "of whom 0 changed" in run.log
    assert says(people) == after

    run = runner.run("customer_enrichment")
    assert run.state == "success"
    metadata = Database(stack.dsn("airflow_demo"))
    (run_after,) = metadata.column("select run_after from dag_run where run_id = %s", run.run_id)
    assert people.column("select distinct enriched_at from app.customers where name <> 'Dan'") == [run_after]
    assert [row[3] for row in says(people)] == ["dormant"] * 4


def test_a_server_is_asked_and_a_wrong_connection_fails_nothing(
    runner: Runner, people: DataDatabase, server: ScriptedServer
) -> None:
    for wrong, reason in (
        (UNREACHABLE, "nominatim: 2 addresses to ask for: 0 found, 0 not found, 2 failed, 0 left"),
        ({"host": "x", "extra": {"requests_per_second": "often"}}, 'connection "geocoder" cannot be used (ValueError'),
    ):
        run = enriched(runner, wrong)
        assert run.state == "success", run.log[-3000:]
        assert reason in run.log
        assert "4 live customers" in run.log
    assert people.rows("select * from operations.geocodes") == []

    server.on("/search?city=Atlantis&countrycodes=gr&format=jsonv2&limit=1", Reply(b"[]"))
    for city in ("Berlin", "berlin"):
        path = f"/search?city={city}&countrycodes=de&format=jsonv2&limit=1"
        server.on(path, Reply(b'[{"lat": "1.5", "lon": "2.5"}]'))
    fields = {"host": "127.0.0.1", "port": int(server.url.rpartition(":")[2]), "password": "geo-token"}
    run = enriched(runner, fields | {"extra": {"requests_per_second": 100}})
    assert run.state == "success"
    assert "nominatim: 2 addresses to ask for: 1 found, 1 not found, 0 failed, 0 left" in run.log
    assert "geo-token" not in run.log
    assert server.tokens == ["Bearer geo-token"] * 2
    assert {headers["User-Agent"] for headers in server.headers} == {"sluice"}
    assert {"requests_per_second", "Requests_per_second"}.isdisjoint(server.headers[0])
    assert [row[:3] for row in says(people)] == [
        ("Ann", 1.5, 2.5),
        ("Bob", 1.5, 2.5),
        ("Cid", None, None),
        ("Dan", None, None),
    ]


def enriched(runner: Runner, connection: dict[str, Any]) -> Run:
    value = json.dumps({"conn_type": "http", **connection})
    return runner.run("customer_enrichment", environ={"AIRFLOW_CONN_GEOCODER": value}, as_of=AS_OF)
