"""Every style, from the first request to the last page, and what it says of a page that it cannot use."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from include.extract.pagination import (
    Cursor,
    LinkHeader,
    NextUrl,
    Offset,
    Page,
    PageNumber,
    PageRequest,
    Pagination,
    PagingError,
    SinglePage,
)

URL = "http://api/v1/customers?limit=2"


def page(body: Any, *, request: str = URL, path: str = "", earlier: int = 0, **headers: str) -> Page:
    named = CaseInsensitiveDict({name.replace("_", "-"): value for name, value in headers.items()})
    return Page(PageRequest(request), request, named, json.dumps(body).encode(), path, earlier, page_size=2)


def url_after(style: Pagination, answered: Page) -> str | None:
    following = style.next(answered)
    return None if following is None else following.url


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        (None, None),
        ("", None),
        ('<http://api/customers?after=2>; rel="next"', "http://api/customers?after=2"),
        ("</customers?after=2>; rel=next", "http://api/customers?after=2"),
        ('<?after=2>; rel="next"', "http://api/v1/customers?after=2"),
        ('<http://api/a>; rel="prev", <http://api/b>; rel="next", <http://api/c>; rel="last"', "http://api/b"),
        ('<http://api/a>; rel="prev"', None),
        ('<http://api/b>; rel="last next"', "http://api/b"),
        ('<http://api/b>; REL="Next"', "http://api/b"),
        ('<http://api/b;v=1,2?x=a,b;c>;title="a, <x>; rel=prev";rel="next"', "http://api/b;v=1,2?x=a,b;c"),
        ('<http://api/b>; rel="prev"; rel="next"', None),
        ('<http://api/b>; title="; rel=next"', None),
        ('<http://api/b>; foo; rel="next"', "http://api/b"),
        ('<http://api/b>;rel="nextish"', None),
    ],
)
def test_a_link_header(link: str | None, expected: str | None) -> None:
    headers = CaseInsensitiveDict({} if link is None else {"link": link})
    answered = Page(PageRequest(URL), URL, headers, b"not JSON: the header is enough")
    assert url_after(LinkHeader(), answered) == expected


@pytest.mark.parametrize(
    ("style", "body", "expected"),
    [
        (NextUrl(), {"next": "http://api/v1/customers?page=2"}, "http://api/v1/customers?page=2"),
        (NextUrl(), {"next": "?page=2"}, "http://api/v1/customers?page=2"),
        (NextUrl("links.next"), {"links": {"next": "/a?b=c"}}, "http://api/a?b=c"),
        (NextUrl(), {"next": None}, None),
        (NextUrl(), {"next": ""}, None),
        (NextUrl("paging.next", absent_ends=True), {}, None),
        (Cursor("after", "cursor"), {"cursor": "a+b="}, URL + "&after=a%2Bb%3D"),
        (Cursor("after", "paging.next.after"), {"paging": {"next": {"after": 7}}}, URL + "&after=7"),
        (Cursor("after", "cursor"), {"cursor": None}, None),
        (Cursor("after", "cursor"), {"cursor": ""}, None),
        (Cursor("after", "cursor", absent_ends=True), {}, None),
        (Cursor("after", "cursor", more="has_more"), {"cursor": "x", "has_more": False}, None),
        (Cursor("after", "cursor", more="has_more"), {"cursor": "x", "has_more": True}, URL + "&after=x"),
        (Cursor("after", last_record="id"), {"items": [{"id": 1}, {"id": 5}]}, URL + "&after=5"),
        (Cursor("after", last_record="id"), {"items": []}, None),
        (Cursor("after", last_record="id", more="more"), {"items": [{"id": 5}], "more": False}, None),
        (SinglePage(), {"next": "http://api/more"}, None),
    ],
)
def test_what_the_body_says(style: Pagination, body: dict[str, Any], expected: str | None) -> None:
    assert url_after(style, page({"items": []} | body, path="items")) == expected


def test_a_cursor_in_a_header() -> None:
    style = Cursor("after", "header:X-Next", absent_ends=True)
    assert url_after(style, page([], x_next="7")) == URL + "&after=7"
    assert url_after(style, page([])) is None


@pytest.mark.parametrize(
    ("style", "body", "said"),
    [
        (NextUrl("nxt"), {}, 'it has no "nxt", by which its contract finds the next page'),
        (NextUrl(), {"next": 5}, 'its "next" should be a URL, not 5'),
        (Cursor("after", "meta.cursor"), {"meta": []}, 'it has no "meta.cursor"'),
        (Cursor("after", "cursor"), {"cursor": {"a": 1}}, 'its "cursor" should be text or a number'),
        (Cursor("after", "cursor"), {"cursor": True}, 'its "cursor" should be text or a number, not True'),
        (Cursor("after", "cursor", more="more"), {"more": True}, 'there is more, but it has no "cursor"'),
        (Cursor("after", "cursor", more="more"), {"more": "yes"}, 'its "more" should be true or false'),
        (Cursor("after", last_record="id"), {"items": [{"no": 1}]}, 'there is more, but it has no "id"'),
        (PageNumber(total="count"), {"items": [1]}, 'it has no "count"'),
        (PageNumber(total="count"), {"items": [1], "count": "many"}, 'its "count" should be a whole number'),
        (PageNumber(total="count"), {"items": [1], "count": True}, 'its "count" should be a whole number'),
        (Offset(total="header:X-Total-Count"), {"items": [1]}, 'it has no "header:X-Total-Count"'),
    ],
)
def test_a_page_that_does_not_say_it_is_an_error(style: Pagination, body: dict[str, Any], said: str) -> None:
    with pytest.raises(PagingError, match=said):
        style.next(page({"items": []} | body, path="items", request=style.first(PageRequest(URL)).url))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Cursor("after"), "needs either `path` or `last_record`"),
        (lambda: Cursor("after", "cursor", last_record="id"), "needs either `path` or `last_record`"),
        (lambda: PageNumber(short_page_ends=True), "`short_page_ends` needs `stable=True`"),
        (lambda: Offset(short_page_ends=True), "`short_page_ends` needs `stable=True`"),
    ],
)
def test_a_style_that_cannot_work(make: Callable[[], Pagination], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize(
    ("style", "sizes", "asked"),
    [
        (PageNumber(), [2, 2, 0], ["page=1", "page=2", "page=3"]),
        (PageNumber(), [2, 1, 0], ["page=1", "page=2", "page=3"]),
        (PageNumber(start=0, param="p"), [1, 0], ["p=0", "p=1"]),
        (PageNumber(stable=True, short_page_ends=True), [2, 1], ["page=1", "page=2"]),
        (PageNumber(total="header:X-Total-Count"), [2, 1], ["page=1", "page=2"]),
        (PageNumber(pages="header:X-Pages"), [2, 1], ["page=1", "page=2"]),
        (Offset(), [2, 1, 0], ["offset=0", "offset=2", "offset=3"]),
        (Offset(param="skip", start=1), [2, 0], ["skip=1", "skip=3"]),
        (Offset(total="header:X-Total-Count"), [1, 1, 1], ["offset=0", "offset=1", "offset=2"]),
        (Offset(stable=True, short_page_ends=True), [2, 2, 0], ["offset=0", "offset=2", "offset=4"]),
    ],
)
def test_counting_styles_end_where_they_are_told(style: Pagination, sizes: list[int], asked: list[str]) -> None:
    requests, earlier, following = [], 0, style.first(PageRequest("http://api/v1/customers"))
    headers = {"X_Total_Count": str(sum(sizes)), "X_Pages": str(len(sizes))}
    for size in sizes:
        assert following is not None
        requests.append(following.url.partition("?")[2])
        following = style.next(page([1] * size, request=following.url, earlier=earlier, **headers))
        earlier += size
    assert (requests, following) == (asked, None)


def test_which_styles_are_stable() -> None:
    styles = [LinkHeader(), NextUrl(), Cursor("a", "b"), SinglePage(), PageNumber(), Offset()]
    assert [style.stable for style in styles] == [True, True, True, True, False, False]
    assert [LinkHeader(stable=False).stable, PageNumber(stable=True).stable] == [False, True]
    assert [style.missing_ends for style in styles] == [False, False, False, False, True, False]


def test_a_post_carries_its_parameters_in_the_body() -> None:
    request = PageRequest("http://api/search", {}).having(**{"filter.since": "2025", "limit": 5})
    assert request == PageRequest("http://api/search", {"filter": {"since": "2025"}, "limit": 5})
    style = Cursor("page.cursor", "cursor")
    answered = Page(request, request.url, {}, b'{"cursor": "x", "items": []}', "items")
    assert style.next(answered) == PageRequest(
        "http://api/search", {"filter": {"since": "2025"}, "limit": 5, "page": {"cursor": "x"}}
    )
    assert request.get("filter.since") == "2025"
    assert request.get("filter.until") is None
    assert PageNumber().first(request).get("page") == 1


@given(st.dictionaries(st.text(min_size=1), st.text(), max_size=4), st.text(min_size=1), st.text())
def test_a_parameter_stands_once_and_the_others_stay(others: dict[str, str], name: str, value: str) -> None:
    request = PageRequest("http://api/customers").having(**others)
    again = request.having(**{name: "earlier"}).having(**{name: value})
    assert {n: again.get(n) for n in {*others, name}} == others | {name: value}
    assert again.url.count("=") == len({*others, name})
    assert again.fingerprint == request.having(**{name: value}).fingerprint


def test_a_page_counts_its_records() -> None:
    answered = Page(PageRequest(URL), URL, {}, b'{"data": [1, {"a": [2, 3]}, []]}', "data")
    assert (answered.records, answered.last_record()) == (3, [])


def test_pages_with_the_same_records_have_the_same_digest() -> None:
    one = page({"items": [1, 2], "made_at": "10:00"}, path="items")
    two = page({"made_at": "10:01", "items": [1, 2]}, path="items")
    other = page({"items": [1, 3], "made_at": "10:00"}, path="items")
    assert one.digest == two.digest != other.digest
