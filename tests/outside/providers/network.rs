//! The network path to a service: proxies of the environment, certificates of a private authority.

use super::{KEY, MODEL, create_provider, create_source};
use support::Cluster;
use support::fake_provider::{Authority, Dialect, FakeProvider, FakeProxy};

#[test]
fn https_uses_the_environments_proxy_and_verifies_with_ca_file() {
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
    // The key comes from the environment of the server.
    client
        .execute("SELECT embedd.update_provider('fake', api_key => 'env:EMBEDD_TEST_KEY')", &[])
        .unwrap();
    create_source(&mut client, "t", "fake", 10);
    cluster.assert_synced("proxied", "t");
    assert!(!proxy.hosts().is_empty());
    // The proxy forwards encrypted data.
    assert!(proxy.requests().iter().all(|request| request.method == "CONNECT" && !request.saw_key));
}
