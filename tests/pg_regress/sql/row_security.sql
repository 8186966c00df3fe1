-- Row security of a source: a reader of the vectors sees the rows that SELECT on the source shows, by every way to ask.
\set VERBOSITY terse
create schema tenants;
set search_path = tenants, public;
alter sequence embedd.vector_tables_id_seq restart with 1426128897;
create role golden_a;
create role golden_b;
create role golden_all bypassrls;
create role golden_none;
grant usage on schema tenants, embedd to golden_a, golden_b, golden_all, golden_none;
create table members (who name, tenant text);
insert into members values ('golden_a', 'a'), ('golden_b', 'b');
grant select on members to public;
create table docs (tenant text, id integer, body text, primary key (tenant, id));
insert into docs select chr(97 + n % 3), n, 'document ' || n || ' of ' || chr(97 + n % 3) from generate_series(1, 60) n;
grant select on docs to golden_a, golden_b, golden_all;
alter table docs enable row level security;
create policy own on docs using (tenant = (select m.tenant from members m where m.who = current_user));
select id is not null as created from embedd.create_provider('words', 'test');
select platform_vector_ref as vectors from embedd.create_vector_table('docs', 'docs', '[{"name": "body", "role": "embedding"}, {"name": "tenant", "role": "metadata"}]',
    embedding_provider => 'words', embedding_dimensions => 32, start_backfill => true, table_name => 'doc_vectors') \gset
call golden.wait_synced('docs');
create view policies as select polname, polcmd, pg_get_expr(polqual, polrelid) as using, c.relrowsecurity, c.relforcerowsecurity
  from pg_class c left join pg_policy p on p.polrelid = c.oid where c.oid = to_regclass('doc_vectors');
select * from policies;
select tenant, id from docs where id <= 3 order by id;
grant select on doc_vectors to public;

-- What each role sees: of the source, of the vector table, and by every function.
create function seen() returns table (way text, tenants text[], rows bigint) language plpgsql as $$
begin
    way := 'source';
    select array_agg(distinct d.tenant), count(*) into tenants, rows from docs d;
    return next;
    way := 'vector table';
    select array_agg(distinct v.metadata ->> 'tenant'), count(*) into tenants, rows from doc_vectors v;
    return next;
    way := 'query';
    select array_agg(distinct q.metadata ->> 'tenant'), count(*) into tenants, rows from embedd.query('docs', 'document 7', 1000) q;
    return next;
    way := 'list';
    select array_agg(distinct q.metadata ->> 'tenant'), count(*) into tenants, rows from embedd.query('docs', order_by => 'id', "limit" => 1000) q;
    return next;
    way := 'search';
    select array_agg(distinct q.metadata ->> 'tenant'), count(*) into tenants, rows from embedd.search(array['docs'], 'document 7', 1000) q;
    return next;
    way := 'embed';
    select array_agg(distinct v.metadata ->> 'tenant'), count(*) into tenants, rows from doc_vectors v where v.embedding <=> embedd.embed('docs', 'document 7') < 3;
    return next;
end
$$;
select * from seen();
set role golden_a;
select * from seen();
select count(*) filter (where q.metadata ->> 'tenant' <> 'a') as of_others, count(*) from embedd.similar('docs', (select v.pk_value from doc_vectors v limit 1), 1000) q;
select code, message from golden.refusal($$ select embedd.similar('docs', '["b", 1]') $$);
select count(*) from doc_vectors where metadata ->> 'tenant' = 'b' or pk_value like '["b"%';
set role golden_b;
select * from seen();
set role golden_all;
select * from seen();
-- Without a right to read the source there is nothing to see.
set role golden_none;
select code, message from golden.refusal($$ select count(*) from tenants.doc_vectors $$);
select code, message from golden.refusal($$ select embedd.query('docs', 'document 7') $$);
reset role;

-- What a tenant gains and loses is what the reader sees at once: a permission in another table, a setting, a new policy.
update members set tenant = 'c' where who = 'golden_a';
set role golden_a;
select array_agg(distinct metadata ->> 'tenant') as now from embedd.query('docs', 'document 7', 1000);
reset role;
create policy setting on docs as restrictive using (current_setting('app.least', true) is null or id >= current_setting('app.least', true)::integer);
set app.least = 50;
set role golden_a;
select count(*) from embedd.query('docs', 'document 7', 1000);
-- Also within one statement, and where so many rows are read that all keys are: nothing is kept of an earlier setting.
do $$
declare
    least integer;
    rows bigint;
    hidden bigint;
begin
    foreach least in array array[1, 55, 60, 1] loop
        perform set_config('app.least', least::text, false);
        select count(*), count(*) filter (where d.id is null) into rows, hidden
          from generate_series(1, 100) n, tenants.doc_vectors v left join tenants.docs d on v.pk_value = jsonb_build_array(d.tenant, d.id)::text;
        raise notice 'from % on: % rows, % of them hidden in the source', least, rows, hidden;
    end loop;
