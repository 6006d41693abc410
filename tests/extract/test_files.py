"""Files as a source: which are taken, what their records become, and what is said of those that cannot be read."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import math
import os
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID, uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from include.contracts.contract import Contract
from include.contracts.files import Files
from include.contracts.products import PRODUCTS
from include.extract import file_records, files
from include.extract.files import FilesError, FilesSource, NothingNewError
from include.extract.json_records import decode_body, iter_records
from include.extract.landing import FetchState, Landing, LoadedFile, PageInfo
from include.operations.executions import Execution

NOON = datetime(2025, 3, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
HEADER = "id,name,category,brand,sku,price,updated_at\n"


def contract(**declared: Any) -> Contract:
    shape: dict[str, Any] = {"uri": "file:///inbox", "format": "csv", "holds": "increment", **declared}
    return dataclasses.replace(PRODUCTS, endpoint=None, files=Files(**shape))


def execution() -> Execution:
    return Execution(
        execution=uuid4(),
        entity="products",
        mode="delta",
        pipeline="delta_sync",
        run_id="one",
        landing="",
        since=None,
        started_at=NOON,
        fetched_at=None,
        records_read=None,
        settled=True,
        until=None,
        allow_deletes=False,
        allow_quarantined=False,
        trust_source=False,
        reset_watermark=False,
    )


class Inbox:
    """A folder of files, and the fetches from it; what they bring counts as loaded unless they are told otherwise."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "inbox"
        self.folder.mkdir()
        self.landings = folder / "landing"
        self.known: dict[str, LoadedFile] = {}
        self.reports: list[str] = []

    def put(self, name: str, content: str | bytes, at: datetime = NOON - HOUR) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        os.utime(path, (at.timestamp(), at.timestamp()))
        return path

    def fetch(
        self, where: Contract | None = None, *, publish: bool = True, drawn: Execution | None = None
    ) -> tuple[FetchState, Landing]:
        drawn = drawn or execution()
        landing = Landing(self.landings / str(drawn.execution))
        source = FilesSource(lambda _: self.folder, lambda _: list(self.known.values()), now=lambda: NOON)
        state, settled = source.fetch(where or contract(), drawn, landing, self.reports.append)
        assert settled
        assert landing.load_state() == state
        if publish:
            self.known |= {file.uri: file for file in state.files}
        return state, landing

    def values(self, where: Contract | None = None) -> list[Any]:
        return values(*self.fetch(where))


def values(state: FetchState, landing: Landing) -> list[Any]:
    """All landed records; the pages hold as many as the state says."""
    pages = [[value for value, *_ in iter_records(decode_body(landing.read_page(p.number)))] for p in state.pages]
    assert [len(page) for page in pages] == [page.records for page in state.pages]
    return [value for page in pages for value in page]


def names(state: FetchState) -> list[tuple[str, int | None]]:
    return [(file.uri.rsplit("/", 1)[-1], file.records) for file in state.files]


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path)


def test_a_csv_gives_text_and_nulls(inbox: Inbox) -> None:
    path = inbox.put("a.csv", '\ufeffid, name ,price\r\n1,"Say ""hi"", 50%",9.50\r\n\r\n2,"two\r\nlines",\r\n')
    drawn = execution()
    state, landing = inbox.fetch(drawn=drawn)
    assert values(state, landing) == [
        {"id": "1", "name": 'Say "hi", 50%', "price": "9.50"},
        {"id": "2", "name": "two\r\nlines", "price": None},
    ]
    [loaded] = state.files
    assert state == FetchState(
        entity="products",
        execution=drawn.execution,
        fetched_at=NOON - HOUR,
        started_at=NOON,
        first=state.first,
        pages=[PageInfo(number=1, records=2)],
        files=[
            LoadedFile(
                uri=path.as_uri(),
                size=path.stat().st_size,
                checksum=loaded.checksum,
                modified_at=NOON - HOUR,
                records=2,
            )
        ],
    )


