-- SELECT on a vector table for the roles that have it on the source, and for no other.
\set VERBOSITY terse
create schema lent;
set search_path = lent, public;
alter sequence embedd.vector_tables_id_seq restart with 1426129001;
create role golden_whole;
create role golden_columns;
create role golden_part;
create role golden_without;
create role "golden Quoted";
create role golden_own;
create table books (id integer primary key, title text, shelf text, price numeric);
insert into books select n, 'title ' || n, 'shelf ' || n % 3, n from generate_series(1, 20) n;
grant usage on schema lent to golden_whole, golden_columns, golden_part, golden_without, "golden Quoted", golden_own;
grant select on books to golden_whole with grant option;
-- The columns that the vector table uses, one of them for everyone; and too few of them.
grant select (title, shelf) on books to golden_columns;
grant select (id) on books to public;
grant select (title) on books to golden_part;
grant insert, update on books to golden_without;
select platform_vector_ref as vectors from embedd.create_vector_table('books', 'books', '[{"name": "title", "role": "embedding"}, {"name": "shelf", "role": "metadata"}]',
    start_backfill => true, table_name => 'book_vectors') \gset
create view readers as
select e.grantee::regrole as role, e.privilege_type as privilege, e.is_grantable
  from pg_class c cross join lateral aclexplode(c.relacl) e
 where c.oid = to_regclass('lent.book_vectors') and e.grantee <> c.relowner order by 1, 2;
select * from readers;
call golden.wait_synced('books');
set role golden_columns;
select count(*) from embedd.query('books', 'title 7', 5);
select count(price) as not_used from lent.books;
set role golden_part;
select code, message from golden.refusal($$ select embedd.query('books', 'title 7') $$);
reset role;

-- What is granted and revoked later follows.
grant select on books to "golden Quoted", public;
call golden.wait_for('the grants', $$ select count(*) = 4 from lent.readers $$);
select * from readers;
-- The table's REVOKE takes the columns of PUBLIC too.
revoke select on books from public, golden_whole cascade;
grant select (id) on books to public;
call golden.wait_for('the revokes', $$ select count(*) = 2 from lent.readers $$);
select * from readers;
revoke select (shelf) on books from golden_columns;
call golden.wait_for('the revoke of a column', $$ select count(*) = 1 from lent.readers $$);
select * from readers;

-- What the owner of the vectors grants to a role that never had SELECT on the source stays, and so do other privileges.
grant select on book_vectors to golden_own;
grant select on book_vectors to golden_part with grant option;
grant select, delete on book_vectors to golden_without;
grant select on books to golden_part;
revoke select on books from "golden Quoted", golden_part;
call golden.wait_for('the revoke', $$ select count(*) = 0 from lent.readers where role = '"golden Quoted"'::regrole $$);
select * from readers;

-- A swap takes them along, and what is revoked afterwards is noticed.
grant select on books to golden_whole;
call golden.wait_for('the grant', $$ select count(*) = 1 from lent.readers where role = 'golden_whole'::regrole $$);
select id is not null as created from embedd.create_provider('lent words', 'test');
select changed, needs_backfill from embedd.update_vector_table('books', embedding_provider => 'lent words', embedding_dimensions => 16);
select status from embedd.backfill('books');
call golden.wait_for('the swap', $$ select count(*) = 1 from embedd.vector_tables v where v.name = 'books' and v.embedding_dimensions = 16 and v.replaces is null $$);
call golden.wait_synced('books');
select * from readers;
revoke select on books from golden_whole;
call golden.wait_for('the revoke', $$ select count(*) = 0 from lent.readers where role = 'golden_whole'::regrole $$);

-- A REVOKE holds for the vectors in its own transaction, and the role can be dropped after it.
create role golden_leaver;
grant select on books to golden_leaver;
call golden.wait_for('the grant', $$ select count(*) = 1 from lent.readers where role = 'golden_leaver'::regrole $$);
begin;
revoke select on books from golden_leaver;
select count(*) from readers where role = 'golden_leaver'::regrole;
rollback;
select count(*) from readers where role = 'golden_leaver'::regrole;
do $$ begin execute 'revoke all on lent.books from golden_leaver'; end $$;
drop role golden_leaver;
create role golden_leaver;
grant select on books to golden_leaver;
call golden.wait_for('the grant', $$ select count(*) = 1 from lent.readers where role = 'golden_leaver'::regrole $$);
revoke select on all tables in schema lent from golden_leaver;
drop role golden_leaver;

-- With row security off no role has what embedd granted.
grant select on books to golden_columns, golden_whole;
call golden.wait_for('the grants', $$ select count(*) = 2 from lent.readers where role in ('golden_whole'::regrole, 'golden_columns'::regrole) $$);
select changed from embedd.update_vector_table('books', row_security => 'off');
select * from readers;
select mirrored_readers from embedd.vector_tables where name = 'books';
select changed from embedd.update_vector_table('books', row_security => 'auto');
select * from readers;

drop view readers;
select embedd.drop_vector_table('books');
select embedd.drop_provider('lent words');
drop owned by golden_whole, golden_columns, golden_part, golden_without, "golden Quoted", golden_own;
drop schema lent cascade;
drop role golden_whole, golden_columns, golden_part, golden_without, "golden Quoted", golden_own;
select * from golden.traces();
