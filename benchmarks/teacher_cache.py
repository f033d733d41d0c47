"""When the teacher cache pays: the time of a step without it, in a run that fills it, and in one that finds it full.

    python benchmarks/teacher_cache.py [--teachers NAME ...] [--student NAME] [--method NAME] [--steps N] [--threads N]

The three ways run interleaved in one process over the same 96-pixel crops of seven frames of the shipped clips, a
whole training step each; prints the medians, their ratios to the step without a cache, how many megabytes a step
leaves on the disk (in a folder that is removed at the end), and after how many runs over the same crops (methods of a
comparison, or epochs) the time is won back. The entries are read while the system still holds them in memory; from a
slow disk add its reading time of so many megabytes.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from pathlib import Path

import torch

from distill.data import Batch, CropSampler, find_clips, sample_clips
from distill.losses.methods import method_named
from distill.networks import registry
from distill.networks.opening import open_network
from distill.training.task import Distillation, Teacher
from distill.training.teacher_cache import TeacherCache

WAYS = ("without", "cold", "warm")


def tasks_of(teacher: str, student: str, method: str, folder: Path) -> dict[str, Distillation]:
    """The same training three times, each with a student of its own."""
    network, _ = open_network(teacher, "teacher")
    cold, warm = TeacherCache(folder, network), TeacherCache(folder, network)
    tasks = {}
    for way, cache in zip(WAYS, (None, cold, warm), strict=True):
        torch.manual_seed(0)
        learner = registry.find(student, "student").build()
        chosen = method_named(method)
        tasks[way] = Distillation(
            learner,
            [Teacher(network, cache=cache)],
            chosen.weights,
            truth=chosen.truth,
            features=chosen.features,
            memory_crop=32,
        ).train()
    return tasks


def step(task: Distillation, batch: Batch, number: int) -> float:
    """Milliseconds of a step: forward, backward, Adam's place taken by the gradients' removal."""
    start = time.perf_counter()
    task(batch, number)["loss"].backward()
    task.zero_grad(set_to_none=True)
    return 1000 * (time.perf_counter() - start)


def measure(teacher: str, options: argparse.Namespace, batches: list[Batch]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tasks = tasks_of(teacher, options.student, options.method, folder)
        times: dict[str, list[float]] = {way: [] for way in WAYS}
        for number, batch in enumerate(batches):
            for way in WAYS:  # cold writes what warm then finds
                times[way].append(step(tasks[way], batch, number))
        (cache,) = (lesson.cache for lesson in tasks["warm"]._lessons())
        assert cache is not None
        assert cache.hits == len(batches)
        left = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    # the first steps warm up, and hits are compared with the teacher in them
    medians = {way: statistics.median(found[cache.checked :]) for way, found in times.items()}
    cost, gain = medians["cold"] - medians["without"], medians["without"] - medians["warm"]
    runs = str(max(2, 1 + math.ceil(cost / gain))) if gain > 0 else "never"
    cells = [f"{medians['without']:>11.0f}"]
    cells += [f"{medians[way]:>9.0f}{medians[way] / medians['without']:>7.2f}" for way in ("cold", "warm")]
    print(f"{teacher:<14}" + "".join(cells) + f"{left / len(batches) / 1e6:>13.1f}{runs:>10}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--teachers", nargs="+", default=["edvr", "basicvsr"])
    parser.add_argument("--student", default="fastdvdnet")
    parser.add_argument("--method", default="std")
    parser.add_argument("--steps", type=int, default=11)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    if options.steps < 4:
        parser.error("--steps must be at least 4, for the first three do not count")
    torch.set_num_threads(options.threads)
    sampler = CropSampler(find_clips(sample_clips("train")), frames=7, crop=96, batch_size=1)
    batches = [sampler.batch(number) for number in range(options.steps)]
    print(f"{options.student}, {options.method}, a batch of 1, {options.threads} threads, torch {torch.__version__}")
    titles = f"{'without ms':>11}{'cold':>9}{'ratio':>7}{'warm':>9}{'ratio':>7}{'MB per step':>13}{'pays at':>10}"
    print(f"{'teacher':<14}{titles}")
    for teacher in options.teachers:
        measure(teacher, options, batches)
    print(
        "pays at: the run over the same crops by whose end time was won, the first being the one that fills the cache"
    )


if __name__ == "__main__":
    main()
