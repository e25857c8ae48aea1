package sabotage

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Result is what became of a sabotage, or of a control.
type Result struct {
	Name   string        `json:"name"`
	Commit string        `json:"commit"` // that was broken
	Took   time.Duration `json:"took_ns"`
	// OK tells that a sabotage was noticed as it has to be, and that a control passed.
	OK   bool   `json:"ok"`
	Said string `json:"said"` // the first failure; empty if there was none
	// With are the sabotages that were tried in the same copy.
	With []string `json:"with,omitempty"`
}

// Bench is where sabotages are tried.
type Bench struct {
	Root      string // of the repository
	Artifacts string // results are kept there, so that a run that ended goes on
}

// Try breaks a copy of the commit that is checked out, runs there what must notice, and
// returns a result for each sabotage. What was seen on the same commit before is not
// tried again. Sabotages of which one was not noticed together are tried one by one.
func (b Bench) Try(ctx context.Context, t Trial) ([]Result, error) {
	commit, err := b.git(ctx, "rev-parse", "HEAD")
	if err != nil {
		return nil, err
	}
	results, complete := b.kept(t, commit)
	if complete {
		return results, nil
	}
	dir, err := os.MkdirTemp("", "sabotage-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := b.copyTo(ctx, dir, t); err != nil {
		return nil, err
	}
	start := time.Now()
	failures, err := b.run(ctx, dir, t.By)
	if err != nil {
		return nil, err
	}
	took := time.Since(start)
	results = t.results(failures)
	if len(t.Sabotages) > 1 && slices.ContainsFunc(results, func(r Result) bool { return !r.OK }) {
		return b.oneByOne(ctx, t)
	}
	for i := range results {
		results[i].Commit, results[i].Took = commit, took
		err = errors.Join(err, b.keep(results[i]))
	}
	return results, err
}

func (b Bench) oneByOne(ctx context.Context, t Trial) (all []Result, err error) {
	for _, s := range t.Sabotages {
		alone, err := b.Try(ctx, Trial{t.By, []Sabotage{s}})
		if err != nil {
			return nil, err
		}
		all = append(all, alone...)
	}
	return all, nil
}

// ruleOf is the broken rule that a failure names.
func ruleOf(failure string) string {
	rule, _, _ := strings.Cut(failure, ": ")
	return rule
}

// results judges what a copy failed by. One sabotage must be the first that is noticed:
// what follows may follow from it. Of several, each must be noticed, and nothing else.
func (t Trial) results(failures []string) (results []Result) {
	if len(t.Sabotages) == 0 {
		return []Result{{Name: t.Name(), OK: len(failures) == 0, Said: strings.Join(failures[:min(1, len(failures))], "")}}
	}
	var names, rules []string
	for _, s := range t.Sabotages {
		names, rules = append(names, s.Name), append(rules, s.Rule)
	}
	others := slices.ContainsFunc(failures, func(failure string) bool { return !slices.Contains(rules, ruleOf(failure)) })
	for _, s := range t.Sabotages {
		r := Result{Name: s.Name}
		switch n := slices.IndexFunc(failures, func(failure string) bool { return ruleOf(failure) == s.Rule }); {
		case len(failures) == 0:
		case s.By.Test != "":
			r.OK, r.Said = true, failures[0]
		case len(names) == 1:
			r.OK, r.Said = n == 0, failures[0]
		default:
			r.OK, r.Said = n >= 0 && !others, failures[max(n, 0)]
			r.With = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == s.Name })
		}
		results = append(results, r)
	}
	return results
}

// kept returns what was seen on a commit before; complete if that is all.
func (b Bench) kept(t Trial, commit string) (results []Result, complete bool) {
	names := []string{t.Name()}
	if len(t.Sabotages) > 0 {
		names = names[:0]
		for _, s := range t.Sabotages {
			names = append(names, s.Name)
		}
	}
	for _, name := range names {
		var r Result
		text, err := os.ReadFile(b.file(name))
		if err != nil || json.Unmarshal(text, &r) != nil || r.Commit != commit {
			return nil, false
		}
		results = append(results, r)
	}
	return results, true
}

func (b Bench) file(name string) string { return filepath.Join(b.Artifacts, name+".json") }

func (b Bench) keep(r Result) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(b.Artifacts, 0o755), os.WriteFile(b.file(r.Name), append(text, '\n'), 0o644))
}

// copyTo makes a broken copy of the commit that is checked out.
func (b Bench) copyTo(ctx context.Context, dir string, t Trial) error {
	archive := exec.CommandContext(ctx, "sh", "-c", `git archive HEAD | tar x -C "$1"`, "sh", dir)
	archive.Dir = b.Root
	if out, err := archive.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot copy the repository: %w\n%s", err, out)
	}
	for _, s := range t.Sabotages {
		apply := exec.CommandContext(ctx, "git", "apply", "--verbose", s.path)
		apply.Dir = dir
		// Otherwise git would look for a repository above.
		apply.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir))
		if out, err := apply.CombinedOutput(); err != nil {
			return fmt.Errorf("%s.patch does not apply any more: %w\n%s", s.Name, err, out)
		}
	}
	return nil
}

// run runs a scenario or a test in a copy and returns what it failed by; nothing if it
// passed.
func (b Bench) run(ctx context.Context, dir string, by By) ([]string, error) {
	args := []string{by.Package, "-timeout", "10m", "-run", "^" + by.Test + "$"}
	if by.Scenario != "" {
		args = []string{"./e2e", "-timeout", "20m", "-run", "TestScenarios/^" + by.Scenario + "$"}
	}
	artifacts := filepath.Join(dir, "artifacts")
	test := exec.CommandContext(ctx, "go", append([]string{"test", "-trimpath", "-count=1", "-v"}, args...)...)
	test.Dir = dir
	test.Env = append(os.Environ(), "E2E_REQUIRE=juju", "E2E_ARTIFACTS="+artifacts)
	interruptible(test)
	out, testErr := test.CombinedOutput()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if by.Test != "" {
		return failuresOf(string(out), by, testErr)
	}
	var report struct {
		Failures []string `json:"failures"`
	}
	text, err := os.ReadFile(filepath.Join(artifacts, by.Scenario, "report.json"))
	if err == nil {
		err = json.Unmarshal(text, &report)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("the scenario %s has left no report: %w: %w\n%s", by.Scenario, testErr, err, out)
	case len(report.Failures) == 0 && testErr != nil:
		return []string{testErr.Error()}, nil
	}
	return report.Failures, nil
}

// interruptLimit is how long a scenario that is interrupted may take to destroy its model.
const interruptLimit = 6 * time.Minute

// interruptible has the end of a command's context interrupt it and all that it has
// started, as Ctrl-C would: a scenario that is killed leaves its model behind.
func interruptible(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = interruptLimit
}

var failedTest = regexp.MustCompile(`(?m)^ *--- FAIL: (\S+)`)

// failuresOf names what failed of a test. A copy that cannot be built, and a test that is
// not there, are errors.
func failuresOf(out string, by By, testErr error) ([]string, error) {
	ran := strings.Contains(out, "=== RUN   "+by.Test+"\n")
	failed := failedTest.FindAllStringSubmatch(out, -1)
	switch {
	case !ran || testErr != nil && len(failed) == 0:
		return nil, fmt.Errorf("%s did not come to an end: %w\n%s", by, cmp.Or(testErr, errors.New("there is no such test")), out)
	case testErr == nil:
		return nil, nil
	}
	var names []string
	for _, f := range slices.Backward(failed) { // The innermost comes last.
		names = append(names, f[1]+" fails")
	}
	return names, nil
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
