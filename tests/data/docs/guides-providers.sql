-- What the page on providers takes for granted: the extension, and the roles that it grants rights to.

set client_min_messages = warning;
create extension embedd cascade;
create role app login;
create role reporting login;
