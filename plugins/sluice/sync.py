"""The task groups that the syncs share: open the run, sync each entity, clean up whatever happened."""

from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

from airflow.sdk import BaseOperator, ObjectStoragePath, Param, TaskGroup, get_current_context, setup, task, teardown
from airflow.sdk.exceptions import AirflowFailException

from include.contracts import BY_NAME, CONTRACTS
from include.contracts.contract import Contract
from include.database.entities import StagingNames
from include.extract.landing import Batch, Landing
from include.load import staging
from include.operations import executions, pipeline_runs, sync_log
from include.operations.executions import Mode
from include.transform.validation import PageValidator
from sluice import callbacks
from sluice.connections import app_db
from sluice.operators.extract import ExtractFilesOperator, ExtractOperator
from sluice.operators.gate import GateOperator
from sluice.operators.letters import ChooseLettersOperator
from sluice.operators.publish import PublishOperator

log = logging.getLogger(__name__)

SQL_MACROS = {"contracts": BY_NAME, "StagingNames": StagingNames, "UUID": UUID}
"""What the .sql files under `include/sql/sync/` are rendered with, beside Airflow's own variables."""


def synced(contract: Contract, mode: Mode) -> Mode | None:
    """How a DAG of that kind syncs the entity; None where it leaves it out.

    Files say themselves whether they hold the entity whole; a source that cannot be asked for changes is read whole by
    `delta_sync` too, or not by it.
    """
    if mode == "replay":
        return mode
    if contract.files is not None:
        return "snapshot" if contract.files.holds == "snapshot" else "delta"
    if mode == "delta" and contract.delta != "changes":
        return "snapshot" if contract.delta == "whole" else None
    return mode


def _entities(mode: Mode) -> Param:
    names = [contract.name for contract in CONTRACTS if synced(contract, mode)]
    return Param(
        names,
        type="array",
        items={"type": "string", "enum": names},
        examples=names,
        minItems=1,
        title="Entities",
        description="Which entities.",
    )


DRY_RUN = Param(False, type="boolean", title="Dry run", description="Fetch, stage and check; publish nothing.")
ALLOW_QUARANTINED = Param(
    False,
    type="boolean",
    title="Allow quarantined",
    description="Let this run pass although it rejects more than the Variable max_quarantined_share allows.",
)

PARAMS: dict[Mode, dict[str, Param]] = {
    "snapshot": {
        "entities": _entities("snapshot"),
        "dry_run": DRY_RUN,
        "allow_deletes": Param(
            False,
            type="boolean",
            title="Allow deletes",
            description="Let this run delete more than the share of a table that max_deleted_share allows.",
        ),
        "allow_quarantined": ALLOW_QUARANTINED,
        "trust_source": Param(
            False,
            type="boolean",
            title="Trust the source",
            description="Take the snapshot's word over newer versions: after the source was restored from a backup.",
        ),
    },
    "delta": {
        "entities": _entities("delta"),
        "dry_run": DRY_RUN,
        "since": Param(
            None,
            type=["null", "string"],
            format="date-time",
            title="Since",
            description="Ask for what changed since then, not since the watermark: to repair a window.",
        ),
        "reset_watermark": Param(
            False,
            type="boolean",
            title="Reset the watermark",
            description="Forget the watermark: begin where `since` says or, without it, where the contract begins.",
        ),
        "allow_quarantined": ALLOW_QUARANTINED,
    },
    "replay": {
        "entities": _entities("replay"),
        "dry_run": DRY_RUN,
        "action": Param(
            "replay",
            type="string",
            enum=["replay", "discard"],
            title="Action",
            description="Replay the chosen letters through today's code, or discard them for a reason.",
        ),
        "reason": Param(
            "",
            type="string",
            title="Reason",
            description="Why they are discarded; stays with the letters.",
        ),
        "ids": Param(
            [],
            type="array",
            items={"type": "integer"},
            title="Ids",
            description="Only letters with these ids; none means all.",
        ),
        "error": Param(
            "",
            type="string",
            title="Error",
            description="Only letters whose error matches this regular expression.",
        ),
        "older_than_hours": Param(
            None,
            type=["null", "number"],
            minimum=0,
            title="Older than",
            description="Only letters that were queued at least so many hours ago.",
        ),
        "younger_than_hours": Param(
            None,
            type=["null", "number"],
            minimum=0,
            title="Younger than",
            description="Only letters that were queued at most so many hours ago.",
        ),
    },
}
"""The trigger form of each kind of run."""


