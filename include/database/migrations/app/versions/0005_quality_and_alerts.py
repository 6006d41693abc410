"""Results of quality checks, alerts and the messages that tell of them, the last good runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

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


def upgrade() -> None:
    op.create_table(
        "alerts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("pipeline", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("map_index", sa.Integer(), nullable=False, comment="-1 where the task is not mapped"),
        sa.Column("try_number", sa.Integer(), nullable=False),
        sa.Column("error_class", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False, comment="one sentence, secrets and personal data masked"),
        sa.Column(
            "alerted_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column(
            "cleared_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when the task was run again: this is no longer why its run fails",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alerts")),
        sa.UniqueConstraint(
            "pipeline",
            "run_id",
            "task_id",
            "map_index",
            "try_number",
            name=op.f("uq_alerts_pipeline_run_id_task_id_map_index_try_number"),
        ),
        schema="operations",
    )
    op.create_table(
        "messages",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("pipeline", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True, comment="null for what concerns no single run"),
        sa.Column(
            "run_started_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="tells the times that a run was begun anew from one another",
        ),
        sa.Column(
            "fingerprint", sa.Text(), nullable=False, comment="what is wrong: the same again is counted, not sent"
        ),
        sa.Column(
            "payload",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="text and blocks, as Slack takes them",
        ),
        sa.Column("status", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("folded_into", sa.BigInteger(), nullable=True, comment="the message whose window counts this one"),
        sa.Column(
            "window_ends_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="until then the same is folded into this one; null once that is over",
        ),
        sa.Column(
            "recovered_by", sa.BigInteger(), nullable=True, comment="the message that told the end of this outage"
        ),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "next_attempt_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column(
            "posted_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when it was last posted, whatever came of it",
        ),
        sa.Column(
            "holds_all",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Slack said when to come again: nothing is posted before next_attempt_at",
        ),
        sa.Column(
            "refused_all",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Slack refused it as it would refuse whatever comes by this webhook",
        ),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True, comment="why it was not sent"),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("(status = 'folded') = (folded_into is not null)", name=op.f("ck_messages_folded_into")),
        sa.CheckConstraint("(status = 'sent') = (sent_at is not null)", name=op.f("ck_messages_sent_at")),
        sa.CheckConstraint(
            "kind in ('failure', 'repeated', 'warnings', 'late', 'recovered')", name=op.f("ck_messages_kind")
        ),
        sa.CheckConstraint(
            "status in ('pending', 'sent', 'folded', 'refused', 'logged')", name=op.f("ck_messages_status")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_messages")),
        sa.UniqueConstraint(
            "kind", "pipeline", "run_id", "run_started_at", name=op.f("uq_messages_kind_pipeline_run_id_run_started_at")
        ),
        schema="operations",
    )
    op.create_index(
        op.f("ix_messages_next_attempt_at"),
        "messages",
        ["next_attempt_at"],
        unique=False,
        schema="operations",
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index(
        "ix_messages_outage",
        "messages",
        ["pipeline", "id"],
        unique=False,
        schema="operations",
        postgresql_where=sa.text("recovered_by is null and kind in ('failure', 'late')"),
    )
    op.create_index(
        op.f("ix_messages_folded_into"),
        "messages",
        ["folded_into"],
        unique=False,
        schema="operations",
        postgresql_where=sa.text("folded_into is not null"),
    )
    op.create_index(
        "uq_messages_open_window",
        "messages",
        ["fingerprint"],
        unique=True,
        schema="operations",
        postgresql_where=sa.text("window_ends_at is not null"),
    )
    op.create_table(
        "quality_results",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("evaluation", sa.Uuid(), nullable=False, comment="one suite, evaluated once by one try of a task"),
        sa.Column("pipeline", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("suite", sa.Text(), nullable=False),
        sa.Column("expectation", sa.Text(), nullable=False),
        sa.Column(
            "column_name",
            sa.Text(),
            nullable=True,
            comment="table.column for a child's; null for what concerns no single column",
        ),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("success", sa.Boolean(), nullable=False),
        sa.Column("expected", sa.Text(), nullable=False),
        sa.Column("observed", sa.Text(), nullable=False, comment="counts, never values"),
        sa.Column(
            "unexpected", sa.BigInteger(), nullable=False, comment="rows; of a number of rows, by how many it is off"
        ),
        sa.Column(
            "sample_keys",
            sa.ARRAY(sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="at most ten keys of rows that do not meet it, without personal data",
        ),
        sa.Column(
            "checked_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("severity in ('critical', 'warning')", name=op.f("ck_quality_results_severity")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quality_results")),
        schema="operations",
    )
    op.create_index(
        op.f("ix_quality_results_evaluation"), "quality_results", ["evaluation"], unique=False, schema="operations"
    )
    op.create_index(
        op.f("ix_quality_results_pipeline_checked_at"),
        "quality_results",
        ["pipeline", "checked_at"],
        unique=False,
        schema="operations",
    )
    op.create_index(
        op.f("ix_quality_results_pipeline_run_id"),
        "quality_results",
        ["pipeline", "run_id"],
        unique=False,
        schema="operations",
    )
    op.create_index(
        op.f("ix_pipeline_runs_pipeline_status_ended_at"),
        "pipeline_runs",
        ["pipeline", "status", "ended_at"],
        unique=False,
        schema="operations",
    )
    op.add_column(
        "pipeline_runs",
        sa.Column("dry_run", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        schema="operations",
    )
    op.add_column(
        "pipeline_runs",
        sa.Column(
            "told",
            sa.Boolean(),
            server_default=sa.text("true"),  # nobody is told of what ended before there were alerts
            nullable=False,
            comment="whether the alerts know how it ended; if not, send_alerts tells them",
        ),
        schema="operations",
    )
    op.alter_column("pipeline_runs", "told", server_default=sa.text("false"), schema="operations")
    op.create_index(
        op.f("ix_pipeline_runs_ended_at"),
        "pipeline_runs",
        ["ended_at"],
        unique=False,
        schema="operations",
        postgresql_where=sa.text("not told"),
    )
    op.execute(LAST_GOOD_RUNS)


def downgrade() -> None:
    op.execute("drop view operations.last_good_runs")
    op.drop_index(
        op.f("ix_pipeline_runs_ended_at"),
        table_name="pipeline_runs",
        schema="operations",
        postgresql_where=sa.text("not told"),
    )
    op.drop_column("pipeline_runs", "told", schema="operations")
    op.drop_column("pipeline_runs", "dry_run", schema="operations")
    op.drop_index(op.f("ix_pipeline_runs_pipeline_status_ended_at"), table_name="pipeline_runs", schema="operations")
    op.drop_index(op.f("ix_quality_results_pipeline_run_id"), table_name="quality_results", schema="operations")
    op.drop_index(op.f("ix_quality_results_pipeline_checked_at"), table_name="quality_results", schema="operations")
    op.drop_index(op.f("ix_quality_results_evaluation"), table_name="quality_results", schema="operations")
    op.drop_table("quality_results", schema="operations")
    op.drop_index(
        "uq_messages_open_window",
        table_name="messages",
        schema="operations",
        postgresql_where=sa.text("window_ends_at is not null"),
    )
    op.drop_index(
        op.f("ix_messages_folded_into"),
        table_name="messages",
        schema="operations",
        postgresql_where=sa.text("folded_into is not null"),
    )
    op.drop_index(
        "ix_messages_outage",
        table_name="messages",
        schema="operations",
        postgresql_where=sa.text("recovered_by is null and kind in ('failure', 'late')"),
    )
    op.drop_index(
        op.f("ix_messages_next_attempt_at"),
        table_name="messages",
        schema="operations",
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.drop_table("messages", schema="operations")
    op.drop_table("alerts", schema="operations")
