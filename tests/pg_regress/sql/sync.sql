-- The vector table holds exactly the documents of the source's rows, whatever happens to the source.
\set VERBOSITY terse
create schema syncing;
set search_path = syncing, public;
-- The ids of vector tables are part of the names of their objects.
alter sequence embedd.vector_tables_id_seq restart with 1879048193;

-- The expected documents of vector tables, computed independently of embedd; and the differences.
create function hash_of(embedded_text text, metadata jsonb) returns text language sql as
    $$ select encode(sha256(convert_to(length(embedded_text) || ':' || embedded_text || metadata::text, 'UTF8')), 'hex') $$;
create function differences(vector_table regclass, documents regclass)
    returns table (pk_value text, embedded_text text, metadata jsonb, problem text) language plpgsql as $$
begin
    return query execute format($q$
        select coalesce(v.pk_value, d.pk_value), coalesce(v.embedded_text, d.embedded_text), coalesce(v.metadata, d.metadata),
               case when d.pk_value is null then 'should not be there'
                    when v.pk_value is null then 'is missing'
                    when v.embedded_text is distinct from d.embedded_text then 'text should be ' || d.embedded_text
                    when v.metadata is distinct from d.metadata then 'metadata should be ' || d.metadata::text
                    when v.row_hash is distinct from syncing.hash_of(d.embedded_text, d.metadata) then 'wrong hash'
                    when (v.embedding is null) <> (d.embedded_text = '') then 'vector and text do not go together' end
          from %s v full join %s d on d.pk_value = v.pk_value
         where row(v.pk_value, v.embedded_text, v.metadata, v.row_hash, v.embedding is null) is distinct from
               row(d.pk_value, d.embedded_text, d.metadata, syncing.hash_of(d.embedded_text, d.metadata), d.embedded_text = '')
         order by 1$q$, vector_table, documents);
end
$$;

create table articles (
    id integer primary key,
    title text,
    body text,
    note text,
    lang char(2),
    views bigint,
    hidden_fields jsonb,
    unwatched text);
-- Ordinals first, whatever their order here and however large the gaps; then the others as listed.
select platform_vector_ref as articles_vectors from embedd.create_vector_table('articles', 'articles', '[
    {"name": "note",  "role": "embedding", "name_prefix": "Note:"},
    {"name": "body",  "role": "embedding", "ordinal": 10},
    {"name": "views", "role": "metadata"},
    {"name": "title", "role": "embedding", "ordinal": 0, "name_prefix": "Title: "},
    {"name": "hidden_fields", "role": "metadata"},
    {"name": "lang",  "role": "embedding"}]') \gset
create view articles_documents as
    select id::text as pk_value,
           concat_ws(E'\n', 'Title: ' || nullif(title, ''), nullif(body, ''), 'Note:' || nullif(note, ''), nullif(lang::text, '')) as embedded_text,
           jsonb_build_object('title', title, 'body', body, 'note', note, 'lang', lang, 'views', views, 'hidden_fields', hidden_fields) as metadata
      from articles;

-- Rows from before the backfill, and rows written after it was requested.
insert into articles values
    (1, 'Boots', 'Warm, for winter.', 'sold out', 'en', 10, '{"a": [1, null]}', 'u'),
    (2, null, 'Only a body.', null, null, null, null, null),
    (3, '', '', '', '', 0, '{}', ''),
    (4, null, null, null, null, null, 'null', null),
    (5, ' ', E'\n', E'\t', '  ', 1, '[]', null);
begin;
select status from embedd.backfill('articles');
insert into articles values (6, 'Same transaction', null, null, 'de', -9223372036854775808, '"text"', null);
commit;
call golden.wait_synced('articles');
select * from differences(:'articles_vectors', 'articles_documents');
select pk_value, embedded_text, metadata, embedding is null as no_vector, vector_dims(embedding) as dimensions
  from :articles_vectors order by pk_value \gx
