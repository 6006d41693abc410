"""What sources of other kinds need: first loads by windows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

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


def downgrade() -> None:
    op.drop_column("executions", "until", schema="operations")
