package suite

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/scenarios"
)

// tester is what a scenario takes for its testing.T. It keeps failures instead of
// failing a test: whether they are one is decided when all are known.
type tester struct {
	log  func(string)
	temp string // folder for TempDir

	mu       sync.Mutex
	failed   bool
	failures []string
	ended    bool
}

var _ scenarios.T = (*tester)(nil)

func (t *tester) Helper() {}

func (t *tester) Logf(format string, args ...any) { t.log(fmt.Sprintf(format, args...)) }

func (t *tester) Errorf(format string, args ...any) {
	text := plain(strings.TrimSpace(fmt.Sprintf(format, args...)))
	t.mu.Lock()
	if t.ended { // A scenario that was left behind has nothing to say any more.
		t.mu.Unlock()
		return
	}
	t.failed = true
	t.failures = append(t.failures, text)
	t.mu.Unlock()
	t.log("FAILED: " + text)
}

// FailNow ends the goroutine, which must be the scenario's.
func (t *tester) FailNow() {
	t.mu.Lock()
	t.failed = true
	t.mu.Unlock()
	runtime.Goexit()
}

// Failed tells whether anything failed so far.
func (t *tester) Failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failed
}

// TempDir returns a new folder that is gone when the scenario has ended.
func (t *tester) TempDir() string {
	dir, err := os.MkdirTemp(t.temp, "")
	if err != nil {
		t.Errorf("%v", err)
		t.FailNow()
	}
	return dir
}

// end returns the failures. There are none after it.
func (t *tester) end() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	if t.failed && len(t.failures) == 0 {
		t.failures = []string{"it has failed without saying why"}
	}
	return slices.Clone(t.failures)
}
