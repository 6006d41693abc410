"""House rules that every DAG keeps: someone owns it, someone is told, nothing runs for ever, retries help."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import yaml

from include.contracts import BY_NAME, CONTRACTS
from sluice.dag_docs import REPOSITORY

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.sdk import DAG

SYNC = ("extract", "stage", "gate", "publish")


def settings_file() -> dict[str, Any]:
    """Connections, pools and variables, as a deployment starts with them."""
    loaded: dict[str, Any] = yaml.safe_load((REPOSITORY / "airflow_settings.yaml").read_text())["airflow"]
    return loaded


def listed(found: Any) -> list[Any]:
    """What may be nothing, one callback or several."""
    return list(found) if isinstance(found, list | tuple) else [found] if found else []


def offenders(dag: DAG, keeps: Any) -> list[str]:
    """The tasks that do not keep a rule."""
    assert dag.tasks
    return [task.task_id for task in dag.tasks if not keeps(task)]


def test_it_says_what_it_is(dag: DAG) -> None:
    assert dag.description
    assert dag.tags
    assert all(re.fullmatch(r"[a-z][a-z0-9-]*", tag) for tag in dag.tags)


def test_it_tells_the_person_on_call_what_to_do(dag: DAG) -> None:
    text = dag.doc_md or ""
    assert re.match(r"### \S.{10,}\n\n\S", text), "a heading, then what it does"
    assert "`" in text, "what it touches"
    assert "**When it fails**" in text
    assert re.search(r"(?i)\*\*(not )?safe to re-run", text)


def test_it_runs_once_at_a_time_and_not_for_ever(dag: DAG) -> None:
    assert dag.max_active_runs == 1
    assert dag.catchup is False
    assert dag.dagrun_timeout is not None
    assert timedelta(0) < dag.dagrun_timeout <= timedelta(hours=24)


def test_it_is_missed_when_it_does_not_run(dag: DAG) -> None:
    from sluice.defaults import LATE_AFTER

    assert (dag.dag_id in LATE_AFTER) == (dag.schedule is not None)


def test_it_begins_at_a_fixed_time_with_a_zone(dag: DAG) -> None:
    assert dag.start_date is not None
    assert dag.start_date.tzinfo is not None
    assert dag.start_date.isoformat() == "2025-01-01T00:00:00+00:00"


def test_its_params_are_a_form_that_explains_itself(dag: DAG) -> None:
    params = {name: dag.params.get_param(name) for name in dag.params}
    assert [name for name, param in params.items() if not param.schema.get("title")] == []
    assert [name for name, param in params.items() if not (param.description or "").endswith(".")] == []
    assert [name for name, param in params.items() if "type" not in param.schema] == []
    chosen = {name: param for name, param in params.items() if param.schema["type"] == "array" and param.value}
    assert [name for name, param in chosen.items() if param.schema.get("minItems") != 1] == [], "the form can empty it"


def test_every_task_has_an_owner(dag: DAG) -> None:
    from sluice.defaults import OWNER

    assert offenders(dag, lambda task: task.owner == OWNER) == []
    assert dag.owner == OWNER


def test_every_task_is_retried_with_growing_pauses(dag: DAG) -> None:
    assert offenders(dag, lambda task: task.retries > 0) == []
    assert offenders(dag, lambda task: float(task.retry_exponential_backoff) > 1) == []
    assert offenders(dag, lambda task: timedelta(0) < task.max_retry_delay <= timedelta(hours=1)) == []


def test_every_task_ends_before_its_run_must(dag: DAG) -> None:
    limit = dag.dagrun_timeout
    assert limit is not None
    assert offenders(dag, lambda task: task.execution_timeout and timedelta(0) < task.execution_timeout <= limit) == []


def test_somebody_is_told_of_every_task_that_fails_and_of_the_end_of_every_run(dag: DAG) -> None:
    from sluice.callbacks import note_failure, note_start, run_failed, run_succeeded

    assert offenders(dag, lambda task: note_start in listed(task.on_execute_callback)) == []
    assert offenders(dag, lambda task: note_failure in listed(task.on_failure_callback)) == []
    assert run_succeeded in listed(dag.on_success_callback)
    assert run_failed in listed(dag.on_failure_callback)


def test_every_pool_is_one_that_a_deployment_has(dag: DAG) -> None:
    pools = {pool["pool_name"] for pool in settings_file()["pools"]} | {"default_pool"}
    assert offenders(dag, lambda task: task.pool in pools) == []


def test_requests_to_a_source_share_a_pool_and_publishing_updates_the_asset(bag: DagBag) -> None:
    from sluice.assets import ENTITIES
    from sluice.operators.extract import ExtractOperator
    from sluice.operators.publish import PublishOperator

    tasks = [task for dag in bag.dags.values() for task in dag.tasks]
    extracts = [task for task in tasks if isinstance(task, ExtractOperator)]
    publishes = [task for task in tasks if isinstance(task, PublishOperator)]
    assert len(extracts) >= len(CONTRACTS)
    assert len(publishes) >= len(CONTRACTS)
    assert [task.task_id for task in extracts if task.pool != task.contract.connection] == []
    assert [task.task_id for task in publishes if task.outlets != [ENTITIES[task.contract.name]]] == []


def test_a_sync_is_a_group_for_each_contract_between_setup_and_teardown(bag: DagBag) -> None:
    from airflow.sdk import TaskGroup

    syncs = [dag for dag in bag.dags.values() if "sync" in dag.tags]
    assert "daily_sync" in {dag.dag_id for dag in syncs}
    for dag in syncs:
        groups = {name: node for name, node in dag.task_group.children.items() if isinstance(node, TaskGroup)}
        assert list(groups) == list(BY_NAME)
        edges = {task.task_id: task.downstream_task_ids for task in dag.tasks}
        expected: dict[str, set[str]] = {"finish": set(), "start": {"finish"}}
        for name in BY_NAME:
            chain = [f"{name}.{step}" for step in SYNC]
            assert list(groups[name].children) == chain
            expected["start"].add(chain[0])
            expected |= {before: {after} for before, after in zip(chain, [*chain[1:], "finish"], strict=True)}
        assert edges == expected
        assert [task.task_id for task in dag.tasks if task.is_setup] == ["start"]
        assert [task.task_id for task in dag.tasks if task.is_teardown] == ["finish"]
        assert [task.task_id for task in dag.tasks if task.is_mapped] == [f"{name}.stage" for name in BY_NAME]
