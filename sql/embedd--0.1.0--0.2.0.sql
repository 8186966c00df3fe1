-- From 0.1.0 to 0.2.0: embedding providers, a model catalog that knows their models, and an index that is built after the load.

-- Refused before anything is made, by operators and functions that no role of a schema made beforehand can replace.
do $$
declare
    owner name;
begin
    if pg_catalog.getdatabaseencoding() operator(pg_catalog.<>) 'UTF8'::name then
        raise exception 'embedd needs a database whose encoding is UTF8'
            using errcode = 'feature_not_supported',
                  detail = pg_catalog.format('That of database "%s" is %s.', current_catalog, pg_catalog.getdatabaseencoding()),
                  hint = 'Make one: CREATE DATABASE .. TEMPLATE template0 ENCODING ''UTF8''.';
    end if;
    select r.rolname into owner
      from pg_catalog.pg_namespace n
      join pg_catalog.pg_roles r on r.oid operator(pg_catalog.=) n.nspowner
     where n.nspname operator(pg_catalog.=) 'embedd'::name
       and not r.rolsuper
       and r.rolname operator(pg_catalog.<>) current_user;
    if owner is not null then
        raise exception 'schema "embedd" belongs to another role'
            using errcode = 'object_not_in_prerequisite_state',
                  detail = pg_catalog.format('Role "%s" could replace what is in it.', owner),
                  hint = 'Drop the schema, or take it over when there is nothing strange in it: ALTER SCHEMA embedd OWNER TO CURRENT_USER.';
    end if;
end
$$;

alter table embedd.vector_tables add column held_indexes text[];
comment on column embedd.vector_tables.held_indexes is 'vector indexes that are built after the first load; null when all are in place';
alter table embedd.tasks
    drop constraint tasks_phase_check,
    add constraint tasks_phase_check check (phase in ('source', 'orphans', 'index'));
comment on column embedd.tasks.phase is 'source: rows are embedded page by page; orphans: rows whose source row is gone are removed; index: the vector index is built';

alter table embedd.models
    add column native_dimensions integer
        constraint models_native_dimensions_check check (native_dimensions between 1 and 16000),
    add column can_shorten boolean not null default false,
    add column tokens_per_text integer
        constraint models_tokens_per_text_check check (tokens_per_text > 0),
    add column texts_per_request integer
        constraint models_texts_per_request_check check (texts_per_request > 0),
    add column tokens_per_request integer
        constraint models_tokens_per_request_check check (tokens_per_request > 0),
    add column built_in boolean not null default false;

update embedd.models
   set native_dimensions = 384, tokens_per_text = 256, built_in = true
 where provider = 'local' and model = 'all-MiniLM-L6-v2';
-- Rows that users have added stay theirs, but for those that are built in from now on.
update embedd.models set is_default = false where not built_in;
insert into embedd.models (provider, model, dimensions, is_default, native_dimensions, can_shorten,
        tokens_per_text, texts_per_request, tokens_per_request, built_in) values
    ('openai', 'text-embedding-3-small', 1536, true, 1536, true, 8191, 2048, 300000, true),
    ('openai', 'text-embedding-3-large', 3072, false, 3072, true, 8191, 2048, 300000, true),
    ('openai', 'text-embedding-ada-002', 1536, false, 1536, false, 8191, 2048, 300000, true),
    ('gemini', 'gemini-embedding-001', 3072, true, 3072, true, 2048, 100, null, true),
    ('gemini', 'text-embedding-005', 768, false, 768, false, 2048, 100, null, true),
    ('gemini', 'text-embedding-004', 768, false, 768, false, 2048, 100, null, true),
    ('voyage', 'voyage-3.5', 1024, true, 1024, true, 32000, 1000, 320000, true),
    ('voyage', 'voyage-3.5-lite', 512, false, 1024, true, 32000, 1000, 1000000, true),
    ('voyage', 'voyage-code-3', 1024, false, 1024, true, 32000, 1000, 120000, true),
    ('voyage', 'voyage-3-large', 1024, false, 1024, true, 32000, 1000, 120000, true),
    ('voyage', 'voyage-3-lite', 512, false, 512, false, 32000, 1000, 1000000, true)
