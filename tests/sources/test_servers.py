"""What the two servers answer, by their own programs: pages, links, filters; and what their contracts make of it."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
import requests

from include.contracts.contract import Contract
from include.extract.client import SourceClient
from include.extract.fetch import fetch
from include.extract.json_records import decode_body
from include.extract.landing import Landing
from include.transform.validation import PageValidator, StagedPage
from tests.sources import installation
from tests.sources.installation import InstallationError, installed, run
from tests.sources.json_server import server as json_server_program
from tests.sources.json_server.invoices import INVOICES
from tests.sources.json_server.server import InvoiceServer
from tests.sources.oscar.catalog import CATALOG
from tests.sources.oscar.server import ShopServer

EXECUTION = UUID("11111111-2222-4333-8444-555555555555")
SECONDS = 10


def read(
    contract: Contract, url: str, folder: Path, headers: dict[str, str] | None = None, since: datetime | None = None
) -> list[StagedPage]:
    """The pages of one fetch, validated."""
    assert contract.endpoint is not None
    landing = Landing(folder / "landing")
    with requests.Session() as session:
        session.headers.update(headers or {})
        client = SourceClient(session, url, contract.name, attempts=1)
        state = fetch(client, contract.endpoint, landing, execution=EXECUTION, since=since)
    validator = PageValidator(contract, state.fetched_at)
    return [validator.page(page.number, decode_body(landing.read_page(page.number))) for page in state.pages]


def rejections(pages: list[StagedPage]) -> list[tuple[str, str]]:
    return [(rejected.record_key, rejected.error) for page in pages for rejected in page.rejected]


def test_json_server_links_its_pages_and_counts_in_a_header(json_server: InvoiceServer) -> None:
    filtered = f"{json_server.url}/invoices?_page=%s&_limit=100&updated_at_gte=2025-03-10T00:00:00Z"
    answer = requests.get(filtered % 2, timeout=SECONDS)
    later = [invoice for invoice in json_server.invoices() if invoice["updated_at"] >= "2025-03-10T00:00:00Z"]
    assert answer.headers["Link"] == ", ".join(
        f'<{filtered % page}>; rel="{relation}"'
        for relation, page in (("first", 1), ("prev", 1), ("next", 3), ("last", 6))
    )
    assert answer.headers["X-Total-Count"] == str(len(later)) == "553"
    assert answer.json() == later[100:200]


def test_the_invoices_are_read_whole_and_the_wrong_ones_rejected(json_server: InvoiceServer, tmp_path: Path) -> None:
    pages = read(INVOICES, json_server.url, tmp_path)
    held = json_server.invoices()
    assert len(held) == 1200
    assert [row[2] for page in pages for row in page.rows] == [
        invoice["invoiceNo"] for number, invoice in enumerate(held, start=1) if number % 100
    ]
    below, wrong = "Input should be greater than or equal to", "RE-2025-%05d"
    assert rejections(pages) == [
        (wrong % 100, "buyer.ref: Field required"),
        (wrong % 200, f"lines.2.qty: {below} 1"),
        (wrong % 300, "lines: line_number 1 stands in it twice"),
        (wrong % 400, "grossAmount: Input should be a valid decimal"),
        (wrong % 500, "buyer.ref: Field required"),
        (wrong % 600, f"lines.3.qty: {below} 1"),
        (wrong % 700, "lines: line_number 1 stands in it twice"),
        (wrong % 800, "grossAmount: Input should be a valid decimal"),
        (wrong % 900, "buyer.ref: Field required"),
        (wrong % 1000, f"lines.3.qty: {below} 1"),
        (wrong % 1100, "lines: line_number 1 stands in it twice"),
        (wrong % 1200, "grossAmount: Input should be a valid decimal"),
    ]


def test_a_changed_invoice_comes_with_the_next_delta(own_json_server: InvoiceServer, tmp_path: Path) -> None:
    changed = own_json_server.change("RE-2025-00007", note="geändert", updated_at="2025-04-01T00:00:00Z")
    added = own_json_server.add({**changed, "invoiceNo": "RE-2025-01201", "lines": []})
    own_json_server.delete("RE-2025-00008")
    pages = read(INVOICES, own_json_server.url, tmp_path, since=datetime(2025, 4, 1, tzinfo=UTC))
    assert [row[2] for page in pages for row in page.rows] == [changed["invoiceNo"], added["invoiceNo"]]
    assert len(own_json_server.invoices()) == 1200


def test_the_shop_asks_for_a_token_and_says_what_is_next_in_the_body(oscar: ShopServer) -> None:
    url = f"{oscar.url}/admin/products/?limit=%d&offset=%d"
    refused = requests.get(url % (100, 0), timeout=SECONDS)
    assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Token")
    body = requests.get(url % (100, 100), headers=oscar.headers, timeout=SECONDS).json()
    assert {name: body[name] for name in ("count", "next", "previous")} == {
        "count": 300,
        "next": url % (100, 200),
        "previous": f"{oscar.url}/admin/products/?limit=100",
    }
    assert [product["id"] for product in body["results"]] == list(range(200, 100, -1))


def test_the_shop_ignores_what_would_ask_for_changes(oscar: ShopServer) -> None:
    for parameter in ("date_updated__gte", "date_updated", "updated_since", "ordering"):
        url = f"{oscar.url}/admin/products/?limit=1&{parameter}=2100-01-01T00:00:00Z"
        assert requests.get(url, headers=oscar.headers, timeout=SECONDS).json()["count"] == 300, parameter


def test_the_catalogue_is_read_whole_and_the_wrong_ones_rejected(oscar: ShopServer, tmp_path: Path) -> None:
    pages = read(CATALOG, oscar.url, tmp_path, oscar.headers)
    wrong = {record["product_id"] for record in oscar.stock_records() if (record["price"] or 0) < 0}
    held = sorted((product["id"] for product in oscar.products() if product["id"] not in wrong), reverse=True)
    assert [row[2] for page in pages for row in page.rows] == held
    stock = sorted((line[2], line[3]) for page in pages for line in page.children["stock_records"])
    assert stock == sorted(
        (record["partner_id"], record["partner_sku"])
        for record in oscar.stock_records()
        if record["product_id"] not in wrong
    )
    below_zero = "stockrecords.0.price: Input should be greater than or equal to 0"
    assert rejections(pages) == [("297", below_zero), ("198", below_zero), ("99", below_zero)]


def test_the_shop_moves_a_products_time_but_not_for_its_stock(own_oscar: ShopServer) -> None:
    before = own_oscar.products()
    own_oscar.change_stock(before[0]["id"], price="3.50", num_in_stock=4)
    own_oscar.change(before[1]["id"], title="Neu")
    own_oscar.delete(before[2]["id"])
    added = own_oscar.add("Brandneu", "123456", "9.99")
    after = own_oscar.products()
    moved = [product["id"] for product in after if product["date_updated"] > max(row["date_updated"] for row in before)]
    assert moved == [before[1]["id"], added["id"]]
    assert [product["id"] for product in after] == [1, 2, *range(4, 302)]
    (changed,) = own_oscar.rows("select price, num_in_stock from partner_stockrecord where id = 1")
    assert changed == {"price": 3.5, "num_in_stock": 4}


def test_a_server_that_does_not_start_says_what_it_printed(
    json_server: InvoiceServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    taken = int(json_server.url.rpartition(":")[2])
    monkeypatch.setattr(json_server_program, "choose_port", lambda name: taken)
    monkeypatch.setattr(json_server_program, "_answers", lambda server: False)
    with (
        pytest.raises(RuntimeError, match=f"(?s)json-server ended.*EADDRINUSE.*:{taken}"),
        json_server_program.serving(tmp_path),
    ):
        pass


def test_an_installation_is_made_again_only_when_it_needs_something_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(installation, "FOLDER", tmp_path / "sources")
    pins = tmp_path / "pins"
    made: list[str] = []

    def install(folder: Path) -> None:
        run([sys.executable, "-c", f"print('no such package'); raise SystemExit({pins.read_text()})"], folder)
        made.append(pins.read_text())

    pins.write_text("1")
    with pytest.raises(InstallationError, match="no such package"):
        installed("program", [pins], install)
    pins.write_text("0")
    for _ in range(2):
        assert installed("program", [pins], install) == tmp_path / "sources" / "program"
    pins.write_text("-0")
    installed("program", [pins], install)
    assert made == ["0", "-0"]
