-- Permissions: embedd gives no role more than it has without embedd.
\set VERBOSITY terse
alter sequence embedd.vector_tables_id_seq restart with 1073741825;
create role golden_owner;
create role golden_member in role golden_owner;
create role golden_outsider;
create role golden_reader;
create role golden_writer;
create role golden_stranger;
create role golden_heir;
create schema shop authorization golden_owner;
grant usage on schema shop to public;
set search_path = shop, public;

-- An ordinary role creates a vector table of its own table, without any privilege on embedd.
set role golden_owner;
create table items (id integer primary key, name text, secret text, of_role text);
insert into items values (1, 'boots', 'boots are stolen', 'golden_reader'), (2, 'a tent', 'the tent leaks', 'golden_outsider'), (3, 'a stove', 'the stove smokes', 'golden_reader');
select sync_status, platform_vector_ref as items_vectors from embedd.create_vector_table('items', 'items',
    '[{"name": "name", "role": "embedding"}, {"name": "of_role", "role": "metadata"}]', start_backfill => true) \gset
call golden.wait_synced('items');
select pk_value, embedded_text, metadata from :items_vectors order by 1;
select count(*) from embedd.query('items', 'boots');
select relowner::regrole, relacl from pg_class where oid = :'items_vectors'::regclass;
select embedd.pause_sync('items');
select embedd.resume_sync('items');
select task_type from embedd.backfill('items');
call golden.wait_synced('items');
reset role;

-- A member of that role may do the same; other roles may not.
set role golden_member;
select name, owner from embedd.vector_tables;
select embedd.pause_sync('items');
select embedd.resume_sync('items');
call golden.wait_synced('items');
reset role;
set role golden_outsider;
select count(*) from embedd.vector_tables;
select count(*) from embedd.tasks;
\x on
select call, r.* from unnest(array[
    $$ embedd.sync_status('items') $$, $$ embedd.pause_sync('items') $$, $$ embedd.resume_sync('items') $$, $$ embedd.backfill('items') $$,
    $$ embedd.drop_vector_table('items') $$, $$ embedd.query('items', 'boots') $$, $$ embedd.embed('items', 'boots') $$]) with ordinality u(call, n),
    golden.refusal('select ' || call) r order by n;
-- The name is taken, also by another role.
reset role;
create schema outside authorization golden_outsider;
set role golden_outsider;
create table outside.things (id integer primary key, name text);
select * from golden.refusal($$ select embedd.create_vector_table('items', 'outside.things', '[{"name": "name", "role": "embedding"}]') $$);
-- embedd's own tables, sequences and internal functions.
\x off
select statement, r.code, r.message from unnest(array[
    'select * from embedd.queue', 'insert into embedd.queue (table_id, system_id, noted_at) values (1, 1, now())', 'delete from embedd.queue',
    'update embedd.vector_tables set owner = current_user::regrole', 'insert into embedd.tasks (task_type, target_id) values ($$backfill$$, 1)',
    'delete from embedd.failed_rows', 'truncate embedd.truncated_rows', 'insert into embedd.models values ($$local$$, $$mine$$, 3, false)',
    'select nextval($$embedd.vector_tables_id_seq$$)', 'select last_value from embedd.queue_id_seq', 'select setval($$embedd.queue_id_seq$$, 1)',
    'create table embedd.mine ()', 'select embedd.start_sync()', 'select embedd.check_provider_options(array[$$a$$], 0)', 'drop table embedd.queue', 'alter table embedd.vector_tables disable row level security',
    'create trigger t before insert on embedd.queue execute function embedd.note_change()', 'drop extension embedd']) with ordinality u(statement, n),
    golden.refusal(statement) r order by n;
select embedd.is_preloaded();
select embedd.may_see(0, 0), embedd.may_see(null, null);
reset role;

-- The privileges needed for a vector table of another role's table.
create schema workshop authorization golden_reader;
grant create on schema shop to golden_reader;
create function try() returns setof record language sql as
    $$ select * from golden.refusal($q$ select embedd.create_vector_table('theirs', 'shop.items', '[{"name": "name", "role": "embedding"}]') $q$) $$;
