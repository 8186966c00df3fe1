-- From 0.7.0 to 0.8.0: a vector table changes without a gap.

alter table embedd.vector_tables
    add column origin_id integer,
    add column replaces integer,
    add column awaits_transactions text[],
    add column auto_swap boolean not null default true,
    add column on_shadow text,
    add column old_tables oid[] not null default '{}';
update embedd.vector_tables set origin_id = id;
alter table embedd.vector_tables alter column origin_id set not null;
alter table embedd.vector_tables drop constraint vector_tables_name_key;
create unique index vector_tables_name_key on embedd.vector_tables (name) where replaces is null;
create unique index vector_tables_replaces_key on embedd.vector_tables (replaces);
alter table embedd.tasks drop constraint tasks_phase_check;
alter table embedd.tasks add constraint tasks_phase_check check (phase in ('source', 'orphans', 'provider_batch', 'index', 'swap'));
comment on column embedd.vector_tables.id is 'number of the vector table; a re-backfill that changes model, dimensions or texts gives it another one';
comment on column embedd.vector_tables.sync_status is 'pending, backfilling, synced, paused or error, as a worker stored it; sync_status() and stat_vector_tables show the state at this moment. pending_rebackfill: update_vector_table() has changed what needs new vectors';
comment on column embedd.vector_tables.origin_id is 'number of the vector table at its creation, which its name and the triggers of the source carry';
comment on column embedd.vector_tables.replaces is 'for a shadow, the number of the vector table that it replaces after its backfill; null for a vector table that queries read';
comment on column embedd.vector_tables.awaits_transactions is 'transactions (pg_locks.virtualtransaction) that must end before the task begins, because they began before a change of what is captured; empty before they are listed, null when there is nothing to wait for';
comment on column embedd.vector_tables.auto_swap is 'for a shadow, whether the worker swaps it in as soon as it is ready; otherwise swap() does';
comment on column embedd.vector_tables.on_shadow is 'function (old regclass, new regclass) that is called when a shadow was created, to shape the new table like the old one';
comment on column embedd.vector_tables.old_tables is 'tables that swaps have replaced, until the worker drops them: sessions with an older snapshot may read them';
comment on column embedd.vector_tables.query_prefix is 'prefix of every question when it is embedded; it changes with the model only';
comment on column embedd.vector_tables.document_prefix is 'prefix of every embedded text when it is embedded, not part of embedded_text; it changes with the model only';
comment on column embedd.tasks.phase is 'orphans: the worker removes rows whose source row is gone; provider_batch: texts are at the provider''s batch API (embedd.provider_batches); source: it reads source rows page by page; index: it builds the vector index; swap: it puts the new table in the place of the old one';

-- Functions that change a live vector table.
create function embedd.update_vector_table(
    name text, columns jsonb default null, embedding_provider text default null, embedding_model text default null,
    embedding_dimensions integer default null, batch_interval interval default null, on_source_drop text default null,
    table_name text default null, table_schema text default null, vector_type text default null, index jsonb default null,
    on_shadow text default null, recall_target double precision default null, query_provider text default null,
    query_model text default null, fallback text default null,
    row_security text default null)
    returns table (id integer, name text, sync_status text, changed text[], needs_backfill boolean, platform_vector_ref text)
    volatile parallel unsafe rows 1
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'update_vector_table_wrapper';
comment on function embedd.update_vector_table(text, jsonb, text, text, integer, interval, text, text, text, text, jsonb, text, double precision, text, text, text, text) is
    'Changes the configuration of a vector table; an argument that is null leaves its setting as it is. What leaves the vectors as they are is applied at once. For the rest a shadow is created, and needs_backfill is true: the next backfill() fills it and swaps it in, and queries use the table and the configuration before it until then. on_shadow names a function (old regclass, new regclass) that shapes the shadow. An empty text removes query_provider, query_model or fallback';
create function embedd.update_vector_table(
    name embedd.argument,
    columns embedd.argument default null,
    embedding_provider embedd.argument default null,
    embedding_model embedd.argument default null,
    embedding_dimensions embedd.number_argument default null,
    batch_interval embedd.interval_argument default null,
    on_source_drop embedd.argument default null,
    table_name embedd.argument default null,
    table_schema embedd.argument default null,
    vector_type embedd.argument default null,
    index embedd.argument default null,
    on_shadow embedd.argument default null,
    recall_target embedd.number_argument default null,
    query_provider embedd.argument default null,
    query_model embedd.argument default null,
    fallback embedd.argument default null,
    row_security embedd.argument default null
) returns table (id integer, name text, sync_status text, changed text[], needs_backfill boolean, platform_vector_ref text)
    language sql volatile parallel unsafe rows 1
begin atomic
    select t.id, t.name, t.sync_status, t.changed, t.needs_backfill, t.platform_vector_ref
      from embedd.update_vector_table($1::text, $2::text::jsonb, $3::text, $4::text, embedd.to_integer($5::text, 'embedding_dimensions'),
                                      $6::text::interval, $7::text, $8::text, $9::text, $10::text, $11::text::jsonb, $12::text,
                                      $13::text::double precision, $14::text, $15::text, $16::text, $17::text) t;
end;
comment on function embedd.update_vector_table(embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.number_argument, embedd.interval_argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.number_argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument) is
    'Form of update_vector_table() for other argument types: columns of type json or text, dimensions of type bigint';
