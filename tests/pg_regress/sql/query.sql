-- query() and embed(): results, errors, and side effects on the session.
\set VERBOSITY terse
create schema querying;
set search_path = querying, public;
alter sequence embedd.vector_tables_id_seq restart with 1342177281;
create table texts (id integer primary key, t text, n integer);
insert into texts select n, 'text number ' || n, n % 7 from generate_series(1, 300) n;
insert into texts values (301, null, 301), (302, '', 302), (303, 'the only text of its kind', 303), (304, 'the only text of its kind', 304);

-- Not ready before the first backfill.
select platform_vector_ref as texts_vectors from embedd.create_vector_table('texts', 'texts',
    '[{"name": "t", "role": "embedding"}, {"name": "n", "role": "metadata"}]') \gset
\x on
select * from golden.refusal($$ select embedd.query('texts', 'anything') $$);
select * from golden.refusal($$ select embedd.query('no such table', 'anything') $$);
select * from golden.refusal($$ select embedd.embed('no such table', 'anything') $$);
\x off
-- The vector of a text is available before.
select vector_dims(embedd.embed('texts', 'anything')) as dimensions, pg_typeof(embedd.embed('texts', 'anything')) as type;
select status from embedd.backfill('texts');
call golden.wait_synced('texts');

-- The default limit, the order, and the bounds of a cosine.
select count(*), count(distinct id), min(score) >= -1 - 1e-6 as above, max(score) <= 1 + 1e-6 as below,
       array_agg(score order by n) = array_agg(score order by score desc) as nearest_first
  from embedd.query('texts', 'text number 7') with ordinality q(id, score, metadata, embedded_text, n);
-- The result is what is stored.
select count(*), bool_and(q.embedded_text = v.embedded_text and q.metadata = v.metadata) as same
  from embedd.query('texts', 'text number 7', 1000) q join :texts_vectors v on v.pk_value = q.id;
-- The score is the cosine similarity of the vectors, to the last digit that pgvector gives.
select bool_and(q.score = 1 - (v.embedding <=> embedd.embed('texts', 'text number 7'))) as cosine
  from embedd.query('texts', 'text number 7', 20) q join :texts_vectors v on v.pk_value = q.id;
-- A stored text is the nearest to itself.
select id, round(score::numeric, 3) as score, metadata, embedded_text from embedd.query('texts', 'the only text of its kind', 2, '{"n": {"gte": 303}}') order by id;
select round((1 - (embedd.embed('texts', 'text number 7') <=> embedding))::numeric, 3) as similarity from :texts_vectors where pk_value = '7';
-- The same question has the same result.
select (select array_agg(q) from embedd.query('texts', 'again', 50) q) = (select array_agg(q) from embedd.query('texts', 'again', 50) q) as same;

-- limit.
select (select count(*) from embedd.query('texts', 'x', 1)) as one, (select count(*) from embedd.query('texts', 'x', 100)) as hundred,
       (select count(*) from embedd.query('texts', 'x', 302)) as all_there_are, (select count(*) from embedd.query('texts', 'x', "limit" => 1000)) as highest;
-- Rows without text are never returned, and the filter is applied before the limit.
select count(*) from embedd.query('texts', 'x', 1000) where id in ('301', '302') or embedded_text = '';
select count(*), min((metadata ->> 'n')::integer), max((metadata ->> 'n')::integer) from embedd.query('texts', 'x', 40, '{"n": 3}');
select id from embedd.query('texts', 'x', filters => '{"n": {"gte": 301}}') order by id;

-- min_similarity_score.
select count(*) filter (where id in ('303', '304')) as both, min(score) >= 0.999 as above from embedd.query('texts', 'the only text of its kind', 1000, min_similarity_score => 0.999);
select bool_and(score >= 0.5) from embedd.query('texts', 'the only text of its kind', 1000, min_similarity_score => 0.5);
select (select count(*) from embedd.query('texts', 'x', 1000, min_similarity_score => 0.0)) =
       (select count(*) from embedd.query('texts', 'x', 1000) where score >= 0) as nothing_below_zero;
select (select count(*) from embedd.query('texts', 'x', 1000, min_similarity_score => null)) as no_bound;

