PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo

.PHONY: venv demo test lint

venv: $(VENV)/.installed

$(VENV)/.installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

# A simulated task (made once), and two folds of training on it.
demo: venv $(DEMO)/.made
	rm -rf $(DEMO)/results
	$(BIN)/python main.py --task simulated --feature_extractor tinyclip --vlm_path $(DEMO)/tinyclip \
	  --data_root_dir $(DEMO)/features --dataset_csv $(DEMO)/simulated.csv --text_prompt $(DEMO)/simulated.json \
	  --split_dir $(DEMO)/splits/simulated_4 --few_shot_num 4 --k 2 --lr 1e-3 --max_epochs 30 --early_stopping \
	  --results_dir $(DEMO)/results

$(DEMO)/.made: $(VENV)/.installed create_simulated_task.py datasets/simulate.py models/tiny_clip.py
	rm -rf $(DEMO)
	$(BIN)/python create_simulated_task.py --output-dir $(DEMO) --shots 4 --folds 2
	touch $@

test: venv
	$(BIN)/python -m pytest -n 2

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
