package turns_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/turns"
)

func TestNext(t *testing.T) {
	due := func(name string) turns.Unit { return turns.Unit{Name: name, Due: true, Running: true} }
	of := func(names ...string) (all []turns.Turn) {
		for _, name := range names {
			all = append(all, turns.Turn{Unit: name})
		}
		return all
	}
	for name, test := range map[string]struct {
		before []turns.Turn
		units  []turns.Unit
		most   int
		want   []turns.Turn
	}{
		"nobody is due":              {nil, []turns.Unit{{Name: "ci/0", Running: true}}, 1, nil},
		"one at a time":              {nil, []turns.Unit{due("ci/1"), due("ci/0")}, 1, of("ci/0")},
		"two at a time":              {nil, []turns.Unit{due("ci/0"), due("ci/1"), due("ci/2")}, 2, of("ci/0", "ci/1")},
		"not while it lands":         {of("ci/1"), []turns.Unit{due("ci/0"), {Name: "ci/1", Due: true}}, 1, of("ci/1")},
		"not while it starts":        {of("ci/1"), []turns.Unit{due("ci/0"), {Name: "ci/1"}}, 1, of("ci/1")},
		"through":                    {of("ci/1"), []turns.Unit{due("ci/0"), {Name: "ci/1", Running: true}}, 1, of("ci/0")},
		"due again":                  {of("ci/1"), []turns.Unit{due("ci/0"), due("ci/1")}, 1, of("ci/1")},
		"due again, another process": {of("ci/1"), []turns.Unit{due("ci/0"), {Name: "ci/1", Process: "2", Due: true, Running: true}}, 1, of("ci/0")},
		"gone":                       {of("ci/1"), []turns.Unit{due("ci/0")}, 1, of("ci/0")},
		"missing in its turn":        {of("ci/1"), []turns.Unit{due("ci/0"), {Name: "ci/1", Due: true, Missing: true}}, 1, of("ci/0")},
		"replaced, and missing":      {of("ci/1"), []turns.Unit{due("ci/0"), {Name: "ci/1", Process: "2", Missing: true}}, 1, of("ci/1")},
		"replaced, due, and missing": {of("ci/1"), []turns.Unit{due("ci/0"), {Name: "ci/1", Process: "2", Due: true, Missing: true}}, 1, of("ci/0")},
		"missing before its turn":    {nil, []turns.Unit{{Name: "ci/0", Due: true, Missing: true}, due("ci/1")}, 1, of("ci/1")},
		"not listed at present":      {nil, []turns.Unit{{Name: "ci/0", Due: true}, due("ci/1")}, 1, of("ci/1")},
		"fewer than there are now":   {of("ci/0", "ci/1"), []turns.Unit{due("ci/0"), due("ci/1"), due("ci/2")}, 1, of("ci/0", "ci/1")},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.want, turns.Next(test.before, test.units, test.most))
		})
	}
}
