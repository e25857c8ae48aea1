// Package fetch downloads the archive of a release from a repository in GitHub's
// layout, on GitHub or on any mirror. A Source says where and how; a Download is
// one archive on its way, by several connections, which another attempt can go on
// with.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"time"
)

// Each error of this package that comes from a server is one of the first four,
// or unpack.ErrNotArchive: a page where a file should be.
var (
	// ErrUnreachable: no answer, a server error, a rate limit, or a stream that
	// broke off and could not be taken up again. It may be better later.
	ErrUnreachable = errors.New("release source is unreachable")
	// ErrNotFound: the source says that there is no such release.
	ErrNotFound = errors.New("release not found")
	// ErrUnauthorized: the source wants a token, or another one.
	ErrUnauthorized = errors.New("release source refuses access")
	// ErrTooLarge: the archive is larger than Source.MaxBytes.
	ErrTooLarge = errors.New("release is too large")
	// ErrNoDigest: there is no usable digest beside the archive. It is an
	// ErrUnauthorized, too, if the archive is refused as well.
	ErrNoDigest = errors.New("release has no digest")
	// ErrChanged: the server has another archive than at the beginning. It is an
	// ErrUnreachable, too.
	ErrChanged = errors.New("the archive changed while it was read")
)

// Policy says how patient a Source is.
type Policy struct {
	// Attempts is how often a request is made, and how often in a row a broken
	// stream is taken up again without receiving more than Rate would in Stall.
	Attempts int
	// Pause is the time before the second attempt; it doubles each time.
	Pause time.Duration
	// Stall is how long a transfer may stay silent, or slower than Rate.
	Stall time.Duration
	// Rate is the slowest a transfer may be, in bytes a second over Stall.
	Rate int64
	// Total is how long an archive may take; 0 leaves that to the context.
	Total time.Duration
}

// DefaultPolicy rides out the restart of a server (0.5+1+2+4 s). Longer outages
// are for the caller, who tells people about them. Below 1 kB/s a release would
// take a week: another connection may get a better server. Six hours suffice for
// 1 GB at 50 kB/s.
var DefaultPolicy = Policy{Attempts: 5, Pause: 500 * time.Millisecond, Stall: 30 * time.Second, Rate: 1000, Total: 6 * time.Hour}

const (
	// DefaultConnections: one connection seldom fills a long line, and more than
	// a handful is what servers begin to refuse.
	DefaultConnections = 4
	// DefaultChunk is a second at 128 Mbit/s. A release has about 50, so that the
	// requests themselves cost nothing.
	DefaultChunk = 16 << 20
)

// NewClient limits each step of a request, but not its whole length: a release
// may take an hour on a slow line. Proxies come from the environment.
func NewClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy:       http.ProxyFromEnvironment,
		DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		// HTTP/2 would put all ranges of an archive on one connection: no gain
		// from several, and its flow control as one more limit.
		ForceAttemptHTTP2:     false,
		MaxIdleConnsPerHost:   16,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 30 * time.Second,
		IdleConnTimeout:       30 * time.Second,
		ReadBufferSize:        256 << 10,
	}}
}

// Source is a repository, and how it is asked.
type Source struct {
	// URL is that of the repository, such as https://github.com/OWNER/REPOSITORY.
	URL string
	// Archive returns the path of an archive below URL. The architecture is one of
	// Go's names, such as "arm64".
	Archive func(version, arch string) string
	Client  *http.Client
	Policy  Policy
	// Token goes with requests to the host of URL as "Authorization: Bearer", for
	// GitHub's also to that of its API, and to no other host, wherever a request is
	// redirected to.
	Token string
	// Connections is how many ranges are fetched at a time; 0 is
	// DefaultConnections.
	Connections int
	// Chunk is the length of a range in bytes; 0 is DefaultChunk.
	Chunk int64
	// MaxBytes is how long an archive may be; 0 is without a bound.
	MaxBytes int64
}

// Validate returns an error, which is one sentence, for a Source that nothing can
// be fetched from. A URL that is none is an ErrUnreachable.
func (s Source) Validate() error {
	for _, v := range []struct {
		name             string
		value, low, high int64
	}{
		{"connections", int64(s.Connections), 0, 64},
		{"bytes of a chunk", s.Chunk, 0, 1 << 40},
		{"largest archive in bytes", s.MaxBytes, 0, 1 << 62},
		{"attempts", int64(s.Policy.Attempts), 1, 20},
		{"pause in ns", int64(s.Policy.Pause), 0, int64(time.Hour)},
		{"stall in ns", int64(s.Policy.Stall), 1, int64(24 * time.Hour)},
		{"rate in bytes a second", s.Policy.Rate, 0, 1 << 40},
		{"total in ns", int64(s.Policy.Total), 0, 1 << 62},
	} {
		if v.value < v.low || v.value > v.high {
			return fmt.Errorf("%s must be between %d and %d, not %d", v.name, v.low, v.high, v.value)
		}
	}
	if s.Client == nil || s.Archive == nil {
		return errors.New("a source needs a client and the paths of archives")
	}
	u, err := url.Parse(s.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("%w: %q is not of the form https://HOST/OWNER/REPOSITORY", ErrUnreachable, redact(s.URL))
	}
	return nil
}

// ArchiveURL returns where a release's archive for this machine is.
func (s Source) ArchiveURL(version string) string {
	return strings.TrimSuffix(s.URL, "/") + "/" + strings.TrimPrefix(s.Archive(version, runtime.GOARCH), "/")
}

// Digest reads the side file .sha256 of the archive, else .sha1.
func (s Source) Digest(ctx context.Context, version string) (Digest, error) {
	if err := s.Validate(); err != nil {
		return Digest{}, err
	}
	archive := s.ArchiveURL(version)
	var answers []string
	for _, algorithm := range []string{"sha256", "sha1"} {
		text, err := s.readFile(ctx, archive+"."+algorithm)
		if status, ok := errors.AsType[*statusError](err); ok && status.refused {
			answers = append(answers, fmt.Sprintf(".%s: %s", algorithm, status))
			continue
		}
		if err != nil {
			return Digest{}, err
		}
		sum, _, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
		d, err := ParseDigest(algorithm + ":" + sum)
		if err != nil {
			return Digest{}, fmt.Errorf("%s: %w: the file holds no %s sum", redact(archive+"."+algorithm), ErrNoDigest, algorithm)
		}
		return d, nil
	}
	none := fmt.Errorf("%w: %s", ErrNoDigest, strings.Join(answers, ", "))
	// Without this question a release that does not exist, or is not for everybody,
	// would look like one that was published carelessly.
	_, err := s.Fingerprint(ctx, version)
	switch {
	case errors.Is(err, ErrUnauthorized):
		// Unless it is HEAD that the server refuses: then the archive may be had.
		return Digest{}, fmt.Errorf("%w; %w", err, none)
	case err == nil || refuses(err):
		return Digest{}, fmt.Errorf("%s: %w", redact(archive), none)
	}
	return Digest{}, err
}
