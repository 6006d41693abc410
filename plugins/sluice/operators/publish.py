"""Publish: one transaction that moves a staged execution into the entity's tables."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

import psycopg
from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from include.contracts import BY_NAME
from include.load import staging
from include.load.publish import (
    ACCOUNTING,
    ALREADY_PUBLISHED,
    LOCK_SECONDS,
    OVERTAKEN,
    TOO_MANY_DELETES,
    holder,
    queue_dead_letters,
)
from include.operations import executions, sync_log
from sluice.assets import ENTITIES
from sluice.connections import UTC_SESSION, app_db

COUNTS = ("inserted", "updated", "unchanged", "stale", "duplicate", "quarantined", "deleted")

TEMPLATE = """
{{%- set contract = contracts['{entity}'] -%}}
{{%- set execution = UUID(ti.xcom_pull(task_ids='{extract}', key='execution')) -%}}
{{%- set staging = StagingNames(contract, execution) -%}}
{{%- set mode = '{mode}' -%}}
{{%- set max_deleted_share = var.value.get('max_deleted_share', '0.2') | float -%}}
{{%- set lock_seconds = {lock_seconds} -%}}
{{%- include 'sync/publish.sql' -%}}
"""


class PublishOperator(SQLExecuteQueryOperator):
    """Runs `sync/publish.sql` for the execution that `extract` drew; returns the counts of its row in `sync_log`.

    An execution that is published already is left alone, with the same result. One that a later snapshot has overtaken
    is skipped. What a second try cannot mend (too many deletes, accounting that does not hold, staging that is gone)
    fails without one.
    """

    def __init__(self, *, entity: str, mode: executions.Mode, extract_task_id: str, **kwargs: Any) -> None:
        self.contract = BY_NAME[entity]
        self.extract_task_id = extract_task_id
        super().__init__(
            conn_id="app_db",
            sql=TEMPLATE.format(entity=entity, mode=mode, extract=extract_task_id, lock_seconds=LOCK_SECONDS),
            split_statements=True,
            hook_params={"log_sql": False, "enable_log_db_messages": True, "options": UTC_SESSION},
            outlets=[ENTITIES[entity]],
            pre_execute=skip_in_a_dry_run,
            **kwargs,
        )

    def execute(self, context: Context) -> dict[str, int]:
        execution = UUID(context["ti"].xcom_pull(task_ids=self.extract_task_id, key="execution"))
        row = self._published(execution)
        if row is not None:
            self.log.info("%s: execution %s is published already, nothing to do", self.contract.name, execution)
        else:
            row = self._publish(execution)
        return {name: row[name] for name in ("records_read", *COUNTS)}

    def _published(self, execution: UUID) -> dict[str, Any] | None:
        with app_db() as connection:
            row = sync_log.published(connection, execution)
            if row is None and not staging.exists(connection, self.contract, execution):
                raise AirflowFailException(
                    f"{self.contract.name}: what execution {execution} staged is gone and was never published: "
                    f"clear {self.extract_task_id} to begin anew"
                )
        return row

    def _publish(self, execution: UUID) -> dict[str, Any]:
        try:
            # Not the provider's execute: it would write all of the statement into the log.
            result = self.get_db_hook().run(self.sql, handler=last_row, split_statements=True)
            row = cast("dict[str, Any]", result)
        except psycopg.Error as error:
            message = error.diag.message_primary or str(error)
            if error.sqlstate == ALREADY_PUBLISHED:  # by another attempt, while this one waited for the lock
                row = self._published(execution) or {}
            elif isinstance(error, psycopg.errors.LockNotAvailable):
                with app_db() as connection:
                    who = holder(connection, self.contract)
                raise TimeoutError(f"{self.contract.name}: waited {LOCK_SECONDS} s to publish; {who}") from error
            elif error.sqlstate == OVERTAKEN:
                raise AirflowSkipException(message) from error
            elif error.sqlstate in (TOO_MANY_DELETES, ACCOUNTING):
                with app_db() as connection:
                    queue_dead_letters(connection, self.contract, execution)
                raise AirflowFailException(message) from error
            else:
                raise
        name = self.contract.name
        self.log.info(
            "%s: %s read = %s", name, f"{row['records_read']:,}", " + ".join(f"{row[c]:,} {c}" for c in COUNTS[:-1])
        )
        self.log.info("%s: %s deleted, watermark %s", name, f"{row['deleted']:,}", row["watermark"])
        if row["regressed"]:
            self.log.warning(
                "%s: %s records of the snapshot are older than our rows although these were fetched before it began: "
                "was the source restored? A run with trust_source takes its word over ours",
                name,
                f"{row['regressed']:,}",
            )
        if row.get("unreadable_new"):
            self.log.warning(
                "%s: %s records came with a key that cannot be read: nothing was deleted, since they may be any row",
                name,
                f"{row['unreadable_new']:,}",
            )
        return row


def skip_in_a_dry_run(context: Context) -> None:
    """A dry run stops before publish: no rows, no letters, no watermark, no asset event."""
    if context["params"]["dry_run"]:
        raise AirflowSkipException("dry run: staged and checked, nothing is published")


def last_row(cursor: psycopg.Cursor[Any]) -> dict[str, Any] | None:
    """The row that a statement gave, by column name."""
    if cursor.description is None:
        return None
    row = cursor.fetchone()
    return None if row is None else {column.name: value for column, value in zip(cursor.description, row, strict=True)}
