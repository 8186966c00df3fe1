//! Connections: certificates are verified, and one connection is reused for many requests.

use embedd_wire::FailureClass;

use super::*;
use support::fake_provider::{Authority, Dialect, FakeHttp2};

#[test]
fn certificates_are_verified() {
    let (trusted, strange) = (Authority::new(), Authority::new());
    let mut ca_file = None;
    let fixture = Fixture::new(|config| {
        let path = config.local_model_path.with_file_name("ca.pem");
        std::fs::write(&path, trusted.pem()).unwrap();
        config.ca_file = Some(path.clone());
        ca_file = Some(path);
    });
    let good = FakeProvider::builder(Dialect::OpenAi).key(KEY).tls(&trusted).start();
    let request =
        |fake: &FakeProvider| documents(1, &provider(Kind::Openai, fake.base_url()), &["a"]);
    fixture.client().ask(&request(&good)).unwrap();

    let wrong_name = trusted.certificate_for("wrong.example");
    for bad in [
        FakeProvider::builder(Dialect::OpenAi).key(KEY).tls(&strange).start(),
        FakeProvider::builder(Dialect::OpenAi).key(KEY).certificate(&wrong_name).start(),
    ] {
        let failure = fixture.client().ask(&request(&bad)).unwrap_err();
        assert_eq!(failure.class, FailureClass::Unavailable);
        let detail = failure.detail.unwrap();
        assert!(detail.contains("certificate"), "{detail}");
        assert_eq!(bad.request_count(), 0);
    }

    // The error about a file without certificates names the setting.
    std::fs::write(ca_file.unwrap(), "nothing").unwrap();
    fixture.reconfigure(|_| {});
    let failure = loop {
        match fixture.client().ask(&request(&good)) {
            Ok(_) => continue,
            Err(failure) => break failure,
        }
    };
    assert_eq!(failure.class, FailureClass::BadSetting);
    assert!(failure.hint.unwrap().contains("embedd.ca_file"));
}

#[test]
fn one_http2_connection_carries_many_requests_at_once() {
    let authority = Authority::new();
    let fixture = Fixture::new(|config| {
        let path = config.local_model_path.with_file_name("ca.pem");
        std::fs::write(&path, authority.pem()).unwrap();
        config.ca_file = Some(path);
    });
    let fake = FakeHttp2::start(&authority, DIMENSIONS as usize, Duration::from_millis(10));
    let mut provider = provider(Kind::Openai, fake.base_url());
    provider.limits.texts_per_request = Some(1);
    let mut client = fixture.client();
    client.ask(&documents(1, &provider, &["first"])).unwrap();
    client.ask(&documents(2, &provider, &texts(200))).unwrap();
    assert_eq!(fake.connections(), 1);
    assert!(fake.max_concurrent() >= 4, "{}", fake.max_concurrent());
    assert_eq!(fake.request_count(), 201);
}

#[test]
fn connections_are_reused() {
    let fake = fake(Dialect::OpenAi);
    let provider = provider(Kind::Openai, fake.base_url());
    let fixture = Fixture::new(|_| {});
    for id in 0..20 {
        fixture.client().ask(&documents(id, &provider, &[format!("text {id}")])).unwrap();
    }
    assert_eq!(fake.connections(), 1);
    // A connection that the service has closed meanwhile is replaced.
    fake.close_idle_connections();
    fixture.client().ask(&documents(99, &provider, &["again"])).unwrap();
}
