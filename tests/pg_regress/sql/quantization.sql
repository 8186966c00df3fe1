-- index => '{"quantization": "bit"}': an index over the signs of the elements, whose candidates are compared exactly.
\set VERBOSITY terse
create schema quantizing;
set search_path = quantizing, public;
alter sequence embedd.vector_tables_id_seq restart with 1409351681;
create table words (id integer primary key, body text, n integer);
insert into words select n, 'word' || n % 40 || ' thing' || n % 27 || ' place' || n % 11 || ' item' || n, n from generate_series(1, 1500) n;
select id is not null as created from embedd.create_provider('words', 'test');
\set columns '[{"name": "body", "role": "embedding"}, {"name": "n", "role": "metadata"}]'
select platform_vector_ref as vectors from embedd.create_vector_table('bits', 'words', :'columns', embedding_provider => 'words', embedding_dimensions => 768,
    index => '{"quantization": "bit", "m": 24}', start_backfill => true, table_name => 'bits') \gset
select platform_vector_ref from embedd.create_vector_table('half bits', 'words', :'columns', embedding_provider => 'words', embedding_dimensions => 5000,
    vector_type => 'halfvec', index => '{"quantization": "bit"}', start_backfill => true, table_name => 'half_bits');
select name, vector_type, index_options from embedd.vector_tables order by name;
call golden.wait_synced('bits');
call golden.wait_synced('half bits');
select i.indrelid::regclass, replace(pg_get_indexdef(i.indexrelid), format(' ON %s', i.indrelid::regclass), '') as index
  from pg_index i where i.indrelid in ('bits'::regclass, 'half_bits'::regclass) and not i.indisprimary order by 1;
analyze bits, half_bits;
-- The statement of the index, and that it serves it.
select regexp_replace(embedd.explain_query('bits', 'word7 thing7', 10, ef_search => 300), 'about [0-9]+ rows', 'about N rows');
set enable_seqscan = off;
do $$
declare
    line text;
begin
    for line in execute 'explain (costs off) ' || regexp_replace(embedd.explain_query('bits', 'word7 thing7', 10, ef_search => 300), '^((--|set local)[^\n]*\n)*', '') loop
        if line ~ 'Index Scan|Order By' then
            raise notice '%', regexp_replace(line, 'bits_.*_idx', 'the index');
        end if;
    end loop;
end
$$;
reset enable_seqscan;
-- What it brings is what reading every row brings.
select name, count(*) as questions, min(found) as least, round(avg(found), 1) >= 9.8 as nearly_all
  from (values ('bits'), ('half bits')) t(name), generate_series(1, 40) n,
       lateral (select count(*) as found
                  from embedd.query(t.name, 'word' || n % 40 || ' item' || n * 35, 10, ef_search => 400) i
                  join (select min(e.score) as least from embedd.query(t.name, 'word' || n % 40 || ' item' || n * 35, 10) e) e on i.score >= e.least - 1e-6) f
 group by name order by name;
select count(*) as wanted from embedd.query('bits', 'word7', 1000, ef_search => 100);
select count(*) as filtered from embedd.query('bits', 'word7', 10, '{"n": {"lte": 5}}', ef_search => 100);
select "check", state, object from embedd.doctor() where "check" in ('vector_index', 'unused_index') order by object;
-- Without it, by a swap.
select changed, needs_backfill from embedd.update_vector_table('bits', index => '{"method": "hnsw"}');
select status from embedd.backfill('bits');
call golden.wait_for('the swap', $$ select count(*) = 1 from embedd.vector_tables v where v.name = 'bits' $$);
call golden.wait_synced('bits');
select replace(pg_get_indexdef(i.indexrelid), format(' ON %s', i.indrelid::regclass), '') as index from pg_index i where i.indrelid = 'bits'::regclass and not i.indisprimary;
select changed, needs_backfill from embedd.update_vector_table('half bits', embedding_dimensions => 600);
select status from embedd.backfill('half bits');
call golden.wait_for('the swap', $$ select count(*) = 1 from embedd.vector_tables v where v.name = 'half bits' $$);
call golden.wait_synced('half bits');
select replace(pg_get_indexdef(i.indexrelid), format(' ON %s', i.indrelid::regclass), '') as index from pg_index i where i.indrelid = 'half_bits'::regclass and not i.indisprimary;

