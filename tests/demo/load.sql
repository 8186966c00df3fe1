-- The rows: some thousand packages, the same ones in every run with the same catalogue. Sections of which most
-- packages are parts of others (headers, translations, language libraries) are left out: they are not useful results.

SET client_min_messages = warning;

CREATE TABLE packages (
    name        text PRIMARY KEY,
    section     text NOT NULL,
    size_kb     integer NOT NULL,
    description text NOT NULL
);

CREATE TEMPORARY TABLE catalogue (name text, section text, size_kb integer, description text);
\set load '\\copy catalogue FROM ' :'catalogue' ' (FORMAT csv)'
:load

INSERT INTO packages
SELECT DISTINCT ON (md5(name), name) name, section, size_kb, left(description, 300)
  FROM catalogue
 WHERE section NOT IN ('debug', 'doc', 'golang', 'haskell', 'introspection', 'java', 'javascript', 'kernel', 'libdevel',
                       'libs', 'localization', 'metapackages', 'oldlibs', 'ocaml', 'perl', 'php', 'python', 'ruby', 'rust')
   AND name !~ '-(data|common|dbg|dev|doc|docs|theme)$'
 ORDER BY md5(name), name
 LIMIT :rows;

ANALYZE packages;

\pset footer off
SELECT count(*) AS packages, count(DISTINCT section) AS sections, pg_size_pretty(pg_total_relation_size('packages')) AS size
  FROM packages;
SELECT name, section, size_kb, left(description, 60) AS description FROM packages ORDER BY md5(name) LIMIT 3;
