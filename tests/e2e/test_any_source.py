"""Entities of servers and files that this project did not make: each a contract file, and nothing else.

The contracts of `tests/sources/` are put into a copy of the repository, whose own DAGs sync them, from json-server, a
django-oscar shop and a folder of csv files; what arrives is compared with the servers' own databases.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import create_engine

from include.contracts.contract import Contract
from include.database.entities import entity_tables
from include.database.metadata import app_metadata
from include.local.stack import REPOSITORY, Stack
from tests.e2e.running import Database, DataDatabase, Runner
from tests.sources.files.parcels import PARCELS
from tests.sources.json_server import server as json_server_program
from tests.sources.json_server.invoices import INVOICES
from tests.sources.json_server.server import InvoiceServer
from tests.sources.oscar import server as oscar_program
from tests.sources.oscar.catalog import CATALOG
from tests.sources.oscar.server import ShopServer

FOREIGN: tuple[Contract, ...] = (INVOICES, CATALOG, PARCELS)
NAMES = [contract.name for contract in FOREIGN]
HEADER = "parcel_no,order_id,grams,postage,called_off,updated_at\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the carrier leaves its files."""
    return tmp_path_factory.mktemp("carrier")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    """The repository with three contract files more."""
    copy = tmp_path_factory.mktemp("repository")
    leave = shutil.ignore_patterns("__pycache__")
    for part in ("dags", "plugins", "include", "tests/e2e"):
        shutil.copytree(REPOSITORY / part, copy / part, ignore=leave)
    shutil.copy(REPOSITORY / "tests" / "__init__.py", copy / "tests")
    sources = REPOSITORY / "tests" / "sources"
    for name in ("json_server/invoices.py", "oscar/catalog.py"):
        shutil.copy(sources / name, copy / "include" / "contracts")
    parcels = (sources / "files" / "parcels.py").read_text().replace("file:///srv/carrier/parcels", folder.as_uri())
    (copy / "include" / "contracts" / "parcels.py").write_text(parcels)
    return copy


@pytest.fixture(scope="module")
def invoices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InvoiceServer]:
    with json_server_program.serving(tmp_path_factory.mktemp("json_server")) as server:
        yield server


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShopServer]:
    with oscar_program.serving(tmp_path_factory.mktemp("oscar")) as server:
        yield server


@pytest.fixture(scope="module")
def foreign(stack: Stack) -> Iterator[Database]:
    """The data's database, empty, with the tables of the three entities."""
    data = DataDatabase(stack.dsn())
    data.empty()
    metadata = app_metadata()
    tables = [table for contract in FOREIGN for table in entity_tables(contract, metadata)]
    engine = create_engine(stack.dsn().replace("postgresql:", "postgresql+psycopg:"))
    metadata.create_all(engine, tables=tables)
    yield data
    for table in reversed(tables):  # not drop_all, which takes the sequence of all entities along
        table.drop(engine)
    engine.dispose()


@pytest.fixture(scope="module")
def anywhere(
    stack: Stack, copy: Path, foreign: Database, invoices: InvoiceServer, shop: ShopServer
) -> Iterator[Runner]:
    """Runs the DAGs of the copy."""
    more = {
        "AIRFLOW_CONN_JSON_SERVER": connection(invoices.url),
        "AIRFLOW_CONN_OSCAR": shop_connection(shop, shop.token),
    }
    runner = Runner(stack, stack.root / "logs" / "any_source.log", copy, more)
    yield runner
    runner.stop()


def connection(url: str, **more: Any) -> str:
    parts = urlsplit(url)
    host = f"{parts.scheme}://{parts.hostname}:{parts.port}{parts.path}"
    return json.dumps({"conn_type": "http", "host": host} | more)


def shop_connection(shop: ShopServer, token: str) -> str:
    login = {"type": "header", "name": "Authorization", "prefix": "Token "}
    return connection(shop.url, password=token, extra={"auth": login})


def leave_file(folder: Path, name: str, *lines: str) -> None:
    """A file of the carrier, whole."""
    (folder / name).write_text(HEADER + "".join(f"{line}\n" for line in lines))
    (folder / f"{name}.done").touch()


def counts(database: Database, run_id: str) -> dict[str, dict[str, int]]:
    names = ("inserted", "updated", "unchanged", "duplicate", "quarantined", "deleted")
    rows = database.rows("select * from operations.sync_log where run_id = %s", run_id)
    return {row["entity"]: {name: row[name] for name in names if row[name]} for row in rows}


def held_invoices(server: InvoiceServer) -> set[tuple[Any, ...]]:
    """(number, buyer, amount, lines) of those that are right."""
    right = [invoice for invoice in server.invoices() if is_right(invoice)]
    return {
        (each["invoiceNo"], each["buyer"]["ref"], Decimal(each["grossAmount"]), len(each["lines"])) for each in right
    }


def is_right(invoice: dict[str, Any]) -> bool:
    lines = invoice["lines"]
    return (
        invoice["buyer"] is not None
        and invoice["grossAmount"] != "on request"
        and all(line["qty"] > 0 for line in lines)
        and len({line["pos"] for line in lines}) == len(lines)
    )


def arrived_invoices(database: Database) -> set[tuple[Any, ...]]:
    rows = database.rows(
        """
        select number, buyer, gross_amount, (select count(*) from app.invoice_lines l where l.invoice_number = number)
          from app.invoices
         where deleted_at is null
        """
    )
    return {tuple(row.values()) for row in rows}