on conflict (provider, model) do update
   set dimensions = excluded.dimensions, is_default = excluded.is_default,
       native_dimensions = excluded.native_dimensions, can_shorten = excluded.can_shorten,
       tokens_per_text = excluded.tokens_per_text, texts_per_request = excluded.texts_per_request,
       tokens_per_request = excluded.tokens_per_request, built_in = true;

-- A row of a kind that there is not, which nothing could use, makes this fail: correct or delete it, and update again.
alter table embedd.models
    add constraint models_provider_check
        check (provider in ('local', 'openai', 'gemini', 'voyage', 'ollama', 'openai_compatible')),
    add constraint models_is_default_check check (built_in or not is_default);

comment on table embedd.models is 'The model catalog: which embedding models there are, how long their vectors are and what they take. More rows are welcome.';
comment on column embedd.models.provider is 'kind of provider: local, openai, gemini, voyage, ollama or openai_compatible';
comment on column embedd.models.model is 'the provider''s own name of the model';
comment on column embedd.models.dimensions is 'numbers in one vector, unless embedding_dimensions says otherwise';
comment on column embedd.models.is_default is 'whether the model is taken when none is named, neither in the call nor as the provider''s default_model';
comment on column embedd.models.native_dimensions is 'numbers in one vector when the provider is not asked for a number; null is the same as dimensions';
comment on column embedd.models.can_shorten is 'whether the provider can be asked for fewer than native_dimensions';
comment on column embedd.models.tokens_per_text is 'tokens of one text that the model reads; null is unknown';
comment on column embedd.models.texts_per_request is 'texts that the provider takes in one request; null is unknown';
comment on column embedd.models.tokens_per_request is 'tokens that the provider takes in one request; null is unknown';
comment on column embedd.models.built_in is 'whether the row came with embedd, and is not part of a dump';

select pg_catalog.pg_extension_config_dump('embedd.models', 'where not built_in');

-- Rows that a role may not see are taken out before any condition of its own is looked at.
create view embedd.providers with (security_barrier) as
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
                          case when t.option_value ~ '^\d{1,10}$' and t.option_name not in ('key_header')
                               then pg_catalog.to_jsonb(t.option_value::bigint)
                               else pg_catalog.to_jsonb(t.option_value) end)
                          filter (where t.option_name not in ('provider', 'default_model', 'base_url', 'created_at')), '{}'),
                      pg_catalog.max(t.option_value) filter (where t.option_name = 'created_at')::timestamptz
                 from pg_catalog.pg_options_to_table(s.srvoptions) t) o(provider, default_model, base_url, options, created_at)
     where w.fdwname = 'embedd'
       and (pg_catalog.pg_has_role(s.srvowner, 'USAGE') or pg_catalog.has_server_privilege(s.oid, 'USAGE'));
comment on view embedd.providers is 'The embedding providers that a role may use: the local one, and foreign servers of the wrapper embedd. Keys are not shown.';
comment on column embedd.providers.id is 'oid of the foreign server; null for the local one';
comment on column embedd.providers.name is 'the name used in every function call';
comment on column embedd.providers.provider is 'kind of provider: local, openai, gemini, voyage, ollama or openai_compatible';
comment on column embedd.providers.default_model is 'the model that is taken when none is named; null is the default of the kind (embedd.models.is_default)';
comment on column embedd.providers.base_url is 'where it is; null is the service''s own address';
comment on column embedd.providers.options is 'its other options, none of them secret';
comment on column embedd.providers.has_key is 'whether there is an API key for the current role: in its own user mapping, else in the one for everybody';
comment on column embedd.providers.owner is 'the role that may change it';
comment on column embedd.providers.created_at is 'when create_provider() made it; null for one of CREATE SERVER';

grant select on embedd.providers to public;

create function embedd.usage_counts()
    returns table (
        server oid, day date, requests bigint, texts bigint, tokens bigint, rate_limited bigint, unavailable bigint,
        key_rejected bigint, refused bigint, bad_reply bigint, latency_ms double precision, slowest_ms double precision)
    language c strict
    set search_path = pg_catalog, pg_temp
    as 'MODULE_PATHNAME', 'usage_counts_wrapper';
comment on function embedd.usage_counts() is
    'What the embedder has counted for the providers of this database that the role may use; embedd.provider_usage shows it';

