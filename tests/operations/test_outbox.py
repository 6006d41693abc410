"""The outbox: in order, one a second, nothing lost, nothing posted twice while nobody dies."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from include.operations import outbox
from include.operations.messages import Payload
from include.operations.outbox import Answer, Delivered, deliver, log_instead

pytestmark = pytest.mark.database

Database = psycopg.Connection[Any]
OK = Answer(200)


class Slack:
    """A `post` that answers what it was told to, and keeps what it was sent and when."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.sent: list[str] = []
        self.times: list[float] = []

    def __call__(self, payload: Payload) -> Answer:
        self.times.append(time.monotonic())
        self.sent.append(payload["text"])
        return self.answers.pop(0) if self.answers else OK


@pytest.fixture
def db(app_database: str) -> Iterator[Database]:
    with psycopg.connect(app_database, autocommit=True) as connection:
        yield connection


@pytest.fixture
def no_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "PACE", 0.0)


def put(db: Database, *texts: str, pipeline: str = "daily", blocks: Any = None) -> list[int]:
    block = {"type": "section", "text": {"type": "mrkdwn", "text": "x"}}
    ids = []
    for text in texts:
        row = db.execute(
            """
            insert into operations.messages (kind, pipeline, fingerprint, payload)
            values ('failure', %s, %s, %s) returning id
            """,
            (pipeline, text, Jsonb({"text": text, "blocks": [block] if blocks is None else blocks})),
        ).fetchone()
        assert row is not None
        ids.append(row[0])
    return ids


def stored(db: Database) -> list[tuple[Any, ...]]:
    """(text, status, attempts, error), in order."""
    rows = db.execute("select payload ->> 'text', status, attempts, error from operations.messages order by id")
    return rows.fetchall()


def waits(db: Database) -> dict[str, int]:
    """Seconds until each may be tried again, in tens."""
    rows = db.execute(
        """
        select payload ->> 'text', round(extract(epoch from next_attempt_at - clock_timestamp()), -1)::int
          from operations.messages
         where status = 'pending'
        """
    )
    return dict(rows.fetchall())


def make_due(db: Database) -> None:
    db.execute("update operations.messages set next_attempt_at = clock_timestamp()")


@pytest.mark.usefixtures("no_pace")
def test_what_waits_is_sent_oldest_first(db: Database) -> None:
    put(db, "a", "b")
    put(db, "c", pipeline="delta")
    slack = Slack()
    assert deliver(db, slack, seconds=10) == Delivered(sent=3, refused=0, waiting=0)
    assert slack.sent == ["a", "b", "c"]
    assert stored(db) == [("a", "sent", 1, None), ("b", "sent", 1, None), ("c", "sent", 1, None)]
    assert deliver(db, slack, seconds=10) == Delivered(0, 0, 0)


@pytest.mark.usefixtures("no_pace")
@pytest.mark.parametrize("status", [400, 413])
def test_what_slack_refuses_is_not_tried_again(db: Database, status: int) -> None:
    put(db, "a", "b")
    slack = Slack(Answer(status, None, "invalid_blocks at https://hooks.slack.com/services/T/B/x"))
    assert deliver(db, slack, seconds=10) == Delivered(sent=1, refused=1, waiting=0)
    assert stored(db) == [("a", "refused", 1, "invalid_blocks at ***"), ("b", "sent", 1, None)]


@pytest.mark.usefixtures("no_pace")
def test_what_breaks_a_limit_is_not_posted(db: Database) -> None:
    put(db, "a", blocks=[{"type": "poem"}])
    put(db, "b")
    slack = Slack()
    assert deliver(db, slack, seconds=10) == Delivered(sent=1, refused=1, waiting=0)
    assert slack.sent == ["b"]
    (_, status, _, error), _ = stored(db)
    assert (status, error.partition(": ")[0]) == ("refused", "not posted, it breaks Slack's limits")


@pytest.mark.usefixtures("no_pace")
@pytest.mark.parametrize(
    ("retry_after", "seconds"), [(120.0, 120), (None, 30), (float("nan"), 30), (-1.0, 30), (1e9, 3600)]
)
def test_after_429_all_wait_as_long_as_slack_says(db: Database, retry_after: float | None, seconds: int) -> None:
    put(db, "a", "b")
    put(db, "c", pipeline="delta")
    slack = Slack(OK, Answer(429, retry_after, "rate_limited"))
    assert deliver(db, slack, seconds=10) == Delivered(sent=1, refused=0, waiting=2)
    assert waits(db) == {"b": seconds, "c": 0}
    assert stored(db)[1:] == [("b", "pending", 0, "rate_limited"), ("c", "pending", 0, None)]  # not in vain
    (later,) = put(db, "d", pipeline="late")
    assert deliver(db, slack, seconds=10, only=[later]) == Delivered(0, 0, 1)
    assert deliver(db, slack, seconds=10) == Delivered(0, 0, 3)
    make_due(db)
    assert deliver(db, slack, seconds=10) == Delivered(3, 0, 0)
    assert slack.sent == ["a", "b", "b", "c", "d"]


