PYTHON ?= python3
PROFILE ?= smol
LABELERS ?= simulated
SET ?=
RUN_ID ?=
KEEP ?= 3
ENVS := $(or $(COLLOQUY_ENVS),$(CURDIR)/.envs)
PROJECT := $(ENVS)/project/bin
export PYTHONNOUSERSITE = 1
export PYTHONDONTWRITEBYTECODE = 1

.PHONY: demo up down status setup check test bench clean-runs push pull promote rollback trace help

help: ## what there is
	@grep -E '^[a-z -]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z -]+):[^#]*## /  \1\t/' | expand -t 16

setup: ## the three environments, from pinned constraints
	@$(PYTHON) -m deploy.local.environments

demo: setup ## the whole loop; PROFILE=smol|tiny LABELERS=simulated|human SET="section.key=value …"
	@$(PROJECT)/python -m deploy.local.demo --profile '$(PROFILE)' --labelers '$(LABELERS)' --set '$(SET)' --run-id '$(RUN_ID)'

up: setup ## start the local stack
	@$(PROJECT)/python -m deploy.local.stack up

down: setup ## stop it
	@$(PROJECT)/python -m deploy.local.stack down

status: setup ## what runs where
	@$(PROJECT)/python -m deploy.local.stack status

check: setup ## format, lint, types, import rules
	@$(PROJECT)/ruff format --check --quiet .
	@$(PROJECT)/ruff check --quiet .
	@$(PROJECT)/mypy --no-error-summary pipelines labeling evals serving deploy
	@PYTHONPATH=$(CURDIR) $(PROJECT)/lint-imports --no-logo

test: check ## every check and every test
	@PYTHONPATH=$(CURDIR) $(PROJECT)/python -m pytest

bench: setup ## one benchmark: NAME=loop …
	@test -f benchmarks/$(NAME).py || { echo "there is no benchmark '$(NAME)'; valid: $(patsubst benchmarks/%.py,%,$(wildcard benchmarks/*.py))"; exit 2; }
	@PYTHONPATH=$(CURDIR) $(PROJECT)/python benchmarks/$(NAME).py

push pull: setup ## artifacts to or from the DVC remote; RUN_ID=… or what is checked out; COLLOQUY_DVC_REMOTE=s3://…
	@COLLOQUY_REPO=$(CURDIR) COLLOQUY_HOME=$(or $(COLLOQUY_HOME),$(CURDIR)/.colloquy) $(PROJECT)/python -m pipelines.core.workspace $@ --run-id '$(RUN_ID)'

promote: setup ## release a run that the gate did not pass: RUN_ID=… BY="your name" REASON="why"
	@COLLOQUY_REPO=$(CURDIR) COLLOQUY_HOME=$(or $(COLLOQUY_HOME),$(CURDIR)/.colloquy) $(PROJECT)/python -m pipelines.core.workspace promote --run-id '$(RUN_ID)' --by "$$BY" --reason "$$REASON"

rollback: ## serve the version before again: BY="your name" REASON="why"
	@$(PROJECT)/python -m deploy.local.stack run serving.operations.rollback --by "$$BY" --reason "$$REASON"

trace: ## what a served answer came from: MESSAGE=<id of the answer, or of a model>
	@$(PROJECT)/python -m deploy.local.stack run serving.operations.trace '$(MESSAGE)'

clean-runs: setup ## remove workspaces of finished, unreleased runs but the newest KEEP=3
	@COLLOQUY_REPO=$(CURDIR) COLLOQUY_HOME=$(or $(COLLOQUY_HOME),$(CURDIR)/.colloquy) $(PROJECT)/python -m pipelines.core.workspace clean --keep $(KEEP)
