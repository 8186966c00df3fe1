-- The other ways to ask: by a vector, without a text, of several rows or tables, with boosts and decays; and the SQL that runs.
\set VERBOSITY terse
create schema asking;
set search_path = asking, public;
alter sequence embedd.vector_tables_id_seq restart with 1359020033;
create table songs (id bigint primary key, title text, likes integer, price numeric, live boolean, released timestamptz, genre text, tags text[]);
insert into songs
select n, 'song number ' || n, n * n % 97, n % 10 + 0.5, n % 3 = 0, timestamptz '2024-01-01 00:00+00' + n * interval '1 day',
       (array['pop', 'jazz', 'Folk'])[n % 3 + 1], array['t' || n % 5]
  from generate_series(1, 200) n;
insert into songs values (201, 'a song without anything', null, null, null, null, null, null), (202, null, 5, 0.5, true, 'infinity', 'jazz', '{}');
select platform_vector_ref as vectors from embedd.create_vector_table('songs', 'songs',
    '[{"name": "title", "role": "embedding"}, {"name": "likes", "role": "metadata"}, {"name": "price", "role": "metadata"}, {"name": "live", "role": "metadata"},
      {"name": "released", "role": "metadata"}, {"name": "genre", "role": "metadata"}, {"name": "tags", "role": "metadata"}]') \gset
select status from embedd.backfill('songs');
call golden.wait_synced('songs');

-- By a vector: the same rows as by the text that it is the vector of.
select count(*), bool_and(t.id = v.id and abs(t.score - v.score) < 1e-6) as same
  from embedd.query('songs', 'song number 7', 20) with ordinality t(id, score, metadata, embedded_text, n)
  join embedd.query('songs', query_vector => embedd.embed('songs', 'song number 7'), "limit" => 20) with ordinality v(id, score, metadata, embedded_text, n) using (n);
select id from embedd.query('songs', query_vector => (select embedding from :vectors where pk_value = '42'), "limit" => 1);
select count(*) as as_a_text from embedd.query('songs'::text, query_vector => (select embedding::text from :vectors where pk_value = '42'), "limit" => 3::bigint);

-- offset: the pages are those of one long answer.
select array_agg(id order by page, n) = (select array_agg(id order by n) from embedd.query('songs', 'music', 60) with ordinality q(id, score, metadata, embedded_text, n)) as same
  from generate_series(0, 5) page, embedd.query('songs', 'music', 10, "offset" => page * 10) with ordinality q(id, score, metadata, embedded_text, n);
select count(*) as the_rest from embedd.query('songs', 'music', "offset" => 195);
select count(*) as beyond from embedd.query('songs', 'music', 5, "offset" => 1000);
select count(*) as default_offset from embedd.query('songs', 'music', "offset" => null);

-- Without a text: in the order of a field, rows without it last, and those without a text too.
select array_agg(id) as cheap from embedd.query('songs', "limit" => 5, order_by => 'price');
select array_agg(id) as dear from embedd.query('songs', "limit" => 5, order_by => 'price desc', filters => '{"genre": "jazz"}');
select id, score, metadata ->> 'likes' as likes, embedded_text from embedd.query('songs', "limit" => 3, order_by => 'likes DESC', filters => '{"live": true}');
select array_agg(id) as by_key from embedd.query('songs', "limit" => 4, order_by => 'id');
select array_agg(id) as by_key_descending from embedd.query('songs', "limit" => 4, order_by => 'id desc', "offset" => 1);
select array_agg(id order by n) = (select array_agg(id::text order by released nulls last, id::text collate "C") from songs) as by_time
  from embedd.query('songs', "limit" => 1000, order_by => 'released') with ordinality q(id, score, metadata, embedded_text, n);
select array_agg(id order by n) = (select array_agg(id::text order by genre collate "C" desc nulls last, id::text collate "C") from songs) as by_text
  from embedd.query('songs', "limit" => 1000, order_by => 'genre desc') with ordinality q(id, score, metadata, embedded_text, n);

-- Page by page after the last row: every row once, in the same order, for every field and direction.
create function pages(order_by text, field text, of integer) returns text[] language plpgsql as $$
declare
    ids text[] := '{}';
    page record;
    place jsonb;
    found integer;
