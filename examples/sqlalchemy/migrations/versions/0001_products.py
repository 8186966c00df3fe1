"""Creates the products and their vector table."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

COLUMNS = """[
    {"name": "name", "role": "embedding", "ordinal": 1},
    {"name": "description", "role": "embedding", "ordinal": 2},
    {"name": "category", "role": "metadata"},
    {"name": "price", "role": "metadata"}]"""


def upgrade():
    op.execute("create extension if not exists embedd cascade")
    op.create_table(
        "products",
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("category", sa.Text, nullable=False),
        sa.Column("price", sa.Numeric, nullable=False),
    )
    op.execute(
        sa.text(
            "select embedd.create_vector_table('products', 'products', columns => cast(:columns as jsonb), start_backfill => true)"
        ).bindparams(columns=COLUMNS)
    )


def downgrade():
    op.execute("select embedd.drop_vector_table('products')")
    op.drop_table("products")
