package plan_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/plan"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
)

// Which unit has the web server. ci/0 leads, and the others are ci/1 and ci/2.
func TestAppoint(t *testing.T) {
	at := map[string]string{"ci/0": "10.0.0.1:8080", "ci/1": "10.0.0.2:8080", "ci/2": "10.0.0.3:8080"}
	for _, test := range []struct {
		name              string
		serving, next     string
		answering, silent string // units
		gone              string // from the relation
		left              string // though it stands in the relation
		dying             string
		unrelated         bool     // to a database
		unfit             []string // units that do not run what is active
		wantServing       string
		wantNext          string
		wantTSA           string
	}{
		{name: "the leader at first", wantNext: "ci/0"},
		{name: "it has not answered yet", next: "ci/0", wantNext: "ci/0"},
		{name: "it answers", next: "ci/0", answering: "ci/0", wantServing: "ci/0", wantTSA: "10.0.0.1:2222"},
		{name: "it is kept where another leads", serving: "ci/1", answering: "ci/1", wantServing: "ci/1", wantTSA: "10.0.0.2:2222"},
		{name: "it is quiet for a moment", serving: "ci/1", wantServing: "ci/1", wantTSA: "10.0.0.2:2222"},
		{name: "it is silent", serving: "ci/1", silent: "ci/1", wantServing: "ci/1", wantNext: "ci/0", wantTSA: "10.0.0.2:2222"},
		{name: "it is silent, and the leader unfit", serving: "ci/1", silent: "ci/1", unfit: []string{"ci/0"},
			wantServing: "ci/1", wantNext: "ci/2", wantTSA: "10.0.0.2:2222"},
		{name: "it is silent, and nobody fit", serving: "ci/1", silent: "ci/1", unfit: []string{"ci/0", "ci/2"},
			wantServing: "ci/1", wantTSA: "10.0.0.2:2222"},
		{name: "the leader's own is silent", serving: "ci/0", silent: "ci/0", wantServing: "ci/0", wantNext: "ci/1", wantTSA: "10.0.0.1:2222"},
		{name: "the next has not answered", serving: "ci/1", next: "ci/0", silent: "ci/1",
			wantServing: "ci/1", wantNext: "ci/0", wantTSA: "10.0.0.2:2222"},
		{name: "the next answers", serving: "ci/1", next: "ci/0", silent: "ci/1", answering: "ci/0",
			wantServing: "ci/0", wantTSA: "10.0.0.1:2222"},
		{name: "the next answers, and the former again", serving: "ci/1", next: "ci/0", answering: "ci/0 ci/1",
			wantServing: "ci/1", wantTSA: "10.0.0.2:2222"},
		{name: "the next is silent, too", serving: "ci/1", next: "ci/0", silent: "ci/1 ci/0",
			wantServing: "ci/1", wantNext: "ci/2", wantTSA: "10.0.0.2:2222"},
		{name: "and the one after it", serving: "ci/1", next: "ci/2", silent: "ci/1 ci/2",
			wantServing: "ci/1", wantNext: "ci/0", wantTSA: "10.0.0.2:2222"},
		{name: "it is silent, and there is no database", serving: "ci/1", silent: "ci/1", unrelated: true, wantServing: "ci/1", wantTSA: "10.0.0.2:2222"},
		{name: "the first, without a database", unrelated: true, wantNext: "ci/0"},
		{name: "it was removed", serving: "ci/1", gone: "ci/1", wantServing: "ci/1", wantNext: "ci/0", wantTSA: "10.0.0.9:2222"},
		{name: "it is being removed", serving: "ci/1", answering: "ci/1", dying: "ci/1", wantServing: "ci/1", wantNext: "ci/0", wantTSA: "10.0.0.2:2222"},
		{name: "it is gone, though it stands in the relation", serving: "ci/1", answering: "ci/1", left: "ci/1",
			wantServing: "ci/1", wantNext: "ci/0", wantTSA: "10.0.0.9:2222"},
		{name: "it was removed, and nobody is fit", serving: "ci/1", gone: "ci/1", unfit: []string{"ci/0", "ci/2"},
			wantServing: "ci/1", wantNext: "ci/0", wantTSA: "10.0.0.9:2222"},
		{name: "the next was removed", serving: "ci/1", next: "ci/2", gone: "ci/2", silent: "ci/1",
			wantServing: "ci/1", wantNext: "ci/0", wantTSA: "10.0.0.2:2222"},
	} {
		t.Run(test.name, func(t *testing.T) {
			u := leader()
			units := func(names string) (list string) {
				for unit, address := range at {
					if slices.Contains(strings.Fields(names), unit) {
						list += " " + address
					}
				}
				return list
			}
			u.in.Status.Answering, u.in.Status.Silent = units(test.answering), units(test.silent)
			u.app()[relations.WebUnit], u.app()[relations.NextWebUnit] = test.serving, test.next
			u.app()[relations.TSAHost] = ""
			if test.serving != "" {
				u.app()[relations.TSAHost] = "10.0.0.9:2222"
			}
			u.in.Juju.Peers.Self[relations.ConcourseVersion] = old
			if test.unrelated {
				u.in.Juju.Database = nil
			}
			for _, unit := range []string{"ci/1", "ci/2"} {
				if unit != test.gone {
					u.in.Juju.Peers.Units[unit] = map[string]string{relations.WebIP: at[unit][:8], relations.ConcourseVersion: old}
				}
			}
			for _, unit := range test.unfit {
				if unit == "ci/0" {
					u.in.Juju.Peers.Self[relations.ConcourseVersion] = next
				} else {
					u.in.Juju.Peers.Units[unit][relations.ConcourseVersion] = next
				}
			}
			u.in.Juju.Members.All = slices.DeleteFunc([]string{"ci/0", "ci/1", "ci/2"}, func(unit string) bool { return unit == test.left })
			if test.dying != "" {
				u.in.Juju.Members.Dying = []string{test.dying}
			}
			app := plan.Make(u.in).Changes.App
			if test.wantNext == "" {
				require.Empty(t, app[relations.NextTSAHost])
			} else {
				require.Equal(t, at[test.wantNext][:8]+":2222", app[relations.NextTSAHost])
			}
			require.Equal(t, []string{test.wantServing, test.wantNext, test.wantTSA},
				[]string{app[relations.WebUnit], app[relations.NextWebUnit], app[relations.TSAHost]})
		})
	}
}

