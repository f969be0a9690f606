# What a contributor runs, under short names: `make help` lists them. Each line is a command that works as it stands, too.
.PHONY: help checks test slow docs

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /make \1\t/'

checks: ## what must hold before a commit: style, types, imports, the rules of the house (a minute or two)
	ruff check .
	ruff format --check .
	lint-imports --no-cache
	mypy
	pytest -q -n 0 tests/architecture

test: ## the default tier, as README's second command runs it (minutes)
	pytest

slow: ## the slow tier, which runs in .ci/run, too
	pytest -m slow

docs: ## pages of all modules, from their docstrings, in docs/api (needs the extra `docs`)
	python -W 'ignore:Error parsing type annotation' -m pdoc r1_lightning --docformat google --output-directory docs/api
