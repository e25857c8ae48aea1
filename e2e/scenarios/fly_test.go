package scenarios

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

// printing returns a fly that runs a shell script in place of fly.
func printing(t *testing.T, script string) *fly {
	home := t.TempDir()
	binary := filepath.Join(home, "fly")
	require.NoError(t, os.WriteFile(binary, []byte("#!/bin/sh\n"+script), 0o755))
	return &fly{binary: binary, home: home}
}

func TestBuildNamesTheWorkerOfTheTask(t *testing.T) {
	f := printing(t, `
for a; do case $a in in=*) nonce=$(cat "${a#in=}/nonce");; esac; done
printf 'executing build 7\n\033[1mselected worker:\033[0m ci-1\n{"version":"mock"}\n'
printf '\033[1mselected worker:\033[0m ci-2\nbegun %s\n' "$nonce"
echo succeeded
`)
	var begun []string
	b := f.build(t.Context(), 0, func(worker string) { begun = append(begun, worker) })
	require.Equal(t, "succeeded", b.Result, b.Output)
	require.Equal(t, []string{"ci-2"}, begun)
	require.Equal(t, "ci-2", b.Worker)
	require.False(t, b.Ended.Before(b.Started))
}

func TestResultsOfBuilds(t *testing.T) {
	const executing = "case $3 in execute) echo executing build 7 at http://x; "
	says := func(result string) string {
		return `;; builds) echo '[{"id":7,"status":"` + result + `"},{"id":6,"status":"succeeded"}]';; esac`
	}
	for name, test := range map[string]struct{ script, result, flaw string }{
		"its task failed":         {executing + "exit 1" + says("failed"), "failed", ""},
		"it errored":              {executing + "echo no worker fits; exit 2" + says("errored"), "errored", ""},
		"a known flaw":            {executing + "echo load proc: no running process found; exit 2" + says("errored"), "errored", "concourse#7056"},
		"fly was killed":          {executing + "kill -9 $$" + says("failed"), "failed", ""},
		"fly lost the connection": {executing + "exit 3" + says("aborted"), "aborted", ""},
		"no web server answers":   {"echo connection refused; exit 1", "not begun", ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := printing(t, test.script).build(t.Context(), 0, func(string) {})
			require.Equal(t, test.result, b.Result)
			require.Equal(t, test.flaw, b.Flaw)
			require.NotEmpty(t, b.Output)
		})
	}
}

// TestBuildThatWasRunTwice: fly has lost a build that has begun, and it succeeded in the
// end, but not at once.
func TestBuildThatWasRunTwice(t *testing.T) {
	f := printing(t, `
for a; do case $a in in=*) cp "${a#in=}/nonce" nonce;; esac; done
case $3 in
execute) printf 'executing build 7\nselected worker: ci-1\nbegun %s\n' "$(cat nonce)"; exit 1;;
builds) echo '[{"id":7,"status":"succeeded"}]';;
watch) printf 'selected worker: ci-1\nbegun %s\nselected worker: ci-2\nbegun %s\n' "$(cat nonce)" "$(cat nonce)"; test "$*" = "--target suite watch --build 7";;
esac`)
	b := f.build(t.Context(), 0, func(string) {})
	require.Equal(t, "succeeded", b.Result, b.Output)
	require.Equal(t, 2, b.Begun)
	require.Equal(t, "ci-2", b.Worker)
}

// TestBuildOfAServerThatIsGone: fly waits for ever at a machine that is off. After a login
// at the next web server that one knows what became of the build.
func TestBuildOfAServerThatIsGone(t *testing.T) {
	f := printing(t, `
case $3 in
execute) echo executing build 7; touch running; exec sleep 600;;
builds) echo '[{"id":7,"status":"succeeded"}]';;
esac`)
	require.NoError(t, f.login(t.Context(), f.binary, "http://10.0.3.1:8080", "admin", "secret"))
	built := make(chan observation.Build)
	go func() { built <- f.build(t.Context(), 0, func(string) {}) }()
	require.Eventually(t, func() bool {
		_, err := os.Stat(filepath.Join(f.home, "running"))
		return err == nil
	}, 10*time.Second, time.Millisecond)
	require.NoError(t, f.login(t.Context(), f.binary, "http://10.0.3.2:8080", "admin", "secret"))
	require.Equal(t, "succeeded", (<-built).Result)
}

func TestWorkersSkipsWarnings(t *testing.T) {
	workers, err := printing(t, `echo WARNING: fly is old; echo '[{"name":"ci-1","state":"running","version":"2.5"}]'`).workers(t.Context())
	require.NoError(t, err)
	require.Equal(t, []observation.Worker{{Name: "ci-1", State: "running", Version: "2.5"}}, workers)
}
