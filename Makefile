.PHONY: install format check test sample cards tables docs benchmark lowest newest

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
	python recipes/train_cremad.py

cards:
	python benchmarks/model_cards.py

tables:
	python docs/make_tables.py

docs:
	mkdocs build --strict

benchmark:
	python benchmarks/diagnosis_cost.py
	python benchmarks/scale.py
	python benchmarks/start_up.py

lowest newest:
	.ci/versions $@
