"""An .mlpackage on disk: a folder with a manifest, a program as a protocol buffer, and its weights."""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.errors import InputError
from export.program import check_own

__all__ = [
    "WEIGHTS_NAME", "Package", "blob", "main_function", "quiet_coremltools", "read_package", "stored", "unpacked",
    "write_package",
]  # fmt: skip

# "model": a coremltools.proto.Model_pb2.Model; "function", "block", "value": messages of its program; none has types

WEIGHTS_NAME = "@model_path/weights/weight.bin"
"""What a program calls its file of weights."""

_AUTHOR = "com.apple.CoreML"
_MODEL = f"{_AUTHOR}/model.mlmodel"
_WEIGHTS = f"{_AUTHOR}/weights"
_VERSIONS = {"CoreML6": 7, "CoreML8": 9}
"""The specification version of files with a set of operations: those of iOS 16 and of iOS 18, which exports have."""
_WANTED = "give the .mlpackage folder that `distill export` wrote."


@dataclass(frozen=True)
class Package:
    """What an .mlpackage holds.

    Attributes:
        model: a `coremltools.proto.Model_pb2.Model` of type mlProgram.
        weights: the bytes of its file of weights; none where all constants stand in the program.
    """

    model: Any
    weights: bytes

    @property
    def metadata(self) -> dict[str, str]:
        """What the file says of itself, see `export.interfaces.Order.facts`."""
        return dict(self.model.description.metadata.userDefined)


def write_package(package: Package, target: Path) -> None:
    """Write the folder; the same package gives the same bytes.

    Core ML finds the parts by the manifest alone, whose identifiers need only differ from each other.
    """
    program = package.model.SerializeToString(deterministic=True)
    digest = hashlib.sha256(program + package.weights).hexdigest()
    model, weights = (str(uuid.uuid5(uuid.NAMESPACE_URL, f"{digest} {path}")) for path in (_MODEL, _WEIGHTS))
    items = {
        model: {"name": "model.mlmodel", "path": _MODEL, "description": "CoreML Model Specification"},
        weights: {"name": "weights", "path": _WEIGHTS, "description": "CoreML Model Weights"},
    }
    manifest = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": {key: {"author": _AUTHOR, **item} for key, item in items.items()},
        "rootModelIdentifier": model,
    }
    data = target / "Data"
    (data / _WEIGHTS).mkdir(parents=True, exist_ok=True)
    (data / _WEIGHTS / "weight.bin").write_bytes(package.weights)
    (data / _MODEL).write_bytes(program)
    (target / "Manifest.json").write_text(json.dumps(manifest, indent=4, sort_keys=True) + "\n", encoding="utf-8")


def read_package(path: Path) -> Package:
    """An .mlpackage that this project wrote.

    Raises:
        InputError: it is missing, is no package, is not complete, names files outside of itself, does not fit together,
            or was not written by this project.
    """
    if not path.is_dir():
        raise InputError(f"{path} is {'a file' if path.is_file() else 'missing'}, not an ML package: {_WANTED}")
    model = _model(path)
    if model.WhichOneof("Type") != "mlProgram" or not model.mlProgram.functions:
        raise InputError(f"{path} is not complete, or holds no ML program: {_WANTED}")
    check_own(dict(model.description.metadata.userDefined), path, "an ML package", _WANTED)
    file = path / "Data" / _WEIGHTS / "weight.bin"
    weights = file.read_bytes() if file.is_file() else b""
    package = Package(model, weights)
    _check_program(path, package)
    return package


