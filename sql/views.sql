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
                          case when t.option_value ~ '^\d{1,10}$' and t.option_name not in ('key_header', 'query_prefix', 'document_prefix')
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
comment on column embedd.providers.provider is 'kind of provider: local, openai, gemini, voyage, ollama, openai_compatible or test';
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
comment on column embedd.provider_usage.texts is 'texts sent, whatever became of their requests';
comment on column embedd.provider_usage.tokens is 'tokens of the requests that the provider did its work for, also where its answer could not be used: as it counts them, or an estimate where it does not say';
comment on column embedd.provider_usage.errors is 'requests that brought no vectors: the sum of the five that follow';
comment on column embedd.provider_usage.rate_limited is 'requests refused because of a rate limit or a quota';
comment on column embedd.provider_usage.unavailable is 'requests to which no whole answer came';
comment on column embedd.provider_usage.key_rejected is 'requests refused because of the API key';
comment on column embedd.provider_usage.refused is 'requests refused for another reason, such as a text or a model';
comment on column embedd.provider_usage.bad_reply is 'requests whose answer could not be used';
comment on column embedd.provider_usage.avg_latency_ms is 'milliseconds from request to answer, on average';
comment on column embedd.provider_usage.max_latency_ms is 'milliseconds from request to answer, at most';

create view embedd.stat_vector_tables with (security_barrier) as
    select * from embedd.all_sync_status();
comment on view embedd.stat_vector_tables is 'How the sync of every vector table stands, as sync_status() tells it of one. A role sees those it may read; members of pg_monitor see all.';
comment on column embedd.stat_vector_tables.id is 'number of the vector table (embedd.vector_tables.id)';
comment on column embedd.stat_vector_tables.name is 'the name used in every function call';
comment on column embedd.stat_vector_tables.source_table is 'the table whose rows are embedded';
comment on column embedd.stat_vector_tables.vector_table is 'the table that holds the vectors';
comment on column embedd.stat_vector_tables.embedding_provider is 'the provider that computes the vectors';
comment on column embedd.stat_vector_tables.embedding_model is 'the model that computes them';
comment on column embedd.stat_vector_tables.sync_mode is 'trigger or batch';
comment on column embedd.stat_vector_tables.sync_status is 'pending, backfilling, syncing, synced, paused, error or pending_rebackfill, as it is at this moment';
comment on column embedd.stat_vector_tables.synced_rows is 'rows of the vector table';
comment on column embedd.stat_vector_tables.total_rows is 'rows of the source; null where they cannot be counted';
comment on column embedd.stat_vector_tables.last_synced_at is 'when changes were last brought into the vector table';
comment on column embedd.stat_vector_tables.rows_pending is 'changes that wait, and rows that a backfill has before it';
comment on column embedd.stat_vector_tables.staleness_secs is 'how old the vectors may be, in seconds';
comment on column embedd.stat_vector_tables.last_error is 'why it is not synced, and what to do about it; for those who have the owner''s rights';
comment on column embedd.stat_vector_tables.last_error_at is 'when that was noted';
comment on column embedd.stat_vector_tables.failed_rows is 'rows that cannot be embedded (embedd.failed_rows)';
comment on column embedd.stat_vector_tables.truncated_rows is 'rows of whose text only the beginning was embedded (embedd.truncated_rows)';
comment on column embedd.stat_vector_tables.rate is 'rows a second done lately';
comment on column embedd.stat_vector_tables.eta is 'time until the backfill is done, at that rate';
comment on column embedd.stat_vector_tables.oldest_pending_secs is 'age of the oldest change that waits, in seconds';
comment on column embedd.stat_vector_tables.is_estimated is 'whether a number is too large to be counted each time';
comment on column embedd.stat_vector_tables.worker_state is 'busy, idle, starting, waiting for a slot, not running, or not preloaded';
comment on column embedd.stat_vector_tables.worker_since is 'since when, where that is known';
comment on column embedd.stat_vector_tables.provider_state is 'ok or failing';
comment on column embedd.stat_vector_tables.provider_since is 'since when it has been failing';
