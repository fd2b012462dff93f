"""Data sets: CREMA-D as people have it on disk, any table of media, and small synthetic stand-ins."""

from hf_relearn.data.cremad import prepare_cremad
from hf_relearn.data.cremad_clips import EMOTION_NAMES, CremadDataError
from hf_relearn.data.cremad_splits import split_cremad
from hf_relearn.data.sample_corpus import SAMPLE_CARD_NOTE, SAMPLE_NOTICE, build_sample_corpus
from hf_relearn.data.sample_pictures import PICTURES_CARD_NOTE, PICTURES_NOTICE, build_sample_pictures

__all__ = [
    "EMOTION_NAMES",
    "PICTURES_CARD_NOTE",
    "PICTURES_NOTICE",
    "SAMPLE_CARD_NOTE",
    "SAMPLE_NOTICE",
    "CremadDataError",
    "build_sample_corpus",
    "build_sample_pictures",
    "prepare_cremad",
    "split_cremad",
]
