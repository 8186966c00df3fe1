-- From 0.6.0 to 0.7.0: a scan removes orphans first; comments in plain words.

-- A task that is open begins again: what is embedded already is compared and not embedded again.
alter table embedd.tasks alter column phase set default 'orphans';
update embedd.tasks set phase = 'orphans', last_processed_pk = null, processed_rows = 0, different_rows = 0
 where status in ('pending', 'running') and phase <> 'index';

comment on table embedd.models is 'The model catalog: the embedding models that embedd knows, the dimensions of their vectors, and their limits. You may add rows';
comment on column embedd.models.model is 'name of the model, as the provider calls it';
comment on column embedd.models.dimensions is 'dimensions of a vector, unless embedding_dimensions says otherwise';
comment on column embedd.models.is_default is 'whether the model is used where neither the call nor default_model of the provider names one';
comment on column embedd.models.native_dimensions is 'dimensions of a vector where the request asks for no number; null means the same as dimensions';
comment on column embedd.models.can_shorten is 'whether the provider can return fewer dimensions than native_dimensions';
comment on column embedd.models.tokens_per_text is 'tokens of one text that the model reads; null means unknown';
comment on column embedd.models.texts_per_request is 'texts that the provider accepts in one request; null means unknown';
comment on column embedd.models.tokens_per_request is 'tokens that the provider accepts in one request; null means unknown';
comment on column embedd.models.built_in is 'whether the row came with embedd; pg_dump leaves such rows out';
comment on column embedd.models.query_prefix is 'prefix of a question when it is embedded; a vector table keeps the prefix from its creation';
comment on column embedd.models.document_prefix is 'prefix of a source text when it is embedded; a vector table keeps the prefix from its creation';
comment on column embedd.models.retires_on is 'first day on which the maker may retire the model; null means unknown or not announced';
comment on column embedd.models.replacement is 'model that the maker recommends instead';
comment on function embedd.replace_built_in_model() is 'Trigger function: removes the built-in row of the model catalog that a new row replaces';
comment on table embedd.vector_tables is 'Every vector table with its source, its model and the stored state of its sync. A role sees the vector tables whose owner''s rights it has';
comment on column embedd.vector_tables.id is 'number of the vector table; the triggers of the source carry it';
comment on column embedd.vector_tables.name is 'name that every function call uses';
comment on column embedd.vector_tables.source_table is 'table whose rows are embedded';
comment on column embedd.vector_tables.primary_key_column is 'column of the source that identifies a row; a JSON array of names where the key has several columns';
comment on column embedd.vector_tables.key_types is 'types of the key columns';
comment on column embedd.vector_tables.vector_table is 'table that holds the vectors (platform_vector_ref)';
comment on column embedd.vector_tables.embedding_provider is 'provider that computes the vectors';
comment on column embedd.vector_tables.embedding_model is 'model that computes the vectors';
comment on column embedd.vector_tables.embedding_dimensions is 'dimensions of a vector';
comment on column embedd.vector_tables.sync_mode is 'how embedd detects changes: trigger (triggers note each change) or batch (a worker compares source and vector table every batch_interval)';
comment on column embedd.vector_tables.columns is 'configured columns in the form that create_vector_table() takes; source_column is the current name in the source where a column was renamed';
comment on column embedd.vector_tables.owner is 'owner of the vector table when a worker last saw it; the worker works with the rights of this role';
comment on column embedd.vector_tables.sync_status is 'pending, backfilling, synced, paused or error, as a worker stored it; sync_status() and stat_vector_tables show the state at this moment. pending_rebackfill is not used yet';
comment on column embedd.vector_tables.last_error is 'why the last attempt failed; null after an attempt that succeeded';
comment on column embedd.vector_tables.last_error_at is 'when that attempt failed';
comment on column embedd.vector_tables.system_id is 'system identifier of the cluster that keeps the vector table in sync';
comment on column embedd.vector_tables.created_at is 'when the vector table was created';
comment on column embedd.vector_tables.held_indexes is 'vector indexes that are built after the first load; null when all of them exist';
comment on column embedd.vector_tables.extension_id is 'oid of the extension when the row was written; another oid means that the row came with a dump and its column numbers are not valid';
comment on column embedd.vector_tables.source_name is 'qualified name of the source when a worker last saw it; a table that is created under this name replaces a source that was dropped';
comment on column embedd.vector_tables.key_numbers is 'numbers of the key columns in the source (pg_attribute.attnum), which a rename keeps';
comment on column embedd.vector_tables.unseen_since is 'since when changes may have been missed (policies, children, triggers that do not fire); the table is compared as soon as they can be seen again';
comment on column embedd.vector_tables.compared_in is 'server start during which the vector table was created or compared; an unlogged table is empty after a crash and is compared again';
comment on column embedd.vector_tables.error_kind is 'what last_error is about: provider or table';
comment on column embedd.vector_tables.error_since is 'since when this error has lasted';
comment on column embedd.vector_tables.vectors_name is 'qualified name of the vector table when a worker last saw it; a table that the owner creates under this name replaces one that was dropped';
comment on column embedd.vector_tables.on_source_drop is 'what happens to the vectors when the source is dropped: keep (the status is error until a table of that name exists again) or drop';
comment on column embedd.vector_tables.query_prefix is 'prefix of every question when it is embedded; it never changes after the creation of the vector table';
comment on column embedd.vector_tables.document_prefix is 'prefix of every embedded text when it is embedded, not part of embedded_text; it never changes after the creation of the vector table';
comment on table embedd.queue is 'Keys of changed source rows that the sync worker has not finished yet, many keys in a row';
comment on column embedd.queue.id is 'order of the changes; a later change of a key has a higher id';
comment on column embedd.queue.system_id is 'system identifier of the cluster where the change was made; workers read the rows of their own cluster only';
comment on column embedd.queue.keys is 'keys of the changed rows as text; empty after a change that removed any number of rows (TRUNCATE), null after a change of any number of rows';
comment on column embedd.queue.portions is 'number of sync workers that shared the keys when the row was written';
comment on column embedd.queue.portion is 'index of the sync worker that these keys belong to, by their hash';
comment on column embedd.queue.transaction is 'transaction that wrote the row';
comment on column embedd.queue.is_paged is 'whether a backfill or a comparison found the keys, so that changes go first; without keys, the worker reads again what it has in work';
comment on table embedd.sync_state is 'Progress of each sync worker with each vector table, written every few seconds at most: for a quick start and a quick sync_status()';
comment on column embedd.sync_state.portions is 'number of sync workers that share the keys';
comment on column embedd.sync_state.portion is 'index of this sync worker';
comment on column embedd.sync_state.done_id is 'queue rows up to this id are done, except those of open_transactions';
comment on column embedd.sync_state.open_transactions is 'transactions that were running when done_id was written';
comment on column embedd.sync_state.last_synced_at is 'when the worker last applied changes to the vector table';
comment on column embedd.sync_state.rate is 'rows a second at that time';
comment on table embedd.tasks is 'Backfills and comparisons: requested, running and finished. A role sees the tasks of the vector tables that it sees';
comment on column embedd.tasks.task_type is 'backfill (the first one of a vector table), rebackfill (a later one) or reconcile (compares source and vector table)';
comment on column embedd.tasks.priority is 'not used yet: a vector table has one open task at most, and the worker does those of several side by side';
comment on column embedd.tasks.attempts is 'how often a worker started the task, resumed it, or accepted another request for it';
comment on column embedd.tasks.max_attempts is 'not used yet: a worker retries what fails, with a growing backoff';
comment on column embedd.tasks.phase is 'orphans: the worker removes rows whose source row is gone; source: it reads source rows page by page; index: it builds the vector index';
comment on column embedd.tasks.last_processed_pk is 'every key up to this one is done in this phase; after a restart the worker continues behind it';
comment on column embedd.tasks.processed_rows is 'source rows read so far';
comment on column embedd.tasks.created_at is 'when the task was requested';
comment on column embedd.tasks.started_at is 'when the task started';
comment on column embedd.tasks.completed_at is 'when the task ended';
comment on column embedd.tasks.different_rows is 'rows found missing, stale or orphaned so far';
comment on table embedd.failed_rows is 'Source rows that cannot be embedded, with the reason. A later change of the row tries it again, and so do retry_failed() and backfill()';
comment on column embedd.failed_rows.reason is 'why the row failed';
comment on column embedd.failed_rows.failed_at is 'when it failed most recently';
comment on column embedd.failed_rows.attempts is 'how often it has failed since it last succeeded';
comment on column embedd.failed_rows.first_failed_at is 'when it failed for the first time since it last succeeded';
comment on table embedd.truncated_rows is 'Source rows whose text is longer than the model reads, so that only its beginning was embedded';
comment on type embedd.argument is 'Type of an argument that is text or JSON: it accepts what drivers send and keeps it as text';
comment on type embedd.number_argument is 'Type of an argument that is a number: it accepts what drivers send and keeps it as text';
comment on type embedd.interval_argument is 'Type of an argument that is an interval: it accepts what drivers send and keeps it as text';
comment on type embedd.relation_argument is 'Type of an argument that is a relation: it accepts what drivers send and keeps it as text';
comment on function embedd.relation_argument(oid) is 'Converts the oid of a relation to its name';
comment on function embedd.argument(text[]) is 'Converts an array of texts to a JSON array';
comment on view embedd.providers is 'The embedding providers that a role may use: the local model and the foreign servers of the wrapper embedd. It shows no keys';
comment on column embedd.providers.id is 'oid of the foreign server; null for the local model';
comment on column embedd.providers.name is 'name that every function call uses';
comment on column embedd.providers.default_model is 'model that is used where the call names none; null means the default of the kind (embedd.models.is_default)';
comment on column embedd.providers.base_url is 'address of the provider; null means the address of the service itself';
comment on column embedd.providers.options is 'the other options, none of them secret';
comment on column embedd.providers.has_key is 'whether the current role has an API key: in its own user mapping, else in the one FOR PUBLIC';
comment on column embedd.providers.owner is 'role that may change the provider';
comment on column embedd.providers.created_at is 'when create_provider() created it; null for a provider of CREATE SERVER';
comment on view embedd.provider_usage is 'Requests of the sessions and workers of this database to each provider, by day. A role sees the providers that it may use';
comment on column embedd.provider_usage.day is 'day in UTC';
comment on column embedd.provider_usage.requests is 'requests sent, with every outcome';
comment on column embedd.provider_usage.texts is 'texts sent, with every outcome';
comment on column embedd.provider_usage.tokens is 'tokens of the requests that the provider processed, also where its reply could not be used: the count of the provider, or an estimate where it gives none';
comment on column embedd.provider_usage.errors is 'requests that brought no vectors: the sum of the next five columns';
comment on column embedd.provider_usage.unavailable is 'requests that got no complete reply';
comment on column embedd.provider_usage.bad_reply is 'requests whose reply could not be used';
comment on column embedd.provider_usage.avg_latency_ms is 'average milliseconds from request to reply';
comment on column embedd.provider_usage.max_latency_ms is 'most milliseconds from request to reply';
comment on view embedd.stat_vector_tables is 'Status of the sync of every vector table at this moment, as sync_status() shows it for one. A role sees the vector tables that it may read; members of pg_monitor see all of them';
comment on column embedd.stat_vector_tables.name is 'name that every function call uses';
comment on column embedd.stat_vector_tables.source_table is 'table whose rows are embedded';
comment on column embedd.stat_vector_tables.vector_table is 'table that holds the vectors';
comment on column embedd.stat_vector_tables.embedding_provider is 'provider that computes the vectors';
comment on column embedd.stat_vector_tables.embedding_model is 'model that computes the vectors';
comment on column embedd.stat_vector_tables.sync_status is 'pending, backfilling, syncing (changes wait, or source and vector table are compared), synced (source and vector table agree except for failed_rows, and no change waits), paused or error';
comment on column embedd.stat_vector_tables.last_synced_at is 'when the sync worker last applied changes to the vector table';
comment on column embedd.stat_vector_tables.rows_pending is 'changes that wait, and rows that the backfill has not reached yet';
comment on column embedd.stat_vector_tables.last_error is 'why the status is not synced, with the remedy; only roles with the rights of the owner see it';
comment on column embedd.stat_vector_tables.last_error_at is 'when that error was noted';
comment on column embedd.stat_vector_tables.truncated_rows is 'rows whose text was embedded only in part (embedd.truncated_rows)';
comment on column embedd.stat_vector_tables.rate is 'rows a second, of the backfill or of the last seconds';
comment on column embedd.stat_vector_tables.eta is 'time that the backfill still needs at that rate';
comment on column embedd.stat_vector_tables.oldest_pending_secs is 'age of the oldest change that waits, in seconds; null when no change waits';
comment on column embedd.stat_vector_tables.is_estimated is 'whether a number is an estimate, because counting would take too long';
comment on column embedd.stat_vector_tables.worker_state is 'busy, idle, starting, waiting for a slot, not running or not preloaded';
comment on column embedd.stat_vector_tables.provider_since is 'since when the provider has been failing';
comment on function embedd.may_change(oid, oid) is 'Tells whether the current role has the rights of the owner of a vector table';
comment on function embedd.may_see(oid, oid) is 'Tells whether the current role may see a vector table: it has the rights of the owner, or SELECT on the vector table';
comment on foreign data wrapper embedd is
    'Embedding providers: a foreign server of this wrapper is a provider, and a user mapping holds its API key. USAGE lets a role create providers, and so make the server call any address';
