# Every target sets itself up: `make demo` and `make test` work as the first command after a clone.

# lite: the bundled stand-in, if upstream is not installed. upstream: the real one, compiled.
DETECTRON2 ?= lite
# 1: every requirement at the lower bound that setup.py states, with the lowest Python.
LOWEST ?=
# Each of these choices has an environment of its own.
VENV ?= .venv$(if $(filter upstream,$(DETECTRON2)),-upstream)$(if $(LOWEST),-lowest)
PYTHON ?= $(if $(LOWEST),python3.10,python3)
# Another torch than the newest, for example TORCH="torch==2.8.0 torchvision==0.23.0".
TORCH ?= torch torchvision
TEST_PROCESSES ?= 2

BIN := $(VENV)/bin
READY := $(VENV)/.ready
WEB := $(VENV)/.web
SITE := $(VENV)/.docs
LOG := $(VENV)/setup.log
# Runs a command silently; its output is shown only if it fails.
logged = { $(1) >> $(LOG) 2>&1 || { tail -n 20 $(LOG); echo "error: set-up failed, see $(LOG)"; exit 1; }; }
# The commit that the suite was run on; or the path of a checkout.
UPSTREAM ?= git+https://github.com/facebookresearch/detectron2.git@02b5c4e295e990042a714712c21dc79b731e8833
COMMA := ,
# Not with LOWEST: torch 2.6 cannot export these models, and onnx needs a newer protobuf than tensorboard
# lets there be.
EXTRAS := dev$(if $(LOWEST),,$(COMMA)onnx)
BOUNDS := $(if $(LOWEST),--constraint $(VENV)/lowest.txt)

.PHONY: help setup demo web docs test test-web test-upstream lint format bench clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' Makefile
	@echo "With every target: DETECTRON2=upstream (the real one, needs a compiler), LOWEST=1 (all"
	@echo "requirements at their lower bounds, needs Python 3.10), PYTHON=python3.12, TORCH=torch==2.8.0"

setup: ## create .venv and install everything
	@echo "== Setting up $(VENV): a few minutes and about 6 GB, once (log: $(LOG))"
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 10) <= v <= (3, 13) or \
	  sys.exit("error: Python %d.%d is not supported; give one of 3.10-3.13: make PYTHON=python3.12 ..." % v)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "== 1/3 torch"
	@$(call logged,$(BIN)/pip install --upgrade pip setuptools wheel)
	@$(if $(LOWEST),$(BIN)/python .ci/lowest.py > $(VENV)/lowest.txt)
	@$(call logged,$(BIN)/pip install $(BOUNDS) $(TORCH))
	@echo "== 2/3 zss_d2 and what it needs"
	@$(call logged,$(BIN)/pip install $(BOUNDS) --editable '.[$(EXTRAS)]')
	@echo "== 3/3 detectron2 ($(DETECTRON2))"
ifeq ($(DETECTRON2),upstream)
	@$(call logged,$(BIN)/pip install $(BOUNDS) --no-build-isolation '$(UPSTREAM)')
else
	@$(BIN)/python -c 'import detectron2; assert "lite" not in detectron2.__version__' 2>/dev/null || \
	  $(call logged,$(BIN)/pip install $(BOUNDS) --editable ./detectron2_lite)
endif
	@touch $(READY)
	@echo "== Ready"

$(READY): setup.py detectron2_lite/setup.py detectron2_lite/detectron2/__init__.py
	@$(MAKE) --no-print-directory setup

SCENES := val_00027.png val_00062.png
demo: export DETECTRON2_DATASETS ?= output/demo/datasets
demo: $(READY) ## mini world: MaskCLIP against a trained LDVC, a table, a report, scenes labelled with free words
	$(BIN)/python datasets/prepare_mini.py
	$(BIN)/zss sweep configs/maskclip_mini.yaml configs/ldvc_mini.yaml --output output/demo \
	  --opts TEST.PREDICTIONS png
	$(BIN)/zss panel output/demo/maskclip_mini/seed0 output/demo/ldvc_mini/seed0 \
	  --output output/demo/panel.png
	$(BIN)/zss report output/demo/maskclip_mini/seed0 output/demo/ldvc_mini/seed0 \
	  --output output/demo/report
	@rm -rf output/demo/predict
	$(BIN)/zss predict $(addprefix $(DETECTRON2_DATASETS)/zss/mini/images/val/,$(SCENES)) \
	  --config-file output/demo/ldvc_mini/seed0 --output output/demo/predict --sheet \
	  --classes "yellow meshed thing" "purple plain thing" wood \
	  --background snow tile grass water "red dotted thing" "red meshed thing" "purple meshed thing"
	@echo "== Labelled with words that were never training labels: output/demo/predict/sheet.png"

$(WEB): $(READY)
	@echo "== Installing what the web page needs (log: $(LOG))"
	@$(call logged,$(BIN)/pip install --editable '.[web]')
	@touch $(WEB)

web: $(WEB) ## a page that labels images with words, by the models that were trained here
	@test -e output/demo/ldvc_mini/seed0/model_final.pth || \
	  echo "== Without LDVC, which make demo trains"
	$(BIN)/zss web

$(SITE): $(READY)
	@echo "== Installing what the docs need (log: $(LOG))"
	@$(call logged,$(BIN)/pip install --editable '.[docs]')
	@touch $(SITE)

docs: $(SITE) ## the docs as a site, output/site/index.html; a link that leads nowhere is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	@echo "== output/site/index.html"

# Tests start Python hundreds of times; where bytecode is kept each of them is 0.6 s faster.
test test-web test-upstream: export PYTHONDONTWRITEBYTECODE =

test: $(READY) ## run the whole test suite
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist worksteal

test-web: $(WEB) ## run the tests of the web page; those in a browser where Chromium is installed
	@$(call logged,$(BIN)/pip install --editable '.[browser]')
	$(BIN)/python -m pytest tests/web

test-upstream: $(READY) ## run the contract suite on a checkout of upstream Detectron2, if at hand
	@VENV=$(VENV) TEST_PROCESSES=$(TEST_PROCESSES) .ci/upstream

lint: $(READY) ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY) ## fix style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## measure speed and memory
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean: ## remove the environment and what runs have written
	rm -rf $(VENV) output
