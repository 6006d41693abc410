"""Pages and indexes of real evaluations, in folders of a file system and of an object store."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from upath import UPath

from include.operations import quality_results
from include.quality import data_docs, gate
from include.quality.data_docs import DataDocsError
from include.quality.expectations import Suite
from include.quality.gate import CheckResult, GateResult

Database = psycopg.Connection[Any]
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
OF = {"pipeline": "quality_checks", "run_id": "scheduled__<b>1</b>", "task_id": "evaluate", "suite": "people & co"}
VALUES = ("ada@example.org", "grace@example.org", "linus")
ONE = UUID(int=1)


class Page(HTMLParser):
    """A page as a browser takes it: its text, the cells of its tables by row, and what it leads to or loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text()
        self.text = ""
        self.rows: list[list[str]] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self._in_cell = self._in_style = False
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in {"href", "src", "srcset", "data"}]
        assert not [name for name, _ in attrs if name.startswith("on")]
        self._in_style = tag == "style"
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False
        if tag in {"td", "th"}:
            self.rows[-1][-1] = " ".join(self.rows[-1][-1].split())
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        if self._in_style:
            return
        self.text += data
        if self._in_cell:
            self.rows[-1][-1] += data


@pytest.fixture
def database(app_db: Database) -> Iterator[Database]:
    """A table in which a row in three breaks what is expected of it."""
    app_db.execute("create table app.people (id int primary key, email text, name text, age int)")
    app_db.execute(
        "insert into app.people values "
        "(1, 'ada@example.org', 'ada', 36), (2, 'grace@example.org', null, 300), (3, null, 'linus', 20)"
    )
    app_db.commit()
    yield app_db
    app_db.rollback()


def evaluated(uri: str) -> GateResult:
    """What the gate says of the table, as a relation of two columns and one of a query."""
    import great_expectations.expectations as gx

    whole = Suite(
        "app.people",
        (
            gx.ExpectColumnValuesToNotBeNull(column="email", meta={"column": "email"}),
            gx.ExpectColumnValuesToBeBetween(
                column="age", max_value=150, severity="warning", meta={"name": "old", "column": "age"}
            ),
            gx.ExpectColumnValuesToBeInSet(column="name", value_set=["ada", "linus", "<script>alert(1)</script>"]),
            gx.UnexpectedRowsExpectation(
                unexpected_rows_query="select 1 from app.people /* {batch} */ where age < 0 or name = '</td><i>'",
                meta={"name": "no_<i>_rows"},
            ),
        ),
        key=("id",),
        title="people <i>",
    )
    named = Suite(
        "(select * from app.people where name is not null)",
        (gx.ExpectTableRowCountToBeBetween(min_value=2, meta={"name": "row_count_floor"}),),
        title="people with a name",
    )
    return gate.evaluate(uri, [whole, named])


def test_a_page_shows_what_failed_and_every_expectation_by_relation_and_column(
    database: Database, app_database: str, tmp_path: Path
) -> None:
    data_docs.write_page(tmp_path / "made" / "here", evaluation=ONE, result=evaluated(app_database), **OF)
    path = tmp_path / f"made/here/quality_checks/{ONE}.html"
    page = Page(path)
    titles = " ".join(page.text.split())
    assert (
        "people & co 1 critical, 1 warning of 5 Pipelinequality_checks Runscheduled__<b>1</b> Taskevaluate Checked2"
        in titles
    )
    assert re.search(r"Checked20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC Checks5 What failed", titles)
    assert "people <i> 2 of 4 met" in titles
    assert "people with a name 1 of 1 met" in titles
    not_null = "expect_column_values_to_not_be_null"
    expected = ["Status", "Expectation", "Observed Value"]
    assert page.rows == [
        ["Severity", "Check", "Column", "Expected", "Observed", "Keys of some of the rows"],
        ["critical", not_null, "email", "never null", "1 of 3 rows", "3"],
        ["warning", "old", "age", "at most 150", "1 of 3 rows", "2"],
        expected,
        ["", "no_<i>_rowsselect 1 from app.people /* {batch} */ where age < 0 or name = '</td><i>'", "0"],
        expected,
        [
            "",
            "values must be less than or equal to 150.0. 1 unexpected values found. ≈33.33% of 3 total rows.",
            "≈33.333% unexpected",
        ],
        expected,
        ["", "values must never be null. 1 unexpected values found. ≈33.33% of 3 total rows.", "≈66.667% not null"],
        expected,
        ["", "values must belong to this set: ada linus <script>alert(1)</script>.", "0% unexpected"],
        expected,
        ["", "Must have greater than or equal to 2 rows.", "2"],
    ]
    assert re.findall(r"fa-(times|check-circle)", page.source.split("</style>")[1]) == [
        "check-circle",
        "times",
        "times",
        "check-circle",
        "check-circle",
    ]


