package compare

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/bench"
	"github.com/concourse-ci-machine/concourse-ci-machine/bench/threshold"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/report"
)

// The one-sided critical values of U that textbooks print: the greatest U that is
// significant, such as in S. Siegel, Nonparametric Statistics, 1956, tables J and K.
func TestCriticalValues(t *testing.T) {
	for _, row := range []struct {
		old, new int
		level    float64
		want     float64
	}{
		{3, 3, 0.05, 0}, {4, 4, 0.05, 1}, {5, 5, 0.05, 4}, {6, 6, 0.05, 7}, {7, 7, 0.05, 11}, {8, 8, 0.05, 15}, {10, 10, 0.05, 27}, {20, 20, 0.05, 138}, {9, 20, 0.05, 54},
		{4, 4, 0.025, 0}, {5, 5, 0.025, 2}, {6, 6, 0.025, 5}, {8, 8, 0.025, 13}, {10, 10, 0.025, 23}, {20, 20, 0.025, 127},
		{5, 5, 0.01, 1}, {10, 10, 0.01, 19}, {20, 20, 0.01, 114},
		{10, 10, 0.001, 10}, {20, 20, 0.001, 88},
		{3, 3, 0.01, -1},
	} {
		require.Equal(t, row.want, newSearch(row.level, 0.2).limit(row.old, row.new), "%d and %d at %g", row.old, row.new, row.level)
	}
}

// The test is one-sided, and exact: with complete separation the probability is that of one
// order of all.
func TestGreater(t *testing.T) {
	low, high := []float64{1, 2, 3, 4, 5, 6}, []float64{7, 8, 9, 10, 11, 12}
	require.InDelta(t, 1./924, greater(low, high), 1e-12)
	require.InDelta(t, 1, greater(high, low), 1e-12)
	require.Equal(t, 1.0, greater([]float64{2, 2, 2}, []float64{2, 2, 2}))
	// One of the 35 ways to choose three of seven.
	require.InDelta(t, 1./35, greater([]float64{1, 1, 1, 1}, []float64{2, 2, 2}), 1e-12)
}

func TestHolm(t *testing.T) {
	// 0.005 x 4, 0.01 x 3, 0.03 x 2, and 0.04 is no less than the one before it.
	require.InDeltaSlice(t, []float64{0.03, 0.06, 0.06, 0.02}, holm([]float64{0.01, 0.04, 0.03, 0.005}), 1e-12)
	require.Equal(t, []float64{1, 1}, holm([]float64{0.6, 0.9}))
	require.Empty(t, holm(nil))
}

// sampled is a row with samples.
func sampled(name string, values ...float64) bench.Row {
	return bench.Row{Measure: name, Unit: "s", Value: median(values), Verdict: report.OK, Series: []bench.Series{{Values: values}}}
}

func result(rows ...bench.Row) bench.Report {
	return bench.Report{Schema: bench.Schema, Complete: true, MB: 600, Machine: bench.Machine{CPU: "A", Cores: 2, Go: "go1"}, Rows: rows}
}

func exact(row bench.Row) bench.Row          { row.Exact = true; return row }
func higherIsBetter(row bench.Row) bench.Row { row.HigherIsBetter = true; return row }

