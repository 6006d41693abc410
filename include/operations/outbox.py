"""The outbox: messages wait in `operations.messages` until Slack has taken them.

At least once: a message is marked as sent in the transaction that posts it, so that one whose sender dies between
Slack's answer and the commit is posted again, and none is lost.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal

from psycopg import Connection, errors
from psycopg.pq import TransactionStatus

from include.masking import sentence
from include.operations.block_kit import problems
from include.operations.messages import Payload

PACE = 1.0
"""Seconds between two messages: Slack takes one a second from a webhook."""

OF_THE_MESSAGE = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
"""Refusals that are about one message. Others are about the webhook: the next message would be refused, too."""

FIRST_BACKOFF = 30.0
LONGEST_BACKOFF = 900.0
PATIENCE = 7
"""After so many tries of a message in vain, half an hour at least, the webhook counts as unusable."""
LONGEST_RETRY_AFTER = 3600.0

_WANTED = """
  m.status = 'pending' and (%(only)s::bigint[] is null or exists (
    select from operations.messages w where w.id = any(%(only)s) and w.pipeline = m.pipeline and w.id >= m.id
  ))
"""


@dataclass(frozen=True)
class Answer:
    """What came of a post: the HTTP status, None where there was no answer; `retry_after` in seconds, if the answer
    said so; `error`, the answer's body or what broke, without secrets: empty where all went well. `is_unusable` where
    there is no webhook to ask: what it should be has to be mended first.
    """

    status: int | None
    retry_after: float | None = None
    error: str = ""
    is_unusable: bool = False


@dataclass(frozen=True)
class Delivered:
    """How many messages a call has sent, how many are refused for good, how many still wait.

    `unusable` says why nothing gets to Slack by this webhook, until something does: what was posted last was refused
    like all else would be, or a message has been tried in vain for too long. Empty where that is not so.
    """

    sent: int
    refused: int
    waiting: int
    unusable: str = ""


def deliver(
    connection: Connection[Any],
    post: Callable[[Payload], Answer],
    *,
    seconds: float,
    only: Sequence[int] | None = None,
) -> Delivered:
    """Posts what waits, oldest first and a pipeline's in order, for at most `seconds` (plus the length of one post).

    At most one message a second, whatever the number of processes. With `only`, these messages and the older ones of
    their pipelines. A message that breaks Slack's limits, or that Slack refuses (4xx), is never tried again, and its
    window ends; where Slack refuses whatever comes by this webhook, the call ends, so that the others wait
    for a better one. After 429 nothing is posted for as long as Slack says; no answer, or 5xx, makes the message wait,
    from half a minute to a quarter of an hour, and ends the call. `post` gives an Answer whatever happens; what it
    raises is raised on, its message waits.

    Every message is a transaction of its own, for which `connection` must be outside of one, autocommit or not. Raises
    ValueError where it is not.
    """
    if connection.info.transaction_status is not TransactionStatus.IDLE:
        raise ValueError("deliver() commits message by message: commit or roll back what the connection has begun")
    wanted = None if only is None else list(only)
    deadline = time.monotonic() + seconds
    counts: Counter[str] = Counter()
    outcome = ""
    while outcome not in ("gone", "stop") and (left := deadline - time.monotonic()) > 0:
        try:
            with connection.transaction():
                outcome = _next(connection, post, wanted, left)
        except errors.LockNotAvailable:
            break
        counts[outcome] += 1
    with connection.transaction():
        row = connection.execute(
            f"select count(*) from operations.messages m where {_WANTED}",  # noqa: S608 - a constant of this module
            {"only": wanted},
        ).fetchone()
        unusable = _unusable(connection)
    return Delivered(counts["sent"], counts["refused"] + counts["gone"], row[0] if row else 0, unusable)


def log_instead(connection: Connection[Any], *, only: Sequence[int] | None = None) -> list[str]:
    """Where there is no Slack: marks what waits, or `only` these, as logged; gives their texts, oldest first.

    The caller logs them and commits.
    """
    rows = connection.execute(
        """
        with logged as (
          update operations.messages
             set status = 'logged'
           where status = 'pending' and (id = any(%(only)s) or %(only)s::bigint[] is null)
          returning id, payload ->> 'text'
        )
        select * from logged order by 1
        """,
        {"only": None if only is None else list(only)},
    ).fetchall()
    return [text for _, text in rows]


def _next(
    connection: Connection[Any], post: Callable[[Payload], Answer], only: list[int] | None, left: float
) -> Literal["sent", "refused", "gone", "stop"]:
    """Posts the next message, if one is due and its turn comes within `left` seconds; gives what came of it.

    `gone`: it was refused, and the next one would be.
    """
    until = time.monotonic() + left
    connection.execute("select set_config('lock_timeout', %s, true)", (f"{max(1, int(left * 1000))}ms",))
    connection.execute("select pg_advisory_xact_lock(hashtextextended('sluice.slack', 0))")
    connection.execute("set local lock_timeout = 0")  # what was posted is to be marked, whoever holds its row a moment
    row = connection.execute(
        f"""
        select m.id, m.payload, m.attempts, (
            select extract(epoch from clock_timestamp() - max(posted_at))::float8 from operations.messages
          )
          from operations.messages m
         where {_WANTED} and m.next_attempt_at <= clock_timestamp()
           and not exists (
             select from operations.messages o where o.status = 'pending' and o.pipeline = m.pipeline and o.id < m.id
           )
           and not exists (
             select
               from operations.messages h
              where h.status = 'pending' and h.holds_all and h.next_attempt_at > clock_timestamp()
           )
         order by m.id
         limit 1
        """,  # noqa: S608 - a constant of this module
        {"only": only},
    ).fetchone()
    if row is None:
        return "stop"
    message, payload, attempts, age = row
    if found := problems(payload):
        _mark(connection, message, "refused", f"not posted, it breaks Slack's limits: {'; '.join(found)}")
        return "refused"
    wait = 0.0 if age is None else max(0.0, PACE - max(age, 0.0))
    if time.monotonic() + wait >= until:
        return "stop"
    time.sleep(wait)
    answer = post(payload)
    if not answer.is_unusable:  # else nothing was posted
        connection.execute("update operations.messages set posted_at = clock_timestamp() where id = %s", (message,))
    match answer.status:
        case int(status) if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            _mark(connection, message, "sent", None)
            return "sent"
        case int(status) if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in (
            HTTPStatus.REQUEST_TIMEOUT,
            HTTPStatus.TOO_MANY_REQUESTS,
        ):
            is_gone = status not in OF_THE_MESSAGE
            _mark(connection, message, "refused", answer.error or str(status), is_gone=is_gone)
            return "gone" if is_gone else "refused"
        case _:
            _wait(connection, message, answer, attempts)
            return "stop"


def _mark(
    connection: Connection[Any],
    message: int,
    status: Literal["sent", "refused"],
    error: str | None,
    *,
    is_gone: bool = False,
) -> None:
    connection.execute(
        """
        update operations.messages
           set status = %(status)s,
               attempts = attempts + 1,
               sent_at = case when %(status)s = 'sent' then clock_timestamp() end,
               window_ends_at = case
                 when %(status)s = 'sent' or window_ends_at is null then window_ends_at
                 else clock_timestamp()
               end,
               refused_all = %(is_gone)s,
               error = %(error)s
         where id = %(message)s and status = 'pending'
        """,
        {"message": message, "status": status, "is_gone": is_gone, "error": sentence(error) or None},
    )


def _wait(connection: Connection[Any], message: int, answer: Answer, attempts: int) -> None:
    """Lets the message wait, and all others with it where Slack says for how long: such a try was not in vain.

    Where there is no webhook to ask it is tried each time: nothing is posted then.
    """
    status = answer.status or 0
    is_down = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    held = status == HTTPStatus.TOO_MANY_REQUESTS or (is_down and answer.retry_after is not None)
    if answer.is_unusable:
        seconds, attempts = 0.0, max(attempts + 1, PATIENCE)
    elif held:
        seconds = _retry_after(answer)
    else:
        seconds, attempts = min(FIRST_BACKOFF * 2 ** min(attempts, 10), LONGEST_BACKOFF), attempts + 1
    connection.execute(
        """
        update operations.messages
           set next_attempt_at = clock_timestamp() + make_interval(secs => %(seconds)s),
               holds_all = %(held)s,
               attempts = %(attempts)s,
               error = %(error)s
         where id = %(message)s and status = 'pending'
        """,
        {
            "message": message,
            "seconds": seconds,
            "held": held,
            "attempts": attempts,
            "error": sentence(answer.error) or f"status {answer.status}",
        },
    )


def _unusable(connection: Connection[Any]) -> str:
    row = connection.execute(
        """
        select coalesce(error, 'refused')
          from operations.messages
         where (status = 'pending' and attempts >= %s)
            or (
              refused_all
              and id = (
                select id
                  from operations.messages
                 where posted_at is not null and status <> 'pending'
                 order by posted_at desc
                 limit 1
              )
            )
         order by id desc
         limit 1
        """,
        (PATIENCE,),
    ).fetchone()
    return row[0] if row else ""


def _retry_after(answer: Answer) -> float:
    seconds = answer.retry_after
    known = seconds is not None and math.isfinite(seconds) and seconds >= 0
    return min(seconds, LONGEST_RETRY_AFTER) if known and seconds is not None else FIRST_BACKOFF
