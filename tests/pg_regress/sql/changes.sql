-- A live vector table is changed: update_vector_table, rename_vector_table, backfill, compare, swap, discard.
\set VERBOSITY terse
create schema changing;
set search_path = changing, public;
alter sequence embedd.vector_tables_id_seq restart with 1879048193;
create table goods (id bigint primary key, name text, more text, price integer);
insert into goods select n, 'good ' || n, case when n % 2 = 0 then 'more ' || n end, n from generate_series(1, 20) n;
select name from embedd.create_provider('changer', 'test');
select platform_vector_ref as vectors from embedd.create_vector_table('goods', 'goods', '[{"name": "name", "role": "embedding"}]',
    embedding_provider => 'changer', embedding_dimensions => 32) \gset

-- Nothing is asked for, nothing changes.
select * from embedd.update_vector_table('goods');
select * from golden.refusal($$ select embedd.discard('goods') $$) \gx
select * from golden.refusal($$ select embedd.swap('goods') $$) \gx
select * from golden.refusal($$ select embedd.compare('goods', array['x']) $$) \gx
select status from embedd.backfill('goods');
call golden.wait_synced('goods');

-- Refusals.
select * from golden.refusal($$ select embedd.update_vector_table('nothing') $$) \gx
select * from golden.refusal($$ select embedd.update_vector_table(null) $$) \gx
select * from golden.refusal($$ select embedd.update_vector_table('goods', columns => '[{"name": "price", "role": "metadata"}]') $$) \gx
select * from golden.refusal($$ select embedd.update_vector_table('goods', columns => '[{"name": "absent", "role": "embedding"}]') $$) \gx
select * from golden.refusal($$ select embedd.update_vector_table('goods', embedding_provider => 'absent') $$) \gx
select * from golden.refusal($$ select embedd.update_vector_table('goods', embedding_dimensions => 0) $$) \gx
select * from golden.refusal($$ select embedd.update_vector_table('goods', batch_interval => '1 h') $$) \gx
select * from golden.refusal($$ select embedd.update_vector_table('goods', on_source_drop => 'burn') $$) \gx
select * from golden.refusal($$ select embedd.update_vector_table('goods', vector_type => 'bit') $$) \gx
select * from golden.refusal($$ select embedd.update_vector_table('goods', index => '{"colour": 1}') $$) \gx
select * from golden.refusal($$ select embedd.update_vector_table('goods', on_shadow => 'absent; drop table goods') $$) \gx
select * from golden.refusal($$ select embedd.update_vector_table('goods', on_shadow => 'changing.absent') $$) \gx
select * from golden.refusal($$ select embedd.update_vector_table('goods', table_schema => 'absent') $$) \gx
select * from golden.refusal($$ select embedd.update_vector_table('goods', table_name => '') $$) \gx
select * from golden.refusal($$ select embedd.rename_vector_table('goods', '') $$) \gx
select * from golden.refusal($$ select embedd.rename_vector_table('absent', 'x') $$) \gx
select * from golden.refusal($$ select embedd.backfill('absent', auto_swap => false) $$) \gx

-- What is applied at once.
select changed, needs_backfill from embedd.update_vector_table('goods', columns => '[{"name": "name", "role": "embedding"}, {"name": "price", "role": "metadata"}]');
call golden.wait_synced('goods');
select id, metadata from embedd.query('goods', 'good 3', 1, filters => '{"price": {"lte": 3}}');
select changed, needs_backfill, platform_vector_ref from embedd.update_vector_table('goods', table_name => 'Vectors "of" goods');
select changed, needs_backfill from embedd.update_vector_table('goods', on_source_drop => 'drop');
select embedd.rename_vector_table('goods', 'goods''s');
select name, vector_table, on_source_drop from embedd.vector_tables;
call golden.wait_synced('goods''s');
select obj_description('"Vectors ""of"" goods"'::regclass, 'pg_class');
select embedd.rename_vector_table('goods''s', 'goods');

-- What waits for a backfill. Arguments of other types are taken.
\set VERBOSITY default
select sync_status, changed, needs_backfill from embedd.update_vector_table('goods'::varchar, embedding_dimensions => 48::bigint,
    columns => '[{"name": "name", "role": "embedding", "name_prefix": "It is "}, {"name": "price", "role": "metadata"}]'::json);
\set VERBOSITY terse
select name, replaces is not null as is_shadow, sync_status, embedding_dimensions, vector_table from embedd.vector_tables order by id;
select sync_status, last_error from embedd.sync_status('goods');
select name, sync_status from embedd.stat_vector_tables where name = 'goods';
select * from golden.refusal($$ select embedd.swap('goods') $$) \gx
select * from golden.refusal($$ select embedd.compare('goods', array['x']) $$) \gx
select * from golden.refusal($$ select embedd.wait_until_synced('goods', '1 s') $$) \gx
-- Asked for again it is the same, and taken back it is gone.
select changed, needs_backfill from embedd.update_vector_table('goods', embedding_dimensions => 48);
select changed, needs_backfill from embedd.update_vector_table('goods', embedding_dimensions => 32,
    columns => '[{"name": "name", "role": "embedding"}, {"name": "price", "role": "metadata"}]');
select count(*) from embedd.vector_tables;
call golden.wait_synced('goods');