func TestVerdicts(t *testing.T) {
	steady := []float64{10, 10.1, 9.9, 10.05, 9.95, 10.02}
	scaled := func(by float64) []float64 {
		values := slices.Clone(steady)
		for i := range values {
			values[i] *= by
		}
		return values
	}
	wild := []float64{10, 20, 5, 14, 8, 30}
	for name, test := range map[string]struct {
		old, new bench.Row
		want     Verdict
		reason   string
	}{
		"the same":                   {sampled("a", steady...), sampled("a", steady...), OK, ""},
		"slower":                     {sampled("a", steady...), sampled("a", scaled(1.2)...), Regressed, ""},
		"faster":                     {sampled("a", steady...), sampled("a", scaled(0.8)...), OK, ""},
		"slower, too little":         {sampled("a", steady...), sampled("a", scaled(1.03)...), OK, ""},
		"less of what should be":     {higherIsBetter(sampled("a", steady...)), higherIsBetter(sampled("a", scaled(0.8)...)), Regressed, ""},
		"more of what should be":     {higherIsBetter(sampled("a", steady...)), higherIsBetter(sampled("a", scaled(1.2)...)), OK, ""},
		"noise that hides":           {sampled("a", wild...), sampled("a", wild...), Inconclusive, "may hide that it is 20 % worse: it takes"},
		"slower, but by chance":      {sampled("a", wild...), sampled("a", 10, 22, 11, 18, 9, 30), Inconclusive, "% worse, which these samples do not tell from chance: it takes"},
		"too few":                    {sampled("a", 10), sampled("a", 10), Inconclusive, "may hide that it is 20 % worse: it takes 4 of each"},
		"too few, and slower":        {sampled("a", 10, 10), sampled("a", 20, 20), Inconclusive, "it is 100 % worse, which"},
		"exact, the same":            {exact(sampled("a", 1, 1)), exact(sampled("a", 1, 1)), OK, ""},
		"exact, once more":           {exact(sampled("a", 1, 1, 1)), exact(sampled("a", 1, 2, 1)), Regressed, "it is exact"},
		"exact, fewer":               {exact(sampled("a", 2)), exact(sampled("a", 1)), OK, ""},
		"exact, some where was none": {exact(sampled("a", 0)), exact(sampled("a", 1)), Regressed, "it is exact"},
		"exact, less is worse":       {exact(higherIsBetter(sampled("a", 4))), exact(higherIsBetter(sampled("a", 3))), Regressed, "and less"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := Results(result(test.old), result(test.new), Options{})
			require.NoError(t, err)
			require.Len(t, r.Measures, 1)
			require.Equal(t, test.want, r.Measures[0].Verdict, "%+v", r.Measures[0])
			require.Equal(t, test.want, r.Verdict)
			require.Contains(t, r.Measures[0].Reason, test.reason)
			require.Equal(t, test.reason == "", r.Measures[0].Reason == "")
			_, err = json.Marshal(r)
			require.NoError(t, err)
		})
	}
}

// The number of samples that is proposed is one that tells.
func TestSamplesThatItTakes(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	draw := func(n int, scale float64) bench.Row {
		values := make([]float64, n)
		for i := range values {
			values[i] = scale * math.Exp(0.3*random.NormFloat64())
		}
		return sampled("a", values...)
	}
	r, err := Results(result(draw(8, 1)), result(draw(8, 1)), Options{})
	require.NoError(t, err)
	require.Equal(t, Inconclusive, r.Verdict)
	n := r.Measures[0].Samples
	require.Greater(t, n, 8)
	seen := 0
	for range 200 {
		r, err := Results(result(draw(n, 1)), result(draw(n, 1.2)), Options{})
		require.NoError(t, err)
		if r.Verdict == Regressed {
			seen++
		}
	}
	require.Greater(t, seen, 100, "of 200, with %d samples: more often than not", n)
}

func TestWorstComesFirst(t *testing.T) {
	old := result(sampled("fine", 1, 1, 1, 1), exact(sampled("downloads", 1)), sampled("gone", 1, 1, 1))
	r, err := Results(old, result(sampled("fine", 1, 1, 1, 1), exact(sampled("downloads", 2)), sampled("fresh", 1)), Options{})
	require.NoError(t, err)
	require.Equal(t, Regressed, r.Verdict)
	require.Equal(t, []string{"downloads", "gone", "fine"}, []string{r.Measures[0].Name, r.Measures[1].Name, r.Measures[2].Name})
	require.Equal(t, "it is in the old result only", r.Measures[1].Reason)
	require.Equal(t, []string{"fresh is in the new result only"}, r.Notes)

	r, err = Results(result(), result(), Options{})
	require.NoError(t, err)
	require.Equal(t, Inconclusive, r.Verdict, "nothing tells nothing")
}

func TestThresholds(t *testing.T) {
	all, err := threshold.Parse("install.ratio <= 2\ninstall.ratio.p90 <= 3\nother < 1")
	require.NoError(t, err)
	row := sampled("install.ratio.disk", 1, 2, 3, 9)
	r, err := Results(result(row), result(row), Options{Thresholds: all})
	require.NoError(t, err)
	require.Equal(t, []Missed{
		{"install.ratio.disk", "install.ratio <= 2", 2.5, "s"}, {"install.ratio.disk", "install.ratio.p90 <= 3", 9, "s"},
	}, r.Missed)
}

