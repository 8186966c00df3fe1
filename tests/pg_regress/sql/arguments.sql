-- Arguments as drivers send them: every sensible type for every function, and the types inferred for $1, $2 ..
\set VERBOSITY terse
create schema arguing;
set search_path = arguing, public;
alter sequence embedd.vector_tables_id_seq restart with 1358954496;
create table texts (id bigint primary key, t text, n integer);
insert into texts select n, 'text number ' || n, n % 7 from generate_series(1, 60) n;

-- create_vector_table: columns as jsonb, json, text and varchar; names as text, varchar and name; numbers of every type.
\set columns '[{"name": "t", "role": "embedding"}, {"name": "n", "role": "metadata"}]'
select name, dimensions from embedd.create_vector_table('texts'::varchar, 'texts'::text, :'columns'::json, embedding_dimensions => 384::bigint, start_backfill => true);
select name, mode from embedd.create_vector_table('a'::name, 'texts'::regclass, :'columns'::text, 'id'::varchar, 'local'::varchar, null, 384::numeric);
select name from embedd.create_vector_table('b'::text, 'texts'::varchar, :'columns'::jsonb, embedding_dimensions => 384::smallint, sync_mode => 'batch'::varchar, batch_interval => '1 day'::text);
select name from embedd.create_vector_table('c', 'texts', :'columns'::varchar, '["id"]'::jsonb, batch_interval => '1 day'::interval, sync_mode => 'batch');
select t.name from pg_tables, embedd.create_vector_table('e', tablename, :'columns'::json, array['id'], sync_mode => 'batch') t where schemaname = 'arguing' and tablename = 'texts';
select name from pg_class c, embedd.create_vector_table('d', c.oid, :'columns'::text, array['id', 'n']::text[], sync_mode => 'batch') where c.oid = 'texts'::regclass;
select name, primary_key_column, sync_mode, batch_interval from embedd.vector_tables where name <> 'texts' order by 1;
select count(embedd.drop_vector_table(name::varchar)) from unnest(array['a', 'b', 'c', 'd', 'e']) name;
call golden.wait_synced('texts');

-- query: a limit of every type of number, filters of every type of text.
select (select count(*) from embedd.query('texts', 'x', 5::smallint)) as smallint,
       (select count(*) from embedd.query('texts', 'x', 5::bigint)) as bigint,
       (select count(*) from embedd.query('texts', 'x', 5::numeric)) as numeric,
       (select count(*) from embedd.query('texts', 'x', 5.0)) as decimals,
       (select count(*) from embedd.query('texts', 'x', 5::double precision)) as double,
       (select count(*) from embedd.query('texts', 'x', 5::real)) as real,
       (select count(*) from embedd.query('texts', 'x', '5')) as literal,
       (select count(*) from embedd.query('texts', 'x', '5'::text)) as text,
       (select count(*) from embedd.query('texts', 'x', '5'::varchar)) as varchar;
select (select count(*) from embedd.query('texts', 'x', 50, '{"n": 3}'::jsonb)) as jsonb,
       (select count(*) from embedd.query('texts', 'x', 50, '{"n": 3}'::json)) as json,
       (select count(*) from embedd.query('texts', 'x', 50, '{"n": 3}'::text)) as text,
       (select count(*) from embedd.query('texts', 'x', 50, '{"n": 3}'::varchar)) as varchar,
       (select count(*) from embedd.query('texts', 'x', 50, '{"n": 3}')) as literal,
       (select count(*) from embedd.query('texts', 'x', 50::bigint, '{"n": 3}')) as mixed,
       (select count(*) from embedd.query('texts'::varchar, 'x'::varchar, 50, '{"n": 3}')) as names,
       (select count(*) from embedd.query('texts', 'x', filters => '{"n": 3}'::text)) as named,
       (select count(*) from embedd.query(query => 'x'::varchar, vector_table => 'texts'::varchar, filters => '{"n": 3}'::json)) as in_any_order;
select (select count(*) from embedd.query('texts', 'text number 7', min_similarity_score => 0.9)) =
       (select count(*) from embedd.query('texts', 'text number 7', min_similarity_score => 0.9::real)) and
       (select count(*) from embedd.query('texts', 'text number 7', min_similarity_score => 0.9)) =
       (select count(*) from embedd.query('texts', 'text number 7', 10::bigint, min_similarity_score => '0.9'::text, ef_search => 100::bigint)) as same;

-- A text from a form is accepted if it is exactly a value of the field.
select (select count(*) from embedd.query('texts', 'x', 50, '{"n": "3"}')) as number,
       (select count(*) from embedd.query('texts', 'x', 50, '{"n": {"in": ["3", 4]}}')) as list,
       (select count(*) from embedd.query('texts', 'x', 60, '{"n": {"exists": "false"}}')) as missing;

