"""What counts as loaded: only what publish has committed, and of each file its last state."""

from __future__ import annotations

import dataclasses
import os
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from include.database.metadata import app_metadata
from include.extract.files import FilesSource, NothingNewError
from include.extract.json_records import iter_records
from include.extract.landing import Landing, LoadedFile
from include.operations import loaded_files
from tests.extract.test_files import contract, execution

pytestmark = pytest.mark.database

Database = psycopg.Connection[Any]
NOON = datetime(2025, 3, 4, 12, 0, 0, 123456, tzinfo=UTC)
PUBLISH = """
update operations.loaded_files
   set status = case when records is null then 'passed over' else 'loaded' end,
       loaded_at = clock_timestamp()
 where execution = %s and status = 'pending'
"""


def file(name: str, content: int = 0, records: int | None = 5) -> LoadedFile:
    checksum = None if records is None else f"blake2b:{content}"
    return LoadedFile(uri=f"s3://b/{name}", size=2**40, checksum=checksum, modified_at=NOON, records=records)


@pytest.fixture
def database(app_db: Database) -> Database:
    table = app_metadata().tables["operations.loaded_files"]
    app_db.execute(str(CreateTable(table, if_not_exists=True).compile(dialect=postgresql.dialect())).encode())  # type: ignore[no-untyped-call]
    return app_db


def rows(database: Database, columns: str) -> list[Any]:
    return database.execute(f"select {columns} from operations.loaded_files order by id").fetchall()  # type: ignore[arg-type]


def test_what_is_noted_counts_when_it_is_published(database: Database) -> None:
    first, second = uuid4(), uuid4()
    for _ in range(2):
        loaded_files.note(database, first, "invoices", [file("a"), file("b", records=None)])
    loaded_files.note(database, second, "invoices", [file("a")])
    loaded_files.note(database, second, "others", [])
    pending = ("pending", None)
    assert rows(database, "execution, uri, status, loaded_at") == [
        (first, "s3://b/a", *pending),
        (first, "s3://b/b", *pending),
        (second, "s3://b/a", *pending),
    ]
    assert loaded_files.of_entity(database, "invoices") == []
    database.execute(PUBLISH, (first,))
    assert rows(database, "status, loaded_at is null") == [("loaded", False), ("passed over", False), ("pending", True)]
    assert loaded_files.of_entity(database, "invoices") == [file("a"), file("b", records=None)]
    assert loaded_files.of_entity(database, "others") == []


def test_of_each_file_what_was_published_last_counts(database: Database) -> None:
    drawn = [uuid4() for _ in range(4)]
    for content, each in enumerate(drawn):
        loaded_files.note(database, each, "invoices", [file("a", content)])
    for content in (0, 2, 1):
        database.execute(PUBLISH, (drawn[content],))
    assert loaded_files.of_entity(database, "invoices") == [file("a", 1)]


class Runs:
    """A folder, and runs that load what is new in it; one that fails its gate publishes nothing."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.folder = folder / str(uuid4())
        self.folder.mkdir()
        self.landings = folder
        self.entity = contract()
        self.published: list[str] = []
        self.written: dict[str, list[str]] = {}

    def write(self, name: str, number: int) -> None:
        records = [f"{name}-{number}-{line}" for line in range(number % 4)]
        path = self.folder / name
        path.write_text("\n".join(["id", *records]) + "\n")
        at = (NOON + timedelta(seconds=number)).timestamp()
        os.utime(path, (at, at))
        self.written[name] = records

    def run(self, passes: bool) -> None:
        drawn = dataclasses.replace(execution(), execution=uuid4())
        landing = Landing(self.landings / str(drawn.execution))
        source = FilesSource(
            lambda _: self.folder, partial(loaded_files.of_entity, self.database), now=lambda: NOON + timedelta(days=1)
        )
        try:
            state, _ = source.fetch(self.entity, drawn, landing, str)
        except NothingNewError:
            return
        loaded_files.note(self.database, drawn.execution, self.entity.name, state.files)
        if passes:
            self.database.execute(PUBLISH, (drawn.execution,))
            for page in state.pages:
                body = landing.read_page(page.number).decode()
                self.published += [value["id"] for value, *_ in iter_records(body)]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.sampled_from(["a.csv", "b.csv", "c.csv", "passes", "fails"]), max_size=15))
def test_each_file_is_published_once_whatever_runs_fail(database: Database, tmp_path: Path, steps: list[str]) -> None:
    database.execute("delete from operations.loaded_files")
    runs = Runs(database, tmp_path)
    expected: list[str] = []
    waiting: dict[str, list[str]] = {}
    for number, step in enumerate(steps, start=1):
        if step.endswith(".csv"):
            runs.write(step, number)
            waiting.pop(step, None)
            waiting[step] = runs.written[step]
        else:
            runs.run(step == "passes")
            if step == "passes":
                expected += [record for records in waiting.values() for record in records]
                waiting = {}
    assert runs.published == expected


def test_an_execution_notes_a_file_once(database: Database) -> None:
    drawn = UUID(int=1)
    loaded_files.note(database, drawn, "invoices", [file("a")])
    with pytest.raises(psycopg.errors.UniqueViolation):
        database.execute(
            "insert into operations.loaded_files (entity, uri, size, modified_at, execution) "
            "values ('invoices', 's3://b/a', 1, now(), %s)",
            (drawn,),
        )


def test_a_status_goes_with_its_time(database: Database) -> None:
    loaded_files.note(database, UUID(int=1), "invoices", [file("a")])
    with pytest.raises(psycopg.errors.CheckViolation):
        database.execute("update operations.loaded_files set status = 'loaded'")
