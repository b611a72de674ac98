PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: venv demo test test-fast lint bench tables campaign mutants coverage

venv: $(VENV)/.installed

$(VENV)/.installed: requirements.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

# A simulated task (made once), and two folds of training on it.
demo: venv demo/.made
	rm -rf demo/results
	$(BIN)/python main.py --task simulated --feature_extractor tinyclip --vlm_path demo/tinyclip \
	  --data_root_dir demo/features --dataset_csv demo/simulated.csv --text_prompt demo/simulated.json \
	  --split_dir demo/splits/simulated_4 --few_shot_num 4 --k 2 --lr 1e-3 --max_epochs 30 --early_stopping \
	  --results_dir demo/results

demo/.made: $(VENV)/.installed create_simulated_task.py datasets/simulate.py models/tiny_clip.py
	rm -rf demo
	$(BIN)/python create_simulated_task.py --output-dir demo --shots 4 --folds 2
	touch $@

test: venv
	$(BIN)/python -m pytest -n auto --maxprocesses 4

# What one runs while editing: no scripts, no training.
test-fast: venv
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 -m "not slow"

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml .
	.ci/audit $(BIN)/pip-audit

# Speed and memory: over an hour on two cores. benchmarks/README.md says what is measured.
bench: venv
	for part in model baselines loading extraction hierarchy; do $(BIN)/python -m benchmarks.$$part || exit 1; done

# Every model, and the ablations of Tables 2, 3, 12 and 14, on a harder simulated task, with the report: two to three
# hours on two cores. Called again, it goes on where it stopped.
tables: venv simulation/.made
	$(BIN)/python run_experiments.py --local --grid experiments/simulated.yaml --results_dir simulation/results
	$(BIN)/python report_results.py simulation/results --output-dir simulation/report

simulation/.made: $(VENV)/.installed create_simulated_task.py datasets/simulate.py models/tiny_clip.py
	rm -rf simulation
	$(BIN)/python create_simulated_task.py --output-dir simulation --shots 4 8 16 --folds 5 --slides-per-class 32 \
	  --min-parents 12 --max-parents 36 --confounder-share 0.1
	touch $@

# Kills, full disks, damaged inputs and senseless options against every script: hours on two cores. Options of
# tests/campaign/__main__.py stand in CAMPAIGN: make campaign CAMPAIGN="--kills 5 --only predict".
campaign: venv
	$(BIN)/python -m tests.campaign $(CAMPAIGN)

# Breaks the code on purpose, a line at a time, and runs the tests that must see it.
mutants: venv
	$(BIN)/python -m tests.campaign.mutants $(MUTANTS)

# Lines that the tests run, package by package.
coverage: venv
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --cov --cov-report=json:.coverage.json $(COVERAGE)
	$(BIN)/python -m tests.campaign.coverage .coverage.json
