-- The tables embedd keeps its bookkeeping in. Vector tables themselves are ordinary tables beside their sources.

-- Refused before anything is made, by operators and functions that no role of a schema made beforehand can replace.
do $$
declare
    owner name;
begin
    if pg_catalog.getdatabaseencoding() operator(pg_catalog.<>) 'UTF8'::name then
        raise exception 'embedd needs a database whose encoding is UTF8'
            using errcode = 'feature_not_supported',
                  detail = pg_catalog.format('That of database "%s" is %s.', current_catalog, pg_catalog.getdatabaseencoding()),
                  hint = 'Make one: CREATE DATABASE .. TEMPLATE template0 ENCODING ''UTF8''.';
    end if;
    select r.rolname into owner
      from pg_catalog.pg_namespace n
      join pg_catalog.pg_roles r on r.oid operator(pg_catalog.=) n.nspowner
     where n.nspname operator(pg_catalog.=) 'embedd'::name
       and not r.rolsuper
       and r.rolname operator(pg_catalog.<>) current_user;
    if owner is not null then
        raise exception 'schema "embedd" belongs to another role'
            using errcode = 'object_not_in_prerequisite_state',
                  detail = pg_catalog.format('Role "%s" could replace what is in it.', owner),
                  hint = 'Drop the schema, or take it over when there is nothing strange in it: ALTER SCHEMA embedd OWNER TO CURRENT_USER.';
    end if;
end
$$;

create table embedd.models (
    provider text not null,
    model text not null,
    dimensions integer not null check (dimensions between 1 and 16000),
    is_default boolean not null default false,
    native_dimensions integer constraint models_native_dimensions_check check (native_dimensions between 1 and 16000),
    can_shorten boolean not null default false,
    tokens_per_text integer constraint models_tokens_per_text_check check (tokens_per_text > 0),
    texts_per_request integer constraint models_texts_per_request_check check (texts_per_request > 0),
    tokens_per_request integer constraint models_tokens_per_request_check check (tokens_per_request > 0),
    built_in boolean not null default false,
    query_prefix text,
    document_prefix text,
    retires_on date,
    replacement text,
    price_per_million_tokens numeric constraint models_price_per_million_tokens_check check (price_per_million_tokens >= 0::numeric),
    batch_price_per_million_tokens numeric
        constraint models_batch_price_per_million_tokens_check check (batch_price_per_million_tokens >= 0::numeric),
    primary key (provider, model),
    -- The name of a provider in place of its kind would never be found.
    constraint models_provider_check
        check (provider in ('local', 'openai', 'gemini', 'voyage', 'ollama', 'openai_compatible', 'test')),
    -- A dump carries the rows of users only, and they must not meet another default where they are restored.
    constraint models_is_default_check check (built_in or not is_default)
);
create unique index models_default_idx on embedd.models (provider) where is_default;
comment on table embedd.models is 'The model catalog: the embedding models that embedd knows, the dimensions of their vectors, and their limits. You may add rows';
comment on column embedd.models.provider is 'kind of provider: local, openai, gemini, voyage, ollama, openai_compatible or test';
comment on column embedd.models.model is 'name of the model, as the provider calls it';
comment on column embedd.models.dimensions is 'dimensions of a vector, unless embedding_dimensions says otherwise';
comment on column embedd.models.is_default is 'whether the model is used where neither the call nor default_model of the provider names one';
comment on column embedd.models.native_dimensions is 'dimensions of a vector where the request asks for no number; null means the same as dimensions';
comment on column embedd.models.can_shorten is 'whether the provider can return fewer dimensions than native_dimensions';
comment on column embedd.models.tokens_per_text is 'tokens of one text that the model reads; null means unknown';
comment on column embedd.models.texts_per_request is 'texts that the provider accepts in one request; null means unknown';
comment on column embedd.models.tokens_per_request is 'tokens that the provider accepts in one request; null means unknown';
comment on column embedd.models.built_in is 'whether the row came with embedd; pg_dump leaves such rows out';
comment on column embedd.models.query_prefix is 'prefix of a question when it is embedded; a vector table keeps the prefix from its creation';
comment on column embedd.models.document_prefix is 'prefix of a source text when it is embedded; a vector table keeps the prefix from its creation';
comment on column embedd.models.retires_on is 'first day on which the maker may retire the model; null means unknown or not announced';
comment on column embedd.models.replacement is 'model that the maker recommends instead';
comment on column embedd.models.price_per_million_tokens is 'price of a million tokens in US dollars; null means unknown. Prices change: update them from the price list of your provider';
comment on column embedd.models.batch_price_per_million_tokens is 'the same for the batch API of the provider; null means unknown, or that there is none';

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
    ('test', 'hash', 64, true, 64, false, null, null, null, true, null, null, null, null);
