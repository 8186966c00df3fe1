-- From 0.5.0 to 0.6.0: prefixes, learned limits and today's models, a function that names what is wrong, and arguments of every type.

create function embedd.doctor(call_providers boolean default false) returns table (
    "check" text,
    state text,
    object text,
    meaning text,
    remedy text
)
    volatile parallel unsafe rows 40
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'findings_wrapper';
comment on function embedd.doctor(boolean) is
    'What is wrong with embedd in this database and on its server, problems first: check, state (problem, warning or ok), the object, what it means, and the statement that helps. A role sees what concerns the vector tables and providers it may see, members of pg_monitor everything; call_providers makes one real call to each provider that the role may use';

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

-- Vector tables keep the model they were created with, and rows that users have added stay theirs.
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
   set dimensions = excluded.dimensions,
       -- The default that an administrator has chosen stays, where this version brings no other.
       is_default = case when excluded.provider in ('gemini', 'voyage') then excluded.is_default else models.is_default end,
       native_dimensions = excluded.native_dimensions, can_shorten = excluded.can_shorten,
       tokens_per_text = excluded.tokens_per_text, texts_per_request = excluded.texts_per_request,
       tokens_per_request = excluded.tokens_per_request, built_in = true,
       query_prefix = excluded.query_prefix, document_prefix = excluded.document_prefix,
       retires_on = excluded.retires_on, replacement = excluded.replacement
 where models.built_in;

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

-- == arguments

-- The types of arguments that are taken in whatever type a driver sends them: bigint for a limit, json or text for filters.
--
-- Each function with an argument that is not text has a second form (overloads.sql) whose arguments have these types. PostgreSQL
-- takes it only where the first form does not fit: its first argument is text, which arguments of unknown type prefer. The types have
-- the categories of those in the first form, or PostgreSQL could not choose. So the types that a driver is told for $1, $2 .. stay
-- those of the first form.

create type embedd.argument;
create function embedd.argument_in(cstring) returns embedd.argument
    language internal immutable strict parallel safe as 'textin';
create function embedd.argument_out(embedd.argument) returns cstring
    language internal immutable strict parallel safe as 'textout';
create type embedd.argument (input = embedd.argument_in, output = embedd.argument_out, like = pg_catalog.text, category = 'U');
comment on type embedd.argument is 'An argument that is text or JSON, in whatever type it was given, as text';
comment on function embedd.argument_in(cstring) is 'Input of type embedd.argument';
comment on function embedd.argument_out(embedd.argument) is 'Output of type embedd.argument';
create cast (embedd.argument as text) without function;
comment on cast (embedd.argument as text) is 'The text of an argument';
create cast (text as embedd.argument) without function as implicit;
create cast (varchar as embedd.argument) without function as implicit;
create cast (json as embedd.argument) without function as implicit;
create cast (jsonb as embedd.argument) with inout as implicit;
create cast (name as embedd.argument) with inout as implicit;
create cast (smallint as embedd.argument) with inout as implicit;
create cast (integer as embedd.argument) with inout as implicit;
create cast (bigint as embedd.argument) with inout as implicit;
create cast (numeric as embedd.argument) with inout as implicit;
create cast (uuid as embedd.argument) with inout as implicit;
comment on cast (text as embedd.argument) is 'An argument of a function of embedd';
comment on cast (varchar as embedd.argument) is 'An argument of a function of embedd';
comment on cast (json as embedd.argument) is 'An argument of a function of embedd';
comment on cast (jsonb as embedd.argument) is 'An argument of a function of embedd';
comment on cast (name as embedd.argument) is 'An argument of a function of embedd';
comment on cast (smallint as embedd.argument) is 'An argument of a function of embedd';
comment on cast (integer as embedd.argument) is 'An argument of a function of embedd';
comment on cast (bigint as embedd.argument) is 'An argument of a function of embedd';
comment on cast (numeric as embedd.argument) is 'An argument of a function of embedd';
comment on cast (uuid as embedd.argument) is 'An argument of a function of embedd';

create type embedd.number_argument;
create function embedd.number_argument_in(cstring) returns embedd.number_argument
    language internal immutable strict parallel safe as 'textin';
create function embedd.number_argument_out(embedd.number_argument) returns cstring
    language internal immutable strict parallel safe as 'textout';
