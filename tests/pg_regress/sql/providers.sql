-- Providers: creating, changing, using and dropping them, permissions, options, and that keys are never shown.
-- No provider is called here: addresses are closed ports of this machine, and no remote table is backfilled.
\set VERBOSITY terse
alter sequence embedd.vector_tables_id_seq restart with 1342177281;
create role golden_maker;
create role golden_payer;
create role golden_stranger;
create schema shelf;
grant all on schema shelf to public;
set search_path = shelf, public;
-- A provider as the current role sees it; without oid and time.
create function shown() returns table (name text, provider text, default_model text, base_url text, options jsonb, has_key boolean, owner text, dated boolean)
    language sql as $$
    select p.name, p.provider, p.default_model, p.base_url, p.options, p.has_key, p.owner::text, p.created_at <= now()
      from embedd.providers p order by p.id nulls first $$;

-- The superuser creates one of each kind.
select id, to_jsonb(p) - 'id' - 'created_at' as made, created_at = now() as created_now from embedd.create_provider('o', 'openai', 'sk-golden-secret') p \gset
select srvname, :'made' as made, :'created_now' as created_now from pg_foreign_server where oid = :id;
select name, provider, default_model, base_url from embedd.create_provider('g', 'gemini', api_key => 'env:GOLDEN_KEY', default_model => 'gemini-embedding-2');
select name, provider, default_model, base_url from embedd.create_provider('v', 'voyage', api_key => 'file:/nowhere/golden key');
select name, provider, default_model, base_url from embedd.create_provider('l', 'ollama');
select name, provider, default_model, base_url from embedd.create_provider('c', 'openai_compatible', base_url => 'http://127.0.0.1:1/v1', options => '{
    "key_header": "api-key", "encoding": "float", "requests_per_minute": 500, "tokens_per_minute": "1000000", "max_in_flight": 64,
    "timeout": "2min", "texts_per_request": 32, "headers": {"X-Golden": "golden-secret-header"}}');
-- No key is needed if headers are set.
select name from embedd.create_provider('h', 'openai', options => '{"headers": {"authorization": "Basic golden-secret"}}');
select * from shown();
select srvname, fdwname, srvowner::regrole, srvacl from pg_foreign_server s join pg_foreign_data_wrapper w on w.oid = srvfdw order by srvname;
select srvname, usename from pg_user_mappings order by srvname;
select fdwname, fdwhandler::regproc, fdwvalidator::regproc, fdwacl, fdwoptions from pg_foreign_data_wrapper;