\x on
set role golden_reader;
select * from try() t(code text, message text, detail text, hint text);
reset role;
grant select (name) on items to golden_reader;
set role golden_reader;
select * from try() t(code text, message text, detail text, hint text);
reset role;
grant select (id) on items to golden_reader;
set role golden_reader;
select * from try() t(code text, message text, detail text, hint text);
-- A column without SELECT privilege is not embedded.
reset role;
grant trigger on items to golden_reader;
set role golden_reader;
select * from golden.refusal($$ select embedd.create_vector_table('theirs', 'shop.items', '[{"name": "name", "role": "embedding"}, {"name": "secret", "role": "metadata"}]') $$);
reset role;
revoke create on schema shop from golden_reader;
set role golden_reader;
select * from try() t(code text, message text, detail text, hint text);
reset role;
-- A schema without USAGE privilege.
create schema closed authorization golden_owner;
create table closed.notes (id integer primary key, name text);
set role golden_reader;
select * from golden.refusal($$ select embedd.create_vector_table('theirs', 'closed.notes', '[{"name": "name", "role": "embedding"}]') $$);
select * from golden.refusal(format('select embedd.create_vector_table(%L, %s, %L)', 'theirs', (select c.oid from pg_class c where relname = 'notes' and relnamespace = (select oid from pg_namespace where nspname = 'closed')), '[{"name": "name", "role": "embedding"}]'));
reset role;
\x off
grant create on schema shop to golden_reader;
-- Rows hidden by policies still exist: a role cannot have a vector table of such a source.
set role golden_owner;
alter table items enable row level security;
create policy own_rows on items for select using (of_role = current_user);
create policy all_writes on items for insert with check (true);
create policy all_updates on items for update using (true);
create policy all_deletes on items for delete using (true);
reset role;
set role golden_reader;
select code, message, hint from golden.refusal($$ select embedd.create_vector_table('theirs', 'shop.items', '[{"name": "name", "role": "embedding"}]') $$) \gx
reset role;
set role golden_owner;
alter table items disable row level security;
reset role;
set role golden_reader;
select sync_status, platform_vector_ref as their_vectors from embedd.create_vector_table('theirs', 'shop.items', '[{"name": "name", "role": "embedding"}]', start_backfill => true) \gset
call golden.wait_synced('theirs');
select pk_value, embedded_text from :their_vectors order by 1;
-- Each role sees its own vector tables.
select name, owner from embedd.vector_tables order by 1;
select v.name, t.status from embedd.tasks t join embedd.vector_tables v on v.id = t.target_id order by 1;
reset role;
set role golden_owner;
select name, owner from embedd.vector_tables order by 1;
select v.name, t.task_type from embedd.tasks t join embedd.vector_tables v on v.id = t.target_id order by t.task_id;
-- The owner of the source has no rights on another role's vectors, but on the triggers.
select code from golden.refusal($$ select embedd.drop_vector_table('theirs') $$);
reset role;
-- A reader whose SELECT privilege is revoked: its table is in error, with the reason; the others continue.
revoke select (id, name) on items from golden_reader;
set role golden_owner;
update items set name = 'better boots' where id = 1;
update items set name = 'not for the reader' where id = 2;
update items set name = 'a tent' where id = 2;
call golden.wait_synced('items');
reset role;
call golden.wait_for('the error', $$ select sync_status = 'error' from embedd.vector_tables where name = 'theirs' $$);
set role golden_reader;
select sync_status, synced_rows, total_rows, last_error from embedd.sync_status('theirs');
reset role;
grant select (id, name) on items to golden_reader;
set role golden_reader;
call golden.wait_synced('theirs');
select embedded_text from embedd.query('theirs', 'better boots', 1, '{"name": "better boots"}');
select embedd.drop_vector_table('theirs');
reset role;
select tgname from pg_trigger where tgrelid = 'items'::regclass order by 1;
revoke all on items from golden_reader;
alter table items disable row level security;
revoke create on schema shop from golden_reader;

-- The embedder's status concerns the whole server: it is for roles with pg_monitor.
set role golden_reader;
select code, message from golden.refusal('select * from embedd.embedder_status()');
reset role;
grant pg_monitor to golden_reader;
set role golden_reader;
select pid > 0 as pid, since < clock_timestamp() as since, restarts >= 0 as restarts, rss > 0 as rss, model_loaded is not null as model_loaded,
       requests_in_flight >= 0 as requests_in_flight, cache_bytes >= 0 as cache_bytes, cache_hits >= 0 as cache_hits,
       cache_misses >= 0 as cache_misses, last_error
  from embedd.embedder_status();
