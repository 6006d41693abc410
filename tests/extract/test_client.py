import base64
import logging
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
import requests

from include.extract.client import Answer, SourceClient, SourceError, http_date
from include.extract.pagination import PageRequest
from tests.extract.conftest import TOKEN
from tests.extract.scripted_server import Reply, ScriptedServer

PATH = "/customers?limit=2"


def get(client: SourceClient, url: str) -> Answer:
    """The answer to a GET of a page that must be there."""
    answer = client.ask(PageRequest(url))
    assert answer is not None
    return answer


def error_of(client: SourceClient, url: str) -> SourceError:
    with pytest.raises(SourceError) as raised:
        get(client, url)
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None, "a traceback would show an exception that quotes the request"
    assert TOKEN not in str(raised.value)
    return raised.value


def test_an_answer_comes_whole_and_the_connection_is_kept(client: SourceClient, server: ScriptedServer) -> None:
    body = b"[" + b"1," * 400_000 + b"1]"
    server.on(PATH, Reply(body, headers={"Link": "x"}))
    answers = [get(client, server.url + PATH) for _ in range(3)]
    assert [(a.url, a.headers["link"], a.body) for a in answers] == [(server.url + PATH, "x", body)] * 3
    assert server.tokens == [f"Bearer {TOKEN}"] * 3
    assert server.connections == 1


@pytest.mark.parametrize(
    ("status", "retryable", "said"),
    [
        (400, False, "answered 400 Bad Request, saying 'no': check the contract's endpoint"),
        (401, False, "answered 401 Unauthorized, saying 'no': check the token in connection"),
        (
            403,
            False,
            "answered 403 Forbidden, saying 'no': let the token in connection",
        ),
        (
            404,
            False,
            "answered 404 Not Found, saying 'no': check the contract's endpoint",
        ),
        (204, False, "answered 204 No Content: check"),
        (206, False, "answered 206 Partial Content, saying 'no': check"),
        (304, False, "answered 304 Not Modified: check"),
    ],
)
def test_other_statuses_fail_at_once(
    client: SourceClient, server: ScriptedServer, slept: list[float], status: int, retryable: bool, said: str
) -> None:
    server.on(PATH, Reply(b"" if status in {204, 304} else b"no", status))
    error = error_of(client, server.url + PATH)
    assert str(error).startswith(f"customers: {server.url}{PATH} {said}")
    assert (error.retryable, server.asked, slept) == (retryable, [PATH], [])


def test_retry_after_in_seconds_is_honoured(client: SourceClient, server: ScriptedServer, slept: list[float]) -> None:
    server.on(PATH, Reply(status=429, headers={"Retry-After": "17"}), Reply(b"[1]"))
    assert get(client, server.url + PATH).body == b"[1]"
    assert len(slept) == 1
    assert 17 <= slept[0] <= 18


def test_retry_after_as_a_date_is_relative_to_the_sources_clock(
    client: SourceClient, server: ScriptedServer, slept: list[float]
) -> None:
    then = datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC)
    server.on(
        PATH,
        Reply(
            status=503,
            date=format_datetime(then, usegmt=True),
            headers={"Retry-After": format_datetime(then.replace(second=46), usegmt=True)},
        ),
        Reply(b"[1]"),
    )
    assert get(client, server.url + PATH).body == b"[1]"
    assert len(slept) == 1
    assert 40 <= slept[0] <= 41


@pytest.mark.parametrize(
    ("retry_after", "least", "most"),
    [("86400", 300, 301), ("-5", 0, 1), ("soon", 1, 2), ("inf", 1, 2), ("Mon, 01 Jan 2001 00:00:00 GMT", 0, 1)],
)
def test_retry_after_has_limits(
    client: SourceClient, server: ScriptedServer, slept: list[float], retry_after: str, least: float, most: float
) -> None:
    server.on(PATH, Reply(status=429, headers={"Retry-After": retry_after}), Reply())
    get(client, server.url + PATH)
    assert len(slept) == 1
    assert least <= slept[0] <= most


