// Package sabotage breaks the product on purpose, one promise at a time, and demands
// that the suite notices: a scenario has to fail, by the rule that guards the promise. It
// breaks the suite, too: what keeps that honest is a test, which has to fail. A promise
// whose sabotage was never seen red is not proven.
package sabotage

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Sabotage is one patch, with what it breaks and who must notice: either a scenario, or a
// test.
type Sabotage struct {
	Name    string // of its file, without .patch
	Promise string // that it breaks, one sentence
	By      By     // who must fail
	Rule    string // by which a scenario must fail
	// Together tells that it breaks its rule at the first rest, and no other: it can be
	// tried in one copy with others of which that is true.
	Together bool
	path     string
}

// By is what is run on a broken copy: a scenario on real Juju, or a test of a package.
type By struct {
	Scenario string
	Package  string // such as "./e2e/record"
	Test     string
}

func (by By) String() string {
	if by.Scenario != "" {
		return by.Scenario
	}
	return by.Package + " " + by.Test
}

// Read reads the patches of a directory, in the order of their names. A patch begins
// with a line "Promise: ...", and either the lines "Scenario: ..." and "Rule: ..." or the
// line "Test: PACKAGE TEST"; "Together: yes" may follow a rule.
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
		if s.path, err = filepath.Abs(path); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

func parse(name, text string) (Sabotage, error) {
	s := Sabotage{Name: name}
	var test, together string
	fields := map[string]*string{
		"Promise": &s.Promise, "Scenario": &s.By.Scenario, "Rule": &s.Rule, "Test": &test, "Together": &together,
	}
	header, _, found := strings.Cut(text, "\n--- ")
	for line := range strings.Lines(header) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if field, ok := fields[key]; ok {
			*field = value
		}
	}
	s.By.Package, s.By.Test, _ = strings.Cut(test, " ")
	s.Together = together == "yes"
	scenario := s.By.Scenario != "" && s.Rule != "" && test == ""
	tested := s.By.Test != "" && s.By.Scenario == "" && s.Rule == "" && !s.Together
	if s.Promise == "" || !found || !scenario && !tested {
		return s, fmt.Errorf(`%s.patch: before its first hunk it needs a line "Promise: ...", and either "Scenario: ..." and "Rule: ..." or "Test: PACKAGE TEST"`, name)
	}
	return s, nil
}

// Trial is what is tried in one copy; without sabotages it is a control, which must pass.
type Trial struct {
	By        By
	Sabotages []Sabotage
}

// Name names a trial by what it breaks.
func (t Trial) Name() string {
	if len(t.Sabotages) == 0 {
		return "control-" + strings.NewReplacer("./", "", "/", "-", " ", "-").Replace(t.By.String())
	}
	var names []string
	for _, s := range t.Sabotages {
		names = append(names, s.Name)
	}
	return strings.Join(names, "+")
}

// Trials puts together what can be tried in one copy.
func Trials(all []Sabotage) (trials []Trial) {
	for _, s := range all {
		n := -1
		if s.Together {
			n = slices.IndexFunc(trials, func(t Trial) bool {
				return t.By == s.By && t.Sabotages[0].Together &&
					!slices.ContainsFunc(t.Sabotages, func(other Sabotage) bool { return other.Rule == s.Rule })
			})
		}
		if n < 0 {
			trials = append(trials, Trial{s.By, []Sabotage{s}})
		} else {
			trials[n].Sabotages = append(trials[n].Sabotages, s)
		}
	}
	return trials
}
