-- What users look at.

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
