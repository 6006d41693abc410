"""The demo's records: each a pure function of (seed, entity, slot, version), written as JSON text from pools.

A slot is a record's place in the source's listing, from 0. Version 0 is the record as the demo begins; each later
version is another draw of what can change (a customer's address, an order's status), while identity stays. Names and
streets are Faker's, drawn once into pools: a Faker call a record would take longer than all else together.

Times are whole milliseconds since 1970, UTC; amounts are whole cents.
"""

from __future__ import annotations

import struct
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from hashlib import blake2b
from typing import NamedTuple, Protocol

import orjson
from faker import Faker

from include.local.demo_api.dirt import (
    CUSTOMER_DIRT,
    ORDER_DIRT,
    PRODUCT_DIRT,
    Dirt,
    Outcome,
    deal,
)
from include.local.demo_api.places import COUNTRIES, Country

EPOCH = datetime(2026, 1, 15, 8, tzinfo=UTC)
"""When the demo begins. All data lie before it."""

EPOCH_MS = int(EPOCH.timestamp()) * 1000
DAY_MS = 86_400_000
STATUSES = ("delivered", "delivered", "delivered", "shipped", "paid", "pending", "cancelled", "refunded")
OLDER_VERSION = 1_000_000_000
"""The version number of the draw that stands for an earlier state of a record."""

_POOL = 200
_DIGEST = struct.Struct(">10s27H")
_SLOT_BITS = 48
_SLOT_FACTOR = 0x5DEECE66D  # odd, so it has an inverse: a customer's id can be read back to its slot
_SLOT_INVERSE = pow(_SLOT_FACTOR, -1, 1 << _SLOT_BITS)
_SLOT_MASK = (1 << _SLOT_BITS) - 1


class Drawn(NamedTuple):
    """A record as JSON text, and its time of change."""

    text: str
    updated_ms: int


class Entity(Protocol):
    """What the demo API asks of an entity. `initial` is the number of slots that it begins with, `dealt` their dirt."""

    name: str
    initial: int
    dealt: dict[int, Dirt]

    def record(self, slot: int, version: int, updated_ms: int | None = None, born_ms: int | None = None) -> Drawn:
        """The clean record of a slot; `updated_ms` and `born_ms` replace its times of change and of creation.

        No record changes before it is created: the result's `updated_ms` may be later than what was given.
        """

    def identity(self, slot: int) -> str:
        """The id of the clean record of a slot."""

    def slot_of(self, identity: str) -> int | None:
        """The slot whose clean record has the id; None if none can have it."""


def stamp(ms: int) -> str:
    """ISO 8601 in UTC with milliseconds: `2026-01-15T08:00:00.000Z`."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def draw(seed: int, entity: str, slot: int, version: int) -> tuple[str, tuple[int, ...]]:
    """Twenty hexadecimal digits and 27 numbers of 16 bits, evenly spread, for a version of a record."""
    digest = blake2b(b"%d:%b:%d:%d" % (seed, entity.encode(), slot, version), digest_size=64).digest()
    tail, *numbers = _DIGEST.unpack(digest)
    return tail.hex(), tuple(numbers)


def wide(high: int, low: int, span: int) -> int:
    """Two numbers of 16 bits as an even draw from range(span)."""
    return ((high << 16 | low) * span) >> 32


def escaped(text: str) -> str:
    """The text as it stands between the quotes of a JSON string."""
    return orjson.dumps(text).decode()[1:-1]


def last_clean(dealt: dict[int, Dirt], slot: int) -> int:
    """The slot itself, or the nearest before it whose record is not dirty."""
    while slot in dealt:
        slot -= 1
    return slot


class _People(NamedTuple):
    """A country's pools, all ready for JSON: (name, its letters for an address) twice, streets, places a city."""

    country: Country
    first_names: list[tuple[str, str]]
    last_names: list[tuple[str, str]]
    streets: list[str]
    places: list[list[str]]


