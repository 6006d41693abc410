"""Extract: every page of an entity, as received, into the landing folder of a new execution."""

from __future__ import annotations

from typing import Any

from airflow.providers.http.operators.http import HttpOperator
from airflow.sdk import Context, ObjectStoragePath, Variable
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from requests import Session

from include.contracts import BY_NAME
from include.extract.authentication import authentication
from include.extract.client import SourceClient, SourceError
from include.extract.execution import HttpSource, Request, SinceAheadError, extract
from include.extract.landing import Landing, batches
from include.operations.executions import OPTIONS, Mode, Run
from include.operations.sync_log import WatermarkError
from include.transform.cleaners import parse_datetime
from sluice.connections import app_db


class ExtractOperator(HttpOperator):
    """Fetches an entity, whole or what has changed, into landing and creates the staging tables of its execution.

    Returns the landing batches, as dicts, for the mapped `stage`; XCom `execution` is the execution's id. XCom carries
    batches and counts, never records. A retry goes on from the last landed page, see `executions.resumable`. Skips the
    entity where the run's param `entities` leaves it out. Fails without a retry where the source will not answer
    differently, such as with 401.

    The connection's password is sent as a bearer token where it has no login; with a login, as basic authentication;
    other ways are named by `auth` in its extra (`include/extract/authentication.py`), whose other entries are headers.
    """

    template_fields = ()

    def __init__(self, *, entity: str, mode: Mode, **kwargs: Any) -> None:
        self.contract = BY_NAME[entity]
        self.mode = mode
        super().__init__(http_conn_id=self.contract.connection, endpoint=self.contract.source, **kwargs)

    def execute(self, context: Context) -> list[dict[str, Any]]:
        name, params, ti = self.contract.name, context["params"], context["ti"]
        if name not in params["entities"]:
            raise AirflowSkipException(f"{name} is not among this run's entities: {', '.join(params['entities'])}")
        since = params.get("since")
        request = Request(
            mode=self.mode,
            since=None if since is None else parse_datetime(since),
            options={option: bool(params[option]) for option in OPTIONS if option in params},
        )
        try:
            with app_db(autocommit=True) as connection:
                execution, state = extract(
                    connection,
                    HttpSource(self._client()),
                    self.contract,
                    Run(entity=name, pipeline=ti.dag_id, run_id=ti.run_id),
                    request,
                    landing_uri=Variable.get("landing_uri"),
                    open_landing=lambda uri: Landing(ObjectStoragePath(uri)),
                    report=self.log.info,
                )
        except SourceError as error:
            if error.retryable:
                raise
            raise AirflowFailException(str(error)) from error
        except (SinceAheadError, WatermarkError) as error:
            raise AirflowFailException(str(error)) from error
        drawn = str(execution.execution)
        ti.xcom_push("execution", drawn)
        return [{"execution": drawn, **batch.to_dict()} for batch in batches(state)]

    def _client(self) -> SourceClient:
        hook = self.hook
        session: Session = hook.get_conn(self.headers)
        connection = hook.get_connection(self.http_conn_id)
        try:
            options: Any = session.headers.pop("auth", None)  # the hook takes everything in the extra for headers
            session.auth = authentication(connection.login, connection.password, options, session)
        except ValueError as error:
            raise AirflowFailException(f'connection "{self.http_conn_id}": {error}') from error
        return SourceClient(
            session,
            hook.base_url,
            self.contract.name,
            connection=self.http_conn_id,
            requests_per_second=self.contract.endpoint.requests_per_second if self.contract.endpoint else None,
        )
