"""The packages of the wheel: those in src, and the card template and the recipes as packages of their own."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages("src"), "hf_relearn.model_cards", "hf_relearn.recipes"],
    package_dir={"": "src", "hf_relearn.model_cards": "model_cards", "hf_relearn.recipes": "recipes"},
)
