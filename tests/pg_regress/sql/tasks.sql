-- Tasks: their progress, and backfills that are cancelled.
\set VERBOSITY terse
create schema tasking;
set search_path = tasking, public;
alter sequence embedd.vector_tables_id_seq restart with 1879048193;
alter sequence embedd.tasks_task_id_seq restart with 7000;
create role tasks_owner;
create role tasks_reader;
create role tasks_monitor in role pg_monitor;
grant create, usage on schema tasking to tasks_owner;
grant usage on schema tasking to tasks_reader, tasks_monitor;
set role tasks_owner;
create table notes (id integer primary key, t text);
insert into notes select n, 'note ' || n from generate_series(1, 30) n;
select sync_status, platform_vector_ref as notes_vectors from embedd.create_vector_table('notes', 'notes', '[{"name": "t", "role": "embedding"}]') \gset

-- Nothing to cancel.
\x on
select * from golden.refusal($$ select embedd.cancel_backfill('notes') $$);
select * from golden.refusal($$ select embedd.cancel_backfill('none') $$);
\x off
select count(*) as of_null from embedd.cancel_backfill(null);

-- A backfill of a paused table waits, and can be cancelled. The pause stays; after it the table is as it was.
select embedd.pause_sync('notes');
select task_id, task_type, status from embedd.backfill('notes');
select task_id, vector_table, source_table, task_type, status, phase, rows_total, rows_done, rate, eta, attempts, stalled_attempts, created_at = t.at as created, started_at, checkpoint_at, last_error
  from embedd.stat_progress_backfill cross join lateral (select created_at as at from embedd.tasks where task_id = 7000) t;
select task_id, task_type, status, created_at = (select created_at from embedd.tasks where task_id = 7000) as created from embedd.cancel_backfill('notes');
select count(*) as open from embedd.stat_progress_backfill;
select task_id, status, completed_at >= created_at as completed, last_error from embedd.tasks order by task_id;
select sync_status, synced_rows, rows_pending from embedd.sync_status('notes');
select code from golden.refusal($$ select embedd.cancel_backfill('notes') $$);
select embedd.resume_sync('notes');
select sync_status from embedd.sync_status('notes');
-- No query before a backfill, and no change waits.
select * from golden.refusal($$ select * from embedd.query('notes', 'note') $$) \gx
update notes set t = 'changed' where id = 1;
call golden.wait_for('an empty queue', $$ select rows_pending = 0 from embedd.sync_status('notes') $$);
-- TRUNCATE asks for no comparison of it.
truncate notes;
insert into notes select n, 'note ' || n from generate_series(1, 30) n;
call golden.wait_for('an empty queue', $$ select rows_pending = 0 from embedd.sync_status('notes') $$);
select sync_status from embedd.sync_status('notes');
select count(*) as tasks from embedd.tasks;

-- Cancelled in a transaction that is rolled back, it goes on.
begin;
select task_type from embedd.backfill('notes');
savepoint before;
select status from embedd.cancel_backfill('notes');
rollback to before;
commit;
call golden.wait_synced('notes');
select task_id, task_type, status, phase, rows_total, rows_done, processed_rows, rate > 0 as rate, eta, attempts, stalled_attempts, checkpoint_at >= started_at as checkpoint, last_error
  from embedd.tasks order by task_id;

-- A rebackfill: the table is synced as before, and changes go on to be synced.
begin;
select task_type from embedd.backfill('notes');
select sync_status from embedd.sync_status('notes');
select status from embedd.cancel_backfill('notes');
commit;
select sync_status from embedd.sync_status('notes');
insert into notes values (31, 'after it');
call golden.wait_synced('notes');
select embedded_text from :notes_vectors where pk_value = '31';
select task_id, task_type, status from embedd.tasks order by task_id;

-- A comparison is not cancelled. A backfill that has taken its place leaves it behind, when it is cancelled.
select embedd.pause_sync('notes');
select task_id, task_type from embedd.reconcile('notes');
select * from golden.refusal($$ select embedd.cancel_backfill('notes') $$) \gx
select task_id, task_type from embedd.backfill('notes');
select task_id, task_type, status from embedd.cancel_backfill('notes');
select task_type, status from embedd.stat_progress_backfill;
select embedd.resume_sync('notes');
call golden.wait_for('the comparison', $$ select not exists (select from embedd.tasks where status in ('pending', 'running')) $$);
call golden.wait_synced('notes');

-- Rights.
reset role;
set role tasks_reader;
select name, r.code, r.message from (values ('notes'), ('none')) u(name), golden.refusal(format('select embedd.cancel_backfill(%L)', name)) r;
reset role;
select embedd.pause_sync('notes');
select task_type from embedd.backfill('notes');
update embedd.tasks set last_error = 'for the owner only' where status = 'pending';
set role tasks_owner;
select vector_table, source_table, last_error from embedd.stat_progress_backfill;
grant select on :notes_vectors to tasks_reader;
set role tasks_monitor;
select vector_table, source_table, last_error from embedd.stat_progress_backfill;
set role tasks_reader;
select vector_table, source_table, last_error from embedd.stat_progress_backfill;
reset role;
revoke select on :notes_vectors from tasks_reader;
set role tasks_reader;
select count(*) as seen from embedd.stat_progress_backfill;
select code from golden.refusal($$ delete from embedd.stat_progress_backfill $$);
reset role;
-- A source that is gone, an odd rate, and rows that were not counted do not make it fail.
begin;
update embedd.tasks set rate = 1e-300, rows_total = 9223372036854775807, status = 'running', started_at = now(), checkpoint_at = now() where status = 'pending';
drop table notes;
select vector_table, source_table, rows_total, rate > 0 as rate, extract(epoch from eta) as eta from embedd.stat_progress_backfill;
update embedd.tasks set rate = 'infinity', checkpoint_at = null, rows_total = null where status = 'running';
select rows_total, rate, eta from embedd.stat_progress_backfill;
rollback;
select status from embedd.cancel_backfill('notes');

select count(embedd.drop_vector_table(name)) as dropped from embedd.vector_tables;
drop schema tasking cascade;
drop role tasks_owner, tasks_reader, tasks_monitor;
select * from golden.traces();
