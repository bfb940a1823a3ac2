# Two commands do everything on a fresh machine with Python 3.11: `make run` and `make test`.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
CLIENTS := tests/clients
# Processes that `make test` shares its files out to. Half of its time is waiting, and each takes one to three GiB.
TEST_PROCESSES ?= 3
FAST := 'not full_size and not generator and not clients and not examples and not postgres and not slow'

.PHONY: help run test test-browser test-clients test-examples test-exports test-fast test-full-size test-crash coverage soak lint lint-openapi format docs openapi clients demo-pack demo-pack-fast demo-pack-report bench-generate bench-judging bench-console bench-encoding bench-estimate bench-filter bench-from-prompts bench-full-size bench-gpu bench-gpu-session bench-hostile bench-http-overhead bench-keys bench-leakage bench-models bench-nodes bench-overhead bench-savings bench-training constraints clean bench-fairness test-loaders test-fuzz fuzz fuzz-demo

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' Makefile

run: $(VENV)/run.stamp ## Serve the demo pack on 127.0.0.1:8000 with its background worker
	$(BIN)/foxhound migrate
	$(BIN)/foxhound serve

test: $(VENV)/dev.stamp ## Run the suite, but for killed processes, browsers, exported models, loaders and full-size models
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder --ignore=tests/crash

test-fast: $(VENV)/dev.stamp ## Run the unit and API tests on SQLite, without the slow ones: minutes
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder -m $(FAST) tests/unit tests/api

coverage: $(VENV)/dev.stamp ## Measure which lines and branches of app the unit, API and parity tests reach, on SQLite
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder --cov \
		-m 'not full_size and not generator and not clients and not examples and not postgres' tests/unit tests/api tests/parity

test-browser: $(VENV)/dev.stamp $(CLIENTS)/node_modules/npm.stamp ## Open pages in the system's Chromium: about a minute
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m browser tests/browser

test-exports: $(VENV)/dev.stamp ## Export models and run them without our code: minutes
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m generator tests/parity

test-loaders: $(VENV)/dev.stamp ## Load exported datasets with the libraries that they are for: a minute
	$(BIN)/python -m pytest -m loaders tests/loaders

test-full-size: $(VENV)/dev.stamp ## Run the sd15 pack's loading code on full-size random weights: minutes and gigabytes
	$(BIN)/python -m pytest -m full_size tests/full_size

test-crash: $(VENV)/dev.stamp ## Kill, cut off and fill up nodes at every point, and fifty times at random on each database
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder tests/crash
	$(BIN)/python -m pytest tests/crash/control_kills.py tests/crash/soak_kills.py

# Node 20 and npm; the linters and generators are pinned in tests/clients/package-lock.json.

lint-openapi: $(CLIENTS)/node_modules/npm.stamp ## Lint both OpenAPI files with Redocly, Spectral and OWASP's rules
	$(CLIENTS)/lint.sh docs/openapi.json
	$(CLIENTS)/lint.sh docs/openapi.compat.json

clients: $(VENV)/dev.stamp $(CLIENTS)/node_modules/npm.stamp ## Regenerate clients/typescript and the types of foxhound_client from docs/openapi.json
	$(BIN)/python clients/python.py
	cd $(CLIENTS) && npx openapi-ts -f openapi-ts.config.mjs

test-clients: $(VENV)/dev.stamp build/clients/ready.stamp $(CLIENTS)/node_modules/npm.stamp ## Generate, compile and run clients: minutes
	$(BIN)/python -m pytest -m clients tests/clients

test-examples: $(VENV)/dev.stamp $(CLIENTS)/node_modules/npm.stamp ## Run every example twice in a row and after a kill: minutes
	$(BIN)/python -m pytest -m examples tests/examples

test-fuzz: $(VENV)/dev.stamp build/fuzz/ready.stamp ## Test the contract with schemathesis, three examples an operation: three minutes
	$(BIN)/python -m pytest --numprocesses 2 -m fuzz tests/fuzz

fuzz: $(VENV)/dev.stamp build/fuzz/ready.stamp ## Test the contract with schemathesis, 200 examples an operation, on both databases
	FUZZ_EXAMPLES=200 $(BIN)/python -m pytest -m fuzz -s tests/fuzz

fuzz-demo: $(VENV)/dev.stamp build/fuzz/ready.stamp ## Test a node with the demo pack with schemathesis
	$(BIN)/python -m pytest -m fuzz -s tests/fuzz/demo_pack.py

soak: $(VENV)/dev.stamp ## Load a node with random requests, disconnects and faults for 20 minutes, and look for leaks
	$(BIN)/python -m bench.soak --minutes 20

lint: $(VENV)/dev.stamp ## Check formatting, lint, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy app bench demo_pack examples foxhound_client testing tests
	$(BIN)/lint-imports

format: $(VENV)/dev.stamp ## Put the code into its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/dev.stamp ## Regenerate the pages of docs/ that follow from the code
	$(BIN)/python docs/generate.py

openapi: $(VENV)/dev.stamp ## Regenerate docs/openapi.json and docs/openapi.compat.json
	$(BIN)/foxhound openapi docs/openapi.json
	$(BIN)/foxhound openapi --compat docs/openapi.compat.json

demo-pack: $(VENV)/dev.stamp ## Draw and train the demo pack again, in build/demo: about three hours on two cores
	OMP_NUM_THREADS=$$(nproc) $(BIN)/python -m demo_pack.build all

