//! Real texts for measurements: the packages of the machine's catalogue, and a cluster that embeds them.

use std::process::Command;

use super::Cluster;
use super::binaries::pg_config_says;

/// A cluster with the local model and memory for an index over all packages.
pub fn cluster() -> Cluster {
    let model = pg_config_says("--sharedir").join("embedd/all-MiniLM-L6-v2");
    Cluster::builder()
        .set("embedd.local_model_path", model.to_str().expect("the path is UTF-8"))
        .set("shared_buffers", "1GB")
        .set("maintenance_work_mem", "1GB")
        .start()
}

/// The packages that apt knows: section, and name with description.
pub fn catalogue() -> Vec<(String, String)> {
    let output = Command::new("apt-cache").arg("dumpavail").output().expect("apt-cache runs");
    let all = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut packages = Vec::new();
    for package in all.split("\n\n") {
        let field = |name: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim().to_string())
        };
        let description = field("Description-en:").or_else(|| field("Description:"));
        let (Some(name), Some(text)) = (field("Package:"), description) else { continue };
        let section = field("Section:").unwrap_or_default();
        let section = section.rsplit('/').next().unwrap_or_default().to_string();
        packages.push((section, format!("{name}\n{text}")));
    }
    packages
}