comment on function embedd.query(embedd.argument, embedd.argument, embedd.number_argument, embedd.argument, embedd.number_argument, embedd.number_argument) is
    'Form of query() for other argument types: a limit of type bigint or numeric, filters of type json or text';
comment on function embedd.create_vector_table(embedd.argument, embedd.relation_argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.number_argument, embedd.argument, boolean, embedd.interval_argument, embedd.argument) is
    'Form of create_vector_table() for other argument types: columns of type json or text, dimensions of type bigint';
comment on function embedd.create_provider(embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument) is
    'Form of create_provider() for other argument types: options of type json or text';
comment on function embedd.update_provider(embedd.argument, embedd.argument, embedd.argument, embedd.argument, embedd.argument) is
    'Form of update_provider() for other argument types: options of type json or text';
comment on function embedd.retry_failed(embedd.argument, embedd.argument) is
    'Form of retry_failed() for a key of another type: bigint or uuid';
comment on function embedd.wait_until_synced(embedd.argument, embedd.interval_argument) is
    'Form of wait_until_synced() for a timeout of type text or a number of seconds';
comment on function embedd.verify(embedd.argument, embedd.number_argument) is
    'Form of verify() for a sample of type bigint or numeric';
comment on function embedd.create_vector_table(text, regclass, jsonb, text, text, text, integer, text, boolean, interval, text) is
    'Creates a vector table for a source: a table in the schema of the source, its hnsw index, and the triggers that note changes of the source. With sync_mode => ''batch'' it creates no triggers, and a worker compares source and vector table every batch_interval. on_source_drop (keep or drop) says what happens to the vectors when the source is dropped';
