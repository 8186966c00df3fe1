-- Questions, then a change and the question that sees it.

SET client_min_messages = warning;
\pset footer off
\set show 'id AS package, round(score::numeric, 3) AS similarity, metadata->>''section'' AS section, (metadata->>''size_kb'')::integer AS kb, left(metadata->>''description'', 52) AS description'

\echo
\echo '== "a game to play against the computer with black and white pieces"'
SELECT :show FROM embedd.query('packages-search', 'a game to play against the computer with black and white pieces', "limit" => 4);

\echo '== "where has all my disk space gone"'
SELECT :show FROM embedd.query('packages-search', 'where has all my disk space gone', "limit" => 4);

\echo '== "look at the planets and the night sky"'
SELECT :show FROM embedd.query('packages-search', 'look at the planets and the night sky', "limit" => 4);

\echo '== "make music", only from the section sound and smaller than 2 MB'
SELECT :show FROM embedd.query('packages-search', 'make music', "limit" => 4,
    filters => '{"section": {"eq": "sound"}, "size_kb": {"lt": 2000}}');

-- Makes a change and waits for its vector. The clock starts right before COMMIT and stops when this session, which
-- looks every half millisecond, sees the condition hold: the time of the COMMIT is in it, and nothing is left out.
CREATE PROCEDURE pg_temp.change(change text, holds text, INOUT ms numeric DEFAULT NULL) LANGUAGE plpgsql AS $$
DECLARE
    began timestamptz;
    seen boolean := false;
BEGIN
    EXECUTE change;
    began := clock_timestamp();
    COMMIT;
    LOOP
        EXECUTE holds INTO seen;
        EXIT WHEN seen;
        IF clock_timestamp() > began + interval '60 seconds' THEN
            RAISE EXCEPTION 'the change was not seen within 60 seconds';
        END IF;
        PERFORM pg_sleep(0.0005);
    END LOOP;
    ms := round(extract(epoch FROM clock_timestamp() - began)::numeric * 1000, 1);
END $$;

-- The vector table is an ordinary table, beside the source.
SELECT oid::regclass AS vectors FROM pg_class WHERE relname ~ '^embedd_vt_[0-9a-f]{8}_packages_search$' AND relkind = 'r'
\gset

\echo '== INSERT of a package that does not exist: "beehive-listener"'
SELECT format('SELECT EXISTS (SELECT FROM %s WHERE pk_value = %L AND embedding IS NOT NULL)', :'vectors', 'beehive-listener') AS holds
\gset
CALL pg_temp.change($$INSERT INTO packages VALUES ('beehive-listener', 'science', 42,
    'hears through a microphone in the hive when the bees are about to swarm')$$, :'holds')
\gset
\echo '   from COMMIT to visible:' :ms 'ms'
\echo
\echo '== "warn me before my bees fly away"'
SELECT :show FROM embedd.query('packages-search', 'warn me before my bees fly away', "limit" => 3);

\echo '== UPDATE: the same package now tends a sourdough'
SELECT format('SELECT EXISTS (SELECT FROM %s WHERE pk_value = %L AND embedded_text LIKE %L)', :'vectors', 'beehive-listener', '%sourdough%') AS holds
\gset
CALL pg_temp.change($$UPDATE packages SET description = 'tells when the sourdough starter in the kitchen wants to be fed'
    WHERE name = 'beehive-listener'$$, :'holds')
\gset
\echo '   from COMMIT to visible:' :ms 'ms'
\echo
\echo '== "when is it time to feed my sourdough"'
SELECT :show FROM embedd.query('packages-search', 'when is it time to feed my sourdough', "limit" => 3);

\echo '== DELETE, and its vector goes'
SELECT format('SELECT NOT EXISTS (SELECT FROM %s WHERE pk_value = %L)', :'vectors', 'beehive-listener') AS holds
\gset
CALL pg_temp.change($$DELETE FROM packages WHERE name = 'beehive-listener'$$, :'holds')
\gset
\echo '   from COMMIT to gone:' :ms 'ms'