@cache
def _people(country: Country) -> _People:
    """The pools of a country: the same in every process with the same release of Faker, whatever the seed."""
    fake = Faker(country.locale)
    fake.seed_instance(country.code)
    street = fake.town if country.code == "JP" else fake.street_name
    return _People(
        country,
        [_spelled(fake.first_name()) for _ in range(_POOL)],
        [_spelled(fake.last_name()) for _ in range(_POOL)],
        [escaped(street()) for _ in range(_POOL)],
        [
            [
                f'"city":"{escaped(city.name)}","state":"{escaped(city.state)}","country":"{country.code}",'
                f'"zip_code":"{fake.numerify(city.zip_form)}"'
                for _ in range(20)
            ]
            for city in country.cities
        ],
    )


def _spelled(name: str) -> tuple[str, str]:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return escaped(name), "".join(letter for letter in plain if letter.isalpha()) or "user"


_TAGS = (
    "[]",
    '["newsletter"]',
    '["vip"]',
    '["newsletter","vip"]',
    '["wholesale"]',
    '["beta","newsletter"]',
    '["returns"]',
    '["loyalty","app"]',
)
_DOMAINS = ("example.com", "example.org", "example.net", "mail.example.com", "shop.example.org")
_SEGMENTS = ('"consumer"',) * 6 + ('"smb"',) * 3 + ('"enterprise"',)


class Customers:
    """Customers of eleven countries, signed up over the three years before the demo begins."""

    name = "customers"

    def __init__(self, seed: int, initial: int, dirty: float) -> None:
        self.seed = seed
        self.initial = initial
        self.dealt = deal(seed, self.name, initial, dirty, CUSTOMER_DIRT)
        self._people = [_people(country) for country in COUNTRIES for _ in country.cities]

    def identity(self, slot: int) -> str:
        """A UUID, of which the last twelve digits say the slot."""
        return self._identity(slot, draw(self.seed, self.name, slot, 0)[0])

    def slot_of(self, identity: str) -> int | None:
        """The slot that the last twelve digits say, if the rest of the id is that slot's too."""
        try:
            slot = (int(identity[-12:], 16) - self.seed) * _SLOT_INVERSE & _SLOT_MASK
        except ValueError:
            return None
        return slot if self.identity(slot) == identity.lower() else None

    def signup_ms(self, slot: int) -> int:
        """When the customer of a slot signed up."""
        _, first = draw(self.seed, self.name, slot, 0)
        return EPOCH_MS - 1000 - wide(first[0], first[1], 3 * 365 * DAY_MS)

    def record(self, slot: int, version: int, updated_ms: int | None = None, born_ms: int | None = None) -> Drawn:
        """See `Entity`. Id, name, email and sign-up stay over the versions; the rest changes, within the country."""
        tail, first = draw(self.seed, self.name, slot, 0)
        now = draw(self.seed, self.name, slot, version)[1] if version else first
        signup = born_ms or EPOCH_MS - 1000 - wide(first[0], first[1], 3 * 365 * DAY_MS)
        if updated_ms is None:
            updated_ms = signup + wide(first[2], first[3], EPOCH_MS - signup)
        updated_ms = max(updated_ms, signup)

        country, first_names, last_names, streets, places = self._people[first[4] * len(self._people) >> 16]
        first_name, first_letters = first_names[first[5] % _POOL]
        last_name, last_letters = last_names[first[6] % _POOL]
        email = f"{first_letters}.{last_letters}{slot}@{_DOMAINS[first[7] % len(_DOMAINS)]}"

        missing, rare = now[8], now[9] & 63
        forms = country.phone_forms
        phone = f'"{forms[now[10] % len(forms)] % (200 + now[11] % 800, now[12] % 10_000)}"'
        age = f"{18 + (now[13] * 70 >> 16)}"
        street, number = streets[now[14] % _POOL], 1 + now[15] % 250
        street = f'"{number} {street}"' if country.number_first else f'"{street} {number}"'
        city = places[now[16] % len(places)]
        return Drawn(
            f'{{"id":"{self._identity(slot, tail)}","full_name":"{first_name} {last_name}","email_address":"{email}"'
            f"{_optional('phone', phone, missing & 31)}{_optional('age', age, missing >> 5 & 31)}"
            f"{_optional('tags', _TAGS[now[17] % len(_TAGS)], missing >> 10 & 31)}{_optional('street', street, rare)}"
            f"{'' if rare == 2 else ',' + city[now[18] % len(city)]}"
            f"{_optional('segment', _SEGMENTS[now[19] % len(_SEGMENTS)], now[20] & 63)}"
            f',"signup_date":"{stamp(signup)}","updated_at":"{stamp(updated_ms)}"}}',
            updated_ms,
        )

    def _identity(self, slot: int, tail: str) -> str:
        last = (slot * _SLOT_FACTOR + self.seed) & _SLOT_MASK
        return f"{tail[:8]}-{tail[8:12]}-4{tail[12:15]}-a{tail[15:18]}-{last:012x}"