demo-pack-fast: $(VENV)/dev.stamp ## Distil the shipped demo pack to four steps again: about an hour on two cores
	OMP_NUM_THREADS=$$(nproc) $(BIN)/python -m demo_pack.build few-step --workdir build/demo-fast

demo-pack-report: $(VENV)/dev.stamp ## Measure the shipped demo pack against its targets: about 25 minutes on two cores
	OMP_NUM_THREADS=$$(nproc) $(BIN)/python -m bench.demo_pack

bench-generate: $(VENV)/dev.stamp ## Measure /generate beside three other ways to serve the demo pack
	$(BIN)/python -m bench.generate

bench-judging: $(VENV)/dev.stamp ## Measure /clip-score and /classify beside LitServe and infinity
	$(BIN)/python -m bench.judging

bench-encoding: $(VENV)/dev.stamp ## Measure what writing an image costs, by format and setting
	$(BIN)/python -m bench.encoding

bench-console: $(VENV)/dev.stamp ## Time the lists of the console over 100,000 images
	$(BIN)/python -m bench.console

bench-estimate: $(VENV)/dev.stamp ## Compare dry runs with what the datasets take, idle and loaded: minutes
	$(BIN)/python -m bench.estimate

bench-filter: $(VENV)/dev.stamp ## Compare CLIP filters on a half-mislabelled set: about two minutes on two cores
	OMP_NUM_THREADS=$$(nproc) $(BIN)/python -m bench.filter

bench-fairness: $(VENV)/dev.stamp ## Measure how two callers with 1 and 20 requests share an engine: ten minutes
	$(BIN)/python -m bench.fairness

bench-hostile: $(VENV)/dev.stamp ## Attack a node in every known way beside a good client: about six minutes
	$(BIN)/python -m bench.hostile

bench-http-overhead: $(VENV)/dev.stamp ## Measure /classify with a fake engine beside bare Starlette: a minute
	$(BIN)/python -m bench.http_overhead

bench-keys: $(VENV)/dev.stamp ## Measure what the check of an API key costs a request: a minute
	$(BIN)/python -m bench.keys

bench-leakage: $(VENV)/dev.stamp ## Measure which CLIP cosine tells copies from other pictures of a prompt
	$(BIN)/python -m bench.leakage

bench-training: $(VENV)/dev.stamp ## Time a train job beside the tutorial's loop and scikit-learn, on photographs
	$(BIN)/python -m bench.training

bench-from-prompts: $(VENV)/dev.stamp ## Train from prompts alone, each part switched off, and test on emoji by others
	$(BIN)/python -m bench.from_prompts

bench-gpu: $(VENV)/dev.stamp ## Measure Stable Diffusion v1.5 with random weights on a GPU
	$(BIN)/python -m bench.gpu

bench-models: $(VENV)/dev.stamp ## Load and evict models under load, beside one model: a few minutes
	$(BIN)/python -m bench.models

bench-gpu-session: $(VENV)/dev.stamp ## Measure everything that a GPU is wanted for, in one call of at most ten minutes
	$(BIN)/python -m bench.gpu.session

bench-full-size: $(VENV)/dev.stamp ## Compare a step of Stable Diffusion v1.5 on the CPU with diffusers, torch.compile and OpenVINO
	$(BIN)/python -m bench.full_size

bench-savings: $(VENV)/dev.stamp ## Measure what is computed once in place of in every step, by turns
	$(BIN)/python -m bench.savings

bench-nodes: $(VENV)/dev.stamp ## Measure one, two and three nodes that share a job, a dead node and a lost database
	$(BIN)/python -m bench.nodes

bench-overhead: $(VENV)/dev.stamp ## Measure what a dataset job costs beside drawing its images
	$(BIN)/python -m bench.overhead

constraints: ## Pin the newest versions that pyproject.toml allows, from a fresh environment
	rm -rf build/constraints
	$(PYTHON) -m venv build/constraints
	build/constraints/bin/python -m pip install --quiet '.[dev]'
	build/constraints/bin/python -m pip freeze --exclude foxhound > build/constraints.txt
	mv build/constraints.txt constraints.txt
	rm -rf build/constraints

clean: ## Remove the environment and everything built
	rm -rf $(VENV) build dist *.egg-info

# Stamps, not the files themselves: an installation that was interrupted is repeated.
$(VENV)/venv.stamp:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/run.stamp: pyproject.toml constraints.txt | $(VENV)/venv.stamp
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(CLIENTS)/node_modules/npm.stamp: $(CLIENTS)/package.json $(CLIENTS)/package-lock.json
	cd $(CLIENTS) && npm ci --loglevel=error
	touch $@

# An environment of its own: the generator needs an older typer.
build/clients/ready.stamp: $(CLIENTS)/requirements.txt
	$(PYTHON) -m venv build/clients
	build/clients/bin/python -m pip install --quiet --requirement $(CLIENTS)/requirements.txt
	touch $@

# An environment of its own: what tests a node should not decide which packages the node runs on.
build/fuzz/ready.stamp: tests/fuzz/requirements.txt
	$(PYTHON) -m venv build/fuzz
	build/fuzz/bin/python -m pip install --quiet --requirement tests/fuzz/requirements.txt
	touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(VENV)/venv.stamp
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(VENV)/run.stamp $@