-- Errors, in full.
\x on
select c as call, r.* from unnest(array[
    $$ ('o', 'openai', 'sk-golden-secret') $$,
    $$ ('local', 'ollama') $$,
    $$ ('', 'ollama') $$,
    $$ (E'a\nb', 'ollama') $$,
    $$ (repeat('é', 32), 'ollama') $$,
    $$ (null, 'ollama') $$,
    $$ ('x', null) $$,
    $$ ('x', 'local') $$,
    $$ ('x', 'OpenAI') $$,
    $$ ('x', 'sk-golden-secret', 'openai') $$,
    $$ ('x', 'openai') $$,
    $$ ('x', 'gemini', default_model => 'm') $$,
    $$ ('x', 'voyage', options => '{"headers": {}}') $$,
    $$ ('x', 'openai', '') $$,
    $$ ('x', 'openai', 'golden secret') $$,
    $$ ('x', 'openai', E'golden-secret\n') $$,
    $$ ('x', 'openai', 'file:golden-secret') $$,
    $$ ('x', 'openai', 'env:golden-secret') $$,
    $$ ('x', 'ollama', default_model => ' ') $$,
    $$ ('x', 'openai_compatible') $$,
    $$ ('x', 'ollama', base_url => 'localhost') $$,
    $$ ('x', 'ollama', base_url => 'ftp://localhost/') $$,
    $$ ('x', 'ollama', base_url => 'http://user:golden-secret@localhost/') $$,
    $$ ('x', 'ollama', base_url => 'http://localhost/?key=golden-secret') $$,
    $$ ('x', 'ollama', base_url => 'http://localhost/?Ocp-Apim-Subscription-Key=golden-secret') $$,
    $$ ('x', 'ollama', base_url => 'http://localhost/?a=b&X-API-Key=golden-secret') $$,
    $$ ('x', 'ollama', base_url => 'http://localhost/?Authorization=golden-secret') $$,
    $$ ('x', 'ollama', base_url => 'http://localhost/#golden-secret') $$,
    $$ ('x', 'ollama', base_url => E'http://localhost/\r\ngolden-secret') $$,
    $$ ('x', 'ollama', options => '[]') $$,
    $$ ('x', 'ollama', options => 'null') $$,
    $$ ('x', 'ollama', options => '"golden-secret"') $$,
    $$ ('x', 'ollama', options => '{"timeuot": 1}') $$,
    $$ ('x', 'ollama', options => '{"api_key": "golden-secret"}') $$,
    $$ ('x', 'ollama', options => '{"provider": "golden-secret"}') $$,
    $$ ('x', 'ollama', options => '{"created_at": "golden-secret"}') $$,
    $$ ('x', 'ollama', options => '{"timeout": 99}') $$,
    $$ ('x', 'ollama', options => '{"timeout": "1 hour"}') $$,
    $$ ('x', 'ollama', options => '{"timeout": true}') $$,
    $$ ('x', 'ollama', options => '{"max_in_flight": 0}') $$,
    $$ ('x', 'ollama', options => '{"max_in_flight": 65}') $$,
    $$ ('x', 'ollama', options => '{"max_in_flight": 1.5}') $$,
    $$ ('x', 'ollama', options => '{"requests_per_minute": -1}') $$,
    $$ ('x', 'ollama', options => '{"tokens_per_minute": "many"}') $$,
    $$ ('x', 'ollama', options => '{"texts_per_request": 1e99}') $$,
    $$ ('x', 'ollama', options => '{"encoding": "utf8"}') $$,
    $$ ('x', 'ollama', options => '{"key_header": "a b"}') $$,
    $$ ('x', 'ollama', options => '{"key_header": "Host"}') $$,
    $$ ('x', 'ollama', options => '{"headers": "golden-secret"}') $$,
    $$ ('x', 'ollama', options => '{"headers": {"a": ["golden-secret"]}}') $$,
    $$ ('x', 'ollama', options => '{"headers": {"golden-secret\r\n": "x"}}') $$,
    $$ ('x', 'ollama', options => '{"headers": {"a": "golden-secret\r\nHost: b"}}') $$,
    $$ ('x', 'ollama', options => '{"headers": {"Content-Length": "golden-secret"}}') $$,
    $$ ('x', 'ollama', options => '{"headers": {"a": "golden-secret", "A": "x"}}') $$]) with ordinality u(c, n),
    golden.refusal('select embedd.create_provider' || c) r order by n;
-- The same options in PostgreSQL's own statements.
select s as statement, r.* from unnest(array[
    $$ create server x foreign data wrapper embedd $$,
    $$ create server x foreign data wrapper embedd options (provider 'telepathy') $$,
    $$ create server x foreign data wrapper embedd options (provider 'openai_compatible') $$,
    $$ create server x foreign data wrapper embedd options (provider 'ollama', api_key 'golden-secret') $$,
    $$ create server x foreign data wrapper embedd options (provider 'ollama', created_at 'now') $$,
    $$ create server local foreign data wrapper embedd options (provider 'ollama') $$,
    $$ alter server o rename to local $$,
    $$ alter server o options (drop provider) $$,
    $$ alter server o options (add colour 'red') $$,
    $$ alter server o options (add base_url 'http://a:golden-secret@b/') $$,
    $$ create user mapping for current_user server o options (password 'golden-secret') $$,
    $$ create user mapping for current_user server o options (api_key 'golden secret') $$,
    $$ create user mapping for current_user server o options (headers 'golden-secret') $$,
    $$ alter user mapping for public server o options (set api_key E'golden-secret\t') $$,
    $$ alter foreign data wrapper embedd options (add colour 'red') $$,
    $$ create foreign table x (t text) server o options (colour 'red') $$]) with ordinality u(s, n),
    golden.refusal(s) r order by n;
