-- From 0.7.0 to 0.8.0: a vector table changes without a gap.

alter table embedd.vector_tables
    add column origin_id integer,
    add column replaces integer,
    add column awaits_transactions text[],
    add column auto_swap boolean not null default true,
    add column on_shadow text,
    add column old_table text;
update embedd.vector_tables set origin_id = id;
alter table embedd.vector_tables alter column origin_id set not null;
alter table embedd.vector_tables drop constraint vector_tables_name_key;
create unique index vector_tables_name_key on embedd.vector_tables (name) where replaces is null;
create unique index vector_tables_replaces_key on embedd.vector_tables (replaces);
alter table embedd.tasks drop constraint tasks_phase_check;
alter table embedd.tasks add constraint tasks_phase_check check (phase in ('source', 'orphans', 'index', 'swap'));
comment on column embedd.vector_tables.id is 'number of the vector table; a re-backfill that changes model, dimensions or texts gives it another one';
comment on column embedd.vector_tables.sync_status is 'pending, backfilling, synced, paused or error, as a worker stored it; sync_status() and stat_vector_tables show the state at this moment. pending_rebackfill: update_vector_table() has changed what needs new vectors';
comment on column embedd.vector_tables.origin_id is 'number of the vector table at its creation, which its name and the triggers of the source carry';
comment on column embedd.vector_tables.replaces is 'for a shadow, the number of the vector table that it replaces after its backfill; null for a vector table that queries read';
comment on column embedd.vector_tables.awaits_transactions is 'transactions (pg_locks.virtualtransaction) that must end before the task begins, because they began before a change of what is captured; empty before they are listed, null when there is nothing to wait for';
comment on column embedd.vector_tables.auto_swap is 'for a shadow, whether the worker swaps it in as soon as it is ready; otherwise swap() does';
comment on column embedd.vector_tables.on_shadow is 'function (old regclass, new regclass) that is called when a shadow was created, to shape the new table like the old one';
comment on column embedd.vector_tables.old_table is 'name of the table that the last swap replaced, until the worker drops it: sessions with an older snapshot may read it';
comment on column embedd.vector_tables.query_prefix is 'prefix of every question when it is embedded; it changes with the model only';
comment on column embedd.vector_tables.document_prefix is 'prefix of every embedded text when it is embedded, not part of embedded_text; it changes with the model only';
comment on column embedd.tasks.phase is 'orphans: the worker removes rows whose source row is gone; source: it reads source rows page by page; index: it builds the vector index; swap: it puts the new table in the place of the old one';

-- Functions that change a live vector table.
create function embedd.update_vector_table(
    name text, columns jsonb default null, embedding_provider text default null, embedding_model text default null,
    embedding_dimensions integer default null, batch_interval interval default null, on_source_drop text default null,
    table_name text default null, table_schema text default null, vector_type text default null, index jsonb default null,
    on_shadow text default null)
    returns table (id integer, name text, sync_status text, changed text[], needs_backfill boolean, platform_vector_ref text)
    volatile parallel unsafe rows 1
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'update_vector_table_wrapper';
comment on function embedd.update_vector_table(text, jsonb, text, text, integer, interval, text, text, text, text, jsonb, text) is
    'Changes the configuration of a vector table; an argument that is null leaves its setting as it is. What leaves the vectors as they are is applied at once. For the rest a shadow is created, and needs_backfill is true: the next backfill() fills it and swaps it in, and queries use the table and the configuration before it until then. on_shadow names a function (old regclass, new regclass) that shapes the shadow';
create function embedd.update_vector_table(
    name embedd.argument,
    columns embedd.argument default null,
    embedding_provider embedd.argument default null,
    embedding_model embedd.argument default null,
    embedding_dimensions embedd.number_argument default null,
    batch_interval embedd.interval_argument default null,
    on_source_drop embedd.argument default null,
    table_name embedd.argument default null,
    table_schema embedd.argument default null,
    vector_type embedd.argument default null,
    index embedd.argument default null,
    on_shadow embedd.argument default null
) returns table (id integer, name text, sync_status text, changed text[], needs_backfill boolean, platform_vector_ref text)
    language sql volatile parallel unsafe rows 1
