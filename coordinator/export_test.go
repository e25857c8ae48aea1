package coordinator

import (
	"net/http/httptest"
)

// Releases serves releases to the examples.
func Releases(versions ...string) *httptest.Server {
	s := &source{files: map[string][]byte{}}
	for _, v := range versions {
		s.publish(v, releaseArchive(v, 1<<10))
	}
	s.Server = httptest.NewServer(s)
	return s.Server
}