-- A name used by a server of another wrapper.
create foreign data wrapper golden_other;
create server other foreign data wrapper golden_other;
select c as call, r.* from unnest(array[
    $$ create_provider('other', 'ollama') $$, $$ update_provider('other') $$, $$ drop_provider('other') $$, $$ test_provider('other') $$]) with ordinality u(c, n),
    golden.refusal('select embedd.' || c) r order by n;
-- Nothing to change, drop or test.
select c as call, r.* from unnest(array[
    $$ update_provider('nobody', 'golden-secret') $$, $$ drop_provider('nobody') $$, $$ test_provider('nobody') $$,
    $$ update_provider('local', 'golden-secret') $$, $$ drop_provider('local') $$,
    $$ update_provider(null) $$, $$ test_provider(null) $$, $$ test_provider('l') $$]) with ordinality u(c, n),
    golden.refusal('select embedd.' || c) r order by n;
select embedd.drop_provider(null) is null as nothing_done;
-- In a read-only transaction.
begin read only;
select c as call, r.* from unnest(array[
    $$ create_provider('x', 'ollama') $$, $$ update_provider('l', default_model => 'm') $$, $$ drop_provider('l') $$]) with ordinality u(c, n),
    golden.refusal('select embedd.' || c) r order by n;
rollback;
\x off
select count(*) as servers from pg_foreign_server where srvname <> 'other';

-- Changes: null keeps a value, options are merged, a null in them removes one.
select name, provider, default_model, base_url from embedd.update_provider('c', default_model => 'bge-m3');
select name, provider, default_model, base_url from embedd.update_provider('c', base_url => 'http://127.0.0.1:2/v1', options => '{"timeout": 5000, "encoding": null, "requests_per_minute": null}');
select options from shown() where name = 'c';
select has_key from shown() where name = 'c';
select name from embedd.update_provider('c', api_key => 'golden-secret-2');
select has_key from shown() where name = 'c';
select umoptions from pg_user_mappings where srvname = 'c';
select name from embedd.update_provider('c', options => '{"headers": null, "default_model": null, "max_in_flight": null}');
select name, default_model, base_url from embedd.update_provider('c', options => '{"api_key": null}');
select umoptions from pg_user_mappings where srvname = 'c';
select default_model, options, has_key from shown() where name = 'c';
select name from embedd.update_provider('c');
-- A provider without a mapping gets one with its first key.
select name from embedd.update_provider('l', options => '{"api_key": null}');
select count(*) from pg_user_mappings where srvname = 'l';
select name from embedd.update_provider('l', api_key => 'golden-secret-3');
select umoptions from pg_user_mappings where srvname = 'l';
\x on
select c as call, r.* from unnest(array[
    $$ ('c', options => '{"base_url": null}') $$, $$ ('c', options => '{"provider": null}') $$, $$ ('c', options => '{"base_url": "http://x"}') $$,
    $$ ('c', options => '{"max_in_flight": 65, "timeout": 1000}') $$, $$ ('c', api_key => 'golden secret') $$, $$ ('c', default_model => '') $$]) with ordinality u(c, n),
    golden.refusal('select embedd.update_provider' || c) r order by n;
\x off
select options from shown() where name = 'c';
-- Rolled back with its transaction.
begin;
select name from embedd.create_provider('undone', 'ollama');
select name, default_model from embedd.update_provider('undone', default_model => 'm');
select embedd.drop_provider('l');
rollback;
select name from shown() where name in ('undone', 'l');

-- Creating providers needs a privilege from the administrator, because they make the server call any address.
grant execute on function golden.refusal(text) to public;
\x on
set role golden_maker;
select * from golden.refusal($$ select embedd.create_provider('m', 'openai', 'golden-secret') $$);
reset role;
grant usage on foreign data wrapper embedd to golden_maker;
set role golden_maker;
select name, provider from embedd.create_provider('m', 'openai', 'sk-golden-maker-secret', base_url => 'http://127.0.0.1:1/');
-- A key from the environment or a file of the server needs a superuser, in every statement.
select s as statement, r.* from unnest(array[
    $$ select embedd.create_provider('n', 'openai', 'env:HOME') $$,
    $$ select embedd.create_provider('n', 'openai', 'file:/etc/passwd') $$,
    $$ select embedd.update_provider('m', 'file:/etc/passwd') $$,
    $$ alter user mapping for public server m options (set api_key 'file:/etc/passwd') $$,
    $$ create user mapping for current_user server m options (api_key 'env:HOME') $$]) with ordinality u(s, n),
    golden.refusal(s) r order by n;
