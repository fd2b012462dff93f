"""What the diagnosis says where there is nothing to find: strengths on noise, and without over-fitting.

    python benchmarks/noise.py

Draws features that know nothing of their classes, and features of both parts from one distribution. Prints the mean
and the largest strength (lambda 3) by the separability, beside that by the purity gap. `--draws` sets how many of
each size. The purity is left out (-) if its K-means would take minutes. Then the same for targets that are numbers.
Exits with 1 if the separability exceeds its limits. Takes four minutes on one core.
"""

import argparse
import statistics
import sys
import time
import warnings

import numpy as np

from hf_relearn.method import DiagnosisWarning, diagnose

# (classes, held-out samples, dimensions); there are four times as many training samples.
SIZES = [
    *((k, n, 64) for k in (2, 10, 31, 100, 300) for n in (100, 300, 1000)),
    *((k, n, 512) for k in (2, 31, 300) for n in (100, 1000)),
    *((k, 10_000, 64) for k in (2, 31, 300)),
]
# Distance of a class centre from the mean, in standard deviations of its samples: hardly to well separated.
SIGNALS = (1.0, 2.5, 5.0)
# The same where the targets are numbers: (held-out samples, dimensions).
NUMBER_SIZES = [(n, d) for d in (16, 64, 512) for n in (25, 100, 300, 1000)]
# A K-means of more distances than this is left out: samples x classes x dimensions.
MOST_DISTANCES = 1e8
NOISE_MEAN, NOISE_MOST, SIGNAL_MEAN = 0.01, 0.06, 0.05


def alphas(k: int, n_val: int, d: int, signal: float, seed: int) -> tuple[float, float | None]:
    """Strengths by separability and by purity for one draw."""
    generator = np.random.default_rng([k, n_val, d, seed])
    centres = generator.normal(size=(k, d)) * signal / d**0.5
    features, labels = [], []
    for size in (4 * n_val, n_val):
        labels.append(generator.integers(0, k, size))
        features.append({"drawn": (centres[labels[-1]] + generator.normal(size=(size, d))).astype(np.float32)})
    given = features[0], labels[0], features[1], labels[1], k
    found = diagnose(*given, estimator="separability")["drawn"].alpha
    if 5 * n_val * k * d > MOST_DISTANCES:
        return found, None
    return found, diagnose(*given)["drawn"].alpha


def measure(signal: float, draws: int) -> list[float]:
    """Print one line per size, and return the separability's strengths of all draws."""
    everything = []
    for k, n_val, d in SIZES:
        found = [alphas(k, n_val, d, signal, seed) for seed in range(max(2, draws if n_val < 10_000 else draws // 4))]
        by_separability = [pair[0] for pair in found]
        by_purity = [pair[1] for pair in found if pair[1] is not None]
        purity = f"{statistics.mean(by_purity):7.3f} {max(by_purity):7.3f}" if by_purity else "      -       -"
        print(
            f"{signal:6.1f} {k:7d} {n_val:8d} {d:10d} {len(found):6d} "
            f"{statistics.mean(by_separability):12.4f} {max(by_separability):7.4f} {purity}",
            flush=True,
        )
        everything += by_separability
    return everything


def alphas_of_numbers(n_val: int, d: int, signal: float, seed: int) -> float:
    """Strength for one draw whose targets are numbers; `signal` is the deviation of what the features tell of them."""
    generator = np.random.default_rng([n_val, d, seed])
    weights = generator.normal(size=d) * signal / d**0.5
    features, targets = [], []
    for size in (4 * n_val, n_val):
        drawn = generator.normal(size=(size, d))
        targets.append(drawn @ weights + generator.normal(size=size))
        features.append({"drawn": drawn.astype(np.float32)})
    given = features[0], targets[0], features[1], targets[1]
    return diagnose(*given, estimator="separability", targets="numbers")["drawn"].alpha


def measure_numbers(signal: float, draws: int) -> list[float]:
    """Print one line per size, and return the strengths of all draws."""
    everything = []
    for n_val, d in NUMBER_SIZES:
        found = [alphas_of_numbers(n_val, d, signal, seed) for seed in range(draws)]
        mean, most = statistics.mean(found), max(found)
        print(f"{signal:6.1f} numbers {n_val:8d} {d:10d} {draws:6d} {mean:12.4f} {most:7.4f}", flush=True)
        everything += found
    return everything


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--draws", type=int, default=8, help="Draws of each size; a quarter of them at 10,000 samples."
    )
    draws = parser.parse_args().draws
    warnings.simplefilter("ignore", DiagnosisWarning)
    start = time.perf_counter()
    print("signal classes held-out dimensions  draws separability     max  purity     max")
    noise = measure(0.0, draws)
    fitted = [alpha for signal in SIGNALS for alpha in measure(signal, max(2, draws // 4))]
    mean, most, fitted_mean = statistics.mean(noise), max(noise), statistics.mean(fitted)
    print(
        f"noise: mean {mean:.4f} (at most {NOISE_MEAN}), largest {most:.4f} of {len(noise)} (at most {NOISE_MOST})\n"
        f"without over-fitting: mean {fitted_mean:.4f} (at most {SIGNAL_MEAN}), largest {max(fitted):.4f} of "
        f"{len(fitted)}\n{time.perf_counter() - start:.0f} s"
    )
    start = time.perf_counter()
    numbers = measure_numbers(0.0, 2 * draws)
    fitted_numbers = [alpha for signal in SIGNALS for alpha in measure_numbers(signal, max(2, draws // 4))]
    numbers_mean, fitted_numbers_mean = statistics.mean(numbers), statistics.mean(fitted_numbers)
    print(
        f"numbers, noise: mean {numbers_mean:.4f} (at most {NOISE_MEAN}), largest {max(numbers):.4f} of "
        f"{len(numbers)}\nnumbers, without over-fitting: mean {fitted_numbers_mean:.4f} (at most {SIGNAL_MEAN}), "
        f"largest {max(fitted_numbers):.4f} of {len(fitted_numbers)}\n{time.perf_counter() - start:.0f} s"
    )
    classes_fail = mean > NOISE_MEAN or most > NOISE_MOST or fitted_mean > SIGNAL_MEAN
    return int(classes_fail or numbers_mean > NOISE_MEAN or fitted_numbers_mean > SIGNAL_MEAN)


if __name__ == "__main__":
    sys.exit(main())
