"""What people are told of failures, warnings and lateness, and when: one message for what is one thing.

A failed run makes one message, whatever failed in it. The same failure again, by its fingerprint, within a window of
time is *folded* into the message that opened the window: stored and counted, not told. A window that ends with folded
ones makes one `repeated` message, which opens the next. The first success ends the outage with one `recovered`.

Every function writes rows and leaves the commit to its caller; `outbox` delivers what is committed. Those that write
messages take one lock until that commit, so that two processes never tell the same twice: commit at once. The clock is
the database's.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from psycopg import Connection
from psycopg.types.json import Jsonb

from include.masking import sentence
from include.operations import messages
from include.operations.messages import Check, FailedTask, Links, Payload, Run
from include.operations.quality_results import SUPERSEDED
from include.transform.drift import Drift

LinksOf = Callable[[str | None, int], Links]
"""The addresses of a failed task by its id and map index (-1 where it is not mapped), those of the run for None."""

LATE_WINDOW = timedelta(hours=24)
"""How long lateness that was told is not told again, at least."""

UNTOLD_AGE = timedelta(hours=24)
"""How long after its end a run is told of that nobody was told of: what is older is not news."""

LOCK_SECONDS = 5
"""How long whoever writes messages waits for another who does: a callback must end, and `send_alerts` tells later."""

KILLED = "killed"
_NO_TIME = datetime(1, 1, 1, tzinfo=UTC)
_CLASS = re.compile(r"(?:[\w.]*\.)?([A-Z]\w*(?:Error|Exception|Timeout|Exit|Interrupt))\b")


def note(
    connection: Connection[Any],
    *,
    pipeline: str,
    run_id: str,
    task_id: str,
    map_index: int,
    try_number: int,
    error: BaseException | str | None,
) -> None:
    """Notes what a task that has failed for good knows: the error's class and one sentence, masked.

    `map_index` is -1 where the task is not mapped; `error` is None where nobody knows it. Safe to repeat: the first
    one stays, until the run begins anew.
    """
    connection.execute(
        """
        insert into operations.alerts as a (pipeline, run_id, task_id, map_index, try_number, error_class, error)
        values (%(pipeline)s, %(run_id)s, %(task_id)s, %(map_index)s, %(try_number)s, %(error_class)s, %(error)s)
        on conflict (pipeline, run_id, task_id, map_index, try_number) do update set
          error_class = excluded.error_class,
          error = excluded.error,
          alerted_at = excluded.alerted_at,
          cleared_at = null
        where a.alerted_at < (
          select started_at from operations.pipeline_runs r where r.pipeline = a.pipeline and r.run_id = a.run_id
        )
        """,
        {
            "pipeline": pipeline,
            "run_id": run_id,
            "task_id": task_id,
            "map_index": map_index,
            "try_number": try_number,
            "error_class": _class(error),
            "error": _told(error),
        },
    )


def begin_again(connection: Connection[Any], *, pipeline: str, run_id: str, task_id: str, map_index: int) -> None:
    """Notes that a task begins: what an earlier try of it has noted is history, and no longer why the run fails."""
    connection.execute(
        """
        update operations.alerts
           set cleared_at = clock_timestamp()
         where (pipeline, run_id, task_id, map_index) = (%s, %s, %s, %s) and cleared_at is null
        """,
        (pipeline, run_id, task_id, map_index),
    )


def first_error(
    connection: Connection[Any], *, pipeline: str, run_id: str, states: Mapping[str, str | None]
) -> str | None:
    """What the first of the run's failed tasks has noted, with its name; None where none of them has."""
    noted = _noted(connection, pipeline, run_id, _NO_TIME, states)
    return f"{place(noted[0].task_id, noted[0].map_index)}: {noted[0].error}" if noted and states else None


def untold(
    connection: Connection[Any], *, pipeline: str | None = None, before: str | None = None
) -> list[tuple[str, str, str]]:
    """(pipeline, run_id, status) of the runs that ended in the last day and of which nobody was told, the oldest first.

    Their callbacks are at it, or have died between closing the run's row and telling. Only runs of `pipeline`, where it
    is given, that ended before its run `before`.
    """
    return connection.execute(
        """
        select pipeline, run_id, status
          from operations.pipeline_runs
         where not told and ended_at > clock_timestamp() - %(age)s::interval
           and pipeline = coalesce(%(pipeline)s, pipeline)
           and run_id is distinct from %(before)s
           and ended_at <= coalesce(
             (select ended_at from operations.pipeline_runs where pipeline = %(pipeline)s and run_id = %(before)s),
             'infinity'
           )
         order by ended_at
        """,
        {"age": UNTOLD_AGE, "pipeline": pipeline, "before": before},
    ).fetchall()


