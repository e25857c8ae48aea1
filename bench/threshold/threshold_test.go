package threshold_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/bench/threshold"
)

func TestJudge(t *testing.T) {
	samples := []float64{4, 1, 2, 3, 100, 5, 6, 7, 8, 9}
	for name, test := range map[string]struct {
		line, unit string
		value      float64
		number     float64
		ok         bool
	}{
		"the measure's value":    {"a <= 1.15", "x", 1.15, 1.15, true},
		"above it":               {"a <= 1.15", "x", 1.16, 1.16, false},
		"strictly below":         {"a < 2", "x", 2, 2, false},
		"equal":                  {"a == 1", "", 1, 1, true},
		"not equal":              {"a == 1", "", 2, 2, false},
		"at least":               {"a >= 2", "x", 2, 2, true},
		"more than":              {"a > 2", "x", 2, 2, false},
		"the median":             {"a.p50 <= 5.5", "s", 0, 5.5, true},
		"the ninth decile":       {"a.p90 < 9", "s", 0, 9, false},
		"the hundredth":          {"a.p99 < 101", "s", 0, 100, true},
		"the largest":            {"a.max < 100", "s", 0, 100, false},
		"the least":              {"a.min >= 1", "s", 0, 1, true},
		"a time, in seconds":     {"a < 3m", "s", 179, 179, true},
		"a time, in ms":          {"a < 250ms", "ms", 251, 251, false},
		"a time, in ms, written": {"a <= 1s", "ms", 1000, 1000, true},
	} {
		t.Run(name, func(t *testing.T) {
			all, err := threshold.Parse(test.line)
			require.NoError(t, err)
			number, ok, err := all[0].Judge(test.value, test.unit, samples)
			require.NoError(t, err)
			require.Equal(t, test.number, number)
			require.Equal(t, test.ok, ok)
			require.Equal(t, test.line, all[0].String())
		})
	}
	all, err := threshold.Parse("a < 3m")
	require.NoError(t, err)
	_, _, err = all[0].Judge(1, "MiB", samples)
	require.ErrorIs(t, err, threshold.ErrSyntax)
	require.Equal(t, []float64{4, 1, 2}, samples[:3], "samples stay in their order")
}

func TestOf(t *testing.T) {
	all, err := threshold.Parse("# about\n\ninstall.ratio <= 2 # both\ninstall.ratio.disk.p50 < 1.5\ninstall-many.ratio < 9\n")
	require.NoError(t, err)
	require.Len(t, all, 3)
	require.Len(t, all.Of("install.ratio"), 1)
	require.Len(t, all.Of("install.ratio.disk"), 2)
	require.Len(t, all.Of("install.ratios"), 0, "a part of a word is another")
	require.Len(t, all.Of("install"), 0)
}

func TestParseSaysWhatIsWrong(t *testing.T) {
	for line, want := range map[string]string{
		"a <= 1\nb <=":      "line 2 has 2 words",
		"a =< 1":            `the operator "=<"`,
		"a <= many":         `"many", which is neither a number nor a time`,
		"a <= NaN":          "no number is NaN",
		"a <= 1 MiB":        "4 words",
		"# only\n\na <= 1x": "line 3",
	} {
		_, err := threshold.Parse(line)
		require.ErrorIs(t, err, threshold.ErrSyntax)
		require.ErrorContains(t, err, want)
	}
}
