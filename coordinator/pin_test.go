package coordinator

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// The first download of 1.22 has the name 1.22.1 in the store, which is a version,
// too.
func TestPinOfAnEntryThatReadsAsAVersion(t *testing.T) {
	src := newSource(t, "1.22", "1.22.1")
	numbers := regexp.MustCompile(`^\d+(\.\d+)+$`)
	any := func(o *Options) {
		o.Product.Version = func(text string) (string, bool) { return text, numbers.MatchString(text) }
	}
	root := t.TempDir()
	running := open(t, root, "concourse-ci/0", src.URL, any)
	r, err := running.Use(t.Context(), "1.22")
	require.NoError(t, err)
	other := open(t, root, "concourse-ci/1", src.URL, any)
	_, err = other.Reinstall(t.Context(), "1.22")
	require.NoError(t, err)
	_, err = other.Collect(t.Context())
	require.NoError(t, err)
	require.FileExists(t, r.Dir+"/bin/concourse", "a unit runs from it")
}