def _model(path: Path) -> Any:
    with quiet_coremltools():
        from coremltools.proto import Model_pb2
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        manifest = json.loads((path / "Manifest.json").read_bytes())
        items = manifest["itemInfoEntries"]
        data = (path / "Data").resolve()
        places = {key: (data / item["path"]).resolve() for key, item in items.items()}
        for key, place in places.items():
            if not place.is_relative_to(data):
                raise InputError(
                    f"The manifest of {path} names {items[key]['path']}, outside of the package: {_WANTED}"
                )
        return Model_pb2.Model.FromString(places[manifest["rootModelIdentifier"]].read_bytes())
    except OSError as error:
        raise InputError(f"{path} is no complete ML package ({error.strerror or error}): {_WANTED}") from error
    except (DecodeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no ML package, or a damaged one: {_WANTED}") from error


def _check_program(path: Path, package: Package) -> None:
    try:
        _, block = main_function(package.model)
    except ValueError as error:
        raise InputError(f"The ML program of {path} cannot be used ({error}): {_WANTED}") from error
    for operation in block.operations:
        arguments = [each for argument in operation.inputs.values() for each in argument.arguments]
        values = [each.value for each in arguments if each.WhichOneof("binding") == "value"]
        for value in (*operation.attributes.values(), *values):
            if value.WhichOneof("value") == "blobFileValue":
                try:
                    stored(package, value.blobFileValue)
                except ValueError as error:
                    raise InputError(f"The weights of {path} are damaged ({error}): {_WANTED}") from error


def main_function(model: Any) -> tuple[Any, Any]:
    """The function that Core ML runs, and its operations as a block.

    Raises:
        ValueError: there is none, its set of operations is neither that of iOS 16 nor that of iOS 18, or the
            specification version does not belong to that set.
    """
    functions = model.mlProgram.functions
    if "main" not in functions:
        raise ValueError("it has no function main")
    function = functions["main"]
    if function.opset not in _VERSIONS or function.opset not in function.block_specializations:
        raise ValueError(f"its operations are of the set {function.opset!r}, not one of {' or '.join(_VERSIONS)}")
    wanted = _VERSIONS[function.opset]
    if model.specificationVersion != wanted:
        found = model.specificationVersion
        raise ValueError(f"its specification version is {found}, and operations of {function.opset} need {wanted}")
    return function, function.block_specializations[function.opset]


def stored(package: Package, value: Any) -> NDArray[Any]:
    """The elements, (n,), of a constant that stands in the file of weights.

    Raises:
        ValueError: it is said to stand in another file, which Core ML would not find, or as `blob`.
    """
    if value.fileName != WEIGHTS_NAME:
        raise ValueError(f"they are said to be in {value.fileName!r}, not in {WEIGHTS_NAME!r}")
    return blob(package.weights, value.offset)


_BLOB_MARK = 0xDEADBEEF
_BLOB_TYPES: dict[int, tuple[type[np.generic], int]] = {
    # its number in the file -> what an element is held in, bits of an element in the file
    1: (np.float16, 16),
    2: (np.float32, 32),
    3: (np.uint8, 8),
    4: (np.int8, 8),
    6: (np.int16, 16),
    7: (np.uint16, 16),
    11: (np.uint8, 4),
    13: (np.uint8, 6),
    14: (np.int32, 32),
    15: (np.uint32, 32),
}


def blob(weights: bytes, offset: int) -> NDArray[Any]:
    """The elements, (n,), that a file of weights holds at an offset.

    At the offset stand 64 bytes: a mark, the number of the type, how many bytes, where they are, and how many bits at
    their end mean nothing. Elements of less than a byte are packed, see `unpacked`.

    Raises:
        ValueError: there is nothing of a known type, or the file ends too early.
    """
    head = weights[offset : offset + 64]
    if len(head) < 64 or int.from_bytes(head[:4], "little") != _BLOB_MARK:
        raise ValueError(f"nothing stands at byte {offset}")
    number = int.from_bytes(head[4:8], "little")
    size, start, spare = (int.from_bytes(head[at : at + 8], "little") for at in (8, 16, 24))
    if number not in _BLOB_TYPES:
        raise ValueError(f"type {number} at byte {offset} is not known")
    if start + size > len(weights):
        raise ValueError(f"they end at byte {len(weights)}, before byte {start + size}")
    kind, bits = _BLOB_TYPES[number]
    raw = np.frombuffer(weights, np.uint8, size, start)
    return unpacked(raw, bits, (8 * size - spare) // bits) if bits < 8 else raw.view(kind)


def unpacked(packed: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.uint8]:
    """Numbers of fewer than 8 bits that stand close together, the lowest bit first: (bytes,) -> (count,)."""
    stream = np.unpackbits(packed, count=bits * count, bitorder="little").reshape(count, bits)
    numbers: NDArray[np.uint8] = (stream << np.arange(bits, dtype=np.uint8)).sum(1, dtype=np.uint8)
    return numbers


@contextmanager
def quiet_coremltools() -> Iterator[list[str]]:
    """Hold back what coremltools logs: that this torch is newer than it knows, and that this is no Mac.

    Yields:
        The errors it logs, which name the operator that it cannot convert.
    """
    logger = logging.getLogger("coremltools")
    level, propagate = logger.level, logger.propagate
    kept = _Kept()
    logger.addHandler(kept)
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    try:
        yield kept.messages
    finally:
        logger.removeHandler(kept)
        logger.setLevel(level)
        logger.propagate = propagate


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