def test_server_errors_are_tried_again_with_growing_waits(
    client: SourceClient, server: ScriptedServer, slept: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    server.on(PATH, *[Reply(TOKEN.encode(), status) for status in (500, 502, 504)], Reply(b"[1]"))
    assert get(client, server.url + PATH).body == b"[1]"
    assert [int(seconds) for seconds in slept] == [1, 2, 4]
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings[0].startswith(
        f"customers: {server.url}{PATH} answered 500 Internal Server Error, saying '***'; try 2 of 6 in "
    )
    assert len(warnings) == 3


def test_endless_server_errors_end(client: SourceClient, server: ScriptedServer, slept: list[float]) -> None:
    server.on(PATH, Reply(b"down", 500))
    error = error_of(client, server.url + PATH)
    assert str(error) == (
        f"customers: {server.url}{PATH} answered 500 Internal Server Error, saying 'down' (6 tries in 0 s): "
        "the source itself fails: run again when it is well"
    )
    assert (error.retryable, len(server.asked), [int(seconds) for seconds in slept]) == (True, 6, [1, 2, 4, 8, 16])


def test_no_try_begins_beyond_the_total_time(
    server: ScriptedServer, session: requests.Session, slept: list[float]
) -> None:
    client = SourceClient(session, server.url, "customers", total_seconds=100, sleep=slept.append)
    server.on(PATH, Reply(status=503, headers={"Retry-After": "200"}))
    assert error_of(client, server.url + PATH).retryable
    assert (len(server.asked), slept) == (1, [])


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(reset=True), "broke the connection"),
        (Reply(b"[1, 2", missing=10), "broke off in the middle of its answer"),
        (Reply(b"[1, 2" * 100_000, missing=10, reset=True), "broke"),
        (Reply(b"4\r\n[1, ", headers={"Transfer-Encoding": "chunked"}, missing=1), "broke off in the middle"),
        (Reply(b"not gzip", headers={"Content-Encoding": "gzip"}), "sent a body whose compression is damaged"),
    ],
)
def test_broken_answers_are_tried_again(
    client: SourceClient, server: ScriptedServer, slept: list[float], reply: Reply, said: str
) -> None:
    server.on(PATH, reply, reply, Reply(b"[1]"))
    assert get(client, server.url + PATH).body == b"[1]"
    assert len(slept) == 2
    server.on(PATH, reply)
    error = error_of(client, server.url + PATH)
    assert error.retryable
    assert f"{PATH} {said}" in str(error)
    assert "(6 tries in" in str(error)


