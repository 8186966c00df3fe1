//! Build script: lets the linker leave out what the program never uses, such as dictionaries of other tokenizers.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        // The extension is linked with the opposite, which pgrx needs, and one set of flags serves the whole build.
        println!("cargo:rustc-link-arg-bins=-Wl,--gc-sections");
    }
}