begin
    loop
        found := 0;
        for page in select q.id, q.metadata from embedd.query('songs', "limit" => of, order_by => pages.order_by, after => place) q loop
            ids := ids || page.id;
            found := found + 1;
            place := case when field is null then jsonb_build_array(page.id) else jsonb_build_array(page.metadata ->> field, page.id) end;
        end loop;
        exit when found < of;
    end loop;
    return ids;
end
$$;
select order_by, pages(order_by, field, 7) = (select array_agg(id order by n) from embedd.query('songs', "limit" => 1000, order_by => o.order_by) with ordinality q(id, score, metadata, embedded_text, n)) as same
  from (values ('likes', 'likes'), ('likes desc', 'likes'), ('price', 'price'), ('released desc', 'released'), ('genre', 'genre'), ('genre desc', 'genre'), ('live', 'live'), ('id', null), ('id desc', null)) o(order_by, field);
drop function pages;
select count(*) as with_a_filter from embedd.query('songs', "limit" => 1000, order_by => 'price', after => '[5.5, "15"]', filters => '{"live": true}');

-- Several rows: nearest to their mean, without them.
select count(*), count(*) filter (where id in ('1', '2', '3')) as themselves from embedd.similar('songs', array['1', '2', '3'], 1000);
select bool_and(s.id = e.id) as by_the_mean
  from embedd.similar('songs', array['1', '2', '3'], 10) with ordinality s(id, score, metadata, embedded_text, n)
  join (select v.pk_value as id, row_number() over (order by (v.embedding <=> m.mean) + 0.0::float8) as n
          from :vectors v, (select avg(l2_normalize(embedding)) as mean from :vectors where pk_value in ('1', '2', '3')) m
         where v.pk_value not in ('1', '2', '3') and v.embedding is not null) e using (n);
select (select array_agg(s) from embedd.similar('songs', array['7', '7', null]) s) = (select array_agg(s) from embedd.similar('songs', '7') s) as one;
select (select array_agg(s) from embedd.similar('songs', 7::bigint, 3::bigint) s) = (select array_agg(s) from embedd.similar('songs', '7', 3) s) as a_number;
select count(*) as of_none from embedd.similar('songs', '{}'::text[]);
select count(*) as of_a_row_without_text from embedd.similar('songs', array['202']);

-- Boosts and decays: the scores of a plain evaluator over the candidates, which are at least ten times the rows wanted.
prepare evaluated(integer, text) as
with candidates as (
    select v.pk_value, v.metadata, 1 - (v.embedding <=> embedd.embed('songs', $2)) as similarity
      from :vectors v where v.embedding is not null
     order by (v.embedding <=> embedd.embed('songs', $2)) + 0.0::float8, v.pk_value collate "C" limit greatest(10 * $1, 100)),
scored as (
    select pk_value, similarity
         + coalesce(0.2 * ((metadata ->> 'likes')::float8 - min((metadata ->> 'likes')::float8) over ())
                    / (max((metadata ->> 'likes')::float8) over () - min((metadata ->> 'likes')::float8) over ()), 0)
         + coalesce(-0.1 * (metadata ->> 'live')::boolean::integer, 0)
         + coalesce(0.3 * 0.5 ^ (abs(extract(epoch from timestamptz '2024-07-01 00:00+00' - (metadata ->> 'released')::timestamptz)::float8)
                                 / extract(epoch from interval '30 days')::float8), 0)
         + coalesce(0.05 * 0.5 ^ (abs((metadata ->> 'price')::float8 - 3) / 2), 0) as score
      from candidates)
select array_agg(pk_value order by score desc) as ids, array_agg(score order by score desc) as scores
  from (select * from scored order by score desc limit $1) s;
create temp table evaluated as execute evaluated(10, 'song number 7');
select array_agg(q.id order by q.n) = e.ids as same_rows, bool_and(abs(q.score - e.scores[q.n]) < 1e-6) as same_scores
  from evaluated e, embedd.query('songs', 'song number 7', 10,
    boosts => '[{"column": "likes", "weight": 0.2}, {"column": "live", "weight": -0.1}]',
    decays => '[{"column": "released", "half_life": "30 days", "weight": 0.3, "origin": "2024-07-01T00:00:00Z"}, {"column": "price", "half_life": 2, "weight": 0.05, "origin": 3}]')
    with ordinality q(id, score, metadata, embedded_text, n)
 group by e.ids;
