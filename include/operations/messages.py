"""What people are told in Slack: messages as Block Kit payloads, made from plain dataclasses.

Whatever comes from an error or a source is escaped as Slack asks (so that nobody is notified by a text that somebody
else wrote) and cut, so that every payload keeps Slack's limits, which `block_kit` knows.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

Payload = dict[str, Any]
"""`text` (for notifications) and `blocks`, as an incoming webhook takes them."""

RUNBOOK = "docs/runbook.md"
SILENT = "the run ran out of time, or somebody marked it as failed"
TEXT = 500
NAME = 200
LISTED = 8
URL = 1_500
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_IN_A_URL = "/:?#[]@!$&'()*+,;=%"


@dataclass(frozen=True)
class Links:
    """Absolute URLs; None where there is no such page.

    `data_docs` is the page of the validation results, `runbook` the runbook's, `section` the one of it that is about
    the task.
    """

    log: str | None = None
    run: str | None = None
    data_docs: str | None = None
    runbook: str | None = None
    section: str | None = None


@dataclass(frozen=True)
class Check:
    """An expectation that is not met, or a field that has drifted: where, by name, and what was seen, in counts."""

    suite: str
    name: str
    column: str | None
    observed: str


@dataclass(frozen=True)
class FailedTask:
    """A task that has failed by itself; of a mapped task, `instances` of them.

    `error` is one sentence, `section` the one of the runbook that is about the task.
    """

    task_id: str
    error: str
    instances: int = 1
    killed: bool = False
    log: str | None = None
    section: str | None = None


@dataclass(frozen=True)
class Run:
    """The run that a message is about. Times have a time zone.

    `error` is what the run's row says of its end. `entities` are what it was to bring, with the records that were read
    of each (None: not known), `quarantined` those that were rejected. `last_good` is when the pipeline's last good run
    ended, `age` how long ago that is.
    """

    pipeline: str
    run_id: str
    owner: str
    links: Links
    dry_run: bool = False
    started_at: datetime | None = None
    ended_at: datetime | None = None
    records: int = 0
    entities: tuple[tuple[str, int | None], ...] = ()
    quarantined: tuple[tuple[str, int], ...] = ()
    error: str | None = None
    last_good_run: str | None = None
    last_good: datetime | None = None
    age: timedelta | None = None


@dataclass(frozen=True)
class Failure:
    """A run that has failed. `since` is when the outage began and `runs` how many failed in it, this one included."""

    run: Run
    tasks: tuple[FailedTask, ...]
    not_started: int = 0
    checks: tuple[Check, ...] = ()
    warnings: tuple[Check, ...] = ()
    since: datetime | None = None
    runs: int = 1


@dataclass(frozen=True)
class Warnings:
    """A run that has succeeded, with something to look at."""

    run: Run
    warnings: tuple[Check, ...]


@dataclass(frozen=True)
class Late:
    """A pipeline whose last good run is older than `limit`; `run.run_id` is that run's, empty where there is none."""

    run: Run
    limit: timedelta
    failed_since: int = 0


@dataclass(frozen=True)
class Recovered:
    """The end of an outage: how long it was and how many runs failed in it; `was_late` where lateness was told."""

    run: Run
    since: datetime
    length: timedelta
    failed_runs: int
    was_late: bool = False


def failure(what: Failure) -> Payload:
    """The message of a run that has failed, however many of its tasks did."""
    tasks = what.tasks[:LISTED]
    lines = [_task(task) for task in tasks] or [f"No task noted an error: {_short(what.run.error or SILENT, TEXT)}"]
    rest = [f"and {_many(len(what.tasks) - LISTED, 'more task')}"] if len(what.tasks) > LISTED else []
    rest += [f"{_many(what.not_started, 'task')} did not start because of that"] if what.not_started else []
    first = tasks[0] if tasks else None
    said = f"{_short(first.task_id)}: {_short(first.error, TEXT)}" if first else _short(what.run.error or SILENT, TEXT)
    others = len(what.tasks) - 1
    since = what.since if what.runs > 1 else None
    blocks = [
        _header(what.run.pipeline, " failed"),
        _fields(
            what.run,
            ("Tasks failed", _listed(task.task_id for task in what.tasks)),
            ("Failing since", f"{utc(since)}, {_many(what.runs, 'run')}" if since else utc(what.run.ended_at)),
        ),
        *(_section(line) for line in lines),
        *([_section("; ".join(rest))] if rest else []),
        *_checks("Expectations that failed", what.checks),
        *_checks("Warnings", what.warnings),
        _section(f"*What to do*: {_advice(what)}"),
        _links(what.run, *(task.section for task in tasks if task.section), "failure"),
    ]
    text = f"{_short(what.run.pipeline)} failed: {said}" + (
        f" (and {_many(others, 'more task')})" if others > 0 else ""
    )
    return {"text": text, "blocks": blocks}


