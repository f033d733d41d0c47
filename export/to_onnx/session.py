"""ONNX Runtime on this host. Needs neither torch nor the rest of the project, so that a cold start sees little else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["SESSION_OPTIONS", "Session", "load", "open_session"]


SESSION_OPTIONS = {"session.x64quantprecision": "1"}
"""What an app on x86-64 has to set for 8-bit files; it does nothing on other processors, or for other files.

On processors with AVX2 or AVX-512 but without VNNI, ONNX Runtime's default kernels add pairs of 8-bit products in 16
bits, where they saturate: a right file then gives wrong pictures (onnxruntime issues 12088 and 14642). The option is
heeded where a graph is rewritten for the processor; an .ort file is rewritten already, for ARM, so there it does
nothing.
"""

# "session": an onnxruntime.InferenceSession, which has no types


def open_session(
    model: Path | bytes,
    threads: int | None = None,
    trace: Path | None = None,
    *,
    settings: Mapping[str, str] = SESSION_OPTIONS,
    without: Sequence[str] = (),
) -> Any:
    """An ONNX Runtime session on the CPU.

    Args:
        model: an .onnx file, or its content.
        threads: that compute together; None leaves the choice to the runtime.
        trace: what the name of a file begins with that the session writes when its profiling ends; None for no
            profiling.
        settings: entries of the session's configuration.
        without: names of graph optimisers that are switched off.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3  # errors only
    # waiting threads must not burn the core that the next measurement, of another session, runs on
    options.add_session_config_entry("session.force_spinning_stop", "1")
    for key, value in settings.items():
        options.add_session_config_entry(key, value)
    if trace is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(trace)
    source = model if isinstance(model, bytes) else str(model)
    left_out = {"disabled_optimizers": list(without)} if without else {}
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"], **left_out)


class Session:
    """An ONNX Runtime session and nothing else."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def run(self, inputs: Mapping[str, Any]) -> list[Any]:
        """One run: arrays by name -> the outputs, in order."""
        outputs: list[Any] = self._session.run(None, dict(inputs))
        return outputs


def load(path: Path, threads: int) -> Session:
    """See `export.interfaces.Format.opener`."""
    return Session(open_session(path, threads))