create function embedd.rename_vector_table(name text, new_name text) returns void
    strict volatile parallel unsafe
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'rename_vector_table_wrapper';
comment on function embedd.rename_vector_table(text, text) is
    'Gives a vector table another name for function calls; the table with the vectors keeps its name';
create function embedd.backfill(name text, auto_swap boolean)
    returns table (task_id bigint, task_type text, target_id integer, status text, created_at timestamp with time zone)
    strict volatile parallel unsafe rows 1
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'backfill_with_swap_wrapper';
comment on function embedd.backfill(text, boolean) is
    'Does what backfill(name) does; where update_vector_table() has changed what needs new vectors, auto_swap => false keeps the new table ready until swap() or discard()';
create function embedd.backfill(name text, price text, auto_swap boolean default true)
    returns table (task_id bigint, task_type text, target_id integer, status text, created_at timestamp with time zone)
    volatile parallel unsafe rows 1
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'backfill_at_price_wrapper';
comment on function embedd.backfill(text, text, boolean) is
    'Does what backfill(name) does, at a price: standard, or batch, with which new texts are embedded through the batch API of the provider (OpenAI, Voyage, Gemini), for less money and within a day';
create function embedd.swap(name text)
    returns table (task_id bigint, task_type text, target_id integer, status text, created_at timestamp with time zone)
    strict volatile parallel unsafe rows 1
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'swap_wrapper';
comment on function embedd.swap(text) is
    'Asks the sync worker to put a shadow that is ready in the place of the vector table, and returns the task';
create function embedd.discard(name text) returns void
    strict volatile parallel unsafe
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'discard_wrapper';
comment on function embedd.discard(text) is
    'Drops the shadow of a vector table with the vectors it has: the vector table keeps its configuration';
create function embedd.may_read_source(vector_table integer, pk_value text) returns boolean
    strict stable parallel restricted cost 1000
    language c
    as 'MODULE_PATHNAME', 'may_read_source_wrapper';
comment on function embedd.may_read_source(integer, text) is
    'Tells whether SELECT on the source of a vector table (its origin_id) shows the current role the row with this key; the policy embedd_source calls it';
create function embedd.utc_datetime(value text) returns timestamp with time zone
    strict immutable parallel safe
    language c
    as 'MODULE_PATHNAME', 'utc_datetime_wrapper';
comment on function embedd.utc_datetime(text) is
    'Converts a timestamp in metadata for the key of an index; one without a time zone counts as UTC';
create function embedd.recall(vector_table text, sample integer default 50, k integer default 10, filters jsonb default null)
    returns table (recall double precision, questions integer, query_ms double precision, exact_ms double precision,
        plan text, ef_search integer, advice text)
    stable parallel restricted rows 1
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'recall_wrapper';
comment on function embedd.recall(text, integer, integer, jsonb) is
    'Measures how many of the k nearest rows query() finds, with the vectors of a random sample of rows as questions: recall (the part that is found), questions, the milliseconds of a question as query() answers it and exactly, plan (index, exact or both), the ef_search of the index, and advice. No provider is called, and nothing is written';
create function embedd.compare(name text, queries text[], k integer default 10)
    returns table (query text, overlap double precision, mean_rank_change double precision, live_embed_ms double precision,
        shadow_embed_ms double precision, live_search_ms double precision, shadow_search_ms double precision,
        live_price_per_million_tokens numeric, shadow_price_per_million_tokens numeric, live_ids text[], shadow_ids text[])
    strict volatile parallel unsafe rows 10
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'compare_wrapper';
comment on function embedd.compare(text, text[], integer) is
    'Asks the same questions of a vector table and of its shadow: overlap (the part of the k nearest rows of the vector table that the shadow returns too), mean_rank_change (by how many places these rows move on average), and the milliseconds to embed the question and to find the rows, and what a million tokens cost (embedd.models, in US dollars)';

comment on column embedd.stat_vector_tables.sync_status is 'pending, backfilling, syncing (changes wait, or source and vector table are compared), synced (source and vector table agree except for failed_rows, and no change waits), pending_rebackfill (a change of the configuration waits for a backfill or a swap), paused or error';

-- The type of the vectors, and the options of their index.
alter table embedd.vector_tables
    add column vector_type text not null default 'vector'
        constraint vector_tables_vector_type_check check (vector_type in ('vector', 'halfvec')),
    add column index_options jsonb,
    add column question_settings jsonb,
    add column mirrored_readers oid[] not null default '{}',
    add column measured_recall jsonb;
-- Row security and privileges of a vector table that is there already stay as its owner has set it.
update embedd.vector_tables set question_settings = '{"row_security": "off"}';
comment on column embedd.vector_tables.vector_type is 'type of the column embedding: vector (4 bytes for each dimension) or halfvec (2 bytes)';
comment on column embedd.vector_tables.index_options is 'argument index of create_vector_table(); null means an hnsw index with the defaults of pgvector';
comment on column embedd.vector_tables.question_settings is 'arguments recall_target, query_provider, query_model, fallback and row_security of create_vector_table(), as far as they differ from the defaults';
comment on column embedd.vector_tables.mirrored_readers is 'roles (0 is PUBLIC) that have SELECT on the source and on the vector table, when a worker last looked; one that loses it on the source loses it on the vector table';
comment on column embedd.vector_tables.measured_recall is 'recall of the vector index at some values of hnsw.ef_search, as a worker measured it with stored vectors as questions; query() visits more of the index where that is needed for recall_target. Null while it is not measured';