comment on function embedd.drop_vector_table(text, boolean) is
    'Drops a vector table and its triggers on the source; keep_table => true keeps the table with the vectors';
comment on function embedd.backfill(text) is
    'Asks the sync worker to embed every row of the source, and returns the task; sync_status() shows the progress';
comment on function embedd.pause_sync(text) is
    'Pauses the sync of a vector table: writers still note changes and queries still answer, but the sync worker applies no change';
comment on function embedd.resume_sync(text) is
    'Resumes a paused sync; the sync worker applies the changes that waited';
comment on function embedd.reconcile(text) is
    'Asks the sync worker to compare every row of the source with the vector table and to correct the differences, and returns the task; embedd.tasks counts the differences';
comment on function embedd.verify(text) is
    'Returns every row in which the vector table differs from its source now: pk_value and problem (missing, stale or orphaned). It leaves out the rows in embedd.failed_rows';
comment on function embedd.verify(text, integer) is
    'Returns what verify(name) returns, and embeds the texts of a random sample of rows again: problem is overwritten where the stored vector is another one. The provider is paid for each text of the sample';
comment on function embedd.retry_failed(text, text) is
    'Asks the sync worker to try failed rows again, the one with this key or all of the vector table; returns how many';
comment on function embedd.sync_status(text) is
    'Shows the status of the sync of one vector table at this moment. Its columns are those of embedd.stat_vector_tables';