drop table evaluated;
deallocate evaluated;
-- The row with most likes leads where likes count most, and a logarithm makes less of it.
select id, metadata ->> 'likes' as likes from embedd.query('songs', 'music', 1, boosts => '[{"column": "likes", "weight": 100}]');
select count(*) from embedd.query('songs', 'music', 5, boosts => '[{"column": "likes", "weight": 1, "modifier": "log1p"}]', decays => '[{"column": "released", "half_life": "1 year", "weight": 1}]');
-- min_similarity_score is about the similarity, and the pages are those of one answer.
select count(*) as nothing from embedd.query('songs', 'music', 5, min_similarity_score => 1, boosts => '[{"column": "likes", "weight": 100}]');
select count(*) as same from embedd.query('songs', 'music', 5, boosts => '[]', decays => null);

-- Several tables: the merged answers, each row with its table.
create table artists (id uuid primary key, name text, likes integer);
insert into artists select ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, 'artist number ' || n, n from generate_series(1, 50) n;
select platform_vector_ref as artists_vectors from embedd.create_vector_table('artists', 'artists', '[{"name": "name", "role": "embedding"}, {"name": "likes", "role": "metadata"}]') \gset
select status from embedd.backfill('artists');
call golden.wait_synced('artists');
create temp table merged as
select s.* from embedd.search(array['songs', 'artists'], 'number 7', 30, '{"likes": {"gte": 0}}') with ordinality s(vector_table, id, score, metadata, embedded_text, n);
select count(distinct vector_table) as tables, array_agg(score order by n) = array_agg(score order by score desc) as best_first from merged;
select array_agg((m.vector_table, m.id)::text order by m.n) = (select array_agg((a.t, a.id)::text order by a.score desc, a.place, a.n)
         from (select * from (select 'songs' as t, 1 as place, q.* from embedd.query('songs', 'number 7', 30, '{"likes": {"gte": 0}}') with ordinality q(id, score, metadata, embedded_text, n)
               union all select 'artists', 2, q.* from embedd.query('artists', 'number 7', 30, '{"likes": {"gte": 0}}') with ordinality q(id, score, metadata, embedded_text, n)) b
               order by score desc, place, n limit 30) a) as same from merged m;
select array_agg((s.vector_table, s.id)::text order by s.n) = (select array_agg((m.vector_table, m.id)::text order by m.n) from merged m where m.n > 10 and m.n <= 15) as next_page
  from embedd.search(array['songs', 'artists'], 'number 7', 5, '{"likes": {"gte": 0}}', "offset" => 10) with ordinality s(vector_table, id, score, metadata, embedded_text, n);
select count(*) as one_table from embedd.search(array['artists', 'artists'], 'number 7', 100::bigint);
select count(*) as of_nothing from embedd.search(array['songs'], null);
drop table merged;

-- The SQL that runs: it is what query() returns, and needs no provider.
select regexp_replace(embedd.explain_query('songs', 'song number 7', 3, '{"genre": "jazz", "likes": {"in": [1, 4]}}'), 'about [0-9.]+ ', 'about N ', 'g');
select embedd.explain_query('songs', order_by => 'price desc', after => '[5.5, "15"]', filters => '{"genre": {"prefix": "j''$1"}}');
select embedd.explain_query('songs', query_vector => (select embedding from :vectors where pk_value = '42'), min_similarity_score => 0.2, "offset" => 5,
    decays => '[{"column": "released", "half_life": "30 days", "weight": 0.3}]') ~ '-- Then rows with a similarity below 0.2 .*-- Then boosts .*-- Then 5 rows are skipped, and 10 are returned.*<=>. ''\[.*\]''::public.vector' as by_a_vector;
select embedd.explain_query('songs', null);
create temp table explained (pk_value text, distance float8, metadata jsonb, embedded_text text, "values" float8[]);
do $$ begin execute 'insert into explained ' || embedd.explain_query('songs', 'song number 7', 3, '{"genre": "jazz"}'); end $$;
select array_agg(pk_value order by distance) = (select array_agg(id order by score desc) from embedd.query('songs', 'song number 7', 3, '{"genre": "jazz"}')) as same from explained;
drop table explained;

