"""The tasks of `customer_enrichment` around its SQL: ask where addresses lie, and note what the run did."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from airflow.providers.http.hooks.http import HttpHook
from airflow.sdk import Param, get_current_context, task
from airflow.sdk.exceptions import AirflowNotFoundException

from include.extract.authentication import authentication
from include.operations import geocodes, pipeline_runs
from include.transform.cleaners import parse_datetime
from include.transform.geocoding import REQUESTS_PER_SECOND, Gazetteer, Geocoder, GeocodingError, Nominatim
from sluice.connections import app_db

log = logging.getLogger(__name__)

CONNECTION = "geocoder"

ENRICH = "enrich"
"""The task whose return value counts the customers."""

PARAMS = {
    "as_of": Param(
        None,
        type=["null", "string"],
        format="date-time",
        title="As of",
        description="Tell lifecycle stages as of then, not as of the time for which the run was made.",
    ),
    "dry_run": Param(False, type="boolean", title="Dry run", description="Say what would change; write nothing."),
}


def run_time(params: Any, dag_run: Any) -> datetime:
    """The time that the run works by, in UTC."""
    return parse_datetime(params["as_of"] or dag_run.run_after)


@task
def geocode() -> dict[str, Any]:
    """Asks the geocoder for the addresses of customers that `operations.geocodes` lacks.

    Returns its name and the counts `wanted`, `found`, `not_found`, `failed` and `left` (for the next run). A geocoder
    that does not answer, or a connection that cannot be used, fails nothing: it is logged, and its addresses wait.
    """
    counts = geocodes.Counts()
    name = Nominatim.name
    try:
        geocoder = _geocoder()
    except GeocodingError as error:
        log.warning("no address is asked for: %s", error)
    else:
        name = geocoder.name
        with app_db(autocommit=True) as connection:
            dry_run = get_current_context()["params"]["dry_run"]
            counts = geocodes.fill(connection, geocoder, lambda line: log.info("%s: %s", name, line), dry_run=dry_run)
    log.info("%s: %s", name, counts)
    for message, count in counts.errors.most_common(5):
        log.warning("%s: %s times: %s", name, f"{count:,}", message)
    told = {part: getattr(counts, part) for part in ("wanted", "found", "not_found", "failed", "left")}
    return {"geocoder": name, **told}


def finish() -> None:
    """Notes how many customers were gone through, whatever happened before."""
    ti = get_current_context()["ti"]
    if (counts := ti.xcom_pull(task_ids=ENRICH)) is not None:
        with app_db() as connection:
            pipeline_runs.processed(connection, pipeline=ti.dag_id, run_id=ti.run_id, records=counts["customers"])


def _geocoder() -> Geocoder:
    """The server that the connection `geocoder` leads to; without that connection the gazetteer.

    The connection is one of type HTTP whose `/search` is Nominatim's; its extra may hold `auth`, as a source's does,
    `requests_per_second`, and headers. Raises GeocodingError where it cannot be used.
    """
    try:
        connection = HttpHook.get_connection(CONNECTION)
    except AirflowNotFoundException:
        return Gazetteer()
    hook = HttpHook(http_conn_id=CONNECTION)
    try:
        session = hook.get_conn()
        options: Any = session.headers.pop("auth", None)  # the hook takes everything in the extra for headers
        rate = float(session.headers.pop("requests_per_second", REQUESTS_PER_SECOND))
        session.auth = authentication(connection.login, connection.password, options, session)
    except (TypeError, ValueError) as error:
        raise GeocodingError(f'connection "{CONNECTION}" cannot be used ({type(error).__name__}: {error})') from error
    if str(session.headers.get("User-Agent", "")).startswith("python-requests"):
        session.headers["User-Agent"] = "sluice"  # the public Nominatim turns libraries' names away
    return Nominatim(session, hook.base_url, connection=CONNECTION, requests_per_second=rate)
