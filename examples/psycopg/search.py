"""Searches products with psycopg: creates and fills a table, joins answers with live rows, and turns pages."""

import psycopg
from psycopg.rows import namedtuple_row
from psycopg.types.json import Jsonb

PRODUCTS = [
    (1, "Fleece jacket", "Light and warm, dries fast after rain", "clothing", "89.90"),
    (2, "Down sleeping bag", "Keeps you warm down to -5 degrees", "camping", "249.00"),
    (3, "Trail boots", "Waterproof boots for long walks in the hills", "shoes", "139.00"),
    (4, "Wool hat", "Thin enough to wear under a hood", "clothing", "25.00"),
    (5, "Gas stove", "Boils a litre of water in four minutes", "camping", "45.50"),
    (6, "Rain trousers", "Waterproof, to wear over others on long walks", "clothing", "59.00"),
]
COLUMNS = [
    {"name": "name", "role": "embedding", "ordinal": 1},
    {"name": "description", "role": "embedding", "ordinal": 2},
    {"name": "category", "role": "metadata"},
    {"name": "price", "role": "metadata"},
]

# An answer has the key as text: cast it to the key's own type for a join with the source.
SEARCH = """
    select p.name, p.price
      from embedd.query('products', %(text)s, %(limit)s, %(filters)s, "offset" => %(offset)s) q
      join products p on p.id = q.id::bigint
     order by q.score desc"""
SIMILAR = """
    select p.name, p.price
      from embedd.similar('products', %(id)s, 2) q join products p on p.id = q.id::bigint
     order by q.score desc"""
BY_PRICE = """
    select q.id, p.name, p.price, q.metadata->>'price' as at
      from embedd.query('products', "limit" => 2, order_by => 'price', after => %(after)s) q
      join products p on p.id = q.id::bigint
     order by p.price, q.id"""


def create(db):
    """What a migration does, and the first rows."""
    db.execute("create extension if not exists embedd cascade")
    db.execute("create table products (id bigint primary key, name text, description text, category text, price numeric)")
    db.execute(
        "select embedd.create_vector_table('products', 'products', columns => %s, start_backfill => true)",
        [Jsonb(COLUMNS)],
    )
    with db.cursor() as cursor:
        cursor.executemany("insert into products values (%s, %s, %s, %s, %s)", PRODUCTS)
    # An application needs no wait: its answers follow its commits within moments.
    db.execute("select embedd.wait_until_synced('products', '1 min')")


def search(db, text, limit=2, filters=None, offset=0):
    """The products nearest in meaning to a text."""
    arguments = {"text": text, "limit": limit, "filters": Jsonb(filters or {}), "offset": offset}
    return db.execute(SEARCH, arguments).fetchall()


def show(title, rows):
    print(f"{title}: " + ", ".join(f"{row.name} ({row.price})" for row in rows))


def main():
    # The address is in PGHOST, PGPORT, PGUSER and PGDATABASE.
    with psycopg.connect(autocommit=True, row_factory=namedtuple_row) as db:
        create(db)
        show("warm for hiking", search(db, "something warm for hiking"))
        show("the next page", search(db, "something warm for hiking", offset=2))
        show("like the trail boots", db.execute(SIMILAR, {"id": "3"}).fetchall())
        page = db.execute(BY_PRICE, {"after": None}).fetchall()
        show("by price", page)
        after = Jsonb([page[-1].at, page[-1].id])
        show("by price, the next page", db.execute(BY_PRICE, {"after": after}).fetchall())
        # A test can change rows and roll back: the join shows the rows of its own transaction. Vectors follow at commit only.
        with db.transaction(force_rollback=True):
            db.execute("update products set price = 1.00 where id = 1")
            show("in a transaction that rolls back", search(db, "warm jacket", limit=1))


if __name__ == "__main__":
    main()
