-- Prerequisites of every other file: the extension, a function that shows an error, and one that waits for the worker.
-- To run one file alone, run this one before it: TEST="00_setup query".
create extension embedd cascade;

-- Its objects. (\dx+ lists the row types of tables too from PostgreSQL 17 on, so they are left out here.)
select pg_describe_object(classid, objid, 0) as "object"
  from pg_depend
 where refclassid = 'pg_extension'::regclass and deptype = 'e'
   and refobjid = (select oid from pg_extension where extname = 'embedd')
   and classid <> 'pg_type'::regclass
 order by 1;

select extversion ~ '^\d+\.\d+\.\d+$' as version, extrelocatable, extnamespace::regnamespace,
       (select count(*) from pg_depend d join pg_extension r on r.oid = d.refobjid
         where d.classid = 'pg_extension'::regclass and d.objid = e.oid and r.extname = 'vector') as needs_vector,
       obj_description(oid, 'pg_extension')
  from pg_extension e where extname = 'embedd';

-- The functions with their signatures.
\x on
\df embedd.*
\x off

-- Every function, table and column has a comment, except sequences of identity columns.
select pg_describe_object(d.classid, d.objid, coalesce(a.attnum, 0)) as "without a comment"
  from pg_depend d
  left join lateral (
        select 0::smallint as attnum
         union all
        select attnum from pg_attribute
         where d.classid = 'pg_class'::regclass and attrelid = d.objid and attnum > 0 and not attisdropped) a on true
 where d.refclassid = 'pg_extension'::regclass and d.deptype = 'e'
   and d.refobjid = (select oid from pg_extension where extname = 'embedd')
   and d.classid <> 'pg_type'::regclass
   and not (d.classid = 'pg_class'::regclass and (select relkind from pg_class where oid = d.objid) = 'S')
   and not exists (select from pg_description c
                    where c.classoid = d.classid and c.objoid = d.objid and c.objsubid = coalesce(a.attnum, 0))
 order by 1;

-- Functions use nothing from the search_path of their callers; those without a path of their own run no SQL, or SQL that was parsed when they were created. import_vectors() runs a query of its caller with the path of its caller.
select p.proname, p.prosecdef, p.proconfig
  from pg_proc p join pg_depend d on d.classid = 'pg_proc'::regclass and d.objid = p.oid
 where d.deptype = 'e' and d.refobjid = (select oid from pg_extension where extname = 'embedd')
 order by p.oid::regprocedure::text;

-- The privileges of PUBLIC on embedd's own tables.
select c.relname, string_agg(p.privilege, ', ' order by p.privilege) as "for everybody", c.relrowsecurity as "only some rows"
  from pg_class c
  left join (values ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE'), ('TRUNCATE'), ('REFERENCES'), ('TRIGGER')) p(privilege)
    on exists (select from aclexplode(c.relacl) a where a.grantee = 0 and a.privilege_type = p.privilege)
 where c.relnamespace = 'embedd'::regnamespace and c.relkind in ('r', 'v', 'm', 'p')
 group by c.oid order by c.relname;
select c.relname as "sequence for everybody" from pg_class c, aclexplode(c.relacl) a
 where c.relnamespace = 'embedd'::regnamespace and c.relkind = 'S' and a.grantee = 0;
select has_schema_privilege('pg_monitor', 'embedd', 'USAGE') as "usage", has_schema_privilege('pg_monitor', 'embedd', 'CREATE') as "create";

-- The content of a dump.
select e.extconfig[i]::regclass, e.extcondition[i]
  from pg_extension e, generate_subscripts(e.extconfig, 1) i where e.extname = 'embedd' order by 1::text;

-- The model catalog.
select * from embedd.models order by provider, model;

-- A schema for the tools of the other files.
create schema golden;
grant usage on schema golden to public;

-- The error of a statement, as a row; a statement without an error says so.
create function golden.refusal(statement text, out code text, out message text, out detail text, out hint text)
    language plpgsql as $$
begin
    begin
        execute statement;
        message := 'it was not refused';
    exception when others then
        get stacked diagnostics code = returned_sqlstate, message = message_text,
                                detail = pg_exception_detail, hint = pg_exception_hint;
    end;
end
$$;

-- Waits until the worker has synced everything. Checks repeatedly, each time in a transaction of its own.
create procedure golden.wait_synced(name text, goal text default 'synced', timeout interval default '60 s') language plpgsql as $$
declare
    status record;
    begun constant timestamptz := clock_timestamp();
begin
    loop
        select * into status from embedd.sync_status(name);
        commit;
        -- With qualified names, because a test puts other operators first.
        exit when status.sync_status operator(pg_catalog.=) goal and status.rows_pending operator(pg_catalog.=) 0;
        if clock_timestamp() > begun + timeout then
            raise exception 'waited % for vector table "%": %', timeout, name, to_jsonb(status);
        end if;
        perform pg_sleep(0.005);
    end loop;
end
$$;

-- Waits until a query that returns one boolean returns true.
create procedure golden.wait_for(what text, query text, timeout interval default '60 s') language plpgsql as $$
declare
    done boolean;
    begun constant timestamptz := clock_timestamp();
begin
    loop
        execute query into done;
        commit;
        exit when done;
        if clock_timestamp() > begun + timeout then
            raise exception 'waited % for %', timeout, what;
        end if;
        perform pg_sleep(0.005);
    end loop;
end
$$;

-- Everything embedd has created and not removed again: after a file has cleaned up there is none.
create function golden.traces(out vector_tables bigint, out tables bigint, out triggers bigint, out tasks bigint, out queued bigint)
    language sql as $$
    select (select count(*) from embedd.vector_tables),
           (select count(*) from pg_class where relname ~ '^embedd_vt_' and relkind = 'r'),
           (select count(*) from pg_trigger where tgfoid = 'embedd.note_change'::regproc),
           (select count(*) from embedd.tasks),
           (select count(*) from embedd.queue)
$$;
select * from golden.traces();
