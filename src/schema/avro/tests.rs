//! Reading by schemas of every type, and what is made of payloads that are not sound. What is read here was written by
//! hand, by the specification; that other implementations write the same the tests with real producers show.

use super::*;

fn decoded(schema: &str, payload: &[u8]) -> Result<String, Undecoded> {
    let avro = Avro::parse(schema, &[]).unwrap();
    let mut out = Json::new(10_000);
    avro.write(payload, &mut out)?;
    Ok(String::from_utf8(out.into_text()).unwrap())
}

#[test]
fn every_type() {
    let fixed = |size: usize, logical: &str| {
        format!(
            r#"{{"type":"fixed","name":"f","size":{size},"logicalType":"{logical}","precision":9,"scale":2}}"#
        )
    };
    let logical = |of: &str, logical: &str| format!(r#"{{"type":"{of}","logicalType":"{logical}"}}"#);
    let decimal = r#"{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}"#;
    let record = r#"{"type":"record","name":"r","fields":[{"name":"a","type":"int"},{"name":"b","type":["null","string"]}]}"#;
    for (schema, payload, text) in [
        (r#""null""#, &b""[..], "null"),
        (r#""boolean""#, b"\x01", "true"),
        (r#""int""#, b"\x01", "-1"),
        (r#""long""#, b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", "9223372036854775807"),
        (r#""float""#, b"\xcd\xcc\x8c\x3f", "1.1"),
        (r#""double""#, b"\0\0\0\0\0\0\xf0\xff", "\"-Infinity\""),
        (r#""bytes""#, b"\x04\xff\0", "\"/wA=\""),
        (r#""string""#, b"\x04\"\n", r#""\"\n""#),
        (r#"{"type":"enum","name":"e","symbols":["A","B"]}"#, b"\x02", "\"B\""),
        (r#"{"type":"fixed","name":"f","size":2}"#, b"\xff\0", "\"/wA=\""),
        (r#"{"type":"array","items":"int"}"#, b"\x04\x02\x04\x01\x02\x06\0", "[1,2,3]"),
        (r#"{"type":"map","values":"int"}"#, b"\x02\x02a\x02\x02\x02b\x04\0", r#"{"a":1,"b":2}"#),
        (record, b"\x02\x02\x02x", r#"{"a":1,"b":"x"}"#),
        (record, b"\x02\0", r#"{"a":1,"b":null}"#),
        (decimal, b"\x02\x07", "\"0.07\""),
        (decimal, b"\x04\xfb\x2e", "\"-12.34\""),
        (decimal, b"\0", "\"0.00\""),
        (&fixed(3, "decimal"), b"\0\x04\xd2", "\"12.34\""),
        (&logical("bytes", "big-decimal"), b"\x08\x04\x04\xd2\x02", "\"123.4\""),
        (&logical("string", "uuid"), b"\x02x", "\"x\""),
        (&fixed(16, "uuid"), b"0123456789abcdef", "\"30313233-3435-3637-3839-616263646566\""),
        (&logical("int", "date"), b"\x02", "\"1970-01-02\""),
        (&logical("int", "time-millis"), b"\x02", "\"00:00:00.001\""),
        (&logical("long", "time-micros"), b"\x02", "\"00:00:00.000001\""),
        (&logical("long", "timestamp-millis"), b"\x01", "\"1969-12-31T23:59:59.999Z\""),
        (&logical("long", "timestamp-micros"), b"\x02", "\"1970-01-01T00:00:00.000001Z\""),
        (&logical("long", "timestamp-nanos"), b"\x02", "\"1970-01-01T00:00:00.000000001Z\""),
        (&logical("long", "local-timestamp-millis"), b"\0", "\"1970-01-01T00:00:00\""),
        (&fixed(12, "duration"), b"\x01\0\0\0\x02\0\0\0\x03\0\0\0", r#"{"months":1,"days":2,"millis":3}"#),
        // A logical type that nobody knows is the type that it is of.
        (&logical("string", "temperature"), b"\x02x", "\"x\""),
    ] {
        assert_eq!(decoded(schema, payload).as_deref(), Ok(text), "{schema} {payload:?}");
    }
}

#[test]
fn names_are_looked_up_wherever_they_are_defined() {
    let node = r#"{"type":"record","name":"Node","namespace":"a.b","fields":[
        {"name":"value","type":{"type":"enum","name":"Kind","symbols":["X"]}},
        {"name":"same","type":"Kind"},
        {"name":"next","type":["null","a.b.Node"]}]}"#;
    assert_eq!(
        decoded(node, b"\0\0\x02\0\0\0").as_deref(),
        Ok(r#"{"value":"X","same":"X","next":{"value":"X","same":"X","next":null}}"#)
    );
    let others = [
        r#"{"type":"record","name":"Item","namespace":"shop","fields":[{"name":"price","type":"Money"}]}"#,
        r#"{"type":"fixed","name":"Money","namespace":"shop","size":1,"logicalType":"decimal","precision":2,"scale":1}"#,
    ];
    let order = r#"["null",{"type":"record","name":"Order","namespace":"shop","fields":[
        {"name":"first","type":"Item"},{"name":"rest","type":{"type":"array","items":"shop.Item"}},
        {"name":"total","type":"Money"}]}]"#;
    let avro = Avro::parse(order, &others.map(str::to_owned)).unwrap();
    let mut out = Json::new(1_000);
    avro.write(b"\x02\x0c\x02\x0d\0\x19", &mut out).unwrap();
    let text = String::from_utf8(out.into_text()).unwrap();
    assert_eq!(text, r#"{"first":{"price":"1.2"},"rest":[{"price":"1.3"}],"total":"2.5"}"#);
    assert!(Avro::parse(order, &[]).is_err());
}

#[test]
fn what_is_not_sound_has_no_text() {
    let list = |of: &str| format!(r#"{{"type":"array","items":{of}}}"#);
    let decimal = r#"{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}"#;
    let time = r#"{"type":"int","logicalType":"time-millis"}"#;
    let big = r#"{"type":"bytes","logicalType":"big-decimal"}"#;
    let large = [&b"\xd2\x0f"[..], &[1; 1_001]].concat();
    for (schema, payload) in [
        (r#""null""#, &b"x"[..]),
        (r#""boolean""#, b""),
        (r#""boolean""#, b"\x02"),
        (r#""int""#, b"\xfe\xff\xff\xff\x1f"),
        (r#""long""#, b"\x80"),
        (r#""string""#, b"\x04a"),
        (r#""string""#, b"\x01"),
        (r#""string""#, b"\x02\xff"),
        (r#""bytes""#, b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01x"),
        (r#"["null","int"]"#, b"\x04"),
        (r#"["null","int"]"#, b"\x01"),
        (r#"{"type":"enum","name":"e","symbols":["A"]}"#, b"\x02"),
        (&list(r#""int""#), b"\x02\x02"),
        (&list(r#""int""#), b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01\x02"),
        (decimal, &large),
        (big, b"\x0c\x02\x01\xfe\xff\xff\x0f"),
        (time, b"\x80\xf0\xb2\x52"),
    ] {
        assert_eq!(decoded(schema, payload), Err(Undecoded::Malformed), "{schema} {payload:?}");
    }
    let most = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00";
    for items in [r#""null""#, r#"{"type":"record","name":"r","fields":[]}"#] {
        assert_eq!(decoded(&list(items), most), Err(Undecoded::TooLarge), "items of no bytes");
    }
    let nested = r#"{"type":"record","name":"N","fields":[{"name":"n","type":["null","N"]}]}"#;
    assert!(decoded(nested, &[&[2; 40][..], &[0]].concat()).is_ok());
    assert_eq!(decoded(nested, &[2; 100_000]), Err(Undecoded::Malformed));
    let endless = r#"{"type":"record","name":"N","fields":[{"name":"n","type":"N"}]}"#;
    assert_eq!(decoded(endless, b""), Err(Undecoded::Malformed));
}
