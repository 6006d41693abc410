"""The tables of customers, products and orders, and of operations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("create schema if not exists app")
    op.execute("create schema if not exists staging")
    op.execute(sa.schema.CreateSequence(sa.Sequence("change_seq", schema="app")))
    op.create_table(
        "customers",
        sa.Column("id", sa.Uuid(), autoincrement=False, nullable=False),
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
        sa.Column("fetched_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("absent_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("synced_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("change_seq", sa.BigInteger(), nullable=False),
        sa.Column("latitude", sa.Double(), nullable=True),
        sa.Column("longitude", sa.Double(), nullable=True),
        sa.Column("lifecycle_stage", sa.Text(), nullable=True),
        sa.Column("lifetime_value", sa.Numeric(precision=18, scale=4), nullable=True),
        sa.Column("total_orders", sa.BigInteger(), nullable=True),
        sa.Column("enriched_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("segment in ('enterprise', 'smb', 'consumer')", name=op.f("ck_customers_segment_choices")),
        sa.CheckConstraint("age <= 150", name=op.f("ck_customers_age_maximum")),
        sa.CheckConstraint("age >= 0", name=op.f("ck_customers_age_minimum")),
        sa.CheckConstraint("char_length(email) <= 254", name=op.f("ck_customers_email_max_length")),
        sa.CheckConstraint("char_length(name) <= 100", name=op.f("ck_customers_name_max_length")),
        sa.CheckConstraint("char_length(name) >= 1", name=op.f("ck_customers_name_min_length")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_customers")),
        schema="app",
    )
    op.create_index(op.f("ix_customers_email"), "customers", ["email"], unique=False, schema="app")
    op.create_table(
        "customers_history",
        sa.Column("id", sa.Uuid(), autoincrement=False, nullable=False),
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
        sa.Column("fetched_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("change_seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", "updated_at", name=op.f("pk_customers_history")),
        schema="app",
    )
    op.create_table(
        "orders",
        sa.Column("id", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("customer_id", sa.Uuid(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("total", sa.Numeric(precision=18, scale=4), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("fetched_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("absent_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("synced_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("change_seq", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "status in ('pending', 'paid', 'shipped', 'delivered', 'cancelled', 'refunded')",
            name=op.f("ck_orders_status_choices"),
        ),
        sa.CheckConstraint("char_length(id) <= 200", name=op.f("ck_orders_id_max_length")),
        sa.CheckConstraint("char_length(id) >= 1", name=op.f("ck_orders_id_min_length")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_orders")),
        schema="app",
    )
    op.create_index(op.f("ix_orders_created_at"), "orders", ["created_at"], unique=False, schema="app")
    op.create_index(op.f("ix_orders_customer_id"), "orders", ["customer_id"], unique=False, schema="app")
    op.create_table(
        "products",
        sa.Column("id", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("category", sa.Text(), nullable=True),
        sa.Column("brand", sa.Text(), nullable=True),
        sa.Column("sku", sa.Text(), nullable=True),
        sa.Column("price", sa.Numeric(precision=18, scale=4), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("fetched_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("absent_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("synced_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("change_seq", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("char_length(id) <= 200", name=op.f("ck_products_id_max_length")),
        sa.CheckConstraint("char_length(id) >= 1", name=op.f("ck_products_id_min_length")),
        sa.CheckConstraint("char_length(name) <= 200", name=op.f("ck_products_name_max_length")),
        sa.CheckConstraint("char_length(name) >= 1", name=op.f("ck_products_name_min_length")),
        sa.CheckConstraint("price >= 0", name=op.f("ck_products_price_minimum")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_products")),
        schema="app",
    )
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("pipeline", sa.Text(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("record_key", sa.Text(), nullable=False, comment="the key, or sha256: and the payload's hash"),
        sa.Column(
            "record_version",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="the rejected record's own version, where it can be read",
        ),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column(
            "payload", postgresql.JSONB(astext_type=sa.Text()), nullable=True, comment="null where jsonb cannot hold it"
        ),
        sa.Column("payload_raw", sa.LargeBinary(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column(
            "attempts", sa.Integer(), server_default=sa.text("1"), nullable=False, comment="executions that rejected it"
        ),
        sa.Column("status", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("landing_ref", sa.Text(), nullable=True),
        sa.Column("execution", sa.Uuid(), nullable=False, comment="the last execution that rejected it"),
        sa.Column("fetched_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("queued_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status in ('pending', 'replayed', 'superseded', 'discarded')", name=op.f("ck_dead_letters_status")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dead_letters")),
        schema="operations",
    )
    op.create_index(
        "uq_dead_letters_pending",
        "dead_letters",
        ["entity", "record_key"],
        unique=True,
        schema="operations",
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_table(
        "executions",
        sa.Column("execution", sa.Uuid(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("pipeline", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("landing", sa.Text(), nullable=False, comment="URI of the folder that holds the landed pages"),
        sa.Column(
            "since",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="what the fetch asked from; null for a whole snapshot",
        ),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="this database's clock",
        ),
        sa.Column(
            "fetched_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="the source's clock when the fetch began; null until it is known",
        ),
        sa.Column(
            "records_read",
            sa.BigInteger(),
            nullable=True,
            comment="counted from the landed bytes; null until all have landed",
        ),
        sa.Column("allow_deletes", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("allow_quarantined", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("trust_source", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.CheckConstraint("mode in ('snapshot', 'delta')", name=op.f("ck_executions_mode")),
        sa.PrimaryKeyConstraint("execution", name=op.f("pk_executions")),
        schema="operations",
    )
    op.create_index(
        op.f("ix_executions_pipeline_run_id_entity"),
        "executions",
        ["pipeline", "run_id", "entity"],
        unique=False,
        schema="operations",
    )
    op.create_table(
        "pipeline_runs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("pipeline", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("status", sa.Text(), server_default=sa.text("'running'"), nullable=False),
        sa.Column("records_processed", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.CheckConstraint("status in ('running', 'success', 'failed')", name=op.f("ck_pipeline_runs_status")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pipeline_runs")),
        sa.UniqueConstraint("pipeline", "run_id", name=op.f("uq_pipeline_runs_pipeline_run_id")),
        schema="operations",
    )
    op.create_table(
        "sync_log",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("execution", sa.Uuid(), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("fetched_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("watermark", sa.DateTime(timezone=True), nullable=True),
        sa.Column("records_read", sa.BigInteger(), nullable=False),
        sa.Column("inserted", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.Column("unchanged", sa.BigInteger(), nullable=False),
        sa.Column("stale", sa.BigInteger(), nullable=False),
        sa.Column("duplicate", sa.BigInteger(), nullable=False),
        sa.Column("quarantined", sa.BigInteger(), nullable=False),
        sa.Column("deleted", sa.BigInteger(), nullable=False),
        sa.Column(
            "regressed", sa.BigInteger(), nullable=False, comment="stale although the row was fetched before this began"
        ),
        sa.Column(
            "unreadable_keys",
            sa.ARRAY(sa.Text()),
            nullable=False,
            comment="hashes of the records whose key is unreadable",
        ),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="this database's clock when the execution began",
        ),
        sa.Column("synced_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.CheckConstraint(
            "records_read = inserted + updated + unchanged + stale + duplicate + quarantined",
            name=op.f("ck_sync_log_accounting"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sync_log")),
        sa.UniqueConstraint("execution", name=op.f("uq_sync_log_execution")),
        schema="operations",
    )
    op.create_index(
        op.f("ix_sync_log_entity_fetched_at"),
        "sync_log",
        ["entity", "fetched_at"],
        unique=False,
        schema="operations",
        postgresql_where=sa.text("mode = 'snapshot'"),
    )
    op.create_index(op.f("ix_sync_log_entity_id"), "sync_log", ["entity", "id"], unique=False, schema="operations")
    op.create_table(
        "order_items",
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("line_number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("product_id", sa.Text(), nullable=True),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("price", sa.Numeric(precision=18, scale=4), nullable=False),
        sa.Column("discount", sa.Numeric(precision=18, scale=4), nullable=False),
        sa.CheckConstraint("char_length(product_id) <= 200", name=op.f("ck_order_items_product_id_max_length")),
        sa.CheckConstraint("char_length(product_id) >= 1", name=op.f("ck_order_items_product_id_min_length")),
        sa.CheckConstraint("discount >= 0", name=op.f("ck_order_items_discount_minimum")),
        sa.CheckConstraint("line_number >= 1", name=op.f("ck_order_items_line_number_minimum")),
        sa.CheckConstraint("price >= 0", name=op.f("ck_order_items_price_minimum")),
        sa.CheckConstraint("quantity >= 1", name=op.f("ck_order_items_quantity_minimum")),
        sa.ForeignKeyConstraint(["order_id"], ["app.orders.id"], name=op.f("fk_order_items_orders")),
        sa.PrimaryKeyConstraint("order_id", "line_number", name=op.f("pk_order_items")),
        schema="app",
    )
    op.create_index(op.f("ix_order_items_product_id"), "order_items", ["product_id"], unique=False, schema="app")


def downgrade() -> None:
    op.drop_index(op.f("ix_order_items_product_id"), table_name="order_items", schema="app")
    op.drop_table("order_items", schema="app")
    op.drop_index(op.f("ix_sync_log_entity_id"), table_name="sync_log", schema="operations")
    op.drop_index(
        op.f("ix_sync_log_entity_fetched_at"),
        table_name="sync_log",
        schema="operations",
        postgresql_where=sa.text("mode = 'snapshot'"),
    )
    op.drop_table("sync_log", schema="operations")
    op.drop_table("pipeline_runs", schema="operations")
    op.drop_index(op.f("ix_executions_pipeline_run_id_entity"), table_name="executions", schema="operations")
    op.drop_table("executions", schema="operations")
    op.drop_index(
        "uq_dead_letters_pending",
        table_name="dead_letters",
        schema="operations",
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.drop_table("dead_letters", schema="operations")
    op.drop_table("products", schema="app")
    op.drop_index(op.f("ix_orders_customer_id"), table_name="orders", schema="app")
    op.drop_index(op.f("ix_orders_created_at"), table_name="orders", schema="app")
    op.drop_table("orders", schema="app")
    op.drop_table("customers_history", schema="app")
    op.drop_index(op.f("ix_customers_email"), table_name="customers", schema="app")
    op.drop_table("customers", schema="app")
    op.execute(sa.schema.DropSequence(sa.Sequence("change_seq", schema="app")))
    op.execute("drop schema staging cascade")
    op.execute("drop schema app")
