package scenarios

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
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
printf '\033[1mselected worker:\033[0m ci-2\nbuilt %s\nsucceeded\n' "$nonce"
`)
	worker, err := f.build(t.Context())
	require.NoError(t, err)
	require.Equal(t, "ci-2", worker)
}

func TestBuildMustHaveRun(t *testing.T) {
	_, err := printing(t, "echo succeeded").build(t.Context())
	require.ErrorContains(t, err, "without running its task")

	_, err = printing(t, "echo no worker fits; exit 2").build(t.Context())
	require.ErrorContains(t, err, "no worker fits")
}

func TestWorkersSkipsWarnings(t *testing.T) {
	workers, err := printing(t, `echo WARNING: fly is old; echo '[{"name":"ci-1","state":"running","version":"2.5"}]'`).workers(t.Context())
	require.NoError(t, err)
	require.Equal(t, []worker{{Name: "ci-1", State: "running", Version: "2.5"}}, workers)
}
