//! scaffold
#[derive(Debug, clap::Args)]
pub(super) struct Options {}
pub(super) fn run(_options: &Options) -> anyhow::Result<()> {
    anyhow::bail!("not yet")
}
