-- From 0.5.0 to 0.6.0.

-- Providers as they are today: texts that models want in front of others, the day a model is retired, and a kind for the tests of
-- applications.
alter table embedd.vector_tables
    add column query_prefix text,
    add column document_prefix text;
comment on column embedd.vector_tables.query_prefix is 'put in front of every question before it is embedded; it stays what it was when the vector table was created';
comment on column embedd.vector_tables.document_prefix is 'put in front of every embedded text before it is embedded, and no part of embedded_text; it stays what it was when the vector table was created';

alter table embedd.models
    drop constraint models_provider_check,
    add constraint models_provider_check
        check (provider in ('local', 'openai', 'gemini', 'voyage', 'ollama', 'openai_compatible', 'test')),
    add column query_prefix text,
    add column document_prefix text,
    add column retires_on date,
    add column replacement text;
comment on column embedd.models.provider is 'kind of provider: local, openai, gemini, voyage, ollama, openai_compatible or test';
comment on column embedd.models.query_prefix is 'put in front of a question before it is embedded; a vector table keeps what was in force when it was created';
comment on column embedd.models.document_prefix is 'put in front of a text to be found, in the same way';
comment on column embedd.models.retires_on is 'the day from which on its maker may end the model; null is unknown, or none was announced';
comment on column embedd.models.replacement is 'the model that its maker names in its place';

