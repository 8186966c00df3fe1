-- Columns with "index": true: the indexes that serve filters, from creation through changes and swaps.
\set VERBOSITY terse
create schema indexing;
set search_path = indexing, public;
alter sequence embedd.vector_tables_id_seq restart with 1375797249;
create table events (id integer primary key, title text, kind text, seats integer, price numeric, open boolean, starts timestamptz, day date, local timestamp, tags text[], more jsonb);
insert into events
select n, 'event ' || n % 50, 'kind ' || n % 100, n, n / 4.0, n % 50 = 0, timestamptz '2024-01-01 00:00+00' + n * interval '1 hour', date '2024-01-01' + n,
       timestamp '2024-01-01 00:00' + n * interval '1 hour', array['t' || n % 9], '{}'
  from generate_series(1, 2500) n;
insert into events values (2501, 'nothing'), (2502, 'the end', '', null, 'NaN', null, 'infinity', '-infinity', 'infinity'),
    (2503, 'long ago', repeat('é', 300), -1, -0.5, true, '0044-03-15 00:00+00 BC', '0044-03-15 BC', '0044-03-15 BC');
select platform_vector_ref as vectors from embedd.create_vector_table('events', 'events', '[
    {"name": "title", "role": "embedding"}, {"name": "kind", "role": "metadata", "index": true}, {"name": "seats", "role": "metadata", "index": true},
    {"name": "price", "role": "metadata", "index": true}, {"name": "open", "role": "metadata", "index": true}, {"name": "starts", "role": "metadata", "index": true},
    {"name": "day", "role": "metadata", "index": true}, {"name": "local", "role": "metadata", "index": true}]') \gset
create view filter_indexes as
select substr(pg_get_indexdef(i.indexrelid), strpos(pg_get_indexdef(i.indexrelid), ' USING ')) as definition
  from embedd.vector_tables v join pg_index i on i.indrelid = v.vector_table::regclass join pg_class c on c.oid = i.indexrelid
 where v.name = 'events' and v.replaces is null and c.relname like 'embedd_ix_%';
select * from filter_indexes order by 1;
select status from embedd.backfill('events');
call golden.wait_synced('events');
analyze :vectors;

-- Each operator finds what it finds without an index, in every time zone.
create table filters (n integer generated always as identity, filter jsonb);
insert into filters (filter) values ('{"kind": "kind 7"}'), ('{"kind": {"in": ["kind 7", "kind 8", ""]}}'), ('{"kind": {"ne": "kind 7"}}'), ('{"kind": {"nin": ["kind 7"]}}'),
    ('{"kind": {"prefix": "kind 9"}}'), ('{"kind": {"gte": "kind 95", "lt": "kind 98"}}'), ('{"kind": null}'), ('{"seats": {"lt": 12}}'), ('{"seats": {"in": [1, 5000, 77]}}'),
    ('{"price": {"gt": 624}}'), ('{"price": 0.25}'), ('{"open": true}'), ('{"open": {"ne": true}}'), ('{"starts": {"lte": "2024-01-01T12:00:00Z"}}'), ('{"starts": "2024-01-02"}'),
    ('{"starts": {"gt": "2024-04-13"}}'), ('{"starts": {"in": ["2024-01-01T03:00:00Z", "infinity"]}}'), ('{"day": {"gte": "2030-11-01"}}'), ('{"day": "2024-01-02"}'), ('{"day": {"in": ["2024-01-02"]}}'),
    ('{"day": {"lt": "2024-01-04T00:00:00Z"}}'), ('{"local": {"gt": "2024-04-14T00:00"}}'), ('{"local": "2024-01-01 05:00"}'), ('{"local": {"lte": "2024-01-01T05:00:00Z"}}'), ('{"local": {"ne": "infinity"}}'),
    ('{"$or": [{"kind": "kind 7"}, {"seats": 3}]}'), ('{"$not": {"day": {"lt": "2030-01-01"}}}');
create function found() returns table (zone text, n integer, ids text[]) language plpgsql as $$
begin
    foreach zone in array array['UTC', 'Asia/Kolkata', 'America/New_York'] loop
        perform set_config('TimeZone', zone, true);
        return query select zone, f.n, (select array_agg(q.id order by q.id) from embedd.query('events', 'event 7', 1000, f.filter) q) from filters f;
    end loop;
