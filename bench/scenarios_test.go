package bench

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/bench/threshold"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/report"
)

// A phase is a measure, and each run in which it came to its end a sample.
func TestOfScenarios(t *testing.T) {
	run := func(sample int, phases ...report.Phase) *report.Report {
		return &report.Report{Scenario: "auto", Sample: sample, Phases: phases}
	}
	upgrade := func(s int, v report.Verdict) report.Phase {
		return report.Phase{Name: "upgrade to 7.14.3, all units", Took: time.Duration(s) * time.Second, Verdict: v}
	}
	all, err := threshold.Parse("auto.upgrade_to_7_14_3_all_units < 1m")
	require.NoError(t, err)
	r, err := OfScenarios(time.Now(), []*report.Report{
		run(1, upgrade(30, report.OK), report.Phase{Name: "model made", Took: time.Second, Verdict: report.OK}),
		run(2, upgrade(200, report.Broken)),
		run(3, upgrade(90, report.Missed)),
	}, all)
	require.NoError(t, err)
	require.Equal(t, Schema, r.Schema)
	require.Equal(t, 3, r.Samples)
	require.Len(t, r.Rows, 2)
	require.Equal(t, "auto.upgrade_to_7_14_3_all_units", r.Rows[0].Measure)
	require.Equal(t, []float64{30, 90}, r.Rows[0].Series[0].Values, "what did not end has no time")
	require.Equal(t, report.Missed, r.Rows[0].Verdict)
	require.Equal(t, report.Reported, r.Rows[1].Verdict)
	require.Len(t, r.Scenarios, 3)
	require.Positive(t, r.Machine.Cores)
}
