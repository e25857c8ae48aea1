package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// script is a Reader that plays readings and then repeats the last one.
type script struct {
	readings []any // cluster.Status or error
	read     int
}

func (s *script) Status(context.Context) (cluster.Status, error) {
	next := s.readings[min(s.read, len(s.readings)-1)]
	s.read++
	if err, ok := next.(error); ok {
		return cluster.Status{}, err
	}
	return next.(cluster.Status), nil
}

func units(states ...string) cluster.Status {
	app := cluster.AppStatus{Units: map[string]cluster.UnitStatus{}}
	for i, state := range states {
		workload, message, _ := strings.Cut(state, " ")
		name := fmt.Sprintf("ci/%d", i)
		app.Units[name] = cluster.UnitStatus{Name: name, Workload: workload, Message: message, Agent: "idle", Leader: i == 0}
	}
	return cluster.Status{Apps: map[string]cluster.AppStatus{"ci": app}}
}

func lost(workload string) cluster.Status {
	s := units(workload)
	s.Apps["ci"].Units["ci/0"] = cluster.UnitStatus{Name: "ci/0", Workload: workload, Agent: "lost"}
	return s
}

func TestWait(t *testing.T) {
	ready, down := units("active ok"), units("waiting for it")
	cases := map[string]struct {
		readings []any
		until    cluster.Condition
		reads    int
		err      error
		text     string
	}{
		"several equal readings": {
			readings: []any{ready, ready, down, ready, ready, ready},
			until:    cluster.AllActive("ci", 1),
			reads:    6,
		},
		"an unreadable status starts the count again": {
			readings: []any{ready, ready, errors.New("controller restarts"), ready},
			until:    cluster.AllActive("ci", 1),
			reads:    6,
		},
		"a failed unit ends it at once": {
			readings: []any{down, units("error hook failed: install"), ready},
			until:    cluster.AllActive("ci", 1),
			reads:    2,
			err:      cluster.ErrFailed,
			text:     "hook failed: install",
		},
		"the timeout says what was missing and shows the last status": {
			readings: []any{down},
			until:    cluster.AllActive("ci", 1),
			err:      cluster.ErrTimeout,
			text:     `ci/0*: waiting "for it"`,
		},
		"a removed unit loses its agent in the normal course": {
			readings: []any{lost("terminated"), ready},
			until:    cluster.AllActive("ci", 1),
			reads:    4,
		},
		"an agent that is lost ends it at once": {
			readings: []any{lost("active"), ready},
			until:    cluster.AllActive("ci", 1),
			reads:    1,
			err:      cluster.ErrFailed,
			text:     "agent lost",
		},
		"too few units": {
			readings: []any{ready},
			until:    cluster.AllActive("ci", 2),
			err:      cluster.ErrTimeout,
			text:     "ci has 1 units, not 2",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := &script{readings: tc.readings}
			_, err := cluster.Wait{For: "ci", Until: tc.until, Within: 200 * time.Millisecond, Every: time.Millisecond}.On(t.Context(), s)
			if tc.err == nil {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, tc.err)
				require.ErrorContains(t, err, tc.text)
			}
			if tc.reads > 0 {
				require.Equal(t, tc.reads, s.read)
			}
		})
	}
}

func TestWaitLogsChangesOnly(t *testing.T) {
	var log []string
	s := &script{readings: []any{units("waiting a"), units("waiting a"), units("active b")}}
	_, err := cluster.Wait{
		For: "b", Until: cluster.AllActive("ci", 1), Every: time.Millisecond,
		Log: func(format string, args ...any) { log = append(log, fmt.Sprintf(format, args...)) },
	}.On(t.Context(), s)
	require.NoError(t, err)
	require.Len(t, log, 3, "two states and the end: %q", log)
	require.Contains(t, log[1], `ci/0*: active "b"`)
}

func TestConditions(t *testing.T) {
	cases := map[string]struct {
		condition cluster.Condition
		status    cluster.Status
		missing   string
	}{
		"message":            {cluster.UnitsAre("ci", 2, cluster.Active, "v2"), units("active v2", "active v1"), "ci/1"},
		"any active":         {cluster.AnyActive("ci"), units("waiting x", "active y"), ""},
		"none active":        {cluster.AnyActive("ci"), units("waiting x"), "no unit"},
		"gone":               {cluster.Gone("ci/1"), units("active x"), ""},
		"not gone":           {cluster.Gone("ci/0"), units("active x"), "still there"},
		"unit unknown":       {cluster.UnitIs("ci/9", cluster.Active, ""), units("active x"), "no such unit"},
		"settled":            {cluster.Settled("ci/0", "digest", "mirror"), units("blocked Digest differs: check the mirror"), ""},
		"settled, no advice": {cluster.Settled("ci/0", "digest", "mirror"), units("blocked Digest differs"), "not blocked"},
		"settled, no reason": {cluster.Settled("ci/0", "digest"), units("blocked something"), "not blocked"},
		"all":                {cluster.All(cluster.AllActive("ci", 1), cluster.Idle("ci")), units("active x"), ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			err := tc.condition(tc.status)
			if tc.missing == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tc.missing)
		})
	}
}

func TestUnitsAreOrderedByNumber(t *testing.T) {
	states := make([]string, 11)
	for i := range states {
		states[i] = "active x"
	}
	got := units(states...).Units("ci")
	require.Equal(t, "ci/2", got[2].Name)
	require.Equal(t, "ci/10", got[10].Name)
}

func TestChanges(t *testing.T) {
	require.Equal(t,
		[]string{`ci/0*: active "b", agent idle, machine  `, "- ci/1"},
		cluster.Changes(units("waiting a", "active c"), units("active b")))
}

func TestExactlyOnce(t *testing.T) {
	cases := map[string]struct {
		transfer cluster.Transfer
		want     bool
	}{
		"once":           {cluster.Transfer{Size: 100, Sent: 100, Distinct: 100}, true},
		"never":          {cluster.Transfer{}, false},
		"in part":        {cluster.Transfer{Size: 100, Sent: 60, Distinct: 60}, false},
		"twice":          {cluster.Transfer{Size: 100, Sent: 200, Distinct: 100}, false},
		"a hole covered": {cluster.Transfer{Size: 100, Sent: 100, Distinct: 90}, false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) { require.Equal(t, tc.want, tc.transfer.ExactlyOnce()) })
	}
}

func TestReport(t *testing.T) {
	r := cluster.NewReport("auto")
	require.NoError(t, r.Time("quick", time.Minute, func() error { return nil }))
	r.Add("upgrade", 3*time.Minute, 2*time.Minute, nil)
	require.Error(t, r.Time("broken", 0, func() error { return errors.New("no") }))
	r.Note("downloads", "%d", 0)
	r.Note("downloads", "%d", 1)

	require.Equal(t, []string{"upgrade", "broken"}, []string{r.Missed()[0].Name, r.Missed()[1].Name})

	var text, markdown strings.Builder
	require.NoError(t, r.WriteText(&text))
	require.Regexp(t, `upgrade +3m0s +< 2m0s +slow`, text.String())
	require.NoError(t, r.WriteMarkdown(&markdown))
	require.Contains(t, markdown.String(), "| upgrade | 3m0s | < 2m0s | slow |")
	require.Contains(t, markdown.String(), "| downloads | 1 |")
	require.NotContains(t, markdown.String(), "| downloads | 0 |")

	raw, err := json.Marshal(r)
	require.NoError(t, err)
	require.Contains(t, string(raw), `"verdict":"slow"`)
}
