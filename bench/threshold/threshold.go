// Package threshold reads what a measure must reach from a file, and judges by it.
//
// A line names a measure, an operator and a value: install.floor_ratio <= 1.15. It applies
// to the measure of that name and to those below it, such as install.floor_ratio.disk. A
// statistic may follow the name: auto.upgrade.p50 < 2m. What begins with # is a comment.
package threshold

import (
	_ "embed"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ErrSyntax marks a file that cannot be understood.
var ErrSyntax = errors.New("wrong threshold")

//go:embed targets.txt
var targets string

// Targets are what the specification asks for, and what this repository sets itself.
func Targets() (Thresholds, error) { return Parse(targets) }

// Threshold is a line of the file.
type Threshold struct {
	Measure   string
	Statistic string  // of the samples; empty is the measure's own value
	Operator  string  // < <= == >= >
	Value     float64 // in the measure's unit; of a time in seconds
	IsTime    bool    // Value was written as a time, such as 3m
	text      string
}

// String is the line as it was written.
func (t Threshold) String() string { return t.text }

// Thresholds are those of a file, in its order.
type Thresholds []Threshold

// statistics of samples, by how they are written.
var statistics = map[string]func(sorted []float64) float64{
	"min": func(s []float64) float64 { return s[0] },
	"p50": func(s []float64) float64 { return quantile(s, 0.5) },
	"p90": func(s []float64) float64 { return quantile(s, 0.9) },
	"p99": func(s []float64) float64 { return quantile(s, 0.99) },
	"max": func(s []float64) float64 { return s[len(s)-1] },
}

var operators = map[string]func(value, bound float64) bool{
	"<":  func(v, b float64) bool { return v < b },
	"<=": func(v, b float64) bool { return v <= b },
	"==": func(v, b float64) bool { return v == b },
	">=": func(v, b float64) bool { return v >= b },
	">":  func(v, b float64) bool { return v > b },
}

// Parse reads a file.
func Parse(text string) (Thresholds, error) {
	var all Thresholds
	number := 0
	for line := range strings.Lines(text) {
		number++
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if len(words) != 3 {
			return nil, fmt.Errorf("%w: line %d has %d words: write it as install.floor_ratio <= 1.15", ErrSyntax, number, len(words))
		}
		t := Threshold{Measure: words[0], Operator: words[1], text: strings.Join(words, " ")}
		if i := strings.LastIndexByte(t.Measure, '.'); i >= 0 && statistics[t.Measure[i+1:]] != nil {
			t.Measure, t.Statistic = t.Measure[:i], t.Measure[i+1:]
		}
		if operators[t.Operator] == nil {
			return nil, fmt.Errorf("%w: line %d has the operator %q: use <, <=, ==, >= or >", ErrSyntax, number, t.Operator)
		}
		var err error
		if t.Value, err = strconv.ParseFloat(words[2], 64); err != nil {
			d, durationErr := time.ParseDuration(words[2])
			if durationErr != nil {
				return nil, fmt.Errorf("%w: line %d has %q, which is neither a number nor a time such as 3m", ErrSyntax, number, words[2])
			}
			t.Value, t.IsTime = d.Seconds(), true
		}
		if math.IsNaN(t.Value) {
			return nil, fmt.Errorf("%w: line %d: no number is NaN", ErrSyntax, number)
		}
		all = append(all, t)
	}
	return all, nil
}

// Of returns those that apply to a measure.
func (all Thresholds) Of(measure string) Thresholds {
	return slices.Collect(func(yield func(Threshold) bool) {
		for _, t := range all {
			if (measure == t.Measure || strings.HasPrefix(measure, t.Measure+".")) && !yield(t) {
				return
			}
		}
	})
}

// perSecond is how many of a unit of time a second has.
var perSecond = map[string]float64{"s": 1, "ms": 1000}

// Judge returns the number that the threshold is about, and whether it holds. Value is the
// measure's own value; there must be samples. A time is judged only in a unit of time.
func (t Threshold) Judge(value float64, unit string, samples []float64) (number float64, ok bool, err error) {
	if t.IsTime && perSecond[unit] == 0 {
		return 0, false, fmt.Errorf("%w: %s is in %q, and %s is a time", ErrSyntax, t.Measure, unit, t)
	}
	if t.Statistic != "" {
		value = statistics[t.Statistic](slices.Sorted(slices.Values(samples)))
	}
	return value, operators[t.Operator](value, t.Bound(unit)), nil
}

// Bound returns the limit in a unit.
func (t Threshold) Bound(unit string) float64 {
	if t.IsTime {
		return t.Value * perSecond[unit]
	}
	return t.Value
}

// quantile is the smallest value that at least a share q do not exceed; for the median of
// an even number it is the mean of the middle two.
func quantile(sorted []float64, q float64) float64 {
	if n := len(sorted); q == 0.5 && n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}
