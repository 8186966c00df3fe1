-- The life of a vector table: status, pause and resume, backfills, tasks, drop.
\set VERBOSITY terse
create schema living;
set search_path = living, public;
alter sequence embedd.vector_tables_id_seq restart with 1610612737;
alter sequence embedd.tasks_task_id_seq restart with 6000;
create table notes (id integer primary key, t text);
insert into notes select n, 'note ' || n from generate_series(1, 2500) n;

-- Created: pending, and nothing is synced.
select sync_status, platform_vector_ref as notes_vectors from embedd.create_vector_table('notes', 'notes', '[{"name": "t", "role": "embedding"}]') \gset
\echo :sync_status
\x on
select sync_status, synced_rows, total_rows, last_synced_at, rows_pending, staleness_secs, last_error, last_error_at, failed_rows, truncated_rows, rate, eta,
       oldest_pending_secs, is_estimated, worker_state in ('busy', 'idle') as worker, worker_since <= clock_timestamp() is not false as since, provider_state, provider_since
  from embedd.sync_status('notes') \gx
\x off
-- Changes before the backfill are part of it: they do not stay in the queue.
update notes set t = t || '!' where id <= 10;
call golden.wait_for('an empty queue', $$ select rows_pending = 0 from embedd.sync_status('notes') $$);
select sync_status, synced_rows, total_rows, rows_pending from embedd.sync_status('notes');
select count(*) from :notes_vectors;

-- The backfill: requested, running, completed; the worker begins when the transaction commits.
begin;
select task_id, task_type, target_id, status, created_at = now() as created_now from embedd.backfill('notes');
select sync_status, synced_rows, total_rows, rows_pending, rate, eta from embedd.sync_status('notes');
select task_id, task_type, target_id, status, priority, attempts, max_attempts, last_processed_pk, processed_rows, last_error, started_at, completed_at
  from embedd.tasks order by task_id;
-- A second one while one is open.
select * from golden.refusal($$ select embedd.backfill('notes') $$) \gx
commit;
call golden.wait_synced('notes');
select sync_status, synced_rows, total_rows, rows_pending, staleness_secs, last_synced_at > now() - interval '1 hour' as just_now, last_error, last_error_at,
       failed_rows, truncated_rows, rate, eta, oldest_pending_secs, is_estimated from embedd.sync_status('notes') \gx
select task_id, task_type, status, phase, attempts, processed_rows, last_error, started_at >= created_at as started, completed_at >= started_at as completed
  from embedd.tasks order by task_id;
-- The next one is a rebackfill. It finds changes without triggers, and embeds nothing twice.
set session_replication_role = replica;
delete from notes where id = 1;
update notes set t = 'changed in silence' where id = 2;
insert into notes values (2501, 'added in silence');
reset session_replication_role;
select sync_status, synced_rows, total_rows, rows_pending from embedd.sync_status('notes');
select pk_value, embedded_text from :notes_vectors where pk_value in ('1', '2', '2501') order by pk_value;
create table before as select pk_value, xmin::text as version from :notes_vectors;
select task_id, task_type, status from embedd.backfill('notes');
call golden.wait_synced('notes');
select pk_value, embedded_text from :notes_vectors where pk_value in ('1', '2', '2501') order by pk_value;
select count(*) as written_anew from before b join :notes_vectors v on v.pk_value = b.pk_value and v.xmin::text <> b.version;
select task_id, task_type, status, processed_rows from embedd.tasks order by task_id;

-- Pause and resume.
\x on
select * from golden.refusal($$ select embedd.resume_sync('notes') $$);
select embedd.pause_sync('notes');
select * from golden.refusal($$ select embedd.pause_sync('notes') $$);
\x off
delete from notes where id > 100;
update notes set t = 'changed while paused' where id = 50;
select sync_status, synced_rows, total_rows, rows_pending, staleness_secs >= 0 as staleness from embedd.sync_status('notes');
-- The oldest waiting change determines the staleness.
call golden.wait_for('the change to age', $$ select staleness_secs > 0.01 from embedd.sync_status('notes') $$);
-- A backfill may be requested; it begins after the resume, and does not end the pause.
select task_type, status from embedd.backfill('notes');
select sync_status from embedd.sync_status('notes');
select status from embedd.tasks order by task_id desc limit 1;
select code from golden.refusal($$ select embedd.backfill('notes') $$);
select count(*) as still_there from :notes_vectors;
select embedd.resume_sync('notes');
call golden.wait_synced('notes');
select sync_status, synced_rows, total_rows, rows_pending from embedd.sync_status('notes');
select embedded_text from :notes_vectors where pk_value = '50';
-- Before the first backfill too; after it the status is as before.
select platform_vector_ref is not null as made from embedd.create_vector_table('pending', 'notes', '[{"name": "t", "role": "embedding"}]');
select embedd.pause_sync('pending');
select sync_status from embedd.sync_status('pending');
select embedd.resume_sync('pending');
select sync_status from embedd.sync_status('pending');
-- After a rollback it is not paused.
begin;
select embedd.pause_sync('notes');
rollback;
insert into notes values (3000, 'goes on');
call golden.wait_synced('notes');
select embedded_text from :notes_vectors where pk_value = '3000';

-- A row that cannot be read fails with the reason, and is synced when it can be read.
create type pair as (a integer, b integer);
create function pair_text(pair) returns text language plpgsql immutable as
    $$ begin if ($1).a = 13 then raise exception 'thirteen is refused' using errcode = 'P0001'; end if; return ($1).b::text; end $$;
