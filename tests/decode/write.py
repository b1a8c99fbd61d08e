"""Writes payloads as other programs do, for tests of what ssegate reads.

    write.py SCENARIO [REGISTRY-URL SUBJECT]

prints a JSON array of records, {"payload": base64, "headers": {name: base64}}. With a registry the payloads are written by
Confluent's own serializers, which register their schemas; without one by fastavro, protobuf and msgpack.
"""

import base64
import datetime
import decimal
import importlib
import io
import json
import pathlib
import sys
import tempfile
import uuid

UTC = datetime.timezone.utc
SCHEMAS = pathlib.Path(__file__).parents[2] / "examples" / "schemas"

ORDER = {
    "id": 9007199254740993,
    "total": decimal.Decimal("1234.50"),
    "at": datetime.datetime(2026, 1, 31, 12, 0, 0, 250000, tzinfo=UTC),
    "note": 'says "hello"\n',
    "items": ["pen", "ink"],
}

# Every type of Avro, and every logical type that fastavro writes.
EVERYTHING_SCHEMA = {
    "type": "record",
    "name": "Everything",
    "namespace": "a.b",
    "fields": [
        {"name": "nothing", "type": "null"},
        {"name": "yes", "type": "boolean"},
        {"name": "small", "type": "int"},
        {"name": "large", "type": "long"},
        {"name": "single", "type": "float"},
        {"name": "double", "type": "double"},
        {"name": "nan", "type": "double"},
        {"name": "bytes", "type": "bytes"},
        {"name": "text", "type": "string"},
        {"name": "fixed", "type": {"type": "fixed", "name": "Four", "size": 4}},
        {"name": "again", "type": "Four"},
        {"name": "suit", "type": {"type": "enum", "name": "Suit", "symbols": ["HEARTS", "CLUBS"]}},
        {"name": "list", "type": {"type": "array", "items": ["null", "int", "string"]}},
        {"name": "map", "type": {"type": "map", "values": {"type": "array", "items": "long"}}},
        {"name": "money", "type": {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 4}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "millis", "type": {"type": "int", "logicalType": "time-millis"}},
        {"name": "micros", "type": {"type": "long", "logicalType": "time-micros"}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "local", "type": {"type": "long", "logicalType": "local-timestamp-millis"}},
        {"name": "uuid", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "inner", "type": ["null", "Everything"]},
    ],
}
INNERMOST = {
    "nothing": None,
    "yes": False,
    "small": -(2**31),
    "large": 2**63 - 1,
    "single": 1.5,
    "double": -0.1,
    "nan": float("nan"),
    "bytes": b"\x00\xff",
    "text": "é\u2028",
    "fixed": b"\x01\x02\x03\x04",
    "again": b"\xff\xff\xff\xff",
    "suit": "CLUBS",
    "list": [None, 7, "seven"],
    "map": {"a": [1, -1], "b": []},
    "money": decimal.Decimal("-12345678901234567890.0001"),
    "day": datetime.date(1969, 12, 31),
    "millis": datetime.time(23, 59, 59, 999000),
    "micros": datetime.time(0, 0, 0, 1),
    "at": datetime.datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    "local": datetime.datetime(2026, 2, 28, 1, 2, 3),
    "uuid": uuid.UUID(int=1),
    "inner": None,
}
EVERYTHING = INNERMOST | {"small": 1, "list": [], "map": {}, "inner": INNERMOST}


def plain_avro(registry, subject):
    import fastavro

    schema = fastavro.parse_schema(json.loads((SCHEMAS / "order.avsc").read_text()))
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, ORDER)
    return [record(out.getvalue())]


def everything(registry, subject):
    return [record(avro_serializer(registry, json.dumps(EVERYTHING_SCHEMA))(EVERYTHING, context(subject)))]


