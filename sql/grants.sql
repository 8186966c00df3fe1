-- Who may see and call what. Rights on a vector table itself are those of the ordinary table it is.

-- CREATE TABLE .. PARTITION OF clones the triggers of a source and checks this right of the role that runs it.
grant usage on schema embedd to public;
grant execute on function embedd.note_change() to public;

create function embedd.may_change(owner oid, vector_table oid) returns boolean
    language sql stable parallel safe
    set search_path = pg_catalog, pg_temp
    return coalesce(pg_catalog.pg_has_role(coalesce(
            (select c.relowner from pg_catalog.pg_class c where c.oid = vector_table), owner), 'USAGE'), false);
comment on function embedd.may_change(oid, oid) is 'Tells whether the current role has the rights of the owner of a vector table';

create function embedd.may_see(owner oid, vector_table oid) returns boolean
    language sql stable parallel safe
    set search_path = pg_catalog, pg_temp
    return embedd.may_change(owner, vector_table)
        or coalesce(pg_catalog.has_table_privilege(vector_table, 'SELECT'), false);
comment on function embedd.may_see(oid, oid) is 'Tells whether the current role may see a vector table: it has the rights of the owner, or SELECT on the vector table';

alter table embedd.vector_tables enable row level security;
alter table embedd.tasks enable row level security;
alter table embedd.provider_batches enable row level security;
alter table embedd.failed_rows enable row level security;
alter table embedd.truncated_rows enable row level security;

-- An error can quote a value and a task a key of the source: for those who have the owner's rights. Others who may read
-- the vectors have sync_status().
create policy visible on embedd.vector_tables for select
    using (embedd.may_change(owner::oid, vector_table::oid));
create policy visible on embedd.tasks for select
    using (target_id in (select v.id from embedd.vector_tables v));
create policy visible on embedd.provider_batches for select
    using (target_id in (select v.id from embedd.vector_tables v));
-- The key of a row that failed is a piece of the source row: only for those who have the owner's rights.
create policy visible on embedd.failed_rows for select
    using (table_id in (select v.id from embedd.vector_tables v where embedd.may_change(v.owner::oid, v.vector_table::oid)));
create policy visible on embedd.truncated_rows for select
    using (table_id in (select v.id from embedd.vector_tables v where embedd.may_change(v.owner::oid, v.vector_table::oid)));

grant select on embedd.models, embedd.providers, embedd.provider_usage, embedd.stat_vector_tables, embedd.vector_tables, embedd.tasks, embedd.provider_batches, embedd.failed_rows, embedd.truncated_rows to public;
