package plan_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/plan"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

var pausedAt = time.Unix(1000, 0).UTC()

// paused has the unit's worker paused, and out if that is what its supervisor says.
func paused(out bool) func(*unit) {
	return func(u *unit) {
		if refused := u.in.Pause(pausedAt); refused != "" {
			panic(refused)
		}
		u.in.Status.Landing, u.in.Status.Paused = !out, out
		if out {
			u.in.Status.Worker = supervisor.Answer{}
		}
	}
}

// A pause is kept by every hook, until it is resumed, and the unit says how far it is.
func TestPause(t *testing.T) {
	of := func(p plan.Plan) []string {
		return []string{p.Changes.Self[relations.WorkerPause], string(p.Changes.Status.Level) + " " + p.Changes.Status.Message}
	}
	u := follower(config(func(c *plan.Config) { c.DrainTimeout = time.Hour }), paused(false))
	got := plan.Make(u.in)
	require.True(t, got.Spec.Paused)
	require.Equal(t, pausedAt, got.Spec.Asked)
	require.NotNil(t, got.Spec.Worker, "which starts when it is resumed")
	require.Equal(t, []string{relations.Pausing, "maintenance Pausing the worker: it ends with its builds, in 1h0m0s at most..."}, of(got))
	u = u.with(paused(true))
	u.in.Before = *got.Spec
	require.Empty(t, u.in.Pause(pausedAt.Add(time.Minute)))
	got = plan.Make(u.in)
	require.True(t, got.Spec.Paused)
	require.Equal(t, pausedAt, got.Spec.Asked, "its time does not begin anew")
	require.Equal(t, []string{relations.Paused, "maintenance Paused: the worker is out (v7.14.2), run `resume`"}, of(got))

	u.app()[relations.TargetVersion], u.app()[relations.ActiveVersion], u.in.Status.Run = next, next, next
	got = plan.Make(u.in)
	require.Equal(t, next, got.Spec.Run)
	require.Equal(t, next, got.Changes.Self[relations.ConcourseVersion], "it has come along: nobody waits for it")
	require.NotEmpty(t, got.Changes.Self[relations.WorkerSettings])

	u.in.Resume()
	got = plan.Make(u.in)
	require.False(t, got.Spec.Paused)
	require.Equal(t, []string{"", "maintenance Starting Concourse v7.14.3..."}, of(got))
}

// Who has no worker, or is not ready for it, is not paused.
func TestPauseIsRefused(t *testing.T) {
	u := leader()
	require.Contains(t, u.in.Pause(pausedAt), "pause a unit with a worker")
	u = leader(config(func(c *plan.Config) { c.Mode = "web" }), app(relations.WebUnit, "ci/9"))
	require.Contains(t, u.in.Pause(pausedAt), "pause a unit with a worker")
	u.in.Config.Mode = "all"
	require.Empty(t, u.in.Pause(pausedAt))
	u = follower()
	u.in.Before = supervisor.Spec{}
	require.Contains(t, u.in.Pause(pausedAt), "being prepared")
	require.False(t, u.in.Before.Paused)
}

// Where a unit has both, its web server goes on, and stays for its own worker.
func TestPauseBesideTheWebServer(t *testing.T) {
	u := leader(config(func(c *plan.Config) { c.Mode = "all" }), func(u *unit) { u.settle() }, paused(false))
	got := plan.Make(u.in)
	require.Equal(t, []string{"ci/0"}, got.Spec.Landing)
	require.NotNil(t, got.Spec.Web)
	u = u.with(paused(true))
	require.Empty(t, plan.Make(u.in).Spec.Landing)
}

// The web server stays for a worker that lands to be paused, and for none that is out, or that
// it has not seen for long. The leader gives paused ones no turn, and waits for none of them.
func TestNobodyWaitsForPausedUnits(t *testing.T) {
	pausing, out := says("ci/2", relations.WorkerPause, relations.Pausing), says("ci/2", relations.WorkerPause, relations.Paused)
	due, behind := says("ci/2", relations.WorkerDue, old), says("ci/2", relations.ConcourseVersion, "7.14.1")
	missing := status(func(s *supervisor.Status) { s.Missing = "ci-2" })
	require.Equal(t, []string{"ci/2"}, plan.Make(cluster(pausing).in).Spec.Landing)
	require.Equal(t, []string{"ci/2"}, plan.Make(cluster(pausing, due, app(relations.Turns, "ci/2=199")).in).Spec.Landing, "once")
	for _, changes := range [][]func(*unit){{out}, {pausing, missing}} {
		require.Empty(t, plan.Make(cluster(changes...).in).Spec.Landing)
	}
	for _, how := range []func(*unit){pausing, out} {
		got := plan.Make(cluster(how, due, behind, app(relations.Turns, "ci/2=199")).in)
		require.Equal(t, relations.None, got.Changes.App[relations.Turns])
		require.Equal(t, "Web server ready (v7.14.2)", got.Changes.Status.Message)
		got = plan.Make(cluster(how, due, says("ci/1", relations.WorkerDue, old)).in)
		require.Equal(t, "ci/1=99", got.Changes.App[relations.Turns])
		require.Equal(t, "Replacing the workers (v7.14.2): 0 of 1 are through...", got.Changes.Status.Message)
	}
}
