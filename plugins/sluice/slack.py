"""Slack's side of alerts: one message to the incoming webhook that the connection `slack_alerts` leads to.

The webhook's URL is a secret: whoever knows it can write to the channel. Nothing here logs it or puts it into an error.
"""

from __future__ import annotations

import http.client
import logging
import re
import socket
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit

from airflow.providers.slack.hooks.slack_webhook import SlackWebhookHook
from airflow.sdk.exceptions import AirflowNotFoundException
from slack_sdk import WebhookClient
from slack_sdk.webhook import WebhookResponse

from include.extract.client import http_date
from include.operations.outbox import Answer

CONNECTION = "slack_alerts"
QUICK_SECONDS = 6
"""How long a post may take where the DAG processor waits for it."""
PATIENT_SECONDS = 30
"""How long it may take elsewhere: one that Slack takes, but slowly, is not to be posted again and again."""

_REMEDIES = {
    "action_prohibited": "the workspace's administrators do not let this webhook post: ask them",
    "channel_is_archived": "unarchive the channel, or make a webhook for another one and put it into the connection",
    "channel_not_found": "the channel is gone: make a webhook for another one and put it into the connection",
    "no_service": "the webhook was removed or switched off: make a new one and put it into the connection",
    "no_team": "the webhook's workspace is not known: look at its URL in the connection",
    "invalid_token": "the webhook's URL is not right: look at it in the connection",
}
_PROXYS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED)
"""What proxies answer in place of a server."""
_CODE = re.compile(r"[a-z][a-z_]{1,59}")
_FORM = '{"conn_type": "slackwebhook", "password": "https://hooks.slack.com/services/..."}'


class ConnectionUnusableError(Exception):
    """The connection cannot lead to a webhook. The message says what it should be and holds no secret."""


def is_configured() -> bool:
    """Whether there is a webhook to post to: False where the connection is missing, or declared without a password.

    One of another type counts as configured, whatever it holds: `post` says what is wrong with it, whereas alerts that
    went to the log only would not be missed.
    """
    try:
        connection = SlackWebhookHook.get_connection(CONNECTION)
    except AirflowNotFoundException:
        return False
    return bool((connection.password or "").strip()) or connection.conn_type != SlackWebhookHook.conn_type


def post(payload: dict[str, Any], *, seconds: int = QUICK_SECONDS) -> Answer:
    """Posts one message, once; gives what became of it and raises nothing.

    Takes at most `seconds`, the look-up of the host's name and an answer that drips included; the server may say
    nothing for a second less, while it is connected to and between two parts of its answer.

    `payload` holds `text` and `blocks` as Slack takes them. A proxy is the connection's own (extra `proxy`), else the
    environment's, but for what NO_PROXY names. The answer's `status` is None where none came, or one that is not a
    webhook's: only a 200 whose body is `ok` is a message that was taken. Its `error` is empty then, and never holds
    the URL.
    """
    try:
        client = _client(seconds - 1)
    except (ConnectionUnusableError, AirflowNotFoundException) as error:
        return Answer(None, None, f'connection "{CONNECTION}": {error}', is_unusable=True)
    answers: list[Answer] = []

    def send() -> None:
        try:
            answers.append(_read(client.send_dict(payload)))
        except Exception as error:  # of any kind: the library lets everything through
            answers.append(Answer(None, None, _told(error, client)))

    # A thread, since the time-out is for each read: a server that drips, or a resolver that hangs, has no end by it.
    thread = threading.Thread(target=send, name="slack", daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else Answer(None, None, f"no whole answer within {seconds} s")


def _client(seconds: int) -> WebhookClient:
    """A client that neither tries again nor logs: both would print the URL."""
    connection = SlackWebhookHook.get_connection(CONNECTION)
    if connection.conn_type != SlackWebhookHook.conn_type:
        raise ConnectionUnusableError(f'its type is "{connection.conn_type}", it should be {_FORM}')
    password = (connection.password or "").strip()
    if not password:
        raise ConnectionUnusableError(f"it has no password, it should be {_FORM}")
    start, slash, _ = password.partition("/")
    if "://" not in password and slash and "." in start:
        raise ConnectionUnusableError(
            "its password looks like a URL without a scheme: put https:// in front of it, or leave the token only"
        )
    silent = logging.Logger("slack", level=logging.CRITICAL + 1)  # noqa: LOG001 - one that no setting of logs reaches
    hook = SlackWebhookHook(slack_webhook_conn_id=CONNECTION, timeout=seconds, retry_handlers=[], logger=silent)
    client = hook.client
    try:
        parts = urlsplit(client.url)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        usable = None
    if not usable or not client.url.isascii() or re.search(r"[\x00-\x20\x7f]", client.url):
        raise ConnectionUnusableError("its host and password make no http or https URL")
    return client


def _read(response: WebhookResponse) -> Answer:
    status, body = response.status_code, response.body.strip()
    if status == HTTPStatus.OK:
        if body == "ok":
            return Answer(status, None, "")
        return Answer(
            None, None, 'the answer is 200 but not Slack\'s "ok": does a proxy or another server answer in its place?'
        )
    is_code = _CODE.fullmatch(body) is not None
    if status in _PROXYS and not is_code:
        return Answer(
            None, None, f"the answer is {status} but not in Slack's words: does a proxy refuse the way to it?"
        )
    said = f"{status} {body}" if is_code else f"{status}"
    remedy = _REMEDIES.get(body)
    return Answer(status, _retry_after(response.headers), f"Slack answers {said}{f': {remedy}' if remedy else ''}")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by the answer's `Retry-After`; a date is taken relative to the answer's own `Date`."""
    given = {name.lower(): value for name, value in headers.items()}
    value = given.get("retry-after", "")
    at = http_date(value)
    if at is None:
        return float(value) if value.isdecimal() else None
    return max((at - (http_date(given.get("date")) or datetime.now(UTC))).total_seconds(), 0.0)


def _told(error: Exception, client: WebhookClient) -> str:
    """What went wrong on the way. Only what is known to be harmless is quoted: some errors hold the whole URL."""
    reason = error.reason if isinstance(error, URLError) else error
    match reason:
        case socket.gaierror():
            return f"the name {urlsplit(client.url).hostname} cannot be resolved"
        case TimeoutError():
            return f"no answer within {client.timeout} s"
        case http.client.IncompleteRead():
            return "the answer breaks off"
        case OSError():
            return f"{type(reason).__name__}: {reason.strerror or 'the connection breaks off'}"
        case _:
            return f"{type(reason).__name__} while the message was sent"
