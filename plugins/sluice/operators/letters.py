"""Letters: chooses dead letters and lands them again, in place of a source."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
from airflow.sdk import BaseOperator, Context, ObjectStoragePath, Variable
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from include.contracts import BY_NAME
from include.extract.landing import Landing, batches
from include.load import staging
from include.operations import dead_letters, executions
from include.operations.dead_letters import Choice
from sluice.connections import app_db


class ChooseLettersOperator(BaseOperator):
    """Lands the pending letters that the run's params choose as an execution of its own, or discards them.

    Returns the landing batches for the mapped `stage`; XCom `execution` is the execution's id. Skips the entity where
    it is not asked for, where no letter is chosen, and after discarding.
    """

    def __init__(self, *, entity: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.contract = BY_NAME[entity]

    def execute(self, context: Context) -> list[dict[str, Any]]:
        name, params, ti = self.contract.name, context["params"], context["ti"]
        if name not in params["entities"]:
            raise AirflowSkipException(f"{name} is not among this run's entities: {', '.join(params['entities'])}")
        choice = choose(name, params)
        with app_db() as connection:
            try:
                chosen = dead_letters.count(connection, choice)
            except psycopg.errors.InvalidRegularExpression as error:
                raise AirflowFailException(f"the param `error` is no regular expression: {error}") from error
            self.log.info("%s: %s pending letters are chosen", name, f"{chosen:,}")
            if not chosen:
                raise AirflowSkipException(f"{name}: no pending letter is chosen")
            if params["action"] == "discard":
                self._discard(connection, choice, params)
            run = executions.Run(entity=name, pipeline=ti.dag_id, run_id=ti.run_id)
            execution = executions.begin(
                connection,
                run,
                mode="replay",
                landing_uri=Variable.get("landing_uri"),
                options={"allow_quarantined": True},  # what fails again keeps its letter: that is no reason to stop
            )
            for earlier in executions.superseded(connection, execution):
                staging.drop(connection, earlier)
            landing = Landing(ObjectStoragePath(execution.landing))
            state = dead_letters.land(connection, self.contract, execution, choice, landing)
            executions.landed(connection, execution.execution, fetched_at=state.fetched_at, records_read=state.records)
        ti.xcom_push("execution", str(execution.execution))
        return [{"execution": str(execution.execution), **batch.to_dict()} for batch in batches(state)]

    def _discard(self, connection: psycopg.Connection[Any], choice: Choice, params: Any) -> None:
        if not params["reason"]:
            raise AirflowFailException("discarding needs the param `reason`: it stays with the letters")
        if params["dry_run"]:
            raise AirflowSkipException("dry run: nothing is discarded")
        discarded = dead_letters.discard(connection, choice, params["reason"])
        connection.commit()
        raise AirflowSkipException(f"{self.contract.name}: {discarded:,} letters discarded: {params['reason']}")


def choose(entity: str, params: Any) -> Choice:
    """The choice that the run's params express."""
    older, younger = params["older_than_hours"], params["younger_than_hours"]
    return Choice(
        entity=entity,
        ids=params["ids"] or (),
        error=params["error"] or "",
        older_than=None if older is None else timedelta(hours=older),
        younger_than=None if younger is None else timedelta(hours=younger),
    )