// What a unit runs in mode auto. What is there stays until the other has answered.
func TestRoles(t *testing.T) {
	for _, test := range []struct {
		name          string
		serving, next string
		web, worker   bool
	}{
		{"the first of all", "", "ci/0", true, false},
		{"others wait for the first", "", "ci/1", false, true},
		{"serves", "ci/0", "", true, false},
		{"serves as long as no other does", "ci/0", "ci/1", true, false},
		{"works beside the web server that is to take over", "ci/1", "ci/0", true, true},
		{"works", "ci/1", "", false, true},
		{"works while another takes over", "ci/1", "ci/2", false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			u := follower()
			u.relate()
			u.app()[relations.WebUnit], u.app()[relations.NextWebUnit] = test.serving, test.next
			spec := plan.Make(u.in).Spec
			require.Equal(t, test.web, spec.Web != nil, "web server")
			require.Equal(t, test.worker, spec.Worker != nil, "worker")
			require.Equal(t, test.web && !test.worker, spec.Land)
			require.Equal(t, test.web, spec.Activate, "who goes first says what is active")
		})
	}
}

// A web server that moves is nothing to a worker but another address.
func TestWorkerKnowsTheWebServerByName(t *testing.T) {
	u := follower()
	before := plan.Make(u.in).Spec
	require.Equal(t, "10.0.0.9", before.TSA)
	u.app()[relations.WebUnit], u.app()[relations.TSAHost] = "ci/7", "10.0.0.7:2222"
	after := plan.Make(u.in)
	require.Equal(t, "10.0.0.7", after.Spec.TSA)
	require.Equal(t, before.Worker, after.Spec.Worker)
	require.Equal(t, "", u.obey(after))
	require.Equal(t, "10.0.0.7", u.seen.TSA)
	u.app()[relations.NextTSAHost] = "10.0.0.8:2222"
	require.Equal(t, "10.0.0.8 10.0.0.7", plan.Make(u.in).Spec.TSA)
	u.app()[relations.TSAHost] = "ci.example.com:2222" // that is a name already
	require.Equal(t, "ci.example.com:2222", plan.Make(u.in).Spec.Worker.TSAHost)
}

// A worker that has to stop, as each unit becomes a web server alone, may end with its
// builds: drain-timeout says how long.
func TestWorkerEndsWithItsBuildsWhenTheModeChanges(t *testing.T) {
	u := follower(func(u *unit) {
		u.relate()
		u.in.Config.Mode = "web"
	})
	answer := plan.Make(u.in)
	require.NotNil(t, answer.Spec.Web)
	require.Nil(t, answer.Spec.Worker)
	require.True(t, answer.Spec.Land, "the worker is stopped at once, and its builds are lost")
}