begin atomic
    select t.id, t.name, t.sync_status, t.changed, t.needs_backfill, t.platform_vector_ref
      from embedd.update_vector_table($1::text, $2::text::jsonb, $3::text, $4::text, embedd.to_integer($5::text, 'embedding_dimensions'),
                                      $6::text::interval, $7::text, $8::text, $9::text, $10::text, $11::text::jsonb, $12::text) t;
end;
comment on function embedd.update_vector_table(embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.number_argument, embedd.interval_argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument) is
    'Form of update_vector_table() for other argument types: columns of type json or text, dimensions of type bigint';
create function embedd.rename_vector_table(name text, new_name text) returns void
    strict volatile parallel unsafe
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'rename_vector_table_wrapper';
comment on function embedd.rename_vector_table(text, text) is
    'Gives a vector table another name for function calls; the table with the vectors keeps its name';
create function embedd.backfill(name text, auto_swap boolean)
    returns table (task_id bigint, task_type text, target_id integer, status text, created_at timestamp with time zone)
    strict volatile parallel unsafe rows 1
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'backfill_with_swap_wrapper';
comment on function embedd.backfill(text, boolean) is
    'Does what backfill(name) does; where update_vector_table() has changed what needs new vectors, auto_swap => false keeps the new table ready until swap() or discard()';
create function embedd.swap(name text)
    returns table (task_id bigint, task_type text, target_id integer, status text, created_at timestamp with time zone)
    strict volatile parallel unsafe rows 1
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'swap_wrapper';
comment on function embedd.swap(text) is
    'Asks the sync worker to put a shadow that is ready in the place of the vector table, and returns the task';
create function embedd.discard(name text) returns void
    strict volatile parallel unsafe
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'discard_wrapper';
comment on function embedd.discard(text) is
    'Drops the shadow of a vector table with the vectors it has: the vector table keeps its configuration';
create function embedd.compare(name text, queries text[], k integer default 10)
    returns table (query text, overlap double precision, mean_rank_change double precision, live_embed_ms double precision,
        shadow_embed_ms double precision, live_search_ms double precision, shadow_search_ms double precision,
        live_ids text[], shadow_ids text[])
    strict volatile parallel unsafe rows 10
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'compare_wrapper';
comment on function embedd.compare(text, text[], integer) is
    'Asks the same questions of a vector table and of its shadow: overlap (the part of the k nearest rows of the vector table that the shadow returns too), mean_rank_change (by how many places these rows move on average), and the milliseconds to embed the question and to find the rows';

comment on column embedd.stat_vector_tables.sync_status is 'pending, backfilling, syncing (changes wait, or source and vector table are compared), synced (source and vector table agree except for failed_rows, and no change waits), pending_rebackfill (a change of the configuration waits for a backfill or a swap), paused or error';

-- The type of the vectors, and the options of their index.
alter table embedd.vector_tables
    add column vector_type text not null default 'vector'
        constraint vector_tables_vector_type_check check (vector_type in ('vector', 'halfvec')),
    add column index_options jsonb;
comment on column embedd.vector_tables.vector_type is 'type of the column embedding: vector (4 bytes for each dimension) or halfvec (2 bytes)';
comment on column embedd.vector_tables.index_options is 'argument index of create_vector_table(); null means an hnsw index with the defaults of pgvector';

-- create_vector_table() takes more arguments. The old ones exist until the new ones have their privileges.
alter function embedd.create_vector_table(text, regclass, jsonb, text, text, text, integer, text, boolean, interval, text)
    rename to old_create_vector_table;