def test_delimiter_and_encoding_are_the_contracts(inbox: Inbox) -> None:
    inbox.put("a.csv", "id;name\n1;Gün\n".encode("cp1252"))
    assert inbox.values(contract(delimiter=";", encoding="cp1252")) == [{"id": "1", "name": "Gün"}]
    inbox.put("b.csv", "id,name\n2,Gün\n".encode("utf-16"))
    assert inbox.values(contract(encoding="utf-16")) == [{"id": "2", "name": "Gün"}]


def test_malformed_csv_lines_are_landed_as_their_text_with_a_reason(inbox: Inbox) -> None:
    inbox.put(
        "a.csv", b'id,name\n1,a\n2,b,c\n3,\xff\xe4\n4,"open\n5,b\n6,"x"y\n7,"two\nlines",more\n8\n9,\xc3\xa4\n10,"end\n'
    )
    state, landing = inbox.fetch()
    assert values(state, landing) == [
        {"id": "1", "name": "a"},
        "2,b,c",
        "3,\udcff\udce4",
        '4,"open',
        {"id": "5", "name": "b"},
        '6,"x"y',
        '7,"two\nlines",more',
        "8",
        {"id": "9", "name": "ä"},
        '10,"end',
    ]
    assert state.pages == [
        PageInfo(
            number=1,
            records=10,
            malformed={
                1: "a.csv, line 3: 3 fields, the header has 2",
                2: "a.csv, line 4: it has bytes that its encoding does not have",
                3: "a.csv, line 5: it cannot be read as csv: ',' expected after '\"'",
                5: "a.csv, line 7: it cannot be read as csv: ',' expected after '\"'",
                6: "a.csv, line 8: 3 fields, the header has 2",
                7: "a.csv, line 10: 1 fields, the header has 2",
                9: "a.csv, line 12: it cannot be read as csv: unexpected end of data",
            },
        )
    ]
    assert rb'"3,\udcff\udce4"' in landing.read_page(1)


def test_only_so_many_reasons_are_kept(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_REASONS", 2)
    inbox.put("a.csv", "id,name\n1\n2\n3\n")
    state, landing = inbox.fetch()
    assert values(state, landing) == ["1", "2", "3"]
    assert list(state.pages[0].malformed) == [0, 1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "a.csv cannot be loaded: it is empty, where a csv has at least a header line; have it sent again"),
        (b"id,,name\n", "column 2 has no name in its header: 'id', '', 'name'; check the file"),
        (b"id,name,id\n", "column 'id' stands in its header twice"),
        (
            b"id;name\n1;a\n",
            "it has no column 'id', which is of the key; its columns are 'id;name'; check the file, and",
        ),
        (b'"id"x,name\n', "its header cannot be read"),
        (b"id,n\xffme\n", r"its header has bytes that its encoding does not have: 'id', 'n\udcffme'"),
    ],
)
def test_a_header_that_cannot_be_used_fails_the_file(inbox: Inbox, content: bytes, said: str) -> None:
    inbox.put("a.csv", content)
    with pytest.raises(FilesError) as raised:
        inbox.fetch()
    assert said in str(raised.value)
    assert not raised.value.retryable
    assert inbox.known == {}


def test_jsonl_lines_are_landed_as_they_came(inbox: Inbox) -> None:
    lines = [
        '{"id":\r"0"}',
        '{"id": "1",  "price": 1.10}',
        "",
        '{"id": "2", "n": ' + "9" * 5000 + "}",
        ' {"id": "\\ud800"}\t',
        "[1]",
    ]
    inbox.put("a.jsonl", "\ufeff" + "\r\n".join(lines))
    state, landing = inbox.fetch(contract(format="jsonl"))
    assert landing.read_page(1).decode() == "[" + ",\n".join(line.strip() for line in lines if line) + "]"
    assert state.pages == [PageInfo(number=1, records=5)]


