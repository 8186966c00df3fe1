-- Vectors that something else has computed are imported: which are taken, which are skipped, and which calls are refused.
\set VERBOSITY terse
create schema importing;
set search_path = importing, public;
alter sequence embedd.vector_tables_id_seq restart with 1744830465;
-- Nothing calls it: nothing is embedded here.
select name from embedd.create_provider('elsewhere', 'openai_compatible', base_url => 'http://127.0.0.1:1/v1', default_model => 'm');
create table notes (id integer primary key, t text, kind text);
insert into notes select n, 'note ' || n, 'k' || n % 3 from generate_series(1, 8) n;
insert into notes values (9, null, 'nothing'), (10, '', 'empty'), (11, E'  ends in blanks \n', null), (12, 'ünïcode', 'x');
select platform_vector_ref as notes_vectors from embedd.create_vector_table('notes', 'notes',
    '[{"name": "t", "role": "embedding"}, {"name": "kind", "role": "metadata"}]', embedding_provider => 'elsewhere', embedding_dimensions => 3) \gset

-- What is taken, and why the rest is skipped.
create table old (id integer, content text, v vector);
insert into old values
    (1, 'note 1', '[1,0,0]'), (2, 'note 2', '[1,2,0]'), (2, 'note 2', '[9,9,9]'), (3, 'an older text', '[1,0,0]'),
    (4, 'note 4', '[1,0]'), (5, 'note 5', null), (6, 'note 6', '[0,0,0]'), (7, null, '[1,0,0]'), (9, '', '[1,0,0]'), (10, '', '[1,0,0]'),
    (11, 'ends in blanks', '[1,1,0]'), (12, 'ünïcode', '[0,1,0]'), (13, 'no such row', '[1,0,0]'), (null, 'no key', '[1,0,0]');
select * from embedd.import_vectors('notes', 'select id, content, v from old');
select * from :notes_vectors order by pk_value collate "C";
select problem, string_agg(pk_value, ' ' order by pk_value collate "C") from embedd.verify('notes') group by problem;
-- The status is as it was, and nothing was asked for.
select sync_status, synced_rows, total_rows from embedd.sync_status('notes');
select count(*) from embedd.tasks;
-- The same again changes nothing.
select xmin as before from :notes_vectors where pk_value = '1' \gset
select imported, unchanged, skipped from embedd.import_vectors('notes', 'select id, content, v from old');
select xmin = :'before' as "as it was" from :notes_vectors where pk_value = '1';

-- Without a text the vector is that of the present text. A row that has changed is written again.
update notes set kind = 'other' where id = 1;
select * from embedd.import_vectors('notes', 'select n, array[n, 0, 1]::real[] from generate_series(1, 8) n');
select pk_value, embedding, metadata from :notes_vectors where pk_value in ('1', '3') order by 1;
select problem, count(*) from embedd.verify('notes') group by problem;

-- Every type of vector, of key and of text; a column of another name; a query of several lines with a comment.
create table types (id bigint primary key, t text);
insert into types select n, 'type ' || n from generate_series(1, 6) n;
select platform_vector_ref as types_vectors from embedd.create_vector_table('types', 'types', '[{"name": "t", "role": "embedding"}]', embedding_provider => 'elsewhere', embedding_dimensions => 3) \gset
create domain unit as vector check (vector_dims(value) = 3);
select * from embedd.import_vectors('types', $$ select '1', 'type 1'::varchar, '[0.5,0.25,-2]'::halfvec $$);
select * from embedd.import_vectors('types', $$ with x as (select 2::numeric as key) select key, 'type 2'::char(20), array[1, 2, 3e-3]::double precision[] from x; $$);
select * from embedd.import_vectors('types', $$ values (3::smallint, 'type 3'::name, '[3,3,3]'::unit) $$);
select * from embedd.import_vectors('types', $$
    -- two of them
    select id, t, case id when 4 then array[1, 'NaN', 1]::real[] when 5 then array[1, null, 1]::real[] else array[1, 'Infinity', 1]::real[] end
      from types where id > 3 $$);
select * from embedd.import_vectors('types', $$ select k, null::text, '[1,1,1]'::vector from unnest(array['4', 'four', '4.5', '', '99999999999999999999', ' 5 ']) k $$);
select * from embedd.import_vectors('types', $$ select k, '[1,1,1]'::vector from unnest(array['4', 'four', '4.5', '', '99999999999999999999', ' 5 ']) k $$);
select pk_value, embedding from :types_vectors order by 1;