-- similar(): the neighbours of a row, as query() has them for the text of the row, and without the row.
select array_agg(s.id order by s.n) = array_agg(q.id order by q.n) as same, count(*)
  from embedd.similar('texts', '7', 20) with ordinality s(id, score, metadata, embedded_text, n)
  join (select q.id, row_number() over (order by q.n) as n from embedd.query('texts', 'text number 7', 21) with ordinality q(id, score, metadata, embedded_text, n)
         where q.id <> '7') q using (n);
select id, round(score::numeric, 3) as score, metadata, embedded_text from embedd.similar('texts', '303', 1);
select count(*) as default_limit from embedd.similar('texts', '303');
select count(*) as others from embedd.similar('texts', '303', 1000);
select id from embedd.similar('texts', '1', filters => '{"n": {"gte": 303}}') order by id;
select count(*) as of_a_row_without_text from embedd.similar('texts', '301');
select count(*) as of_no_row from embedd.similar('texts', null);
select call, r.* from unnest(array[
    $$ embedd.similar('texts', 'no such key') $$, $$ embedd.similar('texts', '1', 0) $$, $$ embedd.similar('texts', '1', 1001) $$,
    $$ embedd.similar('texts', '1', filters => '{"no such": 1}') $$, $$ embedd.similar('no such table', '1') $$, $$ embedd.similar(null, '1') $$]) with ordinality u(call, n),
    golden.refusal('select ' || call) r order by n;
-- A row that a policy hides is neither a question nor an answer.
create role golden_similar;
grant usage on schema querying, embedd to golden_similar;
grant select on :texts_vectors to golden_similar;
alter table :texts_vectors enable row level security;
create policy few on :texts_vectors to golden_similar using (pk_value in ('1', '2', '3'));
set role golden_similar;
select array_agg(id order by id) from embedd.similar('texts', '1');
select code, message, detail from golden.refusal($$ select embedd.similar('texts', '4') $$);
reset role;
alter table :texts_vectors disable row level security;
drop policy few on :texts_vectors;
drop owned by golden_similar;
drop role golden_similar;

-- Exact search and index search find the same.
begin;
set local enable_indexscan = off;
create temp table exact on commit drop as select n, score from embedd.query('texts', 'text number 7', 10) with ordinality q(id, score, metadata, embedded_text, n);
set local enable_indexscan = on;
set local enable_seqscan = off;
select n, abs(i.score - e.score) < 1e-6 as same_score
  from embedd.query('texts', 'text number 7', 10, ef_search => 1000) with ordinality i(id, score, metadata, embedded_text, n) join exact e using (n) order by n;
commit;

-- All forms of a call.
select count(*) from embedd.query(vector_table => 'texts', query => 'x', "limit" => 3, filters => '{"n": 1}', min_similarity_score => 0, ef_search => 50);
select n, count(*) from generate_series(1, 3) n, embedd.query('texts', 'text number ' || n, n) group by n order by n;
select t.t, round(q.score::numeric, 3) as score from texts t, lateral (select score from embedd.query('texts', t.t, 1)) q where t.id in (1, 2, 3) order by t.id;
prepare ask(text, integer) as select count(*) from embedd.query('texts', $1, $2);
execute ask('x', 5);
execute ask('y', 6);
deallocate ask;
create view nearest as select id from embedd.query('texts', 'x', 4);
select count(*) from nearest;
drop view nearest;
declare answers cursor with hold for select metadata ->> 't' = embedded_text as kept from embedd.query('texts', 'x', 2);
fetch all from answers;
close answers;
select count(*) from embedd.query('texts', 'inside a transaction that is read only');
begin read only;
select count(*) from embedd.query('texts', 'x', 3);
commit;
begin isolation level serializable read only deferrable;
select count(*) from embedd.query('texts', 'x', 3);
commit;
do $$ declare r record; begin for r in select id from embedd.query('texts', 'x', 3) loop perform 1; end loop; end $$;
-- Long and unusual questions.
select count(*) from embedd.query('texts', repeat('a very long question ', 50000), 1);
select count(*) from embedd.query('texts', E'Größe 中文 🎉 \' " \\ $1 % \n\t\x01', 1);