-- Vector tables keep the model they were created with. Rows that users have added stay theirs, but for those that are built in
-- from now on.
update embedd.models set is_default = false where provider in ('gemini', 'voyage');
insert into embedd.models (provider, model, dimensions, is_default, native_dimensions, can_shorten,
        tokens_per_text, texts_per_request, tokens_per_request, built_in,
        query_prefix, document_prefix, retires_on, replacement) values
    ('local', 'all-MiniLM-L6-v2', 384, true, 384, false, 256, null, null, true, null, null, null, null),
    ('openai', 'text-embedding-3-small', 1536, true, 1536, true, 8191, 2048, 300000, true, null, null, null, null),
    ('openai', 'text-embedding-3-large', 3072, false, 3072, true, 8191, 2048, 300000, true, null, null, null, null),
    ('openai', 'text-embedding-ada-002', 1536, false, 1536, false, 8191, 2048, 300000, true, null, null, null, null),
    ('gemini', 'gemini-embedding-2', 3072, true, 3072, true, 8192, 100, null, true, 'task: search result | query: ', 'title: none | text: ', null, null),
    ('gemini', 'gemini-embedding-001', 3072, false, 3072, true, 2048, 100, null, true, null, null, '2028-05-14', 'gemini-embedding-2'),
    ('gemini', 'text-embedding-005', 768, false, 768, false, 2048, 100, null, true, null, null, '2027-04-01', null),
    ('gemini', 'text-embedding-004', 768, false, 768, false, 2048, 100, null, true, null, null, '2026-01-14', 'gemini-embedding-2'),
    ('voyage', 'voyage-4', 1024, true, 1024, true, 32000, 1000, 320000, true, null, null, null, null),
    ('voyage', 'voyage-4-large', 1024, false, 1024, true, 32000, 1000, 120000, true, null, null, null, null),
    ('voyage', 'voyage-4-lite', 1024, false, 1024, true, 32000, 1000, 1000000, true, null, null, null, null),
    ('voyage', 'voyage-code-4', 1024, false, 1024, true, 32000, 1000, 320000, true, null, null, null, null),
    ('voyage', 'voyage-finance-2', 1024, false, 1024, false, 32000, 1000, 120000, true, null, null, null, null),
    ('voyage', 'voyage-law-2', 1024, false, 1024, false, 16000, 1000, 120000, true, null, null, null, null),
    ('voyage', 'voyage-3.5', 1024, false, 1024, true, 32000, 1000, 320000, true, null, null, null, null),
    ('voyage', 'voyage-3.5-lite', 512, false, 1024, true, 32000, 1000, 1000000, true, null, null, null, null),
    ('voyage', 'voyage-code-3', 1024, false, 1024, true, 32000, 1000, 120000, true, null, null, null, null),
    ('voyage', 'voyage-3-large', 1024, false, 1024, true, 32000, 1000, 120000, true, null, null, null, null),
    ('voyage', 'voyage-3-lite', 512, false, 512, false, 32000, 1000, 1000000, true, null, null, null, null),
    ('ollama', 'all-minilm', 384, false, 384, false, 256, null, null, true, null, null, null, null),
    ('ollama', 'bge-m3', 1024, false, 1024, false, 8192, null, null, true, null, null, null, null),
    ('ollama', 'embeddinggemma', 768, false, 768, false, 2048, null, null, true, 'task: search result | query: ', 'title: none | text: ', null, null),
    ('ollama', 'mxbai-embed-large', 1024, false, 1024, false, 512, null, null, true, 'Represent this sentence for searching relevant passages: ', null, null, null),
    ('ollama', 'nomic-embed-text', 768, false, 768, false, 2048, null, null, true, 'search_query: ', 'search_document: ', null, null),
    ('ollama', 'nomic-embed-text-v2-moe', 768, false, 768, false, 512, null, null, true, 'search_query: ', 'search_document: ', null, null),
    ('ollama', 'qwen3-embedding:0.6b', 1024, false, 1024, false, 32768, null, null, true, E'Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:', null, null, null),
    ('ollama', 'qwen3-embedding:4b', 2560, false, 2560, false, 32768, null, null, true, E'Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:', null, null, null),
    ('ollama', 'snowflake-arctic-embed', 1024, false, 1024, false, 512, null, null, true, 'Represent this sentence for searching relevant passages: ', null, null, null),
    ('ollama', 'snowflake-arctic-embed2', 1024, false, 1024, false, 8192, null, null, true, 'query: ', null, null, null),
    ('openai_compatible', 'intfloat/e5-small', 384, false, 384, false, 512, null, null, true, 'query: ', 'passage: ', null, null),
    ('openai_compatible', 'intfloat/e5-small-v2', 384, false, 384, false, 512, null, null, true, 'query: ', 'passage: ', null, null),
    ('openai_compatible', 'intfloat/multilingual-e5-small', 384, false, 384, false, 512, null, null, true, 'query: ', 'passage: ', null, null),
    ('openai_compatible', 'intfloat/e5-base', 768, false, 768, false, 512, null, null, true, 'query: ', 'passage: ', null, null),
    ('openai_compatible', 'intfloat/e5-base-v2', 768, false, 768, false, 512, null, null, true, 'query: ', 'passage: ', null, null),
    ('openai_compatible', 'intfloat/multilingual-e5-base', 768, false, 768, false, 512, null, null, true, 'query: ', 'passage: ', null, null),
    ('openai_compatible', 'intfloat/e5-large', 1024, false, 1024, false, 512, null, null, true, 'query: ', 'passage: ', null, null),
    ('openai_compatible', 'intfloat/e5-large-v2', 1024, false, 1024, false, 512, null, null, true, 'query: ', 'passage: ', null, null),
    ('openai_compatible', 'intfloat/multilingual-e5-large', 1024, false, 1024, false, 512, null, null, true, 'query: ', 'passage: ', null, null),
    ('openai_compatible', 'intfloat/multilingual-e5-large-instruct', 1024, false, 1024, false, 512, null, null, true, E'Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: ', null, null, null),
    ('openai_compatible', 'BAAI/bge-small-en', 384, false, 384, false, 512, null, null, true, 'Represent this sentence for searching relevant passages: ', null, null, null),
    ('openai_compatible', 'BAAI/bge-small-en-v1.5', 384, false, 384, false, 512, null, null, true, 'Represent this sentence for searching relevant passages: ', null, null, null),
    ('openai_compatible', 'BAAI/bge-base-en', 768, false, 768, false, 512, null, null, true, 'Represent this sentence for searching relevant passages: ', null, null, null),
    ('openai_compatible', 'BAAI/bge-base-en-v1.5', 768, false, 768, false, 512, null, null, true, 'Represent this sentence for searching relevant passages: ', null, null, null),
    ('openai_compatible', 'BAAI/bge-large-en', 1024, false, 1024, false, 512, null, null, true, 'Represent this sentence for searching relevant passages: ', null, null, null),
    ('openai_compatible', 'BAAI/bge-large-en-v1.5', 1024, false, 1024, false, 512, null, null, true, 'Represent this sentence for searching relevant passages: ', null, null, null),
    ('openai_compatible', 'BAAI/bge-m3', 1024, false, 1024, false, 8192, null, null, true, null, null, null, null),
    ('openai_compatible', 'nomic-ai/nomic-embed-text-v1', 768, false, 768, false, 8192, null, null, true, 'search_query: ', 'search_document: ', null, null),
    ('openai_compatible', 'nomic-ai/nomic-embed-text-v1.5', 768, false, 768, false, 8192, null, null, true, 'search_query: ', 'search_document: ', null, null),
    ('openai_compatible', 'nomic-ai/nomic-embed-text-v2-moe', 768, false, 768, false, 512, null, null, true, 'search_query: ', 'search_document: ', null, null),
    ('openai_compatible', 'mixedbread-ai/mxbai-embed-large-v1', 1024, false, 1024, false, 512, null, null, true, 'Represent this sentence for searching relevant passages: ', null, null, null),
    ('openai_compatible', 'Snowflake/snowflake-arctic-embed-xs', 384, false, 384, false, 512, null, null, true, 'Represent this sentence for searching relevant passages: ', null, null, null),
    ('openai_compatible', 'Snowflake/snowflake-arctic-embed-s', 384, false, 384, false, 512, null, null, true, 'Represent this sentence for searching relevant passages: ', null, null, null),
    ('openai_compatible', 'Snowflake/snowflake-arctic-embed-m', 768, false, 768, false, 512, null, null, true, 'Represent this sentence for searching relevant passages: ', null, null, null),
    ('openai_compatible', 'Snowflake/snowflake-arctic-embed-m-long', 768, false, 768, false, 2048, null, null, true, 'Represent this sentence for searching relevant passages: ', null, null, null),
    ('openai_compatible', 'Snowflake/snowflake-arctic-embed-l', 1024, false, 1024, false, 512, null, null, true, 'Represent this sentence for searching relevant passages: ', null, null, null),
    ('openai_compatible', 'Snowflake/snowflake-arctic-embed-m-v1.5', 768, false, 768, false, 512, null, null, true, 'Represent this sentence for searching relevant passages: ', null, null, null),
    ('openai_compatible', 'Snowflake/snowflake-arctic-embed-m-v2.0', 768, false, 768, false, 8192, null, null, true, 'query: ', null, null, null),
    ('openai_compatible', 'Snowflake/snowflake-arctic-embed-l-v2.0', 1024, false, 1024, false, 8192, null, null, true, 'query: ', null, null, null),
    ('openai_compatible', 'google/embeddinggemma-300m', 768, false, 768, false, 2048, null, null, true, 'task: search result | query: ', 'title: none | text: ', null, null),
    ('openai_compatible', 'Qwen/Qwen3-Embedding-0.6B', 1024, false, 1024, false, 32768, null, null, true, E'Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:', null, null, null),
    ('openai_compatible', 'Qwen/Qwen3-Embedding-4B', 2560, false, 2560, false, 32768, null, null, true, E'Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:', null, null, null),
    ('openai_compatible', 'sentence-transformers/all-MiniLM-L6-v2', 384, false, 384, false, 256, null, null, true, null, null, null, null),
    ('openai_compatible', 'Alibaba-NLP/gte-multilingual-base', 768, false, 768, false, 8192, null, null, true, null, null, null, null),
    ('test', 'hash', 64, true, 64, false, null, null, null, true, null, null, null, null)
