"""One execution's extract: from the drawing of its id to its landed pages and its staging tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from psycopg import Connection

from include.contracts.contract import Contract
from include.extract.client import SourceClient
from include.extract.fetch import fetch, fetch_until_settled
from include.extract.landing import FetchState, Landing
from include.load import staging
from include.operations import executions, loaded_files, sync_log
from include.operations.executions import Execution, Mode, Run
from include.transform.validation import PageValidator


class SinceAheadError(Exception):
    """A delta asked for changes since a time that the source's clock has not reached: it would never see any."""


@dataclass(frozen=True)
class Request:
    """What a run wants of an entity. `since` (aware) repairs a window; `options` are of `executions.OPTIONS`."""

    mode: Mode
    since: datetime | None = None
    options: Mapping[str, bool] = field(default_factory=dict)


class Source(Protocol):
    """Where an execution's pages come from."""

    def fetch(
        self, contract: Contract, execution: Execution, landing: Landing, report: Callable[[str], None]
    ) -> tuple[FetchState, bool]:
        """Lands all pages; gives the complete state, and whether they surely are all that was asked for."""


@dataclass(frozen=True)
class HttpSource:
    """The contract's endpoint, asked by a client."""

    client: SourceClient

    def fetch(
        self, contract: Contract, execution: Execution, landing: Landing, report: Callable[[str], None]
    ) -> tuple[FetchState, bool]:
        """Lands what has changed since the execution's `since`, or everything. Raises SourceError, LandingError."""
        if contract.endpoint is None:
            raise TypeError(f"{contract.name} has no endpoint that could be asked")
        asked: dict[str, Any] = {
            "execution": execution.execution,
            "since": execution.since,
            "lookback": contract.lookback,
            "report": report,
        }
        if execution.mode == "snapshot" or contract.stable:
            return fetch(self.client, contract.endpoint, landing, **asked), True
        identities = PageValidator(contract, datetime.now(UTC)).identities
        return fetch_until_settled(self.client, contract.endpoint, landing, identities, **asked)


def extract(
    connection: Connection[Any],
    source: Source,
    contract: Contract,
    run: Run,
    request: Request,
    *,
    landing_uri: str,
    open_landing: Callable[[str], Landing],
    report: Callable[[str], None],
) -> tuple[Execution, FetchState]:
    """Lands what is asked for and creates the staging tables; gives the execution and its landed pages.

    Goes on with the run's own execution where its fetch was cut off, else draws a new one. `connection` must be in
    autocommit mode and nobody else's: its session holds the execution's lock until it is closed, so that another
    attempt of the same task starts an execution of its own. `open_landing` opens a folder by its URI.

    Raises SourceError, LandingError, WatermarkError, SinceAheadError.
    """
    execution = executions.resumable(connection, run)
    if execution is None:
        since = asked_since(connection, contract, request)
        execution = executions.begin(
            connection, run, mode=request.mode, landing_uri=landing_uri, since=since, options=request.options
        )
        executions.hold(connection, execution.execution)
    else:
        report(f"{contract.name}: going on with execution {execution.execution}, which was cut off")
    landing = open_landing(execution.landing)
    state, settled = source.fetch(contract, execution, landing, report)
    if execution.since is not None and execution.since > state.fetched_at:
        raise SinceAheadError(
            f"{contract.name}: asked for what changed since {execution.since}, which lies ahead of the source's clock, "
            f"{state.fetched_at}: no change would ever be seen. Run again with another `since`, or with "
            "`reset_watermark` if operations.sync_log is wrong"
        )
    with connection.transaction():
        for earlier in executions.superseded(connection, execution):
            staging.drop(connection, earlier)
        staging.create(connection, contract, execution.execution, state.fetched_at)
        executions.landed(
            connection,
            execution.execution,
            fetched_at=state.fetched_at,
            records_read=state.records,
            settled=settled,
            until=state.until,
        )
        loaded_files.note(connection, execution.execution, contract.name, state.files)
    return execution, state


def asked_since(connection: Connection[Any], contract: Contract, request: Request) -> datetime | None:
    """What a delta asks from: `since`, else the watermark less the lookback, else the contract's beginning.

    None for a snapshot, and for files, which say nothing of the times in between. Raises WatermarkError.
    """
    if request.mode == "snapshot" or contract.files is not None:
        return None
    if request.since is not None:
        return request.since
    reset = request.options.get("reset_watermark", False)
    in_force = None if reset else sync_log.watermark(connection, contract.name)
    return contract.initial_watermark if in_force is None else in_force - contract.lookback
