//! What one client, or all of them together, may take, and what those are told for whom there is no room.
//!
//! Reading order: `admission` counts connections and gives each a [`Seat`], with the help of `clients`, which knows
//! addresses; `places` counts the streams of a route; `patience` says when to come back, `said` what was logged of late; `frames` and `activity` end
//! HTTP/2 connections that do nothing, or nothing good.

mod activity;
mod admission;
mod clients;
mod frames;
mod patience;
mod places;
mod said;

pub use activity::Activity;
pub use admission::{Admission, Seat};
pub use clients::Excess;
pub use frames::Policed;
pub use patience::Patience;
pub use places::{Place, Places};
pub use said::Said;
