package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// script is a StatusReader that plays readings, one a call, and repeats the last one.
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

// repeat is n times the same reading.
func repeat(n int, reading any) []any {
	all := make([]any, n)
	for i := range all {
		all[i] = reading
	}
	return all
}

func join(parts ...[]any) (all []any) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func TestWait(t *testing.T) {
	ready, down := units("active ok"), units("waiting for it")
	unreadable := errors.New("controller restarts")
	later := func(s cluster.Status) cluster.Status {
		return with(s, "ci/0", func(u *cluster.UnitStatus) { u.Since = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) })
	}
	active := cluster.AllActive("ci", 1)
	cases := map[string]struct {
		wait     cluster.Wait
		readings []any
		reads    int
		held     int // seconds until it began to hold
		err      error
		text     string
	}{
		"several equal readings": {
			wait:     cluster.Wait{Until: active},
			readings: []any{ready, ready, down, ready, ready, ready},
			reads:    6, held: 3,
		},
		"an unreadable status starts the count again": {
			wait:     cluster.Wait{Until: active},
			readings: []any{ready, ready, unreadable, ready},
			reads:    6, held: 3,
		},
		"a failed unit ends it at once": {
			wait:     cluster.Wait{Until: active},
			readings: []any{down, units("error hook failed: install"), ready},
			reads:    2, err: cluster.ErrFailed, text: "hook failed: install",
		},
		"the timeout says what was missing and shows the last status": {
			wait:     cluster.Wait{Until: active},
			readings: []any{down},
			err:      cluster.ErrTimeout, text: "timed out after 1m0s: ci/0 is waiting \"for it\", not active \"\"\nlast status:\nci/0*: waiting \"for it\"",
		},
		"too few units": {
			wait:     cluster.Wait{Until: cluster.AllActive("ci", 2)},
			readings: []any{ready},
			err:      cluster.ErrTimeout, text: "ci has 1 units, not 2",
		},
		"nothing could be read": {
			wait:     cluster.Wait{Until: active},
			readings: []any{unreadable},
			err:      cluster.ErrTimeout, text: "controller restarts",
		},

		"a removed unit loses its agent in the normal course": {
			wait:     cluster.Wait{Until: active},
			readings: []any{lost("terminated"), ready},
			reads:    4, held: 1,
		},
		"an agent that is lost in one reading ends nothing, and the reading does not hold": {
			wait:     cluster.Wait{Until: active},
			readings: []any{ready, ready, lost("active"), ready},
			reads:    6, held: 3,
		},
		"an agent that stays lost ends it": {
			wait:     cluster.Wait{Until: active},
			readings: []any{lost("active")},
			reads:    16, err: cluster.ErrFailed, text: "agent of ci/0 is lost for 15s",
		},
		"an agent that was seen in between does not": {
			wait:     cluster.Wait{Until: active},
			readings: join(repeat(10, lost("active")), repeat(1, down), repeat(10, lost("active")), repeat(1, ready)),
			reads:    24, held: 21,
		},
		"nor does one while nothing can be read": {
			wait:     cluster.Wait{Until: active},
			readings: join(repeat(10, lost("active")), repeat(1, unreadable), repeat(10, lost("active")), repeat(1, ready)),
			reads:    24, held: 21,
		},
		"a unit that is down on purpose is no failure": {
			wait:     cluster.Wait{Until: cluster.UnitIs("ci/1", cluster.Active, ""), Down: []string{"ci/0"}},
			readings: join(repeat(30, with(units("unknown agent lost", "waiting x"), "ci/0", func(u *cluster.UnitStatus) { u.Agent = "lost" })), repeat(1, units("error hook failed", "active ok"))),
			reads:    33, held: 30,
		},
		"another unit still is": {
			wait:     cluster.Wait{Until: active, Down: []string{"ci/0"}},
			readings: []any{units("error x", "error hook failed: start")},
			reads:    1, err: cluster.ErrFailed, text: "hook failed: start",
		},

		"what held in the mark must be seen broken": {
			wait:     cluster.Wait{Until: active, Since: ready},
			readings: []any{ready, ready, ready, ready, down, ready},
			reads:    8, held: 5,
		},
		"or a unit has reported since": {
			wait:     cluster.Wait{Until: active, Since: ready},
			readings: []any{ready, ready, ready, ready, later(units("active ok"))},
			reads:    7, held: 4,
		},
		"or one has come": {
			wait:     cluster.Wait{Until: cluster.AnyActive("ci"), Since: ready},
			readings: []any{ready, ready, ready, ready, units("active ok", "waiting x")},
			reads:    7, held: 4,
		},
		"or one has gone": {
			wait:     cluster.Wait{Until: cluster.AnyActive("ci"), Since: units("active ok", "active ok")},
			readings: []any{ready},
			reads:    3,
		},
		"what is down on purpose does not count": {
			wait:     cluster.Wait{Until: cluster.AnyActive("ci"), Since: ready, Down: []string{"ci/1"}},
			readings: []any{units("active ok", "waiting x")},
			err:      cluster.ErrTimeout, text: "it held before, and nothing has changed since",
		},
		"what did not hold in the mark needs nothing else": {
			wait:     cluster.Wait{Until: active, Since: down},
			readings: []any{ready},
			reads:    3,
		},
		"what may hold ends with what was so": {
			wait:     cluster.Wait{Until: active, Since: ready, MayHold: true},
			readings: []any{ready},
			reads:    3,
		},

		"a unit that is not there yet may come": {
			wait:     cluster.Wait{Until: cluster.UnitIs("ci/1", cluster.Active, "")},
			readings: []any{ready, units("active ok", "active ok")},
			reads:    4, held: 1,
		},
		"a unit that is gone does not come back": {
			wait:     cluster.Wait{Until: cluster.UnitIs("ci/1", cluster.Active, "")},
			readings: []any{units("active ok", "waiting x"), ready},
			reads:    2, err: cluster.ErrNever, text: "cannot come true any more: ci/1: no such unit",
		},
		"nor does one that was in the mark": {
			wait:     cluster.Wait{Until: cluster.Blocked("ci/1"), Since: units("active ok", "waiting x")},
			readings: []any{ready},
			reads:    1, err: cluster.ErrNever, text: "ci/1: no such unit",
		},
		"a condition can know that it cannot hold": {
			wait:     cluster.Wait{Until: func(cluster.Status) error { return fmt.Errorf("%w: rolled back", cluster.ErrNever) }},
			readings: []any{ready},
			reads:    1, err: cluster.ErrNever, text: "rolled back",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{readings: tc.readings}
				tc.wait.For, tc.wait.Within = "it", time.Minute
				start := time.Now()
				held, err := tc.wait.On(t.Context(), s)
				if tc.reads > 0 {
					require.Equal(t, tc.reads, s.read, "readings; the error is %v", err)
				}
				if tc.err == nil {
					require.NoError(t, err)
					require.Equal(t, time.Duration(tc.held)*time.Second, held.Since.Sub(start), "until it began to hold")
					return
				}
				require.ErrorIs(t, err, tc.err)
				require.ErrorContains(t, err, tc.text)
				require.True(t, held.Since.IsZero())
			})
		})
	}
}

func TestWaitReturnsTheLastStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{readings: []any{units("waiting a"), units("error b")}}
		held, err := cluster.Wait{For: "it", Until: cluster.AnyActive("ci")}.On(t.Context(), s)
		require.ErrorIs(t, err, cluster.ErrFailed)
		require.Equal(t, "b", held.Units("ci")[0].Message)
	})
}

// second is the time of day so long after the beginning of a synctest bubble.
func second(n int) string {
	return time.Date(2000, 1, 1, 0, 0, n, 0, time.UTC).Local().Format(time.TimeOnly)
}

func TestWaitLog(t *testing.T) {
	gone := errors.New("controller restarts")
	idle := with(units("active b"), "ci/0", func(u *cluster.UnitStatus) { u.Agent = "executing" })
	for name, test := range map[string]struct {
		until    cluster.Condition
		readings []any
		want     []string // without the time of day
	}{
		"what is missing, and what changes": {
			cluster.AllActive("ci", 2),
			[]any{units("waiting a", "active b"), units("waiting a", "active b"), units("active b", "active b")},
			[]string{`+0s it: ci/0 is waiting "a", not active ""`, `+2s ci/0* is active "b"`, `+4s it: holds since ` + second(2)},
		},
		"nothing is missing": {
			cluster.AllActive("ci", 1), []any{units("active b")},
			[]string{`+2s it: holds since ` + second(0)},
		},
		"what changes, and is missing, too": {
			cluster.Idle("ci"), []any{units("waiting a"), idle, idle, units("active b")},
			[]string{`+1s ci/0* is active "b"`, `+5s it: holds since ` + second(3)},
		},
		"what is missing changes": {
			cluster.Idle("ci"), []any{units("active b"), idle, idle, units("active b")},
			[]string{`+1s agent of ci/0 is executing, not idle`, `+5s it: holds since ` + second(3)},
		},
		"what cannot be read": {
			cluster.AllActive("ci", 1), []any{gone, gone, gone, units("active b")},
			[]string{`+0s cannot read status: controller restarts`, `+3s status can be read again`, `+5s it: holds since ` + second(3)},
		},
		"what fails": {
			cluster.AllActive("ci", 1), []any{units("active b"), units("error hook failed")},
			[]string{`+1s ci/0* is error "hook failed"`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log []string
				_, _ = cluster.Wait{
					For: "it", Until: test.until, Within: time.Minute,
					Log: func(format string, args ...any) {
						clock, text, _ := strings.Cut(fmt.Sprintf(format, args...), " ")
						require.Equal(t, time.Now().Format(time.TimeOnly), clock)
						log = append(log, text)
					},
				}.On(t.Context(), &script{readings: test.readings})
				require.Equal(t, test.want, log)
			})
		})
	}
}