-- Odd keys: quoted names, several columns, dates under another DateStyle, uuid, text with blanks and quotes.
create table "Odd Keys" ("The Day" date, "a""b" text, u uuid, t text, primary key (u, "The Day", "a""b"));
insert into "Odd Keys" values ('2024-12-31', ' blank ', '00000000-0000-0000-0000-000000000001', 'one'), ('2025-01-02', '"quoted" \ back', '00000000-0000-0000-0000-000000000002', 'two');
select platform_vector_ref as odd_vectors from embedd.create_vector_table('odd', '"Odd Keys"', '[{"name": "t", "role": "embedding"}]', embedding_provider => 'elsewhere', embedding_dimensions => 3) \gset
set datestyle = 'German';
select * from embedd.import_vectors('odd', $$ select jsonb_build_array(u, "The Day", "a""b"), t, '[1,2,3]'::vector from "Odd Keys" $$);
select * from embedd.import_vectors('odd', $$ select k, '[1,2,3]'::vector from unnest(array['[]', 'no json', '{"a": 1}', '["x", "y", "z"]', null]) k $$);
reset datestyle;
select pk_value, embedded_text, embedding from :odd_vectors order by 2;
select * from embedd.verify('odd');
create table days (day date primary key, t text);
insert into days values ('2024-12-31', 'last');
select from embedd.create_vector_table('days', 'days', '[{"name": "t", "role": "embedding"}]', embedding_provider => 'elsewhere', embedding_dimensions => 3);
set datestyle = 'German';
select * from embedd.import_vectors('days', $$ select day, t, '[1,2,3]'::vector from days $$);
reset datestyle;
select * from embedd.verify('days');

-- A view has no index on its key, and may have a key twice.
create view doubled as select id, t from types where id < 4 union all select 3, 'type 3';
select from embedd.create_vector_table('doubled', 'doubled', '[{"name": "t", "role": "embedding"}]', 'id', sync_mode => 'batch', batch_interval => '1 day', embedding_provider => 'elsewhere', embedding_dimensions => 3);
select * from embedd.import_vectors('doubled', $$ select id, t, '[1,2,3]'::vector from types $$);
select * from embedd.verify('doubled');

-- A row that cannot be read affects no other.
create type pair as (a integer, b integer);
create function pair_text(pair) returns text language plpgsql stable as $$ begin if ($1).a = 2 then raise exception '% is refused', ($1).a; end if; return ($1).b::text; end $$;
create cast (pair as text) with function pair_text(pair);
create table pairs (id integer primary key, p pair);
insert into pairs select n, row(n, n)::pair from generate_series(1, 3) n;
select from embedd.create_vector_table('pairs', 'pairs', '[{"name": "p", "role": "embedding"}]', embedding_provider => 'elsewhere', embedding_dimensions => 3);
select * from embedd.import_vectors('pairs', $$ select n, '[1,2,3]'::vector from generate_series(1, 3) n $$);

-- Code of the source's owner that runs meanwhile cannot close the query.
create table closing (id integer primary key, p pair);
insert into closing select n, row(n + 2, n)::pair from generate_series(1, 2100) n;
create or replace function pair_text(pair) returns text language plpgsql as $$ begin
    if ($1).a = 3 then execute 'close all'; end if; return ($1).b::text; end $$;
select from embedd.create_vector_table('closing', 'closing', '[{"name": "p", "role": "embedding"}]', embedding_provider => 'elsewhere', embedding_dimensions => 3);
select * from golden.refusal($$ select embedd.import_vectors('closing', 'select id, ''[1,2,3]''::vector from importing.closing') $$) \gx

-- Marks of an earlier attempt go with the row.
insert into embedd.failed_rows (table_id, pk_value, reason) select id, '5', 'once' from embedd.vector_tables where name = 'types';
insert into embedd.truncated_rows (table_id, pk_value) select id, '5' from embedd.vector_tables where name = 'types';
delete from :types_vectors where pk_value = '5';
select imported from embedd.import_vectors('types', $$ select 5, '[1,1,1]'::vector $$);
select count(*) from embedd.failed_rows;
select count(*) from embedd.truncated_rows;

-- The indexes of a large source are dropped before the first load; the backfill builds them.
create table large (id integer primary key, t text);
insert into large select n, 'large ' || n from generate_series(1, 6000) n;
select platform_vector_ref as large_vectors from embedd.create_vector_table('large', 'large', '[{"name": "t", "role": "embedding"}]', embedding_provider => 'elsewhere', embedding_dimensions => 3) \gset
select * from embedd.import_vectors('large', $$ select id, t, array[id, 1, 1]::real[] from large where id <= 5990 $$);
select count(*) from pg_index where indrelid = :'large_vectors'::regclass;
select array_length(held_indexes, 1) from embedd.vector_tables where name = 'large';
select embedding, embedded_text from :large_vectors where pk_value = '5990';
select count(*), min(problem) from embedd.verify('large');

-- A prefix of the model is said.
select from embedd.create_vector_table('prefixed', 'days', '[{"name": "t", "role": "embedding"}]', embedding_provider => 'elsewhere', embedding_model => 'nomic-embed-text', embedding_dimensions => 3);
\set VERBOSITY default
select * from embedd.import_vectors('prefixed', $$ select day, t, '[1,2,3]'::vector from days $$);
\set VERBOSITY terse