def run_failed(
    connection: Connection[Any],
    *,
    pipeline: str,
    run_id: str,
    states: Mapping[str, str | None],
    links: LinksOf,
    owner: str,
    window: timedelta,
) -> int | None:
    """Writes the one message of a run that has ended as failed; gives its id, to be posted now.

    None where the same is folded into an open window, where this failure of the run was told already (one that is
    cleared and fails again counts anew), or where the run has begun again meanwhile. A dry run, and one after which a
    success has been told already, begins no outage and no window. `states` are the run's tasks as Airflow names them
    (`task`, of a mapped one `task_3`); one that failed without a note was killed. Without states the notes say what
    failed. A task that failed before the run was cleared, and was not cleared with it, is among them, with what it said
    then.
    """
    lock_messages(connection)
    ended = _note_told(connection, pipeline, run_id, "failed")
    since = ended and _untold(connection, pipeline, run_id, ended.begun_at)
    if ended is None or since is None:
        return None
    noted = _noted(connection, pipeline, run_id, since, states)
    checks = _checks(connection, pipeline, run_id, since, [one.task_id for one in noted])
    critical = [check for check in checks if check.severity == "critical"]
    failed = _failed(noted, states, links)
    parts = [
        (cause.task_id, *(sorted({check.what.name for check in critical if check.task_id == cause.task_id}) or [kind]))
        for cause, kind in failed
    ]
    is_over = ended.dry_run or ended.has_recovered
    before = NO_OUTAGE if is_over else _outage(connection, pipeline, None)
    payload = messages.failure(
        messages.Failure(
            run=_run(connection, pipeline, run_id, since, owner, links(None, -1)),
            tasks=tuple(task for task, _ in failed),
            not_started=sum(state == "upstream_failed" for state in states.values()),
            checks=tuple(check.what for check in critical),
            warnings=tuple(check.what for check in checks if check.severity == "warning"),
            since=before.since,
            runs=before.runs + 1,
        )
    )
    fingerprint = _fingerprint("failure", pipeline, parts)
    of: dict[str, Any] = {"pipeline": pipeline, "run_id": run_id, "run_started_at": since, "fingerprint": fingerprint}
    message = _tell(connection, kind="failure", **of, payload=payload, window=None if is_over else window)
    if is_over:
        connection.execute("update operations.messages set recovered_by = id where id = %s", (message,))
    return message


def run_succeeded(
    connection: Connection[Any],
    *,
    pipeline: str,
    run_id: str,
    links: LinksOf,
    owner: str,
    window: timedelta,
) -> list[int]:
    """Writes what a run that has succeeded gives to tell; gives the ids of the messages to be posted now.

    One that the pipeline has recovered, where failures or lateness were raised since its last success: it closes their
    windows. One of the run's warnings, where there are any that no open window counts. A dry run proves nothing, and
    opens no window. None where the run has begun again meanwhile. Safe to repeat.
    """
    lock_messages(connection)
    if (ended := _note_told(connection, pipeline, run_id, "success")) is None:
        return []
    told: list[int] = []
    outage = NO_OUTAGE if ended.dry_run else _outage(connection, pipeline, ended.at)
    checks = [check for check in _checks(connection, pipeline, run_id, ended.begun_at) if check.severity == "warning"]
    run = _run(connection, pipeline, run_id, ended.begun_at, owner, links(None, -1)) if outage.since or checks else None
    if run and outage.since:
        what = messages.Recovered(run, outage.since, ended.at - outage.since, outage.runs, outage.late)
        recovered = _insert(
            connection,
            kind="recovered",
            pipeline=pipeline,
            run_id=run_id,
            fingerprint=f"recovered:{pipeline}",
            payload=messages.recovered(what),
        )
        assert recovered is not None  # noqa: S101 - it has no start that could be there already
        connection.execute(
            "update operations.messages set recovered_by = %s where id = any(%s)", (recovered, outage.messages)
        )
        connection.execute(
            """
            update operations.messages
               set window_ends_at = null
             where pipeline = %s and window_ends_at is not null
               and split_part(fingerprint, ':', 1) in ('failure', 'late')
            """,
            (pipeline,),
        )
        told.append(recovered)
    if run and checks:
        warned = _tell(
            connection,
            kind="warnings",
            pipeline=pipeline,
            run_id=run_id,
            run_started_at=ended.begun_at,
            fingerprint=_fingerprint("warnings", pipeline, {check.key for check in checks}),
            payload=messages.warnings(messages.Warnings(run, tuple(check.what for check in checks))),
            window=None if ended.dry_run else window,
        )
        told += [] if warned is None else [warned]
    return told


