//! What sockets hold in the kernel, of the whole machine: there is no telling whose it is, so clients on the same machine
//! are in it, whose sockets, files and entries of an epoll are of the same kinds and numbers as the server's.

use std::fs;

use anyhow::Context as _;

/// Memory of the kernel, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    /// Its objects: sockets, inodes, files, entries of epolls.
    pub objects: u64,
    /// What sockets have queued, by /proc/net/sockstat.
    pub buffers: u64,
}

impl Kernel {
    /// As it is now.
    ///
    /// # Errors
    /// Where /proc does not tell.
    pub fn now() -> anyhow::Result<Self> {
        // To root alone /proc tells what is in use; others see the pages that hold it.
        let objects =
            fs::read_to_string("/proc/slabinfo").map_or_else(|_| pages(), |text| Ok(in_use(&text)))?;
        let text = fs::read_to_string("/proc/net/sockstat")?;
        let tcp = text.lines().find(|line| line.starts_with("TCP:"));
        let pages =
            tcp.and_then(|line| line.split_once(" mem ")?.1.split_whitespace().next()?.parse::<u64>().ok());
        let buffers = pages.context("no memory of TCP in sockstat")? * rustix::param::page_size() as u64;
        Ok(Self { objects, buffers })
    }
}

fn pages() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Slab:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.context("no Slab in meminfo")? * 1024)
}

/// Of lines such as `filp 750 924 192 21 1 : …`: a name, objects in use, all, and the size of one.
fn in_use(slabinfo: &str) -> u64 {
    let bytes = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let active = fields.next()?.parse::<u64>().ok()?;
        Some(active * fields.nth(1)?.parse::<u64>().ok()?)
    };
    slabinfo.lines().filter_map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_is_counted() {
        let text = "slabinfo - version: 2.1\n# name <active_objs> <num_objs> <objsize>\nfilp 750 924 192 21 1 : tunables\nTCP 2 13 2368 13 8 :";
        assert_eq!(in_use(text), 750 * 192 + 2 * 2368);
    }
}
