"""The packages of the wheel: those in src, and the card template of model_cards/ as one of its own."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages("src"), "hf_relearn.model_cards"],
    package_dir={"": "src", "hf_relearn.model_cards": "model_cards"},
)