def test_malformed_jsonl_lines_are_landed_as_their_text_with_a_reason(inbox: Inbox) -> None:
    deep = '{"a": ' + "[" * 100_000
    content = ['{"id": 1}', '{"id": 2', '{"id": 3}, {"id": 4}', '{"id": [5', "6]}", deep]
    inbox.put("a.jsonl", "\n".join(content).encode() + b'\n{"id": "\xff"}\n')
    state, landing = inbox.fetch(contract(format="jsonl"))
    assert values(state, landing) == [{"id": 1}, *content[1:], '{"id": "\udcff"}']
    assert state.pages[0].malformed == {
        1: "a.jsonl, line 2: it is not JSON: Expecting ',' delimiter at character 9",
        2: "a.jsonl, line 3: it is not JSON: Extra data at character 10",
        3: "a.jsonl, line 4: it is not JSON: Expecting ',' delimiter at character 10",
        4: "a.jsonl, line 5: it is not JSON: Extra data at character 2",
        5: "a.jsonl, line 6: its JSON is nested too deeply",
        6: "a.jsonl, line 7: it has bytes that its encoding does not have",
    }


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_line_without_end_is_an_error_and_not_all_of_the_memory(
    inbox: Inbox, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_records, "LONGEST_LINE", 1_000_000)
    inbox.put("a.gz", gzip.compress(b"id,x\n" + b"a" * 100_000_000))
    with pytest.raises(FilesError, match="it has a line of more than 1,000,000 characters; it needs line breaks"):
        inbox.fetch(contract(format=form))


def test_parquet_values_are_exact(inbox: Inbox) -> None:
    nested = pa.struct([("at", pa.list_(pa.timestamp("ns"))), ("n", pa.int8())])
    table = pa.table(
        {
            "id": ["1", "2"],
            "price": pa.array([Decimal("12345678901234567890.1200"), None], pa.decimal128(38, 4)),
            "at": pa.array([1_741_089_600_123_456_789, None], pa.timestamp("ns", tz="Europe/Berlin")),
            "naive": pa.array([1_741_089_600_000, None], pa.timestamp("ms")),
            "far": pa.array([10**12, 0], pa.timestamp("s", tz="UTC")),
            "day": [date(2025, 3, 4), None],
            "clock": [time(1, 2, 3, 4), None],
            "tags": [["a", None], []],
            "nested": pa.array([{"at": [1_741_089_600_123_456_789], "n": 1}, None], nested),
            "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
            "raw": ["ä".encode(), b"\xff"],
            "real": [0.1, math.nan],
            "flag": [True, None],
            "kind": pa.array(["x", "x"]).dictionary_encode(),
            "percent %s": ["%", '"'],
        }
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    inbox.put("a.parquet", buffer.getvalue())
    first, second = inbox.values(contract(format="parquet"))
    assert first == {
        "id": "1",
        "price": Decimal("12345678901234567890.1200"),
        "at": "2025-03-04T12:00:00.123456+00:00",
        "naive": "2025-03-04T12:00:00+00:00",
        "far": "no timestamp[ms, tz=UTC] that can be read",
        "day": "2025-03-04",
        "clock": "01:02:03.000004",
        "tags": ["a", None],
        "nested": {"at": ["2025-03-04T12:00:00.123456+00:00"], "n": 1},
        "map": {"k": 1},
        "raw": "ä",
        "real": Decimal("0.1"),
        "flag": True,
        "kind": "x",
        "percent %s": "%",
    }
    assert str(first["price"]) == "12345678901234567890.1200"
    assert second.pop("real").is_nan()
    assert second == {
        **dict.fromkeys(["price", "at", "naive", "day", "clock", "nested", "map", "flag"]),
        "id": "2",
        "far": "1970-01-01T00:00:00+00:00",
        "tags": [],
        "raw": "\udcff",
        "kind": "x",
        "percent %s": '"',
    }
    [noted] = [line for line in inbox.reports if "UTC" in line]
    assert noted.endswith("a.parquet: the times in naive have no zone: taken as UTC")


def test_a_parquet_text_that_is_none_costs_its_value_only(inbox: Inbox) -> None:
    offsets = pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, 1, 2)))
    broken = pa.StringArray.from_buffers(2, offsets, pa.py_buffer(b"a\xff"))
    buffer = io.BytesIO()
    pq.write_table(pa.table({"id": broken}), buffer)
    inbox.put("a.parquet", buffer.getvalue())
    assert inbox.values(contract(format="parquet")) == [{"id": "a"}, {"id": "\udcff"}]


