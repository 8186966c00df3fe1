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
    primary key (provider, model),
    -- The name of a provider in place of its kind would never be found.
    constraint models_provider_check
        check (provider in ('local', 'openai', 'gemini', 'voyage', 'ollama', 'openai_compatible')),
    -- A dump carries the rows of users only, and they must not meet another default where they are restored.
    constraint models_is_default_check check (built_in or not is_default)
);
create unique index models_default_idx on embedd.models (provider) where is_default;
comment on table embedd.models is 'The model catalog: which embedding models there are, how long their vectors are and what they take. More rows are welcome.';
comment on column embedd.models.provider is 'kind of provider: local, openai, gemini, voyage, ollama or openai_compatible';
comment on column embedd.models.model is 'the provider''s own name of the model';
comment on column embedd.models.dimensions is 'numbers in one vector, unless embedding_dimensions says otherwise';
comment on column embedd.models.is_default is 'whether the model is taken when none is named, neither in the call nor as the provider''s default_model';
comment on column embedd.models.native_dimensions is 'numbers in one vector when the provider is not asked for a number; null is the same as dimensions';
comment on column embedd.models.can_shorten is 'whether the provider can be asked for fewer than native_dimensions';
comment on column embedd.models.tokens_per_text is 'tokens of one text that the model reads; null is unknown';
comment on column embedd.models.texts_per_request is 'texts that the provider takes in one request; null is unknown';
comment on column embedd.models.tokens_per_request is 'tokens that the provider takes in one request; null is unknown';
comment on column embedd.models.built_in is 'whether the row came with embedd, and is not part of a dump';

insert into embedd.models (provider, model, dimensions, is_default, native_dimensions, can_shorten,
        tokens_per_text, texts_per_request, tokens_per_request, built_in) values
    ('local', 'all-MiniLM-L6-v2', 384, true, 384, false, 256, null, null, true),
    ('openai', 'text-embedding-3-small', 1536, true, 1536, true, 8191, 2048, 300000, true),
    ('openai', 'text-embedding-3-large', 3072, false, 3072, true, 8191, 2048, 300000, true),
    ('openai', 'text-embedding-ada-002', 1536, false, 1536, false, 8191, 2048, 300000, true),
    ('gemini', 'gemini-embedding-001', 3072, true, 3072, true, 2048, 100, null, true),
    ('gemini', 'text-embedding-005', 768, false, 768, false, 2048, 100, null, true),
    ('gemini', 'text-embedding-004', 768, false, 768, false, 2048, 100, null, true),
    ('voyage', 'voyage-3.5', 1024, true, 1024, true, 32000, 1000, 320000, true),
    ('voyage', 'voyage-3.5-lite', 512, false, 1024, true, 32000, 1000, 1000000, true),
    ('voyage', 'voyage-code-3', 1024, false, 1024, true, 32000, 1000, 120000, true),
    ('voyage', 'voyage-3-large', 1024, false, 1024, true, 32000, 1000, 120000, true),
    ('voyage', 'voyage-3-lite', 512, false, 512, false, 32000, 1000, 1000000, true);

create table embedd.vector_tables (
    id integer generated always as identity primary key,
    name text not null unique,
    source_table regclass not null,
    primary_key_column text not null,
    key_type regtype not null,
    vector_table regclass not null unique,
    embedding_provider text not null,
    embedding_model text not null,
    embedding_dimensions integer not null,
    sync_mode text not null default 'trigger' check (sync_mode in ('trigger')),
    columns jsonb not null,
    owner regrole not null,
    sync_status text not null default 'pending'
        check (sync_status in ('pending', 'backfilling', 'synced', 'paused', 'error', 'pending_rebackfill')),
    last_synced_at timestamptz,
    last_error text,
    last_error_at timestamptz,
    system_id bigint not null,
    created_at timestamptz not null default pg_catalog.now(),
    held_indexes text[]
);
comment on table embedd.vector_tables is 'Every vector table: its source, its model and the state of its sync. A role sees those it owns or may read.';
comment on column embedd.vector_tables.id is 'embedd''s own number of the vector table, carried by the triggers of its source';
comment on column embedd.vector_tables.name is 'the name used in every function call';
comment on column embedd.vector_tables.source_table is 'the table whose rows are embedded';
comment on column embedd.vector_tables.primary_key_column is 'column of the source that names a row';
comment on column embedd.vector_tables.key_type is 'type of that column';
comment on column embedd.vector_tables.vector_table is 'the table that holds the vectors (platform_vector_ref)';
comment on column embedd.vector_tables.embedding_provider is 'who computes the vectors';
comment on column embedd.vector_tables.embedding_model is 'the model that computes them';
comment on column embedd.vector_tables.embedding_dimensions is 'numbers in one vector';
comment on column embedd.vector_tables.sync_mode is 'how changes are noticed: trigger';
comment on column embedd.vector_tables.columns is 'the configured columns, in the form create_vector_table takes them';
comment on column embedd.vector_tables.owner is 'the role that made it; the worker has the rights of the vector table''s owner, which is this role unless it was changed';
comment on column embedd.vector_tables.sync_status is 'pending, backfilling, synced, paused, error or pending_rebackfill';
comment on column embedd.vector_tables.last_synced_at is 'when the worker last brought changes into the vector table (written at most every few seconds)';
comment on column embedd.vector_tables.last_error is 'why the last attempt failed; null once an attempt has succeeded';
comment on column embedd.vector_tables.last_error_at is 'when it failed';
comment on column embedd.vector_tables.system_id is 'system identifier of the cluster that keeps this table in sync';
comment on column embedd.vector_tables.created_at is 'when it was made';
comment on column embedd.vector_tables.held_indexes is 'vector indexes that are built after the first load; null when all are in place';

