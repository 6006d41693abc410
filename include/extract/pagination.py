"""Where the next page is: what a source says, in which style."""

import json
import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Any, Protocol
from urllib.parse import parse_qsl, urldefrag, urlencode, urljoin, urlsplit

from include.extract.json_records import decode_body, iter_records

__all__ = [
    "Cursor",
    "LinkHeader",
    "NextUrl",
    "Offset",
    "Page",
    "PageNumber",
    "PageRequest",
    "Pagination",
    "PagingError",
    "SinglePage",
]

_LINK = re.compile(r'<([^>]*)>((?:[^",]|"(?:[^"\\]|\\.)*")*)')
_PARAMETER = re.compile(r';\s*([^\s=;]+)\s*(?:=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*)))?')
_HEADER = "header:"
_ABSENT = object()


class PagingError(ValueError):
    """The page does not say what its style of pagination needs to know."""


@dataclass(frozen=True)
class PageRequest:
    """What asks for a page: a GET of `url`, or a POST of the JSON object `body` to it.

    Parameters stand in the URL's query or, in a POST, in the body at dotted paths.
    """

    url: str
    body: dict[str, Any] | None = None

    def get(self, name: str) -> Any:
        """The parameter's value (in a GET, text); None without it."""
        if self.body is not None:
            value = _descend(self.body, name)
            return None if value is _ABSENT else value
        return dict(parse_qsl(urlsplit(self.url).query, keep_blank_values=True)).get(name)

    def having(self, **parameters: Any) -> "PageRequest":
        """The same request with these parameters set, each once."""
        if self.body is not None:
            body = deepcopy(self.body)
            for name, value in parameters.items():
                _set(body, name, deepcopy(value))
            return PageRequest(self.url, body)
        parts = urlsplit(self.url)
        kept = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] not in parameters]
        query = urlencode([*kept, *parameters.items()], doseq=True, safe=":,/")
        return PageRequest(parts._replace(query=query).geturl())

    @property
    def fingerprint(self) -> bytes:
        """Equal for requests that ask for the same page."""
        asked = urldefrag(self.url).url + json.dumps(self.body, sort_keys=True)
        return blake2b(asked.encode(), digest_size=16).digest()


@dataclass
class Page:
    """One answer of the source.

    `headers` are looked up without regard to case. `text` and what comes from it is worked out when a style asks for
    it, so that a style which needs only the headers can have the next page requested before this one is parsed.

    Attributes:
        request: what asked for it.
        url: the one that answered, after redirects.
        earlier: how many records the pages before it held.
        page_size: how many records were asked for; None where the source was not told.
    """

    request: PageRequest
    url: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    records_path: str = ""
    earlier: int = 0
    page_size: int | None = None

    @cached_property
    def text(self) -> str:
        """The body's text. Raises `MalformedBody` unless it is UTF-8."""
        return decode_body(self.body)

    @property
    def records(self) -> int:
        """The number of records. Raises `MalformedBody` or `NotAnArray`."""
        return self._extent[0]

    @property
    def digest(self) -> bytes:
        """Equal for pages with the same text of their records."""
        _, start, end = self._extent
        return blake2b(self.text[start:end].encode("utf-8", "surrogatepass"), digest_size=16).digest()

    @cached_property
    def _extent(self) -> tuple[int, int, int]:
        """How many records there are, where the first begins and the last ends."""
        count = first = last = 0
        for count, (_, start, last) in enumerate(iter_records(self.text, self.records_path), start=1):  # noqa: B007 - kept
            if count == 1:
                first = start
        return count, first, last

    @cached_property
    def _document(self) -> Any:
        return json.loads(self.text) if self.records >= 0 else None  # what is no JSON `records` says better

    def at(self, place: str) -> Any:
        """The value at a dotted path of the body, or of a header (`"header:X-Total-Count"`); PagingError if absent."""
        value = self.find(place)
        if value is _ABSENT:
            raise PagingError(f'it has no "{place}", by which its contract finds the next page')
        return value

    def find(self, place: str) -> Any:
        """As `at`, with a value of its own kind (never None) where there is none."""
        if place.startswith(_HEADER):
            return self.headers.get(place.removeprefix(_HEADER), _ABSENT)
        return _descend(self._document, place)

    def number_at(self, place: str) -> int:
        """The whole number there, as a number or as text. Raises PagingError."""
        value = self.at(place)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, str) and value.strip().isdecimal():
            return int(value)
        raise PagingError(f'its "{place}" should be a whole number, not {value!r:.100}')

    def last_record(self) -> Any:
        """The last record's value."""
        path = self.records_path.removesuffix("?")
        return (_descend(self._document, path) if path else self._document)[-1]


class Pagination(Protocol):
    """A style of pagination.

    Attributes:
        stable: whether a record that stays at the source throughout a walk over the pages is surely on one of them.
        missing_ends: whether a 404 for a page behind the first says that there is none.
    """

    @property
    def stable(self) -> bool: ...
    @property
    def missing_ends(self) -> bool: ...

    def first(self, request: PageRequest) -> PageRequest:
        """The request with what the style needs in its first one."""

    def next(self, page: Page) -> PageRequest | None:
        """What asks for the page that follows `page`, or None after the last. Raises PagingError."""


@dataclass(frozen=True)
class _Style:
    stable: bool = field(default=True, kw_only=True)
    missing_ends: bool = field(default=False, init=False)

    def first(self, request: PageRequest) -> PageRequest:
        return request


