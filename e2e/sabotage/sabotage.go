// Package sabotage breaks the product on purpose, one promise at a time, and demands
// that the suite notices: a scenario has to fail, by the rule that guards the promise.
// A promise whose sabotage was never seen red is not proven.
package sabotage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Sabotage is one patch, with what it breaks and who must notice.
type Sabotage struct {
	Name     string // of its file, without .patch
	Promise  string // that it breaks, one sentence
	Scenario string // that must fail
	Rule     string // by which it must fail
	path     string
}

// Read reads the patches of a directory, in the order of their names. A patch begins
// with lines "Promise: ...", "Scenario: ..." and "Rule: ...".
func Read(dir string) ([]Sabotage, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.patch"))
	if err != nil {
		return nil, err
	}
	slices.Sort(paths)
	var all []Sabotage
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		s, err := parse(strings.TrimSuffix(filepath.Base(path), ".patch"), string(text))
		if err != nil {
			return nil, err
		}
		s.path = path
		all = append(all, s)
	}
	return all, nil
}

func parse(name, text string) (Sabotage, error) {
	s := Sabotage{Name: name}
	fields := map[string]*string{"Promise": &s.Promise, "Scenario": &s.Scenario, "Rule": &s.Rule}
	header, _, found := strings.Cut(text, "\n--- ")
	for line := range strings.Lines(header) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if field, ok := fields[key]; ok {
			*field = value
		}
	}
	for key, field := range fields {
		if *field == "" || !found {
			return s, fmt.Errorf("%s.patch: it needs a line \"%s: ...\" before its first hunk", name, key)
		}
	}
	return s, nil
}

// Result is what became of a sabotage.
type Result struct {
	Name   string        `json:"name"`
	Commit string        `json:"commit"` // that was broken
	Took   time.Duration `json:"took_ns"`
	// Red tells that the scenario failed by the rule, and by nothing before it.
	Red  bool   `json:"red"`
	Said string `json:"said"` // the first failure; or why there is none
}

// Bench is where sabotages are tried.
type Bench struct {
	Root      string // of the repository
	Artifacts string // results are kept there, so that a run that ended goes on
}

// Control is the scenario on a copy that nobody has broken. It must pass.
func (b Bench) Control(ctx context.Context, scenario string) (Result, error) {
	return b.Try(ctx, Sabotage{Name: "control-" + scenario, Scenario: scenario})
}

// Try breaks a copy of the repository and runs the scenario there. What was seen on the
// same commit before is not tried again.
func (b Bench) Try(ctx context.Context, s Sabotage) (Result, error) {
	commit, err := b.git(ctx, "rev-parse", "HEAD")
	if err != nil {
		return Result{}, err
	}
	kept := filepath.Join(b.Artifacts, s.Name+".json")
	var r Result
	if text, err := os.ReadFile(kept); err == nil && json.Unmarshal(text, &r) == nil && r.Commit == commit {
		return r, nil
	}
	dir, err := os.MkdirTemp("", "sabotage-")
	if err != nil {
		return Result{}, err
	}
	defer os.RemoveAll(dir)
	if err := b.copyTo(ctx, dir, s); err != nil {
		return Result{}, err
	}
	start := time.Now()
	said, err := b.run(ctx, dir, s)
	if err != nil {
		return Result{}, err
	}
	r = Result{Name: s.Name, Commit: commit, Took: time.Since(start), Said: said}
	if s.Rule == "" {
		r.Red = said != ""
	} else {
		r.Red = strings.HasPrefix(said, s.Rule+": ")
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return r, err
	}
	return r, errors.Join(os.MkdirAll(b.Artifacts, 0o755), os.WriteFile(kept, append(text, '\n'), 0o644))
}

// copyTo makes a broken copy of the commit that is checked out.
func (b Bench) copyTo(ctx context.Context, dir string, s Sabotage) error {
	archive := exec.CommandContext(ctx, "sh", "-c", `git archive HEAD | tar x -C "$1"`, "sh", dir)
	archive.Dir = b.Root
	if out, err := archive.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot copy the repository: %w\n%s", err, out)
	}
	if s.path == "" {
		return nil
	}
	path, err := filepath.Abs(s.path)
	if err != nil {
		return err
	}
	apply := exec.CommandContext(ctx, "git", "apply", "--verbose", path)
	apply.Dir = dir
	// Otherwise git would look for a repository above.
	apply.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir))
	if out, err := apply.CombinedOutput(); err != nil {
		return fmt.Errorf("%s.patch does not apply any more: %w\n%s", s.Name, err, out)
	}
	return nil
}

// run runs the scenario in a copy and returns its first failure; empty if it passed.
func (b Bench) run(ctx context.Context, dir string, s Sabotage) (string, error) {
	artifacts := filepath.Join(dir, "artifacts")
	test := exec.CommandContext(ctx, "go", "test", "-trimpath", "./e2e", "-count=1", "-v", "-timeout", "20m", "-run", "TestScenarios/^"+s.Scenario+"$")
	test.Dir = dir
	test.Env = append(os.Environ(), "E2E_REQUIRE=juju", "E2E_ARTIFACTS="+artifacts)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return "", err
	}
	defer log.Close()
	test.Stdout, test.Stderr = log, log
	testErr := test.Run()
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	var report struct {
		Failures []string `json:"failures"`
	}
	text, err := os.ReadFile(filepath.Join(artifacts, s.Scenario, "report.json"))
	if err == nil {
		err = json.Unmarshal(text, &report)
	}
	switch {
	case err != nil:
		all, _ := os.ReadFile(log.Name())
		return "", fmt.Errorf("the scenario %s has left no report: %w: %w\n%s", s.Scenario, testErr, err, all)
	case len(report.Failures) > 0:
		return report.Failures[0], nil
	case testErr != nil:
		return testErr.Error(), nil
	}
	return "", nil
}

func (b Bench) git(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = b.Root
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
