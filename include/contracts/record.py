"""What a valid record is: the base of every record model, and the field types that contracts share.

A record model is a pydantic model whose aliases are the source's field names. Its types, bounds and choices are the one
place that says what is valid: columns, CHECK constraints and gate expectations are derived from them (`columns.py`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from include.transform.cleaners import clean_email, clean_name, parse_datetime

_WHOLE = re.compile(r"\s*[+-]?[0-9]{1,19}\s*")


class Record(BaseModel):
    """One record of a source.

    Validation takes a `Notes` counter as its context: what a record lost without being rejected is counted there.
    """

    model_config = ConfigDict(extra="ignore")


Notes = Counter[str]
"""How often something was given up without rejecting the record, by a description of it."""


def blank_to_none(value: Any) -> Any:
    """Many sources send an empty or blank string where they mean that there is no value."""
    return None if isinstance(value, str) and not value.strip() else value


def not_bool(value: Any) -> Any:
    """JSON true is no number, although Python's is."""
    if isinstance(value, bool):
        raise ValueError("expected a number, got a boolean")  # noqa: TRY004 - pydantic turns ValueError into its own
    return value


def whole_from_text(value: Any) -> Any:
    """The whole number that a text writes; what is none is left to pydantic's own error."""
    return int(value) if isinstance(value, str) and _WHOLE.fullmatch(value) else value


def none_to_list(value: Any) -> Any:
    """A list that is null is an empty one."""
    return [] if value is None else value


def none_to_zero(value: Any) -> Any:
    """An amount that is null is zero."""
    return 0 if value is None else value


def text_only(clean: Callable[[str], str]) -> Callable[[Any], Any]:
    """A cleaner of text that leaves what is no text to pydantic's own error."""
    return lambda value: clean(value) if isinstance(value, str) else value


AnyText = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
"""Any text that a Postgres text column can hold: no NUL (lone surrogates pydantic refuses itself)."""

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x20\x7f]+$")]
"""A source's own text key: not empty, without blanks and control characters."""

PersonName = Annotated[str, StringConstraints(min_length=1, max_length=100), BeforeValidator(text_only(clean_name))]
"""A person's name, cleaned, then 1 to 100 characters."""

Email = Annotated[str, StringConstraints(max_length=254), BeforeValidator(text_only(clean_email))]
"""An e-mail address, trimmed, lower-cased and checked in form; 254 characters at most (RFC 5321, 4.5.3.1.3)."""

Timestamp = Annotated[datetime, BeforeValidator(parse_datetime)]
"""A point in time, in any form that `parse_datetime` takes, as an aware UTC datetime."""

WholeNumber = Annotated[int, Field(strict=True, ge=-(2**63), le=2**63 - 1)]
"""A JSON integer that fits a bigint; no string, no boolean, no fraction."""

WholeNumberText = Annotated[int, BeforeValidator(whole_from_text), Field(strict=True, ge=-(2**63), le=2**63 - 1)]
"""A whole number that may be written as text, as all values of a csv file are."""

Money = Annotated[Decimal, BeforeValidator(not_bool), Field(max_digits=18, decimal_places=4, allow_inf_nan=False)]
"""An exact amount; more than four decimals are refused, never rounded."""

Country = Annotated[str, StringConstraints(strip_whitespace=True, to_upper=True, pattern=r"^[A-Za-z]{2}$")]
"""An ISO 3166-1 alpha-2 code."""