def warnings(what: Warnings) -> Payload:
    """The message of a run that has succeeded, with warnings."""
    first = _check(what.warnings[0]) if what.warnings else "none"
    others = len(what.warnings) - 1
    blocks = [
        _header(what.run.pipeline, f": {_many(len(what.warnings), 'warning')}"),
        _fields(what.run, good=False),
        *_checks("Warnings", what.warnings),
        _section("*What to do*: nothing was stopped; look at the rows, and mend them where they come from."),
        _links(what.run, "warnings"),
    ]
    text = f"{_short(what.run.pipeline)} warns: {first}" + (f" (and {others:,} more)" if others > 0 else "")
    return {"text": text, "blocks": blocks}


def late(what: Late) -> Payload:
    """The message of a pipeline that has not succeeded for too long."""
    pipeline = _short(what.run.pipeline)
    said = (
        f"its last good run ended {duration(what.run.age)} ago, {duration(what.limit)} are allowed"
        if what.run.last_good is not None and what.run.age is not None
        else f"it has never had a good run, and its first was more than {duration(what.limit)} ago"
    )
    failed = f"Failed since then: {_many(what.failed_since, 'run')}."
    blocks = [
        _header(what.run.pipeline, " is late"),
        _section(f"*{pipeline}*: {said}. {failed}"),
        _fields(what.run),
        _section(
            "*What to do*: look whether the DAG is paused, whether a run hangs or waits for its assets, and whether "
            "the scheduler works."
        ),
        _links(what.run, "late"),
    ]
    return {"text": f"{pipeline} is late: {said}", "blocks": blocks}


def recovered(what: Recovered) -> Payload:
    """The message of the first success after failures or lateness."""
    runs = f"{_many(what.failed_runs, 'run')} failed{', it was late' if what.was_late else ''}"
    said = f"after {duration(what.length)}; {runs}"
    blocks = [
        _header(what.run.pipeline, " has recovered"),
        _section(f"*{_short(what.run.pipeline)}* succeeds again {said}."),
        _fields(what.run, ("Since", utc(what.since)), good=False),
        _links(what.run, "recovered"),
    ]
    return {"text": f"{_short(what.run.pipeline)} has recovered {said}", "blocks": blocks}


def repeated(latest: Payload, *, pipeline: str, times: int, since: datetime, still_late: bool = False) -> Payload:
    """The message at the end of a window in which the same came `times` more after `since`: the latest, with that said.

    `latest` is the payload of the last one that was only counted.
    """
    said = (
        f"still late, as told at {utc(since)}"
        if still_late
        else f"the same {_many(times, 'more time')} since {utc(since)}"
    )
    blocks = latest["blocks"]
    return {
        "text": f"{_short(pipeline)}: {said}: {latest['text']}",
        "blocks": [
            _header(pipeline, ": still late" if still_late else ": the same again"),
            _section(f"*{_short(pipeline)}*: {said}. The latest:"),
            *blocks[1:],
        ],
    }


def duration(length: timedelta | None) -> str:
    """A length for people, in its two largest units: `2 d 3 h`, `1 h 5 min`, `40 s`."""
    if length is None:
        return "-"
    seconds = max(int(length.total_seconds()), 0)
    if seconds < 60:
        return f"{seconds} s"
    parts = [(seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "min")]
    first = next(at for at, (count, _) in enumerate(parts) if count)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count)


