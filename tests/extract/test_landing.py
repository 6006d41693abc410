from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
import zstandard
from airflow.sdk import ObjectStoragePath
from hypothesis import given
from hypothesis import strategies as st
from upath import UPath

from include.extract.landing import Batch, FetchState, Folder, Landing, LandingError, PageInfo, batches
from include.extract.pagination import PageRequest

EXECUTION = UUID("11111111-2222-4333-8444-555555555555")
NOON = datetime(2025, 3, 4, 12, 0, 0, 123456, tzinfo=UTC)


def state_of(*records: int, next_url: str | None = None) -> FetchState:
    return FetchState(
        entity="customers",
        execution=EXECUTION,
        since=NOON,
        fetched_at=NOON,
        started_at=NOON,
        first=PageRequest("http://api/customers"),
        next=None if next_url is None else PageRequest(next_url),
        pages=[PageInfo(number=number, records=count) for number, count in enumerate(records, start=1)],
    )


@pytest.fixture(params=["path", "upath", "memory", "airflow"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    where = tmp_path / "customers" / "one"
    folders: dict[str, Folder] = {
        "path": where,
        "upath": UPath(where.as_uri()),
        "memory": UPath(f"memory://landing{where}"),
        "airflow": ObjectStoragePath(where.as_uri()),
    }
    return folders[request.param]


def test_pages_and_state_come_back_as_written(folder: Folder) -> None:
    landing = Landing(folder)
    assert landing.load_state() is None
    landing.write_page(1, b"[1]")
    landing.write_page(2, b"")
    landing.write_page(1, b"[1, 2]" * 1000)
    landing.save_state(state_of(1))
    landing.save_state(state_of(1, 2, next_url="http://api/customers?after=2"))
    again = Landing(folder)
    assert (again.read_page(1), again.read_page(2)) == (b"[1, 2]" * 1000, b"")
    assert again.load_state() == state_of(1, 2, next_url="http://api/customers?after=2")


def test_local_files_leave_nothing_unfinished(tmp_path: Path) -> None:
    landing = Landing(ObjectStoragePath(tmp_path.as_uri()))
    landing.write_page(1, b"[1]")
    landing.save_state(state_of(1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page-000001.json.zst", "state.json"]
    assert zstandard.decompress((tmp_path / "page-000001.json.zst").read_bytes()) == b"[1]"


def test_a_file_is_whole_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    landing = Landing(tmp_path)
    landing.save_state(state_of(1))
    whole = Path.write_bytes

    def killed_half_way(path: Path, data: bytes) -> int:
        whole(path, data[: len(data) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", killed_half_way)  # stands for the kill between two system calls
    with pytest.raises(KeyboardInterrupt):
        landing.save_state(state_of(1, 2))
    assert Landing(tmp_path).load_state() == state_of(1)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[:-1], "page-000001.json.zst is damaged"),
        (lambda data: data[:30] + bytes([data[30] ^ 1]) + data[31:], "page-000001.json.zst is damaged"),
        (lambda data: b"", "page-000001.json.zst is damaged"),
        (lambda data: b"[1]", "page-000001.json.zst is damaged"),
        (None, "page-000001.json.zst is missing"),
    ],
)
def test_a_torn_page_is_an_error(tmp_path: Path, damage: object, said: str) -> None:
    landing = Landing(tmp_path)
    landing.write_page(1, bytes(range(256)))
    page = tmp_path / "page-000001.json.zst"
    if callable(damage):
        page.write_bytes(damage(page.read_bytes()))
    else:
        page.unlink()
    with pytest.raises(LandingError, match=said):
        landing.read_page(1)


@pytest.mark.parametrize("content", ["", "{", "{}", '{"entity": "customers"', '{"entity": "secret"}'])
def test_a_torn_state_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(LandingError, match=r"state\.json is damaged") as raised:
        Landing(tmp_path).load_state()
    assert "secret" not in str(raised.value)


def test_complete_is_without_a_next_page() -> None:
    assert [state_of().complete, state_of(1).complete, state_of(1, next_url="http://api/").complete] == [
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("records", "rows", "expected"),
    [
        ([], 10, [(1, 1, 0, 0)]),
        ([0], 10, [(1, 1, 1, 0)]),
        ([5, 5, 5], 10, [(1, 1, 2, 10), (2, 3, 3, 5)]),
        ([5, 5, 0, 0], 10, [(1, 1, 4, 10)]),
        ([25, 0, 1], 10, [(1, 1, 1, 25), (2, 2, 3, 1)]),
        ([6, 6, 6, 6], 10, [(1, 1, 2, 12), (2, 3, 4, 12)]),
    ],
)
def test_batches(records: list[int], rows: int, expected: list[tuple[int, int, int, int]]) -> None:
    assert batches(state_of(*records), rows) == [Batch(*batch) for batch in expected]


@given(st.lists(st.integers(0, 50), max_size=3000), st.integers(1, 100))
def test_batches_hold_every_page_once_and_are_never_too_many(records: list[int], rows: int) -> None:
    state = state_of(*records)
    found = batches(state, rows)
    assert [page for batch in found for page in batch.pages] == [page.number for page in state.pages]
    assert [batch.number for batch in found] == list(range(1, len(found) + 1))
    assert sum(batch.records for batch in found) == state.records
    assert 1 <= len(found) <= 1000


def test_a_batch_goes_through_json() -> None:
    assert Batch(2, 3, 5, 7).to_dict() == {"number": 2, "first_page": 3, "last_page": 5, "records": 7}
    assert Batch.from_dict(Batch(2, 3, 5, 7).to_dict()) == Batch(2, 3, 5, 7)