-- What is refused.
create function writes() returns vector language plpgsql as $$ begin insert into importing.old values (0); return '[1,2,3]'; end $$;
create function hides() returns vector language plpgsql as $$ begin perform set_config('transaction_read_only', 'off', true); insert into importing.old values (0); return '[1,2,3]'; end $$;
create sequence numbers;
select q as query, r.* from unnest(array[
    'select id, v from old; select id, v from old', '', '-- nothing', 'drop table old', 'insert into old values (0) returning id, v',
    'with w as (delete from old returning *) select id, v from w', 'select id, v into stolen from old', 'commit', 'explain select 1', 'copy old to stdout',
    'select id, v from old where id = $1', 'select id, v from nowhere', 'select id v from old where', 'select id, v from old for update',
    'select 1, importing.writes()', 'select 1, importing.hides()', $$ select nextval('importing.numbers'), '[1,2,3]'::vector $$, 'select 1, 1/0, null::vector',
    'select id from old', 'select id, content, v, v from old', 'select', 'select id, content from old', 'select id, id, v from old', $$ select 1, '[1,2,3]' $$]) with ordinality u(q, n),
    golden.refusal(format('select * from embedd.import_vectors(%L, %L)', 'notes', q)) r order by n \gx
select count(*) from old where id = 0;
select * from golden.refusal($$ select embedd.import_vectors('nothing', 'select id, v from old') $$) \gx
select * from embedd.import_vectors(null, 'select 1') a, embedd.import_vectors('notes', null) b;
begin isolation level repeatable read;
select * from golden.refusal($$ select embedd.import_vectors('notes', 'select id, v from old') $$) \gx
commit;
begin read only;
select * from embedd.import_vectors('notes', 'select id, v from old');
rollback;
alter table types rename column t to text;
alter table notes drop column kind;
select * from golden.refusal($$ select embedd.import_vectors('notes', 'select id, v from old') $$) \gx
select imported, unchanged from embedd.import_vectors('types', $$ select id, text, '[1,1,1]'::vector from types where id > 5 $$);

-- Rights: those of the owner are needed for the vector table, those of the caller for the query.
create role golden_stranger;
create role golden_member in role golden_stranger;
create schema strangers authorization golden_stranger;
grant usage on schema importing to golden_stranger;
grant usage on foreign server elsewhere to golden_stranger;
set role golden_stranger;
select * from golden.refusal($$ select embedd.import_vectors('types', 'select 1, ''[1,1,1]''::vector') $$) \gx
create table strangers.own (id integer primary key, t text);
insert into strangers.own values (1, 'own'), (2, 'own too');
select from embedd.create_vector_table('own', 'strangers.own', '[{"name": "t", "role": "embedding"}]', embedding_provider => 'elsewhere', embedding_dimensions => 3);
select * from golden.refusal($$ select embedd.import_vectors('own', 'select id, content, v from importing.old') $$) \gx
set role golden_member;
select * from embedd.import_vectors('own', $$ select 1, 'own', '[1,1,1]'::vector $$);
-- Nothing in the search_path of a caller runs with other rights; only the query uses it.
reset role;
grant create on schema strangers to golden_member;
set role golden_member;
create function strangers.trap(text, text) returns boolean language plpgsql as $$ begin raise exception 'run as %', current_user; end $$;
create operator strangers.= (function = strangers.trap, leftarg = text, rightarg = text);
create table strangers.given as select 2 as id, 'own too'::text as t, '[1,1,1]'::vector as v;
set search_path = strangers, pg_catalog, public;
select * from embedd.import_vectors('own', $$ select id, t, v from given $$);
select * from golden.refusal($$ select embedd.import_vectors('own', 'select id, t, v from given where t = t') $$) \gx
-- Nor can they have another type taken for a vector.
create function strangers.yes(oid, oid) returns boolean language sql immutable as 'select true';
create function strangers.yes(name, name) returns boolean language sql immutable as 'select true';
create operator strangers.= (function = strangers.yes, leftarg = oid, rightarg = oid);
create operator strangers.= (function = strangers.yes, leftarg = name, rightarg = name);
select code, message from golden.refusal($$ select embedd.import_vectors('own', 'select 1, ''abc''::bytea') $$);
reset role;
set search_path = importing, public;
select * from embedd.verify('own');

select embedd.drop_vector_table(name) from embedd.vector_tables;
select name, embedd.drop_provider('elsewhere') from (values ('elsewhere')) v(name);
\set QUIET on
set client_min_messages = warning;
drop schema importing, strangers cascade;
drop role golden_member, golden_stranger;
reset client_min_messages;
select * from golden.traces();
