-- The types of arguments that are taken in whatever type a driver sends them: bigint for a limit, json or text for filters.
--
-- Each function with an argument that is not text has a second form (overloads.sql) whose arguments have these types. PostgreSQL
-- takes it only where the first form does not fit: its first argument is text, which arguments of unknown type prefer. The types have
-- the categories of those in the first form, or PostgreSQL could not choose. So the types that a driver is told for $1, $2 .. stay
-- those of the first form.

create type embedd.argument;
create function embedd.argument_in(cstring) returns embedd.argument
    language internal immutable strict parallel safe as 'textin';
create function embedd.argument_out(embedd.argument) returns cstring
    language internal immutable strict parallel safe as 'textout';
create type embedd.argument (input = embedd.argument_in, output = embedd.argument_out, like = pg_catalog.text, category = 'U');
comment on type embedd.argument is 'Type of an argument that is text or JSON: it accepts what drivers send and keeps it as text';
comment on function embedd.argument_in(cstring) is 'Input of type embedd.argument';
comment on function embedd.argument_out(embedd.argument) is 'Output of type embedd.argument';
create cast (embedd.argument as text) without function;
comment on cast (embedd.argument as text) is 'The text of an argument';
create cast (text as embedd.argument) without function as implicit;
create cast (varchar as embedd.argument) without function as implicit;
create cast (json as embedd.argument) without function as implicit;
create cast (jsonb as embedd.argument) with inout as implicit;
create cast (name as embedd.argument) with inout as implicit;
create cast (smallint as embedd.argument) with inout as implicit;
create cast (integer as embedd.argument) with inout as implicit;
create cast (bigint as embedd.argument) with inout as implicit;
create cast (numeric as embedd.argument) with inout as implicit;
create cast (uuid as embedd.argument) with inout as implicit;
comment on cast (text as embedd.argument) is 'An argument of a function of embedd';
comment on cast (varchar as embedd.argument) is 'An argument of a function of embedd';
comment on cast (json as embedd.argument) is 'An argument of a function of embedd';
comment on cast (jsonb as embedd.argument) is 'An argument of a function of embedd';
comment on cast (name as embedd.argument) is 'An argument of a function of embedd';
comment on cast (smallint as embedd.argument) is 'An argument of a function of embedd';
comment on cast (integer as embedd.argument) is 'An argument of a function of embedd';
comment on cast (bigint as embedd.argument) is 'An argument of a function of embedd';
comment on cast (numeric as embedd.argument) is 'An argument of a function of embedd';
comment on cast (uuid as embedd.argument) is 'An argument of a function of embedd';

create type embedd.number_argument;
create function embedd.number_argument_in(cstring) returns embedd.number_argument
    language internal immutable strict parallel safe as 'textin';
create function embedd.number_argument_out(embedd.number_argument) returns cstring
    language internal immutable strict parallel safe as 'textout';
create type embedd.number_argument (input = embedd.number_argument_in, output = embedd.number_argument_out, like = pg_catalog.text, category = 'N');
comment on type embedd.number_argument is 'Type of an argument that is a number: it accepts what drivers send and keeps it as text';
comment on function embedd.number_argument_in(cstring) is 'Input of type embedd.number_argument';
comment on function embedd.number_argument_out(embedd.number_argument) is 'Output of type embedd.number_argument';
create cast (embedd.number_argument as text) without function;
comment on cast (embedd.number_argument as text) is 'The text of an argument';
create cast (text as embedd.number_argument) without function as implicit;
create cast (varchar as embedd.number_argument) without function as implicit;
create cast (smallint as embedd.number_argument) with inout as implicit;
create cast (integer as embedd.number_argument) with inout as implicit;
create cast (bigint as embedd.number_argument) with inout as implicit;
create cast (numeric as embedd.number_argument) with inout as implicit;
create cast (real as embedd.number_argument) with inout as implicit;
create cast (double precision as embedd.number_argument) with inout as implicit;
comment on cast (text as embedd.number_argument) is 'An argument of a function of embedd';
comment on cast (varchar as embedd.number_argument) is 'An argument of a function of embedd';
comment on cast (smallint as embedd.number_argument) is 'An argument of a function of embedd';
comment on cast (integer as embedd.number_argument) is 'An argument of a function of embedd';
comment on cast (bigint as embedd.number_argument) is 'An argument of a function of embedd';
comment on cast (numeric as embedd.number_argument) is 'An argument of a function of embedd';
comment on cast (real as embedd.number_argument) is 'An argument of a function of embedd';
comment on cast (double precision as embedd.number_argument) is 'An argument of a function of embedd';

