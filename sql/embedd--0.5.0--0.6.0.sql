-- From 0.5.0 to 0.6.0: a function that names what is wrong, with the statement that helps.

create function embedd.doctor(call_providers boolean default false) returns table (
    "check" text,
    state text,
    object text,
    meaning text,
    remedy text
)
    volatile parallel unsafe rows 40
    set search_path to pg_catalog, pg_temp
    language c
    as 'MODULE_PATHNAME', 'findings_wrapper';
comment on function embedd.doctor(boolean) is
    'What is wrong with embedd in this database and on its server, problems first: check, state (problem, warning or ok), the object, what it means, and the statement that helps. A role sees what concerns the vector tables and providers it may see, members of pg_monitor everything; call_providers makes one real call to each provider that the role may use';
