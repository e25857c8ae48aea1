// Package e2e runs the scenarios on a real Juju and LXD.
//
// It needs what `ccbench env up` makes. Where that is missing, and with -short, the
// scenarios are skipped and say so. One of them is run by
// `go test ./e2e -v -run 'TestScenarios/^auto$'`. Environment variables change what they
// do:
//
//	E2E_REQUIRE=juju   run every scenario, also with -short, and fail where what it
//	                   needs is missing; no other value is known
//	E2E_ALL=1          run also the scenarios that run on request only, such as scale
//	E2E_PARALLEL=N     run up to N scenarios at once, as far as memory allows; the default
//	                   is 2 on a machine with two cores or more, else 1
//	E2E_KEEP=1         keep the model and the volumes of every scenario
//	E2E_CHARM=FILE     deploy a packed charm instead of this module's own; a path that is
//	                   not absolute is below the module's root
//	E2E_PREVIOUS_CHARM=FILE
//	                   refresh from this packed charm; the default is that of an earlier
//	                   commit, which needs the repository's history
//	E2E_POSTGRESQL_CHANNEL=16/stable
//	                   use Charmhub's PostgreSQL instead of the suite's own
//	E2E_RELEASES=DIR   deploy the archives of Concourse in this folder instead of building
//	                   them: under GitHub's names, with .sha1 and .sha256 beside them; its
//	                   path is absolute
//	E2E_HOST_PATH=DIR  volumes are directories in this one instead of LXD's own volumes
//	E2E_ARTIFACTS=DIR  where evidence and reports go; the default is artifacts/
//	                   in the repository, or with -artifacts go test's own place
//
// The last five minutes of go test's -timeout, or the last fifth if it is below 25
// minutes, are kept: a scenario that still runs then fails, evidence is taken and
// its model destroyed. -timeout 0 sets no limit. An interrupt ends all that run in the same
// way; a second one kills the process.
package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/report"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/suite"
)

func TestScenarios(t *testing.T) {
	required := os.Getenv("E2E_REQUIRE")
	env, err := suite.Find(t.Context(), testing.Short(), required)
	if errors.Is(err, suite.ErrSkip) {
		t.Skip(err)
	}
	require.NoError(t, err)

	options := suite.Options{
		Artifacts: artifacts(t),
		Required:  required != "",
		Keep:      os.Getenv("E2E_KEEP") != "",
		Summary:   os.Getenv("GITHUB_STEP_SUMMARY"),
		Again:     again,
		Parallel:  parallel(t),
	}
	if deadline, limited := t.Deadline(); limited {
		options.Deadline = deadline
		options.Timeout = flag.Lookup("test.timeout").Value.(flag.Getter).Get().(time.Duration)
	}
	s := suite.New(suite.NewJuju(env, suite.JujuOptions{
		Charm:      os.Getenv("E2E_CHARM"),
		Previous:   os.Getenv("E2E_PREVIOUS_CHARM"),
		PostgreSQL: os.Getenv("E2E_POSTGRESQL_CHANNEL"),
		Releases:   os.Getenv("E2E_RELEASES"),
		HostPath:   os.Getenv("E2E_HOST_PATH"),
	}), options)
	t.Cleanup(func() {
		if err := s.Close(t.Output()); err != nil {
			t.Error(err)
		}
	})
	// Whoever reads what is printed may go away, by its end or with its terminal: models
	// are destroyed all the same.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop)
	// All print here, as it happens: lines of two tests in turn would need a header each.
	queue := s.Queue(ctx, t.Output())
	for _, scenario := range suite.All() {
		if scenario.OnRequest && os.Getenv("E2E_ALL") == "" {
			continue
		}
		t.Run(scenario.Name, func(t *testing.T) {
			wait := queue.Add(scenario)
			t.Parallel() // goes on when all are added
			r := wait()
			fmt.Fprintln(t.Output(), r.Headline())
			switch r.Verdict {
			case report.Broken:
				t.Fail() // It has said why.
			case report.Skipped:
				t.Skip(r.Reason)
			}
		})
	}
}

// parallel returns how many scenarios may run at once; 0 is the default.
func parallel(t *testing.T) int {
	text := os.Getenv("E2E_PARALLEL")
	if text == "" {
		return 0
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, "E2E_PARALLEL")
	require.Positive(t, n, "E2E_PARALLEL")
	return n
}

// artifacts returns the folder for what scenarios leave behind.
func artifacts(t *testing.T) string {
	switch base := os.Getenv("E2E_ARTIFACTS"); {
	case base != "":
		return base
	case flag.Lookup("test.artifacts").Value.String() == "true":
		return t.ArtifactDir()
	}
	return filepath.Join("..", "artifacts")
}

func again(scenario string) string {
	return fmt.Sprintf("E2E_REQUIRE=juju go test ./e2e -count=1 -v -timeout 40m -run 'TestScenarios/^%s$'", scenario)
}
