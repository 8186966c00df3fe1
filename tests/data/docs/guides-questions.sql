-- What docs/guides/questions.md needs: two vector tables, with the words of the test provider.
CREATE EXTENSION embedd CASCADE;
SELECT embedd.create_provider('test', 'test');
CREATE TABLE products (id bigint PRIMARY KEY, name text, category text, price numeric, likes integer, created_at timestamptz);
CREATE TABLE articles (id bigint PRIMARY KEY, title text, category text);
INSERT INTO products VALUES (1, 'a light tent for two', 'tents', 199, 12, now()), (2, 'a tent for the family', 'tents', 349, 90, now() - interval '90 days'),
    (3, 'boots for the rain', 'boots', 89.5, 4, NULL), (4, 'a lamp', 'lamps', NULL, NULL, now());
INSERT INTO articles VALUES (1, 'how to dry a tent', 'care');
SELECT embedd.create_vector_table('products', 'products', columns => '[{"name": "name", "role": "embedding"}, {"name": "category", "role": "metadata"},
    {"name": "price", "role": "metadata"}, {"name": "likes", "role": "metadata"}, {"name": "created_at", "role": "metadata"}]',
    embedding_provider => 'test', start_backfill => true, table_name => 'products_vectors');
SELECT embedd.create_vector_table('articles', 'articles', columns => '[{"name": "title", "role": "embedding"}, {"name": "category", "role": "metadata"}]',
    embedding_provider => 'test', start_backfill => true);
SELECT embedd.wait_until_synced('products', '60 s'), embedd.wait_until_synced('articles', '60 s');