-- PostgreSQL's own statement checks the options, without a privilege on the function that does it.
create server n foreign data wrapper embedd options (provider 'ollama');
select code, message from golden.refusal($$ create server p foreign data wrapper embedd options (provider 'sk-golden-secret') $$);
select code, message from golden.refusal($$ select embedd.check_provider_options(array['provider=ollama'], 1417) $$);
drop server n;
-- A role can change its own provider only.
select name, default_model from embedd.update_provider('m', default_model => 'text-embedding-3-large', options => '{"timeout": "10s"}');
select c as call, r.* from unnest(array[
    $$ update_provider('o', base_url => 'http://127.0.0.1:3/') $$, $$ update_provider('o', 'golden-secret') $$, $$ drop_provider('o') $$, $$ test_provider('o') $$]) with ordinality u(c, n),
    golden.refusal('select embedd.' || c) r order by n;
\x off
select * from shown();
reset role;

-- USAGE lets a role use a provider, and see that it exists; not change it, and not see its key.
grant usage on foreign server o to golden_payer;
set role golden_payer;
select * from shown();
\x on
select c as call, r.* from unnest(array[
    $$ select embedd.update_provider('o', base_url => 'http://127.0.0.1:3/') $$, $$ select embedd.update_provider('o', options => '{"key_header": "x"}') $$,
    $$ select embedd.update_provider('o', 'golden-secret') $$, $$ select embedd.drop_provider('o') $$,
    $$ alter server o options (add base_url 'http://127.0.0.1:3/') $$, $$ drop server o $$,
    $$ alter user mapping for public server o options (set api_key 'golden-secret') $$]) with ordinality u(c, n),
    golden.refusal(c) r order by n;
\x off
select srvname, usename, umoptions from pg_user_mappings order by srvname;
\deu+
select option_name, option_value from information_schema.user_mapping_options;
select code from golden.refusal('select * from pg_user_mapping');
-- A role's own key, which only that role can read, not the provider's owner.
create user mapping for current_user server o options (api_key 'sk-golden-payer-secret');
select srvname, usename, umoptions from pg_user_mappings where umoptions is not null;
select name, has_key from shown();
reset role;
set role golden_stranger;
select * from shown();
select srvname, usename, umoptions from pg_user_mappings order by 1, 2;
\deu+
reset role;
-- The owner of a provider can read the keys that he has set, and no others.
grant usage on foreign server m to golden_payer;
set role golden_payer;
create user mapping for current_user server m options (api_key 'sk-golden-payer-secret');
reset role;
set role golden_maker;
select srvname, usename, umoptions from pg_user_mappings where srvname = 'm' order by 1, 2;
reset role;

-- Vector tables with a provider: model and dimensions.
create table books (id integer primary key, title text);
grant select, trigger on books to golden_payer;
create function made(arguments text, out provider text, out model text, out dimensions integer, out type text, out index text) language plpgsql as $$
declare
    vectors regclass;
begin
    execute format('select v.provider, v.model, v.dimensions, v.platform_vector_ref from embedd.create_vector_table(%L, %L, %L, %s) v',
        't', 'shelf.books', '[{"name": "title", "role": "embedding"}]', arguments) into provider, model, dimensions, vectors;
    select format_type(atttypid, atttypmod) into type from pg_attribute where attrelid = vectors and attname = 'embedding';
    select substring(pg_get_indexdef(indexrelid) from 'USING.*') into index from pg_index where indrelid = vectors and not indisprimary;
    perform embedd.drop_vector_table('t');
