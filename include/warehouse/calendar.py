"""The calendar of `dim_date`: a row a day, with the weekends and public holidays of a country."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from datetime import date, timedelta

import holidays

YEARS = range(2015, 2036)
"""The years that `dim_date` always has; others come with the facts that need them."""

COLUMNS = ("date_key", "date", "year", "quarter", "month", "day_of_week", "is_weekend", "is_holiday")
Row = tuple[int, date, int, int, int, int, bool, bool]


def rows(years: Iterable[int], country: str) -> Iterator[Row]:
    """The days of some years (1 to 9999), as `COLUMNS`; the days of a week are 1 (Monday) to 7.

    `country` is an ISO 3166-1 alpha-2 code, or one with a subdivision behind it, as the library `holidays` knows them:
    "US", "DE-BY". A year for which the library knows nothing has no holidays.

    Raises ValueError for a country or subdivision that the library does not know.
    """
    code, _, subdivision = country.partition("-")
    for year in years:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it warns of years for which it knows nothing
                off = holidays.country_holidays(code, subdiv=subdivision or None, years=year, expand=False)
        except NotImplementedError as error:
            raise ValueError(f"holiday_country {country!r}: {error}; say one that the library holidays has") from error
        first = date(year, 1, 1)
        length = (date(year, 12, 31) - first).days + 1
        for day in (first + timedelta(days=number) for number in range(length)):
            yield (
                day.year * 10000 + day.month * 100 + day.day,
                day,
                day.year,
                (day.month + 2) // 3,
                day.month,
                day.isoweekday(),
                off.is_weekend(day),
                day in off,
            )
