-- What the page on keys takes for granted: the extension.

set client_min_messages = warning;
create extension embedd cascade;
