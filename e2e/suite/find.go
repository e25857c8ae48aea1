package suite

import (
	"context"
	"errors"
	"fmt"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/fixtures/environment"
)

// ErrSkip is the error of Find where scenarios are to be skipped; its text says why.
var ErrSkip = errors.New("skipped")

// Find returns the environment that scenarios run in, which is up. Without one they are
// skipped (ErrSkip), as they are in a short run; or they fail, if required, the value of
// E2E_REQUIRE, says juju.
func Find(ctx context.Context, short bool, required string) (env *environment.Environment, err error) {
	what, why := decide(short, required, nil)
	if what == run { // Only then is there a need to look.
		env, err = environment.Find(ctx, environment.Options{})
		what, why = decide(short, required, err)
	}
	switch what {
	case run:
		return env, nil
	case skip:
		return nil, fmt.Errorf("%w: %s", ErrSkip, why)
	}
	return nil, errors.New(why)
}

// decision is what becomes of scenarios.
type decision string

const (
	run  decision = "run"
	skip decision = "skip"
	fail decision = "fail"
)

// decide is the one rule for scenarios that may not run. Missing says why there is no
// environment. What is required never turns into a skip, which looks like success: not
// by a short run, and not by a misspelled requirement. The text says why scenarios do
// not run.
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
