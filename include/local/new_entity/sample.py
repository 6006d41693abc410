"""A sample of a source: up to 1,000 records, and what the answers say of its pages.

What cannot be seen in an answer (which parameter says how large a page is, which one turns it) is tried out, with a few
small requests.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import parse_qsl, urlencode, urlsplit

import requests
from pydantic import BaseModel, ConfigDict, ValidationError

from include.contracts.endpoint import Cursor, Endpoint, LinkHeader, NextUrl, Offset, PageNumber, SinglePage
from include.contracts.files import Files
from include.extract.authentication import authentication
from include.extract.client import Answer, SourceClient, SourceError
from include.extract.file_records import BadFileError, Malformed, text_records
from include.extract.json_records import MalformedBody, NotAnArray, iter_records
from include.extract.pagination import Page, PageRequest, Pagination, PagingError
from include.masking import mask_url

__all__ = [
    "MOST_RECORDS",
    "EndpointGuess",
    "FilesGuess",
    "Reached",
    "SampleError",
    "file_page",
    "first_pages",
    "open_source",
    "read_file",
    "read_url",
]

MOST_RECORDS = 1000
MOST_PAGES = 5
MOST_DEPTH = 3
PAGE_SIZES = (1000, 100)

SIZE_NAMES = (
    "limit",
    "per_page",
    "page_size",
    "pageSize",
    "_limit",
    "_per_page",
    "perPage",
    "size",
    "max_results",
    "first",
)
OFFSET_NAMES = ("offset", "skip", "_start", "start", "startIndex")
PAGE_NAMES = ("page", "_page", "page_number", "pageNumber", "pageno", "p")
CURSOR_NAMES = (
    "cursor",
    "starting_after",
    "after",
    "page_token",
    "pageToken",
    "next_token",
    "nextToken",
    "continuation",
)
NEXT_NAMES = (
    "next",
    "next_url",
    "nextUrl",
    "next_link",
    "nextLink",
    "next_page_url",
    "nextPageUrl",
    "next_page",
    "href",
)
TOTAL_NAMES = (
    "count",
    "total",
    "total_count",
    "totalCount",
    "total_items",
    "totalItems",
    "total_results",
    "totalRecords",
)
TOTAL_HEADERS = ("X-Total-Count", "X-Total", "Total-Count", "X-WP-Total")
SHIFTING = ", by a count: pages shift while records vanish, so a record is only deleted when two snapshots lack it"
LAST_PAGE_NAMES = ("pages", "total_pages", "totalPages", "last_page", "lastPage", "page_count", "pageCount")
RECORDS_NAMES = ("results", "data", "items", "records", "entries", "rows", "values", "objects", "list")

CURSOR_FIELD = re.compile(r"(next|end|continuation)?_?(cursor|page_token|token|marker|continuation)", re.IGNORECASE)
MORE_NAMES = ("has_more", "hasMore", "has_next", "hasNext", "has_next_page", "hasNextPage", "more")
NO_HEADERS = {"auth", "timeout", "verify", "cert", "proxies", "stream", "allow_redirects", "max_redirects", "trust_env"}
NO_HEADERS |= {"check_response"}

FORMATS: dict[str, Literal["csv", "jsonl", "parquet"]] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
PACKED = (".gz", ".zst")
ENCODINGS = ("utf-8", "cp1252")
DELIMITERS = (",", ";", "\t", "|")


class SampleError(Exception):
    """There is no sample to be had; says why and what to do."""


@dataclass(frozen=True)
class EndpointGuess:
    """A source's endpoint as it showed itself; `pagination_text` is the style's declaration in Python."""

    endpoint: Endpoint
    pagination_text: str
    notes: tuple[str, ...]
    base_url: str


@dataclass(frozen=True)
class FilesGuess:
    """The files that one file is taken to be an example of."""

    files: Files
    notes: tuple[str, ...]


class _Connection(BaseModel):
    """A connection in Airflow's JSON form."""

    model_config = ConfigDict(extra="ignore")

    conn_type: str = "http"
    host: str = ""
    schema_: str | None = None
    port: int | None = None
    login: str | None = None
    password: str | None = None
    extra: dict[str, Any] | str | None = None


@dataclass(frozen=True)
class Reached:
    """What a URL is asked with: a client of its source, whose `base_url` is the connection's, and the path below it."""

    client: SourceClient
    path: str
    variable: str
    logged_in: bool


