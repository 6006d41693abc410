"""Messages keep Slack's limits and notify nobody, whatever the texts that they are made from."""

from __future__ import annotations

import html
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from include.operations import messages
from include.operations.block_kit import problems
from include.operations.messages import Check, FailedTask, Failure, Late, Links, Payload, Recovered, Run, escaped

NASTY = [
    "<!channel> <@U012AB3CD> @here & <https://evil.test|click>",
    "x" * 100_000,
    "&" * 100_000,
    "👩‍👩‍👧‍👦" * 20_000,
    "\0\x1b[31m\ud800\u2028\r\n\t",
    "&amp;<",
    "",
]
TEXT = st.one_of(st.text(st.characters(exclude_categories=[])), st.sampled_from(NASTY))
URL = st.one_of(st.none(), TEXT, TEXT.map(lambda text: f"https://airflow.test/{text}"))
URL |= st.integers(1, 1600).map(lambda length: f"https://airflow.test/{'x' * length}")
LINKS = st.builds(Links, URL, URL, URL, URL)
TIME = st.datetimes(timezones=st.just(UTC))
COUNT = st.integers(0, 10**12)
LENGTH = st.timedeltas(timedelta(-1), timedelta(999))
NAMED = st.lists(st.tuples(TEXT, COUNT), max_size=20).map(tuple)
RUN = st.builds(
    Run, TEXT, TEXT, TEXT, LINKS, st.booleans(), st.none() | TIME, st.none() | TIME, COUNT, NAMED, NAMED,
    st.none() | TEXT, st.none() | TEXT, st.none() | TIME, st.none() | LENGTH,
)  # fmt: skip
CHECKS = st.lists(st.builds(Check, TEXT, TEXT, st.none() | TEXT, TEXT), max_size=12).map(tuple)
TASKS = st.lists(st.builds(FailedTask, TEXT, TEXT, st.integers(1, 99), st.booleans(), URL, TEXT), max_size=12).map(
    tuple
)
PAYLOAD = st.one_of(
    st.builds(Failure, RUN, TASKS, COUNT, CHECKS, CHECKS, st.none() | TIME, COUNT).map(messages.failure),
    st.builds(messages.Warnings, RUN, CHECKS).map(messages.warnings),
    st.builds(Late, RUN, LENGTH, COUNT).map(messages.late),
    st.builds(Recovered, RUN, TIME, LENGTH, COUNT, st.booleans()).map(messages.recovered),
)


def shown(payload: Payload) -> list[str]:
    """Every text of a payload."""
    texts = [payload["text"]]
    for block in payload["blocks"]:
        parts = [block.get("text"), *block.get("fields", []), *block.get("elements", [])]
        texts += [part["text"] for part in parts if part]
    return texts


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink texts of 100,000 characters takes minutes
)
@given(PAYLOAD, st.booleans(), TEXT, COUNT, TIME)
def test_no_text_breaks_a_limit_or_notifies_anybody(
    payload: Payload, again: bool, pipeline: str, times: int, since: datetime
) -> None:
    if again:
        payload = messages.repeated(payload, pipeline=pipeline, times=times, since=since)
    assert problems(payload) == []
    assert len(payload["text"]) < 3_000
    json.dumps(payload, ensure_ascii=False).encode()  # no lone surrogates
    for text in shown(payload):
        assert len(text.encode("utf-16-le")) // 2 <= 3_000
        assert "\0" not in text
        assert re.sub(r"<https?://[^<>|\s]+\|[^<>]+>", "", text).count("<") == 0
        assert re.findall(r"&(?!amp;|lt;|gt;)", text) == []  # cut within an escape


@given(TEXT, st.integers(1, 200))
def test_escaped_text_is_a_beginning_of_the_text(text: str, limit: int) -> None:
    cut = escaped(text, limit)
    assert len(cut) <= limit
    line = " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", " ", text).split())
    said = html.unescape(cut) if "&" in cut else cut
    assert said == line or (cut.endswith("…") and line.startswith(said[:-1]))


def test_long_lists_are_counted() -> None:
    run = Run("daily", "r1", "data", Links())
    checks = tuple(Check("customers", f"check_{number}", None, "1 row") for number in range(20))
    tasks = tuple(FailedTask(f"task_{number}", "broke") for number in range(20))
    said = shown(messages.failure(Failure(run, tasks, not_started=3, checks=checks)))
    assert said[0] == "daily failed: task_0: broke (and 19 more tasks)"
    assert "and 12 more tasks; 3 tasks did not start because of that" in said
    assert [text.rpartition("\n")[2] for text in said if text.startswith("and ") or "check_7" in text] == [
        "and 12 more tasks; 3 tasks did not start because of that",
        "• `check_7` (customers): 1 row",
        "and 12 more",
    ]