create type embedd.number_argument (input = embedd.number_argument_in, output = embedd.number_argument_out, like = pg_catalog.text, category = 'N');
comment on type embedd.number_argument is 'An argument that is a number, in whatever type it was given, as text';
comment on function embedd.number_argument_in(cstring) is 'Input of type embedd.number_argument';
comment on function embedd.number_argument_out(embedd.number_argument) is 'Output of type embedd.number_argument';
create cast (embedd.number_argument as text) without function;
comment on cast (embedd.number_argument as text) is 'The text of an argument';
create cast (text as embedd.number_argument) without function as implicit;
create cast (varchar as embedd.number_argument) without function as implicit;
create cast (smallint as embedd.number_argument) with inout as implicit;
create cast (integer as embedd.number_argument) with inout as implicit;
create cast (bigint as embedd.number_argument) with inout as implicit;
create cast (numeric as embedd.number_argument) with inout as implicit;
create cast (real as embedd.number_argument) with inout as implicit;
create cast (double precision as embedd.number_argument) with inout as implicit;
comment on cast (text as embedd.number_argument) is 'An argument of a function of embedd';
comment on cast (varchar as embedd.number_argument) is 'An argument of a function of embedd';
comment on cast (smallint as embedd.number_argument) is 'An argument of a function of embedd';
comment on cast (integer as embedd.number_argument) is 'An argument of a function of embedd';
comment on cast (bigint as embedd.number_argument) is 'An argument of a function of embedd';
comment on cast (numeric as embedd.number_argument) is 'An argument of a function of embedd';
comment on cast (real as embedd.number_argument) is 'An argument of a function of embedd';
comment on cast (double precision as embedd.number_argument) is 'An argument of a function of embedd';

create type embedd.interval_argument;
create function embedd.interval_argument_in(cstring) returns embedd.interval_argument
    language internal immutable strict parallel safe as 'textin';
create function embedd.interval_argument_out(embedd.interval_argument) returns cstring
    language internal immutable strict parallel safe as 'textout';
create type embedd.interval_argument (input = embedd.interval_argument_in, output = embedd.interval_argument_out, like = pg_catalog.text, category = 'T');
comment on type embedd.interval_argument is 'An argument that is an interval, in whatever type it was given, as text';
comment on function embedd.interval_argument_in(cstring) is 'Input of type embedd.interval_argument';
comment on function embedd.interval_argument_out(embedd.interval_argument) is 'Output of type embedd.interval_argument';
create cast (embedd.interval_argument as text) without function;
comment on cast (embedd.interval_argument as text) is 'The text of an argument';
create cast (text as embedd.interval_argument) without function as implicit;
create cast (varchar as embedd.interval_argument) without function as implicit;
create cast (interval as embedd.interval_argument) with inout as implicit;
create cast (smallint as embedd.interval_argument) with inout as implicit;
create cast (integer as embedd.interval_argument) with inout as implicit;
create cast (bigint as embedd.interval_argument) with inout as implicit;
create cast (numeric as embedd.interval_argument) with inout as implicit;
create cast (real as embedd.interval_argument) with inout as implicit;
create cast (double precision as embedd.interval_argument) with inout as implicit;
comment on cast (text as embedd.interval_argument) is 'An argument of a function of embedd';
comment on cast (varchar as embedd.interval_argument) is 'An argument of a function of embedd';
comment on cast (interval as embedd.interval_argument) is 'An argument of a function of embedd';
comment on cast (smallint as embedd.interval_argument) is 'An argument of a function of embedd';
comment on cast (integer as embedd.interval_argument) is 'An argument of a function of embedd';
comment on cast (bigint as embedd.interval_argument) is 'An argument of a function of embedd';
comment on cast (numeric as embedd.interval_argument) is 'An argument of a function of embedd';
comment on cast (real as embedd.interval_argument) is 'An argument of a function of embedd';
comment on cast (double precision as embedd.interval_argument) is 'An argument of a function of embedd';

create type embedd.relation_argument;
create function embedd.relation_argument_in(cstring) returns embedd.relation_argument
    language internal immutable strict parallel safe as 'textin';
create function embedd.relation_argument_out(embedd.relation_argument) returns cstring
    language internal immutable strict parallel safe as 'textout';
