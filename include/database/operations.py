"""The tables of `operations`: what ran, what it did, and what was rejected."""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    DDL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    event,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

TIME = DateTime(timezone=True)

LAST_GOOD_RUNS = """
create view operations.last_good_runs as
select
  p.pipeline,
  g.run_id,
  g.started_at,
  g.ended_at,
  clock_timestamp() - g.ended_at as age,
  (
    select count(*)
      from operations.pipeline_runs f
     where f.pipeline = p.pipeline
       and f.status = 'failed'
       and not f.dry_run
       and f.ended_at > coalesce(g.ended_at, '-infinity')
  ) as failed_since,
  p.first_started_at
  from (
    select pipeline, min(started_at) as first_started_at
      from operations.pipeline_runs
     where not dry_run
     group by pipeline
  ) as p
  left join lateral (
    select run_id, started_at, ended_at
      from operations.pipeline_runs r
     where r.pipeline = p.pipeline and r.status = 'success' and not r.dry_run
     order by r.ended_at desc
     limit 1
  ) as g on true
"""
"""Every pipeline, with its last successful run, if there is one, how long ago it ended, how often it failed since.

One that has never succeeded is waited for since its first run: `first_started_at`. Dry runs prove nothing.
"""


def operations_tables(metadata: MetaData) -> None:
    """Adds the tables of `operations` to `metadata`."""
    executions = Table(
        "executions",
        metadata,
        Column("execution", Uuid(), primary_key=True),
        Column("entity", Text(), nullable=False),
        Column("mode", Text(), nullable=False),
        Column("pipeline", Text(), nullable=False),
        Column("run_id", Text(), nullable=False),
        Column("landing", Text(), nullable=False, comment="URI of the folder that holds the landed pages"),
        Column("since", TIME, comment="what the fetch asked from; null for a whole snapshot"),
        Column(
            "started_at",
            TIME,
            nullable=False,
            server_default=text("clock_timestamp()"),
            comment="this database's clock",
        ),
        Column("fetched_at", TIME, comment="the source's clock when the fetch began; null until it is known"),
        Column("records_read", BigInteger(), comment="counted from the landed bytes; null until all have landed"),
        Column(
            "settled",
            Boolean(),
            nullable=False,
            server_default=text("true"),
            comment="false where the source's pages shifted, so that the watermark must stay",
        ),
        Column("until", TIME, comment="how far a first load by windows has come; null: to the source's present"),
        Column(
            "fields", JSONB(), nullable=False, server_default=text("'{}'"), comment="records by field and JSON type"
        ),
        Column("drift", JSONB(), nullable=False, server_default=text("'[]'"), comment="how the fields have changed"),
        Column("allow_deletes", Boolean(), nullable=False, server_default=text("false")),
        Column("allow_quarantined", Boolean(), nullable=False, server_default=text("false")),
        Column("trust_source", Boolean(), nullable=False, server_default=text("false")),
        Column("reset_watermark", Boolean(), nullable=False, server_default=text("false")),
        CheckConstraint("mode in ('snapshot', 'delta', 'replay')", name="mode"),
        schema="operations",
    )
    Index(
        None,
        executions.c.pipeline,
        executions.c.run_id,
        executions.c.entity,
        info={
            "serves": "a retry that looks for what its run has begun; the end of a run that drops its staging tables"
        },
    )
    sync_log = Table(
        "sync_log",
        metadata,
        Column("id", BigInteger(), Identity(always=True), primary_key=True),
        Column("execution", Uuid(), nullable=False),
        Column("entity", Text(), nullable=False),
        Column("mode", Text(), nullable=False),
        Column("run_id", Text(), nullable=False),
        Column("since", TIME),
        Column("fetched_at", TIME, nullable=False),
        Column("watermark", TIME),
        *(
            Column(name, BigInteger(), nullable=False)
            for name in (
                "records_read",
                "inserted",
                "updated",
                "unchanged",
                "stale",
                "duplicate",
                "quarantined",
                "deleted",
            )
        ),
        Column(
            "regressed", BigInteger(), nullable=False, comment="stale although the row was fetched before this began"
        ),
        Column(
            "unreadable_keys", ARRAY(Text()), nullable=False, comment="hashes of the records whose key is unreadable"
        ),
        Column(
            "fields", JSONB(), nullable=False, server_default=text("'{}'"), comment="records by field and JSON type"
        ),
        Column("drift", JSONB(), nullable=False, server_default=text("'[]'"), comment="how the fields have changed"),
        Column("started_at", TIME, nullable=False, comment="this database's clock when the execution began"),
        Column("synced_at", TIME, nullable=False, server_default=text("clock_timestamp()")),
        UniqueConstraint("execution"),
        CheckConstraint(
            "records_read = inserted + updated + unchanged + stale + duplicate + quarantined", name="accounting"
        ),
        schema="operations",
    )
    Index(
        None, sync_log.c.entity, sync_log.c.id, info={"serves": "the newest row of an entity: its watermark in force"}
    )
    Index(
        None,
        sync_log.c.entity,
        sync_log.c.fetched_at,
        postgresql_where=text("mode = 'snapshot'"),
        info={"serves": "the last published snapshot of an entity, and the one that first missed a row"},
    )
    dead_letters = Table(
        "dead_letters",
        metadata,
        Column("id", BigInteger(), Identity(always=True), primary_key=True),
        Column("pipeline", Text(), nullable=False),
        Column("entity", Text(), nullable=False),
        Column("record_key", Text(), nullable=False, comment="the key, or sha256: and the payload's hash"),
        Column("record_version", TIME, comment="the rejected record's own version, where it can be read"),
        Column("stage", Text(), nullable=False),
        Column("payload", JSONB(), comment="null where jsonb cannot hold it"),
        Column("payload_raw", LargeBinary(), nullable=False),
        Column("error", Text(), nullable=False),
        Column("attempts", Integer(), nullable=False, server_default=text("1"), comment="executions that rejected it"),
        Column("status", Text(), nullable=False, server_default=text("'pending'")),
        Column("landing_ref", Text()),
        Column("execution", Uuid(), nullable=False, comment="the last execution that rejected it"),
        Column("fetched_at", TIME, nullable=False),
        Column("queued_at", TIME, nullable=False, server_default=func.now()),
        Column("resolved_at", TIME),
        Column("resolution", Text(), comment="why somebody discarded it"),
        CheckConstraint("status in ('pending', 'replayed', 'superseded', 'discarded')", name="status"),
        schema="operations",
    )
    Index(
        "uq_dead_letters_pending",
        dead_letters.c.entity,
        dead_letters.c.record_key,
        unique=True,
        postgresql_where=text("status = 'pending'"),
        info={"serves": "one pending letter a record; the pending letters of an entity"},
    )
    pipeline_runs = Table(
        "pipeline_runs",
        metadata,
        Column("id", BigInteger(), Identity(always=True), primary_key=True),
        Column("pipeline", Text(), nullable=False),
        Column("run_id", Text(), nullable=False),
        Column("started_at", TIME, nullable=False, server_default=func.now()),
        Column("ended_at", TIME),
        Column("status", Text(), nullable=False, server_default=text("'running'")),
        Column("records_processed", BigInteger(), nullable=False, server_default=text("0")),
        Column("error_message", Text()),
        Column("dry_run", Boolean(), nullable=False, server_default=text("false")),
        Column(
            "told",
            Boolean(),
            nullable=False,
            server_default=text("false"),
            comment="whether the alerts know how it ended; if not, send_alerts tells them",
        ),
        UniqueConstraint("pipeline", "run_id"),
        CheckConstraint("status in ('running', 'success', 'failed')", name="status"),
        schema="operations",
    )
    Index(
        None,
        pipeline_runs.c.ended_at,
        postgresql_where=text("not told"),
        info={"serves": "the runs of which nobody was told"},
    )
    Index(
        None,
        pipeline_runs.c.pipeline,
        pipeline_runs.c.status,
        pipeline_runs.c.ended_at,
        info={"serves": "the last good run of a pipeline, and how often it failed since"},
    )
    loaded_files = Table(
        "loaded_files",
        metadata,
        Column("id", BigInteger(), Identity(always=True), primary_key=True),
        Column("entity", Text(), nullable=False),
        Column("uri", Text(), nullable=False),
        Column("size", BigInteger(), nullable=False, comment="bytes, as the file lies there"),
        Column("checksum", Text(), comment="the store's or our own, by its name; null where it was passed over unread"),
        Column("modified_at", TIME, nullable=False, comment="the store's clock"),
        Column("records", BigInteger(), comment="null where it was passed over"),
        Column("execution", Uuid(), nullable=False, comment="the one that landed it"),
        Column(
            "status",
            Text(),
            nullable=False,
            server_default=text("'pending'"),
            comment="pending until publish commits; a pending file is landed again by the next execution",
        ),
        Column("loaded_at", TIME, comment="when publish committed it"),
        UniqueConstraint("execution", "uri"),
        CheckConstraint("status in ('pending', 'loaded', 'passed over')", name="status"),
        CheckConstraint("(status = 'pending') = (loaded_at is null)", name="loaded_at"),
        schema="operations",
    )
    Index(
        None,
        loaded_files.c.entity,
        loaded_files.c.uri,
        postgresql_where=text("status <> 'pending'"),
        info={"serves": "what an entity's next extract knows: the last that was published of each file"},
    )
    Table(
        "geocodes",
        metadata,
        Column("geocoder", Text(), primary_key=True),
        Column("address", LargeBinary(), primary_key=True, comment="SHA-256 of the parts that the geocoder reads"),
        Column("latitude", Double(), comment="degrees, WGS 84; null where the geocoder knows no such address"),
        Column("longitude", Double()),
        Column("answered_at", TIME, nullable=False, server_default=text("clock_timestamp()")),
        CheckConstraint("latitude between -90 and 90 and longitude between -180 and 180", name="degrees"),
        CheckConstraint("(latitude is null) = (longitude is null)", name="both_or_none"),
        schema="operations",
    )
    _quality_tables(metadata)
    _alert_tables(metadata)
    event.listen(pipeline_runs, "after_create", DDL(LAST_GOOD_RUNS))  # type: ignore[no-untyped-call]  # of SQLAlchemy


