//! Servers under load: started for one run with their files in a [`scratch`] folder, as [`child`] processes that end
//! with it, and watched by [`usage`].

pub mod cert;
pub mod child;
pub mod floor;
pub mod kernel;
pub mod scratch;
pub mod sockets;
pub mod ssegate;
pub mod start;
pub mod target;
pub mod usage;
