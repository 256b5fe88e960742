//! Compiles `control.proto` without a `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=control.proto");
    #[cfg(feature = "wire")]
    {
        let descriptors = protox::compile(["control.proto"], ["."])?;
        tonic_prost_build::configure()
            .btree_map(".")
            .compile_fds(descriptors)?;
    }
    Ok(())
}
