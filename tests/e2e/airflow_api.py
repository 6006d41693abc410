"""Airflow's REST API, as a person at its UI uses it, and the processes of its tasks."""

from __future__ import annotations

from typing import Any

import psutil
import requests

from include.local.stack import Stack
from tests.e2e.running import Database, until

ENDED = ("success", "failed")


class AirflowApi:
    """Airflow with a real scheduler and the LocalExecutor; `dag_id` is `daily_sync` unless a call says otherwise."""

    def __init__(self, stack: Stack) -> None:
        self.metadata = Database(stack.dsn("airflow"))
        self._address = stack.up_airflow()
        login, password = stack.admin()
        self._session = requests.Session()
        self._session.trust_env = False
        token = self._ask("POST", "/auth/token", username=login, password=password)["access_token"]
        self._session.headers["Authorization"] = f"Bearer {token}"

    def parsed(self, dag_id: str) -> None:
        """Waits until Airflow knows the DAG."""
        query = "select from dag where dag_id = %s and not is_stale"
        until(lambda: self.metadata.rows(query, dag_id), f"{dag_id} is parsed")

    def unpause(self, dag_id: str = "daily_sync") -> None:
        """Lets a DAG with a schedule run, and waits for the run that its schedule starts then, if there is one."""
        self.parsed(dag_id)
        self._ask("PATCH", f"/api/v2/dags/{dag_id}", is_paused=False)
        due = "select from dag where dag_id = %s and next_dagrun_create_after > now() + interval '5 minutes'"
        until(lambda: self.metadata.rows(due, dag_id), "the run that is due, or soon will be, has begun", 420)
        going = "select from dag_run where state in ('queued', 'running')"
        until(lambda: not self.metadata.rows(going), "it has ended", 240)

    def pause(self, dag_id: str = "daily_sync") -> None:
        """Lets its schedule start no more runs: the databases stay for the next tests."""
        self._ask("PATCH", f"/api/v2/dags/{dag_id}", is_paused=True)

    def trigger(self, dag_id: str = "daily_sync", **conf: Any) -> str:
        """Begins a run; gives its id."""
        answer = self._ask("POST", f"/api/v2/dags/{dag_id}/dagRuns", logical_date=None, conf=conf)
        return str(answer["dag_run_id"])

    def clear(
        self,
        run_id: str,
        *tasks: str,
        dag_id: str = "daily_sync",
        downstream: bool = False,
        only_failed: bool = False,
    ) -> None:
        """Clears tasks of a run that has ended, which begins again with them; all of its tasks where none is named."""
        self._ask(
            "POST",
            f"/api/v2/dags/{dag_id}/clearTaskInstances",
            dry_run=False,
            dag_run_id=run_id,
            task_ids=list(tasks) or None,
            include_downstream=downstream,
            only_failed=only_failed,
            reset_dag_runs=True,
        )

    def mark(self, run_id: str, state: str, dag_id: str = "daily_sync") -> None:
        """Sets the state of a run by hand."""
        self._ask("PATCH", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}", state=state)

    def ended(self, run_id: str, seconds: float = 90, dag_id: str = "daily_sync") -> str:
        """The run's state, once it has ended."""
        query = "select state from dag_run where dag_id = %s and run_id = %s"

        def state() -> str | None:
            (found,) = self.metadata.column(query, dag_id, run_id)
            return found if found in ENDED else None

        return str(until(state, f"{run_id} has ended", seconds))

    def tasks(self, run_id: str, column: str = "state", dag_id: str = "daily_sync") -> dict[str, Any]:
        """The state, or another column, of each task of a run."""
        query = f"select task_id, {column} as found from task_instance where dag_id = %s and run_id = %s"
        return {row["task_id"]: row["found"] for row in self.metadata.rows(query, dag_id, run_id)}

    def links(self, run_id: str, task: str, dag_id: str = "daily_sync") -> dict[str, str | None]:
        """The buttons of a task, and where they lead."""
        answer = self._ask("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task}/links")
        return dict(answer["extra_links"])

    def kill(self, run_id: str, task: str, dag_id: str = "daily_sync") -> int:
        """kill -9 to the process of a running task, not to its supervisor; gives the number of the try."""
        number, process = self.process(run_id, task, dag_id)
        process.kill()
        return number

    def process(self, run_id: str, task: str, dag_id: str = "daily_sync") -> tuple[int, psutil.Process]:
        """The number of the try of a running task, and its process, whose parent is its supervisor."""
        query = (
            "select id::text, try_number from task_instance "
            "where dag_id = %s and run_id = %s and task_id = %s and state = 'running'"
        )
        ((instance, number),) = [row.values() for row in self.metadata.rows(query, dag_id, run_id, task)]
        (process,) = [p for p in psutil.process_iter(["cmdline"]) if f"airflow worker -- {instance}" in _title(p)]
        return int(number), process

    def _ask(self, method: str, path: str, **body: Any) -> Any:
        answer = self._session.request(method, self._address + path, json=body or None, timeout=30)
        assert answer.ok, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()


def _title(process: psutil.Process) -> str:
    return " ".join(process.info["cmdline"] or ())
