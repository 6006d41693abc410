"""Files as a source: which of a folder's files are new, and their records into landing.

A file is known by its URI and by what tells its content: the object store's own checksum or ETag where it has one, else
a hash of its bytes. Where there is no ETag, a file with the size and modification time of one that was loaded is that
one, and is not read again to be sure.
"""

from __future__ import annotations

import glob
import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import IO, Any, Protocol, cast

from upath import UPath

from include.contracts.contract import Contract
from include.contracts.files import Files
from include.extract.client import SourceError
from include.extract.file_records import BadFileError, Malformed, text_records
from include.extract.landing import FetchState, Landing, LoadedFile, PageInfo
from include.extract.pagination import PageRequest
from include.operations.executions import Execution

__all__ = ["FilesError", "FilesSource", "NothingNewError", "StoredFolder"]

log = logging.getLogger(__name__)

PAGE_RECORDS = 5000
PAGE_CHARACTERS = 8_000_000
MOST_REASONS = 1000
"""So many malformed lines of an execution are explained one by one: more are a file that is something else."""
REPORT_SECONDS = 5.0
MODIFIED = ("mtime", "LastModified", "last_modified")
"""What file systems call the modification time in their listings; `fs.modified` would ask for each file."""
ETAGS = ("md5Hash", "ETag", "etag")
"""What object stores call a content's checksum in their listings; Google's etag changes with its metadata too."""


class FilesError(SourceError):
    """Files that cannot be listed or read. The message names the file and says what to do."""


class NothingNewError(Exception):
    """No file is there that has not been loaded; the message counts those that are."""


class StoredFolder(Protocol):
    """What listing needs of a folder: `UPath` and Airflow's `ObjectStoragePath` have it."""

    @property
    def fs(self) -> Any:
        """The fsspec file system, with its credentials."""
        ...

    @property
    def path(self) -> str:
        """The folder in it."""
        ...


@dataclass(frozen=True)
class _Found:
    """A file as the folder's listing shows it; `name` is relative to the folder, `path` the file system's own."""

    path: str
    name: str
    uri: str
    size: int
    modified_at: datetime
    etag: str


@dataclass(frozen=True)
class _Choice:
    """The files to read, in order, with their checksums; those that are passed over for them."""

    taken: list[tuple[_Found, str]]
    passed_over: list[_Found]


@dataclass(frozen=True)
class FilesSource:
    """The contract's files, those that were not loaded yet.

    Attributes:
        open_folder: opens a folder by its URI.
        loaded: gives of an entity the last state of each file that was loaded or passed over.
        now: our clock (aware).
    """

    open_folder: Callable[[str], StoredFolder | Path]
    loaded: Callable[[str], list[LoadedFile]]
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def fetch(
        self, contract: Contract, execution: Execution, landing: Landing, report: Callable[[str], None]
    ) -> tuple[FetchState, bool]:
        """Lands the records of all new files, or of the newest where each is a snapshot, in the order of their times.

        A landing that is complete is returned as it is; one that was cut off is begun anew. The state's `fetched_at` is
        the newest modification time among the files, by the store's clock, and never ahead of ours.

        Raises:
            NothingNewError: there is no new file.
            FilesError: there is no folder, or a file cannot be read, vanished or changed while it was read.
        """
        if contract.files is None:
            raise TypeError(f"{contract.name} has no files that could be read")
        state = landing.load_state()
        if state is not None and state.complete:
            return state, True
        started_at = self.now()
        folder = _Folder(self.open_folder(contract.files.uri), contract.files)
        choice = self._choose(contract, contract.files, folder, started_at)
        state = FetchState(
            entity=contract.name,
            execution=execution.execution,
            since=execution.since,
            fetched_at=min(started_at, max(found.modified_at for found, _ in choice.taken)),
            started_at=started_at,
            first=PageRequest(contract.files.uri),
            files=[_loaded(found, found.etag or None, None) for found in choice.passed_over],
        )
        for found in choice.passed_over:
            log.warning("%s: %s is passed over: a newer snapshot is there", contract.name, found.uri)
        _land(_records(contract, folder, choice, state, report), landing, state, report)
        return state, True

    def _choose(self, contract: Contract, files: Files, folder: _Folder, now: datetime) -> _Choice:
        known = {file.uri: file for file in self.loaded(contract.name)}
        found, unsettled = folder.listed(now)
        outdated: list[_Found] = []
        passed_over: list[_Found] = []
        if files.holds == "snapshot":
            newest = max((file.modified_at for file in known.values() if file.records is not None), default=None)
            outdated = [file for file in found if newest is not None and file.modified_at < newest]
            found = found[len(outdated) :]
        new: list[tuple[_Found, str]] = []
        for file in reversed(found):
            if files.holds == "snapshot" and new:
                passed_over.append(file)
            elif checksum := folder.new_checksum(file, known.get(file.uri)):
                new.append((file, checksum))
        if not new:
            waiting = f"without a {files.marker} file" if files.marker else f"not left alone for {files.settled} yet"
            loaded = len(found)
            raise NothingNewError(
                f"{contract.name}: nothing new in {files.uri}: of {loaded + len(outdated) + unsettled:,} files "
                f'"{files.pattern}" {loaded:,} are loaded, {len(outdated):,} are older than the last snapshot, '
                f"{unsettled:,} are {waiting}"
            )
        passed_over = [file for file in outdated + passed_over[::-1] if not _same_file(file, known.get(file.uri))]
        return _Choice(new[::-1], passed_over)


