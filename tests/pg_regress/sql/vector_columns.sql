-- The type and the index of vectors, and the name of their table: arguments of create_vector_table(), and their errors.
\set VERBOSITY terse
create schema columns_of;
create schema elsewhere;
set search_path = columns_of, public;
alter sequence embedd.vector_tables_id_seq restart with 1476395009;
select name from embedd.create_provider('numbers', 'test');
create table docs (id integer primary key, t text, n integer);
insert into docs select n, 'word' || n || ' and word' || n % 7, n from generate_series(1, 40) n;
\set columns '[{"name": "t", "role": "embedding"}]'
create view stored as select name, vector_type, index_options, vector_table, vectors_name from embedd.vector_tables;

-- The table's name and schema, the type, and the options of the index.
select platform_vector_ref from embedd.create_vector_table('docs', 'docs', :'columns', embedding_provider => 'numbers', embedding_dimensions => 16,
    start_backfill => true, vector_type => 'halfvec', index => '{"m": 24, "ef_construction": 96}', table_name => 'Docs "vectors"', table_schema => 'elsewhere');
\d elsewhere."Docs ""vectors"""
select * from stored;
call golden.wait_synced('docs');
select id, round(score::numeric, 3) as score from embedd.query('docs', 'word9 and word2', 1);
select count(*), min(vector_dims(embedding)) as dims, pg_typeof(min(embedding::text)) as text from elsewhere."Docs ""vectors""";
select count(*) from embedd.verify('docs');
select count(*) from embedd.verify('docs', 40);
-- embed() is compared with the column as it is.
select pk_value from elsewhere."Docs ""vectors""" order by embedding <=> embedd.embed('docs', 'word4 and word4') limit 1;
-- A vector that is not that of its text is found in a halfvec too.
update elsewhere."Docs ""vectors""" set embedding = (select embedding from elsewhere."Docs ""vectors""" where pk_value = '4') where pk_value = '9';
select * from embedd.verify('docs', 40);
-- Changes of the source arrive, also without a text.
insert into docs values (41, 'word41', 41), (42, null, 42);
delete from docs where id < 40;
call golden.wait_synced('docs');
select pk_value, embedding is null as without, embedded_text from elsewhere."Docs ""vectors""" order by 1;

-- Drivers send them as any type.
select platform_vector_ref from embedd.create_vector_table('typed'::varchar, 'docs', :'columns'::json, embedding_provider => 'numbers', embedding_dimensions => 16::bigint,
    vector_type => 'vector'::varchar, index => '{"method": "hnsw", "m": 4}'::json, table_name => 'typed'::name, table_schema => 'elsewhere'::text);
\d elsewhere.typed
-- What is not given, or null, is the default.
select platform_vector_ref from embedd.create_vector_table('plain', 'docs', :'columns', embedding_provider => 'numbers',
    vector_type => 'vector', index => '{"m": null}', table_name => null, table_schema => null);
-- No index, by choice.
select platform_vector_ref from embedd.create_vector_table('bare', 'docs', :'columns', embedding_provider => 'numbers', index => '{"method": "none"}', table_name => 'bare');
\d bare
-- A table that a vector table left behind is named, whatever its name is.
select embedd.drop_vector_table('bare', keep_table => true);
\set VERBOSITY default
select platform_vector_ref from embedd.create_vector_table('again', 'docs', :'columns', embedding_provider => 'numbers', table_name => 'again', index => '{}');
\set VERBOSITY terse
select "check", object, remedy from embedd.doctor() where "check" = 'orphaned_table';
drop table bare;
select * from stored order by name;

-- Above 2000 dimensions the index is over halfvec; the column has vectors of either type.
select platform_vector_ref from embedd.create_vector_table('wide', 'docs', :'columns', embedding_provider => 'numbers', embedding_dimensions => 3072, table_name => 'wide');
select platform_vector_ref from embedd.create_vector_table('wide half', 'docs', :'columns', embedding_provider => 'numbers', embedding_dimensions => 3072, table_name => 'wide_half', vector_type => 'halfvec');
-- Above 4000 there is none.
\set VERBOSITY default
select platform_vector_ref, dimensions from embedd.create_vector_table('very wide', 'docs', :'columns', embedding_provider => 'numbers', embedding_dimensions => 4001, table_name => 'very_wide');
select platform_vector_ref, dimensions from embedd.create_vector_table('widest', 'docs', :'columns', embedding_provider => 'numbers', embedding_dimensions => 16000, table_name => 'widest', vector_type => 'halfvec', index => '{"method": "none"}');
\set VERBOSITY terse
select c.relname, format_type(a.atttypid, a.atttypmod), replace(pg_get_indexdef(i.indexrelid), format(' ON %s', i.indrelid::regclass), '') as index
  from pg_class c
  join pg_attribute a on a.attrelid = c.oid and a.attname = 'embedding'
  left join pg_index i on i.indrelid = c.oid and not i.indisprimary
 where c.relnamespace = 'columns_of'::regnamespace and c.relkind = 'r' order by 1;
