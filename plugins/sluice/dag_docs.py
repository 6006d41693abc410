"""Writes `docs/DAGS.md` from the DAGs themselves: `python -m sluice.dag_docs`. With `--check`, says if it has drifted.

It parses the DAG files as Airflow does, with settings of its own: no metadata database, and nothing of the user's
Airflow home is read or written.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import sys
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import pendulum

if TYPE_CHECKING:
    from airflow.sdk import DAG, TaskGroup
    from airflow.sdk.definitions.asset import BaseAsset
    from airflow.sdk.types import Operator

REPOSITORY = Path(__file__).parents[2]
DAGS = REPOSITORY / "dags"
DOCUMENT = REPOSITORY / "docs" / "DAGS.md"

HEAD = """\
# The DAGs

This page is written from the DAG files by `make docs`; `make lint` fails where it has drifted from them.
"""


class DagFileError(Exception):
    """A DAG file that cannot be parsed, or a folder without DAGs."""


def use_empty_airflow(home: Path) -> None:
    """Settings of Airflow's own, nothing of this machine's: call it before airflow is imported.

    `home` takes what Airflow writes (an empty folder for logs). The metadata database is one in memory, without tables.
    """
    for name in [name for name in os.environ if name.startswith("AIRFLOW__")]:
        del os.environ[name]
    os.environ |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__CHECK_MIGRATIONS": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "sqlite://",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "CRITICAL",  # a file that cannot be parsed is said once, by `load`,
    }


def load(folder: Path = DAGS) -> list[DAG]:
    """The DAGs of a folder, by their ids. Raises DagFileError for a file that cannot be parsed, and for no DAGs."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(folder)
    if bag.import_errors:
        raise DagFileError("\n".join(f"{file}:\n{error}" for file, error in sorted(bag.import_errors.items())))
    if not bag.dags:
        raise DagFileError(f"there is no DAG in {folder}")
    return [bag.dags[dag_id] for dag_id in sorted(bag.dags)]


def render(dags: Iterable[DAG]) -> str:
    """The page, in Markdown. The same DAGs give the same text, on any machine."""
    dags = list(dags)
    index = [
        (f"[{dag.dag_id}](#{dag.dag_id})", schedule_in_words(dag), ", ".join(sorted(dag.tags)), dag.description or "")
        for dag in dags
    ]
    parts = [HEAD, _table(("DAG", "Runs", "Tags", "What it does"), index), *(_section(dag) for dag in dags)]
    return "\n".join(parts)


def schedule_in_words(dag: DAG) -> str:
    """When a DAG runs: `At 02:00 (0 2 * * *, UTC)`, `When app.customers is updated`, `When somebody triggers it`."""
    words = _runs(dag.timetable, str(dag.timezone))
    return words[0].upper() + words[1:]


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status: 1 where `--check` finds a difference, or a DAG file cannot be parsed."""
    parser = argparse.ArgumentParser(prog="python -m sluice.dag_docs", description="Writes docs/DAGS.md from the DAGs.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where the page has drifted")
    parser.add_argument("--dags", type=Path, default=DAGS, help="the folder of the DAG files")
    parser.add_argument("--page", type=Path, default=DOCUMENT, help="the page to write or check")
    options = parser.parse_args(arguments)
    with TemporaryDirectory(prefix="sluice-airflow-") as home:
        use_empty_airflow(Path(home))
        try:
            page = render(load(options.dags))
        except DagFileError as error:
            print(error, file=sys.stderr)
            return 1
    if not options.check:
        options.page.write_text(page, encoding="utf-8")
    elif not options.page.exists() or options.page.read_text(encoding="utf-8") != page:
        print(f"{options.page} is not what the DAGs say: run `make docs`", file=sys.stderr)
        return 1
    return 0


def _section(dag: DAG) -> str:
    facts = {
        "Runs": schedule_in_words(dag),
        "Tags": ", ".join(sorted(dag.tags)),
        "Owner": dag.owner,
        "At the same time": f"{dag.max_active_runs} run" + ("" if dag.max_active_runs == 1 else "s"),
        "A run may take": _duration(dag.dagrun_timeout),
        "Missed runs": "are caught up" if dag.catchup else "are not caught up",
        "Updates the assets": ", ".join(_assets(dag.tasks)) or "none",
    }
    params = [
        (f"`{name}`", _types(param), json.dumps(param.value), param.description or "")
        for name, param in ((name, dag.params.get_param(name)) for name in dag.params)
    ]
    tasks = [
        (
            f"`{task.task_id}`",
            _purpose(task),
            task.pool,
            _retries(task),
            _duration(task.execution_timeout),
            ", ".join(_assets([task])),
        )
        for task in _in_order(dag.task_group)
    ]
    columns = ("Task", "What it does", "Pool", "Retries", "Time limit", "Updates")
    return "\n".join(
        [
            f"## {dag.dag_id}\n",
            f"{dag.description}\n",
            *(f"- **{name}**: {value}" for name, value in facts.items()),
            "",
            f"{inspect.cleandoc(dag.doc_md or '')}\n",
            "### Params\n",
            _table(("Param", "Type", "Default", "What it is for"), params) if params else "None.\n",
            "### Tasks\n",
            *_graph(dag),
            "",
            _table(columns, tasks),
        ]
    )


def _runs(timetable: Any, timezone: str) -> str:
    from airflow.sdk.definitions.timetables.assets import AssetOrTimeSchedule, AssetTriggeredTimetable
    from airflow.sdk.definitions.timetables.simple import NullTimetable
    from airflow.serialization.encoders import coerce_to_core_timetable

    match timetable:
        case NullTimetable():
            return "when somebody triggers it"
        case AssetOrTimeSchedule():
            return f"{_runs(timetable.timetable, timezone)}, or {_condition_in_words(timetable.asset_condition)}"
        case AssetTriggeredTimetable():
            return _condition_in_words(timetable.asset_condition)
    core = coerce_to_core_timetable(timetable)
    cron = getattr(timetable, "expression", None)
    exactly = f"`{cron}`, {timezone}" if cron else core.summary
    words = core.description
    return f"{words[:1].lower()}{words[1:]} ({exactly})" if words else exactly


def _condition_in_words(condition: BaseAsset) -> str:
    names = _condition(condition)
    return f"when {names} {'are' if ' and ' in names else 'is'} updated"


def _condition(condition: Any) -> str:
    """An asset, or assets joined by `and` and `or`."""
    from airflow.sdk.definitions.asset import AssetAll, AssetAny

    if not isinstance(condition, AssetAll | AssetAny):
        return f"`{condition.name}`"
    word = " and " if isinstance(condition, AssetAll) else " or "
    parts = [_condition(part) for part in condition.objects]
    return word.join(f"({part})" if " " in part and len(parts) > 1 else part for part in parts)


def _assets(tasks: Iterable[Operator]) -> list[str]:
    return [f"`{name}`" for name in sorted({outlet.name for task in tasks for outlet in task.outlets})]


def _nodes(group: TaskGroup) -> list[TaskGroup | Operator]:
    """The tasks and groups that stand in a group itself, in the order that they run in."""
    return cast("list[TaskGroup | Operator]", group.topological_sort())


def _in_order(group: TaskGroup) -> Iterator[Operator]:
    """The tasks of a group and of the groups in it, each group's together."""
    from airflow.sdk import TaskGroup

    for node in _nodes(group):
        if isinstance(node, TaskGroup):
            yield from _in_order(node)
        else:
            yield node


