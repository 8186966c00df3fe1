-- The problems of an installation, and the statements that fix them; nothing is wrong with a new vector table.
\set VERBOSITY terse
create schema clinic;
set search_path = clinic, public;
alter sequence embedd.vector_tables_id_seq restart with 268435457;
alter sequence embedd.tasks_task_id_seq restart with 9000;
create role clinic_owner;
create role clinic_reader;
create role clinic_monitor;
grant pg_monitor to clinic_monitor;
grant usage, create on schema clinic to clinic_owner;
grant usage on schema clinic to clinic_reader, clinic_monitor;
set role clinic_owner;
create table notes (id integer primary key, body text);
insert into notes select n, 'note ' || n from generate_series(1, 20) n;
select platform_vector_ref as vectors from embedd.create_vector_table('notes', 'notes', '[{"name": "body", "role": "embedding"}]', start_backfill => true) \gset
reset role;
call golden.wait_synced('notes');

-- Each check is listed once. The state of pgvector depends on the server.
select "check", state, object, meaning, remedy from embedd.doctor() where "check" not in ('pgvector', 'extension');
select "check", state = 'ok' or "check" = 'pgvector' as ok, object from embedd.doctor() where "check" in ('pgvector', 'extension') order by 1;
select count(*) from embedd.doctor(null) where state <> 'ok' and "check" <> 'pgvector';

-- Problems come first, then warnings, each in the order of the checks.
create view faults with (security_invoker) as select "check", state, object, meaning, remedy from embedd.doctor() where state <> 'ok' and "check" <> 'pgvector';
create view short with (security_invoker) as select "check", state, object from embedd.doctor() where state <> 'ok' and "check" <> 'pgvector';
grant select on faults, short to public;
\x on
select embedd.pause_sync('notes');
insert into embedd.failed_rows (table_id, pk_value, reason) values (268435457, 'secret', 'planted');
insert into embedd.truncated_rows (table_id, pk_value) values (268435457, 'secret');
select * from faults;

-- Ordinary roles see what they own or may read, but not the content of rows.
\x off
set role clinic_reader;
select * from faults;
reset role;
grant select on :vectors to clinic_reader;
set role clinic_reader;
select "check", object, meaning from faults;
set role clinic_monitor;
select "check", object, meaning from faults;
set role clinic_owner;
select embedd.resume_sync('notes');
reset role;
truncate embedd.failed_rows, embedd.truncated_rows;
call golden.wait_synced('notes');
select * from short;

-- What hides rows and changes, and unlogged tables.
set role clinic_owner;
alter table notes disable trigger embedd_268435457_row;
create policy few on notes using (id < 10);
alter table notes enable row level security, force row level security;
reset role;
alter table notes set unlogged;
\x on
select * from faults;
\x off
select remedy from faults order by remedy \gexec
call golden.wait_synced('notes');
select * from short;

-- A dropped source, with a name that needs quotes; orphans.
create table "It's ""odd""" (id integer primary key, body text);
select sync_status from embedd.create_vector_table('it''s odd', '"It''s ""odd"""', '[{"name": "body", "role": "embedding"}]');
drop table "It's ""odd""";
select sync_status from embedd.create_vector_table('left', 'notes', '[{"name": "body", "role": "embedding"}]');
select embedd.drop_vector_table('left', keep_table => true);
create trigger embedd_7_row after insert on notes for each row execute function embedd.note_change('7');
select setval('embedd.vector_tables_id_seq', 1);
\x on
select * from faults;
\x off
select remedy from faults where remedy is not null order by remedy \gexec
select * from short;

-- A requested call, to the local model.
select "check", state, object, meaning ~ '^model all-MiniLM-L6-v2 answered in \d+ ms with 384 dimensions$' as meaning, remedy
  from embedd.doctor(call_providers => true) where "check" = 'provider_call';

-- Nothing is found through the search_path.
create function clinic.to_jsonb(anyelement) returns jsonb language plpgsql as $$ begin raise 'trapped'; end $$;
create function clinic.pg_stat_get_numscans(oid) returns bigint language plpgsql as $$ begin raise 'trapped'; end $$;
set search_path = clinic, pg_catalog, public;
select count(*) from embedd.doctor() where state <> 'ok' and "check" <> 'pgvector';
reset search_path;

select embedd.drop_vector_table('notes');
drop schema clinic cascade;
drop role clinic_owner, clinic_reader, clinic_monitor;
select * from golden.traces();