end $$;
select m.* from unnest(array[
    $$ embedding_provider => 'o' $$,
    $$ embedding_provider => 'o', embedding_dimensions => 512 $$,
    $$ embedding_provider => 'o', embedding_model => 'text-embedding-3-large' $$,
    $$ embedding_provider => 'o', embedding_model => 'text-embedding-3-large', embedding_dimensions => 2000 $$,
    $$ embedding_provider => 'm' $$,
    $$ embedding_provider => 'm', embedding_model => 'text-embedding-ada-002' $$,
    $$ embedding_provider => 'g' $$,
    $$ embedding_provider => 'v' $$,
    $$ embedding_provider => 'v', embedding_model => 'voyage-3.5-lite' $$,
    $$ embedding_provider => 'v', embedding_model => 'voyage-3.5-lite', embedding_dimensions => 1024 $$,
    $$ embedding_provider => 'l', embedding_model => 'nomic-embed-text', embedding_dimensions => 768 $$,
    $$ embedding_provider => 'c', embedding_model => 'any', embedding_dimensions => 4000 $$]) with ordinality u(a, n),
    made(a) m order by n;
\x on
select a as arguments, r.* from unnest(array[
    $$ embedding_provider => 'nobody' $$,
    $$ embedding_provider => 'other' $$,
    $$ embedding_provider => 'l' $$,
    $$ embedding_provider => 'l', embedding_model => 'my-embed' $$,
    $$ embedding_provider => 'o', embedding_model => 'text-embedding-4' $$,
    $$ embedding_provider => 'o', embedding_model => '' $$,
    $$ embedding_provider => 'o', embedding_dimensions => 1537 $$,
    $$ embedding_provider => 'o', embedding_dimensions => 0 $$,
    $$ embedding_provider => 'o', embedding_model => 'text-embedding-ada-002', embedding_dimensions => 512 $$,
    $$ embedding_provider => 'v', embedding_model => 'voyage-3-lite', embedding_dimensions => 256 $$,
    $$ embedding_provider => 'l', embedding_model => 'x', embedding_dimensions => 0 $$,
    $$ embedding_provider => 'l', embedding_model => 'x', embedding_dimensions => 16001 $$]) with ordinality u(a, n),
    golden.refusal(format('select embedd.create_vector_table(%L, %L, %L, %s)', 't', 'shelf.books', '[{"name": "title", "role": "embedding"}]', a)) r order by n;
set role golden_stranger;
select * from golden.refusal($$ select embedd.create_vector_table('t', 'shelf.books', '[{"name": "title", "role": "embedding"}]', embedding_provider => 'o') $$);
reset role;
grant select, trigger on books to golden_stranger;
set role golden_stranger;
select * from golden.refusal($$ select embedd.create_vector_table('t', 'shelf.books', '[{"name": "title", "role": "embedding"}]', embedding_provider => 'o') $$);
reset role;
\x off
-- A user's own rows in the catalog.
set role golden_stranger;
select code from golden.refusal($$ insert into embedd.models (provider, model, dimensions) values ('ollama', 'my-embed', 768) $$);
reset role;
grant insert (provider, model, dimensions, native_dimensions, can_shorten, tokens_per_text, texts_per_request, tokens_per_request)
    on embedd.models to golden_stranger;
set role golden_stranger;
insert into embedd.models (provider, model, dimensions, can_shorten) values ('ollama', 'my-embed', 768, true);
insert into embedd.models (provider, model, dimensions) values ('openai_compatible', 'huge', 8000);
\x on
select s as row, code, message from unnest(array[
    $$ ('l', 'x', 768) $$, $$ ('ollama', 'my-embed', 512) $$, $$ ('ollama', 'x', 0) $$]) with ordinality u(s, n),
    golden.refusal('insert into embedd.models (provider, model, dimensions) values ' || s) r order by n;
\x off
select code, message from golden.refusal($$ insert into embedd.models (provider, model, dimensions, is_default) values ('ollama', 'x', 768, true) $$);
select code, message from golden.refusal($$ insert into embedd.models (provider, model, dimensions, built_in) values ('ollama', 'x', 768, true) $$);
select code from golden.refusal($$ delete from embedd.models $$);
reset role;
-- A role that may set that too cannot do this either.
select code, message from golden.refusal($$ insert into embedd.models (provider, model, dimensions, is_default) values ('ollama', 'x', 768, true) $$);
select m.provider, model, dimensions from unnest(array[
    $$ embedding_provider => 'l', embedding_model => 'my-embed' $$,
    $$ embedding_provider => 'l', embedding_model => 'my-embed', embedding_dimensions => 64 $$]) a, made(a) m;
