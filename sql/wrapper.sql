-- The foreign-data wrapper whose servers are embedding providers. It has no handler: there is nothing to select from.

create foreign data wrapper embedd validator embedd.check_provider_options;
comment on foreign data wrapper embedd is
    'Embedding providers: a server of it is a provider, a user mapping of that holds the API key. USAGE lets a role make providers, and so have the server call any address';
