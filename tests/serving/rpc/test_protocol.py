"""Our .proto files are the published protocol's, field by field; what can't be read is refused."""

from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from tritonclient.grpc import model_config_pb2, service_pb2

from serving.rpc.protocol import Protocol, _Parser

PUBLISHED = {
    **service_pb2.DESCRIPTOR.message_types_by_name,
    **model_config_pb2.DESCRIPTOR.message_types_by_name,
}


def check(ours: Descriptor, published: Descriptor) -> None:
    for field in ours.fields:
        theirs = published.fields_by_number[field.number]
        assert (field.name, field.type, field.is_repeated) == (
            theirs.name,
            theirs.type,
            theirs.is_repeated,
        ), f"{ours.full_name}.{field.name}"
        oneof = theirs.containing_oneof
        assert (field.containing_oneof and field.containing_oneof.name) == (oneof and oneof.name)
        if field.message_type is not None:
            assert field.message_type.full_name == theirs.message_type.full_name
            assert field.message_type.GetOptions().map_entry == (
                theirs.message_type.GetOptions().map_entry
            )
    for nested in ours.nested_types:
        check(nested, published.nested_types_by_name[nested.name])


def test_messages_are_those_of_the_published_protocol() -> None:
    ours = Protocol("inference.proto")
    for name, message in ours.file.message_types_by_name.items():
        check(message, PUBLISHED[name])
    values = ours.file.enum_types_by_name["DataType"].values_by_name
    theirs = model_config_pb2.DESCRIPTOR.enum_types_by_name["DataType"].values_by_name
    assert {name: value.number for name, value in values.items()}.items() <= {
        name: value.number for name, value in theirs.items()
    }.items()


def test_methods_are_those_of_the_published_service() -> None:
    published = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    ours = Protocol("inference.proto")
    assert ours.service == "inference.GRPCInferenceService"
    for name, method in ours.methods.items():
        theirs = published[name]
        assert method.input_type == f".{theirs.input_type.full_name}"
        assert method.output_type == f".{theirs.output_type.full_name}"
        streams = (method.client_streaming, method.server_streaming)
        assert streams == (theirs.client_streaming, theirs.server_streaming)


def test_a_message_goes_both_ways() -> None:
    kind = Protocol("inference.proto").message("ModelInferRequest")
    ours: Any = kind(model_name="grey", raw_input_contents=[b"\0\1"])
    ours.inputs.add(name="SEED", shape=[1, 2]).parameters["x"].double_param = 0.5
    theirs = service_pb2.ModelInferRequest.FromString(ours.SerializeToString())
    assert theirs.inputs[0].parameters["x"].double_param == 0.5
    assert kind.FromString(theirs.SerializeToString()) == ours


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('import "other.proto";', "'import' is not read here"),
        ("package a; message A { B b = 1; }", "'B' is no type"),
        ("package a; message A { string b = 1 }", "'}' stands where ';' is expected"),
        ("package a; message A {", "the file ends too early"),
    ],
)
def test_what_is_not_read_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        _Parser(text).file("x.proto")
