"""Floor 5: model cards, made of the facts of a run."""

from hf_relearn.cards.card import CARD_FILE, card_figures, render_card, write_card
from hf_relearn.cards.facts import CardFacts, CardInfo, DatasetFacts, EncoderFacts, collect_facts

__all__ = [
    "CARD_FILE",
    "CardFacts",
    "CardInfo",
    "DatasetFacts",
    "EncoderFacts",
    "card_figures",
    "collect_facts",
    "render_card",
    "write_card",
]