def held_products(shop: ShopServer) -> set[tuple[Any, ...]]:
    """(id, title, prices) of those that have no price below zero."""
    prices: dict[int, list[Decimal | None]] = {product["id"]: [] for product in shop.products()}
    for record in shop.stock_records():
        price = record["price"]
        prices[record["product_id"]].append(None if price is None else Decimal(str(price)))
    titles = {product["id"]: product["title"] or None for product in shop.products()}
    return {
        (key, titles[key], tuple(sorted(own, key=str)))
        for key, own in prices.items()
        if not any(price is not None and price < 0 for price in own)
    }


def arrived_products(database: Database) -> set[tuple[Any, ...]]:
    rows = database.rows(
        """
        select id, title, (select array_agg(price) from app.shop_stock s where s.product_id = p.id) as prices
          from app.shop_products p
         where deleted_at is null
        """
    )
    return {
        (row["id"], row["title"], tuple(sorted((p and p.normalize() + 0 for p in row["prices"] or []), key=str)))
        for row in rows
    }


def normalized(products: set[tuple[Any, ...]]) -> set[tuple[Any, ...]]:
    return {
        (key, title, tuple(sorted((p and p.normalize() + 0 for p in prices), key=str)))
        for key, title, prices in products
    }


def test_three_foreign_sources_whole_then_what_changed_then_one_of_them_down(
    anywhere: Runner, foreign: Database, invoices: InvoiceServer, shop: ShopServer, folder: Path
) -> None:
    leave_file(
        folder,
        "monday.csv",
        "P1,o1,500,4.90,,2026-01-05T10:00:00Z",
        "P2,o2,800,,,2026-01-05T11:00:00Z",
        "P3,o3,1.5 kg,,,2026-01-05T11:00:00Z",
        "P4,o4,900",
    )
    (folder / "half.csv").write_text(HEADER + "P9,o9,1")  # without its marker: the carrier still writes

    run = anywhere.run(entities=NAMES, allow_quarantined=True)
    assert run.state == "success", run.log[-6000:]
    assert counts(foreign, run.run_id) == {
        "invoices": {"inserted": 1188, "quarantined": 12},
        "shop_products": {"inserted": 297, "quarantined": 3},
        "parcels": {"inserted": 2, "quarantined": 2},
    }
    assert arrived_invoices(foreign) == held_invoices(invoices)
    assert arrived_products(foreign) == normalized(held_products(shop))
    reasons = foreign.column("select error from operations.dead_letters where entity = 'parcels' order by id")
    assert reasons == ["grams: Input should be a valid integer", "monday.csv, line 5: 3 fields, the header has 6"]
    assert foreign.column("select payload_raw from operations.dead_letters where record_key like 'sha256:%%'") == [
        b'"P4,o4,900"'
    ]
    drifted = foreign.column("select jsonb_path_query(drift, '$[*].field') from operations.sync_log")
    assert "slug" in drifted
    assert "shop_products: schema drift: new field `slug` (string) in 300 of 300 records: read it in the" in run.log

    invoices.change("RE-2025-00007", grossAmount="77.77", updated_at="2025-09-01T00:00:00Z")
    added = next(each for each in invoices.invoices() if is_right(each))
    invoices.add({**added, "invoiceNo": "RE-2025-01201", "updated_at": "2025-09-01T00:00:00Z"})
    shop.change_stock(1, price="3.50")
    shop.change(2, title="Renamed")
    leave_file(folder, "tuesday.csv", "P1,,,,true,2026-01-06T10:00:00Z", "P5,o5,100,1.00,,2026-01-06T10:00:00Z")
    run = anywhere.run("delta_sync", entities=NAMES)
    assert run.state == "success", run.log[-6000:]
    delta = counts(foreign, run.run_id)
    assert delta["invoices"]["inserted"] == delta["invoices"]["updated"] == 1
    assert delta["shop_products"] == {"updated": 2, "unchanged": 295, "quarantined": 3}
    assert delta["parcels"] == {"inserted": 1, "updated": 1}
    assert arrived_invoices(foreign) == held_invoices(invoices)
    assert arrived_products(foreign) == normalized(held_products(shop))
    assert foreign.column("select number from app.parcels where deleted_at is null order by 1") == ["P2", "P5"]

    invoices.delete("RE-2025-00008")
    down = {"AIRFLOW_CONN_OSCAR": shop_connection(shop, "revoked-token")}
    run = anywhere.run(entities=NAMES, environ=down)
    assert run.state == "failed"
    (error,) = foreign.column("select error_message from operations.pipeline_runs where run_id = %s", run.run_id)
    assert error.startswith("shop_products.extract: shop_products: http://127.0.0.1:")
    assert "answered 401 Unauthorized" in error
    assert 'check the token in connection "oscar"' in error
    assert "revoked-token" not in run.log
    assert set(counts(foreign, run.run_id)) == {"invoices"}
    assert "parcels: no file" in run.log or "NothingNew" in run.log or "nothing new" in run.log

    run = anywhere.run(entities=["invoices"])  # pages that shift say it twice before a row is deleted
    assert counts(foreign, run.run_id)["invoices"]["deleted"] == 1
    assert arrived_invoices(foreign) == held_invoices(invoices)