-- US dollars for a million tokens, as the makers have published them; Voyage's batches cost a third less, the others' half.
update embedd.models m
   set price_per_million_tokens = p.price, batch_price_per_million_tokens = p.batch_price
  from (values
        ('openai', 'text-embedding-3-small', 0.02, 0.01),
        ('openai', 'text-embedding-3-large', 0.13, 0.065),
        ('openai', 'text-embedding-ada-002', 0.10, 0.05),
        ('gemini', 'gemini-embedding-2', 0.20, 0.10),
        ('gemini', 'gemini-embedding-001', 0.15, 0.075),
        ('voyage', 'voyage-4', 0.06, 0.0402),
        ('voyage', 'voyage-4-large', 0.12, 0.0804),
        ('voyage', 'voyage-4-lite', 0.02, 0.0134),
        ('voyage', 'voyage-finance-2', 0.12, 0.0804),
        ('voyage', 'voyage-law-2', 0.12, 0.0804),
        ('voyage', 'voyage-3.5', 0.06, 0.0402),
        ('voyage', 'voyage-3.5-lite', 0.02, 0.0134),
        ('voyage', 'voyage-code-3', 0.18, 0.1206),
        ('voyage', 'voyage-3-large', 0.18, 0.1206),
        ('voyage', 'voyage-3-lite', 0.02, 0.0134)
       ) p(provider, model, price, batch_price)
 where m.built_in and m.provider = p.provider and m.model = p.model;
-- What runs on machines of the user's own has no price.
update embedd.models m set price_per_million_tokens = 0 where m.built_in and m.provider in ('local', 'ollama', 'test');

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
comment on function embedd.replace_built_in_model() is 'Trigger function: removes the built-in row of the model catalog that a new row replaces';
create trigger models_replace_built_in before insert on embedd.models
    for each row when (not new.built_in) execute function embedd.replace_built_in_model();

