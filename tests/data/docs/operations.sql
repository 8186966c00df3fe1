-- What the page on operations takes for granted: vector table "items", the first of its database, and a subscription that has no publisher.

set client_min_messages = warning;
create extension embedd cascade;
create table items (id bigint primary key, name text);
insert into items values (1, 'a tent'), (2, 'a stove');
select embedd.create_vector_table('items', 'items', '[{"name": "name", "role": "embedding"}]', start_backfill => true);
select embedd.wait_until_synced('items', '1 min');
create subscription s connection 'dbname=nowhere' publication p with (connect = false);
