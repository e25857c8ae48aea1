package certify

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/probe"
)

// This program is its own helper, and one that lies if it is told so.
const (
	helperVariable = "CERTIFY_TEST_HELPER" // "unit" or "probe"
	lieVariable    = "CERTIFY_TEST_LIE"    // the name of one of lies
)

func TestMain(m *testing.M) {
	var err error
	switch os.Getenv(helperVariable) {
	case "":
		os.Exit(m.Run())
	case "probe":
		err = probe.Help(os.Args[len(os.Args)-1], os.Stdout)
	case "unit":
		l := lies[os.Getenv(lieVariable)]
		if l.others == nil {
			l.others = disk{}
		}
		err = help(context.Background(), l.others, distorted(os.Stdin, l.tasks), os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// distorted passes requests on, after a change to what is to be installed.
func distorted(in io.Reader, change func(*install)) io.Reader {
	if change == nil {
		return in
	}
	out, to := io.Pipe()
	go func() {
		for from, on := json.NewDecoder(in), json.NewEncoder(to); ; {
			var q request
			if err := from.Decode(&q); err != nil {
				to.CloseWithError(err)
				return
			}
			if q.Install != nil {
				change(q.Install)
			}
			if on.Encode(q) != nil {
				return
			}
		}
	}()
	return out
}

var quick = pace{beat: 50 * time.Millisecond, stale: 3 * time.Second, check: time.Minute, lease: time.Second}

// options are for a mount about which one lie is told.
func options(t *testing.T, path, lie string, names ...string) Options {
	t.Helper()
	program, err := os.Executable()
	require.NoError(t, err)
	l, ok := lies[lie]
	require.True(t, ok || lie == "", lie)
	o := Options{
		Path: path, Units: 3, Room: -1, files: l.own, pace: quick, table: steps,
		Helper:      []string{"env", helperVariable + "=unit", lieVariable + "=" + lie, program},
		ProbeHelper: []string{"env", helperVariable + "=probe", program},
		Say:         t.Logf,
	}
	if l.pace != nil {
		o.pace.check = *l.pace
	}
	if len(names) == 0 {
		return o
	}
	o.table = []step{}
	for _, s := range steps {
		for _, name := range names {
			if s.name == name {
				o.table = append(o.table, s)
			}
		}
	}
	require.Len(t, o.table, len(names))
	return o
}

// requireEmpty wants nothing to be left.
func requireEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)
}

func find(t *testing.T, r Report, name string) Check {
	t.Helper()
	for _, c := range r.Checks {
		if c.Name == name {
			return c
		}
	}
	require.Fail(t, "there is no check "+name)
	return Check{}
}