end
$$;
create temp table with_index as select * from found();

-- The index is used where few rows match.
create function uses_index(filter jsonb) returns boolean language plpgsql as $$
declare
    line text;
begin
    for line in execute 'explain ' || regexp_replace(embedd.explain_query('events', 'event 7', 5, filter), '^((--|set local)[^\n]*\n)*', '') loop
        if line like '%embedd_ix_%' then
            return true;
        end if;
    end loop;
    return false;
end
$$;
set enable_seqscan = off;
select n, uses_index(filter) from filters where n not in (3, 4, 7, 13, 20, 25, 26, 27) order by n;
reset enable_seqscan;

-- A change of "index" is applied in place: no provider, no comparison.
select changed, needs_backfill from embedd.update_vector_table('events', columns => '[
    {"name": "title", "role": "embedding"}, {"name": "kind", "role": "metadata", "index": true}, {"name": "seats", "role": "metadata"},
    {"name": "price", "role": "metadata"}, {"name": "open", "role": "metadata"}, {"name": "starts", "role": "metadata"},
    {"name": "day", "role": "metadata"}, {"name": "local", "role": "metadata"}]');
select * from filter_indexes order by 1;
select task_type, status from embedd.tasks t join embedd.vector_tables v on v.id = t.target_id where v.name = 'events' and t.status in ('pending', 'running');
select changed from embedd.update_vector_table('events', columns => '[
    {"name": "title", "role": "embedding"}, {"name": "kind", "role": "metadata"}, {"name": "seats", "role": "metadata"},
    {"name": "price", "role": "metadata"}, {"name": "open", "role": "metadata"}, {"name": "starts", "role": "metadata"},
    {"name": "day", "role": "metadata"}, {"name": "local", "role": "metadata"}]');
select count(*) as left from filter_indexes;
create temp table without_index as select * from found();
select w.zone, count(*), count(*) filter (where w.ids is distinct from o.ids) as other from with_index w join without_index o using (zone, n) group by w.zone order by w.zone;
select w.zone, f.filter, cardinality(w.ids) as with_index, cardinality(o.ids) as without_index
  from with_index w join without_index o using (zone, n) join filters f using (n) where w.ids is distinct from o.ids order by w.zone, n;

-- Another filter type is another index; a swap takes it along, and what it replaces goes.
select changed, needs_backfill from embedd.update_vector_table('events', columns => '[
    {"name": "title", "role": "embedding"}, {"name": "seats", "role": "metadata", "filter_type": "keyword", "index": true}, {"name": "starts", "role": "metadata", "index": true}]');
call golden.wait_synced('events');
select * from filter_indexes order by 1;
select changed, needs_backfill from embedd.update_vector_table('events', columns => '[
    {"name": "kind", "role": "embedding"}, {"name": "seats", "role": "metadata", "index": true}, {"name": "starts", "role": "metadata", "index": true}]');
select status from embedd.backfill('events');
call golden.wait_for('the swap', $$ select count(*) = 1 from embedd.vector_tables v where v.name = 'events' $$);
call golden.wait_synced('events');
select * from filter_indexes order by 1;
select id from embedd.query('events', 'kind 7', 3, '{"seats": {"lte": 2}}') order by id;
select count(*) as differences from embedd.verify('events');

-- Errors.
\x on
select columns, r.code, r.message, r.detail, r.hint from unnest(array[
    '[{"name": "title", "role": "embedding", "index": true}]', '[{"name": "title", "role": "embedding"}, {"name": "tags", "role": "metadata", "index": true}]',
    '[{"name": "title", "role": "embedding"}, {"name": "more", "role": "metadata", "index": true}]', '[{"name": "title", "role": "embedding"}, {"name": "kind", "role": "metadata", "index": "btree"}]']) with ordinality u(columns, n),
    golden.refusal(format('select embedd.create_vector_table(%L, %L, %L)', 'more events', 'events', columns)) r order by n;
select value, r.code, r.message from unnest(array['now', '01/02/2024', '', '2024-13-01']) with ordinality u(value, n),
    golden.refusal(format('select embedd.utc_datetime(%L)', value)) r order by n;
\x off
select embedd.drop_vector_table('events');
select * from golden.traces();
drop schema indexing cascade;