def test_a_page_loads_nothing_runs_nothing_and_leads_to_the_index_alone(
    database: Database, app_database: str, tmp_path: Path
) -> None:
    data_docs.write_page(tmp_path, evaluation=ONE, result=evaluated(app_database), **OF)
    page = Page(tmp_path / f"quality_checks/{ONE}.html")
    assert page.links == ["../../quality", "../quality_checks"]
    assert not page.tags & {"script", "link", "img", "iframe", "object", "i b", "form"}
    assert "://" not in page.source
    assert "url(" not in page.source
    assert "@import" not in page.source


def test_no_value_is_on_a_page_whatever_great_expectations_was_asked_for(
    database: Database, app_database: str, tmp_path: Path
) -> None:
    result = evaluated(app_database)
    (validation, _) = result.validations
    for one in validation.results:
        one.result |= {
            "partial_unexpected_list": list(VALUES),
            "partial_unexpected_counts": [{"value": value, "count": 1} for value in VALUES],
            "unexpected_index_query": f"where email = '{VALUES[0]}'",
            "details": {"unexpected_rows": [{"email": value} for value in VALUES]},
        }
        one.exception_info = {"raised_exception": True, "exception_message": VALUES[0], "exception_traceback": ""}
    allowed = replace(result, validations=(validation,))
    data_docs.write_page(tmp_path, evaluation=ONE, result=allowed, **OF)
    source = (tmp_path / f"quality_checks/{ONE}.html").read_text()
    assert [value for value in ("@example.org", "grace") if value in source] == []
    assert source.count("linus") == 1  # in the set that is expected


def test_an_evaluation_that_failed_has_a_page_without_relations(tmp_path: Path) -> None:
    failed = CheckResult("evaluation", None, "critical", False, 0, "app.people is missing", "no error")
    data_docs.write_page(tmp_path, evaluation=ONE, result=GateResult((failed,)), **OF)
    page = Page(tmp_path / f"quality_checks/{ONE}.html")
    assert page.rows[1:] == [["critical", "evaluation", "", "no error", "app.people is missing", ""]]


def record(database: Database, number: int, met: int = 3, warnings: int = 0, critical: int = 0, **of: str) -> UUID:
    """Records evaluation `number`, at that many minutes after noon."""
    results = [
        CheckResult(f"{severity}_{n}", None, severity, success, 0, "0 rows", "no rows")  # type: ignore[arg-type]
        for severity, success, count in (
            ("critical", True, met),
            ("warning", False, warnings),
            ("critical", False, critical),
        )
        for n in range(count)
    ]
    quality_results.record(database, evaluation=UUID(int=number), results=results, **(OF | of))
    database.execute(
        "update operations.quality_results set checked_at = %s where evaluation = %s",
        (NOON + timedelta(minutes=number), UUID(int=number)),
    )
    database.commit()
    return UUID(int=number)


