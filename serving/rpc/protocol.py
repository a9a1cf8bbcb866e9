"""Reads .proto files, and makes their messages: as much of the language as ours use.

protoc would need a compiler at build time and generated code in the tree. Ours are a page of
messages, which `protobuf` takes as a description as well (google/protobuf/descriptor.proto). They
live in a pool of their own: a client's generated code of the same package may be in this process.
"""

import functools
import re
from importlib.resources import files
from typing import Any, TypeAlias

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_TOKEN = re.compile(r'"[^"]*"|[A-Za-z_][\w.]*|\d+|[{}()<>=;,]')
_COMMENT = re.compile(r"//[^\n]*")
_Field: TypeAlias = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "double": _Field.TYPE_DOUBLE,
    "float": _Field.TYPE_FLOAT,
    "int64": _Field.TYPE_INT64,
    "uint64": _Field.TYPE_UINT64,
    "int32": _Field.TYPE_INT32,
    "bool": _Field.TYPE_BOOL,
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
    "uint32": _Field.TYPE_UINT32,
}


class Protocol:
    """The messages of one file."""

    def __init__(self, name: str) -> None:
        """name: of a file beside this one.

        Raises:
            ValueError: it holds something that is not read here.
        """
        text = (files("serving.rpc") / name).read_text(encoding="utf-8")
        described = _Parser(text).file(name)
        pool = descriptor_pool.DescriptorPool()
        pool.Add(described)
        self.package = described.package
        self.methods = {
            method.name: method for service in described.service for method in service.method
        }
        self.service = f"{described.package}.{described.service[0].name}"
        self.file = pool.FindFileByName(name)

    @functools.cache  # noqa: B019 - there are two protocols in a process
    def message(self, name: str) -> Any:
        """The class of a message."""
        return message_factory.GetMessageClass(self.file.message_types_by_name[name])


class _Parser:
    """Goes through the words of a file once."""

    def __init__(self, text: str) -> None:
        self._words: list[str] = _TOKEN.findall(_COMMENT.sub("", text))
        self._at = 0

    def file(self, name: str) -> descriptor_pb2.FileDescriptorProto:
        described = descriptor_pb2.FileDescriptorProto(name=name, syntax="proto3")
        while self._at < len(self._words):
            word = self._take()
            if word == "syntax":
                self._expect("=", '"proto3"', ";")
            elif word == "package":
                described.package = self._take()
                self._expect(";")
            elif word == "message":
                self._message(described.message_type.add())
            elif word == "enum":
                self._enum(described.enum_type.add())
            elif word == "service":
                self._service(described.service.add())
            else:
                raise ValueError(f"{name}: {word!r} is not read here")
        _resolve(described)
        return described

    def _message(self, message: descriptor_pb2.DescriptorProto) -> None:
        message.name = self._take()
        self._expect("{")
        while (word := self._take()) != "}":
            if word == "message":
                self._message(message.nested_type.add())
            elif word == "enum":
                self._enum(message.enum_type.add())
            elif word == "oneof":
                message.oneof_decl.add(name=self._take())
                self._expect("{")
                while (kind := self._take()) != "}":
                    self._field(message, kind).oneof_index = len(message.oneof_decl) - 1
            elif word == "map":
                self._map(message)
            else:
                self._field(message, word)

    def _field(self, message: descriptor_pb2.DescriptorProto, word: str) -> _Field:
        field = message.field.add(label=_Field.LABEL_OPTIONAL)
        if word == "repeated":
            field.label = _Field.LABEL_REPEATED
            word = self._take()
        self._kind(field, word)
        field.name = self._take()
        self._expect("=")
        field.number = int(self._take())
        self._expect(";")
        return field

    def _map(self, message: descriptor_pb2.DescriptorProto) -> None:
        """A map is a list of entries, messages of their own."""
        self._expect("<")
        key = self._take()
        self._expect(",")
        value = self._take()
        self._expect(">")
        field = message.field.add(name=self._take(), label=_Field.LABEL_REPEATED)
        self._expect("=")
        field.number = int(self._take())
        self._expect(";")
        entry = message.nested_type.add(
            name="".join(part.capitalize() for part in field.name.split("_")) + "Entry"
        )
        entry.options.map_entry = True
        for number, (name, kind) in enumerate((("key", key), ("value", value)), 1):
            part = entry.field.add(name=name, number=number, label=_Field.LABEL_OPTIONAL)
            self._kind(part, kind)
        field.type_name = entry.name

    @staticmethod
    def _kind(field: _Field, word: str) -> None:
        if word in _SCALARS:
            field.type = _SCALARS[word]
        else:
            field.type_name = word

    def _enum(self, enum: descriptor_pb2.EnumDescriptorProto) -> None:
        enum.name = self._take()
        self._expect("{")
        while (word := self._take()) != "}":
            self._expect("=")
            enum.value.add(name=word, number=int(self._take()))
            self._expect(";")

    def _service(self, service: descriptor_pb2.ServiceDescriptorProto) -> None:
        service.name = self._take()
        self._expect("{")
        while self._take() == "rpc":
            method = service.method.add(name=self._take())
            self._expect("(")
            method.client_streaming, method.input_type = self._argument()
            self._expect("returns", "(")
            method.server_streaming, method.output_type = self._argument()
            self._expect(";")

    def _argument(self) -> tuple[bool, str]:
        word = self._take()
        streams = word == "stream"
        name = self._take() if streams else word
        self._expect(")")
        return streams, name

    def _take(self) -> str:
        if self._at == len(self._words):
            raise ValueError("the file ends too early")
        self._at += 1
        return self._words[self._at - 1]

    def _expect(self, *wanted: str) -> None:
        for word in wanted:
            if (found := self._take()) != word:
                raise ValueError(f"{found!r} stands where {word!r} is expected")


def _resolve(described: descriptor_pb2.FileDescriptorProto) -> None:
    """Writes names of types in full: from the innermost message outwards, as protoc looks."""
    known: dict[str, int] = {}
    for enum in described.enum_type:
        known[f"{described.package}.{enum.name}"] = _Field.TYPE_ENUM
    for message in described.message_type:
        _note(described.package, message, known)
    for message in described.message_type:
        _write_types(described.package, message, known)
    for service in described.service:
        for method in service.method:
            method.input_type = "." + _full(described.package, method.input_type, known)
            method.output_type = "." + _full(described.package, method.output_type, known)


def _note(scope: str, message: descriptor_pb2.DescriptorProto, known: dict[str, int]) -> None:
    """Lists a message and what it holds by their full names."""
    name = f"{scope}.{message.name}"
    known[name] = _Field.TYPE_MESSAGE
    for enum in message.enum_type:
        known[f"{name}.{enum.name}"] = _Field.TYPE_ENUM
    for nested in message.nested_type:
        _note(name, nested, known)


def _write_types(
    scope: str, message: descriptor_pb2.DescriptorProto, known: dict[str, int]
) -> None:
    name = f"{scope}.{message.name}"
    for field in message.field:
        if field.type_name:
            found = _full(name, field.type_name, known)
            field.type_name, field.type = f".{found}", known[found]
    for nested in message.nested_type:
        _write_types(name, nested, known)


def _full(scope: str, name: str, known: dict[str, int]) -> str:
    while f"{scope}.{name}" not in known:
        if "." not in scope:
            raise ValueError(f"{name!r} is no type of this file")
        scope = scope.rpartition(".")[0]
    return f"{scope}.{name}"
