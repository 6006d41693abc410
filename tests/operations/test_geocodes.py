"""The cache of what geocoders answered: an address is asked for once, whatever customers and spellings there are."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from include.operations import geocodes
from include.operations.geocodes import Counts
from include.transform.geocoding import Address, GeocodingError, Location

pytestmark = pytest.mark.database

Database = psycopg.Connection[Any]
BERLIN = Location(52.5, 13.4)


class Atlas:
    """A geocoder that knows some cities, fails for others, and remembers what it was asked."""

    needs: tuple[str, ...] = ("city",)

    def __init__(
        self,
        known: dict[str, Location] | None = None,
        failing: Iterable[str] = (),
        *,
        name: str = "atlas",
        reads: tuple[str, ...] = ("city", "country"),
    ) -> None:
        self.name = name
        self.reads = reads
        self.known = known or {}
        self.failing = set(failing)
        self.asked: list[Address] = []

    def locate(self, address: Address) -> Location | None:
        self.asked.append(address)
        if address.city in self.failing:
            raise GeocodingError("atlas: is being printed")
        city = unicodedata.normalize("NFKC", address.city or "")  # any spelling may be the one asked
        return self.known.get(" ".join(city.split()).lower())


@pytest.fixture
def database(app_database: str) -> Iterator[Database]:
    with psycopg.connect(app_database, autocommit=True) as connection:
        yield connection


def add(database: Database, *addresses: Address, deleted: bool = False) -> None:
    with database.cursor() as cursor:
        cursor.executemany(
            """
            insert into app.customers (
              id, name, email, tags, street, city, state, zip_code, country,
              signup_date, updated_at, fetched_at, deleted_at, change_seq
            )
            values (%s, 'A', 'a@b.org', '{}', %s, %s, %s, %s, %s, now(), now(), now(), %s, 1)
            """,
            [(uuid4(), *address, "2026-01-01T00:00Z" if deleted else None) for address in addresses],
        )


def fill(database: Database, atlas: Atlas, **options: Any) -> Counts:
    return geocodes.fill(database, atlas, lambda line: None, **options)


def cached(database: Database) -> list[tuple[str, float | None, float | None]]:
    return database.execute("select geocoder, latitude, longitude from operations.geocodes order by 1, 2, 3").fetchall()


def test_an_address_is_asked_for_once_and_what_is_not_found_again_after_a_while(database: Database) -> None:
    spellings = ["Berlin", "berlin", "BERLIN", "  Berlin ", "\tBerlin\n", "\u00a0Berlin", "Ber\uff4cin"]
    add(database, *(Address(street=str(number), city=city, country="DE") for number, city in enumerate(spellings * 3)))
    add(database, Address(city="Berlin", country="US"), Address(city="Atlantis"), Address(city="Atlantis", country=" "))
    add(database, Address(), Address(street="1 Road", country="DE"), Address(city=" \t "), Address(city=""))
    add(database, Address(city="Gone", country="DE"), deleted=True)
    atlas = Atlas({"berlin": BERLIN})

    assert fill(database, atlas, dry_run=True) == Counts(wanted=3)
    assert atlas.asked == []
    assert fill(database, atlas) == Counts(wanted=3, found=2, not_found=1)
    assert len(atlas.asked) == 3
    assert {(address.street, address.state, address.zip_code) for address in atlas.asked} == {(None, None, None)}
    assert cached(database) == [("atlas", *BERLIN), ("atlas", *BERLIN), ("atlas", None, None)]
    assert fill(database, atlas) == Counts()

    database.execute("update operations.geocodes set answered_at = now() - interval '31 days'")
    atlas.known["atlantis"] = Location(36.4, 25.4)
    assert fill(database, atlas, not_found_age=timedelta(days=32)) == Counts()
    assert fill(database, atlas) == Counts(wanted=1, found=1)
    assert fill(database, atlas) == Counts()
    assert cached(database) == [("atlas", 36.4, 25.4), ("atlas", *BERLIN), ("atlas", *BERLIN)]


def test_another_geocoder_has_answers_of_its_own_and_reads_more_of_the_address(database: Database) -> None:
    add(database, *(Address(street=f"{number} Road", city="Berlin", country="DE") for number in (1, 1, 2)))
    assert fill(database, Atlas({"berlin": BERLIN})) == Counts(wanted=1, found=1)
    whole = Atlas(name="whole", reads=Address._fields)
    assert fill(database, whole) == Counts(wanted=2, not_found=2)
    assert sorted(whole.asked) == [
        Address("1 Road", "Berlin", None, None, "DE"),
        Address("2 Road", "Berlin", None, None, "DE"),
    ]
    assert cached(database) == [("atlas", *BERLIN), ("whole", None, None), ("whole", None, None)]


def test_the_parts_of_an_address_stay_apart(database: Database) -> None:
    whole = Atlas(reads=Address._fields)
    add(database, Address("a b", "c"), Address("a", "b c"), Address(None, "a", "b"), Address(None, "a", None, "b"))
    assert fill(database, whole) == Counts(wanted=4, not_found=4)
    assert fill(database, whole) == Counts()


def test_a_failure_is_counted_and_asked_for_again(database: Database) -> None:
    add(database, Address(city="Berlin"), Address(city="Rome"), Address(city="Nowhere"))
    atlas = Atlas({"berlin": BERLIN, "rome": Location(41.9, 12.5)}, failing=["Rome"])
    counts = fill(database, atlas)
    assert (counts.wanted, counts.found, counts.not_found, counts.failed, counts.left) == (3, 1, 1, 1, 0)
    assert counts.errors == {"atlas: is being printed": 1}
    assert str(counts) == "3 addresses to ask for: 1 found, 1 not found, 1 failed, 0 left"
    atlas.failing = set()
    assert fill(database, atlas) == Counts(wanted=1, found=1)
    assert cached(database) == [("atlas", 41.9, 12.5), ("atlas", *BERLIN), ("atlas", None, None)]


def test_a_geocoder_that_is_down_is_not_asked_for_ever(database: Database) -> None:
    cities = [f"City {number}" for number in range(100)]
    add(database, *(Address(city=city) for city in cities))
    first, second = Atlas(failing=cities), Atlas(failing=cities)
    for atlas in (first, second):
        counts = fill(database, atlas)
        assert (counts.wanted, counts.failed, counts.left) == (100, 5, 95)
    assert first.asked != second.asked, "always the same five would keep the others waiting for ever"
    assert cached(database) == []
    assert fill(database, Atlas()) == Counts(wanted=100, not_found=100)


def test_a_run_that_takes_too_long_leaves_the_rest_to_the_next(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(database, *(Address(city=f"City {number}") for number in range(10)))
    clock = iter(range(0, 100, 4))
    monkeypatch.setattr(geocodes.time, "monotonic", lambda: next(clock))
    lines: list[str] = []
    counts = geocodes.fill(database, Atlas(), lines.append, most_seconds=20)
    assert (counts.wanted, counts.not_found, counts.left) == (10, 5, 5)
    assert lines == ["10 addresses to ask for: 0 found, 3 not found, 0 failed, 7 left"]
    monkeypatch.undo()
    assert fill(database, Atlas()) == Counts(wanted=5, not_found=5)


def test_what_was_answered_before_a_run_died_is_kept(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    add(database, *(Address(city=f"City {number}") for number in range(10)))
    monkeypatch.setattr(geocodes, "STORE_ANSWERS", 3)

    class Dying(Atlas):
        def locate(self, address: Address) -> Location | None:
            if len(self.asked) == 8:
                raise KeyboardInterrupt
            return super().locate(address)

    with pytest.raises(KeyboardInterrupt):
        fill(database, Dying())
    assert cached(database) == [("atlas", None, None)] * 6
    assert fill(database, Atlas()) == Counts(wanted=4, not_found=4)


def test_a_location_is_one_on_earth(database: Database) -> None:
    for wrong in ((90.5, 0.0), (0.0, -181.0), (float("nan"), 0.0)):
        with pytest.raises(psycopg.errors.CheckViolation):
            geocodes.store(database, "atlas", {b"key": Location(*wrong)})
    with pytest.raises(psycopg.errors.CheckViolation):
        database.execute("insert into operations.geocodes (geocoder, address, latitude) values ('atlas', 'x', 1)")
    assert cached(database) == []


WORDS = st.sampled_from(["München", "Sankt", "東京", "Ålesund", "a", "Łódź", "s'Heer", "12"])
BLANKS = st.sampled_from([" ", "  ", "\t", "\n", "\u00a0", " \r\n"])


@st.composite
def spelled(draw: st.DrawFn, text: str) -> str:
    """The same text in another form, case and with other blanks."""
    blank = draw(BLANKS)
    text = unicodedata.normalize(draw(st.sampled_from(["NFC", "NFD"])), text)
    text = draw(st.sampled_from([str, str.upper, str.lower]))(text)
    return draw(st.sampled_from(["", blank])) + text.replace(" ", blank) + draw(st.sampled_from(["", blank]))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), parts=st.lists(st.lists(WORDS, max_size=2).map(" ".join), min_size=2, max_size=2))
def test_spellings_of_an_address_are_one(database: Database, data: st.DataObject, parts: list[str]) -> None:
    database.execute("truncate app.customers_history, app.customers, operations.geocodes")
    street, city = parts
    folds = database.execute("select lower('É') = 'é'").fetchone() == (True,)
    assume(folds or f"{street}{city}".isascii())  # where the locale is C, case makes a difference outside of ASCII
    add(database, Address(street, city))
    add(database, *(Address(data.draw(spelled(street)), data.draw(spelled(city))) for _ in range(3)))
    atlas = Atlas(reads=("street", "city"))
    assert fill(database, atlas) == Counts(wanted=bool(city), not_found=bool(city))
    assert fill(database, atlas) == Counts()