def test_a_trickling_answer_is_given_up(session: requests.Session, slept: list[float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        client = SourceClient(session, url, "customers", attempts=1, answer_seconds=0.3, sleep=slept.append)

        def trickle() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                try:
                    while True:
                        connection.sendall(b" ")
                        time.sleep(0.05)
                except OSError:
                    return

        thread = threading.Thread(target=trickle)
        thread.start()
        began = time.monotonic()
        error = error_of(client, url)
        assert time.monotonic() - began < 10
        thread.join()
    assert error.retryable
    assert "had not finished its answer after 0 s" in str(error)


def test_a_refused_connection_and_an_unknown_host(session: requests.Session, slept: list[float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    client = SourceClient(session, f"http://127.0.0.1:{port}", "customers", attempts=2, sleep=slept.append)
    error = error_of(client, f"http://127.0.0.1:{port}/customers?api_key=abcdef")
    assert error.retryable
    assert str(error) == (
        f"customers: http://127.0.0.1:{port}/customers?api_key=*** refused the connection (2 tries in 0 s): "
        'check the host in connection "source_api"'
    )
    client = SourceClient(session, "http://no-such-host.invalid", "customers", attempts=1, sleep=slept.append)
    error = error_of(client, "http://no-such-host.invalid/customers")
    assert str(error) == (
        "customers: http://no-such-host.invalid/customers could not be asked: its host is not known: "
        'check the host in connection "source_api"'
    )


@pytest.mark.parametrize(
    "elsewhere",
    [
        lambda other, _own: other.url + "/customers",
        lambda other, _own: other.url.replace("127.0.0.1", "localhost"),
        lambda _other, own: own.url.replace("http:", "https:") + "/customers",
        lambda _other, own: own.url.replace("127.0.0.1", "127.0.0.2"),
        lambda other, own: other.url + "\\@" + own.url.removeprefix("http://"),
        lambda other, own: own.url + "@" + other.url.removeprefix("http://"),
        lambda _other, own: own.url.replace("://", "://user:word@"),
        lambda _other, _own: "file:///etc/passwd",
        lambda _other, _own: "http://[::1",
    ],
)
def test_another_origin_is_refused_and_sent_nothing(
    client: SourceClient,
    server: ScriptedServer,
    other_server: ScriptedServer,
    slept: list[float],
    elsewhere: Callable[[ScriptedServer, ScriptedServer], str],
) -> None:
    target = elsewhere(other_server, server)
    errors = [error_of(client, target)]
    server.on("/moved", Reply(b"", 302, {"Location": target}))
    errors.append(error_of(client, server.url + "/moved"))
    assert [error.retryable for error in errors] == [False, False]
    assert "user:word" not in str(errors)
    assert (server.asked, other_server.connections, slept) == (["/moved"], 0, [])


def test_redirects_within_the_origin_are_followed_a_few_times(client: SourceClient, server: ScriptedServer) -> None:
    server.on("/a", Reply(b"", 301, {"Location": "/b?x=1"}))
    server.on("/b?x=1", Reply(b"", 307, {"Location": server.url + PATH}))
    server.on(PATH, Reply(b"[1]"))
    answer = get(client, server.url + "/a")
    assert (answer.url, answer.body) == (server.url + PATH, b"[1]")
    server.on("/round", Reply(b"", 302, {"Location": "/round"}))
    assert "redirects more than 5 times" in str(error_of(client, server.url + "/round"))
    assert server.asked == ["/a", "/b?x=1", PATH, *["/round"] * 6]


@pytest.mark.parametrize("base_url", ["api.example.com", "ftp://api", "http://", "http://user:hidden@api/", ""])
def test_a_base_url_is_http_without_credentials(session: requests.Session, base_url: str) -> None:
    with pytest.raises(SourceError, match='give the connection "source_api" a scheme') as raised:
        SourceClient(session, base_url, "customers")
    assert not raised.value.retryable
    assert "hidden" not in str(raised.value)


def test_an_echoed_secret_is_masked_in_every_form(
    server: ScriptedServer, slept: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    with requests.Session() as session:
        session.auth = ("reader", "pass-word-1")
        session.headers["X-Api-Key"] = "key-in-header"
        session.cookies.set("sid", "cookie-value")
        client = SourceClient(session, server.url, "customers", sleep=slept.append)
        basic = base64.b64encode(b"reader:pass-word-1").decode()
        secrets = ["pass-word-1", "key-in-header", "cookie-value", basic, "query-secret"]
        server.on("/customers?access_token=query-secret&limit=2", Reply(" ".join(secrets).encode(), 401))
        error = error_of(client, server.url + "/customers?access_token=query-secret&limit=2")
    assert str(error) == (
        f"customers: {server.url}/customers?access_token=***&limit=2 answered 401 Unauthorized, "
        "saying '*** *** *** *** ***': check the token in connection \"source_api\""
    )


def test_a_secret_is_masked_before_the_excerpt_is_cut(client: SourceClient, server: ScriptedServer) -> None:
    server.on(PATH, Reply(b"x" * 190 + TOKEN.encode(), 400))
    assert TOKEN[:5] not in str(error_of(client, server.url + PATH))


def test_a_token_that_no_header_can_carry_is_not_quoted(server: ScriptedServer, slept: list[float]) -> None:
    for token in ("zwölf-✓-zeichen", "line\nbreak-token"):
        with requests.Session() as session:
            session.headers["Authorization"] = token
            error = error_of(SourceClient(session, server.url, "customers", sleep=slept.append), server.url)
        assert not error.retryable
        assert 'connection "source_api"' in str(error)
        assert token not in str(error)
    assert (server.asked, slept) == ([], [])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)),
        ("Sun, 06 Nov 1994 08:49:37 -0000", datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)),
        ("Sun, 06 Nov 1994 08:49:37 +0200", datetime(1994, 11, 6, 6, 49, 37, tzinfo=UTC)),
        ("Sunday, 06-Nov-94 08:49:37 GMT", datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)),
        ("Sun Nov  6 08:49:37 1994", datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)),
        ("Sun, 46 Nov 1994 08:49:37 GMT", None),
        ("yesterday", None),
        ("", None),
        (None, None),
    ],
)
def test_http_dates(value: str | None, expected: datetime | None) -> None:
    assert http_date(value) == expected


def test_elapsed_is_the_time_to_the_headers(client: SourceClient, server: ScriptedServer) -> None:
    server.on(PATH, Reply())
    answer = get(client, server.url + PATH)
    assert isinstance(answer, Answer)
    assert 0 < answer.elapsed.total_seconds() < 5