def sync_entities(mode: Mode) -> None:
    """Inside a DAG: `start`, then for each contract `extract -> stage -> gate -> publish`, then `finish`."""
    opened = setup(start)()
    closed = teardown(finish)()  # decorated here: one that was called for another DAG refuses a second call
    for contract in CONTRACTS:
        if how := synced(contract, mode):
            opened >> sync_entity(contract, how) >> closed
    opened >> closed


def sync_entity(contract: Contract, mode: Mode) -> TaskGroup:
    """The task group of one entity; see the operators for what each task promises.

    A replay takes its records from the dead letters (`choose`) instead of the source (`extract`).
    """
    with TaskGroup(contract.name, tooltip=f"{contract.source} into {contract.table}") as group:
        first: BaseOperator
        if mode == "replay":
            first = ChooseLettersOperator(task_id="choose", entity=contract.name)
        elif contract.files is not None:
            first = ExtractFilesOperator(task_id="extract", entity=contract.name, mode=mode)
        else:
            first = ExtractOperator(task_id="extract", entity=contract.name, mode=mode, pool=contract.connection)
        staged = stage.override(task_id="stage").partial(entity=contract.name).expand(batch=first.output)
        gate = GateOperator(task_id="gate", entity=contract.name, extract_task_id=first.task_id)
        publish = PublishOperator(task_id="publish", entity=contract.name, mode=mode, extract_task_id=first.task_id)
        staged >> gate >> publish
    return group


def start() -> None:
    """Notes that the run begins: anew, where it was cleared from its start."""
    context = get_current_context()
    ti = context["ti"]
    with app_db() as connection:
        pipeline_runs.open_run(connection, pipeline=ti.dag_id, run_id=ti.run_id, dry_run=callbacks.is_dry_run(context))


def finish() -> None:
    """Drops what the run staged, whatever happened before."""
    ti = get_current_context()["ti"]
    with app_db() as connection:
        for execution in executions.of_run(connection, pipeline=ti.dag_id, run_id=ti.run_id):
            staging.drop(connection, execution)


@task(map_index_template="{{ task.op_kwargs['batch']['number'] }}")
def stage(entity: str, batch: dict[str, Any]) -> dict[str, int]:
    """Validates one landing batch and loads it into staging, in one transaction; safe to repeat.

    Returns the counts `records`, `valid` and `rejected`.
    """
    contract = BY_NAME[entity]
    fields = dict(batch)
    drawn = UUID(fields.pop("execution"))
    with app_db() as connection:
        execution = executions.get(connection, drawn)
        if sync_log.published(connection, drawn) is not None:
            log.info("%s: execution %s is published already, nothing to stage", entity, drawn)
            return {"records": 0, "valid": 0, "rejected": 0}
        if execution.fetched_at is None or not staging.exists(connection, contract, drawn):
            raise AirflowFailException(
                f"{entity}: the staging of execution {drawn} is gone: clear {execution.first_task} to begin anew"
            )
        landing = Landing(ObjectStoragePath(execution.landing))
        state = landing.load_state()
        pages = state.pages if state else []
        landed = {page.number: page.records for page in pages}
        malformed = {(page.number, at): reason for page in pages for at, reason in page.malformed.items()}
        counted = staging.stage_batch(
            connection,
            PageValidator(contract, execution.fetched_at, malformed),
            drawn,
            [(number, landed[number]) for number in Batch.from_dict(fields).pages],
            landing.read_page,
            execution.landing,
            log.info,
        )
    log.info("%s: %s records, %s valid, %s rejected", entity, counted.records, counted.valid, counted.rejected)
    for note, count in counted.notes.items():
        log.warning("%s: %s records: %s", entity, f"{count:,}", note)
    return {"records": counted.records, "valid": counted.valid, "rejected": counted.rejected}
