//! What OpenSSL trusts, and digests that only its legacy provider knows.

use std::{
    net::{TcpListener, TcpStream},
    thread,
};

use openssl::{
    asn1::Asn1Time,
    ec::{EcGroup, EcKey},
    error::ErrorStack,
    hash::MessageDigest,
    lib_ctx::LibCtx,
    md::Md,
    md_ctx::MdCtx,
    nid::Nid,
    pkey::{PKey, Private},
    provider::Provider,
    ssl::{SslAcceptor, SslConnector, SslMethod},
    stack::Stack,
    x509::{store::X509StoreBuilder, X509Builder, X509NameBuilder, X509StoreContext, X509},
};
use serde::Serialize;

const ISRG_ROOT_X1: &[u8] = include_bytes!("isrg-root-x1.pem");

#[derive(Serialize)]
pub struct Answer {
    isrg_root_x1_trusted: bool,
    stranger_trusted: bool,
    stranger_refused_in_handshake: bool,
}

/// A certificate for `localhost` that nobody else has signed.
fn stranger() -> Result<(X509, PKey<Private>), ErrorStack> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    let key = PKey::from_ec_key(EcKey::generate(&group)?)?;
    let mut name = X509NameBuilder::new()?;
    name.append_entry_by_nid(Nid::COMMONNAME, "localhost")?;
    let name = name.build();
    let mut certificate = X509Builder::new()?;
    certificate.set_subject_name(&name)?;
    certificate.set_issuer_name(&name)?;
    certificate.set_pubkey(&key)?;
    certificate.set_not_before(Asn1Time::days_from_now(0)?.as_ref())?;
    certificate.set_not_after(Asn1Time::days_from_now(1)?.as_ref())?;
    certificate.sign(&key, MessageDigest::sha256())?;
    Ok((certificate.build(), key))
}

/// Whether the system's certificate authorities vouch for `certificate`.
fn vouched_for(certificate: &X509) -> Result<bool, ErrorStack> {
    let mut store = X509StoreBuilder::new()?;
    store.set_default_paths()?;
    let store = store.build();
    let nobody = Stack::new()?;
    X509StoreContext::new()?.init(&store, certificate, &nobody, |context| context.verify_cert())
}

/// Tries the system's trust store on a known authority, on a stranger, and in a real handshake.
pub fn examine() -> Result<Answer, Box<dyn std::error::Error>> {
    let (certificate, key) = stranger()?;
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    acceptor.set_certificate(&certificate)?;
    acceptor.set_private_key(&key)?;
    let acceptor = acceptor.build();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let server = thread::spawn(move || {
        if let Ok((connection, _)) = listener.accept() {
            let _ = acceptor.accept(connection);
        }
    });
    let connector = SslConnector::builder(SslMethod::tls_client())?.build();
    let refused = connector.connect("localhost", TcpStream::connect(address)?).is_err();
    server.join().map_err(|_| "the TLS server panicked")?;
    Ok(Answer {
        isrg_root_x1_trusted: vouched_for(&X509::from_pem(ISRG_ROOT_X1)?)?,
        stranger_trusted: vouched_for(&certificate)?,
        stranger_refused_in_handshake: refused,
    })
}

/// The digest of `text` in hexadecimal; md4 and its like come from the legacy provider, loaded for the occasion.
pub fn digest(algorithm: &str, text: &[u8]) -> Result<String, ErrorStack> {
    let context = LibCtx::new()?;
    let _default = Provider::load(Some(&context), "default")?;
    let _legacy = Provider::load(Some(&context), "legacy")?;
    let algorithm = Md::fetch(Some(&context), algorithm, None)?;
    let mut digest = MdCtx::new()?;
    digest.digest_init(&algorithm)?;
    digest.digest_update(text)?;
    let mut bytes = vec![0; digest.size()];
    digest.digest_final(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