def test_an_index_shows_the_newest_evaluations(app_db: Database, tmp_path: Path) -> None:
    record(app_db, 1)
    record(app_db, 2, warnings=1, suite="orders", run_id="r2")
    record(app_db, 3, warnings=1, critical=7)
    record(app_db, 4, pipeline="other")
    data_docs.write_index(tmp_path, app_db, "quality_checks")
    page = Page(tmp_path / "quality_checks/index.html")
    assert page.rows == [
        ["Checked", "Suite", "Task", "Run", "Met", "Warnings", "Critical", "Failed"],
        [
            *("2026-05-01 12:03:00 UTC", "people & co", "evaluate", "scheduled__<b>1</b>", "3", "1", "7"),
            "critical_0, critical_1, critical_2, critical_3, critical_4 and 3 more",
        ],
        ["2026-05-01 12:02:00 UTC", "orders", "evaluate", "r2", "3", "1", "0", "warning_0"],
        ["2026-05-01 12:01:00 UTC", "people & co", "evaluate", "scheduled__<b>1</b>", "3", "0", "0", ""],
    ]
    assert page.links == ["../quality", *(f"quality_checks/{UUID(int=number)}" for number in (3, 2, 1))]
    assert '<p class="verdict critical">7 critical, 1 warning of 14</p>' in page.source, "of the run, not of one suite"
    bars = re.findall(r'class="(\w+)" x="(\d+)" y="(\d+)" width="8" height="(\d+)"', page.source)
    assert [bar for bar in bars if bar[3] != "0"] == [
        ("met", "20", "45", "15"),
        ("warning", "20", "41", "4"),
        ("critical", "20", "8", "33"),
        ("met", "10", "21", "39"),
        ("warning", "10", "8", "13"),
        ("met", "0", "8", "52"),
    ]
    assert page.tags == {
        *(
            "html",
            "head",
            "meta",
            "title",
            "style",
            "body",
            "main",
            "nav",
            "a",
            "header",
            "h1",
            "p",
            "figure",
            "svg",
            "g",
        ),
        *("rect", "figcaption", "span", "div", "table", "thead", "tbody", "tr", "th", "td"),
    }


def test_an_index_is_bounded(app_db: Database, tmp_path: Path) -> None:
    for number in range(105):
        record(app_db, number, met=1)
    data_docs.write_index(tmp_path, app_db, "quality_checks")
    page = Page(tmp_path / "quality_checks/index.html")
    assert page.links[1:] == [f"quality_checks/{UUID(int=number)}" for number in range(104, 4, -1)]


