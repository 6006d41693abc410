"""The runbook has a section for whatever an alert can name, for nothing else, and its queries and links work."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy import CheckConstraint, MetaData

from include.database import migrate
from include.database.operations import operations_tables
from sluice import alerting
from sluice.dag_docs import REPOSITORY

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag

RUNBOOK = (REPOSITORY / "docs" / "runbook.md").read_text()
CHAPTERS = {
    title: re.findall(r"^### (.+)$", text, re.M)
    for title, text in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", RUNBOOK, re.M | re.S)
}
SECTIONS = [name for names in CHAPTERS.values() for name in names]
TEXTS = dict(re.findall(r"^### (.+?)\n(.*?)(?=^##|\Z)", RUNBOOK, re.M | re.S))
QUERIES = re.findall(r"^```sql\n(.*?)^```$", RUNBOOK, re.M | re.S)
LIKE_ANOTHER = re.compile(r"Look, do and data are as at\s+\[(\w+)\]")


def kinds() -> set[str]:
    """The kinds of message that the outbox takes."""
    metadata = MetaData()
    operations_tables(metadata)
    rules = [rule for rule in metadata.tables["operations.messages"].constraints if isinstance(rule, CheckConstraint)]
    (rule,) = [str(rule.sqltext) for rule in rules if str(rule.sqltext).startswith("kind in")]
    return set(re.findall(r"'(\w+)'", rule))


def test_every_task_has_a_section_and_no_section_is_of_none(bag: DagBag) -> None:
    assert bag.import_errors == {}
    tasks = {alerting.section(dag.dag_id, task.task_id) for dag in bag.dags.values() for task in dag.tasks}
    described = [name for title, names in CHAPTERS.items() if title.startswith("Tasks of ") for name in names]
    assert len(tasks) > 20
    assert sorted(described) == sorted(tasks)


def test_every_kind_of_message_has_a_section_and_no_section_is_of_none() -> None:
    assert sorted(CHAPTERS["Messages"]) == sorted(kinds())


def test_a_section_is_found_by_its_word_and_says_what_to_look_at_what_to_do_and_what_of_the_data() -> None:
    assert all(re.fullmatch(r"[a-z_]+", name) for name in SECTIONS), "the anchor is the word"
    assert len(SECTIONS) == len(set(SECTIONS)) == len(TEXTS)
    for name, text in TEXTS.items():
        found = LIKE_ANOTHER.search(text)
        whole = TEXTS[found.group(1)] if found else text
        assert [part for part in ("Look at", "Do", "Data") if f"- **{part}**" not in whole] == [], name


def test_links_lead_to_sections_and_files() -> None:
    links = re.findall(r"\]\(([^)]+)\)", RUNBOOK)
    assert {link[1:] for link in links if link.startswith("#")} <= set(SECTIONS)
    files = [link for link in links if not link.startswith("#")]
    assert files
    assert [link for link in files if not (REPOSITORY / "docs" / link).exists()] == []


def test_dags_and_variables_that_it_names_exist(bag: DagBag) -> None:
    settings = (REPOSITORY / "airflow_settings.yaml").read_text()
    named = set(re.findall(r"`(\w+_(?:minutes|days|keep|uri))`", RUNBOOK))
    sources = "".join(path.read_text() for path in (REPOSITORY / "plugins" / "sluice").rglob("*.py"))
    assert len(named) >= 5
    assert [name for name in sorted(named) if name not in settings and f'"{name}"' not in sources] == []
    params = {name for dag in bag.dags.values() for name in dag.params}
    assert {"allow_quarantined", "allow_deletes", "reset_watermark", "full", "reason"} <= params
    chapters = {title.removeprefix("Tasks of ") for title in CHAPTERS if title.startswith("Tasks of ")}
    assert chapters - {"the syncs"} <= set(bag.dags)


@pytest.mark.database
@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.splitlines()[0].removeprefix("-- "))
def test_every_query_runs(app_database: str, query: str) -> None:
    migrate.upgrade(app_database, "warehouse")
    with psycopg.connect(app_database) as connection:
        connection.read_only = True
        assert connection.execute(query.encode()).description