create type embedd.relation_argument (input = embedd.relation_argument_in, output = embedd.relation_argument_out, like = pg_catalog.text, category = 'N');
comment on type embedd.relation_argument is 'An argument that is a relation, in whatever type it was given, as text';
comment on function embedd.relation_argument_in(cstring) is 'Input of type embedd.relation_argument';
comment on function embedd.relation_argument_out(embedd.relation_argument) is 'Output of type embedd.relation_argument';
create cast (embedd.relation_argument as text) without function;
comment on cast (embedd.relation_argument as text) is 'The text of an argument';
create cast (text as embedd.relation_argument) without function as implicit;
create cast (varchar as embedd.relation_argument) without function as implicit;
create cast (name as embedd.relation_argument) with inout as implicit;
create cast (regclass as embedd.relation_argument) with inout as implicit;
comment on cast (text as embedd.relation_argument) is 'An argument of a function of embedd';
comment on cast (varchar as embedd.relation_argument) is 'An argument of a function of embedd';
comment on cast (name as embedd.relation_argument) is 'An argument of a function of embedd';
comment on cast (regclass as embedd.relation_argument) is 'An argument of a function of embedd';

-- The name, since the text of a number is no name.
create function embedd.relation_argument(oid) returns embedd.relation_argument
    language sql stable strict parallel safe
    return $1::regclass::text::embedd.relation_argument;
comment on function embedd.relation_argument(oid) is 'The name of a relation';
create cast (oid as embedd.relation_argument) with function embedd.relation_argument(oid) as implicit;
comment on cast (oid as embedd.relation_argument) is 'An argument of a function of embedd';

-- Names of columns in an array are what a JSON array of them is.
create function embedd.argument(text[]) returns embedd.argument
    language sql immutable strict parallel safe
    return pg_catalog.array_to_json($1)::text::embedd.argument;
comment on function embedd.argument(text[]) is 'An array of texts as a JSON array';
create cast (text[] as embedd.argument) with function embedd.argument(text[]) as implicit;
comment on cast (text[] as embedd.argument) is 'An argument of a function of embedd';

create function embedd.to_integer(value text, name text) returns integer
    strict immutable parallel safe
    language c
    as 'MODULE_PATHNAME', 'to_integer_wrapper';
comment on function embedd.to_integer(text, text) is
    'The whole number of an argument of another type; its name is for the error';
create function embedd.to_options(value text) returns jsonb
    strict volatile parallel unsafe
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'to_options_wrapper';
comment on function embedd.to_options(text) is
    'The options of a provider in an argument of another type';

create function embedd.wait_until_synced(name text, timeout interval default null) returns void
    volatile parallel unsafe
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'wait_until_synced_wrapper';
comment on function embedd.wait_until_synced(text, interval) is
    'Waits until a vector table is synced, and tells how far it is; raises an error after the timeout, and at once where waiting does not help (paused, not backfilled, an error that lasts)';
create function embedd.verify(name text, sample integer) returns table (pk_value text, problem text)
    strict volatile parallel unsafe
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'verify_with_sample_wrapper';
comment on function embedd.verify(text, integer) is
    'The same, and the rows of a random sample whose vector is not what the model gives their text now (problem overwritten). Each row of the sample costs a call of the provider';
-- The second forms of functions, for arguments of other types than the first forms take (see argument.sql).

create function embedd.query(
    vector_table embedd.argument,
    query embedd.argument,
    "limit" embedd.number_argument default '10',
    filters embedd.argument default null,
    min_similarity_score embedd.number_argument default null,
    ef_search embedd.number_argument default null
) returns table (id text, score double precision, metadata jsonb, embedded_text text)
    language sql stable parallel restricted rows 10
begin atomic
    select q.id, q.score, q.metadata, q.embedded_text
      from embedd.query(vector_table::text, query::text, embedd.to_integer("limit"::text, 'limit'), filters::text::jsonb,
                        min_similarity_score::text::double precision, embedd.to_integer(ef_search::text, 'ef_search')) q;
end;
comment on function embedd.query(embedd.argument, embedd.argument, embedd.number_argument, embedd.argument, embedd.number_argument, embedd.number_argument) is
    'query() for arguments of other types: a limit of type bigint or numeric, filters of type json or text';

create function embedd.create_vector_table(
    name embedd.argument,
    source_table embedd.relation_argument,
    columns embedd.argument,
    primary_key_column embedd.argument default null,
    embedding_provider embedd.argument default 'local',
    embedding_model embedd.argument default null,
    embedding_dimensions embedd.number_argument default null,
    sync_mode embedd.argument default 'trigger',
    start_backfill boolean default false,
    batch_interval embedd.interval_argument default null,
    on_source_drop embedd.argument default 'keep'
) returns table (
    id integer,
    name text,
    provider text,
    source_table text,
    mode text,
    sync_status text,
    model text,
    dimensions integer,
    platform_vector_ref text,
    columns jsonb,
    created_at timestamp with time zone
)
    language sql volatile parallel unsafe rows 1