create cast (pair as text) with function pair_text(pair);
create table pairs (id integer primary key, p pair);
insert into pairs select n, row(n, n)::pair from generate_series(1, 40) n;
select platform_vector_ref as pairs_vectors from embedd.create_vector_table('pairs', 'pairs', '[{"name": "p", "role": "embedding"}]', start_backfill => true) \gset
call golden.wait_synced('pairs');
select sync_status, synced_rows, total_rows, rows_pending, failed_rows, last_error from embedd.sync_status('pairs');
select f.pk_value, f.reason, f.attempts, f.first_failed_at <= f.failed_at as first, f.failed_at <= now() as failed_at from embedd.failed_rows f join embedd.vector_tables v on v.id = f.table_id where v.name = 'pairs';
select count(*), count(embedding) from :pairs_vectors;
update pairs set p = row(14, 13) where id = 13;
call golden.wait_synced('pairs');
select sync_status, synced_rows, total_rows, failed_rows from embedd.sync_status('pairs');

-- A vector table whose source changed: the status reports it, and the others continue.
alter table pairs rename column p to q;
insert into pairs values (41, row(41, 41));
insert into notes values (3001, 'the others go on');
call golden.wait_synced('notes');
-- A renamed column is found, and the field keeps its name.
call golden.wait_synced('pairs');
call golden.wait_for('the name to be noted', $$ select columns -> 0 ->> 'source_column' = 'q' from embedd.vector_tables where name = 'pairs' $$);
select columns from embedd.vector_tables where name = 'pairs';
select embedded_text, metadata from :pairs_vectors where pk_value = '41';
-- A dropped column is named.
alter table pairs drop column q;
insert into pairs values (42);
call golden.wait_for('the error', $$ select sync_status = 'error' and last_error_at is not null from embedd.sync_status('pairs') $$);
select sync_status, last_error, last_error_at is not null as error_at, rows_pending from embedd.sync_status('pairs');
select * from golden.refusal($$ select embedd.verify('pairs') $$) \gx
alter table pairs add column q pair;
call golden.wait_synced('pairs');
select sync_status, last_error, last_error_at, synced_rows, total_rows from embedd.sync_status('pairs');

-- A dropped source.
drop table pairs;
select synced_rows, total_rows from embedd.sync_status('pairs');
call golden.wait_for('the error', $$ select last_error is not null from embedd.sync_status('pairs') $$);
select sync_status, last_error, rows_pending from embedd.sync_status('pairs');
select embedd.drop_vector_table('pairs');

-- Unknown names.
\x on
select f as call, r.* from unnest(array['sync_status', 'pause_sync', 'resume_sync', 'backfill', 'drop_vector_table']) with ordinality u(f, n),
    golden.refusal(format('select embedd.%I(%L)', f, 'no such ''table''')) r order by n;
\x off
-- In a read-only transaction the status can be read, but nothing can be changed.
begin read only;
select sync_status from embedd.sync_status('notes');
select f as call, r.code from unnest(array['pause_sync', 'resume_sync', 'backfill', 'drop_vector_table']) with ordinality u(f, n),
    golden.refusal(format('select embedd.%I(%L)', f, 'notes')) r order by n;
rollback;

-- The views.
select name, source_table, vector_table = :'notes_vectors'::regclass as vectors, sync_status, last_error, columns from embedd.vector_tables where name = 'notes';
select v.name, t.task_id, t.task_type, t.status from embedd.tasks t join embedd.vector_tables v on v.id = t.target_id order by t.task_id;

-- Dropping it: with the table, or keeping it; a running backfill does not block it.
select status from embedd.backfill('notes');
select embedd.drop_vector_table('notes', keep_table => true);
select count(*) from :notes_vectors;
select tgname from pg_trigger where tgrelid = 'notes'::regclass and tgname !~ '_1610612738_' order by 1;
insert into notes values (4000, 'nobody notes it');
select count(*) as tasks from embedd.tasks;
-- The name is free again, and the kept table is not in the way.
select regexp_replace(platform_vector_ref, '_[0-9a-f]{8}_', '_XXXXXXXX_') from embedd.create_vector_table('notes', 'notes', '[{"name": "t", "role": "embedding"}]');
begin;
select embedd.drop_vector_table('notes');
rollback;
select sync_status from embedd.sync_status('notes');
select embedd.drop_vector_table('notes', false);
select code from golden.refusal($$ select embedd.drop_vector_table('notes') $$);
select embedd.drop_vector_table('pending');
drop table :notes_vectors;
select * from golden.traces();

-- An object depends on the vectors: nothing is dropped.
select platform_vector_ref as notes_vectors from embedd.create_vector_table('notes', 'notes', '[{"name": "t", "role": "embedding"}]') \gset
create view on_vectors as select pk_value from :notes_vectors;
select code, regexp_replace(message, '_[0-9a-f]{8}_', '_XXXXXXXX_') as message, regexp_replace(detail, '_[0-9a-f]{8}_', '_XXXXXXXX_') as detail, hint from golden.refusal($$ select embedd.drop_vector_table('notes') $$) \gx
select vector_tables, tables, triggers from golden.traces();
drop view on_vectors;
select embedd.drop_vector_table('notes');
select * from golden.traces();
drop schema living cascade;
