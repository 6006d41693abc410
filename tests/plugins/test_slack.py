"""Posting to a webhook: what is sent, what each answer becomes, how long it may take, and that no secret gets out."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from include.operations.outbox import Answer
from sluice import slack
from tests.slack_payloads import REFUSED, TAKEN
from tests.slack_server import PATH, TOKEN, RefusedError, Reply, SlackServer, check, serving_slack

MESSAGE: dict[str, Any] = {
    "text": "daily_sync failed",
    "blocks": [
        {"type": "header", "text": {"type": "plain_text", "text": "daily_sync failed: Zoë & <co> 🌊"}},
        {"type": "section", "fields": [{"type": "mrkdwn", "text": "*Task*\n`customers.gate`"}]},
    ],
}
OK = Answer(200, None, "")
NOT_OK = 'the answer is 200 but not Slack\'s "ok": does a proxy or another server answer in its place?'


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlackServer]:
    with serving_slack() as server:
        monkeypatch.setenv("AIRFLOW_CONN_SLACK_ALERTS", server.connection)
        yield server


@pytest.fixture(autouse=True)
def _nothing_tells_the_secret(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Whatever a test does, neither a log, at any level, nor an output holds the token."""
    caplog.set_level(logging.DEBUG)
    yield
    out, err = capfd.readouterr()
    told = "\n".join([caplog.text, out, err])
    assert TOKEN not in told
    assert TOKEN.rpartition("/")[2] not in told


def connect(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_ALERTS", json.dumps({"conn_type": "slackwebhook", **fields}))


def test_a_message_arrives_as_it_was_built(server: SlackServer) -> None:
    assert slack.is_configured()
    assert slack.post(MESSAGE) == OK
    assert server.payloads == [MESSAGE]
    assert server.requests == [("POST", PATH)]


def test_the_library_has_no_log_that_could_print_the_url(server: SlackServer) -> None:
    """At debug it would write the URL, the token and the message; Airflow's own filters hide that from the fixture."""
    logger = slack._client(1).logger
    assert not logger.isEnabledFor(logging.CRITICAL)
    assert logger.parent is None


@pytest.mark.parametrize("where", ["the whole URL as password", "host and token"])
def test_both_forms_of_the_connection_lead_there(
    server: SlackServer, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    if where == "host and token":
        connect(monkeypatch, host=f"{server.base}/services", password=f" {TOKEN}\n", port=1)
    else:
        connect(monkeypatch, password=server.url)
    assert slack.post(MESSAGE) == OK
    assert server.payloads == [MESSAGE]


ANSWERS = {
    (400, "invalid_payload"): "Slack answers 400 invalid_payload",
    (400, "invalid_blocks"): "Slack answers 400 invalid_blocks",
    (403, "action_prohibited"): "Slack answers 403 action_prohibited: "
    "the workspace's administrators do not let this webhook post: ask them",
    (404, "no_service"): "Slack answers 404 no_service: "
    "the webhook was removed or switched off: make a new one and put it into the connection",
    (404, "channel_not_found"): "Slack answers 404 channel_not_found: "
    "the channel is gone: make a webhook for another one and put it into the connection",
    (410, "channel_is_archived"): "Slack answers 410 channel_is_archived: "
    "unarchive the channel, or make a webhook for another one and put it into the connection",
    (404, f"<html>no {PATH} here</html>"): "Slack answers 404",
    (500, "rollup_error"): "Slack answers 500 rollup_error",
    (503, ""): "Slack answers 503",
    (302, "moved without saying where"): "Slack answers 302",
}


@pytest.mark.parametrize(("status", "body"), list(ANSWERS))
def test_a_refusal_is_told_with_what_to_do(server: SlackServer, status: int, body: str) -> None:
    server.script = [Reply(status, body)]
    assert slack.post(MESSAGE) == Answer(status, None, ANSWERS[status, body])
    assert len(server.requests) == 1, "it tries once"


def test_what_slack_would_refuse_is_refused(server: SlackServer) -> None:
    assert slack.post({"blocks": [{"type": "poem"}]}) == Answer(400, None, "Slack answers 400 invalid_blocks")
    assert slack.post({}) == Answer(400, None, "Slack answers 400 invalid_payload")
    assert server.payloads == []


DATE = datetime(2026, 1, 15, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "30"}, 30.0),
        ({"retry-after": "0"}, 0.0),
        (
            {
                "Retry-After": format_datetime(DATE + timedelta(seconds=90), usegmt=True),
                "Date": format_datetime(DATE, usegmt=True),
            },
            90.0,
        ),
        ({"Retry-After": format_datetime(DATE, usegmt=True)}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_how_long_to_wait(server: SlackServer, status: int, headers: dict[str, str], seconds: float | None) -> None:
    server.script = [Reply(status, "", headers)]
    assert slack.post(MESSAGE) == Answer(status, seconds, f"Slack answers {status}")


@pytest.mark.parametrize("body", ["<html>Sign in to the network</html>", "OK", ""])
def test_a_page_in_place_of_slack_is_no_message_that_was_taken(server: SlackServer, body: str) -> None:
    server.script = [Reply(200, body)]
    assert slack.post(MESSAGE) == Answer(None, None, NOT_OK)


@pytest.mark.parametrize("status", [401, 403, 407])
def test_a_proxy_that_refuses_is_not_slack_that_refuses(server: SlackServer, status: int) -> None:
    server.script = [Reply(status, "<html>Access denied by policy</html>")]
    said = f"the answer is {status} but not in Slack's words: does a proxy refuse the way to it?"
    assert slack.post(MESSAGE) == Answer(None, None, said)


@pytest.mark.parametrize(("status", "expected"), [(302, Answer(None, None, NOT_OK)), (307, None), (308, None)])
def test_a_redirect_is_no_message_that_was_taken(server: SlackServer, status: int, expected: Answer | None) -> None:
    server.script = [Reply(status, "", {"Location": f"{server.base}/login"}), Reply(200, "<html>Log in</html>")]
    assert slack.post(MESSAGE) == (expected or Answer(status, None, f"Slack answers {status}"))
    assert server.payloads == []


def test_an_answer_that_breaks_off(server: SlackServer) -> None:
    server.script = [Reply(missing=10), Reply(500, "half", missing=10), Reply(reset=True)]
    assert [slack.post(MESSAGE) for _ in range(3)] == [
        Answer(None, None, "the answer breaks off"),
        Answer(None, None, "the answer breaks off"),
        Answer(None, None, "ConnectionResetError: Connection reset by peer"),
    ]


def test_nobody_listens_and_no_such_host(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    connect(monkeypatch, password=f"http://127.0.0.1:{port}{PATH}")
    assert slack.post(MESSAGE) == Answer(None, None, "ConnectionRefusedError: Connection refused")
    connect(monkeypatch, password=f"http://a-name-without-an-address.invalid{PATH}")
    assert slack.post(MESSAGE) == Answer(None, None, "the name a-name-without-an-address.invalid cannot be resolved")


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(wait=5), "no answer within 1 s"),
        (Reply(500, "x" * 100, drip=0.1), "no whole answer within 2 s"),
    ],
)
def test_a_server_that_is_silent_or_drips_is_given_up(server: SlackServer, reply: Reply, error: str) -> None:
    server.script = [reply]
    started = time.monotonic()
    assert slack.post(MESSAGE, seconds=2) == Answer(None, None, error)
    assert time.monotonic() - started < 8


