-- From 0.7.0 to 0.8.0: a vector table changes without a gap.

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