def late(
    connection: Connection[Any],
    *,
    limits: Mapping[str, timedelta],
    links: Callable[[str], Links],
    owner: str,
    window: timedelta,
) -> list[int]:
    """Writes a message for each pipeline whose last good run ended longer ago than its limit; gives their ids.

    A pipeline that never ran is not late; one that never succeeded counts from its first run. What stays late is told
    again after 24 hours, or `window` if that is longer. `links(pipeline)` gives the addresses of a pipeline.
    """
    lock_messages(connection)
    told: list[int] = []
    for pipeline, limit in sorted(limits.items()):
        found = connection.execute(
            """
            select g.run_id, g.ended_at, g.age, g.failed_since
              from operations.last_good_runs g
             where g.pipeline = %(pipeline)s
               and %(limit)s < clock_timestamp() - coalesce(g.ended_at, g.first_started_at)
            """,
            {"pipeline": pipeline, "limit": limit},
        ).fetchone()
        if found is None:
            continue
        fingerprint = f"late:{pipeline}"
        told += _close(connection, window, fingerprint)
        counted = connection.execute(
            """
            select from operations.messages h
             where h.fingerprint = %s and h.window_ends_at is not null
               and exists (select from operations.messages f where f.folded_into = h.id)
            """,
            (fingerprint,),
        ).fetchone()
        if counted is not None:  # one says that it stays late, however often this is asked
            continue
        good, ended, age, failed = found
        run = Run(pipeline, "", owner, links(pipeline), last_good_run=good, last_good=ended, age=age)
        message = _tell(
            connection,
            kind="late",
            pipeline=pipeline,
            fingerprint=fingerprint,
            payload=messages.late(messages.Late(run, limit, failed)),
            window=max(window, LATE_WINDOW),
        )
        told += [] if message is None else [message]
    return told


def close_windows(connection: Connection[Any], *, window: timedelta) -> list[int]:
    """Closes the windows that are over; gives the ids of the messages that say what they have counted.

    To be called every few minutes: without it nobody hears of what was folded until the same comes again.
    """
    lock_messages(connection)
    return _close(connection, window)


def delete_older(connection: Connection[Any], age: timedelta) -> int:
    """Deletes what was told, and noted, longer ago; gives how many messages.

    What waits to be sent stays, and so do an open window and an outage that has not ended.
    """
    connection.execute("delete from operations.alerts where alerted_at < clock_timestamp() - %s::interval", (age,))
    return connection.execute(
        """
        delete from operations.messages
         where created_at < clock_timestamp() - %s::interval
           and status <> 'pending'
           and window_ends_at is null
           and (kind not in ('failure', 'late') or recovered_by is not null)
        """,
        (age,),
    ).rowcount


def lock_messages(connection: Connection[Any]) -> None:
    """Makes this transaction the only one that writes messages, until its end.

    Raises psycopg.errors.LockNotAvailable where another has been at it for LOCK_SECONDS.
    """
    connection.execute("select set_config('lock_timeout', %s, true)", (f"{LOCK_SECONDS}s",))
    connection.execute("select pg_advisory_xact_lock(hashtextextended('sluice.messages', 0))")


def place(task_id: str, map_index: int) -> str:
    """A task as people know it, with the number of its instance where it is mapped."""
    return task_id if map_index < 0 else f"{task_id}[{map_index}]"


class _Ended(NamedTuple):
    begun_at: datetime
    at: datetime
    dry_run: bool
    has_recovered: bool


class _Noted(NamedTuple):
    task_id: str
    map_index: int
    error_class: str
    error: str


class _Checked(NamedTuple):
    what: Check
    severity: str
    task_id: str | None
    key: tuple[str, str, str]


class _Outage(NamedTuple):
    messages: list[int]
    since: datetime | None
    runs: int
    late: bool


NO_OUTAGE = _Outage([], None, 0, False)