alter function embedd.create_vector_table(embedd.argument, embedd.relation_argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.number_argument, embedd.argument, boolean, embedd.interval_argument, embedd.argument)
    rename to old_create_vector_table;

create function embedd.create_vector_table(
    name text, source_table regclass, columns jsonb, primary_key_column text default null,
    embedding_provider text default 'local', embedding_model text default null,
    embedding_dimensions integer default null, sync_mode text default 'trigger', start_backfill boolean default false,
    batch_interval interval default null, on_source_drop text default 'keep', vector_type text default 'vector',
    index jsonb default null, table_name text default null, table_schema text default null)
    returns table (
        id integer, name text, provider text, source_table text, mode text, sync_status text, model text,
        dimensions integer, platform_vector_ref text, columns jsonb, created_at timestamp with time zone)
    volatile parallel unsafe rows 1
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'new_vector_table_wrapper';
comment on function embedd.create_vector_table(text, regclass, jsonb, text, text, text, integer, text, boolean, interval, text, text, jsonb, text, text) is
    'Creates a vector table for a source: a table in the schema of the source, its hnsw index, and the triggers that note changes of the source. With sync_mode => ''batch'' it creates no triggers, and a worker compares source and vector table every batch_interval. on_source_drop (keep or drop) says what happens to the vectors when the source is dropped. vector_type (vector or halfvec) is the type of the vectors, index has the keys method (hnsw or none), m and ef_construction, and table_name and table_schema name the table';

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
    on_source_drop embedd.argument default 'keep',
    vector_type embedd.argument default 'vector',
    index embedd.argument default null,
    table_name embedd.argument default null,
    table_schema embedd.argument default null
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
                                      $10::text::interval, $11::text, $12::text, $13::text::jsonb, $14::text, $15::text) t;
end;
comment on function embedd.create_vector_table(embedd.argument, embedd.relation_argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.number_argument, embedd.argument, boolean, embedd.interval_argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument) is
    'Form of create_vector_table() for other argument types: columns of type json or text, dimensions of type bigint';

-- The privileges are copied. A GRANT here would count as one that comes with the extension, and no dump has those.
do $$
declare
    old oid;
    new oid;
    this oid;
begin
    select d.oid into this from pg_catalog.pg_database d where d.datname = pg_catalog.current_database();
    for old, new in values
        ('embedd.old_create_vector_table(text, regclass, jsonb, text, text, text, integer, text, boolean, interval, text)'::regprocedure::oid,
         'embedd.create_vector_table(text, regclass, jsonb, text, text, text, integer, text, boolean, interval, text, text, jsonb, text, text)'::regprocedure::oid),
        ('embedd.old_create_vector_table(embedd.argument, embedd.relation_argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.number_argument, embedd.argument, boolean, embedd.interval_argument, embedd.argument)'::regprocedure::oid,
         'embedd.create_vector_table(embedd.argument, embedd.relation_argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.number_argument, embedd.argument, boolean, embedd.interval_argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument)'::regprocedure::oid)
    loop
        update pg_catalog.pg_proc p set proacl = o.proacl from pg_catalog.pg_proc o where p.oid = new and o.oid = old;
        -- The roles that are named in it.
        delete from pg_catalog.pg_shdepend s
         where s.dbid = this and s.classid = 'pg_catalog.pg_proc'::regclass::oid and s.objid = new and s.deptype = 'a'::"char";
        update pg_catalog.pg_shdepend s set objid = new
         where s.dbid = this and s.classid = 'pg_catalog.pg_proc'::regclass::oid and s.objid = old and s.deptype = 'a'::"char";
    end loop;
end
$$;
drop function embedd.old_create_vector_table(embedd.argument, embedd.relation_argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.number_argument, embedd.argument, boolean, embedd.interval_argument, embedd.argument);
drop function embedd.old_create_vector_table(text, regclass, jsonb, text, text, text, integer, text, boolean, interval, text);
