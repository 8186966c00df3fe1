"""Creates the vector table of the products."""

from django.db import migrations

COLUMNS = """[
    {"name": "name", "role": "embedding", "ordinal": 1},
    {"name": "description", "role": "embedding", "ordinal": 2},
    {"name": "category", "role": "metadata"},
    {"name": "price", "role": "metadata"}]"""


class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial")]
    operations = [
        migrations.RunSQL("create extension if not exists embedd cascade", migrations.RunSQL.noop),
        migrations.RunSQL(
            [("select embedd.create_vector_table('products', 'shop_product', columns => %s, start_backfill => true)", [COLUMNS])],
            "select embedd.drop_vector_table('products')",
        ),
    ]