@pytest.mark.usefixtures("no_pace")
def test_a_server_that_is_down_may_say_for_how_long(db: Database) -> None:
    put(db, "a")
    put(db, "b", pipeline="delta")
    slack = Slack(Answer(503, 300.0, "maintenance"))
    assert deliver(db, slack, seconds=10) == Delivered(0, 0, 2)
    assert waits(db) == {"a": 300, "b": 0}
    assert deliver(db, slack, seconds=10) == Delivered(0, 0, 2)
    assert slack.sent == ["a"]
    for _ in range(8):  # however often: it is there, and says so
        make_due(db)
        assert deliver(db, Slack(Answer(503, 300.0, "maintenance")), seconds=10) == Delivered(0, 0, 2)


@pytest.mark.usefixtures("no_pace")
@pytest.mark.parametrize("status", [403, 404, 405, 410])
def test_a_webhook_that_takes_nothing_does_not_cost_all_that_waits(db: Database, status: int) -> None:
    put(db, "a", "b")
    slack = Slack(Answer(status, None, "no_service: make a new one"))
    unusable = "no_service: make a new one"
    assert deliver(db, slack, seconds=10) == Delivered(sent=0, refused=1, waiting=1, unusable=unusable)
    assert deliver(db, slack, seconds=10, only=[]) == Delivered(0, 0, 0, unusable)  # nobody has mended it yet
    assert deliver(db, slack, seconds=10) == Delivered(sent=1, refused=0, waiting=0)
    assert stored(db) == [("a", "refused", 1, unusable), ("b", "sent", 1, None)]


@pytest.mark.usefixtures("no_pace")
def test_where_there_is_no_webhook_it_is_tried_each_time(db: Database) -> None:
    put(db, "a", "b")
    for number in range(3):
        slack = Slack(Answer(None, None, "no password", is_unusable=True))
        assert deliver(db, slack, seconds=10) == Delivered(0, 0, 2, "no password")
        assert slack.sent == ["a"]
        assert stored(db)[0] == ("a", "pending", outbox.PATIENCE + number, "no password")
        assert waits(db)["a"] == 0
    assert deliver(db, Slack(), seconds=10) == Delivered(2, 0, 0)


@pytest.mark.usefixtures("no_pace")
@pytest.mark.parametrize(("status", "is_open"), [(200, True), (400, False), (404, False)])
def test_a_message_that_nobody_has_read_counts_no_longer(db: Database, status: int, is_open: bool) -> None:
    put(db, "a", "without a window")
    db.execute("update operations.messages set window_ends_at = now() + interval '1 hour' where id = 1")
    deliver(db, Slack(Answer(status)), seconds=10, only=[1])
    deliver(db, Slack(Answer(status)), seconds=10, only=[2])
    rows = db.execute("select window_ends_at > clock_timestamp() from operations.messages order by id").fetchall()
    assert rows == [(is_open,), (None,)]


@pytest.mark.usefixtures("no_pace")
@pytest.mark.parametrize("then", [Answer(None, None, "no answer"), Answer(429, 60.0), Answer(503, 60.0)])
def test_a_webhook_is_unusable_until_a_message_gets_through(db: Database, then: Answer) -> None:
    put(db, "a", "b")
    gone = Delivered(0, 1, 1, "no_service")
    assert deliver(db, Slack(Answer(404, None, "no_service")), seconds=10) == gone
    assert deliver(db, Slack(then), seconds=10) == Delivered(0, 0, 1, "no_service")
    db.execute("update operations.messages set refused_all = false, attempts = %s", (outbox.PATIENCE,))
    make_due(db)
    assert deliver(db, Slack(Answer(503, 60.0, "busy")), seconds=10) == Delivered(0, 0, 1, "busy")
    make_due(db)
    assert deliver(db, Slack(), seconds=10) == Delivered(1, 0, 0)


def test_what_is_refused_counts_for_the_pace(db: Database) -> None:
    put(db, "a", "b")
    slack = Slack(Answer(400, None, "invalid_blocks"))
    assert deliver(db, slack, seconds=0.5) == Delivered(sent=0, refused=1, waiting=1)
    assert deliver(db, slack, seconds=10) == Delivered(sent=1, refused=0, waiting=0)
    assert slack.times[1] - slack.times[0] > 0.99


@pytest.mark.usefixtures("no_pace")
def test_what_was_posted_is_marked_though_somebody_holds_its_row(app_database: str, db: Database) -> None:
    put(db, "a")
    slack = Slack()
    with psycopg.connect(app_database) as other:
        other.execute("select from operations.messages for update")
        release = threading.Timer(1.0, other.rollback)
        release.start()
        assert deliver(db, slack, seconds=0.5) == Delivered(1, 0, 0)
        release.join()
    assert slack.sent == ["a"]