-- query() takes more arguments, and there are other ways to ask. The old forms exist until the new ones have their privileges.
alter function embedd.query(text, text, integer, jsonb, double precision, integer) rename to query_up_to_0_7;
alter function embedd.query(embedd.argument, embedd.argument, embedd.number_argument, embedd.argument, embedd.number_argument, embedd.number_argument) rename to query_up_to_0_7;

create function embedd.query(
    vector_table text, query text default null, "limit" integer default 10, filters jsonb default null,
    min_similarity_score double precision default null, ef_search integer default null, query_vector vector default null,
    "offset" integer default 0, order_by text default null, after jsonb default null, boosts jsonb default null,
    decays jsonb default null)
    returns table (id text, score double precision, metadata jsonb, embedded_text text)
    stable parallel restricted rows 10
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'query_by_wrapper';
create function embedd.explain_query(
    vector_table text, query text default null, "limit" integer default 10, filters jsonb default null,
    min_similarity_score double precision default null, ef_search integer default null, query_vector vector default null,
    "offset" integer default 0, order_by text default null, after jsonb default null, boosts jsonb default null,
    decays jsonb default null)
    returns text
    stable parallel restricted
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'explain_query_wrapper';
create function embedd.search(
    vector_tables text[], query text, "limit" integer default 10, filters jsonb default null,
    min_similarity_score double precision default null, "offset" integer default 0)
    returns table (vector_table text, id text, score double precision, metadata jsonb, embedded_text text)
    stable parallel restricted rows 10
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'search_tables_wrapper';
create function embedd.similar(vector_table text, id text, "limit" integer default 10, filters jsonb default null)
    returns table (id text, score double precision, metadata jsonb, embedded_text text)
    stable parallel restricted rows 10
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'similar_wrapper';
create function embedd.similar(vector_table text, ids text[], "limit" integer default 10, filters jsonb default null)
    returns table (id text, score double precision, metadata jsonb, embedded_text text)
    stable parallel restricted rows 10
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'similar_to_several_wrapper';
comment on function embedd.query(text, text, integer, jsonb, double precision, integer, vector, integer, text, jsonb, jsonb, jsonb) is
    'Returns the rows nearest to a text or to a vector (query or query_vector), or, without either, the rows in the order of a field (order_by, after): id (the key as text), score (cosine similarity, changed by boosts and decays, highest first), metadata and embedded_text';
comment on function embedd.explain_query(text, text, integer, jsonb, double precision, integer, vector, integer, text, jsonb, jsonb, jsonb) is
    'Returns the SQL that query() runs for the same arguments, with literals, after comments that say why it is answered through the index or exactly. No provider is called';
comment on function embedd.search(text[], text, integer, jsonb, double precision, integer) is
    'Asks one question of several vector tables and merges the rows by their scores; vector_table is the name of the one that has the row. The text is embedded once for each model';
comment on function embedd.similar(text, text, integer, jsonb) is
    'Returns the rows nearest to a row of the same vector table, without that row: id (the key as text), score (cosine similarity, highest first), metadata and embedded_text. No provider is called';
comment on function embedd.similar(text, text[], integer, jsonb) is
    'Returns the rows nearest to the mean of several rows of the same vector table, without those. No provider is called';
create function embedd.query(
    vector_table embedd.argument,
    query embedd.argument default null,
    "limit" embedd.number_argument default '10',
    filters embedd.argument default null,
    min_similarity_score embedd.number_argument default null,
    ef_search embedd.number_argument default null,
    query_vector embedd.argument default null,
    "offset" embedd.number_argument default '0',
    order_by embedd.argument default null,
    after embedd.argument default null,
    boosts embedd.argument default null,
    decays embedd.argument default null
) returns table (id text, score double precision, metadata jsonb, embedded_text text)
    language sql stable parallel restricted rows 10
begin atomic
    select q.id, q.score, q.metadata, q.embedded_text
      from embedd.query(vector_table::text, query::text, embedd.to_integer("limit"::text, 'limit'), filters::text::jsonb,
                        min_similarity_score::text::double precision, embedd.to_integer(ef_search::text, 'ef_search'),
                        query_vector::text::vector, embedd.to_integer("offset"::text, 'offset'), order_by::text,
                        after::text::jsonb, boosts::text::jsonb, decays::text::jsonb) q;
end;
comment on function embedd.query(embedd.argument, embedd.argument, embedd.number_argument, embedd.argument, embedd.number_argument, embedd.number_argument, embedd.argument, embedd.number_argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument) is
    'Form of query() for other argument types: a limit of type bigint or numeric, filters of type json or text';
create function embedd.similar(
    vector_table embedd.argument,
    id embedd.argument,
    "limit" embedd.number_argument default '10',
    filters embedd.argument default null
) returns table (id text, score double precision, metadata jsonb, embedded_text text)
    language sql stable parallel restricted rows 10
begin atomic
    select s.id, s.score, s.metadata, s.embedded_text
      from embedd.similar(vector_table::text, id::text, embedd.to_integer("limit"::text, 'limit'), filters::text::jsonb) s;
end;
comment on function embedd.similar(embedd.argument, embedd.argument, embedd.number_argument, embedd.argument) is
    'Form of similar() for an id of another type: bigint or uuid';
create function embedd.search(
    vector_tables text[],
    query embedd.argument,
    "limit" embedd.number_argument default '10',
    filters embedd.argument default null,
    min_similarity_score embedd.number_argument default null,
    "offset" embedd.number_argument default '0'
) returns table (vector_table text, id text, score double precision, metadata jsonb, embedded_text text)
    language sql stable parallel restricted rows 10
