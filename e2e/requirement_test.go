package e2e

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// decision is what becomes of a scenario.
type decision string

const (
	run  decision = "run"
	skip decision = "skip"
	fail decision = "fail"
)

// decide is the one rule for scenarios that may not run. required is E2E_REQUIRE;
// missing says why there is no environment. What is required never turns into a
// skip, which looks like success: not by -short, and not by a misspelled
// requirement. The text says why a scenario does not run.
func decide(short bool, required string, missing error) (decision, string) {
	needs := fmt.Sprintf("needs Juju and LXD: %v (make them with `ccbench env up`)", missing)
	switch {
	case required != "" && required != "juju":
		return fail, fmt.Sprintf("E2E_REQUIRE is %q: set it to juju, or not at all", required)
	case required != "" && missing != nil:
		return fail, needs
	case required != "":
		return run, ""
	case short:
		return skip, "takes minutes on a real Juju: run it without -short"
	case missing != nil:
		return skip, needs
	}
	return run, ""
}

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