-- Indexes that the owner makes serve questions too, whatever they are over; what has another distance or another expression does not.
select platform_vector_ref from embedd.create_vector_table('own', 'words', :'columns', embedding_provider => 'words', embedding_dimensions => 600,
    index => '{"method": "none"}', start_backfill => true, table_name => 'own');
call golden.wait_synced('own');
select embedd.query('own', 'word7 thing7', 1) is not null as asked;
create function served(by text) returns text language plpgsql as $$
declare
    key text;
begin
    execute 'create index own_idx on own using ' || by;
    key := substring(embedd.explain_query('own', 'word7 thing7', 10, ef_search => 300) from 'order by ([^\n]*) limit');
    if (select count(*) from embedd.query('own', 'word7 thing7', 10, ef_search => 300) i
          join (select min(e.score) as least from embedd.query('own', 'word7 thing7', 10) e) e on i.score >= e.least - 1e-6) < 9 then
        key := key || ', which finds too little';
    end if;
    key := substring(embedd.explain_query('own', 'word7 thing7', 10, ef_search => 300) from '-- ([^:;(]*)') || ': ' || key;
    drop index own_idx;
    return key;
end
$$;
select by, served(by) from unnest(array['hnsw (embedding vector_cosine_ops)', 'hnsw ((embedding::halfvec(600)) halfvec_cosine_ops)',
    'hnsw ((binary_quantize(embedding)::bit(600)) bit_hamming_ops) with (m = 24)', 'ivfflat (embedding vector_cosine_ops) with (lists = 4)',
    'ivfflat ((embedding::halfvec(600)) halfvec_cosine_ops) with (lists = 4)',
    'hnsw (embedding vector_l2_ops)', 'hnsw (embedding vector_ip_ops)', 'hnsw ((subvector(embedding, 1, 500)::vector(500)) vector_cosine_ops)',
    'hnsw ((binary_quantize(subvector(embedding, 1, 512))::bit(512)) bit_hamming_ops)', 'hnsw ((binary_quantize(embedding)::bit(600)) bit_jaccard_ops)',
    'hash (pk_value)']) by;
-- Of several the one that embedd would make is used.
create index own_bits on own using hnsw ((binary_quantize(embedding)::bit(600)) bit_hamming_ops);
create index own_vectors on own using hnsw (embedding vector_cosine_ops);
select embedd.explain_query('own', 'word7 thing7', 10, ef_search => 300) ~ 'binary_quantize' as by_bits;

-- Errors.
\x on
select arguments, r.* from unnest(array[
    $$ index => '{"quantization": "bit"}', embedding_dimensions => 511 $$, $$ index => '{"quantization": "bit"}', embedding_provider => 'local' $$,
    $$ index => '{"quantization": "scalar"}' $$, $$ index => '{"quantization": 1}' $$, $$ index => '{"quantization": "bit", "method": "none"}' $$,
    $$ index => '{"m": 16}', embedding_dimensions => 5000 $$]) with ordinality u(arguments, n),
    golden.refusal(format('select embedd.create_vector_table(%L, %L, %L, %s %s)', 'x', 'words', :'columns',
        case when arguments like '%local%' then '' else 'embedding_provider => ''words'', ' end, arguments)) r order by n;
select r.* from golden.refusal($$ select embedd.update_vector_table('half bits', embedding_dimensions => 100) $$) r;
\x off
select embedd.drop_vector_table('bits'), embedd.drop_vector_table('half bits'), embedd.drop_vector_table('own');
select embedd.drop_provider('words');
select * from golden.traces();
drop schema quantizing cascade;
