"""Write the model card of a Trainer's model, before pushes and at the end."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_relearn.models import MultimodalConfig
from hf_relearn.records import read_history

if TYPE_CHECKING:  # its import brings matplotlib
    from hf_relearn.cards import CardFacts

logger = logging.getLogger(__name__)

Names = str | Sequence[str] | None


class ModelCardCallback(TrainerCallback):
    """Write the model card before every push, and at the end of a run that pushes.

    Args:
        write: writes it; it has to keep its failures to itself.
    """

    def __init__(self, write: Callable[[], None]):
        self.write = write

    def on_push_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.write()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if args.push_to_hub:
            self.write()


def write_model_card(trainer: Trainer, *args: Any, **kwargs: Any) -> None:
    """Write `README.md` and its figures into the output directory, on the main process.

    A card that cannot be written is told of by one logged warning, and breaks neither a save nor a push.

    Args:
        trainer: whose model it is; its `card_info` says what no run knows.
        *args, **kwargs: of `trainer_facts`; for a model that is not one of this library's, of
            `Trainer.create_model_card`.
    """
    if not trainer.is_world_process_zero():
        return
    try:
        config = trainer.accelerator.unwrap_model(trainer.model).config
        if not isinstance(config, MultimodalConfig):
            Trainer.create_model_card(trainer, *args, **kwargs)
            return
        from hf_relearn.cards import write_card

        write_card(str(trainer.args.output_dir), trainer_facts(trainer, config, *args, **kwargs))
    except Exception as error:
        logger.warning(
            "the model card could not be written, and everything else goes on without it (%s: %s); once this is "
            "mended, trainer.create_model_card() writes it",
            type(error).__name__,
            error,
        )


def trainer_facts(
    trainer: Trainer,
    config: MultimodalConfig,
    language: Names = None,
    license: str | None = None,
    tags: Names = None,
    model_name: str | None = None,
    *,
    dataset_tags: Names = None,
    dataset: Names = None,
) -> "CardFacts":
    """Collect the facts of a Trainer's model.

    Args:
        trainer: a Trainer; `card_info` is looked at if it has one.
        config: of its model.
        language, license: replace those of `card_info`.
        tags: beside those of `card_info`.
        model_name: heading if `card_info` has none.
        dataset_tags: Hub ids of data sets, in place of those of `card_info`.
        dataset: their names.

    Raises:
        ValueError: for a language that the Hub would refuse, or a damaged record of the run.
    """
    from hf_relearn.cards import CardInfo, DatasetFacts, collect_facts

    args, state = trainer.args, trainer.state
    info: CardInfo = getattr(trainer, "card_info", None) or CardInfo()
    ids, names = _listed(dataset_tags), _listed(dataset)
    given = [DatasetFacts(name or str(hub_id), hub_id) for name, hub_id in zip_longest(names, ids)]
    info = replace(
        info,
        language=_listed(language) or info.language,
        license=license or info.license,
        tags=[*info.tags, *_listed(tags)],
        datasets=given or info.datasets,
    )
    folder = Path(str(args.output_dir))
    repository = getattr(trainer, "hub_model_id", None) or args.hub_model_id or folder.resolve().name
    ended = any("train_runtime" in entry for entry in state.log_history)
    return collect_facts(
        config,
        name=model_name or repository.split("/")[-1],
        info=info,
        repository=repository,
        arguments=args,
        records=read_history(folder),
        log_history=state.log_history,
        step=state.global_step,
        best_step=state.best_global_step if args.load_best_model_at_end and ended else None,
        train_dataset=trainer.train_dataset,
    )


def _listed(names: Names) -> list[str]:
    return [names] if isinstance(names, str) else list(names or ())