begin atomic
    select s.vector_table, s.id, s.score, s.metadata, s.embedded_text
      from embedd.search(vector_tables, query::text, embedd.to_integer("limit"::text, 'limit'), filters::text::jsonb,
                         min_similarity_score::text::double precision, embedd.to_integer("offset"::text, 'offset')) s;
end;
comment on function embedd.search(text[], embedd.argument, embedd.number_argument, embedd.argument, embedd.number_argument, embedd.number_argument) is
    'Form of search() for other argument types: a limit of type bigint or numeric, filters of type json or text';

-- create_vector_table() takes more arguments. The old ones exist until the new ones have their privileges.
alter function embedd.create_vector_table(text, regclass, jsonb, text, text, text, integer, text, boolean, interval, text)
    rename to old_create_vector_table;
alter function embedd.create_vector_table(embedd.argument, embedd.relation_argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.number_argument, embedd.argument, boolean, embedd.interval_argument, embedd.argument)
    rename to old_create_vector_table;

create function embedd.create_vector_table(
    name text, source_table regclass, columns jsonb, primary_key_column text default null,
    embedding_provider text default 'local', embedding_model text default null,
    embedding_dimensions integer default null, sync_mode text default 'trigger', start_backfill boolean default false,
    batch_interval interval default null, on_source_drop text default 'keep', vector_type text default 'vector',
    index jsonb default null, table_name text default null, table_schema text default null,
    recall_target double precision default null, query_provider text default null,
    query_model text default null, fallback text default null,
    row_security text default null)
    returns table (
        id integer, name text, provider text, source_table text, mode text, sync_status text, model text,
        dimensions integer, platform_vector_ref text, columns jsonb, created_at timestamp with time zone)
    volatile parallel unsafe rows 1
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'new_vector_table_wrapper';
comment on function embedd.create_vector_table(text, regclass, jsonb, text, text, text, integer, text, boolean, interval, text, text, jsonb, text, text, double precision, text, text, text, text) is
    'Creates a vector table for a source: a table in the schema of the source, its hnsw index, and the triggers that note changes of the source. With sync_mode => ''batch'' it creates no triggers, and a worker compares source and vector table every batch_interval. on_source_drop (keep or drop) says what happens to the vectors when the source is dropped. vector_type (vector or halfvec) is the type of the vectors, index has the keys method (hnsw or none), m, ef_construction and quantization (bit), and table_name and table_schema name the table. recall_target is the part of the nearest rows that query() shall find, 0.98 by default; query_provider and query_model embed the questions, fallback is the provider that embeds them while the first one fails, and row_security (auto or off) says whether policies of the source apply to the vectors';

create function embedd.create_vector_table(
    name embedd.argument,
    source_table embedd.relation_argument,
    columns embedd.argument,
    primary_key_column embedd.argument default null,
    embedding_provider embedd.argument default 'local',
    embedding_model embedd.argument default null,
    embedding_dimensions embedd.number_argument default null,
    sync_mode embedd.argument default 'trigger',
    start_backfill boolean default false,
    batch_interval embedd.interval_argument default null,
    on_source_drop embedd.argument default 'keep',
    vector_type embedd.argument default 'vector',
    index embedd.argument default null,
    table_name embedd.argument default null,
    table_schema embedd.argument default null,
    recall_target embedd.number_argument default null,
    query_provider embedd.argument default null,
    query_model embedd.argument default null,
    fallback embedd.argument default null,
    row_security embedd.argument default null
) returns table (
    id integer,
    name text,
    provider text,
    source_table text,
    mode text,
    sync_status text,
    model text,
    dimensions integer,
    platform_vector_ref text,
    columns jsonb,
    created_at timestamp with time zone
)
    language sql volatile parallel unsafe rows 1
begin atomic
    select t.id, t.name, t.provider, t.source_table, t.mode, t.sync_status, t.model, t.dimensions, t.platform_vector_ref, t.columns, t.created_at
      from embedd.create_vector_table($1::text, $2::text::regclass, $3::text::jsonb, $4::text, $5::text, $6::text,
                                      embedd.to_integer($7::text, 'embedding_dimensions'), $8::text, $9,
                                      $10::text::interval, $11::text, $12::text, $13::text::jsonb, $14::text, $15::text,
                                      $16::text::double precision, $17::text, $18::text, $19::text, $20::text) t;
end;
comment on function embedd.create_vector_table(embedd.argument, embedd.relation_argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.number_argument, embedd.argument, boolean, embedd.interval_argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.number_argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument) is
    'Form of create_vector_table() for other argument types: columns of type json or text, dimensions of type bigint';

-- The privileges are copied. A GRANT here would count as one that comes with the extension, and no dump has those.
do $$
declare
    old oid;
    new oid;
    this oid;
