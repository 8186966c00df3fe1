"""The product table as SQLAlchemy maps it, and searches over it."""

from decimal import Decimal

from sqlalchemy import BigInteger, Numeric, String, Text, cast, func, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Product(Base):
    __tablename__ = "products"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    description: Mapped[str] = mapped_column(Text)
    category: Mapped[str] = mapped_column(Text)
    price: Mapped[Decimal] = mapped_column(Numeric)


def search(text, limit=2, filters=None, offset=0):
    """A SELECT of the products nearest in meaning to a text, with their scores."""
    hits = func.embedd.query(
        "products", text, limit, cast(filters or {}, JSONB), None, None, None, offset
    ).table_valued("id", "score")
    return joined(hits)


def similar(key, limit=2):
    """A SELECT of the products like another one."""
    return joined(func.embedd.similar("products", cast(str(key), String), limit).table_valued("id", "score"))


def joined(hits):
    # An answer has the key as text: cast it to the key's own type for a join with the source.
    return (
        select(Product, hits.c.score)
        .join(hits, cast(hits.c.id, BigInteger) == Product.id)
        .order_by(hits.c.score.desc())
    )


def by_price(limit=2, after=None):
    """A SELECT of a page of all products in the order of their price."""
    none = [None] * 4
    after = None if after is None else [str(after.price), str(after.id)]
    hits = func.embedd.query(
        "products", None, limit, *none, 0, "price", cast(after, JSONB(none_as_null=True))
    ).table_valued("id")
    return select(Product).join(hits, cast(hits.c.id, BigInteger) == Product.id).order_by(Product.price, Product.id)
