"""The tasks of quality_checks: what a wrong connection, Variable or time zone does to them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import create_engine, text

from include.quality.gate import GateError
from sluice.connections import app_db_url
from sluice.operators.quality import QualityOperator

pytestmark = pytest.mark.database

Database = psycopg.Connection[Any]
CONTEXT: Any = {
    "ti": SimpleNamespace(dag_id="quality_checks", run_id="r1", task_id="syncs", map_index=-1, try_number=1)
}


@pytest.fixture(autouse=True)
def _airflow(app_database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_APP_DB", app_database)
    monkeypatch.setenv("AIRFLOW_VAR_DATA_DOCS_URI", tmp_path.as_uri())


def recorded(db: Database) -> list[tuple[Any, ...]]:
    """(expectation, severity, observed) of what was not met, in order."""
    return db.execute(
        "select expectation, severity, observed from operations.quality_results where not success order by id"
    ).fetchall()


def fresh(db: Database) -> None:
    """Every entity was synced just now."""
    db.execute(
        """
        insert into operations.sync_log (
          execution, entity, mode, run_id, fetched_at, records_read, inserted, updated, unchanged, stale, duplicate,
          quarantined, deleted, regressed, unreadable_keys, started_at, synced_at
        )
        select gen_random_uuid(), entity, 'delta', 'r', now(), 0, 0, 0, 0, 0, 0, 0, 0, 0, '{}', now(), now()
          from unnest(array['customers', 'orders', 'products']) as entity
        """
    )
    db.commit()


@pytest.mark.parametrize("uri", ["nosuch://bucket/docs", "http:"])
def test_a_folder_of_pages_that_is_none_is_a_warning(
    app_db: Database, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_DATA_DOCS_URI", uri)
    fresh(app_db)
    assert QualityOperator(suite="syncs").execute(CONTEXT)["warnings"] == 0
    ((name, severity, observed),) = recorded(app_db)
    assert (name, severity) == ("data_docs_page", "warning")
    assert "data_docs_uri" in observed


def test_only_who_reads_the_warehouse_needs_its_connection(app_db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_WAREHOUSE_DB", raising=False)
    fresh(app_db)
    assert QualityOperator(suite="syncs").execute(CONTEXT)["met"] > 3
    for suite in ("warehouse", "reconciliation"):
        with pytest.raises(GateError, match=rf"{suite}: cannot be checked: .*warehouse_db"):
            QualityOperator(suite=suite).execute(CONTEXT)
        ((name, severity, observed),) = recorded(app_db)
        assert (name, severity) == ("evaluation", "critical")
        assert "warehouse_db" in observed


def test_checks_are_made_in_utc_whatever_the_databases_time_zone(app_db: Database) -> None:
    name = sql.Identifier(app_db.info.dbname)
    app_db.execute(sql.SQL("alter database {} set timezone = 'America/New_York'").format(name))
    app_db.commit()
    engine = create_engine(app_db_url())
    with engine.connect() as connection:
        assert connection.execute(text("show timezone")).scalar() == "UTC"
    engine.dispose()
