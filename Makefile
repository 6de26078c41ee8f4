PYTHON ?= python3
INSTALLED := .venv/.installed

.PHONY: test reproduce quick toxicity knowledge figures lint docs notebooks benchmarks clean

test: $(INSTALLED)
	HF_HUB_OFFLINE=1 .venv/bin/pytest -rs -n auto --maxprocesses 8 --dist worksteal

reproduce: $(INSTALLED)
	HF_HUB_OFFLINE=1 .venv/bin/interp-unlearn reproduce --out runs/organism

quick: $(INSTALLED)
	HF_HUB_OFFLINE=1 .venv/bin/interp-unlearn reproduce --quick --out runs/quick

# Every method of unlearning toxicity beside the others: one search for all, five seeds; about four hours on two cores.
toxicity: $(INSTALLED)
	HF_HUB_OFFLINE=1 .venv/bin/interp-unlearn compare --out runs/toxicity

# The same of unlearning knowledge, with ablations of the hardened method; about six hours.
knowledge: $(INSTALLED)
	HF_HUB_OFFLINE=1 .venv/bin/interp-unlearn compare --goal knowledge --out runs/knowledge

# What the finished studies found becomes the figures and tables of README and docs.
figures: $(INSTALLED)
	.venv/bin/python figures/publish.py $(wildcard runs/organism runs/toxicity runs/knowledge)

lint: $(INSTALLED)
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/pyright

# The documentation, into build/docs; a warning is an error. The variable silences a notice about another project.
docs: .venv/.docs
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict

# Times and memory, side by side with the plain model and other libraries; writes docs/benchmarks.md.
benchmarks: $(INSTALLED)
	.venv/bin/python -m benchmarks

# Executes the notebooks and stores their outputs in them, without times of day.
notebooks: $(INSTALLED)
	HF_HUB_OFFLINE=1 .venv/bin/jupyter nbconvert --to notebook --execute --inplace \
	    --ExecutePreprocessor.record_timing=False notebooks/*.ipynb

# Everything is installed through the constraints: an open range on torch would pull several GB of CUDA packages.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

.venv/.docs: $(INSTALLED)
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
