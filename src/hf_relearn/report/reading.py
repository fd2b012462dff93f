"""Read a run's diagnoses out in plain words, from their values alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from hf_relearn.records import Record, epoch_of, finite, modality_entry
from hf_relearn.relearning.settings import RelearnSettings
from hf_relearn.report.markdown import listed, percent, text

SMALL_GAP = 0.05  # purities of a few hundred samples differ by this much from one K-means start to another
LARGE_GAP = 0.15
LEAST_LEARNT = 0.05  # separability above chance below which a memorised share says nothing
MOST_NAMED_POINTS = 4


@dataclass(frozen=True)
class Gate:
    """Decide if a modality counts as memorised: `memorised - errors * memorised_error > threshold`."""

    threshold: float = RelearnSettings.relearn_gate_threshold
    errors: float = RelearnSettings.relearn_gate_errors

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "Gate":
        """Read it from a run's settings; one that is not there has its default."""
        threshold, errors = (finite(settings.get(f"relearn_gate_{name}")) for name in ("threshold", "errors"))
        return cls(cls.threshold if threshold is None else threshold, cls.errors if errors is None else errors)

    def excess(self, entry: Record) -> float | None:
        """Return by how much a modality surely exceeds the threshold; None if its share was not measured."""
        share, error = finite(entry.get("memorised")), finite(entry.get("memorised_error"))
        return None if share is None or error is None else share - self.errors * error - self.threshold


@dataclass(frozen=True)
class LearningState:
    """Sum up all diagnoses of one modality in a run.

    Attributes:
        worst: the diagnosis at which it had memorised most; None if none measured it.
        last: the last diagnosis that measured it.
        memorised: whether it had surely memorised at `worst`, or its purities lay far apart there.
        memorised_last: the same at `last`, if it was not moved there.
        uninformative: whether its features do not tell the classes of held-out samples apart.
        moves: the re-learning steps at which it was moved, with the strength.
        points: the re-learning steps of the run.
    """

    worst: Record | None
    last: Record | None
    memorised: bool
    memorised_last: bool
    uninformative: bool
    moves: Sequence[tuple[Record, float]]
    points: Sequence[Record]


