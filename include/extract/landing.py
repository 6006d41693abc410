"""Landing: a source's pages as they were received, in files, and the state of the fetch beside them.

The folder of one execution holds `page-000001.json.zst` and so on, each a body as it came under zstd with a checksum,
and `state.json`. Each is written whole or not at all.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, Self
from uuid import UUID

import zstandard
from pydantic import AwareDatetime, BaseModel, ValidationError

from include.extract.pagination import PageRequest

__all__ = ["Batch", "FetchState", "Folder", "Landing", "LandingError", "LoadedFile", "PageInfo", "batches"]

ZSTD_LEVEL = 1
MOST_BATCHES = 1000

_LOCAL_PROTOCOLS = {"", "file", "local"}


class LandingError(Exception):
    """A landing file is missing, torn, or of another execution."""


class Folder(Protocol):
    """What landing needs of a folder or file: `pathlib.Path`, `UPath` and Airflow's `ObjectStoragePath` have it."""

    def __truediv__(self, name: str, /) -> Self: ...
    def mkdir(self, *, parents: bool = False, exist_ok: bool = False) -> None: ...
    def read_bytes(self) -> bytes: ...
    def write_bytes(self, data: bytes, /) -> int: ...


class PageInfo(BaseModel):
    """A landed page: its number, from 1, and how many records it holds.

    `malformed` says of those that are no records, by their position in the page, from 0, what is wrong with them.
    """

    number: int
    records: int
    malformed: dict[int, str] = {}


class LoadedFile(BaseModel):
    """A file that was landed, or passed over: then nobody knows how many records it has.

    `checksum` tells its content from others; None where it was passed over unread.
    """

    uri: str
    size: int
    checksum: str | None
    modified_at: AwareDatetime
    records: int | None


class FetchState(BaseModel):
    """How far a fetch has come. Saved after each page; `next` is where it goes on.

    The requests are whole, so that a fetch can go on: where a source's links carry secrets, so does the landing folder.

    Attributes:
        entity: what is fetched.
        execution: the attempt that the folder belongs to.
        since: only what changed since then was asked for; None: everything.
        fetched_at: the source's clock when the fetch began.
        started_at: our own clock at the same moment.
        first: what asked for the first page.
        next: what asks for the next one; None after the last.
        first_until: the end of the first window, where the source is read by windows.
        until: the end of the window that is being read, or was read last; None where it is open.
        walk_begins: how many pages had landed when the walk that is under way began: a window's, a reading's.
        pages: all that have landed, in order.
        passes: how many pages had landed at the end of each reading, where a source is read more than once.
        files: those that the pages came from, and those that were passed over for them, where the source is files.
    """

    entity: str
    execution: UUID
    since: AwareDatetime | None = None
    fetched_at: AwareDatetime
    started_at: AwareDatetime
    first: PageRequest
    next: PageRequest | None = None
    first_until: AwareDatetime | None = None
    until: AwareDatetime | None = None
    walk_begins: int = 0
    pages: list[PageInfo] = []
    passes: list[int] = []
    files: list[LoadedFile] = []

    @property
    def complete(self) -> bool:
        """Whether the last page has landed."""
        return bool(self.pages) and self.next is None

    @property
    def records(self) -> int:
        """The number of records in all landed pages."""
        return sum(page.records for page in self.pages)

    @property
    def walked(self) -> int:
        """The number of records that the walk which is under way has brought."""
        return sum(page.records for page in self.pages[self.walk_begins :])

    @property
    def reading(self) -> int:
        """The number of records that the reading which is under way has brought."""
        return sum(page.records for page in self.pages[self.passes[-1] if self.passes else 0 :])


class Landing:
    """The landing folder of one execution."""

    def __init__(self, folder: Folder) -> None:
        """Land in `folder`, which is made when something is first written."""
        protocol = getattr(folder, "protocol", "file")
        self._local = protocol in _LOCAL_PROTOCOLS
        self.folder: Folder = Path(getattr(folder, "path", str(folder))) if self._local else folder
        self._made = False

    def write_page(self, number: int, body: bytes) -> None:
        """Write page `number`'s `body`, over any that is there."""
        self._write(_page_name(number), zstandard.ZstdCompressor(ZSTD_LEVEL, write_checksum=True).compress(body))

    def read_page(self, number: int) -> bytes:
        """The body of page `number` as it was received.

        Raises:
            LandingError: it is not there or damaged.
        """
        name = _page_name(number)
        try:
            return zstandard.ZstdDecompressor().decompress((self.folder / name).read_bytes())
        except FileNotFoundError:
            raise LandingError(f"{self.folder / name} is missing: clear extract to fetch anew") from None
        except zstandard.ZstdError as error:
            raise LandingError(f"{self.folder / name} is damaged ({error}): clear extract to fetch anew") from None

    def save_state(self, state: FetchState) -> None:
        """Write `state`, over any that is there."""
        self._write("state.json", state.model_dump_json().encode())

    def load_state(self) -> FetchState | None:
        """The saved state, or None where nothing has been fetched yet.

        Raises:
            LandingError: it is damaged.
        """
        path = self.folder / "state.json"
        try:
            return FetchState.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            what = "; ".join(problem["msg"] for problem in error.errors(include_input=False, include_url=False))
            raise LandingError(
                f"{path} is damaged ({what}): remove its folder and clear extract to fetch anew"
            ) from None

    def _write(self, name: str, data: bytes) -> None:
        """Write a file whole: an object store puts it at once, a file system needs a rename."""
        if not self._made:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._made = True
        target = self.folder / name
        if isinstance(target, Path):
            unfinished = target.with_name(f".{name}.unfinished")
            unfinished.write_bytes(data)
            unfinished.replace(target)
        else:
            target.write_bytes(data)


@dataclass(frozen=True)
class Batch:
    """Contiguous landed pages, `first_page` to `last_page` inclusive, and how many records they hold."""

    number: int
    first_page: int
    last_page: int
    records: int

    @property
    def pages(self) -> range:
        """The numbers of the pages."""
        return range(self.first_page, self.last_page + 1)

    def to_dict(self) -> dict[str, int]:
        """The batch as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, batch: dict[str, Any]) -> Self:
        """The reverse of `to_dict`."""
        return cls(**batch)


def batches(state: FetchState, rows: int = 100_000) -> list[Batch]:
    """All pages in order, in batches of about `rows` records; at least one batch, possibly empty, at most 1,000.

    A batch ends with the page that fills it. Above 1,000 batches `rows` grows.
    """
    rows = max(rows, -(-state.records // (MOST_BATCHES - 1)))
    return [
        Batch(number, pages[0].number if pages else 1, pages[-1].number if pages else 0, sum(p.records for p in pages))
        for number, pages in enumerate(_filled(state.pages, rows), start=1)
    ]


def _filled(pages: list[PageInfo], rows: int) -> Iterator[list[PageInfo]]:
    batch: list[PageInfo] = []
    records = 0
    remaining = sum(page.records for page in pages)
    for page in pages:
        batch.append(page)
        records += page.records
        remaining -= page.records
        if records >= rows and remaining:
            yield batch
            batch, records = [], 0
    yield batch


def _page_name(number: int) -> str:
    return f"page-{number:06d}.json.zst"
