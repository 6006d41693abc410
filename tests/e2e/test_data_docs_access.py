"""Data Docs on the real API server: who may read which page, and that nothing else is to be had there."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import UUID

import psycopg
import pytest

from include.local.stack import Stack
from include.operations import quality_results
from include.quality import data_docs
from include.quality.gate import CheckResult, GateResult
from tests.e2e.conftest import PASSWORDS
from tests.e2e.running import Database, until

PAGE = UUID(int=1)
OTHER = UUID(int=2)
SECRET = "not to be read by anybody"
PAGES = {
    "/sluice/quality": "<h1>Quality</h1>",
    "/sluice/quality/daily_sync": "<h1>daily_sync</h1>",
    f"/sluice/quality/daily_sync/{PAGE}": "<h1>customers</h1>",
    f"/sluice/quality/daily_sync/{str(PAGE).replace('-', '')}": "<h1>customers</h1>",
}
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"


@dataclass(frozen=True)
class Answer:
    """What the server says."""

    status: int
    headers: dict[str, str]
    body: str


@dataclass
class Person:
    """Somebody at Airflow, by a browser's cookie, by a program's token or without either; sends paths as they stand."""

    address: str
    headers: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, method: str = "GET", body: Any = None) -> Answer:
        where = urlsplit(self.address)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=30)
        try:
            connection._validate_path = lambda _: None  # type: ignore[attr-defined]  # it refuses what an attacker sends
            headers = self.headers | ({"Content-Type": "application/json"} if body else {})
            connection.request(method, path, body and json.dumps(body), headers)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode())
        finally:
            connection.close()


@dataclass(frozen=True)
class Site:
    """The API server, and the people at it."""

    address: str
    tokens: dict[str, str]

    def nobody(self) -> Person:
        return Person(self.address)

    def program(self, login: str) -> Person:
        return Person(self.address, {"Authorization": f"Bearer {self.tokens[login]}"})

    def browser(self, login: str) -> Person:
        return Person(self.address, {"Cookie": f"_token={self.tokens[login]}"})


@pytest.fixture(scope="module")
def site(stack: Stack) -> Site:
    """Airflow, up, with two DAGs that have pages and one that Airflow does not know, and files that are no pages."""
    address = stack.up_airflow()
    metadata = Database(stack.dsn("airflow"))
    query = "select from dag where dag_id in ('daily_sync', 'delta_sync') and not is_stale"
    until(lambda: len(metadata.rows(query)) == 2, "the DAGs are parsed")

    folder = stack.root / "data_docs"
    shutil.rmtree(folder, ignore_errors=True)  # what other tests have written
    met = CheckResult("never_null", "id", "critical", True, 0, "0 of 10 rows", "never null")
    with psycopg.connect(stack.dsn()) as connection:
        for pipeline, evaluation in (("daily_sync", PAGE), ("delta_sync", OTHER), ("forgotten", OTHER)):
            of = {"evaluation": evaluation, "run_id": "r1", "task_id": "customers.gate", "suite": "customers"}
            quality_results.record(connection, pipeline=pipeline, results=[met], **of)  # type: ignore[arg-type]
            data_docs.write_page(folder, pipeline=pipeline, result=GateResult((met,)), **of)  # type: ignore[arg-type]
            data_docs.write_index(folder, connection, pipeline)
        connection.rollback()
    for place in (stack.root, folder, folder / "daily_sync", folder / ".hidden"):
        place.mkdir(exist_ok=True)
        (place / "secret.html").write_text(SECRET)
    (folder / ".hidden" / f"{PAGE}.html").write_text(SECRET)

    passwords = PASSWORDS | dict([stack.admin()])
    tokens = {}
    for login, password in passwords.items():
        answer = Person(address).get("/auth/token", "POST", {"username": login, "password": password})
        tokens[login] = json.loads(answer.body)["access_token"]
    return Site(address, tokens)


@pytest.mark.parametrize("login", ["viewer", "admin"])
@pytest.mark.parametrize("path", PAGES)
def test_who_may_read_a_dag_reads_its_pages(site: Site, login: str, path: str) -> None:
    for person in (site.program(login), site.browser(login)):
        answer = person.get(path)
        assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert PAGES[path] in answer.body
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "private, no-store"


def test_the_list_has_the_pipelines_that_airflow_knows_and_that_have_pages(site: Site) -> None:
    body = site.browser("viewer").get("/sluice/quality").body
    links = [part.split('"')[0] for part in body.split('href="')[1:]]
    assert [link for link in links if link in {"quality/daily_sync", "quality/delta_sync"}] == links
    assert len(links) == 2


@pytest.mark.parametrize("path", PAGES)
def test_nobody_reads_nothing_and_a_browser_is_sent_to_log_in(site: Site, path: str) -> None:
    answer = site.nobody().get(path)
    login = f"/api/v2/auth/login?next={quote(path, safe='')}"
    assert (answer.status, answer.headers["location"], answer.body) == (307, login, "")
    # Airflow takes `next`: it passes it on to its page of the login
    passed_on = site.nobody().get(login)
    assert (passed_on.status, passed_on.headers["location"]) == (307, f"/auth/login?next={quote(path, safe='')}")

    for wrong in (
        "Bearer nonsense",
        f"Bearer {site.tokens['viewer'][:-4]}AAAA",
        "Bearer",
        "Basic dmlld2VyOm9mLWEtdmlld2Vy",
    ):
        refused = Person(site.address, {"Authorization": wrong}).get(path)
        assert (refused.status, refused.headers["content-type"]) == (401, "application/json")
        assert list(json.loads(refused.body)) == ["detail"]
    stale = Person(site.address, {"Cookie": f"_token={site.tokens['viewer'][:-4]}AAAA"}).get(path)
    assert (stale.status, stale.headers["location"]) == (307, login)
    for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS"):
        assert site.nobody().get(path, method).status == 405


@pytest.mark.parametrize("path", PAGES)
def test_who_may_not_read_a_dag_is_told_so(site: Site, path: str) -> None:
    program = site.program("stranger").get(path)
    assert (program.status, program.body) == (403, '{"detail":"Forbidden"}')
    browser = site.browser("stranger").get(path)
    assert browser.status == 403
    assert "You may not read the DAG that this page belongs to." in browser.body


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (f"/sluice/quality/daily_sync/{OTHER}", "There is no such page. The pages of the newest evaluations"),
        (f"/sluice/quality/daily_sync/{PAGE}.html", "There is no such page."),
        ("/sluice/quality/daily_sync/secret", "There is no such page."),
        ("/sluice/quality/daily_sync/index", "There is no such page."),
        ("/sluice/quality/warehouse_load", "No evaluation of this pipeline has a page"),
    ],
)
def test_what_is_not_there_is_said_in_plain_words(site: Site, path: str, said: str) -> None:
    answer = site.browser("viewer").get(path)
    assert answer.status == 404
    assert said in answer.body
    assert answer.headers["content-security-policy"] == POLICY
    told = site.program("viewer").get(path)
    assert (told.status, list(json.loads(told.body))) == (404, ["detail"])


UP = [
    "..",
    "%2e%2e",
    ".%2e",
    "%252e%252e",
    "%c0%ae%c0%ae",
    "\uff0e\uff0e",
    "%ef%bc%8e%ef%bc%8e",
    "..%00",
    "%2e%2e%2f",
    "....",
]
SLASH = ["/", "%2f", "%252f", "%5c", "\\", "%255c", "%c0%af", "%e2%88%95", "//"]
ABSOLUTE = [
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "//etc/passwd",
    "file:///etc/passwd",
    "file:%2f%2f%2fetc%2fpasswd",
    "~",
    "%00",
]


@pytest.mark.parametrize("login", ["viewer", "admin", "nobody"])
def test_no_path_leads_out_of_the_pages(site: Site, stack: Stack, login: str) -> None:
    tails = [f"{up}{slash}secret{end}" for up in UP for slash in SLASH for end in ("", ".html", ".html%00")]
    tails += [f"{up}{slash}.hidden{slash}{PAGE}" for up in UP for slash in SLASH]
    tails += [f"{ending}{slash}{PAGE}" for ending in (".hidden", "%2ehidden", "..", ".", "~") for slash in SLASH]
    tails += [
        f"{stack.root}/secret.html",
        quote(f"{stack.root}/secret.html", safe=""),
        "secret",
        "secret.html",
        *ABSOLUTE,
    ]
    paths = [f"/sluice/quality/{place}{tail}" for tail in tails for place in ("", "daily_sync/", f"daily_sync/{PAGE}/")]
    person = site.nobody() if login == "nobody" else site.program(login)
    answers = {path: person.get(quote(path, safe="/%\\~:")) for path in paths}
    assert [path for path, answer in answers.items() if SECRET in answer.body or "root:" in answer.body] == []
    said = {answer.status for answer in answers.values()}
    assert said == ({307, 404} if login == "nobody" else {404})  # what looks like a page needs a login first
    elsewhere = [answer.headers["location"] for answer in answers.values() if answer.status == 307]
    assert [location for location in elsewhere if not location.startswith("/api/v2/auth/login?next=")] == []


@pytest.mark.parametrize(
    "path",
    [
        *("/sluice/", "/sluice/docs", "/sluice/redoc", "/sluice/openapi.json", "/sluice/docs/oauth2-redirect"),
        *("/sluice/quality/", "/sluice/static/style.css", "/sluice/daily_sync/index.html", "/sluice/pages/style.css"),
    ],
)
def test_no_route_is_public(site: Site, path: str) -> None:
    for person in (site.nobody(), site.browser("viewer")):
        assert person.get(path).status == 404


def test_airflow_has_loaded_the_plugin_with_its_places_in_the_ui(site: Site) -> None:
    admin = site.program("admin")
    assert json.loads(admin.get("/api/v2/plugins/importErrors").body) == {"import_errors": [], "total_entries": 0}
    plugins = {one["name"]: one for one in json.loads(admin.get("/api/v2/plugins?limit=100").body)["plugins"]}
    assert [(view["destination"], view["href"], view["url_route"]) for view in plugins["sluice"]["external_views"]] == [
        ("nav", "/sluice/quality", "quality"),
        ("dag", "/sluice/quality/{DAG_ID}", "quality-of-the-dag"),
    ]
    assert [app["url_prefix"] for app in plugins["sluice"]["fastapi_apps"]] == ["/sluice"]
    assert plugins["sluice"]["operator_extra_links"] == ["<sluice.data_docs.DataDocsLink object>"]
    assert [name for name in plugins if name != "sluice" and "sluice" in name] == []


def test_the_button_on_a_task_leads_to_the_page_under_the_path_of_the_server(stack: Stack) -> None:
    script = f"""
import sys
from types import SimpleNamespace
from uuid import UUID
from sluice.data_docs import DataDocsLink, folder, path
made = path("daily_sync", UUID("{PAGE}"))
links = [DataDocsLink().get_link(SimpleNamespace(**of), ti_key=None) for of in ({{"page": made}}, {{"page": ""}}, {{}})]
import sluice_plugin
views = [view["href"] for view in sluice_plugin.SluicePlugin.external_views]
heavy = [name for name in ("great_expectations", "fastapi", "airflow.api_fastapi.app") if name in sys.modules]
print([made, links, views, heavy, str(folder())])
"""
    environment = stack.environment() | {"AIRFLOW__API__BASE_URL": "https://example.org/team/airflow/"}
    found = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    page = f"/sluice/quality/daily_sync/{PAGE}"
    assert found.stdout.splitlines()[-1] == str(
        [
            page,
            [f"/team/airflow{page}", "", ""],
            ["/team/airflow/sluice/quality", "/team/airflow/sluice/quality/{DAG_ID}"],
            [],
            (stack.root / "data_docs").as_uri(),
        ]
    )
