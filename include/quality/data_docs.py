"""Data Docs: a page for each evaluation of quality checks, and an index for each pipeline.

Below a folder lie `<pipeline>/<evaluation>.html` and `<pipeline>/index.html`. A page is whole in itself: it loads
nothing, runs no script, and holds counts, keys and names, never values. Its links are those of the web server that
shows it without the endings: `<pipeline>` and `<pipeline>/<evaluation>`.
"""

from __future__ import annotations

import html
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self
from uuid import UUID

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from psycopg import Connection, Error, errors

from include.operations import quality_results
from include.operations.quality_results import Evaluation

if TYPE_CHECKING:
    from great_expectations.core import ExpectationSuiteValidationResult, ExpectationValidationResult

    from include.quality.gate import GateResult

PAGES = Path(__file__).parent / "pages"
SHOWN = 100
"""How many evaluations an index shows."""

DAG_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,249}")
"""The names of folders that are looked for: `lost+found` is none, nor is what begins with a dot."""

PAGE_NAME = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.html")
"""The page of an evaluation: no other file is ever removed."""

UNFINISHED_SECONDS = 3600

LOCK_SECONDS = 15
"""How long writing an index waits for another task that writes the same one."""

COUNTS = {
    "element_count",
    "unexpected_count",
    "unexpected_percent",
    "unexpected_percent_nonmissing",
    "unexpected_percent_total",
    "missing_count",
    "missing_percent",
    "observed_value",
}
"""What may be shown of a result; whatever else is there, samples of values among it, is left out."""


class DataDocsError(Exception):
    """A page or an index could not be written or removed; the checks and their results are not concerned."""


class Folder(Protocol):
    """What is needed of a folder or file: `pathlib.Path`, `UPath` and Airflow's `ObjectStoragePath` have it."""

    @property
    def name(self) -> str: ...
    def __truediv__(self, name: str, /) -> Self: ...
    def mkdir(self, *, parents: bool = False, exist_ok: bool = False) -> None: ...
    def write_bytes(self, data: bytes, /) -> int: ...
    def iterdir(self) -> Iterator[Self]: ...
    def unlink(self, missing_ok: bool = False) -> None: ...


def write_page(
    folder: Folder,
    *,
    evaluation: UUID,
    pipeline: str,
    run_id: str,
    task_id: str,
    suite: str,
    result: GateResult,
) -> None:
    """Writes the page of an evaluation, whole or not at all, over any that is there.

    Raises DataDocsError where it cannot be rendered or written.
    """
    try:
        relations = _relations(result.validations)
    except Exception as error:  # whatever it is, the checks have their results
        raise DataDocsError(
            f"the page of {suite} cannot be rendered: Great Expectations raises {type(error).__name__}: its results "
            f"are in operations.quality_results, evaluation {evaluation}"
        ) from error
    failed = (*result.critical, *result.warnings)
    page = _render(
        "evaluation.html",
        title=f"{suite}: {pipeline}",
        pipeline=pipeline,
        run_id=run_id,
        task_id=task_id,
        suite=suite,
        at=_utc(datetime.now(UTC)),
        result=result,
        failed=failed,
        verdict=failed[0].severity if failed else "met",
        relations=relations,
    )
    _write(folder, pipeline, f"{evaluation}.html", page)


def write_index(folder: Folder, connection: Connection[Any], pipeline: str) -> None:
    """Writes the pipeline's index of its newest 100 evaluations, whole or not at all.

    Tasks that write the same index take turns, so that the last one has seen what all have recorded: the connection is
    one to `app_db`, in which nothing else is under way.

    Raises DataDocsError where it cannot be written, or where another task has held it for 15 s.
    """
    try:
        with connection.transaction():
            connection.execute("select set_config('lock_timeout', %s, true)", (f"{LOCK_SECONDS}s",))
            connection.execute(
                "select pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"sluice.data_docs.{pipeline}",)
            )
            evaluations = quality_results.recent(connection, pipeline, SHOWN)
            index = _render(
                "index.html",
                title=f"Quality of {pipeline}",
                pipeline=pipeline,
                evaluations=evaluations,
                newest_run=_newest_run(evaluations),
                most=SHOWN,
            )
            _write(folder, pipeline, "index.html", index)
    except errors.LockNotAvailable:
        raise DataDocsError(
            f"the index of {pipeline} was not written: another task has been writing it for {LOCK_SECONDS} s; "
            "the next evaluation writes it"
        ) from None
    except Error as error:
        raise DataDocsError(f"the index of {pipeline} was not written: {type(error).__name__}: {error}") from error