create table embedd.vector_tables (
    id integer generated always as identity primary key,
    name text not null,
    source_table regclass not null,
    primary_key_column text not null,
    key_types regtype[] not null,
    vector_table regclass not null unique,
    embedding_provider text not null,
    embedding_model text not null,
    embedding_dimensions integer not null,
    sync_mode text not null default 'trigger' check (sync_mode in ('trigger', 'batch')),
    columns jsonb not null,
    owner regrole not null,
    sync_status text not null default 'pending'
        check (sync_status in ('pending', 'backfilling', 'synced', 'paused', 'error', 'pending_rebackfill')),
    last_error text,
    last_error_at timestamptz,
    system_id bigint not null,
    created_at timestamptz not null default pg_catalog.now(),
    held_indexes text[],
    extension_id oid not null,
    source_name text not null,
    key_numbers smallint[] not null,
    column_numbers smallint[] not null,
    batch_interval interval,
    on_source_drop text not null default 'keep' check (on_source_drop in ('keep', 'drop')),
    unseen_since timestamptz,
    compared_in bigint not null default 0,
    error_kind text,
    error_since timestamptz,
    vectors_name text,
    query_prefix text,
    document_prefix text,
    origin_id integer not null,
    replaces integer,
    awaits_transactions text[],
    auto_swap boolean not null default true,
    on_shadow text,
    old_tables oid[] not null default '{}',
    vector_type text not null default 'vector' check (vector_type in ('vector', 'halfvec')),
    index_options jsonb,
    question_settings jsonb,
    mirrored_readers oid[] not null default '{}',
    measured_recall jsonb,
    constraint vector_tables_batch_interval_check check ((sync_mode = 'batch') = (batch_interval is not null))
);
-- A shadow has the name of the vector table that it replaces.
create unique index vector_tables_name_key on embedd.vector_tables (name) where replaces is null;
create unique index vector_tables_replaces_key on embedd.vector_tables (replaces);
comment on table embedd.vector_tables is 'Every vector table with its source, its model and the stored state of its sync. A role sees the vector tables whose owner''s rights it has';
comment on column embedd.vector_tables.id is 'number of the vector table; a re-backfill that changes model, dimensions or texts gives it another one';
comment on column embedd.vector_tables.name is 'name that every function call uses';
comment on column embedd.vector_tables.source_table is 'table whose rows are embedded';
comment on column embedd.vector_tables.primary_key_column is 'column of the source that identifies a row; a JSON array of names where the key has several columns';
comment on column embedd.vector_tables.key_types is 'types of the key columns';
comment on column embedd.vector_tables.vector_table is 'table that holds the vectors (platform_vector_ref)';
comment on column embedd.vector_tables.embedding_provider is 'provider that computes the vectors';
comment on column embedd.vector_tables.embedding_model is 'model that computes the vectors';
comment on column embedd.vector_tables.embedding_dimensions is 'dimensions of a vector';
comment on column embedd.vector_tables.sync_mode is 'how embedd detects changes: trigger (triggers note each change) or batch (a worker compares source and vector table every batch_interval)';
comment on column embedd.vector_tables.columns is 'configured columns in the form that create_vector_table() takes; source_column is the current name in the source where a column was renamed';
comment on column embedd.vector_tables.owner is 'owner of the vector table when a worker last saw it; the worker works with the rights of this role';
comment on column embedd.vector_tables.sync_status is 'pending, backfilling, synced, paused or error, as a worker stored it; sync_status() and stat_vector_tables show the state at this moment. pending_rebackfill: update_vector_table() has changed what needs new vectors';
comment on column embedd.vector_tables.last_error is 'why the last attempt failed; null after an attempt that succeeded';
comment on column embedd.vector_tables.last_error_at is 'when that attempt failed';
comment on column embedd.vector_tables.system_id is 'system identifier of the cluster that keeps the vector table in sync';
comment on column embedd.vector_tables.created_at is 'when the vector table was created';
comment on column embedd.vector_tables.held_indexes is 'vector indexes that are built after the first load; null when all of them exist';
comment on column embedd.vector_tables.extension_id is 'oid of the extension when the row was written; another oid means that the row came with a dump and its column numbers are not valid';
comment on column embedd.vector_tables.source_name is 'qualified name of the source when a worker last saw it; a table that is created under this name replaces a source that was dropped';
comment on column embedd.vector_tables.key_numbers is 'numbers of the key columns in the source (pg_attribute.attnum), which a rename keeps';
comment on column embedd.vector_tables.column_numbers is 'numbers of the configured columns in the source, in their order';
comment on column embedd.vector_tables.batch_interval is 'time between two comparisons in sync mode batch';
comment on column embedd.vector_tables.unseen_since is 'since when changes may have been missed (policies, children, triggers that do not fire); the table is compared as soon as they can be seen again';
comment on column embedd.vector_tables.compared_in is 'server start during which the vector table was created or compared; an unlogged table is empty after a crash and is compared again';
comment on column embedd.vector_tables.error_kind is 'what last_error is about: provider or table';
comment on column embedd.vector_tables.error_since is 'since when this error has lasted';
comment on column embedd.vector_tables.vectors_name is 'qualified name of the vector table when a worker last saw it; a table that the owner creates under this name replaces one that was dropped';
comment on column embedd.vector_tables.origin_id is 'number of the vector table at its creation, which its name and the triggers of the source carry';
comment on column embedd.vector_tables.replaces is 'for a shadow, the number of the vector table that it replaces after its backfill; null for a vector table that queries read';
comment on column embedd.vector_tables.awaits_transactions is 'transactions (pg_locks.virtualtransaction) that must end before the task begins, because they began before a change of what is captured; empty before they are listed, null when there is nothing to wait for';
comment on column embedd.vector_tables.auto_swap is 'for a shadow, whether the worker swaps it in as soon as it is ready; otherwise swap() does';
comment on column embedd.vector_tables.on_shadow is 'function (old regclass, new regclass) that is called when a shadow was created, to shape the new table like the old one';
comment on column embedd.vector_tables.old_tables is 'tables that swaps have replaced, until the worker drops them: sessions with an older snapshot may read them';
comment on column embedd.vector_tables.on_source_drop is 'what happens to the vectors when the source is dropped: keep (the status is error until a table of that name exists again) or drop';
comment on column embedd.vector_tables.query_prefix is 'prefix of every question when it is embedded; it changes with the model only';
comment on column embedd.vector_tables.document_prefix is 'prefix of every embedded text when it is embedded, not part of embedded_text; it changes with the model only';
comment on column embedd.vector_tables.vector_type is 'type of the column embedding: vector (4 bytes for each dimension) or halfvec (2 bytes)';
comment on column embedd.vector_tables.index_options is 'argument index of create_vector_table(); null means an hnsw index with the defaults of pgvector';
comment on column embedd.vector_tables.question_settings is 'arguments recall_target, query_provider, query_model, fallback and row_security of create_vector_table(), as far as they differ from the defaults';
comment on column embedd.vector_tables.mirrored_readers is 'roles (0 is PUBLIC) that have SELECT on the source and on the vector table, when a worker last looked; one that loses it on the source loses it on the vector table';
comment on column embedd.vector_tables.measured_recall is 'recall of the vector index at some values of hnsw.ef_search, as a worker measured it with stored vectors as questions; query() visits more of the index where that is needed for recall_target. Null while it is not measured';

