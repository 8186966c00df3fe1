-- What the page on changing a vector table takes for granted: a synced vector table.

set client_min_messages = warning;
create extension embedd cascade;
create table articles (id bigint primary key, title text, language text, published timestamptz);
insert into articles select i, 'title ' || i, 'en', now() from generate_series(1, 50) i;
select embedd.create_provider('p', 'test');
select embedd.create_vector_table('articles', 'articles', '[{"name": "title", "role": "embedding"}]', embedding_provider => 'p',
    start_backfill => true);
select embedd.wait_until_synced('articles', '1 min');