def _graph(dag: DAG) -> Iterator[str]:
    """The tasks as a Mermaid diagram, which GitHub draws; double borders are mapped tasks."""
    from airflow.sdk import TaskGroup

    nodes = {task.task_id: f"t{number}" for number, task in enumerate(_in_order(dag.task_group))}

    def boxes(group: TaskGroup, indent: str) -> Iterator[str]:
        for node in _nodes(group):
            if isinstance(node, TaskGroup):
                yield f'{indent}subgraph g_{nodes[next(_in_order(node)).task_id]}["{node.label}"]'
                yield from boxes(node, indent + "    ")
                yield f"{indent}end"
            else:
                left, right = ("[[", "]]") if node.is_mapped else ("[", "]")
                yield f'{indent}{nodes[node.task_id]}{left}"{node.label}"{right}'

    yield "```mermaid"
    yield "flowchart LR"
    yield from boxes(dag.task_group, "    ")
    for task_id, name in nodes.items():
        for after in sorted(dag.task_dict[task_id].downstream_task_ids, key=list(nodes).index):
            yield f"    {name} --> {nodes[after]}"
    yield "```"


def _purpose(task: Any) -> str:
    """The first line of what the task says of itself, with what is special about it in front."""
    kinds = ["Setup"] * task.is_setup + ["Teardown"] * task.is_teardown + ["Mapped"] * task.is_mapped
    function = getattr(task, "python_callable", None) or getattr(task, "partial_kwargs", {}).get("python_callable")
    said = inspect.getdoc(function or (task.operator_class if task.is_mapped else type(task))) or ""
    return " ".join([*(f"*{kind}.*" for kind in kinds), said.partition("\n")[0]])


def _retries(task: Operator) -> str:
    if not task.retries:
        return "none"
    longest = f", up to {_duration(task.max_retry_delay)}" if task.max_retry_delay else ""
    factor = float(task.retry_exponential_backoff or 0)
    return f"{task.retries}" + (f", each wait {factor:g} times as long{longest}" if factor > 1 else "")


def _duration(limit: timedelta | float | None) -> str:
    if limit is None:
        return "as long as it likes"
    seconds = limit.total_seconds() if isinstance(limit, timedelta) else limit
    return pendulum.duration(seconds=seconds).in_words(locale="en")


def _types(param: Any) -> str:
    types = param.schema.get("type", "any")
    return types if isinstance(types, str) else " or ".join(types)


def _table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    cells = ([str(cell).replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n"


if __name__ == "__main__":
    sys.exit(main())
