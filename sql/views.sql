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
                          case when t.option_value ~ '^\d{1,15}$' and t.option_name not in ('key_header', 'query_prefix', 'document_prefix')
                               then pg_catalog.to_jsonb(t.option_value::bigint)
                               else pg_catalog.to_jsonb(t.option_value) end)
                          filter (where t.option_name not in ('provider', 'default_model', 'base_url', 'created_at')), '{}'),
                      pg_catalog.max(t.option_value) filter (where t.option_name = 'created_at')::timestamptz
                 from pg_catalog.pg_options_to_table(s.srvoptions) t) o(provider, default_model, base_url, options, created_at)
     where w.fdwname = 'embedd'
       and (pg_catalog.pg_has_role(s.srvowner, 'USAGE') or pg_catalog.has_server_privilege(s.oid, 'USAGE'));
comment on view embedd.providers is 'The embedding providers that a role may use: the local model and the foreign servers of the wrapper embedd. It shows no keys';
comment on column embedd.providers.id is 'oid of the foreign server; null for the local model';
comment on column embedd.providers.name is 'name that every function call uses';
comment on column embedd.providers.provider is 'kind of provider: local, openai, gemini, voyage, ollama, openai_compatible or test';
comment on column embedd.providers.default_model is 'model that is used where the call names none; null means the default of the kind (embedd.models.is_default)';
comment on column embedd.providers.base_url is 'address of the provider; null means the address of the service itself';
comment on column embedd.providers.options is 'the other options, none of them secret';
comment on column embedd.providers.has_key is 'whether the current role has an API key: in its own user mapping, else in the one FOR PUBLIC';
comment on column embedd.providers.owner is 'role that may change the provider';
comment on column embedd.providers.created_at is 'when create_provider() created it; null for a provider of CREATE SERVER';

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
comment on view embedd.provider_usage is 'Requests of the sessions and workers of this database to each provider, by day. A role sees the providers that it may use';
comment on column embedd.provider_usage.provider is 'the provider (embedd.providers.name)';
comment on column embedd.provider_usage.day is 'day in UTC';
comment on column embedd.provider_usage.requests is 'requests sent, with every outcome';
comment on column embedd.provider_usage.texts is 'texts sent, with every outcome';
comment on column embedd.provider_usage.tokens is 'tokens of the requests that the provider processed, also where its reply could not be used: the count of the provider, or an estimate where it gives none';
comment on column embedd.provider_usage.errors is 'requests that brought no vectors: the sum of the next five columns';
comment on column embedd.provider_usage.rate_limited is 'requests refused because of a rate limit or a quota';
comment on column embedd.provider_usage.unavailable is 'requests that got no complete reply';
comment on column embedd.provider_usage.key_rejected is 'requests refused because of the API key';
comment on column embedd.provider_usage.refused is 'requests refused for another reason, such as a text or a model';
comment on column embedd.provider_usage.bad_reply is 'requests whose reply could not be used';
comment on column embedd.provider_usage.avg_latency_ms is 'average milliseconds from request to reply';
comment on column embedd.provider_usage.max_latency_ms is 'most milliseconds from request to reply';

create view embedd.stat_vector_tables with (security_barrier) as
    select * from embedd.all_sync_status();
comment on view embedd.stat_vector_tables is 'Status of the sync of every vector table at this moment, as sync_status() shows it for one. A role sees the vector tables that it may read; members of pg_monitor see all of them';
comment on column embedd.stat_vector_tables.id is 'number of the vector table (embedd.vector_tables.id)';
comment on column embedd.stat_vector_tables.name is 'name that every function call uses';
comment on column embedd.stat_vector_tables.source_table is 'table whose rows are embedded';
comment on column embedd.stat_vector_tables.vector_table is 'table that holds the vectors';
comment on column embedd.stat_vector_tables.embedding_provider is 'provider that computes the vectors';
comment on column embedd.stat_vector_tables.embedding_model is 'model that computes the vectors';
comment on column embedd.stat_vector_tables.sync_mode is 'trigger or batch';
comment on column embedd.stat_vector_tables.sync_status is 'pending, backfilling, syncing (changes wait, or source and vector table are compared), synced (source and vector table agree except for failed_rows, and no change waits), pending_rebackfill (a change of the configuration waits for a backfill or a swap), paused or error';
comment on column embedd.stat_vector_tables.synced_rows is 'rows of the vector table';
comment on column embedd.stat_vector_tables.total_rows is 'rows of the source; null where they cannot be counted';
comment on column embedd.stat_vector_tables.last_synced_at is 'when the sync worker last applied changes to the vector table';
comment on column embedd.stat_vector_tables.rows_pending is 'changes that wait, and rows that the backfill has not reached yet';
comment on column embedd.stat_vector_tables.staleness_secs is 'how old the vectors may be, in seconds';
comment on column embedd.stat_vector_tables.last_error is 'why the status is not synced, with the remedy; only roles with the rights of the owner see it';
comment on column embedd.stat_vector_tables.last_error_at is 'when that error was noted';
comment on column embedd.stat_vector_tables.failed_rows is 'rows that cannot be embedded (embedd.failed_rows)';
comment on column embedd.stat_vector_tables.truncated_rows is 'rows whose text was embedded only in part (embedd.truncated_rows)';
comment on column embedd.stat_vector_tables.rate is 'rows a second, of the backfill or of the last seconds';
comment on column embedd.stat_vector_tables.eta is 'time that the backfill still needs at that rate';
comment on column embedd.stat_vector_tables.oldest_pending_secs is 'age of the oldest change that waits, in seconds; null when no change waits';
comment on column embedd.stat_vector_tables.is_estimated is 'whether a number is an estimate, because counting would take too long';
comment on column embedd.stat_vector_tables.worker_state is 'busy, idle, starting, waiting for a slot, not running or not preloaded';
comment on column embedd.stat_vector_tables.worker_since is 'since when, where that is known';
comment on column embedd.stat_vector_tables.provider_state is 'ok or failing';
comment on column embedd.stat_vector_tables.provider_since is 'since when the provider has been failing';