def pipelines(folder: Folder) -> set[str]:
    """The names of the folders of pipelines, and of whatever else could be one.

    Raises DataDocsError where they cannot be read.
    """
    try:
        return {place.name for place in folder.iterdir() if DAG_ID.fullmatch(place.name)}
    except (FileNotFoundError, NotADirectoryError):  # an object store says the latter of a folder that is not there
        return set()
    except OSError as error:
        raise DataDocsError(_remedy("pages cannot be read from", folder, error)) from error


def prune(folder: Folder, connection: Connection[Any], pipeline: str, keep: int) -> int:
    """Removes the pages of a pipeline but those of its newest `keep` runs, and of what failed; gives how many.

    Those go when their results go. What a task left half-written that was killed goes after an hour.

    Raises DataDocsError where one cannot be removed.
    """
    place = _place(folder, pipeline)
    try:
        found = [page for page in place.iterdir() if PAGE_NAME.fullmatch(page.name)]
        # After the pages: one that has come meanwhile is of an evaluation that was recorded before it.
        known = {f"{evaluation}.html" for evaluation in quality_results.kept(connection, pipeline, keep)}
        old = [page for page in found if page.name not in known]
        if isinstance(place, Path):
            unfinished = place.glob(".*.unfinished")
            old += [page for page in unfinished if page.stat().st_mtime < time.time() - UNFINISHED_SECONDS]
        for page in old:
            page.unlink(missing_ok=True)
    except (FileNotFoundError, NotADirectoryError):  # an object store says the latter of a folder that is not there
        return 0
    except OSError as error:
        raise DataDocsError(_remedy("pages cannot be removed from", place, error)) from error
    return len(old)


def list_page(pipelines: Sequence[str]) -> str:
    """The page that leads to the indexes of `pipelines`."""
    return _render("pipelines.html", title="Quality", pipelines=pipelines)


def notice_page(title: str, text: str) -> str:
    """A page that says one thing."""
    return _render("notice.html", title=title, text=text)


def _place(folder: Folder, pipeline: str) -> Folder:
    """The folder of a pipeline; one of a file system as a `Path`, which can rename."""
    if getattr(folder, "protocol", "file") in {"", "file", "local"}:
        return Path(getattr(folder, "path", str(folder))) / pipeline
    return folder / pipeline


def _write(folder: Folder, pipeline: str, name: str, page: str) -> None:
    """Writes a file whole: an object store puts it at once, a file system needs a rename."""
    place = _place(folder, pipeline)
    target = place / name
    data = page.encode()
    try:
        place.mkdir(parents=True, exist_ok=True)
        if isinstance(target, Path):
            unfinished = target.with_name(f".{name}.unfinished")
            unfinished.write_bytes(data)
            unfinished.replace(target)
        else:
            target.write_bytes(data)
    except Exception as error:  # an object store raises errors of its own
        raise DataDocsError(_remedy("a page cannot be written to", target, error)) from error


def _remedy(what: str, path: Folder, error: Exception) -> str:
    reason = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
    return (
        f"{what} {path}: {reason}: let Airflow's tasks write there, or set the Variable data_docs_uri to a folder "
        "where they may"
    )


