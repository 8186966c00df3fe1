-- Filters: every operator on every type, combinations, errors.
\set VERBOSITY terse
create schema filtering;
set search_path = filtering, public;
alter sequence embedd.vector_tables_id_seq restart with 536870913;
create table things (
    id integer primary key, t text,
    word text, code varchar(4), number integer, big bigint, real_number float8, exact numeric, flag boolean, day date, moment timestamptz,
    "odd ""field"".$a" text, json jsonb, unset text);
insert into things values
    (1, 'one',   'apple',  'a',    1,    -9223372036854775808, 0.1,  0.1,                   true,  '2024-01-01', '2024-01-01 00:00+00', 'x', '{"a": 1}', null),
    (2, 'two',   'Apple',  'ab',   2,    0,                    0.5,  0.50,                  false, '2024-02-29', '2024-02-29 12:00+00', 'y', '"text"',   null),
    (3, 'three', 'banana', 'abc',  10,   9007199254740993,     1e10, 9007199254740993.5,    true,  '2024-12-31', '2024-12-31 23:59:59.999999+00', 'z', '[1, 2]', null),
    (4, 'four',  'it''s',  'it''s',-5,   9223372036854775807,  -2.5, -0.0,                  null,  'infinity',   'infinity', E'\\', 'true', null),
    (5, 'five',  null,     null,   null, null,                 null, null,                  null,  null,         null,       null, null, null),
    (6, 'six',   '',       '',     0,    5,                    'NaN', 'NaN',                false, '1999-12-31', '1999-12-31 23:59:59+00', '', 'null', ''),
    (7, 'seven', '10',     '10',   100,  10,                   'Infinity', 100,             true,  '0001-01-01', '0001-01-01 00:00+00', '%', '10', null);
select platform_vector_ref as things_vectors from embedd.create_vector_table('things', 'things', '[
    {"name": "t", "role": "embedding"},
    {"name": "word", "role": "metadata"}, {"name": "code", "role": "metadata"}, {"name": "number", "role": "metadata"},
    {"name": "big", "role": "metadata"}, {"name": "real_number", "role": "metadata"}, {"name": "exact", "role": "metadata"},
    {"name": "flag", "role": "metadata"}, {"name": "day", "role": "metadata"}, {"name": "moment", "role": "metadata"},
    {"name": "odd \"field\".$a", "role": "metadata"}, {"name": "json", "role": "metadata"}, {"name": "unset", "role": "metadata"}]',
    start_backfill => true) \gset
call golden.wait_synced('things');
-- Fields that were not in the metadata when a row was written.
update :things_vectors set metadata = metadata - 'word' - 'number' - 'flag' where pk_value = '5';

-- The keys that a filter finds, in order; or the error.
create function found(filter jsonb) returns text language plpgsql as $$
begin
    return coalesce((select string_agg(id, ' ' order by id) from embedd.query('things', 'anything', 1000, filter)), '(none)');
end
$$;
create function each_finds(filters text[]) returns table (filter text, finds text) language sql as
    $$ select f, filtering.found(f::jsonb) from unnest(filters) with ordinality u(f, n) order by n $$;

-- No filter.
select found(null::jsonb), found('null'), found('{}');

-- keyword: exactly and case-sensitively, ordered by code point.
select * from each_finds(array[
    '{"word": "apple"}', '{"word": {"eq": "apple"}}', '{"word": {"eq": "APPLE"}}', '{"word": {"eq": ""}}', '{"word": {"eq": "it''s"}}', '{"word": "10"}',
    '{"word": {"ne": "apple"}}', '{"word": {"neq": "apple"}}', '{"word": {"gt": "apple"}}', '{"word": {"gte": "apple"}}', '{"word": {"lt": "apple"}}',
    '{"word": {"lte": "apple"}}', '{"word": {"gt": "A", "lt": "B"}}', '{"word": {"in": ["apple", "banana", "no such"]}}', '{"word": {"in": []}}',
    '{"word": {"nin": ["apple", "banana"]}}', '{"word": {"nin": []}}', '{"word": {"exists": true}}', '{"word": {"exists": false}}',
    '{"word": null}', '{"word": {"eq": null}}', '{"word": {"ne": null}}',
    '{"unset": {"exists": true}}', '{"unset": {"exists": false}}']);
-- A $ before an operator is accepted.
select * from each_finds(array['{"word": {"$eq": "apple"}}', '{"word": {"$nin": ["apple"]}}', '{"number": {"$gte": 2, "$lte": 10}}']);

