package bench

import (
	"regexp"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/bench/threshold"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/report"
)

// OfScenarios returns the result of scenarios that ran, each of whose phases is a measure:
// a sample is a run of the scenario in which the phase came to its end.
func OfScenarios(started time.Time, reports []*report.Report, thresholds threshold.Thresholds) (Report, error) {
	r := Report{Schema: Schema, Started: started.UTC().Truncate(time.Second), TookSeconds: time.Since(started).Seconds(), Machine: ThisMachine(), Scenarios: reports}
	index := map[string]int{}
	var samples [][]float64
	for _, scenario := range reports {
		r.Samples = max(r.Samples, scenario.Sample, 1)
		for _, phase := range scenario.Phases {
			if phase.Verdict != report.OK && phase.Verdict != report.Missed {
				continue
			}
			measure := scenario.Scenario + "." + slug(phase.Name)
			i, known := index[measure]
			if !known {
				i = len(r.Rows)
				index[measure] = i
				r.Rows = append(r.Rows, Row{Experiment: scenario.Scenario, Measure: measure, Name: scenario.Scenario + ": " + phase.Name, Unit: "s", Floor: "not known"})
				samples = append(samples, nil)
			}
			samples[i] = append(samples[i], phase.Took.Seconds())
		}
	}
	for i, row := range r.Rows {
		row = row.of(series("took", "s", samples[i]))
		var err error
		if r.Rows[i], err = row.judged(thresholds); err != nil {
			return r, err
		}
	}
	return r, nil
}

var noWord = regexp.MustCompile(`[^a-z0-9]+`)

// slug makes one word of the name of a phase.
func slug(name string) string {
	return strings.Trim(noWord.ReplaceAllString(strings.ToLower(name), "_"), "_")
}
