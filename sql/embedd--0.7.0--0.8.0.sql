-- From 0.7.0 to 0.8.0: a vector table changes without a gap.

-- Tasks: their progress, and that they can be cancelled.
alter table embedd.tasks drop constraint tasks_status_check,
    add constraint tasks_status_check check (status in ('pending', 'running', 'completed', 'failed', 'cancelled'));
alter table embedd.tasks
    add column rows_total bigint,
    add column rows_done bigint generated always as (processed_rows) stored,
    add column rate double precision,
    add column eta interval generated always as (case
        when status = 'running' and phase <> 'index' and rate > 1e-9::double precision and rows_total is not null
            then pg_catalog.make_interval(secs =>
                least(greatest(rows_total - processed_rows, 0::bigint)::double precision / rate, 1e9::double precision)) end) stored,
    add column checkpoint_at timestamptz,
    add column stalled_attempts integer not null default 0,
    add column owes_comparison boolean not null default false;
-- The tasks that are ended have read all of their sources, which is what status shows of sync mode batch.
update embedd.tasks set rows_total = processed_rows where status operator(pg_catalog.=) 'completed';
comment on column embedd.tasks.status is 'pending, running, completed, failed or cancelled (by cancel_backfill())';
comment on column embedd.tasks.max_attempts is 'how often in a row the worker process may end in the same step of the task before the task fails; nothing else limits the attempts: a worker retries what fails, with a growing backoff';
comment on column embedd.tasks.processed_rows is 'the same as rows_done';
comment on column embedd.tasks.rows_total is 'rows of the source when the task started: exact up to 10,000 rows and in sync mode batch, else the estimate of the planner''s statistics, because to count them would take too long; null where they cannot be counted';
comment on column embedd.tasks.rows_done is 'source rows that are done, as of the last checkpoint';
comment on column embedd.tasks.rate is 'rows a second over about the last half minute, as of the last checkpoint';
comment on column embedd.tasks.eta is 'time that the rows left need at that rate, as of the last checkpoint; without the vector index, which is built after them';
comment on column embedd.tasks.checkpoint_at is 'when rows_done was last written, or when a worker last started or resumed the task';
comment on column embedd.tasks.stalled_attempts is 'attempts since the task last advanced';
comment on column embedd.tasks.owes_comparison is 'whether the task also finds changes that no row trigger saw; where it is cancelled, a comparison follows';

create function embedd.cancel_backfill(name text)
    returns table (task_id bigint, task_type text, target_id integer, status text, created_at timestamp with time zone)
    language c volatile strict parallel unsafe rows 1
    set search_path = pg_catalog, pg_temp
    as 'MODULE_PATHNAME', 'cancel_backfill_wrapper';
comment on function embedd.cancel_backfill(text) is
    'Cancels the backfill that is requested or running, and returns the task. Rows that are embedded stay; a later backfill() embeds only what is missing. A vector table that was filled before stays in sync; another one has status pending until a backfill is complete';

create view embedd.stat_progress_backfill with (security_barrier) as
    select t.task_id,
           t.target_id,
           v.name as vector_table,
           case when c.relname is not null then pg_catalog.format('%I.%I', n.nspname, c.relname) end as source_table,
           t.task_type,
           t.status,
           t.phase,
           case when t.rows_total < t.rows_done then t.rows_done else t.rows_total end as rows_total,
           t.rows_done,
           r.rate,
           case when t.phase <> 'index' and r.rate > 1e-9::double precision and t.rows_total is not null
               then pg_catalog.make_interval(secs =>
                   least(greatest(t.rows_total - t.rows_done, 0::bigint)::double precision / r.rate, 1e9::double precision)) end as eta,
           t.attempts,
           t.stalled_attempts,
           t.created_at,
           t.started_at,
           t.checkpoint_at,
           case when embedd.may_change(v.owner::oid, v.vector_table::oid) then t.last_error end as last_error
      from embedd.tasks t
      join embedd.vector_tables v on v.id = t.target_id
      left join (pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace) on c.oid = v.source_table::oid
     -- A rate that was measured long ago is not the rate now: from a minute on it falls.
     cross join lateral (select t.rate * 60::double precision
               / greatest(60::double precision, pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - t.checkpoint_at)) as rate) r
     where t.status in ('pending', 'running')
       and (embedd.may_see(v.owner::oid, v.vector_table::oid) or pg_catalog.pg_has_role('pg_monitor', 'USAGE'));
comment on view embedd.stat_progress_backfill is 'Progress of every backfill and comparison that is requested or running. A role sees the vector tables that it may read; members of pg_monitor see all of them';
comment on column embedd.stat_progress_backfill.task_id is 'number of the task (embedd.tasks.task_id)';
comment on column embedd.stat_progress_backfill.target_id is 'number of the vector table (embedd.vector_tables.id)';
comment on column embedd.stat_progress_backfill.vector_table is 'name that every function call uses';
comment on column embedd.stat_progress_backfill.source_table is 'table whose rows are embedded; null when it no longer exists';
comment on column embedd.stat_progress_backfill.task_type is 'backfill, rebackfill or reconcile';
comment on column embedd.stat_progress_backfill.status is 'pending (requested) or running';
comment on column embedd.stat_progress_backfill.phase is 'orphans: the worker removes rows whose source row is gone; source: it reads source rows page by page; index: it builds the vector index';
comment on column embedd.stat_progress_backfill.rows_total is 'rows of the source when the task started, or the planner''s estimate where to count them would take too long';
comment on column embedd.stat_progress_backfill.rows_done is 'source rows that are done';
comment on column embedd.stat_progress_backfill.rate is 'rows a second over about the last half minute; it falls when no page is done for a minute';
comment on column embedd.stat_progress_backfill.eta is 'time that the rows left need at that rate; without the vector index, which is built after them';
comment on column embedd.stat_progress_backfill.attempts is 'how often a worker started the task, resumed it, or accepted another request for it';
comment on column embedd.stat_progress_backfill.stalled_attempts is 'attempts since the task last advanced';
comment on column embedd.stat_progress_backfill.created_at is 'when the task was requested';
comment on column embedd.stat_progress_backfill.started_at is 'when the task started';
comment on column embedd.stat_progress_backfill.checkpoint_at is 'when rows_done was last written, or when a worker last started or resumed the task';
comment on column embedd.stat_progress_backfill.last_error is 'why the last attempt failed; only roles with the rights of the owner see it';

grant select on embedd.stat_progress_backfill to public;