-- integer: whole numbers of 64 bits.
select * from each_finds(array[
    '{"number": 2}', '{"number": {"eq": -5}}', '{"number": {"ne": 2}}', '{"number": {"gt": 2}}', '{"number": {"gte": 2}}', '{"number": {"lt": 2}}',
    '{"number": {"lte": 2}}', '{"number": {"in": [1, 2, 3]}}', '{"number": {"in": []}}', '{"number": {"nin": [1, 2, 3]}}', '{"number": {"nin": []}}',
    '{"number": {"exists": true}}', '{"number": {"exists": false}}', '{"number": null}', '{"number": {"ne": null}}', '{"number": 0.1e2}',
    '{"big": 9007199254740993}', '{"big": 9007199254740992}', '{"big": 9223372036854775807}', '{"big": {"lte": -9223372036854775808}}']);

-- float: numbers, compared exactly.
select * from each_finds(array[
    '{"real_number": 0.1}', '{"real_number": {"ne": 0.1}}', '{"real_number": {"gt": 0.1}}', '{"real_number": {"gte": 0.1}}', '{"real_number": {"lt": 0.5}}',
    '{"real_number": {"lte": 0.5}}', '{"real_number": 10000000000}', '{"real_number": 1e10}', '{"real_number": {"in": [0.1, 0.5, 7]}}',
    '{"real_number": {"nin": [0.1]}}', '{"real_number": {"exists": true}}', '{"real_number": {"exists": false}}',
    '{"exact": 0.5}', '{"exact": 0}', '{"exact": {"lt": 0}}', '{"exact": {"gt": 9007199254740992}}', '{"exact": {"gt": 1e300}}', '{"exact": 100}',
    '{"exact": 9007199254740993.5}', '{"exact": 9007199254740993.500000000000000001}', '{"exact": {"gt": 9007199254740993.499999999999999999}}',
    '{"exact": "9007199254740993.50000"}', '{"exact": {"lt": 1e400}}', '{"exact": {"gt": -1e-400}}', '{"exact": {"lt": "1e131071"}}']);

-- boolean.
select * from each_finds(array['{"flag": true}', '{"flag": {"eq": false}}', '{"flag": {"ne": true}}', '{"flag": {"in": [true]}}', '{"flag": {"in": []}}',
    '{"flag": {"in": [true, false]}}', '{"flag": {"nin": [true]}}', '{"flag": {"exists": true}}', '{"flag": {"exists": false}}', '{"flag": null}']);

-- datetime: timestamps; without a zone, that of the session.
set timezone = 'UTC';
select * from each_finds(array[
    '{"day": "2024-02-29"}', '{"day": {"ne": "2024-02-29"}}', '{"day": {"gt": "2024-02-29"}}', '{"day": {"gte": "2024-02-29"}}', '{"day": {"lt": "2024-02-29"}}',
    '{"day": {"lte": "2024-02-29"}}', '{"day": {"in": ["2024-02-29", "2024-12-31"]}}', '{"day": {"nin": ["2024-02-29"]}}', '{"day": {"exists": false}}',
    '{"day": "infinity"}', '{"day": {"lt": "infinity"}}', '{"day": "0001-01-01"}', '{"moment": "2024-02-29T12:00:00Z"}', '{"moment": "2024-02-29 17:45+05:45"}',
    '{"moment": {"gt": "2024-12-31T23:59:59Z"}}', '{"moment": {"gte": "2024-01-01", "lt": "2025-01-01"}}', '{"moment": {"in": ["infinity"]}}', '{"moment": null}']);
set timezone = 'Asia/Tokyo';
set datestyle = 'German, DMY';
select * from each_finds(array['{"moment": "2024-02-29T12:00:00Z"}', '{"moment": "2024-02-29T21:00:00"}', '{"moment": {"gte": "2024-01-01", "lt": "2025-01-01"}}', '{"day": "2024-12-31"}']);
reset timezone;
reset datestyle;

-- Fields with any name; jsonb as its text, and a list in it by its elements.
select * from each_finds(array['{"odd \"field\".$a": "x"}', '{"odd \"field\".$a": "\\"}', '{"odd \"field\".$a": "%"}', '{"t": "two"}', '{"json": "text"}', '{"json": "10"}', '{"json": "1"}', '{"json": "true"}', '{"json": "[1, 2]"}', '{"json": {"exists": true}}']);

-- The beginning of a text.
select * from each_finds(array['{"word": {"prefix": "ap"}}', '{"word": {"prefix": ""}}', '{"word": {"prefix": "%"}}', '{"word": {"prefix": "it''s"}}', '{"word": {"prefix": "apples"}}']);