-- pgvector's settings are unchanged, also after an error, and whether they were set or not.
show hnsw.iterative_scan;
show hnsw.ef_search;
set hnsw.ef_search = 77;
set hnsw.iterative_scan = relaxed_order;
select count(*) from embedd.query('texts', 'x', 3);
select * from golden.refusal($$ select id, 1 / 0 from embedd.query('texts', 'x', 3) $$) \gx
begin;
set local hnsw.ef_search = 88;
savepoint a;
select count(*) from embedd.query('texts', 'x', 3, ef_search => 999);
show hnsw.ef_search;
rollback to a;
show hnsw.ef_search;
commit;
show hnsw.ef_search;
show hnsw.iterative_scan;
reset hnsw.ef_search;
reset hnsw.iterative_scan;
-- Within the query they make it find enough rows with a filter: more than the default ef_search.
select count(*) from embedd.query('texts', 'x', 300);

-- While paused, queries use the stored vectors.
select embedd.pause_sync('texts');
insert into texts values (400, 'written while paused', 400);
select count(*), count(*) filter (where id = '400') as of_the_new from embedd.query('texts', 'written while paused', 1000);
select embedd.resume_sync('texts');
call golden.wait_synced('texts');
select id, round(score::numeric, 3) as score from embedd.query('texts', 'written while paused', 1, '{"n": 400}');

-- Errors.
\x on
select l as "limit", r.* from unnest(array['0', '-1', '1001', '2147483647']) with ordinality u(l, n),
    golden.refusal(format('select embedd.query(%L, %L, %s)', 'texts', 'x', l)) r order by n;
select e as ef_search, r.* from unnest(array['0', '-1', '1001']) with ordinality u(e, n),
    golden.refusal(format('select embedd.query(%L, %L, ef_search => %s)', 'texts', 'x', e)) r order by n;
select s as min_similarity_score, r.* from unnest(array['-0.1', '1.1', '''NaN''', '''infinity''']) with ordinality u(s, n),
    golden.refusal(format('select embedd.query(%L, %L, min_similarity_score => %s)', 'texts', 'x', s)) r order by n;
select t as text, r.* from unnest(array['', ' ', E' \t\n']) with ordinality u(t, n),
    golden.refusal(format('select embedd.query(%L, %L)', 'texts', t)) r order by n;
select * from golden.refusal($$ select embedd.embed('texts', '') $$);
-- Errors of the question come before errors of the status.
select * from golden.refusal($$ select embedd.query('no such table', '', 0) $$);
\x off
-- Required arguments; embed() of NULL is NULL.
select arguments, code from unnest(array['null, $$x$$', '$$texts$$, null', '$$texts$$, $$x$$, null']) with ordinality u(arguments, n),
    golden.refusal(format('select embedd.query(%s)', arguments)) order by n;
select embedd.embed('texts', null) is null as nothing;

-- A cancelled query leaves the session unchanged.
begin;
set local statement_timeout = '1ms';
select count(embedd.embed('texts', n::text || repeat(' long', 1000))) from generate_series(1, 1000) n;
rollback;
select count(*) from embedd.query('texts', 'x', 3);

-- The vectors are ordinary rows: a join with the source, without embedd.
select count(*) from texts s join :texts_vectors v on v.pk_value = s.id::text where v.embedding is not null;
-- The user's own changes to the table: a view on it, an index, a column, a privilege.
alter table :texts_vectors add column seen timestamptz default now();
create index on :texts_vectors ((metadata ->> 'n'));
update texts set t = t || ' changed' where id = 1;
call golden.wait_synced('texts');
select embedded_text, seen is not null as seen from :texts_vectors where pk_value = '1';

-- Its table dropped directly.
drop table :texts_vectors;
select code, message ~ 'OID' as names_an_oid, message ~ 'texts' as names_the_vector_table from golden.refusal($$ select embedd.query('texts', 'x') $$);
call golden.wait_for('the status', $$ select sync_status = 'error' from embedd.sync_status('texts') $$);
select sync_status, synced_rows, total_rows from embedd.sync_status('texts');
select embedd.drop_vector_table('texts');
select * from golden.traces();
drop schema querying cascade;