def _relations(validations: Sequence[ExpectationSuiteValidationResult]) -> list[dict[str, Any]]:
    """What Great Expectations makes of each relation's results: a section a column, without what is above them."""
    if not validations:
        return []
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from great_expectations.render.view.view import DefaultJinjaSectionView

    class View(DefaultJinjaSectionView):
        """Trusts nothing that it is given; it escapes text, but strings of its params only."""

        _TRUSTED_HTML_PARAMS = frozenset()

        @staticmethod
        def _escape_template_param_value(value: Any) -> str:
            return html.escape(str(value))

    renderer: Any = ValidationResultsPageRenderer()  # its methods say no types
    view: Any = View()
    relations = []
    for validation in validations:
        document = renderer.render(_without_values(validation)).to_json_dict()
        sections = [_escaped(section) for section in document["sections"][1:]]  # the first is an overview
        rendered = "".join(view.render({"section": section, "section_loop": {}}) for section in sections)
        relations.append(
            {
                "title": validation.suite_name,
                "checks": len(validation.results),
                "met": sum(1 for result in validation.results if result.success),
                # Its ids are the same in each section.
                "rendered": Markup(re.sub(r' id="[^"]*"', "", rendered)),  # noqa: S704 - escaped by _escaped and View
            }
        )
    return relations


def _escaped(block: Any) -> Any:
    """A block with all its text escaped but the params of its templates, which the view escapes."""
    if isinstance(block, str):
        return html.escape(block)
    if isinstance(block, list):
        return [_escaped(part) for part in block]
    if isinstance(block, dict):
        return {key: part if key == "params" else _escaped(part) for key, part in block.items()}
    return block


def _without_values(validation: ExpectationSuiteValidationResult) -> ExpectationSuiteValidationResult:
    from great_expectations.core import ExpectationSuiteValidationResult

    return ExpectationSuiteValidationResult(
        success=bool(validation.success),
        results=[_counts(result) for result in validation.results],
        suite_name=validation.suite_name,
        statistics=validation.statistics,
        meta={},
    )


def _counts(result: ExpectationValidationResult) -> ExpectationValidationResult:
    """A result with its counts only; a query is shown below the name of its check."""
    from great_expectations.core import ExpectationValidationResult
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    config = result.expectation_config
    assert config is not None  # noqa: S101 - of a result that was evaluated
    query = config.kwargs.get("unexpected_rows_query")
    return ExpectationValidationResult(
        success=result.success,
        expectation_config=ExpectationConfiguration(
            type=config.type,
            kwargs=config.kwargs,
            description=f"{(config.meta or {}).get('name', 'no rows')}\n{query}" if query else None,
        ),
        result={name: count for name, count in result.result.items() if name in COUNTS},
        exception_info={"raised_exception": False, "exception_message": None, "exception_traceback": None},
        meta={},
    )


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(PAGES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["style"] = Markup((PAGES / "style.css").read_text(encoding="utf-8"))  # noqa: S704 - our own
    environment.filters |= {"utc": _utc, "verdict": _verdict, "said": _said, "heights": _heights}
    return environment


def _render(template: str, **values: Any) -> str:
    return _templates().get_template(template).render(**values)


def _newest_run(evaluations: Sequence[Evaluation]) -> Evaluation | None:
    """The counts of all evaluations of the newest one's run."""
    if not evaluations:
        return None
    of = [one for one in evaluations if one.run_id == evaluations[0].run_id]
    counts = {name: sum(getattr(one, name) for one in of) for name in ("met", "warnings", "critical")}
    return replace(evaluations[0], **counts)


def _utc(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _verdict(one: Evaluation) -> str:
    return "critical" if one.critical else "warning" if one.warnings else "met"


def _said(one: Evaluation) -> str:
    parts = [f"{one.critical} critical"] if one.critical else []
    parts += [f"{one.warnings} warning{'s' if one.warnings > 1 else ''}"] if one.warnings else []
    return f"{', '.join(parts)} of {one.met + one.warnings + one.critical}" if parts else f"all {one.met} met"


def _heights(one: Evaluation, height: int) -> tuple[int, int, int]:
    """The heights of a bar's parts, met, warnings and critical; what failed is at least 4 high, however few it is."""
    total = one.met + one.warnings + one.critical
    warnings, critical = (max(4, height * part // total) if part else 0 for part in (one.warnings, one.critical))
    return max(0, height - warnings - critical), warnings, critical
