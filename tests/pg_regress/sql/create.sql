-- create_vector_table(): its result, what it creates, and all its errors.
\set VERBOSITY terse
create schema creation;
set search_path = creation;
-- The ids of vector tables are part of the names of their objects.
alter sequence embedd.vector_tables_id_seq restart with 268435457;

create table products (
    id bigint generated always as identity primary key,
    name text not null,
    description text,
    category varchar(40),
    price numeric(10, 2),
    in_stock boolean,
    added timestamptz,
    tags text[],
    stock integer);

-- The result, with every field.
\x on
select id, name, provider, source_table, mode, sync_status, model, dimensions, platform_vector_ref,
       jsonb_pretty(columns) as columns, created_at = now() as created_now
  from embedd.create_vector_table('products-search', 'products', columns => '[
    {"name": "description", "role": "embedding", "ordinal": 2, "name_prefix": "Description: "},
    {"name": "name",        "role": "embedding", "ordinal": 1, "name_prefix": "Product: "},
    {"name": "category",    "role": "metadata",  "filter_type": "keyword"},
    {"name": "price",       "role": "metadata",  "filter_type": "float"},
    {"name": "stock",       "role": "metadata",  "filter_type": "integer"},
    {"name": "in_stock",    "role": "metadata",  "filter_type": "boolean"},
    {"name": "added",       "role": "metadata",  "filter_type": "datetime"},
    {"name": "tags",        "role": "metadata"}]');
-- The row in embedd.vector_tables.
select id, name, source_table, primary_key_column, key_types, vector_table, embedding_provider, embedding_model,
       embedding_dimensions, sync_mode, jsonb_array_length(columns) as columns, owner = current_user::regrole as mine, sync_status,
       batch_interval, on_source_drop, source_name, last_error, last_error_at, created_at <= now() as created
  from embedd.vector_tables where name = 'products-search';
\x off
-- What it created: a table with an index, and triggers on the source.
\d embedd_vt_10000001_products_search
\d products
select obj_description('embedd_vt_10000001_products_search'::regclass, 'pg_class');
select attname, col_description(attrelid, attnum) from pg_attribute
 where attrelid = 'embedd_vt_10000001_products_search'::regclass and attnum > 0 order by attnum;
-- The table belongs to its creator and is an ordinary one.
select relowner = current_user::regrole as mine, relpersistence, relacl, relnamespace = 'creation'::regnamespace as beside_the_source
  from pg_class where oid = 'embedd_vt_10000001_products_search'::regclass;
-- A source may have several, each with its own triggers.
select platform_vector_ref from embedd.create_vector_table('products names only', 'creation.products',
    '[{"name": "name", "role": "embedding"}]', primary_key_column => 'id', embedding_provider => 'local',
    embedding_model => 'all-MiniLM-L6-v2', embedding_dimensions => 384, sync_mode => 'trigger', start_backfill => false);
select tgname from pg_trigger where tgrelid = 'products'::regclass and not tgisinternal order by tgname;

-- start_backfill: no further call is needed.
insert into products (name) values ('boots'), ('a tent');
select sync_status from embedd.create_vector_table('at once', 'products', '[{"name": "name", "role": "embedding"}]', start_backfill => true);
call golden.wait_synced('at once');
select pk_value, embedded_text from embedd_vt_10000003_at_once order by pk_value;

-- Names in any case and script; the physical name keeps the ASCII characters.
create schema "Meine Daten";
create table "Meine Daten"."Größen ""x""" ("ID" integer primary key, "Der Text" text, "select" int);
select source_table, platform_vector_ref, columns from embedd.create_vector_table('Größen & 中文 🎉', '"Meine Daten"."Größen ""x"""',
    '[{"name": "Der Text", "role": "embedding"}, {"name": "select", "role": "metadata"}]');
