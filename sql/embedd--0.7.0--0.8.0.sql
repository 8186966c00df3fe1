-- From 0.7.0 to 0.8.0: a vector table changes without a gap.

-- Vectors that something else has computed.
create function embedd.import_vectors(name text, query text) returns table (imported bigint, unchanged bigint, skipped bigint, reasons jsonb)
    strict volatile parallel unsafe rows 1
    language c
    as 'MODULE_PATHNAME', 'import_vectors_wrapper';
create function embedd.adopt_column(name text, vector_column text) returns table (imported bigint, unchanged bigint, skipped bigint, reasons jsonb)
    strict volatile parallel unsafe rows 1
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'adopt_column_wrapper';
create function embedd.adopt_pgai(name text, vectorizer text default null) returns table (imported bigint, unchanged bigint, skipped bigint, reasons jsonb)
    volatile parallel unsafe rows 1
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'adopt_pgai_wrapper';
create function embedd.adopt_pgedge(name text, source_column text default null) returns table (imported bigint, unchanged bigint, skipped bigint, reasons jsonb)
    volatile parallel unsafe rows 1
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'adopt_pgedge_wrapper';
create function embedd.adopt_vectorize(name text, job text default null) returns table (imported bigint, unchanged bigint, skipped bigint, reasons jsonb)
    volatile parallel unsafe rows 1
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'adopt_vectorize_wrapper';
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
