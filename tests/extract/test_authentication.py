"""How sources are logged in to, over real HTTP."""

import base64
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from include.extract import authentication as authenticating
from include.extract.authentication import authentication
from include.extract.client import Answer, SourceClient, SourceError
from include.extract.pagination import PageRequest
from tests.extract.scripted_server import Reply, ScriptedServer

KEY = "k3y-of-the-source"
GRANT = "/token grant_type=client_credentials"


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


def client_with(
    session: requests.Session, server: ScriptedServer, login: str | None, options: dict[str, Any] | None
) -> SourceClient:
    session.auth = authentication(login, KEY, options, session)
    return SourceClient(session, server.url, "customers", attempts=2, sleep=lambda seconds: None)


def ask(client: SourceClient, server: ScriptedServer, path: str = "/a?n=1") -> Answer:
    answer = client.ask(PageRequest(server.url + path))
    assert answer is not None
    return answer


def token(value: str, **more: Any) -> Reply:
    body = {"access_token": value, "token_type": "Bearer"} | more
    return Reply(json.dumps(body).encode(), headers={"Content-Type": "application/json"})


@pytest.mark.parametrize(
    ("login", "options", "header", "sent"),
    [
        (None, None, "Authorization", f"Bearer {KEY}"),
        ("jane", None, "Authorization", f"Basic {base64.b64encode(f'jane:{KEY}'.encode()).decode()}"),
        (None, {"type": "header", "name": "X-API-Key"}, "X-API-Key", KEY),
        (None, {"type": "header", "name": "Authorization", "prefix": "Token "}, "Authorization", f"Token {KEY}"),
    ],
)
def test_a_header(
    session: requests.Session,
    server: ScriptedServer,
    login: str | None,
    options: dict[str, Any] | None,
    header: str,
    sent: str,
) -> None:
    server.on("/a?n=1", Reply(b"[]"), Reply(f"no, {sent} is wrong".encode(), 403))
    client = client_with(session, server, login, options)
    ask(client, server)
    assert server.headers[0][header] == sent
    with pytest.raises(SourceError) as raised:
        ask(client, server)
    assert KEY not in str(raised.value)
    assert "***" in str(raised.value)


def test_nothing_without_a_password(session: requests.Session) -> None:
    assert authentication(None, None, None, session) is None


def test_a_key_in_the_query_stands_there_once_and_is_not_kept(
    session: requests.Session, server: ScriptedServer
) -> None:
    server.on(f"/a?n=1&k={KEY}", Reply(b"[]"), Reply(f"k={KEY} is wrong".encode(), 403))
    client = client_with(session, server, None, {"type": "query", "name": "k"})
    ask(client, server)
    with pytest.raises(SourceError) as raised:
        ask(client, server, f"/a?k=old&n=1&k={KEY}")
    assert KEY not in str(raised.value)
    assert server.asked == [f"/a?n=1&k={KEY}"] * 2
    echoed = PageRequest(f"{server.url}/a?k={KEY}&n=1,2")
    assert client.without_credentials(echoed) == PageRequest(f"{server.url}/a?n=1,2")


def oauth2(session: requests.Session, server: ScriptedServer, login: ScriptedServer, **more: Any) -> SourceClient:
    options = {"type": "oauth2", "token_url": f"{login.url}/token"} | more
    return client_with(session, server, "sluice", options)


