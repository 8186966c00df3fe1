"""Runs the migrations, and lets autogenerate leave vector tables alone."""

from alembic import context
from models import Base
from sqlalchemy import create_engine, text

# The tables of embedd in the application's schemas: vector tables, what replaces them, and what they have replaced.
VECTOR_TABLES = """
    select c.relname
      from embedd.vector_tables v
      join pg_class c on c.oid = v.vector_table or c.oid = any (v.old_tables)"""


def main():
    with create_engine("postgresql+psycopg://").connect() as db:
        exists = db.scalar(text("select to_regclass('embedd.vector_tables') is not null"))
        vector_tables = set(db.scalars(text(VECTOR_TABLES))) if exists else set()
        db.rollback()

        def include_name(name, kind, _parents):
            return kind != "table" or name not in vector_tables

        context.configure(connection=db, target_metadata=Base.metadata, include_name=include_name)
        with context.begin_transaction():
            context.run_migrations()


main()
