"""Packages that are none, or that Core ML would not load."""

from __future__ import annotations

import json
import shutil

import pytest

from distill.errors import CheckFailed, InputError
from export.to_coreml.evaluator import Evaluator
from export.to_coreml.package import read_package, write_package
from export.to_coreml.program import load


def test_files_that_cannot_be_used(halved, tmp_path):
    def damaged(name, change):
        path = tmp_path / f"{name}.mlpackage"
        shutil.copytree(halved.path, path)
        change(path)
        return path

    weights = "Data/com.apple.CoreML/weights/weight.bin"
    program = "Data/com.apple.CoreML/model.mlmodel"

    def rewritten(path, **changes):
        package = read_package(path)
        for field in changes.get("drop", ()):
            package.model.description.metadata.userDefined.pop(field)
        (path / program).write_bytes(package.model.SerializeToString())

    file = tmp_path / "file.mlpackage"
    file.write_bytes(b"no folder")
    empty = tmp_path / "empty.mlpackage"
    empty.mkdir()
    cases = {
        tmp_path / "absent.mlpackage": "is missing, not an ML package",
        file: "is a file, not an ML package",
        empty: "is no complete ML package",
        damaged("manifest", lambda path: (path / "Manifest.json").write_text("{")): "a damaged one",
        damaged("unlisted", lambda path: (path / "Manifest.json").write_text("[]")): "a damaged one",
        damaged(
            "program", lambda path: (path / program).write_bytes((path / program).read_bytes()[:5000])
        ): "damaged one",
        damaged("hollow", lambda path: (path / program).write_bytes(b"")): "is not complete, or holds no ML program",
        damaged("gone", lambda path: (path / program).unlink()): "is no complete ML package",
        damaged("cut", lambda path: (path / weights).write_bytes((path / weights).read_bytes()[:9000])): "damaged",
        damaged("weightless", lambda path: (path / weights).unlink()): "damaged",
        damaged(
            "foreign", lambda path: rewritten(path, drop=["window"])
        ): "that this version of distill-vsr did not write",
    }
    for path, sentence in cases.items():
        with pytest.raises(InputError, match=sentence) as caught:
            load(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("outside", ["../../whole.mlpackage/Data/com.apple.CoreML/model.mlmodel", "/dev/null", "link"])
def test_a_manifest_names_nothing_outside_of_the_package(halved, tmp_path, outside):
    """Not even where a whole program stands there."""
    path = tmp_path / "new.mlpackage"
    for copy in (path, tmp_path / "whole.mlpackage"):
        shutil.copytree(halved.path, copy)
    (path / "Data" / "link").symlink_to(tmp_path / "whole.mlpackage/Data/com.apple.CoreML/model.mlmodel")
    manifest = json.loads((path / "Manifest.json").read_text())
    manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"] = outside
    (path / "Manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=f"names {outside}, outside of the package: give") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def _elsewhere(model):
    function = model.mlProgram.functions["main"]
    for operation in function.block_specializations[function.opset].operations:
        for value in operation.attributes.values():
            if value.WhichOneof("value") == "blobFileValue":
                value.blobFileValue.fileName = "@model_path/nowhere.bin"


def _renamed(model):
    model.mlProgram.functions["other"].CopyFrom(model.mlProgram.functions["main"])
    del model.mlProgram.functions["main"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_elsewhere, r"said to be in '@model_path/nowhere\.bin', not in '@model_path/weights/weight\.bin'"),
        (lambda model: setattr(model, "specificationVersion", 6), "version is 6, and operations of CoreML6 need 7"),
        (lambda model: setattr(model, "specificationVersion", 9), "version is 9, and operations of CoreML6 need 7"),
        (lambda model: setattr(model.mlProgram.functions["main"], "opset", "CoreML8"), "are of the set 'CoreML8'"),
        (_renamed, "it has no function main"),
    ],
)
def test_what_core_ml_would_not_load_is_refused(halved, tmp_path, change, sentence):
    path = tmp_path / "new.mlpackage"
    package = read_package(halved.path)
    change(package.model)
    write_package(package, path)
    with pytest.raises(InputError, match=sentence) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckFailed, match=sentence):
        Evaluator(package)