create table embedd.queue (
    table_id integer not null,
    id bigint generated always as identity,
    system_id bigint not null,
    noted_at timestamptz not null,
    keys text[],
    primary key (table_id, id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000);
-- Compression would cost the writer more than the few pages it saves for a moment.
alter table embedd.queue alter column keys set storage external;
comment on table embedd.queue is 'Keys of changed source rows that the sync worker has not finished yet, packed many to a row.';
comment on column embedd.queue.table_id is 'the vector table (embedd.vector_tables.id)';
comment on column embedd.queue.id is 'order of noting; a later change of a key has a higher id';
comment on column embedd.queue.system_id is 'system identifier of the cluster where the change was made; workers take their own cluster''s only';
comment on column embedd.queue.noted_at is 'start of the transaction that changed the rows';
comment on column embedd.queue.keys is 'keys of the changed rows as text; null when any number of rows changed (TRUNCATE)';

create table embedd.tasks (
    task_id bigint generated always as identity primary key,
    task_type text not null check (task_type in ('backfill', 'rebackfill')),
    target_id integer not null references embedd.vector_tables (id) on delete cascade,
    status text not null default 'pending' check (status in ('pending', 'running', 'completed', 'failed')),
    priority integer not null default 3,
    attempts integer not null default 0,
    max_attempts integer not null default 3,
    phase text not null default 'source' check (phase in ('source', 'orphans', 'index')),
    last_processed_pk text,
    processed_rows bigint not null default 0,
    last_error text,
    created_at timestamptz not null default pg_catalog.now(),
    started_at timestamptz,
    completed_at timestamptz
);
create unique index tasks_open_idx on embedd.tasks (target_id) where status in ('pending', 'running');
comment on table embedd.tasks is 'Backfills: asked for, running and ended. A role sees those of the vector tables it sees.';
comment on column embedd.tasks.task_id is 'number of the task';
comment on column embedd.tasks.task_type is 'backfill (the first of a vector table) or rebackfill';
comment on column embedd.tasks.target_id is 'the vector table (embedd.vector_tables.id)';
comment on column embedd.tasks.status is 'pending, running, completed or failed';
comment on column embedd.tasks.priority is 'lower goes first';
comment on column embedd.tasks.attempts is 'how often it was begun or taken up again';
comment on column embedd.tasks.max_attempts is 'attempts that may fail for a reason of the table''s own';
comment on column embedd.tasks.phase is 'source: rows are embedded page by page; orphans: rows whose source row is gone are removed; index: the vector index is built';
comment on column embedd.tasks.last_processed_pk is 'every key up to this one is done in this phase; a restart goes on behind it';
comment on column embedd.tasks.processed_rows is 'source rows looked at so far';
comment on column embedd.tasks.last_error is 'why the last attempt failed';
comment on column embedd.tasks.created_at is 'when it was asked for';
comment on column embedd.tasks.started_at is 'when it was begun';
comment on column embedd.tasks.completed_at is 'when it ended';

create table embedd.failed_rows (
    table_id integer not null references embedd.vector_tables (id) on delete cascade,
    pk_value text not null,
    reason text not null,
    failed_at timestamptz not null default pg_catalog.now(),
    primary key (table_id, pk_value)
);
comment on table embedd.failed_rows is 'Rows that cannot be embedded, with the reason. A later change of the row tries again.';
comment on column embedd.failed_rows.table_id is 'the vector table (embedd.vector_tables.id)';
comment on column embedd.failed_rows.pk_value is 'key of the row as text';
comment on column embedd.failed_rows.reason is 'what was wrong with it';
comment on column embedd.failed_rows.failed_at is 'when it failed';

create table embedd.truncated_rows (
    table_id integer not null references embedd.vector_tables (id) on delete cascade,
    pk_value text not null,
    primary key (table_id, pk_value)
);
comment on table embedd.truncated_rows is 'Rows whose text is longer than the model takes, so that only its beginning was embedded.';
comment on column embedd.truncated_rows.table_id is 'the vector table (embedd.vector_tables.id)';
comment on column embedd.truncated_rows.pk_value is 'key of the row as text';

-- What a dump has to carry. The queue is left out: a restored cluster reconciles every vector table instead.
select pg_catalog.pg_extension_config_dump('embedd.models', 'where not built_in');
select pg_catalog.pg_extension_config_dump('embedd.vector_tables', '');
select pg_catalog.pg_extension_config_dump('embedd.vector_tables_id_seq', '');
select pg_catalog.pg_extension_config_dump('embedd.tasks', '');
select pg_catalog.pg_extension_config_dump('embedd.tasks_task_id_seq', '');
select pg_catalog.pg_extension_config_dump('embedd.failed_rows', '');
select pg_catalog.pg_extension_config_dump('embedd.truncated_rows', '');
