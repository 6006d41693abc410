"""Contracts for three public APIs, against the example answers that these publish themselves (see README.md)."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import requests

from include.contracts.contract import Contract
from include.extract.client import SourceClient
from include.extract.fetch import fetch
from include.extract.json_records import decode_body
from include.extract.landing import Landing
from include.transform.validation import PageValidator, StagedPage
from tests.sources.published.digitalocean import DIGITALOCEAN_INVOICES
from tests.sources.published.square import SQUARE_CUSTOMERS
from tests.sources.published.stripe import STRIPE_CREDIT_NOTES

HERE = Path(__file__).parent
EXECUTION = UUID("11111111-2222-4333-8444-555555555555")
SINCE = datetime(2018, 1, 1, tzinfo=UTC)
CREATED = datetime(2009, 2, 13, 23, 31, 30, tzinfo=UTC)
Asked = tuple[str, str, Any]


def published(name: str) -> bytes:
    return (HERE / name).read_bytes()


@dataclass
class Source:
    """An HTTP server that gives its answers one after the other, and keeps what it was asked: method, path, body."""

    url: str
    answers: list[bytes] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)


@contextmanager
def serving() -> Iterator[Source]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, asked: Any) -> None:
            source.asked.append((self.command, self.path, asked))
            body = source.answers.pop(0) if source.answers else b""
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    source = Source(f"http://127.0.0.1:{http.server_port}")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield source
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def read(contract: Contract, source: Source, folder: Path, since: datetime | None = None) -> list[StagedPage]:
    """The pages of one fetch, validated."""
    assert contract.endpoint is not None
    landing = Landing(folder)
    with requests.Session() as session:
        client = SourceClient(session, source.url, contract.name, attempts=1)
        state = fetch(client, contract.endpoint, landing, execution=EXECUTION, since=since)
    validator = PageValidator(contract, state.fetched_at)
    pages = [validator.page(page.number, decode_body(landing.read_page(page.number))) for page in state.pages]
    assert [len(page.rows) for page in pages] == [page.records for page in state.pages]
    assert not any(page.rejected for page in pages)
    return pages


def test_square_is_searched_by_post_with_its_cursor_in_the_body(tmp_path: Path) -> None:
    first = published("square_search_customers.json")
    with serving() as source:
        source.answers = [first, b"{}"]
        pages = read(SQUARE_CUSTOMERS, source, tmp_path, since=SINCE)
    asked = {
        "limit": 100,
        "query": {
            "filter": {"updated_at": {"start_at": "2018-01-01T00:00:00Z"}},
            "sort": {"field": "CREATED_AT", "order": "ASC"},
        },
    }
    assert source.asked == [
        ("POST", "/v2/customers/search", asked),
        ("POST", "/v2/customers/search", {**asked, "cursor": "9dpS093Uy12AzeE"}),
    ]
    assert [page.text.encode() for page in pages] == [first, b"{}"]
    columns = (*SQUARE_CUSTOMERS.columns, "updated_at")
    assert [dict(zip(columns, row[2:], strict=True)) for page in pages for row in page.rows] == [
        {
            "id": "JDKYHBWT1D4F8MFH63DBMEN8Y4",
            "source": "square",
            "given_name": "James",
            "family_name": "Bond",
            "name": "James Bond",
            "email": "james.bond@example.com",
            "phone": "+1-212-555-4250",
            "street": "505 Electric Ave",
            "city": "New York",
            "state": "NY",
            "country": "US",
            "segments": ["1KB9JE5EGJXCW.REACHABLE"],
            "unsubscribed": False,
            "created_at": datetime(2018, 1, 23, 20, 21, 54, 859000, tzinfo=UTC),
            "updated_at": datetime(2020, 4, 20, 10, 2, 43, 83000, tzinfo=UTC),
        },
        {
            "id": "A9641GZW2H7Z56YYSD41Q12HDW",
            "source": "square",
            "given_name": "Amelia",
            "family_name": "Earhart",
            "name": "Amelia Earhart",
            "email": "amelia.earhart@example.com",
            "phone": "+1-212-555-9238",
            "street": "500 Electric Ave",
            "city": "New York",
            "state": "NY",
            "country": "US",
            "segments": ["1KB9JE5EGJXCW.REACHABLE"],
            "unsubscribed": False,
            "created_at": datetime(2018, 1, 30, 14, 10, 54, 859000, tzinfo=UTC),
            "updated_at": datetime(2018, 3, 8, 18, 25, 21, 342000, tzinfo=UTC),
        },
    ]


def test_stripe_goes_on_after_the_last_record_while_there_is_more(tmp_path: Path) -> None:
    def answer(name: str, *, more: bool) -> bytes:
        more_text = json.dumps(more).encode()
        return b'{"object": "list", "url": "/v1/credit_notes", "has_more": %b, "data": [%b]}' % (
            more_text,
            published(name),
        )

    with serving() as source:
        source.answers = [
            answer("stripe_credit_note_1.json", more=True),
            answer("stripe_credit_note_2.json", more=False),
        ]
        pages = read(STRIPE_CREDIT_NOTES, source, tmp_path, since=SINCE)
    first = "/v1/credit_notes?limit=100&created%5Bgte%5D=1514764800"
    assert source.asked == [
        ("GET", first, None),
        ("GET", f"{first}&starting_after=cn_1OLEAcEIcafXUJOLE7XBbNxU", None),
    ]

    def row(number: int, note: str, customer: str, invoice: str) -> tuple[Any, ...]:
        amounts = (Decimal("16.90"), Decimal("1.90"), Decimal("15.00"))
        content = ("ABCD-1234-CN-01", customer, invoice, "issued", "usd", *amounts, CREATED, CREATED)
        return (number, 0, note, *content, None)

    assert [row for page in pages for row in page.rows] == [
        row(1, "cn_1OLEAcEIcafXUJOLE7XBbNxU", "cus_P9X4kk2sMm6K34", "in_1OLEAcEIcafXUJOLXBblILGQ"),
        row(2, "cn_1MoqxTLgUG5tbmjcYOw6O0nz", "cus_NZbFQAsc0ptasX", "in_1MoqxTLgUG5tbmjc7Pweyrwz"),
    ]
    item = ("invoice_line_item", "My First Invoice Item (created for API docs)", 1, Decimal("11.90"), "DE")
    credit = ("custom_line_item", "Service credit", 1, Decimal("5.00"), None)
    assert [line for page in pages for line in page.children["lines"]] == [
        (1, 0, "cnli_1OLEAcEIcafXUJOLTbURuEQd", *item),
        (1, 0, "cnli_1OLEAcEIcafXUJOLQDw8GsPQ", *credit),
        (2, 0, "cnli_1MoqxTLgUG5tbmjckOY1cBiR", *item),
        (2, 0, "cnli_1MoqxTLgUG5tbmjcHy254h2g", *credit),
    ]


def test_digitalocean_names_the_next_page_in_the_body(tmp_path: Path) -> None:
    with serving() as source:
        first = published("digitalocean_list_invoices.json").replace(
            b"https://api.digitalocean.com", source.url.encode()
        )
        source.answers = [first, b'{"invoices": [], "links": {"pages": {}}, "meta": {"total": 70}}']
        pages = read(DIGITALOCEAN_INVOICES, source, tmp_path)
    assert source.asked == [
        ("GET", "/v2/customers/my/invoices?per_page=200", None),
        ("GET", "/v2/customers/my/invoices?page=2&per_page=2", None),
    ]
    assert [row for page in pages for row in page.rows] == [
        (1, 0, UUID("22737513-0ea7-4206-8ceb-98a575af7681"), date(2019, 12, 1), Decimal("12.34"), "USD", None),
        (1, 1, UUID("fdabb512-6faf-443c-ba2e-665452332a9e"), date(2019, 11, 1), Decimal("23.45"), "USD", None),
    ]