def _quality_tables(metadata: MetaData) -> None:
    results = Table(
        "quality_results",
        metadata,
        Column("id", BigInteger(), Identity(always=True), primary_key=True),
        Column("evaluation", Uuid(), nullable=False, comment="one suite, evaluated once by one try of a task"),
        Column("pipeline", Text(), nullable=False),
        Column("run_id", Text(), nullable=False),
        Column("task_id", Text(), nullable=False),
        Column("suite", Text(), nullable=False),
        Column("expectation", Text(), nullable=False),
        Column("column_name", Text(), comment="table.column for a child's; null for what concerns no single column"),
        Column("severity", Text(), nullable=False),
        Column("success", Boolean(), nullable=False),
        Column("expected", Text(), nullable=False),
        Column("observed", Text(), nullable=False, comment="counts, never values"),
        Column("unexpected", BigInteger(), nullable=False, comment="rows; of a number of rows, by how many it is off"),
        Column(
            "sample_keys",
            ARRAY(Text()),
            nullable=False,
            server_default=text("'{}'"),
            comment="at most ten keys of rows that do not meet it, without personal data",
        ),
        Column("checked_at", TIME, nullable=False, server_default=text("clock_timestamp()")),
        CheckConstraint("severity in ('critical', 'warning')", name="severity"),
        schema="operations",
    )
    Index(None, results.c.evaluation, info={"serves": "the results of an evaluation, which a repeat replaces"})
    Index(None, results.c.pipeline, results.c.run_id, info={"serves": "what failed in a run, for its message"})
    Index(
        None,
        results.c.pipeline,
        results.c.checked_at,
        info={"serves": "a pipeline's newest evaluations, for its index; results that are old enough to go"},
    )


