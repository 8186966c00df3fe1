SET client_min_messages = warning;
\set ECHO queries
\pset footer off
\x auto

CREATE EXTENSION embedd CASCADE;

SELECT * FROM embedd.create_vector_table('packages-search', 'packages', columns => '[
    {"name": "name",        "role": "embedding", "ordinal": 1},
    {"name": "description", "role": "embedding", "ordinal": 2},
    {"name": "section",     "role": "metadata",  "filter_type": "keyword"},
    {"name": "size_kb",     "role": "metadata",  "filter_type": "integer"}]');

SELECT * FROM embedd.backfill('packages-search');
