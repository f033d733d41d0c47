@dataclass(frozen=True)
class Protocol:
    warmup: int
    minimum_runs: int
    minimum_seconds: float
    budget_seconds: float

    def warming(self, timing: Timing) -> bool:
        return timing.warmup_runs < self.warmup and timing.warmup_seconds < self.budget_seconds / 2

    def finished(self, timing: Timing) -> bool:
        if self.warming(timing) or not timing.samples:
            return False
        enough = len(timing.samples) >= self.minimum_runs and timing.seconds >= self.minimum_seconds
        return enough or timing.warmup_seconds + timing.seconds >= self.budget_seconds


@dataclass
class Timing:
    """The runs of one row so far."""

    warmup_runs: int = 0
    warmup_seconds: float = 0.0
    samples: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def figures(self) -> dict[str, Any]:
        """Those fields of a `Row` that the timed runs fill."""
        p50, p90, p99 = np.percentile(self.samples, (50, 90, 99), method="inverted_cdf") * 1e3
        return {
            "p50_ms": float(p50),
            "p90_ms": float(p90),
            "p99_ms": float(p99),
            "fps": len(self.samples) / self.seconds,
            "warmup_runs": self.warmup_runs,
            "runs": len(self.samples),
            "seconds": self.seconds,
        }


def timed(run: Callable[[], object]) -> Callable[[], float]:
    """The run as a function that returns the seconds it took."""

    def timed() -> float:
        started = time.perf_counter()
        run()
        return time.perf_counter() - started

    return timed


def take_turns(runs: Sequence[Callable[[], float]], protocol: Protocol) -> list[Timing]:
    """Run each until the protocol is content with it, one run at a time in turn."""
    timings = [Timing() for _ in runs]
    while pending := [(run, timing) for run, timing in zip(runs, timings, strict=True) if not protocol.finished(timing)]:
        for run, timing in pending:
            seconds = run()
            if protocol.warming(timing):
                timing.warmup_runs += 1
                timing.warmup_seconds += seconds
            else:
                timing.samples.append(seconds)
                timing.seconds += seconds
    return timings