comment on function embedd.all_sync_status() is
    'Returns the rows of embedd.stat_vector_tables: the vector tables that the role may read, or all of them for members of pg_monitor';
comment on function embedd.wait_until_synced(text, interval) is
    'Waits until a vector table is synced and reports the progress in NOTICEs. It raises an error after the timeout, and at once where waiting cannot help: the sync is paused, was never backfilled, or has an error that lasts';
comment on function embedd.query(text, text, integer, jsonb, double precision, integer) is
    'Returns the rows nearest to a text: id (the key as text), score (cosine similarity, highest first), metadata and embedded_text';
comment on function embedd.embed(text, text) is
    'Returns the vector that the model of a vector table computes for a question';
comment on function embedd.create_provider(text, text, text, text, text, jsonb) is
    'Creates an embedding provider: a foreign server of the wrapper embedd, with the API key in its user mapping FOR PUBLIC. The key is literal or, for superusers, env:NAME or file:PATH; no view shows it';
comment on function embedd.update_provider(text, text, text, text, jsonb) is
    'Changes an embedding provider. An argument that is null leaves its value as it is; a null in options removes that option';
comment on function embedd.drop_provider(text) is
    'Drops an embedding provider that no vector table uses, and every key for it';
comment on function embedd.test_provider(text, text) is
    'Makes one real call with the key of the caller: status, latency_ms, model and dimensions, or an error that names the remedy';