def _class(error: BaseException | str | None) -> str:
    if isinstance(error, BaseException):
        return type(error).__name__
    named = _CLASS.match(error) if error else None
    return named[1] if named else "unknown" if error and error.strip() else KILLED


def _told(error: BaseException | str | None) -> str:
    said = sentence(error)
    if not said:
        return "was killed, or marked as failed by hand"
    if isinstance(error, BaseException) and type(error).__module__ == "builtins" and str(error):
        return f"{type(error).__name__}: {said}"  # KeyError's text is only the key
    return said


def _fingerprint(kind: str, pipeline: str, parts: Iterable[tuple[str, ...]]) -> str:
    """Names what is wrong, without what differs from run to run; short enough for an index."""
    digest = hashlib.sha256(repr(sorted(parts)).encode("utf-8", "replace")).hexdigest()
    return f"{kind}:{pipeline}:{digest[:32]}"


def _note_told(connection: Connection[Any], pipeline: str, run_id: str, status: str) -> _Ended | None:
    """Notes that the run's end is told in this transaction; None where it has not ended so, or no longer.

    Until the transaction ends nobody opens the run again. One without a row began long ago and has ended now, as the
    caller says.
    """
    row = connection.execute(
        """
        select status, started_at, coalesce(ended_at, clock_timestamp()), dry_run, exists (
            select
              from operations.pipeline_runs g
             where g.pipeline = r.pipeline and g.status = 'success' and not g.dry_run and g.told
               and g.started_at > r.started_at  -- a sweep may have closed the row much later than the run ended
          )
          from operations.pipeline_runs r
         where pipeline = %s and run_id = %s
           for update
        """,
        (pipeline, run_id),
    ).fetchone()
    if row is None:
        now = connection.execute("select clock_timestamp()").fetchone()
        assert now is not None  # noqa: S101 - it has one row
        return _Ended(_NO_TIME, now[0], dry_run=False, has_recovered=False)
    if row[0] != status:
        return None
    connection.execute(
        "update operations.pipeline_runs set told = true where pipeline = %s and run_id = %s", (pipeline, run_id)
    )
    return _Ended(*row[1:])


def _untold(connection: Connection[Any], pipeline: str, run_id: str, begun: datetime) -> datetime | None:
    """Since when the run's failure has not been told; None where it has been.

    That is the run's start. A failed task that was cleared alone leaves that as it was: then it is the first failure
    that was noted after the message.
    """
    row = connection.execute(
        """
        select max(created_at)
          from operations.messages
         where kind = 'failure' and pipeline = %s and run_id = %s and run_started_at >= %s
        """,
        (pipeline, run_id, begun),
    ).fetchone()
    if row is None or row[0] is None:
        return begun
    again = connection.execute(
        "select min(alerted_at) from operations.alerts where pipeline = %s and run_id = %s and alerted_at > %s",
        (pipeline, run_id, row[0]),
    ).fetchone()
    return again[0] if again else None


def _noted(
    connection: Connection[Any], pipeline: str, run_id: str, since: datetime, states: Mapping[str, str | None]
) -> list[_Noted]:
    """What the failed tasks have noted, each in its last try, in that order; without states since that time only."""
    rows = connection.execute(
        """
        select task_id, map_index, error_class, error
          from (
            select distinct on (task_id, map_index) *
              from operations.alerts
             where pipeline = %(pipeline)s and run_id = %(run_id)s and cleared_at is null
               and (%(any)s or alerted_at >= %(since)s)
             order by task_id, map_index, alerted_at desc
          ) as last_tries
         order by alerted_at, id
        """,
        {"pipeline": pipeline, "run_id": run_id, "since": since, "any": bool(states)},
    ).fetchall()
    noted = [_Noted(*row) for row in rows]
    return [one for one in noted if not states or states.get(_key(one.task_id, one.map_index)) == "failed"]


def _key(task_id: str, map_index: int) -> str:
    """As Airflow names a task among the states of a run."""
    return task_id if map_index < 0 else f"{task_id}_{map_index}"


