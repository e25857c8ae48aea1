package sabotage

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/suite"
)

// demands are rules that a scenario applies itself.
var demands = []string{"undisturbed", "unhurried", "web-gap", "resolves-names", "no-old-service", "ready-is-listed", "stops-where-it-fails"}

// Every patch applies to what is checked out, and names a scenario and a rule, or a test,
// that exist.
func TestPatches(t *testing.T) {
	all, err := Read(".")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(all), 15)
	scenarios := map[string]bool{}
	for _, sc := range suite.All() {
		scenarios[sc.Name] = true
	}
	rules := map[string]bool{}
	for _, r := range append(judge.Always(), judge.Seen()) {
		rules[r.Name] = true
	}
	for _, name := range demands {
		rules[name] = true
	}
	root := filepath.Join("..", "..")
	for _, s := range all {
		t.Run(s.Name, func(t *testing.T) {
			require.Regexp(t, `^[A-Z].*\.$`, s.Promise, "the promise is a sentence")
			if s.By.Test == "" {
				require.True(t, scenarios[s.By.Scenario], "no scenario %s", s.By.Scenario)
				require.True(t, rules[s.Rule], "no rule %s", s.Rule)
			} else {
				tests, err := filepath.Glob(filepath.Join(root, s.By.Package, "*_test.go"))
				require.NoError(t, err)
				require.True(t, slices.ContainsFunc(tests, func(path string) bool {
					text, err := os.ReadFile(path)
					require.NoError(t, err)
					return strings.Contains(string(text), "\nfunc "+s.By.Test+"(t *testing.T)")
				}), "no test %s", s.By)
			}
			check := exec.CommandContext(t.Context(), "git", "apply", "--check", s.path)
			check.Dir = root
			out, err := check.CombinedOutput()
			require.NoError(t, err, "%s", out)
		})
	}
}

// inCode finds what a text has in backquotes.
var inCode = regexp.MustCompile("`([a-z-]+)`")

// The documents name each sabotage with what must notice it, and the rules without one.
func TestDocuments(t *testing.T) {
	all, err := Read(".")
	require.NoError(t, err)
	readme, err := os.ReadFile(filepath.Join("..", "README.md"))
	require.NoError(t, err)
	coverage, err := os.ReadFile(filepath.Join("..", "..", "docs", "coverage.md"))
	require.NoError(t, err)
	_, list, found := strings.Cut(string(coverage), "These rules have none yet:")
	require.True(t, found)
	list, _, _ = strings.Cut(list, ".")

	broken := map[string]bool{}
	for _, s := range all {
		broken[s.Rule] = true
		row := fmt.Sprintf("\n| %s | %s | `%s` | ", s.Name, s.By.Scenario, s.Rule)
		if s.By.Test != "" {
			row = fmt.Sprintf("\n| %s | | `%s` in `%s` | ", s.Name, s.By.Test, s.By.Package)
		}
		require.True(t, strings.Contains(string(readme), row), "the README has no row %q", row)
	}
	var none []string
	for _, rule := range append(judge.Always(), judge.Seen()) {
		if !broken[rule.Name] {
			none = append(none, rule.Name)
		}
	}
	var listed []string
	for _, name := range inCode.FindAllStringSubmatch(list, -1) {
		listed = append(listed, name[1])
	}
	require.ElementsMatch(t, none, listed)
	_, table, _ := strings.Cut(string(readme), "| sabotage |")
	require.Equal(t, len(all)+1, strings.Count(table, "\n| "), "rows of sabotages that are gone")
}

func TestParse(t *testing.T) {
	const hunk = "\n--- a/x\n+++ b/x\n"
	const promise, scenario, rule, test = "Promise: It works.\n", "Scenario: auto\n", "Rule: one-download\n", "Test: ./e2e/record TestSettle\n"
	for text, want := range map[string]Sabotage{
		promise + scenario + rule:                     {By: By{Scenario: "auto"}, Rule: "one-download"},
		promise + scenario + rule + "Together: yes\n": {By: By{Scenario: "auto"}, Rule: "one-download", Together: true},
		promise + test:                                {By: By{Package: "./e2e/record", Test: "TestSettle"}},
	} {
		want.Name, want.Promise = "x", "It works."
		s, err := parse("x", text+hunk)
		require.NoError(t, err)
		require.Equal(t, want, s)
	}
	for _, text := range []string{
		scenario + rule + hunk,
		promise + rule + hunk,
		promise + scenario + hunk,
		promise + hunk,
		promise + test + rule + hunk,
		promise + test + scenario + hunk,
		promise + test + "Together: yes\n" + hunk,
		promise + "Test: TestSettle\n" + hunk,
		promise + scenario + rule,
		promise + scenario + hunk + rule,
	} {
		_, err := parse("x", text)
		require.ErrorContains(t, err, "x.patch", "%s", text)
	}
}

