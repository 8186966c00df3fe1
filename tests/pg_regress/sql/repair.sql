-- Differences are found and repaired: verify, reconcile, retry_failed, and sync mode batch.
\set VERBOSITY terse
create schema repairing;
set search_path = repairing, public;
alter sequence embedd.vector_tables_id_seq restart with 1744830465;
create table notes (a integer, b text, t text, primary key (a, b));
insert into notes select n, 'b' || n, 'note ' || n from generate_series(1, 30) n;

-- Before the backfill all rows are missing, and no comparison is possible.
select platform_vector_ref as notes_vectors from embedd.create_vector_table('notes', 'notes', '[{"name": "t", "role": "embedding"}]') \gset
select problem, count(*) from embedd.verify('notes') group by problem;
select * from golden.refusal($$ select embedd.reconcile('notes') $$) \gx
select status from embedd.backfill('notes');
call golden.wait_synced('notes');
select * from embedd.verify('notes');

-- Changes that fire no trigger.
set session_replication_role = replica;
insert into notes values (100, 'é"\', 'silent');
update notes set t = 'changed in silence' where a = 2;
update notes set b = 'another' where a = 3;
delete from notes where a = 4;
reset session_replication_role;
delete from :notes_vectors where pk_value = '[5, "b5"]';
update :notes_vectors set embedding = null where pk_value = '[6, "b6"]';
insert into :notes_vectors (pk_value, embedded_text) values ('[99, "x"]', 'a stranger'), ('no json', 'another');
select * from embedd.verify('notes') order by pk_value collate "C";
-- Settings of the session make no difference.
set datestyle = 'German'; set bytea_output = 'escape';
select count(*) from embedd.verify('notes');
reset datestyle; reset bytea_output;
select task_type, status from embedd.reconcile('notes');
call golden.wait_for('the comparison', $$ select not exists (select from embedd.tasks where status in ('pending', 'running')) $$);
call golden.wait_synced('notes');
select * from embedd.verify('notes');
select task_type, status, processed_rows, different_rows from embedd.tasks t join embedd.vector_tables v on v.id = t.target_id where v.name = 'notes' order by task_id;
select pk_value, embedded_text from :notes_vectors where pk_value collate "C" > '[3' order by pk_value collate "C" limit 3;
select failed_rows from embedd.sync_status('notes');

-- Failed rows.
create type pair as (a integer, b integer);
create table moods (bad integer);
insert into moods values (13), (14);
create function pair_text(pair) returns text language plpgsql stable as
    $$ begin if exists (select from repairing.moods where bad = ($1).a) then raise exception '% is refused', ($1).a; end if; return ($1).b::text; end $$;
create cast (pair as text) with function pair_text(pair);
create table pairs (id integer primary key, p pair);
insert into pairs select n, row(n, n)::pair from generate_series(1, 20) n;
select platform_vector_ref as pairs_vectors from embedd.create_vector_table('pairs', 'pairs', '[{"name": "p", "role": "embedding"}]', start_backfill => true) \gset
call golden.wait_synced('pairs');
select pk_value, reason, attempts from embedd.failed_rows order by pk_value;
-- They are not reported as differences, and the other differences are still found.
select * from embedd.verify('pairs');
select embedd.retry_failed('pairs', '13');
call golden.wait_for('another try', $$ select attempts = 2 from embedd.failed_rows where pk_value = '13' $$);
call golden.wait_synced('pairs');
select pk_value, attempts, failed_at > first_failed_at as later from embedd.failed_rows order by pk_value;
delete from moods where bad = 13;
select embedd.retry_failed('pairs');
call golden.wait_for('one to go well', $$ select not exists (select from embedd.failed_rows where pk_value = '13') $$);
call golden.wait_for('another try', $$ select attempts = 2 from embedd.failed_rows where pk_value = '14' $$);
select pk_value, attempts from embedd.failed_rows order by pk_value;
select embedded_text from :pairs_vectors where pk_value = '13';
select * from golden.refusal($$ select embedd.retry_failed('pairs', '13') $$) \gx
select embedd.retry_failed('notes');
select code, message from golden.refusal($$ select embedd.retry_failed(null) $$);
-- A deleted row has not failed.
truncate pairs;
call golden.wait_synced('pairs');
call golden.wait_for('no failures', $$ select failed_rows = 0 from embedd.sync_status('pairs') $$);
select count(*) from :pairs_vectors;

-- Sync mode batch: a view, whose keys need not be unique.
create table base (id integer, t text);
insert into base select n, 'base ' || n from generate_series(1, 12) n;
insert into base values (null, 'no key');
create view batched as select id, t, length(t) as n from base;
select sync_status, platform_vector_ref as batch_vectors from embedd.create_vector_table('batched', 'batched', '[{"name": "t", "role": "embedding"}, {"name": "n", "role": "metadata"}]',
    'id', sync_mode => 'batch', batch_interval => '1 second') \gset
select sync_mode, batch_interval from embedd.vector_tables where name = 'batched';
select tgname from pg_trigger where tgname ~ '1744830467';
select task_type, status from embedd.backfill('batched');
call golden.wait_for('the first run', $$ select sync_status = 'synced' from embedd.sync_status('batched') $$);
select sync_status, synced_rows, total_rows, rows_pending, staleness_secs >= 0 as stale, last_error from embedd.sync_status('batched');
update base set t = 'changed' where id = 1;
delete from base where id = 2;
insert into base values (13, 'new');
call golden.wait_for('another run', format($$ select exists (select from %s where pk_value = '13') $$, :'batch_vectors'));
select pk_value, embedded_text, metadata from :batch_vectors where pk_value in ('1', '2', '13') order by pk_value;
select * from embedd.verify('batched');
insert into base values (3, 'twice');
call golden.wait_for('the failure', $$ select failed_rows = 1 from embedd.sync_status('batched') $$);
select pk_value, reason from embedd.failed_rows;
select count(*) from :batch_vectors where pk_value = '3';
delete from base where t = 'twice';
call golden.wait_for('the row', format($$ select exists (select from %s where pk_value = '3') $$, :'batch_vectors'));
call golden.wait_for('no failures', $$ select failed_rows = 0 from embedd.sync_status('batched') $$);
select embedd.pause_sync('batched');
select embedd.resume_sync('batched');

-- Permissions.
create role other_role;
set role other_role;
select f as call, r.code from unnest(array['verify', 'reconcile', 'retry_failed']) with ordinality u(f, n),
    golden.refusal(format('select embedd.%I(%L)', f, 'notes')) r order by n;
reset role;
select f as call, r.code from unnest(array['verify', 'reconcile', 'retry_failed']) with ordinality u(f, n),
    golden.refusal(format('select embedd.%I(%L)', f, 'no such ''table''')) r order by n;
drop role other_role;

select count(embedd.drop_vector_table(name)) as dropped from embedd.vector_tables;
drop schema repairing cascade;