@dataclass(frozen=True)
class SinglePage(_Style):
    """No pages: one answer holds all."""

    def next(self, page: Page) -> None:
        return None


@dataclass(frozen=True)
class LinkHeader(_Style):
    """`Link: <url>; rel="next"` while there is more (RFC 8288); the URL may be relative to the page's own.

    The header is parsed here, as `requests` cuts a URL off at a semicolon, and does not see `next` among several
    relations: both would end a snapshot early, without an error.
    """

    def next(self, page: Page) -> PageRequest | None:
        """The first link of the relation `next`, or None where there is none."""
        for target, parameters in _LINK.findall(page.headers.get("Link", "")):
            for name, quoted, token in _PARAMETER.findall(parameters):
                if name.lower() == "rel":  # only the first counts (RFC 8288, 3.3)
                    if "next" in (quoted or token).lower().split():
                        return _following(page, target.strip())
                    break
        return None


@dataclass(frozen=True)
class NextUrl(_Style):
    """The next page's URL in the body at the dotted `path`, absolute or relative; null or empty on the last page.

    A page without `path` is an error, since a path with a mistake in it would end every walk after one page: say
    `absent_ends=True` for a source that leaves it out on its last page.
    """

    path: str = "next"
    absent_ends: bool = False

    def next(self, page: Page) -> PageRequest | None:
        url = page.find(self.path) if self.absent_ends else page.at(self.path)
        if url is _ABSENT or url in (None, "", False):
            return None
        if not isinstance(url, str):
            raise PagingError(f'its "{self.path}" should be a URL, not {url!r:.100}')
        return _following(page, url)


@dataclass(frozen=True)
class Cursor(_Style):
    """The next page is asked for with a value from this one, in the parameter `param`.

    The value stands in the body at the dotted `path` (or is `"header:<name>"`), or it is the field `last_record` of the
    page's last record. The last page has none: null, empty, or no record; `more` is the dotted path of a boolean that
    says so instead. A page without `path` is an error unless `absent_ends`, as for `NextUrl`.
    """

    param: str
    path: str = ""
    last_record: str = ""
    more: str = ""
    absent_ends: bool = False

    def __post_init__(self) -> None:
        if bool(self.path) == bool(self.last_record):
            raise ValueError("a Cursor needs either `path` or `last_record`, to know where its value stands")

    def next(self, page: Page) -> PageRequest | None:
        if self.more:
            more = page.at(self.more)
            if not isinstance(more, bool):
                raise PagingError(f'its "{self.more}" should be true or false, not {more!r:.100}')
            if not more:
                return None
        if self.last_record:
            if not page.records and not self.more:
                return None
            value = _descend(page.last_record(), self.last_record) if page.records else _ABSENT
        else:
            value = page.find(self.path) if self.absent_ends or self.more else page.at(self.path)
        if value in (_ABSENT, None, ""):
            if self.more or self.last_record:
                raise PagingError(f'there is more, but it has no "{self.path or self.last_record}" to go on from')
            return None
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise PagingError(f'its "{self.path or self.last_record}" should be text or a number, not {value!r:.100}')
        return page.request.having(**{self.param: value})


@dataclass(frozen=True)
class _Counting(_Style):
    """Pages by a number that the client counts on. They shift while records vanish, so they are not stable by default.

    They end with an empty page, and with the one that reaches `total`: the number of records, at a dotted path of the
    body or in a header (`"header:X-Total-Count"`). A page that is shorter than was asked for ends them only if
    `short_page_ends`: many sources give less than they are asked for.
    """

    total: str = ""
    short_page_ends: bool = False
    stable: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if self.short_page_ends and not self.stable:
            raise ValueError("`short_page_ends` needs `stable=True`: among pages that shift a short one proves nothing")

    def _is_last(self, page: Page) -> bool:
        if not page.records:
            return True
        if self.total:
            return page.earlier + page.records >= page.number_at(self.total)
        return self.short_page_ends and page.page_size is not None and page.records < page.page_size


@dataclass(frozen=True)
class PageNumber(_Counting):
    """Pages by number, from `first` on. They also end with a 404, and with the number at `pages`, of the last page."""

    param: str = "page"
    start: int = 1
    pages: str = ""
    missing_ends: bool = field(default=True, init=False)

    def first(self, request: PageRequest) -> PageRequest:
        return request.having(**{self.param: self.start})

    def next(self, page: Page) -> PageRequest | None:
        number = int(page.request.get(self.param))
        if self._is_last(page) or (self.pages and number >= page.number_at(self.pages)):
            return None
        return page.request.having(**{self.param: number + 1})


@dataclass(frozen=True)
class Offset(_Counting):
    """Pages by the number of records before them, counted by what came, not by what was asked for."""

    param: str = "offset"
    start: int = 0

    def first(self, request: PageRequest) -> PageRequest:
        return request.having(**{self.param: self.start})

    def next(self, page: Page) -> PageRequest | None:
        if self._is_last(page):
            return None
        return page.request.having(**{self.param: int(page.request.get(self.param)) + page.records})


def _following(page: Page, url: str) -> PageRequest:
    return PageRequest(str(urljoin(page.url, url)), page.request.body)


def _descend(value: Any, path: str) -> Any:
    """The value at a dotted path through objects, or _ABSENT."""
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            return _ABSENT
        value = value[name]
    return value


def _set(body: dict[str, Any], path: str, value: Any) -> None:
    *names, last = path.split(".")
    for name in names:
        body = body.setdefault(name, {})
    body[last] = value
