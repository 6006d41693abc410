"""What people read holds no secrets and no personal data, and still says what happened."""

from __future__ import annotations

import time

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.masking import mask_personal_data, mask_secrets, sentence


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("GET https://u:p@h/x?token=abc&b=1#f failed", "GET https://***@h/x?token=***&b=1 failed"),
        ("(https://hooks.slack.com/services/T0/B0/xxx)", "(***)"),
        ("retries exceeded with url: /services/T00/B00/XXXX (caused", "retries exceeded with url: *** (caused"),
        (
            "retries exceeded with url: /customers?token=abc&limit=5",
            "retries exceeded with url: /customers?token=***&limit=5",
        ),
        ("connect to postgresql://sluice:pw@127.0.0.1:5432/app", "connect to postgresql://***@127.0.0.1:5432/app"),
        ("host=x password=secret user=y", "host=x password=*** user=y"),
        ("{'password': 'a b', \"api_key\": \"x\"}", "{'password': ***, \"api_key\": ***}"),
        ("Authorization: Bearer abcdef123456", "Authorization: *** ***"),
        ("{'Authorization': 'Token abcdefgh1234'}", "{'Authorization': ***}"),
        ("Authorization: Token abcdefgh1234, 401", "Authorization: Token ***, 401"),
        ("x-shop-api-key: abcd1234; Accept: */*", "x-shop-api-key: ***; Accept: */*"),
        ("invalid auth of xoxb-12345-abcDEF or xapp-1-A01", "invalid auth of *** or ***"),
        ("password: hunter2secret; next", "password: ***; next"),
        ("aws_secret_access_key=AAAA AccountKey=ab/cd==;x", "aws_secret_access_key=*** AccountKey=***;x"),
        ("Cookie: theme=dark; sid=abcdef123456", "Cookie: ***"),
        ("{'AccountKey': 'abc', \"access_key\": 'AKIA'}", "{'AccountKey': ***, \"access_key\": ***}"),
        ("Set-Cookie: sessionid=abcdef; Path=/", "Set-Cookie: ***; Path=/"),
        ("token: Input should be a valid string", "token: Input should be a valid string"),
        ('password authentication failed for user "sluice"', 'password authentication failed for user "sluice"'),
        ("/landing/customers#1 is missing", "/landing/customers#1 is missing"),
    ],
)
def test_secrets_are_masked(text: str, masked: str) -> None:
    assert mask_secrets(text) == masked


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ('input "jane@x.com" is wrong', 'input "***" is wrong'),
        ("Key (email)=(a.b+c@x.co.uk) exists.", "Key (email)=(***) exists."),
        ("jürgen@müller.de; next", "***; next"),
        ("https://h/u/jane@x.com?e=b%40c.de&x=1", "https://h/u/***?e=***&x=1"),
        ("postgresql://***@127.0.0.1:5432/app", "postgresql://***@127.0.0.1:5432/app"),
        ("call (415) 555-2671, +49 30 1234567 or +16502530000!", "call ***, *** or ***!"),
    ],
)
def test_personal_data_is_masked(text: str, masked: str) -> None:
    assert mask_personal_data(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "1,234,567 of 12,345,678,901 rows",
        "16502530000 rows, order 4155552671",
        "550e8400-e29b-41d4-a716-446655440000 and 10000000-2025-4000-8000-415555267100",
        "manual__2026-11-24T00:11:28.123456+00:00 at 2026-11-24 00:11:28.415555+02",
        "127.0.0.1:5432, version 2.155.526.7100, 0x7f1234567890, 99.25 %",
        "order 20250304-4155552671",
    ],
)
def test_counts_ids_and_times_are_no_personal_data(text: str) -> None:
    assert mask_personal_data(text) == text
    assert sentence(text) == text


@given(st.emails(), st.text(), st.text(), st.sampled_from([" ", "", "'", '"', "<", "=", "/", ":", "(", "%20", "\n"]))
def test_no_address_survives(email: str, before: str, after: str, mark: str) -> None:
    for text in (email, f"{before}{mark}{email}", f"{before} {mark}{email}{mark} {after}"):
        assert email not in mask_personal_data(text)
        assert email not in sentence(text, 10_000)


@given(st.text(), st.integers(1, 600))
def test_a_sentence_is_one_line_within_its_limit(text: str, limit: int) -> None:
    said = sentence(text, limit)
    assert len(said) <= limit
    assert len(said.splitlines()) <= 1
    said.encode()  # no lone surrogates
    assert "\0" not in said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (None, ""),
        ("", ""),
        (" \n\n  two   words \n more", "two words"),
        (ValueError(), "ValueError"),
        (RuntimeError("customers: no\nstack"), "customers: no"),
        ('duplicate key "pk" DETAIL: Key (email)=(x) exists', 'duplicate key "pk"'),
        ("x" * 600, "x" * 499 + "…"),
        ("jane@example.com " * 5_000, ("*** " * 200)[:499].rstrip() + "…"),
    ],
)
def test_a_sentence_is_the_first_line(error: BaseException | str | None, said: str) -> None:
    assert sentence(error) == said


@pytest.mark.database
def test_what_postgres_prints_of_a_row_is_left_out(app_db: psycopg.Connection[object]) -> None:
    app_db.execute("create temporary table t (email text primary key)")
    app_db.execute("insert into t values ('jane@example.com')")
    with pytest.raises(psycopg.Error) as caught:
        app_db.execute("insert into t values ('jane@example.com')")
    assert "jane@example.com" in str(caught.value)
    assert sentence(caught.value) == 'duplicate key value violates unique constraint "t_pkey"'


@pytest.mark.parametrize(
    "part",
    [
        "a",
        "a@",
        "%40",
        "a.b-",
        "/",
        "/a",
        '"',
        "x://",
        "password=",
        "?&=",
        "+49 30 1234567 ",
        "bearer ",
        "1 ",
        "x-",
        "xoxb-",
    ],
)
def test_a_long_text_takes_no_time(part: str) -> None:
    began = time.process_time()
    for length in (20_000, 100_000):  # as much as is looked at, and more
        sentence(part * (length // len(part)))
    assert time.process_time() - began < 1


def test_an_address_is_not_cut_in_half_before_it_is_known() -> None:
    assert "jane" not in sentence("x" * 19_990 + " jane.doe@example.com", 30_000)
