"""Core ML packages built here and saved."""

from __future__ import annotations

import warnings
from pathlib import Path

from export.exported import ExportedNetwork
from export.formats import export, format_named
from export.interfaces import Order
from export.to_coreml.package import Package, quiet_coremltools
from tests.stand_ins.networks import METADATA

with quiet_coremltools():
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb  # noqa: N813 -- its documented name


def saved(build, *specs, target=18, **options):
    """A package of a program that coremltools' builder makes."""
    target = ct.target[f"iOS{target}"]

    @mb.program(input_specs=[mb.TensorSpec(shape, kind) for shape, kind in specs], opset_version=target)
    def program(x):
        return build(x)

    with quiet_coremltools(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        model = ct.convert(
            program,
            minimum_deployment_target=target,
            compute_precision=ct.precision.FLOAT32,
            pass_pipeline=ct.PassPipeline.EMPTY,
            skip_model_load=True,
            **options,
        )
    weights = Path(model.weights_dir) / "weight.bin"
    return Package(model.get_spec(), weights.read_bytes() if weights.is_file() else b"")


COREML = format_named("coreml")
ODD = (18, 27)  # no multiples of 4, so the networks pad inside


def exported(network, target, sizes=(ODD,), **order):
    export(Order(network, METADATA, sizes=sizes, **order), COREML, target)
    return ExportedNetwork(COREML.open(target), target)
