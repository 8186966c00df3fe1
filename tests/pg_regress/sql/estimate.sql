-- What a backfill would cost: embedd.estimate(), prices in the model catalog, and caps of tokens.
-- No provider is called here: addresses are closed ports of this machine.
\set VERBOSITY terse
create schema costing;
set search_path = costing, public;
alter sequence embedd.vector_tables_id_seq restart with 1493172224;
create role golden_estimator;
create table notes (id integer primary key, title text, body text, price integer);
insert into notes values (1, 'one', 'the cat', 1), (2, 'two', 'the dog', 2), (3, 'two', 'the dog', 3), (4, null, null, 4), (5, 'five', repeat('word ', 300), 5);
select name from embedd.create_provider('o', 'openai', 'sk-golden-secret', base_url => 'http://127.0.0.1:1/v1');
select name from embedd.create_provider('c', 'openai_compatible', base_url => 'http://127.0.0.1:1/v1');
\set columns '[{"name": "title", "role": "embedding"}, {"name": "body", "role": "embedding"}, {"name": "price", "role": "metadata"}]'
select platform_vector_ref as notes_vectors from embedd.create_vector_table('notes', 'notes', :'columns') \gset

-- The local model, before its backfill and after it: nothing is left to be embedded then.
\x on
select * from embedd.estimate('notes');
select status from embedd.backfill('notes');
call golden.wait_synced('notes');
select rows, texts, distinct_texts, texts_to_embed, long_texts, tokens, tokens_are_exact, cost, hours_at_last_pace from embedd.estimate('notes');

-- A change of the model is estimated for all texts, with the catalog's price and the pace of the last backfill.
\x off
select texts_to_embed, tokens, tokens_are_exact, requests, cost, batch_cost, currency, hours_at_limits, provider, model, dimensions from embedd.estimate('notes', '{"embedding_provider": "o"}');
select texts_to_embed, long_texts, cost, batch_cost, model, dimensions from embedd.estimate('notes', '{"embedding_provider": "o", "embedding_model": "text-embedding-3-large", "embedding_dimensions": 256}');
select hours_at_last_pace > 0 as has_pace, is_estimated from embedd.estimate('notes', '{"embedding_provider": "o"}');
-- The price of a model that the catalog does not know is unknown; a price of one's own counts.
select tokens_are_exact, requests, cost, currency, model, dimensions from embedd.estimate('notes', '{"embedding_provider": "c", "embedding_model": "mine", "embedding_dimensions": 8}');
insert into embedd.models (provider, model, dimensions, price_per_million_tokens) values ('openai_compatible', 'mine', 8, 1000);
select cost = tokens / 1000.0 as priced, batch_cost, currency, model, dimensions from embedd.estimate('notes', '{"embedding_provider": "c", "embedding_model": "mine"}');
delete from embedd.models where model = 'mine';
update embedd.models set price_per_million_tokens = 1 where model = 'text-embedding-3-small';
select cost = tokens / 1e6 as priced from embedd.estimate('notes', '{"embedding_provider": "o"}');
update embedd.models set price_per_million_tokens = 0.02 where model = 'text-embedding-3-small';
-- Limits of the provider decide how long it takes.
select name from embedd.update_provider('o', options => '{"requests_per_minute": 1, "texts_per_request": 2}');
select requests, hours_at_limits * 60 as minutes from embedd.estimate('notes', '{"embedding_provider": "o"}');
select name from embedd.update_provider('o', options => '{"tokens_per_minute": 10, "max_tokens_per_day": 10000000000, "max_tokens_per_month": "300000000000"}');
select options from embedd.providers where name = 'o';
select hours_at_limits * 60 = tokens / 10.0 as by_tokens from embedd.estimate('notes', '{"embedding_provider": "o"}');
select name from embedd.update_provider('o', options => '{"requests_per_minute": null, "tokens_per_minute": null, "max_tokens_per_day": 100, "max_tokens_per_month": null}');
select hours_at_limits as hours_of_whole_days from embedd.estimate('notes', '{"embedding_provider": "o"}');

