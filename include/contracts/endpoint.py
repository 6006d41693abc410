"""Where a source keeps an entity and how it is asked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from include.extract.pagination import (
    Cursor,
    LinkHeader,
    NextUrl,
    Offset,
    PageNumber,
    PageRequest,
    Pagination,
    SinglePage,
)

__all__ = ["Cursor", "Endpoint", "LinkHeader", "NextUrl", "Offset", "PageNumber", "SinglePage", "TimeFormat"]

TimeFormat = Literal["iso", "iso-offset", "epoch", "epoch-ms", "date"]


@dataclass(frozen=True)
class Endpoint:
    """An entity's place in a source's HTTP API.

    Parameters go into the query or, with the method POST, into the JSON body, at dotted paths.

    Attributes:
        path: appended to the connection's base URL: `"/customers"`. It may carry a query.
        pagination: how the next page is found.
        method: `"GET"`, or `"POST"` for a search.
        params: parameters of its own, sent with every first request: `{"expand": "lines"}`.
        changed_since: the parameter that asks for what changed since a time (inclusive); None if there is none.
        changed_until: the parameter that asks for what changed before a time; needed for a `window`.
        since_format: how these two are written, in UTC: ISO 8601 with Z ("iso") or +00:00 ("iso-offset"), seconds or
            milliseconds since 1970 ("epoch", "epoch-ms"), or the day ("date"), always rounded down.
        window: the first load goes on in steps of so much of the version's time, each published before the next run
            goes on; for a source too large to be read at once.
        records: names that lead to the array of records in a body, dotted: `"data.items"`; `""` is the body itself. A
            question mark behind them (`"items?"`) says that a body without them has no records.
        page_size: records asked for in a page.
        page_size_param: the parameter that says so; `""` if there is none.
        clock: the header that says what time it is at the source, or when it made the page.
        requests_per_second: the most that the source is asked for; None for no bound.
    """

    path: str
    pagination: Pagination = field(default_factory=LinkHeader)
    method: Literal["GET", "POST"] = "GET"
    params: Mapping[str, Any] = field(default_factory=dict)
    changed_since: str | None = None
    changed_until: str | None = None
    since_format: TimeFormat = "iso"
    window: timedelta | None = None
    records: str = ""
    page_size: int = 5000
    page_size_param: str = "limit"
    clock: str = "Date"
    requests_per_second: float | None = None

    def __post_init__(self) -> None:
        if self.window is not None and (self.changed_since is None or self.changed_until is None):
            raise ValueError(f"{self.path}: a window needs `changed_since` and `changed_until`")
        if self.window is not None and self.window <= timedelta(0):
            raise ValueError(f"{self.path}: a window must be longer than nothing, not {self.window}")
        if self.requests_per_second is not None and self.requests_per_second <= 0:
            raise ValueError(f"{self.path}: requests_per_second must be above 0, not {self.requests_per_second}")
        if self.page_size < 1:
            raise ValueError(f"{self.path}: page_size must be at least 1, not {self.page_size}")

    def first(self, base_url: str, since: datetime | None = None, until: datetime | None = None) -> PageRequest:
        """What asks for the first page of what changed in [`since`, `until`) (aware), or of everything.

        Raises:
            ValueError: a time without a time zone, or for an endpoint that cannot be asked for changes.
        """
        asked = dict(self.params)
        if self.page_size_param:
            asked[self.page_size_param] = self.page_size
        if since is not None:
            if self.changed_since is None:
                raise ValueError(f"{self.path} has no `changed_since` parameter: it can only be read whole")
            asked[self.changed_since] = self._written(since)
        if until is not None:
            if self.changed_until is None:
                raise ValueError(f"{self.path} has no `changed_until` parameter: it cannot be read by windows")
            asked[self.changed_until] = self._written(until)
        url = base_url.rstrip("/") + "/" + self.path.lstrip("/")
        request = PageRequest(url, {} if self.method == "POST" else None)
        return self.pagination.first(request.having(**asked) if asked else request)

    def _written(self, time: datetime) -> str | int:
        if time.tzinfo is None:
            raise ValueError(f"{self.path}: a time needs a time zone, got {time.isoformat()}")
        utc = time.astimezone(UTC)
        match self.since_format:
            case "iso":
                return utc.isoformat().replace("+00:00", "Z")
            case "iso-offset":
                return utc.isoformat()
            case "epoch":
                return (utc - _EPOCH) // timedelta(seconds=1)
            case "epoch-ms":
                return (utc - _EPOCH) // timedelta(milliseconds=1)
            case "date":
                return utc.date().isoformat()


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