def _failed(noted: Iterable[_Noted], states: Mapping[str, str | None], links: LinksOf) -> list[tuple[FailedTask, str]]:
    """The tasks that failed by themselves, in that order, each with its error's class; the killed ones last."""
    silent = {key for key, state in states.items() if state == "failed"}
    by_task: dict[str, list[_Noted]] = {}
    for one in noted:
        by_task.setdefault(one.task_id, []).append(one)
        silent.discard(_key(one.task_id, one.map_index))
    killed: dict[str, list[_Noted]] = {}
    for key in sorted(silent):
        task_id, _, index = key.rpartition("_")
        if not index.isdecimal() or f"{task_id}_0" not in states:
            task_id, index = key, "-1"
        killed.setdefault(task_id, []).append(_Noted(task_id, int(index), KILLED, _told(None)))

    def task(instances: list[_Noted]) -> tuple[FailedTask, str]:
        first = instances[0]
        of = links(first.task_id, first.map_index)
        killed = first.error_class == KILLED
        return FailedTask(first.task_id, first.error, len(instances), killed, of.log, of.section), first.error_class

    return [task(instances) for instances in (*by_task.values(), *killed.values())]


def _checks(
    connection: Connection[Any], pipeline: str, run_id: str, since: datetime, tasks: Sequence[str] = ()
) -> list[_Checked]:
    """The expectations that the run does not meet, by their last evaluation, and how its fields have drifted.

    Of what was evaluated since that time, and of `tasks` whenever that was.
    """
    values = {"pipeline": pipeline, "run_id": run_id, "since": since, "tasks": list(tasks)}
    results = connection.execute(
        f"""
        select q.suite, q.expectation, q.column_name, q.observed, q.severity, q.task_id
          from operations.quality_results q
         where q.pipeline = %(pipeline)s and q.run_id = %(run_id)s
           and (q.checked_at >= %(since)s or q.task_id = any(%(tasks)s))
           and not q.success
           and not {SUPERSEDED}
         order by q.suite, q.id
        """,  # noqa: S608 - a constant
        values,
    ).fetchall()
    drifted = connection.execute(
        """
        select distinct on (entity) entity, drift
          from operations.executions
         where pipeline = %(pipeline)s and run_id = %(run_id)s and started_at >= %(since)s
         order by entity, started_at desc
        """,
        values,
    ).fetchall()
    return [
        *(
            _Checked(Check(suite, name, column, observed), severity, task_id, (suite, name, column or ""))
            for suite, name, column, observed, severity, task_id in results
        ),
        *(
            _Checked(
                Check(entity, "schema drift", None, Drift(**one).text),
                "warning",
                None,
                (entity, f"{one['kind']} field", one["field"]),
            )
            for entity, drift in drifted
            for one in drift
        ),
    ]


def _run(connection: Connection[Any], pipeline: str, run_id: str, since: datetime, owner: str, links: Links) -> Run:
    """The run's figures, from what is logged of it."""
    values = {"pipeline": pipeline, "run_id": run_id, "since": since}
    row = connection.execute(
        """
        select
          r.started_at, r.ended_at, coalesce(r.records_processed, 0), r.error_message, coalesce(r.dry_run, false),
          g.run_id, g.ended_at, g.age
          from (select) as one
          left join operations.pipeline_runs r on r.pipeline = %(pipeline)s and r.run_id = %(run_id)s
          left join operations.last_good_runs g on g.pipeline = %(pipeline)s
        """,
        values,
    ).fetchone()
    assert row is not None  # noqa: S101 - an outer join from one row
    started, ended, records, error, dry_run, good_run, good, age = row
    entities = connection.execute(
        """
        select distinct on (e.entity)
          e.entity,
          e.records_read,
          coalesce(s.quarantined, (
            select count(*)
              from operations.dead_letters l
             where l.entity = e.entity and l.status = 'pending' and l.execution = e.execution
          ))
          from operations.executions e
          left join operations.sync_log s on s.execution = e.execution
         where e.pipeline = %(pipeline)s and e.run_id = %(run_id)s and e.started_at >= %(since)s
         order by e.entity, e.started_at desc
        """,
        values,
    ).fetchall()
    return Run(
        pipeline=pipeline,
        run_id=run_id,
        owner=owner,
        links=links,
        dry_run=dry_run,
        started_at=started,
        ended_at=ended,
        records=records,
        entities=tuple((entity, read) for entity, read, _ in entities),
        quarantined=tuple((entity, count) for entity, _, count in entities if count),
        error=sentence(error) or None,
        last_good_run=good_run,
        last_good=good,
        age=age,
    )


