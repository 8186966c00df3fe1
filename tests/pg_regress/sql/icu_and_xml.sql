-- Values whose text depends on collations and settings. It needs a server built with ICU and with XML.
\set VERBOSITY terse
create schema values_alike;
set search_path = values_alike, public;
alter sequence embedd.vector_tables_id_seq restart with 1946157057;
create type mood as enum ('sad', 'it''s ok', 'happy "x"', 'fourth');

-- Values that are equal but not identical are synced. (jsonb has no -0 and no blanks.)
create collation no_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
create domain shout as text check (value <> '');
create table alike (id integer primary key, t text, n numeric, f float8, f4 real, j json, jb jsonb, c text collate no_case, a numeric[], d shout, e mood,
    iv interval, x char(3) collate no_case, b bytea, p point, tz timetz);
insert into alike values (1, 'alike', 1.0, 0, 0, '{"a":1}', '{"a": 1.0}', 'Text', '{1.0}', 'Shout', 'sad', '1 day', 'abc', '\x00', '(0,0)', '12:00+00');
select platform_vector_ref as alike_vectors from embedd.create_vector_table('alike', 'alike', (
        select jsonb_agg(jsonb_build_object('name', attname, 'role', case attname when 't' then 'embedding' else 'metadata' end) order by attnum)
          from pg_attribute where attrelid = 'alike'::regclass and attnum > 1), start_backfill => true) \gset
call golden.wait_synced('alike');
create table seen (n serial, change text, metadata jsonb);
create procedure change(what text) language plpgsql as $$
declare answer jsonb;
begin
    execute 'update alike set ' || what;
    commit;
    call golden.wait_synced('alike');
    execute format('select metadata from %s', (select vector_table from embedd.vector_tables where name = 'alike')) into answer;
    insert into seen (change, metadata) values (what, answer);
    commit;
end
$$;
call change('id = id');
call change('n = 1.00');
call change('f = ''-0''');
call change('f4 = ''-0''');
call change($$j = '{"a": 1}'$$);
call change($$jb = '{"a": 1.00}'$$);
call change($$c = 'TEXT'$$);
call change($$a = '{1.00}'$$);
call change($$d = 'shout'$$);
call change($$e = 'happy "x"'$$);
call change($$iv = '24 hours'$$);
call change($$x = 'ABC'$$);
call change($$b = '\x0000'$$);
call change($$p = '(-0,0)'$$);
call change($$tz = '13:00+01'$$);
call change('b = null');
call change('b = null, t = t, n = n * 1');
select s.change, coalesce((select string_agg(format('%s: %s', key, value), ', ') from jsonb_each_text(s.metadata) m
                            where m.value is distinct from before.metadata ->> m.key or (s.metadata -> m.key)::text <> (before.metadata -> m.key)::text), 'nothing') as "what changed"
  from seen s left join seen before on before.n = s.n - 1 where s.n > 1 order by s.n;
select embedd.drop_vector_table('alike');

-- Values of types whose text depends on settings: the worker's settings are fixed, whatever the writer's are.
create table settings_matter (id integer primary key, d date, ts timestamp, tz timestamptz, f4 real, f8 float8, b bytea, iv interval, m money, j json, n numeric, a text[], x xml);
select platform_vector_ref as matter_vectors from embedd.create_vector_table('settings matter', 'settings_matter', (
        select jsonb_agg(jsonb_build_object('name', attname, 'role', 'embedding') order by attnum)
          from pg_attribute where attrelid = 'settings_matter'::regclass and attnum > 1), start_backfill => true) \gset
set datestyle = 'German, DMY';
set timezone = 'Asia/Kathmandu';
set extra_float_digits = -5;
set bytea_output = 'escape';
set intervalstyle = 'sql_standard';
insert into settings_matter values (1, '31.12.2024', '31.12.2024 23:59:59.5', '31.12.2024 23:59:59.5 UTC', 0.1, 1.0 / 3, '\x00ff', '1 day 2 hours', 1234.5, '{"a":  1}', 1.10, '{a,"b c",null}', '<a/>');
call golden.wait_synced('settings matter');
reset datestyle;
reset timezone;
reset extra_float_digits;
reset bytea_output;
reset intervalstyle;
select embedded_text, jsonb_pretty(metadata) as metadata from :matter_vectors;
select embedd.drop_vector_table('settings matter');

select * from golden.traces();
\set VERBOSITY terse
set client_min_messages = warning;
drop schema values_alike cascade;
reset client_min_messages;