-- verify: the size of a sample in every type of number. An overwritten vector is found, and restored.
select * from embedd.verify('texts', 60);
update embedd_vt_51000000_texts set embedding = (select embedding from embedd_vt_51000000_texts where pk_value = '1') where pk_value in ('2', '3');
select * from embedd.verify('texts') order by 1;
select * from embedd.verify('texts', 60::bigint) order by 1;
update embedd_vt_51000000_texts set embedding = null where pk_value in ('2', '3');
select status from embedd.reconcile('texts');
call golden.wait_synced('texts');
select * from embedd.verify('texts', 60.0) order by 1;

-- NULL: a NULL question has no result, other NULL arguments count as omitted.
select (select count(*) from embedd.query('texts', null)) as question,
       (select count(*) from embedd.query('texts', null::varchar, 5::bigint)) as varchar,
       (select count(*) from embedd.query('texts', 'x', null)) as "limit",
       (select count(*) from embedd.query('texts', 'x', null::bigint, null::json, null::numeric, null::bigint)) as everything,
       embedd.embed('texts', null) is null as embed;

-- Providers: options as json and text.
select name from embedd.create_provider('p'::varchar, 'ollama'::varchar, options => '{"timeout": "20s"}'::json);
select name from embedd.update_provider('p'::name, default_model => 'm'::varchar, options => '{"max_in_flight": 2}'::text);
select options from embedd.providers where name = 'p';
select count(embedd.drop_provider('p'::varchar));

-- A key of the row's own type.
\x on
select * from golden.refusal($$ select embedd.retry_failed('texts', 7::bigint) $$);
select * from golden.refusal($$ select embedd.retry_failed('texts', '00000000-0000-0000-0000-000000000007'::uuid) $$);

-- Invalid numbers, invalid JSON, fractional numbers.
select * from golden.refusal($$ select * from embedd.query('texts', 'x', 2.5) $$);
select * from golden.refusal($$ select * from embedd.query('texts', 'x', 'NaN'::numeric) $$);
select * from golden.refusal($$ select * from embedd.query('texts', 'x', 5000000000) $$);
select * from golden.refusal($$ select * from embedd.query('texts', 'x', 1001::bigint) $$);
select * from golden.refusal($$ select * from embedd.query('texts', 'x', 'many'::text) $$);
select * from golden.refusal($$ select * from embedd.query('texts', 'x', 5, '{"n":'::text) $$);
select * from golden.refusal($$ select * from embedd.query('texts', 'x', 5, '{"m": 1}'::json) $$);
select * from golden.refusal($$ select * from embedd.query('texts', 'x', 5, '{"n": "3.0"}') $$);
select * from golden.refusal($$ select * from embedd.verify('texts', -1) $$);
select * from golden.refusal($$ select * from embedd.verify('texts', 2.5) $$);
select * from golden.refusal($$ select * from embedd.query(null, 'x') $$);
select * from golden.refusal($$ select * from embedd.create_provider('p', 'ollama', 'sk-secret', options => '{"timeout":'::text) $$);
select * from golden.refusal($$ select * from embedd.create_provider('p', 'ollama', 'sk-secret', options => '{"time": 1}'::json) $$);
select * from golden.refusal($$ select * from embedd.create_vector_table('d', 'texts', '[{"name": "t"}]'::text) $$);
\x off

-- A driver that asks for the types of parameters gets those of the first forms.
prepare query as select * from embedd.query($1, $2, $3, $4, $5, $6);
prepare named as select * from embedd.query(vector_table => $1, query => $2, filters => $3, "limit" => $4);
prepare make as select * from embedd.create_vector_table($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11);
prepare provider as select * from embedd.create_provider($1, $2, $3, $4, $5, $6);
prepare change as select * from embedd.update_provider($1, $2, $3, $4, $5);
prepare retry as select embedd.retry_failed($1, $2);
select name, parameter_types from pg_prepared_statements order by 1;
deallocate all;

-- ROWS estimates, and STRICT: the same in both forms.
select p.proname, p.provolatile, p.proparallel, array_agg(distinct p.prorows) as rows, count(*) as forms
  from pg_proc p join pg_depend d on d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
 where d.refobjid = (select oid from pg_extension where extname = 'embedd') and (p.proretset or p.proname = 'embed')
 group by 1, 2, 3 order by 1;
-- A vector index supports ORDER BY embed(), whose value is computed once.
set enable_seqscan = off;
explain (costs off) select pk_value from embedd_vt_51000000_texts order by embedding <=> embedd.embed('texts', 'x') limit 3;
reset enable_seqscan;

-- Texts longer than the model reads: the creator gets a notice, from a sample.
create table long_texts (id integer primary key, t text);
insert into long_texts select n, repeat('several words ', case when n % 4 = 0 then 200 else 1 end) from generate_series(1, 100) n;
\set VERBOSITY default
select name from embedd.create_vector_table('long', 'long_texts', '[{"name": "t", "role": "embedding"}]');
\set VERBOSITY terse

select count(embedd.drop_vector_table(name)) from unnest(array['texts', 'long']) name;
drop schema arguing cascade;
select * from golden.traces();
