# The crates of Cargo.toml beside the sources, and cargo told to take them from there.
mkdir -p .cargo
cargo vendor -q vendor > .cargo/config.toml
