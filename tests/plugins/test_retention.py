"""What housekeeping does although something is broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from include.operations import quality_results
from include.quality.data_docs import DataDocsError
from include.quality.gate import CheckResult
from sluice import retention

pytestmark = pytest.mark.database

Database = psycopg.Connection[Any]
OLD, NEW = UUID(int=1), UUID(int=2)


def record(db: Database, evaluation: UUID, pipeline: str) -> None:
    result = CheckResult("a", None, "critical", True, 0, "0 rows", "no rows")
    of = {"pipeline": pipeline, "run_id": "r1", "task_id": "t", "suite": "s"}
    quality_results.record(db, evaluation=evaluation, **of, results=[result])


def test_pages_go_wherever_they_can(
    app_db: Database, app_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_APP_DB", app_database)
    monkeypatch.setenv("AIRFLOW_VAR_DATA_DOCS_URI", tmp_path.as_uri())
    monkeypatch.setattr(retention, "_dry_run", lambda: False)
    for name in ("a", "b", "lost+found"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{OLD}.html").write_text("a page")
    (tmp_path / "a" / f"{OLD}.html").unlink()
    (tmp_path / "a" / f"{OLD}.html").mkdir()  # what no page is, and cannot be removed like one

    with pytest.raises(DataDocsError, match=f"pages cannot be removed from {tmp_path / 'a'}: "):
        retention.quality.function()
    assert [path.parent.name for path in tmp_path.rglob("*.html") if path.is_file()] == ["lost+found"]


def test_old_results_go_and_their_pages_whether_or_not_these_can(
    app_db: Database, app_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_APP_DB", app_database)
    monkeypatch.setattr(retention, "_dry_run", lambda: False)
    record(app_db, OLD, "gone")
    app_db.execute("update operations.quality_results set checked_at = now() - interval '91 days'")
    record(app_db, NEW, "lives")
    app_db.commit()
    for name, evaluation in (("gone", OLD), ("lives", NEW)):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{evaluation}.html").write_text("a page")
        (tmp_path / name / "of somebody else.html").write_text("no page of ours")

    with pytest.raises(DataDocsError, match="set the Variable data_docs_uri to a folder"):
        retention.quality.function()
    assert app_db.execute("select evaluation from operations.quality_results").fetchall() == [(NEW,)]

    monkeypatch.setenv("AIRFLOW_VAR_DATA_DOCS_URI", tmp_path.as_uri())
    assert retention.quality.function() == {"results": 0, "pages": 1}
    left = {f"{page.parent.name}/{page.name}" for page in tmp_path.rglob("*.html")}
    assert left == {f"lives/{NEW}.html", "gone/of somebody else.html", "lives/of somebody else.html"}
