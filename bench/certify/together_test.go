package certify

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// met runs what two machines do, which are told a lie each.
func met(t *testing.T, dir string, told ...string) []Report {
	t.Helper()
	reports, errs := make([]Report, len(told)), make([]error, len(told))
	var all sync.WaitGroup
	for i, lie := range told {
		o := options(t, dir, lie)
		o.Machines, o.table = len(told), []step{}
		all.Go(func() { reports[i], errs[i] = Run(t.Context(), o) })
	}
	all.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	requireEmpty(t, dir)
	return reports
}

func TestTogether(t *testing.T) {
	for _, r := range met(t, t.TempDir(), "", "", "") {
		require.Equal(t, "fit", r.Verdict)
		require.Len(t, r.Checks, 1+len(meetings))
		require.NotContains(t, strings.Join(r.NotChecked, "\n"), "another machine")
		require.Contains(t, find(t, r, "one download between machines").Found, "3 machines, one download")
	}
}

// A run that was killed while it waited is no machine that has come.
func TestDeadDoesNotTakePart(t *testing.T) {
	dir := t.TempDir()
	dead := thisProcess()
	dead.Boot = "another"
	data, err := json.Marshal(owner{Program: program, Schema: Schema, Machines: 2, process: dead})
	require.NoError(t, err)
	left := leftBy(t, dir, "0", dead) // it would lead
	require.NoError(t, os.WriteFile(filepath.Join(left, ownerFile), data, 0o644))
	for _, r := range met(t, dir, "", "") {
		require.Equal(t, "fit", r.Verdict)
	}
}

// Each check between machines fails for its fault, and all come to the same verdict. The
// machines lead in turn by chance: both are told the lie.
func TestFaultsBetween(t *testing.T) {
	for lie, want := range map[string]struct{ check, found, verdict string }{
		"locks for all":       {"lock between machines", "has got the lock that", "fit, but: lock between machines"},
		"no locks":            {"lock between machines", "no locks available", "fit, but: lock between machines"},
		"locks for nobody":    {"lock between machines", "it is refused", "fit, but: lock between machines"},
		"locks for ever":      {"lock between machines", "not free after", "fit, but: lock between machines"},
		"rename in two steps": {check: "rename between machines", found: "not there while it is replaced"},
		"rename by copying":   {check: "rename between machines", found: "mixed"},
		"links for all":       {check: "link between machines", found: "2 of 2 made the same name"},
		"no links":            {check: "link between machines", found: "not permitted"},
		"late to both":        {"visible between machines", "there and one back took", "fit, but: visible between machines"},
		"zeros for both":      {check: "rename between machines", found: "old contents"},
		"volumes apart":       {check: "one download between machines", found: "downloaded 2 times"},
		"no volume":           {check: "one download between machines", found: "cannot open"},
	} {
		t.Run(lie, func(t *testing.T) {
			t.Parallel()
			for _, r := range met(t, t.TempDir(), lie, lie) {
				c := find(t, r, want.check)
				require.Equal(t, Failed, c.Verdict, c)
				require.Contains(t, c.Found, want.found)
				require.NotEmpty(t, c.Means)
				if want.verdict != "" {
					require.Equal(t, want.verdict, r.Verdict)
				}
				require.Equal(t, strings.HasPrefix(want.verdict, "fit"), r.Fit)
			}
		})
	}
}

// A machine whose own mount is not fit does not wait for others.
func TestUnfitAlone(t *testing.T) {
	o := options(t, t.TempDir(), "no links", "link")
	o.Machines = 2
	r, err := Run(t.Context(), o)
	require.NoError(t, err)
	require.Equal(t, "not fit: link", r.Verdict)
	c := find(t, r, "lock between machines")
	require.Equal(t, NotTold, c.Verdict)
	require.Contains(t, c.Found, "link")
}

// Who waits says for how many, waits on, and cleans up when it is interrupted.
func TestWaiting(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	o := options(t, dir, "")
	o.Machines, o.table = 3, []step{}
	o.Say = func(format string, args ...any) {
		if strings.Contains(format, "%s") && strings.Contains(args[0].(string), "waiting: 1 of 3 machines are here") {
			time.AfterFunc(200*time.Millisecond, cancel)
		}
	}
	_, err := Run(ctx, o)
	require.ErrorIs(t, err, context.Canceled)
	requireEmpty(t, dir)
}

// When one has gone, the others end and say so; nothing is left, whoever it was.
func TestLeft(t *testing.T) {
	for _, name := range []string{"lock between machines", "rename between machines", "link between machines"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var gone atomic.Bool
			errs := make(chan error, 2)
			for i := range 2 {
				o, ctx := options(t, dir, ""), ctx
				o.Machines, o.table = 2, []step{}
				if i == 0 {
					o.Ended = func(c Check) {
						if c.Name == name {
							gone.Store(true)
							cancel()
						}
					}
				} else {
					ctx = t.Context()
				}
				go func() {
					_, err := Run(ctx, o)
					errs <- err
				}()
			}
			first, second := <-errs, <-errs
			require.True(t, gone.Load())
			if !isCanceled(first) {
				first, second = second, first
			}
			require.ErrorIs(t, first, context.Canceled)
			require.ErrorIs(t, second, ErrLeft)
			requireEmpty(t, dir)
		})
	}
}

func isCanceled(err error) bool { return err != nil && strings.Contains(err.Error(), "canceled") }
