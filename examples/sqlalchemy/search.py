"""Searches products with SQLAlchemy; `alembic upgrade head` has created the tables."""

from models import Product, by_price, search, similar
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

PRODUCTS = [
    Product(id=1, name="Fleece jacket", description="Light and warm, dries fast after rain", category="clothing", price="89.90"),
    Product(id=2, name="Down sleeping bag", description="Keeps you warm down to -5 degrees", category="camping", price="249.00"),
    Product(id=3, name="Trail boots", description="Waterproof boots for long walks in the hills", category="shoes", price="139.00"),
    Product(id=4, name="Wool hat", description="Thin enough to wear under a hood", category="clothing", price="25.00"),
    Product(id=5, name="Gas stove", description="Boils a litre of water in four minutes", category="camping", price="45.50"),
    Product(id=6, name="Rain trousers", description="Waterproof, to wear over others on long walks", category="clothing", price="59.00"),
]


def show(title, products):
    print(f"{title}: " + ", ".join(f"{product.name} ({product.price})" for product in products))


def main():
    # The address is in PGHOST, PGPORT, PGUSER and PGDATABASE.
    with Session(create_engine("postgresql+psycopg://")) as session:
        session.add_all(PRODUCTS)
        session.commit()
        # An application needs no wait: its answers follow its commits within moments.
        session.execute(text("select embedd.wait_until_synced('products', '1 min')"))
        show("warm for hiking", session.scalars(search("something warm for hiking")))
        show("the next page", session.scalars(search("something warm for hiking", offset=2)))
        show("like the trail boots", session.scalars(similar(3)))
        page = session.scalars(by_price()).all()
        show("by price", page)
        show("by price, the next page", session.scalars(by_price(after=page[-1])))
        # A test can change rows and roll back: the join shows the rows of its own transaction. Vectors follow at commit only.
        session.get(Product, 1).price = "1.00"
        session.flush()
        session.expire_all()
        show("in a transaction that rolls back", session.scalars(search("warm jacket", limit=1)))
        session.rollback()


if __name__ == "__main__":
    main()
