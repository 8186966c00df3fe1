//! Readers of a source with row security: what they see of the vectors follows it, from the moment it is switched on.

use postgres::Client;
use support::Shared;
use support::source::relation;

static SHARED: Shared = Shared::new();

/// The tenants and how many rows a query shows of them, with this tenant as the setting that the policy reads.
const SEEN: &str = "SELECT string_agg(DISTINCT q.metadata->>'tenant', ','), count(*) FROM embedd.query('t', 'text 7', 1000) q";

fn seen(client: &mut Client, tenant: &str) -> (Option<String>, i64) {
    client.batch_execute(&format!("SET app.tenant = '{tenant}'")).unwrap();
    let row = client.query_one(SEEN, &[]).unwrap();
    (row.get(0), row.get(1))
}

/// The policy reads a setting, as with pooled connections: no answer has a row of the tenant before, neither in another
/// statement nor within one, nor where every row is read and all visible keys are kept.
#[test]
fn a_reader_follows_a_setting() {
    let (cluster, db) = (&SHARED.cluster(), "readers");
    let mut client = cluster.database(db);
    let _fake = super::create(cluster, db, &mut client, "'text ' || i");
    let vectors = relation(&mut client, "t");
    client
        .batch_execute(&format!(
            "CREATE ROLE reader; GRANT USAGE ON SCHEMA embedd TO reader; GRANT SELECT ON t, {vectors} TO reader;
             CREATE POLICY own ON t USING (tenant = current_setting('app.tenant'));
             ALTER TABLE t ENABLE ROW LEVEL SECURITY"
        ))
        .unwrap();
    let follows = format!("SELECT relrowsecurity FROM pg_class WHERE oid = '{vectors}'::regclass");
    cluster.wait_for(db, support::LONG, "row security to be followed", &follows);
    client.batch_execute("ANALYZE t; SET ROLE reader").unwrap();
    for tenant in ["tenant7", "tenant8", "nobody", "tenant7"] {
        let expected = match tenant {
            "nobody" => (None, 0),
            tenant => (Some(tenant.to_string()), 40),
        };
        assert_eq!(seen(&mut client, tenant), expected);
    }
    let block = format!(
        "DO $$
         DECLARE tenant text; strangers bigint; own bigint;
         BEGIN
             FOREACH tenant IN ARRAY ARRAY['tenant7', 'tenant8', 'tenant9', 'tenant7'] LOOP
                 PERFORM set_config('app.tenant', tenant, false);
                 SELECT count(*) FILTER (WHERE v.metadata->>'tenant' <> tenant), count(*) INTO strangers, own FROM {vectors} v;
                 IF strangers <> 0 OR own <> 40 THEN
                     RAISE EXCEPTION '% sees % rows, % of others', tenant, own, strangers;
                 END IF;
                 SELECT count(*) FILTER (WHERE q.metadata->>'tenant' <> tenant), count(*) INTO strangers, own
                   FROM embedd.query('t', 'text 7', 1000) q;
                 IF strangers <> 0 OR own <> 40 THEN
                     RAISE EXCEPTION '% is answered with % rows, % of others', tenant, own, strangers;
                 END IF;
             END LOOP;
         END
         $$"
    );
    client.batch_execute(&block).unwrap();
    // Another role in the same session, and rows that it may not see any more.
    client
        .batch_execute("RESET ROLE; CREATE ROLE other; GRANT reader TO other; SET ROLE other")
        .unwrap();
    assert_eq!(seen(&mut client, "tenant9").1, 40);
    client.batch_execute("RESET ROLE; REVOKE SELECT ON t FROM reader; SET ROLE reader").unwrap();
    let error = client.query(SEEN, &[]).unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{error:?}");
}

/// The keys of a reader who sees few rows are read from the source before the search. Policies of the owner on the vectors
/// add rows, or take some away, and the role may change within a transaction.
#[test]
fn a_reader_of_few_rows_gets_them_by_their_keys() {
    let (cluster, db) = (&SHARED.cluster(), "few");
    let mut client = cluster.database(db);
    let _fake = super::create(cluster, db, &mut client, "'text ' || i");
    let vectors = relation(&mut client, "t");
    client
        .batch_execute(
            "CREATE ROLE tenant7; CREATE ROLE tenant8; GRANT USAGE ON SCHEMA embedd TO tenant7, tenant8;
             GRANT SELECT ON t TO tenant7, tenant8;
             CREATE POLICY own ON t USING (tenant = current_user);
             ALTER TABLE t ENABLE ROW LEVEL SECURITY; ANALYZE t",
        )
        .unwrap();
    let follows = format!(
        "SELECT relrowsecurity AND has_table_privilege('tenant8', oid, 'SELECT') FROM pg_class WHERE oid = '{vectors}'::regclass"
    );
    cluster.wait_for(db, support::LONG, "the policy and the privileges", &follows);
    let of = |client: &mut Client, keeps: &str| -> Vec<Vec<(String, f64)>> {
        super::QUESTIONS.map(|question| super::expected(client, question, 60, keeps)).into()
    };
    let tenant = |number: u32| format!("v.metadata->>'tenant' = 'tenant{number}'");
    let right = [7, 8].map(|number| of(&mut client, &tenant(number)));
    let with_others = of(&mut client, &format!("{} OR (v.metadata->>'n')::int <= 9", tenant(7)));
    let with_fewer = of(&mut client, &format!("{} AND (v.metadata->>'n')::int > 4000", tenant(7)));
    let ask = |client: &mut Client, right: &[Vec<(String, f64)>]| {
        for (question, right) in super::QUESTIONS.iter().zip(right) {
            assert_eq!(&super::answers(client, question, 60, ""), right, "{question}");
        }
    };
    let is_by_keys = |client: &mut Client| -> bool {
        let sql = "SELECT embedd.explain_query('t', 'one') ~ 'any \\(array\\(select'";
        client.query_one(sql, &[]).unwrap().get(0)
    };
    client.batch_execute("SET ROLE tenant7").unwrap();
    assert!(is_by_keys(&mut client));
    ask(&mut client, &right[0]);
    client.batch_execute("BEGIN; SET LOCAL ROLE tenant8").unwrap();
    ask(&mut client, &right[1]);
    client.batch_execute("SET LOCAL ROLE tenant7").unwrap();
    ask(&mut client, &right[0]);
    client.batch_execute("COMMIT; RESET ROLE").unwrap();
    // The owner sees all rows, and no sample is drawn for it.
    let reason: String =
        client.query_one("SELECT embedd.explain_query('t', 'one')", &[]).unwrap().get(0);
    assert!(reason.contains("no filter or policy"), "{reason}");

    client
        .batch_execute(&format!(
            "CREATE POLICY more ON {vectors} FOR SELECT USING ((metadata->>'n')::int <= 9); SET ROLE tenant7"
        ))
        .unwrap();
    assert!(!is_by_keys(&mut client));
    ask(&mut client, &with_others);
    client
        .batch_execute(&format!(
            "RESET ROLE; DROP POLICY more ON {vectors};
             CREATE POLICY fewer ON {vectors} AS RESTRICTIVE USING ((metadata->>'n')::int > 4000); SET ROLE tenant7"
        ))
        .unwrap();
    assert!(is_by_keys(&mut client));
    ask(&mut client, &with_fewer);
}

