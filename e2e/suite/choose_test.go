package suite

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/report"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/scenarios"
)

var sampleScenarios = []Scenario{
	{Name: "auto", Group: "cluster"}, {Name: "specification-auto", Group: "cluster"}, {Name: "bad-input", Group: "errors"},
	{Name: "upgrade", Group: "cluster"}, {Name: "scale", Group: "size", OnRequest: true},
}

func titles(all []Scenario) (titles []string) {
	for _, sc := range all {
		titles = append(titles, sc.title())
	}
	return titles
}

func TestChoose(t *testing.T) {
	for name, test := range map[string]struct{ ask, want []string }{
		"all":                  {nil, []string{"auto", "specification-auto", "bad-input", "upgrade"}},
		"whole names":          {[]string{"upgrade", "auto"}, []string{"auto", "upgrade"}},
		"a pattern":            {[]string{".*auto"}, []string{"auto", "specification-auto"}},
		"either":               {[]string{"auto|upgrade"}, []string{"auto", "upgrade"}},
		"a group":              {[]string{"cluster"}, []string{"auto", "specification-auto", "upgrade"}},
		"both, once":           {[]string{"auto", "cluster"}, []string{"auto", "specification-auto", "upgrade"}},
		"all but":              {[]string{"!spec.*", "!errors"}, []string{"auto", "upgrade"}},
		"a group but":          {[]string{"cluster", "!auto"}, []string{"specification-auto", "upgrade"}},
		"on request, by name":  {[]string{"scale"}, []string{"scale"}},
		"on request, by group": {[]string{"size", "auto"}, []string{"auto", "scale"}},
		"on request, not by a pattern that matches all": {[]string{".*"}, []string{"auto", "specification-auto", "bad-input", "upgrade"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Choose(sampleScenarios, test.ask...)
			require.NoError(t, err)
			require.Equal(t, test.want, titles(got))
		})
	}
	for name, test := range map[string]struct {
		ask  []string
		want string
	}{
		"a name that is not there": {[]string{"auto", "uprgade"}, `named "uprgade": see`},
		"half a name":              {[]string{"upgr"}, `named "upgr"`},
		"none left out":            {[]string{"!uprgade"}, `named "uprgade"`},
		"no regular expression":    {[]string{"auto("}, `"auto(" is no regular expression`},
		"nothing left":             {[]string{"auto", "!cluster"}, "auto !cluster leaves none"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Choose(sampleScenarios, test.ask...)
			require.ErrorIs(t, err, ErrChoice)
			require.ErrorContains(t, err, test.want)
		})
	}
}

func TestRounds(t *testing.T) {
	chosen := slices.Clone(sampleScenarios[:4])
	drawn := titles(Rounds(chosen, 3, 7))
	require.Equal(t, drawn, titles(Rounds(chosen, 3, 7)), "the seed decides")
	require.NotEqual(t, drawn, titles(Rounds(chosen, 3, 8)))
	require.Equal(t, sampleScenarios[:4], chosen, "what was given stays as it is")
	require.Len(t, drawn, 12)
	var orders [][]string
	for round := range 3 {
		var names []string
		for _, sc := range Rounds(chosen, 3, 7)[4*round : 4*round+4] {
			require.Equal(t, round+1, sc.Sample, "one round ends before the next begins")
			names = append(names, sc.Name)
		}
		orders = append(orders, names)
		require.ElementsMatch(t, []string{"auto", "specification-auto", "bad-input", "upgrade"}, names)
	}
	require.False(t, slices.Equal(orders[0], orders[1]) && slices.Equal(orders[1], orders[2]), "each round has an order of its own")
	require.NotContains(t, titles(Rounds(chosen, 1, 7))[0], "#")
}

// A drawn order is kept, and each sample has a folder and a case of its own.
func TestQueueOfSamples(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		long := lasting("long", 3, 1)
		long.Takes = time.Hour
		all := []Scenario{lasting("short", 1, 1), lasting("other", 1, 1), long, long}
		all[2].Sample, all[3].Sample = 1, 2
		reports, printed, base := play(t, &fleet{host: newHost()}, Options{Parallel: 2, KeepOrder: true}, t.Context(), all...)
		require.True(t, reports[2].Started.After(reports[0].Started), "the longest is not the first")
		require.Contains(t, read(t, base, "long", "1", "report.json"), `"sample": 1`)
		require.Contains(t, read(t, base, "long", "2", "report.json"), `"sample": 2`)
		require.Contains(t, read(t, base, "junit.xml"), `name="long#2"`)
		require.Contains(t, printed, "long#2: ok")
	})
}

// Somebody may look at the cluster of a scenario that failed for as long as he likes, with
// the evidence there already.
func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{host: newHost()}
		var paused []string
		o := Options{Pause: func(_ context.Context, scenario, visit string) {
			paused = append(paused, scenario+": "+visit)
			require.Zero(t, f.destroyed())
			require.Contains(t, f.clusters[0].Calls(), "collect")
			time.Sleep(time.Hour)
		}}
		broken := Scenario{Name: "broken", Run: func(_ context.Context, t scenarios.T, _ cluster.Cluster, _ scenarios.Inputs) { t.Errorf("no") }}
		reports, printed, _ := play(t, f, o, t.Context(), broken)
		require.Equal(t, []string{"broken: juju status"}, paused)
		require.Equal(t, report.Broken, reports[0].Verdict)
		require.Equal(t, []string{"no"}, reports[0].Failures, "there is time left for destruction:\n%s", printed)
		require.Equal(t, 1, f.destroyed())
	})
}
