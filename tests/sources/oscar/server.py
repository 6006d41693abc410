"""django-oscar (https://oscarcommerce.com) with django-oscar-api: a shop whose catalogue staff read over REST."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from uv import find_uv_bin

from include.local.processes import HOST, choose_port, spawn, stop, wait_until_ready
from tests.sources.installation import installed, run

HERE = Path(__file__).parent
SHOP = HERE / "shop"
TOKEN = "a-token-of-the-shop-s-staff"
SEEDED = "shop.sqlite3"
SECONDS = 10  # for one request

Product = dict[str, Any]


@dataclass(frozen=True)
class ShopServer:
    """A running shop. `url` is that of its API; `token` goes as `Authorization: Token ...`; `database` is SQLite."""

    url: str
    token: str
    database: Path
    log: Path

    @property
    def headers(self) -> dict[str, str]:
        """What a request needs to be answered."""
        return {"Authorization": f"Token {self.token}"}

    def rows(self, query: str) -> list[dict[str, Any]]:
        """What its database answers: times as text in UTC, prices as SQLite's floats or integers."""
        with closing(sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query)]

    def products(self) -> list[dict[str, Any]]:
        """The rows of its products, by id."""
        return self.rows("select * from catalogue_product order by id")

    def stock_records(self) -> list[dict[str, Any]]:
        """The rows of its stock records, by id; the partner's name beside its key."""
        return self.rows(
            "select s.*, p.name as partner_name from partner_stockrecord s"
            " join partner_partner p on p.id = s.partner_id order by s.id"
        )

    def change(self, product: int, **fields: Any) -> Product:
        """Set fields of a product; the shop moves its `date_updated`."""
        changed: Product = self._ask("PATCH", f"products/{product}/", fields).json()
        return changed

    def change_stock(self, record: int, **fields: Any) -> dict[str, Any]:
        """Set fields of a stock record. The `date_updated` of its product stays as it is."""
        changed: dict[str, Any] = self._ask("PATCH", f"stockrecords/{record}/", fields).json()
        return changed

    def add(self, title: str, upc: str | None = None, price: str | None = None) -> Product:
        """A new product that stands alone, with a stock record at the first partner if it has a price."""
        fields = {"product_class": "goods", "structure": "standalone", "title": title, "slug": "new", "upc": upc}
        sold = {"partner": f"{self.url}/admin/partners/1/", "partner_sku": f"new-{title}"}
        stock = [{**sold, "price": price, "price_currency": "EUR"}] if price else []
        added: Product = self._ask("POST", "products/", {**fields, "stockrecords": stock}).json()
        return added

    def delete(self, product: int) -> None:
        """Remove a product with its children and stock records, without a trace."""
        self._ask("DELETE", f"products/{product}/", None)

    def _ask(self, method: str, path: str, body: Any) -> requests.Response:
        url = f"{self.url}/admin/{path}"
        answer = requests.request(method, url, json=body, headers=self.headers, timeout=SECONDS)
        if not answer.ok:
            raise RuntimeError(f"{method} {url}: {answer.status_code} {answer.text[:500]}")
        return answer


def install() -> Path:
    """The folder with the shop's virtual environment and its seeded database."""
    needs = [HERE / "requirements.txt", *sorted(SHOP.glob("*.py"))]

    def install_into(folder: Path) -> None:
        uv, python = find_uv_bin(), folder / "venv" / "bin" / "python"
        run([uv, "venv", "--quiet", "--python", sys.executable, folder / "venv"], folder)
        into = ["--quiet", "--python", str(python), "--compile-bytecode"]
        run([uv, "pip", "install", *into, "-r", HERE / "requirements.txt"], folder)
        run([python, SHOP / "seed.py", TOKEN], folder, _environ(folder / SEEDED))

    return installed("oscar", needs, install_into, version=sys.version)


@contextmanager
def serving(folder: Path) -> Iterator[ShopServer]:
    """The shop as it was seeded, its database and log in `folder`.

    Raises StackError with what it printed if it does not start.
    """
    installation = install()
    port = choose_port("oscar")
    server = ShopServer(f"http://{HOST}:{port}/api", TOKEN, folder / SEEDED, folder / "shop.log")
    shutil.copy(installation / SEEDED, server.database)
    command = [str(installation / "venv" / "bin" / "python"), "-m", "waitress", f"--listen={HOST}:{port}"]
    command += ["--call", "django.core.wsgi:get_wsgi_application"]
    service = spawn(command, server.log, os.environ | _environ(server.database), port, cwd=folder)
    try:
        wait_until_ready({"the shop": service}, lambda: _answers(server))
        yield server
    finally:
        stop([service])


def _environ(database: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(SHOP), "DJANGO_SETTINGS_MODULE": "settings", "SHOP_DATABASE": str(database)}


def _answers(server: ShopServer) -> bool:
    try:
        return requests.get(f"{server.url}/products/?limit=1", headers=server.headers, timeout=SECONDS).ok
    except requests.ConnectionError:
        return False
