//! nginx with nchan. nchan's own streams pass nginx's gzip by (its issue 194), so that with a coding they come through a
//! proxy, in the same worker, that compresses them.

use std::path::Path;

use anyhow::bail;

use crate::args::{Coding, Options};
use crate::peer::nginx::{Site, compressing};
use crate::publish::road::Road;
use crate::server::start::{Started, free_address};

/// Whether it is there.
///
/// # Errors
/// Where it is not.
pub fn installed() -> anyhow::Result<()> {
    if !Path::new(MODULE).exists() {
        bail!("{MODULE} is missing: apt-get install nginx libnginx-mod-nchan");
    }
    Ok(())
}

/// Starts it, with its files in `folder`.
///
/// # Errors
/// Where it does not start.
pub fn start(options: &Options, folder: &str) -> anyhow::Result<Started> {
    let publisher = free_address()?;
    let settings = format!(
        "nchan_max_reserved_memory 512M;
  nchan_message_buffer_length 1000;
  nchan_message_timeout 10m;
  server {{
    listen {publisher};
    keepalive_requests 1000000000;
    location ~ ^/publish/(.+)$ {{ nchan_publisher; nchan_channel_id $1; }}
  }}"
    );
    let (http, location) = match options.coding {
        Coding::Identity => (settings, STREAMS.to_owned()),
        _ => {
            let socket = format!("unix:{folder}/nchan.sock");
            let inner = format!("server {{ listen {socket}; {STREAMS} }}");
            (format!("{settings}\n  {inner}"), compressing(options, &socket))
        }
    };
    let (nginx, public) =
        Site { main: format!("load_module {MODULE};"), http, location }.start(options, folder)?;
    let road = Road::Post { addr: publisher, path: "/publish/{}".to_owned() };
    let path = |channel: &str| format!("/events/{channel}");
    Ok(Started { children: vec![nginx], beside: Vec::new(), public, path, road })
}

const STREAMS: &str = "location ~ ^/events/(.+)$ { nchan_subscriber eventsource; nchan_channel_id $1; \
                       nchan_subscriber_first_message newest; }";

const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";