on conflict (provider, model) do update
   set dimensions = excluded.dimensions, is_default = excluded.is_default,
       native_dimensions = excluded.native_dimensions, can_shorten = excluded.can_shorten,
       tokens_per_text = excluded.tokens_per_text, texts_per_request = excluded.texts_per_request,
       tokens_per_request = excluded.tokens_per_request, built_in = true,
       query_prefix = excluded.query_prefix, document_prefix = excluded.document_prefix,
       retires_on = excluded.retires_on, replacement = excluded.replacement;

-- A row of a user's own takes the place of the built-in one of its name: a dump brings back what a user added before embedd did.
create function embedd.replace_built_in_model() returns trigger
    language plpgsql
    set search_path to pg_catalog, pg_temp
    as $$
begin
    -- A role that may only add rows is asked for no other right, unless there is one to be removed.
    if exists (select from embedd.models m where m.provider = new.provider and m.model = new.model and m.built_in) then
        delete from embedd.models m where m.provider = new.provider and m.model = new.model and m.built_in;
    end if;
    return new;
end
$$;
comment on function embedd.replace_built_in_model() is 'Makes room in the model catalog for a row of a user''s own';
create trigger models_replace_built_in before insert on embedd.models
    for each row when (not new.built_in) execute function embedd.replace_built_in_model();