-- Errors.
\x on
select call, r.* from unnest(array[
    $$ embedd.query('songs', 'x', "offset" => -1) $$, $$ embedd.query('songs', 'x', "offset" => 1001) $$,
    $$ embedd.query('songs', 'x', query_vector => '[1]') $$, $$ embedd.query('songs', query_vector => '[1]') $$,
    $$ embedd.query('songs', query_vector => (select array_fill(0, array[384])::vector)) $$,
    $$ embedd.query('songs', 'x', order_by => 'price') $$, $$ embedd.query('songs', 'x', after => '["1"]') $$,
    $$ embedd.query('songs', after => '["1"]') $$, $$ embedd.query('songs', order_by => 'no such') $$, $$ embedd.query('songs', order_by => 'tags') $$,
    $$ embedd.query('songs', order_by => 'price; drop table songs') $$, $$ embedd.query('songs', order_by => '') $$,
    $$ embedd.query('songs', order_by => 'price', after => '"1"') $$, $$ embedd.query('songs', order_by => 'price', after => '["x", "1"]') $$,
    $$ embedd.query('songs', order_by => 'id', after => '[1]') $$, $$ embedd.query('songs', order_by => 'price', min_similarity_score => 0.5) $$,
    $$ embedd.query('songs', order_by => 'price', boosts => '[]') $$, $$ embedd.query('songs', order_by => 'price', ef_search => 10) $$,
    $$ embedd.query('songs', 'x', boosts => '{}') $$, $$ embedd.query('songs', 'x', boosts => '[{"column": "genre", "weight": 1}]') $$,
    $$ embedd.query('songs', 'x', boosts => '[{"column": "no such", "weight": 1}]') $$, $$ embedd.query('songs', 'x', boosts => '[{"column": "likes"}]') $$,
    $$ embedd.query('songs', 'x', boosts => '[{"column": "tags", "weight": 1}]') $$, $$ embedd.query('songs', 'x', boosts => '[{"column": "likes", "weight": 1e9}]') $$,
    $$ embedd.query('songs', 'x', decays => '[{"column": "released", "half_life": "soon", "weight": 1}]') $$,
    $$ embedd.query('songs', 'x', decays => '[{"column": "released", "half_life": "-1 day", "weight": 1}]') $$,
    $$ embedd.query('songs', 'x', decays => '[{"column": "price", "half_life": 1, "weight": 1}]') $$,
    $$ embedd.query('songs', 'x', decays => '[{"column": "price", "half_life": 1, "weight": 1, "origin": "'') or true --"}]') $$,
    $$ embedd.search(array['songs', 'no such table'], 'x') $$, $$ embedd.search(array['songs', 'artists'], 'x', filters => '{"genre": "pop"}') $$,
    $$ embedd.search('{}', 'x') $$, $$ embedd.search(null, 'x') $$, $$ embedd.search(array['songs'], 'x', 0) $$,
    $$ embedd.similar('songs', array['1', 'no such key']) $$, $$ embedd.explain_query('no such table', 'x') $$, $$ embedd.explain_query('songs', 'x', 0) $$]) with ordinality u(call, n),
    golden.refusal('select ' || call) r order by n;
\x off

-- A reader sees what he may read, and nothing of tables that he may not.
create role golden_asking;
grant usage on schema asking, embedd to golden_asking;
grant select on :vectors to golden_asking;
alter table :vectors enable row level security;
create policy few on :vectors to golden_asking using (pk_value in ('1', '2', '3'));
set role golden_asking;
select array_agg(id) as listed from embedd.query('songs', order_by => 'id');
select array_agg(id order by id) as boosted from embedd.query('songs', 'x', boosts => '[{"column": "likes", "weight": 1}]');
select array_agg(id order by id) as by_vector from embedd.query('songs', query_vector => embedd.embed('songs', 'x'));
select array_agg(id order by id) as searched from embedd.search(array['songs'], 'x');
select call, r.code from unnest(array[$$ embedd.search(array['songs', 'artists'], 'x') $$, $$ embedd.similar('songs', array['1', '4']) $$, $$ embedd.explain_query('artists', 'x') $$,
    $$ embedd.query('artists', order_by => 'id') $$]) with ordinality u(call, n), golden.refusal('select ' || call) r order by n;
reset role;
drop owned by golden_asking;
drop role golden_asking;
select embedd.drop_vector_table('songs'), embedd.drop_vector_table('artists');
select * from golden.traces();
drop schema asking cascade;
