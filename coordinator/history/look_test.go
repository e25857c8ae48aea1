package history_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/history"
)

// files makes a directory in which each name has its content. A name that ends with a
// slash is a directory, and content that begins with "-> " makes a link.
func files(t *testing.T, all map[string]string) string {
	root := t.TempDir()
	for name, text := range all {
		full := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(full), 0o755))
		target, link := strings.CutPrefix(text, "-> ")
		switch {
		case strings.HasSuffix(name, "/"):
			require.NoError(t, os.MkdirAll(full, 0o755))
		case link:
			require.NoError(t, os.Symlink(target, full))
		default:
			require.NoError(t, os.WriteFile(full, []byte(text), 0o644))
		}
	}
	return root
}

func claim(n int, unit string) string {
	return fmt.Sprintf(`{"unit":%q,"version":"7.14.3","pid":7,"generation":%d,"nonce":"N%d","lease_ms":20000}`+"\n", unit, n, n)
}

func TestLook(t *testing.T) {
	root := files(t, map[string]string{
		"volume.json":                   `{"id":"V1","layout":2}`,
		"activations/1":                 `{"generation":1,"version":"7.14.2","unit":"ci/0"}` + "\n",
		"activations/2":                 "damaged",
		"activations/10":                `{"generation":10,"version":"7.14.3","unit":"ci/1"}` + "\n",
		"activations/11":                `{"generation":12,"version":"7.14.3","unit":"ci/1"}` + "\n",
		"activations/.x":                "not named yet",
		"claims/7.14.3/lock":            "",
		"claims/7.14.3/9":               claim(9, "ci/0"),
		"claims/7.14.3/9.beat":          "done",
		"claims/7.14.3/10":              claim(10, "ci/1"),
		"claims/7.14.3/10.beat":         "-> done",
		"claims/7.14.3/11":              "",
		"claims/7.14.3/12":              claim(12, "ci/2"),
		"claims/7.14.3/12.beat":         "NONCE",
		"releases/7.14.3":               "-> ../store/7.14.3.9",
		"releases/7.14.2/manifest.json": "{}",
		"store/7.14.3.9/manifest.json":  "{}",
		"store/litter":                  "",
		"staging/7.14.3.12.ci-2/":       "",
		"staging/.gone-X/":              "",
		"pins/ci-0":                     "7.14.3.9\n",
		"pins/ci-0.7-123.X":             "7.14.2.0\n",
	})
	require.NoError(t, unix.Mkfifo(filepath.Join(root, "claims/7.14.3/13"), 0o644)) // would not open
	v, err := history.Look(root)
	require.NoError(t, err)
	require.Equal(t, history.Volume{
		ID:          "V1",
		Activations: []history.Activation{{Number: 1, Version: "7.14.2", Unit: "ci/0"}, {Number: 2}, {Number: 10, Version: "7.14.3", Unit: "ci/1"}, {Number: 11}},
		Claims: map[string][]history.Claim{"7.14.3": {
			{Generation: 9, Unit: "ci/0", Nonce: "N9", Ended: true}, {Generation: 10, Unit: "ci/1", Nonce: "N10", Ended: true},
			{Generation: 11}, {Generation: 12, Unit: "ci/2", Nonce: "N12"}, {Generation: 13},
		}},
		Releases: map[string]string{"7.14.2": "7.14.2.0", "7.14.3": "7.14.3.9"},
		Entries:  []string{"7.14.3.9", "7.14.2.0"},
		Staged:   []string{"7.14.3.12.ci-2"},
		Pins:     map[string]string{"ci-0": "7.14.3.9"},
	}, v)
}

// A volume that nobody has used yet has no directories, or empty ones.
func TestLookAtNothing(t *testing.T) {
	for _, all := range []map[string]string{{}, {"claims/": "", "activations/": "", "store/": "", "releases/": "", "staging/": "", "pins/": ""}, {"claims": "a file"}} {
		v, err := history.Look(files(t, all))
		require.NoError(t, err)
		require.Empty(t, v.Staged)
		v.Staged = nil
		require.Equal(t, history.Volume{Claims: map[string][]history.Claim{}, Releases: map[string]string{}, Pins: map[string]string{}}, v)
	}
	_, err := history.Look(filepath.Join(t.TempDir(), "missing"))
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "cannot look at the history of a volume")
}