-- Combinations: AND side by side, $or, nested.
select * from each_finds(array[
    '{"word": "apple", "flag": true}', '{"word": "apple", "flag": false}', '{"number": {"gt": 0, "lt": 10}}', '{"number": {"gt": 10, "lt": 0}}',
    '{"$or": [{"word": "apple"}, {"number": 10}]}', '{"flag": true, "$or": [{"word": "apple"}, {"number": 2}]}', '{"$or": [{"word": "apple", "number": 2}, {"number": 10}]}',
    '{"$or": [{"$or": [{"number": 1}, {"number": 2}]}, {"$or": [{"number": 10}]}]}', '{"$or": [{"word": "no such"}, {}]}', '{"$or": [{"word": {"in": []}}]}',
    '{"$and": [{"number": {"gt": 0}}, {"number": {"lt": 10}}]}', '{"$not": {"word": "apple"}}', '{"$not": {"number": {"gt": 1}}}', '{"$not": {}}',
    '{"$not": {"$or": [{"number": 1}, {"flag": true}]}, "word": {"exists": true}}', '{"$or": [{"$not": {"flag": {"exists": true}}}, {"$and": [{"flag": true}, {"number": 10}]}]}',
    '{"word": {"ne": "apple", "exists": true}}', '{"$or": [{"flag": {"ne": true}}, {"number": {"gte": 100}}], "number": {"exists": true}}']);

-- The same through prepared statements and from columns.
prepare finds(jsonb) as select id from embedd.query('things', 'anything', filters => $1) order by id;
execute finds('{"number": 2}');
execute finds('{"number": {"lt": 2}}');
deallocate finds;

-- Errors.
\x on
select f as filter, r.* from unnest(array[
    '[]', '"word"', '7', 'true',
    '{"no such": 1}', '{"Word": "apple"}', '{"": 1}', '{"$and": []}', '{"$and": {}}', '{"$and": ["word"]}', '{"$not": []}', '{"$not": null}', '{"$not": {"no such": 1}}', '{"$nor": []}',
    '{"word": {"prefix": 1}}', '{"word": {"prefix": null}}', '{"number": {"prefix": "1"}}', '{"word": {"all": ["apple"]}}', '{"json": {"gt": "a"}}', '{"json": {"prefix": "a"}}',
    '{"json": {"all": []}}', '{"json": {"all": "a"}}', '{"json": {"all": [1]}}', '{"json": ["text"]}',
    '{"word": {}}', '{"word": {"like": "a%"}}', '{"word": {"$$eq": "a"}}', '{"word": {"EQ": "a"}}', '{"word": {"": "a"}}',
    '{"word": 1}', '{"word": true}', '{"word": ["apple"]}', '{"word": {"eq": ["apple"]}}', '{"word": {"eq": {"a": 1}}}', '{"word": {"gt": null}}', '{"word": {"gt": 1}}',
    '{"word": {"in": "apple"}}', '{"word": {"in": ["apple", 1]}}', '{"word": {"in": ["apple", null]}}', '{"word": {"in": {"a": 1}}}', '{"word": {"nin": null}}',
    '{"word": {"exists": 1}}', '{"word": {"exists": "yes"}}', '{"word": {"exists": null}}',
    '{"number": "1 piece"}', '{"number": 1.5}', '{"number": 1.0}', '{"number": 9223372036854775808}', '{"number": {"in": [1, "2.5"]}}',
    '{"real_number": "0,1"}', '{"real_number": true}',
    '{"flag": "on"}', '{"flag": 1}', '{"flag": {"gt": false}}',
    '{"day": 20240229}', '{"day": "29.02.2024"}', '{"day": "2023-02-29"}', '{"day": "now"}', '{"day": "2024-02-29 12:00 Europe/Berlin"}', '{"day": {"in": ["2024-02-29", "yesterday"]}}',
    '{"$or": {}}', '{"$or": []}', '{"$or": [1]}', '{"$or": [{"word": "apple"}, [{"word": "banana"}]]}', '{"$or": null}', '{"$or": [{"no such": 1}]}',
    '{"word": {"$or": [{"eq": "a"}]}}']) with ordinality u(f, n),
    golden.refusal(format('select embedd.query(%L, %L, filters => %L)', 'things', 'anything', f)) r order by n;
-- The error quotes a long value in part, and a deep or wide filter is rejected.
select r.* from golden.refusal(format('select embedd.query(%L, %L, filters => %L)', 'things', 'anything', jsonb_build_object('number', repeat('é', 1000)))) r;
select r.* from golden.refusal(format('select embedd.query(%L, %L, filters => %L)', 'things', 'anything', repeat('{"$or": [', 33) || '{}' || repeat(']}', 33))) r;
select r.* from golden.refusal(format('select embedd.query(%L, %L, filters => %L)', 'things', 'anything',
    (select jsonb_build_object('$or', jsonb_agg(jsonb_build_object('number', n))) from generate_series(1, 1001) n))) r;
