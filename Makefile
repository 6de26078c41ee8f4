PYTHON ?= python3
INSTALLED := .venv/.installed
RUNS := runs/organism runs/toxicity runs/knowledge runs/evidence runs/sensitivity runs/replication
AUDIT := .venv/.audit/bin/pip-audit

.PHONY: test coverage mutation reproduce quick toxicity knowledge evidence sensitivity replication figures check-numbers lint docs notebooks benchmarks wheel try-wheel audit clean

test: $(INSTALLED)
	HF_HUB_OFFLINE=1 .venv/bin/pytest -rs -n auto --maxprocesses 8 --dist worksteal

reproduce: $(INSTALLED)
	HF_HUB_OFFLINE=1 .venv/bin/interp-unlearn reproduce --out runs/organism

quick: $(INSTALLED)
	HF_HUB_OFFLINE=1 .venv/bin/interp-unlearn reproduce --quick --out runs/quick

# Every method of unlearning toxicity beside the others: one search for all, five seeds; about four hours on two cores.
toxicity: $(INSTALLED)
	HF_HUB_OFFLINE=1 .venv/bin/interp-unlearn compare --out runs/toxicity

# The same of unlearning knowledge, with ablations of the hardened method; about eight hours on two cores.
knowledge: $(INSTALLED)
	HF_HUB_OFFLINE=1 .venv/bin/interp-unlearn compare --goal knowledge --out runs/knowledge

# Attacks on unlearned models of both goals, and their changes of the weights taken apart; hours on two cores.
evidence: $(INSTALLED)
	HF_HUB_OFFLINE=1 .venv/bin/interp-unlearn evidence --out runs/evidence

# The factorial with other forget sets, steps and trained tensors, one changed at a time.
sensitivity: $(INSTALLED)
	HF_HUB_OFFLINE=1 .venv/bin/interp-unlearn sensitivity --out runs/sensitivity

# The factorial on every organism until eight have passed their gates, which took ten, nine of them built here: six hours
# on two cores. Where rounding differs, others may fail; then `--organisms` takes as many as it needs.
replication: $(INSTALLED)
	HF_HUB_OFFLINE=1 .venv/bin/interp-unlearn replicate --organisms 10 --out runs/replication

# What the finished studies found becomes the figures and tables of README and docs.
figures: $(INSTALLED)
	.venv/bin/python figures/publish.py $(wildcard $(RUNS))

# Is every number in README and docs what its command makes? Without the runs: has anything been changed by hand since?
check-numbers: $(INSTALLED)
	.venv/bin/python figures/publish.py --check $(wildcard $(RUNS))
	.venv/bin/python docs/write_sites.py --check
	.venv/bin/python docs/write_architecture.py --check
	.venv/bin/python -m benchmarks --check

lint: $(INSTALLED)
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/pyright

# Known vulnerabilities of everything that the constraints have installed, as PyPI lists them. Where its advisories cannot
# be had nothing is audited, and that fails too: pip-audit alone would only leave out what it could not ask about.
audit: $(AUDIT) .venv/.docs
	@.venv/bin/python -m pip list --disable-pip-version-check --format freeze --exclude-editable \
	    | sed 's/+[a-z0-9.]*$$//' > .venv/.audit/installed.txt
	@$(AUDIT) --strict --no-deps --disable-pip --progress-spinner off -r .venv/.audit/installed.txt \
	    > .venv/.audit/report.txt 2>&1; code=$$?; cat .venv/.audit/report.txt; \
	    grep -q "known vulnerabilit" .venv/.audit/report.txt || echo "NOT AUDITED: the advisories could not be had"; \
	    exit $$code

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

# A wheel, built from a copy of what git does not ignore, so that nothing left over in the checkout gets into it.
wheel: $(INSTALLED)
	rm -rf build/wheel dist
	mkdir -p build/wheel dist
	git ls-files -z --cached --others --exclude-standard | xargs -0 tar --create --ignore-failed-read | tar --extract --directory build/wheel
	.venv/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist ./build/wheel

# The wheel as a user has it: installed elsewhere, tried from a folder without the sources, type-checked from outside.
# TRY="" leaves out the study at the end, which takes minutes.
TRY ?= --reproduce
try-wheel: wheel
	$(PYTHON) tests/downstream/try_wheel.py dist/*.whl $(TRY)

# The suite with coverage of lines and branches, and of which test reaches which line.
coverage: .venv/.mutation
	HF_HUB_OFFLINE=1 .venv/bin/pytest -q -n auto --maxprocesses 8 --dist worksteal --cov=interp_unlearn --cov-branch \
	    --cov-context=test --cov-report=term:skip-covered --cov-fail-under=95

# How many of 300 small faults in the code the tests notice; after `make coverage`; hours.
mutation: .venv/.mutation
	HF_HUB_OFFLINE=1 .venv/bin/python -m benchmarks.mutation

# Everything is installed through the constraints: an open range on torch would pull several GB of CUDA packages.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

.venv/.mutation: $(INSTALLED)
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[mutation]'
	touch $@

.venv/.docs: $(INSTALLED)
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

# In an environment of its own: its requirements are not the package's.
$(AUDIT): $(INSTALLED)
	$(PYTHON) -m venv .venv/.audit
	.venv/.audit/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt pip-audit

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
