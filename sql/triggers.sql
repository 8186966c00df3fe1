-- The function that the row and TRUNCATE triggers of a source call.

create function embedd.note_change() returns trigger
    language c
    as 'MODULE_PATHNAME', 'embedd_note_change';
comment on function embedd.note_change() is 'Trigger function: notes the keys of changed source rows for a vector table. create_vector_table() creates its triggers';