class _Folder:
    """The folder of a contract's files."""

    def __init__(self, folder: StoredFolder | Path, files: Files) -> None:
        self.files = files
        opened = cast("StoredFolder", UPath(folder)) if isinstance(folder, Path) else folder
        self._fs = opened.fs
        self._root = opened.path.rstrip("/")

    def listed(self, now: datetime) -> tuple[list[_Found], int]:
        """The files that are whole, oldest first, and how many are not, or not surely."""
        self._fs.invalidate_cache()
        if "file" in self._fs.protocol and not self._fs.isdir(self._root):
            raise FilesError(f"{self.files.uri} is no folder; make it, or check the contract's files", retryable=False)
        marker = self.files.marker
        there = self._glob(self.files.pattern)
        markers = {file.path: file for file in self._glob(self.files.pattern + marker)} if marker else {}
        files = [file for file in there if not marker or not file.name.endswith(marker)]
        settled = [file for file in files if self._is_whole(file, markers.get(file.path + marker), now)]
        return sorted(settled, key=attrgetter("modified_at", "uri")), len(files) - len(settled)

    def open(self, found: _Found) -> IO[bytes]:
        """Opens the file. Raises FilesError where it has vanished."""
        try:
            return cast("IO[bytes]", self._fs.open(found.path, "rb"))
        except FileNotFoundError:
            raise self._vanished(found) from None

    def new_checksum(self, found: _Found, known: LoadedFile | None) -> str | None:
        """What tells the file's content from others; None if it is the one that is known."""
        if _same_file(found, known):
            return None
        if found.etag:
            return found.etag
        with self.open(found) as file:
            checksum = f"blake2b:{hashlib.file_digest(cast('Any', file), _blake2b).hexdigest()}"
        return None if known is not None and checksum == known.checksum else checksum

    def check_unchanged(self, found: _Found) -> None:
        """Raises FilesError if the file is not as it was listed."""
        self._fs.invalidate_cache()
        try:
            now = self._found(self._fs.info(found.path))
        except FileNotFoundError:
            raise self._vanished(found) from None
        by_etag = bool(now.etag and found.etag)  # some stores' times are finer in a listing than in a file's own entry
        same = now.etag == found.etag if by_etag else now.modified_at == found.modified_at
        if not same or now.size != found.size:
            raise FilesError(
                f"{found.uri} changed while it was read: {found.size:,} bytes of {found.modified_at} became "
                f"{now.size:,} of {now.modified_at}; let its sender write a marker file or rename it when it is whole, "
                "or raise `settled` in the contract's files",
                retryable=True,
            )

    def _is_whole(self, file: _Found, marker: _Found | None, now: datetime) -> bool:
        if self.files.marker and marker is None:
            return False
        if marker is not None and marker.modified_at >= file.modified_at:
            return True
        return file.modified_at <= now - self.files.settled

    def _glob(self, pattern: str) -> list[_Found]:
        listing: Mapping[str, Any] = self._fs.glob(f"{glob.escape(self._root)}/{pattern}", detail=True)
        files = [self._found(info) for info in listing.values() if info["type"] == "file"]
        return [file for file in files if not file.path.rsplit("/", 1)[-1].startswith((".", "_"))]

    def _found(self, info: Mapping[str, Any]) -> _Found:
        path = info["name"]
        modified = next((info[name] for name in MODIFIED if name in info), None)
        return _Found(
            path=path,
            name=_printable(path.removeprefix(self._root).lstrip("/")),
            uri=_printable(self._fs.unstrip_protocol(path)),
            size=info["size"],
            modified_at=self._time(path, modified),
            etag=next((f"{name.lower()}:{str(info[name]).strip(chr(34))}" for name in ETAGS if info.get(name)), ""),
        )

    def _time(self, path: str, modified: Any) -> datetime:
        if isinstance(modified, float | int):
            return datetime.fromtimestamp(modified, UTC)
        at: datetime = modified if isinstance(modified, datetime) else self._fs.modified(path)
        return at if at.tzinfo else at.replace(tzinfo=UTC)

    def _vanished(self, found: _Found) -> FilesError:
        return FilesError(f"{found.uri} was listed, but is not there any more; ask who removed it", retryable=True)


