"""What sources of other kinds need: first loads by windows, schema drift, files that are loaded once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "executions",
        sa.Column(
            "until",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="how far a first load by windows has come; null: to the source's present",
        ),
        schema="operations",
    )
    for table in ("executions", "sync_log"):
        for name, empty, comment in (
            ("fields", "'{}'", "records by field and JSON type"),
            ("drift", "'[]'", "how the fields have changed"),
        ):
            op.add_column(
                table,
                sa.Column(name, postgresql.JSONB(), server_default=sa.text(empty), nullable=False, comment=comment),
                schema="operations",
            )
    op.create_table(
        "loaded_files",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("entity", sa.Text(), nullable=False),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False, comment="bytes, as the file lies there"),
        sa.Column(
            "checksum",
            sa.Text(),
            nullable=True,
            comment="the store's or our own, by its name; null where it was passed over unread",
        ),
        sa.Column("modified_at", sa.DateTime(timezone=True), nullable=False, comment="the store's clock"),
        sa.Column("records", sa.BigInteger(), nullable=True, comment="null where it was passed over"),
        sa.Column("execution", sa.Uuid(), nullable=False, comment="the one that landed it"),
        sa.Column(
            "status",
            sa.Text(),
            server_default=sa.text("'pending'"),
            nullable=False,
            comment="pending until publish commits; a pending file is landed again by the next execution",
        ),
        sa.Column("loaded_at", sa.DateTime(timezone=True), nullable=True, comment="when publish committed it"),
        sa.CheckConstraint("status in ('pending', 'loaded', 'passed over')", name=op.f("ck_loaded_files_status")),
        sa.CheckConstraint("(status = 'pending') = (loaded_at is null)", name=op.f("ck_loaded_files_loaded_at")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_loaded_files")),
        sa.UniqueConstraint("execution", "uri", name=op.f("uq_loaded_files_execution_uri")),
        schema="operations",
    )
    op.create_index(
        op.f("ix_loaded_files_entity_uri"),
        "loaded_files",
        ["entity", "uri"],
        schema="operations",
        postgresql_where=sa.text("status <> 'pending'"),
    )


def downgrade() -> None:
    op.drop_table("loaded_files", schema="operations")
    for table in ("sync_log", "executions"):
        op.drop_column(table, "drift", schema="operations")
        op.drop_column(table, "fields", schema="operations")
    op.drop_column("executions", "until", schema="operations")