begin
    select d.oid into this from pg_catalog.pg_database d where d.datname = pg_catalog.current_database();
    for old, new in values
        ('embedd.old_create_vector_table(text, regclass, jsonb, text, text, text, integer, text, boolean, interval, text)'::regprocedure::oid,
         'embedd.create_vector_table(text, regclass, jsonb, text, text, text, integer, text, boolean, interval, text, text, jsonb, text, text, double precision, text, text, text, text)'::regprocedure::oid),
        ('embedd.old_create_vector_table(embedd.argument, embedd.relation_argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.number_argument, embedd.argument, boolean, embedd.interval_argument, embedd.argument)'::regprocedure::oid,
         'embedd.create_vector_table(embedd.argument, embedd.relation_argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.number_argument, embedd.argument, boolean, embedd.interval_argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.number_argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument)'::regprocedure::oid),
        ('embedd.query_up_to_0_7(text, text, integer, jsonb, double precision, integer)'::regprocedure::oid,
         'embedd.query(text, text, integer, jsonb, double precision, integer, vector, integer, text, jsonb, jsonb, jsonb)'::regprocedure::oid),
        ('embedd.query_up_to_0_7(embedd.argument, embedd.argument, embedd.number_argument, embedd.argument, embedd.number_argument, embedd.number_argument)'::regprocedure::oid,
         'embedd.query(embedd.argument, embedd.argument, embedd.number_argument, embedd.argument, embedd.number_argument, embedd.number_argument, embedd.argument, embedd.number_argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument)'::regprocedure::oid)
    loop
        update pg_catalog.pg_proc p set proacl = o.proacl from pg_catalog.pg_proc o where p.oid = new and o.oid = old;
        -- The roles that are named in it.
        delete from pg_catalog.pg_shdepend s
         where s.dbid = this and s.classid = 'pg_catalog.pg_proc'::regclass::oid and s.objid = new and s.deptype = 'a'::"char";
        update pg_catalog.pg_shdepend s set objid = new
         where s.dbid = this and s.classid = 'pg_catalog.pg_proc'::regclass::oid and s.objid = old and s.deptype = 'a'::"char";
    end loop;
end
$$;
drop function embedd.old_create_vector_table(embedd.argument, embedd.relation_argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.number_argument, embedd.argument, boolean, embedd.interval_argument, embedd.argument);
drop function embedd.old_create_vector_table(text, regclass, jsonb, text, text, text, integer, text, boolean, interval, text);

-- A view that calls query() depends on the old form. That form stays as a function of its own, which a dump contains.
do $$
declare
    form regprocedure;
    callers text[];
begin
    foreach form in array array[
        'embedd.query_up_to_0_7(embedd.argument, embedd.argument, embedd.number_argument, embedd.argument, embedd.number_argument, embedd.number_argument)',
        'embedd.query_up_to_0_7(text, text, integer, jsonb, double precision, integer)']::regprocedure[]
    loop
        select pg_catalog.array_agg(distinct pg_catalog.pg_describe_object(d.classid, d.objid, 0)) into callers
          from pg_catalog.pg_depend d
         where d.refclassid = 'pg_catalog.pg_proc'::regclass and d.refobjid = form and d.deptype in ('n', 'a');
        if callers is null then
            execute pg_catalog.format('drop function %s', form);
        else
            execute pg_catalog.format('alter extension embedd drop function %s', form);
            raise warning 'objects of this database call the form of embedd.query() up to 0.7.0, which is named % now', form
                using detail = 'They are: ' || pg_catalog.array_to_string(callers, ', ') || '.',
                      hint = pg_catalog.format('They work as before. Create them again with embedd.query(), then: DROP FUNCTION %s;', form);
        end if;
    end loop;
end
$$;

-- Tasks: their progress, and that they can be cancelled.
alter table embedd.tasks drop constraint tasks_status_check,
    add constraint tasks_status_check check (status in ('pending', 'running', 'completed', 'failed', 'cancelled'));
alter table embedd.tasks
    add column rows_total bigint,
    add column rows_done bigint generated always as (processed_rows) stored,
    add column rate double precision,
    add column eta interval generated always as (case
        when status = 'running' and phase in ('orphans', 'source') and rate > 1e-9::double precision and rows_total is not null
            then pg_catalog.make_interval(secs =>
                least(greatest(rows_total - processed_rows, 0::bigint)::double precision / rate, 1e9::double precision)) end) stored,
    add column checkpoint_at timestamptz,
    add column stalled_attempts integer not null default 0,
    add column owes_comparison boolean not null default false;
-- The tasks that are ended have read all of their sources, which is what status shows of sync mode batch.
update embedd.tasks set rows_total = processed_rows where status operator(pg_catalog.=) 'completed';
comment on column embedd.tasks.status is 'pending, running, completed, failed or cancelled (by cancel_backfill())';
comment on column embedd.tasks.max_attempts is 'how often in a row the worker process may end in the same step of the task before the task fails; nothing else limits the attempts: a worker retries what fails, with a growing backoff';
comment on column embedd.tasks.processed_rows is 'the same as rows_done';
comment on column embedd.tasks.rows_total is 'rows of the source when the task started: exact up to 10,000 rows and in sync mode batch, else the estimate of the planner''s statistics, because to count them would take too long; null where they cannot be counted';
comment on column embedd.tasks.rows_done is 'source rows that are done, as of the last checkpoint';
comment on column embedd.tasks.rate is 'rows a second over about the last half minute, as of the last checkpoint';
comment on column embedd.tasks.eta is 'time that the rows left need at that rate, as of the last checkpoint; without the vector index, which is built after them';
comment on column embedd.tasks.checkpoint_at is 'when rows_done was last written, or when a worker last started or resumed the task';
comment on column embedd.tasks.stalled_attempts is 'attempts since the task last advanced';
comment on column embedd.tasks.owes_comparison is 'whether the task also finds changes that no row trigger saw; where it is cancelled, a comparison follows';

create function embedd.cancel_backfill(name text)
    returns table (task_id bigint, task_type text, target_id integer, status text, created_at timestamp with time zone)
    language c volatile strict parallel unsafe rows 1
    set search_path = pg_catalog, pg_temp
    as 'MODULE_PATHNAME', 'cancel_backfill_wrapper';