def _alert_tables(metadata: MetaData) -> None:
    Table(
        "alerts",
        metadata,
        Column("id", BigInteger(), Identity(always=True), primary_key=True),
        Column("pipeline", Text(), nullable=False),
        Column("run_id", Text(), nullable=False),
        Column("task_id", Text(), nullable=False),
        Column("map_index", Integer(), nullable=False, comment="-1 where the task is not mapped"),
        Column("try_number", Integer(), nullable=False),
        Column("error_class", Text(), nullable=False),
        Column("error", Text(), nullable=False, comment="one sentence, secrets and personal data masked"),
        Column("alerted_at", TIME, nullable=False, server_default=text("clock_timestamp()")),
        Column("cleared_at", TIME, comment="when the task was run again: this is no longer why its run fails"),
        UniqueConstraint("pipeline", "run_id", "task_id", "map_index", "try_number"),
        schema="operations",
    )
    messages = Table(
        "messages",
        metadata,
        Column("id", BigInteger(), Identity(always=True), primary_key=True),
        Column("kind", Text(), nullable=False),
        Column("pipeline", Text(), nullable=False),
        Column("run_id", Text(), comment="null for what concerns no single run"),
        Column("run_started_at", TIME, comment="tells the times that a run was begun anew from one another"),
        Column("fingerprint", Text(), nullable=False, comment="what is wrong: the same again is counted, not sent"),
        Column("payload", JSONB(), nullable=False, comment="text and blocks, as Slack takes them"),
        Column("status", Text(), nullable=False, server_default=text("'pending'")),
        Column("folded_into", BigInteger(), comment="the message whose window counts this one"),
        Column("window_ends_at", TIME, comment="until then the same is folded into this one; null once that is over"),
        Column("recovered_by", BigInteger(), comment="the message that told the end of this outage"),
        Column("attempts", Integer(), nullable=False, server_default=text("0")),
        Column("next_attempt_at", TIME, nullable=False, server_default=text("clock_timestamp()")),
        Column("posted_at", TIME, comment="when it was last posted, whatever came of it"),
        Column(
            "holds_all",
            Boolean(),
            nullable=False,
            server_default=text("false"),
            comment="Slack said when to come again: nothing is posted before next_attempt_at",
        ),
        Column(
            "refused_all",
            Boolean(),
            nullable=False,
            server_default=text("false"),
            comment="Slack refused it as it would refuse whatever comes by this webhook",
        ),
        Column("sent_at", TIME),
        Column("error", Text(), comment="why it was not sent"),
        Column("created_at", TIME, nullable=False, server_default=text("clock_timestamp()")),
        UniqueConstraint("kind", "pipeline", "run_id", "run_started_at"),
        CheckConstraint("kind in ('failure', 'repeated', 'warnings', 'late', 'recovered')", name="kind"),
        CheckConstraint("status in ('pending', 'sent', 'folded', 'refused', 'logged')", name="status"),
        CheckConstraint("(status = 'sent') = (sent_at is not null)", name="sent_at"),
        CheckConstraint("(status = 'folded') = (folded_into is not null)", name="folded_into"),
        schema="operations",
    )
    Index(
        "uq_messages_open_window",
        messages.c.fingerprint,
        unique=True,
        postgresql_where=text("window_ends_at is not null"),
        info={"serves": "the message that counts the same failure; one window at a time for each"},
    )
    Index(
        None,
        messages.c.next_attempt_at,
        postgresql_where=text("status = 'pending'"),
        info={"serves": "what is to be sent"},
    )
    Index(
        "ix_messages_outage",
        messages.c.pipeline,
        messages.c.id,
        postgresql_where=text("recovered_by is null and kind in ('failure', 'late')"),
        info={"serves": "the failures that a success ends"},
    )
    Index(
        None,
        messages.c.folded_into,
        postgresql_where=text("folded_into is not null"),
        info={"serves": "what a window has counted, when it ends"},
    )
