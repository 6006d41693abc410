"""The .sql files, one purpose a file, and how they are rendered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

SQL = Path(__file__).parent
"""Where they lie: the template search path of DAGs that run them."""

_TEMPLATES = Environment(loader=FileSystemLoader(SQL), undefined=StrictUndefined, autoescape=False)  # noqa: S701 - SQL, not HTML
"""Keeps what it has compiled: a large file takes longer to compile than to run on a small entity."""


def render(template: str, **values: Any) -> str:
    """The SQL of a file, as text of one or several statements.

    `values` are identifiers of our own, numbers, UUIDs; nothing that a source or a person sent.
    """
    return _TEMPLATES.get_template(template).render(**values)