reset role;
revoke pg_monitor from golden_reader;

-- Writers need no privilege on embedd's objects, not even those of PUBLIC.
grant insert, update, delete, truncate, select on items to golden_writer;
revoke usage on schema embedd from public;
revoke execute on all functions in schema embedd from public;
revoke select on all tables in schema embedd from public;
set role golden_writer;
insert into items values (4, 'a lamp', null, 'golden_reader'), (5, 'gone soon', null, null);
update items set name = 'a bright lamp' where id = 4;
update items set id = 6 where id = 4;
delete from items where id = 5;
begin;
savepoint a;
insert into items values (7, 'rolled back', null, null);
rollback to a;
commit;
reset role;
call golden.wait_synced('items');
select pk_value, embedded_text from :items_vectors order by 1;
grant usage on schema embedd to public;
grant execute on all functions in schema embedd to public;
revoke execute on function embedd.start_sync(), embedd.check_provider_options(text[], oid) from public;
grant select on embedd.models, embedd.providers, embedd.provider_usage, embedd.stat_vector_tables, embedd.stat_progress_backfill, embedd.vector_tables, embedd.tasks, embedd.failed_rows, embedd.truncated_rows to public;
-- A SECURITY DEFINER function that writes.
create function write_for_others() returns void language sql security definer set search_path = shop as
    $$ insert into items values (8, 'written by a function', null, null) $$;
set role golden_outsider;
select write_for_others();
reset role;
call golden.wait_synced('items');
select embedded_text from :items_vectors where pk_value = '8';

-- A query needs SELECT on the vector table, and nothing else.
set role golden_owner;
grant select on :items_vectors to golden_reader;
reset role;
set role golden_reader;
select code from golden.refusal('select * from shop.items');
select id, embedded_text from embedd.query('items', 'boots') order by id;
select vector_dims(embedd.embed('items', 'boots'));
select name, sync_status from embedd.vector_tables;
select sync_status, synced_rows, total_rows from embedd.sync_status('items');
select count(*) > 0 as sees_tasks from embedd.tasks;
select f as call, r.code, r.message, r.hint from unnest(array['pause_sync', 'resume_sync', 'backfill', 'drop_vector_table']) with ordinality u(f, n),
    golden.refusal(format('select embedd.%I(%L)', f, 'items')) r order by n;
reset role;
-- Failed and truncated rows are part of the source: only its owner sees them.
insert into embedd.failed_rows (table_id, pk_value, reason) select id, '99', 'golden' from embedd.vector_tables where name = 'items';
insert into embedd.truncated_rows (table_id, pk_value) select id, '98' from embedd.vector_tables where name = 'items';
set role golden_owner;
select pk_value, reason from embedd.failed_rows;
select pk_value from embedd.truncated_rows;
set role golden_reader;
select count(*) as failed from embedd.failed_rows;
select count(*) as cut from embedd.truncated_rows;
reset role;
delete from embedd.failed_rows;
delete from embedd.truncated_rows;

-- Row security on the vector table applies to queries.
set role golden_owner;
alter table :items_vectors enable row level security;
create policy own_rows on :items_vectors for select using (metadata ->> 'of_role' = current_user);
select count(*) as the_owner_sees from embedd.query('items', 'boots');
grant select on :items_vectors to golden_outsider;
reset role;
set role golden_reader;
select id from embedd.query('items', 'boots') order by id;
select id from embedd.query('items', 'boots', filters => '{"of_role": "golden_outsider"}');
set role golden_outsider;
select id from embedd.query('items', 'boots', filters => '{"$or": [{}, {"of_role": "golden_reader"}]}') order by id;
reset role;
-- A SECURITY DEFINER function queries with its owner's rights.
create function ask_for_others() returns bigint language sql security definer set search_path = shop as $$ select count(*) from embedd.query('items', 'boots') $$;
alter function ask_for_others() owner to golden_owner;
set role golden_outsider;
select ask_for_others();
reset role;
-- Through a view too: the rights are those of the caller.
set role golden_owner;
create view answers as select id from embedd.query('items', 'boots');
grant select on answers to golden_stranger;
reset role;
set role golden_stranger;
select code from golden.refusal('select * from shop.answers');
reset role;
drop view answers;
-- The worker writes with the owner's rights, and policies do not block it.
insert into items values (9, 'under row security', null, null);
call golden.wait_synced('items');
select embedded_text from :items_vectors where pk_value = '9';
set role golden_owner;
alter table :items_vectors disable row level security;
reset role;