-- A row without text counts as synced.
select sync_status, synced_rows, total_rows, rows_pending, last_synced_at is not null as synced_at, staleness_secs, last_error, failed_rows, truncated_rows, rate, eta
  from embedd.sync_status('articles');

-- Insert, update, delete.
insert into articles (id, title) values (7, 'A tent'), (8, 'A stove'), (9, 'A lamp');
update articles set body = 'Now with a body.' where id in (7, 8);
delete from articles where id in (1, 9);
call golden.wait_synced('articles');
select * from differences(:'articles_vectors', 'articles_documents');
-- With text, and without it again.
update articles set title = 'Something at last' where id = 3;
update articles set body = null where id = 2;
call golden.wait_synced('articles');
select * from differences(:'articles_vectors', 'articles_documents');
select pk_value, embedding is null as no_vector from :articles_vectors where pk_value in ('2', '3') order by 1;

-- Only metadata: row and vector stay the same except for metadata and hash. (Vectors of other texts differ.)
create table before as select * from :articles_vectors;
update articles set views = views + 1, hidden_fields = '{"b": {"c": "ü"}}' where id in (7, 8);
call golden.wait_synced('articles');
select * from differences(:'articles_vectors', 'articles_documents');
select b.pk_value, v.embedding = b.embedding as same_vector, v.metadata = b.metadata as same_metadata, v.row_hash = b.row_hash as same_hash
  from before b join :articles_vectors v using (pk_value) where pk_value in ('6', '7', '8') order by 1;
drop table before;

-- An update without effect, of unwatched columns, and back and forth: no row of the vector table is rewritten.
create table before as select pk_value, xmin::text as version, ctid::text as place from :articles_vectors;
begin;
update articles set title = title, views = views;
update articles set unwatched = 'something else';
select count(*) as queued_here from embedd.queue;
commit;
update articles set title = title || '!' where id = 7;
update articles set title = rtrim(title, '!') where id = 7;
call golden.wait_synced('articles');
select * from differences(:'articles_vectors', 'articles_documents');
select count(*) as written from before b join :articles_vectors v using (pk_value) where (b.version, b.place) <> (v.xmin::text, v.ctid::text) and pk_value <> '7';
drop table before;

-- Keys change, also in a cycle; a key is given to another row.
begin;
update articles set id = id + 1000;
update articles set id = -1 where id = 1007;
update articles set id = 1007 where id = 1008;
update articles set id = 1008 where id = -1;
delete from articles where id = 1002;
insert into articles (id, title) values (1002, 'Another row under an old key');
commit;
call golden.wait_synced('articles');
select * from differences(:'articles_vectors', 'articles_documents');
select pk_value from :articles_vectors order by pk_value;

-- Savepoints: only committed changes are synced.
begin;
insert into articles (id, title) values (1, 'kept');
savepoint a;
insert into articles (id, title) values (2, 'given up');
savepoint b;
insert into articles (id, title) values (3, 'given up with the outer one');
release b;
rollback to a;
insert into articles (id, title) values (4, 'kept after the rollback');
savepoint c;
update articles set title = 'kept, from a released savepoint' where id = 1;
release c;
commit;
begin;
truncate articles;
rollback;
begin;
savepoint a;
delete from articles;
rollback to a;
commit;
do $$
begin
    insert into articles (id, title) values (5, 'in a block');
    begin
        insert into articles (id, title) values (6, 'in a block that failed');
        raise division_by_zero;
    exception when division_by_zero then
        insert into articles (id, title) values (7, 'in its handler');
    end;
end
$$;
call golden.wait_synced('articles');
select * from differences(:'articles_vectors', 'articles_documents');
select pk_value, embedded_text from :articles_vectors where pk_value::integer < 10 order by pk_value;

-- COPY, MERGE in its older forms, RETURNING, CTEs.
copy articles (id, title, body) from stdin;
20	copied	\N
21	copied, too	with\na line break
\.
insert into articles (id, title) values (20, 'merged'), (22, 'merged') on conflict (id) do update set title = excluded.title, body = 'was there';
insert into articles (id, title) values (20, 'ignored') on conflict do nothing;
with gone as (delete from articles where id = 21 returning *) insert into articles (id, title, body) select id + 100, title, body from gone;
call golden.wait_synced('articles');
select * from differences(:'articles_vectors', 'articles_documents');

