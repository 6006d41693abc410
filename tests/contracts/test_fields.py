"""Field specifications: what a record model's annotations come to as columns."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, Optional, Union
from uuid import UUID

import annotated_types
import pytest
from pydantic import BeforeValidator, Field, StringConstraints, create_model

from include.contracts.customers import CustomerRecord
from include.contracts.fields import FieldSpec, field_specs
from include.contracts.orders import OrderItemRecord, OrderRecord
from include.contracts.record import AnyText, Identifier, Money, Record, WholeNumber, blank_to_none


def spec_of(annotation: Any, default: Any = ...) -> FieldSpec:
    """The specification of a model's only field, `f`."""
    (spec,) = field_specs(create_model("Thing", __base__=Record, f=(annotation, default)))
    return spec


@pytest.mark.parametrize(
    ("annotation", "sql_type"),
    [
        (UUID, "uuid"),
        (str, "text"),
        (int, "bigint"),
        (bool, "boolean"),
        (Decimal, "numeric(18,4)"),
        (datetime, "timestamptz"),
        (date, "date"),
        (list[str], "text[]"),
    ],
)
@pytest.mark.parametrize("layer", ["plain", "annotated", "optional", "annotated optional", "optional annotated"])
def test_every_type_has_a_column_type_however_it_is_wrapped(annotation: Any, sql_type: str, layer: str) -> None:
    wrapped = {
        "plain": annotation,
        "annotated": Annotated[annotation, BeforeValidator(blank_to_none)],
        "optional": annotation | None,
        "annotated optional": Annotated[annotation | None, BeforeValidator(blank_to_none)],
        "optional annotated": Annotated[annotation, BeforeValidator(blank_to_none)] | None,
    }[layer]
    assert spec_of(wrapped) == FieldSpec("f", (("f",),), sql_type, nullable="optional" in layer)


@pytest.mark.parametrize("annotation", [Optional[int], Union[int, None], Union[None, int]])  # noqa: UP007, UP045
def test_optional_may_be_written_in_the_old_way(annotation: Any) -> None:
    assert spec_of(annotation) == FieldSpec("f", (("f",),), "bigint", nullable=True)


@pytest.mark.parametrize(
    ("annotation", "bounds"),
    [
        (Annotated[int, Field(ge=0, le=150)], {"minimum": 0, "maximum": 150}),
        (Annotated[Money, Field(ge=0)], {"minimum": 0}),
        (Annotated[Decimal, Field(le=Decimal("10.0"))], {"maximum": 10}),
        (WholeNumber, {}),  # a bigint's own range needs no CHECK
        (Annotated[WholeNumber, Field(ge=1)], {"minimum": 1}),
        (Annotated[WholeNumber, Field(ge=1)] | None, {"minimum": 1}),
        (Annotated[Annotated[int, Field(ge=5)], Field(ge=1)], {"minimum": 5}),
        (Annotated[Annotated[int, Field(ge=1)] | None, Field(ge=5)], {"minimum": 5}),
        (Annotated[Annotated[int, Field(le=5)] | None, Field(le=9)], {"maximum": 5}),
        (Annotated[int, annotated_types.Interval(ge=1, le=3)], {"minimum": 1, "maximum": 3}),
        (Identifier, {"min_length": 1, "max_length": 200}),
        (Annotated[str, Field(min_length=2)], {"min_length": 2}),
        (Annotated[str, annotated_types.Len(1, 8)], {"min_length": 1, "max_length": 8}),
        (
            Annotated[AnyText, StringConstraints(min_length=1, max_length=9), Field(max_length=5)],
            {"min_length": 1, "max_length": 5},
        ),
        (Annotated[list[Annotated[str, Field(max_length=3)]], Field(max_length=9)], {}),  # lengths of text only
        (Annotated[list[str], Field(min_length=1)] | None, {}),
    ],
)
def test_bounds_are_the_narrowest_of_all_layers(annotation: Any, bounds: dict[str, int]) -> None:
    spec = spec_of(annotation)
    found = {name: getattr(spec, name) for name in ("minimum", "maximum", "min_length", "max_length")}
    assert {name: value for name, value in found.items() if value is not None} == bounds


def test_choices_are_text_with_a_predicate() -> None:
    spec = spec_of(Annotated[Literal["new", "in_use", "b2"] | None, BeforeValidator(blank_to_none)])
    assert spec == FieldSpec("f", (("f",),), "text", nullable=True, choices=("new", "in_use", "b2"))
    assert list(spec.predicates) == [("choices", "f in ('new', 'in_use', 'b2')")]


def test_each_rule_is_a_predicate_of_its_own() -> None:
    number = FieldSpec("n", (("n",),), "bigint", False, minimum=0, maximum=9)
    text = FieldSpec("t", (("t",),), "text", False, min_length=1, max_length=3)
    assert [*number.predicates, *text.predicates, *spec_of(date).predicates] == [
        ("minimum", "n >= 0"),
        ("maximum", "n <= 9"),
        ("min_length", "char_length(t) >= 1"),
        ("max_length", "char_length(t) <= 3"),
    ]


def test_the_alias_is_where_the_source_has_it_and_a_default_does_not_make_a_column_nullable() -> None:
    assert spec_of(str, Field("x", alias="fullName")) == FieldSpec("f", (("fullName",),), "text", nullable=False)


def test_the_fields_of_the_entities() -> None:
    by_name = {spec.name: spec for spec in field_specs(CustomerRecord)}
    assert by_name["name"] == FieldSpec("name", (("full_name",),), "text", False, min_length=1, max_length=100)
    assert by_name["age"] == FieldSpec("age", (("age",),), "bigint", True, minimum=0, maximum=150)
    assert by_name["tags"] == FieldSpec("tags", (("tags",),), "text[]", False)
    assert by_name["segment"].choices == ("enterprise", "smb", "consumer")
    assert [spec.name for spec in field_specs(OrderRecord, exclude=frozenset({"items"}))] == [
        "id",
        "customer_id",
        "status",
        "total",
        "created_at",
        "updated_at",
    ]
    assert field_specs(OrderItemRecord)[-1] == FieldSpec(
        "discount", (("discount",),), "numeric(18,4)", False, minimum=0
    )


class Colour(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (float, "no column type fits <class 'float'>"),
        (Colour, "no column type fits"),
        (dict[str, str], "no column type fits"),
        (list[int], "no column type fits"),
        (list[OrderItemRecord], "no column type fits"),
        (int | str, "no column type fits"),
        (int | str | None, "no column holds a choice of types"),
        (Literal[1, 2], "choices must be words of letters, digits and _, not (1, 2)"),
        (Literal["a'b"], "choices must be words"),
        (Literal[""], "choices must be words"),
        (Annotated[int, Field(gt=0)], "use ge= and le= for bounds"),
        (Annotated[int, Field(lt=9)] | None, "use ge= and le= for bounds"),
        (
            Annotated[Decimal, Field(ge=Decimal("0.5"))],
            "a bound of a column must be a whole number, not Decimal('0.5')",
        ),
        (Annotated[date, Field(ge=date(2000, 1, 1))], "a bound of a column must be a whole number"),
    ],
)
def test_what_no_column_can_hold_is_an_error_that_names_model_and_field(annotation: Any, message: str) -> None:
    with pytest.raises(TypeError) as raised:
        spec_of(annotation)
    assert str(raised.value).startswith("Thing.f: ")
    assert message in str(raised.value)