def utc(at: datetime | None) -> str:
    """A time for people: `2025-03-04 02:00 UTC`, `-` for none."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC") if at else "-"


def escaped(text: str, limit: int) -> str:
    """`text` on one line, without control characters, escaped as Slack asks, at most `limit` long as it is then.

    It is cut with an ellipsis, never within an escape.
    """
    line = " ".join(_UNPRINTABLE.sub(" ", text).split())
    pieces = [_ESCAPES.get(letter, letter) for letter in line[: limit + 1]]
    if sum(map(len, pieces)) <= limit:
        return "".join(pieces)
    fitting = sum(length < limit for length in itertools.accumulate(map(len, pieces)))
    return "".join(pieces[:fitting]).rstrip() + "…"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _short(text: str, limit: int = NAME) -> str:
    return escaped(text, limit) or "-"


def _link(url: str | None, label: str) -> str | None:
    """None for what is no address of a page, or too long a one."""
    encoded = quote(url or "", safe=_IN_A_URL, errors="replace").replace("&", "&amp;")
    return f"<{encoded}|{label}>" if re.match(r"https?://[^/]", encoded) and len(encoded) <= URL else None


def _task(task: FailedTask) -> str:
    instances = f" ({task.instances:,} instances)" if task.instances > 1 else ""
    log = _link(task.log, "log")
    return f"*{_short(task.task_id)}*{instances}: {_short(task.error, 2 * TEXT)}" + (f" ({log})" if log else "")


def _check(check: Check) -> str:
    column = f" of `{_short(check.column, 100)}`" if check.column else ""
    return f"`{_short(check.name, 100)}`{column} ({_short(check.suite, 100)}): {_short(check.observed, 300)}"


def _checks(title: str, checks: Sequence[Check]) -> list[Payload]:
    """Sections of four lines: none has more than 650 characters."""
    if not checks:
        return []
    lines = [f"• {_check(check)}" for check in checks[:LISTED]]
    lines += [f"and {len(checks) - LISTED:,} more"] if len(checks) > LISTED else []
    parts = [lines[at : at + 4] for at in range(0, len(lines), 4)]
    return [_section("\n".join([f"*{title}*", *part] if not at else part)) for at, part in enumerate(parts)]


def _listed(names: Iterable[str]) -> str:
    known = list(dict.fromkeys(names))
    shown = ", ".join(_short(name, 100) for name in known[:LISTED])
    return f"{shown} and {len(known) - LISTED:,} more" if len(known) > LISTED else shown or "-"


def _advice(what: Failure) -> str:
    if what.checks:
        said = "the failed expectations say which rows; mend them where they come from, then clear the task."
    elif any(task.killed for task in what.tasks):
        said = "look whether the worker ran out of memory or was restarted, then clear the task."
    elif what.tasks:
        said = "the task's log names the cause and what to do; then clear the task: every task is safe to repeat."
    else:
        said = "look at the run for what it waited for, then clear it."
    return said


def _header(pipeline: str, said: str) -> Payload:
    return {"type": "header", "text": {"type": "plain_text", "text": _short(pipeline, 100) + said}}


def _section(text: str) -> Payload:
    return {"type": "section", "text": _markdown(text)}


def _markdown(text: str) -> Payload:
    return {"type": "mrkdwn", "text": text, "verbatim": True}  # else Slack looks for @channel and #names in it


def _fields(run: Run, *more: tuple[str, str], good: bool = True) -> Payload:
    read = (f"{name}: {count:,}" if count is not None else f"{name}: not known" for name, count in run.entities)
    last = f"{utc(run.last_good)}, {duration(run.age)} ago" if run.last_good else "none"
    last += f" ({_short(run.last_good_run)})" if run.last_good_run else ""
    fields = [
        ("Pipeline", _short(run.pipeline)),
        *([("Run", _short(run.run_id) + (" (a dry run)" if run.dry_run else ""))] if run.run_id else []),
        *more,
        *([("Records read", _listed(read))] if run.entities else []),
        *([("Records processed", f"{run.records:,}")] if run.records else []),
        *(
            [("Quarantined", _listed(f"{name}: {count:,}" for name, count in run.quarantined))]
            if run.quarantined
            else []
        ),
        *([("Last good run", last)] if good else []),
        ("Owner", _short(run.owner)),
    ]
    return {"type": "section", "fields": [_markdown(f"*{name}*\n{value}") for name, value in fields]}


def _links(run: Run, *sections: str) -> Payload:
    """The run's page, its Data Docs, and where the runbook says what to do, as a link or at least as a name."""
    named = list(dict.fromkeys(sections))[:4]
    book = ", ".join(_section_of(run.links.runbook, section) for section in named)
    if len(book) > URL:  # of an address that long the name is better than half of it
        book = ", ".join(_section_of(None, section) for section in named)
    shown = [_link(run.links.run, "Run"), _link(run.links.data_docs, "Data Docs"), f"Runbook: {book}"]
    return {"type": "context", "elements": [_markdown(link) for link in shown if link]}


def _section_of(book: str | None, section: str) -> str:
    return _link(book and f"{book}#{section}", _short(section, 50)) or f"`{RUNBOOK}#{_short(section, 50)}`"
