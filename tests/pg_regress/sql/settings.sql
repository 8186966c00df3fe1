-- The settings: names, units, contexts, ranges, defaults.
select name, unit, vartype as type, context, min_val, max_val, boot_val
  from pg_settings where name like 'embedd.%' order by name;
select name, category, short_desc, extra_desc from pg_settings where name like 'embedd.%' order by name \gx

-- Session settings.
set embedd.embedder_timeout = '5s';
show embedd.embedder_timeout;
set embedd.embedder_timeout = 0;
set embedd.embedder_timeout = 'soon';
set embedd.embedder_timeout = '1 GB';
reset embedd.embedder_timeout;
show embedd.embedder_timeout;

-- Settings of the administrator: postgresql.conf and reload, not SET.
set embedd.local_threads = 2;
set embedd.local_model_path = '/tmp';
set embedd.poll_interval = '1s';
set embedd.batch_texts = 1;
set embedd.texts_in_flight = 1;
set embedd.query_cache_size = 0;
set embedd.local_idle_unload = 0;
set embedd.workers_per_database = 2;
set embedd.max_sync_workers = 2;
set embedd.worker_idle_timeout = 0;
set embedd.embedder_path = '/tmp/embedder';
set embedd.embedder_memory_limit = '1GB';
alter system set embedd.batch_texts = 0;
alter system set embedd.texts_in_flight = 65537;
alter system set embedd.poll_interval = '99ms';
alter system set embedd.query_cache_size = '2GB';
alter system set embedd.workers_per_database = 0;
alter system set embedd.workers_per_database = 17;
alter system set embedd.max_sync_workers = 129;
alter system set embedd.worker_idle_timeout = '25h';
alter system set embedd.embedder_memory_limit = '17TB';
alter system set embedd.embedder_memory_limit = -1;

-- The prefix is reserved.
\set VERBOSITY sqlstate
set embedd.no_such_setting = 1;
\set VERBOSITY default

-- An ordinary role can set session settings, and cannot see where the server keeps its files.
create role golden_somebody;
set role golden_somebody;
set embedd.embedder_timeout = '1s';
show embedd.embedder_timeout;
set embedd.batch_texts = 1;
\set VERBOSITY sqlstate
show embedd.local_model_path;
show embedd.embedder_path;
\set VERBOSITY default
select name from pg_settings where name = 'embedd.local_model_path';
show embedd.batch_texts;
reset role;
reset embedd.embedder_timeout;
drop role golden_somebody;