func TestTrials(t *testing.T) {
	auto, schema, test := By{Scenario: "auto"}, By{Scenario: "schema"}, By{Package: "./e2e/record", Test: "TestSettle"}
	var names []string
	for _, trial := range Trials([]Sabotage{
		{Name: "a", By: auto, Rule: "1", Together: true},
		{Name: "b", By: auto, Rule: "2"},
		{Name: "c", By: schema, Rule: "2", Together: true},
		{Name: "d", By: auto, Rule: "3", Together: true},
		{Name: "e", By: auto, Rule: "1", Together: true}, // which the first would hide
		{Name: "f", By: test},
	}) {
		names = append(names, trial.Name())
	}
	require.Equal(t, []string{"a+d", "b", "c", "e", "f"}, names)
	require.Equal(t, "control-auto", Trial{By: auto}.Name())
	require.Equal(t, "control-e2e-record-TestSettle", Trial{By: test}.Name())
}

// repository is one in which `go test` says what two files tell it to: a scenario leaves a
// report of failures, a test prints their names.
func repository(t *testing.T) Bench {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), mode))
	}
	write("first", "nothing\n", 0o644)
	write("second", "nothing\n", 0o644)
	write("bin/go", `#!/bin/sh
first=$(cat first) second=$(cat second)
echo "$first $second" >> "$TRIED"
case "$*" in
*TestScenarios*)
	mkdir -p "$E2E_ARTIFACTS/auto"
	case "$first $second" in
	silent*) exit 1 ;;
	"nothing nothing") echo '{}' ;;
	hangs*) trap 'sleep 1; echo destroyed >> "$TRIED"; exit 1' INT; echo hangs >> "$TRIED"; while :; do sleep 0.1; done ;;
	*nothing) printf '{"failures": ["%s"]}' "$first" ;;
	nothing*) printf '{"failures": ["%s"]}' "$second" ;;
	*) printf '{"failures": ["%s", "%s"]}' "$first" "$second" ;;
	esac > "$E2E_ARTIFACTS/auto/report.json" ;;
*)
	case $first in
	nothing) echo "=== RUN   TestX"; echo "--- PASS: TestX (0.00s)" ;;
	fails) echo "=== RUN   TestX"; echo "--- FAIL: TestX (0.00s)"; echo "    --- FAIL: TestX/row (0.00s)"; exit 1 ;;
	unbuilt) echo "FAIL x [build failed]"; exit 1 ;;
	none) echo "testing: warning: no tests to run" ;;
	esac ;;
esac
`, 0o755)
	git := func(args ...string) {
		cmd := exec.Command("git", append([]string{"-c", "user.name=x", "-c", "user.email=x@example.com"}, args...)...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	git("init", "--quiet")
	git("add", ".")
	git("commit", "--quiet", "-m", "x")
	t.Setenv("PATH", filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
	t.Setenv("TRIED", filepath.Join(t.TempDir(), "tried"))
	return Bench{Root: dir, Artifacts: filepath.Join(t.TempDir(), "sabotage")}
}

// saying breaks a repository so that a file has the text.
func saying(t *testing.T, by By, rule, file, text string) Sabotage {
	path := filepath.Join(t.TempDir(), file+".patch")
	require.NoError(t, os.WriteFile(path, []byte("--- a/"+file+"\n+++ b/"+file+"\n@@ -1 +1 @@\n-nothing\n+"+text+"\n"), 0o644))
	return Sabotage{Name: file, By: by, Rule: rule, Together: by.Scenario != "", path: path}
}

var auto, testX = By{Scenario: "auto"}, By{Package: "./x", Test: "TestX"}

func (b Bench) tryOne(t *testing.T, s Sabotage) (Result, error) {
	results, err := b.Try(t.Context(), Trial{s.By, []Sabotage{s}})
	if err != nil {
		return Result{}, err
	}
	require.Len(t, results, 1)
	return results[0], nil
}

func TestControl(t *testing.T) {
	b := repository(t)
	for _, by := range []By{auto, testX} {
		results, err := b.Try(t.Context(), Trial{By: by})
		require.NoError(t, err)
		require.Len(t, results, 1)
		require.True(t, results[0].OK)
	}
	require.Equal(t, []Result{{Name: "control-auto", Said: "one-download: twice"}}, Trial{By: auto}.results([]string{"one-download: twice", "x"}))
}

func TestTryWithAScenario(t *testing.T) {
	b := repository(t)
	for said, ok := range map[string]bool{
		"one-download: twice":          true,
		"one-downloads: twice":         false,
		"waiting for three: timed out": false,
		"nothing that matters":         false,
	} {
		r, err := b.tryOne(t, saying(t, auto, "one-download", "first", said))
		require.NoError(t, err)
		require.Equal(t, ok, r.OK, said)
		require.Equal(t, said, r.Said)
		again, err := b.tryOne(t, saying(t, auto, "one-download", "first", "something else"))
		require.NoError(t, err)
		require.Equal(t, r, again, "what was seen on this commit is not tried again")
		require.NoError(t, os.RemoveAll(b.Artifacts))
	}
	_, err := b.tryOne(t, saying(t, auto, "one-download", "first", "silent"))
	require.ErrorContains(t, err, "has left no report")
	s := saying(t, auto, "one-download", "first", "x")
	require.NoError(t, os.WriteFile(s.path, []byte("--- a/first\n+++ b/first\n@@ -1 +1 @@\n-what was there\n+x\n"), 0o644))
	_, err = b.tryOne(t, s)
	require.ErrorContains(t, err, "does not apply any more")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = b.Try(ended, Trial{By: auto})
	require.ErrorIs(t, err, context.Canceled)
}

func TestTryWithATest(t *testing.T) {
	b := repository(t)
	r, err := b.tryOne(t, saying(t, testX, "", "first", "fails"))
	require.NoError(t, err)
	require.True(t, r.OK)
	require.Equal(t, "TestX/row fails", r.Said)
	require.NoError(t, os.RemoveAll(b.Artifacts))
	r, err = b.tryOne(t, saying(t, testX, "", "second", "fails"))
	require.NoError(t, err)
	require.False(t, r.OK, "the test passes")
	for _, said := range []string{"unbuilt", "none"} {
		_, err = b.tryOne(t, saying(t, testX, "", "first", said))
		require.ErrorContains(t, err, "./x TestX did not come to an end", said)
	}
}

func TestTryTogether(t *testing.T) {
	for _, test := range []struct {
		first, second string
		ok            []bool
		copies        int
	}{
		{"one: x", "two: y", []bool{true, true}, 1},
		{"one: x", "nothing that matters", []bool{true, false}, 3},
		{"one: x", "three: z", []bool{true, false}, 3},
	} {
		b := repository(t)
		trial := Trial{auto, []Sabotage{saying(t, auto, "one", "first", test.first), saying(t, auto, "two", "second", test.second)}}
		results, err := b.Try(t.Context(), trial)
		require.NoError(t, err)
		var ok []bool
		for _, r := range results {
			ok = append(ok, r.OK)
			require.Equal(t, r.OK && test.copies == 1, len(r.With) == 1)
		}
		require.Equal(t, test.ok, ok, test)
		tried, err := os.ReadFile(os.Getenv("TRIED"))
		require.NoError(t, err)
		require.Equal(t, test.copies, strings.Count(string(tried), "\n"))
		again, err := b.Try(t.Context(), trial)
		require.NoError(t, err)
		require.Equal(t, results, again)
	}
}

// A scenario that is interrupted comes to its end: it has a model to destroy.
func TestInterrupt(t *testing.T) {
	b := repository(t)
	s := saying(t, auto, "one-download", "first", "hangs")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for {
			if tried, _ := os.ReadFile(os.Getenv("TRIED")); strings.Contains(string(tried), "hangs\n") {
				cancel()
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	_, err := b.Try(ctx, Trial{auto, []Sabotage{s}})
	require.ErrorIs(t, err, context.Canceled)
	tried, err := os.ReadFile(os.Getenv("TRIED"))
	require.NoError(t, err)
	require.Contains(t, string(tried), "destroyed")
}