@pytest.mark.usefixtures("no_pace")
@pytest.mark.parametrize(
    "answer", [Answer(500, None, "oops"), Answer(None, None, "no answer"), Answer(302), Answer(408)]
)
def test_without_an_answer_it_waits_longer_and_longer(db: Database, answer: Answer) -> None:
    put(db, "a", "b")
    put(db, "c", pipeline="delta")
    seen = []
    said = answer.error or f"status {answer.status}"
    for number in range(7):
        slack = Slack(answer)
        unusable = said if number == 6 else ""  # after more than half an hour
        assert deliver(db, slack, seconds=10, only=[1]) == Delivered(0, 0, 1, unusable)
        assert slack.sent == ["a"]
        seen.append(waits(db)["a"])
        assert deliver(db, slack, seconds=10, only=[1, 2]) == Delivered(0, 0, 2, unusable)  # b does not overtake a
        make_due(db)
    assert seen == [30, 60, 120, 240, 480, 900, 900]
    assert stored(db)[0] == ("a", "pending", 7, answer.error or f"status {answer.status}")
    slack = Slack(answer)
    assert deliver(db, slack, seconds=10) == Delivered(0, 0, 3, said)
    assert slack.sent == ["a"]  # Slack is not there: the others are not tried now
    assert deliver(db, slack, seconds=10) == Delivered(1, 0, 2, said)  # another pipeline's does not wait for a
    assert slack.sent == ["a", "c"]


@pytest.mark.usefixtures("no_pace")
def test_only_some_with_what_comes_before_them(db: Database) -> None:
    put(db, "old")
    put(db, "other", pipeline="delta")
    (new,) = put(db, "new")
    put(db, "newer")
    slack = Slack()
    assert deliver(db, slack, seconds=10, only=[new]) == Delivered(sent=2, refused=0, waiting=0)
    assert slack.sent == ["old", "new"]
    assert deliver(db, slack, seconds=10, only=[]) == Delivered(0, 0, 0)
    assert deliver(db, slack, seconds=10) == Delivered(2, 0, 0)


def test_two_processes_send_each_message_once_and_one_a_second(app_database: str, db: Database) -> None:
    put(db, "a", "b", "c", "d")
    slack = Slack()
    results = []

    def send() -> None:
        with psycopg.connect(app_database) as connection:  # not autocommit
            results.append(deliver(connection, slack, seconds=10))

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert slack.sent == ["a", "b", "c", "d"]
    assert sum(result.sent for result in results) == 4
    gaps = [after - before for before, after in zip(slack.times, slack.times[1:], strict=False)]
    assert all(gap > 0.99 for gap in gaps), gaps


def test_a_call_ends_in_time(app_database: str, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "PACE", 30.0)
    put(db, "a", "b", "c")
    slack = Slack()
    began = time.monotonic()
    assert deliver(db, slack, seconds=0.5) == Delivered(sent=1, refused=0, waiting=2)
    assert time.monotonic() - began < 5
    with psycopg.connect(app_database) as other:
        other.execute("select pg_advisory_xact_lock(hashtextextended('sluice.slack', 0))")
        began = time.monotonic()
        assert deliver(db, slack, seconds=0.5) == Delivered(0, 0, 2)
        assert 0.4 < time.monotonic() - began < 5
    assert slack.sent == ["a"]


@pytest.mark.usefixtures("no_pace")
def test_a_crash_loses_nothing(db: Database) -> None:
    put(db, "a", "b")
    slack = Slack()

    def dies(payload: Payload) -> Answer:
        if payload["text"] == "b":
            raise KeyboardInterrupt
        return slack(payload)

    with pytest.raises(KeyboardInterrupt):
        deliver(db, dies, seconds=10)
    assert [row[:2] for row in stored(db)] == [("a", "sent"), ("b", "pending")]
    assert deliver(db, slack, seconds=10) == Delivered(1, 0, 0)
    assert slack.sent == ["a", "b"]


def test_a_transaction_that_is_open_is_not_committed(app_db: Database) -> None:
    put(app_db, "a")
    with pytest.raises(ValueError, match="commit or roll back"):
        deliver(app_db, Slack(), seconds=10)


def test_without_slack_the_texts_go_to_the_log(db: Database) -> None:
    put(db, "a", "b", "c")
    assert log_instead(db, only=[2]) == ["b"]
    assert log_instead(db) == ["a", "c"]
    assert log_instead(db) == []
    assert [row[:2] for row in stored(db)] == [("a", "logged"), ("b", "logged"), ("c", "logged")]
    assert deliver(db, Slack(), seconds=10) == Delivered(0, 0, 0)
