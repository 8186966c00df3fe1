-- From 0.4.0 to 0.5.0: a status that tells the truth, also of what is out of sight, and tables that survive every way of
-- copying a database.

alter table embedd.vector_tables
    add column unseen_since timestamptz,
    add column compared_in bigint not null default 0,
    add column error_kind text,
    add column error_since timestamptz,
    add column vectors_name text;
comment on column embedd.vector_tables.unseen_since is 'since when changes may have been missed (policies, children, triggers that do not fire): the table is compared as soon as they are seen again';
comment on column embedd.vector_tables.compared_in is 'start of the server in which it was made or compared: an unlogged table is empty after a crash, and is compared again';
comment on column embedd.vector_tables.error_kind is 'whose trouble last_error is: provider or table';
comment on column embedd.vector_tables.error_since is 'since when there is such trouble';
comment on column embedd.vector_tables.vectors_name is 'qualified name of the vector table when it was last seen: a table that its owner created again under it takes the place of one that was dropped';
comment on column embedd.vector_tables.owner is 'the owner of the vector table when it was last seen, with whose rights the worker does its work';
comment on column embedd.vector_tables.sync_status is 'pending, backfilling, synced, paused or error, as a worker has noted it; sync_status() and stat_vector_tables tell whether it is so at this moment; pending_rebackfill is never set yet';

-- Rows of another cluster, which logical replication brings, have numbers of that cluster's sequence.
alter table embedd.queue
    drop constraint queue_pkey,
    add primary key (table_id, portions, portion, system_id, id);

-- Foreign keys would say in which order a dump is to be restored.
alter table embedd.sync_state drop constraint sync_state_table_id_fkey;
alter table embedd.tasks drop constraint tasks_target_id_fkey;
alter table embedd.failed_rows drop constraint failed_rows_table_id_fkey;
alter table embedd.truncated_rows drop constraint truncated_rows_table_id_fkey;

-- A key may be longer than an entry of a btree index, and that of a failed row often is. Whole rows identify themselves
-- for logical replication.
alter table embedd.failed_rows drop constraint failed_rows_pkey;
create index failed_rows_table_id_idx on embedd.failed_rows (table_id);
create index failed_rows_pk_value_idx on embedd.failed_rows using hash (pk_value);
alter table embedd.failed_rows replica identity full;
alter table embedd.truncated_rows drop constraint truncated_rows_pkey;
create index truncated_rows_table_id_idx on embedd.truncated_rows (table_id);
create index truncated_rows_pk_value_idx on embedd.truncated_rows using hash (pk_value);
alter table embedd.truncated_rows replica identity full;

-- What returns more is created again; the old one is there until its rights have been taken over.
alter function embedd.sync_status(text) rename to old_sync_status;
create function embedd.sync_status(name text) returns table (
    sync_status text,
    synced_rows bigint,
    total_rows bigint,
    last_synced_at timestamp with time zone,
    rows_pending bigint,
    staleness_secs double precision,
    last_error text,
    last_error_at timestamp with time zone,
    failed_rows bigint,
    truncated_rows bigint,
    rate double precision,
    eta interval,
    oldest_pending_secs double precision,
    is_estimated boolean,
    worker_state text,
    worker_since timestamp with time zone,
    provider_state text,
    provider_since timestamp with time zone
)
    strict volatile parallel unsafe
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'status_of_one_wrapper';
-- Who may call it stays as it was. A GRANT here would count as a right that comes with the extension, and no dump has those.
do $$
declare
    old constant oid := 'embedd.old_sync_status(text)'::regprocedure::oid;
    new constant oid := 'embedd.sync_status(text)'::regprocedure::oid;
    this oid;
begin
    select d.oid into this from pg_catalog.pg_database d where d.datname = pg_catalog.current_database();
    update pg_catalog.pg_proc p set proacl = o.proacl from pg_catalog.pg_proc o where p.oid = new and o.oid = old;
    delete from pg_catalog.pg_shdepend s
     where s.dbid = this and s.classid = 'pg_catalog.pg_proc'::regclass::oid and s.objid = new and s.deptype = 'a'::"char";
    update pg_catalog.pg_shdepend s set objid = new
     where s.dbid = this and s.classid = 'pg_catalog.pg_proc'::regclass::oid and s.objid = old and s.deptype = 'a'::"char";
