-- What the page on sizing takes for granted: the extension.

set client_min_messages = warning;
create extension embedd cascade;
