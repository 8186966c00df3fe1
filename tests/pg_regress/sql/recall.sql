-- recall() and recall_target: what is measured, what moves it, and what is refused.
\set VERBOSITY terse
create schema recalling;
set search_path = recalling, public;
alter sequence embedd.vector_tables_id_seq restart with 1392574465;
create table notes (id integer primary key, body text, n integer);
insert into notes select n, 'note ' || n || ' of ' || n % 13, n from generate_series(1, 400) n;
select id is not null as created from embedd.create_provider('words', 'test');
select platform_vector_ref as vectors from embedd.create_vector_table('notes', 'notes', '[{"name": "body", "role": "embedding"}, {"name": "n", "role": "metadata"}]',
    embedding_provider => 'words', embedding_dimensions => 64, recall_target => 0.95) \gset
select question_settings from embedd.vector_tables where name = 'notes';
select * from golden.refusal($$ select embedd.recall('notes') $$) \gx
select status from embedd.backfill('notes');
call golden.wait_synced('notes');

-- A small table is answered exactly.
select recall, questions, query_ms > 0 as query_ms, exact_ms > 0 as exact_ms, plan, ef_search, advice from embedd.recall('notes');
select recall, questions, plan from embedd.recall('notes', sample => 400, k => 100, filters => '{"n": {"lte": 60}}');
select questions, recall, plan, advice from embedd.recall('notes', 10, 5, '{"n": 5000}');
begin read only;
select recall, questions from embedd.recall('notes', 5, 3);
commit;
-- A target of 1 is exact; null leaves it as it is.
select changed from embedd.update_vector_table('notes', recall_target => 1);
select question_settings from embedd.vector_tables where name = 'notes';
select changed from embedd.update_vector_table('notes', recall_target => null);

-- A reader measures what he may see.
create role golden_recall;
grant usage on schema recalling, embedd to golden_recall;
set role golden_recall;
select code from golden.refusal($$ select embedd.recall('notes') $$);
reset role;
grant select on :vectors to golden_recall;
alter table :vectors enable row level security;
create policy few on :vectors to golden_recall using (pk_value in ('1', '2', '3'));
set role golden_recall;
select recall, questions, plan from embedd.recall('notes');
reset role;
drop owned by golden_recall;
drop role golden_recall;

-- Errors.
\x on
select call, r.* from unnest(array[
    $$ embedd.recall('notes', 0) $$, $$ embedd.recall('notes', 10001) $$, $$ embedd.recall('notes', 10, 0) $$, $$ embedd.recall('notes', null) $$, $$ embedd.recall(null) $$,
    $$ embedd.recall('no such table') $$, $$ embedd.recall('notes', filters => '{"no such": 1}') $$,
    $$ embedd.update_vector_table('notes', recall_target => 0.49) $$, $$ embedd.update_vector_table('notes', recall_target => 'NaN') $$,
    $$ embedd.update_vector_table('notes', fallback => 'no such provider') $$, $$ embedd.update_vector_table('notes', query_provider => 'local') $$]) with ordinality u(call, n),
    golden.refusal('select ' || call) r order by n;
\x off
select embedd.drop_vector_table('notes');
select embedd.drop_provider('words');
select * from golden.traces();
drop schema recalling cascade;