comment on function embedd.check_provider_options(text[], oid) is
    'Checks the options of providers and of their user mappings. CREATE SERVER, CREATE USER MAPPING and their ALTER forms call it';
comment on function embedd.usage_counts() is
    'Returns what the embedder has counted for the providers of this database that the role may use; embedd.provider_usage shows it';
comment on function embedd.embedder_status() is
    'Shows the state of the embedder: its process id, the time since when it serves, restarts since the server started, rss (bytes of resident memory), whether the local model is loaded, requests_in_flight, the cache of earlier questions (bytes, hits and misses since the process started), and the error that keeps it from starting. Columns are null where the embedder does not answer';
comment on function embedd.doctor(boolean) is
    'Checks embedd in this database and on its server, and returns problems first: check, state (problem, warning or ok), object, meaning and remedy. A role sees what concerns the vector tables and providers that it may see; members of pg_monitor see everything. call_providers => true makes one real call to each provider that the role may use';
comment on function embedd.is_preloaded() is
    'Tells whether the server was started with embedd in shared_preload_libraries';
comment on function embedd.start_sync() is
    'Wakes the sync worker of this database at the end of the transaction; CREATE EXTENSION calls it';
comment on function embedd.to_integer(text, text) is
    'Converts an argument of another type to a whole number; name is for the error message';
comment on function embedd.to_options(text) is
    'Converts the options of a provider from an argument of another type';
comment on function embedd.note_change() is 'Trigger function: notes the keys of changed source rows for a vector table. create_vector_table() creates its triggers';
