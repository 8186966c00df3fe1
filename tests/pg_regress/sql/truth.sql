-- Hidden is not deleted: sources with rows that may be hidden are rejected, and later reported by the status.
create schema truth;
set search_path = truth, public;
create role truth_owner;
create role truth_monitor;
create role truth_other;
grant pg_monitor to truth_monitor;
grant usage, create on schema truth to truth_owner;
grant usage on schema truth to truth_other;
\x on

-- Policies that apply to the owner of the table.
set role truth_owner;
create table notes (id int primary key, tenant int, body text);
insert into notes select g, g % 3, 'note ' || g from generate_series(1, 9) g;
create policy of_tenant on notes using (tenant = nullif(current_setting('app.tenant', true), '')::int);
alter table notes enable row level security, force row level security;
select code, message, detail, hint from golden.refusal($$ select embedd.create_vector_table('notes', 'notes', '[{"name": "body", "role": "embedding"}]') $$);
alter table notes no force row level security;
select sync_status from embedd.create_vector_table('notes', 'notes', '[{"name": "body", "role": "embedding"}]', start_backfill => true);
reset role;
call golden.wait_synced('notes');
set role truth_owner;
alter table notes force row level security;
reset role;
call golden.wait_for('the error', $$ select sync_status = 'error' from embedd.vector_tables where name = 'notes' $$);
select sync_status, synced_rows, total_rows, last_error from embedd.sync_status('notes');
select code, message, hint from golden.refusal($$ select * from embedd.verify('notes') $$);
set role truth_owner;
alter table notes no force row level security;
reset role;
call golden.wait_synced('notes');
select sync_status, synced_rows, total_rows, last_error from embedd.sync_status('notes');

-- Rows in inheritance children.
create table log (id int primary key, msg text);
create table log_1 () inherits (log);
insert into log_1 values (1, 'of a child');
select code, message, detail, hint from golden.refusal($$ select embedd.create_vector_table('log', 'log', '[{"name": "msg", "role": "embedding"}]') $$);
select sync_status from embedd.create_vector_table('log', 'log', '[{"name": "msg", "role": "embedding"}]', sync_mode => 'batch', start_backfill => true);
call golden.wait_synced('log');
select synced_rows from embedd.sync_status('log');

-- Views that depend on the session.
create view of_setting as select * from log where msg <> coalesce(current_setting('app.hidden', true), '');
select code, message, hint from golden.refusal($$ select embedd.create_vector_table('v', 'of_setting', '[{"name": "msg", "role": "embedding"}]', 'id', sync_mode => 'batch') $$);
create view of_user as select * from log where current_user <> 'nobody';
select code, message, hint from golden.refusal($$ select embedd.create_vector_table('v', 'of_user', '[{"name": "msg", "role": "embedding"}]', 'id', sync_mode => 'batch') $$);

-- Trigger modes set by the owner.
create table items (id int primary key, body text);
insert into items values (1, 'one');
select id as items_id from embedd.create_vector_table('items', 'items', '[{"name": "body", "role": "embedding"}]', start_backfill => true) \gset
call golden.wait_synced('items');
select format('alter table items disable trigger embedd_%s_row', :items_id) as disable, format('alter table items enable always trigger embedd_%s_row', :items_id) as always \gset
:disable;
insert into items values (2, 'not noted');
call golden.wait_for('the error', $$ select sync_status = 'error' from embedd.sync_status('items') $$);
select replace(last_error, :items_id::text, '<id>') as last_error from embedd.sync_status('items');
:always;
call golden.wait_for('both rows', $$ select sync_status = 'synced' and synced_rows = 2 from embedd.sync_status('items') $$);
select tgenabled from pg_trigger where tgrelid = 'items'::regclass and tgname like '%row';

-- Everything at once, for monitoring roles: errors only for roles that may see rows.
set role truth_owner;
create policy nothing on notes using (1 / (id - id) = 1);
alter table notes force row level security;
reset role;
call golden.wait_for('the error', $$ select sync_status = 'error' from embedd.vector_tables where name = 'notes' $$);
set role truth_monitor;
select name, source_table, embedding_provider, sync_mode, sync_status, synced_rows, failed_rows, last_error, provider_state from embedd.stat_vector_tables where source_table like 'truth.%' order by name;
set role truth_owner;
select name, sync_status, last_error from embedd.stat_vector_tables order by name;
set role truth_other;
select count(*) from embedd.stat_vector_tables;
select code, message from golden.refusal($$ select * from embedd.sync_status('notes') $$);
reset role;
set role truth_owner;
drop policy nothing on notes;
drop policy of_tenant on notes;
alter table notes no force row level security, disable row level security;
reset role;
call golden.wait_synced('notes');
select embedd.drop_vector_table(name) from (values ('notes'), ('log'), ('items')) v(name);
set client_min_messages = warning;
drop schema truth cascade;
drop role truth_owner, truth_monitor, truth_other;