def referring_avro(registry, subject):
    from confluent_kafka.schema_registry import Schema, SchemaReference

    item = {"type": "record", "name": "Item", "namespace": "shop", "fields": [{"name": "name", "type": "string"}]}
    client = registry_client(registry)
    client.register_schema(subject + "-item", Schema(json.dumps(item), "AVRO"))
    order = {
        "type": "record",
        "name": "Order",
        "namespace": "shop",
        "fields": [{"name": "first", "type": "Item"}, {"name": "others", "type": {"type": "map", "values": "shop.Item"}}],
    }
    schema = Schema(json.dumps(order), "AVRO", [SchemaReference("shop.Item", subject + "-item", 1)])
    value = {"first": {"name": "pen"}, "others": {"b": {"name": "ink"}}}
    return [record(avro_serializer(registry, schema)(value, context(subject)))]


def order_message(module):
    order = module.Order(id=9007199254740993, note="")
    order.at.FromDatetime(datetime.datetime(2026, 1, 31, 12, 0, 0, 250000, tzinfo=UTC))
    order.items.add(name="pen", count=2)
    order.items.add(name="ink")
    return order


def plain_protobuf(registry, subject):
    return [record(order_message(compiled("order")).SerializeToString())]


def protobuf(registry, subject):
    from confluent_kafka.schema_registry.protobuf import ProtobufSerializer

    module, client = compiled("order"), registry_client(registry)
    cancelled = module.Order.Cancelled(id=7, reasons={"why": "late"})
    records = []
    for message in [order_message(module), cancelled]:
        serializer = ProtobufSerializer(type(message), client, {"use.deprecated.format": False})
        records.append(record(serializer(message, context(subject))))
    return records


def json_schema(registry, subject):
    from confluent_kafka.schema_registry.json_schema import JSONSerializer

    schema = {"title": "Order", "type": "object", "properties": {"id": {"type": "integer"}}}
    serializer = JSONSerializer(json.dumps(schema), registry_client(registry))
    return [record(serializer({"id": 7, "note": "é"}, context(subject)))]


def in_headers(registry, subject):
    """As `avro`, with the UUID of the schema in a header instead of an id before the payload."""
    from confluent_kafka.schema_registry.serde import SchemaId
    from confluent_kafka.schema_registry import header_schema_id_serializer

    guid = str(uuid.UUID(int=0x0123456789ABCDEF0123456789ABCDEF))
    headers = {}
    header_schema_id_serializer(plain_avro(None, None), context(subject, headers), SchemaId("AVRO", None, guid))
    [plain] = plain_avro(None, None)
    return [plain | {"headers": {name: base64.b64encode(value).decode() for name, value in headers.items()}}]


def msgpack(registry, subject):
    import msgpack

    value = {
        "id": 2**64 - 1,
        "rate": 0.1,
        "raw": b"\x00\xff",
        "at": msgpack.Timestamp(1769860800, 250000000),
        "items": ["pen", None, True, -7],
        5: {"text": "é" * 40},
    }
    return [record(msgpack.packb(value))]


def record(payload):
    return {"payload": base64.b64encode(payload).decode(), "headers": {}}


def context(subject, headers=None):
    from confluent_kafka.serialization import MessageField, SerializationContext

    return SerializationContext(subject, MessageField.VALUE, headers)


def registry_client(url):
    from confluent_kafka.schema_registry import SchemaRegistryClient

    return SchemaRegistryClient({"url": url})


def avro_serializer(registry, schema):
    from confluent_kafka.schema_registry.avro import AvroSerializer

    return AvroSerializer(registry_client(registry), schema)


def compiled(name):
    """The Python module of a .proto among the examples."""
    from grpc_tools import protoc
    import grpc_tools

    known = str(pathlib.Path(grpc_tools.__file__).parent / "_proto")
    with tempfile.TemporaryDirectory() as out:
        files = [str(path) for path in SCHEMAS.glob("*.proto")]
        assert protoc.main(["protoc", f"-I{SCHEMAS}", f"-I{known}", f"--python_out={out}", *files]) == 0
        sys.path.insert(0, out)
        return importlib.import_module(name + "_pb2")


SCENARIOS = [
    plain_avro, everything, referring_avro, plain_protobuf, protobuf, json_schema, in_headers, msgpack,
]

if __name__ == "__main__":
    name, registry, subject = (sys.argv[1:] + [None, None])[:3]
    [scenario] = [scenario for scenario in SCENARIOS if scenario.__name__ == name]
    print(json.dumps(scenario(registry, subject)))