def _optional(field: str, value: str, chance: int) -> str:
    """The field as JSON, after a comma; null or nothing at chance 0 and 1."""
    if chance > 1:
        return f',"{field}":{value}'
    return f',"{field}":null' if chance == 0 else ""


_CATEGORIES = {
    "Furniture": ("Chair", "Desk", "Shelf", "Sofa"),
    "Kitchen": ("Kettle", "Pan", "Knife", "Toaster"),
    "Lighting": ("Lamp", "Lantern", "Spotlight"),
    "Garden": ("Spade", "Hose", "Bench"),
    "Outdoor": ("Tent", "Backpack", "Stove"),
    "Office": ("Stapler", "Notebook", "Monitor Stand"),
    "Audio": ("Speaker", "Headphones", "Turntable"),
    "Toys": ("Puzzle", "Kite", "Building Set"),
}
_NOUNS = tuple((category, noun) for category, nouns in _CATEGORIES.items() for noun in nouns)
_LOOKS = ("Small", "Large", "Classic", "Modern", "Folding", "Portable", "Premium", "Basic", "Nordic", "Vintage")
_MATERIALS = ("Oak", "Steel", "Bamboo", "Cotton", "Glass", "Leather", "Ceramic", "Wool")
_BRANDS = ("Alder & Finch", "Bergmann", "Casa Lume", "Dovetail", "Everline", "Fjord", "Grünwald", "Hallmoor")