def parquet_of(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


TEXT = HEADER + "".join(f"p{n},Name,,,,1.10,2025-01-01\n" for n in range(5000))


@pytest.mark.parametrize(
    ("name", "form", "content"),
    [
        ("a.csv.gz", "csv", gzip.compress(TEXT.encode())[:-9]),
        ("a.csv.gz", "csv", TEXT.encode()),
        ("a.csv.gz", "csv", gzip.compress(TEXT.encode())[:-8] + bytes(8)),
        ("a.csv.zst", "csv", zstandard.compress(TEXT.encode())[:-9]),
        ("a.csv.zst", "csv", TEXT.encode()),
        ("a.parquet", "parquet", parquet_of([{"id": "1"}])[:-9]),
        ("a.parquet", "parquet", b""),
        ("a.parquet", "parquet", bytes(range(100))),
    ],
)
def test_a_torn_file_fails_and_says_so(inbox: Inbox, name: str, form: str, content: bytes) -> None:
    inbox.put(name, content)
    with pytest.raises(FilesError, match=rf"{name} cannot be loaded: it .*torn.*; have it sent again") as raised:
        inbox.fetch(contract(format=form))
    assert not raised.value.retryable


def test_packed_files_may_have_several_parts(inbox: Inbox) -> None:
    parts = [b"id,name\n1,a\n2", b",b\n", b"3,c\n"]
    inbox.put("a.csv.gz", b"".join(map(gzip.compress, parts)))
    inbox.put("b.csv.zst", b"".join(map(zstandard.compress, parts)))
    rows = [{"id": n, "name": name} for n, name in (("1", "a"), ("2", "b"), ("3", "c"))]
    assert inbox.values() == [*rows, *rows]


def test_files_come_in_the_order_of_their_times_and_each_once(inbox: Inbox) -> None:
    inbox.put("c.csv", "id\n1\n", NOON - 3 * HOUR)
    inbox.put("b.csv", "id\n3\n", NOON - HOUR)
    inbox.put("a.csv", "id\n2\n", NOON - HOUR)
    state, landing = inbox.fetch()
    assert [value["id"] for value in values(state, landing)] == ["1", "2", "3"]
    assert names(state) == [("c.csv", 1), ("a.csv", 1), ("b.csv", 1)]
    assert (state.fetched_at, state.pages) == (NOON - HOUR, [PageInfo(number=1, records=3)])
    with pytest.raises(NothingNewError) as raised:
        inbox.fetch()
    assert str(raised.value) == (
        'products: nothing new in file:///inbox: of 3 files "*" 3 are loaded, 0 are older than the last snapshot, '
        "0 are not left alone for 0:01:00 yet"
    )


def test_a_file_whose_content_changed_is_a_new_one_and_one_that_was_touched_is_not(inbox: Inbox) -> None:
    inbox.put("a.csv", "id\n1\n")
    inbox.fetch()
    inbox.put("a.csv", "id\n1\n", NOON - HOUR / 2)
    with pytest.raises(NothingNewError):
        inbox.fetch()
    inbox.put("a.csv", "id\n2\n", NOON - HOUR / 3)
    assert inbox.values() == [{"id": "2"}]
    inbox.put("a.csv", "id\n1\n", NOON - HOUR / 4)
    assert inbox.values() == [{"id": "1"}]


def test_what_was_not_published_comes_again(inbox: Inbox) -> None:
    inbox.put("a.csv", "id\n1\n", NOON - 2 * HOUR)
    assert names(inbox.fetch(publish=False)[0]) == [("a.csv", 1)]
    inbox.put("b.csv", "id\n2\n")
    assert names(inbox.fetch()[0]) == [("a.csv", 1), ("b.csv", 1)]


def test_a_file_is_taken_when_it_was_left_alone(inbox: Inbox) -> None:
    inbox.put("a.csv", "id\n1\n", NOON - timedelta(seconds=59))
    inbox.put("b.csv", "id\n2\n", NOON + HOUR)
    with pytest.raises(NothingNewError, match=r"of 2 files .* 2 are not left alone for 0:01:00 yet"):
        inbox.fetch()
    inbox.put("a.csv", "id\n1\n", NOON - timedelta(seconds=60))
    assert names(inbox.fetch()[0]) == [("a.csv", 1)]


def test_a_file_is_taken_when_its_marker_says_so(inbox: Inbox) -> None:
    marked = contract(marker=".done", pattern="*.csv")
    inbox.put("a.csv", "id\n1\n", NOON - HOUR)
    inbox.put("b.csv", "id\n2\n", NOON)
    with pytest.raises(NothingNewError, match=r"of 2 files .* 2 are without a \.done file"):
        inbox.fetch(marked)
    inbox.put("b.csv.done", "", NOON)
    assert names(inbox.fetch(marked)[0]) == [("b.csv", 1)]
    inbox.put("b.csv", "id\n3\n", NOON + HOUR)  # written again: the marker is of the earlier content
    with pytest.raises(NothingNewError):
        inbox.fetch(marked)
    inbox.put("b.csv.done", "", NOON + HOUR)
    state, _ = inbox.fetch(marked)
    assert (names(state), state.fetched_at) == ([("b.csv", 1)], NOON)
    inbox.put("a.csv.done", "", NOON - 2 * HOUR)  # sent side by side: the marker came first
    assert names(inbox.fetch(contract(marker=".done"))[0]) == [("a.csv", 1)]
    with pytest.raises(NothingNewError, match=r"of 2 files \S+ 2 are loaded, .* 0 are without"):
        inbox.fetch(contract(marker=".done"))


def test_only_files_that_are_meant_are_taken(inbox: Inbox) -> None:
    for name in (".a.csv.part", "_SUCCESS", "b.txt", "c.csv", "sub/d.csv"):
        inbox.put(name, "id\n1\n")
    assert names(inbox.fetch(contract(pattern="*.csv"))[0]) == [("c.csv", 1)]
    assert names(inbox.fetch(contract(pattern="**/*.csv"))[0]) == [("d.csv", 1)]
    assert names(inbox.fetch()[0]) == [("b.txt", 1)]


def test_of_snapshots_the_newest_is_read_and_older_ones_are_passed_over(
    inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    whole = contract(holds="snapshot")
    for day in (1, 2, 3):
        inbox.put(f"{day}.csv", f"id\n{day}\n", NOON - timedelta(days=10 - day))
    state, landing = inbox.fetch(whole)
    assert values(state, landing) == [{"id": "3"}]
    assert names(state) == [("1.csv", None), ("2.csv", None), ("3.csv", 1)]
    assert state.fetched_at == NOON - timedelta(days=7)
    assert [record.getMessage().rsplit("/", 1)[1] for record in caplog.records if record.name == files.__name__] == [
        f"{day}.csv is passed over: a newer snapshot is there" for day in (1, 2)
    ]
    inbox.put("late.csv", "id\n0\n", NOON - timedelta(days=8))
    with pytest.raises(
        NothingNewError, match=r"of 4 files \S+ 1 are loaded, 3 are older than the last snapshot, 0 are not"
    ):
        inbox.fetch(whole)
    inbox.put("3.csv", "id\n4\n", NOON - timedelta(days=1))
    state, landing = inbox.fetch(whole)
    assert (names(state), values(state, landing)) == ([("late.csv", None), ("3.csv", 1)], [{"id": "4"}])


def test_an_empty_snapshot_lands_an_empty_page(inbox: Inbox) -> None:
    inbox.put("a.csv", HEADER)
    state, landing = inbox.fetch(contract(holds="snapshot"))
    assert (state.complete, state.pages, landing.read_page(1)) == (True, [PageInfo(number=1, records=0)], b"[]")


def test_records_go_over_several_pages(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PAGE_CHARACTERS", 50_000)
    inbox.put("a.csv", "id\n" + "".join(f"{n:020}\n" for n in range(3000)) + "x,\n", NOON - 2 * HOUR)
    inbox.put("b.csv", "id\n" + "z" * 60_000 + "\nlast\n")
    state, landing = inbox.fetch()
    assert [page.records for page in state.pages] == [1667, 1335, 1]
    told = {1333: "a.csv, line 3,002: 2 fields, the header has 1"}
    assert [page.malformed for page in state.pages] == [{}, told, {}]
    monkeypatch.undo()
    assert [value["id"] for value in values(state, landing)[-2:]] == ["z" * 60_000, "last"]
    inbox.put("c.csv", "id\n" + "1\n" * 5001)
    assert [page.records for page in inbox.fetch()[0].pages] == [5000, 1]


def test_a_landing_that_is_complete_is_kept_and_one_that_was_cut_off_begun_anew(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PAGE_RECORDS", 2)
    inbox.put("a.csv", "id\n" + "".join(f"{n}\n" for n in range(7)))
    drawn = execution()
    written = Landing.write_page

    def killed(landing: Landing, number: int, body: bytes) -> None:
        if number == 3:
            raise KeyboardInterrupt
        written(landing, number, body)

    monkeypatch.setattr(Landing, "write_page", killed)  # stands for the kill between two pages
    with pytest.raises(KeyboardInterrupt):
        inbox.fetch(drawn=drawn)
    monkeypatch.setattr(Landing, "write_page", written)
    inbox.put("b.csv", "id\n7\n")
    state, landing = inbox.fetch(drawn=drawn, publish=False)
    assert [value["id"] for value in values(state, landing)] == list("01234567")
    inbox.put("c.csv", "id\n8\n")
    assert inbox.fetch(drawn=drawn)[0] == state


@pytest.mark.parametrize("change", ["removed", "size", "time"])
def test_a_file_that_vanishes_or_changes_meanwhile_fails_for_now(inbox: Inbox, change: str) -> None:
    text = "id\n" + "1\n" * 10_000
    path = inbox.put("a.csv", text)

    def meddle(line: str) -> None:
        if "reading" not in line:
            return
        if change == "removed":
            path.unlink()
        elif change == "size":
            inbox.put("a.csv", text + "2\n")
        else:
            inbox.put("a.csv", text.replace("1", "2"), NOON)

    source = FilesSource(lambda _: inbox.folder, lambda _: [], now=lambda: NOON)
    landing = Landing(inbox.landings)
    said = "was listed, but is not there" if change == "removed" else "changed while it was read"
    with pytest.raises(FilesError, match=said) as raised:
        source.fetch(contract(), execution(), landing, meddle)
    assert raised.value.retryable
    assert landing.load_state() is None


def test_what_looks_torn_while_it_is_written_fails_for_now(inbox: Inbox) -> None:
    packed = gzip.compress(TEXT.encode())
    path = inbox.put("a.csv.gz", packed[:-20])
    source = FilesSource(lambda _: inbox.folder, lambda _: [], now=lambda: NOON)
    with pytest.raises(FilesError, match="changed while") as raised:
        source.fetch(contract(), execution(), Landing(inbox.landings), lambda _: bool(path.write_bytes(packed[:-10])))
    assert raised.value.retryable


def test_a_folder_that_is_not_there_is_an_error(inbox: Inbox) -> None:
    inbox.folder.rmdir()
    with pytest.raises(FilesError, match="file:///inbox is no folder; make it"):
        inbox.fetch()


class Bucket(MemoryFileSystem):
    """fsspec's store in memory, with what S3 adds to a listing."""

    protocol = "memory"
    cachable = False

    def info(self, path: str, **options: Any) -> Any:
        return self._tagged(super().info(path, **options))

    def find(self, path: str, detail: bool = False, **options: Any) -> Any:
        found = super().find(path, detail=True, **options)
        return {name: self._tagged(info) for name, info in found.items()} if detail else list(found)

    def _tagged(self, info: Any) -> Any:
        return info | ({"ETag": f'"tag-{hash(self.cat_file(info["name"]))}"'} if info["type"] == "file" else {})


@dataclasses.dataclass
class BucketFolder:
    fs: Any
    path: str


@pytest.mark.parametrize("tagged", [True, False])
def test_an_object_store_is_read_as_a_folder_is(tmp_path: Path, tagged: bool) -> None:
    name = f"memory://bucket-{uuid4()}/in[1]"
    memory = UPath(name)
    folder = BucketFolder(Bucket(), memory.path) if tagged else memory
    known: list[LoadedFile] = []
    source = FilesSource(lambda _: folder, lambda _: known)
    where = contract(uri=name, settled=timedelta(0))

    def fetch() -> tuple[FetchState, Landing]:
        landing = Landing(tmp_path / str(uuid4()))
        return source.fetch(where, execution(), landing, print)[0], landing

    with pytest.raises(NothingNewError, match=r"of 0 files"):
        fetch()
    (memory / "a.csv").write_bytes(b"id\n1\n")
    (memory / "a.csv").write_bytes(b"id\n1\n")
    state, landing = fetch()
    assert values(state, landing) == [{"id": "1"}]
    [loaded] = known = state.files
    assert (loaded.uri, loaded.size, loaded.records) == (f"memory://{memory.path}/a.csv", 5, 1)
    assert loaded.checksum is not None
    assert loaded.checksum.startswith("etag:tag-" if tagged else "blake2b:")
    (memory / "a.csv").write_bytes(b"id\n1\n")
    with pytest.raises(NothingNewError, match=r"1 are loaded"):
        fetch()
    (memory / "a.csv").write_bytes(b"id\n2\n")
    state, landing = fetch()
    assert values(state, landing) == [{"id": "2"}]


PACKED: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}
RECORDS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
            "na%me": st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
        }
    ),
    max_size=30,
)