def test_links_are_pages_only() -> None:
    run = Run(
        "daily", "r1", "data", Links(run="javascript:alert(1)", data_docs="/sluice", runbook="https://r/a|b?c&d e")
    )
    (context,) = [
        block for block in messages.late(Late(run, timedelta(hours=1)))["blocks"] if block["type"] == "context"
    ]
    assert [element["text"] for element in context["elements"]] == ["Runbook: <https://r/a%7Cb?c&amp;d%20e#late|late>"]


@pytest.mark.parametrize("length", [100, 740, 1400])
def test_long_addresses_of_the_runbook_become_names(length: int) -> None:
    run = Run("daily", "r1", "data", Links(runbook=f"https://r/{'x' * length}"))
    tasks = tuple(FailedTask(name, "broke", section=name) for name in ("extract", "stage", "gate", "publish"))
    payload = messages.failure(Failure(run, tasks))
    assert problems(payload) == []
    assert ("<https://r/" in shown(payload)[-1]) == (length == 100)
    assert "publish" in shown(payload)[-1]


def section(text: str) -> Payload:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def fields(count: int, length: int) -> Payload:
    return {"type": "section", "fields": [{"type": "mrkdwn", "text": "x" * length}] * count}


def header(length: int, kind: str = "plain_text") -> Payload:
    return {"type": "header", "text": {"type": kind, "text": "x" * length}}


def context(count: int) -> Payload:
    return {"type": "context", "elements": [{"type": "mrkdwn", "text": "x"}] * count}


def button(length: int, url: int) -> Payload:
    text = {"type": "plain_text", "text": "x" * length}
    return {"type": "actions", "elements": [{"type": "button", "text": text, "url": "https://" + "x" * (url - 8)}]}


@pytest.mark.parametrize(
    ("fits", "does_not", "where"),
    [
        ([section("x")] * 50, [section("x")] * 51, "blocks"),
        ([section("x" * 3_000)], [section("x" * 3_001)], "blocks.0.section.text.mrkdwn.text"),
        ([section("x")], [section("")], "blocks.0.section.text.mrkdwn.text"),
        ([section("x")], [{"type": "section"}], "blocks.0.section"),
        ([fields(10, 1)], [fields(11, 1)], "blocks.0.section.fields"),
        ([fields(1, 2_000)], [fields(1, 2_001)], "blocks.0.section.fields.0"),
        ([header(150)], [header(151)], "blocks.0.header.text"),
        ([header(1)], [header(1, "mrkdwn")], "blocks.0.header.text.type"),
        ([context(10)], [context(11)], "blocks.0.context.elements"),
        ([button(75, 9)], [button(76, 9)], "blocks.0.actions.elements.0.text"),
        ([button(1, 3_000)], [button(1, 3_001)], "blocks.0.actions.elements.0.url"),
        (
            [section("x") | {"block_id": "x" * 255}],
            [section("x") | {"block_id": "x" * 256}],
            "blocks.0.section.block_id",
        ),
        ([{"type": "divider"}], [{"type": "unknown"}], "blocks.0"),
    ],
)
def test_problems_are_what_slack_refuses(fits: list[Any], does_not: list[Any], where: str) -> None:
    assert problems({"text": "x", "blocks": fits}) == []
    (found,) = problems({"text": "x", "blocks": does_not})
    assert found.partition(": ")[0] == where


def test_the_text_for_notifications_has_a_limit_too() -> None:
    blocks = [section("x")]
    assert problems({"text": "x" * 40_000, "blocks": blocks}) == []
    assert [len(problems({"text": text, "blocks": blocks})) for text in ("x" * 40_001, "", None)] == [1, 1, 1]


def test_times_are_utc() -> None:
    assert messages.utc(datetime.fromisoformat("2025-03-04T03:30+02:00")) == "2025-03-04 01:30 UTC"
    assert messages.utc(None) == "-"


def test_lengths_have_two_units() -> None:
    seconds = (-5, 0, 59, 60, 3600, 3660, 86400, 90060, 86460)
    lengths = [messages.duration(timedelta(seconds=second)) for second in seconds]
    assert lengths == ["0 s", "0 s", "59 s", "1 min", "1 h", "1 h 1 min", "1 d", "1 d 1 h", "1 d"]
