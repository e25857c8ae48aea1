package supervisor_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

// Whoever asks whether the releases are sound has every byte read, once, and what is damaged
// installed anew if he says so.
func TestVerifiesTheVolume(t *testing.T) {
	m, root, c := newMirror(t), t.TempDir(), newCharm(t)
	end := c.run(t)
	spec := supervisor.Spec{Unit: "ci/0", Root: root, Source: m.URL + "/o/r", Fetch: "7.14.3"}
	checked := func(id string) supervisor.Checked {
		spec.Check.ID = id
		require.NoError(t, c.files.PutSpec(spec))
		eventually(t, "the answer to "+id, c.saw(func(s supervisor.Status) bool { return s.Checked.ID == id }))
		status, err := c.files.Status()
		require.NoError(t, err)
		return status.Checked
	}
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "the release", c.saw(func(s supervisor.Status) bool { return s.Installed == "7.14.3" }))
	require.Equal(t, supervisor.Checked{ID: "one", Found: "v7.14.3 is sound", Sound: true}, checked("one"))

	flip := func() {
		program := filepath.Join(root, "releases", "7.14.3", "bin", "concourse")
		content, err := os.ReadFile(program)
		require.NoError(t, err)
		content[0] ^= 1
		require.NoError(t, os.Chmod(program, 0o755))
		require.NoError(t, os.WriteFile(program, content, 0o755))
		require.NoError(t, os.Chmod(program, 0o555))
	}
	flip()
	damaged := checked("two")
	require.False(t, damaged.Sound)
	require.Contains(t, damaged.Found, "bin/concourse has other contents")
	end()
	flip() // it is as it was
	require.NoError(t, os.Remove(filepath.Join(string(c.files), "status.json")))
	end = c.run(t)
	eventually(t, "what was found", func() bool {
		status, err := c.files.Status()
		return err == nil && status.Checked == damaged
	})
	flip()
	spec.Check.Repair = true
	repaired := checked("three")
	require.Equal(t, "v7.14.3 was damaged, and is installed anew", repaired.Found)
	require.True(t, repaired.Sound)
	spec.Check.Repair = false
	require.Equal(t, "v7.14.3 is sound", checked("four").Found)
	end()
}
