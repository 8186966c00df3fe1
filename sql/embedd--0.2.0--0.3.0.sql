-- From 0.2.0 to 0.3.0: sources that are renamed, made anew or compared in batches, keys of several columns, several workers a
-- database, and a queue whose cost does not depend on how long somebody's transaction lasts.

alter table embedd.vector_tables rename column key_type to key_types;
alter table embedd.vector_tables
    alter column key_types type regtype[] using array[key_types],
    drop constraint vector_tables_sync_mode_check,
    add constraint vector_tables_sync_mode_check check (sync_mode in ('trigger', 'batch')),
    add column extension_id oid,
    add column source_name text,
    add column key_numbers smallint[],
    add column column_numbers smallint[],
    add column batch_interval interval,
    add column on_source_drop text not null default 'keep'
        constraint vector_tables_on_source_drop_check check (on_source_drop in ('keep', 'drop')),
    add constraint vector_tables_batch_interval_check check ((sync_mode = 'batch') = (batch_interval is not null));
-- A column that is gone has number 0: then it is found by its name, or is missed.
update embedd.vector_tables v
   set extension_id = (select e.oid from pg_catalog.pg_extension e where e.extname = 'embedd'),
       source_name = coalesce((
           select pg_catalog.format('%I.%I', n.nspname, c.relname)
             from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
            where c.oid = v.source_table::oid), ''),
       key_numbers = array[coalesce((
           select a.attnum from pg_catalog.pg_attribute a
            where a.attrelid = v.source_table::oid and a.attname::text = v.primary_key_column and not a.attisdropped), 0::smallint)],
       column_numbers = array(
           select coalesce(a.attnum, 0::smallint)
             from pg_catalog.jsonb_array_elements(v.columns) with ordinality c(c, n)
             left join pg_catalog.pg_attribute a
               on a.attrelid = v.source_table::oid and a.attname::text = c.c operator(pg_catalog.->>) 'name'::text and not a.attisdropped
            order by c.n);
alter table embedd.vector_tables
    alter column extension_id set not null,
    alter column source_name set not null,
    alter column key_numbers set not null,
    alter column column_numbers set not null;
comment on table embedd.vector_tables is 'Every vector table: its source, its model and the state of its sync. A role sees those whose owner''s rights it has.';
comment on column embedd.vector_tables.sync_status is 'pending, backfilling, synced, paused or error; pending_rebackfill is never set yet';
comment on column embedd.vector_tables.primary_key_column is 'column of the source that names a row; of several a JSON array of their names';
comment on column embedd.vector_tables.key_types is 'types of these columns';
comment on column embedd.vector_tables.sync_mode is 'how changes are noticed: trigger (as they are made) or batch (by comparing source and vector table every now and then)';
comment on column embedd.vector_tables.columns is 'the configured columns, in the form create_vector_table takes them; source_column is the name in the source where a column was renamed since';
comment on column embedd.vector_tables.extension_id is 'oid of the extension at the time; another one tells that the row came with a dump, and that the numbers of columns mean nothing';
comment on column embedd.vector_tables.source_name is 'qualified name of the source when it was last seen: a table made anew under it takes the place of one that was dropped';
comment on column embedd.vector_tables.key_numbers is 'numbers of the key''s columns in the source (pg_attribute.attnum), which outlive a new name';
comment on column embedd.vector_tables.column_numbers is 'numbers of the configured columns in the source, in their order';
comment on column embedd.vector_tables.batch_interval is 'time between two comparisons in sync mode batch';
comment on column embedd.vector_tables.on_source_drop is 'what becomes of the vectors when the source is dropped: keep (the status is error until there is a table of that name again) or drop';

alter table embedd.queue
    add column portions smallint not null default 1,
    add column portion smallint not null default 0,
    add column key_count integer not null default 0,
    add column transaction xid8,
    add column is_paged boolean not null default false,
    drop constraint queue_pkey,
    add primary key (table_id, portions, portion, id);
