-- What the page on filters takes for granted: a vector table with metadata of several types.

set client_min_messages = warning;
create extension embedd cascade;
create table products (id bigint primary key, name text, category text, price numeric, in_stock boolean);
insert into products values
    (1, 'A light tent for two', 'tents', 120, true),
    (2, 'A large tent', 'tents', 310, false),
    (3, 'Rubber boots', 'boots', 19.90, true);
select embedd.create_vector_table('tents', 'products', '[
    {"name": "name", "role": "embedding"},
    {"name": "category", "role": "metadata"},
    {"name": "price", "role": "metadata"},
    {"name": "in_stock", "role": "metadata"}]', start_backfill => true);
select embedd.wait_until_synced('tents', '1 min');
