//! The binary: everything is in the library, so that tests and documentation reach it.

fn main() -> std::process::ExitCode {
    ssegate::cli::run()
}
