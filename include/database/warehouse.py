"""The tables of `warehouse`: dimensions, facts, marts, and the log of what has been loaded."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    Date,
    DateTime,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    MetaData,
    Numeric,
    Sequence,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)

TIME = DateTime(timezone=True)
PRICE = Numeric(18, 4)
AMOUNT = Numeric(38, 4)
TOTAL = Numeric(50, 4)
"""Money: as the source says it, a quantity of it, and a sum of those; the widest that a record can hold fits."""

BEGINNING = "'0001-01-01 00:00:00+00'::timestamp with time zone"
OPEN_END = "'9999-12-31 00:00:00+00'::timestamp with time zone"
"""The ends of what is valid from ever and for ever: psycopg reads no infinity."""
UNKNOWN = -1
"""The key of each dimension's member that facts without a customer, product or place point at."""


def warehouse_tables(metadata: MetaData) -> None:
    """Adds the tables of `warehouse` to `metadata`."""
    for name in ("customer_key", "product_key", "location_key"):
        Sequence(name, schema="warehouse", metadata=metadata)
    _dimensions(metadata)
    _facts(metadata)
    _marts(metadata)
    _load_log(metadata)


def _dimensions(metadata: MetaData) -> None:
    Table(
        "dim_date",
        metadata,
        Column("date_key", Integer(), primary_key=True, autoincrement=False, comment="yyyymmdd"),
        Column("date", Date(), nullable=False),
        Column("year", SmallInteger(), nullable=False),
        Column("quarter", SmallInteger(), nullable=False),
        Column("month", SmallInteger(), nullable=False),
        Column("day_of_week", SmallInteger(), nullable=False, comment="1 is Monday, 7 is Sunday (ISO 8601)"),
        Column("is_weekend", Boolean(), nullable=False),
        Column("is_holiday", Boolean(), nullable=False),
        UniqueConstraint("date"),
        schema="warehouse",
    )
    Table(
        "dim_location",
        metadata,
        Column("location_key", BigInteger(), primary_key=True, autoincrement=False),
        Column("country", Text()),
        Column("state", Text()),
        Column("city", Text()),
        Column("zip_code", Text()),
        Column("natural_key", Uuid(), comment="a hash of the place, whose texts may be too long for an index"),
        UniqueConstraint("natural_key"),
        schema="warehouse",
    )
    customer = Table(
        "dim_customer",
        metadata,
        Column("customer_key", BigInteger(), primary_key=True, autoincrement=False),
        Column("customer_id", Uuid()),
        Column("name", Text()),
        Column("email", Text()),
        Column("segment", Text()),
        Column("signup_date", TIME),
        Column("lifecycle_stage", Text(), comment="at the end of the version; as of the load for the current one"),
        Column("location_key", BigInteger(), nullable=False),
        Column("valid_from", TIME, nullable=False),
        Column("valid_to", TIME, nullable=False, comment="not part of it"),
        Column("is_current", Boolean(), Computed(f"valid_to = {OPEN_END}", persisted=True), nullable=False),
        Column("is_inferred", Boolean(), nullable=False, comment="named by an order, not come yet"),
        Column("deleted_at", TIME, comment="of the customer: every version carries it"),
        Column(
            "next_from",
            TIME,
            Computed(f"nullif(valid_to, {OPEN_END})", persisted=True),
            comment="where the next version must begin",
        ),
        Column(
            "previous_to",
            TIME,
            Computed(f"nullif(valid_from, {BEGINNING})", persisted=True),
            comment="where the version before must end",
        ),
        # With these no customer's versions overlap or leave a hole: from the one version that begins at the beginning
        # each is followed by one that begins where it ends, up to the one that is open, and none lies beside that path.
        CheckConstraint("valid_from < valid_to", name="validity"),
        UniqueConstraint("customer_id", "valid_from"),
        UniqueConstraint("customer_id", "valid_to"),
        ForeignKeyConstraint(
            ["customer_id", "next_from"],
            ["warehouse.dim_customer.customer_id", "warehouse.dim_customer.valid_from"],
            name="fk_dim_customer_next",
            deferrable=True,
            initially="DEFERRED",
        ),
        ForeignKeyConstraint(
            ["customer_id", "previous_to"],
            ["warehouse.dim_customer.customer_id", "warehouse.dim_customer.valid_to"],
            name="fk_dim_customer_previous",
            deferrable=True,
            initially="DEFERRED",
        ),
        schema="warehouse",
    )
    Index(None, customer.c.location_key, info={"serves": "whether anybody lives at a location any more"})
    Index(
        None,
        customer.c.signup_date,
        postgresql_where=text("is_current"),
        info={"serves": "the customers whose lifecycle stage changes between two loads"},
    )
    Table(
        "dim_product",
        metadata,
        Column("product_key", BigInteger(), primary_key=True, autoincrement=False),
        Column("product_id", Text()),
        Column("name", Text()),
        Column("category", Text()),
        Column("brand", Text()),
        Column("sku", Text()),
        Column("is_inferred", Boolean(), nullable=False, comment="named by an order, not come yet"),
        UniqueConstraint("product_id"),
        schema="warehouse",
    )