comment on function embedd.cancel_backfill(text) is
    'Cancels the backfill that is requested or running, and returns the task. Rows that are embedded stay; a later backfill() embeds only what is missing. A vector table that was filled before stays in sync; another one has status pending until a backfill is complete';

create view embedd.stat_progress_backfill with (security_barrier) as
    select t.task_id,
           t.target_id,
           v.name as vector_table,
           case when c.relname is not null then pg_catalog.format('%I.%I', n.nspname, c.relname) end as source_table,
           t.task_type,
           t.status,
           t.phase,
           case when t.rows_total < t.rows_done then t.rows_done else t.rows_total end as rows_total,
           t.rows_done,
           r.rate,
           case when t.phase in ('orphans', 'source') and r.rate > 1e-9::double precision and t.rows_total is not null
               then pg_catalog.make_interval(secs =>
                   least(greatest(t.rows_total - t.rows_done, 0::bigint)::double precision / r.rate, 1e9::double precision)) end as eta,
           t.attempts,
           t.stalled_attempts,
           t.created_at,
           t.started_at,
           t.checkpoint_at,
           case when embedd.may_change(v.owner::oid, v.vector_table::oid) then t.last_error end as last_error
      from embedd.tasks t
      join embedd.vector_tables v on v.id = t.target_id
      left join (pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace) on c.oid = v.source_table::oid
     -- A rate that was measured long ago is not the rate now: from a minute on it falls.
     cross join lateral (select t.rate * 60::double precision
               / greatest(60::double precision, pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - t.checkpoint_at)) as rate) r
     where t.status in ('pending', 'running')
       and (embedd.may_see(v.owner::oid, v.vector_table::oid) or pg_catalog.pg_has_role('pg_monitor', 'USAGE'));
comment on view embedd.stat_progress_backfill is 'Progress of every backfill and comparison that is requested or running. A role sees the vector tables that it may read; members of pg_monitor see all of them';
comment on column embedd.stat_progress_backfill.task_id is 'number of the task (embedd.tasks.task_id)';
comment on column embedd.stat_progress_backfill.target_id is 'number of the vector table (embedd.vector_tables.id)';
comment on column embedd.stat_progress_backfill.vector_table is 'name that every function call uses';
comment on column embedd.stat_progress_backfill.source_table is 'table whose rows are embedded; null when it no longer exists';
comment on column embedd.stat_progress_backfill.task_type is 'backfill, rebackfill or reconcile';
comment on column embedd.stat_progress_backfill.status is 'pending (requested) or running';
comment on column embedd.stat_progress_backfill.phase is 'orphans: the worker removes rows whose source row is gone; provider_batch: texts are at the provider''s batch API (embedd.provider_batches); source: it reads source rows page by page; index: it builds the vector index; swap: it puts the new table in the place of the old one';
comment on column embedd.stat_progress_backfill.rows_total is 'rows of the source when the task started, or the planner''s estimate where to count them would take too long';
comment on column embedd.stat_progress_backfill.rows_done is 'source rows that are done';
comment on column embedd.stat_progress_backfill.rate is 'rows a second over about the last half minute; it falls when no page is done for a minute';
comment on column embedd.stat_progress_backfill.eta is 'time that the rows left need at that rate; without the vector index, which is built after them';
comment on column embedd.stat_progress_backfill.attempts is 'how often a worker started the task, resumed it, or accepted another request for it';
comment on column embedd.stat_progress_backfill.stalled_attempts is 'attempts since the task last advanced';
comment on column embedd.stat_progress_backfill.created_at is 'when the task was requested';
comment on column embedd.stat_progress_backfill.started_at is 'when the task started';
comment on column embedd.stat_progress_backfill.checkpoint_at is 'when rows_done was last written, or when a worker last started or resumed the task';
comment on column embedd.stat_progress_backfill.last_error is 'why the last attempt failed; only roles with the rights of the owner see it';

grant select on embedd.stat_progress_backfill to public;
-- Vectors that something else has computed.
create function embedd.import_vectors(name text, query text) returns table (imported bigint, unchanged bigint, skipped bigint, reasons jsonb)
    strict volatile parallel unsafe rows 1
    language c
    as 'MODULE_PATHNAME', 'import_vectors_wrapper';
create function embedd.adopt_column(name text, vector_column text) returns table (imported bigint, unchanged bigint, skipped bigint, reasons jsonb)
    strict volatile parallel unsafe rows 1
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'adopt_column_wrapper';
create function embedd.adopt_pgai(name text, vectorizer text default null) returns table (imported bigint, unchanged bigint, skipped bigint, reasons jsonb)
    volatile parallel unsafe rows 1
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'adopt_pgai_wrapper';
create function embedd.adopt_pgedge(name text, source_column text default null) returns table (imported bigint, unchanged bigint, skipped bigint, reasons jsonb)
    volatile parallel unsafe rows 1
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'adopt_pgedge_wrapper';
create function embedd.adopt_vectorize(name text, job text default null) returns table (imported bigint, unchanged bigint, skipped bigint, reasons jsonb)
    volatile parallel unsafe rows 1
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'adopt_vectorize_wrapper';
comment on function embedd.import_vectors(text, text) is
    'Writes vectors that something else has computed into a vector table: query is a SELECT of key, text and vector, or of key and vector. It runs read-only, with the rights and the search_path of the caller. A vector is taken where the text equals that of the source row now; white space at the ends does not count. Without a text the caller vouches that the vector is that of the present text. Returns the rows imported, those that were there already (unchanged), and those skipped, with the reasons';
