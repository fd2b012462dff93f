"""The sections of a model card, as Markdown."""

from hf_relearn.cards.facts import CardFacts, DatasetFacts, EncoderFacts
from hf_relearn.records import finite
from hf_relearn.report.markdown import MISSING, code, listed, number, prose, table, text
from hf_relearn.report.reading import read_modality, read_run
from hf_relearn.report.run_report import points_table, results_table, settings_table

MOST_NAMED_CLASSES = 40
WEAK_SHARE = 1.25  # a modality whose accuracy is less than so many times that of guessing is called weak

_KINDS = {"audio": "a sound", "vision": "an image", "video": "a video", "text": "text", "features": "numbers"}


def summary(facts: CardFacts) -> str:
    """What the model is, and what of."""
    inputs = listed([f"**{text(encoder.modality)}** ({_input(encoder)})" for encoder in facts.encoders])
    names = [text(name) for name in facts.class_names]
    shown = f"{', '.join(names[:MOST_NAMED_CLASSES])}{' and others' if len(names) > MOST_NAMED_CLASSES else ''}"
    data = listed([_dataset(dataset) for dataset in facts.datasets])
    trained = f" It was trained on {data}." if data else ""
    what = f"A multimodal classifier of {inputs} with {len(names)} classes ({shown}).{trained}"
    if any(record.get("kind") == "point" for record in facts.records):
        what += (
            " While it was trained, the encoder of each modality was moved back softly towards its initial weights, "
            "so that the modality that is learnt fastest does not leave the others behind."
        )
    return what


def notes(facts: CardFacts) -> str:
    """What a reader must know, as a block that stands out; empty where there is nothing."""
    return "\n>\n".join(f"> {prose(note)}" for note in facts.info.notes)


def encoders(facts: CardFacts) -> str:
    """One row for each encoder, with what its weights started from."""
    header = ("modality", "input", "encoder", "started from", "feature")
    rows = [
        [text(e.modality), _input(e), text(e.architecture), _start(e), number(e.feature_size)] for e in facts.encoders
    ]
    return table(header, rows, numeric_from=4)


def fusion(facts: CardFacts) -> str:
    """How the encoders are joined, and what heads there are."""
    sentence = f"Their features are fused by {code(facts.fusion)}, and one linear classifier sees the result."
    if facts.unimodal_loss_weight > 0:
        weight = f"{facts.unimodal_loss_weight:g}"
        sentence += f" Each encoder also has a linear head of its own, whose loss was added with weight {weight}."
    return sentence


def batches(facts: CardFacts) -> str:
    """What else there is to know of inputs and outputs."""
    scores = "`logits.sigmoid()` gives the score of each class, of which a sample may have several."
    if not facts.multi_label:
        scores = "`logits.softmax(-1)` gives the scores of the classes."
    return (
        "Each modality takes one raw value per sample, so lists of equal length classify a batch; `None` stands for a "
        f"modality that a sample lacks. {scores}"
    )


def results(facts: CardFacts) -> str:
    """Every metric of every split."""
    lines = [results_table(facts.results)]
    for split, step in facts.results_steps.items():
        lines.append(f"*{text(split)}* was measured at step {step:,}; the weights here are those of a later step.")
    return "\n\n".join(lines)


def ablations(facts: CardFacts) -> str:
    """Accuracy by modality: from its own feature, given alone to the fused model, and left out of it."""
    split = chosen_split(facts)
    measured = facts.results.get(split, {}) if split else {}
    columns = {
        "alone": "unimodal_{}_accuracy",
        "only this one given": "only_{}_accuracy",
        "all but this one": "without_{}_accuracy",
    }
    shown = {
        title: key for title, key in columns.items() if any(key.format(name) in measured for name in facts.modalities)
    }
    if not shown:
        return "It was not measured how good each modality is by itself."
    rows = [
        [text(name), *(number(measured.get(key.format(name))) for key in shown.values())] for name in facts.modalities
    ]
    rows.append(["*all together*", *([number(measured.get("accuracy"))] * len(shown))])
    sentence = f"Accuracy on *{text(split)}*."
    if "alone" in shown:
        how = "its head" if facts.unimodal_loss_weight > 0 else "a linear probe"
        sentence += f" *Alone*: {how} on the modality's own feature."
    if len(shown) > ("alone" in shown):
        sentence += " The others are those of this model where a modality is missing."
    return f"{table(('modality', *shown), rows)}\n\n{sentence}"


