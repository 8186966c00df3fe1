-- Backfills at the price of a provider's batch API: what is refused, and who sees the batches.
-- No provider is called here: addresses are closed ports of this machine.
alter sequence embedd.vector_tables_id_seq restart with 1593172224;
create role golden_saver;
create role golden_other;
create schema saving authorization golden_saver;
grant usage on schema saving to public;
set search_path = saving, public;
select name from embedd.create_provider('b', 'openai', 'sk-golden-secret', base_url => 'http://127.0.0.1:1/v1');
grant usage on foreign server b to golden_saver;
set role golden_saver;
create table notes (id integer primary key, body text);
insert into notes values (1, 'one'), (2, 'two');
\set VERBOSITY terse
\set columns '[{"name": "body", "role": "embedding"}]'
select name from embedd.create_vector_table('saved', 'notes', :'columns', embedding_provider => 'b');
select name from embedd.create_vector_table('local-notes', 'notes', :'columns');
create view seen as select * from notes;
select name from embedd.create_vector_table('seen', 'seen', :'columns', primary_key_column => 'id', sync_mode => 'batch', embedding_provider => 'b');

-- What is refused, before anything is asked for.
reset role;
\x on
select c as statement, r.* from unnest(array[
    $$ select embedd.backfill('saved', price => 'cheap') $$, $$ select embedd.backfill('saved', price => null) $$,
    $$ select embedd.backfill(null, price => 'batch') $$, $$ select embedd.backfill('saved', price => 'batch', auto_swap => null) $$,
    $$ select embedd.backfill('missing', price => 'batch') $$, $$ select embedd.backfill('local-notes', price => 'batch') $$,
    $$ select embedd.backfill('seen', price => 'batch') $$]) with ordinality u(c, n), golden.refusal(c) r order by n;
\x off
set role golden_other;
select embedd.backfill('saved', price => 'batch');
reset role;
select count(*) from embedd.tasks t join embedd.vector_tables v on v.id = t.target_id where v.name in ('saved', 'local-notes', 'seen');

-- A literal without a name is a price; the price is shown with the task. Paused, so that no worker asks the provider.
set role golden_saver;
select embedd.pause_sync('saved');
select task_type, status from embedd.backfill('saved', 'batch');
select price, status in ('pending', 'running') as is_open from embedd.tasks t join embedd.vector_tables v on v.id = t.target_id where v.name = 'saved';
select embedd.backfill('saved', price => 'standard');
select task_type from embedd.cancel_backfill('saved');
select task_type, status from embedd.backfill('local-notes', price => 'standard');
call golden.wait_synced('local-notes');
reset role;

-- Batches are seen by the roles that see the vector table; texts and vectors on their way by none. In one transaction up to
-- the drop, because a worker ends a batch that it sees and that no backfill waits for.
begin;
insert into embedd.provider_batches (token, target_id, provider, provider_batch, texts, system_id)
    select '00000000-0000-0000-0000-000000000001', v.id, 'b', 'batch_1', 2, 7 from embedd.vector_tables v where v.name = 'saved';
set role golden_saver;
select provider, provider_batch, texts, texts_done from embedd.provider_batches;
savepoint refused;
select count(*) from embedd.provider_batch_texts;
rollback to refused;
delete from embedd.provider_batches;
rollback to refused;
set role golden_other;
select count(*) from embedd.provider_batches;
savepoint refused;
select count(*) from embedd.provider_batch_texts;
rollback to refused;
reset role;

-- Another provider would not know it, and a dropped vector table leaves it there.
\set VERBOSITY default
select name from embedd.create_provider('b2', 'openai', 'sk-golden-secret', base_url => 'http://127.0.0.1:1/v1');
savepoint refused;
select name from embedd.update_vector_table('saved', embedding_provider => 'b2');
rollback to refused;
select embedd.drop_vector_table('saved');
commit;
select count(*) from embedd.provider_batches;
select embedd.drop_vector_table('seen');
select embedd.drop_vector_table('local-notes');
drop schema saving cascade;
select embedd.drop_provider('b');
select embedd.drop_provider('b2');
drop role golden_saver;
drop role golden_other;
