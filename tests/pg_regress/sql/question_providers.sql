-- Providers of questions: what is refused while vector tables name them, and what follows when they are renamed or dropped.
\set VERBOSITY terse
create schema asked;
set search_path = asked, public;
alter sequence embedd.vector_tables_id_seq restart with 1426129101;
create role golden_asker;
create table notes (id integer primary key, body text);
insert into notes values (1, 'a red tent'), (2, 'taxes and invoices');
select name from unnest(array['asked words', 'asked near', 'asked "far"']) with ordinality u(n, at), embedd.create_provider(n, 'test') order by at;
select name from embedd.create_vector_table('notes', 'notes', '[{"name": "body", "role": "embedding"}]', embedding_provider => 'asked words', embedding_dimensions => 32,
    query_provider => 'asked near', query_model => 'test', fallback => 'asked "far"', start_backfill => true);
call golden.wait_synced('notes');
create view settings as select name, question_settings from embedd.vector_tables where name like 'notes%' order by name;
select id from embedd.query('notes', 'red tent', 1);

-- No drop while they are named, by any way; other roles are refused as ever.
\x on
select c as statement, r.* from unnest(array[
    $$ select embedd.drop_provider('asked near') $$, $$ select embedd.drop_provider('asked "far"') $$,
    $$ drop server "asked near" $$, $$ drop server if exists "no such server", "asked ""far""" restrict $$]) with ordinality u(c, n), golden.refusal(c) r order by n;
grant execute on function golden.refusal(text) to public;
grant usage on schema golden, asked to golden_asker;
set role golden_asker;
select c as statement, r.* from unnest(array[
    $$ drop server "asked near" cascade $$, $$ alter server "asked near" rename to mine $$]) with ordinality u(c, n), golden.refusal(c) r order by n;
reset role;
\x off
select * from settings;

-- A rename is followed, and undone with its transaction.
begin;
alter server "asked near" rename to "asked 'nearer'";
select * from settings;
rollback;
select * from settings;
alter server "asked near" rename to "asked 'nearer'";
alter server "asked ""far""" rename to "asked farther";
select * from settings;
select id from embedd.query('notes', 'red tent by another name', 1);

-- A drop with CASCADE leaves the questions to the provider of the documents, with the model that was asked there.
begin;
drop server "asked farther" cascade;
select * from settings;
rollback;
drop server "asked 'nearer'" cascade;
select * from settings;
select id from embedd.query('notes', 'invoices once more', 1);
select changed from embedd.update_vector_table('notes', fallback => '');
select embedd.drop_provider('asked farther');
select * from settings;

drop view settings;
select embedd.drop_vector_table('notes');
select embedd.drop_provider('asked words');
drop schema asked cascade;
revoke usage on schema golden from golden_asker;
drop role golden_asker;
select * from golden.traces();
