package compare

import (
	"fmt"
	"math"
	"slices"

	"github.com/aclements/go-moremath/stats"

	"github.com/concourse-ci-machine/concourse-ci-machine/bench"
)

// measure puts the samples of both results side by side.
func measure(old, new bench.Row) Measure {
	m := Measure{Name: old.Measure, Unit: old.Unit, Exact: old.Exact, Old: old.Value, New: new.Value}
	m.old, m.new = badness(old), badness(new)
	m.OldN, m.NewN = len(m.old), len(m.new)
	if m.Exact {
		m.Worse = change(slices.Max(m.old), slices.Max(m.new))
	} else {
		m.Worse = change(median(m.old), median(m.new))
	}
	return m
}

// badness returns the samples so that greater is worse, and a share stays a share.
func badness(row bench.Row) []float64 {
	values := slices.Clone(row.Series[0].Values)
	if row.HigherIsBetter {
		for i, v := range values {
			values[i] = 1 / v
		}
	}
	return values
}

// change is by which share new is greater than old.
func change(old, new float64) float64 {
	switch {
	case old == new:
		return 0
	case old == 0, math.IsInf(new, 1):
		return math.MaxFloat64 // JSON knows no infinity
	}
	return new/old - 1
}

// judge gives each measure that has none its verdict.
func judge(all []Measure, o Options) {
	var noisy []*Measure
	for i := range all {
		m := &all[i]
		switch {
		case m.Verdict != "":
		case !m.Exact:
			noisy = append(noisy, m)
		case m.Worse > 0:
			m.Verdict, m.Reason = Regressed, "it is exact, and greater"
			if m.New < m.Old {
				m.Reason = "it is exact, and less"
			}
		default:
			m.Verdict = OK
		}
	}
	if len(noisy) == 0 {
		return
	}
	var ps []float64
	for _, m := range noisy {
		ps = append(ps, greater(m.old, m.new))
	}
	// The first step of Holm is the hardest; what passes it is found whatever the others are.
	search := newSearch(o.Alpha/float64(len(noisy)), o.Detect)
	for i, p := range holm(ps) {
		noisy[i].P = p
		noisy[i].judge(o, search)
	}
}

func (m *Measure) judge(o Options, search *search) {
	significant := m.P <= o.Alpha*(1+rounding)
	if significant && m.Worse >= o.Effect {
		m.Verdict = Regressed
		return
	}
	m.Verdict = OK
	noise := append(relative(m.old), relative(m.new)...)
	enough := search.power(noise, m.OldN, m.NewN) >= enoughFor
	switch {
	case !significant && m.Worse >= o.Detect:
		m.Verdict, m.Reason = Inconclusive, fmt.Sprintf("it is %.0f %% worse, which these samples do not tell from chance", 100*m.Worse)
	case !enough:
		m.Verdict, m.Reason = Inconclusive, fmt.Sprintf("these samples may hide that it is %.0f %% worse", 100*o.Detect)
	default:
		return
	}
	if m.Samples = search.enough(noise); m.Samples > 0 {
		m.Samples = max(m.Samples, min(m.OldN, m.NewN)+1)
		m.Reason += fmt.Sprintf(": it takes %d of each", m.Samples)
	} else {
		m.Reason += fmt.Sprintf(": it takes more than %d of each, or less noise", sizes[len(sizes)-1])
	}
}

// greater returns the probability that samples are as much greater than others, or more,
// if all are of one distribution: the one-sided test of Mann and Whitney, exact where the
// samples are few.
func greater(old, new []float64) float64 {
	r, err := stats.MannWhitneyUTest(old, new, stats.LocationLess)
	if err != nil { // all are equal
		return 1
	}
	return r.P
}

// holm corrects probabilities for their number, after S. Holm, A Simple Sequentially
// Rejective Multiple Test Procedure, 1979: the probability that any of them is below alpha
// by chance is below alpha.
func holm(ps []float64) []float64 {
	order := make([]int, len(ps))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int {
		switch {
		case ps[i] < ps[j]:
			return -1
		case ps[i] > ps[j]:
			return 1
		}
		return 0
	})
	corrected := make([]float64, len(ps))
	least := 0.0
	for rank, i := range order {
		least = max(least, min(1, ps[i]*float64(len(ps)-rank)))
		corrected[i] = least
	}
	return corrected
}

// relative divides samples by their median; without one that is positive there is no noise
// to speak of. Few samples vary less about their own median than about the true one, which
// is made up for.
func relative(samples []float64) []float64 {
	middle := median(samples)
	if !(middle > 0) || math.IsInf(middle, 0) {
		return nil
	}
	spread := 1.0
	if n := float64(len(samples)); n > 1 {
		spread = math.Sqrt(n / (n - 1))
	}
	values := slices.Clone(samples)
	for i := range values {
		values[i] = 1 + (values[i]/middle-1)*spread
	}
	return values
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}