def test_client_credentials(
    session: requests.Session,
    server: ScriptedServer,
    other_server: ScriptedServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    other_server.on(GRANT + "&scope=read", token("t0ken-1", expires_in=3600))
    server.on("/a?n=1", Reply(b"[]"))
    client = oauth2(session, server, other_server, scope="read")
    for _ in range(3):
        ask(client, server)
    assert server.tokens == ["Bearer t0ken-1"] * 3
    basic = base64.b64encode(f"sluice:{KEY}".encode()).decode()
    assert other_server.tokens == [f"Basic {basic}"]
    assert KEY not in caplog.text
    assert "t0ken-1" not in caplog.text


def test_client_credentials_in_the_body(
    session: requests.Session, server: ScriptedServer, other_server: ScriptedServer
) -> None:
    other_server.on(f"{GRANT}&client_id=sluice&client_secret={KEY}", token("t0ken-1"))
    server.on("/a?n=1", Reply(b"[]"))
    ask(oauth2(session, server, other_server, in_body=True), server)
    assert (server.tokens, other_server.tokens) == (["Bearer t0ken-1"], [None])


def test_a_token_is_renewed_before_it_expires(
    session: requests.Session,
    server: ScriptedServer,
    other_server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr(authenticating.time, "time", lambda: now[0])
    other_server.on(GRANT, token("t0ken-1", expires_in=600), token("t0ken-2", expires_in=20), token("t0ken-3"))
    server.on("/a?n=1", Reply(b"[]"))
    client = oauth2(session, server, other_server)
    for at in (1000, 1539, 1541, 1550, 1552, 9e9):
        now[0] = at
        ask(client, server)
    assert server.tokens == [f"Bearer t0ken-{n}" for n in (1, 1, 2, 2, 3, 3)]


def test_a_token_that_is_refused_in_the_middle_of_a_run_is_renewed_once(
    session: requests.Session, server: ScriptedServer, other_server: ScriptedServer
) -> None:
    other_server.on(GRANT, token("t0ken-1", expires_in=3600), token("t0ken-2", expires_in=3600))
    server.on("/a?n=1", Reply(b"[]"), Reply(b"expired", 401), Reply(b"[1]"), Reply(b"revoked", 401))
    client = oauth2(session, server, other_server)
    ask(client, server)
    assert ask(client, server).body == b"[1]"
    assert server.tokens == ["Bearer t0ken-1", "Bearer t0ken-1", "Bearer t0ken-2"]
    with pytest.raises(SourceError, match=r'answered 401 .*check the token in connection "source_api"') as raised:
        ask(client, server)
    assert not raised.value.retryable
    assert len(server.tokens) == 5


@pytest.mark.parametrize(
    ("reply", "said", "retryable"),
    [
        (Reply(b'{"error": "invalid_client"}', 401), "its token_url refused a token (invalid_client)", False),
        (Reply(b"down", 503), "its token_url answered 503", True),
        (Reply(b"<html>", 200), "its token_url answered with something else than a token", False),
        (Reply(b"{}", 200), "its token_url answered with something else than a token", False),
        (Reply(b"", 302, {"Location": "/elsewhere"}), "its token_url answered with something else than a token", False),
        (Reply(b"", reset=True), "its token_url could not be asked (ConnectionError)", True),
    ],
)
def test_no_token(
    session: requests.Session,
    server: ScriptedServer,
    other_server: ScriptedServer,
    reply: Reply,
    said: str,
    retryable: bool,
) -> None:
    reply.headers.setdefault("Content-Type", "application/json")
    other_server.on(GRANT, reply)
    with pytest.raises(SourceError) as raised:
        ask(oauth2(session, server, other_server), server)
    assert said in str(raised.value)
    assert 'check connection "source_api"' in str(raised.value)
    assert raised.value.retryable is retryable
    assert len(other_server.asked) == (2 if retryable else 1)
    assert server.asked == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"type": "kerberos"}, """its extra "auth" has the type 'kerberos'"""),
        ({"type": "query"}, 'its extra "auth" of type query has not the names that it needs'),
        ({"type": "oauth2", "token": "x"}, "of type oauth2 has not the names that it needs"),
        ("oauth2", 'its extra "auth" must be an object with a "type"'),
    ],
)
def test_options_that_are_none(session: requests.Session, options: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        authentication("sluice", KEY, options, session)


def test_no_more_requests_a_second_than_the_source_wants(session: requests.Session, server: ScriptedServer) -> None:
    server.on("/a?n=1", Reply(b"[]"))
    slept: list[float] = []
    client = SourceClient(session, server.url, "customers", requests_per_second=0.01, sleep=slept.append)
    for _ in range(3):
        ask(client, server)
    # the test does not sleep, so the waits add up
    assert slept == [pytest.approx(100, abs=10), pytest.approx(200, abs=10)]
