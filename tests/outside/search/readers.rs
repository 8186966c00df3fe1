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
