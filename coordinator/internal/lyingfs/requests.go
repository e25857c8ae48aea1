package lyingfs

import (
	"maps"
	"regexp"
	"sync"
)

// requests counts what the kernel asks a mount for. It is the log of go-fuse,
// which has no other way to tell.
type requests struct {
	mu    sync.Mutex
	count map[string]int
}

var receivedForm = regexp.MustCompile(`^rx \d+: ([A-Z_]+) `)

func (r *requests) Write(line []byte) (int, error) {
	if match := receivedForm.FindSubmatch(line); match != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.count == nil {
			r.count = map[string]int{}
		}
		r.count[string(match[1])]++
	}
	return len(line), nil
}

// Requests returns how many requests this machine has made, by their names in
// the protocol, such as LOOKUP. Left out are those that nobody waits for: FORGET,
// and INTERRUPT, which any signal brings about. Nothing is counted unless
// Server.CountRequests was set.
func (m *Machine) Requests() map[string]int {
	m.requests.mu.Lock()
	defer m.requests.mu.Unlock()
	count := maps.Clone(m.requests.count)
	delete(count, "FORGET")
	delete(count, "BATCH_FORGET")
	delete(count, "INTERRUPT")
	return count
}
