-- What the page on roles takes for granted: a role that only asks.

create role reader login;
