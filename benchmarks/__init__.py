"""What the package costs, measured side by side in one run: `python -m benchmarks` writes docs/benchmarks.md.

Each benchmark is a module with `measure(...) -> DataFrame`; its last result is kept in `results/`, from which the page
is made. Ratios count, absolute times are those of one machine.
"""