def test_a_proxy_is_the_connections_or_else_the_environments_with_its_exceptions(
    server: SlackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_slack() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.base)
        monkeypatch.setenv("HTTPS_PROXY", proxy.base)
        proxy.script = [Reply(502, "through the proxy")] * 2
        assert slack.post(MESSAGE) == Answer(502, None, "Slack answers 502")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert slack.post(MESSAGE) == OK
        monkeypatch.delenv("NO_PROXY")
        monkeypatch.setenv("HTTPS_PROXY", server.base)
        connect(monkeypatch, host=f"{server.base}/services", password=TOKEN, extra={"proxy": proxy.base})
        assert slack.post(MESSAGE) == Answer(502, None, "Slack answers 502")
        assert proxy.requests == [("POST", server.url)] * 2
    assert server.payloads == [MESSAGE]


@pytest.mark.parametrize("given", [None, "", "slackwebhook://", '{"conn_type": "slackwebhook", "password": " "}'])
def test_without_a_webhook_it_is_not_configured(monkeypatch: pytest.MonkeyPatch, given: str | None) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_SLACK_ALERTS", raising=False)
    if given is not None:
        monkeypatch.setenv("AIRFLOW_CONN_SLACK_ALERTS", given)
    assert not slack.is_configured()
    answer = slack.post(MESSAGE)
    assert (answer.status, answer.retry_after) == (None, None)
    assert answer.error.startswith('connection "slack_alerts": ')


FORM = '{"conn_type": "slackwebhook", "password": "https://hooks.slack.com/services/..."}'
SCHEMELESS = "its password looks like a URL without a scheme: put https:// in front of it, or leave the token only"
NO_URL = "its host and password make no http or https URL"


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (f"https://hooks.slack.com{PATH}", f'its type is "https", it should be {FORM}'),
        (f"hooks.slack.com{PATH}", f'its type is "", it should be {FORM}'),
        (json.dumps({"conn_type": "slack", "password": TOKEN}), f'its type is "slack", it should be {FORM}'),
        (json.dumps({"conn_type": "slackwebhook", "password": f"hooks.slack.com{PATH}"}), SCHEMELESS),
        (json.dumps({"conn_type": "slackwebhook", "password": f"ftp://hooks.slack.com{PATH}"}), NO_URL),
        (json.dumps({"conn_type": "slackwebhook", "password": f"http://127.0.0.1:port{PATH}"}), NO_URL),
        (json.dumps({"conn_type": "slackwebhook", "password": f"https://hooks.slack.com{PATH}\nx"}), NO_URL),
        (json.dumps({"conn_type": "slackwebhook", "password": f"https://hooks.slack.com{PATH}ü"}), NO_URL),
        (json.dumps({"conn_type": "slackwebhook", "host": "http://", "password": TOKEN}), None),
    ],
)
def test_a_wrong_connection_is_configured_and_says_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, given: str, error: str | None
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_ALERTS", given)
    assert slack.is_configured()
    if error:
        assert slack.post(MESSAGE) == Answer(None, None, f'connection "slack_alerts": {error}', is_unusable=True)


@pytest.mark.parametrize("payload", TAKEN)
def test_the_server_of_these_tests_takes_what_slack_takes(payload: Any) -> None:
    check(payload)


@pytest.mark.parametrize(("payload", "code"), REFUSED)
def test_the_server_of_these_tests_refuses_what_slack_refuses(payload: Any, code: str) -> None:
    with pytest.raises(RefusedError) as caught:
        check(payload)
    assert caught.value.code == code
