"""Extract: every page of an entity, or its new files, into the landing folder of a new execution."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from airflow.providers.http.operators.http import HttpOperator
from airflow.sdk import BaseOperator, Context, ObjectStoragePath, Variable
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from psycopg import Connection
from requests import Session

from include.contracts import BY_NAME
from include.contracts.contract import Contract
from include.extract.authentication import authentication
from include.extract.client import SourceClient, SourceError
from include.extract.execution import HttpSource, Request, SinceAheadError, Source, extract
from include.extract.files import FilesSource, NothingNewError
from include.extract.landing import Landing, batches
from include.operations import loaded_files
from include.operations.executions import OPTIONS, Mode, Run
from include.operations.sync_log import WatermarkError
from include.transform.cleaners import parse_datetime
from sluice.connections import app_db

log = logging.getLogger(__name__)


def land(
    contract: Contract, mode: Mode, context: Context, open_source: Callable[[Connection[Any]], Source]
) -> list[dict[str, Any]]:
    """What both operators do: lands what the source has as an execution of this run, and hands on its batches.

    `open_source` opens the source, given a connection to `app_db`.
    """
    name, params, ti = contract.name, context["params"], context["ti"]
    if name not in params["entities"]:
        raise AirflowSkipException(f"{name} is not among this run's entities: {', '.join(params['entities'])}")
    since = params.get("since")
    request = Request(
        mode=mode,
        since=None if since is None else parse_datetime(since),
        options={option: bool(params[option]) for option in OPTIONS if option in params},
    )
    try:
        with app_db(autocommit=True) as connection:
            execution, state = extract(
                connection,
                open_source(connection),
                contract,
                Run(entity=name, pipeline=ti.dag_id, run_id=ti.run_id),
                request,
                landing_uri=Variable.get("landing_uri"),
                open_landing=lambda uri: Landing(ObjectStoragePath(uri)),
                report=log.info,
            )
    except NothingNewError as error:
        raise AirflowSkipException(str(error)) from error
    except SourceError as error:
        if error.retryable:
            raise
        raise AirflowFailException(str(error)) from error
    except (SinceAheadError, WatermarkError) as error:
        raise AirflowFailException(str(error)) from error
    drawn = str(execution.execution)
    ti.xcom_push("execution", drawn)
    return [{"execution": drawn, **batch.to_dict()} for batch in batches(state)]


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
        return land(self.contract, self.mode, context, lambda connection: HttpSource(self._client()))

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


class ExtractFilesOperator(BaseOperator):
    """Lands an entity's files that have not been loaded yet, and creates the staging tables of its execution.

    Returns and pushes what ExtractOperator does. Skips the entity where no file is new. The part of the contract's URI
    before an @ names the Airflow connection of the object store.
    """

    def __init__(self, *, entity: str, mode: Mode, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.contract = BY_NAME[entity]
        self.mode = mode

    def execute(self, context: Context) -> list[dict[str, Any]]:
        return land(
            self.contract,
            self.mode,
            context,
            lambda connection: FilesSource(ObjectStoragePath, partial(loaded_files.of_entity, connection)),
        )
