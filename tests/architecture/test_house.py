"""What must hold of the tree and of the wheel, whatever the code does."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import zipfile

import pytest

from tests.places import ROOT

PACKAGES = ("distill", "teachers", "students", "export")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
ALL_PYTHON = SOURCES + [path for folder in ("tests", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("path", ALL_PYTHON, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno <= 60, node.name


def test_device_runtimes_are_imported_inside_functions_of_export_only():
    runtimes = {
        "onnx",
        "onnxruntime",
        "onnxscript",
        "coremltools",
        "litert_torch",
        "ai_edge_litert",
        "executorch",
        "ncnn",
    }
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        at_top = {
            name.split(".")[0]
            for node in tree.body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
        }
        assert not at_top & runtimes, path


def test_help_needs_no_torch():
    code = "import sys, distill.cli; distill.cli._parser(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_recipe_is_read_without_torch_or_any_network():
    code = """
import sys, distill.training.config
heavy = ("torch", "teachers", "students", "export", "distill.networks", "distill.interfaces", "distill.losses")
sys.exit(", ".join(name for name in heavy if name in sys.modules) or 0)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_public_names_exist():
    code = """
import importlib, pkgutil, sys
for package in ("distill", "teachers", "students", "export"):
    names = [package] + [m.name for m in pkgutil.walk_packages([package], package + ".")]
    for name in names:
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", []):
            getattr(module, public)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=ROOT)


def test_no_paths_of_a_machine_and_no_module_named_after_a_library():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.stdout.splitlines()]
    machine_path = re.compile(rb"/(?:home|root|work|Users)/[a-z]")
    for path in paths:
        if path.is_file() and path.suffix not in (".mp4", ".pt"):
            assert not machine_path.search(path.read_bytes()), path
        if path.suffix == ".py":
            assert path.stem not in {"onnx", "torch", "coremltools", "utils", "common", "helpers", "manager"}


@pytest.mark.slow
def test_the_wheel_holds_what_a_user_needs(tmp_path):
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(pip, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 15 << 20
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "distill/py.typed",
        "distill/data/sample_clips/LICENCES.md",
        "distill/data/sample_clips/train/street.mp4",
        "distill/data/sample_clips/held_out/road.mp4",
        "teachers/shipped/edvr-s.safetensors",
        "teachers/shipped/edvr-s.md",
        "configs/std_vimeo90k.yaml",
        "configs/ablations/table2-small.yaml",
        "distill/comparison/running.py",
        "distill/losses/memory.py",
        "export/plan/devices/host.yaml",
        "export/latency/profile_schema.json",
        "export/latency/page.html",
        "distill/report/page.html",
        "distill/pages/base.html",
        "distill/pages/parts.html",
        "distill/pages/style.css",
    ):
        assert needed in names, needed
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "docs"))]
