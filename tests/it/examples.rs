//! The configurations in `examples/`, each started for real with its stream read.

mod databases;
mod forms;
mod merged;
mod messaging;
mod multi;
mod schemas;
mod servers;
mod shapes;
mod states;

use std::path::Path;

use crate::support::ssegate::Ssegate;

/// Starts what an example says, with a server and an admin listener of the rig's, and these places in the place of its own.
async fn start(name: &str, places: &[(&str, &str)]) -> Ssegate {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let text = std::fs::read_to_string(folder.join(name)).expect("the example is there");
    // Each section of the rig's own is all of the lines that stand further in as well.
    let mut own = true;
    let kept = text.lines().filter(|line| {
        if !line.starts_with(' ') {
            own = !["server:", "admin:"].iter().any(|section| line.starts_with(section));
        }
        own
    });
    let mut text = kept.map(|line| format!("{line}\n")).collect::<String>();
    for (usual, here) in places {
        assert!(text.contains(usual), "{name} has {usual}");
        text = text.replace(usual, here);
    }
    // It is run from another folder.
    Ssegate::start(text.replace(": schemas/", &format!(": {}/schemas/", folder.display()))).await
}
