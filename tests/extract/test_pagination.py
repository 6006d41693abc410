import pytest
from requests.structures import CaseInsensitiveDict

from include.extract.pagination import LinkHeader, Page


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
def test_next_url_of_a_link_header(link: str | None, expected: str | None) -> None:
    headers = CaseInsensitiveDict({} if link is None else {"link": link})
    page = Page("http://api/v1/customers?limit=1", headers, b"not JSON: the header is enough")
    assert LinkHeader().next_url(page) == expected


def test_a_page_counts_its_records() -> None:
    assert Page("http://api/", {}, b'{"data": [1, {"a": [2, 3]}, []]}', "data").records == 3


def test_link_headers_are_stable_unless_told_otherwise() -> None:
    assert (LinkHeader().stable, LinkHeader(stable=False).stable) == (True, False)