def csv_of(rows: list[dict[str, Any]]) -> bytes:
    def quoted(value: str | None) -> str:
        return "" if value is None else '"' + value.replace('"', '""') + '"'

    return "".join(
        ",".join(map(quoted, row)) + "\n" for row in [["id", "na%me"], *([row["id"], row["na%me"]] for row in rows)]
    ).encode()


def jsonl_of(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


def parquet_rows(rows: list[dict[str, Any]]) -> bytes:
    schema = pa.schema([("id", pa.string()), ("na%me", pa.string())])
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema), buffer)
    return buffer.getvalue()


@settings(max_examples=60, deadline=None)
@given(
    batches=st.lists(RECORDS, min_size=1, max_size=3),
    form=st.sampled_from(["csv", "jsonl", "parquet"]),
    packing=st.sampled_from(sorted(PACKED)),
    block=st.integers(1, 40),
    page=st.integers(1, 7),
)
def test_records_arrive_equal_and_in_order_whatever_the_form(
    batches: list[list[dict[str, Any]]], form: str, packing: str, block: int, page: int
) -> None:
    writes = {"csv": csv_of, "jsonl": jsonl_of, "parquet": parquet_rows}[form]
    packing = "" if form == "parquet" else packing
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as small:
        small.setattr(file_records, "BLOCK", block)
        small.setattr(file_records, "ZSTD_BLOCK", block)
        small.setattr(files, "PAGE_RECORDS", page)
        inbox = Inbox(Path(folder))
        for number, rows in enumerate(batches):
            inbox.put(
                f"{number}.{form}{packing}", PACKED[packing](writes(rows)), NOON - HOUR + timedelta(seconds=number)
            )
        state, landing = inbox.fetch(contract(format=form))
        assert values(state, landing) == [row for rows in batches for row in rows]
        assert [records for _, records in names(state)] == [len(rows) for rows in batches]
        with pytest.raises(NothingNewError):
            inbox.fetch(contract(format=form))


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"format": "xml"}, "format 'xml' is none of csv, jsonl, parquet"),
        ({"holds": "all"}, "holds 'all' is none of snapshot, increment"),
        ({"delimiter": "||"}, "the delimiter must be one character"),
        ({"encoding": "utf-9"}, "Python knows no encoding 'utf-9'"),
    ],
)
def test_a_declaration_that_cannot_work_is_refused(declared: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        contract(**declared)


def test_the_execution_is_the_states(inbox: Inbox) -> None:
    inbox.put("a.csv", "id\n1\n")
    drawn = dataclasses.replace(execution(), execution=UUID(int=7), since=NOON)
    state, _ = inbox.fetch(drawn=drawn)
    assert (state.execution, state.since) == (UUID(int=7), NOON)
