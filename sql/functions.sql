-- What the functions are for, who may call them, and the last steps of CREATE EXTENSION.

comment on function embedd.create_vector_table(text, regclass, jsonb, text, text, text, integer, text, boolean, interval, text) is
    'Creates a vector table for a source: a table in the source''s schema, its hnsw index and the triggers that note changes. With sync_mode batch it is compared with the source every batch_interval instead; on_source_drop is keep or drop';
comment on function embedd.drop_vector_table(text, boolean) is
    'Drops a vector table and the triggers of its source; keep_table leaves the table with the vectors';
comment on function embedd.backfill(text) is
    'Asks the sync worker to embed every row of the source; sync_status() tells how far it is';
comment on function embedd.pause_sync(text) is
    'Stops bringing changes into a vector table; they are noted meanwhile, and queries go on';
comment on function embedd.resume_sync(text) is
    'Takes a paused sync up again, with the changes made meanwhile';
comment on function embedd.reconcile(text) is
    'Asks the sync worker to compare every row of source and vector table and to put right what differs; embedd.tasks tells how many rows did';
comment on function embedd.verify(text) is
    'Every row in which a vector table differs from its source now: pk_value and problem, which is missing, stale or orphaned. Rows in embedd.failed_rows are not among them';
comment on function embedd.verify(text, integer) is
    'The same, and the rows of a random sample whose vector is not what the model gives their text now (problem overwritten). Each row of the sample costs a call of the provider';
comment on function embedd.retry_failed(text, text) is
    'Has rows that have failed tried again, the one with this key or all of them; returns how many';
comment on function embedd.sync_status(text) is
    'How the sync of a vector table stands at this moment. synced means that source and vector table agree but for failed_rows and that nothing waits; syncing that changes wait or are compared. rate is rows a second, oldest_pending_secs the age of the oldest change that waits, staleness_secs how old the vectors may be; is_estimated tells that a number is too large to be counted each time, worker_state and provider_state how those two are';
comment on function embedd.all_sync_status() is
    'The same of every vector table that the role may read, or of all for members of pg_monitor; embedd.stat_vector_tables shows it';
comment on function embedd.wait_until_synced(text, interval) is
    'Waits until a vector table is synced, and tells how far it is; raises an error after the timeout, and at once where waiting does not help (paused, not backfilled, an error that lasts)';
comment on function embedd.query(text, text, integer, jsonb, double precision, integer) is
    'The rows nearest to a text: id (the key as text), score (cosine similarity, highest first), metadata and embedded_text';
comment on function embedd.embed(text, text) is
    'The vector that the model of a vector table gives a text';
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
comment on function embedd.usage_counts() is
    'What the embedder has counted for the providers of this database that the role may use; embedd.provider_usage shows it';
comment on function embedd.embedder_status() is
    'How the embedder is: its operating system process, since when it serves, how often it was started again since the server started, rss (bytes of its memory that are resident), whether the local model is loaded, requests_in_flight, the cache of earlier questions (bytes, hits and misses since the process started), and what keeps it from starting. NULL where the embedder does not answer';
comment on function embedd.doctor(boolean) is
    'What is wrong with embedd in this database and on its server, problems first: check, state (problem, warning or ok), the object, what it means, and the statement that helps. A role sees what concerns the vector tables and providers it may see, members of pg_monitor everything; call_providers makes one real call to each provider that the role may use';
alter function embedd.doctor(boolean) rows 40;
comment on function embedd.is_preloaded() is
    'Whether the server was started with embedd in shared_preload_libraries';
comment on function embedd.start_sync() is
    'Asks for this database''s sync worker at the end of the transaction; CREATE EXTENSION calls it';

comment on function embedd.to_integer(text, text) is
    'The whole number of an argument of another type; its name is for the error';
comment on function embedd.to_options(text) is
    'The options of a provider in an argument of another type';

-- How many rows they return, for plans in which they are joined to others.
alter function embedd.query(text, text, integer, jsonb, double precision, integer) rows 10;
alter function embedd.verify(text) rows 100;
alter function embedd.verify(text, integer) rows 100;
alter function embedd.usage_counts() rows 100;
alter function embedd.all_sync_status() rows 100;
alter function embedd.sync_status(text) rows 1;
alter function embedd.embedder_status() rows 1;
alter function embedd.backfill(text) rows 1;
alter function embedd.reconcile(text) rows 1;
alter function embedd.create_vector_table(text, regclass, jsonb, text, text, text, integer, text, boolean, interval, text) rows 1;
alter function embedd.create_provider(text, text, text, text, text, jsonb) rows 1;
alter function embedd.update_provider(text, text, text, text, jsonb) rows 1;
alter function embedd.test_provider(text, text) rows 1;

-- PostgreSQL calls it for everybody who may make a server or a user mapping, and asks for no right on it.
revoke execute on function embedd.check_provider_options(text[], oid) from public;
revoke execute on function embedd.start_sync() from public;
-- It is about the whole server, as what other views for monitoring show.
revoke execute on function embedd.embedder_status() from public;
grant execute on function embedd.embedder_status() to pg_monitor;

do $$
begin
    if not embedd.is_preloaded() then
        raise warning 'embedd is not loaded through shared_preload_libraries'
            using detail = 'Changes are noted, but nothing is embedded and no query is answered.',
                  hint = 'Add shared_preload_libraries = ''embedd'' to postgresql.conf (after what is there already) and restart the server.';
    end if;
    perform embedd.start_sync();
end
$$;
