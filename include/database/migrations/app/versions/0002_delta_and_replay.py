"""What delta syncs and replays of dead letters need of executions and letters."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "executions",
        sa.Column(
            "settled",
            sa.Boolean(),
            server_default=sa.text("true"),
            nullable=False,
            comment="false where the source's pages shifted, so that the watermark must stay",
        ),
        schema="operations",
    )
    op.add_column(
        "executions",
        sa.Column("reset_watermark", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        schema="operations",
    )
    op.drop_constraint(op.f("ck_executions_mode"), "executions", schema="operations")
    op.create_check_constraint(
        op.f("ck_executions_mode"), "executions", "mode in ('snapshot', 'delta', 'replay')", schema="operations"
    )
    op.add_column(
        "dead_letters",
        sa.Column("resolution", sa.Text(), nullable=True, comment="why somebody discarded it"),
        schema="operations",
    )


def downgrade() -> None:
    op.drop_column("dead_letters", "resolution", schema="operations")
    op.execute("delete from operations.executions where mode = 'replay'")
    op.drop_constraint(op.f("ck_executions_mode"), "executions", schema="operations")
    op.create_check_constraint(
        op.f("ck_executions_mode"), "executions", "mode in ('snapshot', 'delta')", schema="operations"
    )
    op.drop_column("executions", "reset_watermark", schema="operations")
    op.drop_column("executions", "settled", schema="operations")