-- TRUNCATE, with rows inserted after and before it in the same transaction.
begin;
insert into articles (id, title) values (30, 'before');
truncate articles;
insert into articles (id, title) values (31, 'after');
commit;
call golden.wait_synced('articles');
select * from differences(:'articles_vectors', 'articles_documents');
select pk_value from :articles_vectors order by pk_value;
truncate articles;
call golden.wait_synced('articles');
select count(*) from :articles_vectors;

-- All scripts, emoji, long texts; a text has the same vector in every row.
insert into articles (id, title) values
    (1, 'Größe, Straße, Œuvre, Ångström'), (2, 'Съешь же ещё этих мягких французских булок'), (3, 'Ελληνικά'), (4, 'שלום עולם'),
    (5, 'مرحبا بالعالم'), (6, 'नमस्ते दुनिया'), (7, '你好，世界'), (8, 'こんにちは世界'), (9, '안녕하세요'), (10, 'สวัสดีชาวโลก'),
    (11, '👩‍👩‍👧‍👦 🇪🇺 👍🏽 ☃'), (12, U&'\+01D11E \00AD\200B\FEFF\0301'), (13, E'\x01\x7f\b\f\r\n\v'),
    (14, 'e' || U&'\0301' || ' is not é'), (15, repeat('é', 524288)), (16, repeat('a long text ', 87382)),
    (17, repeat('x', 1048576)), (18, repeat(E'\n', 100000)), (19, U&'\+10FFFF \FFFD \FFFE');
call golden.wait_synced('articles');
select * from differences(:'articles_vectors', 'articles_documents');
select synced_rows, total_rows, failed_rows, truncated_rows = (select count(*) from embedd.truncated_rows) as truncated_rows_agree from embedd.sync_status('articles');
select count(*) > 0 as "16 is cut" from embedd.truncated_rows where pk_value = '16';
select pk_value, length(embedded_text) as characters, octet_length(embedded_text) as bytes, vector_dims(embedding) as dimensions
  from :articles_vectors where pk_value::integer >= 14 order by pk_value;
insert into articles (id, title) values (101, 'Größe, Straße, Œuvre, Ångström'), (107, '你好，世界');
update articles set title = 'short now' where id in (15, 16, 17, 18);
call golden.wait_synced('articles');
select count(*) as "still cut" from embedd.truncated_rows where pk_value in ('15', '16', '17', '18');
select a.pk_value, b.pk_value, a.embedding = b.embedding as same_vector, a.row_hash = b.row_hash as same_hash
  from :articles_vectors a join :articles_vectors b on b.embedded_text = a.embedded_text and b.pk_value in ('101', '107') and a.pk_value in ('1', '7') order by 1;
select * from differences(:'articles_vectors', 'articles_documents');

-- The source is renamed, moved and renamed back; so is the vector table.
alter table articles rename to "Articles, renamed";
alter table "Articles, renamed" set schema golden;
insert into golden."Articles, renamed" (id, title) values (200, 'written under another name');
call golden.wait_synced('articles');
select embedded_text from :articles_vectors where pk_value = '200';
alter table golden."Articles, renamed" set schema syncing;
alter table "Articles, renamed" rename to articles;
alter table :articles_vectors rename to my_vectors;
delete from articles where id = 200;
call golden.wait_synced('articles');
select * from differences('my_vectors', 'articles_documents');
select embedd.drop_vector_table('articles');

-- Keys of every type, and similar-looking keys.
create type mood as enum ('sad', 'it''s ok', 'happy "x"', 'fourth');
create domain isbn as text check (value <> '');
create table keys (
    a_bigint bigint not null unique, an_oid oid not null unique, a_numeric numeric not null unique, a_uuid uuid not null unique,
    a_text text not null unique, a_varchar varchar(20) not null unique, a_mood mood not null unique,
    a_domain isbn not null unique, t text);
