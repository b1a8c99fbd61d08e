//! From a request for an application to its answer: who is let in, as to a stream. What cannot be told yet is refused
//! here, since there is no stream to hold.

use std::borrow::Cow;
use std::sync::Arc;

use http::uri::Authority;
use http::{Request, Response};
use hyper::body::Incoming;

use super::super::answer::{Visit, with_cookie};
use super::super::body::Body;
use super::super::guard;
use super::super::problem::Problem;
use super::super::router::Found;
use super::App;
use super::provenance::Provenance;
use crate::auth::Verdict;

impl Visit {
    /// What the application answers, if it is asked. Its requests are for `authority`.
    pub(in super::super) async fn pass_on(
        &self,
        app: &App,
        authority: &Authority,
        mut request: Request<Incoming>,
    ) -> Response<Body> {
        if self.goes_around(app, authority.host(), request.uri().path()) {
            return Problem::BadRequest(
                "Applications may read this path as another one; write it without `..`, `//` and what needs no encoding.",
            )
            .response();
        }
        let asked = self.question(app.door(), &request);
        let admitted = match self.admit(app.door(), asked.as_ref()).await {
            Verdict::Allowed(admitted) => admitted,
            Verdict::Refused(why) => return guard::refused(why),
            Verdict::Undecided(admitted) => return with_cookie(Problem::Undecided.response(), admitted),
        };
        let client = self.client(&request).addr;
        let (secure, authority) = (self.is_secure(&request), authority.as_str().to_owned());
        let from = Provenance { client, secure, authority };
        let end = Box::pin(guard::end_of(Arc::clone(&self.edge), admitted.grant.clone()));
        if let Some(trace) = &self.trace {
            trace.tell(request.headers_mut());
        }
        let response = app.answer(request, &from, self.handover.as_ref(), end).await;
        app.metrics().answered(response.status().as_u16());
        with_cookie(response, admitted)
    }

    /// Whether an application could take the path for one to which not everybody is let in, or not in this way. It gets
    /// the path as it came, and nobody knows how it reads it.
    fn goes_around(&self, app: &App, host: &str, path: &str) -> bool {
        let Cow::Owned(meant) = as_read(path) else { return false };
        let guards = |found: &Found<'_>| found.door().is_guarded();
        match self.site.router.find(host, &meant) {
            Some(Found::App(other)) if std::ptr::eq(&**other, app) => app.door().is_guarded() && climbs(path),
            other => app.door().is_guarded() || other.as_ref().is_some_and(guards),
        }
    }
}

/// The path as the laxest of applications reads it: decoded, a backslash taken for a slash, without parameters of
/// segments (RFC 3986 section 3.3), without empty segments, and with `.` and `..` resolved (section 5.2.4).
fn as_read(path: &str) -> Cow<'_, str> {
    if !path.contains(['%', ';', '\\']) && !path.contains("//") && !path.contains("/.") {
        return Cow::Borrowed(path);
    }
    let decoded = decoded(path);
    let mut read: Vec<&str> = Vec::new();
    for segment in segments(&decoded) {
        match segment {
            "" | "." => {}
            ".." => drop(read.pop()),
            segment => read.push(segment),
        }
    }
    let end = if decoded.ends_with(['/', '\\']) && !read.is_empty() { "/" } else { "" };
    Cow::Owned(format!("/{}{end}", read.join("/")))
}

fn climbs(path: &str) -> bool {
    segments(&decoded(path)).any(|segment| matches!(segment, "." | ".."))
}

fn decoded(path: &str) -> Cow<'_, str> {
    percent_encoding::percent_decode_str(path).decode_utf8_lossy()
}

fn segments(decoded: &str) -> impl Iterator<Item = &str> {
    decoded.split(['/', '\\']).map(|segment| segment.split_once(';').map_or(segment, |(name, _)| name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_as_the_laxest_reads_it() {
        for plain in ["/", "/a/b", "/a/", "/a.b/c", "/a~b"] {
            assert!(matches!(as_read(plain), Cow::Borrowed(_)), "{plain}");
        }
        for (path, read) in [
            ("/%61dmin", "/admin"),
            ("//admin", "/admin"),
            ("/x/../admin", "/admin"),
            ("/x/%2e%2E/admin/", "/admin/"),
            ("/x%2f..%5cadmin", "/admin"),
            ("/./admin;v=1/x;y", "/admin/x"),
            ("/..;/admin", "/admin"),
            ("/../../a", "/a"),
            ("/%ff", "/\u{fffd}"),
            ("/%252e", "/%2e"),
            ("/a/..", "/"),
        ] {
            assert_eq!(as_read(path), read, "{path}");
        }
        assert!(climbs("/a/%2e%2e;x/b") && !climbs("/a..b/.c"));
    }
}
