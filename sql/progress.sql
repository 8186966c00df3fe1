-- The progress of open tasks, in the manner of PostgreSQL's pg_stat_progress views.

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
           case when t.phase in ('orphans', 'source') and r.rate > 1e-9::double precision and t.rows_total is not null
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
comment on column embedd.stat_progress_backfill.phase is 'orphans: the worker removes rows whose source row is gone; provider_batch: texts are at the provider''s batch API (embedd.provider_batches); source: it reads source rows page by page; index: it builds the vector index; swap: it puts the new table in the place of the old one';
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