comment on function embedd.adopt_column(text, text) is
    'Imports the vectors of a column of the source, which are taken for those of the present texts. Returns what import_vectors() returns';
comment on function embedd.adopt_pgai(text, text) is
    'Imports the vectors of a pgai vectorizer of the source, where its chunk is the whole text of the row. vectorizer is its name or its number, needed where the source has several. Returns what import_vectors() returns';
comment on function embedd.adopt_pgedge(text, text) is
    'Imports the vectors that pgEdge vectorizer keeps of a column of the source, where its chunk is the whole text of the row. source_column is needed where the vector table embeds several columns. Returns what import_vectors() returns';
comment on function embedd.adopt_vectorize(text, text) is
    'Imports the vectors of a job of pg_vectorize on the source, of rows that were not changed since. job is needed where the source has several. Returns what import_vectors() returns';
alter table embedd.models
    add column price_per_million_tokens numeric constraint models_price_per_million_tokens_check check (price_per_million_tokens >= 0::numeric),
    add column batch_price_per_million_tokens numeric
        constraint models_batch_price_per_million_tokens_check check (batch_price_per_million_tokens >= 0::numeric);
comment on column embedd.models.price_per_million_tokens is 'price of a million tokens in US dollars; null means unknown. Prices change: update them from the price list of your provider';
comment on column embedd.models.batch_price_per_million_tokens is 'the same for the batch API of the provider; null means unknown, or that there is none';
-- US dollars for a million tokens, as the makers have published them; Voyage's batches cost a third less, the others' half.
update embedd.models m
   set price_per_million_tokens = p.price, batch_price_per_million_tokens = p.batch_price
  from (values
        ('openai', 'text-embedding-3-small', 0.02, 0.01),
        ('openai', 'text-embedding-3-large', 0.13, 0.065),
        ('openai', 'text-embedding-ada-002', 0.10, 0.05),
        ('gemini', 'gemini-embedding-2', 0.20, 0.10),
        ('gemini', 'gemini-embedding-001', 0.15, 0.075),
        ('voyage', 'voyage-4', 0.06, 0.0402),
        ('voyage', 'voyage-4-large', 0.12, 0.0804),
        ('voyage', 'voyage-4-lite', 0.02, 0.0134),
        ('voyage', 'voyage-finance-2', 0.12, 0.0804),
        ('voyage', 'voyage-law-2', 0.12, 0.0804),
        ('voyage', 'voyage-3.5', 0.06, 0.0402),
        ('voyage', 'voyage-3.5-lite', 0.02, 0.0134),
        ('voyage', 'voyage-code-3', 0.18, 0.1206),
        ('voyage', 'voyage-3-large', 0.18, 0.1206),
        ('voyage', 'voyage-3-lite', 0.02, 0.0134)
       ) p(provider, model, price, batch_price)
 where m.built_in and m.provider = p.provider and m.model = p.model;
-- What runs on machines of the user's own has no price.
update embedd.models m set price_per_million_tokens = 0 where m.built_in and m.provider in ('local', 'ollama', 'test');

-- A cap of tokens may have more digits than the other numbers.
create or replace view embedd.providers with (security_barrier) as
    select null::oid as id,
           'local'::text as name,
           'local'::text as provider,
           'all-MiniLM-L6-v2'::text as default_model,
           null::text as base_url,
           '{}'::jsonb as options,
           false as has_key,
           null::regrole as owner,
           null::timestamptz as created_at
     union all
    select s.oid,
           s.srvname::text,
           o.provider,
           o.default_model,
           o.base_url,
           o.options,
           -- The same mapping that counts for a call: the role's own, else the one for everybody.
           coalesce((
               select exists (select from pg_catalog.pg_options_to_table(u.umoptions) k where k.option_name = 'api_key')
                 from pg_catalog.pg_user_mapping u
                where u.umserver = s.oid
                  and (u.umuser = 0::oid or u.umuser = (select r.oid from pg_catalog.pg_roles r where r.rolname = current_user))
                order by u.umuser = 0::oid
                limit 1), false),
           s.srvowner::regrole,
           o.created_at
      from pg_catalog.pg_foreign_server s
      join pg_catalog.pg_foreign_data_wrapper w on w.oid = s.srvfdw
     cross join lateral (
               select pg_catalog.max(t.option_value) filter (where t.option_name = 'provider'),
                      pg_catalog.max(t.option_value) filter (where t.option_name = 'default_model'),
                      pg_catalog.max(t.option_value) filter (where t.option_name = 'base_url'),
                      coalesce(pg_catalog.jsonb_object_agg(t.option_name,
                          case when t.option_value ~ '^\d{1,15}$' and t.option_name not in ('key_header', 'query_prefix', 'document_prefix')
                               then pg_catalog.to_jsonb(t.option_value::bigint)
                               else pg_catalog.to_jsonb(t.option_value) end)
                          filter (where t.option_name not in ('provider', 'default_model', 'base_url', 'created_at')), '{}'),
                      pg_catalog.max(t.option_value) filter (where t.option_name = 'created_at')::timestamptz
                 from pg_catalog.pg_options_to_table(s.srvoptions) t) o(provider, default_model, base_url, options, created_at)
     where w.fdwname = 'embedd'
       and (pg_catalog.pg_has_role(s.srvowner, 'USAGE') or pg_catalog.has_server_privilege(s.oid, 'USAGE'));