select source_table, platform_vector_ref from embedd.create_vector_table(repeat('x', 100), 'products', '[{"name": "name", "role": "embedding"}]');
select source_table, platform_vector_ref from embedd.create_vector_table('中文', 'products', '[{"name": "name", "role": "embedding"}]');
select source_table, platform_vector_ref from embedd.create_vector_table(' ', 'products', '[{"name": "name", "role": "embedding"}]');
-- Names are case-sensitive.
select platform_vector_ref from embedd.create_vector_table('Products-Search', 'products', '[{"name": "name", "role": "embedding"}]');

-- Keys of every supported type.
create type mood as enum ('sad', 'ok', 'happy');
create domain isbn as text check (value <> '');
create domain small_isbn as isbn;
create table keys (
    a_smallint smallint not null unique, an_integer integer not null unique, a_bigint bigint not null unique,
    an_oid oid not null unique, a_numeric numeric not null unique, a_uuid uuid not null unique,
    a_text text not null unique, a_varchar varchar(20) not null unique, a_char char(8) not null unique,
    a_mood mood not null unique, a_domain small_isbn not null unique, t text);
select s.id, key, s.sync_status
  from unnest(array['a_smallint', 'an_integer', 'a_bigint', 'an_oid', 'a_numeric', 'a_uuid', 'a_text', 'a_varchar', 'a_char',
                    'a_mood', 'a_domain']) with ordinality k(key, n)
 cross join lateral embedd.create_vector_table('by ' || key, 'keys', '[{"name": "t", "role": "embedding"}]', primary_key_column => key) s
 order by n;
select v.id, v.primary_key_column, v.key_types from embedd.vector_tables v where v.source_table = 'keys'::regclass order by v.id;
-- A unique index is sufficient, and INCLUDE columns are not part of the key.
create table included (id integer not null, t text);
create unique index on included (id) include (t);
select platform_vector_ref from embedd.create_vector_table('included', 'included', '[{"name": "t", "role": "embedding"}]', 'id');
-- So is a deferrable one.
create table deferred (id integer primary key deferrable initially deferred, t text);
select platform_vector_ref from embedd.create_vector_table('deferred', 'deferred', '[{"name": "t", "role": "embedding"}]');
-- The key may also be an embedded column.
select platform_vector_ref from embedd.create_vector_table('own key', 'included', '[{"name": "id", "role": "embedding"}]', 'id');
-- A composite key, in the order of its index.
create table pairs_of (b date, a integer, "the c" text, t text, primary key (a, b), unique ("the c", a));
alter table pairs_of alter "the c" set not null;
select v.platform_vector_ref, t.primary_key_column, t.key_types, t.key_numbers
  from embedd.create_vector_table('pairs', 'pairs_of', '[{"name": "t", "role": "embedding"}]') v join embedd.vector_tables t using (id);
select t.primary_key_column, t.key_types
  from embedd.create_vector_table('named pairs', 'pairs_of', '[{"name": "t", "role": "embedding"}]', '["a", "the c"]') v join embedd.vector_tables t using (id);
-- Other types of keys.
create table more_keys (t timestamptz primary key, d date not null unique, f float8 not null unique, f4 float4 not null unique,
    b bytea not null unique, boo boolean not null unique, r int4range not null unique, iv interval not null unique, a integer[] not null unique,
    j jsonb not null unique, i inet not null unique, name text);
select t.primary_key_column, t.key_types
  from unnest(array['t', 'd', 'f', 'f4', 'b', 'boo', 'r', 'iv', 'a', 'j', 'i']) with ordinality k(key, n)
 cross join lateral embedd.create_vector_table('more by ' || key, 'more_keys', '[{"name": "name", "role": "embedding"}]', key) v
  join embedd.vector_tables t on t.id = v.id order by n;