-- Columns: texts that stay the same keep their vectors.
select texts, texts_to_embed from embedd.estimate('notes', '{"columns": [{"name": "title", "role": "embedding"}, {"name": "body", "role": "embedding"}]}');
select texts, distinct_texts, texts_to_embed from embedd.estimate('notes', '{"columns": [{"name": "title", "role": "embedding"}]}');
select texts, texts_to_embed from embedd.estimate('notes', '{"embedding_provider": null, "embedding_model": "all-MiniLM-L6-v2", "embedding_dimensions": 384}');
-- A gateway serves models under their own names, and the vectors of the same model stay.
select texts, texts_to_embed, provider, model, dimensions from embedd.estimate('notes', '{"embedding_provider": "c"}');
-- Rows that are stale or missing are to be embedded; those that cannot be read are left out.
select embedd.pause_sync('notes');
update notes set body = 'changed' where id = 1;
update notes set price = 7 where id = 2;
insert into notes values (6, 'six', 'new', 6);
delete from notes where id = 3;
select rows, texts, texts_to_embed from embedd.estimate('notes');
update :notes_vectors set embedding = null where pk_value = '2';
select texts_to_embed from embedd.estimate('notes');
select embedd.resume_sync('notes');
create type pair as (a integer, b integer);
create function pair_text(pair) returns text language plpgsql stable as $$ begin if ($1).a = 13 then raise exception 'unlucky'; end if; return ($1).b::text; end $$;
create cast (pair as text) with function pair_text(pair);
create table pairs (id integer primary key, p pair);
insert into pairs select n, row(n, n)::pair from generate_series(11, 15) n;
select name from embedd.create_vector_table('pairs', 'pairs', '[{"name": "p", "role": "embedding"}]');
select * from golden.refusal($$ select * from embedd.estimate('pairs') $$) \gx
select status from embedd.backfill('pairs');
call golden.wait_synced('pairs');
select rows, texts, texts_to_embed from embedd.estimate('pairs');
-- A view.
create view seen as select id, title from notes;
select name from embedd.create_vector_table('seen', 'seen', '[{"name": "title", "role": "embedding"}]', 'id', sync_mode => 'batch');
select rows, texts, distinct_texts, texts_to_embed from embedd.estimate('seen');
-- Of many texts a sample is counted.
create table many (id integer primary key, body text);
insert into many select n, 'the cat and the dog ' || n % 1000 from generate_series(1, 30000) n;
select name from embedd.create_vector_table('many', 'many', '[{"name": "body", "role": "embedding"}]', embedding_provider => 'o');
select rows, texts, distinct_texts, texts_to_embed, tokens between 6 * 30000 and 8 * 30000 as plausible_tokens, tokens_are_exact, requests between 14800 and 15200 as plausible_requests,
       is_estimated, cost between 0.0036 and 0.0048 as plausible_cost from embedd.estimate('many');
-- Nothing at all.
truncate many;
select * from embedd.estimate('many') \gx

-- Forms of the argument, and refusals.
select (select texts from embedd.estimate('notes', '{}')) as literal, (select texts from embedd.estimate('notes'::varchar)) as "varchar",
       (select texts from embedd.estimate('notes', '{}'::json)) as "json", (select texts from embedd.estimate('notes', '{}'::text)) as "text",
       (select texts from embedd.estimate(config => null, name => 'notes')) as named;
\x on
select c as call, r.* from unnest(array[
    $$ ('nothing') $$, $$ (null) $$, $$ ('notes', '[]') $$, $$ ('notes', '{"model": "m"}') $$, $$ ('notes', '{"embedding_model": 1}') $$,
    $$ ('notes', '{"embedding_dimensions": "8"}') $$, $$ ('notes', '{"embedding_dimensions": 1.5}') $$, $$ ('notes', '{"embedding_dimensions": 10000}') $$,
    $$ ('notes', '{"embedding_provider": "none"}') $$, $$ ('notes', '{"embedding_model": "none"}') $$, $$ ('notes', '{"embedding_provider": "o", "embedding_model": "none"}') $$,
    $$ ('notes', '{"columns": []}') $$, $$ ('notes', '{"columns": [{"name": "absent", "role": "embedding"}]}') $$, $$ ('notes', 'no json') $$]) with ordinality u(c, n),
    golden.refusal('select * from embedd.estimate' || c) r order by n;
-- Rights: only those of the owner, and the caller must be allowed to use the provider of a change.
set role golden_estimator;
select * from golden.refusal($$ select * from embedd.estimate('notes') $$);
reset role;
grant create on schema costing to golden_estimator;
grant usage on schema costing to golden_estimator;
set role golden_estimator;
create table own (id integer primary key, body text, secret text);
insert into own values (1, 'mine', 'mine too');
select name from embedd.create_vector_table('own', 'own', '[{"name": "body", "role": "embedding"}]');
select rows, texts from embedd.estimate('own');
select * from golden.refusal($$ select * from embedd.estimate('own', '{"embedding_provider": "o"}') $$);
reset role;
alter table own owner to current_user;
grant select (id, body), trigger on own to golden_estimator;
set role golden_estimator;
select * from golden.refusal($$ select * from embedd.estimate('own', '{"columns": [{"name": "secret", "role": "embedding"}]}') $$);
reset role;
-- It writes nothing, so that it also works in a read-only transaction.
begin read only;
select rows from embedd.estimate('notes');
rollback;
-- A price and a cap outside their ranges.
select c as statement, r.* from unnest(array[
    $$ update embedd.models set price_per_million_tokens = -1 where provider = 'test' $$, $$ update embedd.models set batch_price_per_million_tokens = -1 where provider = 'test' $$,
    $$ select embedd.update_provider('o', options => '{"max_tokens_per_day": 0}') $$, $$ select embedd.update_provider('o', options => '{"max_tokens_per_month": 1e16}') $$,
    $$ select embedd.update_provider('o', options => '{"max_tokens_per_day": "many"}') $$, $$ alter server o options (add max_tokens_per_month '-1') $$]) with ordinality u(c, n),
    golden.refusal(c) r order by n;
\x off
-- Prices of the catalog.
select provider, model, price_per_million_tokens, batch_price_per_million_tokens from embedd.models where price_per_million_tokens > 0 order by 1, 2;
select provider, count(*) filter (where price_per_million_tokens = 0) as free, count(*) filter (where price_per_million_tokens is null) as unknown from embedd.models group by 1 order by 1;

select count(embedd.drop_vector_table(name)) as dropped from embedd.vector_tables;
select embedd.drop_provider('o'), embedd.drop_provider('c');
drop schema costing cascade;
drop role golden_estimator;