-- Nothing is missing.
select "check", state, object from embedd.doctor() where "check" = 'vector_index' order by object;

-- Errors. From here on nothing may be created.
select * from golden.traces() \gset before_
create function create_with(arguments text) returns text language sql as $$
    select 'select embedd.create_vector_table(''x'', ''docs'', ''[{"name": "t", "role": "embedding"}]'', embedding_provider => ''numbers'', ' || $1 || ')' $$;
create role columns_stranger;
grant usage on foreign server numbers to columns_stranger;
grant usage on schema columns_of to columns_stranger;
alter table docs owner to columns_stranger;
\x on
select a.arguments, r.* from unnest(array[
    $$ vector_type => 'bit' $$,
    $$ vector_type => 'Vector' $$,
    $$ vector_type => null $$,
    $$ index => '"hnsw"' $$,
    $$ index => '[]' $$,
    $$ index => '{"method": "ivfflat"}' $$,
    $$ index => '{"method": "btree"}' $$,
    $$ index => '{"method": 7}' $$,
    $$ index => '{"quantization": "binary"}' $$,
    $$ index => '{"lists": 100}' $$,
    $$ index => '{"m": 1}' $$,
    $$ index => '{"m": 101}' $$,
    $$ index => '{"m": 16.5}' $$,
    $$ index => '{"m": "16"}' $$,
    $$ index => '{"ef_construction": 3}' $$,
    $$ index => '{"ef_construction": 1001}' $$,
    $$ index => '{"m": 33}' $$,
    $$ index => '{"m": 24, "ef_construction": 40}' $$,
    $$ index => '{"method": "none", "ef_construction": 40}' $$,
    $$ index => '{"m": 8}', embedding_dimensions => 4001 $$,
    $$ embedding_dimensions => 16001 $$,
    $$ embedding_dimensions => 16001, vector_type => 'halfvec' $$,
    $$ embedding_dimensions => 0 $$,
    $$ table_name => '' $$,
    $$ table_name => repeat('x', 59) $$,
    $$ table_name => repeat('é', 30) $$,
    $$ table_name => E'two\nlines' $$,
    $$ table_name => 'embedd_vt_00000001_docs' $$,
    $$ table_name => 'docs' $$,
    $$ table_name => 'typed', table_schema => 'elsewhere' $$,
    $$ table_schema => 'no such schema' $$,
    $$ table_schema => '' $$,
    $$ table_schema => 'embedd' $$,
    $$ table_schema => 'pg_catalog' $$,
    $$ table_schema => 'pg_temp' $$,
    $$ table_schema => 'information_schema' $$]) with ordinality a(arguments, n), golden.refusal(create_with(a.arguments)) r order by n;
-- A role needs CREATE in the schema, of the source or another.
set role columns_stranger;
select * from golden.refusal(create_with($$ table_schema => 'elsewhere' $$));
select * from golden.refusal(create_with($$ table_name => 'mine' $$));
reset role;
\x off
select t.vector_tables = :before_vector_tables as vector_tables, t.tables = :before_tables as tables, t.triggers = :before_triggers as triggers,
       t.tasks = :before_tasks as tasks
  from golden.traces() t;
grant create, usage on schema elsewhere to columns_stranger;
set role columns_stranger;
select platform_vector_ref from embedd.create_vector_table('hers', 'docs', :'columns', embedding_provider => 'numbers', table_name => repeat('x', 58), table_schema => 'elsewhere');
reset role;

-- The owner may change the type: what is written and compared follows the column.
select platform_vector_ref from embedd.create_vector_table('changed', 'docs', :'columns', embedding_provider => 'numbers', start_backfill => true, index => '{"method": "none"}', table_name => 'changed');
call golden.wait_synced('changed');
alter table changed alter embedding type halfvec(64);
create index on changed using hnsw (embedding halfvec_cosine_ops);
update docs set t = 'another text' where id = 40;
call golden.wait_synced('changed');
select id, round(score::numeric, 3) as score from embedd.query('changed', 'another text', 1);
select count(*) from embedd.verify('changed', 10);
select "check", state from embedd.doctor() where object = 'changed' and "check" ~ 'index';

select count(embedd.drop_vector_table(name)) from embedd.vector_tables;
select * from golden.traces();
select embedd.drop_provider('numbers');
\set VERBOSITY terse
set client_min_messages = warning;
drop schema columns_of cascade;
drop schema elsewhere cascade;
drop role columns_stranger;
