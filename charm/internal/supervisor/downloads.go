package supervisor

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/options"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
)

// downloads makes the requests for releases. It goes by the proxies of the spec and trusts
// whom the machine trusts, as both are at each request: Go reads the one and the other once
// in the life of a process.
type downloads struct {
	bundle string // file with the certificates that the machine trusts
	proxy  atomic.Pointer[func(*url.URL) (*url.URL, error)]

	mu        sync.Mutex
	written   time.Time // when the bundle was, that transport trusts
	transport *http.Transport
}

func newDownloads(m Machine) *downloads {
	return &downloads{bundle: filepath.Join(m.Certificates, bundle)}
}

func (d *downloads) client() *http.Client { return &http.Client{Transport: d} }

// use has later requests go by other proxies; without any, by those of the environment.
func (d *downloads) use(p options.Proxies) {
	config := httpproxy.FromEnvironment()
	if p != (options.Proxies{}) {
		config = &httpproxy.Config{HTTPProxy: p.HTTP, HTTPSProxy: p.HTTPS, NoProxy: p.No}
	}
	proxy := config.ProxyFunc()
	d.proxy.Store(&proxy)
}

func (d *downloads) RoundTrip(r *http.Request) (*http.Response, error) {
	return d.current().RoundTrip(r)
}

func (d *downloads) current() *http.Transport {
	d.mu.Lock()
	defer d.mu.Unlock()
	info, err := os.Stat(d.bundle)
	if d.transport != nil && (err != nil || info.ModTime().Equal(d.written)) {
		return d.transport
	}
	if d.transport != nil {
		d.transport.CloseIdleConnections()
	}
	d.transport = coordinator.NewTransport()
	d.transport.Proxy = func(r *http.Request) (*url.URL, error) { return (*d.proxy.Load())(r.URL) }
	roots := x509.NewCertPool()
	if err == nil {
		d.written = info.ModTime()
	}
	if pem, err := os.ReadFile(d.bundle); err == nil && roots.AppendCertsFromPEM(pem) {
		d.transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	}
	return d.transport
}