-- A user's code in the worker has that user's rights, and no more; it cannot switch the role.
set role golden_owner;
create type tagged as (t text);
create function tagged_text(tagged) returns text language plpgsql as $$
declare attempt text := 'kept out';
begin
    begin
        perform from embedd.queue;
        attempt := 'read the queue';
    exception when insufficient_privilege then null;
    end;
    begin
        set role postgres;
        attempt := 'became ' || current_user;
    exception when others then null;
    end;
    begin
        set session authorization postgres;
        attempt := 'became session ' || session_user;
    exception when others then null;
    end;
    return format('%s %s %s', ($1).t, current_user, attempt);
end $$;
create cast (tagged as text) with function tagged_text(tagged);
create table tagged_items (id integer primary key, t tagged);
insert into tagged_items values (1, row('run by'));
select platform_vector_ref as tagged_vectors from embedd.create_vector_table('tagged', 'tagged_items', '[{"name": "t", "role": "embedding"}]', start_backfill => true) \gset
call golden.wait_synced('tagged');
select embedded_text from :tagged_vectors;
select embedd.drop_vector_table('tagged');
reset role;

-- A hostile schema first in every role's search_path, with everything that embedd might call.
create schema hostile;
grant usage on schema hostile to public;
create type hostile.vector as (x integer);
create type hostile.regtype as enum ('x');
create table hostile.queue (id integer);
create table hostile.vector_tables (id integer, name text);
create table hostile.pg_class (oid oid, relname name);
create table hostile.pg_extension (extname name);
create table hostile.tasks (id integer);
create function hostile.trap() returns text language plpgsql as $$ begin raise exception 'the trap was run by %', current_user; end $$;
create function hostile.unnest(text[]) returns setof text language sql as $$ select hostile.trap() $$;
create function hostile.count(anyelement) returns text language sql as $$ select hostile.trap() $$;
create function hostile.now() returns text language sql as $$ select hostile.trap() $$;
create function hostile.sha256(bytea) returns bytea language sql as $$ select hostile.trap()::bytea $$;
create function hostile.encode(bytea, text) returns text language sql as $$ select hostile.trap() $$;
create function hostile.length(text) returns integer language sql as $$ select hostile.trap()::integer $$;
create function hostile.quote_ident(text) returns text language sql as $$ select hostile.trap() $$;
create function hostile.quote_ident(name) returns text language sql as $$ select hostile.trap() $$;
create function hostile.format_type(oid, integer) returns text language sql as $$ select hostile.trap() $$;
create function hostile.pg_has_role(oid, text) returns boolean language sql as $$ select hostile.trap()::boolean $$;
create function hostile.has_table_privilege(oid, text) returns boolean language sql as $$ select hostile.trap()::boolean $$;
create function hostile.array_to_string(text[], text) returns text language sql as $$ select hostile.trap() $$;
create function hostile.jsonb_build_object(variadic text[]) returns jsonb language sql as $$ select hostile.trap()::jsonb $$;
create function hostile.cosine_distance(public.vector, public.vector) returns float8 language sql as $$ select hostile.trap()::float8 $$;
create function hostile.note_change() returns trigger language plpgsql as $$ begin perform hostile.trap(); end $$;
create function hostile.differ(anyelement, anyelement) returns boolean language sql as $$ select hostile.trap()::boolean $$;
create function hostile.equal(text, text) returns boolean language sql as $$ select hostile.trap()::boolean $$;
create function hostile.equal(integer, integer) returns boolean language sql as $$ select hostile.trap()::boolean $$;
create function hostile.joined(text, text) returns text language sql as $$ select hostile.trap() $$;
create function hostile.extract(jsonb, text) returns text language sql as $$ select hostile.trap() $$;
create operator hostile.<=> (leftarg = public.vector, rightarg = public.vector, function = hostile.cosine_distance);
create operator hostile.= (leftarg = text, rightarg = text, function = hostile.equal);
create operator hostile.= (leftarg = integer, rightarg = integer, function = hostile.equal);
create operator hostile.|| (leftarg = text, rightarg = text, function = hostile.joined);
create operator hostile.->> (leftarg = jsonb, rightarg = text, function = hostile.extract);
create function hostile.differ_text(text, text) returns boolean language sql as $$ select hostile.trap()::boolean $$;
create operator hostile.*<> (leftarg = anyelement, rightarg = anyelement, function = hostile.differ);
create operator hostile.<> (leftarg = text, rightarg = text, function = hostile.differ_text);
set role golden_owner;
set search_path = hostile, pg_catalog, shop;
create temp table vector_tables (id integer, name text);
create temp table queue (id integer);
select sync_status from embedd.create_vector_table('in danger', 'shop.items', '[{"name": "name", "role": "embedding", "name_prefix": "Item: "}, {"name": "of_role", "role": "metadata"}]', start_backfill => true);
call golden.wait_synced('in danger');
insert into items values (10, 'written in danger', null, null);
update items set name = name operator(pg_catalog.||) '!' where id operator(pg_catalog.=) 10;
delete from items where id operator(pg_catalog.=) 9;
call golden.wait_synced('in danger');
select id, metadata from embedd.query('in danger', 'x', filters => '{"of_role": {"in": ["golden_reader"], "ne": "nobody"}, "name": {"gt": "a"}}') order by id;
select synced_rows, total_rows from embedd.sync_status('in danger');
select embedd.pause_sync('in danger');
select embedd.resume_sync('in danger');
select task_type from embedd.backfill('in danger');
call golden.wait_synced('in danger');
select name from embedd.vector_tables order by name;
select embedd.drop_vector_table('in danger');
drop table pg_temp.vector_tables, pg_temp.queue;
reset role;
set search_path = shop, public;
call golden.wait_synced('items');
select pk_value, embedded_text from :items_vectors where pk_value in ('9', '10');
drop schema hostile cascade;