-- A partitioned table is a source.
create table parted (id integer primary key, t text) partition by range (id);
create table parted_1 partition of parted for values from (0) to (100);
select platform_vector_ref from embedd.create_vector_table('parted', 'parted', '[{"name": "t", "role": "embedding"}]');
select tgrelid::regclass, tgname from pg_trigger where tgrelid in ('parted'::regclass, 'parted_1'::regclass) order by 1, 2;
create table parted_2 partition of parted for values from (100) to (200);
select tgname from pg_trigger where tgrelid = 'parted_2'::regclass order by 1;
-- The default filter_type of every type; a number may be compared as the other kind, and everything as a keyword.
create table types (id integer primary key, t text, v varchar, c char(3), n name, u uuid, e mood, j jsonb, a int[], m money, iv interval, tm time,
    i2 smallint, i4 integer, i8 bigint, f4 real, f8 double precision, nu numeric(5, 1), b boolean, d date, ts timestamp, tz timestamptz,
    dom small_isbn);
select string_agg(format('%s %s', c ->> 'name', c ->> 'filter_type'), ', ' order by n)
  from embedd.create_vector_table('types', 'types', (
        select jsonb_agg(jsonb_build_object('name', attname, 'role', case attname when 't' then 'embedding' else 'metadata' end) order by attnum)
          from pg_attribute where attrelid = 'types'::regclass and attnum > 0)) v,
       jsonb_array_elements(v.columns) with ordinality e(c, n);
select columns from embedd.create_vector_table('other types', 'types', '[{"name": "t", "role": "embedding"},
    {"name": "i4", "role": "metadata", "filter_type": "float"}, {"name": "nu", "role": "metadata", "filter_type": "integer"},
    {"name": "d", "role": "metadata", "filter_type": "keyword"}, {"name": "b", "role": "metadata", "filter_type": "keyword"}]');
-- null means omitted.
select columns from embedd.create_vector_table('nulls', 'types',
    '[{"name": "t", "role": "embedding", "ordinal": null, "name_prefix": null, "filter_type": null}]', null);

-- Errors. From here on nothing may be created.
create view a_view as select * from products;
create materialized view a_matview as select * from products;
create foreign data wrapper golden_nowhere;
create server golden_nowhere foreign data wrapper golden_nowhere;
create foreign table a_foreign_table (id integer not null, name text) server golden_nowhere;
create sequence a_sequence;
create temp table a_temp_table (id integer primary key, name text);
create type a_composite as (id integer, name text);
create table no_key (id integer not null, name text);
create table two_keys (a integer, b integer, name text, n integer unique, primary key (a, b));
create table weak_keys (
    nullable integer unique, expression integer not null, partial integer not null, name text);
create unique index on weak_keys ((expression + 0));
create unique index on weak_keys (partial) where partial > 0;
create table names_in_text (id integer primary key, name text, class regclass, roles regrole[]);
create table bad_keys (m money primary key, r regclass not null unique, o regrole not null unique, name text);
select * from golden.traces() \gset before_