create function embedd.estimate(name text, config jsonb default null) returns table (
    rows bigint,
    texts bigint,
    distinct_texts bigint,
    texts_to_embed bigint,
    long_texts bigint,
    tokens bigint,
    tokens_are_exact boolean,
    requests bigint,
    cost numeric,
    batch_cost numeric,
    currency text,
    hours_at_limits double precision,
    hours_at_last_pace double precision,
    is_estimated boolean,
    provider text,
    model text,
    dimensions integer
)
    language c volatile parallel unsafe rows 1
    set search_path to pg_catalog, pg_temp
    as 'MODULE_PATHNAME', 'estimate_wrapper';
comment on function embedd.estimate(text, jsonb) is
    'Estimates what a backfill of a vector table costs and how long it takes, without sending a text. config is an object of the arguments that a change would give: embedding_provider, embedding_model, embedding_dimensions and columns. tokens, long_texts (those of which the model reads only the beginning), requests and costs are those of texts_to_embed. Of many texts the tokens of a random sample are counted (is_estimated)';

create function embedd.estimate(name embedd.argument, config embedd.argument) returns table (
    rows bigint,
    texts bigint,
    distinct_texts bigint,
    texts_to_embed bigint,
    long_texts bigint,
    tokens bigint,
    tokens_are_exact boolean,
    requests bigint,
    cost numeric,
    batch_cost numeric,
    currency text,
    hours_at_limits double precision,
    hours_at_last_pace double precision,
    is_estimated boolean,
    provider text,
    model text,
    dimensions integer
)
    language sql volatile parallel unsafe rows 1
begin atomic
    select e.rows, e.texts, e.distinct_texts, e.texts_to_embed, e.long_texts, e.tokens, e.tokens_are_exact, e.requests, e.cost,
           e.batch_cost, e.currency, e.hours_at_limits, e.hours_at_last_pace, e.is_estimated, e.provider, e.model, e.dimensions
      from embedd.estimate($1::text, $2::text::jsonb) e;
end;
comment on function embedd.estimate(embedd.argument, embedd.argument) is
    'Form of estimate() for a config of type json or text';

-- Backfills at the price of a provider's batch API.
alter table embedd.tasks
    add column price text not null default 'standard' constraint tasks_price_check check (price in ('standard', 'batch'));
comment on column embedd.tasks.price is 'standard, or batch: new texts are embedded through the provider''s batch API';

create table embedd.provider_batches (
    token uuid primary key,
    target_id integer not null,
    provider text not null,
    provider_batch text,
    texts integer not null,
    texts_done integer not null default 0,
    created_at timestamptz not null default pg_catalog.clock_timestamp(),
    submitted_at timestamptz,
    system_id bigint not null
);
create index provider_batches_target_id_idx on embedd.provider_batches (target_id);
comment on table embedd.provider_batches is 'Batches that are at the batch API of a provider now, for a backfill at the batch price. A role sees those of the vector tables that it sees';
comment on column embedd.provider_batches.token is 'token that the batch carries at the provider, by which a worker finds it after a crash';
comment on column embedd.provider_batches.target_id is 'the vector table (embedd.vector_tables.id)';
comment on column embedd.provider_batches.provider is 'provider that has the batch (embedd.providers.name)';
comment on column embedd.provider_batches.provider_batch is 'name of the batch at the provider; null until the provider has confirmed it';
comment on column embedd.provider_batches.texts is 'texts in the batch';
comment on column embedd.provider_batches.texts_done is 'texts that the provider had finished when the worker last asked';
comment on column embedd.provider_batches.created_at is 'when the worker planned the batch';
comment on column embedd.provider_batches.submitted_at is 'when the provider confirmed the batch';
comment on column embedd.provider_batches.system_id is 'cluster that has handed in the batch; a copy of the database collects its vectors, and does not cancel or delete it';

-- Texts by their hash: at a provider (no embedding yet), or paid for and not used by the backfill yet.
create table embedd.provider_batch_texts (
    target_id integer not null,
    text_id text not null,
    token uuid,
    embedding bytea,
    is_truncated boolean not null default false,
    refused text,
    primary key (target_id, text_id)
);
-- Vectors do not compress.
alter table embedd.provider_batch_texts alter column embedding set storage external;
create index provider_batch_texts_token_idx on embedd.provider_batch_texts (token) where token is not null;
comment on table embedd.provider_batch_texts is 'Texts of batches at a provider, and their vectors until the backfill has stored them';
comment on column embedd.provider_batch_texts.target_id is 'the vector table (embedd.vector_tables.id)';
comment on column embedd.provider_batch_texts.text_id is 'hash of model, dimensions, prefix and text (SHA-224, hexadecimal)';
comment on column embedd.provider_batch_texts.token is 'batch that the text is in (embedd.provider_batches.token); null when it has ended';
comment on column embedd.provider_batch_texts.embedding is 'vector: 4 bytes for each dimension, little-endian';
comment on column embedd.provider_batch_texts.is_truncated is 'whether the model reads only the beginning of the text';
comment on column embedd.provider_batch_texts.refused is 'why the provider rejects the text';
alter table embedd.provider_batches enable row level security;
create policy visible on embedd.provider_batches for select
    using (target_id in (select v.id from embedd.vector_tables v));
grant select on embedd.provider_batches to public;
select pg_catalog.pg_extension_config_dump('embedd.provider_batches', '');
select pg_catalog.pg_extension_config_dump('embedd.provider_batch_texts', '');
