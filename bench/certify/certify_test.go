package certify

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/internal/needs"
)

func TestFit(t *testing.T) {
	dir := t.TempDir()
	var ended []string
	o := options(t, dir, "")
	o.Ended = func(c Check) { ended = append(ended, c.Name) }
	r, err := Run(t.Context(), o)
	require.NoError(t, err)
	for _, c := range r.Checks {
		require.Equal(t, OK, c.Verdict, c)
		require.Empty(t, c.Means)
	}
	require.Len(t, r.Checks, len(steps)+1)
	require.Len(t, ended, len(r.Checks))
	require.Equal(t, "fit", r.Verdict)
	require.True(t, r.Fit && r.Complete)
	require.Contains(t, strings.Join(r.NotChecked, "\n"), "another machine")
	requireEmpty(t, dir)
}

// Each check fails for its fault, says what it saw and what to do, and nothing is left.
func TestFaults(t *testing.T) {
	for lie, want := range map[string]struct {
		check, found, verdict string
		before                []string // checks that have to be made before
	}{
		"little room":              {check: "room", found: "10 MB are free, 5000 MB are needed"},
		"few inodes":               {check: "room", found: "99 inodes are free"},
		"a quota":                  {check: "room", found: "quota exceeded"},
		"short names":              {check: "names", found: "file name too long"},
		"one case":                 {check: "names", found: "file exists"},
		"no modes":                 {check: "modes", found: "after chmod"},
		"no execution":             {check: "execute", found: "permission denied"},
		"no symbolic links":        {check: "symlinks", found: "not permitted"},
		"symbolic links elsewhere": {check: "symlinks", found: `leads to "elsewhere"`},
		"new inodes":               {check: "identity", found: "nobody touched"},
		"other inodes elsewhere":   {check: "identity", found: "nobody touched"},
		"rename in two steps":      {check: "rename", found: "not there while it is replaced"},
		"rename by copying":        {check: "rename", found: "in part, or mixed"},
		"no rename":                {check: "rename", found: "cross-device"},
		"rename over a directory":  {check: "rename", found: "not empty was replaced"},
		"rename does nothing":      {check: "rename", found: "old contents"},
		"links for all":            {check: "link", found: "3 of 3 made the same name"},
		"no links":                 {check: "link", found: "not permitted"},
		"creates for all":          {check: "create", found: "3 of 3 made the same name", verdict: "fit, but: create"},
		"no fsync":                 {check: "sync", found: "cannot sync a file"},
		"no fsync of directories":  {check: "sync", found: "cannot sync a directory"},
		"late names":               {check: "visible", found: "saw a new file after"},
		"no names":                 {check: "visible", found: "had not ended"},
		"other contents":           {check: "visible", found: "something else"},
		"locks for all":            {check: "lock", found: "two processes hold one lock", verdict: "fit, but: lock"},
		"no locks":                 {check: "lock", found: "no locks available", verdict: "fit, but: lock"},
		"locks for nobody":         {check: "lock", found: "it is refused", verdict: "fit, but: lock"},
		"locks for ever":           {check: "lock of a killed process", found: "not free after", verdict: "fit, but: lock of a killed process"},
		"volumes apart":            {check: "one download", found: "downloaded 3 times"},
		"no source":                {check: "one download", found: "had not ended"},
		"no source for the second": {check: "taking over", found: "connection refused"},
		"old contents":             {check: "flipped byte", found: "still reads the old one", before: []string{"one download"}},
	} {
		t.Run(lie, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			o := options(t, dir, lie, append(want.before, want.check)...)
			if strings.Contains(lie, "room") {
				o.Room = RoomForRelease
			}
			r, err := Run(t.Context(), o)
			require.NoError(t, err)
			c := find(t, r, want.check)
			require.Equal(t, Failed, c.Verdict, c)
			require.Contains(t, c.Found, want.found)
			require.NotContains(t, c.Found, dir)
			require.NotEmpty(t, c.Means)
			if want.verdict == "" {
				want.verdict = "not fit: " + want.check
			}
			require.Equal(t, want.verdict, r.Verdict)
			require.Equal(t, strings.HasPrefix(want.verdict, "fit"), r.Fit)
			require.True(t, r.Complete)
			requireEmpty(t, dir)
		})
	}
}

// What the coordinator does without is no fault.
func TestNoFault(t *testing.T) {
	r, err := Run(t.Context(), options(t, t.TempDir(), "fsync not for directories", "sync"))
	require.NoError(t, err)
	require.Equal(t, OK, find(t, r, "sync").Verdict)
}

// Two units that do not see each other would both download.
func TestNobodyWaits(t *testing.T) {
	r, err := Run(t.Context(), options(t, t.TempDir(), "volumes apart", "taking over"))
	require.NoError(t, err)
	require.Contains(t, find(t, r, "taking over").Found, "did not wait")
}

// Where a check needs another one that has failed, it is not made.
func TestNotTold(t *testing.T) {
	r, err := Run(t.Context(), options(t, t.TempDir(), "no execution", "execute", "one download", "taking over", "flipped byte"))
	require.NoError(t, err)
	for _, name := range []string{"one download", "taking over", "flipped byte"} {
		require.Equal(t, NotTold, find(t, r, name).Verdict)
	}
	require.Equal(t, "it needs execute", find(t, r, "one download").Found)
	require.Equal(t, "not fit: execute", r.Verdict)
}