def test_indexes_written_at_once_end_with_all_evaluations(app_db: Database, app_database: str, tmp_path: Path) -> None:
    def evaluate(numbers: range) -> None:
        with psycopg.connect(app_database) as connection:
            for number in numbers:
                record(connection, number, met=1)
                data_docs.write_index(tmp_path, connection, "quality_checks")

    threads = [threading.Thread(target=evaluate, args=(range(n * 10, n * 10 + 10),)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    page = Page(tmp_path / "quality_checks/index.html")
    assert sorted(page.links[1:]) == sorted(f"quality_checks/{UUID(int=number)}" for number in range(50))
    assert [path.name for path in (tmp_path / "quality_checks").iterdir()] == ["index.html"]


def test_an_index_that_another_task_holds_is_waited_for_and_then_left(
    app_db: Database, app_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_docs, "LOCK_SECONDS", 1)
    with psycopg.connect(app_database) as other:
        other.execute("select pg_advisory_xact_lock(hashtextextended('sluice.data_docs.quality_checks', 0))")
        started = time.monotonic()
        with pytest.raises(
            DataDocsError,
            match=r"^the index of quality_checks was not written: another task has been writing it for 1 s",
        ):
            data_docs.write_index(tmp_path, app_db, "quality_checks")
        assert 0.9 < time.monotonic() - started < 5
        data_docs.write_index(tmp_path, app_db, "other")  # the connection goes on, and other indexes have no part in it
    data_docs.write_index(tmp_path, app_db, "quality_checks")
    assert sorted(path.parent.name for path in tmp_path.rglob("*.html")) == ["other", "quality_checks"]


@pytest.mark.parametrize("kind", ["local", "file", "memory"])
def test_pages_of_old_evaluations_are_removed(app_db: Database, tmp_path: Path, kind: str) -> None:
    folder = {"local": tmp_path, "file": UPath(tmp_path.as_uri()), "memory": UPath(f"memory://{tmp_path}")}[kind]
    result = GateResult((CheckResult("a", None, "critical", True, 0, "0 rows", "no rows"),))
    for number in range(10):  # two of a run
        failed = {2: {"critical": 1}, 3: {"warnings": 1}}.get(number, {})
        evaluation = record(app_db, number, run_id=f"r{number // 2}", **failed)  # type: ignore[arg-type]
        data_docs.write_page(folder, evaluation=evaluation, result=result, **OF)
    data_docs.write_page(folder, evaluation=UUID(int=99), result=result, **OF)  # whose results are gone
    data_docs.write_index(folder, app_db, "quality_checks")

    def left() -> list[str]:
        return sorted(path.name for path in (folder / "quality_checks").iterdir())

    assert data_docs.prune(folder, app_db, "quality_checks", keep=2) == 6
    assert left() == [*(f"{UUID(int=number)}.html" for number in (2, 6, 7, 8, 9)), "index.html"]
    assert data_docs.prune(folder, app_db, "quality_checks", keep=2) == 0
    assert data_docs.prune(folder, app_db, "never_ran", keep=2) == 0


def test_what_a_killed_task_left_half_written_goes_after_an_hour(app_db: Database, tmp_path: Path) -> None:
    data_docs.write_index(tmp_path, app_db, "quality_checks")
    old, new = (tmp_path / "quality_checks" / f".{UUID(int=number)}.html.unfinished" for number in range(2))
    for path, age in ((old, 3700), (new, 3500)):
        path.write_text("half")
        os.utime(path, (time.time() - age, time.time() - age))
    assert data_docs.prune(tmp_path, app_db, "quality_checks", keep=2) == 1
    assert (old.exists(), new.exists()) == (False, True)


def test_an_index_whose_results_cannot_be_read_is_an_error_of_its_own(app_db: Database, tmp_path: Path) -> None:
    app_db.execute("alter table operations.quality_results rename to gone")
    app_db.commit()
    with pytest.raises(DataDocsError, match="the index of quality_checks was not written: UndefinedTable: relation"):
        data_docs.write_index(tmp_path, app_db, "quality_checks")


def test_a_folder_that_cannot_be_written_to_is_named_with_what_to_do(app_db: Database, tmp_path: Path) -> None:
    folder = tmp_path / "file"
    folder.write_text("no folder")
    result = GateResult((CheckResult("a", None, "critical", True, 0, "0 rows", "no rows"),))
    remedy = "let Airflow's tasks write there, or set the Variable data_docs_uri to a folder where they may"
    with pytest.raises(DataDocsError) as page:
        data_docs.write_page(folder, evaluation=ONE, result=result, **OF)
    target = folder / "quality_checks"
    assert str(page.value) == f"a page cannot be written to {target / f'{ONE}.html'}: Not a directory: {remedy}"
    with pytest.raises(DataDocsError) as index:
        data_docs.write_index(folder, app_db, "quality_checks")
    assert str(index.value) == f"a page cannot be written to {target / 'index.html'}: Not a directory: {remedy}"


def test_a_page_that_is_interrupted_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = GateResult((CheckResult("a", None, "critical", True, 0, "0 rows", "no rows"),))
    data_docs.write_page(tmp_path, evaluation=ONE, result=result, **OF)
    path = tmp_path / f"quality_checks/{ONE}.html"
    before = path.read_bytes()

    def torn(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", torn)
    with pytest.raises(DataDocsError, match="No space left on device"):
        data_docs.write_page(tmp_path, evaluation=ONE, result=result, **(OF | {"suite": "another"}))
    assert path.read_bytes() == before


def test_other_pages_escape_what_they_are_given() -> None:
    assert '<li><a href="quality/a&lt;b">a&lt;b</a></li>' in data_docs.list_page(["a<b"])
    assert "There are no pages yet" in data_docs.list_page([])
    assert "<h1>&lt;x&gt;</h1>" in data_docs.notice_page("<x>", "y")
