-- Names, columns, prefixes, keys, texts and filters with SQL in them.
\set VERBOSITY terse
create schema injecting;
set search_path = injecting, public;
alter sequence embedd.vector_tables_id_seq restart with 805306369;
create table canary (id integer primary key);

-- Everything at once: schema, table, columns and key.
create schema "s"".""; drop table injecting.canary; --";
create table "s"".""; drop table injecting.canary; --"."t'""\; drop table injecting.canary; --" (
    "k'""); drop table injecting.canary; --" text primary key,
    "c'""\ || (select 1/0) --" text,
    "m'); drop table injecting.canary; --" text,
    "
new
line	" text,
    "$1 ${x} %s %I {} :name" integer,
    "列 🎉 ""é""" text);
insert into "s"".""; drop table injecting.canary; --"."t'""\; drop table injecting.canary; --" values
    ($$'); drop table injecting.canary; --$$, $$'); drop table injecting.canary; --$$, $$'$$, E'\n', 1, '🎉'),
    ($$\'; drop table injecting.canary; --$$, $$\$$, $$\'$$, E'\\n', 2, '"'),
    ($$${x} $1 %s {a,b} NULL "$$, $$$1 %s {}$$, $$"}$$, null, 3, $$'$$);
select source_table, platform_vector_ref as vectors, columns from embedd.create_vector_table(
    $$v'"\; drop table injecting.canary; --$$,
    $$"s"".""; drop table injecting.canary; --"."t'""\; drop table injecting.canary; --"$$,
    jsonb_build_array(
        jsonb_build_object('name', $$c'"\ || (select 1/0) --$$, 'role', 'embedding', 'ordinal', 1, 'name_prefix', $$p'"\'); drop table injecting.canary; --$$),
        jsonb_build_object('name', $$列 🎉 "é"$$, 'role', 'embedding', 'name_prefix', E'$1 %s\n{}\\'),
        jsonb_build_object('name', $$m'); drop table injecting.canary; --$$, 'role', 'metadata'),
        jsonb_build_object('name', E'\nnew\nline\t', 'role', 'metadata'),
        jsonb_build_object('name', '$1 ${x} %s %I {} :name', 'role', 'metadata')),
    start_backfill => true) \gset
\echo :source_table
\echo :vectors
select name, primary_key_column, source_table::text, vector_table::text from embedd.vector_tables \gx
select obj_description(:'vectors'::regclass, 'pg_class');
call golden.wait_synced($$v'"\; drop table injecting.canary; --$$);
select pk_value, embedded_text, metadata from :vectors order by pk_value collate "C" \gx
-- What is stored equals the source.
select count(*) from :vectors v join :source_table s on s."k'""); drop table injecting.canary; --" = v.pk_value
 where v.metadata ->> $$m'); drop table injecting.canary; --$$ = s."m'); drop table injecting.canary; --"
   and v.metadata ->> E'\nnew\nline\t' is not distinct from s."
new
line	";
-- Changes of all kinds.
update :source_table set "k'""); drop table injecting.canary; --" = "k'""); drop table injecting.canary; --" || $$'';"$$ where "$1 ${x} %s %I {} :name" = 1;
update :source_table set "m'); drop table injecting.canary; --" = $$'); select 1/0; --$$ where "$1 ${x} %s %I {} :name" = 2;
delete from :source_table where "$1 ${x} %s %I {} :name" = 3;
insert into :source_table values ('', 'empty key', null, null, 4, null), (E'\n\t\\', 'blank key', null, null, 5, null);
call golden.wait_synced($$v'"\; drop table injecting.canary; --$$);
select pk_value, embedded_text, metadata -> $$m'); drop table injecting.canary; --$$ as m from :vectors order by pk_value collate "C" \gx

-- Queries and filters.
create function found(filter jsonb) returns text language sql as
    $$ select coalesce(string_agg(metadata ->> '$1 ${x} %s %I {} :name', ' ' order by metadata ->> '$1 ${x} %s %I {} :name'), '(none)')
         from embedd.query($q$v'"\; drop table injecting.canary; --$q$, $q$'); drop table injecting.canary; --$q$, 1000, filter) $$;
select f as filter, found(f) from unnest(array[
    jsonb_build_object($$m'); drop table injecting.canary; --$$, $$'); select 1/0; --$$),
    jsonb_build_object($$m'); drop table injecting.canary; --$$, jsonb_build_object('in', array[$$'); select 1/0; --$$, $$'$$, $$\'$$, '{a,b}', 'NULL', '"', '', '\'])),
    jsonb_build_object($$m'); drop table injecting.canary; --$$, jsonb_build_object('nin', array[$$'); select 1/0; --$$, '","'])),
    jsonb_build_object($$m'); drop table injecting.canary; --$$, jsonb_build_object('gt', $$' or true --$$)),
    jsonb_build_object(E'\nnew\nline\t', E'\n'),
    jsonb_build_object(E'\nnew\nline\t', E'\\n'),
    jsonb_build_object('$1 ${x} %s %I {} :name', jsonb_build_object('gte', 2)),
    jsonb_build_object($$列 🎉 "é"$$, '"')]) with ordinality u(f, n) order by n;