create view embedd.provider_usage with (security_barrier) as
    select s.srvname::text as provider,
           u.day,
           u.requests,
           u.texts,
           u.tokens,
           u.rate_limited + u.unavailable + u.key_rejected + u.refused + u.bad_reply as errors,
           u.rate_limited,
           u.unavailable,
           u.key_rejected,
           u.refused,
           u.bad_reply,
           u.latency_ms / nullif(u.requests, 0)::double precision as avg_latency_ms,
           u.slowest_ms as max_latency_ms
      from embedd.usage_counts() u
      join pg_catalog.pg_foreign_server s on s.oid = u.server;
comment on view embedd.provider_usage is 'What each provider was asked for, day by day, by sessions and workers of this database. A role sees those it may use.';
comment on column embedd.provider_usage.provider is 'the provider (embedd.providers.name)';
comment on column embedd.provider_usage.day is 'the day, by UTC';
comment on column embedd.provider_usage.requests is 'requests sent, whatever became of them';
comment on column embedd.provider_usage.texts is 'texts embedded';
comment on column embedd.provider_usage.tokens is 'tokens embedded: as the provider counts them, or an estimate where it does not say';
comment on column embedd.provider_usage.errors is 'requests that brought no vectors: the sum of the five that follow';
comment on column embedd.provider_usage.rate_limited is 'requests refused because of a rate limit or a quota';
comment on column embedd.provider_usage.unavailable is 'requests to which no whole answer came';
comment on column embedd.provider_usage.key_rejected is 'requests refused because of the API key';
comment on column embedd.provider_usage.refused is 'requests refused for another reason, such as a text or a model';
comment on column embedd.provider_usage.bad_reply is 'requests whose answer could not be used';
comment on column embedd.provider_usage.avg_latency_ms is 'milliseconds from request to answer, on average';
comment on column embedd.provider_usage.max_latency_ms is 'milliseconds from request to answer, at most';

grant select on embedd.provider_usage to public;

create function embedd.check_provider_options(options text[], catalog oid) returns void
    language c strict
    set search_path = pg_catalog, pg_temp
    as 'MODULE_PATHNAME', 'check_provider_options_wrapper';

create function embedd.create_provider(
    name text, provider text, api_key text default null, default_model text default null, base_url text default null,
    options jsonb default null)
    returns table (
        id oid, name text, provider text, default_model text, base_url text, created_at timestamp with time zone)
    language c
    set search_path = pg_catalog, pg_temp
    as 'MODULE_PATHNAME', 'create_provider_wrapper';

create function embedd.update_provider(
    name text, api_key text default null, default_model text default null, base_url text default null,
    options jsonb default null)
    returns table (
        id oid, name text, provider text, default_model text, base_url text, created_at timestamp with time zone)
    language c
    set search_path = pg_catalog, pg_temp
    as 'MODULE_PATHNAME', 'update_provider_wrapper';

create function embedd.drop_provider(name text) returns void
    language c strict
    set search_path = pg_catalog, pg_temp
    as 'MODULE_PATHNAME', 'drop_provider_wrapper';

create function embedd.test_provider(name text, model text default null)
    returns table (status text, latency_ms double precision, model text, dimensions integer)
    language c
    set search_path = pg_catalog, pg_temp
    as 'MODULE_PATHNAME', 'test_provider_wrapper';

create foreign data wrapper embedd validator embedd.check_provider_options;
comment on foreign data wrapper embedd is
    'Embedding providers: a server of it is a provider, a user mapping of that holds the API key. USAGE lets a role make providers, and so have the server call any address';

comment on function embedd.create_provider(text, text, text, text, text, jsonb) is
    'Makes an embedding provider: a foreign server of the wrapper embedd, with its API key in a user mapping for everybody who has USAGE on it. The key may be literal, or for superusers env:NAME or file:PATH; it is never shown again';
comment on function embedd.update_provider(text, text, text, text, jsonb) is
    'Changes an embedding provider: what is null stays as it is; a null in options removes that option';
comment on function embedd.drop_provider(text) is
    'Drops an embedding provider that no vector table uses, with every key for it';
comment on function embedd.test_provider(text, text) is
    'Makes one real call with the caller''s key: status, latency_ms, model and dimensions, or an error that says what to do';
comment on function embedd.check_provider_options(text[], oid) is
    'Checks the options of providers and of their user mappings; CREATE SERVER and its like call it';

revoke execute on function embedd.check_provider_options(text[], oid) from public;