create table embedd.queue (
    table_id integer not null,
    id bigint generated always as identity,
    system_id bigint not null,
    noted_at timestamptz not null,
    keys text[],
    portions smallint not null default 1,
    portion smallint not null default 0,
    key_count integer not null default 0,
    transaction xid8,
    is_paged boolean not null default false,
    primary key (table_id, portions, portion, system_id, id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000);
-- Compression would cost the writer more than the few pages it saves for a moment.
alter table embedd.queue alter column keys set storage external;
-- Rows of a transaction that ended after later ones were read are found by its number.
create index queue_transaction_idx on embedd.queue (transaction);
comment on table embedd.queue is 'Keys of changed source rows that the sync worker has not finished yet, many keys in a row';
comment on column embedd.queue.table_id is 'the vector table (embedd.vector_tables.id)';
comment on column embedd.queue.id is 'order of the changes; a later change of a key has a higher id';
comment on column embedd.queue.system_id is 'system identifier of the cluster where the change was made; workers read the rows of their own cluster only';
comment on column embedd.queue.noted_at is 'start of the transaction that changed the rows';
comment on column embedd.queue.keys is 'keys of the changed rows as text; empty after a change that removed any number of rows (TRUNCATE), null after a change of any number of rows';
comment on column embedd.queue.portions is 'number of sync workers that shared the keys when the row was written';
comment on column embedd.queue.portion is 'index of the sync worker that these keys belong to, by their hash';
comment on column embedd.queue.key_count is 'number of keys';
comment on column embedd.queue.transaction is 'transaction that wrote the row';
comment on column embedd.queue.is_paged is 'whether a backfill or a comparison found the keys, so that changes go first; without keys, the worker reads again what it has in work';

create table embedd.sync_state (
    table_id integer not null,
    portions smallint not null,
    portion smallint not null,
    done_id bigint not null default 0,
    open_transactions xid8[] not null default '{}',
    last_synced_at timestamptz,
    rate double precision,
    rate_at timestamptz,
    primary key (table_id, portions, portion)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
comment on table embedd.sync_state is 'Progress of each sync worker with each vector table, written every few seconds at most: for a quick start and a quick sync_status()';
comment on column embedd.sync_state.table_id is 'the vector table (embedd.vector_tables.id)';
comment on column embedd.sync_state.portions is 'number of sync workers that share the keys';
comment on column embedd.sync_state.portion is 'index of this sync worker';
comment on column embedd.sync_state.done_id is 'queue rows up to this id are done, except those of open_transactions';
comment on column embedd.sync_state.open_transactions is 'transactions that were running when done_id was written';
comment on column embedd.sync_state.last_synced_at is 'when the worker last applied changes to the vector table';
comment on column embedd.sync_state.rate is 'rows a second at that time';
comment on column embedd.sync_state.rate_at is 'when the rate was measured';

create table embedd.tasks (
    task_id bigint generated always as identity primary key,
    task_type text not null check (task_type in ('backfill', 'rebackfill', 'reconcile')),
    target_id integer not null,
    status text not null default 'pending' check (status in ('pending', 'running', 'completed', 'failed', 'cancelled')),
    priority integer not null default 3,
    attempts integer not null default 0,
    max_attempts integer not null default 3,
    phase text not null default 'orphans' check (phase in ('source', 'orphans', 'provider_batch', 'index', 'swap')),
    last_processed_pk text,
    processed_rows bigint not null default 0,
    last_error text,
    created_at timestamptz not null default pg_catalog.now(),
    started_at timestamptz,
    completed_at timestamptz,
    different_rows bigint not null default 0,
    rows_total bigint,
    rows_done bigint generated always as (processed_rows) stored,
    rate double precision,
    eta interval generated always as (case
        when status = 'running' and phase in ('orphans', 'source') and rate > 1e-9::double precision and rows_total is not null
            then pg_catalog.make_interval(secs =>
                least(greatest(rows_total - processed_rows, 0::bigint)::double precision / rate, 1e9::double precision)) end) stored,
    checkpoint_at timestamptz,
    stalled_attempts integer not null default 0,
    owes_comparison boolean not null default false,
    price text not null default 'standard' constraint tasks_price_check check (price in ('standard', 'batch'))
);
create unique index tasks_open_idx on embedd.tasks (target_id) where status in ('pending', 'running');
comment on table embedd.tasks is 'Backfills and comparisons: requested, running and finished. A role sees the tasks of the vector tables that it sees';
comment on column embedd.tasks.task_id is 'number of the task';
comment on column embedd.tasks.task_type is 'backfill (the first one of a vector table), rebackfill (a later one) or reconcile (compares source and vector table)';
comment on column embedd.tasks.target_id is 'the vector table (embedd.vector_tables.id)';
comment on column embedd.tasks.status is 'pending, running, completed, failed or cancelled (by cancel_backfill())';
comment on column embedd.tasks.priority is 'not used yet: a vector table has one open task at most, and the worker does those of several side by side';
comment on column embedd.tasks.attempts is 'how often a worker started the task, resumed it, or accepted another request for it';
comment on column embedd.tasks.max_attempts is 'how often in a row the worker process may end in the same step of the task before the task fails; nothing else limits the attempts: a worker retries what fails, with a growing backoff';
comment on column embedd.tasks.phase is 'orphans: the worker removes rows whose source row is gone; provider_batch: texts are at the provider''s batch API (embedd.provider_batches); source: it reads source rows page by page; index: it builds the vector index; swap: it puts the new table in the place of the old one';
comment on column embedd.tasks.last_processed_pk is 'every key up to this one is done in this phase; after a restart the worker continues behind it';
comment on column embedd.tasks.processed_rows is 'the same as rows_done';
comment on column embedd.tasks.last_error is 'why the last attempt failed';
comment on column embedd.tasks.created_at is 'when the task was requested';
comment on column embedd.tasks.started_at is 'when the task started';
comment on column embedd.tasks.completed_at is 'when the task ended';
comment on column embedd.tasks.different_rows is 'rows found missing, stale or orphaned so far';
comment on column embedd.tasks.rows_total is 'rows of the source when the task started: exact up to 10,000 rows and in sync mode batch, else the estimate of the planner''s statistics, because to count them would take too long; null where they cannot be counted';
comment on column embedd.tasks.rows_done is 'source rows that are done, as of the last checkpoint';
comment on column embedd.tasks.rate is 'rows a second over about the last half minute, as of the last checkpoint';
comment on column embedd.tasks.eta is 'time that the rows left need at that rate, as of the last checkpoint; without the vector index, which is built after them';
comment on column embedd.tasks.checkpoint_at is 'when rows_done was last written, or when a worker last started or resumed the task';
comment on column embedd.tasks.stalled_attempts is 'attempts since the task last advanced';
comment on column embedd.tasks.owes_comparison is 'whether the task also finds changes that no row trigger saw; where it is cancelled, a comparison follows';
comment on column embedd.tasks.price is 'standard, or batch: new texts are embedded through the provider''s batch API';

create table embedd.provider_batches (
    token uuid primary key,
    target_id integer not null,
    provider text not null,
    provider_batch text,
    texts integer not null,
    texts_done integer not null default 0,
    created_at timestamptz not null default pg_catalog.clock_timestamp(),
    submitted_at timestamptz,
    system_id bigint not null
);
create index provider_batches_target_id_idx on embedd.provider_batches (target_id);
comment on table embedd.provider_batches is 'Batches that are at the batch API of a provider now, for a backfill at the batch price. A role sees those of the vector tables that it sees';
comment on column embedd.provider_batches.token is 'token that the batch carries at the provider, by which a worker finds it after a crash';
comment on column embedd.provider_batches.target_id is 'the vector table (embedd.vector_tables.id)';
comment on column embedd.provider_batches.provider is 'provider that has the batch (embedd.providers.name)';
comment on column embedd.provider_batches.provider_batch is 'name of the batch at the provider; null until the provider has confirmed it';
comment on column embedd.provider_batches.texts is 'texts in the batch';
comment on column embedd.provider_batches.texts_done is 'texts that the provider had finished when the worker last asked';
comment on column embedd.provider_batches.created_at is 'when the worker planned the batch';
comment on column embedd.provider_batches.submitted_at is 'when the provider confirmed the batch';
comment on column embedd.provider_batches.system_id is 'cluster that has handed in the batch; a copy of the database collects its vectors, and does not cancel or delete it';

-- Texts by their hash: at a provider (no embedding yet), or paid for and not used by the backfill yet.
create table embedd.provider_batch_texts (
    target_id integer not null,
    text_id text not null,
    token uuid,
    embedding bytea,
    is_truncated boolean not null default false,
    refused text,
    primary key (target_id, text_id)
);
-- Vectors do not compress.
alter table embedd.provider_batch_texts alter column embedding set storage external;
create index provider_batch_texts_token_idx on embedd.provider_batch_texts (token) where token is not null;
comment on table embedd.provider_batch_texts is 'Texts of batches at a provider, and their vectors until the backfill has stored them';
comment on column embedd.provider_batch_texts.target_id is 'the vector table (embedd.vector_tables.id)';
comment on column embedd.provider_batch_texts.text_id is 'hash of model, dimensions, prefix and text (SHA-224, hexadecimal)';
comment on column embedd.provider_batch_texts.token is 'batch that the text is in (embedd.provider_batches.token); null when it has ended';
comment on column embedd.provider_batch_texts.embedding is 'vector: 4 bytes for each dimension, little-endian';
comment on column embedd.provider_batch_texts.is_truncated is 'whether the model reads only the beginning of the text';
comment on column embedd.provider_batch_texts.refused is 'why the provider rejects the text';

create table embedd.failed_rows (
    table_id integer not null,
    pk_value text not null,
    reason text not null,
    failed_at timestamptz not null default pg_catalog.now(),
    attempts integer not null default 1,
    first_failed_at timestamptz not null default pg_catalog.now()
);
-- A key may be longer than an entry of a btree index, and that of a failed row often is. Whole rows identify themselves
-- for logical replication.
create index failed_rows_table_id_idx on embedd.failed_rows (table_id);
create index failed_rows_pk_value_idx on embedd.failed_rows using hash (pk_value);
alter table embedd.failed_rows replica identity full;
comment on table embedd.failed_rows is 'Source rows that cannot be embedded, with the reason. A later change of the row tries it again, and so do retry_failed() and backfill()';
comment on column embedd.failed_rows.table_id is 'the vector table (embedd.vector_tables.id)';
comment on column embedd.failed_rows.pk_value is 'key of the row as text';
comment on column embedd.failed_rows.reason is 'why the row failed';
comment on column embedd.failed_rows.failed_at is 'when it failed most recently';
comment on column embedd.failed_rows.attempts is 'how often it has failed since it last succeeded';
comment on column embedd.failed_rows.first_failed_at is 'when it failed for the first time since it last succeeded';

create table embedd.truncated_rows (
    table_id integer not null,
    pk_value text not null
);
create index truncated_rows_table_id_idx on embedd.truncated_rows (table_id);
create index truncated_rows_pk_value_idx on embedd.truncated_rows using hash (pk_value);
alter table embedd.truncated_rows replica identity full;
comment on table embedd.truncated_rows is 'Source rows whose text is longer than the model reads, so that only its beginning was embedded';
comment on column embedd.truncated_rows.table_id is 'the vector table (embedd.vector_tables.id)';
comment on column embedd.truncated_rows.pk_value is 'key of the row as text';

-- What a dump has to carry. The queue is left out: a restored cluster reconciles every vector table instead.
select pg_catalog.pg_extension_config_dump('embedd.models', 'where not built_in');
select pg_catalog.pg_extension_config_dump('embedd.vector_tables', '');
select pg_catalog.pg_extension_config_dump('embedd.vector_tables_id_seq', '');
select pg_catalog.pg_extension_config_dump('embedd.tasks', '');
select pg_catalog.pg_extension_config_dump('embedd.tasks_task_id_seq', '');
select pg_catalog.pg_extension_config_dump('embedd.provider_batches', '');
select pg_catalog.pg_extension_config_dump('embedd.provider_batch_texts', '');
select pg_catalog.pg_extension_config_dump('embedd.failed_rows', '');
select pg_catalog.pg_extension_config_dump('embedd.truncated_rows', '');