\x on
-- The source.
select * from golden.refusal($$ select embedd.create_vector_table('x', 'no_such_table', '[{"name": "name", "role": "embedding"}]') $$);
select code from golden.refusal($$ select embedd.create_vector_table('x', 4294967295::oid::regclass, '[{"name": "name", "role": "embedding"}]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'a_view', '[{"name": "name", "role": "embedding"}]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'a_matview', '[{"name": "name", "role": "embedding"}]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'a_foreign_table', '[{"name": "name", "role": "embedding"}]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'a_sequence', '[{"name": "last_value", "role": "embedding"}]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products_pkey', '[{"name": "id", "role": "embedding"}]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'a_composite', '[{"name": "name", "role": "embedding"}]') $$);
select code, regexp_replace(message, 'pg_temp_\d+', 'pg_temp_N') as message, detail, hint
  from golden.refusal($$ select embedd.create_vector_table('x', 'a_temp_table', '[{"name": "name", "role": "embedding"}]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'pg_catalog.pg_class', '[{"name": "relname", "role": "embedding"}]') $$);

-- The name.
select * from golden.refusal($$ select embedd.create_vector_table('', 'products', '[{"name": "name", "role": "embedding"}]') $$);
select * from golden.refusal($$ select embedd.create_vector_table(repeat('é', 101), 'products', '[{"name": "name", "role": "embedding"}]') $$);
select * from golden.refusal($$ select embedd.create_vector_table(E'two\nlines', 'products', '[{"name": "name", "role": "embedding"}]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('products-search', 'products', '[{"name": "name", "role": "embedding"}]') $$);

-- The columns.
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": "nam", "role": "embedding"}]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": "Name", "role": "embedding"}]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": "ctid", "role": "embedding"}]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": "name", "role": "vector"}]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": "name"}]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"role": "embedding"}]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": "", "role": "embedding"}]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": 7, "role": "embedding"}]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": "name", "role": "embedding", "filter_type": "string"}]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": "name", "role": "embedding", "prefix": "Name: "}]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": "name", "role": "embedding", "ordinal": "first"}]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": "name", "role": "embedding", "ordinal": -1}]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": "name", "role": "embedding", "ordinal": 1.5}]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": "name", "role": "embedding", "name_prefix": ["Name: "]}]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": "name", "role": "metadata"}]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": "name", "role": "embedding"}, {"name": "name", "role": "embedding"}]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": "name", "role": "embedding"}, {"name": "name", "role": "metadata"}]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": "name", "role": "embedding", "ordinal": 1}, {"name": "description", "role": "embedding", "ordinal": 1}]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": "name", "role": "embedding"}, {"name": "price", "role": "metadata", "ordinal": 1}]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": "name", "role": "embedding"}, {"name": "price", "role": "metadata", "name_prefix": "Price: "}]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '{"name": "name", "role": "embedding"}') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '["name"]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', 'null') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', (
    select jsonb_agg(jsonb_build_object('name', 'c' || n, 'role', 'embedding')) from generate_series(1, 1001) n)) $$);
-- A filter type that does not fit the column's type.
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": "name", "role": "embedding", "filter_type": "integer"}]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": "name", "role": "embedding"}, {"name": "price", "role": "metadata", "filter_type": "boolean"}]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": "name", "role": "embedding"}, {"name": "in_stock", "role": "metadata", "filter_type": "integer"}]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": "name", "role": "embedding"}, {"name": "stock", "role": "metadata", "filter_type": "datetime"}]') $$);

