# make help lists the targets.
.DEFAULT_GOAL := help
.PHONY: help e2e sabotage test race bench charm releases options env docker lint vulnerabilities clean

GO          ?= go
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
ACTIONLINT  := github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0
SCENARIOS   ?= .*
MINUTES     ?= 90
CHARM       := concourse-ci-machine_amd64.charm

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

e2e: env ## bring the environment up, then run the scenarios on real Juju and LXD and print the report (root; SCENARIOS="auto|all" for some)
	E2E_REQUIRE=juju $(GO) test ./e2e -count=1 -v -timeout $(MINUTES)m -run 'TestScenarios/^($(SCENARIOS))$$'

sabotage: env ## break the product on purpose and demand that the suite notices (root; NAMES="..." for some)
	$(GO) run ./e2e/sabotage/cmd/sabotage $(NAMES)

test: ## run every test but the scenarios; as root also those that mount file systems, with Docker also those with a database (minutes)
	$(GO) test -timeout 15m -parallel 8 $$($(GO) list ./... | grep -v /e2e$$)

race: ## run what needs no machine with the race detector (minutes)
	$(GO) test -race -short -timeout 20m ./coordinator/... ./charm/... ./e2e/cluster/... ./e2e/judge ./e2e/record ./e2e/report ./e2e/suite

bench: ## measure the coordinator against what this machine can do at best, keep the samples in artifacts/bench.json
	@mkdir -p artifacts
	$(GO) run ./cmd/ccbench bench --export artifacts/bench.json

charm: ## pack the charm, without charmcraft
	$(GO) run ./charm/cmd/pack -o $(CHARM)

releases: ## build the Concourse releases that tests and scenarios run, once, and copy them into releases/ for E2E_RELEASES (minutes)
	@mkdir -p releases
	archives=$$($(GO) run ./cmd/ccbench releases) && for archive in $$archives; do cp "$$archive"* releases/; done

options: ## make config.yaml, docs/options.md and README's table from the table of options
	$(GO) generate ./charm/internal/options

env: ## bring up LXD and a Juju controller, or reuse what answers (root)
	$(GO) run ./cmd/ccbench env up

docker: ## bring up Docker, or reuse what answers (root)
	$(GO) run ./cmd/ccbench env docker

lint: ## gofmt, go vet for amd64 and arm64, staticcheck, actionlint, go mod tidy
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$unformatted" || { echo "run gofmt -w on:"; echo "$$unformatted"; exit 1; }
	$(GO) vet ./...
	GOARCH=arm64 $(GO) vet ./coordinator/... ./charm/...
	$(GO) run $(STATICCHECK) ./...
	$(GO) run $(ACTIONLINT)
	$(GO) mod tidy -diff

vulnerabilities: ## look for known vulnerabilities in what the charm links (network)
	$(GO) run $(GOVULNCHECK) ./coordinator/... ./charm/...

clean: ## remove what make built here; caches stay (ccbench env down --purge removes them)
	rm -rf $(CHARM) artifacts releases
