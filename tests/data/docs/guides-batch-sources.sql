-- What the page on sources takes for granted: a table with a key of two columns, and a view over a join.

set client_min_messages = warning;
create extension embedd cascade;
create table events (tenant integer, id bigint, title text, primary key (tenant, id));
create table customers (id bigint primary key, name text);
create table orders (id bigint primary key, customer_id bigint references customers, note text);
create view orders_with_customer as
    select o.id, o.note, c.name as customer from orders o join customers c on c.id = o.customer_id;
insert into events values (7, 1, 'The first event');
insert into customers values (1, 'Ada');
insert into orders values (1, 1, 'Leave the parcel at the door');
