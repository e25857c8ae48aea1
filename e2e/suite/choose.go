package suite

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// ErrChoice marks a choice of scenarios that cannot be.
var ErrChoice = errors.New("cannot choose scenarios")

// Choose returns the scenarios whose whole name, or whole group, one of the patterns
// matches, in the order of all. A pattern is a regular expression; one that begins with !
// leaves out what it matches. Without a pattern that takes scenarios in, all are taken. One
// that is OnRequest is taken only where its name or its group is a pattern, letter by letter.
func Choose(all []Scenario, patterns ...string) ([]Scenario, error) {
	type pattern struct {
		*regexp.Regexp
		text string
	}
	var in, out []pattern
	for _, text := range patterns {
		name, not := strings.CutPrefix(text, "!")
		re, err := regexp.Compile("^(?:" + name + ")$")
		if err != nil {
			return nil, fmt.Errorf("%w: %q is no regular expression: %w", ErrChoice, name, err)
		}
		matches := func(sc Scenario) bool { return re.MatchString(sc.Name) || re.MatchString(sc.Group) }
		switch {
		case !slices.ContainsFunc(all, matches):
			return nil, fmt.Errorf("%w: no scenario or group is named %q: see `ccbench scenarios`", ErrChoice, name)
		case not:
			out = append(out, pattern{re, name})
		default:
			in = append(in, pattern{re, name})
		}
	}
	named := func(sc Scenario) func(pattern) bool {
		return func(p pattern) bool { return p.MatchString(sc.Name) || p.MatchString(sc.Group) }
	}
	literally := func(sc Scenario) func(pattern) bool {
		return func(p pattern) bool { return p.text == sc.Name || p.text == sc.Group }
	}
	var chosen []Scenario
	for _, sc := range all {
		switch {
		case slices.ContainsFunc(out, named(sc)):
		case sc.OnRequest && !slices.ContainsFunc(in, literally(sc)):
		case len(in) > 0 && !slices.ContainsFunc(in, named(sc)):
		default:
			chosen = append(chosen, sc)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("%w: %s leaves none", ErrChoice, strings.Join(patterns, " "))
	}
	return chosen, nil
}

// Rounds returns each scenario as often as there are samples to take, round after round,
// and numbers them where there are several. Each round has an order of its own, that the
// seed decides: what drifts while they run falls upon all scenarios alike.
func Rounds(chosen []Scenario, samples int, seed uint64) []Scenario {
	var all []Scenario
	for sample := 1; sample <= samples; sample++ {
		round := slices.Clone(chosen)
		draw := rand.New(rand.NewPCG(seed, uint64(sample)))
		draw.Shuffle(len(round), func(i, j int) { round[i], round[j] = round[j], round[i] })
		for i := range round {
			if samples > 1 {
				round[i].Sample = sample
			}
		}
		all = append(all, round...)
	}
	return all
}

// title names the scenario as report.Report.Title does.
func (sc Scenario) title() string {
	if sc.Sample == 0 {
		return sc.Name
	}
	return fmt.Sprintf("%s#%d", sc.Name, sc.Sample)
}

// folder is what it leaves its reports in, below the artifacts.
func (sc Scenario) folder() string {
	if sc.Sample == 0 {
		return sc.Name
	}
	return filepath.Join(sc.Name, strconv.Itoa(sc.Sample))
}