def main_metric(log_history: Sequence[Record], results: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """Name the metric by which a model is judged: accuracy, or `r2` if it predicts a number."""
    return "r2" if {"eval_r2", "r2"} & set().union(*log_history, *(results or {}).values()) else "accuracy"


def was_moved(record: Record, modality: str) -> bool:
    """Check whether a record is a re-learning step at which the modality's encoder was moved."""
    return record.get("kind") == "point" and (finite(modality_entry(record, modality).get("alpha")) or 0.0) > 0


def learning_state(records: Sequence[Record], modality: str, gate: Gate | None = None) -> LearningState:
    """Judge a modality by the whole course of its diagnoses, not by the first or last one.

    Args:
        records: diagnosis records.
        modality: its name.
        gate: None takes the default settings.
    """
    gate = gate or Gate()
    mine = [record for record in records if modality_entry(record, modality)]
    points = [record for record in mine if record.get("kind") == "point"]
    moves = [
        (point, float(modality_entry(point, modality)["alpha"])) for point in points if was_moved(point, modality)
    ]
    excesses = [(excess, record) for record in mine if (excess := _excess(record, modality, gate)) is not None]
    worst = max(excesses, key=lambda pair: pair[0], default=None)
    return LearningState(
        worst=worst[1] if worst else None,
        last=excesses[-1][1] if excesses else None,
        memorised=worst is not None and worst[0] > 0,
        memorised_last=bool(excesses) and excesses[-1][0] > 0 and not was_moved(excesses[-1][1], modality),
        uninformative=_is_uninformative(mine, modality),
        moves=moves,
        points=points,
    )


def _excess(record: Record, modality: str, gate: Gate) -> float | None:
    """By how much a modality has surely memorised at a diagnosis; of purities, by how much their gap is large."""
    entry = modality_entry(record, modality)
    if (excess := gate.excess(entry)) is not None:
        return excess
    gap = _purity_gap(entry)
    if gap is None:
        return None
    chance = _chance_gap(entry)
    return -1.0 if chance is not None and _explains(chance, gap) else gap - LARGE_GAP


def _is_uninformative(records: Sequence[Record], modality: str) -> bool:
    """Check whether held-out samples stay at chance, within two errors, at the last diagnosis and most others."""
    distances = []
    for record in records:
        entry = modality_entry(record, modality)
        val, chance, error = (finite(entry.get(key)) for key in ("val_separability", "chance", "standard_error"))
        purity, floor = finite(entry.get("val_purity")), finite(entry.get("val_chance_purity"))
        if record.get("kind") == "start":
            continue
        if val is not None and chance is not None and error is not None:
            distances.append(val - chance - 2 * error)
        elif purity is not None and floor is not None:
            distances.append(purity - floor - SMALL_GAP)
    return bool(distances) and distances[-1] <= 0 and median(distances) <= 0


def read_run(records: Sequence[Record], modalities: Sequence[str], *, epochs: float | None, steps: int | None) -> str:
    """Say in one line what was run: which modalities, how long, what was re-learnt by which rule.

    Args:
        records: diagnosis records.
        modalities: names of the run's modalities.
        epochs: length of training in epochs, if known.
        steps: length of training in optimizer steps, if known.
    """
    who = listed([f"**{text(name)}**" for name in modalities]) or "a model"
    length = "" if epochs is None else f" over {_count(round(epochs, 2), 'epoch')}"
    length += "" if steps is None else f" ({_count(steps, 'step')})"
    points = [record for record in records if record.get("kind") == "point"]
    if not points:
        if not records:
            return f"Joint training of {who}{length}, without diagnosis and without re-learning."
        diagnoses = _count(len(records), "diagnosis")
        return f"Joint training of {who}{length}, with {diagnoses} recorded and no re-learning."
    moved = [point for point in points if any(was_moved(point, name) for name in modalities)]
    if not moved:
        return (
            f"Training of {who}{length}, diagnosed at {_count(len(points), 're-learning step')}{_when(points)}; no "
            "encoder was moved."
        )
    given = [modality_entry(point, name) for point in points for name in modalities if modality_entry(point, name)]
    if any(_is_overridden(entry) for entry in given) or all(entry.get("diagnosed_alpha") is None for entry in given):
        source = "with a set strength"
    else:
        source = "with the strength that the diagnosis asked for"
    return f"Training of {who}{length}, re-learnt at {_count(len(moved), 'step')}{_when(moved)} {source}."


def read_modality(records: Sequence[Record], modality: str, gate: Gate | None = None) -> str:
    """Say what the diagnoses found for a modality, what was done, and how it went on.

    Args:
        records: diagnosis records.
        modality: its name.
        gate: when a modality counts as memorised; None takes the default settings.

    Returns:
        A few sentences in Markdown that begin with the modality's name.
    """
    mine = [record for record in records if modality_entry(record, modality)]
    if not mine:
        return f"**{text(modality)}**: neither diagnosed nor moved."
    state = learning_state(records, modality, gate)
    sentences = []
    if state.worst is None:
        entries = [modality_entry(record, modality) for record in mine]
        skipped = next((entry["skipped"] for entry in entries if entry.get("skipped")), "")
        measured = any(entry.get("train_purity") is not None for entry in entries)
        reason = f"not diagnosed: {text(skipped)}." if skipped else "not diagnosed."
        sentences.append("no usable purity was recorded." if measured else reason)
    elif finite(modality_entry(state.worst, modality).get("memorised")) is not None:
        sentences += _separability_sentences(state, mine, modality, gate or Gate())
    else:
        sentences.append(_purity_finding(state.worst, modality))
    sentences.append(_movement(state, modality))
    if state.worst is not None and state.last is not None and state.last is not state.worst:
        sentences.append(_later(state.worst, state.last, modality))
    return f"**{text(modality)}**: " + " ".join(sentence for sentence in sentences if sentence)


def memorised_share(entry: Record) -> str:
    """Return the memorised share of a modality with its standard error, such as `78 % ± 5 %`."""
    # Held-out samples may lie below chance by chance, which makes a share of more than all.
    share = finite(entry.get("memorised"))
    return f"{percent(share and min(share, 1.0))} ± {percent(entry.get('memorised_error'))}"


def _separability_sentences(state: LearningState, records: Sequence[Record], modality: str, gate: Gate) -> list[str]:
    assert state.worst is not None
    entry = modality_entry(state.worst, modality)
    values = (
        f"{'R²' if entry.get('chance') == 0 else 'separability'} "
        f"{_decimals(entry.get('train_separability'))} on training samples and "
        f"{_decimals(entry.get('val_separability'))} on held-out ones{at(state.worst)}, chance "
        f"{_decimals(entry.get('chance'))}"
    )
    share = memorised_share(entry)
    if state.memorised:
        sentences = [f"memorised. Held-out samples lack {share} of what was learnt ({values})."]
    elif (finite(entry.get("memorised")) or 0.0) > gate.threshold:
        sentences = [f"perhaps memorised: {share}, not surely above {percent(gate.threshold)} ({values})."]
    elif (finite(entry.get("memorised")) or 0.0) == 0.0:
        sentences = [f"not memorised at any diagnosis ({values})."]
    else:
        sentences = [f"not memorised: held-out samples lack at most {share} of what was learnt ({values})."]
    if state.uninformative:
        sentences.append("On held-out samples it is not better than chance, so it says nothing about unseen samples.")
    first = records[0]
    begun = modality_entry(first, modality)
    gap, error = finite(begun.get("gap")), finite(begun.get("standard_error"))
    if first.get("kind") == "start" and gap is not None and error is not None and gap > 2 * error:
        sentences.append(
            f"Before training held-out samples already differed from training samples (gap {gap:.2f} ± {error:.2f}), "
            "as with other speakers or subjects."
        )
    return sentences


def _purity_finding(record: Record, modality: str) -> str:
    entry = modality_entry(record, modality)
    train, val = float(entry["train_purity"]), float(entry["val_purity"])
    gap = train - val
    chance, train_chance, val_chance = _chance_gap(entry), *_chances(entry)
    facts = f"purity {train:.2f} on the training part, {val:.2f} held out{at(record)}"
    if train_chance is not None and val_chance is not None and max(train - train_chance, val - val_chance) < SMALL_GAP:
        verdict = "hardly purer than chance on either part, so these features do not separate the classes"
    elif chance is not None and _explains(chance, gap):
        verdict = "the gap tells little of over-training"
    elif gap <= -SMALL_GAP:
        verdict = "purer held out than in training, so not over-trained"
    elif abs(gap) < SMALL_GAP:
        verdict = "hardly any gap at any diagnosis, so not over-trained"
    else:
        verdict = "over-trained" if gap > LARGE_GAP else "somewhat over-trained"
    finding = f"{facts}: {verdict}."
    if chance is not None and _explains(chance, gap):
        finding += f" Chance alone makes {abs(chance):.2f} of this gap of {abs(gap):.2f}"
        if record.get("train_size") == record.get("diagnosis_size"):
            finding += "."
        else:
            finding += '; parts of equal size (`diagnosis_sampling="matched"`) avoid this.'
    elif gap <= -SMALL_GAP and record.get("kind") == "point" and (finite(entry.get("alpha")) or 0.0) > 0:
        finding += " The method takes the size of the gap, whatever its sign."
    return finding


def _movement(state: LearningState, modality: str) -> str:
    if not state.points:
        return "It was only observed, nothing was moved."
    if not state.moves:
        return f"It was left where it was{at_all(state.points)}."
    alphas = [alpha for _, alpha in state.moves]
    moved_at = [point for point, _ in state.moves]
    shares = [percent(alpha) for alpha in alphas]
    where = "of the way back to its initial weights"
    if len(set(shares)) == 1:
        sentence = f"moved {shares[0]} {where}{at_all(moved_at)}"
    elif len(alphas) <= MOST_NAMED_POINTS:
        sentence = f"moved {listed(shares)} {where}{at_all(moved_at)}"
    else:
        sentence = f"moved between {percent(min(alphas))} and {percent(max(alphas))} {where} at {len(alphas)} points"
    kept = [point for point in state.points if not was_moved(point, modality)]
    entries = [modality_entry(point, modality) for point in moved_at]
    if all(finite(entry.get("diagnosed_alpha")) is None for entry in entries):
        return f"It was {sentence}: a set strength."
    if any(_is_overridden(entry) for entry in entries):
        asked = [value for entry in entries if (value := finite(entry.get("diagnosed_alpha"))) is not None]
        low, high = percent(min(asked)), percent(max(asked))
        wanted = low if low == high else f"{low} to {high}"
        return f"Whatever the diagnosis said, it was {sentence}: a set strength. The diagnosis asked for {wanted}."
    return f"It was {sentence}{f', and left where it was{at_all(kept)}' if kept else ''}."


def _later(worst: Record, last: Record, modality: str) -> str:
    """Compare the last diagnosis with the worst one."""
    entry = modality_entry(last, modality)
    if finite(entry.get("memorised")) is not None:
        return (
            f"At the last diagnosis{at(last).replace(' at', ',', 1)}, the memorised share is {memorised_share(entry)}."
        )
    before, after = _purity_gap(modality_entry(worst, modality)) or 0.0, _purity_gap(entry) or 0.0
    if abs(after - before) < 0.03:
        return f"The gap is {after:.2f} at the last diagnosis, too."
    return f"The gap went from {before:.2f}{at(worst)} to {after:.2f}{at(last)}."


def _purity_gap(entry: Record) -> float | None:
    train, val = finite(entry.get("train_purity")), finite(entry.get("val_purity"))
    return None if train is None or val is None else train - val


def _chances(entry: Record) -> tuple[float | None, float | None]:
    return finite(entry.get("train_chance_purity")), finite(entry.get("val_chance_purity"))


def _chance_gap(entry: Record) -> float | None:
    train, val = _chances(entry)
    return None if train is None or val is None else train - val


def _explains(chance: float, gap: float) -> bool:
    """Check whether chance pulls the gap's way and makes at least half of a gap that is not small."""
    return abs(gap) >= SMALL_GAP and chance * gap > 0 and abs(chance) >= abs(gap) / 2


def _is_overridden(entry: Record) -> bool:
    alpha, diagnosed = finite(entry.get("alpha")), finite(entry.get("diagnosed_alpha"))
    return alpha is not None and diagnosed is not None and abs(alpha - diagnosed) > 0.005


def _decimals(value: Any) -> str:
    number = finite(value)
    return "–" if number is None else f"{number:.2f}"


def _count(quantity: float, word: str) -> str:
    plural = "diagnoses" if word == "diagnosis" else f"{word}s"
    return f"{quantity:,g} {word if quantity == 1 else plural}" if quantity < 1e5 else f"{quantity:,.0f} {plural}"


def at(record: Record) -> str:
    """Say when a record was made, such as ` at epoch 6`; empty if it does not say."""
    if record.get("kind") == "start":
        return " before training"
    epoch = epoch_of(record)
    return "" if epoch is None else f" at epoch {round(epoch, 2):g}"


def at_all(records: Sequence[Record]) -> str:
    """Say when several records were made, such as ` at epochs 6 and 12`."""
    if len(records) > MOST_NAMED_POINTS:
        return f" at each of {len(records)} points"
    epochs = [f"{round(epoch, 2):g}" for record in records if (epoch := epoch_of(record)) is not None]
    return f" at epoch{'s' if len(epochs) > 1 else ''} {listed(epochs)}" if epochs else ""


def _when(points: Sequence[Record]) -> str:
    if not 0 < len(points) <= MOST_NAMED_POINTS:
        return ""
    epochs = at_all(sorted(points, key=lambda point: epoch_of(point) or math.inf)).removeprefix(" at ")
    return f" ({epochs})" if epochs else ""
