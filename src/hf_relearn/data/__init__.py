"""Data sets: CREMA-D as people have it on disk, and a small synthetic corpus in the same layout."""

from hf_relearn.data.cremad import prepare_cremad
from hf_relearn.data.cremad_clips import EMOTION_NAMES, CremadDataError
from hf_relearn.data.cremad_splits import split_cremad
from hf_relearn.data.sample_corpus import SAMPLE_CARD_NOTE, SAMPLE_NOTICE, build_sample_corpus

__all__ = [
    "EMOTION_NAMES",
    "SAMPLE_CARD_NOTE",
    "SAMPLE_NOTICE",
    "CremadDataError",
    "build_sample_corpus",
    "prepare_cremad",
    "split_cremad",
]