-- A trigger that names another role's vector table syncs nothing, and leaves nothing behind.
set role golden_outsider;
create table outside.fake (id text);
do $$
declare refused record;
begin
    refused := golden.refusal('create trigger a after insert on outside.fake for each row execute function embedd.note_change(''1073741825'', ''id'')');
    refused := golden.refusal('create trigger b after insert on outside.fake for each row execute function embedd.note_change()');
    refused := golden.refusal('create trigger c after insert on outside.fake for each row execute function embedd.note_change(''2000000000'', ''id'')');
    refused := golden.refusal('insert into outside.fake values (''not a number''), (null)');
end
$$;
reset role;
insert into items values (11, 'after the fake', null, null);
call golden.wait_synced('items');
select failed_rows from embedd.sync_status('items');
select queued from golden.traces();
delete from embedd.queue;
drop schema outside cascade;

-- A role that may not read the vectors learns nothing of a vector table: neither its status nor its fields.
set role golden_owner;
select sync_status from embedd.create_vector_table('not filled', 'shop.items', '[{"name": "name", "role": "embedding"}]');
set role golden_stranger;
select call, r.code, r.message, r.detail from unnest(array[
    $$ embedd.query('not filled', 'x') $$, $$ embedd.similar('items', '1') $$, $$ embedd.query('items', 'x', filters => '{"no_such_field": 1}') $$]) with ordinality u(call, n),
    golden.refusal('select ' || call) r order by n;
set role golden_owner;
select embedd.drop_vector_table('not filled');
reset role;

-- The vector table gets another owner: from then on the sync has that role's rights.
grant select, trigger on items to golden_heir;
alter table :items_vectors owner to golden_heir;
insert into items values (12, 'for the heir', null, null);
call golden.wait_for('the heir''s row', format('select exists (select from %s where pk_value = ''12'')', :'items_vectors'), '10 s');
set role golden_heir;
select code, message from golden.refusal($$ select embedd.pause_sync('items') $$);
reset role;
select embedd.drop_vector_table('items');

select * from golden.traces();
drop schema shop, workshop, closed cascade;
drop role golden_member, golden_stranger, golden_outsider, golden_reader, golden_writer, golden_heir, golden_owner;
