//! Build script: tells the linker what to keep. The library keeps all, the library's test binary only what it calls.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        // Code that calls the server has symbols that only a server has; no pure test reaches it.
        println!("cargo:rustc-link-arg=-Wl,--gc-sections");
        // pgrx keeps the descriptions of SQL functions in a section that nothing refers to.
        println!("cargo:rustc-link-arg-cdylib=-Wl,--no-gc-sections");
    }
}