create or replace view embedd.providers with (security_barrier) as
    select null::oid as id,
           'local'::text as name,
           'local'::text as provider,
           'all-MiniLM-L6-v2'::text as default_model,
           null::text as base_url,
           '{}'::jsonb as options,
           false as has_key,
           null::regrole as owner,
           null::timestamptz as created_at
     union all
    select s.oid,
           s.srvname::text,
           o.provider,
           o.default_model,
           o.base_url,
           o.options,
           -- The same mapping that counts for a call: the role's own, else the one for everybody.
           coalesce((
               select exists (select from pg_catalog.pg_options_to_table(u.umoptions) k where k.option_name = 'api_key')
                 from pg_catalog.pg_user_mapping u
                where u.umserver = s.oid
                  and (u.umuser = 0::oid or u.umuser = (select r.oid from pg_catalog.pg_roles r where r.rolname = current_user))
                order by u.umuser = 0::oid
                limit 1), false),
           s.srvowner::regrole,
           o.created_at
      from pg_catalog.pg_foreign_server s
      join pg_catalog.pg_foreign_data_wrapper w on w.oid = s.srvfdw
     cross join lateral (
               select pg_catalog.max(t.option_value) filter (where t.option_name = 'provider'),
                      pg_catalog.max(t.option_value) filter (where t.option_name = 'default_model'),
                      pg_catalog.max(t.option_value) filter (where t.option_name = 'base_url'),
                      coalesce(pg_catalog.jsonb_object_agg(t.option_name,
                          case when t.option_value ~ '^\d{1,10}$' and t.option_name not in ('key_header', 'query_prefix', 'document_prefix')
                               then pg_catalog.to_jsonb(t.option_value::bigint)
                               else pg_catalog.to_jsonb(t.option_value) end)
                          filter (where t.option_name not in ('provider', 'default_model', 'base_url', 'created_at')), '{}'),
                      pg_catalog.max(t.option_value) filter (where t.option_name = 'created_at')::timestamptz
                 from pg_catalog.pg_options_to_table(s.srvoptions) t) o(provider, default_model, base_url, options, created_at)
     where w.fdwname = 'embedd'
       and (pg_catalog.pg_has_role(s.srvowner, 'USAGE') or pg_catalog.has_server_privilege(s.oid, 'USAGE'));
comment on column embedd.providers.provider is 'kind of provider: local, openai, gemini, voyage, ollama, openai_compatible or test';
comment on column embedd.provider_usage.texts is 'texts sent, whatever became of their requests';
comment on column embedd.provider_usage.tokens is 'tokens of the requests that the provider did its work for, also where its answer could not be used: as it counts them, or an estimate where it does not say';