-- Without an index: it has more than 4000 dimensions.
select m.provider, model, dimensions, type, index from made($$ embedding_provider => 'c', embedding_model => 'huge' $$) m;
revoke insert on embedd.models from golden_stranger;
delete from embedd.models where not built_in;

-- They can replace a built-in row, for a role that may delete it.
begin;
insert into embedd.models (provider, model, dimensions) values ('ollama', 'bge-m3', 7);
select dimensions, built_in from embedd.models where provider = 'ollama' and model = 'bge-m3';
rollback;

-- The prefixes of a model: those of its row, of the row that matches its name, or of the provider.
create function fronted(arguments text, out model text, out query_prefix text, out document_prefix text) language plpgsql as $$
begin
    execute format('select from embedd.create_vector_table(%L, %L, %L, %s)',
        't', 'shelf.books', '[{"name": "title", "role": "embedding"}]', arguments);
    select v.embedding_model, v.query_prefix, v.document_prefix into model, query_prefix, document_prefix
      from embedd.vector_tables v where v.name = 't';
    perform embedd.drop_vector_table('t');
end $$;
\set VERBOSITY default
select f.* from unnest(array[
    $$ embedding_provider => 'l', embedding_model => 'nomic-embed-text:latest' $$,
    $$ embedding_provider => 'l', embedding_model => 'snowflake-arctic-embed:xs', embedding_dimensions => 384 $$]) with ordinality u(a, n),
    fronted(a) f order by n;
\set VERBOSITY terse
select f.* from unnest(array[
    $$ embedding_provider => 'l', embedding_model => 'bge-m3' $$,
    $$ embedding_provider => 'c', embedding_model => 'intfloat/multilingual-e5-large' $$,
    $$ embedding_provider => 'c', embedding_model => 'qwen3-embedding-8b', embedding_dimensions => 1024 $$,
    $$ embedding_provider => 'c', embedding_model => 'nomic-embed-text-v9', embedding_dimensions => 768 $$,
    $$ embedding_provider => 'g' $$,
    $$ embedding_provider => 'v' $$,
    $$ embedding_provider => 'local' $$]) with ordinality u(a, n),
    fronted(a) f order by n;
select name from embedd.update_provider('c', options => '{"query_prefix": "find: ", "document_prefix": ""}');
select options from shown() where name = 'c';
select f.* from fronted($$ embedding_provider => 'c', embedding_model => 'intfloat/e5-small' $$) f;
select name from embedd.update_provider('c', options => '{"query_prefix": null, "document_prefix": null}');
\x on
select c as call, r.* from unnest(array[
    $$ ('c', options => '{"query_prefix": true}') $$, $$ ('c', options => '{"document_prefix": "a\u0001"}') $$]) with ordinality u(c, n),
    golden.refusal('select embedd.update_provider' || c) r order by n;
\x off

-- A model whose retirement is near or past; the replacement is that of its maker.
\set VERBOSITY default
select name from embedd.create_vector_table('old', 'shelf.books', '[{"name": "title", "role": "embedding"}]', embedding_provider => 'g', embedding_model => 'text-embedding-004');
select sync_status from embedd.sync_status('old');
select sync_status from embedd.stat_vector_tables where name = 'old';
select embedd.drop_vector_table('old');
\set VERBOSITY terse
select provider, model, retires_on, replacement from embedd.models where retires_on is not null order by 1, 2;
-- No model that its maker retires within two years of this release, or calls old, is a default.
select provider, model from embedd.models where is_default order by 1;

-- Vectors for testing applications: no key, no address, no network.
select name, provider, default_model, base_url from embedd.create_provider('tests', 'test');
select m.* from unnest(array[
    $$ embedding_provider => 'tests' $$,
    $$ embedding_provider => 'tests', embedding_dimensions => 1536 $$,
    $$ embedding_provider => 'tests', embedding_model => 'text-embedding-3-small', embedding_dimensions => 4000 $$]) with ordinality u(a, n),
    made(a) m order by n;
