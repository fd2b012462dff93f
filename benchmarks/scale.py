"""How the method behaves at scale: peak memory of the store of initial weights, and the cost of a large diagnosis.

    python benchmarks/scale.py                                  # 4 GB of weights, 200,000 x 768 features, 300 classes
    python benchmarks/scale.py --gigabytes 0.3 --samples 20000 --classes 100 --dimensions 256     # in a minute

The store: a model of random bfloat16 weights is written as initial weights and moved half of the way back. Each step's
peak memory beyond the model itself must stay below its largest tensor + 200 MB, or the command ends with status 1.

The diagnosis: a training part of nine tenths and a diagnosing part of one tenth of the samples, one modality, sampling
"all". Time, and peak memory beyond the features as a multiple of their size, with the reference clustering. Then
faster clusterings against it: seconds as a ratio, and how far α lies from the reference's with the same seed. As a
yardstick stands how far the reference's own α strays over other K-means seeds. Needs Linux (/proc).
"""

import argparse
import json
import math
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
from sklearn.cluster import KMeans, MiniBatchKMeans, kmeans_plusplus
from sklearn.preprocessing import MinMaxScaler
from threadpoolctl import threadpool_limits
from torch import nn

from hf_relearn.method import InitialWeights, diagnose, learning_state_alpha, purity_score, soft_reinit_

ALLOWED_BYTES = 200 * 10**6
TENSOR_ELEMENTS = 2**25  # 64 MiB of bfloat16, as a large embedding or projection
Clustering = Callable[[np.ndarray, int, int], np.ndarray]


def memory_status(field: str) -> int:
    """A line of /proc/self/status in bytes: `VmRSS` (memory now) or `VmHWM` (its peak since `watch` began)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def watch(function: Callable[[], Any]) -> tuple[Any, float, int]:
    """(result, seconds, peak memory in bytes beyond what was in use before)."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, start = memory_status("VmRSS"), time.perf_counter()
    result = function()
    return result, time.perf_counter() - start, memory_status("VmHWM") - before


