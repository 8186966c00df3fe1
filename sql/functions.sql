-- What the functions are for, who may call them, and the last steps of CREATE EXTENSION.

comment on function embedd.create_vector_table(text, regclass, jsonb, text, text, text, integer, text, boolean, interval, text, text, jsonb, text, text, double precision, text, text, text, text) is
    'Creates a vector table for a source: a table in the schema of the source, its hnsw index, and the triggers that note changes of the source. With sync_mode => ''batch'' it creates no triggers, and a worker compares source and vector table every batch_interval. on_source_drop (keep or drop) says what happens to the vectors when the source is dropped. vector_type (vector or halfvec) is the type of the vectors, index has the keys method (hnsw or none), m, ef_construction and quantization (bit), and table_name and table_schema name the table. recall_target is the part of the nearest rows that query() shall find, 0.98 by default; query_provider and query_model embed the questions, fallback is the provider that embeds them while the first one fails, and row_security (auto or off) says whether policies of the source apply to the vectors';
comment on function embedd.drop_vector_table(text, boolean) is
    'Drops a vector table and its triggers on the source; keep_table => true keeps the table with the vectors';
comment on function embedd.backfill(text) is
    'Asks the sync worker to embed every row of the source, and returns the task; sync_status() shows the progress';
comment on function embedd.backfill(text, text, boolean) is
    'Does what backfill(name) does, at a price: standard, or batch, with which new texts are embedded through the batch API of the provider (OpenAI, Voyage, Gemini), for less money and within a day';
comment on function embedd.backfill(text, boolean) is
    'Does what backfill(name) does; where update_vector_table() has changed what needs new vectors, auto_swap => false keeps the new table ready until swap() or discard()';
comment on function embedd.update_vector_table(text, jsonb, text, text, integer, interval, text, text, text, text, jsonb, text, double precision, text, text, text, text) is
    'Changes the configuration of a vector table; an argument that is null leaves its setting as it is. What leaves the vectors as they are is applied at once. For the rest a shadow is created, and needs_backfill is true: the next backfill() fills it and swaps it in, and queries use the table and the configuration before it until then. on_shadow names a function (old regclass, new regclass) that shapes the shadow. An empty text removes query_provider, query_model or fallback';
comment on function embedd.rename_vector_table(text, text) is
    'Gives a vector table another name for function calls; the table with the vectors keeps its name';
comment on function embedd.swap(text) is
    'Asks the sync worker to put a shadow that is ready in the place of the vector table, and returns the task';
comment on function embedd.compare(text, text[], integer) is
    'Asks the same questions of a vector table and of its shadow: overlap (the part of the k nearest rows of the vector table that the shadow returns too), mean_rank_change (by how many places these rows move on average), and the milliseconds to embed the question and to find the rows, and what a million tokens cost (embedd.models, in US dollars)';
comment on function embedd.discard(text) is
    'Drops the shadow of a vector table with the vectors it has: the vector table keeps its configuration';
comment on function embedd.cancel_backfill(text) is
    'Cancels the backfill that is requested or running, and returns the task. Rows that are embedded stay; a later backfill() embeds only what is missing. A vector table that was filled before stays in sync; another one has status pending until a backfill is complete';
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
comment on function embedd.estimate(text, jsonb) is
    'Estimates what a backfill of a vector table costs and how long it takes, without sending a text. config is an object of the arguments that a change would give: embedding_provider, embedding_model, embedding_dimensions and columns. tokens, long_texts (those of which the model reads only the beginning), requests and costs are those of texts_to_embed. Of many texts the tokens of a random sample are counted (is_estimated)';
comment on function embedd.retry_failed(text, text) is
    'Asks the sync worker to try failed rows again, the one with this key or all of the vector table; returns how many';
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
comment on function embedd.sync_status(text) is
    'Shows the status of the sync of one vector table at this moment. Its columns are those of embedd.stat_vector_tables';
comment on function embedd.all_sync_status() is
    'Returns the rows of embedd.stat_vector_tables: the vector tables that the role may read, or all of them for members of pg_monitor';
comment on function embedd.wait_until_synced(text, interval) is
    'Waits until a vector table is synced and reports the progress in NOTICEs. It raises an error after the timeout, and at once where waiting cannot help: the sync is paused, was never backfilled, or has an error that lasts';
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
comment on function embedd.recall(text, integer, integer, jsonb) is
    'Measures how many of the k nearest rows query() finds, with the vectors of a random sample of rows as questions: recall (the part that is found), questions, the milliseconds of a question as query() answers it and exactly, plan (index, exact or both), the ef_search of the index, and advice. No provider is called, and nothing is written';
comment on function embedd.embed(text, text) is
    'Returns the vector that the model of a vector table computes for a question';
comment on function embedd.may_read_source(integer, text) is
    'Tells whether SELECT on the source of a vector table (its origin_id) shows the current role the row with this key; the policy embedd_source calls it';
comment on function embedd.utc_datetime(text) is
    'Converts a timestamp in metadata for the key of an index; one without a time zone counts as UTC';
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
alter function embedd.doctor(boolean) rows 40;
comment on function embedd.is_preloaded() is
    'Tells whether the server was started with embedd in shared_preload_libraries';
comment on function embedd.start_sync() is
    'Wakes the sync worker of this database at the end of the transaction; CREATE EXTENSION calls it';

comment on function embedd.to_integer(text, text) is
    'Converts an argument of another type to a whole number; name is for the error message';
comment on function embedd.to_options(text) is
    'Converts the options of a provider from an argument of another type';

-- How many rows they return, for plans in which they are joined to others.
alter function embedd.query(text, text, integer, jsonb, double precision, integer, vector, integer, text, jsonb, jsonb, jsonb) rows 10;
alter function embedd.search(text[], text, integer, jsonb, double precision, integer) rows 10;
alter function embedd.similar(text, text, integer, jsonb) rows 10;
alter function embedd.similar(text, text[], integer, jsonb) rows 10;
alter function embedd.recall(text, integer, integer, jsonb) rows 1;
alter function embedd.may_read_source(integer, text) cost 1000;
alter function embedd.verify(text) rows 100;
alter function embedd.import_vectors(text, text) rows 1;
alter function embedd.adopt_column(text, text) rows 1;
alter function embedd.adopt_pgai(text, text) rows 1;
alter function embedd.adopt_pgedge(text, text) rows 1;
alter function embedd.adopt_vectorize(text, text) rows 1;
alter function embedd.verify(text, integer) rows 100;
alter function embedd.estimate(text, jsonb) rows 1;
alter function embedd.usage_counts() rows 100;
alter function embedd.all_sync_status() rows 100;
alter function embedd.sync_status(text) rows 1;
alter function embedd.embedder_status() rows 1;
alter function embedd.backfill(text) rows 1;
alter function embedd.backfill(text, boolean) rows 1;
alter function embedd.backfill(text, text, boolean) rows 1;
alter function embedd.swap(text) rows 1;
alter function embedd.compare(text, text[], integer) rows 10;
alter function embedd.update_vector_table(text, jsonb, text, text, integer, interval, text, text, text, text, jsonb, text, double precision, text, text, text, text) rows 1;
alter function embedd.reconcile(text) rows 1;
alter function embedd.cancel_backfill(text) rows 1;
alter function embedd.create_vector_table(text, regclass, jsonb, text, text, text, integer, text, boolean, interval, text, text, jsonb, text, text, double precision, text, text, text, text) rows 1;
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