insert into keys values
    (-9223372036854775808, 4294967295, 1.50, 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', '', ' ', 'sad', E'new\nline', 'first'),
    (9223372036854775807, 0, -123456789012345678901234567890.123456789, '00000000-0000-0000-0000-000000000000', E'it''s "a" \\ $1 {,} NULL', 'null', 'it''s ok', '中文 🎉', 'second'),
    (0, 1, 'NaN', 'ffffffff-ffff-ffff-ffff-ffffffffffff', 'A', 'a', 'happy "x"', 'NULL', 'third');
select count(s.id) from unnest(array['a_bigint', 'an_oid', 'a_numeric', 'a_uuid', 'a_text', 'a_varchar', 'a_mood', 'a_domain']) key,
    embedd.create_vector_table('by ' || key, 'keys', '[{"name": "t", "role": "embedding"}]', key, start_backfill => true) s;
select format('call golden.wait_synced(%L)', name) from embedd.vector_tables order by id \gexec
update keys set t = t || ' updated';
insert into keys values (5, 5, 5, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12', repeat('k', 2000), 'é', 'fourth', 'x', 'fourth');
update keys set a_bigint = 1, an_oid = 7, a_numeric = 1.5, a_uuid = 'a0eebc999c0b4ef8bb6d6bb9bd380a13', a_text = 'other', a_varchar = 'o', a_mood = 'sad', a_domain = 'o'
 where t = 'first updated';
select format('call golden.wait_synced(%L)', name) from embedd.vector_tables order by id \gexec
select format('select %L as key, left(pk_value, 50) as pk_value, embedded_text, pk_value = %I::text as right_key from %s v left join keys k on k.%I::text = v.pk_value and k.t = v.embedded_text order by pk_value collate "C"',
              primary_key_column, primary_key_column, vector_table, primary_key_column)
  from embedd.vector_tables order by id \gexec
select count(*) as failed from embedd.failed_rows;
select count(embedd.drop_vector_table(name)) as dropped from embedd.vector_tables;
drop table keys;

-- char(n): padding blanks are not part of the key.
create table padded (id char(8) primary key, t text);
insert into padded values ('ab', 'ab'), ('abcdefgh', 'abcdefgh'), ('a b', 'a b'), ('', 'nothing but blanks');
select platform_vector_ref as padded_vectors from embedd.create_vector_table('padded', 'padded', '[{"name": "t", "role": "embedding"}]', start_backfill => true) \gset
call golden.wait_synced('padded', timeout => '10 s');
insert into padded values ('é', 'é'), ('abcdefg', 'abcdefg');
update padded set t = 'ab, updated' where id = 'ab';
delete from padded where id = 'abcdefgh';
call golden.wait_synced('padded', timeout => '10 s');
select pk_value, embedded_text from :padded_vectors order by pk_value;
select embedd.drop_vector_table('padded');

-- A partitioned source: rows move, partitions are added.
create table parted (id integer primary key, t text) partition by range (id);
create table parted_1 partition of parted for values from (0) to (100);
insert into parted values (1, 'one'), (2, 'two');
select platform_vector_ref as parted_vectors from embedd.create_vector_table('parted', 'parted', '[{"name": "t", "role": "embedding"}]', start_backfill => true) \gset
create table parted_2 partition of parted for values from (100) to (200);
insert into parted values (3, 'three'), (103, 'a hundred and three');
insert into parted_2 values (104, 'straight into a partition');
update parted set id = id + 100 where id = 2;
delete from parted where id = 1;
call golden.wait_synced('parted');
select pk_value, embedded_text from :parted_vectors order by pk_value;
truncate parted;
call golden.wait_synced('parted');
select count(*) from :parted_vectors;
select embedd.drop_vector_table('parted');

select * from golden.traces();
drop schema syncing cascade;
