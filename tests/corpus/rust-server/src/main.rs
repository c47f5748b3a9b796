//! A bulletin board: notices from a file, shown in the reader's time zone.

mod board;
mod trust;

use std::{env, error::Error, io, net::SocketAddr, path::PathBuf};

use tokio::signal::unix::{signal, SignalKind};

fn setting(name: &str, fallback: &str) -> String {
    env::var(name).unwrap_or_else(|_| fallback.to_owned())
}

/// Asks the running server for its front page; what HEALTHCHECK calls.
fn healthy(address: SocketAddr) -> io::Result<bool> {
    use std::io::{Read, Write};
    let mut connection = std::net::TcpStream::connect(address)?;
    connection.write_all(b"GET /healthz HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer.contains(" 200 "))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let port: u16 = setting("PORT", "18143").parse()?;
    let address = SocketAddr::from(([0, 0, 0, 0], port));
    match env::args().nth(1).as_deref() {
        None => {}
        Some("--version") => {
            println!("bulletin {} with {}", env!("CARGO_PKG_VERSION"), openssl::version::version());
            return Ok(());
        }
        Some("--health") => {
            let local = SocketAddr::from(([127, 0, 0, 1], port));
            std::process::exit(if healthy(local)? { 0 } else { 1 });
        }
        Some(other) => return Err(format!("unknown argument {other}").into()),
    }

    tracing_subscriber::fmt().with_ansi(false).init();
    let folder = PathBuf::from(setting("BULLETIN_HOME", "."));
    let app = board::routes(&folder)?;
    let listener = tokio::net::TcpListener::bind(address).await?;
    tracing::info!(%address, "listening");
    let mut terminate = signal(SignalKind::terminate())?;
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            terminate.recv().await;
        })
        .await?;
    Ok(())
}
