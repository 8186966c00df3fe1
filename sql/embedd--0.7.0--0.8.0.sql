-- From 0.7.0 to 0.8.0: a vector table changes without a gap.

-- The type of the vectors, and the options of their index.
alter table embedd.vector_tables
    add column vector_type text not null default 'vector'
        constraint vector_tables_vector_type_check check (vector_type in ('vector', 'halfvec')),
    add column index_options jsonb;
comment on column embedd.vector_tables.vector_type is 'type of the column embedding: vector (4 bytes for each dimension) or halfvec (2 bytes)';
comment on column embedd.vector_tables.index_options is 'argument index of create_vector_table(); null means an hnsw index with the defaults of pgvector';

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
    index jsonb default null, table_name text default null, table_schema text default null)
    returns table (
        id integer, name text, provider text, source_table text, mode text, sync_status text, model text,
        dimensions integer, platform_vector_ref text, columns jsonb, created_at timestamp with time zone)
    volatile parallel unsafe rows 1
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'new_vector_table_wrapper';
comment on function embedd.create_vector_table(text, regclass, jsonb, text, text, text, integer, text, boolean, interval, text, text, jsonb, text, text) is
    'Creates a vector table for a source: a table in the schema of the source, its hnsw index, and the triggers that note changes of the source. With sync_mode => ''batch'' it creates no triggers, and a worker compares source and vector table every batch_interval. on_source_drop (keep or drop) says what happens to the vectors when the source is dropped. vector_type (vector or halfvec) is the type of the vectors, index has the keys method (hnsw or none), m and ef_construction, and table_name and table_schema name the table';

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
    table_schema embedd.argument default null
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
                                      $10::text::interval, $11::text, $12::text, $13::text::jsonb, $14::text, $15::text) t;
end;
comment on function embedd.create_vector_table(embedd.argument, embedd.relation_argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.number_argument, embedd.argument, boolean, embedd.interval_argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument) is
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
         'embedd.create_vector_table(text, regclass, jsonb, text, text, text, integer, text, boolean, interval, text, text, jsonb, text, text)'::regprocedure::oid),
        ('embedd.old_create_vector_table(embedd.argument, embedd.relation_argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.number_argument, embedd.argument, boolean, embedd.interval_argument, embedd.argument)'::regprocedure::oid,
         'embedd.create_vector_table(embedd.argument, embedd.relation_argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.number_argument, embedd.argument, boolean, embedd.interval_argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument)'::regprocedure::oid)
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
