package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/bench/threshold"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/report"
)

// TestMain lets the test binary be a unit.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "unit" {
		if err := Unit(context.Background(), os.Args[2], os.Stdin, os.Stdout); err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func options(t *testing.T) Options {
	return Options{
		Unit: []string{os.Args[0], "unit"}, Cache: t.TempDir(), Tmpfs: t.TempDir(),
		MB: 1, Samples: 1, Quick: true, Say: t.Logf,
	}
}

func TestRun(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts 64 processes")
	}
	o := options(t)
	o.Only = []string{"install", "install-compressible", "written", "crowd", "waiting", "claim", "installed", "installed-many", "resume"}
	var kept []Report
	o.Keep = func(r Report) error { kept = append(kept, r); return nil }
	r, err := Run(t.Context(), o)
	require.NoError(t, err)
	require.Len(t, r.Load, len(o.Only))
	require.True(t, r.Complete)
	require.Positive(t, r.Calibration.AfterMS)
	require.Len(t, kept, len(o.Only), "the report is kept after each experiment")
	require.Len(t, kept[0].Load, 1)
	require.False(t, kept[len(kept)-1].Complete)
	measures := map[string]bool{}
	for _, row := range r.Rows {
		require.True(t, strings.HasPrefix(row.Measure, row.Experiment+"."), row.Measure)
		require.False(t, strings.HasSuffix(row.Measure, "."), row.Name)
		require.False(t, measures[row.Measure], "%s is there twice", row.Measure)
		measures[row.Measure] = true
	}
	byName := map[string]Row{}
	for _, row := range r.Rows {
		require.Contains(t, o.Only, row.Experiment)
		if row.Verdict == report.Skipped {
			require.NotEmpty(t, row.Note, row.Name)
			continue
		}
		require.NotEmpty(t, row.Floor, row.Name)
		require.NotEmpty(t, row.Series, row.Name)
		require.GreaterOrEqual(t, row.Series[0].N, o.Samples, row.Name)
		require.Equal(t, row.Verdict == report.Reported, row.Limit == 0, row.Name)
		byName[row.Name] = row
	}
	// What is counted holds on any machine, whatever else it does.
	require.EqualValues(t, 1, byName["64 processes at once: downloads"].Value)
	require.EqualValues(t, 1, byName["64 processes at once: bytes moved / size"].Value)
	require.Positive(t, byName["peak memory of Ensure, real-like, 800 files"].Value)
	require.Positive(t, byName["quick check when installed, 6000 files: memory allocated"].Value)
	left, err := filepath.Glob(filepath.Join(o.Cache, "bench.*"))
	require.NoError(t, err)
	require.Empty(t, left, "volumes are removed")

	data, err := json.Marshal(r)
	require.NoError(t, err)
	var again Report
	require.NoError(t, json.Unmarshal(data, &again))
	require.Equal(t, r, again)

	var text bytes.Buffer
	require.NoError(t, r.Markdown(&text))
	require.Contains(t, text.String(), "claim without contention, p99")
}

func TestOptions(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"an experiment that is none": func(o *Options) { o.Only = []string{"instal"} },
		"no size":                    func(o *Options) { o.MB = 0 },
		"no samples":                 func(o *Options) { o.Samples = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			change(&o)
			_, err := Run(t.Context(), o)
			require.ErrorIs(t, err, ErrOptions)
		})
	}
}

// judge judges a row by the thresholds of a file.
func judge(t *testing.T, row Row, file string) Row {
	t.Helper()
	all, err := threshold.Parse(file)
	require.NoError(t, err)
	row.Measure = "a.b"
	row, err = row.judged(all)
	require.NoError(t, err)
	return row
}