end
$$;
drop function embedd.old_sync_status(text);
create function embedd.all_sync_status() returns table (
    id integer,
    name text,
    source_table text,
    vector_table text,
    embedding_provider text,
    embedding_model text,
    sync_mode text,
    sync_status text,
    synced_rows bigint,
    total_rows bigint,
    last_synced_at timestamp with time zone,
    rows_pending bigint,
    staleness_secs double precision,
    last_error text,
    last_error_at timestamp with time zone,
    failed_rows bigint,
    truncated_rows bigint,
    rate double precision,
    eta interval,
    oldest_pending_secs double precision,
    is_estimated boolean,
    worker_state text,
    worker_since timestamp with time zone,
    provider_state text,
    provider_since timestamp with time zone
)
    strict volatile parallel unsafe
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'status_of_all_wrapper';
comment on function embedd.sync_status(text) is
    'How the sync of a vector table stands at this moment. synced means that source and vector table agree but for failed_rows and that nothing waits; syncing that changes wait or are compared. rate is rows a second, oldest_pending_secs the age of the oldest change that waits, staleness_secs how old the vectors may be; is_estimated tells that a number is too large to be counted each time, worker_state and provider_state how those two are';
comment on function embedd.all_sync_status() is
    'The same of every vector table that the role may read, or of all for members of pg_monitor; embedd.stat_vector_tables shows it';

create view embedd.stat_vector_tables with (security_barrier) as
    select * from embedd.all_sync_status();
comment on view embedd.stat_vector_tables is 'How the sync of every vector table stands, as sync_status() tells it of one. A role sees those it may read; members of pg_monitor see all.';
comment on column embedd.stat_vector_tables.id is 'number of the vector table (embedd.vector_tables.id)';
comment on column embedd.stat_vector_tables.name is 'the name used in every function call';
comment on column embedd.stat_vector_tables.source_table is 'the table whose rows are embedded';
comment on column embedd.stat_vector_tables.vector_table is 'the table that holds the vectors';
comment on column embedd.stat_vector_tables.embedding_provider is 'the provider that computes the vectors';
comment on column embedd.stat_vector_tables.embedding_model is 'the model that computes them';
comment on column embedd.stat_vector_tables.sync_mode is 'trigger or batch';
comment on column embedd.stat_vector_tables.sync_status is 'pending, backfilling, syncing, synced, paused, error or pending_rebackfill, as it is at this moment';
comment on column embedd.stat_vector_tables.synced_rows is 'rows of the vector table';
comment on column embedd.stat_vector_tables.total_rows is 'rows of the source; null where they cannot be counted';
comment on column embedd.stat_vector_tables.last_synced_at is 'when changes were last brought into the vector table';
comment on column embedd.stat_vector_tables.rows_pending is 'changes that wait, and rows that a backfill has before it';
comment on column embedd.stat_vector_tables.staleness_secs is 'how old the vectors may be, in seconds';
comment on column embedd.stat_vector_tables.last_error is 'why it is not synced, and what to do about it; for those who have the owner''s rights';
comment on column embedd.stat_vector_tables.last_error_at is 'when that was noted';
comment on column embedd.stat_vector_tables.failed_rows is 'rows that cannot be embedded (embedd.failed_rows)';
comment on column embedd.stat_vector_tables.truncated_rows is 'rows of whose text only the beginning was embedded (embedd.truncated_rows)';
comment on column embedd.stat_vector_tables.rate is 'rows a second done lately';
comment on column embedd.stat_vector_tables.eta is 'time until the backfill is done, at that rate';
comment on column embedd.stat_vector_tables.oldest_pending_secs is 'age of the oldest change that waits, in seconds';
comment on column embedd.stat_vector_tables.is_estimated is 'whether a number is too large to be counted each time';
comment on column embedd.stat_vector_tables.worker_state is 'busy, idle, starting, waiting for a slot, not running, or not preloaded';
comment on column embedd.stat_vector_tables.worker_since is 'since when, where that is known';
comment on column embedd.stat_vector_tables.provider_state is 'ok or failing';
comment on column embedd.stat_vector_tables.provider_since is 'since when it has been failing';
grant select on embedd.stat_vector_tables to public;