def random_model(num_bytes: int) -> nn.Module:
    """Random finite bfloat16 weights below 2, generated in place."""
    model = nn.Module()
    for number in range(max(1, math.ceil(num_bytes / (2 * TENSOR_ELEMENTS)))):
        bits = torch.empty(TENSOR_ELEMENTS // 4, dtype=torch.int64)
        generator = torch.Generator().manual_seed(number)
        bits.random_(-(2**63), 2**63 - 1, generator=generator).bitwise_and_(
            -0x4000400040004001
        )  # no exponent above 127
        weight = bits.view(torch.bfloat16).view(-1, 2**13)
        model.register_parameter(f"weight_{number}", nn.Parameter(weight))
    return model


def store(gigabytes: float, folder: str) -> dict[str, float]:
    """Write initial weights and move the model half of the way back to them."""
    num_bytes = int(gigabytes * 1e9)
    if shutil.disk_usage(folder).free < 1.2 * num_bytes:
        raise SystemExit(f"{folder} has less than {1.2 * gigabytes:.1f} GB free: choose another --folder")
    model = random_model(num_bytes)
    sizes = [parameter.nbytes for parameter in model.parameters()]
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        initial, write_seconds, write_peak = watch(lambda: InitialWeights.save(model, temporary))
        file_size = initial.path.stat().st_size
        with torch.no_grad():
            weight = next(model.parameters())
            first = weight.clone()
            weight.mul_(2)
        moved, move_seconds, move_peak = watch(lambda: soft_reinit_(model, initial, 0.5))
    # Half of the way from twice the weights to the weights; the other tensors move onto themselves.
    right = torch.equal(weight, (0.5 * (2 * first.float()) + 0.5 * first.float()).to(torch.bfloat16))
    return {
        "file bytes": file_size,
        "model bytes": sum(sizes),
        "largest tensor bytes": max(sizes),
        "allowed bytes": max(sizes) + ALLOWED_BYTES,
        "writing: peak bytes beyond the model": write_peak,
        "writing: seconds": write_seconds,
        "re-initialisation: peak bytes beyond the model": move_peak,
        "re-initialisation: seconds": move_seconds,
        "weights as expected": float(right),
    }


def make_part(samples: int, dimensions: int, classes: int, spread: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of classes that lie at unlike distances from each other, so that only some are separable."""
    generator = np.random.default_rng(seed)
    centers = np.random.default_rng(0).normal(size=(classes, dimensions)).astype(np.float32)
    centers *= np.linspace(0, spread / math.sqrt(dimensions), classes, dtype=np.float32)[:, None]
    labels = generator.integers(classes, size=samples)
    features = generator.standard_normal((samples, dimensions), dtype=np.float32)
    for start in range(0, samples, 10000):
        features[start : start + 10000] += centers[labels[start : start + 10000]]
    return features, labels


def reference(features: np.ndarray, classes: int, seed: int) -> np.ndarray:
    return KMeans(classes, random_state=seed, n_init=1).fit_predict(features)


def few_iterations(features: np.ndarray, classes: int, seed: int) -> np.ndarray:
    return KMeans(classes, random_state=seed, n_init=1, max_iter=10).fit_predict(features)


def mini_batches(features: np.ndarray, classes: int, seed: int) -> np.ndarray:
    return MiniBatchKMeans(classes, random_state=seed, n_init=1, batch_size=4096).fit_predict(features)


def in_torch(features: np.ndarray, classes: int, seed: int) -> np.ndarray:
    """Lloyd's algorithm by matrix products on the accelerator, or else the CPU, from the reference's k-means++."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    starts, _ = kmeans_plusplus(features, classes, random_state=seed)
    points, centers = torch.from_numpy(features).to(device), torch.from_numpy(starts).to(device)
    clusters = torch.zeros(len(points), dtype=torch.int64, device=device)
    for _ in range(300):
        half_norms = centers.square().sum(dim=1) / 2
        nearest = torch.cat([(part @ centers.T - half_norms).argmax(dim=1) for part in points.split(2**14)])
        if torch.equal(nearest, clusters):
            break
        clusters = nearest
        sums = torch.zeros_like(centers).index_add_(0, clusters, points)
        counts = torch.bincount(clusters, minlength=classes)[:, None]
        centers = torch.where(counts > 0, sums / counts.clamp(min=1), centers)
    return clusters.cpu().numpy()


ALTERNATIVES: dict[str, Clustering] = {
    "KMeans(max_iter=10)": few_iterations,
    "MiniBatchKMeans(batch_size=4096)": mini_batches,
    "Lloyd in torch": in_torch,
}


def alpha_of(cluster: Clustering, parts: list[tuple[np.ndarray, np.ndarray]], classes: int, seed: int) -> float:
    """α of one modality with some clustering, on one thread as the library clusters."""
    scaled = [(MinMaxScaler((-1, 1)).fit_transform(features), labels) for features, labels in parts]
    purities = [purity_score(labels, cluster(features, classes, seed)) for features, labels in scaled]
    return learning_state_alpha(purities[0] - purities[1])


def diagnosis(samples: int, dimensions: int, classes: int, repeats: int) -> dict[str, float]:
    held_out = samples // 10
    parts = [
        make_part(samples - held_out, dimensions, classes, 8.0, seed=1),
        make_part(held_out, dimensions, classes, 6.0, seed=2),
    ]
    (train, train_labels), (val, val_labels) = parts
    num_bytes = train.nbytes + val.nbytes

    def whole(sampling: Any = "all") -> float:
        return diagnose({"m": train}, train_labels, {"m": val}, val_labels, classes, sampling=sampling)["m"].alpha

    expected, reference_seconds, peak = watch(whole)
    matched, matched_seconds, _ = watch(lambda: whole("matched"))
    results: dict[str, float] = {
        "features, bytes": num_bytes,
        "reference: seconds": reference_seconds,
        "reference: peak memory beyond the features / features": peak / num_bytes,
        "reference: alpha": expected,
        "diagnosis_sampling matched: seconds / reference": matched_seconds / reference_seconds,
        "diagnosis_sampling matched: alpha": matched,
    }
    print_table(results)
    with threadpool_limits(limits=1):
        for name, cluster in ALTERNATIVES.items():
            alpha, seconds, _ = watch(lambda cluster=cluster: alpha_of(cluster, parts, classes, 0))  # type: ignore[misc]
            found = {
                f"{name}: seconds / reference": seconds / reference_seconds,
                f"{name}: alpha - reference": alpha - expected,
            }
            print_table(found)
            results |= found
        strays = [abs(alpha_of(reference, parts, classes, seed) - expected) for seed in range(1, repeats + 1)]
        yardstick = {"reference, other K-means seeds: mean |alpha - reference|": statistics.mean(strays)}
        print_table(yardstick)
    return results | yardstick


def print_table(results: dict[str, float]) -> None:
    for name, value in results.items():
        shown = f"{value / 1e6:12,.1f} MB" if name.endswith("bytes") or "bytes beyond" in name else f"{value:12.3f}"
        print(f"{name:62}{shown}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["store", "diagnosis"], help="measure one of the two (default: both)")
    parser.add_argument("--gigabytes", type=float, default=4.2, help="weights to store (default: 4.2)")
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="where the file is written, and removed again")
    parser.add_argument("--samples", type=int, default=200_000, help="of both parts (default: 200,000)")
    parser.add_argument("--dimensions", type=int, default=768, help="of a feature (default: 768)")
    parser.add_argument("--classes", type=int, default=300, help="and clusters (default: 300)")
    parser.add_argument("--repeats", type=int, default=2, help="other K-means seeds of the reference (default: 2)")
    parser.add_argument("--json", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.json:
        print(json.dumps(store(arguments.gigabytes, arguments.folder)))
        return
    versions = {"python": platform.python_version(), "torch": torch.__version__, "scikit-learn": sklearn.__version__}
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    print(f"{platform.machine()}, {torch.get_num_threads()} threads\n")
    broken = False
    if arguments.only != "diagnosis":
        # In a process of its own, whose memory holds nothing else.
        sizes = ["--gigabytes", str(arguments.gigabytes), "--folder", arguments.folder]
        output = subprocess.run(
            [sys.executable, __file__, "--json", *sizes], check=True, stdout=subprocess.PIPE, text=True
        )
        measured = json.loads(output.stdout.splitlines()[-1])
        print_table(measured)
        peaks = [value for name, value in measured.items() if "peak bytes" in name]
        broken = max(peaks) > measured["allowed bytes"] or not measured["weights as expected"]
        print(f"\nthe bound {'is BROKEN' if broken else 'holds'}\n")
    if arguments.only != "store":
        diagnosis(arguments.samples, arguments.dimensions, arguments.classes, arguments.repeats)
    sys.exit(broken)


if __name__ == "__main__":
    main()