func TestVerdicts(t *testing.T) {
	one := series("s", "x", []float64{1})
	for _, test := range []struct {
		row  Row
		file string
		want report.Verdict
	}{
		{Row{Value: 1.15}, "a.b <= 1.15", report.OK},
		{Row{Value: 1.16}, "a.b <= 1.15", report.Missed},
		{Row{Value: 1.8}, "a >= 1.8", report.OK},
		{Row{Value: 1.7}, "a >= 1.8", report.Missed},
		{Row{Value: 1.7}, "a.c >= 1.8", report.Reported},
		{Row{Value: 3}, "a <= 5\na.b <= 2\na <= 4", report.Missed},
		{Row{Verdict: report.Skipped}, "a >= 1.8", report.Skipped},
	} {
		test.row.Series = []Series{one}
		require.Equal(t, test.want, judge(t, test.row, test.file).Verdict, "%+v", test)
	}
	require.Contains(t, judge(t, Row{Value: 1, Unit: "s"}.of(series("s", "s", []float64{1, 1, 9})), "a.b.max <= 2").Note, "a.b.max <= 2 is 9.0 s")
	skipped := Row{Name: "a", Measure: "a.b"}.skipped("because")
	require.Equal(t, Row{Name: "a", Measure: "a.b", Verdict: report.Skipped, Note: "because"}, judge(t, skipped, ""))
	missed := judge(t, Row{Value: 2, Unit: "ms", Note: "why", Series: []Series{one}}, "a <= 1")
	require.Equal(t, "why", missed.under(Load{Others: 0.05}).Note)
	require.Contains(t, missed.under(Load{Others: 0.4}).Note, "why; other processes used 40 %")
	r := Report{Rows: []Row{{Name: "a", Verdict: report.OK}, {Name: "b", Verdict: report.Missed}, {Name: "c", Verdict: report.Skipped}}}
	require.Equal(t, []string{"b"}, r.Missed())
}

func TestValueIsTheMedian(t *testing.T) {
	disturbed := series("s", "x", []float64{1, 1, 9})
	other := series("other", "x", []float64{5})
	row := Row{Unit: "x"}.of(disturbed, other)
	require.Equal(t, 1.0, row.Value, "one sample that something disturbed decides nothing")
	require.Equal(t, []Series{disturbed, other}, row.Series)
	require.Equal(t, report.OK, judge(t, row, "a <= 2").Verdict)
	row = Row{Worst: true}.of(disturbed)
	row = judge(t, row, "a <= 2")
	require.Equal(t, report.Missed, row.Verdict, "a download too many is no noise")
	require.Empty(t, row.under(Load{Others: 0.4}).Note)
}

// The file that ships speaks of measures that there are, and a crash costs one chunk.
func TestTargets(t *testing.T) {
	targets, err := threshold.Targets()
	require.NoError(t, err)
	names, _ := Experiments()
	files, err := filepath.Glob("../e2e/scenarios/*.go")
	require.NoError(t, err)
	phase, phases := regexp.MustCompile(`r\.(?:phase|changeRelease)\("([^"]+)"`), map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, found := range phase.FindAllSubmatch(text, -1) {
			phases[strings.TrimSuffix(filepath.Base(file), ".go")+"."+slug(string(found[1]))] = true
		}
	}
	for _, target := range targets {
		experiment, _, _ := strings.Cut(target.Measure, ".")
		require.True(t, phases[target.Measure] || slices.Contains(names, experiment), target)
	}
	require.Equal(t, mib(chunkBytes), targets.Of("resume.moved_again")[0].Value)
}

func TestReportSaysHowManySamples(t *testing.T) {
	for samples, warned := range map[int]bool{EnoughSamples - 1: true, EnoughSamples: false} {
		var text bytes.Buffer
		r := Report{Samples: samples, Rows: []Row{Row{Name: "a", Unit: "x", Verdict: report.Reported}.of(series("ratio", "x", []float64{3, 1, 2}))}}
		require.NoError(t, r.Markdown(&text))
		require.Contains(t, text.String(), "1.00 x / 2.00 x / 3.00 x")
		require.Regexp(t, `\| a +\| 2\.00 x +\| none +\| reported +\| 3 `, text.String())
		require.Equal(t, warned, strings.Contains(text.String(), "samples are few"))
	}
}

func TestStatistics(t *testing.T) {
	s := series("s", "ms", []float64{3, 1, 2, 10})
	require.Equal(t, Series{Name: "s", Unit: "ms", N: 4, Min: 1, Median: 2.5, Max: 10, Values: []float64{3, 1, 2, 10}}, s)
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i)
	}
	require.Equal(t, 99.0, quantile(hundred, 0.99))
	require.Equal(t, 1.0, quantile(hundred, 0))
	require.Equal(t, []float64{2, 0.5}, ratios([]float64{4, 1}, []float64{2, 2}))
	require.Equal(t, []float64{4, 2}, slower([]float64{4, 1}, []float64{2, 2}))
}
