package supervisor_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

// A worker that was to land, and is wanted again before it was told to, was never restarted:
// it is still the one that was started.
func TestWorkerThatIsWantedAgain(t *testing.T) {
	web := newWebServer(t, map[string]string{})
	m := newMirror(t)
	c := start(t, workerAt(service(t, func(http.ResponseWriter, *http.Request) {})))
	spec := web.serving(m, t.TempDir(), "ci/0")
	worker := &concourse.Worker{Name: "ci-0"}
	well := supervisor.Answer{Version: "7.14.3", Is: worker.Identity()}
	spec.Worker = worker
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "the worker", c.saw(func(s supervisor.Status) bool { return s.Worker == well }))
	spec.Worker, spec.Land, spec.DrainTimeout = nil, true, time.Hour
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "the worker that is to land", c.saw(func(s supervisor.Status) bool { return s.Landing && s.Worker == supervisor.Answer{} }))
	spec.Worker, spec.Land = worker, false
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "the worker again", c.saw(func(s supervisor.Status) bool { return s.Worker == well }))
}
