-- What the page on first use takes for granted: the role of an application.

create role app login;
