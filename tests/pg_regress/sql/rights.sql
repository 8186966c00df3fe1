-- Code of a vector table's owner runs in the worker with that owner's rights, and its settings do not outlive it.
create schema rights;
set search_path = rights, public;
create table notes (id integer primary key, t text);
select platform_vector_ref as vectors from embedd.create_vector_table('rights', 'notes', '[{"name": "t", "role": "embedding"}]', start_backfill => true) \gset
call golden.wait_synced('rights');
create table seen (n integer generated always as identity, search_path text, read_only text);
create function spoil() returns trigger language plpgsql as $$
begin
    insert into rights.seen (search_path, read_only)
    values (current_setting('search_path'), current_setting('default_transaction_read_only'));
    perform set_config('search_path', 'rights', false), set_config('default_transaction_read_only', 'on', false);
    return null;
end $$;
create trigger spoil after insert on :vectors for each row execute function rights.spoil();
insert into notes values (1, 'one');
call golden.wait_synced('rights');
insert into notes values (2, 'two');
call golden.wait_synced('rights');
select search_path, read_only from seen order by n;

-- A user's own statement trigger on a source has no row to read the key from.
create trigger by_statement after insert on notes for each statement execute function embedd.note_change('0', 'id');
insert into notes values (3, 'three');
drop trigger by_statement on notes;
select format('create trigger by_statement after insert on notes for each statement execute function embedd.note_change(%L, %L)', id, 'id') as by_statement from embedd.vector_tables where name = 'rights' \gset
:by_statement;
insert into notes values (4, 'four');
call golden.wait_synced('rights');
select pk_value from :vectors order by pk_value;

-- A row rejected by a constraint of the vector table fails; the others continue.
alter table :vectors add check (embedded_text <> 'refused');
insert into notes values (5, 'five'), (6, 'refused'), (7, 'seven');
call golden.wait_for('the refused row', $$ select exists (select from embedd.failed_rows where pk_value = '6') $$);
call golden.wait_synced('rights');
select pk_value from :vectors order by pk_value;
update notes set t = 'accepted' where id = 6;
call golden.wait_synced('rights');
select pk_value from :vectors order by pk_value;
select count(*) as failed from embedd.failed_rows;

-- A deferred index whose name was taken meanwhile gets another one; an index that the table
-- already has is not built twice. The state that the worker leaves before the load:
select i.indexrelid::regclass as index, c.relname as index_name
  from pg_index i join pg_class c on c.oid = i.indexrelid join pg_am a on a.oid = c.relam
 where i.indrelid = :'vectors'::regclass and a.amname = 'hnsw' \gset
begin;
drop index :index;
create table :"index_name" ();
update embedd.vector_tables set held_indexes = array[:'index_name', ' USING hnsw (embedding public.vector_cosine_ops)'] where name = 'rights';
commit;
select task_type from embedd.backfill('rights');
call golden.wait_for('the index', $$ select held_indexes is null from embedd.vector_tables where name = 'rights' $$);
create view indexes as select i.indisvalid, a.amname from pg_index i join pg_class c on c.oid = i.indexrelid join pg_am a on a.oid = c.relam
 where i.indrelid = (select vector_table from embedd.vector_tables where name = 'rights') and a.amname = 'hnsw';
select * from indexes;
update embedd.vector_tables set held_indexes = array[:'index_name', ' USING hnsw (embedding public.vector_cosine_ops)'] where name = 'rights';
call golden.wait_synced('rights');
select task_type from embedd.backfill('rights');
call golden.wait_for('nothing to build', $$ select held_indexes is null from embedd.vector_tables where name = 'rights' $$);
select * from indexes;
drop view indexes;

-- A dump stores only the oid of a vector table's table that was dropped directly; after the restore any relation may
-- have that oid: it is not touched, and its owner gets no rights on the vector table.
create role golden_stranger;
grant usage on schema rights to golden_stranger;
create table precious (id integer);
alter table precious owner to golden_stranger;
select platform_vector_ref as lost_vectors from embedd.create_vector_table('lost', 'notes', '[{"name": "t", "role": "embedding"}]') \gset
drop table :lost_vectors;
update embedd.vector_tables set vector_table = 'precious' where name = 'lost';
set role golden_stranger;
select code, message from golden.refusal($$ select embedd.query('lost', 'x') $$);
select code, message from golden.refusal($$ select embedd.sync_status('lost') $$);
select code, message from golden.refusal($$ select embedd.drop_vector_table('lost') $$);
reset role;
select * from golden.refusal($$ select embedd.query('lost', 'x') $$) \gx
select synced_rows, total_rows from embedd.sync_status('lost');
select embedd.drop_vector_table('lost');
select count(*) from precious;
-- The same holds for a relation that once was another vector table's.
select platform_vector_ref as kept_vectors from embedd.create_vector_table('kept', 'notes', '[{"name": "t", "role": "embedding"}]') \gset
select embedd.drop_vector_table('kept', keep_table => true);
select platform_vector_ref as lost_vectors from embedd.create_vector_table('lost', 'notes', '[{"name": "t", "role": "embedding"}]') \gset
drop table :lost_vectors;
update embedd.vector_tables set vector_table = :'kept_vectors' where name = 'lost';
select embedd.drop_vector_table('lost');
select count(*) from :kept_vectors;
-- A vector table can be renamed and dropped.
alter table :vectors rename to renamed_vectors;
select count(*) from embedd.query('rights', 'x');
select embedd.drop_vector_table('rights');
select to_regclass('renamed_vectors');
drop table precious;
revoke usage on schema rights from golden_stranger;
drop role golden_stranger;
set client_min_messages = warning;
drop schema rights cascade;
