.PHONY: install format check test sample cards benchmark

install:
	pip install -c constraints.txt -e ".[dev]"

format:
	ruff format .
	ruff check --fix .

check:
	ruff format --check .
	ruff check .
	mypy

test:
	python -m pytest

sample:
	accelerate launch --quiet recipes/train_cremad.py

cards:
	python benchmarks/model_cards.py

benchmark:
	python benchmarks/diagnosis_cost.py
	python benchmarks/scale.py
