"""The kinds of dirt that the demo API deals out, and what a contract makes of each.

`Outcome` is known by construction: the kind says it, no validation does. So the expected counts of a pipeline come from
somewhere else than the pipeline's own rules.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

Fields = dict[str, Any]
Spoil = Callable[[Fields, int], Any]


class Outcome(Enum):
    """What becomes of a record: it is valid (odd at most), it violates the contract, or it repeats another record."""

    VALID = "valid"
    QUARANTINED = "quarantined"
    DUPLICATE = "duplicate"


@dataclass(frozen=True)
class Dirt:
    """A kind of dirt. `spoil` takes a clean record and its slot, and returns what is sent instead of it."""

    kind: str
    outcome: Outcome
    spoil: Spoil


def put(field: str, *values: Any) -> Spoil:
    """Puts one of the values, chosen by the slot, into the field."""
    return lambda record, slot: record | {field: values[slot % len(values)]}


def without(field: str) -> Spoil:
    """Leaves the field out."""
    return lambda record, slot: {key: value for key, value in record.items() if key != field}


def change(field: str, how: Callable[[Any], Any]) -> Spoil:
    """Puts what `how` makes of the field's value into it."""
    return lambda record, slot: record | {field: how(record[field])}


def first_item(field: str, value: Any) -> Spoil:
    """Puts the value into the field of an order's first item."""
    return lambda record, slot: record | {"items": [record["items"][0] | {field: value}, *record["items"][1:]]}


def untouched(record: Fields, slot: int) -> Fields:
    """The record as it is: what is odd about it lies in its relation to another, which the collection makes."""
    return record


SAME = Dirt("duplicate_same", Outcome.DUPLICATE, untouched)
OLDER = Dirt("duplicate_older", Outcome.DUPLICATE, untouched)
SHARED_EMAIL = Dirt("email_shared", Outcome.VALID, untouched)

_BAD, _FINE = Outcome.QUARANTINED, Outcome.VALID

CUSTOMER_DIRT = (
    Dirt("id_not_uuid", _BAD, lambda record, slot: record | {"id": f"customer-{slot}"}),
    SAME,
    Dirt("email_missing", _BAD, without("email_address")),
    Dirt("email_null", _BAD, put("email_address", None)),
    Dirt(
        "email_malformed",
        _BAD,
        put("email_address", "jane.doe", "jane@", "@example.com", "jane doe@example.com", "jane@example..com", ""),
    ),
    OLDER,
    Dirt("name_missing", _BAD, without("full_name")),
    Dirt("name_blank", _BAD, put("full_name", "", "   ", "\t")),
    Dirt("name_too_long", _BAD, put("full_name", "Maximiliane " * 9 + "Musterfrau", "x" * 101)),
    Dirt("name_object", _BAD, put("full_name", {"first": "Jane", "last": "Doe"})),
    SHARED_EMAIL,
    Dirt("age_out_of_range", _BAD, put("age", -1, 151, 200)),
    Dirt("age_text", _BAD, put("age", "abc")),
    Dirt("tags_text", _BAD, put("tags", "vip")),
    Dirt("tags_of_numbers", _BAD, put("tags", [1, 2])),
    Dirt("email_untidy", _FINE, change("email_address", lambda email: f"  {email.title()} ")),
    Dirt("street_object", _BAD, put("street", {"line1": "1 Main Street"})),
    Dirt("segment_unknown", _BAD, put("segment", "platinum")),
    Dirt("signup_date_unparsable", _BAD, put("signup_date", "not a date", "2024-13-45T00:00:00Z", "0000-00-00")),
    Dirt("signup_date_null", _BAD, put("signup_date", None)),
    Dirt("name_shouted", _FINE, change("full_name", str.upper)),
    Dirt("updated_at_unparsable", _BAD, put("updated_at", "yesterday-ish", "2025-02-30T00:00:00Z")),
    Dirt("updated_at_far_ahead", _BAD, put("updated_at", "2999-01-01T00:00:00Z")),
    Dirt("street_with_nul", _BAD, put("street", "1 Main\u0000Street")),
    Dirt("phone_unparsable", _FINE, put("phone", "call me", "n/a", "12")),
    Dirt("not_an_object", _BAD, lambda record, slot: (None, "corrupt", 42)[slot % 3]),
    Dirt("id_null", _BAD, put("id", None)),
)