-- A shadow that is kept.
select changed from embedd.update_vector_table('goods', embedding_dimensions => 48);
select task_type, status from embedd.backfill('goods', auto_swap => false);
call golden.wait_for('the shadow', $$ select sync_status = 'synced' from embedd.vector_tables where replaces is not null $$);
call golden.wait_synced('goods', 'pending_rebackfill');
select * from golden.refusal($$ select embedd.update_vector_table('goods', embedding_dimensions => 64) $$) \gx
select query, overlap, mean_rank_change, live_ids, shadow_ids from embedd.compare('goods', array['good 3', null], 1);
select * from golden.refusal($$ select embedd.compare('goods', array['x'], 0) $$) \gx
select task_type, status from embedd.swap('goods');
call golden.wait_synced('goods');
select name, replaces, embedding_dimensions, vector_table from embedd.vector_tables;
select task_type, status, phase from embedd.tasks order by task_id;
select count(*) from embedd.verify('goods');
call golden.wait_for('the replaced table to be dropped', $$ select old_tables = '{}' from embedd.vector_tables $$);

-- Objects that would stay with the replaced table.
alter table "Vectors ""of"" goods" add column mine text;
create view over as select pk_value from "Vectors ""of"" goods";
create materialized view counted as select count(*) from "Vectors ""of"" goods";
create function first_key() returns text begin atomic select min(pk_value) from "Vectors ""of"" goods"; end;
create function of_row(r "Vectors ""of"" goods") returns text language sql as 'select null::text';
set client_min_messages = error;
create publication outgoing for table "Vectors ""of"" goods";
reset client_min_messages;
select * from golden.refusal($$ select embedd.update_vector_table('goods', embedding_dimensions => 64) $$) \gx
drop view over; drop materialized view counted; drop function first_key(); drop function of_row; drop publication outgoing;
alter table "Vectors ""of"" goods" drop column mine;
create index part on "Vectors ""of"" goods" using hnsw ((subvector(embedding, 1, 8)::vector(8)) vector_cosine_ops);
select * from golden.refusal($$ select embedd.update_vector_table('goods', embedding_dimensions => 64) $$) \gx
drop index part;

-- Foreign keys and triggers that the owners of their tables could not create again.
create role changing_linker;
create schema linked;
create table linked.keys (key text primary key);
insert into linked.keys select pk_value from "Vectors ""of"" goods";
create function linked.note() returns trigger language plpgsql as 'begin return null; end';
revoke execute on function linked.note() from public;
create table changing.notes (about text references "Vectors ""of"" goods");
alter table "Vectors ""of"" goods" add constraint "known ""key""" foreign key (pk_value) references linked.keys;
create trigger noted after insert on "Vectors ""of"" goods" for each row execute function linked.note();
alter table changing.notes owner to changing_linker;
alter table "Vectors ""of"" goods" owner to changing_linker;
alter table goods owner to changing_linker;
grant usage on foreign server changer to changing_linker;
grant usage, create on schema changing to changing_linker;
select * from golden.refusal($$ select embedd.update_vector_table('goods', embedding_dimensions => 64) $$) \gx
grant usage on schema linked to changing_linker;
grant execute on function linked.note() to changing_linker;
grant references (key) on linked.keys to changing_linker;
select changed, needs_backfill from embedd.update_vector_table('goods', embedding_dimensions => 64);
select status from embedd.backfill('goods', auto_swap => true);
call golden.wait_synced('goods');
call golden.wait_for('the replaced table to be dropped', $$ select old_tables = '{}' from embedd.vector_tables $$);
call golden.wait_for('both foreign keys to be checked',
    $$ select count(*) = 2 from pg_constraint where contype = 'f' and convalidated and conname in ('known "key"', 'notes_about_fkey') $$);
select tgname from pg_trigger where tgrelid = '"Vectors ""of"" goods"'::regclass and not tgisinternal;
drop table changing.notes;
drop schema linked cascade;
alter table goods owner to current_user;
alter table "Vectors ""of"" goods" owner to current_user;

-- A function that shapes the shadow runs with the rights of the owner.
create table shaped (old regclass, new regclass, by_role text);
create function shape(old regclass, new regclass) returns void language sql as
    $$ insert into changing.shaped values (old, new, current_user) $$;
select changed, needs_backfill from embedd.update_vector_table('goods', on_shadow => 'changing.shape');
select changed, needs_backfill from embedd.update_vector_table('goods', vector_type => 'halfvec');
select old, new, by_role = current_user as by_owner from shaped;
select embedd.discard('goods');
select changed from embedd.update_vector_table('goods', on_shadow => '');

-- Only the owner may change it.
create role changing_stranger;
grant usage on schema changing to changing_stranger;
grant select on "Vectors ""of"" goods" to changing_stranger;
set role changing_stranger;
select * from golden.refusal($$ select embedd.update_vector_table('goods', embedding_dimensions => 64) $$) \gx
select * from golden.refusal($$ select embedd.rename_vector_table('goods', 'mine') $$) \gx
select * from golden.refusal($$ select embedd.backfill('goods', auto_swap => true) $$) \gx
select * from golden.refusal($$ select embedd.swap('goods') $$) \gx
select * from golden.refusal($$ select embedd.discard('goods') $$) \gx
select * from golden.refusal($$ select embedd.compare('goods', array['x']) $$) \gx
reset role;

select embedd.drop_vector_table('goods');
drop schema changing cascade;
drop role changing_stranger;
drop owned by changing_linker;
drop role changing_linker;
select embedd.drop_provider('changer');
select * from golden.traces();