end
$$;
reset role;
reset app.least;
drop policy setting on docs;

-- The source can be altered and dropped as before: nothing depends on it.
alter table docs rename column id to number;
alter table docs rename to papers;
set role golden_b;
select array_agg(distinct metadata ->> 'tenant') as after_a_rename, count(*) from embedd.query('docs', 'document 7', 1000);
reset role;
alter table papers rename to docs;
alter table docs rename column number to id;

-- With row security off for embedd it is the owner's to set; it comes back with auto, and goes with that of the source.
select changed from embedd.update_vector_table('docs', row_security => 'off');
select * from policies;
select changed from embedd.update_vector_table('docs', row_security => 'auto');
select * from policies;
alter table docs disable row level security;
call golden.wait_for('the policy to go', $$ select polname is null and not relrowsecurity from tenants.policies $$);
alter table docs enable row level security;
call golden.wait_for('the policy to return', $$ select polname = 'embedd_source' and relrowsecurity from tenants.policies $$);
-- A policy of the owner's own stays, and both apply as PostgreSQL combines them.
create policy mine on doc_vectors as restrictive for select using (metadata ->> 'tenant' <> 'c');
set role golden_a;
select count(*) from embedd.query('docs', 'document 7', 1000);
reset role;
select changed from embedd.update_vector_table('docs', row_security => 'off');
select polname, relrowsecurity from policies;
drop policy mine on doc_vectors;
select changed from embedd.update_vector_table('docs', row_security => 'auto');

-- A swap takes it along.
select changed, needs_backfill from embedd.update_vector_table('docs', embedding_dimensions => 48);
select status from embedd.backfill('docs');
call golden.wait_for('the swap', $$ select count(*) = 1 from embedd.vector_tables v where v.name = 'docs' $$);
call golden.wait_synced('docs');
select * from policies;
set role golden_b;
select * from seen() where way in ('source', 'query');
reset role;

-- A view that reads with the rights of its caller.
create view visible with (security_invoker) as select tenant || id as key, body from docs;
grant select on visible to public;
select platform_vector_ref from embedd.create_vector_table('visible', 'visible', '[{"name": "body", "role": "embedding"}]', primary_key_column => 'key', sync_mode => 'batch',
    embedding_provider => 'words', embedding_dimensions => 32, start_backfill => true, table_name => 'visible_vectors');
call golden.wait_synced('visible');
grant select on visible_vectors to public;
set role golden_b;
select count(*), count(*) filter (where pk_value not like 'b%') as of_others from visible_vectors;
reset role;

-- A table without row security has none.
create table open (id integer primary key, body text);
select platform_vector_ref from embedd.create_vector_table('open', 'open', '[{"name": "body", "role": "embedding"}]', embedding_provider => 'words', embedding_dimensions => 32, table_name => 'open_vectors');
select relrowsecurity from pg_class where oid = 'open_vectors'::regclass;
select code, message, detail from golden.refusal($$ select embedd.update_vector_table('open', row_security => 'on') $$);
select embedd.may_read_source(-1, '1') as of_no_vector_table;

-- FORCE ROW LEVEL SECURITY: the owner of the source is a reader like others. It cannot own the vectors, because a worker with its rights
-- would not see all rows.
create role golden_forced;
grant usage, create on schema tenants to golden_forced;
grant execute on function golden.refusal(text) to public;
grant usage on schema golden to golden_forced;
insert into members values ('golden_forced', 'b');
alter table docs owner to golden_forced;
alter table docs force row level security;
set role golden_forced;
\x on
select * from golden.refusal($$ select embedd.create_vector_table('forced', 'docs', '[{"name": "body", "role": "embedding"}]') $$);
\x off
reset role;
call golden.wait_for('its privilege', $$ select has_table_privilege('golden_forced', 'tenants.doc_vectors', 'select') $$);
set role golden_forced;
select * from seen();
reset role;
alter table docs no force row level security;
set role golden_forced;
select * from seen() where way in ('source', 'vector table', 'query');
reset role;
alter table docs owner to postgres;

-- The source is gone: its readers see nothing, its owner everything.
drop view visible;
drop table docs;
set role golden_b;
select count(*) from doc_vectors;
reset role;
select count(*) from doc_vectors;
select embedd.drop_vector_table('docs'), embedd.drop_vector_table('visible'), embedd.drop_vector_table('open');
drop owned by golden_a, golden_b, golden_all, golden_none, golden_forced;
drop role golden_a, golden_b, golden_all, golden_none, golden_forced;
select embedd.drop_provider('words');
select * from golden.traces();
drop schema tenants cascade;