// A mount that hangs holds up nobody.
func TestHang(t *testing.T) {
	dir := t.TempDir()
	r, err := Run(t.Context(), options(t, dir, "chmod hangs", "modes", "rename", "link"))
	require.NoError(t, err)
	require.Equal(t, "had not ended after 2s", strings.TrimPrefix(find(t, r, "modes").Found, "it "))
	require.Equal(t, "the mount does not answer", find(t, r, "rename").Found)
	require.Equal(t, NotTold, find(t, r, "link").Verdict)
	requireEmpty(t, dir)
}

// What a kernel really does.
func TestMounts(t *testing.T) {
	if os.Getuid() != 0 {
		needs.Lack(t, "COORDINATOR_REQUIRE", "root", "needs root, to mount volumes of its own")
	}
	for name, c := range map[string]struct {
		flags   uintptr
		options string
		room    int64
		verdict string
		found   map[string]string
	}{
		"fit": {room: -1, options: "nr_inodes=100k", verdict: "fit"},
		"read-only": {flags: syscall.MS_RDONLY, room: -1, verdict: "not fit: writable",
			found: map[string]string{"writable": "mounted read-only", "one download": "cannot be written to"}},
		"noexec": {flags: syscall.MS_NOEXEC, room: -1, options: "nr_inodes=100k", verdict: "not fit: execute",
			found: map[string]string{"execute": "permission denied", "one download": "it needs execute"}},
		"small": {options: "size=64k", room: 1,
			found: map[string]string{"room": "no space left"}},
		"few inodes": {options: "nr_inodes=60", room: -1,
			found: map[string]string{"room": "inodes are free"}},
		"hardly any inodes": {options: "nr_inodes=2", room: -1, verdict: "not fit: room",
			found: map[string]string{"room": "no space left", "one download": "nothing more can be written"}},
		"no inodes": {options: "nr_inodes=1", room: -1, verdict: "not fit: writable",
			found: map[string]string{"writable": "nothing more can be written"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := syscall.Mount("tmpfs", dir, "tmpfs", c.flags, c.options); err != nil {
				needs.Lack(t, "COORDINATOR_REQUIRE", "root", "cannot mount a tmpfs here: %v", err)
			}
			t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
			o := options(t, dir, "")
			o.Room = c.room
			r, err := Run(t.Context(), o)
			require.NoError(t, err)
			for name, found := range c.found {
				require.Contains(t, find(t, r, name).Found, found)
				require.NotEqual(t, OK, find(t, r, name).Verdict)
			}
			if c.verdict == "" {
				// The others meet it, too, and say so.
				require.Contains(t, r.Verdict, "not fit: room")
				require.Equal(t, meansFull, find(t, r, "link").Means)
			} else {
				require.Equal(t, c.verdict, r.Verdict)
			}
			requireEmpty(t, dir)
		})
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	for path, says := range map[string]string{
		filepath.Join(dir, "none"): "there is no ",
		file:                       "is not a directory",
	} {
		_, err := Run(t.Context(), options(t, path, ""))
		require.ErrorIs(t, err, ErrRefused)
		require.ErrorContains(t, err, says)
	}
	o := options(t, dir, "")
	o.Helper = nil
	_, err := Run(t.Context(), o)
	require.ErrorIs(t, err, ErrOptions)
	o.Helper, o.Machines = []string{"true"}, MostMachines+1
	_, err = Run(t.Context(), o)
	require.ErrorIs(t, err, ErrOptions)
}

// A helper that does not work says nothing about the mount.
func TestBrokenHelper(t *testing.T) {
	dir := t.TempDir()
	o := options(t, dir, "", "rename")
	o.Helper = []string{"false"}
	r, err := Run(t.Context(), o)
	require.ErrorContains(t, err, "cannot check rename: another process ended")
	require.False(t, r.Fit || r.Complete)
	require.Equal(t, "not told: the checks were broken off", r.Verdict)
	requireEmpty(t, dir)
}

// The end of the context ends everything, wherever it is, and nothing is left.
func TestInterrupted(t *testing.T) {
	for after, pause := range map[string]time.Duration{
		"writable": 0, "room": 20 * time.Millisecond, "link": 20 * time.Millisecond, "lock": 20 * time.Millisecond,
		"lock of a killed process": 100 * time.Millisecond,
		"one download":             300 * time.Millisecond, // in the middle of what follows
		"taking over":              0,
	} {
		t.Run(after, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			o := options(t, dir, "")
			o.Ended = func(c Check) {
				if c.Name == after {
					if pause == 0 {
						cancel()
					}
					time.AfterFunc(pause, cancel)
				}
			}
			r, err := Run(ctx, o)
			require.ErrorIs(t, err, context.Canceled)
			require.False(t, r.Fit)
			requireEmpty(t, dir)
		})
	}
}

// Programs read the report: names of fields and verdicts stay as they are.
func TestJSON(t *testing.T) {
	r := Report{Schema: Schema, Path: "/mnt", Machines: 1, Checks: []Check{
		{Name: "rename", Needed: true, Verdict: Failed, Means: "m"}, {Name: "lock", Verdict: Failed}, {Name: "one download", Verdict: NotTold},
	}}
	r.judge(true)
	data, err := json.Marshal(r)
	require.NoError(t, err)
	var got map[string]any
	require.NoError(t, json.Unmarshal(data, &got))
	require.Equal(t, float64(1), got["schema"])
	require.Equal(t, "not fit: rename", got["verdict"])
	require.Equal(t, false, got["fit"])
	require.Equal(t, true, got["complete"])
	require.Equal(t, "not told", got["checks"].([]any)[2].(map[string]any)["verdict"])
}
