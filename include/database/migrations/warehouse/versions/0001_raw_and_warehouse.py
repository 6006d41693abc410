"""What the warehouse is built from, and what people read: `raw`, dimensions, facts, marts and the log of loads."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

KEYS = ("customer_key", "product_key", "location_key")


def upgrade() -> None:
    for schema in ("raw", "warehouse", "warehouse_build"):
        op.execute(f"create schema if not exists {schema}")
    for key in KEYS:
        op.execute(sa.schema.CreateSequence(sa.Sequence(key, schema="warehouse")))
    op.create_table(
        "customers",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("phone", sa.Text(), nullable=True),
        sa.Column("age", sa.BigInteger(), nullable=True),
        sa.Column("tags", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("street", sa.Text(), nullable=True),
        sa.Column("city", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=True),
        sa.Column("country", sa.Text(), nullable=True),
        sa.Column("zip_code", sa.Text(), nullable=True),
        sa.Column("segment", sa.Text(), nullable=True),
        sa.Column("signup_date", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("change_seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_customers")),
        schema="raw",
    )
    op.create_index(op.f("ix_customers_change_seq"), "customers", ["change_seq"], unique=False, schema="raw")
    op.create_table(
        "customers_history",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("phone", sa.Text(), nullable=True),
        sa.Column("age", sa.BigInteger(), nullable=True),
        sa.Column("tags", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("street", sa.Text(), nullable=True),
        sa.Column("city", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=True),
        sa.Column("country", sa.Text(), nullable=True),
        sa.Column("zip_code", sa.Text(), nullable=True),
        sa.Column("segment", sa.Text(), nullable=True),
        sa.Column("signup_date", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("change_seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", "updated_at", name=op.f("pk_customers_history")),
        schema="raw",
    )
    op.create_index(
        op.f("ix_customers_history_change_seq"), "customers_history", ["change_seq"], unique=False, schema="raw"
    )
    op.create_table(
        "order_items",
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("line_number", sa.BigInteger(), nullable=False),
        sa.Column("product_id", sa.Text(), nullable=True),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("price", sa.Numeric(precision=18, scale=4), nullable=False),
        sa.Column("discount", sa.Numeric(precision=18, scale=4), nullable=False),
        sa.PrimaryKeyConstraint("order_id", "line_number", name=op.f("pk_order_items")),
        schema="raw",
    )
    op.create_table(
        "orders",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Uuid(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("total", sa.Numeric(precision=18, scale=4), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("change_seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_orders")),
        schema="raw",
    )
    op.create_index(op.f("ix_orders_change_seq"), "orders", ["change_seq"], unique=False, schema="raw")
    op.create_table(
        "positions",
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column(
            "change_seq", sa.BigInteger(), nullable=False, comment="the highest that was read; 0 of an empty entity"
        ),
        sa.Column(
            "generation",
            sa.BigInteger(),
            nullable=False,
            comment="how often the entity was replicated whole: what was loaded of an earlier one is to be loaded anew",
        ),
        sa.Column("replicated_at", sa.DateTime(timezone=True), nullable=False, comment="this database's clock"),
        sa.PrimaryKeyConstraint("entity", name=op.f("pk_positions")),
        schema="raw",
    )
    op.create_table(
        "products",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("category", sa.Text(), nullable=True),
        sa.Column("brand", sa.Text(), nullable=True),
        sa.Column("sku", sa.Text(), nullable=True),
        sa.Column("price", sa.Numeric(precision=18, scale=4), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("change_seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_products")),
        schema="raw",
    )
    op.create_index(op.f("ix_products_change_seq"), "products", ["change_seq"], unique=False, schema="raw")
    op.create_table(
        "customer_totals",
        sa.Column("customer_key", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("order_count", sa.BigInteger(), nullable=False),
        sa.Column("total_revenue", sa.Numeric(precision=50, scale=4), nullable=False),
        sa.PrimaryKeyConstraint("customer_key", name=op.f("pk_customer_totals")),
        schema="warehouse",
        comment="of each customer's version that orders point at: regions and segments are summed from these",
    )
    op.create_table(
        "daily_sales",
        sa.Column("date", sa.Date(), nullable=False),
        sa.Column("order_count", sa.BigInteger(), nullable=False),
        sa.Column("total_revenue", sa.Numeric(precision=50, scale=4), nullable=False),
        sa.Column(
            "average_order_value", sa.Numeric(precision=50, scale=4), nullable=False, comment="rounded to four decimals"
        ),
        sa.Column(
            "unique_customers", sa.BigInteger(), nullable=False, comment="orders without a customer count for none"
        ),
        sa.PrimaryKeyConstraint("date", name=op.f("pk_daily_sales")),
        schema="warehouse",
    )
    op.create_table(
        "dim_customer",
        sa.Column("customer_key", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("customer_id", sa.Uuid(), nullable=True),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("email", sa.Text(), nullable=True),
        sa.Column("segment", sa.Text(), nullable=True),
        sa.Column("signup_date", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "lifecycle_stage",
            sa.Text(),
            nullable=True,
            comment="at the end of the version; as of the load for the current one",
        ),
        sa.Column("location_key", sa.BigInteger(), nullable=False),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("valid_to", sa.DateTime(timezone=True), nullable=False, comment="not part of it"),
        sa.Column(
            "is_current",
            sa.Boolean(),
            sa.Computed("valid_to = '9999-12-31 00:00:00+00'::timestamp with time zone", persisted=True),
            nullable=False,
        ),
        sa.Column("is_inferred", sa.Boolean(), nullable=False, comment="named by an order, not come yet"),
        sa.Column(
            "deleted_at", sa.DateTime(timezone=True), nullable=True, comment="of the customer: every version carries it"
        ),
        sa.Column(
            "next_from",
            sa.DateTime(timezone=True),
            sa.Computed("nullif(valid_to, '9999-12-31 00:00:00+00'::timestamp with time zone)", persisted=True),
            nullable=True,
            comment="where the next version must begin",
        ),
        sa.Column(
            "previous_to",
            sa.DateTime(timezone=True),
            sa.Computed("nullif(valid_from, '0001-01-01 00:00:00+00'::timestamp with time zone)", persisted=True),
            nullable=True,
            comment="where the version before must end",
        ),
        sa.CheckConstraint("valid_from < valid_to", name=op.f("ck_dim_customer_validity")),
        sa.ForeignKeyConstraint(
            ["customer_id", "next_from"],
            ["warehouse.dim_customer.customer_id", "warehouse.dim_customer.valid_from"],
            name="fk_dim_customer_next",
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.ForeignKeyConstraint(
            ["customer_id", "previous_to"],
            ["warehouse.dim_customer.customer_id", "warehouse.dim_customer.valid_to"],
            name="fk_dim_customer_previous",
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("customer_key", name=op.f("pk_dim_customer")),
        sa.UniqueConstraint("customer_id", "valid_from", name=op.f("uq_dim_customer_customer_id_valid_from")),
        sa.UniqueConstraint("customer_id", "valid_to", name=op.f("uq_dim_customer_customer_id_valid_to")),
        schema="warehouse",
    )
    op.create_index(
        op.f("ix_dim_customer_location_key"), "dim_customer", ["location_key"], unique=False, schema="warehouse"
    )
    op.create_index(
        op.f("ix_dim_customer_signup_date"),
        "dim_customer",
        ["signup_date"],
        unique=False,
        schema="warehouse",
        postgresql_where=sa.text("is_current"),
    )
    op.create_table(
        "dim_date",
        sa.Column("date_key", sa.Integer(), autoincrement=False, nullable=False, comment="yyyymmdd"),
        sa.Column("date", sa.Date(), nullable=False),
        sa.Column("year", sa.SmallInteger(), nullable=False),
        sa.Column("quarter", sa.SmallInteger(), nullable=False),
        sa.Column("month", sa.SmallInteger(), nullable=False),
        sa.Column("day_of_week", sa.SmallInteger(), nullable=False, comment="1 is Monday, 7 is Sunday (ISO 8601)"),
        sa.Column("is_weekend", sa.Boolean(), nullable=False),
        sa.Column("is_holiday", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("date_key", name=op.f("pk_dim_date")),
        sa.UniqueConstraint("date", name=op.f("uq_dim_date_date")),
        schema="warehouse",
    )
    op.create_table(
        "dim_location",
        sa.Column("location_key", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("country", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=True),
        sa.Column("city", sa.Text(), nullable=True),
        sa.Column("zip_code", sa.Text(), nullable=True),
        sa.Column(
            "natural_key",
            sa.Uuid(),
            nullable=True,
            comment="a hash of the place, whose texts may be too long for an index",
        ),
        sa.PrimaryKeyConstraint("location_key", name=op.f("pk_dim_location")),
        sa.UniqueConstraint("natural_key", name=op.f("uq_dim_location_natural_key")),
        schema="warehouse",
    )
    op.create_table(
        "dim_product",
        sa.Column("product_key", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("product_id", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("category", sa.Text(), nullable=True),
        sa.Column("brand", sa.Text(), nullable=True),
        sa.Column("sku", sa.Text(), nullable=True),
        sa.Column("is_inferred", sa.Boolean(), nullable=False, comment="named by an order, not come yet"),
        sa.PrimaryKeyConstraint("product_key", name=op.f("pk_dim_product")),
        sa.UniqueConstraint("product_id", name=op.f("uq_dim_product_product_id")),
        schema="warehouse",
    )
    op.create_table(
        "fact_sales",
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("line_number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("date_key", sa.Integer(), nullable=False),
        sa.Column("customer_key", sa.BigInteger(), nullable=False),
        sa.Column("product_key", sa.BigInteger(), nullable=False),
        sa.Column("location_key", sa.BigInteger(), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("unit_price", sa.Numeric(precision=18, scale=4), nullable=False),
        sa.Column("total_amount", sa.Numeric(precision=38, scale=4), nullable=False, comment="quantity * unit_price"),
        sa.Column("discount_amount", sa.Numeric(precision=18, scale=4), nullable=False),
        sa.Column(
            "net_amount",
            sa.Numeric(precision=38, scale=4),
            nullable=False,
            comment="total_amount - discount_amount: revenue",
        ),
        sa.Column("order_created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("order_count", sa.SmallInteger(), nullable=False, comment="1 on the first line of an order, else 0"),
        sa.PrimaryKeyConstraint("order_id", "line_number", name=op.f("pk_fact_sales")),
        schema="warehouse",
    )
    op.create_index(
        op.f("ix_fact_sales_customer_key"), "fact_sales", ["customer_key"], unique=False, schema="warehouse"
    )
    op.create_index(op.f("ix_fact_sales_date_key"), "fact_sales", ["date_key"], unique=False, schema="warehouse")
    op.create_table(
        "load_log",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("load", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column(
            "as_of",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="when the current versions' lifecycle stages are true",
        ),
        sa.Column("business_timezone", sa.Text(), nullable=False, comment="whose days the days are"),
        sa.Column("holiday_country", sa.Text(), nullable=False, comment="whose holidays dim_date has"),
        sa.Column("is_full", sa.Boolean(), nullable=False),
        sa.Column(
            "customers_seq",
            sa.BigInteger(),
            nullable=False,
            comment="the change_seq up to which raw is in the warehouse",
        ),
        sa.Column("customers_generation", sa.BigInteger(), nullable=False, comment="that of raw.positions"),
        sa.Column(
            "products_seq",
            sa.BigInteger(),
            nullable=False,
            comment="the change_seq up to which raw is in the warehouse",
        ),
        sa.Column("products_generation", sa.BigInteger(), nullable=False, comment="that of raw.positions"),
        sa.Column(
            "orders_seq", sa.BigInteger(), nullable=False, comment="the change_seq up to which raw is in the warehouse"
        ),
        sa.Column("orders_generation", sa.BigInteger(), nullable=False, comment="that of raw.positions"),
        sa.Column("orders_affected", sa.BigInteger(), nullable=False),
        sa.Column("customers_affected", sa.BigInteger(), nullable=False),
        sa.Column("products_affected", sa.BigInteger(), nullable=False),
        sa.Column("facts_inserted", sa.BigInteger(), nullable=False),
        sa.Column("facts_updated", sa.BigInteger(), nullable=False),
        sa.Column("facts_deleted", sa.BigInteger(), nullable=False),
        sa.Column(
            "loaded_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="this database's clock",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_load_log")),
        sa.UniqueConstraint("load", name=op.f("uq_load_log_load")),
        schema="warehouse",
    )
    op.create_table(
        "sales_by_region",
        sa.Column("country", sa.Text(), nullable=False, comment="of the customers now; unknown where they have none"),
        sa.Column("customer_count", sa.BigInteger(), nullable=False, comment="that the source has"),
        sa.Column(
            "total_revenue",
            sa.Numeric(precision=50, scale=4),
            nullable=False,
            comment="of deleted and unknown customers too",
        ),
        sa.PrimaryKeyConstraint("country", name=op.f("pk_sales_by_region")),
        schema="warehouse",
    )
    op.create_table(
        "sales_by_segment",
        sa.Column("segment", sa.Text(), nullable=False, comment="of the customers now; unknown where they have none"),
        sa.Column("customer_count", sa.BigInteger(), nullable=False, comment="that the source has"),
        sa.Column("order_count", sa.BigInteger(), nullable=False),
        sa.Column(
            "total_revenue",
            sa.Numeric(precision=50, scale=4),
            nullable=False,
            comment="of deleted and unknown customers too",
        ),
        sa.Column(
            "avg_order_value",
            sa.Numeric(precision=50, scale=4),
            nullable=True,
            comment="rounded to four decimals; null without orders",
        ),
        sa.PrimaryKeyConstraint("segment", name=op.f("pk_sales_by_segment")),
        schema="warehouse",
    )
    op.execute("insert into warehouse.dim_location (location_key) values (-1)")
    op.execute("insert into warehouse.dim_product (product_key, is_inferred) values (-1, false)")
    op.execute(
        """
        insert into warehouse.dim_customer (customer_key, location_key, valid_from, valid_to, is_inferred)
        values (-1, -1, timestamptz '0001-01-01 00:00:00+00', timestamptz '9999-12-31 00:00:00+00', false)
        """
    )


def downgrade() -> None:
    op.drop_table("sales_by_segment", schema="warehouse")
    op.drop_table("sales_by_region", schema="warehouse")
    op.drop_table("load_log", schema="warehouse")
    op.drop_index(op.f("ix_fact_sales_date_key"), table_name="fact_sales", schema="warehouse")
    op.drop_index(op.f("ix_fact_sales_customer_key"), table_name="fact_sales", schema="warehouse")
    op.drop_table("fact_sales", schema="warehouse")
    op.drop_table("dim_product", schema="warehouse")
    op.drop_table("dim_location", schema="warehouse")
    op.drop_table("dim_date", schema="warehouse")
    op.drop_index(
        op.f("ix_dim_customer_signup_date"),
        table_name="dim_customer",
        schema="warehouse",
        postgresql_where=sa.text("is_current"),
    )
    op.drop_index(op.f("ix_dim_customer_location_key"), table_name="dim_customer", schema="warehouse")
    op.drop_table("dim_customer", schema="warehouse")
    op.drop_table("daily_sales", schema="warehouse")
    op.drop_table("customer_totals", schema="warehouse")
    op.drop_index(op.f("ix_products_change_seq"), table_name="products", schema="raw")
    op.drop_table("products", schema="raw")
    op.drop_table("positions", schema="raw")
    op.drop_index(op.f("ix_orders_change_seq"), table_name="orders", schema="raw")
    op.drop_table("orders", schema="raw")
    op.drop_table("order_items", schema="raw")
    op.drop_index(op.f("ix_customers_history_change_seq"), table_name="customers_history", schema="raw")
    op.drop_table("customers_history", schema="raw")
    op.drop_index(op.f("ix_customers_change_seq"), table_name="customers", schema="raw")
    op.drop_table("customers", schema="raw")
    for key in KEYS:
        op.execute(sa.schema.DropSequence(sa.Sequence(key, schema="warehouse")))
    op.execute("drop schema warehouse_build cascade")
    op.execute("drop schema raw")
