"""The generated page: what it says of a DAG, and that it is what the DAGs say today."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pendulum
import pytest

from sluice.dag_docs import DOCUMENT, REPOSITORY, DagFileError, load, render, schedule_in_words

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.sdk import DAG

SMALL_DAG = '''
"""### A small one

What it does.
"""
from datetime import timedelta
import pendulum
from airflow.sdk import DAG, Asset, Param, TaskGroup, setup, task, teardown

@setup
def begin() -> None:
    """Opens | the gate."""

@task(outlets=[Asset("app.things", uri="x-sluice://app_db/app/things")], pool="source_api", retries=2,
    retry_exponential_backoff=2.0, max_retry_delay=timedelta(minutes=15), execution_timeout=timedelta(minutes=90))
def work(number: int) -> None:
    """Works on one number.

    And more.
    """

@teardown
def end() -> None:
    """Closes the gate."""

with DAG(
    "small",
    schedule="*/15 * * * *",
    start_date=pendulum.datetime(2025, 1, 1, tz="UTC"),
    description="A small one",
    tags=["b", "a"],
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=6),
    doc_md=__doc__,
    default_args={"owner": "us"},
    params={"sure": Param(False, type="boolean", title="Sure", description="Whether you are."), "any": Param(1)},
):
    opened = begin()
    with TaskGroup("things") as group:
        work.expand(number=[1, 2])
    opened >> group >> end().as_teardown(setups=opened)
'''

SMALL_PAGE = """\
# The DAGs

This page is written from the DAG files by `make docs`; `make lint` fails where it has drifted from them.

| DAG | Runs | Tags | What it does |
| --- | --- | --- | --- |
| [small](#small) | Every 15 minutes (`*/15 * * * *`, UTC) | a, b | A small one |

## small

A small one

- **Runs**: Every 15 minutes (`*/15 * * * *`, UTC)
- **Tags**: a, b
- **Owner**: us
- **At the same time**: 1 run
- **A run may take**: 6 hours
- **Missed runs**: are not caught up
- **Updates the assets**: `app.things`

### A small one

What it does.

### Params

| Param | Type | Default | What it is for |
| --- | --- | --- | --- |
| `sure` | boolean | false | Whether you are. |
| `any` | any | 1 |  |

### Tasks

```mermaid
flowchart LR
    t0["begin"]
    subgraph g_t1["things"]
        t1[["work"]]
    end
    t2["end"]
    t0 --> t1
    t0 --> t2
    t1 --> t2
```

| Task | What it does | Pool | Retries | Time limit | Updates |
| --- | --- | --- | --- | --- | --- |
| `begin` | *Setup.* Opens \\| the gate. | default_pool | none | as long as it likes |  |
| `things.work` | *Mapped.* Works on one number. | source_api | 2, each wait 2 times as long, up to 15 minutes | \
1 hour 30 minutes | `app.things` |
| `end` | *Teardown.* Closes the gate. | default_pool | none | as long as it likes |  |
"""


def started(*arguments: str | Path, **changes: str) -> subprocess.Popen[str]:
    """The command, as `make` runs it."""
    python_path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "plugins")])
    command = [sys.executable, "-m", "sluice.dag_docs", *map(str, arguments)]
    pipe = subprocess.PIPE
    environment = os.environ | {"PYTHONPATH": python_path} | changes
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Its exit status and what it said."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_the_page_says_what_the_dags_say(bag: DagBag) -> None:
    page = render(bag.dags[dag_id] for dag_id in sorted(bag.dags))
    assert DOCUMENT.read_text() == page, "run `make docs`"
    assert re.findall(r"^## (.+)$", page, re.MULTILINE) == sorted(bag.dags)
    for dag in bag.dags.values():
        assert (dag.doc_md or "").strip() in page
        assert all(f"| `{task.task_id}` |" in page for task in dag.tasks)
    assert str(REPOSITORY) not in page


def test_the_command_writes_checks_and_finds_drift_without_a_trace(tmp_path: Path) -> None:
    same, changed, home, page = tmp_path / "same", tmp_path / "changed", tmp_path / "home", tmp_path / "DAGS.md"
    for folder in (same, changed, home):
        folder.mkdir()
    (same / "small.py").write_text(SMALL_DAG)
    (changed / "small.py").write_text(SMALL_DAG.replace("*/15 * * * *", "*/20 * * * *"))
    odd = {  # what a machine may have set: none of it may show
        "HOME": str(home),
        "PYTHONHASHSEED": "7",
        "LANG": "de_DE.UTF-8",
        "TZ": "Asia/Tokyo",
        "AIRFLOW_HOME": str(home / "airflow"),
        "AIRFLOW__CORE__DEFAULT_TIMEZONE": "Asia/Tokyo",
        "AIRFLOW__CORE__DEFAULT_TASK_RETRIES": "5",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql+psycopg2://nobody:nothing@127.0.0.1:1/none",
    }
    assert ended(started("--dags", same, "--page", page, **odd)) == (0, "", "")
    assert page.read_text() == SMALL_PAGE
    checks = [started("--check", "--dags", dags, "--page", page, **odd) for dags in (same, changed)]
    assert ended(checks[0]) == (0, "", "")
    assert ended(checks[1]) == (1, "", f"{page} is not what the DAGs say: run `make docs`\n")
    assert page.read_text() == SMALL_PAGE
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "message"),
    [("", "there is no DAG in "), ("from airflow.sdk import DAG\nimport nothing_such\n", "nothing_such")],
)
def test_a_folder_without_dags_or_with_a_broken_one_is_an_error(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "broken.py").write_text(source)
    with pytest.raises(DagFileError, match=message):
        load(tmp_path)


def scheduled(schedule: Any) -> DAG:
    from airflow.sdk import DAG

    return DAG("scheduled", schedule=schedule, max_active_runs=1, start_date=pendulum.datetime(2025, 1, 1, tz="UTC"))


def test_schedules_in_words() -> None:
    from airflow.sdk import Asset, AssetOrTimeSchedule, CronTriggerTimetable

    one, two, three = (Asset(name, uri=f"x-sluice://app_db/app/{name}") for name in ("one", "two", "three"))
    daily = CronTriggerTimetable("0 5 * * *", timezone="UTC")
    cases = {
        "When somebody triggers it": None,
        "At 02:00 (`0 2 * * *`, UTC)": "0 2 * * *",
        "At 00:00 (`0 0 * * *`, UTC)": "@daily",
        "When `one` is updated": one,
        "When `one` and `two` are updated": [one, two],
        "When `one` or `two` is updated": one | two,
        "When `three` and (`one` or `two`) are updated": three & (one | two),
        "At 05:00 (`0 5 * * *`, UTC), or when `one` is updated": AssetOrTimeSchedule(timetable=daily, assets=[one]),
        "0:30:00": timedelta(minutes=30),
        "As frequently as possible, but only one run at a time. (@continuous)": "@continuous",
    }
    assert [schedule_in_words(scheduled(schedule)) for schedule in cases.values()] == list(cases)
