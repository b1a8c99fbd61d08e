//! Clients of whom each wants the events of one colour, or all of them: the filter of their route, and what they bring.

use ssegate::hub::Wish;
use ssegate::shape::{ClientFilter, Fact, Shape};

/// What clients want: the first of them all there is.
pub const WANTS: [&str; 4] = ["", "red", "green", "blue"];

/// Whether what is of this colour, as it stands in [`WANTS`], is for a client that wants that.
pub fn is_for(wants: usize, colour: usize) -> bool {
    wants == 0 || wants == colour
}

/// A shape whose filter asks whether this expression is what a client wants.
pub fn shape(colour: &str) -> Shape {
    let from = "{ upstream: k, topic: t }";
    let route = format!(r#"{{ path: /x, from: {from}, filter: 'query.c == "" || {colour} == query.c' }}"#);
    let upstreams = "{ k: { kafka: { brokers: 'h:1' } } }";
    let text = format!("server: {{ tls: none }}\nupstreams: {upstreams}\nroutes: [ {route} ]\n");
    let config = ssegate::config::parse("c.yaml", &text, &|_| None);
    let config = config.unwrap_or_else(|problems| panic!("{problems}"));
    Shape { filter: config.routes[0].filter.clone(), ..crate::record::shape() }
}

/// What a client brings that comes with this id to a route of this shape, and wants that.
pub fn wish(shape: &Shape, id: Option<String>, wants: usize) -> Wish {
    let filter = ClientFilter::bind(shape.filter.as_ref().unwrap(), |_| Some(Fact::text(WANTS[wants])));
    Wish { id, since: None, filter: filter.unwrap() }
}
