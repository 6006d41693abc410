"""Where addresses lie, as geocoders have answered."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "geocodes",
        sa.Column("geocoder", sa.Text(), nullable=False),
        sa.Column("address", sa.LargeBinary(), nullable=False, comment="SHA-256 of the parts that the geocoder reads"),
        sa.Column(
            "latitude",
            sa.Double(),
            nullable=True,
            comment="degrees, WGS 84; null where the geocoder knows no such address",
        ),
        sa.Column("longitude", sa.Double(), nullable=True),
        sa.Column(
            "answered_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("(latitude is null) = (longitude is null)", name=op.f("ck_geocodes_both_or_none")),
        sa.CheckConstraint(
            "latitude between -90 and 90 and longitude between -180 and 180", name=op.f("ck_geocodes_degrees")
        ),
        sa.PrimaryKeyConstraint("geocoder", "address", name=op.f("pk_geocodes")),
        schema="operations",
    )


def downgrade() -> None:
    op.drop_table("geocodes", schema="operations")