begin atomic
    select t.id, t.name, t.provider, t.source_table, t.mode, t.sync_status, t.model, t.dimensions, t.platform_vector_ref, t.columns, t.created_at
      from embedd.create_vector_table($1::text, $2::text::regclass, $3::text::jsonb, $4::text, $5::text, $6::text,
                                      embedd.to_integer($7::text, 'embedding_dimensions'), $8::text, $9,
                                      $10::text::interval, $11::text) t;
end;
comment on function embedd.create_vector_table(embedd.argument, embedd.relation_argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.number_argument, embedd.argument, boolean, embedd.interval_argument, embedd.argument) is
    'create_vector_table() for arguments of other types: columns of type json or text, dimensions of type bigint';

create function embedd.create_provider(
    name embedd.argument,
    provider embedd.argument,
    api_key embedd.argument default null,
    default_model embedd.argument default null,
    base_url embedd.argument default null,
    options embedd.argument default null
) returns table (id oid, name text, provider text, default_model text, base_url text, created_at timestamp with time zone)
    language sql volatile parallel unsafe rows 1
begin atomic
    select p.id, p.name, p.provider, p.default_model, p.base_url, p.created_at
      from embedd.create_provider($1::text, $2::text, $3::text, $4::text, $5::text, embedd.to_options($6::text)) p;
end;
comment on function embedd.create_provider(embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument) is
    'create_provider() for arguments of other types: options of type json or text';

create function embedd.update_provider(
    name embedd.argument,
    api_key embedd.argument default null,
    default_model embedd.argument default null,
    base_url embedd.argument default null,
    options embedd.argument default null
) returns table (id oid, name text, provider text, default_model text, base_url text, created_at timestamp with time zone)
    language sql volatile parallel unsafe rows 1
begin atomic
    select p.id, p.name, p.provider, p.default_model, p.base_url, p.created_at
      from embedd.update_provider($1::text, $2::text, $3::text, $4::text, embedd.to_options($5::text)) p;
end;
comment on function embedd.update_provider(embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument) is
    'update_provider() for arguments of other types: options of type json or text';

create function embedd.retry_failed(name embedd.argument, key embedd.argument) returns bigint
    language sql volatile parallel unsafe
begin atomic
    select embedd.retry_failed($1::text, $2::text);
end;
comment on function embedd.retry_failed(embedd.argument, embedd.argument) is
    'retry_failed() for a key of another type: bigint or uuid';

create function embedd.wait_until_synced(name embedd.argument, timeout embedd.interval_argument) returns void
    language sql volatile parallel unsafe
begin atomic
    select embedd.wait_until_synced($1::text, $2::text::interval);
end;
comment on function embedd.wait_until_synced(embedd.argument, embedd.interval_argument) is
    'wait_until_synced() for a timeout of type text, or a number of seconds';

create function embedd.verify(name embedd.argument, sample embedd.number_argument) returns table (pk_value text, problem text)
    language sql volatile parallel unsafe rows 100
begin atomic
    select v.pk_value, v.problem from embedd.verify($1::text, embedd.to_integer($2::text, 'sample')) v;
end;
comment on function embedd.verify(embedd.argument, embedd.number_argument) is
    'verify() for a sample of type bigint or numeric';

-- How many rows functions return, and that equal calls in one statement have equal results.
alter function embedd.query(text, text, integer, jsonb, double precision, integer) stable parallel restricted;
alter function embedd.embed(text, text) stable parallel restricted;
alter function embedd.doctor(boolean) rows 40;
alter function embedd.query(text, text, integer, jsonb, double precision, integer) rows 10;
alter function embedd.verify(text) rows 100;
alter function embedd.verify(text, integer) rows 100;
alter function embedd.usage_counts() rows 100;
alter function embedd.all_sync_status() rows 100;
alter function embedd.sync_status(text) rows 1;
alter function embedd.embedder_status() rows 1;
alter function embedd.backfill(text) rows 1;
alter function embedd.reconcile(text) rows 1;
alter function embedd.create_vector_table(text, regclass, jsonb, text, text, text, integer, text, boolean, interval, text) rows 1;
alter function embedd.create_provider(text, text, text, text, text, jsonb) rows 1;
alter function embedd.update_provider(text, text, text, text, jsonb) rows 1;
alter function embedd.test_provider(text, text) rows 1;
