//! The program `embedd-embedder`, which the background worker "embedd embedder" starts.

fn main() -> std::process::ExitCode {
    embedd_embedder::run()
}
