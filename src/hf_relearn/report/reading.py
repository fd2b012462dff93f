"""Reads a run's diagnosis out in plain words, from its values alone."""

from collections.abc import Sequence

from hf_relearn.records import Record, epoch_of, finite, modality_entry, relearning_points
from hf_relearn.report.markdown import listed, percent, text

SMALL_GAP = 0.05  # purities of a few hundred samples differ by this much from one K-means start to another
LARGE_GAP = 0.15
MOST_NAMED_POINTS = 4


def read_run(records: Sequence[Record], modalities: Sequence[str], *, epochs: float | None, steps: int | None) -> str:
    """One line on what was run: which modalities, how long, how many points, where the strength came from.

    Args:
        records: Diagnosis records.
        modalities: Names of the run's modalities.
        epochs: Length of training in epochs, if known.
        steps: Length of training in optimizer steps, if known.

    Returns:
        A sentence in Markdown.
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
    entries = [modality_entry(point, name) for point in points for name in modalities]
    given = [entry for entry in entries if finite(entry.get("alpha")) is not None]
    if any(_is_overridden(entry) for entry in given) or all(entry.get("diagnosed_alpha") is None for entry in given):
        source = "with a set strength"
    else:
        source = "with the strength that the diagnosis asked for"
    when = _when(relearning_points(records))
    return f"Training of {who}{length}, re-learnt at {_count(len(points), 'point')}{when} {source}."


def read_modality(records: Sequence[Record], modality: str) -> str:
    """What the diagnosis found for a modality, what was done, and how the gap went on.

    The purities are those of the last re-learning point that was diagnosed, or of the last diagnosis of a run without
    points. A gap is called over-training only where the training part is the purer one and chance does not explain
    the difference.

    Args:
        records: Diagnosis records.
        modality: Name of the modality.

    Returns:
        A few sentences in Markdown that begin with the modality's name.
    """
    mine = [record for record in records if modality_entry(record, modality)]
    if not mine:
        return f"**{text(modality)}**: neither diagnosed nor moved."
    points = [record for record in mine if record.get("kind") == "point"]
    diagnosed = [record for record in mine if _gap(modality_entry(record, modality)) is not None]
    sentences = []
    if diagnosed:
        diagnosed_points = [record for record in diagnosed if record.get("kind") == "point"]
        sentences.append(_finding(diagnosed_points[-1] if diagnosed_points else diagnosed[-1], modality))
    elif any(modality_entry(record, modality).get("train_purity") is not None for record in mine):
        sentences.append("no usable purity was recorded.")
    else:
        sentences.append("not diagnosed.")
    sentences.append(_movement(points, modality))
    if len(diagnosed) > 1:
        sentences.append(_trend(diagnosed[0], diagnosed[-1], modality))
    return f"**{text(modality)}**: " + " ".join(sentence for sentence in sentences if sentence)


def _finding(record: Record, modality: str) -> str:
    entry = modality_entry(record, modality)
    train, val = float(entry["train_purity"]), float(entry["val_purity"])
    gap = train - val
    chance, train_chance, val_chance = _chance_gap(entry), *_chances(entry)
    facts = f"purity {train:.2f} on the training part, {val:.2f} held out{_at(record)}"
    if train_chance is not None and val_chance is not None and max(train - train_chance, val - val_chance) < SMALL_GAP:
        verdict = "hardly purer than chance on either part, so these features do not separate the classes"
    elif chance is not None and _explains(chance, gap):
        verdict = "the gap tells little of over-training"
    elif gap <= -SMALL_GAP:
        verdict = "purer held out than in training, so not over-trained"
    elif abs(gap) < SMALL_GAP:
        verdict = "hardly any gap, so not over-trained"
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


def _movement(points: Sequence[Record], modality: str) -> str:
    if not points:
        return "It was only observed, nothing was moved."
    moves = [(point, alpha) for point in points if (alpha := finite(modality_entry(point, modality).get("alpha")))]
    if not moves:
        return "It was left where it was at every point."
    shares = [percent(alpha) for _, alpha in moves]
    where = "of the way back to its initial weights"
    if len(set(shares)) == 1:
        sentence = f"Moved {shares[0]} {where}{_at_all([point for point, _ in moves])}"
    elif len(moves) <= MOST_NAMED_POINTS:
        sentence = f"Moved {listed(shares)} {where}{_at_all([point for point, _ in moves])}"
    else:
        low, high = min(alpha for _, alpha in moves), max(alpha for _, alpha in moves)
        sentence = f"Moved between {percent(low)} and {percent(high)} {where} at {len(moves)} points"
    last = modality_entry(moves[-1][0], modality)
    if _is_overridden(last):
        asked = percent(last["diagnosed_alpha"]) + (" at the last point" if len(moves) > 1 else "")
        return f"{sentence}: a set strength, where the diagnosis asked for {asked}."
    if finite(last.get("diagnosed_alpha")) is None:
        return f"{sentence}: a set strength."
    return f"{sentence}."


def _trend(first: Record, last: Record, modality: str) -> str:
    before, after = _gap(modality_entry(first, modality)) or 0.0, _gap(modality_entry(last, modality)) or 0.0
    # Signed, because a gap that changes its sign has changed although its size may not have.
    if abs(after - before) < 0.03:
        return f"The gap stayed near {abs(after):.2f} from the first diagnosis to the last."
    return f"The gap went from {abs(before):.2f}{_at(first)} to {abs(after):.2f}{_at(last)}."


def _gap(entry: Record) -> float | None:
    train, val = finite(entry.get("train_purity")), finite(entry.get("val_purity"))
    return None if train is None or val is None else train - val


def _chances(entry: Record) -> tuple[float | None, float | None]:
    return finite(entry.get("train_chance_purity")), finite(entry.get("val_chance_purity"))


def _chance_gap(entry: Record) -> float | None:
    train, val = _chances(entry)
    return None if train is None or val is None else train - val


def _explains(chance: float, gap: float) -> bool:
    """Whether chance pulls the gap's way and makes at least half of a gap that is not small."""
    return abs(gap) >= SMALL_GAP and chance * gap > 0 and abs(chance) >= abs(gap) / 2


def _is_overridden(entry: Record) -> bool:
    alpha, diagnosed = finite(entry.get("alpha")), finite(entry.get("diagnosed_alpha"))
    return alpha is not None and diagnosed is not None and abs(alpha - diagnosed) > 0.005


def _count(quantity: float, word: str) -> str:
    plural = "diagnoses" if word == "diagnosis" else f"{word}s"
    return f"{quantity:,g} {word if quantity == 1 else plural}" if quantity < 1e5 else f"{quantity:,.0f} {plural}"


def _at(record: Record) -> str:
    epoch = epoch_of(record)
    return "" if epoch is None else f" at epoch {round(epoch, 2):g}"


def _at_all(records: Sequence[Record]) -> str:
    if len(records) > MOST_NAMED_POINTS:
        return f" at each of {len(records)} points"
    epochs = [f"{round(epoch, 2):g}" for record in records if (epoch := epoch_of(record)) is not None]
    return f" at epoch{'s' if len(epochs) > 1 else ''} {listed(epochs)}" if epochs else ""


def _when(points: Sequence[Record]) -> str:
    return f" ({_at_all(points).removeprefix(' at ')})" if 0 < len(points) <= MOST_NAMED_POINTS else ""