def open_source(
    name: str, url: str, connection: str, session: requests.Session, environ: Mapping[str, str] = os.environ
) -> Reached:
    """A client for `url` with the credentials of AIRFLOW_CONN_<CONNECTION>, if that is set and names the same place.

    Raises SampleError: no such URL, or a connection that cannot be used; without quoting a secret.
    """
    parts = urlsplit(url)
    variable = f"AIRFLOW_CONN_{connection.upper()}"
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        raise SampleError(f"{mask_url(url)} is no URL to read from: say http://host/path, credentials in {variable}")
    origin = f"{parts.scheme}://{parts.netloc}"
    base, logged_in = origin, False
    if environ.get(variable):
        declared = _declared(variable, environ[variable])
        known = _base_url(declared)
        if url == known or url.startswith((f"{known}/", f"{known}?")):
            base, logged_in = known, True
            _log_in(session, variable, declared)
        elif connection != "source_api":
            raise SampleError(
                f"{mask_url(url)} is not below {mask_url(known)}, where {variable} leads: correct one of them"
            )
    try:
        client = SourceClient(session, base, name, connection=connection, attempts=2, total_seconds=30)
    except SourceError as error:
        raise SampleError(str(error)) from None
    return Reached(client, url.removeprefix(base) or "/", variable, logged_in)


def _declared(variable: str, text: str) -> _Connection:
    try:
        values = json.loads(text)
        return _Connection.model_validate({**values, "schema_": values.get("schema")})
    except (ValueError, TypeError):
        raise SampleError(
            f"{variable} is not in Airflow's JSON form, which is the one that is read here: "
            '{"conn_type": "http", "host": "https://api.example.com", "password": "<token>"}'
        ) from None


def _base_url(declared: _Connection) -> str:
    """The URL that Airflow's HTTP hook makes of a connection."""
    host = declared.host.rstrip("/")
    base = host if "://" in host else f"{declared.schema_ or 'http'}://{host}"
    return f"{base}:{declared.port}" if declared.port else base


def _log_in(session: requests.Session, variable: str, declared: _Connection) -> None:
    try:
        extra = json.loads(declared.extra) if isinstance(declared.extra, str) else declared.extra
        session.headers.update({k: str(v) for k, v in (extra or {}).items() if k not in NO_HEADERS})
        session.auth = authentication(declared.login, declared.password, (extra or {}).get("auth"), session)
    except (ValueError, AttributeError, ValidationError) as error:
        raise SampleError(f"{variable}: its extra cannot be used ({error})") from None


# ---- HTTP


def first_pages(client: SourceClient, endpoint: Endpoint, report: Callable[[str], None]) -> Iterator[Page]:
    """The first pages, some 1,000 records of at most five, as a contract's fetch asks for them.

    Raises SourceError, and PagingError, MalformedBody or NotAnArray where the answer is not what the endpoint says.
    """
    request: PageRequest | None = endpoint.first(client.base_url)
    records = 0
    for number in range(1, MOST_PAGES + 1):
        assert request is not None  # noqa: S101 - the loop ends where there is none
        answer = client.ask(request, may_be_missing=endpoint.pagination.missing_ends and number > 1)
        if answer is None:
            return
        asked = endpoint.page_size if endpoint.page_size_param else None
        page = Page(request, answer.url, answer.headers, answer.body, endpoint.records, records, asked)
        report(f"asked {mask_url(request.url)}: {page.records:,} records")
        yield page
        records += page.records
        request = endpoint.pagination.next(page)
        if request is None or records >= MOST_RECORDS:
            return


def read_url(reached: Reached, name: str, report: Callable[[str], None]) -> tuple[list[Any], EndpointGuess]:
    """Up to 1,000 records of a source, and how to ask it. Raises SampleError."""
    try:
        return _Explorer(reached, name, report).sample()
    except SourceError as error:
        reason = str(error)
        if not reached.logged_in and (" answered 401" in reason or " answered 403" in reason):
            reason += f". Credentials are read from {reached.variable}"
        raise SampleError(reason) from None
    except (MalformedBody, NotAnArray, PagingError) as error:
        raise SampleError(
            f"{name}: {mask_url(reached.client.base_url + reached.path)} gave no records: {error}"
        ) from None


