-- The foreign-data wrapper whose servers are embedding providers. It has no handler: there is nothing to select from.

create foreign data wrapper embedd validator embedd.check_provider_options;
comment on foreign data wrapper embedd is
    'Embedding providers: a foreign server of this wrapper is a provider, and a user mapping holds its API key. USAGE lets a role create providers, and so make the server call any address';
