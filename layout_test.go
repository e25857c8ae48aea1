// Package layout_test holds the rules of the house: what may import what.
package layout_test

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/concourse-ci-machine/concourse-ci-machine/"

type pkg struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
	Deps                               []string // without those of tests
}

func list(t *testing.T, patterns ...string) []pkg {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports,TestImports,XTestImports,Deps"}, patterns...)...).Output()
	require.NoError(t, err)
	var pkgs []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else {
			require.NoError(t, err)
		}
		pkgs = append(pkgs, p)
	}
}

// One package of the charm speaks with Juju's hook tools, so that all others can be tested
// without them.
func TestOneImporterOfHookTools(t *testing.T) {
	var importers []string
	for _, p := range list(t, "./charm/...") {
		for _, imported := range p.Imports {
			if strings.HasPrefix(imported, "github.com/gruyaume/goops") {
				importers = append(importers, strings.TrimPrefix(p.ImportPath, module))
			}
		}
	}
	require.Equal(t, []string{"charm/internal/juju"}, importers)
}

// TestImportsRunDownwards keeps the coordinator free of the charm, the charm
// free of the suite, and scenarios free of Juju and LXD.
func TestImportsRunDownwards(t *testing.T) {
	rules := []struct {
		below, above string
	}{
		{"coordinator", "charm"}, {"coordinator", "e2e"}, {"coordinator", "bench"}, {"coordinator", "cmd"},
		{"charm", "e2e"}, {"charm", "bench"}, {"charm", "cmd"},
		{"e2e", "bench"}, {"e2e", "cmd"},
		{"internal", "coordinator"}, {"internal", "charm"}, {"internal", "e2e"}, {"internal", "bench"}, {"internal", "cmd"},
		// The supervisor knows no Juju, and settings are plain maps.
		{"charm/internal/supervisor", "charm/internal/juju"}, {"charm/internal/supervisor", "charm/internal/plan"},
		{"charm/internal/relations", "charm/internal/juju"}, {"charm/internal/relations", "charm/internal/supervisor"},
		{"charm/internal/options", "charm/internal/concourse"}, {"charm/internal/options", "charm/internal/juju"},
		{"charm/internal/options", "charm/internal/plan"}, {"charm/internal/options", "charm/internal/supervisor"},
		{"charm/internal/juju", "charm/internal/relations"}, {"charm/internal/juju", "charm/internal/supervisor"},
		// The simulation is for tests.
		{"charm/cmd", "charm/sim"}, {"charm/internal", "charm/sim"}, {"charm/pack", "charm/sim"}, {"charm/product", "charm/sim"},
	}
	// The suite's floors, from the lowest: each knows those above it in this list only.
	floors := []string{
		"e2e/cluster", "e2e/observation", "e2e/judge", "e2e/report", "e2e/fixtures", "e2e/juju", "e2e/record", "e2e/scenarios", "e2e/suite",
	}
	for i, floor := range floors {
		for _, higher := range floors[i+1:] {
			rules = append(rules, struct{ below, above string }{floor, higher})
		}
	}
	for _, substrate := range []string{"e2e/juju", "e2e/fixtures"} {
		for _, above := range []string{"e2e/judge", "e2e/report", "e2e/record", "e2e/scenarios"} {
			rules = append(rules, struct{ below, above string }{above, substrate})
		}
	}
	within := func(path, dir string) bool {
		return path == module+dir || strings.HasPrefix(path, module+dir+"/")
	}
	for _, p := range list(t, "./...") {
		for _, rule := range rules {
			if !within(p.ImportPath, rule.below) {
				continue
			}
			for _, imported := range p.Imports {
				if within(imported, rule.above) {
					t.Errorf("%s imports %s: %s must know nothing of %s", p.ImportPath, imported, rule.below, rule.above)
				}
			}
		}
	}
}

// TestHeavyDependenciesHaveOneHome keeps Juju's and LXD's libraries, and what
// they pull in, out of everything but the packages that talk to them.
func TestHeavyDependenciesHaveOneHome(t *testing.T) {
	for _, p := range list(t, "./coordinator/...", "./charm/...", "./e2e/cluster/...", "./e2e/judge/...", "./e2e/record/...", "./e2e/scenarios/...") {
		for _, dep := range p.Deps {
			for _, heavy := range []string{"github.com/juju/juju/", "github.com/canonical/lxd/"} {
				if strings.HasPrefix(dep, heavy) {
					t.Errorf("%s links %s", p.ImportPath, dep)
				}
			}
		}
	}
}

// Containers are for tests, and one package speaks with Docker for them: no product links
// its client.
func TestContainersAreForTests(t *testing.T) {
	const home = module + "internal/postgrestest"
	for _, p := range list(t, "./...") {
		if p.ImportPath == home {
			continue
		}
		for _, linked := range slices.Concat(p.Deps, p.TestImports, p.XTestImports) {
			for _, container := range []string{"github.com/testcontainers/", "github.com/moby/moby/", "github.com/docker/"} {
				if strings.HasPrefix(linked, container) {
					t.Errorf("%s links %s", p.ImportPath, linked)
				}
			}
		}
	}
}

// Of the suite, the charm's tests know where its genuine releases are, and nothing else.
func TestTheCharmsTestsKnowNoSuite(t *testing.T) {
	for _, p := range list(t, "./charm/...") {
		for _, imported := range slices.Concat(p.TestImports, p.XTestImports) {
			if strings.HasPrefix(imported, module+"e2e/") && imported != module+"e2e/fixtures/release/releasetest" {
				t.Errorf("tests of %s import %s", p.ImportPath, imported)
			}
		}
	}
}

// TestTheCoordinatorNamesNoProduct keeps what the library is used for out of it: who
// uses it says so with a coordinator.Product.
func TestTheCoordinatorNamesNoProduct(t *testing.T) {
	named := regexp.MustCompile(`(?i)concourse|juju|\blx[cd]\b`)
	err := filepath.WalkDir("coordinator", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		data, err := os.ReadFile(path)
		for n, line := range strings.Split(string(data), "\n") {
			if named.MatchString(strings.ReplaceAll(line, module, "")) {
				t.Errorf("%s:%d: %s", path, n+1, line)
			}
		}
		return err
	})
	require.NoError(t, err)
}

// The tests that the documents name are there.
func TestDocumentsNameTests(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("docs", "coverage.md"))
	require.NoError(t, err)
	var tests strings.Builder
	for _, pattern := range []string{"*_test.go", "*/*_test.go", "*/*/*_test.go", "*/*/*/*_test.go", "*/*/*/*/*_test.go"} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, path := range files {
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			tests.Write(text)
		}
	}
	named := regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(string(text), -1)
	require.NotEmpty(t, named)
	for _, name := range named {
		require.True(t, strings.Contains(tests.String(), "\nfunc "+name[1]+"(t *testing.T)"), "no %s", name[1])
	}
}
