package suite

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDecide(t *testing.T) {
	missing := errors.New("no controller answers")
	for _, test := range []struct {
		name     string
		short    bool
		required string
		missing  error
		want     decision
		reason   string // part of the text
	}{
		{"all is there", false, "", nil, run, ""},
		{"nothing is there", false, "", missing, skip, "no controller answers (make them with `ccbench env up`)"},
		{"short", true, "", nil, skip, "-short"},
		{"short, nothing is there", true, "", missing, skip, "-short"},
		{"required", false, "juju", nil, run, ""},
		{"required, nothing is there", false, "juju", missing, fail, "no controller answers (make them with `ccbench env up`)"},
		{"short but required", true, "juju", nil, run, ""},
		{"short but required, nothing is there", true, "juju", missing, fail, "no controller answers"},
		{"misspelled", false, "Juju", nil, fail, `"Juju"`},
		{"short and misspelled", true, "1", missing, fail, `"1"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, reason := decide(test.short, test.required, test.missing)
			require.Equal(t, test.want, got)
			require.Contains(t, reason, test.reason)
			require.Equal(t, got == run, reason == "", "what does not run says why")
		})
	}
}