def diagnosis(facts: CardFacts) -> str:
    """What was found of each modality, in words and as a table."""
    if not facts.records:
        return "No modality was diagnosed in this run."
    words = "\n".join(f"- {read_modality(facts.records, name)}" for name in facts.modalities)
    return f"{words}\n\n{points_table(facts.records, facts.modalities)}"


def figures(captions: dict[str, tuple[str, str]]) -> str:
    """Images, by path relative to the card -> (subject, caption)."""
    if not captions:
        return "There is no figure yet: nothing has been diagnosed or evaluated that could be drawn."
    return "\n\n".join(
        f"![Figure of {subject}]({path})\n\n*{caption}*" for path, (subject, caption) in captions.items()
    )


def training(facts: CardFacts) -> str:
    """How long, with how many points, on how many samples, in what time."""
    sentences = [read_run(facts.records, facts.modalities, epochs=facts.epochs, steps=facts.steps)]
    sizes = [record for record in facts.records if record.get("diagnosis_size")]
    if sizes:
        last = sizes[-1]
        sentences.append(
            f"A diagnosis compared {number(last.get('train_size'))} training samples with "
            f"{number(last.get('diagnosis_size'))} held-out ones."
        )
    if facts.seconds is not None:
        sentences.append(f"Training took {_duration(facts.seconds)}.")
    return " ".join(sentences)


def settings(facts: CardFacts) -> str:
    """The hyper-parameters that differ from their defaults."""
    if not facts.settings:
        return "All hyper-parameters have their defaults."
    return f"Hyper-parameters that differ from their defaults:\n\n{settings_table(facts.settings)}"


def hardware(facts: CardFacts) -> str:
    """Versions and machine."""
    return table(("", ""), [(text(name), text(value)) for name, value in facts.environment.items()], numeric_from=2)


def limits(facts: CardFacts) -> str:
    """What is known of where the model fails, from its facts."""
    data = listed([text(dataset.name) for dataset in facts.datasets]) or "its training data"
    lines = [
        f"It knows the {len(facts.class_names)} classes above and no others.",
        f"It was measured on data like {data} only; how it does on others, or for groups of people that are rare "
        "there, is not known.",
        "It is a model for research. No decision about a person should rest on it.",
    ]
    split = chosen_split(facts)
    if split is None:
        lines.append("It was not evaluated on held-out data.")
    elif "test" not in split:
        lines.append(f"There is no test result: *{text(split)}* may have been used to choose settings or weights.")
    lines += _weak_modalities(facts, split)
    if not any(record.get("kind") == "point" for record in facts.records):
        lines.append("No encoder was re-learnt, so it is a jointly trained model.")
    if facts.seconds is None:
        lines.append("Its training was not at its end.")
    return "\n".join(f"- {line}" for line in lines)


def chosen_split(facts: CardFacts) -> str | None:
    """The split whose accuracies tell most: the test set, else the last one that was evaluated."""
    splits = [split for split, metrics in facts.results.items() if metrics]
    return next((split for split in splits if "test" in split), splits[-1] if splits else None)


def _weak_modalities(facts: CardFacts, split: str | None) -> list[str]:
    if split is None or not facts.class_names:
        return []
    chance = 1 / len(facts.class_names)
    found = {name: finite(facts.results[split].get(f"unimodal_{name}_accuracy")) for name in facts.modalities}
    return [
        f"{text(name)} hardly says more of the class than guessing (accuracy {number(accuracy)} alone)."
        for name, accuracy in found.items()
        if accuracy is not None and accuracy < WEAK_SHARE * chance
    ]


def _input(encoder: EncoderFacts) -> str:
    if encoder.kind == "vision" and encoder.num_frames > 1:
        return f"{encoder.num_frames} images"
    return _KINDS[encoder.kind]


def _start(encoder: EncoderFacts) -> str:
    if encoder.base_model:
        link = f"[{text(encoder.base_model)}](https://huggingface.co/{encoder.base_model})"
        revision = encoder.base_model_revision
        return f"{link} at `{revision[:12]}`" if revision else link
    if encoder.pretrained is None:
        return MISSING
    return "pretrained weights that are not on the Hub" if encoder.pretrained else "random weights"


def _dataset(dataset: DatasetFacts) -> str:
    name = text(dataset.name)
    if dataset.hub_id:
        name = f"[{name}](https://huggingface.co/datasets/{dataset.hub_id})"
    return name + (f", configuration {text(dataset.config)}" if dataset.config else "")


def _duration(seconds: float) -> str:
    if seconds < 1:
        return "less than a second"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
