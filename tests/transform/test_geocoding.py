"""Where addresses lie: the gazetteer's cities, and a Nominatim server that answers well, badly or not at all."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
import requests

from include.extract import client
from include.local.demo_api.places import COUNTRIES
from include.transform.geocoding import Address, Gazetteer, GeocodingError, Location, Nominatim
from tests.extract.scripted_server import Reply, ScriptedServer

HOME = Address("7 Secret Lane", "Fürth", None, " 90762 ", "DE")
ASKED = "/search?" + urlencode(
    {
        "street": "7 Secret Lane",
        "city": "Fürth",
        "postalcode": "90762",
        "countrycodes": "de",
        "format": "jsonv2",
        "limit": "1",
    }
)


@pytest.fixture(scope="module")
def gazetteer() -> Gazetteer:
    return Gazetteer()


@pytest.mark.parametrize(
    ("city", "state", "country", "expected"),
    [
        ("Paris", None, "FR", (48.9, 2.3)),
        ("Paris", "TX", "US", (33.7, -95.6)),
        ("  pArIs ", " texas", "us", (33.7, -95.6)),
        ("Portland", None, "US", (45.5, -122.7)),
        ("Portland", "ME", "US", (43.7, -70.3)),
        ("Portland", "Maine", "US", (43.7, -70.3)),
        ("Portland", "Mane", "US", (45.5, -122.7)),
        ("Portland", "AK", "US", None),
        ("New York", "NY", "US", (40.7, -74.0)),
        ("ST.  LOUIS", "Missouri", "US", (38.6, -90.2)),
        ("San Juan", "PR", "US", (18.5, -66.1)),
        ("MONTREAL", "QC", "CA", (45.5, -73.6)),
        ("Montréal", "QC", "CA", (45.5, -73.6)),
        ("Montre\u0301al", None, "CA", (45.5, -73.6)),
        ("munchen", None, "DE", (48.1, 11.6)),
        ("Muenchen", "Bayern", "DE", (48.1, 11.6)),
        ("MÜNCHEN", None, "DE", (48.1, 11.6)),
        ("ŁÓDŹ", None, "PL", (51.8, 19.5)),
        ("İstanbul", None, "TR", (41.0, 28.9)),
        ("東京", None, "JP", (35.7, 139.7)),
        ("Newcastle", None, "GB", (55.0, -1.6)),
        ("Newcastle", "NIR", "UK", (54.2, -5.9)),
        ("Atlantis", None, "GR", None),
        ("London", None, "ZZ", None),
        ("London", None, None, None),
        ("London", None, " ", None),
        (None, None, "GB", None),
        (" ", None, "ZW", None),
        ("-", None, "ZW", None),
        ("DROP\x00TABLE" * 1000, "☃", "GB", None),
    ],
)
def test_a_city_is_found_however_it_is_written(
    gazetteer: Gazetteer, city: str, state: str, country: str, expected: tuple[float, float] | None
) -> None:
    location = gazetteer.locate(Address(city=city, state=state, country=country))
    assert (location and tuple(round(degrees, 1) for degrees in location)) == expected


def test_every_city_of_the_demo_is_found(gazetteer: Gazetteer) -> None:
    places = [(country.code, city) for country in COUNTRIES for city in country.cities]
    lost = [
        (code, city.name)
        for code, city in places
        if gazetteer.locate(Address(city=city.name, state=city.state, country=code)) is None
    ]
    assert len(places) > 50
    assert lost == []


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer().running() as server:
        yield server


def nominatim(server: ScriptedServer, pauses: list[float]) -> Nominatim:
    return Nominatim(requests.Session(), server.url + "/", sleep=pauses.append)


def place(latitude: object, longitude: object) -> Reply:
    return Reply(json.dumps([{"lat": latitude, "lon": longitude, "display_name": "x"}]).encode())


def test_nominatim_is_asked_for_the_parts_that_there_are(server: ScriptedServer) -> None:
    server.on(ASKED, place("49.4771", "10.9887"))
    server.on("/search?city=Nowhere&format=jsonv2&limit=1", Reply(b"[]"))
    pauses: list[float] = []
    geocoder = Nominatim(requests.Session(), server.url + "/", requests_per_second=0.01, sleep=pauses.append)
    assert geocoder.locate(HOME) == Location(49.4771, 10.9887)
    assert geocoder.locate(Address(" ", "Nowhere", "", None, None)) is None
    assert server.asked == [ASKED, "/search?city=Nowhere&format=jsonv2&limit=1"]
    assert pauses == [pytest.approx(100, abs=10)], "as seldom as it is told, whatever the machine is busy with"


@pytest.mark.parametrize(
    ("replies", "tries", "reason"),
    [
        ([Reply(b"<html>Welcome</html>")], 1, "the answer is no list of places:"),
        ([Reply(b'{"error": "x"}')], 1, "the answer is no list of places:"),
        ([Reply(b"[" * 10_000)], 1, "the answer is no list of places:"),
        ([Reply(b"\xff\xfe")], 1, "the answer is no list of places:"),
        ([Reply(b"")], 1, "the answer is no list of places:"),
        ([Reply(b'[{"lat": 1}]')], 1, "the answer is no list of places: 0.lon Field required"),
        ([place("north", "1")], 1, "the answer is no list of places: 0.lat"),
        ([place("NaN", "1")], 1, "the answer is no list of places: 0.lat"),
        ([place("1", "180.5")], 1, "the answer is no list of places: 0.lon"),
        ([place(None, None)], 1, "the answer is no list of places: 0.lat"),
        ([Reply(b"busy", 429, {"Retry-After": "7"})], 3, "answered 429 Too Many Requests"),
        ([Reply(b"7 Secret Lane?", 500)], 3, "answered 500 Internal Server Error, saying '***?'"),
        ([Reply(reset=True)], 3, "broke the connection"),
        ([Reply(hold=True, missing=9)], 3, "sent nothing for"),
        ([Reply(b"who are you", 403)], 1, "answered 403 Forbidden"),
        ([Reply(status=302, headers={"Location": "http://127.0.0.2/"})], 1, "refused, nothing was sent"),
    ],
)
def test_an_answer_that_is_none_is_an_error_without_the_address(
    server: ScriptedServer,
    replies: list[Reply],
    tries: int,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if any(reply.hold for reply in replies):
        monkeypatch.setattr(client, "READ_SECONDS", 0.1)
    server.on(ASKED, *replies)
    geocoder = nominatim(server, [])
    with caplog.at_level(logging.INFO, logger="include"), pytest.raises(GeocodingError) as caught:
        geocoder.locate(HOME)
    server.release.set()
    assert reason in str(caught.value)
    assert server.asked == [ASKED] * tries
    assert "ürth" not in str(caught.value)
    assert "Secret" not in str(caught.value)
    assert "search?" not in caplog.text + str(caught.value)


def test_what_is_temporary_is_tried_again(server: ScriptedServer) -> None:
    server.on(ASKED, Reply(b"busy", 429, {"Retry-After": "7"}), Reply(reset=True), place(49.5, 11))
    pauses: list[float] = []
    assert nominatim(server, pauses).locate(HOME) == Location(49.5, 11.0)
    assert len(server.asked) == 3
    assert any(7 <= pause <= 8 for pause in pauses)


@pytest.mark.parametrize(
    ("url", "rate", "reason"),
    [
        ("http://", 1, 'give the connection "geocoder" a scheme'),
        ("ftp://maps.example", 1, 'give the connection "geocoder" a scheme'),
        ("http://maps.example", 0, "requests_per_second must be more than 0"),
        ("http://maps.example", float("nan"), "requests_per_second must be more than 0"),
    ],
)
def test_a_connection_that_cannot_be_is_named(url: str, rate: float, reason: str) -> None:
    with pytest.raises(GeocodingError, match=reason):
        Nominatim(requests.Session(), url, requests_per_second=rate)


def test_a_server_that_is_not_there_is_an_error() -> None:
    with ScriptedServer().running() as server:
        pass
    with pytest.raises(GeocodingError, match=r'refused the connection .* check the host in connection "geocoder"'):
        nominatim(server, []).locate(HOME)
