-- The function that the row and TRUNCATE triggers of a source call.

create function embedd.note_change() returns trigger
    language c
    as 'MODULE_PATHNAME', 'embedd_note_change';
comment on function embedd.note_change() is 'Notes the keys of changed rows for a vector table; its triggers are made by create_vector_table';