func TestIncomparable(t *testing.T) {
	row := sampled("a", 1, 1, 1, 1)
	for name, test := range map[string]struct {
		change func(*bench.Report)
		want   string // empty: it is only a note
		note   string
	}{
		"another schema":    {func(r *bench.Report) { r.Schema = 2 }, "the new one has schema 2", ""},
		"another CPU":       {func(r *bench.Report) { r.Machine.CPU = "B" }, "CPU A and B", ""},
		"another kernel":    {func(r *bench.Report) { r.Machine.Kernel = "6.8" }, "kernel  and 6.8", ""},
		"another Juju":      {func(r *bench.Report) { r.Machine.Juju = "3.6" }, "Juju  and 3.6", ""},
		"smaller releases":  {func(r *bench.Report) { r.MB = 40 }, "600 MB (quick: false) and 40 MB", ""},
		"quick":             {func(r *bench.Report) { r.Quick = true }, "quick: true", ""},
		"another unit":      {func(r *bench.Report) { r.Rows[0].Unit = "ms" }, "a is another measure", ""},
		"a little memory":   {func(r *bench.Report) { r.Machine.MemoryBytes = 100 << 20 }, "", ""},
		"another Go":        {func(r *bench.Report) { r.Machine.Go = "go2" }, "", "built by go1 and go2"},
		"interrupted":       {func(r *bench.Report) { r.Complete = false }, "", "the new result is not complete"},
		"files that differ": {func(r *bench.Report) { r.Build.Dirty = true }, "", "the new result is of files that differ"},
		"a slower machine":  {func(r *bench.Report) { r.Calibration = bench.Calibration{BeforeMS: 10, AfterMS: 12} }, "", "10 ms before and 12 ms after"},
		"a steady machine":  {func(r *bench.Report) { r.Calibration = bench.Calibration{BeforeMS: 10, AfterMS: 10.5} }, "", ""},
		"never calibrated":  {func(r *bench.Report) { r.Calibration = bench.Calibration{BeforeMS: 10} }, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			changed := result(row)
			test.change(&changed)
			r, err := Results(result(row), changed, Options{})
			if test.want != "" {
				require.ErrorIs(t, err, ErrIncomparable)
				require.ErrorContains(t, err, test.want)
				return
			}
			require.NoError(t, err)
			if test.note == "" {
				require.Empty(t, r.Notes)
				return
			}
			require.Len(t, r.Notes, 1)
			require.Contains(t, r.Notes[0], test.note)
		})
	}
	other := result(row)
	other.Machine.CPU = "B"
	r, err := Results(result(row), other, Options{AnyMachine: true})
	require.NoError(t, err)
	require.Equal(t, []string{"they are of different machines: CPU A and B"}, r.Notes)
}

// pool returns samples as machines give them: most lie close together, and some were
// disturbed.
func pool(random *rand.Rand) []float64 {
	values := make([]float64, 60)
	for i := range values {
		values[i] = 10 * math.Exp(0.04*random.NormFloat64())
		if random.IntN(30) == 0 {
			values[i] *= 1 + random.Float64()/2
		}
	}
	return values
}

// TestSimulation compares pairs of files that are drawn from pools of samples, a pool a
// measure: of those where nothing has changed few are regressed, and with enough samples
// nearly all are ok; of those where one measure has become 20 % worse nearly all are
// regressed.
func TestSimulation(t *testing.T) {
	const comparisons, measures, changed = 1000, 20, 7
	for _, test := range []struct {
		samples int
		scale   float64
		bound   func(*testing.T, map[Verdict]int)
	}{
		{10, 1, func(t *testing.T, counts map[Verdict]int) { require.LessOrEqual(t, counts[Regressed], 50) }},
		{10, 1.2, func(t *testing.T, counts map[Verdict]int) { require.GreaterOrEqual(t, counts[Regressed], 950) }},
		{20, 1, func(t *testing.T, counts map[Verdict]int) {
			require.LessOrEqual(t, counts[Regressed], 50)
			require.GreaterOrEqual(t, counts[OK], 950)
		}},
		{20, 1.2, func(t *testing.T, counts map[Verdict]int) { require.GreaterOrEqual(t, counts[Regressed], 950) }},
	} {
		t.Run(fmt.Sprintf("%d samples, scaled by %g", test.samples, test.scale), func(t *testing.T) {
			random := rand.New(rand.NewPCG(20, 26))
			var pools [][]float64
			for range measures {
				pools = append(pools, pool(random))
			}
			counts := map[Verdict]int{}
			for range comparisons {
				old, new := result(exact(sampled("downloads", 1))), result(exact(sampled("downloads", 1)))
				for i, pool := range pools {
					random.Shuffle(len(pool), func(i, j int) { pool[i], pool[j] = pool[j], pool[i] })
					before, after := slices.Clone(pool[:test.samples]), slices.Clone(pool[test.samples:2*test.samples])
					if i == changed {
						for j := range after {
							after[j] *= test.scale
						}
					}
					name := fmt.Sprintf("measure.%d", i)
					old.Rows, new.Rows = append(old.Rows, sampled(name, before...)), append(new.Rows, sampled(name, after...))
				}
				r, err := Results(old, new, Options{})
				require.NoError(t, err)
				counts[r.Verdict]++
			}
			t.Log(counts)
			test.bound(t, counts)
		})
	}
}