def _outage(connection: Connection[Any], pipeline: str, until: datetime | None) -> _Outage:
    """The messages of the pipeline's failures and lateness that no success has ended, of those that began by `until`.

    A run failed when it ended; if it was begun anew since, when its message was written.
    """
    rows = connection.execute(
        """
        select id, failed_at, kind
          from (
            select m.id, m.kind, coalesce(r.ended_at, m.created_at) as failed_at
              from operations.messages m
              left join operations.pipeline_runs r
                on r.pipeline = m.pipeline and r.run_id = m.run_id
               and r.started_at = m.run_started_at and r.status = 'failed'
             where m.pipeline = %(pipeline)s and m.recovered_by is null and m.kind in ('failure', 'late')
          ) as raised
         where failed_at <= coalesce(%(until)s, 'infinity'::timestamptz)
        """,
        {"pipeline": pipeline, "until": until},
    ).fetchall()
    return _Outage(
        messages=[row[0] for row in rows],
        since=min((row[1] for row in rows), default=None),
        runs=sum(row[2] == "failure" for row in rows),
        late=any(row[2] == "late" for row in rows),
    )


def _tell(
    connection: Connection[Any],
    *,
    kind: str,
    pipeline: str,
    fingerprint: str,
    payload: Payload,
    window: timedelta | None,
    run_id: str | None = None,
    run_started_at: datetime | None = None,
) -> int | None:
    """Opens a window with this message and gives its id; None where an open one counts it, or it was told already.

    Without a window it opens none, and none counts it.
    """
    head = None
    if window is not None:
        _close(connection, window, fingerprint)
        head = connection.execute(
            "select id from operations.messages where fingerprint = %s and window_ends_at is not null", (fingerprint,)
        ).fetchone()
    message = _insert(
        connection,
        kind=kind,
        pipeline=pipeline,
        run_id=run_id,
        run_started_at=run_started_at,
        fingerprint=fingerprint,
        payload=payload,
        folded_into=head[0] if head else None,
        window=None if head else window,
    )
    return None if head else message


def _insert(
    connection: Connection[Any],
    *,
    kind: str,
    pipeline: str,
    fingerprint: str,
    payload: Payload,
    run_id: str | None = None,
    run_started_at: datetime | None = None,
    folded_into: int | None = None,
    window: timedelta | None = None,
) -> int | None:
    row = connection.execute(
        """
        insert into operations.messages
          (kind, pipeline, run_id, run_started_at, fingerprint, payload, status, folded_into, window_ends_at)
        values (
          %(kind)s, %(pipeline)s, %(run_id)s, %(run_started_at)s, %(fingerprint)s, %(payload)s,
          case when %(folded_into)s::bigint is null then 'pending' else 'folded' end,
          %(folded_into)s, clock_timestamp() + %(window)s::interval
        )
        on conflict (kind, pipeline, run_id, run_started_at) do nothing
        returning id
        """,
        {
            "kind": kind,
            "pipeline": pipeline,
            "run_id": run_id,
            "run_started_at": run_started_at,
            "fingerprint": fingerprint,
            "payload": Jsonb(payload),
            "folded_into": folded_into,
            "window": window,
        },
    ).fetchone()
    return row[0] if row else None


def _close(connection: Connection[Any], window: timedelta, fingerprint: str | None = None) -> list[int]:
    """Closes the windows that are over, of one fingerprint or all; opens the next for those that have counted."""
    over = connection.execute(
        """
        with over as (
          update operations.messages
             set window_ends_at = null
           where window_ends_at <= clock_timestamp()
             and (fingerprint = %(fingerprint)s or %(fingerprint)s::text is null)
          returning id, pipeline, fingerprint, created_at
        )
        select o.pipeline, o.fingerprint, o.created_at, counted.times, latest.run_id, latest.kind, latest.payload
          from over o
          cross join lateral (
            select count(*) as times, max(id) as latest from operations.messages f where f.folded_into = o.id
          ) as counted
          join operations.messages latest on latest.id = counted.latest
         order by o.id
        """,
        {"fingerprint": fingerprint},
    ).fetchall()
    told = []
    for pipeline, name, since, times, run_id, kind, payload in over:
        message = _insert(
            connection,
            kind="repeated",
            pipeline=pipeline,
            run_id=run_id,
            fingerprint=name,
            payload=messages.repeated(payload, pipeline=pipeline, times=times, since=since, still_late=kind == "late"),
            window=max(window, LATE_WINDOW) if kind == "late" else window,
        )
        assert message is not None  # noqa: S101 - it has no start that could be there already
        told.append(message)
    return told
