package coordinator

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http/httptest"
	"path"
	"runtime"
)

// Releases serves small releases of a product to the examples.
func Releases(p Product, versions ...string) *httptest.Server {
	s := &source{files: map[string][]byte{}}
	for _, v := range versions {
		members := []member{}
		for _, name := range p.Executables {
			members = append(members, member{name: path.Join(p.Top, name), mode: 0o755, body: "#!/bin/sh\necho " + v + "\n"})
		}
		archive, name := tarball(members...), path.Base(p.Archive(v, runtime.GOARCH))
		sum := sha256.Sum256(archive)
		s.files[name] = archive
		s.files[name+".sha256"] = []byte(hex.EncodeToString(sum[:]) + "\n")
	}
	s.Server = httptest.NewServer(s)
	return s.Server
}
