-- The second forms of functions, for arguments of other types than the first forms take (see argument.sql).

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

create function embedd.create_provider(
    name embedd.argument,
    provider embedd.argument,
    api_key embedd.argument default null,
    default_model embedd.argument default null,
    base_url embedd.argument default null,
    options embedd.argument default null
) returns table (id oid, name text, provider text, default_model text, base_url text, created_at timestamp with time zone)
    language sql volatile parallel unsafe rows 1
begin atomic
    select p.id, p.name, p.provider, p.default_model, p.base_url, p.created_at
      from embedd.create_provider($1::text, $2::text, $3::text, $4::text, $5::text, embedd.to_options($6::text)) p;
end;
comment on function embedd.create_provider(embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument) is
    'Form of create_provider() for other argument types: options of type json or text';

create function embedd.update_provider(
    name embedd.argument,
    api_key embedd.argument default null,
    default_model embedd.argument default null,
    base_url embedd.argument default null,
    options embedd.argument default null
) returns table (id oid, name text, provider text, default_model text, base_url text, created_at timestamp with time zone)
    language sql volatile parallel unsafe rows 1
begin atomic
    select p.id, p.name, p.provider, p.default_model, p.base_url, p.created_at
      from embedd.update_provider($1::text, $2::text, $3::text, $4::text, embedd.to_options($5::text)) p;
end;
comment on function embedd.update_provider(embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument) is
    'Form of update_provider() for other argument types: options of type json or text';

create function embedd.retry_failed(name embedd.argument, key embedd.argument) returns bigint
    language sql volatile parallel unsafe
begin atomic
    select embedd.retry_failed($1::text, $2::text);
end;
comment on function embedd.retry_failed(embedd.argument, embedd.argument) is
    'Form of retry_failed() for a key of another type: bigint or uuid';

create function embedd.wait_until_synced(name embedd.argument, timeout embedd.interval_argument) returns void
    language sql volatile parallel unsafe
begin atomic
    select embedd.wait_until_synced($1::text, $2::text::interval);
end;
comment on function embedd.wait_until_synced(embedd.argument, embedd.interval_argument) is
    'Form of wait_until_synced() for a timeout of type text or a number of seconds';

create function embedd.verify(name embedd.argument, sample embedd.number_argument) returns table (pk_value text, problem text)
    language sql volatile parallel unsafe rows 100
begin atomic
    select v.pk_value, v.problem from embedd.verify($1::text, embedd.to_integer($2::text, 'sample')) v;
end;
comment on function embedd.verify(embedd.argument, embedd.number_argument) is
    'Form of verify() for a sample of type bigint or numeric';

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