create type embedd.interval_argument;
create function embedd.interval_argument_in(cstring) returns embedd.interval_argument
    language internal immutable strict parallel safe as 'textin';
create function embedd.interval_argument_out(embedd.interval_argument) returns cstring
    language internal immutable strict parallel safe as 'textout';
create type embedd.interval_argument (input = embedd.interval_argument_in, output = embedd.interval_argument_out, like = pg_catalog.text, category = 'T');
comment on type embedd.interval_argument is 'Type of an argument that is an interval: it accepts what drivers send and keeps it as text';
comment on function embedd.interval_argument_in(cstring) is 'Input of type embedd.interval_argument';
comment on function embedd.interval_argument_out(embedd.interval_argument) is 'Output of type embedd.interval_argument';
create cast (embedd.interval_argument as text) without function;
comment on cast (embedd.interval_argument as text) is 'The text of an argument';
create cast (text as embedd.interval_argument) without function as implicit;
create cast (varchar as embedd.interval_argument) without function as implicit;
create cast (interval as embedd.interval_argument) with inout as implicit;
create cast (smallint as embedd.interval_argument) with inout as implicit;
create cast (integer as embedd.interval_argument) with inout as implicit;
create cast (bigint as embedd.interval_argument) with inout as implicit;
create cast (numeric as embedd.interval_argument) with inout as implicit;
create cast (real as embedd.interval_argument) with inout as implicit;
create cast (double precision as embedd.interval_argument) with inout as implicit;
comment on cast (text as embedd.interval_argument) is 'An argument of a function of embedd';
comment on cast (varchar as embedd.interval_argument) is 'An argument of a function of embedd';
comment on cast (interval as embedd.interval_argument) is 'An argument of a function of embedd';
comment on cast (smallint as embedd.interval_argument) is 'An argument of a function of embedd';
comment on cast (integer as embedd.interval_argument) is 'An argument of a function of embedd';
comment on cast (bigint as embedd.interval_argument) is 'An argument of a function of embedd';
comment on cast (numeric as embedd.interval_argument) is 'An argument of a function of embedd';
comment on cast (real as embedd.interval_argument) is 'An argument of a function of embedd';
comment on cast (double precision as embedd.interval_argument) is 'An argument of a function of embedd';

create type embedd.relation_argument;
create function embedd.relation_argument_in(cstring) returns embedd.relation_argument
    language internal immutable strict parallel safe as 'textin';
create function embedd.relation_argument_out(embedd.relation_argument) returns cstring
    language internal immutable strict parallel safe as 'textout';
create type embedd.relation_argument (input = embedd.relation_argument_in, output = embedd.relation_argument_out, like = pg_catalog.text, category = 'N');
comment on type embedd.relation_argument is 'Type of an argument that is a relation: it accepts what drivers send and keeps it as text';
comment on function embedd.relation_argument_in(cstring) is 'Input of type embedd.relation_argument';
comment on function embedd.relation_argument_out(embedd.relation_argument) is 'Output of type embedd.relation_argument';
create cast (embedd.relation_argument as text) without function;
comment on cast (embedd.relation_argument as text) is 'The text of an argument';
create cast (text as embedd.relation_argument) without function as implicit;
create cast (varchar as embedd.relation_argument) without function as implicit;
create cast (name as embedd.relation_argument) with inout as implicit;
create cast (regclass as embedd.relation_argument) with inout as implicit;
comment on cast (text as embedd.relation_argument) is 'An argument of a function of embedd';
comment on cast (varchar as embedd.relation_argument) is 'An argument of a function of embedd';
comment on cast (name as embedd.relation_argument) is 'An argument of a function of embedd';
comment on cast (regclass as embedd.relation_argument) is 'An argument of a function of embedd';

-- The name, since the text of a number is no name.
create function embedd.relation_argument(oid) returns embedd.relation_argument
    language sql stable strict parallel safe
    return $1::regclass::text::embedd.relation_argument;
comment on function embedd.relation_argument(oid) is 'Converts the oid of a relation to its name';
create cast (oid as embedd.relation_argument) with function embedd.relation_argument(oid) as implicit;
comment on cast (oid as embedd.relation_argument) is 'An argument of a function of embedd';

-- Names of columns in an array are what a JSON array of them is.
create function embedd.argument(text[]) returns embedd.argument
    language sql immutable strict parallel safe
    return pg_catalog.array_to_json($1)::text::embedd.argument;
comment on function embedd.argument(text[]) is 'Converts an array of texts to a JSON array';
create cast (text[] as embedd.argument) with function embedd.argument(text[]) as implicit;
comment on cast (text[] as embedd.argument) is 'An argument of a function of embedd';