/// What keeps the worker from reading the source keeps no reader: not from losing SELECT, and not from a policy.
#[test]
fn readers_are_followed_although_the_source_cannot_be_synced() {
    let (cluster, db) = (&SHARED.cluster(), "broken");
    let mut client = cluster.database(db);
    let _fake = super::create(cluster, db, &mut client, "'text ' || i");
    let vectors = relation(&mut client, "t");
    client
        .batch_execute("CREATE ROLE stays; CREATE ROLE leaves; GRANT USAGE ON SCHEMA embedd TO stays, leaves; GRANT SELECT ON t TO stays, leaves")
        .unwrap();
    let granted = format!(
        "SELECT has_table_privilege('stays', '{vectors}', 'SELECT') AND has_table_privilege('leaves', '{vectors}', 'SELECT')"
    );
    cluster.wait_for(db, support::LONG, "the privileges", &granted);
    client.batch_execute("ALTER TABLE t DROP COLUMN tenant").unwrap();
    let broken = "SELECT sync_status = 'error' FROM embedd.sync_status('t')";
    cluster.wait_for(db, support::LONG, "the error", broken);
    client.batch_execute("REVOKE SELECT ON t FROM leaves; SET ROLE leaves").unwrap();
    let read = format!("SELECT count(*) FROM {vectors}");
    let error = client.query(&read, &[]).unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{error:?}");
    client
        .batch_execute(
            "RESET ROLE; CREATE POLICY own ON t USING (id <= 5); ALTER TABLE t ENABLE ROW LEVEL SECURITY;
             ALTER TABLE t FORCE ROW LEVEL SECURITY",
        )
        .unwrap();
    let follows = format!("SELECT relrowsecurity FROM pg_class WHERE oid = '{vectors}'::regclass");
    cluster.wait_for(db, support::LONG, "row security to be followed", &follows);
    client.batch_execute("SET ROLE stays").unwrap();
    let seen: i64 = client.query_one(&read, &[]).unwrap().get(0);
    assert!(seen <= 5, "{seen}");
}

/// The text of a key may depend on settings of the reader's session.
#[test]
fn a_reader_with_other_settings_sees_the_same_rows() {
    let (cluster, db) = (&SHARED.cluster(), "settings");
    let mut client = cluster.database(db);
    client
        .batch_execute(
            r#"CREATE ROLE abroad; GRANT USAGE ON SCHEMA embedd TO abroad;
               CREATE TABLE t (id timestamptz PRIMARY KEY, body text, n int);
               INSERT INTO t SELECT '2026-01-01 00:00+00'::timestamptz + i * interval '1 hour', 'text ' || i, i FROM generate_series(1, 3000) i;
               GRANT SELECT ON t TO abroad; CREATE POLICY own ON t USING (n <= 400);
               ALTER TABLE t ENABLE ROW LEVEL SECURITY; ANALYZE t;
               SELECT embedd.create_provider('fast', 'test');
               SELECT embedd.create_vector_table('t', 't', '[{"name": "body", "role": "embedding"}]', embedding_provider => 'fast', start_backfill => true)"#,
        )
        .unwrap();
    support::source::wait_synced(cluster, db, "t");
    let vectors = relation(&mut client, "t");
    let follows = format!(
        "SELECT relrowsecurity AND has_table_privilege('abroad', oid, 'SELECT') FROM pg_class WHERE oid = '{vectors}'::regclass"
    );
    cluster.wait_for(db, support::LONG, "the policy and the privileges", &follows);
    for setting in ["timezone = 'Asia/Kolkata'", "datestyle = 'SQL, DMY'", "datestyle = 'German'"] {
        client.batch_execute(&format!("SET {setting}; SET ROLE abroad")).unwrap();
        for read in [
            format!("SELECT count(*) FROM {vectors}"),
            "SELECT count(*) FROM embedd.query('t', 'text 7', 1000)".to_string(),
        ] {
            assert_eq!(
                client.query_one(&read, &[]).unwrap().get::<_, i64>(0),
                400,
                "{setting}: {read}"
            );
        }
        client.batch_execute("RESET ALL; RESET ROLE").unwrap();
    }
}