def _facts(metadata: MetaData) -> None:
    # No foreign keys: they would take half of a load's time, and the gate resolves every key before a row is read.
    fact = Table(
        "fact_sales",
        metadata,
        Column("order_id", Text(), primary_key=True),
        Column("line_number", BigInteger(), primary_key=True, autoincrement=False),
        Column("date_key", Integer(), nullable=False),
        Column("customer_key", BigInteger(), nullable=False),
        Column("product_key", BigInteger(), nullable=False),
        Column("location_key", BigInteger(), nullable=False),
        Column("quantity", BigInteger(), nullable=False),
        Column("unit_price", PRICE, nullable=False),
        Column("total_amount", AMOUNT, nullable=False, comment="quantity * unit_price"),
        Column("discount_amount", PRICE, nullable=False),
        Column("net_amount", AMOUNT, nullable=False, comment="total_amount - discount_amount: revenue"),
        Column("order_created_at", TIME, nullable=False),
        Column("order_count", SmallInteger(), nullable=False, comment="1 on the first line of an order, else 0"),
        schema="warehouse",
    )
    Index(None, fact.c.date_key, info={"serves": "the sales of the days that changed"})
    Index(
        None,
        fact.c.customer_key,
        info={"serves": "the facts of a customer's version: its totals, and to re-point them"},
    )


def _marts(metadata: MetaData) -> None:
    Table(
        "daily_sales",
        metadata,
        Column("date", Date(), primary_key=True),
        Column("order_count", BigInteger(), nullable=False),
        Column("total_revenue", TOTAL, nullable=False),
        Column("average_order_value", TOTAL, nullable=False, comment="rounded to four decimals"),
        Column("unique_customers", BigInteger(), nullable=False, comment="orders without a customer count for none"),
        schema="warehouse",
    )
    Table(
        "customer_totals",
        metadata,
        Column("customer_key", BigInteger(), primary_key=True, autoincrement=False),
        Column("order_count", BigInteger(), nullable=False),
        Column("total_revenue", TOTAL, nullable=False),
        schema="warehouse",
        comment="of each customer's version that orders point at: regions and segments are summed from these",
    )
    Table(
        "sales_by_region",
        metadata,
        Column("country", Text(), primary_key=True, comment="of the customers now; unknown where they have none"),
        Column("customer_count", BigInteger(), nullable=False, comment="that the source has"),
        Column("total_revenue", TOTAL, nullable=False, comment="of deleted and unknown customers too"),
        schema="warehouse",
    )
    Table(
        "sales_by_segment",
        metadata,
        Column("segment", Text(), primary_key=True, comment="of the customers now; unknown where they have none"),
        Column("customer_count", BigInteger(), nullable=False, comment="that the source has"),
        Column("order_count", BigInteger(), nullable=False),
        Column("total_revenue", TOTAL, nullable=False, comment="of deleted and unknown customers too"),
        Column("avg_order_value", TOTAL, comment="rounded to four decimals; null without orders"),
        schema="warehouse",
    )


def _load_log(metadata: MetaData) -> None:
    Table(
        "load_log",
        metadata,
        Column("id", BigInteger(), Identity(always=True), primary_key=True),
        Column("load", Uuid(), nullable=False),
        Column("run_id", Text(), nullable=False),
        Column("as_of", TIME, nullable=False, comment="when the current versions' lifecycle stages are true"),
        Column("business_timezone", Text(), nullable=False, comment="whose days the days are"),
        Column("holiday_country", Text(), nullable=False, comment="whose holidays dim_date has"),
        Column("is_full", Boolean(), nullable=False),
        *(
            Column(f"{entity}_{what}", BigInteger(), nullable=False, comment=comment)
            for entity in ("customers", "products", "orders")
            for what, comment in (
                ("seq", "the change_seq up to which raw is in the warehouse"),
                ("generation", "that of raw.positions"),
            )
        ),
        *(
            Column(name, BigInteger(), nullable=False)
            for name in (
                "orders_affected",
                "customers_affected",
                "products_affected",
                "facts_inserted",
                "facts_updated",
                "facts_deleted",
            )
        ),
        Column("loaded_at", TIME, nullable=False, server_default=func.now(), comment="this database's clock"),
        UniqueConstraint("load"),
        schema="warehouse",
    )
