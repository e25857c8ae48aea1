package faults

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/needs"
)

// TestRunningProgramKeepsItsFiles has a program run from a release that its unit has
// pinned, while another unit repairs the release and collects. What runs has a file
// with a name until its unit has pinned the new one.
func TestRunningProgramKeepsItsFiles(t *testing.T) {
	needs.Root(t)
	program, err := exec.LookPath("sleep")
	require.NoError(t, err)
	binary, err := os.ReadFile(program)
	require.NoError(t, err)
	for _, firstLayout := range []bool{false, true} {
		t.Run(fmt.Sprint("first layout ", firstLayout), func(t *testing.T) {
			src := newSource(t, repairNoise)
			files := content(newer, repairNoise)
			files["bin/sleep"] = string(binary)
			src.publish(newer, files)
			root, _ := mountTmpfs(t)
			mark(t, root)
			if firstLayout {
				u := start(t, root, "concourse-ci/2", src.URL)
				makeFirstLayout(t, root, u.must("ensure", newer).Release.Dir)
				u.stop()
			}
			runner := start(t, root, "concourse-ci/0", src.URL)
			old := runner.must("use", newer).Release.Dir
			running := exec.Command(filepath.Join(old, "bin/sleep"), "600")
			require.NoError(t, running.Start())
			t.Cleanup(func() {
				running.Process.Kill()
				running.Wait()
			})
			executable := func() string {
				name, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", running.Process.Pid))
				if err != nil {
					return err.Error()
				}
				return name
			}
			require.Equal(t, filepath.Join(old, "bin/sleep"), executable())

			damage(t, root)
			other, s := startStepped(t, root, "concourse-ci/1", src.URL)
			seen, steps := map[string]bool{}, 0
			s.when(func(step) bool {
				seen[executable()] = true
				steps++
				return false
			}, nil)
			for _, do := range []string{"ensure", "collect", "collect"} {
				other.must(do, newer)
			}
			require.Greater(t, steps, 50)
			seen[executable()] = true
			for name := range seen {
				require.False(t, strings.HasSuffix(name, " (deleted)"), name)
			}
			require.FileExists(t, executable())
			t.Logf("looked %d times: %v", steps+1, seen)

			require.NotEqual(t, old, runner.must("use", newer).Release.Dir)
			require.FileExists(t, executable())
			other.must("collect", "")
			require.True(t, strings.HasSuffix(executable(), " (deleted)"), "nobody collects it")
			require.Len(t, unprobed(t, root, "store"), 1)
		})
	}
}

// makeFirstLayout turns a volume with one release into one of the first layout.
func makeFirstLayout(t *testing.T, root, dir string) {
	t.Helper()
	link := filepath.Join(root, "releases", newer)
	require.NoError(t, os.Remove(link))
	require.NoError(t, os.Rename(dir, link))
	require.NoError(t, os.Remove(filepath.Join(root, "store")))
	name := filepath.Join(root, "volume.json")
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	var volume map[string]any
	require.NoError(t, json.Unmarshal(data, &volume))
	volume["layout"] = 1
	data, err = json.Marshal(volume)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(name, data, 0o644))
}