class _Explorer:
    """Finds out how one URL is read."""

    def __init__(self, reached: Reached, name: str, report: Callable[[str], None]) -> None:
        self._client = reached.client
        self._name = name
        self._report = report
        parts = urlsplit(reached.path)
        turning = {*SIZE_NAMES, *OFFSET_NAMES, *PAGE_NAMES, *CURSOR_NAMES}
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        self._given = {name: value for name, value in pairs if name in turning}
        self._path = parts._replace(query=urlencode([p for p in pairs if p[0] not in turning], safe=":,/")).geturl()
        self._url = self._client.base_url.rstrip("/") + "/" + self._path.lstrip("/")
        self._records_path = ""

    def sample(self) -> tuple[list[Any], EndpointGuess]:
        first = self._ask(self._given)
        notes = self._find_records(first)
        self._report_records(first)
        if not first.records:
            raise SampleError(f"{self._name}: {mask_url(self._url)} has no records, so there is nothing to learn from")
        size_name, small = self._page_size_name(first)
        pagination, note = self._pagination(first, small, size_name)
        size = self._page_size(size_name, pagination)
        endpoint = Endpoint(
            self._path, pagination, records=self._records_path, page_size=size, page_size_param=size_name
        )
        pages = self._walk(endpoint)
        if pages is None:
            endpoint = replace(endpoint, pagination=replace(cast("NextUrl", pagination), absent_ends=True))
            pages = self._walk(endpoint) or []
        records = [value for page in pages for value, _, _ in iter_records(page.text, self._records_path)]
        guessed = EndpointGuess(endpoint, _declared_as(endpoint.pagination), (*notes, note), self._client.base_url)
        return records[:MOST_RECORDS], guessed

    def _walk(self, endpoint: Endpoint) -> list[Page] | None:
        """The sample's pages; None where the last one lacks what a NextUrl or Cursor goes by."""
        try:
            return list(first_pages(self._client, endpoint, self._report))
        except PagingError:
            if getattr(endpoint.pagination, "absent_ends", True):
                raise
            return None

    def _ask(self, parameters: Mapping[str, Any]) -> Page:
        request = PageRequest(self._url).having(**parameters)
        answer = cast("Answer", self._client.ask(request))
        return Page(request, answer.url, answer.headers, answer.body, self._records_path)

    def _try(self, parameters: Mapping[str, Any]) -> Page | None:
        """The answer to what the source may not understand; None where it has no records in the same place."""
        try:
            page = self._ask(parameters)
            self._report_records(page)
        except (SourceError, MalformedBody, NotAnArray):
            self._report(f"asked {mask_url(PageRequest(self._url).having(**parameters).url)}: no such records")
            return None
        return page

    def _report_records(self, page: Page) -> None:
        self._report(f"asked {mask_url(page.request.url)}: {page.records:,} records")

    def _find_records(self, page: Page) -> tuple[str, ...]:
        """Sets the path of the records; gives what is to be confirmed of it."""
        document = _document(page.text)
        if isinstance(document, list):
            return ()
        found = [(path, value) for path, value in _places(document) if isinstance(value, list)]
        found = [(path, value) for path, value in found if not value or isinstance(value[0], dict)]
        if not found:
            list(iter_records(page.text))  # says what is there instead
        names = (self._name, *RECORDS_NAMES)
        found.sort(key=lambda place: (_rank(place[0], names), -len(place[1])))
        self._records_path = page.records_path = found[0][0]
        others = ", ".join(f'"{path}"' for path, _ in found[1:])
        return (f'the records are those at "{found[0][0]}", not at {others}',) if others else ()

    def _page_size_name(self, first: Page) -> tuple[str, Page]:
        """The parameter for the size of a page, "" if none works, and a page that is not the last if one can be had."""
        fewer = max(1, min(first.records // 2, 5))
        told = [name for name in SIZE_NAMES if name in self._given or name in _linked(first)]
        for name in told or (SIZE_NAMES if first.records > 1 else ()):
            page = self._try({**self._given, name: fewer})
            if page is not None and page.records == fewer:
                return name, page
        return told[0] if told else "", first

    def _page_size(self, name: str, pagination: Pagination) -> int:
        if not name:
            return PAGE_SIZES[-1]
        if self._given.get(name, "").isdecimal():
            return max(1, int(self._given[name]))
        for size in PAGE_SIZES:
            page = self._try(dict(parse_qsl(urlsplit(pagination.first(PageRequest("?")).url).query)) | {name: size})
            if page is not None and page.records:
                return page.records if page.records < size and _has_next(pagination, page) else size
        return PAGE_SIZES[-1]

    def _pagination(self, first: Page, small: Page, size_name: str) -> tuple[Pagination, str]:
        """The style of the source's pages, and what is to be confirmed of it."""
        for page in (small, first):
            following = LinkHeader().next(page)
            if following is not None:
                shifts = _counts(following.url)
                note = 'every answer but the last has a Link header with rel="next"'
                return LinkHeader(stable=not shifts), note + (SHIFTING if shifts else "")
            body = _document(page.text)
            places = list(_places(body)) if isinstance(body, dict) else []
            for path, value in places:
                if _last(path) in NEXT_NAMES and _is_url(value):
                    shifts = _counts(value)
                    note = f'"{path}" in the body is the next page\'s URL'
                    return NextUrl(path, stable=not shifts), note + (SHIFTING if shifts else "")
            cursor = self._cursor(page, places, size_name)
            if cursor is not None:
                return cursor, "the parameter was found by trying: it brings other records"
        counting = self._counting(small, size_name)
        if counting is not None:
            ends = "a number of all records" if counting.total else "an empty page"
            return counting, f"the parameter was found by trying: it brings other records; {ends} tells the end"
        body = _document(first.text)
        if isinstance(body, dict) and "next" in body and body["next"] is None:
            return NextUrl(), '"next" was null, and is the next page\'s URL where there is one'
        return SinglePage(), f"one answer held {first.records:,} records and nothing tells of more pages"

    def _cursor(self, page: Page, places: Sequence[tuple[str, Any]], size_name: str) -> Cursor | None:
        asked = {**self._given, size_name: page.request.get(size_name)} if page.request.get(size_name) else self._given
        more = next((path for path, value in places if _last(path) in MORE_NAMES and value is True), "")
        for path, value in places:
            if (
                not CURSOR_FIELD.fullmatch(_last(path))
                or not isinstance(value, str | int)
                or value in ("", True, False)
            ):
                continue
            plain = re.sub(r"^(next|end)_?", "", _last(path))
            for param in dict.fromkeys([plain, plain[:1].lower() + plain[1:], _last(path), *CURSOR_NAMES]):
                if self._brings_others(page, {**asked, param: value}):
                    return Cursor(param, path, more=more)
        last = page.last_record()
        if more and isinstance(last, dict) and isinstance(last.get("id"), str | int):
            for param in CURSOR_NAMES:
                if self._brings_others(page, {**asked, param: last["id"]}):
                    return Cursor(param, last_record="id", more=more)
        return None

    def _counting(self, page: Page, size_name: str) -> Offset | PageNumber | None:
        body = _document(page.text)
        numbers = [
            (path, value)
            for path, value in (_places(body) if isinstance(body, dict) else ())
            if isinstance(value, int) and not isinstance(value, bool)
        ]
        totals = [path for path, value in numbers if _last(path) in TOTAL_NAMES and value >= page.records]
        totals += [f"header:{name}" for name in TOTAL_HEADERS if page.headers.get(name, "").isdecimal()]
        total = next(iter(totals), "")
        if total and page.number_at(total) == page.records:
            return None
        pages = next((path for path, _ in numbers if _last(path) in LAST_PAGE_NAMES), "")
        asked = {**self._given, size_name: page.request.get(size_name)} if page.request.get(size_name) else {}
        styles = [*((name, False) for name in OFFSET_NAMES), *((name, True) for name in PAGE_NAMES)]
        styles.sort(key=lambda style: (style[0] not in self._given, not style[1] if pages else style[1]))
        for name, by_page in styles:
            if not by_page:
                if self._brings_others(page, {**asked, name: page.records}):
                    return Offset(param=name, total=total)
            elif self._brings_others(page, {**asked, name: 2}):
                start = 0 if self._brings_others(page, {**asked, name: 1}) else 1
                return PageNumber(param=name, start=start, total=total, pages=pages)
        return None

    def _brings_others(self, page: Page, parameters: Mapping[str, Any]) -> bool:
        """Whether the source answers with records that are not on `page`."""
        other = self._try(parameters)
        return other is not None and other.records > 0 and _first_text(other) not in _texts(page)


def _records(page: Page) -> Iterator[str]:
    return (page.text[start:end] for _, start, end in iter_records(page.text, page.records_path))


def _texts(page: Page) -> set[str]:
    return set(_records(page))


def _first_text(page: Page) -> str:
    return next(_records(page))


def _document(text: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        list(iter_records(text))  # says better what is wrong
        raise


def _places(document: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of what stands in a body's objects, the outer ones first; no list is gone into."""
    inner = []
    for name, value in document.items():
        if "." in name or name.endswith("?"):
            continue
        here = f"{path}.{name}" if path else name
        yield here, value
        if isinstance(value, dict) and depth < MOST_DEPTH:
            inner.append((here, value))
    for here, value in inner:
        yield from _places(value, here, depth + 1)


def _last(path: str) -> str:
    """The name at a path's end; of a link that is an object, `next.href`, that of the link."""
    names = path.split(".")
    return names[-2] if names[-1] == "href" and len(names) > 1 else names[-1]


def _rank(path: str, names: Sequence[str]) -> int:
    last = path.split(".")[-1]
    return names.index(last) if last in names else len(names)


def _is_url(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("http://", "https://", "/", "?"))


def _counts(url: str) -> bool:
    """Whether a link turns pages by their number or by that of the records before them."""
    return any(name in (*OFFSET_NAMES, *PAGE_NAMES) for name, _ in parse_qsl(urlsplit(url).query))


def _has_next(pagination: Pagination, page: Page) -> bool:
    try:
        return pagination.next(page) is not None
    except PagingError:  # the last page lacks what leads to the next
        return False


def _linked(page: Page) -> set[str]:
    """The names of the parameters in the links that an answer has."""
    following = LinkHeader().next(page)
    urls = [following.url] if following else []
    body = _document(page.text)
    if isinstance(body, dict):
        urls += [value for path, value in _places(body) if _last(path) in NEXT_NAMES and _is_url(value)]
    return {name for url in urls for name, _ in parse_qsl(urlsplit(url).query)}


def _declared_as(pagination: Pagination) -> str:
    """A style of pagination as it stands in a contract."""
    order = ("param", "path", "last_record", "more")
    named = sorted(fields(cast("Any", pagination)), key=lambda f: _rank(f.name, order))
    given = [
        f"{f.name}={json.dumps(value) if isinstance(value, str) else value}"
        for f in named
        if f.init and (value := getattr(pagination, f.name)) != f.default
    ]
    return f"{type(pagination).__name__}({', '.join(given)})"


# ---- files


def read_file(path: Path, report: Callable[[str], None]) -> tuple[list[Any], FilesGuess]:
    """Up to 1,000 records of a csv, jsonl or parquet file, and what its kind is. Raises SampleError."""
    plain = path.name.lower()
    packed = next((suffix for suffix in PACKED if plain.endswith(suffix)), "")
    suffix = Path(plain.removesuffix(packed)).suffix
    if not path.is_file():
        raise SampleError(f"{path} is no file")
    if suffix not in FORMATS or (packed and suffix == ".parquet"):
        raise SampleError(f"{path}: expected a name in {', '.join(FORMATS)}, the first four also packed as .gz or .zst")
    stem = re.split(r"[-_.]?\d", path.name[: len(path.name) - len(suffix + packed)])[0]
    files = Files(
        path.parent.absolute().as_uri(), FORMATS[suffix], "snapshot", f"{stem}*{path.name[-len(suffix + packed) :]}"
    )
    notes = [f"which files of the folder are the entity's: {files.pattern}"]
    try:
        if files.format == "csv":
            files, told = _csv_form(path, files)
            notes += told
        records = _first_records(path, files)
    except (BadFileError, OSError) as error:
        raise SampleError(f"{path} cannot be read: {error}") from error
    report(f"read {path}: {len(records):,} records")
    values = [json.loads(text, parse_float=Decimal) for text in records if not isinstance(text, Malformed)]
    if not values:
        raise SampleError(f"{path} has no records, so there is nothing to learn from")
    return values, FilesGuess(files, tuple(notes))


def file_page(path: Path, files: Files) -> tuple[bytes, int]:
    """The first 1,000 records as the page that lands, and how many they are; a line that is none is a JSON string."""
    records = _first_records(path, files)
    texts = [record.text if isinstance(record, Malformed) else record for record in records]
    return b"[" + ",\n".join(texts).encode() + b"]", len(records)


def _first_records(path: Path, files: Files) -> list[str | Malformed]:
    with path.open("rb") as source:
        if files.format == "parquet":
            from include.extract.parquet_records import parquet_records  # half a second that only these files are worth

            return list(islice(parquet_records(source, (), lambda note: None), MOST_RECORDS))
        return list(islice(text_records(source, path.name, files, ()), MOST_RECORDS))


def _csv_form(path: Path, files: Files) -> tuple[Files, list[str]]:
    """The file with the encoding and the delimiter that its first records show."""
    encodings = [replace(files, encoding=encoding) for encoding in ENCODINGS]
    readable = next((f for f in encodings if not any(isinstance(r, Malformed) for r in _first_records(path, f))), files)
    widths = {}
    for delimiter in DELIMITERS:
        form = replace(readable, delimiter=delimiter)
        with suppress(BadFileError):
            widths[delimiter] = max(
                (len(json.loads(r)) for r in _first_records(path, form) if isinstance(r, str)), default=0
            )
    best = max(widths, key=lambda delimiter: widths[delimiter], default=",")
    notes = [f"the encoding, {readable.encoding}, as the file is not in UTF-8"] if readable.encoding != "utf-8" else []
    return replace(readable, delimiter=best), notes
