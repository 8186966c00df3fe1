-- From 0.3.0 to 0.4.0: the embedder is a program of its own, and a function tells how it is.

create function embedd.embedder_status() returns table (
    pid integer,
    since timestamp with time zone,
    restarts bigint,
    rss bigint,
    model_loaded boolean,
    requests_in_flight bigint,
    cache_bytes bigint,
    cache_hits bigint,
    cache_misses bigint,
    last_error text
)
    strict volatile parallel unsafe
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'embedder_status_wrapper';
comment on function embedd.embedder_status() is
    'How the embedder is: its operating system process, since when it serves, how often it was started again since the server started, rss (bytes of its memory that are resident), whether the local model is loaded, requests_in_flight, the cache of earlier questions (bytes, hits and misses since the process started), and what keeps it from starting. NULL where the embedder does not answer';
revoke execute on function embedd.embedder_status() from public;
grant execute on function embedd.embedder_status() to pg_monitor;