def _records(
    contract: Contract, folder: _Folder, choice: _Choice, state: FetchState, report: Callable[[str], None]
) -> Iterator[str | Malformed]:
    """The records of the chosen files; notes in the state what each held."""
    keys = [{str(path[0]) for path in spec.paths} for spec in contract.fields if spec.name in contract.key]
    required = [names for names in keys if names]  # a computed one has none
    for number, (found, checksum) in enumerate(choice.taken, start=1):
        report(f"{contract.name}: reading {found.uri}, file {number:,} of {len(choice.taken):,}, {found.size:,} bytes")
        count = 0
        try:
            with folder.open(found) as source:
                for record in _read(source, found, folder.files, required, report):
                    count += 1
                    yield record
        except BadFileError as error:
            folder.check_unchanged(found)  # what is being written looks torn
            raise FilesError(f"{found.uri} cannot be loaded: {error}", retryable=False) from error
        except FileNotFoundError:
            folder.check_unchanged(found)
            raise
        folder.check_unchanged(found)
        state.files.append(_loaded(found, checksum, count))


def _read(
    source: IO[bytes], found: _Found, files: Files, required: list[set[str]], report: Callable[[str], None]
) -> Iterator[str | Malformed]:
    if files.format != "parquet":
        return text_records(source, found.name, files, required)
    from include.extract.parquet_records import parquet_records  # half a second that only these files are worth

    return parquet_records(source, required, lambda note: report(f"{found.uri}: {note}"))


def _land(
    records: Iterator[str | Malformed], landing: Landing, state: FetchState, report: Callable[[str], None]
) -> None:
    """Lands the records as pages, at least one; saves the state with the last."""
    began = reported = time.monotonic()
    page: list[str] = []
    characters = reasons = 0
    malformed: dict[int, str] = {}

    def flush() -> None:
        number = len(state.pages) + 1
        landing.write_page(number, b"[" + ",\n".join(page).encode() + b"]")
        state.pages.append(PageInfo(number=number, records=len(page), malformed=dict(malformed)))
        page.clear()
        malformed.clear()

    for record in records:
        if isinstance(record, Malformed):
            if reasons < MOST_REASONS:
                malformed[len(page)] = record.reason
            reasons += 1
            record = record.text
        page.append(record)
        characters += len(record)
        if len(page) == PAGE_RECORDS or characters >= PAGE_CHARACTERS:
            flush()
            characters = 0
            if time.monotonic() - reported >= REPORT_SECONDS:
                reported = time.monotonic()
                report(_progress(state, reported - began))
    if page or not state.pages:
        flush()
    landing.save_state(state)
    report(f"{_progress(state, time.monotonic() - began)}, complete")
    if reasons:
        log.warning("%s: %s lines are no records: they will be rejected", state.entity, f"{reasons:,}")


def _progress(state: FetchState, seconds: float) -> str:
    return (
        f"{state.entity}: {len(state.pages):,} pages, {state.records:,} records landed; "
        f"{state.records / max(seconds, 1e-3):,.0f} records a second for {seconds:,.1f} s"
    )


def _same_file(found: _Found, known: LoadedFile | None) -> bool:
    """Whether a file is the one that is known, as far as a listing can tell."""
    if known is None:
        return False
    if found.etag:
        return found.etag == known.checksum
    return (found.size, found.modified_at) == (known.size, known.modified_at)


def _loaded(found: _Found, checksum: str | None, records: int | None) -> LoadedFile:
    return LoadedFile(uri=found.uri, size=found.size, checksum=checksum, modified_at=found.modified_at, records=records)


def _blake2b() -> Any:
    return hashlib.blake2b(digest_size=32)


def _printable(name: str) -> str:
    """The name of a file as text that a database can hold: bytes that are not UTF-8 are spelt out."""
    return name.encode("utf-8", "backslashreplace").decode()