PRODUCT_DIRT = (
    Dirt("name_missing", _BAD, without("name")),
    SAME,
    Dirt("name_blank", _BAD, put("name", "", "   ")),
    Dirt("name_too_long", _BAD, put("name", "Very " * 40 + "long chair")),
    OLDER,
    Dirt("price_negative", _BAD, put("price", -1, "-0.01")),
    Dirt("price_five_decimals", _BAD, put("price", 12.34567, "0.00001")),
    Dirt("price_text", _BAD, put("price", "free", "NaN")),
    Dirt("name_untidy", _FINE, change("name", lambda name: f"  {name.upper()} ")),
    Dirt("price_too_large", _BAD, put("price", "123456789012345678.00")),
    Dirt("category_object", _BAD, put("category", {"id": 7})),
    Dirt("updated_at_unparsable", _BAD, put("updated_at", "not a date")),
    Dirt("brand_with_nul", _BAD, put("brand", "Acme\u0000Inc")),
    Dirt("id_null", _BAD, put("id", None)),
)

ORDER_DIRT = (
    Dirt(
        "customer_unknown",
        _FINE,
        lambda record, slot: record | {"customer_id": f"00000000-0000-4000-8000-{slot:012x}"},
    ),
    SAME,
    Dirt("customer_id_not_uuid", _BAD, put("customer_id", "guest")),
    Dirt("total_five_decimals", _BAD, put("total", 12.34567, "99.999999")),
    OLDER,
    Dirt("total_text", _BAD, put("total", "a lot")),
    Dirt("quantity_negative", _BAD, first_item("quantity", -2)),
    Dirt("quantity_zero", _BAD, first_item("quantity", 0)),
    Dirt("item_price_negative", _BAD, first_item("price", "-5.00")),
    Dirt("item_price_five_decimals", _BAD, first_item("price", "1.234567")),
    Dirt("product_unknown", _FINE, first_item("product_id", "P-discontinued")),
    Dirt("discount_negative", _BAD, first_item("discount", -1)),
    Dirt(
        "line_number_twice",
        _BAD,
        lambda record, slot: record | {"items": [record["items"][0], *record["items"]]},
    ),
    Dirt("status_unknown", _BAD, put("status", "teleported")),
    Dirt("created_at_unparsable", _BAD, put("created_at", "31st of never")),
    Dirt("updated_at_unparsable", _BAD, put("updated_at", "2025-02-30T00:00:00Z")),
    Dirt("total_negative", _FINE, put("total", "-12.50", -3)),
    Dirt("items_text", _BAD, put("items", "none")),
    Dirt("item_not_an_object", _BAD, put("items", [None])),
    Dirt("product_id_with_nul", _BAD, first_item("product_id", "P-\u0000")),
    Dirt("id_null", _BAD, put("id", None)),
)

_BLOCK = 1000


def deal(seed: int, entity: str, slots: int, share: float, kinds: tuple[Dirt, ...]) -> dict[int, Dirt]:
    """Which of the first `slots` slots are dirty, and how: {slot: kind}, in the order of the slots.

    Exactly the share of each block of 1,000 slots is dirty, all kinds equally often. The slots of a block depend on
    seed, entity and share only, not on how many slots there are. Slot 0 stays clean, so that every repeated record
    has an original before it. Raises ValueError for a share outside 0..0.5.
    """
    if not 0 <= share <= 0.5:
        raise ValueError(f"the share of dirty records must be between 0 and 0.5, not {share}")
    return {slot: dirt for slot, dirt in _deal(seed, entity, slots, share, kinds) if 0 < slot < slots}


def _deal(seed: int, entity: str, slots: int, share: float, kinds: tuple[Dirt, ...]) -> Iterator[tuple[int, Dirt]]:
    for start in range(0, slots, _BLOCK):
        first, last = int(start * share), int((start + _BLOCK) * share)
        chooser = random.Random(f"{seed}:{entity}:{start}")  # noqa: S311 - dirt, not secrets
        chosen = sorted(chooser.sample(range(start, start + _BLOCK), last - first))
        for ordinal, slot in enumerate(chosen, first):
            yield slot, kinds[ordinal % len(kinds)]
