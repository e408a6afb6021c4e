# make demo   sets up .venv, then train → compress → bench → report on synthetic faces (ten minutes at most on two cores)
# make test   sets up the same .venv, then every check: style, types, direction of imports, tests

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo
# Faces are small: one wrongly spinning thread pool beside another costs more than a second core brings.
export OMP_WAIT_POLICY = PASSIVE

.PHONY: demo test lint types pytest readme card faults docs clean

demo: $(VENV)/installed
	@echo "== 1/4 train: a small net on 3,000 synthetic faces, generated from action units"
	rm -rf $(DEMO)
	$(BIN)/edgeemo train --recipe demo --data synthetic --out $(DEMO)
	@echo "== 2/4 compress: remove half of the channels, recover, quantize to INT8"
	$(BIN)/edgeemo compress $(DEMO) --data synthetic --prune 0.5 --epochs 6 --lr 1e-3 --int8
	@echo "== 3/4 bench: accuracy, speed and size against the gates"
	$(BIN)/edgeemo bench --engine $(DEMO)/compressed/model.int8.onnx --against $(DEMO)/compressed/original.float.onnx \
		--data synthetic --out $(DEMO)/bench.json
	@echo "== 4/4 report"
	$(BIN)/edgeemo report $(DEMO)/bench.json
	@echo "Done. Plots and tables: $(DEMO)/curves.png $(DEMO)/confusion.png $(DEMO)/bench.md"

test: $(VENV)/installed lint types pytest

lint: $(VENV)/installed
	@echo "== style and direction of imports"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

STUBS := $(VENV)/stubs/tensorrt_rtx_bindings/tensorrt_rtx.pyi

types: $(VENV)/installed $(STUBS)
	@echo "== types"
	$(BIN)/mypy

# The signatures of NVIDIA's real module; one of its 3,000 lines is not valid Python (a default before a parameter without one).
$(STUBS): $(VENV)/installed
	@if $(BIN)/python -c 'import tensorrt_rtx' 2>/dev/null; then \
		$(BIN)/stubgen --quiet --inspect-mode -m tensorrt_rtx_bindings.tensorrt_rtx -o $(VENV)/stubs && \
		sed -i 's/channel_axis: typing.SupportsInt)/channel_axis: typing.SupportsInt = ...)/' $@; \
	else echo "TensorRT for RTX is not installed: calls of TensorRT are not type-checked"; fi

pytest: $(VENV)/installed
	@echo "== tests"
	$(BIN)/pytest

$(VENV)/installed: pyproject.toml constraints.txt
	@echo "== setting up $(VENV): PyTorch and friends, a few GB, one to five minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch torchvision
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

readme: $(VENV)/installed
	$(BIN)/python benchmarks/readme.py

card: $(VENV)/installed
	$(BIN)/python benchmarks/card_page.py

faults: $(VENV)/installed
	$(BIN)/python benchmarks/fault_table.py

# Not --quiet, with which MkDocs counts no warnings.
docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "Done: site/index.html"

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	@touch $@

clean:
	rm -rf $(VENV) $(DEMO) site
