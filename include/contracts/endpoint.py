"""Where a source keeps an entity and how it is asked."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import urlencode

from include.extract.pagination import LinkHeader, Pagination

__all__ = ["Endpoint"]


@dataclass(frozen=True)
class Endpoint:
    """An entity's place in a source's HTTP API.

    Attributes:
        path: appended to the connection's base URL: `"/customers"`. It may carry a query.
        pagination: how the next page is found.
        changed_since: the query parameter that asks for what changed since a time (inclusive); None if there is none.
        records: names that lead to the array of records in a body, dotted: `"data.items"`; `""` is the body itself.
        page_size: records asked for in a page.
        page_size_param: the query parameter that says so; `""` if there is none.
    """

    path: str
    pagination: Pagination = field(default_factory=LinkHeader)
    changed_since: str | None = None
    records: str = ""
    page_size: int = 5000
    page_size_param: str = "limit"

    def first_url(self, base_url: str, since: datetime | None = None) -> str:
        """The first page's URL; `since` (aware) goes as ISO 8601 in UTC, with microseconds if it has any.

        Raises:
            ValueError: a `since` without a time zone, or for an endpoint that cannot be asked for changes.
        """
        query: dict[str, str | int] = {}
        if self.page_size_param:
            query[self.page_size_param] = self.page_size
        if since is not None:
            if self.changed_since is None:
                raise ValueError(f"{self.path} has no `changed_since` parameter: it can only be read whole")
            if since.tzinfo is None:
                raise ValueError(f"{self.path}: `since` needs a time zone, got {since.isoformat()}")
            query[self.changed_since] = since.astimezone(UTC).isoformat().replace("+00:00", "Z")
        url = base_url.rstrip("/") + "/" + self.path.lstrip("/")
        if not query:
            return url
        return url + ("&" if "?" in self.path else "?") + urlencode(query, safe=":")