select status, latency_ms > 0 and latency_ms = round(latency_ms::numeric, 1) as is_round, model, dimensions from embedd.test_provider('tests');
select status, model, dimensions from embedd.test_provider('tests', 'any');
\x on
select a as arguments, r.* from unnest(array[
    $$ embedding_provider => 'tests', embedding_dimensions => 0 $$,
    $$ embedding_provider => 'tests', embedding_dimensions => 16001 $$]) with ordinality u(a, n),
    golden.refusal(format('select embedd.create_vector_table(%L, %L, %L, %s)', 't', 'shelf.books', '[{"name": "title", "role": "embedding"}]', a)) r order by n;
\x off
select name from embedd.create_vector_table('tested', 'shelf.books', '[{"name": "title", "role": "embedding"}]', embedding_provider => 'tests', embedding_dimensions => 4);
select embedd.embed('tested', 'Hello, world');
select embedd.embed('tested', 'a red tent') <=> embedd.embed('tested', 'a RED tent!') < 0.05 as is_near;
select embedd.drop_vector_table('tested');
select embedd.drop_provider('tests');

-- The owner of the vector table pays for every query: with his own key, or with that of PUBLIC.
set role golden_payer;
select platform_vector_ref as paid from embedd.create_vector_table('paid', 'shelf.books', '[{"name": "title", "role": "embedding"}]', embedding_provider => 'o') \gset
select name, embedding_provider, embedding_model, embedding_dimensions from embedd.vector_tables;
grant select on :paid to golden_stranger;
reset role;
revoke usage on foreign server o from golden_payer;
\x on
set role golden_stranger;
select * from golden.refusal($$ select embedd.embed('paid', 'x') $$);
reset role;
grant usage on foreign server o to golden_payer;
-- A role's own mapping takes precedence, even without a key.
alter user mapping for golden_payer server o options (drop api_key);
set role golden_stranger;
select * from golden.refusal($$ select embedd.embed('paid', 'x') $$);
reset role;
drop user mapping for golden_payer server o;
select name from embedd.update_provider('o', options => '{"api_key": null}');
set role golden_stranger;
select * from golden.refusal($$ select embedd.embed('paid', 'x') $$);
reset role;
set role golden_payer;
select * from golden.refusal($$ select embedd.test_provider('o') $$);
reset role;
grant usage on foreign server l to golden_payer;
set role golden_payer;
select * from golden.refusal($$ select embedd.test_provider('l') $$);
reset role;
-- A key in a file is not read for a provider whose owner is not a superuser, who could send it to himself.
select name from embedd.update_provider('o', 'file:/etc/golden-secret');
alter server o owner to golden_maker;
set role golden_stranger;
select * from golden.refusal($$ select embedd.embed('paid', 'x') $$);
reset role;
set role golden_payer;
select * from golden.refusal($$ select embedd.test_provider('o') $$);
reset role;
set role golden_maker;
select * from golden.refusal($$ select embedd.update_provider('o', default_model => 'text-embedding-3-small', options => '{"headers": {"a": "b"}}') $$);
select default_model from embedd.update_provider('o', default_model => 'text-embedding-3-small');
select name from embedd.update_provider('o', 'sk-golden-secret');
\x off
reset role;
alter server o owner to postgres;

-- A provider in use cannot be dropped, keeps its tables when renamed, and can be dropped when unused.
\x on
select * from golden.refusal($$ select embedd.drop_provider('o') $$);
select code, message from golden.refusal($$ drop server o $$);
\x off
alter server o rename to "new ""name""; drop table shelf.books; --";
call golden.wait_for('the new name', $$ select embedding_provider like 'new%' from embedd.vector_tables where name = 'paid' $$);
select embedding_provider from embedd.vector_tables where name = 'paid';
-- Another role's provider with the old name is not used instead.
select name from embedd.create_provider('o', 'ollama');
\x on
select * from golden.refusal($$ select embedd.drop_provider('new "name"; drop table shelf.books; --') $$);
\x off
select embedd.drop_provider('o');
select c.relname like 'embedd\_vt\_%' as vector_table, s.srvname
  from pg_depend d join pg_class c on d.classid = 'pg_class'::regclass and c.oid = d.objid
  join pg_foreign_server s on d.refclassid = 'pg_foreign_server'::regclass and s.oid = d.refobjid;
