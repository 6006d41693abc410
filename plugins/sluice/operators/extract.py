"""Extract: every page of an entity, as received, into the landing folder of a new execution."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from airflow.providers.http.operators.http import HttpOperator
from airflow.sdk import Context, ObjectStoragePath, Variable
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from requests import PreparedRequest, Session
from requests.auth import AuthBase

from include.contracts import BY_NAME
from include.extract.client import SourceClient, SourceError
from include.extract.fetch import fetch
from include.extract.landing import Landing, batches
from include.load import staging
from include.operations import executions
from sluice.connections import app_db


class BearerAuth(AuthBase):
    """Sends a bearer token (RFC 6750, 2.1)."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class ExtractOperator(HttpOperator):
    """Fetches an entity whole into landing and creates the staging tables of its execution.

    Returns the landing batches, as dicts, for the mapped `stage`; XCom `execution` is the execution's id. XCom
    carries batches and counts, never records. A retry goes on from the last landed page, see
    `executions.resumable`.
    Skips the entity where the run's param `entities` leaves it out. Fails without a retry where the source will not
    answer differently, such as with 401.

    The connection's password is sent as a bearer token where it has no login; with a login, as basic authentication;
    headers come from its extra.
    """

    template_fields = ()

    def __init__(self, *, entity: str, mode: executions.Mode, **kwargs: Any) -> None:
        self.contract = BY_NAME[entity]
        self.mode = mode
        endpoint = self.contract.endpoint
        super().__init__(http_conn_id=self.contract.connection, method="GET", endpoint=endpoint.path, **kwargs)

    def execute(self, context: Context) -> list[dict[str, Any]]:
        name, params, ti = self.contract.name, context["params"], context["ti"]
        if name not in params["entities"]:
            raise AirflowSkipException(f"{name} is not among this run's entities: {', '.join(params['entities'])}")
        run = executions.Run(entity=name, pipeline=ti.dag_id, run_id=ti.run_id)
        with ExitStack() as stack:
            # The lock lives as long as this connection: another attempt of this task starts an execution of its own.
            holder = stack.enter_context(app_db(autocommit=True))
            execution = executions.resumable(holder, run)
            if execution is None:
                allow = {key: params[key] for key in ("allow_deletes", "allow_quarantined", "trust_source")}
                landing_uri = Variable.get("landing_uri")
                execution = executions.begin(holder, run, mode=self.mode, landing_uri=landing_uri, options=allow)
                executions.hold(holder, execution.execution)
            else:
                self.log.info("%s: going on with execution %s, which was cut off", name, execution.execution)
            ti.xcom_push("execution", str(execution.execution))
            landing = Landing(ObjectStoragePath(execution.landing))
            client = self._client()
            try:
                state = fetch(
                    client,
                    self.contract.endpoint,
                    landing,
                    execution=execution.execution,
                    since=execution.since,
                    report=self.log.info,
                )
            except SourceError as error:
                if error.retryable:
                    raise
                raise AirflowFailException(str(error)) from error
        with app_db() as connection:
            executions.landed(connection, execution.execution, fetched_at=state.fetched_at, records_read=state.records)
            for earlier in executions.superseded(connection, execution):
                staging.drop(connection, earlier)
            staging.create(connection, self.contract, execution.execution, state.fetched_at)
        return [{"execution": str(execution.execution), **batch.to_dict()} for batch in batches(state)]

    def _client(self) -> SourceClient:
        hook = self.hook
        session: Session = hook.get_conn(self.headers)
        connection = hook.get_connection(self.http_conn_id)
        if connection.password and not connection.login:
            session.auth = BearerAuth(connection.password)
        return SourceClient(session, hook.base_url, self.contract.name, connection=self.http_conn_id)
