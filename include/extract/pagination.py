"""Where the next page is: what a source says, in which style."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol
from urllib.parse import urljoin

from include.extract.json_records import decode_body, iter_records

__all__ = ["LinkHeader", "Page", "Pagination"]

_LINK = re.compile(r'<([^>]*)>((?:[^",]|"(?:[^"\\]|\\.)*")*)')
_PARAMETER = re.compile(r';\s*([^\s=;]+)\s*(?:=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*)))?')


@dataclass
class Page:
    """One answer of the source.

    `headers` are looked up without regard to case. `text` and `records` are worked out when a style asks for them, so
    that a style which needs only the headers can have the next page requested before this one is parsed.
    """

    url: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    records_path: str = ""

    @cached_property
    def text(self) -> str:
        """The body's text. Raises `MalformedBody` unless it is UTF-8."""
        return decode_body(self.body)

    @cached_property
    def records(self) -> int:
        """The number of records. Raises `MalformedBody` or `NotAnArray`."""
        return sum(1 for _ in iter_records(self.text, self.records_path))


class Pagination(Protocol):
    """A style of pagination."""

    @property
    def stable(self) -> bool:
        """Whether a record that stays at the source throughout a walk over the pages is surely on one of them."""

    def next_url(self, page: Page) -> str | None:
        """The absolute URL of the page that follows `page`, or None after the last."""


@dataclass(frozen=True)
class LinkHeader:
    """`Link: <url>; rel="next"` while there is more (RFC 8288); the URL may be relative to the page's own.

    The header is parsed here, as `requests` cuts a URL off at a semicolon, and does not see `next` among several
    relations: both would end a snapshot early, without an error.
    """

    stable: bool = True

    def next_url(self, page: Page) -> str | None:
        """The first link of the relation `next`, or None where there is none."""
        for target, parameters in _LINK.findall(page.headers.get("Link", "")):
            for name, quoted, token in _PARAMETER.findall(parameters):
                if name.lower() == "rel":  # only the first counts (RFC 8288, 3.3)
                    if "next" in (quoted or token).lower().split():
                        return str(urljoin(page.url, target.strip()))
                    break
        return None
