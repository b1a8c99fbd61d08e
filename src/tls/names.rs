//! Which certificate is for which name (RFC 6066 section 3, RFC 9525 section 6.3): pure.

use std::collections::HashMap;

/// From names to the places of the certificates that are for them, in order.
#[derive(Debug, Default)]
pub struct Names {
    exact: HashMap<String, Vec<usize>>,
    /// By what follows the star and its dot.
    wildcards: HashMap<String, Vec<usize>>,
}

impl Names {
    /// Adds a name of the certificate at `place`.
    pub fn add(&mut self, name: &str, place: usize) {
        let (names, name) = match name.strip_prefix("*.") {
            Some(parent) => (&mut self.wildcards, parent),
            None => (&mut self.exact, name),
        };
        let places = names.entry(name.to_ascii_lowercase()).or_default();
        if !places.contains(&place) {
            places.push(place);
        }
    }

    /// The certificates for the host `name`: those of just this name, or else those with a star for its first label. A
    /// star stands for one label.
    pub fn find(&self, name: &str) -> &[usize] {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let wildcard = || self.wildcards.get(name.split_once('.')?.1);
        self.exact.get(&name).or_else(wildcard).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_wildcards() {
        let mut names = Names::default();
        for (place, name) in
            ["a.example", "*.a.example", "b.a.example", "A.example", "*.com"].iter().enumerate()
        {
            names.add(name, place);
        }
        for (name, places) in [
            ("a.example", &[0, 3][..]),
            ("A.Example.", &[0, 3]),
            ("b.a.example", &[2]),
            ("x.a.example", &[1]),
            ("y.x.a.example", &[]),
            (".a.example", &[1]),
            ("example.com", &[4]),
            ("com", &[]),
            ("*.a.example", &[1]),
            ("", &[]),
        ] {
            assert_eq!(names.find(name), places, "{name}");
        }
    }
}