class Products:
    """Products of eight categories, changed last in the year before the demo begins."""

    name = "products"

    def __init__(self, seed: int, initial: int, dirty: float) -> None:
        self.seed = seed
        self.initial = initial
        self.dealt = deal(seed, self.name, initial, dirty, PRODUCT_DIRT)

    def identity(self, slot: int) -> str:
        """`P-` and the slot in six digits."""
        return f"P-{slot:06d}"

    def slot_of(self, identity: str) -> int | None:
        """The slot in the id."""
        return _numbered(identity, "P-", self.identity)

    def cents(self, slot: int) -> int:
        """The price of version 0: what orders charge, 1.99 to 500.00."""
        return 199 + (slot * 7919 + self.seed * 31) % 49_802

    def record(self, slot: int, version: int, updated_ms: int | None = None, born_ms: int | None = None) -> Drawn:
        """See `Entity`. The price changes over the versions."""
        _, first = draw(self.seed, self.name, slot, 0)
        cents = self.cents(slot)
        if version:
            cents = max(1, cents * (80 + draw(self.seed, self.name, slot, version)[1][0] % 41) // 100)
        if updated_ms is None:
            updated_ms = EPOCH_MS - 1000 - wide(first[0], first[1], 365 * DAY_MS)
        category, noun = _NOUNS[first[2] % len(_NOUNS)]
        look, material = _LOOKS[first[3] % len(_LOOKS)], _MATERIALS[first[4] % len(_MATERIALS)]
        return Drawn(
            f'{{"id":"{self.identity(slot)}","name":"{look} {material} {noun}","category":"{category}",'
            f'"brand":"{_BRANDS[first[5] % len(_BRANDS)]}","sku":"{category[:3].upper()}-{slot:06d}",'
            f'"price":{_money(cents, first[6] & 1)},"updated_at":"{stamp(updated_ms)}"}}',
            updated_ms,
        )


class Orders:
    """Orders of one to four items, created over the two years before the demo begins, never before the sign-up.

    A few customers order often, many once or never. The total is what the items come to.
    """

    name = "orders"

    def __init__(self, seed: int, initial: int, dirty: float, customers: Customers, products: Products) -> None:
        self.seed = seed
        self.initial = initial
        self.dealt = deal(seed, self.name, initial, dirty, ORDER_DIRT)
        self.customers = customers
        self.products = products
        self._no_customers = _not_valid(customers)
        self._no_products = _not_valid(products)

    def identity(self, slot: int) -> str:
        """`O-` and the slot in eight digits."""
        return f"O-{slot:08d}"

    def slot_of(self, identity: str) -> int | None:
        """The slot in the id."""
        return _numbered(identity, "O-", self.identity)

    def record(self, slot: int, version: int, updated_ms: int | None = None, born_ms: int | None = None) -> Drawn:
        """See `Entity`. Status and items change over the versions."""
        _, first = draw(self.seed, self.name, slot, 0)
        now = draw(self.seed, self.name, slot, version)[1] if version else first
        rank = first[0] << 16 | first[1]
        customer = last_clean(self._no_customers, (rank * rank >> 32) * self.customers.initial >> 32)
        earliest = max(self.customers.signup_ms(customer), EPOCH_MS - 2 * 365 * DAY_MS)
        created = born_ms or earliest + wide(first[2], first[3], EPOCH_MS - earliest)
        if updated_ms is None:
            updated_ms = min(created + wide(first[4], first[5], 30 * DAY_MS), EPOCH_MS - 1000)
        updated_ms = max(updated_ms, created)

        items, total = [], 0
        for line in range(1, 2 + (now[6] & 3)):
            high, low, shape, style = now[3 + 4 * line : 7 + 4 * line]
            product = last_clean(self._no_products, wide(high, low, self.products.initial))
            cents, quantity = self.products.cents(product), 1 + shape % 5
            discount = cents * quantity * (style >> 8 & 31) // 100 if style & 3 == 0 else 0
            total += cents * quantity - discount
            said = "" if style & 3 == 1 else f',"discount":{_money(discount, style >> 3 & 1)}'
            items.append(
                f'{{"line_number":{line},"product_id":"{self.products.identity(product)}","quantity":{quantity},'
                f'"price":{_money(cents, style >> 2 & 1)}{said}}}'
            )
        return Drawn(
            f'{{"id":"{self.identity(slot)}","customer_id":"{self.customers.identity(customer)}",'
            f'"status":"{STATUSES[now[23] & 7]}","total":{_money(total, now[24] & 1)},'
            f'"created_at":"{stamp(created)}","updated_at":"{stamp(updated_ms)}","items":[{",".join(items)}]}}',
            updated_ms,
        )


def _not_valid(entity: Customers | Products) -> dict[int, Dirt]:
    """The slots that orders must not refer to: no valid record has their id."""
    return {slot: dirt for slot, dirt in entity.dealt.items() if dirt.outcome is not Outcome.VALID}


def _numbered(identity: str, prefix: str, identity_of: Callable[[int], str]) -> int | None:
    digits = identity.removeprefix(prefix)
    return int(digits) if digits.isdecimal() and identity_of(int(digits)) == identity else None


def _money(cents: int, as_text: int) -> str:
    """An amount of no less than zero with two decimals, as a JSON number or a JSON string."""
    whole, part = divmod(cents, 100)
    return f'"{whole}.{part:02d}"' if as_text else f"{whole}.{part:02d}"
