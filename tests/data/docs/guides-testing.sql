-- What the page on testing takes for granted: the extension.

set client_min_messages = warning;
create extension embedd cascade;
