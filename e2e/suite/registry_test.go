package suite

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/report"
)

func TestRegistry(t *testing.T) {
	name := regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	seen := map[string]bool{}
	for _, sc := range All() {
		require.Regexp(t, name, sc.Name, "it is a folder, and a word of a command line")
		require.Regexp(t, name, sc.Group, sc.Name)
		require.False(t, seen[sc.Name], "%s is there twice", sc.Name)
		seen[sc.Name] = true
		require.NotEmpty(t, sc.Proves, sc.Name)
		require.NotNil(t, sc.Run, sc.Name)
		require.Equal(t, sc.Known.Rule == "", sc.Known.Missing == "", "%s: a known failure has a rule and a reason", sc.Name)
	}
	for _, sc := range All() {
		require.False(t, seen[sc.Group], "%s is a scenario and a group", sc.Group)
	}
}

func TestVerdict(t *testing.T) {
	proxy := Known{Rule: "one-download", Missing: "no proxy yet"}
	broken := []judge.Violation{{Rule: "one-download", Text: "twice"}}
	for name, test := range map[string]struct {
		known      Known
		failures   []string
		violations []judge.Violation
		want       report.Verdict
		text       string
	}{
		"passes":                         {want: report.OK},
		"fails":                          {failures: []string{"x"}, want: report.Broken},
		"breaks a rule":                  {failures: []string{"x"}, violations: broken, want: report.Broken},
		"known":                          {known: proxy, failures: []string{"x"}, violations: broken, want: report.Known},
		"known, passes":                  {known: proxy, want: report.Broken, text: "take Known from its entry"},
		"known, fails otherwise":         {known: proxy, failures: []string{"x"}, want: report.Broken, text: "and nothing else"},
		"known, fails otherwise as well": {known: proxy, failures: []string{"x", "y"}, violations: broken, want: report.Broken, text: "and nothing else"},
		"known, breaks another rule":     {known: proxy, failures: []string{"x"}, violations: []judge.Violation{{Rule: "no-panic"}}, want: report.Broken, text: "and nothing else"},
	} {
		t.Run(name, func(t *testing.T) {
			got, text := test.known.verdict(test.failures, test.violations)
			require.Equal(t, test.want, got)
			require.Contains(t, text, test.text)
			require.Equal(t, test.text == "", text == "")
		})
	}
}

func TestAvailableMemory(t *testing.T) {
	bytes, ok := availableMemory("MemTotal:       16306020 kB\nMemFree:          500000 kB\nMemAvailable:    8000000 kB\n")
	require.True(t, ok)
	require.Equal(t, int64(8000000<<10), bytes)
	_, ok = availableMemory("MemTotal: 5 kB\n")
	require.False(t, ok)

	require.Empty(t, Needs{}.missing(memoryNow))
	require.Contains(t, Needs{Memory: 1 << 60}.missing(memoryNow), "GB of memory")
}