-- Errors quote the input, and run none of it.
\x on
select r.* from unnest(array[
    $$ embedd.query('v''"\; drop table injecting.canary; --', 'x', filters => '{"x''; drop table injecting.canary; --": 1}') $$,
    $$ embedd.query('v''"\; drop table injecting.canary; --', 'x', filters => '{"\nnew\nline\t": {"eq''); drop table injecting.canary; --": "x"}}') $$,
    $$ embedd.query('v''"\; drop table injecting.canary; --', 'x', filters => '{"$1 ${x} %s %I {} :name": "1; drop table injecting.canary"}') $$,
    $$ embedd.query('v''; drop table injecting.canary; --', 'x') $$,
    $$ embedd.sync_status('%s %n'' \') $$,
    $$ embedd.create_vector_table('x', 'canary', '[{"name": "id", "role": "embedding"}]', 'id"; drop table injecting.canary; --') $$,
    $$ embedd.create_vector_table('x', 'canary', '[{"name": "id\"; drop table injecting.canary; --", "role": "embedding"}]') $$,
    $$ embedd.create_vector_table('x', 'canary', '[{"name": "id", "role": "embedding''; drop table injecting.canary; --"}]') $$,
    $$ embedd.create_vector_table('x', 'canary', '[{"name": "id", "role": "embedding"}]', embedding_provider => 'local''; drop table injecting.canary; --') $$,
    $$ embedd.create_vector_table('x', 'canary', '[{"name": "id", "role": "embedding"}]', sync_mode => '%s %n {} ''') $$,
    $$ embedd.create_vector_table('x', 'canary; drop table injecting.canary', '[{"name": "id", "role": "embedding"}]') $$]) with ordinality u(call, n),
    golden.refusal('select ' || call) r order by n;
-- A hint can be run as it is.
select * from golden.refusal($$ select embedd.resume_sync('v''"\; drop table injecting.canary; --') $$);
select embedd.pause_sync($$v'"\; drop table injecting.canary; --$$);
select * from golden.refusal($$ select embedd.pause_sync('v''"\; drop table injecting.canary; --') $$);
select embedd.resume_sync($$v'"\; drop table injecting.canary; --$$);
\x off
-- The same with standard_conforming_strings off.
set standard_conforming_strings = off;
set escape_string_warning = off;
select sync_status from embedd.create_vector_table(E'old \\'' strings', 'canary', '[]') ;
create table old_strings (id text primary key, "c'\" text);
select platform_vector_ref as old_vectors from embedd.create_vector_table(E'old \\'' strings', 'old_strings',
    E'[{"name": "c''\\\\", "role": "embedding", "name_prefix": "p''\\\\: "}]', start_backfill => true) \gset
insert into old_strings values (E'k''\\', E'v''\\');
call golden.wait_synced(E'old \\'' strings');
select pk_value, embedded_text, metadata from :old_vectors;
select id, metadata from embedd.query(E'old \\'' strings', E'\\''', filters => E'{"c''\\\\": "v''\\\\"}');
set standard_conforming_strings = on;
reset escape_string_warning;
select embedd.drop_vector_table($$old \' strings$$);

-- A role and a domain with such names.
create role "golden r'""\; drop table injecting.canary; --";
create schema "of r" authorization "golden r'""\; drop table injecting.canary; --";
set role "golden r'""\; drop table injecting.canary; --";
create domain "of r"."d'""; drop table injecting.canary; --" as text;
create type "of r"."e'""; drop table injecting.canary; --" as enum ($$l'"\; --$$);
create table "of r".t (e "of r"."e'""; drop table injecting.canary; --" primary key, d "of r"."d'""; drop table injecting.canary; --");
insert into "of r".t values ($$l'"\; --$$, 'text');
select platform_vector_ref as r_vectors from embedd.create_vector_table('r', '"of r".t', '[{"name": "d", "role": "embedding"}]', start_backfill => true) \gset
call golden.wait_synced('r');
update "of r".t set d = 'changed';
call golden.wait_synced('r');
select pk_value, embedded_text from :r_vectors;
select key_types from embedd.vector_tables where name = 'r';
select embedd.drop_vector_table('r');
reset role;
drop schema "of r" cascade;
drop role "golden r'""\; drop table injecting.canary; --";

select embedd.drop_vector_table($$v'"\; drop table injecting.canary; --$$);
select * from golden.traces();
-- The table still exists.
select count(*) from canary;
drop schema "s"".""; drop table injecting.canary; --" cascade;
drop schema injecting cascade;
