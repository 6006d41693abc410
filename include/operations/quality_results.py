"""`operations.quality_results`: what every quality check found, an evaluation after the other.

An evaluation is one suite, evaluated once by one try of a task; its rows are written together, at one time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from psycopg import Connection
from psycopg.rows import class_row

if TYPE_CHECKING:
    from include.quality.gate import CheckResult

SUPERSEDED = """
  exists (
    select
      from operations.quality_results later
     where (later.pipeline, later.run_id, later.task_id, later.suite) = (q.pipeline, q.run_id, q.task_id, q.suite)
       and later.evaluation <> q.evaluation
       and later.checked_at > q.checked_at
  )
"""
"""Whether the run has made the evaluation of the result `q` anew, by another try of the task: it says nothing then."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation in numbers: how many checks were met, how many failed by severity, and the names of those."""

    evaluation: UUID
    run_id: str
    task_id: str
    suite: str
    checked_at: datetime
    met: int
    warnings: int
    critical: int
    failed: list[str]


def record(
    connection: Connection[Any],
    *,
    evaluation: UUID,
    pipeline: str,
    run_id: str,
    task_id: str,
    suite: str,
    results: Sequence[CheckResult],
) -> None:
    """Notes the results of an evaluation, in the place of any that it had. The caller commits."""
    connection.execute("delete from operations.quality_results where evaluation = %s", (evaluation,))
    at = connection.execute("select clock_timestamp()").fetchone()
    with connection.cursor() as cursor:
        cursor.executemany(
            """
            insert into operations.quality_results
              (evaluation, pipeline, run_id, task_id, suite, checked_at,
               expectation, column_name, severity, success, expected, observed, unexpected, sample_keys)
            values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
            """,
            [
                (
                    *(evaluation, pipeline, run_id, task_id, suite, at and at[0]),
                    *(check.name, check.column, check.severity, check.success),
                    *(check.expected, check.observed, check.unexpected, list(check.sample_keys)),
                )
                for check in results
            ],
        )


def recent(connection: Connection[Any], pipeline: str, limit: int) -> list[Evaluation]:
    """The newest `limit` evaluations of a pipeline, newest first; what it costs does not grow with those before."""
    query = """
      with recursive times as (
        (
          select checked_at, 1 as number
            from operations.quality_results
           where pipeline = %(pipeline)s
           order by checked_at desc
           limit 1
        )
        union all
        select earlier.checked_at, times.number + 1
          from times
         cross join lateral (
           select checked_at
             from operations.quality_results
            where pipeline = %(pipeline)s and checked_at < times.checked_at
            order by checked_at desc
            limit 1
         ) as earlier
         where times.number < %(limit)s
      )
      select
        q.evaluation,
        q.run_id,
        q.task_id,
        q.suite,
        q.checked_at,
        count(*) filter (where q.success) as met,
        count(*) filter (where not q.success and q.severity = 'warning') as warnings,
        count(*) filter (where not q.success and q.severity = 'critical') as critical,
        coalesce(array_agg(q.expectation order by q.severity, q.id) filter (where not q.success), '{}') as failed
        from times
       cross join lateral (
         select *
           from operations.quality_results
          where pipeline = %(pipeline)s and checked_at = times.checked_at
          offset 0 -- else it may be planned as a join with the whole table
       ) as q
       group by q.evaluation, q.run_id, q.task_id, q.suite, q.checked_at
       order by q.checked_at desc, q.evaluation
       limit %(limit)s
    """
    with connection.cursor(row_factory=class_row(Evaluation)) as cursor:
        # Not prepared: a plan that is kept, made when the table was small, reads all of it.
        return cursor.execute(query, {"pipeline": pipeline, "limit": limit}, prepare=False).fetchall()


def kept(connection: Connection[Any], pipeline: str, runs: int) -> set[UUID]:
    """The evaluations of the pipeline's newest `runs`, and of all others those in which something critical failed."""
    rows = connection.execute(
        """
        with newest as (
          select run_id
            from operations.quality_results
           where pipeline = %(pipeline)s
           group by run_id
           order by max(checked_at) desc
           limit %(runs)s
        )
        select distinct evaluation
          from operations.quality_results
         where pipeline = %(pipeline)s
           and (run_id in (select run_id from newest) or not success and severity = 'critical')
        """,
        {"pipeline": pipeline, "runs": runs},
    )
    return {evaluation for (evaluation,) in rows}


def to_look_at(connection: Connection[Any], pipeline: str, run_id: str, task_id: str | None = None) -> UUID | None:
    """The evaluation since the run began, of one task or of any, that says most; None where there is none.

    Of a task that failed before the run was cleared, and was not cleared with it, the one that it failed with.
    What is critical comes before warnings, and those before what is met; of the same the newest. One that another try
    of the task has made anew says nothing any more.
    """
    row = connection.execute(
        f"""
        select q.evaluation
          from operations.quality_results q
          left join operations.pipeline_runs r using (pipeline, run_id)
         where pipeline = %(pipeline)s
           and run_id = %(run_id)s
           and (%(task_id)s::text is null or q.task_id = %(task_id)s)
           and (
             r.started_at is null
             or q.checked_at >= r.started_at
             or exists (
               select
                 from operations.alerts a
                where (a.pipeline, a.run_id, a.task_id) = (q.pipeline, q.run_id, q.task_id) and a.cleared_at is null
             )
           )
           and not {SUPERSEDED}
         order by q.success, q.severity, q.checked_at desc
         limit 1
        """,  # noqa: S608 - a constant of this module
        {"pipeline": pipeline, "run_id": run_id, "task_id": task_id},
    ).fetchone()
    return row[0] if row else None


def delete_older(connection: Connection[Any], age: timedelta) -> int:
    """Deletes the results that are older; gives how many. An evaluation goes as a whole."""
    return connection.execute(
        "delete from operations.quality_results where checked_at < now() - %s::interval", (age,)
    ).rowcount