-- A table without a dependency, as after a restore, depends again as soon as the worker has checked it.
delete from pg_depend where refclassid = 'pg_foreign_server'::regclass and classid = 'pg_class'::regclass;
select code from golden.refusal($$ select embedd.drop_provider('new "name"; drop table shelf.books; --') $$);
alter server "new ""name""; drop table shelf.books; --" options (add timeout '7s');
call golden.wait_for('the dependency', $$ select exists (select from pg_depend where refclassid = 'pg_foreign_server'::regclass and classid = 'pg_class'::regclass) $$);
alter server "new ""name""; drop table shelf.books; --" rename to o;
call golden.wait_for('the old name', $$ select embedding_provider = 'o' from embedd.vector_tables where name = 'paid' $$);
-- A table kept when its vector table is dropped needs no provider.
set role golden_payer;
select embedd.drop_vector_table('paid', keep_table => true);
reset role;
select embedd.drop_provider('o');
select count(*) from pg_user_mappings where srvname = 'o';
select count(*) from :paid;
drop table :paid;

-- DROP SERVER .. CASCADE drops keys, not vectors that others have paid for; the status of their table reports the problem.
set role golden_payer;
select platform_vector_ref as paid from embedd.create_vector_table('paid', 'shelf.books', '[{"name": "title", "role": "embedding"}]', embedding_provider => 'm') \gset
reset role;
set role golden_stranger;
select code, message from golden.refusal($$ drop server m cascade $$);
set role golden_maker;
select code, message from golden.refusal($$ drop server m $$);
begin;
drop server m cascade;
rollback;
select code, message from golden.refusal($$ drop server m restrict $$);
drop server m cascade;
reset role;
set role golden_payer;
select count(*) from :paid;
select task_type from embedd.backfill('paid');
reset role;
insert into books values (1, 'cannot be embedded');
call golden.wait_for('the error', $$ select sync_status = 'error' from embedd.vector_tables where name = 'paid' $$);
set role golden_payer;
select sync_status, last_error from embedd.sync_status('paid');
select * from golden.refusal($$ select embedd.embed('paid', 'x') $$);
select embedd.drop_vector_table('paid');
reset role;
delete from books;

-- Names and values with SQL in them.
select name, provider, default_model, base_url from embedd.create_provider($$'"; drop table shelf.books; --$$, 'ollama', $$'");drop/**/table/**/shelf.books;--$$,
    $$'"\; drop table shelf.books; --$$, $$http://127.0.0.1:1/'%20;drop$$, $$ {"headers": {"x": "'); drop table shelf.books; --"}} $$);
select name, default_model, base_url, has_key from shown() where name like '%shelf%';
select umoptions from pg_user_mappings where srvname like '%shelf%';
\x on
select * from golden.refusal($$ select embedd.create_vector_table('t', 'shelf.books', '[{"name": "title", "role": "embedding"}]', embedding_provider => '''"; drop table shelf.books; --') $$);
select * from golden.refusal($$ select embedd.create_vector_table('t', 'shelf.books', '[{"name": "title", "role": "embedding"}]', embedding_provider => '''"; drop table shelf.books; --', embedding_model => '''; drop table shelf.books; --') $$);
select * from golden.refusal($$ select embedd.create_provider('''"; drop table shelf.books; --', 'ollama') $$);
\x off
select embedd.drop_provider($$'"; drop table shelf.books; --$$);
select count(*) from books;

-- A real call, of the provider that always exists.
select status, latency_ms > 0 as took_time, model, dimensions from embedd.test_provider('local');
select status, model, dimensions from embedd.test_provider('local', 'all-MiniLM-L6-v2');
set role golden_stranger;
select status from embedd.test_provider('local');
reset role;

-- Removed completely.
select count(embedd.drop_provider(name)) as dropped from (select name from embedd.providers where name <> 'local') p;
select * from shown();
select count(*) from pg_user_mapping;
select * from golden.traces();
drop foreign data wrapper golden_other cascade;
drop schema shelf cascade;
revoke all on foreign data wrapper embedd from golden_maker;
drop role golden_maker, golden_payer, golden_stranger;