update embedd.queue set key_count = pg_catalog.cardinality(keys) where keys is not null;
create index queue_transaction_idx on embedd.queue (transaction);
comment on column embedd.queue.keys is 'keys of the changed rows as text; empty when any number of rows has gone (TRUNCATE), null when any number of rows changed';
comment on column embedd.queue.portions is 'how many sync workers shared the keys when the row was written';
comment on column embedd.queue.portion is 'which of them these keys belong to, by their hash';
comment on column embedd.queue.key_count is 'number of keys';
comment on column embedd.queue.transaction is 'the transaction that wrote the row';
comment on column embedd.queue.is_paged is 'whether the keys come from a backfill or a comparison, which changes overtake; without keys: what is in work is looked at again';

create table embedd.sync_state (
    table_id integer not null references embedd.vector_tables (id) on delete cascade,
    portions smallint not null,
    portion smallint not null,
    done_id bigint not null default 0,
    open_transactions xid8[] not null default '{}',
    last_synced_at timestamptz,
    rate double precision,
    rate_at timestamptz,
    primary key (table_id, portions, portion)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
comment on table embedd.sync_state is 'How far each sync worker is with each vector table; written at most every few seconds, for a quick answer of sync_status() and a quick start.';
comment on column embedd.sync_state.table_id is 'the vector table (embedd.vector_tables.id)';
comment on column embedd.sync_state.portions is 'how many sync workers share the keys';
comment on column embedd.sync_state.portion is 'which of them this is';
comment on column embedd.sync_state.done_id is 'rows of the queue up to this one are done, but those of the open transactions';
comment on column embedd.sync_state.open_transactions is 'transactions that had not ended when that was written';
comment on column embedd.sync_state.last_synced_at is 'when changes were last brought into the vector table';
comment on column embedd.sync_state.rate is 'rows a second done then';
comment on column embedd.sync_state.rate_at is 'when the rate was measured';

-- For all portions together: the latest of them is shown.
insert into embedd.sync_state (table_id, portions, portion, last_synced_at)
select v.id, 1, 0, v.last_synced_at from embedd.vector_tables v where v.last_synced_at is not null;
alter table embedd.vector_tables drop column last_synced_at;

alter table embedd.tasks
    drop constraint tasks_task_type_check,
    add constraint tasks_task_type_check check (task_type in ('backfill', 'rebackfill', 'reconcile')),
    add column different_rows bigint not null default 0;
comment on table embedd.tasks is 'Backfills and comparisons: asked for, running and ended. A role sees those of the vector tables it sees.';
comment on column embedd.tasks.task_type is 'backfill (the first of a vector table), rebackfill or reconcile (source and vector table are compared)';
comment on column embedd.tasks.priority is 'has no effect yet: a vector table has one open task at most, and those of several are worked on side by side';
comment on column embedd.tasks.attempts is 'how often it was begun, taken up again or asked for anew';
comment on column embedd.tasks.max_attempts is 'has no effect yet: what fails is tried again ever more slowly';
comment on column embedd.tasks.different_rows is 'rows that were missing, stale or orphaned so far';

alter table embedd.failed_rows
    add column attempts integer not null default 1,
    add column first_failed_at timestamptz not null default pg_catalog.now();
update embedd.failed_rows set first_failed_at = failed_at;
comment on table embedd.failed_rows is 'Rows that cannot be embedded, with the reason. A later change of the row tries again, and so does retry_failed().';
comment on column embedd.failed_rows.failed_at is 'when it failed the last time';
comment on column embedd.failed_rows.attempts is 'how often it has failed since it last went well';
comment on column embedd.failed_rows.first_failed_at is 'when it failed the first time since then';

-- What returns or takes more is made anew; the old ones are there until their rights have been taken over.
alter function embedd.create_vector_table(text, regclass, jsonb, text, text, text, integer, text, boolean)
    rename to old_create_vector_table;
alter function embedd.sync_status(text) rename to old_sync_status;

create function embedd.create_vector_table(
    name text, source_table regclass, columns jsonb, primary_key_column text default null,
    embedding_provider text default 'local', embedding_model text default null,
    embedding_dimensions integer default null, sync_mode text default 'trigger', start_backfill boolean default false,
    batch_interval interval default null, on_source_drop text default 'keep')
    returns table (
        id integer, name text, provider text, source_table text, mode text, sync_status text, model text,
        dimensions integer, platform_vector_ref text, columns jsonb, created_at timestamp with time zone)
    language c
    set search_path = pg_catalog, pg_temp
    as 'MODULE_PATHNAME', 'make_vector_table_wrapper';

create function embedd.sync_status(name text)
    returns table (
        sync_status text, synced_rows bigint, total_rows bigint, last_synced_at timestamp with time zone,
        rows_pending bigint, staleness_secs double precision, last_error text, last_error_at timestamp with time zone,
        failed_rows bigint, truncated_rows bigint, rate double precision, eta interval,
        oldest_pending_secs double precision, is_estimated boolean)
    language c strict
    set search_path = pg_catalog, pg_temp
    as 'MODULE_PATHNAME', 'state_of_sync_wrapper';

-- Who may call them stays as it was. A GRANT here would count as a right that comes with the extension, and no dump has those.
do $$
declare
    old oid;
    new oid;
    this oid;
begin
    select d.oid into this from pg_catalog.pg_database d where d.datname = pg_catalog.current_database();
    for old, new in values
        ('embedd.old_create_vector_table(text, regclass, jsonb, text, text, text, integer, text, boolean)'::regprocedure::oid,
         'embedd.create_vector_table(text, regclass, jsonb, text, text, text, integer, text, boolean, interval, text)'::regprocedure::oid),
        ('embedd.old_sync_status(text)'::regprocedure::oid, 'embedd.sync_status(text)'::regprocedure::oid)
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
drop function embedd.old_create_vector_table(text, regclass, jsonb, text, text, text, integer, text, boolean);
drop function embedd.old_sync_status(text);

create function embedd.verify(name text)
    returns table (pk_value text, problem text)
    language c strict
    set search_path = pg_catalog, pg_temp
    as 'MODULE_PATHNAME', 'verify_wrapper';

create function embedd.reconcile(name text)
    returns table (task_id bigint, task_type text, target_id integer, status text, created_at timestamp with time zone)
    language c strict
    set search_path = pg_catalog, pg_temp
    as 'MODULE_PATHNAME', 'reconcile_wrapper';

create function embedd.retry_failed(name text, key text default null) returns bigint
    language c
    set search_path = pg_catalog, pg_temp
    as 'MODULE_PATHNAME', 'retry_failed_wrapper';

comment on function embedd.create_vector_table(text, regclass, jsonb, text, text, text, integer, text, boolean, interval, text) is
    'Creates a vector table for a source: a table in the source''s schema, its hnsw index and the triggers that note changes. With sync_mode batch it is compared with the source every batch_interval instead; on_source_drop is keep or drop';
comment on function embedd.reconcile(text) is
    'Asks the sync worker to compare every row of source and vector table and to put right what differs; embedd.tasks tells how many rows did';
comment on function embedd.verify(text) is
    'Every row in which a vector table differs from its source now: pk_value and problem, which is missing, stale or orphaned. Rows in embedd.failed_rows are not among them';
comment on function embedd.retry_failed(text, text) is
    'Has rows that have failed tried again, the one with this key or all of them; returns how many';
comment on function embedd.sync_status(text) is
    'How the sync of a vector table stands; synced_rows = total_rows and rows_pending = 0 means done. rate is rows a second, oldest_pending_secs the age of the oldest change that waits, staleness_secs how old the vectors may be, and is_estimated tells that a number is too large to be counted each time';

-- The worker has waited for this.
select embedd.start_sync();
