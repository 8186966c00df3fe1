//! The way to a service: proxies of the environment, certificates of the administrator's own authority.

use super::{KEY, MODEL, create_provider, create_source};
use support::Cluster;
use support::fake_provider::{Authority, Dialect, FakeProvider, FakeProxy};

#[test]
fn https_goes_through_the_proxy_of_the_environment_and_is_verified_by_our_authority() {
    let authority = Authority::new();
    let proxy = FakeProxy::start();
    let fake = FakeProvider::builder(Dialect::OpenAi)
        .key(KEY)
        .dimensions(8)
        .model(MODEL)
        .tls(&authority)
        .start();
    let cluster = Cluster::builder()
        .environment("HTTPS_PROXY", &proxy.url())
        .environment("EMBEDD_TEST_KEY", KEY)
        .file("ca.pem", &authority.pem(), "embedd.ca_file")
        .start();
    let mut client = cluster.database("proxied");
    create_provider(&mut client, "fake", Dialect::OpenAi, &fake.base_url(), "{}");
    // The key of the environment the server was started with.
    client
        .execute("SELECT embedd.update_provider('fake', api_key => 'env:EMBEDD_TEST_KEY')", &[])
        .unwrap();
    create_source(&mut client, "t", "fake", 10);
    cluster.assert_synced("proxied", "t");
    assert!(!proxy.hosts().is_empty());
    // The proxy passes on what it cannot read.
    assert!(proxy.requests().iter().all(|request| request.method == "CONNECT" && !request.saw_key));
}