-- The key.
select * from golden.refusal($$ select embedd.create_vector_table('x', 'no_key', '[{"name": "name", "role": "embedding"}]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'no_key', '[{"name": "name", "role": "embedding"}]', 'id') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'no_key', '[{"name": "name", "role": "embedding"}]', 'no_such_column') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'no_key', '[{"name": "name", "role": "embedding"}]', '') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'two_keys', '[{"name": "name", "role": "embedding"}]', 'a') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'two_keys', '[{"name": "name", "role": "embedding"}]', '["a", "n"]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'two_keys', '[{"name": "name", "role": "embedding"}]', '["a", "x"]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'two_keys', '[{"name": "name", "role": "embedding"}]', '["a", "a"]') $$);
select code from golden.refusal($$ select embedd.create_vector_table('x', 'two_keys', '[{"name": "name", "role": "embedding"}]', '[1]') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'two_keys', '[{"name": "name", "role": "embedding"}]', 'n') $$);
select k.key, r.* from unnest(array['nullable', 'expression', 'partial']) with ordinality k(key, n),
    golden.refusal(format($$ select embedd.create_vector_table('x', 'weak_keys', '[{"name": "name", "role": "embedding"}]', %L) $$, key)) r order by n;
select k.key, r.* from unnest(array['m', 'r', 'o']) with ordinality k(key, n),
    golden.refusal(format($$ select embedd.create_vector_table('x', 'bad_keys', '[{"name": "name", "role": "embedding"}]', %L) $$, key)) r order by n;

-- Texts that change when other objects are renamed. A comparison detects that.
select r.* from unnest(array['class', 'roles']) with ordinality c(name, n),
    golden.refusal(format($$ select embedd.create_vector_table('x', 'names_in_text', '[{"name": "name", "role": "embedding"}, {"name": "%s", "role": "metadata"}]') $$, c.name)) r order by n;

-- Provider, model, dimensions, mode.
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": "name", "role": "embedding"}]', embedding_provider => 'openai') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": "name", "role": "embedding"}]', embedding_model => 'no-such-model') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": "name", "role": "embedding"}]', embedding_dimensions => 1536) $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": "name", "role": "embedding"}]', embedding_dimensions => 0) $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": "name", "role": "embedding"}]', batch_interval => '1 hour') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": "name", "role": "embedding"}]', sync_mode => 'batch', batch_interval => '900 ms') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": "name", "role": "embedding"}]', sync_mode => 'batch', batch_interval => '-1 day') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": "name", "role": "embedding"}]', sync_mode => 'batch', batch_interval => '367 days') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": "name", "role": "embedding"}]', sync_mode => 'batch', batch_interval => '178000000 years') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'a_view', '[{"name": "name", "role": "embedding"}]', sync_mode => 'batch') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'a_sequence', '[{"name": "last_value", "role": "embedding"}]', sync_mode => 'batch') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": "name", "role": "embedding"}]', on_source_drop => 'explode') $$);
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": "name", "role": "embedding"}]', sync_mode => 'cdc') $$);
-- Only primary_key_column, embedding_model, embedding_dimensions and batch_interval may be null.
\x off
select statement, code from unnest(array[
    $$ (null, 'products', '[{"name": "name", "role": "embedding"}]') $$,
    $$ ('x', null, '[{"name": "name", "role": "embedding"}]') $$,
    $$ ('x', 'products', null) $$,
    $$ ('x', 'products', '[{"name": "name", "role": "embedding"}]', embedding_provider => null) $$,
    $$ ('x', 'products', '[{"name": "name", "role": "embedding"}]', sync_mode => null) $$,
    $$ ('x', 'products', '[{"name": "name", "role": "embedding"}]', start_backfill => null) $$,
    $$ ('x', 'products', '[{"name": "name", "role": "embedding"}]', on_source_drop => null) $$]) with ordinality s(statement, n),
    golden.refusal('select embedd.create_vector_table' || statement) order by n;
\x on
-- A table with that name exists already: the next id is used.
select nextval('embedd.vector_tables_id_seq') + 1 as next_id \gset
select format('embedd_vt_%s_taken', lpad(to_hex(:next_id), 8, '0')) as taken \gset
create table :taken (a integer);
select platform_vector_ref like '%embedd\_vt\_%\_taken' as named, strpos(platform_vector_ref, :'taken') = 0 as another
  from embedd.create_vector_table('taken', 'products', '[{"name": "name", "role": "embedding"}]');
select embedd.drop_vector_table('taken');
drop table :taken;
-- In a read-only transaction.
begin read only;
select * from golden.refusal($$ select embedd.create_vector_table('x', 'products', '[{"name": "name", "role": "embedding"}]') $$);
rollback;
\x off
-- Nothing is left half created.
select t.vector_tables = :before_vector_tables as vector_tables, t.tables = :before_tables as tables, t.triggers = :before_triggers as triggers,
       t.tasks = :before_tasks as tasks
  from golden.traces() t;
-- After a rollback it does not exist.
begin;
select platform_vector_ref is not null as made from embedd.create_vector_table('rolled back', 'products', '[{"name": "name", "role": "embedding"}]', start_backfill => true);
insert into products (name) values ('a stove');
rollback;
select t.vector_tables = :before_vector_tables as vector_tables, t.tables = :before_tables as tables, t.triggers = :before_triggers as triggers,
       t.tasks = :before_tasks as tasks
  from golden.traces() t;

-- Removed completely: each by drop_vector_table(), also in one transaction.
begin;
select count(embedd.drop_vector_table(name)) > 0 as dropped from embedd.vector_tables;
commit;
select * from golden.traces();
drop foreign data wrapper golden_nowhere cascade;
drop schema "Meine Daten" cascade;
drop schema creation cascade;