-- Numbers that no column has, and depths that jsonb supports and a filter does not.
select f as filter, r.code from unnest(array['{"big": 123456789012345678901234567890}', '{"exact": "1e400000"}', '{"exact": "1e-20000"}', '{"exact": "1e99999999999999999999"}']) f,
    golden.refusal(format('select embedd.query(%L, %L, filters => %L)', 'things', 'anything', f)) r;
select code from golden.refusal(format('select embedd.query(%L, %L, filters => %L)', 'things', 'anything', repeat('{"$or": [', 500) || '{}' || repeat(']}', 500)));
select found((select jsonb_build_object('number', jsonb_build_object('in', jsonb_agg(n))) from generate_series(-50000, 50000) n));
select found((repeat('{"$or": [', 32) || '{"number": 2}' || repeat(']}', 32))::jsonb);
\x off
select embedd.drop_vector_table('things');

-- Arrays, and lists in JSON: what is compared are their elements.
create domain labels as text[];
create table lists (id integer primary key, t text, tags text[], numbers integer[], shares numeric[], grid labels, doc jsonb);
insert into lists values
    (1, 'one',   '{red,blue}', '{1,2,3}', '{0.1,9007199254740993}', '{{a,b},{c,d}}', '["red", 1, true, null, {"red": 2}]'),
    (2, 'two',   '{red}',      '{}',      '{1.50}',                 '{a}',           '"red"'),
    (3, 'three', '{"red,blue",null,"\""}', '{10,null}', null,      null,            '{"red": "blue"}'),
    (4, 'four',  '{}',         null,      '{}',                     '{}',            '[]'),
    (5, 'five',  null,         null,      null,                     null,            null);
select columns->3->>'filter_type' as numbers, columns->4->>'filter_type' as shares from embedd.create_vector_table('lists', 'lists', '[
    {"name": "t", "role": "embedding"}, {"name": "tags", "role": "metadata"}, {"name": "grid", "role": "metadata"}, {"name": "numbers", "role": "metadata"},
    {"name": "shares", "role": "metadata"}, {"name": "doc", "role": "metadata"}]', start_backfill => true);
call golden.wait_synced('lists');
create or replace function found(filter jsonb) returns text language plpgsql as $$
begin
    return coalesce((select string_agg(id, ' ' order by id) from embedd.query('lists', 'anything', 1000, filter)), '(none)');
end
$$;
select * from each_finds(array[
    '{"tags": "red"}', '{"tags": {"eq": "red,blue"}}', '{"tags": {"ne": "red"}}', '{"tags": {"in": ["blue", "\""]}}', '{"tags": {"nin": ["blue"]}}', '{"tags": {"in": []}}',
    '{"tags": {"nin": []}}', '{"tags": {"all": ["red"]}}', '{"tags": {"all": ["red", "blue"]}}', '{"tags": {"all": ["red", "green"]}}', '{"tags": null}', '{"tags": {"exists": true}}',
    '{"numbers": 2}', '{"numbers": "10"}', '{"numbers": {"in": [3, 10]}}', '{"numbers": {"ne": 1}}', '{"numbers": {"all": [1, 3]}}',
    '{"shares": 0.1}', '{"shares": 1.5}', '{"shares": 9007199254740993}', '{"shares": 9007199254740992}', '{"grid": "d"}', '{"grid": {"all": ["a", "d"]}}', '{"grid": {"ne": "a"}}',
    '{"doc": "red"}', '{"doc": "1"}', '{"doc": "true"}', '{"doc": {"ne": "red"}}', '{"doc": {"all": ["red", "1"]}}', '{"$not": {"doc": "red"}}']);
select f as filter, r.* from unnest(array['{"tags": {"gte": "a"}}', '{"numbers": {"lt": 3}}', '{"numbers": 1.5}', '{"numbers": {"all": ["x"]}}', '{"tags": {"all": ["red", null]}}']) with ordinality u(f, n),
    golden.refusal(format('select embedd.query(%L, %L, filters => %L)', 'lists', 'anything', f)) r order by n;
select embedd.drop_vector_table('lists');

-- Without metadata columns the embedded columns can still be filtered.
create table plain (id integer primary key, t text);
select platform_vector_ref is not null as made from embedd.create_vector_table('plain', 'plain', '[{"name": "t", "role": "embedding"}]', start_backfill => true);
call golden.wait_synced('plain');
select * from golden.refusal($$ select embedd.query('plain', 'x', filters => '{"id": 1}') $$) \gx
select embedd.drop_vector_table('plain');

select * from golden.traces();
drop schema filtering cascade;
