-- The tables embedd keeps its bookkeeping in. Vector tables themselves are ordinary tables beside their sources.

create table embedd.models (
    provider text not null,
    model text not null,
    dimensions integer not null check (dimensions between 1 and 16000),
    is_default boolean not null default false,
    primary key (provider, model)
);
create unique index models_default_idx on embedd.models (provider) where is_default;
comment on table embedd.models is 'The model catalog: which embedding models there are and how long their vectors are. More rows are welcome.';
comment on column embedd.models.provider is 'kind of provider: local';
comment on column embedd.models.model is 'the provider''s own name of the model';
comment on column embedd.models.dimensions is 'numbers in one vector';
comment on column embedd.models.is_default is 'whether the model is taken when none is named';

insert into embedd.models (provider, model, dimensions, is_default) values
    ('local', 'all-MiniLM-L6-v2', 384, true);

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
    created_at timestamptz not null default pg_catalog.now()
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
    phase text not null default 'source' check (phase in ('source', 'orphans')),
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
comment on column embedd.tasks.phase is 'source: rows are embedded page by page; orphans: rows whose source row is gone are removed';
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
select pg_catalog.pg_extension_config_dump('embedd.models', $$where provider <> 'local'$$);
select pg_catalog.pg_extension_config_dump('embedd.vector_tables', '');
select pg_catalog.pg_extension_config_dump('embedd.vector_tables_id_seq', '');
select pg_catalog.pg_extension_config_dump('embedd.tasks', '');
select pg_catalog.pg_extension_config_dump('embedd.tasks_task_id_seq', '');
select pg_catalog.pg_extension_config_dump('embedd.failed_rows', '');
select pg_catalog.pg_extension_config_dump('embedd.truncated_rows', '');
